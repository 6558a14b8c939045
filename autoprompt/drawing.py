"""How a prompt is drawn from a search space.

A walk goes through the template: whenever it meets a slot that has not been settled, a ``Chooser`` picks one
of its options, and the walk goes on inside the picked text. So only slots that matter are chosen (conditional
parameters), and every strategy brings nothing but its own ``Chooser``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from autoprompt.demonstrations import offered
from autoprompt.edits import problem_with
from autoprompt.errors import InputError, TemplateError, nearest
from autoprompt.prompt import Prompt
from autoprompt.slots import IMPLICIT_WORDS, Pick, Slot, join_sections, words_of, words_text
from autoprompt.spacefile import SpaceSpec, references_in
from autoprompt.task import Example, Task
from autoprompt.template import Data, Hole, SlotValue, Template

Asked = tuple[str, Sequence[str], int]
"""A choice that came up: its name, its options, the index that was chosen."""
DemoSets = Mapping[tuple[str, int], tuple[tuple[Example, ...], ...]]
"""(Slot, k) to the sets of k demonstrations that are on offer."""


class Chooser(Protocol):
    """Makes the choices of a draw."""

    def choice(self, name: str, options: Sequence[str]) -> int:
        """Return the index of the chosen option.

        Args:
            name: the choice; its options are the same whenever it comes up. A slot's name, or ``demos.k`` and
                ``demos.4`` (which set of 4) for a ``pick`` slot, ``words.LABEL`` for an untied ``map`` slot.
            options: at least two readable texts, the default first.
        """
        ...


@dataclass(frozen=True)
class RandomChooser:
    """Every option alike."""

    rng: np.random.Generator

    def choice(self, name: str, options: Sequence[str]) -> int:
        """Draw an index."""
        return int(self.rng.integers(len(options)))


@dataclass(frozen=True)
class FixedChooser:
    """Follows given choices.

    Attributes:
        choices: name of a choice to the text of the option.
        otherwise: decides what is not among them; None: the default option.
    """

    choices: Mapping[str, str]
    otherwise: Chooser | None = None

    def choice(self, name: str, options: Sequence[str]) -> int:
        """Return the index of the given option; raises InputError where it is not on offer."""
        if name not in self.choices:
            return self.otherwise.choice(name, options) if self.otherwise is not None else 0
        wanted = self.choices[name]
        if wanted not in options:
            listed = ", ".join(map(repr, options[:8])) + (", ..." if len(options) > 8 else "")
            raise InputError(
                f"slot {name}: no option {wanted!r}{nearest(wanted, options)}; options: {listed}"
            )
        return list(options).index(wanted)


@dataclass
class Recorder:
    """Follows a path of indices, then the default, and notes what was asked."""

    path: Sequence[int] = ()
    inner: Chooser | None = None
    asked: list[Asked] = field(default_factory=list)

    def choice(self, name: str, options: Sequence[str]) -> int:
        """Choose, and note it."""
        if self.inner is not None:
            index = self.inner.choice(name, options)
        else:
            index = self.path[len(self.asked)] if len(self.asked) < len(self.path) else 0
        self.asked.append((name, options, index))
        return index


class Walk:
    """One pass through a template and what is chosen in it.

    Args:
        spec: the space.
        sets: (slot, k) to the demonstration sets on offer.
        task: what the prompt is for.
        choose: makes the choices.
        where: what to call the space in errors.
        given: what stands in slots and is not chosen among options: the texts of token slots (what they start from where
            not given), texts that were edited or written, and ids of demonstrations.

    Attributes:
        choices: what was chosen, by slot.
        words: label words.
        tokens: the texts of the token slots that were met and are not empty.
    """

    def __init__(
        self,
        spec: SpaceSpec,
        sets: DemoSets,
        task: Task,
        choose: Chooser,
        where: str,
        given: Mapping[str, Any],
    ) -> None:
        self._spec, self._sets, self._task, self._where = spec, sets, task, where
        self._chooser, self._given = choose, given
        self.tokens: dict[str, str] = {}
        self._values: dict[str, SlotValue] = {}
        self._demos: set[str] = set()
        self.choices: dict[str, Any] = {}
        self.words: dict[str, tuple[str, ...]] = dict(task.words)
        words_slot = spec.words_slot
        if words_slot is not None:
            self._settle_words(words_slot, spec.slots[words_slot])
        elif self.words and IMPLICIT_WORDS not in spec.slots:
            self._values[IMPLICIT_WORDS] = {label: words[0] for label, words in self.words.items()}

    def settle_all(self, text: str) -> Mapping[str, SlotValue]:
        """Settle the slots a text refers to, and those they refer to; return the values so far."""
        for name in references_in(text, self._spec):
            self._settle(name)
        return self._values

    def _settle(self, name: str) -> None:
        if name in self._values:
            return
        slot = self._spec.slots[name]
        if not all(self._tested(other) in map(str, allowed) for other, allowed in slot.when.items()):
            self._values[name] = ""
        elif slot.pick is not None:
            self._settle_demos(name, slot.pick)
        elif slot.tokens is not None:
            text = str(self._given.get(name, slot.tokens.init)).strip()
            self._values[name] = Hole(name) if text else ""
            self.choices[name] = text  # an empty one too: rebuilt from its choices it must not start anew
            if text:
                self.tokens[name] = text
        elif slot.order is not None:
            orders = slot.order.orders()
            sections = orders[self._choose(name, [" > ".join(names) for names in orders])]
            self.choices[name] = list(sections)
            self._values[name] = join_sections(sections, slot.order.separator)
            self.settle_all(join_sections(sections, ""))
        else:
            text = self._written(name, slot) if name in self._given else self._option(name, slot)
            self.choices[name] = self._values[name] = text
            self.settle_all(text)

    def _option(self, name: str, slot: Slot) -> str:
        texts = slot.texts()
        return texts[self._choose(name, texts)]

    def _written(self, name: str, slot: Slot) -> str:
        """A text that is none of the options, checked."""
        text = str(self._given[name])
        problem = problem_with(slot, text)
        if problem:
            raise TemplateError(f"slot {name}: {text!r:.80} {problem}")
        return text

    def _choose(self, name: str, options: Sequence[str]) -> int:
        return self._chooser.choice(name, options) if len(options) > 1 else 0

    def _tested(self, name: str) -> str:
        """The value that a condition compares."""
        self._settle(name)
        if self._spec.slots[name].pick is not None:
            return str(len(self.choices.get(name, ())))
        return str(self._values[name])

    def _settle_words(self, name: str, slot: Slot) -> None:
        assert slot.map is not None
        if slot.tied:
            options = slot.word_options()
            self.words = options[self._choose(name, [words_text(option) for option in options])]
        else:
            for label, of_label in slot.map.items():
                texts = ["/".join(words_of(option)) for option in of_label]
                self.words[label] = words_of(of_label[self._choose(f"{name}.{label}", texts)])
        every = [word for words in self.words.values() for word in words]
        if len(set(every)) < len(every):
            raise TemplateError(f"slot {name}: one word stands for two labels: {words_text(self.words)}")
        self.words = {label: self.words[label] for label in self._task.labels}
        self.choices[name] = {label: list(words) for label, words in self.words.items()}
        self._values[name] = {label: words[0] for label, words in self.words.items()}

    def _settle_demos(self, name: str, pick: Pick) -> None:
        self._values[name], self.choices[name] = Data(""), []
        demos = self._listed(name, pick) if name in self._given else self._set(name, pick)
        if not demos:
            return
        ids = [example.id for example in demos]
        if not self._demos.isdisjoint(ids) or len(set(ids)) < len(ids):
            raise TemplateError(f"slot {name}: a demonstration stands twice")
        self._demos.update(ids)
        where = f"{self._where}: slots.{name}.pick.template"
        demo = Prompt(Template(pick.template, where).resolve(self.settle_all(pick.template)), self.words)
        demo.check(set(self._task.fields), where=where)
        written = [demo.render(each.fields).text(self._answer(each, pick)) for each in demos]
        self._values[name], self.choices[name] = Data(pick.separator.join(written)), ids

    def _set(self, name: str, pick: Pick) -> tuple[Example, ...]:
        k = pick.k[self._choose(f"{name}.k", [str(k) for k in pick.k])]
        if k == 0:
            return ()
        sets = self._sets[name, k]
        return sets[self._choose(f"{name}.{k}", [" ".join(each.id for each in demos) for demos in sets])]

    def _listed(self, name: str, pick: Pick) -> tuple[Example, ...]:
        """Demonstrations by their ids, as many as the slot allows."""
        wanted = list(self._given[name])
        if len(wanted) not in pick.k:
            raise TemplateError(
                f"slot {name}: {len(wanted)} demonstrations; allowed: {', '.join(map(str, pick.k))}"
            )
        pool = {example.id: example for example in offered(pick, self._task.train)}
        strange = [each for each in wanted if each not in pool]
        if strange:
            raise TemplateError(f"slot {name}: the task offers no training example {strange[0]!r}")
        return tuple(pool[each] for each in wanted)

    def _answer(self, example: Example, pick: Pick) -> str:
        words = self.words.get(example.target)
        plain = words[0] if words else example.target
        return example.worked or plain if pick.worked else plain


def next_path(asked: Sequence[Asked]) -> list[int] | None:
    """The path of indices after this one, the last choice counting fastest; None at the end."""
    path = [index for _, _, index in asked]
    while path:
        if path[-1] + 1 < len(asked[len(path) - 1][1]):
            path[-1] += 1
            return path
        path.pop()
    return None


def moves(asked: Sequence[Asked], rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Single changes as (choice, option): one of every choice in turn, in drawn orders."""
    left = []
    for name, options, index in asked:
        others = [option for place, option in enumerate(options) if place != index]
        left.append((name, [others[place] for place in rng.permutation(len(others))]))
    while left:
        for place in rng.permutation(len(left)):
            name, others = left[place]
            yield name, others.pop()
        left = [(name, others) for name, others in left if others]
