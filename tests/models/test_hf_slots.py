"""Slots are found in the tokens of the whole text, and what cannot be found is refused with a next step."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import transformers

from autoprompt.errors import MissingCapability, TemplateError
from autoprompt.models import Kind
from autoprompt.models.hf.encoded import Encoded, Read
from autoprompt.models.hf.slots import (
    SlotFinder,
    Slotted,
    SlottedText,
    SlotTokens,
    batch_of,
    check_standing,
    shared_ids,
)
from autoprompt.models.hf.tokens import Tokens
from autoprompt.prompt import Piece, Rendered
from tests.models.tiny import make_tokenizer


def finder(tokenizer: Any, kind: Kind = "causal", *, chat: bool = False) -> SlotFinder:
    return SlotFinder(Tokens(tokenizer, chat=chat), kind, name="tiny")


def text(*parts: str | Piece, after: Sequence[str | Piece] = ()) -> Rendered:
    def pieces(some: Sequence[str | Piece]) -> tuple[Piece, ...]:
        return tuple(Piece(part) if isinstance(part, str) else part for part in some)

    return Rendered(pieces(parts), pieces(after))


def slot(words: str, name: str = "words") -> Piece:
    return Piece(words, slot=name)


def found(kind: str, rendered: Rendered, reads: Kind = "causal") -> dict[str, list[str]]:
    """The tokens of each slot, as the vocabulary writes them."""
    tokenizer = make_tokenizer(kind)
    (one,) = finder(tokenizer, reads).find([rendered])
    for each in one.slots.values():
        assert each.ids == tuple(one.ids[at] for at in each.at)
        assert each.at == tuple(range(each.at[0], each.at[-1] + 1))
    return {name: tokenizer.convert_ids_to_tokens(list(each.ids)) for name, each in one.slots.items()}


BYTES = [
    (text(slot("great book"), " film"), ["great", "Ġbook"]),
    (text("It was ", slot("great book"), ". It was "), ["Ġgreat", "Ġbook"]),
    (text("It was", slot(" great book"), "."), ["Ġgreat", "Ġbook"]),
    (text("It was.\n", slot("great"), "\n"), ["great"]),
    (text("It was ", slot("great "), "film."), ["Ġgreat"]),  # its last space goes with the next word
    (text("It was ", slot("great book")), ["Ġgreat", "Ġbook"]),
    (text("It was ", slot("great book "), " "), ["Ġgreat", "Ġbook"]),  # cut off: it goes with the answer
    (text("It was ", slot("é"), "."), ["Ã", "©"]),
    (text("It was ", slot("great  book"), "."), ["Ġgreat", "Ġ", "Ġbook"]),
    (text("It was ", slot("\n\n"), "great"), ["Ċ", "Ċ"]),
]
PIECES = [
    (text(slot("great book"), " film"), ["▁great", "▁book"]),
    (text("It was ", slot("great book"), "."), ["▁great", "▁book"]),
    (text("It was ", slot("the film"), "."), ["th", "e", "▁", "f", "i", "l", "m"]),  # the first "▁" is plain
    (text("It was ", slot("qzx"), " book"), ["<unk>"]),
]
WORDS = [
    (text(slot("great book"), " film"), ["great", "book"]),
    (text("It was ", slot("Great Book"), "."), ["great", "book"]),
    (text("It was ", slot("great "), "film."), ["great"]),
    (text("It was ", after=[". ", slot("great book"), " film"]), ["great", "book"]),
    (text("It was ", after=[slot(" great")]), ["great"]),
    (text("It was ", slot("great "), after=["."]), ["great"]),
]


@pytest.mark.parametrize(("rendered", "expected"), BYTES)
def test_byte_level(rendered: Rendered, expected: list[str]) -> None:
    assert found("bytes", rendered) == {"words": expected}
    assert found("bytes+bos", rendered) == {"words": expected}


@pytest.mark.parametrize(("rendered", "expected"), PIECES)
def test_sentence_pieces(rendered: Rendered, expected: list[str]) -> None:
    assert found("pieces+bos", rendered) == {"words": expected}
    assert found("pieces+eos", rendered, "seq2seq") == {"words": expected}
    assert found("pieces+mask", rendered, "masked") == {"words": expected}


@pytest.mark.parametrize(("rendered", "expected"), WORDS)
def test_words_around_a_mask(rendered: Rendered, expected: list[str]) -> None:
    assert found("words", rendered, "masked") == {"words": expected}


def test_a_mask_takes_the_space_before_it() -> None:
    rendered = text("It was ", slot("great "), after=[slot(" book", "last"), "."])
    assert found("bytes+mask", rendered, "masked") == {"words": ["Ġgreat"], "last": ["Ġbook"]}


def test_two_slots_side_by_side() -> None:
    rendered = text("It was", slot(" great", "one"), slot(" book", "two"), ".")
    assert found("bytes", rendered) == {"one": ["Ġgreat"], "two": ["Ġbook"]}


def test_many_texts_at_once() -> None:
    """Each has its own positions, special tokens counted, and all have the same ids."""
    tokenizer = make_tokenizer("bytes+bos")
    texts = [
        text(Piece(field, is_field=True), "\n", slot("great book"), ".") for field in ("It", "It was bad")
    ]
    one, other = finder(tokenizer).find(texts)
    assert one.ids == tuple(tokenizer("It\ngreat book.").input_ids)
    assert one.slots["words"].at == (3, 4)
    assert other.slots["words"].at == (5, 6)
    (ids,) = shared_ids([one, other]).values()
    assert tokenizer.convert_ids_to_tokens(list(ids)) == ["great", "Ġbook"]


TRIMMED = "{% for m in messages %}<user> {{ m['content'] | trim }}\n{% endfor %}<assistant>\n"
PLAIN = "{% for m in messages %}<user> {{ m['content'] }}\n{% endfor %}<assistant>\n"


@pytest.mark.parametrize("template", [TRIMMED, PLAIN])
@pytest.mark.parametrize("start", ["", "  ", "\n"])
def test_chat(template: str, start: str) -> None:
    tokenizer = copy.deepcopy(make_tokenizer("bytes"))
    tokenizer.chat_template = template
    rendered = text(start, "It was ", slot("great book"), " ", slot("bad", "last"), " \n ")
    (one,) = finder(tokenizer, chat=True).find([rendered])
    tokens = {name: tokenizer.convert_ids_to_tokens(list(each.ids)) for name, each in one.slots.items()}
    assert tokens == {"words": ["Ġgreat", "Ġbook"], "last": ["Ġbad"]}


def test_chat_that_rewrites_the_message() -> None:
    tokenizer = copy.deepcopy(make_tokenizer("bytes"))
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"
    with pytest.raises(TemplateError, match="rewrites the message"):
        finder(tokenizer, chat=True).find([text("It was ", slot("great"))])


@pytest.mark.parametrize(
    ("rendered", "message"),
    [
        (text("It was ", slot("gre"), "at."), r"token 'Ġgreat'.*covers ' great'.*only partly.*'gre'"),
        (text("It was gre", slot("at"), "."), r"token 'Ġgreat'.*only partly"),
        (text("It was ", slot("gre", "one"), slot("at", "two")), r"slot 'one': the token 'Ġgreat'"),
        (text("It was ", slot(""), "."), r"slot 'words': its text '' is no token"),
        (text("It was ", slot("  ")), r"is no token of its own"),
        (
            text("It was ", slot("great"), " and ", slot("great")),
            r"'words' stands in the text more than once",
        ),
        (text("It was ", after=[slot("great")]), r"stands after \{\{ answer \}\}"),
        (text("It was great"), r"there is no slot"),
    ],
)
def test_errors_teach(rendered: Rendered, message: str) -> None:
    with pytest.raises(TemplateError, match=message) as caught:
        finder(make_tokenizer("bytes")).find([rendered])
    assert caught.value.hint


def test_a_slot_on_both_sides_of_the_mask() -> None:
    rendered = text("It was ", slot("great "), after=[slot(" great")])
    with pytest.raises(TemplateError, match="more than once"):
        finder(make_tokenizer("words"), "masked").find([rendered])


def test_other_tokens_or_other_slots_in_another_text() -> None:
    find = finder(make_tokenizer("bytes")).find
    with pytest.raises(TemplateError, match="read as other tokens in another text"):
        shared_ids(find([text("It was ", slot("great")), text("It was\n", slot("great"))]))
    with pytest.raises(TemplateError, match="'last' stands in some of the texts but not in all"):
        shared_ids(find([text(slot("great")), text(slot("great"), slot(" book", "last"))]))


def test_tokenizers_without_offsets() -> None:
    with pytest.raises(MissingCapability, match="which characters a token covers") as caught:
        finder(transformers.ByT5Tokenizer(), "seq2seq").find([text(slot("great"))])
    assert "fast tokenizer" in caught.value.hint


def test_what_is_run_must_hold_the_slot_as_it_was_found() -> None:
    one = SlottedText((5, 6, 7), {"words": SlotTokens((1, 2), (6, 7))})
    good = Encoded(((5, 6, 7, 8),), (Read(0, 2, (8, 9)),), 5)
    check_standing(one, good, "causal")
    check_standing(one, Encoded(((0,),), (Read(0, 0, (9,)),), 1, source=(5, 6, 7, 1)), "seq2seq")
    check_standing(one, Encoded(((5, 6, 7),), (Read(0, 0, (9,)),), 3), "masked")
    for other in (
        Encoded(((5, 6, 7),), (Read(0, 2, (8,)), Read(0, 1, (7,))), 4),
        Encoded(((0, 5, 6, 7),), (Read(0, 3, (8,)),), 5),
        Encoded(((5, 6),), (Read(0, 1, (8,)),), 3),
    ):
        with pytest.raises(TemplateError, match="merges with an answer"):
            check_standing(one, other, "causal")


SIZE = 100  # rows of a table


def test_a_batch_runs_each_source_once() -> None:
    rows = ((0,), (0, 4))
    reads = (Read(0, 0, (4,)), Read(1, 0, (4, 5)))
    same = Encoded(rows, reads, 3, source=(7, 8, 9))
    batch = batch_of([Slotted(same, (1,), (0,), False), Slotted(same, (1,), (1,), False)], SIZE)
    assert batch.sources == ((7, SIZE, 9),)
    assert batch.rows == rows * 2
    assert batch.source_of == (0, 0, 0, 0)
    assert batch.places == ((0, 0), (1, 0), (1, 1), (2, 0), (3, 0), (3, 1))
    apart = batch_of([Slotted(same, (1,), (0,), False), Slotted(same, (2,), (0,), False)], SIZE)
    assert apart.sources == ((7, SIZE, 9), (7, 8, SIZE))
    assert apart.source_of == (0, 0, 1, 1)


def test_a_batch_without_encoder_has_a_slot_in_every_row() -> None:
    several = Encoded(((5, 6, 7), (5, 6, 8)), (Read(0, 1, (7, 9)), Read(1, 1, (8, 9))), 4)
    batch = batch_of([Slotted(several, (0, 1), (0,), False), Slotted(several, (1,), first=4)], SIZE)
    assert batch.sources == ()
    assert batch.source_of == ()
    assert batch.rows == (
        (SIZE, SIZE + 1, 7),
        (SIZE, SIZE + 1, 8),
        (5, SIZE + 4, 7),
        (5, SIZE + 4, 8),
    )
    assert batch.places == ((0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2))
