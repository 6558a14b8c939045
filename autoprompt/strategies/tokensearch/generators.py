"""Where new triggers come from. Each generator yields triggers, the most promising first; none looks at scores."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from autoprompt.strategies.tokensearch.board import Board, Trigger

Changes = Mapping[str, NDArray[np.float32]]
"""Slot to [L, V], the estimated change of the loss for each token at each position, in nats."""


def by_gradient(
    board: Board,
    trigger: Trigger,
    changes: Changes,
    *,
    places: Sequence[tuple[str, int]],
    top_k: int,
    greedy: float,
    distance: float = 0.0,
) -> Iterator[Trigger]:
    """Single substitutions by their first-order estimate (HotFlip, Ebrahimi et al. 2018; AutoPrompt, Shin et al. 2020,
    eq. 2; over several positions as GCG, Zou et al. 2023, algorithm 1).

    Args:
        board: which tokens may stand where.
        trigger: what is changed.
        changes: the estimates.
        places: the positions that may change.
        top_k: tokens considered a position.
        greedy: share of candidates taken in the order of their estimate (1: AutoPrompt); the others are drawn evenly
            from all that are considered (0: GCG).
        distance: nats a unit of distance between the embeddings of the old and the new token, added to the estimate,
            since it is only true nearby (Faster-GCG, Li et al. 2024, eq. 5).
    """
    found: list[tuple[float, str, int, int]] = []
    for name, at in places:
        estimates = changes[name][at] - changes[name][at, trigger[name][at]]
        if distance:
            estimates = estimates + distance * board.vocabulary.distances([trigger[name][at]])[0]
        allowed = board.allowed[name].copy()
        allowed[trigger[name][at]] = False
        estimates = np.where(allowed, estimates, np.inf)
        count = min(top_k, int(allowed.sum()))
        best = np.argpartition(estimates, max(0, count - 1))[:count]
        found += [(float(estimates[token]), name, at, int(token)) for token in best]
    found.sort()
    ordered = iter(found)
    drawn = (found[index] for index in board.rng.permutation(len(found)))
    taken: set[tuple[str, int, int]] = set()
    turn = 0.0
    for _ in range(2 * len(found)):
        turn += greedy
        source = ordered if turn >= 1 or greedy >= 1 else drawn
        turn -= turn >= 1
        step = next((each for each in source if each[1:] not in taken), None)
        if step is not None:
            taken.add(step[1:])
            yield trigger.swapped(*step[1:])


def by_model(
    board: Board, trigger: Trigger, likely: Mapping[str, Sequence[Sequence[int]]]
) -> Iterator[Trigger]:
    """Single substitutions by tokens the model itself expects there, the likeliest of a random position in turn (as
    BEAST, Sadasivan et al. 2024, draws its beams).

    Args:
        board: which tokens may stand where.
        trigger: what is changed.
        likely: slot to [L][K] ids, the likeliest first.
    """
    lanes = []
    for name, at in trigger.places():
        if name in likely and at < len(likely[name]):
            allowed = board.allowed[name]
            tokens = [token for token in likely[name][at] if allowed[token] and token != trigger[name][at]]
            lanes.append([trigger.swapped(name, at, token) for token in tokens])
    lanes = [lanes[index] for index in board.rng.permutation(len(lanes))]
    for row in itertools.zip_longest(*lanes):
        yield from (each for each in row if each is not None)


def edits(board: Board, trigger: Trigger) -> Iterator[Trigger]:
    """Two tokens exchanged, and, where the length is free, one left out or one put in; drawn again and again."""
    rng = board.rng
    possible: dict[str, list[str]] = {}
    for name, spec in board.specs.items():
        size, (shortest, longest) = len(trigger[name]), spec.lengths
        kinds = ["exchange"] * (size > 1) + ["leave out"] * (size > shortest) + ["put in"] * (size < longest)
        if kinds:
            possible[name] = kinds
    for _ in range(1000 if possible else 0):
        name = list(possible)[rng.integers(len(possible))]
        ids, kinds = trigger[name], possible[name]
        kind = kinds[rng.integers(len(kinds))]
        if kind == "exchange":
            one, other = sorted(int(at) for at in rng.choice(len(ids), 2, replace=False))
            yield trigger.replaced(
                name, (*ids[:one], ids[other], *ids[one + 1 : other], ids[one], *ids[other + 1 :])
            )
        elif kind == "leave out":
            at = int(rng.integers(len(ids)))
            yield trigger.replaced(name, (*ids[:at], *ids[at + 1 :]))
        else:
            at = int(rng.integers(len(ids) + 1))
            token = int(rng.choice(np.flatnonzero(board.allowed[name])))
            yield trigger.replaced(name, (*ids[:at], token, *ids[at:]))


def merged(trigger: Trigger, better: Sequence[Trigger]) -> Iterator[Trigger]:
    """Single substitutions that lower the loss put together, the best first: 1+2, 1+2+3, ... (I-GCG, Jia et al. 2024,
    section 3.3); of two at the same position the better one stays.
    """
    together = trigger
    changed: set[tuple[str, int]] = set()
    for count, each in enumerate(better):
        for (name, at), (_, _) in zip(each.places(), trigger.places(), strict=False):
            alike = len(each[name]) == len(trigger[name])
            if alike and each[name][at] != trigger[name][at] and (name, at) not in changed:
                changed.add((name, at))
                together = together.swapped(name, at, each[name][at])
        if count and len(changed) > 1:
            yield together


def mixed(sources: Sequence[tuple[float, Iterator[Trigger]]]) -> Iterator[Trigger]:
    """Sources by their shares, in turn; one that is used up leaves its turns to the others."""
    lanes = [(share, source) for share, source in sources if share > 0]
    owed = [0.0] * len(lanes)
    while lanes:
        owed = [each + share for each, (share, _) in zip(owed, lanes, strict=True)]
        turn = max(range(len(lanes)), key=lambda lane: owed[lane])
        owed[turn] -= sum(share for share, _ in lanes)
        trigger = next(lanes[turn][1], None)
        if trigger is None:
            del lanes[turn], owed[turn]
        else:
            yield trigger
