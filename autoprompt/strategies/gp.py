"""GP: Bayesian optimization over the choices of a space: many prompts on a few examples each, then the likeliest on all.

What a Gaussian process learns about single choices and pairs of them it learns from all answers together, so it is
better to see many prompts on few examples than few on many. The first part of the calls goes to blocks of examples on
new prompts, those that draws from the process like best (Thompson sampling: Thompson 1933; Kandasamy et al. 2018). The
rest goes to the prompts that are expected to be the best, measured on all examples, since only such are compared in the
end.

What is modelled is the chance of the right answer, exp(-loss), which says in finer steps than right or wrong how good a
prompt is (the score where there are no losses), less what the prompts that were measured whole make of the same
examples: so it does not matter which block was hard.

The covariance (``evolving/surrogate.py``) knows distances between the texts of a slot and compares choices that come up
only sometimes where both prompts have them. No optuna: its own ``GPSampler`` (5.0) tells categories apart by yes and
no, and draws conditional choices at random.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from autoprompt.asks import Floats, Score, Scored
from autoprompt.errors import InputError
from autoprompt.prompt import Prompt
from autoprompt.strategies import Play, Played, Setting
from autoprompt.strategies.comparing.evidence import chances, expected_scores
from autoprompt.strategies.evolving.surrogate import Surrogate, draws
from autoprompt.strategies.racing import stratified_order
from autoprompt.strategies.random_search import Unseen

FEWEST = 4
"""Measured prompts below which the next ones are random."""
ROWS = 400
"""Prompts seen in part that are fitted; with more calls, blocks are larger."""


@dataclass(kw_only=True)
class GP(Played):
    """Measures what a Gaussian process over choices likes.

    Attributes:
        block: examples that a new prompt is seen on at first; 0: all, as where the budget is not in calls or the metric is
            one over the whole set.
        explore: share of the calls that goes to blocks.
        batch: prompts a round in that part; half as many in the other.
        pool: random prompts that a round is chosen from, beside single changes.
        parents: best prompts so far whose single changes are in the pool.
        boldness: how far a draw goes from what is expected, 1 for Thompson sampling, 0 for what is expected itself. Where
            the budget pays for some dozens of prompts, full draws look around for too long.
    """

    block: int = 8
    explore: float = 0.6
    batch: int = 8
    pool: int = 120
    parents: int = 4
    boldness: float = 0.5
    _pool: Pool = field(init=False, repr=False, compare=False)
    _parts: dict[str, tuple[Prompt, list[int], Scored]] = field(init=False, repr=False, compare=False)
    _whole: dict[str, tuple[Prompt, Scored]] = field(init=False, repr=False, compare=False)
    _process: Surrogate = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the fields."""
        for name, least in (("block", 0), ("batch", 2), ("pool", 2), ("parents", 0)):
            if getattr(self, name) < least:
                raise InputError(f"gp: {name} must be at least {least} (got {getattr(self, name)!r})")
        for name in ("explore", "boldness"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"gp: {name} must be between 0 and 1 (got {getattr(self, name)!r})")

    def _search(self) -> Play:
        setting = self._setting
        self._pool, self._process = Pool(setting, self.pool), Surrogate()
        self._parts = {}
        self._whole = {setting.seed_prompt.key: (setting.seed_prompt, setting.seed_scored)}
        yield from self._explored()
        boldness = 0.0 if self._parts else self.boldness
        while chosen := self._chosen(self.batch // 2, boldness, set(self._whole)):
            answers = yield [Score(prompt, setting.select, note="whole") for prompt in chosen]
            for prompt, answer in zip(chosen, answers, strict=True):
                assert isinstance(answer, Scored)
                self._whole[prompt.key] = (prompt, answer)

    def _explored(self) -> Play:
        """Blocks of examples on new prompts, for their share of the calls, and so that one can be measured whole."""
        setting, size = self._setting, len(self._setting.select)
        if not self.block or setting.calls is None or setting.seed_scored.value is not None:
            return
        left = min(int(self.explore * setting.calls), setting.calls - size)
        block = max(self.block, math.ceil(left / ROWS))
        waiting: list[int] = []
        while 2 * block <= size and left >= self.batch * block:
            if len(waiting) < block:  # every example has been met: once more, in another order
                waiting = stratified_order(setting.select, setting.rng)
            met, waiting = waiting[:block], waiting[block:]
            chosen = self._chosen(self.batch, self.boldness, {*self._whole, *self._parts})
            if not chosen:
                return
            left -= len(chosen) * block
            examples = tuple(setting.select[place] for place in met)
            answers = yield [Score(prompt, examples, note="block") for prompt in chosen]
            for prompt, answer in zip(chosen, answers, strict=True):
                assert isinstance(answer, Scored)
                self._parts[prompt.key] = (prompt, met, answer)

    def _chosen(self, count: int, boldness: float, seen: set[str]) -> list[Prompt]:
        """The next prompts, none of them seen; fewer where the space is used up."""
        rows, values, weights = self._measured()
        order = np.argsort(-values, kind="stable")[: self.parents]
        self._pool.add([prompt for key, (prompt, _, _) in self._parts.items() if key not in self._whole])
        pool = self._pool.prompts([rows[place] for place in order], seen)
        if len(pool) <= count or len(rows) < FEWEST:
            return pool[:count]
        self._process.take(rows, values, weights)
        expected, spread = self._process.posterior(pool)
        self._pool.keep([pool[place] for place in np.argsort(-expected, kind="stable")])
        if not boldness:
            return [pool[place] for place in np.argsort(-expected, kind="stable")[:count]]
        places: list[int] = []
        for drawn in draws(expected, spread, count, self._setting.rng):
            likes = np.argsort(-(expected + boldness * (drawn - expected)), kind="stable")
            places.append(next(int(place) for place in likes if place not in places))
        return [pool[place] for place in places]

    def _measured(self) -> tuple[list[Prompt], Floats, Floats]:
        """[P] prompts, what each is worth, and the share of the examples that says so."""
        usual = expected_scores([answer for _, answer in self._whole.values()])
        every = [(prompt, np.arange(len(usual)), answer) for prompt, answer in self._whole.values()]
        every += [
            (prompt, np.array(met), answer)
            for key, (prompt, met, answer) in self._parts.items()
            if key not in self._whole
        ]
        rows, values, weights = [], [], []
        for prompt, met, answer in every:
            gains = chances(answer) - usual[met]
            present = gains[~np.isnan(gains)]
            if present.size:
                rows.append(prompt)
                values.append(float(present.mean() + usual.mean()))
                weights.append(present.size / len(usual))
        return rows, np.array(values), np.array(weights)


class Pool:
    """Prompts of a space to choose from: random ones, single changes of good ones, what was liked before.

    Args:
        setting: space and rng.
        size: how many random ones there are, at first; then at least an eighth of it are new in every round.
    """

    def __init__(self, setting: Setting, size: int) -> None:
        self._space, self._rng, self._size = setting.space, setting.rng, size
        affordable = None if setting.calls is None else setting.calls / max(1, len(setting.select))
        self._unseen = Unseen(setting.space, setting.rng, {setting.seed_prompt.key}, affordable)
        self._changed: set[str] = set()
        self._waiting: dict[str, Prompt] = {}
        self._reserve: dict[str, Prompt] = {}

    def add(self, prompts: Sequence[Prompt]) -> None:
        """These may be chosen."""
        for prompt in prompts:
            self._waiting[prompt.key] = prompt

    def prompts(self, parents: Sequence[Prompt], seen: set[str]) -> list[Prompt]:
        """What may be chosen now: new changes of these prompts, random ones, and what is left, but for what was seen."""
        for parent in parents:
            if parent.key not in self._changed:
                self._changed.add(parent.key)
                self.add(self._space.neighbours(parent, self._rng, self._size // 4))
        left = sum(key not in seen for key in self._waiting)
        wanted = max(self._size // 8, self._size - left)
        fresh = self._unseen.take(wanted)
        reserve = [prompt for key, prompt in self._reserve.items() if key not in seen]
        self.add([*fresh, *reserve[: wanted - len(fresh)]])
        return [prompt for key, prompt in self._waiting.items() if key not in seen]

    def keep(self, ranked: Sequence[Prompt]) -> None:
        """The first half stays for the next round; the rest comes back when nothing else is left."""
        kept = ranked[: self._size // 2]
        self._reserve |= {prompt.key: prompt for prompt in ranked[len(kept) :]}
        self._waiting = {prompt.key: prompt for prompt in kept}
        for key in self._waiting:
            self._reserve.pop(key, None)
