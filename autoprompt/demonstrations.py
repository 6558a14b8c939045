"""Which training examples are offered as demonstrations."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence

import numpy as np

from autoprompt.slots import Pick
from autoprompt.task import Example


def draw_sets(pick: Pick, name: str, k: int, pool: Sequence[Example]) -> tuple[tuple[Example, ...], ...]:
    """Draw the demonstration sets that are offered for one ``k``; equal ones are merged.

    Set i depends on nothing but the slot's name, ``k``, i and the pool.

    Args:
        pick: the slot's specification.
        name: the slot's name.
        k: how many demonstrations, at most ``len(pool)``.
        pool: examples to draw from, without repeats.
    """
    drawn: dict[tuple[str, ...], tuple[Example, ...]] = {}
    for index in range(pick.sets):
        seed = hashlib.sha256(f"{name}\n{k}\n{index}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(seed[:8], "big"))
        shuffled = [pool[place] for place in rng.permutation(len(pool))]
        chosen = _balanced(shuffled, k, rng) if pick.per_label == "equal" else shuffled[:k]
        if pick.order == "shuffle":
            chosen = [chosen[place] for place in rng.permutation(k)]
        else:
            places = {example.id: place for place, example in enumerate(pool)}
            chosen.sort(key=lambda example: places[example.id])
        if pick.order == "label":
            chosen.sort(key=lambda example: example.target)
        drawn.setdefault(tuple(example.id for example in chosen), tuple(chosen))
    return tuple(drawn.values())


def _balanced(shuffled: Sequence[Example], k: int, rng: np.random.Generator) -> list[Example]:
    """Take examples label by label in turn, in a drawn order of labels, until there are ``k``."""
    groups: dict[str, list[Example]] = {}
    for example in shuffled:
        groups.setdefault(example.target, []).append(example)
    labels = sorted(groups)
    turns = [groups[labels[place]] for place in rng.permutation(len(labels))]
    rounds = itertools.zip_longest(*turns)
    taken = (example for row in rounds for example in row if example is not None)
    return list(itertools.islice(taken, k))
