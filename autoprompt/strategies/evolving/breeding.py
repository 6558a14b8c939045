"""New prompts from old ones: one choice changed, a text edited, a demonstration exchanged, two prompts crossed.

All of it happens in the slots of a space, never in the finished text, so that what comes out is a prompt of the space:
fields, label words and the answer stay where they belong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from autoprompt.demonstrations import exchanges, offered
from autoprompt.drawing import Asked, Recorder
from autoprompt.edits import edits
from autoprompt.prompt import Prompt
from autoprompt.slots import Edit, Pick
from autoprompt.space import FixedChooser, RandomChooser, SearchSpace
from autoprompt.task import Example

Bred = tuple[str, Prompt]
"""What was done, and the prompt that came of it."""
_Change = tuple[str, Mapping[str, str], Mapping[str, Any]]
"""What is done; the options that are chosen then, and what stands in slots without being one."""
Item = TypeVar("Item")


class Breeder:
    """Makes prompts of a space from prompts of it.

    Args:
        space: bound to the task.
        train: where demonstrations come from.
        rng: the only source of chance.
        seen: keys of prompts that are not made again.
        only: the kinds of changes that are made, all of them where not given: ``option``, ``edit``, ``demonstrations``.
    """

    def __init__(
        self,
        space: SearchSpace,
        train: Sequence[Example],
        rng: np.random.Generator,
        seen: set[str],
        only: Sequence[str] = ("option", "edit", "demonstrations"),
    ) -> None:
        self._space, self._rng, self._only = space, rng, only
        self._train = {example.id: example for example in train}
        self.seen = seen
        self._litter: set[str] = set()
        self.fills: dict[str, list[str]] = {}
        """Word, in lower case, to what the model expects in its place."""

    def claim(self, prompt: Prompt | None) -> Prompt | None:
        """The prompt, where there is one that is not known; until ``settle`` it is not made again."""
        if prompt is None or prompt.key in self.seen or prompt.key in self._litter:
            return None
        self._litter.add(prompt.key)
        return prompt

    def settle(self, prompts: Sequence[Prompt]) -> None:
        """These are kept for good, and never made again; all others that were made may be."""
        self.seen.update(prompt.key for prompt in prompts)
        self._litter.clear()

    def drawn(self, tries: int = 50) -> Prompt | None:
        """A new prompt of random choices; None where draws bring nothing new."""
        chooser = RandomChooser(self._rng)
        drawn = (self.claim(self._space.draw(chooser)) for _ in range(tries))
        return next((prompt for prompt in drawn if prompt is not None), None)

    def mutants(self, prompt: Prompt) -> Iterator[Bred]:
        """New prompts that differ from this one in one respect: kinds of changes, slots and changes in drawn orders."""
        for name, choices, given in self._changes(prompt):
            made = self.claim(self._made(choices, given))
            if made is not None:
                yield name, made

    def mutated(self, prompt: Prompt, changes: int) -> Bred | None:
        """A new prompt that differs in so many respects, or in fewer where it does not go on; None where nothing is new."""
        names: list[str] = []
        for _ in range(changes - 1):
            step = next(self._steps(prompt), None)
            if step is None:
                break
            names.append(step[0])
            prompt = step[1]
        last = next(self.mutants(prompt), None)
        return None if last is None else ("+".join([*names, last[0]]), last[1])

    def crossed(self, one: Prompt, other: Prompt, share: float = 0.5) -> Prompt | None:
        """Every slot of one of the two, the second's with this chance; may be a prompt that is known."""
        first, second = self._choices(one), self._choices(other)
        mixed = dict(first)
        for name, value in second.items():
            if name not in first or self._rng.random() < share:
                mixed[name] = value
        return self._rebuilt(mixed)

    def differing(self, one: Prompt, other: Prompt) -> list[str]:
        """Slots in which two prompts differ."""
        first, second = self._choices(one), self._choices(other)
        return [name for name in {**first, **second} if first.get(name) != second.get(name)]

    def changed_in(self, prompt: Prompt, slot: str) -> Prompt | None:
        """The prompt with another value in a slot; may be known; None where it has no other."""
        made = (self._made(choices, given) for _, choices, given in self._changes(prompt, slot))
        return next((each for each in made if each is not None), None)

    def editable(self, prompt: Prompt) -> dict[str, tuple[str, Edit]]:
        """Slots of the prompt whose texts may be edited: their text and the rules."""
        slots = self._space.slots
        return {
            name: (text, rules)
            for name, text in self._choices(prompt).items()
            if (rules := slots[name].edit) is not None and str(text).strip()
        }

    def _steps(self, prompt: Prompt) -> Iterator[Bred]:
        """Like ``mutants``, known prompts too."""
        for name, choices, given in self._changes(prompt):
            made = self._made(choices, given)
            if made is not None and made.key != prompt.key:
                yield name, made

    def _choices(self, prompt: Prompt) -> dict[str, Any]:
        """The prompt's choices; those of the default for a prompt that the space did not make."""
        return dict(prompt.choices or self._space.default().choices)

    def _rebuilt(self, choices: Mapping[str, Any]) -> Prompt | None:
        return self._made(self._space.decisions(choices), self._space.given(choices))

    def _made(self, decisions: Mapping[str, str], given: Mapping[str, Any]) -> Prompt | None:
        """A prompt of these decisions; what comes up besides is drawn."""
        return self._space.draw(FixedChooser(decisions, RandomChooser(self._rng)), given)

    def _changes(self, prompt: Prompt, only_in: str = "") -> Iterator[_Change]:
        """Single changes, one of every slot in turn; those in one slot where that is said."""
        choices = self._choices(prompt)
        decided, given = self._space.decisions(choices), self._space.given(choices)
        queues: list[tuple[str, Iterator[_Change]]] = []
        if "option" in self._only:
            recorder = Recorder(inner=FixedChooser(decided, RandomChooser(self._rng)))
            self._space.draw(recorder, given)
            queues += [
                (asked[0].partition(".")[0], self._options(asked, decided, given)) for asked in recorder.asked
            ]
            queues += [(name, self._back_to_options(name, decided, given)) for name in given]
        if "edit" in self._only:
            for name, (text, rules) in self.editable(prompt).items():
                queues.append((name, self._edited(name, text, rules, decided, given)))
        if "demonstrations" in self._only:
            for name, slot in self._space.slots.items():
                if slot.pick is not None and choices.get(name):
                    queues.append((name, self._exchanged(name, slot.pick, choices[name], decided, given)))
        return in_turn([queue for name, queue in queues if only_in in ("", name)], self._rng)

    def _options(
        self, asked: Asked, decided: Mapping[str, str], given: Mapping[str, Any]
    ) -> Iterator[_Change]:
        name, options, index = asked
        for place in self._rng.permutation(len(options)):
            if place != index:
                yield f"{name}: option", {**decided, name: options[place]}, given

    def _back_to_options(
        self, name: str, decided: Mapping[str, str], given: Mapping[str, Any]
    ) -> Iterator[_Change]:
        """The options of a slot that holds none of them; for demonstrations a set on offer."""
        slot = self._space.slots[name]
        rest = {other: value for other, value in given.items() if other != name}
        if slot.pick is not None:
            yield f"{name}: option", decided, rest
        for place in self._rng.permutation(len(slot.texts())):
            yield f"{name}: option", {**decided, name: slot.texts()[place]}, rest

    def _edited(
        self, name: str, text: str, rules: Edit, decided: Mapping[str, str], given: Mapping[str, Any]
    ) -> Iterator[_Change]:
        fills = self.fills
        if fills and "replace" in rules.ops:
            words = {
                word: [*rules.words.get(word, ()), *fills.get(word, ())] for word in {**rules.words, **fills}
            }
            rules = rules.model_copy(update={"words": words})
        without = {other: option for other, option in decided.items() if other != name}
        for done, edited in edits(text, rules, self._space.slots[name].texts(), self._rng):
            if edited in self._space.slots[name].texts():
                yield (
                    f"{name}: {done}",
                    {**decided, name: edited},
                    {k: v for k, v in given.items() if k != name},
                )
            else:
                yield f"{name}: {done}", without, {**given, name: edited}

    def _exchanged(
        self,
        name: str,
        pick: Pick,
        ids: Sequence[str],
        decided: Mapping[str, str],
        given: Mapping[str, Any],
    ) -> Iterator[_Change]:
        chosen = [self._train[each] for each in ids if each in self._train]
        without = {other: option for other, option in decided.items() if not other.startswith(f"{name}.")}
        for done, demos in exchanges(pick, chosen, offered(pick, tuple(self._train.values())), self._rng):
            yield f"{name}: {done}", without, {**given, name: [example.id for example in demos]}


def in_turn(queues: Sequence[Iterator[Item]], rng: np.random.Generator) -> Iterator[Item]:
    """One item of every queue in turn, the turns in drawn orders, until all are used up."""
    left = list(queues)
    while left:
        used_up = set()
        for at in rng.permutation(len(left)):
            try:
                yield next(left[at])
            except StopIteration:
                used_up.add(at)
        left = [queue for at, queue in enumerate(left) if at not in used_up]
