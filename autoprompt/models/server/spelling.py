"""Which of a text's tokens belong to the answer at its end.

Servers write tokens in many ways: with their spaces, with marks for them (``▁``, ``Ġ``), or without any, parts of
characters as ``<0xE2>``, as ``bytes:`` and a code or as a replacement character; and some count special tokens into the
offsets they give. So the tokens are read from the end of the text backwards, spaces aside, until they spell the answer:
that needs no offsets, and what does not spell it is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from autoprompt.models.server.wire import Garbled

_BLANK = re.compile(r"[\s▁ĠĊĉ]+")
_PART = re.compile("\ufffd|<0x[0-9A-Fa-f]{2}>|^bytes:")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+\Z")


def answer_start(tokens: Sequence[str], before: str, answer: str) -> int:
    """Index of the first token of ``answer`` in the tokens of ``before + answer``.

    A token that straddles the border belongs to the answer, as do tokens of spaces the answer begins with.

    Raises:
        Garbled: the tokens do not spell the text, or do not tell where the answer begins.
    """
    left = squeezed(answer)
    at = len(tokens)
    while left:
        at -= 1
        if at < 0:
            raise Garbled("the tokens the server returned are fewer than the text that was sent")
        token = squeezed(tokens[at])
        if _PART.search(tokens[at]):  # a part of a character: with its neighbours it spells what is not ASCII
            while at > 0 and _PART.search(tokens[at - 1]):
                at -= 1
            left = _BEYOND_ASCII.sub("", left)
            if not left and _BEYOND_ASCII.search(squeezed(before)):
                raise Garbled("the server's tokens do not tell where the answer begins")
        elif left.endswith(token):
            left = left[: len(left) - len(token)]
        elif token.endswith(left):
            left = ""
        else:
            raise Garbled(
                f"the tokens the server returned do not spell the text that was sent: {tokens[at]!r} at the end of "
                f"{left[-40:]!r}"
            )
    blank = at > 1 and bool(tokens[at - 1]) and not squeezed(tokens[at - 1])
    return at - 1 if blank and answer[:1] == " " else at


def spells(tokens: Sequence[str], text: str) -> bool:
    """Whether the tokens end as the text does, as far back as is sure: 60 characters, or the last that are ASCII."""
    said, wanted = squeezed("".join(tokens[-120:])), squeezed(text)[-60:]
    tail = re.search(r"[\x00-\x7f]*\Z", wanted)
    return bool(wanted) and (said.endswith(wanted) or bool(tail and tail[0] and said.endswith(tail[0])))


def common_start(wholes: Sequence[Sequence[str]], starts: Sequence[int]) -> int:
    """Where all answers are scored from: the first place at which any of them begins, or at which they differ.

    A token that merges over the border is then part of every answer, and all are conditioned on the same tokens.
    """
    start = min(starts)
    first = wholes[0]
    for whole in wholes[1:]:
        while first[:start] != whole[:start]:
            start -= 1
    return start


def squeezed(text: str) -> str:
    """The text without spaces and the marks that stand for them."""
    return _BLANK.sub("", text)
