"""AutoPrompt (Shin et al. 2020): the gradient search with the settings of the paper and its code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autoprompt.strategies.gradient import Gradient


@dataclass(kw_only=True)
class Autoprompt(Gradient):
    """One drawn position a step, its candidates in the order of their first-order estimate, all of them on all examples
    of a second batch; taken where one has a higher score; loss over the whole vocabulary.

    ``width`` is the paper's number of candidates (10 or 100); ten is what small budgets pay for.
    """

    width: int = 10
    top_k: int = 10
    positions: Literal["all", "one"] = "one"
    greedy: float = 1.0
    proposals: float = 0.0
    edits: float = 0.0
    merge: int = 0
    race: bool = False
    objective: Literal["loss", "score"] = "score"
    among_answers: bool = False
    fresh: bool = True
    starts: int = 1
    patience: int = 10**9
    beside: int = 0
