"""Runs that train keys and values: what they cost and say, that they resume, and what leaves them."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import pytest

from autoprompt.api import Round, evaluate, optimize
from autoprompt.errors import InputError, MissingCapability
from autoprompt.result import Result
from autoprompt.softfiles import export_peft, import_peft
from autoprompt.strategies.project import Project
from autoprompt.strategies.soft import Soft
from autoprompt.triggers import trigger_space
from tests.asking import TASK, count, load

SPACE = trigger_space(TASK, 3, front=True, policy="any")
BUDGET = 250
TEXT = "the good film"


def run(kind: str = "gpt2", strategy: Any = None, budget: int = BUDGET, **options: Any) -> Result:
    search = strategy or Soft(method="prefix", start=TEXT, batch=4, seeds=2, every=3, lr=1.0)
    return optimize(TASK, load(kind), budget, space=SPACE, strategy=search, **{"seed": 3, **options})


@functools.cache
def found() -> Result:
    return run()


def log(result: Result) -> list[dict[str, Any]]:
    return [trial.row() for trial in result.trials]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_a_run_trains_keys_and_values_within_its_budget(kind: str) -> None:
    result = found() if kind == "gpt2" else run(kind)
    assert result.status == "complete"
    assert 0.85 * BUDGET < result.spent.calls <= BUDGET
    assert result.soft is not None
    assert {rows.form for rows in result.soft.soft.values()} == {"prefix"}
    notes = [trial.note for trial in result.trials]
    assert notes[:5] == ["seed", "keys and values", "keys and values", "step 0", "step 0"]
    assert "in words" not in notes
    assert not result.candidate.soft
    assert math.isnan(result.gap)
    assert "keys and values, which stand for no words" in str(result)
    assert "gap" not in str(result)
    document = json.loads(json.dumps(result.document()))
    assert document["soft"]["discretisation_gap"] is None
    assert document["soft"]["slots"]["trigger"]["form"] == "prefix"
    steps = [trial for trial in result.trials if trial.note.startswith("step")]
    assert min(trial.loss or 0 for trial in steps) < (steps[0].loss or 0)
    again = evaluate(TASK, load(kind), result.soft)
    assert again.estimate == result.soft_test


def test_the_first_step_is_at_the_text() -> None:
    (hard,) = {trial.text for trial in found().trials if trial.note == "step 0"}
    (step, *_) = (trial for trial in found().trials if trial.note == "step 0")
    given = evaluate(TASK, load("gpt2"), hard, split="select")
    assert given.estimate.value == pytest.approx(step.score, abs=1e-6)
    assert TEXT in hard


def test_a_run_resumes_to_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(Exception):
        pass

    def stop(at: Round) -> None:
        if at.spent.calls > BUDGET // 2:
            raise Stopped

    with pytest.raises(Stopped):
        run(run_dir=tmp_path / "run", on_round=stop)
    model = load("gpt2")
    sizes = count(monkeypatch, model, "tune")
    search = Soft(method="prefix", start=TEXT, batch=4, seeds=2, every=3, lr=1.0)
    resumed = optimize(TASK, model, BUDGET, space=SPACE, strategy=search, seed=3, run_dir=tmp_path / "run")
    assert 0 < len(sizes) < len([each for each in found().trials if each.note == "train 0"])
    assert log(resumed) == log(found())
    assert resumed.soft == found().soft


def test_what_a_run_keeps_can_be_evaluated_exported_and_gone_on_from(tmp_path: Path) -> None:
    result = run(run_dir=tmp_path / "run")
    assert result.soft is not None
    folder = tmp_path / "run" / "soft"
    assert evaluate(TASK, load("gpt2"), folder).estimate == result.soft_test
    adapter = export_peft(tmp_path / "adapter", result.soft, load("gpt2"))
    config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    assert (config["peft_type"], config["num_virtual_tokens"]) == (
        "PREFIX_TUNING",
        len(result.soft.soft["trigger"]),
    )
    reading = json.loads((adapter / "prompt.json").read_text("utf-8"))
    start = import_peft(adapter, reading["template"] + "{{ answer }}", load("gpt2"), slot="trigger")
    assert start.soft["trigger"] == result.soft.soft["trigger"]
    for begin in (result.soft, start.soft["trigger"], dict(start.soft)):
        strategy = Soft(method="prefix", start=begin, steps=1, batch=2, seeds=1)
        further = run(strategy=strategy)
        (first,) = (trial for trial in further.trials if trial.note == "step 0")
        assert first.soft == {"trigger": result.soft.soft["trigger"]}
        assert first.score == pytest.approx(result.soft_select, abs=1e-6)
    with pytest.raises(InputError, match=r"(?s)keys and values.*method=\"prefix\""):
        run(strategy=Soft(start=result.soft))


def test_any_start_becomes_keys_and_values() -> None:
    for init in ("vocabulary", "labels", "random"):
        strategy = Soft(method="prefix", init=init, steps=2, batch=2, seeds=1, length=None)
        result = run(strategy=strategy)
        assert result.soft is not None
        assert all(rows.form == "prefix" for rows in result.soft.soft.values())


def test_what_cannot_be_is_refused_before_it_costs_anything() -> None:
    with pytest.raises(InputError, match="stand for no words"):
        Project(method="prefix")
    with pytest.raises(MissingCapability, match="encoder-decoder"):
        run("t5")
    with pytest.raises(InputError, match=r"(?s)method prefix: slot 'trigger'.*front=True"):
        optimize(
            TASK, load("gpt2"), BUDGET, space=trigger_space(TASK, 3), strategy=Soft(method="prefix"), seed=3
        )


def test_a_trigger_can_stand_in_front() -> None:
    stands = optimize(TASK, load("gpt2"), BUDGET, strategy=Soft(method="prefix", seeds=1), seed=3).soft
    assert stands is not None  # where no space is given
    assert stands.text.endswith(TASK.prompt)
    assert SPACE.spec.template == "[[ trigger ]] " + TASK.prompt
    assert trigger_space(TASK, 3).spec.template.index("[[ trigger ]]") > 0
