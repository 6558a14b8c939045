"""Which tokens of a vocabulary may stand in a prompt: one rule for gradients, projection and proposals."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Preset = Literal["any", "ascii", "readable"]


@dataclass(frozen=True)
class TokenPolicy:
    """What tokens of a slot may be. Special, added, unused, control and byte-fragment tokens never may.

    Attributes:
        preset: ``any``: all that some text is cut into; ``ascii``: of these, printable ASCII only; ``readable``:
            tokens that are read back as words between spaces, in ASCII or any other script: letters, an apostrophe
            or a hyphen inside at most. Whether such a word is in a dictionary (``great``, ``signific``) no
            vocabulary says.
        matching: a regular expression that a token's text, spaces off, must match in full; empty: no such
            restriction. It is how a script or a language is chosen.
        ban: words that are kept out, whatever their case, and whatever begins with them (``good``, ``goodness``).
        scripts: writing systems (``LATIN``, ``CYRILLIC``, ``CJK``: see ``scripts_of``) that letters may be of; empty: all.
        answers: the label words; a token that is one of them, a form or a part of one tells the answer away.
    """

    preset: Preset = "readable"
    matching: str = ""
    ban: tuple[str, ...] = ()
    scripts: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


def scripts_of(texts: Iterable[str]) -> frozenset[str]:
    """The writing systems of the letters in some texts, by the first word of their names in Unicode."""
    return frozenset(_script(letter) for letter in set().union(*texts) if letter.isalpha())


@functools.lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").split()[0]
