"""GrIPS (Prasad et al. 2023): hill climbing by phrase edits alone, with the settings of the paper.

"GrIPS: Gradient-free, Edit-based Instruction Search for Prompting Large Language Models": five edited copies a round,
balanced accuracy plus 0.1 times the entropy of the answers (equation 1, in units of accuracy), two rounds of patience. The
published search ends there or after ten rounds; here it begins again at the same text as long as the budget lasts, so that
it can be compared at equal cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from autoprompt.strategies.hill_climb import HillClimb


@dataclass(kw_only=True)
class Grips(HillClimb):
    """The settings of GrIPS; the slots that it edits are those with ``edit`` in the space."""

    edits_only: ClassVar[bool] = True
    candidates: int = 5
    patience: int = 2
    restart: Literal["random", "start"] = "start"
    entropy: float = 0.1
    balanced: bool = True
    changes: tuple[str, ...] = ("edit",)
