"""Loop: from words to rows and back, again and again.

A gradient search finds words; rows begin at them and are trained near them; the rows are put back into words; a gradient
search goes on from there. A round's words are taken only where they are better beyond noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from autoprompt.asks import Answer, Ask
from autoprompt.errors import InputError
from autoprompt.strategies import Setting, Strategy
from autoprompt.strategies.chain import Chain
from autoprompt.strategies.gradient import Gradient
from autoprompt.strategies.project import Project


@dataclass(kw_only=True)
class Loop(Strategy):
    """Rounds of hard, soft and hard again over the token slots of a space.

    Attributes:
        rounds: times there and back.
        trust: how far rows may go from the words they began at, in lengths of their embeddings.
        beyond: standard errors by which new words must be better.
        first: share of the calls for the search before the first round.
    """

    moves_tokens: ClassVar[bool] = True
    rounds: int = 2
    trust: float = 1.0
    beyond: float = 1.0
    first: float = 0.3
    _chain: Chain = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.rounds < 1 or not 0 < self.first < 1 or not self.trust > 0:
            raise InputError(
                "loop: rounds must be at least 1, first between 0 and 1, trust above 0 "
                f"(got {self.rounds!r}, {self.first!r}, {self.trust!r})"
            )
        self._chain = self._stages()

    def _stages(self) -> Chain:
        stages: list[Strategy] = [Gradient()]
        shares = [self.first]
        for _ in range(self.rounds):
            there = Project(seeds=2, trust=self.trust, left_out=False, width=1)
            stages += [there, Gradient(beside=0, starts=1)]
            shares += [(1 - self.first) / self.rounds * part for part in (0.6, 0.4)]
        return Chain(strategies=tuple(stages), shares=tuple(shares), beyond=self.beyond)

    @property
    def inside(self) -> tuple[Strategy, ...]:
        """Its stages."""
        return (self._chain,)

    @property
    def findings(self) -> Mapping[str, Any]:
        """Those of the last way back to words."""
        return self._chain.findings

    def begin(self, setting: Setting) -> None:
        """Start afresh."""
        if setting.calls is None:
            raise InputError(
                "loop: shares its budget out among its stages, so it needs one in calls",
                hint="give the budget as a number of calls, such as 8000",
            )
        self._chain = self._stages()
        self._chain.begin(setting)

    def ask(self) -> Sequence[Ask]:
        """The stage's next questions."""
        return self._chain.ask()

    def tell(self, asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
        """Hand the answers on."""
        self._chain.tell(asks, answers)
