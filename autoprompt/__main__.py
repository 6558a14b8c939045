"""``python -m autoprompt`` is the ``autoprompt`` command."""

from autoprompt.cli import main

if __name__ == "__main__":
    main()
