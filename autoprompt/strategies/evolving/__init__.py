"""Parts of the searches that change prompts bit by bit: how they change, and which of them live on."""
