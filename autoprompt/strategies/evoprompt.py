"""EvoPrompt (Guo et al. 2024): evolution with the settings of the paper's genetic algorithm, and no language model.

"Connecting Large Language Models with Evolutionary Algorithms Yields Powerful Prompt Optimizers", algorithm 2, with
operators on slots in place of a model that writes.

A population of ten, ten children a round, parents by roulette (here tournaments of two, which press as much), each child
crossed and then mutated; the best ten of both live on. Nothing is screened.
"""

from __future__ import annotations

from dataclasses import dataclass

from autoprompt.strategies.evolution import Evolution


@dataclass(kw_only=True)
class Evoprompt(Evolution):
    """The settings of EvoPrompt (GA)."""

    population: int = 10
    batch: int = 10
    crossing: float = 1.0
    tournament: int = 2
    screen: int = 1
    fills: int = 0
