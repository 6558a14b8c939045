"""What a search will cost on this machine, measured before it is paid for."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoprompt.asks import Score
from autoprompt.budget import Budget
from autoprompt.cache import Cache
from autoprompt.harness import Harness
from autoprompt.inputs import check_call, check_capability, check_floor, load_space, load_task
from autoprompt.models.load import load_model
from autoprompt.readable import fit_words
from autoprompt.space import RandomChooser, SearchSpace
from autoprompt.task import Task

_WARM, _PROBE, _PROMPTS = 8, 96, 12


@dataclass(frozen=True)
class Forecast:
    """The cost of a search and of the measurement on test that follows it.

    Attributes:
        calls: prompt-on-example forwards the budget and the size of the space allow.
        tokens: tokens the model will read for them, at the mean length of prompts drawn from the space.
        seconds: how long they take at the measured speed.
        test_calls: calls of the measurement on test, outside the budget.
        test_seconds: how long they take.
        prompts: prompts that can be scored in full on select.
        space_size: prompts that the search space lists.
        is_open: whether there are more, since texts may be edited or tokens sought: then only the budget ends the search.
        tokens_per_second: measured.
        calls_per_second: measured.
    """

    calls: int
    tokens: int
    seconds: float
    test_calls: int
    test_seconds: float
    prompts: int
    space_size: int
    is_open: bool
    tokens_per_second: float
    calls_per_second: float

    def __str__(self) -> str:
        more = ", edits and tokens not counted" if self.is_open else ""
        return "\n".join(
            [
                f"speed     {self.calls_per_second:,.0f} calls/s, {self.tokens_per_second:,.0f} tokens/s "
                "(measured)",
                f"search    {self.calls:,} calls, about {self.tokens:,} tokens, {_minutes(self.seconds)}",
                f"test      {self.test_calls:,} calls, {_minutes(self.test_seconds)} (outside the budget)",
                f"reach     {self.prompts:,} prompts in full on select, of {self.space_size:,} in the space{more}",
            ]
        )


def estimate(
    task: Task | str | Path,
    model: object,
    budget: Budget | int | str,
    *,
    space: SearchSpace | str | Path | None = None,
) -> Forecast:
    """Measure this model's speed on the manual prompt and some prompts of the space, and say what ``budget`` will cost.

    Args:
        task: as for ``optimize``.
        model: as for ``optimize``.
        budget: as for ``optimize``; of several limits the one reached first counts.
        space: as for ``optimize``.

    Raises:
        InputError: something given is wrong.
    """
    budget = Budget.parse(budget)
    task = load_task(task)
    chosen = load_space(space, task)
    check_call(task, chosen, budget, model)
    loaded = load_model(model)
    check_capability(task, loaded, task.seed_prompt)
    check_floor(task, loaded, budget)
    fitted, _ = fit_words(task, chosen, loaded)
    bound = fitted.bind(task, answer_at_end=loaded.kind != "masked")
    asks = _probes(task, bound)
    with contextlib.closing(Cache()) as cache:
        harness = Harness(task, loaded, None, cache)
        harness.answer([Score(task.seed_prompt, task.train[:_WARM])])  # the first calls are slower
        calls_before, tokens, start = harness.meter.calls, harness.meter.tokens, time.perf_counter()
        harness.answer(asks)
        seconds = max(time.perf_counter() - start, 1e-6)
    probed = harness.meter.calls - calls_before
    per_call = (harness.meter.tokens - tokens) / probed
    rate = probed / seconds
    size = bound.size()
    is_open = bool(bound.spec.token_slots) or any(slot.edit is not None for slot in bound.slots.values())
    limits = [
        None if is_open else size * len(task.select),
        budget.calls,
        None if budget.tokens is None else budget.tokens / max(per_call, 1),
        None if budget.seconds is None else budget.seconds * rate,
    ]
    calls = int(min(limit for limit in limits if limit is not None))
    return Forecast(
        calls=calls,
        tokens=round(calls * per_call),
        seconds=calls / rate,
        test_calls=2 * len(task.test),
        test_seconds=2 * len(task.test) / rate,
        prompts=calls // len(task.select),
        space_size=size,
        is_open=is_open,
        tokens_per_second=per_call * rate,
        calls_per_second=rate,
    )


def _probes(task: Task, space: SearchSpace) -> list[Score]:
    """The manual prompt and prompts drawn from the space, each on a few select examples: with demonstrations, prompts
    are several times as long as the manual one.
    """
    choose = RandomChooser(np.random.default_rng(0))
    drawn = [prompt for prompt in (space.draw(choose) for _ in range(_PROMPTS - 1)) if prompt is not None]
    examples = task.select[: _PROBE // _PROMPTS]
    return [Score(prompt, examples, repeat=1) for prompt in (task.seed_prompt, *drawn)]


def _minutes(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
