"""Answers put together from what was seen once are cut up as the tokenizer cuts the whole text."""

from __future__ import annotations

import itertools

import pytest

from autoprompt.models.hf.endings import Endings
from autoprompt.models.hf.tokens import Place, Tokens
from tests.models.tiny import make_tokenizer

BEGINNINGS = [
    "",
    "The film was great. ",
    "It was (really) bad: ",
    "a slow dog\n\n",
    "Paris is  the capital, ",
]
ENDS = ["It was", "Sentiment:", "\nAnswer:\n", "(", "is it good or", "x", "great"]
WORDS = ["good", "greatly bad", "terrible", "s", "!"]


@pytest.mark.parametrize("kind", ["bytes", "bytes+bos", "bytes+mask", "pieces+bos", "pieces+eos", "words"])
def test_as_the_whole_text_is_cut(kind: str) -> None:
    tokens = Tokens(make_tokenizer(kind))
    endings = Endings(tokens)
    asked = [
        (Place(before, gap, ""), word)
        for start, end, gap, word in itertools.product(BEGINNINGS, ENDS, ("", " "), WORDS)
        for before in (start + end, "the people loved it, " * 20 + start + end)
    ]
    contexts = tokens.open_ended([place.before for place, _ in asked])
    expected = tokens.open_ended([place.before + place.gap + word for place, word in asked])
    for _ in range(2):  # the second time everything is known
        found = endings.wholes(
            [(place, context, word) for (place, word), context in zip(asked, contexts, strict=True)]
        )
        assert found == expected
    assert len(endings._known) < len(asked)
