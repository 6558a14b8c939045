"""Which prompts new texts come from, and which method has the next turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprompt.asks import Scored
from autoprompt.prompt import Prompt
from autoprompt.strategies.proposing.methods import Brief
from autoprompt.strategies.tpe import comparable


@dataclass(eq=False)
class Member:
    """A prompt that others may come from.

    Attributes:
        prompt: it.
        scored: its answer on select.
        train: its answer on the sample of train, once that was asked for.
    """

    prompt: Prompt
    scored: Scored
    train: Scored | None = None

    @property
    def merit(self) -> tuple[float, float]:
        """What members are compared by."""
        return comparable(self.scored)


def best(members: Sequence[Member]) -> Member:
    """The member of the highest merit, the first of equals."""
    return max(members, key=lambda each: each.merit)


def pareto_parent(members: Sequence[Member], rng: np.random.Generator) -> Member:
    """Draw a member in proportion to the number of examples on which no other does better; one that another equals
    everywhere and beats somewhere is left out (GEPA, Agrawal et al. 2025, algorithm 2).
    """
    scores = np.nan_to_num(
        np.array([each.scored.scores for each in members])
    )  # [members, N]; missing is wrong
    kept = [
        at
        for at, row in enumerate(scores)
        if not any((other >= row).all() and (other > row).any() for other in scores)
    ]
    wins = (scores[kept] >= scores[kept].max(axis=0)).sum(axis=1).astype(float)
    return members[kept[int(rng.choice(len(kept), p=wins / wins.sum()))]]


@dataclass(eq=False)
class Turn:
    """One text to come: by which method, from which prompt, for which slot, and what the method is told."""

    method: str
    parent: Member
    slot: str
    brief: Brief


class Turns:
    """Deals turns out to methods: the next one goes to the method with the largest (1 + accepted) / (1 + turns).

    So all have one turn to begin with, in the order they are listed; after that, those whose texts were accepted more often
    come more often, and none is ever left out for good.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.taken = dict.fromkeys(names, 0)
        self.accepted = dict.fromkeys(names, 0)

    def order(self) -> list[str]:
        """The methods, the one whose turn it is first; whoever takes a turn counts it in ``taken``."""
        return sorted(self.taken, key=lambda each: -(1 + self.accepted[each]) / (1 + self.taken[each]))

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Method to its turns and to how many brought something better."""
        return {name: {"turns": self.taken[name], "accepted": self.accepted[name]} for name in self.taken}
