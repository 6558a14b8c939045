"""Parts of the searches that decide which of two prompts is the better one."""
