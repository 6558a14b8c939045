"""Evidence against a candidate of a race, while its scores on N examples come in one by one in a drawn order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autoprompt.asks import Floats, Scored

FRACTIONS: Floats = np.arange(0.025, 1.0, 0.05)
"""How much of the largest safe bet is staked; the wealth is the mean over all of them."""


def log_wealth(scores: Floats, expected: Floats, total: float) -> float:
    """The highest log-wealth so far of betting against "all N scores sum to ``total`` at least".

    Where that is true, the chance over the order of the examples that the wealth ever reaches 1/alpha is at most alpha.
    Bets are on the residual r = expected - score. The examples are drawn without replacement from the N, so given the
    scores before it a residual's mean is known up to the total: the mean of ``expected`` over the R examples left, less
    (what is missing to the true total) / R, and the true total is at least ``total``. So with that bound m, each factor
    1 + b (r - m) with a stake b >= 0 has a mean of 1 at most, their product is a supermartingale as long as it cannot be
    negative, and Ville's inequality bounds it (Waudby-Smith and Ramdas 2020, "Confidence sequences for sampling without
    replacement"; 2024, JRSS B 86:1, for the bets). ``expected`` may be anything that was known before the first draw: it
    moves the power and not the level. The better it tells hard examples from easy ones, the less of the residuals is noise
    (the difference estimator of survey sampling).

    Args:
        scores: [n] of the first n examples in the drawn order, in [0, 1].
        expected: [N] what is expected of a candidate on every example, in [0, 1], in the same order.
        total: the sum of N scores that a candidate must reach.

    Returns:
        Natural logarithm; 0 before the first example; infinite where the total is out of reach.
    """
    size, seen = len(expected), len(scores)
    if not seen:
        return 0.0
    before = np.arange(seen)
    left = size - before
    scored = np.concatenate([[0.0], np.cumsum(scores)])
    assumed = np.concatenate([[0.0], np.cumsum(expected[:seen])])
    if scored[-1] + size - seen < total - 1e-9:
        return math.inf
    bound = (float(expected.sum()) - assumed[:-1] - (total - scored[:-1])) / left
    lowest = float(expected.min()) - 1.0  # of any residual
    room = np.maximum(bound - lowest, 1e-9)
    stakes = FRACTIONS[:, None] / room
    gains = np.log1p(stakes * (expected[:seen] - scores - bound))
    paths = np.cumsum(gains, axis=1)
    highest = paths.max(axis=0)
    wealth = highest + np.log(np.exp(paths - highest).mean(axis=0))
    return max(0.0, float(wealth.max()))


def expected_scores(complete: Sequence[Scored]) -> Floats:
    """[N] what to expect of a new prompt on every example, from prompts that were measured on all of them.

    The mean chance that they gave the right answer, exp(-loss), where there are losses, which says more about an example
    than whether they happened to be right; else their mean score. Half where nothing is known.
    """
    every = np.array([chances(each) for each in complete])
    known = ~np.isnan(every)
    counts = known.sum(axis=0)
    sums = np.where(known, every, 0.0).sum(axis=0)
    means: Floats = np.where(counts > 0, sums / np.maximum(counts, 1), 0.5)
    return np.clip(means, 0.0, 1.0)


def chances(answer: Scored) -> Floats:
    """[N] chance of the right answer, exp(-loss), where there is a loss, else the score; NaN where the answer is missing."""
    return np.where(np.isnan(answer.losses), answer.scores, np.exp(-answer.losses))


def signed_rank_p(differences: Floats) -> float:
    """One-sided p-value of Wilcoxon's signed-rank test against "not worse" (normal approximation, mid-ranks).

    Args:
        differences: candidate minus incumbent per example; zeros are left out.
    """
    present = differences[differences != 0]
    if not present.size:
        return 1.0
    sizes = np.abs(present)
    ordered = np.sort(sizes)
    ranks = (np.searchsorted(ordered, sizes, "left") + np.searchsorted(ordered, sizes, "right") + 1) / 2
    z = float((np.sign(present) * ranks).sum() / math.sqrt(float((ranks**2).sum())))
    return 0.5 * math.erfc(-z / math.sqrt(2))
