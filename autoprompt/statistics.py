"""How sure a number is: intervals, paired comparisons, and tests that stay valid under repeated looks.

N examples everywhere; scores are in [0, 1] with NaN where an answer is missing; missing answers are left out,
never counted as zero. Every draw comes from a seed that is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
OverSet = Callable[[Sequence[str], Sequence["str | None"], Floats], float]

RESAMPLES = 10_000
_DRAWS_AT_ONCE = 2_000_000  # bounds the memory of a bootstrap to about 16 MB per array


@dataclass(frozen=True)
class Interval:
    """A confidence interval; ``level`` is its nominal coverage."""

    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True)
class Estimate:
    """A measured value with its interval; ``n`` answers are behind it, ``missing`` were not there."""

    value: float
    interval: Interval
    n: int
    missing: int = 0


@dataclass(frozen=True)
class Paired:
    """Candidate A against candidate B on the same examples.

    Attributes:
        difference: mean of A - B; positive where A is better.
        interval: of the difference, in [-1, 1].
        p_value: two-sided.
        n: examples where both answers are there.
        wins: examples where A scores higher; losses: where B does; the rest are ties.
    """

    difference: float
    interval: Interval
    p_value: float
    n: int
    wins: int
    losses: int


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927); [0, 1] where n is 0."""
    if n == 0:
        return Interval(0.0, 1.0, level)
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / n
    middle = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # Exact at the ends, where rounding would not be.
    low = 0.0 if successes == 0 else (middle - spread) / scale
    high = 1.0 if successes == n else (middle + spread) / scale
    return Interval(low, high, level)


def bootstrap_mean(
    values: Floats, seed: int = 0, level: float = 0.95, resamples: int = RESAMPLES, least: float = 0.0
) -> Interval:
    """Percentile bootstrap interval of the mean of ``values`` [N], each between ``least`` and 1 (Efron 1979)."""
    rng = np.random.default_rng(seed)
    means = np.concatenate([values[index].mean(axis=1) for index in _resampled(rng, values.size, resamples)])
    return _percentiles(means, values.size, level, least)


def estimate(scores: Floats, seed: int = 0, level: float = 0.95) -> Estimate:
    """Mean score [N, NaN where missing] with its interval: Wilson for 0/1 scores, bootstrap otherwise."""
    scores = np.asarray(scores, dtype=np.float64)
    present = scores[~np.isnan(scores)]
    n, missing = int(present.size), int(scores.size - present.size)
    if n == 0:
        return Estimate(float("nan"), Interval(0.0, 1.0, level), 0, missing)
    binary = _is_binary(present)
    interval = wilson(int(present.sum()), n, level) if binary else bootstrap_mean(present, seed, level)
    return Estimate(float(present.mean()), interval, n, missing)


def paired(scores_a: Floats, scores_b: Floats, seed: int = 0, level: float = 0.95) -> Paired:
    """Compare A with B on the examples where both have a score.

    0/1 scores: Newcombe's interval and the exact McNemar test. Other scores: bootstrap over examples and the
    Wilcoxon signed-rank test.

    Args:
        scores_a: [N] of the candidate, NaN where missing.
        scores_b: [N] of what it is compared with, the same examples in the same order.
        seed: of the bootstrap.
        level: coverage of the interval.
    """
    a, b = np.asarray(scores_a, dtype=np.float64), np.asarray(scores_b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"paired scores must be of the same examples (got {a.shape} and {b.shape})")
    both = ~(np.isnan(a) | np.isnan(b))
    a, b = a[both], b[both]
    n, wins, losses = int(a.size), int((a > b).sum()), int((a < b).sum())
    if n == 0:
        return Paired(float("nan"), Interval(-1.0, 1.0, level), 1.0, 0, 0, 0)
    difference = a - b
    if _is_binary(a) and _is_binary(b):
        interval = newcombe(int((a * b).sum()), wins, losses, n, level)
        p_value = mcnemar(wins, losses)
    else:
        interval = bootstrap_mean(difference, seed, level, least=-1.0)
        p_value = _wilcoxon(difference)
    return Paired(float(difference.mean()), interval, p_value, n, wins, losses)


def newcombe(both: int, wins: int, losses: int, n: int, level: float = 0.95) -> Interval:
    """Interval of the difference of two paired proportions.

    Newcombe (1998), Statistics in Medicine 17:2635, method 10: Wilson intervals of the two proportions,
    joined by squaring and adding with the correlation phi, whose numerator is corrected for continuity where
    positive.

    Args:
        both: examples that both got right; ``wins``: only A; ``losses``: only B; the rest of ``n``: neither.
        wins: see ``both``.
        losses: see ``both``.
        n: number of examples.
        level: coverage.
    """
    neither = n - both - wins - losses
    share_a, share_b = (both + wins) / n, (both + losses) / n
    of_a, of_b = wilson(both + wins, n, level), wilson(both + losses, n, level)
    margins = (both + wins) * (losses + neither) * (both + losses) * (wins + neither)
    product = float(both * neither - wins * losses)
    if product > 0:
        product = max(product - n / 2, 0.0)
    phi = product / math.sqrt(margins) if margins else 0.0
    low_a, high_a = share_a - of_a.low, of_a.high - share_a
    low_b, high_b = share_b - of_b.low, of_b.high - share_b
    below = math.sqrt(max(low_a**2 - 2 * phi * low_a * high_b + high_b**2, 0.0))
    above = math.sqrt(max(high_a**2 - 2 * phi * high_a * low_b + low_b**2, 0.0))
    difference = share_a - share_b
    return Interval(max(difference - below, -1.0), min(difference + above, 1.0), level)


def mcnemar(wins: int, losses: int) -> float:
    """Exact two-sided McNemar p-value: are wins and losses equally likely? 1 where there are neither."""
    if wins + losses == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses, 0.5).pvalue)


def bootstrap_set(
    over_set: OverSet,
    targets: Sequence[str],
    predictions: Sequence[str | None],
    scores: Floats,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 1_000,
) -> Estimate:
    """Estimate a metric over a set (macro F1, corpus BLEU) with a percentile bootstrap over examples."""
    scores = np.asarray(scores, dtype=np.float64)
    kept = np.flatnonzero([text is not None for text in predictions])
    missing = len(targets) - int(kept.size)
    if kept.size == 0:
        return Estimate(float("nan"), Interval(0.0, 1.0, level), 0, missing)

    def value(index: npt.NDArray[np.int64]) -> float:
        return over_set([targets[i] for i in index], [predictions[i] for i in index], scores[index])

    rng = np.random.default_rng(seed)
    values = [value(kept[row]) for block in _resampled(rng, int(kept.size), resamples) for row in block]
    interval = _percentiles(np.asarray(values), kept.size, level)
    return Estimate(value(kept), interval, int(kept.size), missing)


def paired_set(
    over_set: OverSet,
    targets: Sequence[str],
    predictions_a: Sequence[str | None],
    scores_a: Floats,
    predictions_b: Sequence[str | None],
    scores_b: Floats,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 1_000,
) -> Paired:
    """Compare A with B by a metric over the set, on the examples where both answered.

    Percentile bootstrap of the difference over examples; the p-value is that of a permutation test, which exchanges the
    answers of A and B example by example (Efron and Tibshirani 1993, chapter 15; Yeh 2000): the share of exchanges after
    which they differ at least as much. Wins and losses are counted by example scores.
    """
    scores_a, scores_b = np.asarray(scores_a, dtype=np.float64), np.asarray(scores_b, dtype=np.float64)
    pairs = zip(predictions_a, predictions_b, strict=True)
    kept = np.flatnonzero([a is not None and b is not None for a, b in pairs])
    if kept.size == 0:
        return Paired(float("nan"), Interval(-1.0, 1.0, level), 1.0, 0, 0, 0)

    right = np.array(targets, dtype=object)[kept]
    said = np.array([predictions_a, predictions_b], dtype=object)[:, kept]
    scores = np.array([scores_a[kept], scores_b[kept]])

    def difference(of_a: npt.NDArray[np.int64], index: npt.NDArray[np.int64]) -> float:
        """Of what row ``of_a`` [N] says to these examples and what the other row says."""
        first, second = (
            over_set(list(right[index]), list(said[row[index], index]), scores[row[index], index])
            for row in (of_a, 1 - of_a)
        )
        return first - second

    rng = np.random.default_rng(seed)
    as_is, everyone = np.zeros(kept.size, np.int64), np.arange(kept.size)
    found = difference(as_is, everyone)
    values = [difference(as_is, row) for block in _resampled(rng, int(kept.size), resamples) for row in block]
    swapped = [difference(rng.integers(0, 2, kept.size), everyone) for _ in range(resamples)]
    as_far = sum(abs(value) >= abs(found) - 1e-12 for value in swapped)
    a, b = scores
    return Paired(
        found,
        _percentiles(np.asarray(values), kept.size, level, least=-1.0),
        (1 + as_far) / (resamples + 1),
        int(kept.size),
        int((a > b).sum()),
        int((a < b).sum()),
    )


class EValue:
    """Anytime-valid test that A beats B more often than B beats A, for wins and losses that come in over
    time.

    Under H0 (a discordant pair is a win with probability at most 1/2, whatever came before) the value is a
    non-negative supermartingale that starts at 1, so by Ville's inequality it ever reaches 1/alpha with
    probability at most alpha, however often one looks. It is Robbins' mixture of likelihood ratios (2p)^wins
    (2(1-p))^losses over p uniform on (1/2, 1] (Robbins 1970; Ramdas et al. 2023, Statistical Science 38:576).
    Ties do not count.
    """

    def __init__(self) -> None:
        self.wins = 0
        self.losses = 0

    def update(self, wins: int, losses: int) -> float:
        """Add wins and losses seen since the last update; return the value."""
        self.wins += wins
        self.losses += losses
        return self.value

    @property
    def value(self) -> float:
        """Evidence against H0; reject at level alpha when it is at least 1/alpha."""
        return float(np.exp(min(self.log_value, 700.0)))  # e^700 is near the largest float

    @property
    def log_value(self) -> float:
        """Natural logarithm of ``value``."""
        return float(log_mixture(np.asarray(self.wins), np.asarray(self.losses)))


def log_mixture(wins: npt.NDArray[np.int64], losses: npt.NDArray[np.int64]) -> Floats:
    """Log e-value of totals of wins and losses, elementwise.

    2 * integral over p in (1/2, 1] of (2p)^w (2(1-p))^l dp = 2^(w+l+1) B(w+1, l+1) I_{1/2}(l+1, w+1).
    """
    from scipy.special import betainc, betaln

    wins, losses = np.asarray(wins), np.asarray(losses)
    with np.errstate(divide="ignore"):  # log 0 where losses swamp wins: the evidence is nil
        tail = np.log(betainc(losses + 1, wins + 1, 0.5))
    value: Floats = (wins + losses + 1) * math.log(2) + betaln(wins + 1, losses + 1) + tail
    return value


def _is_binary(values: Floats) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def _percentiles(values: Floats, n: int, level: float, least: float = 0.0) -> Interval:
    """Percentile interval of what resamples of ``n`` examples gave, each between ``least`` and 1.

    One example says nothing about a spread. Where no resample differs, nothing seen was unlike the rest, and the unseen may
    be as often so as Wilson's interval of ``n`` successes in ``n`` leaves room for.
    """
    if n == 1:
        return Interval(least, 1.0, level)
    values = values[~np.isnan(values)]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    room = 1 - wilson(n, n, level).low if np.ptp(values) < 1e-12 else 0.0
    return Interval(max(float(low) - room, least), min(float(high) + room, 1.0), level)


def _resampled(rng: np.random.Generator, n: int, resamples: int) -> Iterator[npt.NDArray[np.int64]]:
    """Indices [rows, n] of the resamples, in blocks that fit in memory."""
    rows = max(1, _DRAWS_AT_ONCE // n)
    for start in range(0, resamples, rows):
        yield rng.integers(0, n, size=(min(rows, resamples - start), n))


def _wilcoxon(differences: Floats) -> float:
    """Two-sided Wilcoxon signed-rank p-value; zeros are dropped (Wilcoxon 1945), 1 where nothing is left."""
    nonzero = differences[differences != 0]
    if nonzero.size == 0:
        return 1.0
    from scipy.stats import wilcoxon

    return float(wilcoxon(nonzero).pvalue)
