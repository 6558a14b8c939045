"""Runs that ask about token slots: when time is up, what the log says of them, and that they resume."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoprompt.api import Round, optimize
from autoprompt.asks import Ask, Fluency, Fluent, Gradient, Score, Scored, Slope
from autoprompt.budget import Budget
from autoprompt.cache import Cache
from autoprompt.harness import Harness
from autoprompt.models import GradientReply
from autoprompt.strategies.gradient import Gradient as GradientSearch
from autoprompt.study import Study, read_log
from autoprompt.triggers import trigger_space
from tests.asking import PROMPT, SOME, TASK, UNREADABLE, harness, load, prompt_of, same


def late(found: Harness, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a gradient take a minute."""
    real: Callable[..., GradientReply] = model.gradients

    def slow(requests: Sequence[Any]) -> GradientReply:
        found.meter.seconds += 60
        return real(requests)

    monkeypatch.setattr(model, "gradients", slow)


def test_when_time_is_up_within_a_round_the_rest_is_neither_answered_nor_charged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, cache = load("gpt2"), Cache()
    asks: list[Ask] = [Gradient(PROMPT, SOME[at : at + 2]) for at in range(3)]
    found = harness(model, Budget(seconds=90), cache)
    late(found, model, monkeypatch)
    answers = found.answer([*asks, Score(PROMPT, SOME)])
    assert len(answers) == 2
    assert (found.exhausted, found.meter.calls) == (True, 12)
    resumed = harness(load("gpt2"), Budget(seconds=90), cache)
    resumed.meter.seconds = 120
    again = resumed.answer([*asks, Score(PROMPT, SOME)])  # as far as it got, though time is up already
    assert len(again) == 2
    assert all(same(one, other) for one, other in zip(answers, again, strict=True))
    assert (resumed.exhausted, resumed.meter.calls, resumed.meter.cached) == (True, 12, 12)


def test_what_is_in_the_log_of_such_questions(tmp_path: Path) -> None:
    model = load("gpt2")
    study = Study(tmp_path / "run", {"format": "test"})
    beside, plain = prompt_of("the film"), TASK.seed_prompt
    asks: list[Ask] = [
        Score(plain, TASK.select, note="seed"),
        Gradient(PROMPT, TASK.select),
        Fluency(PROMPT, TASK.select),
        Fluency(UNREADABLE["glued"], SOME),
        Score(beside, TASK.select, beside=True),
        Score(PROMPT, TASK.select, beside=True),
    ]
    answers = harness(model).answer(asks)
    best = np.ones(len(TASK.select))
    answers[4] = Scored(best, 0 * best, ("x",) * len(best))  # better than all
    study.record(asks, answers, select=TASK.select, calls=7)
    seed, slope, fluent, failed, *_ = study.trials
    assert isinstance(answers[1], Slope)
    assert isinstance(answers[2], Fluent)
    assert (slope.score, slope.loss, slope.perplexity) == (None, round(answers[1].loss, 6), None)
    assert (fluent.score, fluent.loss, fluent.perplexity) == (None, None, round(answers[2].perplexity, 6))
    assert (failed.score, failed.loss, failed.perplexity) == (None, None, None)
    assert [trial.note for trial in study.trials] == [
        "seed",
        "gradient",
        "fluency",
        "fluency",
        "score",
        "score",
    ]
    assert [trial.complete for trial in study.trials] == [True, False, False, False, True, True]
    assert [trial.beside for trial in study.trials] == [False] * 4 + [True] * 2
    assert study.best() is seed  # never one that breaks a rule of its space, nor a question that is no score
    assert study.best_beside() is study.trials[4]
    assert all(not trial.beside for trial in study.pareto())
    assert fluent.prompt == PROMPT
    assert fluent.prompt.choices == {"t": "good people"}
    study.close()
    for row in read_log(tmp_path / "run" / "trials.jsonl"):
        json.dumps(row, allow_nan=False)
    assert Study(None, {}).best_beside() is None


def search() -> GradientSearch:
    return GradientSearch(width=6, batch=4, starts=3, patience=2, beside=3)


def test_a_run_with_gradients_resumes_to_the_same_log(tmp_path: Path) -> None:
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    space, model = trigger_space(TASK, 2, policy="ascii"), load("gpt2")

    def run(folder: Path, stop: int | None = None) -> Any:
        def stopped(each: Round) -> None:
            if stop is not None and each.spent.calls >= stop:
                raise KeyboardInterrupt

        return optimize(
            TASK, model, 300, space=space, strategy=search(), seed=3, run_dir=folder, on_round=stopped
        )  # fmt: skip

    result = run(whole)
    assert result.status == "budget"
    notes = {trial.note for trial in result.trials}
    assert {"gradient", "fluency", "proposals", "select", "step"} <= notes
    for stop in (60, 210):
        assert run(halted, stop).status == "interrupted"
    with (halted / "trials.jsonl").open("a") as log:
        log.write('{"number": 9')  # and a torn line
    again = run(halted)
    assert (halted / "trials.jsonl").read_bytes() == (whole / "trials.jsonl").read_bytes()
    assert (halted / "best_prompt.txt").read_bytes() == (whole / "best_prompt.txt").read_bytes()
    assert (again.status, again.candidate, again.spent.calls) == (
        "budget",
        result.candidate,
        result.spent.calls,
    )
    assert again.spent.tokens == result.spent.tokens
    # the cache costs time and nothing else
    (halted / "answers.db").unlink()
    (halted / "answers.db-wal").unlink(missing_ok=True)
    run(halted)
    assert (halted / "trials.jsonl").read_bytes() == (whole / "trials.jsonl").read_bytes()
