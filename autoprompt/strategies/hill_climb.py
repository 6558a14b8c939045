"""Hill climbing: several changed copies of one prompt a round, the best of which takes its place if it is better.

With ``heat`` above 0 it is simulated annealing: a worse copy takes the place with a chance that falls as the calls are
spent. When nothing better comes for some rounds, it begins again, at a prompt drawn from the space or where it began. The
best prompt of all is the result, whatever stands at the end.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

from autoprompt.asks import Answer, Ask, Score, Scored
from autoprompt.errors import InputError
from autoprompt.prompt import Prompt
from autoprompt.space import FixedChooser
from autoprompt.strategies import Play, Played
from autoprompt.strategies.evolving.breeding import Bred, Breeder
from autoprompt.strategies.evolving.fitness import Fitness

CHANGES = ("option", "edit", "demonstrations")
Rated = tuple[Prompt, tuple[float, float]]
"""A prompt and its fitness."""


@dataclass(kw_only=True)
class HillClimb(Played):
    """Climbs in the space around a prompt.

    Attributes:
        candidates: changed copies a round.
        compose: changes a copy has.
        patience: rounds in a row without anything better after which it begins again.
        restart: ``random``: at a drawn prompt; ``start``: where it began, with other draws.
        heat: score by which a copy may be worse and still have a chance of 1/e of taking the place, at the start; it falls
            linearly to 0 over the calls (over 100 rounds where the budget is in other units). 0: never.
        entropy: worth of an even use of all labels, in units of the score.
        balanced: whether the score is the mean over labels of the share that is right.
        changes: which kinds of changes are made: ``option``, ``edit``, ``demonstrations``.
    """

    candidates: int = 6
    compose: int = 1
    patience: int = 3
    restart: Literal["random", "start"] = "random"
    heat: float = 0.0
    entropy: float = 0.0
    balanced: bool = False
    changes: tuple[str, ...] = CHANGES

    def __post_init__(self) -> None:
        """Check the fields."""
        for name, given in (
            ("candidates", self.candidates),
            ("compose", self.compose),
            ("patience", self.patience),
        ):
            if given < 1:
                raise InputError(f"{self.describe()['strategy']}: {name} must be at least 1 (got {given!r})")
        if self.heat < 0 or self.entropy < 0:
            raise InputError(
                f"{self.describe()['strategy']}: heat and entropy must not be below 0 (got {self.heat!r}, {self.entropy!r})"
            )
        unknown = [name for name in self.changes if name not in CHANGES]
        if unknown or not self.changes or self.restart not in ("random", "start"):
            raise InputError(
                f"{self.describe()['strategy']}: changes are {', '.join(CHANGES)}, restart is random or start "
                f"(got {', '.join(self.changes) or 'none'}, {self.restart!r})"
            )

    def _search(self) -> Play:
        setting = self._setting
        breeder = Breeder(
            setting.space, setting.train, setting.rng, {setting.seed_prompt.key}, only=self.changes
        )
        start = here = yield from self._start(breeder)
        idle = rounds = 0
        while True:
            rounds += 1
            rated = yield from self._rated(self._copies(breeder, here[0]), breeder)
            best = max(rated, key=lambda each: each[1], default=None)
            if best is not None and (best[1] > here[1] or self._slips(best, here, rounds)):
                idle = 0 if best[1] > here[1] else idle + 1
                here = best
            else:
                idle += 1
            if best is None or idle >= self.patience:
                idle = 0
                again = None if self.restart == "start" else breeder.drawn()
                if again is None and best is None and here[0].key == start[0].key:
                    return  # nothing new around the start, and nothing new to be drawn
                if again is None:
                    here = start
                else:
                    (here,) = yield from self._rated([("restart", again)], breeder)

    def _start(self, breeder: Breeder) -> Generator[Sequence[Ask], Sequence[Answer], Rated]:
        """The seed prompt where it is of the space, as what an earlier stage of a chain found; else the space's default.
        Where nothing but edits is made and it holds no text to edit, the same with the first texts that may be edited.
        """
        setting = self._setting
        seed = setting.seed_prompt, self._fitness(setting.seed_scored)
        start, why = (
            (setting.seed_prompt, "") if setting.seed_prompt.choices else (setting.space.default(), "default")
        )
        if self.changes == ("edit",) and not breeder.editable(start):
            start, why = self._written(breeder, start), "texts to edit"
        new = breeder.claim(start) if why else None
        if new is None:
            return seed
        (rated,) = yield from self._rated([(why, new)], breeder)
        return rated

    def _written(self, breeder: Breeder, start: Prompt) -> Prompt:
        """The prompt with the first text in every slot whose texts may be edited.

        Raises:
            InputError: there is none.
        """
        space = self._setting.space
        texts = {
            name: text
            for name, slot in space.slots.items()
            if slot.edit is not None and (text := next(filter(str.strip, slot.texts()), ""))
        }
        decisions = {**space.decisions(start.choices), **texts}
        found = space.draw(FixedChooser(decisions), space.given(start.choices))
        if found is None or not breeder.editable(found):
            raise InputError(
                f"{self.describe()['strategy']}: no slot of the space may be edited",
                hint="add edit: {} to a slot with one_of, or give space=edit_space(task)",
            )
        return found

    def _copies(self, breeder: Breeder, prompt: Prompt) -> list[Bred]:
        made = (breeder.mutated(prompt, self.compose) for _ in range(self.candidates))
        return [each for each in made if each is not None]

    def _rated(
        self, bred: Sequence[Bred], breeder: Breeder
    ) -> Generator[Sequence[Ask], Sequence[Answer], list[Rated]]:
        if not bred:
            return []
        breeder.settle([prompt for _, prompt in bred])
        answers = yield [Score(prompt, self._setting.select, note=note) for note, prompt in bred]
        return [
            (prompt, self._fitness(answer))
            for (_, prompt), answer in zip(bred, answers, strict=True)
            if isinstance(answer, Scored)
        ]

    def _fitness(self, answer: Scored) -> tuple[float, float]:
        task = self._setting.space.task
        labels = task.labels if task is not None else ()
        return Fitness(labels, self.entropy, self.balanced).of(answer, self._setting.select)

    def _slips(self, best: Rated, here: Rated, rounds: int) -> bool:
        """Whether a prompt that is no better takes the place all the same (Metropolis et al. 1953)."""
        if not self.heat or not math.isfinite(best[1][0]):
            return False
        calls = self._setting.calls
        left = 1 - (self._spent / max(1, calls) if calls is not None else rounds / 100)
        loss = here[1][0] - best[1][0]
        return left > 0 and self._setting.rng.random() < math.exp(-max(0.0, loss) / (self.heat * left))
