"""A search written as one generator that yields questions and is sent their answers, as a strategy."""

from __future__ import annotations

import abc
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from autoprompt.asks import Answer, Ask, price
from autoprompt.strategies import Setting, Strategy

Play = Generator[Sequence[Ask], Sequence[Answer], None]
"""Yields questions, is sent their answers."""


@dataclass(kw_only=True)
class Played(Strategy):
    """Hands the questions of its ``_search`` on, and their answers to it; ends with it, or with the budget.

    ``_spent``: calls that were asked for so far, whether or not some had been asked before.
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
        self._spent += sum(map(price, self._asks))
        try:
            self._asks = self._play.send(answers)
        except StopIteration:
            self._asks = ()
