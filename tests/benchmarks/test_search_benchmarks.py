"""The benchmarks of template search: cells are kept and read back, names make strategies, replays count what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autoprompt.errors import UnknownName
from autoprompt.strategies.racing import Racing
from autoprompt.strategies.tpe import TPE
from tests.benchmarks import planted_templates
from tests.benchmarks.matrices import Matrix
from tests.benchmarks.planted_templates import Shape, strategy_of
from tests.benchmarks.racing import replay, replays, row

SMALL = Shape(slots=2, options=3, examples=16, interactions=0.5)


def test_names_make_strategies_with_settings_and_races() -> None:
    race = strategy_of("racing?alpha=0.2&method=wilcoxon+tpe?batch=2")
    assert isinstance(race, Racing)
    assert (race.alpha, race.method) == (0.2, "wilcoxon")
    assert isinstance(race.inner, TPE)
    assert race.inner.batch == 2
    with pytest.raises(UnknownName):
        strategy_of("no_such_search")


def test_cells_are_kept_and_reported(tmp_path: Path) -> None:
    names, budgets = ("random_search", "racing+random_search"), (48, 16 * 9)
    made = planted_templates.run([SMALL], names, budgets, range(2), tmp_path)
    held = planted_templates.load(tmp_path, [SMALL], names, budgets, range(2))
    assert sorted(map(repr, held)) == sorted(map(repr, made))
    assert len(held) == 8
    everything = [cell for cell in made if cell.strategy == "random_search" and cell.budget == 144]
    assert all(cell.met and cell.spent == 144 and cell.prompts == 9 for cell in everything)
    text = planted_templates.report(held)
    assert "2x3, N=16, pairs 0.5" in text
    assert "100 / " in text
    planted_templates.draw(held, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def matrix() -> Matrix:
    rng = np.random.default_rng(0)
    chances = np.array([0.6, *np.linspace(0.3, 0.8, 12)])
    scores = (rng.random((13, 120)) < chances[:, None]).astype(float)
    return Matrix("made up", scores, 1.2 - scores, tuple("ab"[place % 2] for place in range(120)))


def test_a_replay_counts_calls_and_losses(tmp_path: Path) -> None:
    made = matrix()
    outcomes = [replay(made, Racing(), 60, seed) for seed in range(10)]
    assert all(0.2 < each.share < 0.9 for each in outcomes)
    assert all(each.good_lost <= each.good for each in outcomes)
    assert np.mean([each.test for each in outcomes]) > 0.7
    assert not any(each.best_lost_wrongly and not each.best_lost for each in outcomes)
    halved = [replay(made, Racing(method="halving"), 60, seed) for seed in range(10)]
    assert sum(each.good_lost for each in halved) > sum(each.good_lost for each in outcomes)
    kept = replays(made, "racing", 60, 10, tmp_path)
    assert kept == outcomes == replays(made, "racing", 60, 10, tmp_path)
    assert row("racing", 60, [kept])[1] == "60"
