"""Gradient: a search over the tokens of a prompt, led by the gradient of the loss, that ends in words.

A step: the gradient at the current trigger says which tokens would lower the loss (``tokensearch/generators.py``);
candidates that are read back as they are race on examples by their loss, fewer going on each time; the best is
taken where it beats the current trigger on the very same examples, and measured on select. Where nothing has been
better for some steps, the search starts again from the best trigger shaken up or from a drawn one.

Beside the search under the slots' own policy runs one in which any token may stand (every ``beside``-th step): what it
finds is kept beside the result, to show what readability costs.

``autoprompt.py`` and ``gcg.py`` are this search with the settings of those papers.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from autoprompt import asks as asks_
from autoprompt.asks import Answer, Ask, Fluency, Fluent, Score, Scored, Slope
from autoprompt.errors import InputError, UnknownName, nearest
from autoprompt.prompt import Prompt
from autoprompt.strategies import Play, Played, Setting
from autoprompt.strategies.racing import stratified_order
from autoprompt.strategies.tokensearch.board import Board, Trigger
from autoprompt.strategies.tokensearch.generators import (
    Changes,
    by_gradient,
    by_model,
    edits,
    merged,
    mixed,
)
from autoprompt.strategies.tokensearch.race import Finisher, Race, Rules, race, weighed, within_bound
from autoprompt.strategies.tokensearch.starts import LIKELY, fluent
from autoprompt.task import Example

Estimates = NDArray[np.float32]
FLUENCY_TEXTS = 4
"""Examples a perplexity is the mean over."""
KNOWN = {"positions": ("all", "one"), "objective": ("loss", "score"), "accept": ("better", "always")}
"""Settings that are one of some words."""
SLOW = 0.01
"""A step that lowers the loss by less than this share of it counts as one without anything better."""
EMPTY_STEPS = 20
"""Steps in a row without anything new to try after which the search ends."""


@dataclass
class _Chain:
    """One search: where it stands, and what it has tried.

    Attributes:
        board: its token slots.
        beside: whether what it finds is kept beside the result.
        trigger: where it stands; None before it has started.
        prompt: its prompt.
        stale: steps in a row without anything better.
        measured: whether it was measured on select where it stands.
        lowest: the least cost since it started here.
        momentum: the running mean of the estimates.
        visited: all that was tried.
        best: the best on select so far: its merit, and the trigger.
    """

    board: Board
    beside: bool
    trigger: Trigger | None = None
    prompt: Prompt | None = None
    stale: int = 0
    measured: bool = False
    lowest: float = math.inf
    momentum: dict[str, Estimates] = field(default_factory=dict)
    visited: set[Trigger] = field(default_factory=set)
    best: tuple[tuple[float, float], Trigger] | None = None


@dataclass(kw_only=True)
class Gradient(Played):
    """Gradient-guided search over the token slots of a space.

    Attributes:
        width: candidates a step; fewer where the budget would not pay for ten steps.
        batch: examples of train that a step's gradient, and its race, are over.
        positions: change ``all`` positions, or ``one`` drawn position a step.
        top_k: tokens considered a position.
        greedy: share of the gradient's candidates taken in the order of their estimate; the others are drawn.
        proposals: share of candidates that the model itself expects at their place (nothing from a model that reads its
            prompt with an encoder).
        edits: share of candidates that exchange two tokens, or, where a slot's length is free, leave out or put in one.
        merge: how many of the best substitutions of a step are also tried together.
        average: gradients averaged at a drawn position over random tokens there (ARCA, Jones et al. 2023, eq. 5); 0: the
            gradient at the trigger itself.
        momentum: share of the estimates so far in the new ones (MAC, Zhang & Wei 2024).
        distance: nats a unit that far tokens are penalised by (Faster-GCG).
        race: whether candidates that do badly on the first examples drop out.
        objective: candidates are compared by their mean ``loss``, or by their ``score`` (by the loss, too, where answers
            are not label words, as AutoPrompt's code does).
        accept: ``better``: only what beats the current trigger is taken; ``always``: the best candidate is.
        among_answers: whether the gradient's loss is among the label words, or over the vocabulary.
        fresh: whether candidates race on other examples than the gradient was taken of.
        starts: drawn triggers that race for where to begin.
        patience: steps without anything better before the search starts again.
        beside: every so many steps one of the search in which any token may stand; 0: none.
        judge: the model that says how fluent a trigger is; empty: the model itself.
        max_perplexity: what reads worse is kept beside the result only; None: no bound.
        fluency: nats of loss that a nat of the trigger's mean negative log-probability counts as.
    """

    moves_tokens: ClassVar[bool] = True
    asks_slopes: ClassVar[bool] = True
    width: int = 48
    batch: int = 32
    positions: Literal["all", "one"] = "all"
    top_k: int = 64
    greedy: float = 0.5
    proposals: float = 0.15
    edits: float = 0.1
    merge: int = 6
    average: int = 0
    momentum: float = 0.0
    distance: float = 0.0
    race: bool = True
    objective: Literal["loss", "score"] = "loss"
    accept: Literal["better", "always"] = "better"
    among_answers: bool = True
    fresh: bool = False
    starts: int = 16
    patience: int = 4
    beside: int = 10
    judge: str = ""
    max_perplexity: float | None = None
    fluency: float = 0.0
    _on_select: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        """Check the fields."""
        for name in ("width", "batch", "top_k", "starts", "patience"):
            if getattr(self, name) < 1:
                raise InputError(f"gradient: {name} must be at least 1 (got {getattr(self, name)!r})")
        for name in ("merge", "average", "beside", "distance", "fluency"):
            if not getattr(self, name) >= 0:
                raise InputError(f"gradient: {name} must be at least 0 (got {getattr(self, name)!r})")
        if self.max_perplexity is not None and not self.max_perplexity > 0:
            raise InputError(f"gradient: max_perplexity must be above 0 (got {self.max_perplexity!r})")
        for name, known in KNOWN.items():
            if (value := getattr(self, name)) not in known:
                raise UnknownName(
                    f"gradient: no {name} {value!r}{nearest(str(value), known)}; it is one of {', '.join(known)}"
                )
        for name in ("greedy", "proposals", "edits", "momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"gradient: {name} must be between 0 and 1 (got {getattr(self, name)!r})")

    def begin(self, setting: Setting) -> None:
        """Start afresh."""
        self._on_select = 0
        super().begin(setting)

    def tell(self, asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
        """Count what goes to select, and go on with the answers."""
        if len(answers) == len(self._asks):
            self._on_select += sum(len(ask.examples) for ask in self._asks if ask.note == "select")
        super().tell(asks, answers)

    def _search(self) -> Play:
        main = _Chain(Board(self._setting), beside=False)
        chains = [main]
        if self.beside and any(spec.policy != "any" or spec.matching for spec in main.board.specs.values()):
            chains.append(_Chain(Board(self._setting, free=True), beside=True))
        step = empty = 0
        while empty < EMPTY_STEPS:
            chain = chains[1] if len(chains) > 1 and step % self.beside == self.beside - 1 else main
            if chain.trigger is None and chain.beside and main.trigger is not None:
                chain.trigger, chain.prompt = main.trigger, main.prompt
            tried = len(chain.visited)
            if chain.trigger is None:
                yield from self._begin(chain)
            else:
                yield from self._step(chain)
            empty = empty + 1 if len(chain.visited) == tried else 0
            step += 1

    def _begin(self, chain: _Chain) -> Play:
        """Find a place to start from: the slots' own texts, or the best of some drawn triggers."""
        board = chain.board
        given = board.start() if not chain.visited else None
        if given is not None:
            drawn = board.standing([given])
        elif chain.best is not None and board.rng.random() < 0.5:
            drawn = board.standing([board.shaken(chain.best[1]) for _ in range(2 * self.starts)])[
                : self.starts
            ]
        else:
            drawn = board.drawn(self.starts)
        drawn = [each for each in drawn if each[0] not in chain.visited]
        if not drawn and (given is not None or not chain.visited):
            drawn = board.drawn(self.starts)
        if not drawn:
            chain.visited.add(Trigger(()))
            return
        if given is None and self.proposals:
            drawn += yield from fluent(board, drawn[: len(drawn) // 2], self._texts()[0])
        chain.visited.update(trigger for trigger, _ in drawn)
        rules = self._rules(chain)
        drawn = yield from within_bound(drawn, self._texts()[0], rules)
        ranked = yield from race(drawn, self._batch(), rules, "start")
        first, *_ = yield from weighed(ranked, self._texts(), rules)
        chain.trigger, chain.prompt, chain.stale = first.trigger, first.prompt, 0
        chain.measured = False
        yield from self._measure(chain)

    def _step(self, chain: _Chain) -> Play:
        assert chain.trigger is not None
        assert chain.prompt is not None
        examples = self._batch()
        place = list(chain.trigger.places())[chain.board.rng.integers(len(chain.trigger))]
        changes = yield from self._changes(chain, examples, place)
        likely = yield from self._likely(chain)
        candidates = self._candidates(chain, changes, likely, place)
        if not candidates:
            chain.stale += 1
        else:
            if self.fresh:
                examples = self._batch()
            rules = self._rules(chain)
            chain.visited.update(trigger for trigger, _ in candidates)
            # where the current trigger does not read well enough, the best that reads better is taken
            runners = yield from within_bound(
                [(chain.trigger, chain.prompt), *candidates], self._texts()[0], rules
            )
            ranked = yield from race(runners, examples, rules, "step")
            if self.merge > 1:
                ranked = yield from self._together(chain, ranked, examples, rules)
            ranked = yield from weighed(ranked, self._texts(), rules)
            best = ranked[0]
            if self.accept == "always":
                best = next((each for each in ranked if each.trigger != chain.trigger), best)
            lowest = min(chain.lowest, next((e.cost for e in ranked if e.trigger == chain.trigger), math.inf))
            slow = math.isfinite(lowest) and best.cost > lowest - SLOW * abs(lowest)
            chain.stale = chain.stale + 1 if slow else 0
            chain.lowest = min(lowest, best.cost)
            if best.trigger != chain.trigger:
                chain.trigger, chain.prompt = best.trigger, best.prompt
                chain.measured = False
        if not chain.measured:
            yield from self._measure(chain)
        if chain.stale >= self.patience:
            chain.trigger, chain.momentum, chain.lowest = None, {}, math.inf

    def _rules(self, chain: _Chain) -> Rules:
        bound = None if chain.beside else self.max_perplexity
        weight = 0.0 if chain.beside else self.fluency
        objective = self.objective if chain.board.base.words else "loss"
        return Rules(objective, self.race, chain.beside, weight, bound, self.judge)

    def _batch(self) -> tuple[Example, ...]:
        """Examples of train, of select where there are none, the targets in nearly the proportions of the whole."""
        pool = self._setting.train or self._setting.select
        order = stratified_order(pool, self._setting.rng)
        return tuple(pool[index] for index in order[: self.batch])

    def _changes(
        self, chain: _Chain, examples: tuple[Example, ...], place: tuple[str, int]
    ) -> Generator[Sequence[Ask], Sequence[Answer], Changes]:
        """The first-order estimates at the trigger; with ``average``, over random tokens at one position."""
        assert chain.trigger is not None
        assert chain.prompt is not None
        board = chain.board
        prompts = [chain.prompt]
        if self.average:
            tokens = board.rng.choice(np.flatnonzero(board.allowed[place[0]]), self.average)
            others = (chain.trigger.swapped(*place, int(token)) for token in tokens)
            prompts = [prompt for _, prompt in board.standing(others)] or prompts
        # in one order, so that the gradient of the same examples is asked for, and paid, once
        ordered = tuple(sorted(examples, key=lambda each: each.id))
        questions = [asks_.Gradient(prompt, ordered, self.among_answers) for prompt in prompts]
        answers = yield questions
        slopes = [each for each in answers if isinstance(each, Slope) and not each.problem]
        changes: dict[str, Estimates] = {}
        for name, ids in chain.trigger.slots:
            rows = [each.changes[name] for each in slopes if len(each.ids.get(name, ())) == len(ids)]
            if not rows:
                continue
            changes[name] = np.mean(rows, axis=0) if len(rows) > 1 else rows[0]
            old = chain.momentum.get(name)
            if self.momentum and old is not None and old.shape == changes[name].shape:
                changes[name] = self.momentum * old + (1 - self.momentum) * changes[name]
        chain.momentum = changes if self.momentum else {}
        return changes

    def _likely(
        self, chain: _Chain
    ) -> Generator[Sequence[Ask], Sequence[Answer], dict[str, tuple[tuple[int, ...], ...]]]:
        """What the model expects at the trigger's places; nothing where it cannot say."""
        if not self.proposals or chain.prompt is None:
            return {}
        (answer,) = yield [Fluency(chain.prompt, self._texts()[:1], likely=LIKELY, note="proposals")]
        assert isinstance(answer, Fluent)
        return {} if answer.problem else dict(answer.likely)

    def _candidates(
        self,
        chain: _Chain,
        changes: Changes,
        likely: dict[str, tuple[tuple[int, ...], ...]],
        place: tuple[str, int],
    ) -> list[tuple[Trigger, Prompt]]:
        """New triggers that are read back as they are; the search widens where too few of them are."""
        assert chain.trigger is not None
        board, width = chain.board, self._width()
        places = [place] if self.positions == "one" else list(chain.trigger.places())
        found: list[tuple[Trigger, Prompt]] = []
        for widening in (1, 4, 16):
            gradient = by_gradient(
                board,
                chain.trigger,
                changes,
                places=[each for each in places if each[0] in changes],
                top_k=widening * self.top_k,
                greedy=self.greedy,
                distance=self.distance,
            )
            share = 1 - self.proposals * bool(likely) - self.edits
            source = mixed(
                [
                    (share, gradient),
                    (self.proposals, by_model(board, chain.trigger, likely)),
                    (self.edits, edits(board, chain.trigger)),
                ]
            )
            found += board.fresh(source, chain.visited, width - len(found))
            if len(found) >= width // 2:
                break
        return found or [each for each in board.drawn(width) if each[0] not in chain.visited]

    def _width(self) -> int:
        """Candidates a step: as set, or as many as leave the budget ten steps."""
        calls = self._setting.calls
        if calls is None:
            return self.width
        examples = min(self.batch, len(self._setting.train or self._setting.select))
        return max(4, min(self.width, calls // (10 * examples)))

    def _together(
        self, chain: _Chain, ranked: list[Finisher], examples: tuple[Example, ...], rules: Rules
    ) -> Race:
        """The ranking with the best substitutions put together added to it."""
        assert chain.trigger is not None
        current = next((each.cost for each in ranked if each.trigger == chain.trigger), math.inf)
        better = [each.trigger for each in ranked[: self.merge] if each.cost < current]
        new = chain.board.fresh(merged(chain.trigger, better), chain.visited, self.merge)
        if not new:
            return ranked
        chain.visited.update(trigger for trigger, _ in new)
        more = yield from race(new, examples, rules, "together")
        return sorted([*ranked, *more], key=lambda each: each.cost)

    def _measure(self, chain: _Chain) -> Play:
        """Measure where the chain stands on select, and how it reads.

        While it gets better at every step, no more than a third of all calls goes there; where it rests it is measured
        in any case.
        """
        assert chain.trigger is not None
        assert chain.prompt is not None
        select = self._setting.select
        dear = 3 * (self._on_select + len(select)) > self._spent
        if chain.best is not None and dear and not chain.stale:
            return
        chain.measured = True
        beside = chain.beside
        (read,) = yield [Fluency(chain.prompt, self._texts(), judge=self.judge)]
        assert isinstance(read, Fluent)
        if self.max_perplexity is not None:
            beside = beside or not read.perplexity <= self.max_perplexity
        (scored,) = yield [Score(chain.prompt, select, note="select", beside=beside)]
        assert isinstance(scored, Scored)
        if chain.best is None or scored.merit > chain.best[0]:
            chain.best = scored.merit, chain.trigger

    def _texts(self) -> tuple[Example, ...]:
        return (self._setting.train or self._setting.select)[:FLUENCY_TEXTS]
