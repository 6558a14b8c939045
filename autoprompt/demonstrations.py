"""Which training examples are offered as demonstrations, and how a list of them may be changed."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from autoprompt.slots import Pick
from autoprompt.task import Example


def offered(pick: Pick, train: Sequence[Example]) -> list[Example]:
    """The examples that a slot may show, each once. Where it wants worked answers these alone, unless they are too few for
    its largest ``k``: then the others fill up, with plain answers.
    """
    different = list({example.id: example for example in train}.values())
    worked = [example for example in different if example.worked] if pick.worked else []
    return worked if len(worked) >= max(1, *pick.k) else different


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
        chosen = _in_order(pick, chosen, pool)
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


def exchanges(
    pick: Pick, chosen: Sequence[Example], pool: Sequence[Example], rng: np.random.Generator, tries: int = 20
) -> Iterator[tuple[str, tuple[Example, ...]]]:
    """Lists of demonstrations that differ from one in one respect: (what was done, the list), in a drawn order.

    One is replaced by another of its label (of any, where labels need not be equal), two change places, or as many are
    added or dropped as lead to the next allowed number.

    Args:
        pick: the slot's specification.
        chosen: the list.
        pool: examples to draw from.
        rng: the only source of chance.
        tries: lists drawn.
    """
    ways = {"replace": _replaced, "resize": _resized, "reorder": _reordered}
    if pick.order != "shuffle" or len(chosen) < 2:
        del ways["reorder"]
    seen = {tuple(example.id for example in chosen)}
    for _ in range(tries):
        done = list(ways)[int(rng.integers(len(ways)))]
        found = _in_order(pick, ways[done](pick, list(chosen), pool, rng), pool)
        ids = tuple(example.id for example in found)
        if ids not in seen:
            seen.add(ids)
            yield done, tuple(found)


def _replaced(
    pick: Pick, chosen: list[Example], pool: Sequence[Example], rng: np.random.Generator
) -> list[Example]:
    place = int(rng.integers(len(chosen)))
    held = {example.id for example in chosen}
    free = [example for example in pool if example.id not in held]
    if pick.per_label == "equal" and len({example.target for example in pool}) <= max(pick.k):
        free = [example for example in free if example.target == chosen[place].target]
    if free:
        chosen[place] = free[int(rng.integers(len(free)))]
    return chosen


def _reordered(
    pick: Pick, chosen: list[Example], pool: Sequence[Example], rng: np.random.Generator
) -> list[Example]:
    one, other = rng.permutation(len(chosen))[:2]
    chosen[one], chosen[other] = chosen[other], chosen[one]
    return chosen


def _resized(
    pick: Pick, chosen: list[Example], pool: Sequence[Example], rng: np.random.Generator
) -> list[Example]:
    """As many as the next larger or smaller number; equal labels are added to the rarest and dropped from the most
    frequent.
    """
    sizes = sorted(pick.k)
    at = sizes.index(len(chosen))
    near = [
        size for size in (sizes[at - 1] if at else 0, sizes[at + 1] if at + 1 < len(sizes) else 0) if size
    ]
    target = near[int(rng.integers(len(near)))] if near else len(chosen)
    while len(chosen) > target:
        counts = Counter(example.target for example in chosen)
        most = max(counts.values())
        ready = [i for i, each in enumerate(chosen) if pick.per_label == "any" or counts[each.target] == most]
        chosen.pop(ready[int(rng.integers(len(ready)))])
    while len(chosen) < target:
        held = {example.id for example in chosen}
        others = [example for example in pool if example.id not in held]
        if pick.per_label == "equal":
            counts = Counter(example.target for example in chosen)
            fewest = min(counts[example.target] for example in others)
            others = [example for example in others if counts[example.target] == fewest]
        chosen.insert(int(rng.integers(len(chosen) + 1)), others[int(rng.integers(len(others)))])
    return chosen


def _in_order(pick: Pick, chosen: list[Example], pool: Sequence[Example]) -> list[Example]:
    """The order that the slot asks for, where it is not free."""
    if pick.order == "shuffle":
        return chosen
    places = {example.id: place for place, example in enumerate(pool)}
    chosen.sort(key=lambda example: places[example.id])
    if pick.order == "label":
        chosen.sort(key=lambda example: example.target)
    return chosen
