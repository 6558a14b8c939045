"""Scores equal a naive forward: one text at a time, no padding, all logits, log_softmax, nothing shared.

The naive scorers here are written on their own and use nothing of the library.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from autoprompt.models import (
    CompletingModel,
    LabelReply,
    LabelRequest,
    RankReply,
    RankRequest,
    ScoringModel,
    TextReply,
    TextRequest,
)
from autoprompt.models.load import load_model
from autoprompt.prompt import Piece, Rendered
from tests.models.tiny import CAUSAL, MASKED, SEQ2SEQ, make_model

FIELDS = [
    "the film was great",
    "it",
    "a slow dog and a small cat, overall, and the people loved it in the rain",
    "Paris is the capital of France, and it was terrible! Was it good? It was (really) bad",
    "x",
]
ENDINGS = [" It was ", "\nSentiment: ", " (", "\nAnswer:\n", " It was"]
SINGLE = ("good", "bad", "great")
MIXED = ("good", "greatly bad", "terrible people", "bad")


def rendered(field: str, ending: str, after: str = "") -> Rendered:
    return Rendered(
        (Piece("Review: "), Piece(field, is_field=True), Piece("." + ending)),
        (Piece(after),) if after else (),
    )


def requests(answers: tuple[str, ...], after: str = "") -> list[LabelRequest]:
    return [LabelRequest(rendered(field, ending, after), answers) for field in FIELDS for ending in ENDINGS]


def naive_causal(model: Any, tokenizer: Any, request: LabelRequest) -> list[float]:
    text = request.rendered.text().rstrip(" ")
    space = request.rendered.text()[len(text) :]
    context = tokenizer(text).input_ids
    wholes = [tokenizer(text + space + answer).input_ids for answer in request.answers]
    start = len(context)
    while any(whole[:start] != context[:start] for whole in wholes):
        start -= 1
    scores = []
    for whole in wholes:
        with torch.no_grad():
            logits = model(torch.tensor([whole])).logits[0].double()
        logs = torch.log_softmax(logits, dim=-1)
        scores.append(sum(float(logs[at - 1, whole[at]]) for at in range(start, len(whole))))
    return scores


def naive_masked(model: Any, tokenizer: Any, request: LabelRequest) -> list[float]:
    ids = tokenizer(request.rendered.text(tokenizer.mask_token)).input_ids
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    at = ids.index(tokenizer.mask_token_id)
    scores = []
    for answer in request.answers:
        # the word's token where it stands: the id that text with the word has and text with the mask has not
        spelled = tokenizer(request.rendered.text(answer)).input_ids
        assert len(spelled) == len(ids)
        scores.append(float(torch.log_softmax(logits[at], dim=-1)[spelled[at]]))
    return scores


def naive_seq2seq(model: Any, tokenizer: Any, request: LabelRequest) -> list[float]:
    source = tokenizer(request.rendered.text().rstrip(" ")).input_ids
    scores = []
    for answer in request.answers:
        labels = tokenizer(text_target=answer).input_ids
        assert labels[-1] == tokenizer.eos_token_id
        labels = labels[:-1]
        given = [model.config.decoder_start_token_id, *labels[:-1]]
        with torch.no_grad():
            logits = model(torch.tensor([source]), decoder_input_ids=torch.tensor([given])).logits[0].double()
        logs = torch.log_softmax(logits, dim=-1)
        first = 1 if labels[0] == tokenizer.bos_token_id else 0
        scores.append(sum(float(logs[at, labels[at]]) for at in range(first, len(labels))))
    return scores


def check(replies: list[Any], expected: list[list[float]]) -> None:
    for reply, values in zip(replies, expected, strict=True):
        assert isinstance(reply, LabelReply), reply
        assert reply.log_probs == pytest.approx(values, abs=1e-4)
        assert max(values) < 0
    spread = {round(values[0] - values[1], 3) for values in expected}
    assert len(spread) > len(expected) // 2  # the texts matter: a wrong position or mask could not hide


@pytest.mark.parametrize("answers", [SINGLE, MIXED], ids=["single", "mixed"])
@pytest.mark.parametrize("architecture", CAUSAL)
def test_causal(architecture: str, answers: tuple[str, ...]) -> None:
    model, tokenizer = make_model(architecture)
    asked = requests(answers)
    ours = load_model((model, tokenizer))
    assert isinstance(ours, ScoringModel)
    assert isinstance(ours, CompletingModel)
    check(ours.logprobs(asked), [naive_causal(model, tokenizer, request) for request in asked])
    assert ours._reader.head.gated


@pytest.mark.parametrize("after", ["", ".", " and the people loved it."], ids=["end", "dot", "middle"])
@pytest.mark.parametrize("architecture", MASKED)
def test_masked(architecture: str, after: str) -> None:
    model, tokenizer = make_model(architecture)
    endings = [" It was ", "\nSentiment: "]
    asked = [LabelRequest(rendered(field, ending, after), SINGLE) for field in FIELDS for ending in endings]
    ours = load_model((model, tokenizer))
    assert isinstance(ours, ScoringModel)
    assert not isinstance(ours, CompletingModel)
    check(ours.logprobs(asked), [naive_masked(model, tokenizer, request) for request in asked])
    assert ours._reader.head.gated


@pytest.mark.parametrize("answers", [SINGLE, MIXED], ids=["single", "mixed"])
@pytest.mark.parametrize("architecture", SEQ2SEQ)
def test_seq2seq(architecture: str, answers: tuple[str, ...]) -> None:
    model, tokenizer = make_model(architecture)
    asked = requests(answers)
    ours = load_model((model, tokenizer))
    assert isinstance(ours, ScoringModel)
    assert isinstance(ours, CompletingModel)
    check(ours.logprobs(asked), [naive_seq2seq(model, tokenizer, request) for request in asked])
    assert ours._reader.head.gated


@pytest.mark.parametrize("architecture", [*CAUSAL, *MASKED, *SEQ2SEQ])
def test_batches_do_not_change_scores(architecture: str) -> None:
    ours = load_model(make_model(architecture))
    assert isinstance(ours, ScoringModel)
    asked = [LabelRequest(rendered(field, " It was "), SINGLE) for field in FIELDS]
    together = ours.logprobs(asked)
    for request, reply in zip(asked, together, strict=True):
        (alone,) = ours.logprobs([request])
        assert isinstance(alone, LabelReply)
        assert isinstance(reply, LabelReply)
        assert alone.log_probs == pytest.approx(reply.log_probs, abs=1e-5)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "bert", "roberta", "albert", "t5", "bart"])
def test_ranks(architecture: str) -> None:
    model, tokenizer = make_model(architecture)
    ours = load_model((model, tokenizer))
    assert isinstance(ours, ScoringModel)
    for field in FIELDS:
        text = rendered(field, " It was ")
        replies = ours.ranks([RankRequest(text, word) for word in SINGLE])
        (among,) = ours.ranks([RankRequest(text, "bad", among=(*SINGLE, "nosuchwordatall"))])
        request = LabelRequest(text, SINGLE)
        if architecture in CAUSAL:
            expected, logits = naive_causal(model, tokenizer, request), _next(model, tokenizer, text)
        elif architecture in MASKED:
            expected = naive_masked(model, tokenizer, request)
            ids = tokenizer(text.text(tokenizer.mask_token)).input_ids
            logits = model(torch.tensor([ids])).logits[0, ids.index(tokenizer.mask_token_id)]
        else:
            expected, logits = naive_seq2seq(model, tokenizer, request), None
        for reply, value in zip(replies, expected, strict=True):
            assert isinstance(reply, RankReply)
            assert reply.log_prob == pytest.approx(value, abs=1e-4)
            if logits is not None:
                logs = torch.log_softmax(logits.double(), dim=-1)
                ahead, level = int((logs > value + 1e-4).sum()), int((logs > value - 1e-4).sum())
                assert 1 + ahead <= reply.rank <= level  # the last digits decide between words level with it
        assert isinstance(among, RankReply)
        assert among.rank == 1 + sum(value > expected[1] for value in expected)
        assert among.top == SINGLE[max(range(3), key=lambda at: expected[at])]


def _next(model: Any, tokenizer: Any, text: Rendered) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([tokenizer(text.text().rstrip(" ")).input_ids])).logits[0, -1]  # type: ignore[no-any-return]


@pytest.mark.parametrize("architecture", [*CAUSAL, *SEQ2SEQ])
def test_generation(architecture: str) -> None:
    """In a batch of mixed lengths as alone, and as a greedy loop that reads everything anew at each step."""
    model, tokenizer = make_model(architecture)
    ours = load_model((model, tokenizer))
    assert isinstance(ours, CompletingModel)
    asked = [TextRequest(rendered(field, " It was "), 6 + at) for at, field in enumerate(FIELDS)]
    together = ours.complete(asked)
    alone = [ours.complete([request])[0] for request in asked]
    naive = [_greedy(model, tokenizer, request, architecture in SEQ2SEQ) for request in asked]
    for one, other, text in zip(together, alone, naive, strict=True):
        assert isinstance(one, TextReply)
        assert isinstance(other, TextReply)
        assert one.text == other.text == text
    assert len(set(naive)) > 1


def _greedy(model: Any, tokenizer: Any, request: TextRequest, two_parts: bool) -> str:
    source = tokenizer(request.rendered.text().rstrip(" ")).input_ids
    start = [model.config.decoder_start_token_id] if two_parts else source
    new: list[int] = []
    while len(new) < request.max_tokens:
        ids = torch.tensor([start + new])
        with torch.no_grad():
            out = model(torch.tensor([source]), decoder_input_ids=ids) if two_parts else model(ids)
        best = int(out.logits[0, -1].argmax())
        if best == tokenizer.eos_token_id:
            break
        new.append(best)
    if two_parts:
        return str(tokenizer.decode(new, skip_special_tokens=True))
    before = tokenizer.decode(source, skip_special_tokens=True)
    text = tokenizer.decode(source + new, skip_special_tokens=True)[len(before) :]
    return str(text).removeprefix(" ")
