"""Which tokens of a vocabulary may stand in a prompt: one rule for gradients, projection and proposals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Preset = Literal["any", "ascii", "readable"]


@dataclass(frozen=True)
class TokenPolicy:
    """What tokens of a slot may be. Special, added, unused, control and byte-fragment tokens never may.

    Attributes:
        preset: ``any``; ``ascii``: printable ASCII only; ``readable``: whole words that start a word, in ASCII or
            any other script, no digits, no punctuation.
        matching: a regular expression that a token's text, spaces off, must match in full; empty: no such
            restriction. It is how a script or a language is chosen.
        ban: words that are kept out, whatever their case, and whatever begins with them (``good``, ``goodness``).
        answers: the label words; a token that is one of them, a form or a part of one tells the answer away.
    """

    preset: Preset = "readable"
    matching: str = ""
    ban: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
