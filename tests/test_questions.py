"""Questions about token slots through the harness: what they cost, and what they answer."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoprompt import questions
from autoprompt.asks import GRADIENT_CALLS, Ask, Fluency, Fluent, Gradient, Score, Scored, Slope
from autoprompt.budget import Budget
from autoprompt.cache import Cache
from autoprompt.errors import MissingCapability, UnknownName
from autoprompt.models import FluencyReply, FluencyRequest, GradientReply, SlotFluency, SlotGradient
from autoprompt.models.load import load_model
from tests.asking import KINDS, PROMPT, SOME, UNREADABLE, count, harness, load, prompt_of, same
from tests.models.tiny import make_model
from tests.small import Spy


@pytest.fixture(autouse=True)
def _judges_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "load_model", JUDGES)


JUDGES = functools.cache(load_model)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_is_charged_three_calls_an_example_and_once(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(kind)
    asked = count(monkeypatch, model, "gradients")
    found = harness(model)
    ask = Gradient(PROMPT, SOME)
    (first,) = found.answer([ask])
    assert found.meter.calls == GRADIENT_CALLS * len(SOME) == 12
    again, *_ = found.answer([ask, dataclasses.replace(ask, note="again")])
    assert same(first, again)
    assert (asked, found.meter.calls) == ([4], 12)
    other = found.answer([dataclasses.replace(ask, among_answers=False), Gradient(PROMPT, SOME[:3])])
    assert (asked, found.meter.calls) == (
        [4, 4, 3],
        12 + 12 + 9,
    )  # others in kind, in what they are the mean over
    assert not any(same(first, each) for each in other)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_gradient_says(kind: str) -> None:
    model = load(kind)
    slope, scored = harness(model).answer([Gradient(PROMPT, SOME), Score(PROMPT, SOME)])
    assert isinstance(slope, Slope)
    assert isinstance(scored, Scored)
    assert slope.problem == ""
    assert slope.loss == pytest.approx(
        scored.loss, abs=1e-4
    )  # among the answers: what scores are compared by
    (read,) = model.vocabulary.read([PROMPT.render(SOME[0].fields, with_slots=True)])
    assert slope.ids == read
    (changes,) = slope.changes.values()
    assert changes.shape == (len(slope.ids["t"]), model.vocabulary.size)
    assert changes.dtype == np.float32
    assert np.ptp(changes, axis=1).min() > 0


def everything(judge: str = "") -> list[Ask]:
    two = prompt_of(template="[[ u ]] {{ text }} [[ t ]] It was {{ answer }}")
    return [
        Score(PROMPT, SOME),
        Gradient(PROMPT, SOME),
        Fluency(PROMPT, SOME[:2], likely=3, judge=judge),
        Score(two, SOME),
        Fluency(two, SOME[:1]),
        Gradient(two, SOME[::-1], among_answers=False),
    ]


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_a_mixed_round_is_answered_in_its_order_as_one_by_one(kind: str) -> None:
    asks = everything()
    model = load(kind)
    together, alone = harness(model), harness(model)
    answers = together.answer(asks)
    kinds = [Scored, Slope, Fluent, Scored, Fluent, Slope]
    assert [type(each) for each in answers] == kinds
    assert not any(each.problem for each in answers if isinstance(each, (Slope, Fluent)))
    for ask, answer in zip(asks, answers, strict=True):
        (one,) = alone.answer([ask])
        if isinstance(one, Scored) and isinstance(answer, Scored):
            np.testing.assert_allclose(answer.losses, one.losses, atol=1e-4)  # other batches
        elif isinstance(one, Slope) and isinstance(answer, Slope):
            assert same(one, answer)
        elif isinstance(one, Fluent) and isinstance(answer, Fluent):
            assert answer.perplexity == pytest.approx(one.perplexity, rel=1e-4)
            assert (answer.ids, answer.likely) == (one.ids, one.likely)
    assert dataclasses.asdict(alone.meter) | {"seconds": 0} == dataclasses.asdict(together.meter) | {
        "seconds": 0
    }


@pytest.mark.parametrize("kind", KINDS)
def test_from_the_cache_come_the_very_same_numbers(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks, path = everything("bundled:causal" if kind == "t5" else ""), tmp_path / "answers.db"
    first = harness(load(kind), cache=Cache(path))
    answers = first.answer(asks)
    model = load(kind)
    fresh = [count(monkeypatch, model, name) for name in ("gradients", "fluency", "logprobs")]
    second = harness(model, Budget(calls=first.meter.calls), Cache(path))
    again = second.answer(asks)
    assert not any(sum(sizes) for sizes in fresh[:1] + fresh[2:])
    assert sum(fresh[1]) == (1 if kind == "t5" else 0)  # what failed is asked again
    assert len(again) == len(asks)
    assert all(
        same(one, other) or repr(one) == repr(other) for one, other in zip(answers, again, strict=True)
    )
    assert second.meter.cached == second.meter.calls == first.meter.calls  # charged all the same
    assert second.meter.tokens == first.meter.tokens


def test_the_cache_keeps_what_a_model_in_double_precision_said(tmp_path: Path) -> None:
    """The cache holds float32: what is told at first must not differ from what is told when resumed."""
    model = load("gpt2")
    told: list[Any] = []

    @dataclasses.dataclass
    class Double:
        """The model with other numbers: only what the harness needs for a gradient."""

        fingerprint: str = "double"
        name: str = "double"
        kind: str = "causal"

        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

        def gradients(self, requests: Sequence[Any]) -> GradientReply:
            gradient = np.asfortranarray(np.random.default_rng(0).normal(size=(2, 32)))
            return GradientReply(1 / 3, {"t": SlotGradient((4, 5), gradient)}, 7)

        def first_order(self, gradient: Any, *, block: int = 8192) -> Any:
            told.append(gradient)
            return gradient.astype(np.float32)

    for _ in range(2):
        cache = Cache(tmp_path / "answers.db")
        harness(Double(), cache=cache).answer([Gradient(PROMPT, SOME)])
        cache.close()
    assert told[0].tobytes() == told[1].tobytes()
    assert told[0].dtype == told[1].dtype


ENDS: list[tuple[list[Ask], list[int]]] = [
    ([Gradient(PROMPT, SOME), Score(PROMPT, SOME)], [12, 4]),
    ([Score(PROMPT, SOME), Gradient(PROMPT, SOME[:2]), Score(PROMPT, SOME)], [4, 6, 0]),
    ([Fluency(PROMPT, SOME[:2]), Gradient(PROMPT, SOME[:1]), Gradient(PROMPT, SOME[:1])], [2, 3, 0]),
]


@pytest.mark.parametrize(("asks", "costs"), ENDS)
def test_the_budget_ends_before_an_ask_that_does_not_fit(
    asks: list[Ask], costs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load("gpt2")
    asked = [count(monkeypatch, model, name) for name in ("gradients", "fluency", "logprobs")]
    for calls in range(1, sum(costs) + 2):
        fits = 0
        while fits < len(costs) and sum(costs[: fits + 1]) <= calls:
            fits += 1
        found = harness(model, Budget(calls=calls))
        before = [sum(sizes) for sizes in asked]
        assert len(found.answer(asks)) == fits
        assert found.exhausted == (fits < len(asks))
        assert found.meter.calls == sum(costs[:fits])
        if not fits:
            assert [sum(sizes) for sizes in asked] == before  # nothing was run for nothing


def readings() -> list[tuple[str, Ask]]:
    asks = everything()
    return [
        *((kind, ask) for kind in ("gpt2", "bert") for ask in asks),
        *(("t5", ask) for ask in (asks[1], asks[5], Fluency(PROMPT, SOME, judge="bundled:causal"))),
        ("bert", Fluency(PROMPT, SOME, judge="bundled:causal")),
    ]


@pytest.mark.parametrize(("kind", "ask"), readings())
def test_a_budget_of_tokens_counts_what_is_read(kind: str, ask: Ask) -> None:
    """As many, whether they are counted before or read off the replies; a gradient's count as its calls do."""
    model = load(kind)
    free = harness(model)
    free.answer([ask])
    assert free.meter.tokens > 0
    exact = harness(model, Budget(tokens=free.meter.tokens))
    assert len(exact.answer([ask])) == 1
    assert exact.meter.tokens == free.meter.tokens
    short = harness(model, Budget(tokens=free.meter.tokens - 1))
    assert short.answer([ask]) == []
    assert (short.exhausted, short.meter.calls, short.meter.tokens) == (True, 0, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", sorted(UNREADABLE))
@pytest.mark.parametrize("budget", [None, Budget(tokens=10**6, calls=10**6)])
def test_what_cannot_be_read_is_a_problem_and_the_run_goes_on(
    kind: str, what: str, budget: Budget | None
) -> None:
    if (kind, what) == ("t5", "too long"):
        pytest.skip("has positions without end")
    prompt = UNREADABLE[what]
    found = harness(load(kind), budget)
    slope, fluent, scored = found.answer([Gradient(prompt, SOME), Fluency(prompt, SOME), Score(PROMPT, SOME)])
    assert isinstance(slope, Slope)
    assert isinstance(fluent, Fluent)
    assert isinstance(scored, Scored)
    assert math.isnan(slope.loss)
    assert math.isnan(fluent.perplexity)
    assert (slope.ids, slope.changes, fluent.ids, fluent.likely) == ({}, {}, {}, {})
    assert "slot" in slope.problem or "tokens" in slope.problem
    assert fluent.problem
    assert scored.missing == 0
    assert not found.exhausted


def test_a_model_without_gradients_says_so() -> None:
    for model in (load_model("toy"), Spy()):
        found = harness(model)
        with pytest.raises(MissingCapability, match="gives no gradients") as caught:
            found.answer([Gradient(PROMPT, SOME)])
        assert "use a Hugging Face model" in str(caught.value)


@pytest.mark.parametrize("model", [load_model("toy"), Spy(), load("t5")])
def test_a_model_that_cannot_judge_costs_nothing_and_says_who_can(model: Any) -> None:
    found = harness(model, Budget(calls=20, tokens=10_000))
    fluent, scored = found.answer([Fluency(PROMPT, SOME), Score(PROMPT, SOME)])
    assert isinstance(fluent, Fluent)
    assert isinstance(scored, Scored)
    assert math.isnan(fluent.perplexity)
    assert "bundled:causal" in fluent.problem
    assert found.meter.calls == len(SOME)


def test_a_causal_model_s_perplexity_is_that_of_a_naive_run() -> None:
    raw, tokenizer = make_model("gpt2")
    model = load("gpt2")
    (fluent,) = harness(model).answer([Fluency(PROMPT, SOME, likely=4)])
    assert isinstance(fluent, Fluent)
    values, tables = [], []
    for example in SOME:
        ids = tokenizer(f"{example.fields['text']} good people")["input_ids"]
        size = len(fluent.ids["t"])
        assert tuple(ids[-size:]) == fluent.ids["t"]
        with torch.inference_mode():
            table = torch.log_softmax(raw(torch.tensor([ids])).logits[0].double(), -1)[-size - 1 : -1]
        values += [float(table[at, token]) for at, token in enumerate(ids[-size:])]
        tables.append(table)
    assert fluent.perplexity == pytest.approx(math.exp(-sum(values) / len(values)), rel=1e-4)
    (single,) = harness(model).answer([Fluency(PROMPT, SOME[:1], likely=4)])
    assert isinstance(single, Fluent)
    assert single.likely["t"] == tuple(map(tuple, torch.topk(tables[0], 4).indices.tolist()))
    assert len(fluent.likely["t"]) == len(fluent.ids["t"])


def test_a_masked_model_is_charged_once_a_token() -> None:
    model = load("bert")
    for prompt in (PROMPT, prompt_of(template="[[ u ]] {{ text }} [[ t ]] It was {{ answer }}")):
        (read,) = model.vocabulary.read([prompt.render(SOME[0].fields, with_slots=True)])
        assert read is not None
        length = sum(map(len, read.values()))
        found = harness(model)
        found.answer([Fluency(prompt, SOME), Fluency(prompt, SOME)])
        assert found.meter.calls == length * len(SOME) > len(SOME)


@pytest.mark.parametrize("kind", KINDS)
def test_a_judge_by_name_answers_in_the_model_s_place(kind: str) -> None:
    ask = Fluency(PROMPT, SOME, likely=2, judge="bundled:causal")
    found = harness(load(kind))
    (fluent,) = found.answer([ask])
    (own,) = harness(load_model("bundled:causal")).answer([dataclasses.replace(ask, judge="")])
    assert isinstance(fluent, Fluent)
    assert isinstance(own, Fluent)
    assert (fluent.perplexity, fluent.ids, fluent.likely) == (own.perplexity, own.ids, own.likely)
    assert 1 < fluent.perplexity < math.inf
    assert found.meter.calls == len(SOME)
    with pytest.raises(UnknownName, match="bundled:casual"):
        found.answer([dataclasses.replace(ask, judge="bundled:casual")])


@dataclasses.dataclass
class Told(Spy):
    """Answers about fluency by the text: shared tokens, log-probabilities as given."""

    replies: dict[str, SlotFluency] = dataclasses.field(default_factory=dict)

    def fluency(self, requests: Sequence[FluencyRequest]) -> list[FluencyReply]:
        return [FluencyReply({"t": self.replies[request.rendered.before[0].text]}, 3) for request in requests]


def test_the_mean_over_examples_is_in_log_probabilities() -> None:
    one, other = (example.fields["text"] for example in SOME[:2])
    model = Told(
        replies={
            one: SlotFluency((7,), (-1.0,), ((1, 2, 3),), ((-0.1, -2.0, -3.0),)),
            other: SlotFluency((7,), (-3.0,), ((2, 4, 1),), ((-0.2, -0.9, -4.0),)),
        }
    )
    (fluent,) = harness(model).answer([Fluency(PROMPT, SOME[:2], likely=3)])
    assert isinstance(fluent, Fluent)
    assert fluent.perplexity == pytest.approx(math.exp(2))
    # what is not listed counts as the last that is: 2: -2.0 -0.2, 1: -0.1 -4.0, 4: -3.0 -0.9, 3: -3.0 -4.0
    assert fluent.likely == {"t": ((2, 4, 1, 3),)}
    model.replies = {text: SlotFluency((7,), (-1e6,)) for text in (one, other)}
    (hopeless,) = harness(model).answer([Fluency(PROMPT, SOME[:2])])
    assert isinstance(hopeless, Fluent)
    assert hopeless.perplexity == math.inf
