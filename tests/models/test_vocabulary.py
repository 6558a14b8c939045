"""Which tokens may stand in a slot, over tokenizers of many families: trained here, bundled, and of ../shared."""

from __future__ import annotations

import copy
import functools
import random
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from tokenizers import AddedToken

from autoprompt.errors import InputError, MissingCapability, TemplateError, UnknownName
from autoprompt.models import Kind, bundled
from autoprompt.models.hf.input_table import InputTable
from autoprompt.models.hf.slots import SlotFinder
from autoprompt.models.hf.tokens import Tokens
from autoprompt.models.hf.vocabulary import HuggingFaceVocabulary
from autoprompt.policy import Preset, TokenPolicy, scripts_of
from autoprompt.prompt import Piece, Rendered
from tests.models.families import TRAINED
from tests.models.tiny import make_tokenizer, shared_model

PRESETS: tuple[Preset, ...] = ("any", "ascii", "readable")
PADDING = 7


class Embeddings(torch.nn.Module):
    """As much of a model as an ``InputTable`` needs."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(len(weight), weight.shape[1], _weight=weight)

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.table


def vocabulary_of(
    tokenizer: Any, *, size: int = 0, weight: torch.Tensor | None = None
) -> HuggingFaceVocabulary:
    """The vocabulary of a model with that tokenizer; its table is padded unless ``size`` says otherwise."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(size or len(tokenizer) + PADDING, 4, generator=draw) if weight is None else weight
    kind: Kind = "causal" if tokenizer.mask_token is None else "masked"
    tokens = Tokens(tokenizer)
    table = InputTable(Embeddings(rows), kind, name="tiny")
    return HuggingFaceVocabulary(tokens, SlotFinder(tokens, kind, name="tiny"), table, name="tiny")


REAL = ("bundled:masked", "bundled:causal", "stories260k", "stories3m")


@functools.cache
def real_tokenizer(name: str) -> Any:
    if not name.startswith("bundled:"):
        return hf.AutoTokenizer.from_pretrained(shared_model(name))
    if name.removeprefix("bundled:") not in bundled.names():
        pytest.skip(f"{name} is not in this installation")
    return hf.AutoTokenizer.from_pretrained(Path(bundled.folder(name.removeprefix("bundled:"))))


@functools.cache
def vocabulary(name: str) -> HuggingFaceVocabulary:
    return vocabulary_of(tokenizer(name))


@functools.cache
def tokenizer(name: str) -> Any:
    return TRAINED[name]() if name in TRAINED else real_tokenizer(name)


def chosen(of: HuggingFaceVocabulary, policy: TokenPolicy) -> list[int]:
    return [int(each) for each in np.flatnonzero(of.allowed(policy))]


def entries(name: str, policy: TokenPolicy) -> set[str]:
    """The allowed tokens as the vocabulary writes them."""
    return set(tokenizer(name).convert_ids_to_tokens(chosen(vocabulary(name), policy)))


def in_text(words: str) -> Rendered:
    return Rendered((Piece("The film. It was "), Piece(words, slot="words"), Piece(" . It was ")))


def strings(ids: Sequence[int], count: int = 300, length: int = 5) -> list[tuple[int, ...]]:
    draw = random.Random(0)
    return [tuple(draw.choices(ids, k=length)) for _ in range(count)]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", [*TRAINED, *REAL])
def test_what_never_may_stand_in_a_slot(name: str, preset: Preset) -> None:
    known, of = tokenizer(name), vocabulary(name)
    mask = of.allowed(TokenPolicy(preset))
    assert mask.shape == (of.size,) == (len(known) + PADDING,)
    assert mask.dtype == np.bool_
    assert not mask[len(known) :].any()
    assert not mask[[*known.all_special_ids, *known.added_tokens_decoder]].any()
    for each, entry in zip(chosen(of, TokenPolicy(preset)), entries_in_order(name, preset), strict=True):
        text = of.text([each])
        assert text
        assert "\ufffd" not in text
        assert not any(unicodedata.category(letter)[0] in "CZ" for letter in text.replace(" ", ""))
        assert not entry.startswith(("<0x", "[unused", "<|"))
        if preset == "ascii":
            assert text.isascii()


def entries_in_order(name: str, preset: Preset) -> list[str]:
    return list(tokenizer(name).convert_ids_to_tokens(chosen(vocabulary(name), TokenPolicy(preset))))


@pytest.mark.parametrize("name", [*TRAINED, *REAL])
def test_readable_words_stand_as_one_token(name: str) -> None:
    """Each of them between words, and any five of them."""
    of = vocabulary(name)
    ids = chosen(of, TokenPolicy())
    assert len(ids) >= 8
    texts = [of.text([each]) for each in ids]
    assert all(text.replace("'", "").replace("-", "").isalpha() for text in texts)
    found = of.read([in_text(text) for text in texts])
    assert found == [{"words": (each,)} for each in ids]
    several = strings(ids)
    assert of.read([in_text(of.text(each)) for each in several]) == [{"words": each} for each in several]
    assert all(len(of.text(each).split(" ")) == 5 for each in several)


@pytest.mark.parametrize("name", [*TRAINED, *REAL])
def test_strings_of_any_tokens_are_often_read_back(name: str) -> None:
    """Not every string of them is: the search itself sees to that."""
    of = vocabulary(name)
    ids = chosen(of, TokenPolicy("any"))
    assert set(ids) >= set(chosen(of, TokenPolicy("ascii")))
    assert set(ids) >= set(chosen(of, TokenPolicy()))
    several = strings(ids)
    found = of.read([in_text(of.text(each)) for each in several])
    same = sum(each == {"words": given} for given, each in zip(several, found, strict=True))
    assert same > len(several) // 4


def test_continuations_may_stand_where_words_need_not_be_whole() -> None:
    assert any(entry.startswith("##") for entry in entries("words", TokenPolicy("ascii")))
    assert not any(entry.startswith("##") for entry in entries("words", TokenPolicy()))
    any_of_them = entries("bytes", TokenPolicy("any"))
    assert {"Ġgreat", "Ġ("} <= any_of_them
    assert any(entry.isascii() and entry.isalpha() and len(entry) > 1 for entry in any_of_them)
    readable = entries("bytes", TokenPolicy())
    assert "Ġgreat" in readable
    assert all(entry.startswith("Ġ") for entry in readable)


def test_words_that_end_in_a_space() -> None:
    """Its tokens reach over spaces: most are no words, and some words do not stand side by side."""
    known = hf.AutoTokenizer.from_pretrained(shared_model("tinystories-656k"))
    of = vocabulary_of(known)
    ids = chosen(of, TokenPolicy())
    assert {"big", "happy"} <= {of.text([each]) for each in ids}
    several = strings(ids)
    found = of.read(
        [Rendered((Piece("Tom , "), Piece(of.text(each), slot="words"), Piece(" , Tom"))) for each in several]
    )
    same = sum(each == {"words": given} for given, each in zip(several, found, strict=True))
    assert same >= 0.97 * len(several)


def test_a_model_of_letters_has_no_words() -> None:
    of = vocabulary_of(hf.AutoTokenizer.from_pretrained(shared_model("g2p-bart-us")))
    assert len(chosen(of, TokenPolicy("any"))) == 55  # letters and marks; not the three <extra_...>
    with pytest.raises(InputError, match="no token of its vocabulary is left by .*readable") as caught:
        of.allowed(TokenPolicy())
    assert "any" in caught.value.hint


def test_the_first_word_of_a_text_may_be_another_token_of_the_same_text() -> None:
    """Byte-level tokenizers write a space into a word's token; at a text's start there is none."""
    of = vocabulary("bytes")
    several = strings(chosen(of, TokenPolicy()))
    found = of.read([Rendered((Piece(of.text(each), slot="words"), Piece(" film"))) for each in several])
    kept = [
        (given, each["words"])
        for given, each in zip(several, found, strict=True)
        if each is not None and len(each["words"]) == len(given)
    ]
    assert kept
    for given, read in kept:
        assert read != given
        assert read[1:] == given[1:]
        assert of.text(read) == of.text(given)


def test_added_tokens_are_kept_out_flagged_or_not() -> None:
    known = copy.deepcopy(make_tokenizer("words"))
    word = known.convert_tokens_to_ids("great")
    assert vocabulary_of(known).allowed(TokenPolicy())[word]
    known.add_tokens([AddedToken("great", special=False), "splendid"])
    of = vocabulary_of(known)
    for preset in PRESETS:
        assert not of.allowed(TokenPolicy(preset))[[word, known.convert_tokens_to_ids("splendid")]].any()


def test_a_table_smaller_than_the_tokenizer() -> None:
    known = make_tokenizer("words")
    of = vocabulary_of(known, size=len(known) - 20)
    assert of.size == of.allowed(TokenPolicy("any")).shape[0] == len(known) - 20
    whole = vocabulary("words").allowed(TokenPolicy("any"))
    assert (of.allowed(TokenPolicy("any")) == whole[: of.size]).all()


def test_scripts() -> None:
    assert scripts_of(["été, ok?", "мир 1"]) == {"LATIN", "CYRILLIC"}
    assert scripts_of(["12 ...", ""]) == frozenset()
    of = vocabulary("pieces")
    every = {of.text([each]) for each in chosen(of, TokenPolicy())}
    latin = {of.text([each]) for each in chosen(of, TokenPolicy(scripts=("LATIN",)))}
    assert latin == {word for word in every if scripts_of([word]) == {"LATIN"}}
    assert latin < every


def test_matching() -> None:
    of = vocabulary("many_scripts")
    russian = {of.text([each]) for each in chosen(of, TokenPolicy(matching="[а-яё]+"))}
    assert {"очень", "фильм"} <= russian
    assert all(unicodedata.name(letter).startswith("CYRILLIC") for text in russian for letter in text)
    lower = {of.text([each]) for each in chosen(of, TokenPolicy(matching="[a-z]+"))}
    assert "great" in lower
    assert all(text.isascii() and text.islower() for text in lower)
    assert lower | russian < {of.text([each]) for each in chosen(of, TokenPolicy())}
    marks = {of.text([each]) for each in chosen(of, TokenPolicy("any", matching=r"\W+"))}
    assert marks
    assert not any(letter.isalnum() for text in marks for letter in text)


def test_ban() -> None:
    everything = vocabulary("whole_words")
    texts = {everything.text([each]) for each in chosen(everything, TokenPolicy())}
    left = {everything.text([each]) for each in chosen(everything, TokenPolicy(ban=("GOOD ", "re", "Pa")))}
    assert texts - left == {"good", "really", "Paris"} | {each for each in texts if each.startswith("Re")}
    assert "rain" in left


def test_answers_do_not_leak() -> None:
    of = vocabulary("many_scripts")
    labels = ("terrible", "great", "хороший")
    for preset in PRESETS:
        kept = chosen(of, TokenPolicy(preset, answers=labels))
        texts = {of.text([each]).casefold() for each in kept}
        assert not texts & {*labels, "terr", "хорош", "хорошие"}
        assert kept != chosen(of, TokenPolicy(preset))
    # pieces of label words that are no single token are no candidates, single letters are
    known = tokenizer("many_scripts")
    word = known.encode(" hater", add_special_tokens=False)
    assert len(word) > 1
    kept = chosen(of, TokenPolicy("any", answers=("hater",)))
    gone = set(chosen(of, TokenPolicy("any"))) - set(kept)
    assert {each for each in word if len(of.text([each])) > 1} <= gone
    assert not any(len(of.text([each])) == 1 for each in gone)
    assert {of.text([each]) for each in gone} >= {"hated"}


@pytest.mark.parametrize(
    ("policy", "error", "message"),
    [
        (TokenPolicy(matching="[a-z"), InputError, r"matching: '\[a-z' is no regular expression"),
        (TokenPolicy(ban=("good", " ")), InputError, "ban: a word to keep out is empty"),
        (TokenPolicy(matching="zzzz+"), InputError, "no token of its vocabulary is left"),
        (TokenPolicy("redable"), UnknownName, "no preset 'redable' .did you mean 'readable'"),  # type: ignore[arg-type]
    ],
)
def test_errors_teach(policy: TokenPolicy, error: type[InputError], message: str) -> None:
    with pytest.raises(error, match=message):
        vocabulary("words").allowed(policy)


def test_masks_are_remembered_and_cannot_be_changed() -> None:
    of = vocabulary("words")
    mask = of.allowed(TokenPolicy(ban=("good",)))
    assert of.allowed(TokenPolicy(ban=("good",))) is mask
    with pytest.raises(ValueError, match="read-only"):
        mask[0] = True


def test_text_is_not_cleaned_up() -> None:
    known = tokenizer("bert_with_unused")
    ids = known.convert_tokens_to_ids(["don", "'", "t", "watch", ".", "##t"])
    of = vocabulary("bert_with_unused")
    assert of.text(ids) == "don ' t watch .t"
    assert of.read([in_text("don ' t watch .")]) == [{"words": tuple(ids[:-1])}]
    assert vocabulary("bytes").text(tokenizer("bytes")("great .\n").input_ids) == "great ."


def test_reading_cuts_all_texts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    of, known = vocabulary("bytes"), tokenizer("bytes")
    calls = []
    original = type(known).__call__

    def counted(self: Any, texts: Any, *args: Any, **options: Any) -> Any:
        calls.append(len(texts))
        return original(self, texts, *args, **options)

    torn = Rendered((Piece("It was "), Piece("gre", slot="words"), Piece("at.")))
    empty = Rendered((Piece("It was "), Piece("", slot="words"), Piece(".")))
    monkeypatch.setattr(type(known), "__call__", counted)
    found = of.read([in_text("great"), torn, empty, in_text("great book")])
    assert calls == [4]
    great, book = known.convert_tokens_to_ids(["Ġgreat", "Ġbook"])
    assert found == [{"words": (great,)}, None, None, {"words": (great, book)}]
    assert of.read([]) == []
    with pytest.raises(TemplateError, match="no slot"):
        of.read([Rendered((Piece("It was great"),))])


def test_distances() -> None:
    draw = torch.Generator().manual_seed(1)
    weight = 100 + torch.randn(53, 6, generator=draw)  # far from the origin, near to each other
    weight[8] = weight[7]
    weight[9] = weight[7] + 1e-3
    of = vocabulary_of(make_tokenizer("words"), weight=weight)
    ids = [7, 0, 52, 7]
    rows = weight.double().numpy()
    naive = np.sqrt(((rows[ids][:, None] - rows[None]) ** 2).sum(-1))
    for block in (1, 10, 53, 8192):
        given = of.distances(ids, block=block)
        assert given.shape == (4, 53)
        assert given.dtype == np.float32
        np.testing.assert_allclose(given, naive, rtol=1e-5, atol=1e-7)
    assert given[0, 7] == given[0, 8] == 0
    half = vocabulary_of(make_tokenizer("words"), weight=weight.to(torch.bfloat16))
    assert half.distances([3]).dtype == np.float32


def test_tokenizers_without_offsets() -> None:
    of = vocabulary_of(hf.ByT5Tokenizer(), size=300)
    assert of.size == 300
    for ask in (lambda: of.allowed(TokenPolicy()), lambda: of.read([in_text("great")])):
        with pytest.raises(MissingCapability, match="which characters a token covers"):
            ask()
