"""What decides which prompts live on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autoprompt.asks import Floats, Scored
from autoprompt.strategies.tpe import comparable
from autoprompt.task import Example


@dataclass(frozen=True)
class Fitness:
    """Orders answers on the same examples, the larger the better.

    Attributes:
        labels: the task's labels; none for tasks without.
        entropy: worth of a perfectly even use of all labels, in units of the score (GrIPS, Prasad et al. 2023,
            equation 1, has 0.1): keeps prompts off that always give one answer, whose score on few examples may be luck.
        balanced: whether the score is the mean over labels of the share that is right.
    """

    labels: tuple[str, ...] = ()
    entropy: float = 0.0
    balanced: bool = False

    def of(self, answer: Scored, examples: Sequence[Example]) -> tuple[float, float]:
        """The score with what is added to it, then the smaller loss; -inf where nothing is there."""
        score, gain = comparable(answer)
        if not math.isfinite(score) or not self.labels:
            return score, gain
        if self.balanced and answer.value is None:
            score = _balanced(answer.scores, [example.target for example in examples])
        return round(score + self.entropy * evenness(answer, self.labels), 9), gain


def evenness(answer: Scored, labels: Sequence[str]) -> float:
    """Entropy of the distribution of what was answered over the labels: 0 for one answer always, 1 for an even use.

    Among orders of the same demonstrations this is what Lu et al. 2022 ("Fantastically Ordered Prompts", section 3.2,
    GlobalE) choose by. What a model wrote that is no label is left out.
    """
    counts = Counter(said for said in answer.predictions if said in labels)
    total = sum(counts.values())
    if total == 0 or len(labels) < 2:
        return 0.0
    return -sum(count / total * math.log(count / total) for count in counts.values()) / math.log(len(labels))


def _balanced(scores: Floats, targets: Sequence[str]) -> float:
    """Mean over the targets of the mean score of their examples; what is missing counts as wrong."""
    filled = np.nan_to_num(scores)
    places: dict[str, list[int]] = {}
    for place, target in enumerate(targets):
        places.setdefault(target, []).append(place)
    return float(np.mean([filled[members].mean() for members in places.values()]))


def fronts(values: Floats) -> list[list[int]]:
    """Places of the rows of [N, M] values (larger is better) by rank: the first front is beaten by none in all respects,
    the second by members of the first only, and so on (NSGA-II, Deb et al. 2002, section III-A).
    """
    one, other = values[:, None, :], values[None, :, :]
    better: npt.NDArray[np.bool_] = np.all(one >= other, axis=2) & np.any(one > other, axis=2)
    left = list(range(len(values)))
    found: list[list[int]] = []
    while left:
        front = [place for place in left if not better[left, place].any()]
        found.append(front)
        left = [place for place in left if place not in front]
    return found


def crowding(values: Floats) -> Floats:
    """[N] how far apart the neighbours of each row of a front [N, M] lie, summed over the columns in units of their
    range; infinite at the ends (Deb et al. 2002, section III-B).
    """
    apart = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        reach = float(column[order[-1]] - column[order[0]]) or 1.0
        apart[order[[0, -1]]] = np.inf
        apart[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / reach
    return apart


def survivors(values: Floats, count: int) -> list[int]:
    """Places of the ``count`` rows that live on: by front, within the last front the least crowded."""
    kept: list[int] = []
    for front in fronts(values):
        if len(kept) + len(front) > count:
            apart: npt.NDArray[np.float64] = crowding(values[front])
            order = np.argsort(-apart, kind="stable")
            return kept + [front[place] for place in order[: count - len(kept)]]
        kept += front
    return kept
