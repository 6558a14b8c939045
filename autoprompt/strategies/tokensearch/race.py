"""Candidates of a step measured against each other on the same examples."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autoprompt.asks import Answer, Ask, Fluency, Fluent, Score, Scored
from autoprompt.errors import InputError
from autoprompt.prompt import Prompt
from autoprompt.strategies.tokensearch.board import Trigger
from autoprompt.task import Example

Runner = tuple[Trigger, Prompt]
SAME = 1e-4
"""Nats below which losses are alike: they depend on batch sizes and threads there."""
FIRST = 8
"""Examples of the first lap of a race."""
KEPT = 3
"""One in so many goes on to twice as many examples."""
READ = 6
"""Candidates whose fluency is asked for where it counts."""


@dataclass(frozen=True)
class Finisher:
    """A runner measured on all examples. ``cost``: what it is compared by, the smallest first."""

    cost: float
    trigger: Trigger
    prompt: Prompt


@dataclass(frozen=True)
class Rules:
    """How runners are compared.

    Attributes:
        objective: by their mean ``loss`` in nats, or by their ``score`` alone.
        laps: whether those that do badly on the first examples drop out.
        beside: whether the prompts are kept beside the result only.
        fluency: nats of loss that a nat of the mean negative log-probability of the trigger's tokens counts as.
        max_perplexity: above it a runner does not run; None: no bound.
        judge: the model that says how fluent a trigger is; empty: the model itself.
    """

    objective: Literal["loss", "score"] = "loss"
    laps: bool = True
    beside: bool = False
    fluency: float = 0.0
    max_perplexity: float | None = None
    judge: str = ""


Race = Generator[Sequence[Ask], Sequence[Answer], list[Finisher]]


def race(runners: Sequence[Runner], examples: tuple[Example, ...], rules: Rules, note: str) -> Race:
    """Measure runners lap by lap, each on twice the examples of the one before, a third of them going on.

    The first runner always goes on to the end. Of runners that cost the same the earlier one is first, so that nothing
    is taken that is no better.
    """
    ends = [len(examples)]
    while rules.laps and ends[0] > FIRST and len(runners) > KEPT ** len(ends):
        ends.insert(0, math.ceil(ends[0] / 2))
    sums = np.zeros((len(runners), 3))  # score, loss, answers
    alive = list(range(len(runners)))
    start = 0
    for end in ends:
        block = examples[start:end]
        answers = yield [Score(runners[index][1], block, note=note, beside=rules.beside) for index in alive]
        for index, answer in zip(alive, answers, strict=True):
            assert isinstance(answer, Scored)
            there = np.count_nonzero(~np.isnan(answer.scores))
            sums[index] += np.nansum(answer.scores), np.nansum(answer.losses), there
        alive.sort(key=lambda index: (_cost(sums[index], rules), index))
        if end < len(examples):
            kept = alive[: max(2, math.ceil(len(alive) / KEPT))]
            alive = kept if 0 in kept else [*kept, 0]
        start = end
    return [Finisher(_cost(sums[index], rules), *runners[index]) for index in alive]


def within_bound(
    runners: Sequence[Runner], text: Example, rules: Rules
) -> Generator[Sequence[Ask], Sequence[Answer], list[Runner]]:
    """The runners that read well enough; where none does, the third of them that reads best."""
    if rules.max_perplexity is None or not runners:
        return list(runners)
    answers = yield [Fluency(prompt, (text,), judge=rules.judge, note="bound") for _, prompt in runners]
    read = _read(answers)
    found = [runner for runner, value in zip(runners, read, strict=True) if value <= rules.max_perplexity]
    if found:
        return found
    order = sorted(range(len(runners)), key=lambda index: (math.isnan(read[index]), read[index], index))
    return [runners[index] for index in order[: math.ceil(len(order) / KEPT)]]


def weighed(ranked: Sequence[Finisher], texts: tuple[Example, ...], rules: Rules) -> Race:
    """The best of a ranking with their fluency counted in, ranked anew; as it was where fluency does not count."""
    if not rules.fluency:
        return list(ranked)
    best = list(ranked[:READ])
    answers = yield [Fluency(each.prompt, texts, judge=rules.judge) for each in best]
    found = []
    for each, perplexity in zip(best, _read(answers), strict=True):
        surprise = math.log(perplexity) if perplexity > 0 else math.inf  # NaN: of this one it could not say
        found.append(Finisher(each.cost + rules.fluency * surprise, each.trigger, each.prompt))
    return sorted(found, key=lambda each: each.cost)


def _read(answers: Sequence[Answer]) -> list[float]:
    """Perplexities; NaN where the model could not say.

    Raises:
        InputError: it could not say of any, so that it cannot count.
    """
    read = [answer for answer in answers if isinstance(answer, Fluent)]
    if all(answer.problem for answer in read):
        raise InputError(
            f"gradient: fluency counts, but nothing says how fluent a trigger is: {read[0].problem}",
            hint='give a causal model as judge, such as judge="bundled:causal", or leave max_perplexity and fluency out',
        )
    return [answer.perplexity for answer in read]


def _cost(sums: NDArray[np.float64], rules: Rules) -> float:
    """What is compared; a runner without any answer comes last. A missing score counts as wrong."""
    score, loss, answers = (float(each) for each in sums)
    if not answers:
        return math.inf
    if rules.objective == "score":
        return -score
    return round(loss / answers / SAME) * SAME
