"""Project and Loop: the way from rows back to words, its controls, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import autoprompt
from autoprompt.errors import InputError
from autoprompt.result import Result
from autoprompt.soft import DISCRETE
from autoprompt.strategies import Strategy
from autoprompt.strategies.chain import Chain
from autoprompt.strategies.gradient import Gradient
from autoprompt.strategies.loop import Loop
from autoprompt.strategies.project import METRICS, Project
from autoprompt.strategies.soft import Soft
from autoprompt.triggers import soft_space
from tests import test_token_search as token_search
from tests.test_token_search import model_of, reviews


def search(
    strategy: Strategy, architecture: str = "gpt2", calls: int = 2500, folder: Path | None = None
) -> Result:
    return token_search.search(architecture, strategy, folder, calls)


@pytest.mark.parametrize("architecture", ["gpt2", "bert", "t5"])
def test_every_way_back_is_scored_beside_its_controls(architecture: str, tmp_path: Path) -> None:
    result = search(Project(seeds=2, steps=10, nearest=3, sample=8), architecture, folder=tmp_path / "run")
    assert result.status == "complete"
    words = result.findings["in words"]
    ways = {"start", *(f"nearest, {metric}" for metric in METRICS)}
    assert ways <= words.keys()
    assert result.findings["soft"] == pytest.approx(result.soft_select, abs=1e-6)
    if architecture != "t5":  # pieces of words do not always stand beside each other as they are
        assert {"beam", "best of 15 drawn"} <= words.keys()  # 3 options, then 2 paths with 3 each, twice
    # the result is the best of all that was put into words, and no rows are in it
    best = max(value for value in words.values() if value is not None)
    assert result.best_select == pytest.approx(max(best, result.seed_select), abs=1e-6)
    assert not result.candidate.soft
    written = json.loads((tmp_path / "run" / "result.json").read_text("utf-8"))
    assert written["findings"]["in words"] == words
    assert "words     on select: soft" in str(result)


@pytest.mark.parametrize("calls", [900, 1400, 2500])
def test_a_beam_is_as_wide_as_the_budget_pays_for(calls: int) -> None:
    """Where it would not pay for all of it, the beam is narrower, and its control is as large as it."""
    result = search(Project(seeds=1), calls=calls)
    assert result.spent.calls <= calls
    words = result.findings["in words"]
    drawn = next(name for name in words if name.startswith("best of"))
    beam = [trial for trial in result.trials if trial.note.startswith("beam")]
    assert "beam" in words
    assert int(drawn.split()[2]) == len([trial for trial in beam if trial.n == 24 and not trial.complete])
    assert "worth" in result.findings["rows"][-1]


def test_rows_are_described_one_by_one() -> None:
    rows = search(Project(seeds=1, steps=10, nearest=3)).findings["rows"]
    assert [row["at"] for row in rows] == [0, 1, 2]
    for row in rows:
        assert len(row["nearest"]) == len(row["cosines"]) == 5
        assert row["cosines"] == sorted(row["cosines"], reverse=True)
        assert row["lead"] == pytest.approx(row["cosines"][0] - row["cosines"][1], abs=2e-3)
        assert isinstance(row["worth"], float)


def test_rows_at_their_tokens_are_telling_and_lead_back_to_them() -> None:
    """With next to no training the nearest tokens are those of the start, by every measure, and there is no gap."""
    result = search(Project(seeds=1, steps=1, lr=1e-6, nearest=2, start="loved it was"))
    words = result.findings["in words"]
    assert {words[f"nearest, {metric}"] for metric in METRICS} == {words["start"]}
    assert result.findings["soft"] == words["start"]
    for row in result.findings["rows"]:
        assert row["cosines"][0] == pytest.approx(1.0, abs=1e-3)
        assert row["distance"] == pytest.approx(0.0, abs=1e-3)
        assert row["telling"]
    assert "say nothing" not in result.findings["report"]


def test_rows_far_from_all_tokens_are_said_to_tell_nothing() -> None:
    result = search(Project(seeds=1, steps=20, lr=3.0, schedule="constant", nearest=2))
    assert not any(row["telling"] for row in result.findings["rows"])
    assert "the nearest tokens of 3 of 3 rows say nothing of them" in str(result)


@pytest.mark.parametrize("method", DISCRETE)
def test_methods_that_end_in_tokens_find_prompts_of_text(method: str) -> None:
    """What they read is a mixture; what is scored is the text of the likeliest tokens."""
    result = search(Soft(seeds=2, steps=30, method=method, lr=2.0, schedule="constant"))
    assert result.soft is None
    steps = [trial for trial in result.trials if trial.note.startswith("step") and trial.complete]
    assert len({trial.text for trial in steps}) > 2
    assert not any(trial.soft for trial in steps)


def test_a_loop_shares_its_calls_out_and_goes_on_from_words() -> None:
    result = search(Loop(rounds=1), calls=6000)
    assert result.spent.calls <= 6000
    notes = [trial.note for trial in result.trials]
    assert notes.index("train 0") > notes.index(
        "gradient"
    )  # first the search, then training, then the search
    assert "gradient" in notes[notes.index("beam") :]
    assert "soft" in result.findings


def test_new_words_are_taken_where_they_are_better_beyond_noise() -> None:
    """With an impossible bar every stage begins at the manual prompt."""
    strict = Chain(strategies=(Gradient(width=8, starts=4), Soft(seeds=1, steps=5)), beyond=1e9)
    result = search(strict, calls=2000)
    starts = [trial for trial in result.trials if trial.note == "step 0"]
    lenient = Chain(strategies=(Gradient(width=8, starts=4), Soft(seeds=1, steps=5)))
    other = search(lenient, calls=2000)
    trigger = dict(other.candidate.choices).get("trigger")
    assert trigger
    assert starts[0].choices["trigger"] != trigger
    assert [t.choices["trigger"] for t in other.trials if t.note == "step 0"] != [
        starts[0].choices["trigger"]
    ]


def test_a_prompt_of_words_is_gone_on_from() -> None:
    """Rows of its own tokens score exactly as the prompt, wherever its words stand."""
    task, model = reviews(), model_of("gpt2")
    text = 'It was "{{ text }}" !\nThe people loved it (good or bad): {{ answer }}'
    space = soft_space(task, text)
    assert [slot.tokens.init for slot in space.slots.values() if slot.tokens] == [
        "It was",
        "The people loved it (good or bad):",
    ]
    result = autoprompt.optimize(task, model, 1000, space=space, strategy=Soft(seeds=1, steps=2))
    first = next(trial for trial in result.trials if trial.note == "step 0")
    plain = autoprompt.evaluate(task, model, text, split="select")
    assert first.score == pytest.approx(plain.scored.score, abs=1e-6)
    assert first.loss == pytest.approx(plain.scored.loss, abs=1e-6)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Project(nearest=0), "nearest must be at least 1"),
        (lambda: Project(metric="cosin"), "no metric 'cosin' \\(did you mean 'cosine'"),  # type: ignore[arg-type]
        (lambda: Project(share=1.5), "share must lie between 0 and 1"),
        (lambda: Project(method="pez"), "ends in tokens of itself"),
        (lambda: Loop(rounds=0), "rounds must be at least 1"),
        (lambda: Chain(strategies=(Soft(),), beyond=-1.0), "beyond must be at least 0"),
    ],
)
def test_wrong_settings_are_refused(make: object, problem: str) -> None:
    assert callable(make)
    with pytest.raises(InputError, match=problem):
        make()
