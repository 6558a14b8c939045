from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from autoprompt.asks import Scored
from autoprompt.budget import Meter
from autoprompt.command import as_shortest
from autoprompt.prompt import Prompt
from autoprompt.result import Comparison, Result, estimate_on, mean_difference
from autoprompt.statistics import Estimate, Interval, Paired, wilson
from autoprompt.trial import Trial
from tests.small import small_task

TASK = small_task()
SEED, OTHER = TASK.seed_prompt, Prompt("New:\n{{ text }} {{ answer }}", TASK.words)


def scored(values: list[float]) -> Scored:
    scores = np.array(values)
    predictions = tuple(
        None if np.isnan(v) else e.target if v else "other" for v, e in zip(values, TASK.test, strict=False)
    )
    return Scored(scores, np.ones_like(scores), predictions, 5.0)


def comparison(low: float, high: float) -> Comparison:
    estimate = Estimate(0.75, Interval(0.5, 0.9), 12)
    return Comparison(
        dataclasses.replace(estimate, value=0.5), estimate, Paired(0.25, Interval(low, high), 0.04, 12, 4, 1)
    )


def result(test: Comparison | None, candidate: Prompt = OTHER, **changes: object) -> Result:
    header = {
        "metric": "accuracy", "budget": "100 calls", "select_size": 12, "task": "small", "model": "spy",
        "answer_read_as": "a word",
    }  # fmt: skip
    best = candidate if test is not None and test.shows_gain else SEED
    whole = Result(
        "budget", best, candidate, SEED, 0.5, 0.75, test, Meter(96, 480, 1.5, 3), Meter(24, 120, 0.5), header,
        chosen="random_search",
    )  # fmt: skip
    return dataclasses.replace(whole, **changes)  # type: ignore[arg-type]


def test_a_gain_that_is_shown() -> None:
    found = result(comparison(0.031, 0.5))
    assert found.best == OTHER
    assert found.verdict == "+25.0 points, 95 % interval [3.1, 50.0], n=12 against the manual prompt"
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines] == ["prompt", "test", "verdict", "spent", "run"]
    assert "75.0 [50.0, 90.0], manual prompt 50.0 [50.0, 90.0]" in lines[1]
    assert "New:⏎{{ text }}" in lines[0]
    assert "96 calls, 480 tokens" in lines[3]
    assert "(budget 100 calls)" in lines[3]


@pytest.mark.parametrize("low", [0.0, -0.01])
def test_a_gain_that_is_not_shown(low: float) -> None:
    found = result(comparison(low, 0.5))
    assert found.best == SEED
    assert found.verdict.startswith("no gain shown (+25.0 points")
    assert found.verdict.endswith("the manual prompt is returned")
    assert found.document()["prompt"] == SEED.text
    assert found.document()["candidate"]["prompt"] == OTHER.text


def trial(number: int, score: float, tokens: float) -> Trial:
    text = f"{'so ' * number}{{{{ text }}}} {{{{ answer }}}}"
    prompt = Prompt(text, TASK.words)
    return Trial(number, 1, text, TASK.words, {}, prompt.key, True, 12, 0, score, 0.5, tokens, 100)


def test_the_shortest_within_a_standard_error() -> None:
    front = (
        trial(1, 0.4, 5),
        trial(2, 0.65, 8),
        trial(3, 0.7, 9),
        trial(4, 0.75, 20),
    )  # s.e. 0.125 at 0.75, n = 12
    found = result(comparison(0.031, 0.5), candidate=front[3].prompt, pareto=front)
    assert found.shortest == front[1]
    document = found.document()["shortest"]
    assert (document["prompt"], document["select"]) == (front[1].text, 0.65)
    assert document["label_words"] == {"good": ["good", "great"], "bad": ["bad"]}
    json.dumps(found.document(), allow_nan=False)
    exported = as_shortest(found.document())
    assert (exported["prompt"], exported["test"]) == (front[1].text, None)
    assert exported["verdict"].startswith("not scored on test")
    assert as_shortest({"shortest": None}) == {"shortest": None}
    assert dataclasses.replace(found, best_select=1.0, pareto=front[3:]).shortest is None
    assert dataclasses.replace(found, pareto=()).shortest is None


def test_the_manual_prompt_as_winner() -> None:
    assert "no prompt beat the manual one" in result(comparison(0, 0), candidate=SEED).verdict


def test_a_run_that_ended_before_anything_was_scored() -> None:
    nan = float("nan")
    found = result(
        None, candidate=SEED, status="interrupted", seed_select=nan, best_select=nan, spent=Meter()
    )
    assert "nan" not in str(found)
    assert "not measured" in str(found)
    text = json.dumps(found.document(), allow_nan=False)
    assert json.loads(text)["select"]["candidate"] is None


def test_the_document_holds_what_one_needs(tmp_path: Path) -> None:
    found = result(comparison(0.031, 0.5), noise=0.125, notes=("a note",))
    files = found.save(tmp_path / "best.txt")
    document = json.loads(files[1].read_text("utf-8"))
    assert document["label_words"] == {"good": ["good", "great"], "bad": ["bad"]}
    assert document["answer_read_as"] == "a word"
    assert document["test"]["difference"] == {
        "value": 0.25, "interval": [0.031, 0.5], "level": 0.95, "p_value": 0.04, "n": 12,
    }  # fmt: skip
    assert document["cost"]["search"] == {"calls": 96, "tokens": 480, "seconds": 1.5, "cached": 3}
    assert (document["noise_floor"], document["notes"]) == (0.125, ["a note"])
    assert document["run"]["model"] == "spy"


def test_estimates_by_hand() -> None:
    found = estimate_on(TASK, TASK.test, scored([1, 1, 0, 1, 0, 1, 1, 1, 1, 0, 1, np.nan]))
    assert (found.value, found.n, found.missing) == (8 / 11, 11, 1)
    pair = Comparison.of(TASK, scored([1, 0] * 6), scored([1, 1] * 5 + [np.nan, 0])).paired
    assert (pair.n, pair.wins, pair.losses) == (11, 5, 0)
    assert pair.difference == pytest.approx(5 / 11)


def test_a_set_metric_is_compared_on_the_same_resamples() -> None:
    task = small_task(metric="macro_f1")
    weak, strong = scored([1, 0, 0, 1] * 3), scored([1, 1, 1, 1] * 3)
    found = Comparison.of(task, weak, strong)
    assert found.best.value == 1.0
    # good is right in 3 of 6 and bad in 3 of 6; the rest is named "other", which is no label of the targets
    assert found.seed.value == pytest.approx(2 / 3)
    assert found.paired.difference == pytest.approx(1 / 3)
    assert found.shows_gain
    same = Comparison.of(task, weak, weak).paired
    assert same.difference == 0.0
    assert same.interval.high == -same.interval.low == pytest.approx(1 - wilson(12, 12).low)


def test_noise_is_the_mean_difference_where_both_are_there() -> None:
    nan = float("nan")
    assert mean_difference(scored([1, 0, 1, nan]), scored([1, 1, nan, nan])) == 0.5
    assert mean_difference(scored([nan]), scored([1])) is None
