from __future__ import annotations

import itertools

import pytest

import autoprompt
from autoprompt.space import SearchSpace
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
    # "select 0 was lovely It was" is 6 words; prompts of the space have 5 to 7
    assert found.calls == pytest.approx(calls, rel=0.1)
    assert 5 * found.calls <= found.tokens <= 7 * found.calls
    calls = found.calls
    assert found.seconds == pytest.approx(calls / found.calls_per_second)
    assert 5 * found.calls_per_second <= found.tokens_per_second <= 7 * found.calls_per_second
    assert (found.test_calls, found.prompts, found.space_size) == (24, calls // 12, 36)
    assert not any("test " in text for text in model.asked)
    assert len(str(found).splitlines()) == 4


def test_a_budget_of_seconds() -> None:
    found = autoprompt.estimate(small_task(), Spy(), "3 s", space=small_space())
    assert found.calls == int(3 * found.calls_per_second)
    assert found.space_size == 36


def test_no_more_calls_than_the_space_has_prompts_for() -> None:
    found = autoprompt.estimate(small_task(), Spy(), 10**6)
    assert (found.calls, found.space_size) == (12, 1)


def test_a_space_whose_texts_are_edited_is_not_counted() -> None:
    slots = {"cue": {"one_of": ["In all, it was", "So"], "edit": {}}}
    content = {
        "format": "autoprompt-space/1",
        "title": "t",
        "template": "{{ text }} [[ cue ]] {{ answer }}",
        "slots": slots,
    }
    found = autoprompt.estimate(small_task(), Spy(), 6000, space=SearchSpace.from_dict(content))
    assert (found.calls, found.space_size, found.is_open) == (6000, 2, True)
    assert "of 2 in the space, edits and tokens not counted" in str(found)
