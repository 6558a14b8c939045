from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprompt.asks import Score, Scored
from autoprompt.budget import Budget
from autoprompt.cache import Cache
from autoprompt.errors import ModelError, TooManyFailures
from autoprompt.harness import RETRIES, Harness
from autoprompt.models import Failure, LabelReply, LabelRequest, TextReply
from autoprompt.models.function import FunctionModel
from autoprompt.prompt import Prompt
from tests.small import WORDS, Spy, small_task

TASK = small_task()
PROMPTS = [
    Prompt(f"{cue} {{{{ text }}}} {{{{ answer }}}}", {k: tuple(v) for k, v in WORDS.items()})
    for cue in "abcd"
]


def harness(model: object, budget: Budget | None = None, **settings_: object) -> Harness:
    return Harness(TASK, model, budget, settings_.pop("cache", Cache()), **settings_)  # type: ignore[arg-type]


def test_an_answer_has_one_score_an_example_in_order() -> None:
    found = harness(Spy())
    (scored,) = found.scores([Score(PROMPTS[0], TASK.select)])
    (backwards,) = found.scores([Score(PROMPTS[0], TASK.select[::-1])])
    assert scored.scores.shape == (12,)
    assert set(scored.scores) == {0.0, 1.0}
    assert (backwards.scores == scored.scores[::-1]).all()
    assert backwards.predictions == scored.predictions[::-1]
    assert scored.tokens == 5.0  # a, select, number, was, feeling
    assert found.meter.calls == 12
    assert found.meter.tokens == 60


asks = st.lists(
    st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.integers(0, 11), max_size=14), st.integers(0, 1)), max_size=4
    ),
    max_size=6,
)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(rounds=asks, calls=st.integers(1, 60), tokens=st.none() | st.integers(1, 250), size=st.integers(1, 7))
def test_never_over_budget_and_each_question_once(
    rounds: list[list[tuple[int, list[int], int]]], calls: int, tokens: int | None, size: int
) -> None:
    model = Spy(size=size)
    cache = Cache()
    budget = Budget(calls=calls, tokens=tokens)
    found = harness(model, budget, cache=cache)
    seen: set[tuple[int, int, int]] = set()
    spent = 0
    for round_ in rounds:
        batch = [Score(PROMPTS[p], tuple(TASK.select[i] for i in rows), repeat) for p, rows, repeat in round_]
        answers = found.answer(batch)
        fits = 0
        for (
            p,
            rows,
            repeat,
        ) in round_:  # the same rule, in words: whole asks, in order, until one does not fit
            new = {(p, i, repeat) for i in rows} - seen
            words = 5 * len(new)
            if new and (len(seen) + len(new) > calls or (tokens is not None and spent + words > tokens)):
                break
            seen |= new
            spent += words
            fits += 1
        assert len(answers) == fits
        assert all(len(a.scores) == len(ask.examples) for a, ask in zip(answers, batch, strict=False))
        assert found.exhausted or fits == len(round_)
        assert (found.meter.calls, found.meter.tokens) == (len(seen), spent)
        assert found.meter.calls <= calls
        assert tokens is None or found.meter.tokens <= tokens
    assert len(model.asked) == len(seen)
    cache.close()


def play(found: Harness) -> tuple[list[Scored], int, int]:
    asks = [Score(prompt, TASK.select[i : i + 6]) for prompt in PROMPTS for i in (0, 3, 6)]
    answers = [*found.answer(asks[:5]), *found.answer(asks[5:])]
    return answers, found.meter.calls, found.meter.tokens


def assert_same(one: list[Scored], other: list[Scored]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.scores, b.scores)
        assert np.array_equal(a.losses, b.losses)
        assert (a.predictions, a.tokens) == (b.predictions, b.tokens)


@pytest.mark.parametrize("size", [1, 4, 100])
def test_cache_and_batch_size_change_nothing(size: int) -> None:
    cache, budget = Cache(), Budget(calls=40)
    plain = play(harness(Spy(), budget))
    cold = play(harness(Spy(size=size), budget, cache=cache))
    model = Spy(size=size)
    warm_harness = harness(model, budget, cache=cache)
    warm = play(warm_harness)
    for other in (cold, warm):
        assert_same(plain[0], other[0])
        assert plain[1:] == other[1:]
    assert model.asked == []
    assert warm_harness.meter.cached == warm_harness.meter.calls
    cache.close()


def test_a_cache_that_lost_half_changes_nothing() -> None:
    cache, budget = Cache(), Budget(calls=40)
    first = play(harness(Spy(), budget, cache=cache))
    cache._db.execute("DELETE FROM answers WHERE key < '8'")
    model = Spy()
    second = play(harness(model, budget, cache=cache))
    assert_same(first[0], second[0])
    assert first[1:] == second[1:]
    assert model.asked
    cache.close()


def test_a_batch_is_run_whole_but_stored_answers_stand() -> None:
    cache = Cache()
    play(harness(Spy(size=100), cache=cache))
    keys = [key for (key,) in cache._db.execute("SELECT key FROM answers ORDER BY key")]
    cache._db.execute(
        "UPDATE answers SET reply = ? WHERE key = ?", ('["label", [-9.0, -9.0, -0.5], 5, 0]', keys[0])
    )
    cache._db.execute("DELETE FROM answers WHERE key = ?", (keys[1],))
    model = Spy(size=100)
    play(harness(model, cache=cache))
    assert len(model.asked) > 1
    assert cache.get([keys[0]]) == {keys[0]: LabelReply((-9.0, -9.0, -0.5), 5)}
    cache.close()


def test_calibration_asks_one_question_more_a_prompt() -> None:
    task = small_task(calibrate=True)
    model = Spy()
    found = Harness(task, model, Budget(calls=26), Cache())
    assert len(found.scores([Score(prompt, task.select) for prompt in PROMPTS])) == 2
    assert found.meter.calls == 26
    assert found.exhausted
    assert sum("N/A" in text for text in model.asked) == 2


def test_repeats_are_questions_of_their_own() -> None:
    found = harness(Spy())
    found.scores([Score(PROMPTS[0], TASK.select), Score(PROMPTS[0], TASK.select, repeat=1)])
    assert found.meter.calls == 24


def failing(share: float) -> Callable[[str], bool]:
    return lambda text: sum(map(ord, text)) % 100 < 100 * share


def test_failures_are_missing_values() -> None:
    found = harness(Spy(fails=lambda text: "select 1 " in text))
    (scored,) = found.scores([Score(PROMPTS[0], TASK.select)])
    assert scored.missing == 2
    assert [p is None for p in scored.predictions] == [bool(math.isnan(s)) for s in scored.scores]
    assert scored.score == pytest.approx(np.nansum(scored.scores) / 10)
    assert scored.sure == pytest.approx(np.nansum(scored.scores) / 12)
    assert scored.tokens == 5.0
    assert found.missing == 2
    assert "no answer for" in found.failure
    assert found.meter.calls == 12


def test_failures_are_asked_again_by_the_next_session() -> None:
    cache = Cache()
    harness(Spy(fails=lambda text: "select 1 " in text), cache=cache).scores([Score(PROMPTS[0], TASK.select)])
    assert len(cache) == 10
    (scored,) = harness(Spy(), cache=cache).scores([Score(PROMPTS[0], TASK.select)])
    assert scored.missing == 0
    cache.close()


def test_too_many_failures_end_the_run() -> None:
    found = harness(Spy(fails=lambda text: "select 1 " in text or "select 3 " in text))
    with pytest.raises(
        TooManyFailures, match=r"4 of 12 answers are missing \(limit 20%\).*no answer for 'a select"
    ) as e:
        found.scores([Score(PROMPTS[0], TASK.select)])
    assert "same call on the same run folder" in e.value.hint


def test_a_failed_content_free_question_loses_all_answers_of_its_prompt() -> None:
    task = small_task(calibrate=True)
    found = Harness(task, Spy(fails=lambda text: "N/A" in text), None, Cache())
    with pytest.raises(TooManyFailures, match="12 of 12"):
        found.scores([Score(PROMPTS[0], task.select)])


def test_numbers_that_are_none_are_missing() -> None:
    class Broken(Spy):
        def logprobs(self, requests: object) -> list[LabelReply | Failure]:
            return [LabelReply((math.nan, -1.0, -2.0), 3) for _ in requests]  # type: ignore[attr-defined]

    with pytest.raises(TooManyFailures, match="not a number"):
        harness(Broken()).scores([Score(PROMPTS[0], TASK.select)])


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (LabelReply((-1.0, -2.0), 3), "2 log-probabilities for 3 answers"),
        (LabelReply((-1.0, -2.0, -3.0, -4.0), 3), "4 log-probabilities for 3 answers"),
        (LabelReply((math.inf, -1.0, -2.0), 3), "no log-probability but inf"),
        (LabelReply((-math.inf,) * 3, 3), "no log-probability but -inf"),
        (TextReply("good", 3), "a TextReply, which is no reply to a LabelRequest"),
        (None, "a NoneType, which is no reply to a LabelRequest"),
    ],
)
def test_replies_that_are_none_are_missing(reply: object, problem: str) -> None:
    class Odd(Spy):
        def logprobs(self, requests: object) -> list[LabelReply | Failure]:
            return [reply for _ in requests]  # type: ignore[attr-defined]

    with pytest.raises(TooManyFailures, match=problem):
        harness(Odd()).scores([Score(PROMPTS[0], TASK.select)])


def test_numbers_of_numpy_are_numbers() -> None:
    class Numpy(Spy):
        def logprobs(self, requests: object) -> list[LabelReply | Failure]:
            plain = super().logprobs(requests)  # type: ignore[arg-type]
            return [LabelReply(np.array(each.log_probs), np.int64(each.tokens)) for each in plain]  # type: ignore[arg-type, union-attr]

    ask = Score(PROMPTS[0], TASK.select)
    assert_same(harness(Numpy()).scores([ask]), harness(Spy()).scores([ask]))


def test_another_number_of_replies_than_requests_is_an_error() -> None:
    class Fewer(Spy):
        def logprobs(self, requests: object) -> list[LabelReply | Failure]:
            return super().logprobs(requests)[:-1]  # type: ignore[arg-type]

    with pytest.raises(ModelError, match=r"gave \d+ replies to \d+ requests") as error:
        harness(Fewer()).scores([Score(PROMPTS[0], TASK.select)])
    assert "check_model" in error.value.hint


def test_retries_are_bounded_and_not_charged() -> None:
    counts: dict[str, int] = {}

    def shaky(text: str) -> str:
        counts[text] = counts.get(text, 0) + 1
        if "select 0" in text and counts[text] <= 2:
            raise ConnectionError("busy")
        if "select 1" in text:
            raise ConnectionError("gone")
        return "good"

    found = harness(FunctionModel(shaky), Budget(calls=12))
    (scored,) = found.scores([Score(PROMPTS[0], TASK.select)])
    assert scored.missing == 2
    assert found.meter.calls == 12
    assert {number for text, number in counts.items() if "select 1" in text} == {1 + RETRIES}
    assert {number for text, number in counts.items() if "select 0" in text} == {3}
    assert found.failure.endswith("ConnectionError: gone")


def test_a_deterministic_model_is_not_asked_again() -> None:
    model = Spy(fails=lambda text: "select 1 " in text)
    harness(model).scores([Score(PROMPTS[0], TASK.select)])
    assert len(model.asked) == 12


class Clock:
    """Time that passes only where the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def tick(self) -> None:
        self.now += 1.0

    def __call__(self) -> float:
        return self.now


def test_a_budget_of_seconds_answers_whole_asks_from_the_front(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, cache = Clock(), Cache()
    monkeypatch.setattr("autoprompt.harness.time.perf_counter", clock)
    # Batches go from short texts to long ones, so later asks come first: only a prefix may be answered.
    long = Prompt("a rather long prompt: {{ text }} {{ answer }}", {k: tuple(v) for k, v in WORDS.items()})
    batch = [
        Score(PROMPTS[0], TASK.select[:5]),
        Score(long, TASK.select[:5]),
        Score(PROMPTS[1], TASK.select[:5]),
    ]
    budget = Budget(seconds=2)
    found = harness(Spy(before=clock.tick), budget, cache=cache)
    answers = found.answer(batch)
    assert found.exhausted
    assert len(answers) == 1
    assert_same(answers, harness(Spy()).answer(batch[:1]))
    assert (found.meter.calls, found.meter.tokens, found.meter.seconds) == (5, 25, 2.0)
    # The same call again gets as far from the cache, and no further.
    again = harness(Spy(before=clock.tick), budget, cache=cache)
    assert again.meter.seconds == 2.0
    assert_same(again.answer(batch), answers)
    assert again.exhausted
    assert (again.meter.calls, again.meter.tokens, again.meter.seconds) == (5, 25, 2.0)
    cache.close()


def test_progress_is_told_after_each_batch() -> None:
    told: list[tuple[int, int]] = []
    harness(Spy(size=5), on_batch=lambda done, of: told.append((done, of))).answer(
        [Score(PROMPTS[0], TASK.select)]
    )
    assert told == [(5, 12), (10, 12), (12, 12)]


def test_an_interrupt_keeps_the_batches_that_were_answered() -> None:
    cache, ticks = Cache(), itertools.count()

    def interrupt() -> None:
        if next(ticks) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        harness(Spy(before=interrupt), cache=cache).scores([Score(PROMPTS[0], TASK.select)])
    assert len(cache) == 10
    cache.close()


def test_no_questions_cost_nothing() -> None:
    found = harness(Spy(), Budget(calls=1))
    assert found.scores([]) == []
    (empty,) = found.scores([Score(PROMPTS[0], ())])
    assert math.isnan(empty.score)
    assert not found.exhausted
    assert isinstance(LabelRequest(PROMPTS[0].render({"text": "x"}), ("a",)), LabelRequest)
