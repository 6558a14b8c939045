"""Rows in training, by PEFT and by us: what ``soft_table.py`` compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

import autoprompt
from autoprompt.example import Example

Rows = NDArray[np.float32]
Scores = NDArray[np.float64]
Batches = Sequence[tuple[int, ...]]


class Trainee(Protocol):
    """Rows in training, whoever trains them."""

    rows: Rows

    def train(self, batches: Batches) -> None:
        """A step on each batch of indices of the task's training examples."""
        ...

    def scores(self, examples: Sequence[Example]) -> Scores:
        """[N, C] log-probabilities of the label words with the rows as they are, up to a constant a row, nats."""
        ...


def words_of(task: autoprompt.Task) -> tuple[str, ...]:
    """The label words, in the order of the labels."""
    return tuple(words[0] for words in task.words.values())
