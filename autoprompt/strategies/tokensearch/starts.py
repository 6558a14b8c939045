"""Triggers to start from that the model could have written."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

import numpy as np

from autoprompt.asks import Answer, Ask, Fluency, Fluent
from autoprompt.strategies.tokensearch.board import Board, Trigger
from autoprompt.strategies.tokensearch.race import Runner
from autoprompt.task import Example

LIKELY = 256
"""Likeliest tokens that are asked for at a position."""


def fluent(
    board: Board, runners: Sequence[Runner], text: Example
) -> Generator[Sequence[Ask], Sequence[Answer], list[Runner]]:
    """The runners with their tokens drawn anew from left to right, each from the likeliest where it stands.

    Args:
        board: which tokens may stand where.
        runners: what is overwritten; it says how many triggers there will be, and how long they are.
        text: the example they are to go on.
    """
    found = list(runners)
    longest = max((len(ids) for trigger, _ in found for _, ids in trigger.slots), default=0)
    for at in range(longest):
        answers = yield [Fluency(prompt, (text,), likely=LIKELY, note="start") for _, prompt in found]
        drawn = []
        for (trigger, _), answer in zip(found, answers, strict=True):
            assert isinstance(answer, Fluent)
            drawn.append(_drawn(board, trigger, answer.likely, at))
        found = board.standing(drawn)
        if not found:
            break
    return found


def _drawn(board: Board, trigger: Trigger, likely: Mapping[str, Sequence[Sequence[int]]], at: int) -> Trigger:
    """The token at one position of every slot drawn from the likeliest that are allowed, the i-th of them with a weight
    of 1/i; where none of them is, the trigger as it is.
    """
    for name, ids in trigger.slots:
        if at < len(ids) and at < len(likely.get(name, ())):
            tokens = [token for token in likely[name][at] if board.allowed[name][token]]
            weights = 1 / np.arange(1, len(tokens) + 1)
            if tokens:
                trigger = trigger.swapped(
                    name, at, tokens[board.rng.choice(len(tokens), p=weights / weights.sum())]
                )
    return trigger
