"""The small language models that ship with the library, one folder each in Hugging Face format.

``bundled:NAME`` loads the folder ``NAME`` beside this file; a model card (README.md) in it says what it is
made of.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def names() -> list[str]:
    """Names of the models that are there, in order."""
    return sorted(path.parent.name for path in _HERE.glob("*/config.json"))


def folder(name: str) -> Path:
    """The folder of a bundled model (which need not exist: see ``names``)."""
    return _HERE / name
