"""Racing: candidates that are shown to be no better than the best prompt so far are not measured any further.

A wave of candidates meets the same examples in the same order, block by block. After each block a candidate is
compared with the incumbent (the best prompt measured on all examples so far, at first the seed prompt), and
drops out when it is shown to be worse, or when it could not catch up even by winning every example that is
left. Whoever stays is measured on all N examples, so winners are compared over the same N and nothing else.

Why the level holds. ``method="evalue"`` bets against "on all N examples the candidate scores at least what the
incumbent does" (``comparing/evidence.py``). What the incumbent scores is known; the order in which a candidate meets the
examples is drawn uniformly, and anew for every wave, so that it is independent of all answers that made the
incumbent the incumbent and the candidate a candidate. So the chance that the wealth ever reaches 1/alpha while
that is true is at most alpha, however often one looks: a prompt that is at least as good as the incumbent it
meets is lost with probability at most alpha. A candidate faces one incumbent only, the one of the start of its
wave, so alpha is spent once per candidate. That holds for the best prompt of the space too (it is one
candidate), so nothing has to be split over the number of candidates. It is about the N examples: a prompt that
is better in truth and worse on the N would not have been chosen by measuring it whole either.

Measured on real score matrices (``python -m tests.benchmarks racing``, its README): the same test score for a
quarter (N = 32) to two fifths (N = 128) fewer calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from autoprompt.asks import Answer, Ask, Floats, Score, Scored, price
from autoprompt.errors import InputError, nearest
from autoprompt.strategies import Setting, Strategy
from autoprompt.strategies.comparing.evidence import expected_scores, log_wealth, signed_rank_p
from autoprompt.strategies.tpe import TPE, comparable
from autoprompt.task import Example

METHODS = ("evalue", "wilcoxon", "halving")
SMALLEST_BLOCK = 4


@dataclass
class _Racer:
    """A candidate on its way through the blocks.

    Attributes:
        ask: the inner strategy's question, on all N examples.
        scores: [N] measured scores in the order of the examples asked for; NaN where not measured or missing.
        losses: [N] nats, likewise.
        seen: [N] whether the example was asked.
        alive: whether it is still measured.
    """

    ask: Ask
    scores: Floats
    losses: Floats
    seen: npt.NDArray[np.bool_]
    predictions: list[str | None]
    tokens: float = 0.0
    alive: bool = True


@dataclass(kw_only=True)
class Racing(Strategy):
    """Wraps a strategy and stops measuring candidates that are shown to be no better than the best so far.

    The inner strategy is told answers of full length: measured scores where measured, elsewhere the
    incumbent's, scaled by how the candidate did against it so far (``Scored.imputed`` counts them). So it
    never compares means over different examples, and a prompt that failed at once does not look like one
    that nearly made it. Only questions about all select examples are raced; all others pass through.

    Attributes:
        inner: the strategy whose candidates race.
        method: ``evalue`` (anytime-valid, the default), ``wilcoxon`` (signed-rank test at every look, so
            its error grows with the number of looks), ``halving`` (the cheap preset: only the best 1/eta of
            a round goes on to eta times as many examples; three of four good candidates are lost,
            but one per round finishes).
        alpha: chance of dropping a candidate that is at least as good as the incumbent.
        margin: score by which a candidate must be better than the incumbent, on the N examples, to be worth
            measuring; alpha is then the chance of dropping one that is. For ``evalue``.
        block: examples between two looks; None for N/16, at least 4. Not used by halving.
        eta: how strongly halving cuts.
        wave: candidates of a round that race at once; the next ones meet what the earlier ones left as
            incumbent, so smaller waves save calls and larger ones fill more workers. Halving races the
            round as a whole.
    """

    inner: Strategy = field(default_factory=TPE)
    method: Literal["evalue", "wilcoxon", "halving"] = "evalue"
    alpha: float = 0.1
    margin: float = 0.0
    block: int | None = None
    eta: int = 2
    wave: int = 4
    _setting: Setting = field(init=False, repr=False, compare=False)
    _rng: np.random.Generator = field(init=False, repr=False, compare=False)
    _order: list[int] = field(init=False, repr=False, compare=False)
    _incumbent: Scored = field(init=False, repr=False, compare=False)
    _complete: list[Scored] = field(init=False, repr=False, compare=False)
    _expected: Floats = field(init=False, repr=False, compare=False)
    _asks: list[Ask] = field(init=False, repr=False, compare=False)
    _done: dict[int, Answer] = field(init=False, repr=False, compare=False)
    _waiting: list[int] = field(init=False, repr=False, compare=False)
    _racers: dict[int, _Racer] = field(init=False, repr=False, compare=False)
    _ends: list[int] = field(init=False, repr=False, compare=False)
    _lap: int = field(init=False, repr=False, compare=False)
    _sent: list[int] = field(init=False, repr=False, compare=False)
    _left: int | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.method not in METHODS:
            raise InputError(
                f"racing: no method {self.method!r}{nearest(str(self.method), METHODS)}; "
                f"methods: {', '.join(METHODS)}"
            )
        if not 0 < self.alpha < 1:
            raise InputError(f"racing: alpha must be between 0 and 1 (got {self.alpha!r})")
        if not 0 <= self.margin < 1:
            raise InputError(f"racing: margin must be at least 0 and below 1 (got {self.margin!r})")
        if self.block is not None and self.block < 1:
            raise InputError(f"racing: block must be at least 1 (got {self.block!r})")
        if self.wave < 1:
            raise InputError(f"racing: wave must be at least 1 (got {self.wave!r})")
        if self.eta < 2:
            raise InputError(f"racing: eta must be at least 2 (got {self.eta!r})")

    @property
    def note(self) -> str:
        """What the inner strategy chose."""
        return self.inner.note

    @property
    def inside(self) -> tuple[Strategy, ...]:
        """The inner strategy."""
        return (self.inner,)

    @property
    def writers(self) -> tuple[str, ...]:
        """Those of the inner strategy."""
        return self.inner.writers

    @property
    def findings(self) -> Mapping[str, Any]:
        """What the inner strategy found."""
        return self.inner.findings

    def begin(self, setting: Setting) -> None:
        """Start afresh; the seed prompt is the first incumbent."""
        self._setting = setting
        self._rng = np.random.default_rng(setting.rng.integers(2**63))
        self._incumbent = setting.seed_scored
        self._complete = [setting.seed_scored]
        self._asks = []
        self._left = setting.calls
        self.inner.begin(setting)

    def ask(self) -> list[Ask]:
        """Return the next block for every candidate that is still in the race, the most promising first."""
        if not self._asks:
            self._asks = list(self.inner.ask())
            if not self._asks:
                return []
            self._done = {}
            self._waiting = [index for index, ask in enumerate(self._asks) if self._is_raced(ask)]
            self._open_wave()
        start, end = self._bounds()
        whole = end == len(self._order)
        block = tuple(self._setting.select[index] for index in self._order[start:end])
        runners = sorted(
            (index for index, racer in self._racers.items() if racer.alive),
            key=lambda index: -_advantage(self._racers[index], self._incumbent),
        )
        others = [index for index, ask in enumerate(self._asks) if not self._is_raced(ask)]
        self._sent = [index for index in others if index not in self._done] + runners
        if self._left is not None:
            passed = sum(price(self._asks[index]) for index in self._sent if index not in self._racers)
            self._left -= len(runners) * len(block) + passed
        return [
            self._asks[index]
            if whole or index not in self._racers
            else Score(self._asks[index].prompt, block, note=f"block {self._lap + 1}")
            for index in self._sent
        ]

    def tell(self, asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
        """Take a block's answers, drop who is beaten, and end the round when nobody is left to measure."""
        for index, ask, answer in zip(self._sent, asks, answers, strict=False):
            if index in self._racers and isinstance(ask, Score) and isinstance(answer, Scored):
                self._take(self._racers[index], ask, answer)
            else:
                self._done[index] = answer
        if len(answers) < len(self._sent):  # the budget ended here
            self._waiting = []
            for index in self._sent[len(answers) :]:
                self._racers.pop(index, None)
        self._lap += 1
        if self._lap < len(self._ends):
            self._eliminate()
        if self._lap == len(self._ends) or not any(racer.alive for racer in self._racers.values()):
            self._close_wave()

    def _is_raced(self, ask: Ask) -> bool:
        # A metric over the set is no mean of blocks: such prompts are measured whole.
        return (
            isinstance(ask, Score)
            and self._setting.seed_scored.value is None
            and ask.examples == self._setting.select
            and not ask.repeat
        )

    def _open_wave(self) -> None:
        """Start the waiting candidates, no more than the calls that are left can measure whole."""
        size = len(self._setting.select)
        if self.method == "evalue":
            self._order = [int(index) for index in self._rng.permutation(size)]
            self._expected = expected_scores(self._complete)
        else:
            self._order = stratified_order(self._setting.select, self._rng)
        count = len(self._waiting) if self.method == "halving" else min(len(self._waiting), self.wave)
        if self._left is not None:
            count = max(1, min(count, self._left // max(1, size)))
        wave, self._waiting = self._waiting[:count], self._waiting[count:]
        self._racers = {
            index: _Racer(
                self._asks[index],
                np.full(size, np.nan),
                np.full(size, np.nan),
                np.zeros(size, bool),
                [None] * size,
            )
            for index in wave
        }
        self._lap = 0
        self._ends = self._laps(len(wave))

    def _laps(self, racers: int) -> list[int]:
        """Number of examples after each lap; the last is N."""
        size = len(self._setting.select)
        if self.method == "halving":
            rungs = int(math.log(max(1, racers), self.eta) + 1e-9)
            ends = [math.ceil(size / self.eta ** (rungs - rung)) for rung in range(rungs + 1)]
        else:
            block = self.block or max(SMALLEST_BLOCK, math.ceil(size / 16))
            ends = [*range(block, size, block), size]
        return sorted(set(ends))

    def _bounds(self) -> tuple[int, int]:
        return (self._ends[self._lap - 1] if self._lap else 0), self._ends[self._lap]

    def _take(self, racer: _Racer, ask: Score, answer: Scored) -> None:
        """Write a block's answer into the racer's full-length arrays."""
        start, end = self._bounds()
        whole = len(ask.examples) == len(self._order)
        places = np.arange(end) if whole else np.array(self._order[start:end])
        racer.scores[places] = answer.scores
        racer.losses[places] = answer.losses
        racer.tokens = answer.tokens
        for place, prediction in zip(places, answer.predictions, strict=False):
            racer.predictions[place] = prediction
        racer.seen[places] = True

    def _eliminate(self) -> None:
        """Drop the racers that are shown to be no better than the incumbent."""
        alive = [racer for racer in self._racers.values() if racer.alive]
        if self.method == "halving":
            alive.sort(key=lambda racer: _rank(racer, self._incumbent))
            for racer in alive[max(1, len(alive) // self.eta) :]:
                racer.alive = False
            return
        for racer in alive:
            hopeless = _best_possible(racer, self._incumbent) < 0
            racer.alive = not (hopeless or self._is_worse(racer))

    def _is_worse(self, racer: _Racer) -> bool:
        if self.method == "evalue":
            return self._log_wealth(racer) >= -math.log(self.alpha)
        differences = _differences(racer, self._incumbent, np.flatnonzero(racer.seen))
        return signed_rank_p(differences) <= self.alpha

    def _log_wealth(self, racer: _Racer) -> float:
        """Evidence that a racer does not reach the incumbent. Where an answer is missing the two count as equal."""
        order, seen = np.array(self._order), self._ends[self._lap - 1]
        incumbent = np.where(np.isnan(self._incumbent.scores), self._expected, self._incumbent.scores)
        reached = np.where(np.isnan(racer.scores - self._incumbent.scores), incumbent, racer.scores)
        total = float(incumbent.sum()) + self.margin * len(order)
        return log_wealth(reached[order[:seen]], self._expected[order], total)

    def _close_wave(self) -> None:
        """Let the best complete candidate become the incumbent; after the last wave tell the inner."""
        filled = {index: self._filled(racer) for index, racer in self._racers.items()}
        for scored in filled.values():
            if not scored.imputed:
                self._complete.append(scored)
                if _beats(scored, self._incumbent):
                    self._incumbent = scored
        self._done |= filled
        self._racers = {}
        if self._waiting:
            self._open_wave()
            return
        asks, self._asks = self._asks, []
        told = [index for index in range(len(asks)) if index in self._done]
        self.inner.tell([asks[index] for index in told], [self._done[index] for index in told])

    def _filled(self, racer: _Racer) -> Scored:
        """A racer's answer at full length, with the examples it never saw filled in from the incumbent."""
        unseen = ~racer.seen
        if not unseen.any():
            return Scored(racer.scores, racer.losses, tuple(racer.predictions), racer.tokens)
        scores, losses = racer.scores.copy(), racer.losses.copy()
        scores[unseen] = _scaled_scores(racer.scores, self._incumbent.scores)[unseen]
        losses[unseen] = _scaled_losses(racer.losses, self._incumbent.losses)[unseen]
        imputed = int(unseen.sum())
        return Scored(scores, losses, tuple(racer.predictions), racer.tokens, imputed=imputed)


def stratified_order(examples: Sequence[Example], rng: np.random.Generator) -> list[int]:
    """A random order in which every stretch holds the targets in nearly the proportions of the whole.

    Within a target the order is a random permutation; the i-th of its n examples gets the place (i + u)/n
    with its own u uniform in [0, 1), and all are sorted by place.
    """
    groups: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        groups.setdefault(example.target, []).append(index)
    places = np.empty(len(examples))
    for members in groups.values():
        shuffled = rng.permutation(np.array(members))
        places[shuffled] = (np.arange(len(members)) + rng.random(len(members))) / len(members)
    return [int(index) for index in np.argsort(places, kind="stable")]


def _differences(racer: _Racer, incumbent: Scored, places: npt.NDArray[np.int64]) -> Floats:
    """Candidate minus incumbent where both answers are there."""
    differences = racer.scores[places] - incumbent.scores[places]
    return differences[~np.isnan(differences)]


def _best_possible(racer: _Racer, incumbent: Scored) -> float:
    """Sum of differences over all examples if the candidate were right on every one it has not met."""
    scores = np.where(racer.seen, racer.scores, 1.0)
    return float(np.nansum(scores - incumbent.scores))


def _advantage(racer: _Racer, incumbent: Scored) -> float:
    """Mean difference so far; 0 where nothing is known."""
    differences = _differences(racer, incumbent, np.flatnonzero(racer.seen))
    return float(differences.mean()) if differences.size else 0.0


def _rank(racer: _Racer, incumbent: Scored) -> tuple[float, float]:
    """Sort key, best first: mean difference in score, then in loss, on the examples both have."""
    losses = racer.losses - incumbent.losses
    losses = losses[~np.isnan(losses)]
    return -_advantage(racer, incumbent), round(float(losses.mean()), 4) if losses.size else 0.0


def _beats(scored: Scored, incumbent: Scored) -> bool:
    """Whether a complete candidate is better on the examples for which both answers are there."""
    both = ~np.isnan(scored.scores) & ~np.isnan(incumbent.scores)
    if 2 * both.sum() < both.size:  # mostly missing: no ground for replacing the incumbent
        return False
    ours, theirs = (Scored(item.scores[both], item.losses[both]) for item in (scored, incumbent))
    return comparable(ours) > comparable(theirs)


def _scaled_scores(measured: Floats, incumbent: Floats) -> Floats:
    """[N] the incumbent's scores, scaled to the ratio the candidate had to it where both are known.

    Scaling towards 0 (or, for a candidate that leads, of the distance to 1) keeps scores in [0, 1] without
    clipping.
    """
    both = ~np.isnan(measured) & ~np.isnan(incumbent)
    filled: Floats = incumbent.copy()
    if both.any():
        ours, theirs = float(measured[both].mean()), float(incumbent[both].mean())
        if ours < theirs:
            filled = incumbent * (ours / theirs)
        elif theirs < 1:
            filled = 1 - (1 - incumbent) * ((1 - ours) / (1 - theirs))
    return filled


def _scaled_losses(measured: Floats, incumbent: Floats) -> Floats:
    """[N] the incumbent's losses, scaled likewise; losses are not negative."""
    both = ~np.isnan(measured) & ~np.isnan(incumbent)
    if not both.any() or incumbent[both].mean() <= 0:
        return incumbent
    filled: Floats = incumbent * float(measured[both].mean() / incumbent[both].mean())
    return filled
