"""Label words put together from candidates, and judged on training examples.

N examples, C labels, O options a label, B combinations at a time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from autoprompt.errors import LabelWordError

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Choice = tuple[int, ...]
"""For each label which of its options."""
Found = dict[Choice, tuple[float, float]]
"""Combination to its accuracy and its loss with the sign turned: the greater the better."""
_WORK, _AT_ONCE = 1 << 28, 1 << 22  # numbers that are looked at in all, and together (32 MB)
_PICKS = 1 << 18  # combinations numbered together
_OPTIONS = 2000  # sets of words a label
_STARTS, _SWEEPS = 8, 20


def label_options(candidates: Sequence[str], per_label: int) -> list[tuple[str, ...]]:
    """The sets of ``per_label`` words, of as many of the best candidates as keep them few."""
    count = len(candidates)
    while math.comb(count, per_label) > _OPTIONS and count > per_label:
        count -= 1
    sets = itertools.combinations(candidates[:count], per_label)
    return [each for each in sets if len({word.casefold() for word in each}) == per_label]


class WordSets:
    """Combinations of one option for each label, and how well they tell the labels apart on train.

    Args:
        options: [C][O] words that count together.
        worth: [C] arrays [O, N]: log P of an option, in nats up to a constant an example.
        targets: [N] index of the right label.
        balanced: whether every label counts alike, however many examples it has.
    """

    def __init__(
        self,
        options: Sequence[Sequence[tuple[str, ...]]],
        worth: Sequence[Floats],
        targets: Indices,
        *,
        balanced: bool,
    ) -> None:
        self._options, self._worth, self._targets = options, worth, targets
        counts = np.bincount(targets, minlength=len(options))
        weights = 1 / counts[targets] if balanced else np.ones(len(targets))
        self._weights = weights / weights.sum()
        known = {word.casefold() for each in options for option in each for word in option}
        column = {word: at for at, word in enumerate(sorted(known))}
        self._holds = [np.zeros((len(each), len(column)), np.float32) for each in options]
        for holds, each in zip(self._holds, options, strict=True):
            for row, option in enumerate(each):
                holds[row, [column[word.casefold()] for word in option]] = 1
        self._numbers = len(options) * max(len(targets), len(column))  # that one combination takes to judge

    def words(self, choice: Choice, labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """A combination as label words."""
        return {
            label: self._options[at][pick]
            for at, (label, pick) in enumerate(zip(labels, choice, strict=True))
        }

    def answers(self, choice: Choice) -> tuple[Indices, Floats]:
        """[N] labels answered and [N] losses in nats."""
        values = np.stack([worth[pick] for worth, pick in zip(self._worth, choice, strict=True)])
        right = values[self._targets, np.arange(len(self._targets))]
        return values.argmax(axis=0), np.logaddexp.reduce(values, axis=0) - right

    def best(self, keep: int, rng: np.random.Generator) -> list[Choice]:
        """The best combinations in which no word stands for two labels, by accuracy and then by loss.

        All are tried where they are few enough, else one label is changed at a time from several starts.
        """
        sizes = [len(each) for each in self._options]
        found: Found = {}
        total = math.prod(sizes)
        if total <= _WORK // self._numbers:
            for start in range(0, total, _PICKS):
                flat = np.arange(start, min(total, start + _PICKS))
                self._note(np.stack(np.unravel_index(flat, sizes), axis=1), found, keep)
        else:
            self._climb(sizes, found, keep, rng)
        if not found:
            raise LabelWordError(
                "label words: the candidates of all labels are the same few words",
                hint="allow more candidates",
            )
        return _ranked(found)

    def _climb(self, sizes: Sequence[int], found: Found, keep: int, rng: np.random.Generator) -> None:
        for start in range(_STARTS):
            # the first start takes each label's best option, the others any
            now = np.array([0 if start == 0 else rng.integers(size) for size in sizes])
            for _ in range(_SWEEPS):
                before = now
                for label in rng.permutation(len(sizes)):
                    tried = np.tile(now, (sizes[label], 1))
                    tried[:, label] = np.arange(sizes[label])
                    now = self._note(tried, found, keep)
                if (now == before).all():
                    break

    def _note(self, choices: Indices, found: Found, keep: int) -> Indices:
        """Judge combinations [B, C], keep the best of them and of those found before, and return the best one."""
        best: list[tuple[float, float, float, Choice]] = []
        step = max(1, _AT_ONCE // self._numbers)
        for start in range(0, len(choices), step):
            some = choices[start : start + step]
            clashes, accuracy, loss = self._judge(some)
            order = np.lexsort((loss, -accuracy, clashes))[:keep]
            best += [
                (
                    -float(clashes[at]),
                    round(float(accuracy[at]), 9),
                    -float(loss[at]),
                    tuple(some[at].tolist()),
                )
                for at in order
            ]
        best.sort(reverse=True)
        for clash, accuracy_of, gain, choice in best[:keep]:
            if not clash:
                found[choice] = (accuracy_of, gain)
        for choice in _ranked(found)[keep:]:
            del found[choice]
        return np.array(best[0][3])

    def _judge(self, choices: Indices) -> tuple[Floats, Floats, Floats]:
        """[B] each: words that stand for two labels, accuracy, mean loss."""
        values = np.stack(
            [worth[choices[:, at]] for at, worth in enumerate(self._worth)], axis=1
        )  # [B, C, N]
        held = np.zeros((len(choices), self._holds[0].shape[1]), np.float32)
        for at, holds in enumerate(self._holds):
            held += holds[choices[:, at]]
        right = values[:, self._targets, np.arange(len(self._targets))]
        losses = np.logaddexp.reduce(values, axis=1) - right
        hits = values.argmax(axis=1) == self._targets
        return (held > 1).sum(axis=1) * 1.0, hits @ self._weights, losses @ self._weights


def _ranked(found: Found) -> list[Choice]:
    return sorted(found, key=lambda choice: (found[choice], choice), reverse=True)
