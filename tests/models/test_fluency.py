"""Fluency equals a naive forward: one text at a time, no padding, all logits, log_softmax in double precision.

The naive way here finds the slot's tokens by their characters and uses nothing of the library.
"""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
import torch
import transformers

from autoprompt.errors import InputError, MissingCapability
from autoprompt.models import (
    Failure,
    FluencyReply,
    FluencyRequest,
    FluentModel,
    LabelRequest,
    SlotFluency,
    answer,
)
from autoprompt.models.hf.loading import load_pair
from autoprompt.models.hf.scoring import HuggingFaceModel
from autoprompt.models.hf.settings import Settings
from autoprompt.models.load import load_model
from autoprompt.prompt import Piece, Rendered
from tests.models.tiny import CAUSAL, LONG, MASKED, SEQ2SEQ, make_model

FIELDS = [
    "the film was great",
    "it",
    "a slow dog and a small cat, overall, and the people loved it in the rain",
]
LINE, OTHER = "good people walk", "Sentiment: was"
Naive = dict[str, list[tuple[int, torch.Tensor]]]
"""Slot to (token, [V] log-probabilities in its place) for each of its tokens."""


def slot(text: str = LINE, name: str = "words") -> Piece:
    return Piece(text, slot=name)


def rendered(layout: str, text: str = FIELDS[0]) -> Rendered:
    field, line = Piece(text, is_field=True), slot()
    before, after = {
        "front": ([line, Piece(" Review: "), field, Piece(". It was ")], []),
        "middle": ([Piece("Review: "), field, Piece(" "), line, Piece(". It was ")], []),
        "end": ([Piece("Review: "), field, Piece("\n"), line, Piece(" ")], []),
        "two": ([slot(OTHER, "first"), Piece("\n"), field, Piece(" "), line, Piece(" is ")], []),
        "around": ([slot(OTHER, "first"), Piece(" "), field, Piece(" is ")], [Piece(" "), line, Piece(".")]),
    }[layout]
    return Rendered(tuple(before), tuple(after))


def load(pair: tuple[Any, Any], **options: Any) -> HuggingFaceModel:
    ours = load_pair(*pair, Settings(**options))
    assert isinstance(ours, HuggingFaceModel)
    return ours


def one(model: HuggingFaceModel, text: Rendered, likely: int = 0) -> FluencyReply:
    (reply,) = model.fluency([FluencyRequest(text, likely)])
    assert isinstance(reply, FluencyReply), reply
    return reply


def places(tokenizer: Any, text: str) -> tuple[list[int], dict[str, list[int]]]:
    """The ids of a text, and the positions of the tokens that lie in the slots' texts."""
    encoded = tokenizer(text, return_offsets_mapping=True)
    found: dict[str, list[int]] = {}
    for name, words in (("first", OTHER), ("words", LINE)):
        start = text.find(words)
        for at, (begin, end) in enumerate(encoded["offset_mapping"]):
            middle = (begin + end) / 2 + 0.25  # a token may take the space before it along
            if start >= 0 and end > begin and start < middle < start + len(words):
                found.setdefault(name, []).append(at)
    return list(encoded["input_ids"]), found


def naive_causal(model: Any, tokenizer: Any, text: Rendered) -> Naive:
    ids, found = places(tokenizer, text.text().rstrip(" "))
    if min(min(at) for at in found.values()) == 0:
        ids = [tokenizer.bos_token_id, *ids]
        found = {name: [at + 1 for at in each] for name, each in found.items()}
    with torch.no_grad():
        logs = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), dim=-1)
    return {name: [(ids[at], logs[at - 1]) for at in each] for name, each in found.items()}


def naive_masked(model: Any, tokenizer: Any, text: Rendered) -> Naive:
    ids, found = places(tokenizer, text.text(tokenizer.mask_token))
    slots: Naive = {name: [] for name in found}
    for name, at in ((name, at) for name, each in found.items() for at in each):
        masked = [*ids[:at], tokenizer.mask_token_id, *ids[at + 1 :]]
        with torch.no_grad():
            logits = model(torch.tensor([masked])).logits[0, at].double()
        slots[name].append((ids[at], torch.log_softmax(logits, dim=-1)))
    return slots


def check(reply: FluencyReply | Failure, expected: Naive, likely: int) -> None:
    assert isinstance(reply, FluencyReply), reply
    assert reply.slots.keys() == expected.keys()
    for name, tokens in expected.items():
        mine = reply.slots[name]
        assert mine.ids == tuple(token for token, _ in tokens)
        assert len(mine.ids) >= 3
        assert mine.log_probs == pytest.approx([float(logs[token]) for token, logs in tokens], abs=1e-4)
        assert len(mine.likely) == len(mine.likely_log_probs) == len(mine.ids)
        for (_, logs), ids, values in zip(tokens, mine.likely, mine.likely_log_probs, strict=True):
            assert values == pytest.approx(torch.topk(logs, likely).values.tolist(), abs=1e-4)
            assert values == pytest.approx(logs[list(ids)].tolist(), abs=1e-4)
            assert len(set(ids)) == likely


@pytest.mark.parametrize("architecture", CAUSAL)
def test_causal(architecture: str) -> None:
    pair = make_model(architecture)
    texts = [rendered(*each) for each in itertools.product(("front", "middle", "end", "two"), FIELDS)]
    expected = [naive_causal(*pair, text) for text in texts]
    replies = load(pair).fluency([FluencyRequest(text, 3) for text in texts])
    for reply, values in zip(replies, expected, strict=True):
        check(reply, values, 3)
    firsts = {round(float(each["words"][0][1].max()), 3) for each in expected[3:]}
    assert len(firsts) > 6  # what stands before matters: a wrong position could not hide


@pytest.mark.parametrize("architecture", MASKED)
def test_masked(architecture: str) -> None:
    pair = make_model(architecture)
    texts = [rendered(*each) for each in itertools.product(("front", "middle", "around"), FIELDS[1:])]
    expected = [naive_masked(*pair, text) for text in texts]
    replies = load(pair).fluency([FluencyRequest(text, 3) for text in texts])
    for reply, values in zip(replies, expected, strict=True):
        check(reply, values, 3)
    assert len({round(float(each["words"][0][1].max()), 4) for each in expected}) == len(texts)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gpt_neo", "bert", "albert", "deberta-v2"])
def test_batches_do_not_change_it(architecture: str) -> None:
    pair = make_model(architecture)
    layouts = ("front", "middle", "around" if architecture in MASKED else "two")
    asked = [
        FluencyRequest(rendered(*each), at % 3)
        for at, each in enumerate(itertools.product(layouts, FIELDS[1:]))
    ]
    ours, other_way = load(pair), load(pair, batch_tokens=32, tree=architecture not in ("llama", "bert"))
    together, parted = ours.fluency(asked), other_way.fluency(asked)
    for request, reply, other in zip(asked, together, parted, strict=True):
        alone = one(ours, request.rendered, request.likely)
        for same in (reply, other):
            assert isinstance(same, FluencyReply)
            assert same.tokens == alone.tokens
            for name, each in alone.slots.items():
                mine = same.slots[name]
                assert (mine.ids, mine.likely) == (each.ids, each.likely)
                assert mine.log_probs == pytest.approx(each.log_probs, abs=2e-5)


@pytest.mark.parametrize("tree", [True, False])
def test_candidates_share_their_beginnings(tree: bool) -> None:
    """Each distinct beginning is read once, a text that begins another one included, and none is mixed up."""
    pair = make_model("gpt2")
    lines = [
        "good people walk",
        "good people",
        "good",
        "good people good",
        "bad people walk",
        "good people walk",
    ]
    texts = [Rendered((Piece("Review: "), slot(line), Piece("\nIt was "))) for line in lines]
    ours = load(pair, tree=tree)
    asked = [FluencyRequest(text, 1) for text in texts]
    encoded = ours._fluency.encode(asked)
    assert len(encoded[0].reads) > len(encoded[2].reads)
    rows, spots = ours._fluency._asked(encoded)
    beginnings = {tuple(each.rows[0][: read.start + 1]) for each in encoded for read in each.reads}
    assert {tuple(rows[line][1][: at + 1]) for line, at in spots} == beginnings
    assert len(spots) == len(beginnings) < sum(len(each.reads) for each in encoded)
    for text, reply in zip(texts, ours.fluency(asked), strict=True):
        assert isinstance(reply, FluencyReply)
        alone = one(ours, text, 1).slots["words"]
        assert reply.slots["words"].ids == alone.ids
        assert reply.slots["words"].log_probs == pytest.approx(alone.log_probs, abs=2e-5)
        assert reply.slots["words"].likely == alone.likely


def test_the_chain_rule_and_what_follows() -> None:
    """The sum is log P(slot | text before), whatever follows, and what follows is not read."""
    pair = make_model("llama")
    ours = load(pair)
    short = one(ours, Rendered((Piece("Review: it"), slot(" was good"))))
    long = one(
        ours, Rendered((Piece("Review: it"), slot(" was good"), Piece("\n" + FIELDS[2], is_field=True)))
    )
    assert long.slots["words"].log_probs == pytest.approx(short.slots["words"].log_probs, abs=1e-5)
    assert long.tokens == short.tokens
    (scored,) = ours.logprobs([LabelRequest(Rendered((Piece("Review: it "),)), ("was good",))])
    assert not isinstance(scored, Failure)
    assert math.fsum(short.slots["words"].log_probs) == pytest.approx(scored.log_probs[0], abs=1e-4)


def test_a_slot_that_opens_the_text() -> None:
    """Its first token is read after the token that begins texts, else the one that ends them, else not at all."""
    model, tokenizer = make_model("gpt2")
    text = rendered("front")
    with_bos = one(load((model, tokenizer)), text).slots["words"]
    ended = copy.deepcopy(tokenizer)
    ended.bos_token = None
    with_eos = one(load((model, ended)), text).slots["words"]
    assert len(with_eos.log_probs) == len(with_bos.log_probs) == len(with_bos.ids)
    (ids,) = torch.tensor([[tokenizer.eos_token_id, *with_bos.ids]])
    with torch.no_grad():
        logs = torch.log_softmax(model(ids[None]).logits[0].double(), dim=-1)
    expected = [float(logs[at, token]) for at, token in enumerate(ids[1:])]
    assert with_eos.log_probs == pytest.approx(expected, abs=1e-4)
    assert with_eos.log_probs != pytest.approx(with_bos.log_probs, abs=1e-2)

    none, bare = copy.deepcopy(ended), copy.deepcopy(model)
    none.eos_token = None
    bare.config.bos_token_id = None
    ours = load((bare, none))
    opening, later = ours.fluency([FluencyRequest(text), FluencyRequest(rendered("middle"))])
    assert isinstance(opening, Failure)
    assert "'words' opens the text" in opening.message
    assert "put some text before the slot" in opening.message
    assert isinstance(later, FluencyReply)


@pytest.mark.parametrize("architecture", ["gpt2", "bert"])
def test_a_slot_that_cannot_be_read_fails_alone(architecture: str) -> None:
    ours = load(make_model(architecture))
    asked = [
        FluencyRequest(rendered("middle")),
        FluencyRequest(Rendered((Piece("It was gr"), slot("eat"), Piece(".")))),
        FluencyRequest(Rendered((Piece("It was "), slot(""), Piece(".")))),
        FluencyRequest(Rendered((Piece("It was great"),))),
        FluencyRequest(Rendered((slot(), Piece(" and "), slot()))),
        FluencyRequest(rendered("front")),
    ]
    first, *failed, last = ours.fluency(asked)
    whole = [one(ours, asked[at].rendered) for at in (0, -1)]
    for reply, alone in zip((first, last), whole, strict=True):
        assert isinstance(reply, FluencyReply)
        assert reply.slots["words"].log_probs == pytest.approx(alone.slots["words"].log_probs, abs=2e-5)
    for reply, words in zip(failed, ("only partly", "no token", "no slot", "more than once"), strict=True):
        assert isinstance(reply, Failure)
        assert words in reply.message
    assert len(ours.count_tokens(asked)) == 6
    assert sorted(itertools.chain.from_iterable(ours.batches(asked))) == [*range(6)]
    (later,) = load(make_model("gpt2")).fluency([FluencyRequest(rendered("around"))])
    assert isinstance(later, Failure)
    assert "'words' stands after {{ answer }}" in later.message


@pytest.mark.parametrize("architecture", ["llama", "roberta"])
def test_tokens_are_those_that_are_run(architecture: str) -> None:
    pair = make_model(architecture)
    ours = load(pair, batch_tokens=64)
    asked = [FluencyRequest(rendered("middle", field)) for field in FIELDS]
    replies = answer(ours, [*asked, *asked[::-1]])
    counts = [reply.tokens for reply in replies if isinstance(reply, FluencyReply)]
    assert counts == ours.count_tokens([*asked, *asked[::-1]]) == counts[::-1]
    ids, found = places(pair[1], asked[0].rendered.text(pair[1].mask_token or ""))
    at = found["words"]
    assert counts[0] == (at[-1] if architecture == "llama" else len(at) * len(ids))
    batches = ours.batches(asked)
    assert sorted(itertools.chain.from_iterable(batches)) == [0, 1, 2]
    if architecture == "roberta":
        assert len(batches) > 1
    label = LabelRequest(asked[0].rendered, ("good",))
    assert ours.count_tokens([label, asked[0]])[1] == counts[0] != ours.count_tokens([label])[0]


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "bert"])
def test_shortened_as_scores_are(architecture: str) -> None:
    pair = make_model(architecture)
    whole, text = load(pair), rendered("middle", LONG)
    ours = load(pair, max_length=60)
    (reply, other) = ours.fluency([FluencyRequest(text), FluencyRequest(rendered("middle"))])
    assert isinstance(reply, FluencyReply)
    assert isinstance(other, FluencyReply)
    assert reply.shortened > 0
    assert other.shortened == 0
    left = next(  # the longest field that fits
        cut
        for cut in (rendered("middle", LONG[:end]) for end in range(len(LONG), 0, -1))
        if len(pair[1](cut.text(pair[1].mask_token or "").rstrip(" ")).input_ids) <= 60
    )
    expected = one(whole, left).slots["words"]
    assert reply.slots["words"].ids == expected.ids
    assert reply.slots["words"].log_probs == pytest.approx(expected.log_probs, abs=1e-4)
    (never,) = load(pair, max_length=8).fluency([FluencyRequest(text)])
    assert isinstance(never, Failure)
    assert "with its fields empty" in never.message


def test_likely_tokens() -> None:
    pair = make_model("gpt2")
    ours = load(pair)
    none, all_of = one(ours, rendered("middle")), one(ours, rendered("middle"), 10_000)
    assert none.slots["words"].likely == none.slots["words"].likely_log_probs == ()
    size = pair[0].config.vocab_size
    for ids, values in zip(all_of.slots["words"].likely, all_of.slots["words"].likely_log_probs, strict=True):
        assert sorted(ids) == [*range(size)]
        assert list(values) == sorted(values, reverse=True)
        assert math.fsum(map(math.exp, values)) == pytest.approx(1, abs=1e-5)
    with pytest.raises(InputError, match=r"likely.*got -1"):
        ours.fluency([FluencyRequest(rendered("middle"), -1)])


def test_models_that_cannot() -> None:
    for architecture in SEQ2SEQ:
        ours = load(make_model(architecture))
        with pytest.raises(MissingCapability, match="no likelihood") as caught:
            answer(ours, [FluencyRequest(rendered("front"))])
        assert "bundled:causal" in caught.value.hint
    model, _ = make_model("gpt2")
    with pytest.raises(MissingCapability, match="which characters a token covers") as caught:
        load((model, transformers.ByT5Tokenizer())).fluency([FluencyRequest(rendered("front"))])
    assert "fast tokenizer" in caught.value.hint
    with pytest.raises(MissingCapability, match="does not say how likely"):
        answer(load_model("toy"), [FluencyRequest(rendered("front"))])


def test_no_finite_number_is_a_failure() -> None:
    model, tokenizer = make_model("gpt2")
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.transformer.ln_f.weight.fill_(torch.nan)
    (reply,) = load((broken, tokenizer)).fluency([FluencyRequest(rendered("middle"), 2)])
    assert isinstance(reply, Failure)
    assert "finite" in reply.message


def test_bfloat16() -> None:
    model, tokenizer = make_model("llama")
    half = one(load((copy.deepcopy(model).to(torch.bfloat16), tokenizer)), rendered("two"))
    full = one(load((model, tokenizer)), rendered("two"))
    for name, each in full.slots.items():
        assert half.slots[name].ids == each.ids
        assert half.slots[name].log_probs == pytest.approx(each.log_probs, rel=0.1, abs=0.1)


def test_chat() -> None:
    """Slots are found, and read, in the text that the chat template makes."""
    model, tokenizer = make_model("gpt2")
    talking = copy.deepcopy(tokenizer)
    talking.chat_template = "{% for m in messages %}<user> {{ m['content'] }}\n{% endfor %}<assistant>\n"
    plain = Rendered((Piece("<user> "), *rendered("middle").before))
    spoken = one(load((model, talking), chat=True), rendered("middle")).slots["words"]
    assert spoken.log_probs == pytest.approx(
        one(load((model, tokenizer)), plain).slots["words"].log_probs, abs=1e-5
    )


def test_perplexity() -> None:
    reply = FluencyReply(
        {
            "a": SlotFluency((1, 2), (math.log(0.5), math.log(0.125))),
            "b": SlotFluency((3,), (math.log(0.25),)),
        },
        9,
    )
    assert reply.perplexity == pytest.approx(4)  # over all tokens, not slot by slot
    assert FluencyReply({"a": SlotFluency((1,), (0.0,))}, 1).perplexity == 1
    assert FluencyReply({"a": SlotFluency((1,), (-1e5,))}, 1).perplexity == math.inf
    assert math.isnan(FluencyReply({}, 0).perplexity)
    ours = load(make_model("gpt2"))
    assert isinstance(ours, FluentModel)
    values = [value for each in one(ours, rendered("two")).slots.values() for value in each.log_probs]
    assert one(ours, rendered("two")).perplexity == pytest.approx(math.exp(-sum(values) / len(values)))


@pytest.mark.parametrize("name", ["bundled:causal", "bundled:masked"])
def test_words_in_order_are_more_fluent(name: str) -> None:
    ours = load_model(name)
    assert isinstance(ours, FluentModel)
    lines = [
        "the film was very good",
        "good very was film the",
        "was the the very of",
        "of very good film the",
    ]
    texts = [Rendered((Piece("I think "), slot(line), Piece(". It was "))) for line in lines]
    replies = ours.fluency([FluencyRequest(text) for text in texts])
    first, *others = [reply.perplexity for reply in replies if isinstance(reply, FluencyReply)]
    assert len(others) == 3
    assert first < min(others) / 2
