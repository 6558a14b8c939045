"""Chain: strategies one after another, each from the best prompt so far with its share of the budget."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from autoprompt.asks import (
    GRADIENT_CALLS,
    Answer,
    Ask,
    Complete,
    Gradient,
    Score,
    Scored,
    Tune,
    price,
    scored_pairs,
)
from autoprompt.errors import InputError
from autoprompt.prompt import Prompt
from autoprompt.strategies import Setting, Strategy
from autoprompt.strategies.tpe import comparable

_PASSES = 200
"""Rounds in a row answered from memory after which a stage that only repeats itself is taken to be done."""
Question = tuple[str, str, str, int]
"""Kind of ask, prompt key, example id, repeat: what is charged once."""


@dataclass(kw_only=True)
class Chain(Strategy):
    """Runs strategies one after another; each later one starts from the best prompt measured so far.

    A stage ends when its strategy has nothing more to ask, or when its next question does not fit into its
    share of ``setting.calls``. What a stage leaves over goes to the later ones. Where the budget is not in
    calls, only a stage that ends by itself makes room for the next. A question that an earlier stage has
    asked is answered from memory.

    Attributes:
        strategies: the stages, in order.
        shares: relative size of each stage's share of the calls, 0 for no more than is left over; None for equal shares.
        beyond: standard errors by which a prompt must be better than the one the stage began at for the next stage to
            begin at it, in paired losses, or in scores where there are none; 0: any better merit does.
    """

    strategies: tuple[Strategy, ...]
    shares: tuple[float, ...] | None = None
    beyond: float = 0.0
    _setting: Setting = field(init=False, repr=False, compare=False)
    _best: tuple[Prompt, Scored] = field(init=False, repr=False, compare=False)
    _found: tuple[Prompt, Scored] = field(init=False, repr=False, compare=False)
    _stage: int = field(init=False, repr=False, compare=False)
    _begun: int = field(init=False, repr=False, compare=False, default=0)
    _asked: set[Question] = field(init=False, repr=False, compare=False)
    _spent: int = field(init=False, repr=False, compare=False)
    _answers: dict[Ask, Answer] = field(init=False, repr=False, compare=False)
    _limit: float | None = field(init=False, repr=False, compare=False)
    _ending: bool = field(init=False, repr=False, compare=False)
    _round: list[Ask] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the fields."""
        if not self.strategies:
            raise InputError(
                "chain: needs at least one strategy", hint="Chain(strategies=(RandomSearch(), TPE()))"
            )
        if self.shares is not None and len(self.shares) != len(self.strategies):
            raise InputError(
                f"chain: {len(self.strategies)} strategies need as many shares (got {len(self.shares)})"
            )
        if self.beyond < 0:
            raise InputError(f"chain: beyond must be at least 0 (got {self.beyond!r})")
        if self.shares is not None and not (
            all(0 <= share < float("inf") for share in self.shares) and self.shares[0]
        ):
            raise InputError(
                f"chain: every share must be a number of at least 0, the first one above (got {self.shares!r})"
            )

    @property
    def note(self) -> str:
        """The notes of the stages that chose something."""
        return "; ".join(stage.note for stage in self.strategies if stage.note)

    @property
    def begun(self) -> int:
        """Number of stages that have begun."""
        return self._begun

    @property
    def inside(self) -> tuple[Strategy, ...]:
        """The stages."""
        return tuple(self.strategies)

    @property
    def writers(self) -> tuple[str, ...]:
        """Those of the stages."""
        return tuple(dict.fromkeys(name for stage in self.strategies for name in stage.writers))

    @property
    def findings(self) -> Mapping[str, Any]:
        """Those of the last stage that found something."""
        found = [stage.findings for stage in self.strategies if stage.findings]
        return found[-1] if found else {}

    def begin(self, setting: Setting) -> None:
        """Start afresh with the first stage."""
        self._setting = setting
        self._best = self._found = (setting.seed_prompt, setting.seed_scored)
        self._asked, self._spent = set(), 0
        self._answers = {}
        self._round = []
        self._begun = 0
        self._start(0)

    def ask(self) -> list[Ask]:
        """Return the stage's next questions, as many as its share pays for, or those of the next stage."""
        passes = 0
        while self._stage < len(self.strategies):
            wanted = [] if self._ending else self.strategies[self._stage].ask()
            self._round = self._fitting(wanted)
            if not self._round:
                self._start(self._stage + 1)
                continue
            new = [ask for ask in self._round if ask not in self._answers]
            if new:
                return new
            self._pass_on()
            passes += 1
            self._ending |= passes >= _PASSES
        return []

    def tell(self, asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
        """Remember the answers and the best prompt, and pass the round's answers on to the stage."""
        self._answers.update(zip(asks, answers, strict=False))
        for ask, answer in scored_pairs(asks, answers):
            if (
                not ask.beside
                and not answer.imputed
                and not ask.prompt.soft
                and ask.examples == self._setting.select
                and ask.repeat == 0
                and comparable(answer) > comparable(self._found[1])
            ):
                self._found = (ask.prompt, answer)
        self._pass_on()

    def _pass_on(self) -> None:
        """Tell the stage the answers of its round that are there, up to the first that is missing."""
        answers: list[Answer] = []
        for ask in self._round:
            if ask not in self._answers:
                break
            answers.append(self._answers[ask])
        self.strategies[self._stage].tell(self._round, answers)

    def _start(self, stage: int) -> None:
        """Begin a stage from the best prompt so far."""
        self._stage = stage
        if _leads(self._found[1], self._best[1], self.beyond):
            self._best = self._found
        else:
            self._found = self._best
        self._ending = False
        self._limit = None
        if stage == len(self.strategies):
            return
        calls = self._setting.calls
        if calls is not None:
            shares = self.shares or (1.0,) * len(self.strategies)
            left, rest = calls - self._spent, sum(shares[stage:])
            calls = int(left * shares[stage] / rest) if rest else left
            if not calls and stage:
                self._start(stage + 1)
                return
            if stage < len(self.strategies) - 1:
                self._limit = self._spent + calls
        prompt, scored = self._best
        self._begun += 1
        self.strategies[stage].begin(
            dataclasses.replace(self._setting, seed_prompt=prompt, seed_scored=scored, calls=calls)
        )

    def _fitting(self, asks: Sequence[Ask]) -> list[Ask]:
        """The asks, in order, up to the first whose new questions do not fit into the stage's share."""
        fitting: list[Ask] = []
        for ask in asks:
            new = _questions(ask) - self._asked
            cost = len(new) * (GRADIENT_CALLS if isinstance(ask, Gradient) else 1)
            if isinstance(ask, (Tune, Complete)):  # a stretch of a training, or a text, is no other's
                new, cost = set(), 0 if ask in self._answers else price(ask)
            if self._limit is not None and cost and self._spent + cost > self._limit:
                self._ending = True
                break
            self._asked |= new
            self._spent += cost
            fitting.append(ask)
        return fitting


def _leads(one: Scored, other: Scored, beyond: float) -> bool:
    """Whether an answer on the same examples is better by so many standard errors of the paired difference."""
    if comparable(one) <= comparable(other):
        return False
    gains = other.losses - one.losses
    if np.isnan(gains).all():
        gains = one.scores - other.scores
    gains = gains[~np.isnan(gains)]
    if beyond <= 0 or len(gains) < 2:
        return True
    return float(gains.mean()) > beyond * float(gains.std(ddof=1)) / math.sqrt(len(gains))


def _questions(ask: Ask) -> set[Question]:
    repeat = ask.repeat if isinstance(ask, Score) else 0
    return {(type(ask).__name__, ask.prompt.key, example.id, repeat) for example in ask.examples}
