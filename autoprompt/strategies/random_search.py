"""Random search: distinct prompts drawn from the space, and every prompt of it where the space is small.

The control that every other strategy has to beat, and the best choice when the budget pays for a few
prompts only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from autoprompt.asks import Answer, Ask, Score
from autoprompt.errors import InputError
from autoprompt.prompt import Prompt
from autoprompt.space import RandomChooser, SearchSpace
from autoprompt.strategies import Setting, Strategy
from autoprompt.strategies.tokensearch.board import Board

PATIENCE = 200
"""Draws in a row that bring nothing new before the space is taken to be (almost) used up."""
SHUFFLED = 20_000
"""Spaces up to this size are listed and shuffled; larger ones are listed in their own order."""
LISTED = 200_000
"""Combinations looked at when a large space is listed because draws bring nothing new."""


class Unseen:
    """Hands out prompts of a space, each key once: by drawing, or by listing where draws would repeat.

    Args:
        space: where the prompts come from.
        rng: the only source of chance.
        seen: keys never to hand out; the caller may add to it.
        affordable: number of prompts the budget pays for; a space no larger is listed at once. None: unknown.
    """

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        seen: set[str],
        affordable: float | None = None,
    ) -> None:
        """See the class."""
        self._space = space
        self._rng = rng
        self._chooser = RandomChooser(rng)
        self._seen = seen
        self._listing: Iterator[Prompt] | None = None
        if affordable is not None and space.size() <= min(affordable, SHUFFLED):
            self._listing = self._list()

    def take(self, count: int) -> list[Prompt]:
        """Up to ``count`` new prompts; fewer (or none) when the space is used up."""
        taken: list[Prompt] = []
        while len(taken) < count:
            prompt = self._next()
            if prompt is None:
                break
            taken.append(prompt)
        return taken

    def _next(self) -> Prompt | None:
        for _ in range(PATIENCE if self._listing is None else 0):
            prompt = self._space.draw(self._chooser)
            if prompt is not None and self._claim(prompt):
                return prompt
        if self._listing is None:
            self._listing = self._list()
        return next((prompt for prompt in self._listing if self._claim(prompt)), None)

    def _claim(self, prompt: Prompt) -> bool:
        if prompt.key in self._seen:
            return False
        self._seen.add(prompt.key)
        return True

    def _list(self) -> Iterator[Prompt]:
        if self._space.size() > SHUFFLED:
            return self._space.enumerate(most=LISTED)
        prompts = list(self._space.enumerate())
        return iter([prompts[index] for index in self._rng.permutation(len(prompts))])


@dataclass(kw_only=True)
class RandomSearch(Strategy):
    """Rounds of ``batch`` distinct random prompts, all scored on the same examples.

    Ends by itself when the space is used up.

    Attributes:
        batch: prompts a round.
    """

    batch: int = 8
    _unseen: Unseen = field(init=False, repr=False, compare=False)
    _setting: Setting = field(init=False, repr=False, compare=False)
    _board: Board | None = field(init=False, repr=False, compare=False)
    _seen: set[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.batch < 1:
            raise InputError(f"random_search: batch must be at least 1 (got {self.batch!r})")

    def begin(self, setting: Setting) -> None:
        """Start afresh."""
        affordable = None if setting.calls is None else setting.calls / max(1, len(setting.select))
        self._setting = setting
        self._seen = {setting.seed_prompt.key}
        self._unseen = Unseen(setting.space, setting.rng, self._seen, affordable)
        # without the model's vocabulary token slots stay as they are
        tokens = setting.space.spec.token_slots and setting.vocabulary is not None
        self._board = Board(setting) if tokens else None

    def ask(self) -> list[Score]:
        """Return the next prompts; none when the space is used up."""
        prompts = self._unseen.take(self.batch) if self._board is None else self._with_tokens(self._board)
        return [Score(prompt, self._setting.select, note="random") for prompt in prompts]

    def _with_tokens(self, board: Board) -> list[Prompt]:
        """New prompts with drawn tokens in their token slots, every allowed token alike."""
        space, chooser = self._setting.space, RandomChooser(self._setting.rng)
        found: dict[str, Prompt] = {}
        for trigger, prompt in board.drawn(self.batch):
            texts = {name: board.vocabulary.text(ids) for name, ids in trigger.slots}
            drawn = prompt if space.size() <= 1 else space.draw(chooser, texts)
            if drawn is not None and drawn.key not in self._seen:
                found.setdefault(drawn.key, drawn)
        self._seen |= found.keys()
        return list(found.values())

    def tell(self, asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
        """Nothing to learn: the next draw does not depend on the answers."""
