"""Wealth: its level over all orders of the examples, whatever is expected; its end; what is expected of a prompt."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from autoprompt.asks import Floats, Scored
from autoprompt.strategies.comparing.evidence import expected_scores, log_wealth


def reached(scores: Floats, expected: Floats, total: float, order: tuple[int, ...]) -> float:
    """The highest log-wealth over the whole order."""
    places = list(order)
    return log_wealth(scores[places], expected[places], total)


@pytest.mark.parametrize("total", [3.0, 4.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_holds_its_level_over_all_orders_whatever_is_expected(seed: int, total: float) -> None:
    rng = np.random.default_rng(seed)
    scores = np.array([1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0])  # it does reach both totals
    expected = rng.random(7) if seed else 1.0 - scores
    highest = np.array(
        [reached(scores, expected, total, order) for order in itertools.permutations(range(7))]
    )
    for alpha in (0.5, 0.3, 0.2, 0.1, 0.05):
        assert (highest >= -math.log(alpha)).mean() <= alpha


def test_holds_its_level_for_graded_scores() -> None:
    rng = np.random.default_rng(0)
    scores, expected = rng.random(40), rng.random(40)
    highest = [
        reached(scores, expected, float(scores.sum()), tuple(rng.permutation(40))) for _ in range(2_000)
    ]
    assert (np.array(highest) >= math.log(5)).mean() <= 0.2


def test_grows_where_the_total_is_not_reached_and_more_where_examples_are_foreseen() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(120)
    scores = (np.where(rng.random(120) < 0.9, hard, rng.random(120)) < 0.55).astype(float)
    blind, told = (
        np.median([reached(scores, expected, 84.0, tuple(rng.permutation(120))) for _ in range(50)])
        for expected in (np.full(120, 0.7), np.clip(1.2 - hard, 0.0, 1.0))
    )
    half = [
        log_wealth(scores[order[:50]], np.clip(1.2 - hard, 0.0, 1.0)[order], 84.0)
        for order in (rng.permutation(120) for _ in range(50))
    ]
    assert math.isinf(blind)  # at the end it is certain
    assert math.isinf(told)
    blind_half = [log_wealth(scores[rng.permutation(120)[:50]], np.full(120, 0.7), 84.0) for _ in range(50)]
    assert np.median(half) > np.median(blind_half) > 0


def test_is_infinite_as_soon_as_the_total_is_out_of_reach() -> None:
    expected = np.full(4, 0.5)
    assert math.isfinite(log_wealth(np.array([0.0]), expected, 3.0))
    assert math.isinf(log_wealth(np.array([0.0, 0.0]), expected, 3.0))
    assert log_wealth(np.array([]), expected, 3.0) == 0.0


def test_what_is_expected_is_the_chance_of_the_right_answer() -> None:
    nan = float("nan")
    one = Scored(np.array([1.0, 0.0, nan, 1.0]), np.array([0.1, 1.0, nan, nan]))
    two = Scored(np.array([1.0, 1.0, nan, 0.0]), np.array([0.1, 0.5, nan, nan]))
    wanted = [math.exp(-0.1), (math.exp(-1.0) + math.exp(-0.5)) / 2, 0.5, 0.5]
    np.testing.assert_allclose(expected_scores([one, two]), wanted)
