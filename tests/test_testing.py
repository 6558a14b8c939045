"""The planted tasks are what they say, and the checks catch those who break the contracts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from autoprompt.asks import Answer, Ask, Score, scored_pairs
from autoprompt.models import Failure, LabelReply, LabelRequest, RankReply, RankRequest, Request
from autoprompt.prompt import Rendered
from autoprompt.space import RandomChooser
from autoprompt.strategies import Setting, Strategy
from autoprompt.strategies.random_search import RandomSearch
from autoprompt.testing import check_model, check_strategy, planted, run, with_missing


def test_planted_accuracies_are_what_the_answers_tend_to() -> None:
    task = planted(seed=2, slots=2, options=3, n_examples=4000)
    for prompt in task.space.enumerate():
        scored = task.oracle(Score(prompt, task.task.select))
        assert scored.score == pytest.approx(task.accuracy(prompt), abs=0.035)
        assert set(scored.scores) <= {0.0, 1.0}
        assert ((scored.losses < math.log(2)) == (scored.scores == 1)).all()


def test_planted_best_prompt_is_the_best_and_the_range_is_as_asked() -> None:
    task = planted(seed=5, slots=3, options=3, n_examples=16, low=0.3, high=0.8)
    accuracies = {prompt.key: task.accuracy(prompt) for prompt in task.space.enumerate()}
    assert len(accuracies) == 27
    assert max(accuracies, key=lambda key: accuracies[key]) == task.best_key
    assert (min(accuracies.values()), task.best_score) == pytest.approx((0.3, 0.8))


def test_planted_answers_are_the_same_whenever_and_in_whatever_company() -> None:
    one, other = (planted(seed=3, slots=2, options=2, n_examples=40) for _ in range(2))
    prompt = one.space.default()
    whole = one.oracle(Score(prompt, one.task.select))
    parts = [other.oracle(Score(prompt, (example,))) for example in reversed(other.task.select)]
    assert [part.scores[0] for part in reversed(parts)] == whole.scores.tolist()
    assert whole.predictions == tuple(part.predictions[0] for part in reversed(parts))
    again = planted(seed=4, slots=2, options=2, n_examples=40)
    assert again.oracle(Score(prompt, again.task.select)).losses.tolist() != whole.losses.tolist()


def test_interactions_are_there() -> None:
    plain, mixed = (planted(seed=0, slots=2, options=4, interactions=size).accuracies for size in (0.0, 1.0))

    def residual(table: np.ndarray) -> float:
        additive = table.mean(0, keepdims=True) + table.mean(1, keepdims=True) - table.mean()
        return float(np.abs(table - additive).max())

    assert residual(plain) < 1e-12
    assert residual(mixed) > 0.02


def test_prompts_agree_on_what_is_hard_as_much_as_asked() -> None:
    correlations = []
    for shared in (0.0, 1.0):
        task = planted(seed=0, slots=1, options=2, n_examples=2000, low=0.6, high=0.7, shared=shared)
        scores = [task.oracle(Score(prompt, task.task.select)).scores for prompt in task.space.enumerate()]
        correlations.append(np.corrcoef(scores)[0, 1])
    assert abs(correlations[0]) < 0.07
    assert correlations[1] > 0.7


def test_run_charges_each_question_once_and_stays_within_the_budget() -> None:
    task = planted(seed=0, slots=4, options=4, n_examples=16)
    points = run(RandomSearch(batch=3), task, 16 * 8 + 5)
    assert [point.calls for point in points] == [16, 64, 112, 128]
    assert points[0].accuracy == task.accuracy(task.task.seed_prompt)


def test_with_missing_loses_the_same_answers_again() -> None:
    task = planted(seed=0, n_examples=200)
    ask = Score(task.space.default(), task.task.select)
    first, second = (with_missing(task.oracle, 0.3)(ask) for _ in range(2))
    assert 30 < first.missing < 90
    assert np.array_equal(np.isnan(first.scores), np.isnan(second.scores))
    assert first.predictions.count(None) == first.missing


@dataclass(kw_only=True)
class Careless(Strategy):
    """Asks for eight random prompts; subclasses break the contract in one way each."""

    rounds: int = 8
    _setting: Setting = field(init=False, repr=False, compare=False)
    _asked: list[Score] = field(init=False, repr=False, compare=False)

    def begin(self, setting: Setting) -> None:
        self._setting = setting
        self._asked = []
        self._keys: set[str] = set()

    def ask(self) -> list[Score]:
        if len(self._asked) >= self.rounds:
            return []
        for _ in range(100):
            prompt = self._setting.space.draw(RandomChooser(self._setting.rng))
            assert prompt is not None
            if prompt.key not in self._keys:
                self._keys.add(prompt.key)
                self._asked.append(Score(prompt, self._setting.select))
                return [self._asked[-1]]
        return []

    def tell(self, asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
        pass


class Repeats(Careless):
    def ask(self) -> list[Score]:
        asks = super().ask()
        return asks or ([self._asked.pop()] if self._asked else [])


class Global(Careless):
    def ask(self) -> list[Score]:
        np.random.random()
        return super().ask()


class Unseeded(Careless):
    def begin(self, setting: Setting) -> None:
        super().begin(replace(setting, rng=np.random.default_rng()))


class Remembers(Careless):
    def begin(self, setting: Setting) -> None:
        if not hasattr(self, "_keys"):
            super().begin(setting)
        self._setting = setting


class Endless(Careless):
    def ask(self) -> list[Score]:
        return [Score(self._setting.seed_prompt, self._setting.select)]


class Elsewhere(Careless):
    def ask(self) -> list[Score]:
        return [
            replace(ask, prompt=replace(ask.prompt, text="x " + ask.prompt.text)) for ask in super().ask()
        ]


class Crashes(Careless):
    def tell(self, asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
        if any(answer.missing for _, answer in scored_pairs(asks, answers)):
            raise ZeroDivisionError("no answers")


class Partial(Careless):
    def ask(self) -> list[Score]:
        return [replace(ask, examples=ask.examples[:3]) for ask in super().ask()]


def test_check_strategy_passes_who_keeps_the_contract() -> None:
    check_strategy(Careless)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Repeats, "asked twice"),
        (Global, "global random state"),
        (Unseeded, "does not start afresh"),
        (Remembers, "does not start afresh"),
        (Endless, "does not stop"),
        (Elsewhere, "outside the space"),
        (Partial, "no prompt was measured on all"),
    ],
)
def test_check_strategy_catches(broken: type[Careless], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_strategy(broken)


def test_check_strategy_catches_who_cannot_do_without_answers() -> None:
    with pytest.raises(ZeroDivisionError):
        check_strategy(Crashes)


@dataclass
class Scorer:
    """A model that knows two words; ``fault`` says what is wrong with it."""

    fault: str = ""
    name: str = "scorer"
    kind: str = "masked"
    fingerprint: str = "f"
    deterministic: bool = True
    max_length: int | None = None

    def count_tokens(self, requests: Sequence[Request]) -> list[int]:
        return [1] * (len(requests) + (self.fault == "counts"))

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        return [list(range(len(requests) - (self.fault == "batches")))]

    def logprobs(self, requests: Sequence[LabelRequest]) -> list[LabelReply | Failure]:
        if self.fault == "fingerprint":
            self.fingerprint += "x"
        replies: list[LabelReply | Failure] = []
        for request in requests:
            value = -float(len(request.rendered.text()))
            if self.fault == "padding":
                value -= len(requests)
            if self.fault == "positive":
                value = -value
            count = len(request.answers) - (self.fault == "width")
            replies.append(LabelReply((value,) * count, 1))
        if self.fault == "order":
            replies.reverse()
        if self.fault == "failure":
            return [Failure("no") for _ in requests]
        return replies

    def ranks(self, requests: Sequence[RankRequest]) -> list[RankReply | Failure]:
        return [RankReply(-1.0, 0 if self.fault == "rank" else 1, "good", 1) for _ in requests]

    def check_answers(
        self, rendered: Rendered, answers: Sequence[str], *, single_token: bool = False
    ) -> None:
        return None


def test_check_model_passes_who_keeps_the_contract() -> None:
    check_model(Scorer())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("counts", "count_tokens"),
        ("batches", "exactly once"),
        ("fingerprint", "fingerprint changed"),
        ("padding", "in a batch"),
        ("order", "in a batch"),
        ("positive", "above 0"),
        ("width", "not one number an answer"),
        ("failure", "not a LabelReply"),
        ("rank", "ranks"),
    ],
)
def test_check_model_catches(fault: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_model(Scorer(fault))  # type: ignore[arg-type]


def test_check_model_catches_who_is_no_model() -> None:
    with pytest.raises(AssertionError, match="protocol Model"):
        check_model(object())  # type: ignore[arg-type]
