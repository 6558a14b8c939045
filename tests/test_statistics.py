"""Intervals cover, tests hold their level (also under peeking), and published numbers come out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from autoprompt.metrics import METRICS
from autoprompt.statistics import (
    EValue,
    bootstrap_mean,
    bootstrap_set,
    estimate,
    log_mixture,
    mcnemar,
    newcombe,
    paired,
    paired_set,
    wilson,
)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (3, 17), (700, 872), (1, 1)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_equals_scipy(successes: int, n: int, level: float) -> None:
    found = wilson(successes, n, level)
    wanted = binomtest(successes, n).proportion_ci(level, method="wilson")
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_wilson_covers() -> None:
    rng = np.random.default_rng(1)
    for share in (0.5, 0.9):
        drawn = rng.binomial(100, share, 4000)
        table = [wilson(k, 100) for k in range(101)]
        covered = np.mean([table[k].low <= share <= table[k].high for k in drawn])
        assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        ((36, 12, 2, 50), 0.0569, 0.3404),  # Newcombe (1998), method 10
        ((1, 1, 7, 21), -0.507, -0.026),  # Fagerland, Lydersen & Laake (2014), airway data
    ],
)
def test_newcombe_published(table: tuple[int, int, int, int], low: float, high: float) -> None:
    found = newcombe(*table)
    digits = 4 if low > 0 else 3
    assert (round(found.low, digits), round(found.high, digits)) == (low, high)


def test_newcombe_is_antisymmetric_and_stays_inside() -> None:
    for both, wins, losses, n in [(0, 5, 0, 5), (10, 0, 0, 10), (3, 4, 1, 9), (0, 0, 0, 4)]:
        one, other = newcombe(both, wins, losses, n), newcombe(both, losses, wins, n)
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
        assert -1 <= one.low <= (wins - losses) / n <= one.high <= 1


def test_newcombe_covers() -> None:
    rng = np.random.default_rng(2)
    shares = [0.6, 0.15, 0.07, 0.18]  # both, wins, losses, neither
    drawn = rng.multinomial(80, shares, 3000)
    intervals = [newcombe(int(b), int(w), int(losses), 80) for b, w, losses, _ in drawn]
    covered = np.mean([item.low <= 0.08 <= item.high for item in intervals])
    assert 0.93 <= covered <= 0.98


def test_mcnemar() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == 1
    assert mcnemar(10, 0) == pytest.approx(2 / 1024)


def test_bootstrap_covers_and_is_seeded() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(300):
        values = rng.beta(2, 5, 60)
        interval = bootstrap_mean(values, seed=trial, resamples=1000)
        hits += interval.low <= 2 / 7 <= interval.high
    assert 0.90 <= hits / 300 <= 0.98
    assert bootstrap_mean(values, seed=5) == bootstrap_mean(values, seed=5)
    assert bootstrap_mean(values, seed=5) != bootstrap_mean(values, seed=6)


def test_estimate() -> None:
    binary = estimate(np.array([1, 0, 1, np.nan, 1.0]))
    assert (binary.value, binary.n, binary.missing) == (0.75, 4, 1)
    assert binary.interval == wilson(3, 4)
    graded = estimate(np.array([0.2, 0.4, 0.9]))
    assert 0.2 <= graded.interval.low < graded.value < graded.interval.high <= 0.9
    none = estimate(np.array([np.nan]))
    assert math.isnan(none.value)
    assert (none.interval.low, none.interval.high, none.n, none.missing) == (0, 1, 0, 1)
    assert estimate(np.array([0.5])).interval.high == 1


def test_paired_binary() -> None:
    a = np.array([1.0] * 36 + [1.0] * 12 + [0.0] * 2 + [np.nan])
    b = np.array([1.0] * 36 + [0.0] * 12 + [1.0] * 2 + [1.0])
    found = paired(a, b)
    assert (found.n, found.wins, found.losses) == (50, 12, 2)
    assert found.difference == pytest.approx(0.2)
    assert found.interval == newcombe(36, 12, 2, 50)
    assert found.p_value == pytest.approx(binomtest(12, 14).pvalue)


def test_paired_graded() -> None:
    rng = np.random.default_rng(4)
    base = rng.uniform(0.2, 0.6, 80)
    better = paired(base + rng.uniform(0, 0.2, 80), base)
    assert better.interval.low > 0
    assert better.p_value < 1e-6
    assert (better.wins, better.losses) == (80, 0)
    same = paired(base, base)
    assert (same.difference, same.p_value) == (0, 1)
    assert paired(np.array([np.nan]), np.array([0.3])).n == 0
    with pytest.raises(ValueError, match="same examples"):
        paired(base, base[:3])


def test_set_metrics_get_intervals() -> None:
    rng = np.random.default_rng(5)
    targets = ["a" if x < 0.5 else "b" for x in rng.uniform(size=200)]
    good = [t if x < 0.9 else "a" for t, x in zip(targets, rng.uniform(size=200), strict=True)]
    poor: list[str | None] = [
        t if x < 0.6 else "b" for t, x in zip(targets, rng.uniform(size=200), strict=True)
    ]
    poor[0] = None
    scores = [np.array([float(g == t) for g, t in zip(p, targets, strict=True)]) for p in (good, poor)]
    macro = METRICS["macro_f1"].over_set
    found = bootstrap_set(macro, targets, good, scores[0], resamples=200)
    assert found.interval.low < found.value < found.interval.high
    pair = paired_set(macro, targets, good, scores[0], poor, scores[1], resamples=200)
    assert pair.n == 199
    assert pair.interval.low > 0
    assert pair.p_value < 0.02
    assert bootstrap_set(macro, targets[:1], [None], scores[0][:1]).missing == 1


def test_set_metrics_claim_nothing_from_a_handful_of_rows() -> None:
    macro = METRICS["macro_f1"].over_set
    for n in (1, 2, 4):
        targets = ["a", "b"] * 2
        wrong = ["b", "a"] * 2
        pair = paired_set(macro, targets[:n], targets[:n], np.ones(n), wrong[:n], np.zeros(n), resamples=200)
        assert pair.difference == 1
        assert pair.p_value >= 2 * 0.5**n * 0.7  # only the exchange of all or of none is as far apart
        assert n > 1 or (pair.interval.low, pair.interval.high) == (-1, 1)
    alone = bootstrap_set(macro, ["a"], ["a"], np.ones(1), resamples=50)
    assert (alone.interval.low, alone.interval.high) == (0, 1)


def test_answers_that_are_all_alike_leave_room_for_others() -> None:
    macro = METRICS["macro_f1"].over_set
    targets = ["a", "b"] * 2
    room = 1 - wilson(4, 4).low
    found = bootstrap_set(macro, targets, targets, np.ones(4), resamples=50)
    assert (found.interval.low, found.interval.high) == (pytest.approx(1 - room), 1)
    same = paired_set(macro, targets, targets, np.ones(4), targets, np.ones(4), resamples=50)
    assert (same.interval.low, same.interval.high) == (pytest.approx(-room), pytest.approx(room))
    graded = estimate(np.full(4, 0.7))
    assert (graded.interval.low, graded.interval.high) == (pytest.approx(0.7 - room), 1)
    tied = paired(np.array([0.3, 0.6, 1.0]), np.array([0.3, 0.6, 1.0]))
    assert tied.interval.low < 0 < tied.interval.high


def test_set_metrics_seldom_claim_what_is_not_there() -> None:
    rng = np.random.default_rng(7)
    macro, claims = METRICS["macro_f1"].over_set, 0
    for _ in range(150):
        targets = ["a" if x < 0.5 else "b" for x in rng.uniform(size=12)]
        said = [
            [t if x < 0.7 else "a" for t, x in zip(targets, rng.uniform(size=12), strict=True)] for _ in "AB"
        ]
        scores = [np.array([float(g == t) for g, t in zip(each, targets, strict=True)]) for each in said]
        claims += (
            paired_set(macro, targets, said[0], scores[0], said[1], scores[1], resamples=99).p_value <= 0.05
        )
    assert claims <= 0.05 * 150 + 3 * (0.05 * 0.95 * 150) ** 0.5


def test_e_value_is_the_mixture_integral() -> None:
    grid = (np.arange(200_000) + 0.5) / 400_000 + 0.5
    for wins, losses in [(0, 0), (3, 1), (2, 9), (30, 12)]:
        wanted = np.mean(np.exp(wins * np.log(2 * grid) + losses * np.log(2 * (1 - grid))))
        race = EValue()
        assert race.update(wins, losses) == pytest.approx(wanted, rel=1e-4)
    assert EValue().value == pytest.approx(1)
    assert EValue().update(0, 5000) == pytest.approx(0, abs=1e-3)
    assert math.isfinite(EValue().update(9000, 0))


def crossing(share: float, runs: int, steps: int, seed: int, alpha: float = 0.05) -> float:
    """Share of runs whose e-value ever reaches 1/alpha when one looks after every discordant pair."""
    wins = np.cumsum(np.random.default_rng(seed).uniform(size=(runs, steps)) < share, axis=1)
    losses = np.arange(1, steps + 1) - wins
    return float((log_mixture(wins, losses).max(axis=1) >= -math.log(alpha)).mean())


def test_e_value_keeps_its_level_under_continuous_peeking() -> None:
    assert crossing(0.5, 2000, 500, seed=6) <= 0.05
    assert crossing(0.45, 1000, 300, seed=7) <= 0.02


def test_e_value_has_power() -> None:
    assert crossing(0.7, 500, 120, seed=8) >= 0.9
