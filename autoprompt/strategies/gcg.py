"""GCG (Zou et al. 2023), with the settings of nanoGCG 0.3: the gradient search over all positions at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autoprompt.strategies.gradient import Gradient


@dataclass(kw_only=True)
class Gcg(Gradient):
    """Candidates drawn evenly from the 256 best tokens of every position, all of them on all examples; the best by loss
    is always taken.

    ``width`` is nanoGCG's 512 where the budget pays for ten such steps, else fewer.
    """

    width: int = 512
    top_k: int = 256
    greedy: float = 0.0
    proposals: float = 0.0
    edits: float = 0.0
    merge: int = 0
    race: bool = False
    accept: Literal["better", "always"] = "always"
    among_answers: bool = False
    starts: int = 1
    patience: int = 10**9
    beside: int = 0
