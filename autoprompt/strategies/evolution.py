"""Evolution: a population of prompts that are crossed slot by slot and changed bit by bit, the best of which live on.

Every slot kind is moved: options, texts by local edits, demonstrations (which, how many, in what order), label words, the
order of sections. Nothing needs a model that writes. ``method="ga"`` crosses two parents and mutates the child (EvoPrompt,
Guo et al. 2024, algorithm 2); ``"de"`` moves each member by what tells two others apart (its algorithm 3). Both with
operators on slots in place of EvoPrompt's language model, so that every child is a prompt of the space.

With ``screen`` above 1 so many children are bred for each that is measured, and a Gaussian process over the choices of all
prompts so far (``evolving/surrogate.py``) draws which ones.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from autoprompt.asks import Answer, Ask, Score, Scored
from autoprompt.errors import InputError, nearest
from autoprompt.prompt import Prompt
from autoprompt.strategies import Play, Played
from autoprompt.strategies.evolving.breeding import Bred, Breeder
from autoprompt.strategies.evolving.fills import fills
from autoprompt.strategies.evolving.fitness import Fitness, survivors
from autoprompt.strategies.evolving.reading import perplexities
from autoprompt.strategies.evolving.surrogate import Surrogate, draws
from autoprompt.strategies.random_search import Unseen

METHODS = ("ga", "de")
OBJECTIVES = ("score", "tokens", "perplexity")
LOSS_COUNTS = 0.3
"""What a nat of loss is worth beside a score. On three real score matrices (bundled:masked, 40 prompts x 320 rows) a prompt
chosen on 32 rows by score less 0.3 times loss was 0.1 to 0.2 points better on the rest than one chosen by score."""
BOLDNESS = 0.5
"""How far draws of the surrogate lie from what it expects. On planted tasks (12 seeds) 0.3 and 1 did alike at 100 prompts,
and 0.3 better at 25."""


@dataclass(frozen=True)
class Member:
    """A measured prompt. ``perplexity``: of its own words, 1 where that is no objective."""

    prompt: Prompt
    answer: Scored
    worth: float
    perplexity: float = 1.0


@dataclass(kw_only=True)
class Evolution(Played):
    """Breeds prompts.

    Attributes:
        population: members that live on; as many random ones (the seed prompt and the space's default among them) are
            measured first.
        batch: children a round.
        method: ``ga`` or ``de``.
        crossing: chance that a child has two parents.
        tournament: members that a parent is the best of (EvoPrompt's table 5 tries roulette, random and tournament).
        entropy: worth of an even use of all labels, in units of the score (see ``Fitness``).
        objectives: ``score`` alone, or with ``tokens``, ``perplexity`` or both beside it: then members live on by fronts
            (NSGA-II, Deb et al. 2002), so that short prompts, and such that read well, are bred too.
        judge: the model whose perplexity counts, by name; empty: the one that is prompted.
        read_with: training examples that a prompt's words are read with for it.
        screen: children bred for each that is measured; 1: none are screened.
        fills: words that the model expects in place of each word of an edited text; 0: it is not asked.
        fill_examples: training examples that it is asked on.
    """

    population: int = 12
    batch: int = 4
    method: Literal["ga", "de"] = "ga"
    crossing: float = 0.6
    tournament: int = 3
    entropy: float = 0.0
    objectives: tuple[str, ...] = ("score",)
    judge: str = ""
    read_with: int = 2
    screen: int = 12
    fills: int = 4
    fill_examples: int = 4
    _members: list[Member] = field(init=False, repr=False, compare=False)
    _surrogate: Surrogate = field(init=False, repr=False, compare=False)
    _unread: str = field(init=False, repr=False, compare=False, default="")

    @property
    def findings(self) -> Mapping[str, Any]:
        """Why prompts could not be read, where some could not."""
        return {"unread": self._unread, "report": f"unread    {self._unread}"} if self._unread else {}

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.method not in METHODS:
            raise InputError(
                f"evolution: no method {self.method!r}{nearest(str(self.method), METHODS)}; methods: {', '.join(METHODS)}"
            )
        for name, least in (
            ("population", 4),
            ("batch", 1),
            ("tournament", 1),
            ("screen", 1),
            ("fills", 0),
            ("fill_examples", 1),
            ("read_with", 1),
        ):
            if getattr(self, name) < least:
                raise InputError(f"evolution: {name} must be at least {least} (got {getattr(self, name)!r})")
        if not 0 <= self.crossing <= 1 or self.entropy < 0:
            raise InputError(
                "evolution: crossing must be between 0 and 1, entropy not below 0 "
                f"(got {self.crossing!r}, {self.entropy!r})"
            )
        unknown = [name for name in self.objectives if name not in OBJECTIVES]
        if unknown or "score" not in self.objectives:
            raise InputError(
                "evolution: objectives are score, and tokens and perplexity beside it "
                f"(got {', '.join(self.objectives) or 'none'})"
            )

    def _search(self) -> Play:
        setting = self._setting
        breeder = Breeder(setting.space, setting.train, setting.rng, {setting.seed_prompt.key})
        affordable = None if setting.calls is None else setting.calls / max(1, len(setting.select))
        unseen = Unseen(setting.space, setting.rng, breeder.seen, affordable)
        self._surrogate, self._members, self._unread = Surrogate(), [], ""
        default = setting.space.default()
        first: list[Bred] = []
        if default.key == setting.seed_prompt.key:
            self._enter(default, setting.seed_scored)
        elif setting.seed_prompt.choices:  # found by another strategy; the manual prompt is of no space
            self._enter(setting.seed_prompt, setting.seed_scored)
        read = yield from self._read([member.prompt for member in self._members])
        self._members = [
            dataclasses.replace(member, perplexity=value)
            for member, value in zip(self._members, read, strict=True)
        ]
        if breeder.claim(default) is not None:
            first.append(("default", default))
        breeder.settle([prompt for _, prompt in first])
        first += [("random", prompt) for prompt in unseen.take(self.population - 1 - len(first))]
        yield from self._measure(first)
        asked_about = ""
        while True:
            best = self._best()
            if self.fills and best is not None and best.prompt.key != asked_about:
                asked_about = best.prompt.key
                if any("replace" in rules.ops for _, rules in breeder.editable(best.prompt).values()):
                    breeder.fills = yield from fills(setting, best.prompt, self.fill_examples, self.fills)
            children = self._chosen(self._bred(breeder))
            breeder.settle([prompt for _, prompt in children])
            children += [("random", prompt) for prompt in unseen.take(self.batch - len(children))]
            if not children:
                return
            yield from self._measure(children)
            self._select()

    def _measure(self, bred: Sequence[Bred]) -> Generator[Sequence[Ask], Sequence[Answer], None]:
        if not bred:
            return
        asks = [Score(prompt, self._setting.select, note=note) for note, prompt in bred]
        answers = yield asks
        read = yield from self._read([prompt for _, prompt in bred])
        for ask, answer, perplexity in zip(asks, answers, read, strict=True):
            assert isinstance(answer, Scored)
            self._enter(ask.prompt, answer, perplexity)

    def _read(self, prompts: Sequence[Prompt]) -> Generator[Sequence[Ask], Sequence[Answer], list[float]]:
        """Their perplexities, where these count."""
        if "perplexity" not in self.objectives or not prompts:
            return [1.0] * len(prompts)
        read, problem = yield from perplexities(self._setting, prompts, self.read_with, self.judge)
        self._unread = problem or self._unread
        return read

    def _enter(self, prompt: Prompt, answer: Scored, perplexity: float = math.nan) -> None:
        task = self._setting.space.task
        fitness = Fitness(task.labels if task is not None else (), self.entropy)
        value = worth(fitness.of(answer, self._setting.select))
        if math.isfinite(value):
            self._members.append(Member(prompt, answer, value, perplexity))
            self._surrogate.add(prompt, value)

    def _best(self) -> Member | None:
        return max(self._members, key=lambda member: member.worth, default=None)

    def _select(self) -> None:
        """The best live on: by fitness, or by fronts where there are several objectives."""
        if len(self.objectives) == 1 or not self._members:
            self._members.sort(key=lambda member: member.worth, reverse=True)
            del self._members[self.population :]
            return
        values = np.array([self._values(member) for member in self._members])
        known = np.where(np.isnan(values), np.inf, values).min(axis=0)
        values = np.where(
            np.isnan(values), np.where(np.isinf(known), 0.0, known), values
        )  # not read: no better than the worst
        self._members = [self._members[place] for place in survivors(values, self.population)]

    def _values(self, member: Member) -> list[float]:
        """What it is worth in every respect, the larger the better."""
        by_name = {
            "score": member.worth,
            "tokens": -member.answer.tokens,
            "perplexity": -math.log(member.perplexity),
        }
        return [by_name[name] for name in self.objectives]

    def _parent(self) -> Member:
        places = self._setting.rng.integers(len(self._members), size=self.tournament)
        drawn: list[Member] = [self._members[place] for place in places]
        return max(drawn, key=lambda member: member.worth)

    def _bred(self, breeder: Breeder) -> list[Bred]:
        """New prompts, ``screen`` times as many as are measured; fewer where there is nothing new."""
        wanted = self.batch * self.screen
        bred: list[Bred] = []
        for _ in range(4 * wanted if self._members else 0):
            if len(bred) >= wanted:
                break
            child = self._crossed(breeder) if self.method == "ga" else self._moved(breeder)
            if child is not None:
                bred.append(child)
        drawn = [breeder.drawn() for _ in range(wanted // 4 if self.screen > 1 else 0)]
        return bred + [("random", prompt) for prompt in drawn if prompt is not None]

    def _crossed(self, breeder: Breeder) -> Bred | None:
        """A child of two parents or a changed copy of one; known children are changed until they are new."""
        rng = self._setting.rng
        mother = self._parent()
        if rng.random() < self.crossing:
            crossed = breeder.crossed(mother.prompt, self._parent().prompt)
            child = breeder.claim(crossed)
            if child is not None and rng.random() < 0.5:
                return "crossed", child
            if crossed is not None:
                return breeder.mutated(crossed, 1)
        return breeder.mutated(mother.prompt, 1 + int(rng.random() < 0.3))

    def _moved(self, breeder: Breeder) -> Bred | None:
        """A member with slots of the best one, where two others differ changed (EvoPrompt, algorithm 3)."""
        rng = self._setting.rng
        places = rng.permutation(len(self._members))[:3]
        base, one, other = (
            self._members[place % len(self._members)].prompt for place in np.resize(places, 3)
        )
        best = max(self._members, key=lambda member: member.worth).prompt
        told = breeder.differing(one, other)
        for name in told:
            changed = breeder.changed_in(best, name)
            if changed is not None and rng.random() < 0.5:
                best = changed
        child = breeder.crossed(base, best)
        claimed = breeder.claim(child)
        if claimed is not None:
            return "differential", claimed
        return None if child is None else breeder.mutated(child, 1)

    def _chosen(self, bred: Sequence[Bred]) -> list[Bred]:
        """Those of the children that are measured: each the best of one draw of what they may be worth."""
        if len(bred) <= self.batch or not len(self._surrogate):
            return list(bred[: self.batch])
        prompts = [prompt for _, prompt in bred]
        taken: list[int] = []
        mean, spread = self._surrogate.posterior(prompts)
        for worths in draws(mean, spread, self.batch, self._setting.rng, BOLDNESS):
            order = np.argsort(-worths, kind="stable")
            taken.append(next(int(place) for place in order if place not in taken))
        return [bred[place] for place in taken]


def worth(fitness: tuple[float, float]) -> float:
    """Score and gain (the loss with its sign turned) as one number."""
    score, gain = fitness
    return score + (LOSS_COUNTS * gain if math.isfinite(gain) else 0.0)
