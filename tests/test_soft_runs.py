"""Runs that train rows: what they cost, what they find and say, and that they resume."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import autoprompt
from autoprompt.api import Round, evaluate, optimize
from autoprompt.asks import Score, Scored, Tune, Tuned
from autoprompt.budget import Budget
from autoprompt.cache import Cache
from autoprompt.errors import BudgetError, InputError, MissingCapability
from autoprompt.harness import Harness
from autoprompt.models import Failure
from autoprompt.result import Result
from autoprompt.soft import SoftRows, Training
from autoprompt.strategies.chain import Chain
from autoprompt.strategies.gradient import Gradient
from autoprompt.strategies.project import Project
from autoprompt.strategies.soft import Soft
from autoprompt.task import Task
from autoprompt.trial import Trial
from autoprompt.triggers import soft_space, trigger_space
from tests.asking import KINDS, PROMPT, SOME, TASK, count, harness, load
from tests.models.test_soft import own_rows

SPACE = trigger_space(TASK, 3, policy="any")
BUDGET = 330


def run(kind: str = "gpt2", budget: object = BUDGET, strategy: Any = None, **options: Any) -> Result:
    search = strategy or Soft(batch=4, seeds=2, every=3, lr=0.2)
    return optimize(TASK, load(kind), budget, space=SPACE, strategy=search, **{"seed": 3, **options})  # type: ignore[arg-type]


@functools.cache
def found() -> Result:
    return run()


def log(result: Result) -> list[dict[str, Any]]:
    return [trial.row() for trial in result.trials]


def test_the_budget_is_spent_and_never_exceeded() -> None:
    result = found()
    assert 0.85 * BUDGET < result.spent.calls <= BUDGET
    assert result.status == "complete"
    notes = [trial.note for trial in result.trials]
    assert {"seed", "step 0", "train 0", "train 1", "step 3", "in words"} <= set(notes)
    assert result.trials[-1].calls == result.spent.calls
    tight = run(budget=110, strategy=Soft(steps=50, batch=4, seeds=2, every=3))
    assert tight.status == "budget"
    assert tight.spent.calls <= 110


@pytest.mark.parametrize("kind", KINDS)
def test_the_result_is_the_best_iterate_and_never_the_candidate(kind: str) -> None:
    result = found() if kind == "gpt2" else run(kind, 200)
    soft = [trial for trial in result.trials if trial.soft and trial.complete]
    assert result.soft is not None
    best = max(trained_of(result), key=lambda trial: (trial.score, -round(trial.loss or 0, 4)))
    assert result.soft.key == best.key
    assert result.soft_select == best.score
    assert soft[0].note == "step 0"
    assert soft[0].beside
    assert all(trial.score is None for trial in result.trials if trial.note.startswith("train"))
    assert not result.candidate.soft
    assert not result.best.soft
    assert not any(trial.soft for trial in result.pareto)
    again = evaluate(TASK, load(kind), result.soft)
    assert result.soft_test is not None
    assert result.test is not None
    assert again.estimate == result.soft_test
    assert result.gap == result.soft_test.value - result.test.best.value
    select = evaluate(TASK, load(kind), result.soft, split="select").estimate.value
    assert select == pytest.approx(result.soft_select, abs=1e-6)  # of which six digits are kept


def trained_of(result: Result) -> list[Trial]:
    """The measurements of rows that have been trained."""
    return [trial for trial in result.trials if trial.soft and trial.complete and trial.note != "step 0"]


def test_a_start_that_was_chosen_on_select_does_not_stop_the_training_there() -> None:
    result = run(
        budget=150, strategy=Soft(lr=30.0, steps=4, seeds=1, batch=2, every=2, start="the film was good")
    )
    start = next(trial for trial in result.trials if trial.note == "step 0")
    assert start.score is not None
    trained = trained_of(result)
    assert start.score >= max(trial.score or 0.0 for trial in trained), "else this test shows nothing"
    assert (start.loss or 0.0) < min(trial.loss or 0.0 for trial in trained)
    assert result.soft is not None
    assert result.soft.key in {trial.key for trial in trained}


WRITING = Task.from_rows(
    [{"text": f"say {n}", "target": f"it was {'good' if n % 2 else 'bad'}"} for n in range(16)],
    name="writing",
    kind="generation",
    prompt="Say: {{ text }} It was {{ answer }}",
    max_tokens=3,
)


def test_free_text_has_no_losses_and_a_result_all_the_same(tmp_path: Path) -> None:
    search = Project(batch=4, seeds=1, every=2, steps=2, nearest=2, width=1)
    space = trigger_space(WRITING, 2, policy="any")
    result = optimize(
        WRITING, load("gpt2"), 3_000, space=space, strategy=search, seed=1, run_dir=tmp_path / "run"
    )
    found = json.loads((tmp_path / "run" / "result.json").read_text("utf-8"))["findings"]
    assert {row["worth"] for row in found["rows"]} == {None}
    assert result.status in ("complete", "budget")
    with pytest.raises(InputError, match="init labels: the task has no label words"):
        optimize(WRITING, load("gpt2"), 3_000, space=space, strategy=Soft(init="labels", steps=1, batch=4))


def test_all_words_of_a_long_prompt_become_rows() -> None:
    lines = [
        "Read the whole review with care.",
        "Think of what its writer felt at the end.",
        "Review: {{ text }}",
        "One word says it best.",
        "The writer found it {{ answer }}",
    ]
    space = soft_space(TASK, "\n".join(lines))
    search = Soft(batch=4, seeds=1, every=2, steps=1)
    result = optimize(TASK, "bundled:causal", 400, space=space, strategy=search)
    assert result.soft is not None
    assert len(result.soft.soft) >= 3


def test_what_is_written_of_it(tmp_path: Path) -> None:
    result = run(run_dir=tmp_path / "run")
    document = json.loads((tmp_path / "run" / "result.json").read_text("utf-8"))
    assert result.soft is not None
    (slot,) = result.soft.soft
    rows = result.soft.soft[slot]
    assert document["soft"]["slots"] == {
        slot: {"text": result.soft.slots[slot], "shape": list(rows.shape), "key": rows.key}
    }
    assert document["soft"]["discretisation_gap"] == result.gap
    assert document["soft"]["select"] == result.soft_select
    assert document["prompt"] == result.best.text
    (line,) = (line for line in str(result).splitlines() if line.startswith("soft"))
    assert f"3 rows at {slot}" in line
    assert f"gap {100 * result.gap:+.1f} points" in line
    for row in (
        json.loads(line) for line in (tmp_path / "run" / "trials.jsonl").read_text("utf-8").splitlines()
    ):
        soft = row["note"].startswith(("step", "train"))
        assert ("soft" in row) == soft
        if soft:
            assert row["soft"][slot]["shape"] == list(rows.shape)
    assert log(result) == log(found())  # and a folder changes nothing


def test_the_same_seed_gives_the_same_run_and_another_another() -> None:
    other = run(seed=4)
    assert log(run()) == log(found())
    assert log(other) != log(found())


def test_a_run_resumes_to_the_same_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    halted = tmp_path / "halted"

    def stopped(stop: int, each: Round) -> None:
        if each.spent.calls >= stop:
            raise KeyboardInterrupt

    for stop in (40, 170):
        part = run(run_dir=halted, on_round=functools.partial(stopped, stop))
        assert part.status == "interrupted"
        assert part.test is None
        if part.soft is not None:
            assert math.isfinite(part.gap)
    with (halted / "trials.jsonl").open("a") as file:
        file.write('{"number": 9')  # and a torn line
    again = run(run_dir=halted)
    assert log(again) == log(found())
    assert [json.loads(line) for line in (halted / "trials.jsonl").read_text("utf-8").splitlines()] == log(
        found()
    )
    assert again.soft == found().soft
    assert (again.spent.calls, again.spent.tokens) == (found().spent.calls, found().spent.tokens)
    assert again.soft_test == found().soft_test
    model = load("gpt2")
    trained = count(monkeypatch, model, "tune")
    finished = optimize(
        TASK,
        model,
        BUDGET,
        space=SPACE,
        strategy=Soft(batch=4, seeds=2, every=3, lr=0.2),
        seed=3,
        run_dir=halted,
    )
    assert (log(finished), trained) == (log(found()), [])
    (halted / "answers.db").unlink()  # the cache costs time and nothing else
    (halted / "answers.db-wal").unlink(missing_ok=True)
    assert log(run(run_dir=halted)) == log(found())


def test_trainings_of_a_round_are_run_together(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("gpt2")
    sizes = count(monkeypatch, model, "tune")
    optimize(TASK, model, 200, space=SPACE, strategy=Soft(steps=4, batch=2, seeds=3, every=2))
    assert sizes == [3, 3]


def test_what_a_gradient_search_found_is_begun_at_exactly() -> None:
    hard = run(budget=400, strategy=Gradient(width=6, batch=4, starts=3, patience=2, beside=0))
    start = max(
        (trial for trial in hard.trials if trial.complete and "trigger" in trial.choices),
        key=lambda each: each.number,
    )
    assert dict(start.prompt.slots) == {}  # a prompt out of a log is text alone
    given = (
        hard.candidate
        if hard.candidate.slots
        else SPACE.bind(TASK, answer_at_end=True).prompt_from(start.choices)
    )
    soft = run(budget=100, strategy=Soft(start=given, steps=1, seeds=1, batch=2))
    first = next(trial for trial in soft.trials if trial.note == "step 0")
    own = next(trial for trial in hard.trials if trial.key == given.key and trial.complete)
    assert first.asked is not None
    assert first.asked.hardened() == given
    assert first.score == own.score
    assert first.loss == pytest.approx(own.loss, abs=2e-6)


def test_in_a_chain_rows_begin_at_the_words_found_before() -> None:
    stages = (
        Gradient(width=6, batch=4, starts=3, patience=2, beside=0),
        Soft(seeds=1, batch=2, every=2),
        Gradient(),
    )
    result = run(budget=500, strategy=Chain(strategies=stages, shares=(2.0, 1.0, 1.0)))
    assert result.spent.calls <= 500
    notes = [trial.note for trial in result.trials]
    at = notes.index("step 0")
    first = result.trials[at]
    before = [
        trial
        for trial in result.trials[:at]
        if trial.complete and trial.score is not None and not trial.beside
    ]
    best = max(before, key=lambda trial: (trial.score, -round(trial.loss or 0, 4)))
    if "trigger" in best.choices:
        assert first.choices["trigger"] == best.choices["trigger"]
        assert first.loss == pytest.approx(best.loss, abs=2e-6)
    assert "train 0" in notes
    assert "gradient" in notes[at:]
    assert result.soft is not None
    assert not result.candidate.soft


def test_a_training_that_leaves_the_numbers_is_told() -> None:
    result = run(budget=150, strategy=Soft(lr=1e38, steps=4, seeds=2, batch=2))
    assert "lr 1e+38; lower it" in str(result)
    assert result.soft is not None  # where it began
    json.dumps(result.document(), allow_nan=False)


def test_a_model_that_cannot_be_trained_is_refused_with_the_next_step() -> None:
    def model(text: str) -> str:
        return "good"

    with pytest.raises(MissingCapability, match="shows no tokens") as caught:
        optimize(TASK, model, 200, space=SPACE, strategy="soft")
    assert "Hugging Face" in caught.value.hint
    assert "random_search" in caught.value.hint


def test_rows_of_another_model_are_refused() -> None:
    with pytest.raises(autoprompt.AutopromptError, match=r"\[3, 7\] do not fit .* 32 wide"):
        run(strategy=Soft(start=SoftRows([[0.0] * 7] * 3), steps=1))


# The harness.


def tune(steps: int = 2, done: int = 0, state: bytes = b"", seed: int = 0) -> Tune:
    model = load("gpt2")
    rows = own_rows(model, PROMPT.render(SOME[0].fields, with_slots=True))
    training = Training(steps=8, seed=seed, lr=0.1)
    return Tune(PROMPT.softened(rows), (SOME[:2], (SOME[0], SOME[0]))[:steps], training, done, state)


def test_a_training_is_charged_by_the_texts_it_reads() -> None:
    for budget in (None, Budget(calls=12), Budget(tokens=10**6)):
        asked = harness(load("gpt2"), budget)
        (answer,) = asked.answer([tune()])
        assert isinstance(answer, Tuned)
        assert len(answer.losses) == 2
        assert asked.meter.calls == 12
        if budget is None:
            read = asked.meter.tokens
        assert asked.meter.tokens == read
    short = harness(load("gpt2"), Budget(calls=11))
    assert short.answer([tune()]) == []
    assert short.exhausted


def test_a_training_is_kept_whole_and_others_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, model = Cache(), load("gpt2")
    sizes = count(monkeypatch, model, "tune")
    (first,) = harness(model, None, cache).answer([tune()])
    assert isinstance(first, Tuned)
    again = harness(model, None, cache)
    (second,) = again.answer([tune()])
    assert isinstance(second, Tuned)
    assert sizes == [1]
    assert again.meter.cached == again.meter.calls == 12
    assert (first.rows, first.losses, first.state, first.ids) == (
        second.rows,
        second.losses,
        second.state,
        second.ids,
    )
    others: Sequence[Tune] = (
        tune(1), tune(seed=1), tune(done=2, state=first.state), dataclasses.replace(tune(), done=1),
        dataclasses.replace(tune(), training=dataclasses.replace(tune().training, lr=0.2)),
        dataclasses.replace(tune(), batches=(SOME[:2], SOME[:2])),
    )  # fmt: skip
    for other in others:
        harness(model, None, cache).answer([other])
    assert sizes == [1] * (1 + len(others))


def test_a_failed_training_is_an_answer_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("gpt2")
    real: Callable[..., list[Any]] = model.__getattribute__("tune")
    monkeypatch.setattr(model, "tune", lambda asked: [Failure("no way"), *real(asked[1:])])
    failed, sound, score = harness(model).answer([tune(), tune(seed=1), Score(PROMPT, SOME)])
    assert isinstance(failed, Tuned)
    assert failed.problem == "no way"
    assert not failed.rows
    assert isinstance(sound, Tuned)
    assert not sound.problem
    assert isinstance(score, Scored)


@pytest.mark.parametrize("among", [True, False])
def test_a_loss_is_what_the_score_says(among: bool) -> None:
    ask = dataclasses.replace(tune(1), training=Training(steps=8, among_answers=among))
    tuned, scored = harness(load("gpt2")).answer([ask, Score(ask.prompt, ask.batches[0])])
    assert isinstance(tuned, Tuned)
    assert isinstance(scored, Scored)
    if among:
        assert tuned.losses[0] == pytest.approx(scored.loss, abs=2e-6)
    else:
        assert tuned.losses[0] > scored.loss + 0.1


def free_text() -> Task:
    rows = [{"text": f"the film {at}", "answer": "a slow dog"} for at in range(6)]
    return Task.from_rows(
        {"train": rows[:2], "select": rows[2:4], "test": rows[4:]},
        name="free", kind="generation", target="answer", prompt="{{ text }} It was {{ answer }}",
    )  # fmt: skip


def test_free_text_is_trained_for() -> None:
    task = free_text()
    space = trigger_space(task, 4, policy="any")
    strategy = Soft(steps=6, seeds=1, batch=2, every=3, lr=0.1)
    result = optimize(task, load("gpt2"), 100, space=space, strategy=strategy)
    losses = [trial.loss or 0 for trial in result.trials if trial.note == "train 0"]
    assert losses[-1] < losses[0]
    assert result.soft is not None
    assert (
        result.spent.calls == 6 * 6 + 5 * 2 + 2 * len([t for t in result.trials if t.note == "in words"]) - 2
    )


def test_tokens_of_free_text_are_counted_as_they_are_read() -> None:
    task = free_text()
    prompt = (
        trigger_space(task, 2, policy="any", init="good people")
        .bind(task, answer_at_end=True)
        .prompt_from({"trigger": "good people"})
    )
    rows = own_rows(load("gpt2"), prompt.render(task.train[0].fields, with_slots=True))
    ask = Tune(prompt.softened(rows), (task.train,), Training(steps=1))
    tokens = []
    for budget in (None, Budget(tokens=10**6)):
        asked = Harness(task, load("gpt2"), budget, Cache())
        asked.answer([ask])
        tokens.append(asked.meter.tokens)
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize(
    ("strategy", "floor"),
    [
        (Soft(batch=4, seeds=2, every=3), 10 + 2 * (20 + 3 * 4)),
        (Soft(batch=4, seeds=2, every=3, steps=50), 10 + 2 * (20 + 3 * 3 * 4)),
        (Soft(batch=4, seeds=2, every=3, method="prefix"), 10 + 2 * (20 + 3 * (2 + 4))),
        (Project(batch=4, seeds=2, share=0.5), 10 + 10 + 2 * 2 * (20 + 3 * 4)),
    ],
)
def test_a_budget_that_pays_for_no_training_is_refused_before_anything_runs(
    strategy: Soft, floor: int
) -> None:
    task, model = Task.load("reviews").with_sizes(train=20, select=10, test=10), load("gpt2")
    with pytest.raises(
        BudgetError, match=f"do not cover the first steps .* 10 select examples they take {floor}"
    ):
        optimize(task, model, floor - 1, strategy=strategy)
    result = optimize(task, model, floor, strategy=strategy)
    assert any(trial.note.startswith("train") for trial in result.trials)
    assert "does not pay" not in str(result.findings)
