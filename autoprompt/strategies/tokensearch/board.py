"""Triggers, and the prompts they make: which tokens may stand where, and whether they are read back as they are."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprompt.errors import InputError
from autoprompt.policy import TokenPolicy, scripts_of
from autoprompt.prompt import Prompt
from autoprompt.slots import Tokens
from autoprompt.strategies import Setting
from autoprompt.task import Example
from autoprompt.vocabulary import Vocabulary

READ = 256
"""Examples whose writing systems are looked at."""
DRAWS = 64
"""Triggers drawn at a time when new ones are wanted, and how often in vain before a slot is given up."""


@dataclass(frozen=True)
class Trigger:
    """Token slots by name, each with the ids of its tokens."""

    slots: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, slots: Mapping[str, Sequence[int]]) -> Trigger:
        """From a mapping, in its order."""
        return cls(tuple((name, tuple(ids)) for name, ids in slots.items()))

    def __getitem__(self, name: str) -> tuple[int, ...]:
        return dict(self.slots)[name]

    def __len__(self) -> int:
        return sum(len(ids) for _, ids in self.slots)

    def places(self) -> Iterator[tuple[str, int]]:
        """Every (slot, position)."""
        return ((name, at) for name, ids in self.slots for at in range(len(ids)))

    def replaced(self, name: str, ids: Sequence[int]) -> Trigger:
        """Another content of one slot."""
        return Trigger(tuple((each, tuple(ids) if each == name else old) for each, old in self.slots))

    def swapped(self, name: str, at: int, token: int) -> Trigger:
        """One token replaced."""
        ids = self[name]
        return self.replaced(name, (*ids[:at], token, *ids[at + 1 :]))


class Board:
    """The token slots of a space as a search moves them.

    Args:
        setting: the space, the examples, the model's vocabulary and the only source of chance.
        free: whether the slots' policies are set aside (``any`` in their place; bans stay).
        common: only so many of the first tokens allowed are drawn, which in most vocabularies are the frequent ones; None:
            all.

    Raises:
        InputError: there are no token slots, the model shows no vocabulary, or no token is allowed.
    """

    def __init__(self, setting: Setting, *, free: bool = False, common: int | None = None) -> None:
        if setting.vocabulary is None:
            raise InputError(
                "strategy: this model shows no tokens and gives no gradients",
                hint="use a Hugging Face model, or a strategy that needs none (random_search, tpe)",
            )
        specs = setting.space.spec.token_slots
        if not specs:
            raise InputError(
                f"strategy: search space {setting.space.name!r} has no token slots to search over",
                hint="add one to it, such as trigger: {tokens: {n: 5}}, or leave the space out",
            )
        self.vocabulary: Vocabulary = setting.vocabulary
        self.rng = setting.rng
        self._probes = (setting.train or setting.select)[:2]
        self.base, self.texts = _base(setting)
        self.specs: dict[str, Tokens] = {name: specs[name] for name in self.base.slots}
        answers = [word for words in self.base.words.values() for word in words]
        scripts = _scripts(setting)
        self._common = common
        self.allowed: dict[str, NDArray[np.bool_]] = {}
        self.policies: dict[str, TokenPolicy] = {}
        for name, spec in self.specs.items():
            rule = spec.rule(answers, scripts)
            if free:
                rule = TokenPolicy("any", ban=rule.ban, answers=rule.answers)
            self.policies[name] = rule
            self.allowed[name] = self.vocabulary.allowed(rule)
            if not self.allowed[name].any():
                raise InputError(
                    f"slots.{name}.tokens: no token of the model is allowed by policy {rule.preset!r}"
                    + (f" and matching {rule.matching!r}" if rule.matching else ""),
                    hint="use policy: any, or a wider regular expression",
                )

    @property
    def probe(self) -> Example:
        """An example that slots are looked at in."""
        return self._probes[0]

    def prompt(self, trigger: Trigger) -> Prompt:
        """The prompt that holds a trigger."""
        return self.base.filled({name: self.vocabulary.text(ids) for name, ids in trigger.slots})

    def standing(self, triggers: Iterable[Trigger]) -> list[tuple[Trigger, Prompt]]:
        """Those that are read back as they are, with their prompts: the whole text, cut up as the model reads it, holds
        their tokens (seen on two examples, all triggers in one go).

        Where the first token of a line is written without the space it has elsewhere, it is another token of the same
        text: then what is read is the trigger.
        """
        made = [(trigger, self.prompt(trigger)) for trigger in triggers]
        texts = [prompt.render(each.fields, with_slots=True) for _, prompt in made for each in self._probes]
        read = self.vocabulary.read(texts)
        size = len(self._probes)
        found: dict[Trigger, Prompt] = {}
        for index, (trigger, prompt) in enumerate(made):
            seen = {self._as_read(trigger, prompt, each) for each in read[size * index : size * (index + 1)]}
            alike = seen.pop() if len(seen) == 1 else None
            if alike is not None:
                found.setdefault(alike, prompt)
        return list(found.items())

    def fresh(
        self, source: Iterator[Trigger], visited: Container[Trigger], count: int
    ) -> list[tuple[Trigger, Prompt]]:
        """Up to ``count`` triggers of a source that were not tried yet and are read back as they are; looks at no more
        than four times as many.
        """
        found: list[tuple[Trigger, Prompt]] = []
        looked: set[Trigger] = set()
        for _ in range(4):
            part: list[Trigger] = []
            for trigger in source:
                if trigger not in visited and trigger not in looked:
                    looked.add(trigger)
                    part.append(trigger)
                    if len(part) >= count - len(found):
                        break
            if not part:
                break
            found += [each for each in self.standing(part) if each[0] not in visited]
            if len(found) >= count:
                break
        return found[:count]

    def _as_read(
        self, trigger: Trigger, prompt: Prompt, read: Mapping[str, tuple[int, ...]] | None
    ) -> Trigger | None:
        """What was read for a trigger, None where it is not the same text in as many tokens."""
        if read is None or any(name not in read for name, _ in trigger.slots):
            return None
        for name, ids in trigger.slots:
            same = len(read[name]) == len(ids) and self.vocabulary.text(read[name]) == prompt.slots[name]
            if read[name] != ids and not (
                same and all(self.allowed[name][token] for token in read[name][1:])
            ):
                return None
        return Trigger.of({name: read[name] for name, _ in trigger.slots})

    def start(self) -> Trigger | None:
        """What the slots hold to begin with; None where a slot is empty or its text is no whole number of tokens."""
        if not all(self.texts[name] for name in self.specs):
            return None
        (found,) = self.vocabulary.read([self.base.render(self._probes[0].fields, with_slots=True)])
        return None if found is None else Trigger.of({name: found[name] for name in self.specs})

    def drawn(self, count: int) -> list[tuple[Trigger, Prompt]]:
        """Up to ``count`` random triggers that stand, every allowed token alike."""
        found: dict[Trigger, Prompt] = {}
        for _ in range(DRAWS):
            triggers = (self._random() for _ in range(max(4, 2 * (count - len(found)))))
            for trigger, prompt in self.standing(triggers):
                if len(found) < count:
                    found.setdefault(trigger, prompt)
            if len(found) >= count:
                break
        return list(found.items())

    def _random(self) -> Trigger:
        slots = {}
        for name, spec in self.specs.items():
            ids = np.flatnonzero(self.allowed[name])[: self._common]
            slots[name] = [int(token) for token in self.rng.choice(ids, spec.n)]
        return Trigger.of(slots)

    def shaken(self, trigger: Trigger) -> Trigger:
        """Half of the tokens drawn anew."""
        places = list(trigger.places())
        for at in self.rng.permutation(len(places))[: max(1, len(places) // 2)]:
            name, place = places[at]
            trigger = trigger.swapped(name, place, int(self.rng.choice(np.flatnonzero(self.allowed[name]))))
        return trigger


def _scripts(setting: Setting) -> frozenset[str]:
    """The writing systems of the manual prompt and of (some) examples in it."""
    examples = (setting.train or setting.select)[:READ]
    return scripts_of(setting.seed_prompt.render(each.fields).text() for each in examples)


def _base(setting: Setting) -> tuple[Prompt, dict[str, str]]:
    """The prompt whose token slots are moved, some text in every slot that is met; and the texts to start from.

    Raises:
        InputError: no token slot is met with the other slots at these values.
    """
    space, seed = setting.space, setting.seed_prompt
    known = {name: value for name, value in seed.choices.items() if name in space.slots}
    texts = {name: str(known.get(name) or spec.init) for name, spec in space.spec.token_slots.items()}
    # any text opens a slot that is empty so far; it is never scored
    base = space.prompt_from({**known, **{name: text or "x" for name, text in texts.items()}})
    if not base.slots:
        raise InputError(
            f"strategy: the token slots of search space {space.name!r} are not met with its other slots at their "
            "defaults",
            hint="let the template, or the first option of a slot, refer to them",
        )
    return base, texts
