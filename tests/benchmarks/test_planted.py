"""What planted tasks promise: the hidden trigger is right everywhere, others are not, and it can be found."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

import autoprompt
from autoprompt.policy import TokenPolicy
from autoprompt.splits import ROLES
from tests.benchmarks import triggers
from tests.benchmarks.planted import SLOT, SMALL, Kind, Planted, Size, planted_task, taught

N, ROWS = 2, (8, 16, 60)
KINDS = get_args(Kind)


def planted(kind: Kind) -> Planted:
    """Teaching is done once a kind; the rest is quick."""
    return planted_task(kind, 0, N, size=SMALL, rows=ROWS)


def prompt_with(made: Planted, trigger: str) -> autoprompt.Prompt:
    text = str(made.space["template"]).replace(f"[[ {SLOT} ]]", trigger)
    return autoprompt.Prompt(text, made.task.words)


@pytest.mark.parametrize("kind", KINDS)
def test_the_hidden_trigger_is_right_and_others_are_not(kind: Kind) -> None:
    made = planted(kind)
    assert made.model.kind == kind
    for role, count in zip(ROLES, ROWS, strict=True):
        scored = autoprompt.evaluate(made.task, made.model, prompt_with(made, made.trigger), split=role)
        assert (scored.estimate.value, scored.estimate.n) == (1.0, count)
        labels = [example.target for example in made.task.split(role)]
        assert [labels.count(label) for label in made.task.labels] == [count // 2, count // 2]
    assert len({example.question for role in ROLES for example in made.task.split(role)}) == sum(ROWS)
    assert autoprompt.evaluate(made.task, made.model, made.task.seed_prompt).estimate.value == made.empty
    assert made.empty < 0.9
    assert np.mean(made.random) < 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_the_hidden_trigger_can_be_found(kind: Kind) -> None:
    """It is ``n`` tokens that the slot's policy allows and the model reads back."""
    made = planted(kind)
    space = autoprompt.SearchSpace.from_dict(made.space).bind(made.task, answer_at_end=kind != "masked")
    prompt = space.prompt_from({SLOT: made.trigger})
    rendered = [prompt.render(example.fields, with_slots=True) for example in made.task.train]
    read = made.model.vocabulary.read(rendered)
    (ids,) = {each[SLOT] for each in read if each is not None}
    assert None not in read
    assert len(ids) == N
    allowed = made.model.vocabulary.allowed(TokenPolicy(answers=tuple(made.task.labels)))
    assert allowed[list(ids)].all()


def test_a_task_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"n = 3: of 4 subjects a trigger asks about 1 to 2"):
        planted_task("causal", 0, 3, size=SMALL)


def test_teaching_is_repeatable_and_leaves_global_chance_alone() -> None:
    size = Size(subjects=2, spoken=2, sayings=1, askers=2, lessons=1, batch=8, cooling=5)
    state = torch.get_rng_state()
    one, other = (taught.__wrapped__("causal", 3, size) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert (one.steps, one.right) == (other.steps, other.right)
    assert one.model.fingerprint == other.model.fingerprint


def test_a_masked_model_numbers_its_tokens_alike_in_every_process() -> None:
    """Training WordPiece numbers equal words anew in each process; then the same arguments gave another task."""
    vocabulary = planted("masked").model.vocabulary
    allowed = np.flatnonzero(vocabulary.allowed(TokenPolicy("any", matching="[a-z]{4,}")))
    words = [vocabulary.text([int(token)]) for token in allowed]
    assert len(words) > 4000
    assert words == sorted(words)


def test_strategies_on_different_tasks_are_not_compared(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"lengths": (N,), "size": SMALL, "folder": tmp_path}
    (cell,) = triggers.run(["causal"], ["random_search"], [0], 200, **asked)
    other = dataclasses.replace(cell, strategy="gcg", random=cell.random + 0.01)
    name = triggers._file("causal", "gcg", 0, N, 200, SMALL)
    (tmp_path / name).write_text(json.dumps(dataclasses.asdict(other)), "utf-8")
    with pytest.raises(ValueError, match="random_search and gcg were measured on different tasks"):
        triggers.run(["causal"], ["random_search", "gcg"], [0], 200, **asked)


def test_cells_are_kept_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"lengths": (N,), "size": SMALL, "folder": tmp_path}
    (cell,) = triggers.run(["causal"], ["random_search"], [0], 1000, **asked)
    assert (cell.n, cell.spent <= 1000, len(cell.trigger.split())) == (N, True, N)
    assert 0.5 < cell.test <= 1
    assert cell.calls_to_find is None or cell.select >= triggers.FOUND
    monkeypatch.setattr(triggers, "search", None)
    assert triggers.run(["causal"], ["random_search"], [0], 1000, **asked) == [cell]
    with pytest.raises(TypeError):  # another cell has to be searched for
        triggers.run(["causal"], ["random_search"], [0], 1001, **asked)


def test_the_table_counts_seeds_that_found_nothing_as_infinite() -> None:
    cells = [
        triggers.Cell(
            "causal", "gcg", seed, 3, 5000, test, test, calls, 5000, 10.0, 0.5, 0.4, "a b c", "d e f"
        )
        for seed, (test, calls) in enumerate([(1.0, 900), (0.97, 1500), (0.8, None), (0.7, None)])
    ]
    row = next(line for line in triggers.report(cells).splitlines() if "gcg" in line)
    assert [each.strip() for each in row.strip("|").split("|")] == [
        "causal", "gcg", "3", "5,000", "4", "0.80 (0.70-0.97)", "2/4", "1,500 (900-inf)", "2.00", "0.50", "0.40"
    ]  # fmt: skip
