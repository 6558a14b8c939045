from __future__ import annotations

import itertools

import pytest

import autoprompt
from tests.small import Spy, small_space, small_task


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock is a second after the last."""
    now = itertools.count()
    monkeypatch.setattr("autoprompt.forecast.time.perf_counter", lambda: float(next(now)))


@pytest.mark.parametrize(
    ("budget", "calls"),
    [(120, 120), ("300 tokens", 50), ("1 h, 60 calls", 60)],
)
def test_the_limit_that_is_reached_first_counts(budget: int | str, calls: int) -> None:
    model = Spy()
    found = autoprompt.estimate(small_task(), model, budget, space=small_space())
    # select texts under the manual prompt: "select 0 was lovely It was" is 6 words
    assert (found.calls, found.tokens) == (calls, 6 * calls)
    assert found.seconds == pytest.approx(calls / found.calls_per_second)
    assert found.tokens_per_second == pytest.approx(6 * found.calls_per_second)
    assert (found.test_calls, found.prompts, found.space_size) == (24, calls // 12, 36)
    assert not any("test " in text for text in model.asked)
    assert len(str(found).splitlines()) == 4


def test_a_budget_of_seconds() -> None:
    found = autoprompt.estimate(small_task(), Spy(), "10 s")
    assert found.calls == int(10 * found.calls_per_second)
    assert found.space_size == 1
