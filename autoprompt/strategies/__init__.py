"""What a strategy is: it asks questions about prompts and is told the answers. It knows nothing of models, money,
caches, clocks or disks.

One strategy is one file, found by its name: ``strategies/random_search.py`` holds the dataclass ``RandomSearch``, and
``strategy="random_search"`` finds it. Fields of the dataclass are the hyper-parameters and nothing else.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from autoprompt.asks import Answer, Ask, Scored, price
from autoprompt.prompt import Prompt
from autoprompt.space import SearchSpace
from autoprompt.task import Example
from autoprompt.vocabulary import Vocabulary


@dataclass(frozen=True)
class Setting:
    """What a strategy gets to work with.

    Attributes:
        space: the search space, bound to the task (``space.draw`` makes prompts that are valid for the model).
        seed_prompt: the prompt to beat, already scored on ``select``.
        seed_scored: its answer there.
        train: examples that may stand in prompts (demonstrations) and feed gradients.
        select: the examples that candidates are compared on.
        rng: the only source of chance.
        calls: calls that are left in the budget, None where the budget is in other units; for planning only.
        vocabulary: the model's tokens; None where it does not show them.
    """

    space: SearchSpace
    seed_prompt: Prompt
    seed_scored: Scored
    train: tuple[Example, ...]
    select: tuple[Example, ...]
    rng: np.random.Generator
    calls: int | None = None
    vocabulary: Vocabulary | None = None


class Strategy(abc.ABC):
    """``begin`` once, then ``ask`` and ``tell`` in turn until ``ask`` returns nothing or the budget is spent.

    The contract: given the same setting and the same answers, the same asks (no clock, no global seeds, no order of
    sets). ``tell`` may get fewer answers than asks when the budget ends inside a round. A question may repeat; it is
    charged once.
    """

    moves_tokens: ClassVar[bool] = False
    """Whether it is about token slots: where no space is given, it gets the manual prompt with a trigger."""
    asks_slopes: ClassVar[bool] = False
    """Whether it asks for gradients of answers, which tasks of kind generation have none of."""
    edits_only: ClassVar[bool] = False
    """Whether it moves nothing but texts that may be edited: where no space is given, it gets the manual prompt's words."""

    @abc.abstractmethod
    def begin(self, setting: Setting) -> None:
        """Start afresh; called once before the first ``ask``."""

    @abc.abstractmethod
    def ask(self) -> Sequence[Ask]:
        """Return the questions of the next round; an empty list ends the search."""

    @abc.abstractmethod
    def tell(self, asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
        """Take the answers to the asks of this round, in their order."""

    @property
    def note(self) -> str:
        """One line on what was chosen and why, for strategies that choose; known after ``begin``."""
        return ""

    @property
    def writers(self) -> tuple[str, ...]:
        """Names of the models that it lets write texts; empty: the one that is prompted. Most strategies let none."""
        return ()

    @property
    def inside(self) -> tuple[Strategy, ...]:
        """The strategies that it wraps; what those want of a space is what it wants."""
        return ()

    @property
    def in_front(self) -> bool:
        """Whether the token slots it moves must stand before the data, as the trigger then does that it gets by default."""
        return False

    def floor(self, train: int, select: int) -> int:
        """Fewest calls, those for the manual prompt left out, with which it can do what it is for; most need one prompt.

        Args:
            train: number of train examples.
            select: number of select examples.
        """
        return select

    @property
    def findings(self) -> Mapping[str, Any]:
        """What was found besides prompts, as plain data for ``result.json``; known at the end."""
        return {}

    def describe(self) -> dict[str, Any]:
        """Name and hyper-parameters as plain data, nested for strategies that wrap others: the identity of a run."""
        assert dataclasses.is_dataclass(self)
        module, name = type(self).__module__, type(self).__qualname__
        ours = module.startswith("autoprompt.strategies.")
        described: dict[str, Any] = {"strategy": module.rpartition(".")[2] if ours else f"{module}.{name}"}
        for item in dataclasses.fields(self):
            if item.init:
                described[item.name] = _plain(getattr(self, item.name))
        return described


Play = Generator[Sequence[Ask], Sequence[Answer], None]
"""Yields questions, is sent their answers."""


@dataclass(kw_only=True)
class Played(Strategy):
    """Hands the questions of its ``_search`` on, and their answers to it; ends with it, or with the budget.

    ``_spent``: calls that were asked for so far and answered, whether or not some had been asked before.
    """

    _setting: Setting = field(init=False, repr=False, compare=False)
    _play: Play = field(init=False, repr=False, compare=False)
    _asks: Sequence[Ask] = field(init=False, repr=False, compare=False, default=())
    _spent: int = field(init=False, repr=False, compare=False, default=0)

    @abc.abstractmethod
    def _search(self) -> Play:
        """The search, from the first question to the last."""

    def begin(self, setting: Setting) -> None:
        """Start afresh."""
        self._setting, self._spent = setting, 0
        self._play = self._search()
        self._asks = next(self._play, ())

    def ask(self) -> Sequence[Ask]:
        """The questions the search waits for; none at its end."""
        return self._asks

    def tell(self, asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
        """Go on with the answers; where some are missing, the budget is spent."""
        if len(answers) < len(self._asks):
            self._asks = ()
            return
        filled_in = sum(answer.imputed for answer in answers if isinstance(answer, Scored))  # by a race
        self._spent += sum(map(price, self._asks)) - filled_in
        try:
            self._asks = self._play.send(answers)
        except StopIteration:
            self._asks = ()


def _plain(value: Any) -> Any:
    if isinstance(value, Strategy):
        return value.describe()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
