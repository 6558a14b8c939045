"""The toy: its formula, and that prompts matter to it."""

from __future__ import annotations

import math

import pytest

from autoprompt.errors import LabelWordError
from autoprompt.models import (
    CompletingModel,
    Failure,
    LabelReply,
    LabelRequest,
    RankReply,
    RankRequest,
    ScoringModel,
    TextReply,
    TextRequest,
)
from autoprompt.models import toy as module
from autoprompt.models.toy import ToyModel
from autoprompt.prompt import Piece, Rendered

GOOD = [
    "a great and lovely film",
    "brilliant, fresh and funny",
    "I loved it, perfect",
    "not bad, not boring at all",
]
POOR = ["a dull and boring film", "awful, tedious mess", "I hated it, terrible", "not good, not funny at all"]


def ask(field: str, prompt: str) -> LabelRequest:
    before = (Piece("Review: "), Piece(field, is_field=True), Piece(f"\n{prompt} "))
    return LabelRequest(Rendered(before), ("great", "terrible"))


def accuracy(prompt: str) -> tuple[float, float]:
    """Share of right answers, and mean log-probability of the right word against the other, in nats."""
    right, margin = 0, 0.0
    for texts, sign in ((GOOD, 1), (POOR, -1)):
        for reply in ToyModel().logprobs([ask(text, prompt) for text in texts]):
            assert isinstance(reply, LabelReply)
            difference = sign * (reply.log_probs[0] - reply.log_probs[1])
            right += difference > 0
            margin += difference
    return right / 8, margin / 8


def test_it_meets_the_protocols() -> None:
    assert isinstance(ToyModel(), ScoringModel)
    assert isinstance(ToyModel(), CompletingModel)
    assert ToyModel().fingerprint == ToyModel().fingerprint


def test_probabilities_sum_to_one() -> None:
    logits = module._logits(ask("a great film", "Sentiment:").rendered)
    words = tuple(module._CLASS_OF)
    (reply,) = ToyModel().logprobs([LabelRequest(ask("a great film", "Sentiment:").rendered, words)])
    assert isinstance(reply, LabelReply)
    total = math.fsum(math.exp(value) for value in logits.values())
    buckets = math.fsum(math.exp(logits[bucket]) for bucket in module._BUCKETS) / total
    assert math.fsum(map(math.exp, reply.log_probs)) + buckets == pytest.approx(1.0)


def test_phrases_are_sums_of_words() -> None:
    rendered = ask("a great film", "Sentiment:").rendered
    (reply,) = ToyModel().logprobs([LabelRequest(rendered, ("great", "zebra", "great zebra"))])
    assert isinstance(reply, LabelReply)
    assert reply.log_probs[2] == pytest.approx(reply.log_probs[0] + reply.log_probs[1])


def test_prompts_matter() -> None:
    focused, vague = accuracy("Overall opinion and sentiment:"), accuracy("maybe whatever banana random")
    assert focused[0] == 1.0
    assert focused[1] > vague[1] + 1.0
    assert vague[0] < 1.0


def test_ranks_and_completions() -> None:
    rendered = ask("great, lovely, superb, perfect", "Overall sentiment:").rendered
    (text,) = ToyModel().complete([TextRequest(rendered, 3)])
    assert isinstance(text, TextReply)
    (first,) = ToyModel().ranks([RankRequest(rendered, text.text)])
    assert isinstance(first, RankReply)
    assert (first.rank, first.top) == (1, text.text)
    (among,) = ToyModel().ranks([RankRequest(rendered, "sports", among=("sports", "great"))])
    assert isinstance(among, RankReply)
    assert (among.rank, among.top) == (2, "great")
    (missing,) = ToyModel().ranks([RankRequest(rendered, "zebra")])
    assert isinstance(missing, Failure)


def test_batches_and_bad_answers() -> None:
    requests = [ask(f"film {'very ' * number}good", "It was") for number in range(600)]
    batches = ToyModel().batches(requests)
    assert sorted(index for batch in batches for index in batch) == list(range(600))
    assert len(batches) == 3
    with pytest.raises(LabelWordError):
        ToyModel().check_answers(requests[0].rendered, ["good", "  "])
