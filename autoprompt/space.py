"""Search spaces: a template and its slots, and the prompts that choices among them make.

A space is what a file in ``search_spaces`` says. Bound to a task it draws prompts, counts and lists them, and
finds the neighbours of one. How a draw goes is in ``drawing.py``, what a file may say is in ``slots.py``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from autoprompt import catalog, specfile
from autoprompt.counting import MAX_SIZE as MAX_SIZE
from autoprompt.counting import count
from autoprompt.demonstrations import draw_sets, offered
from autoprompt.drawing import (
    Chooser,
    DemoSets,
    FixedChooser,
    RandomChooser,
    Recorder,
    Walk,
    moves,
    next_path,
)
from autoprompt.errors import InputError, SpecError, TemplateError, nearest
from autoprompt.prompt import Prompt
from autoprompt.slots import IMPLICIT_WORDS, Slot, dotted, words_text
from autoprompt.spacefile import SpaceSpec, check_references
from autoprompt.task import Example, Task
from autoprompt.template import Data, Hole, SlotValue, Template

__all__ = ["Chooser", "FixedChooser", "RandomChooser", "SearchSpace", "demo_ids"]


@dataclass(frozen=True)
class SearchSpace:
    """A template and its slots. Frozen; ``bind`` returns one that can draw prompts for a task.

    Attributes:
        spec: what the file says.
        path: the file, where there is one.
        task: the task it is bound to, None before ``bind``.
        answer_at_end: whether the model reads on from the end of the text.
        accepts: says of a drawn prompt whether the model can score its label words; None accepts all.
    """

    spec: SpaceSpec
    path: Path | None = None
    task: Task | None = field(default=None, repr=False)
    answer_at_end: bool = False
    accepts: Callable[[Prompt], bool] | None = field(default=None, repr=False, compare=False)
    _sets: DemoSets = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_references(self.spec, self.at)

    @classmethod
    def load(cls, name_or_path: str | Path) -> SearchSpace:
        """Read a space by its name or path.

        Raises:
            UnknownName: no such space.
            SpecError: the file is wrong; says where.
        """
        path = catalog.find("search_spaces", str(name_or_path))
        return cls(specfile.read_spec(path, SpaceSpec), path)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> SearchSpace:
        """Make a space from what a file would hold."""
        try:
            return cls(SpaceSpec.model_validate_json(json.dumps(dict(content))))
        except pydantic.ValidationError as error:
            lines = [
                f"search space: {dotted(item['loc'])}: {item['msg']} (got {item['input']!r:.60})"
                for item in error.errors()
            ]
            raise SpecError(
                "\n".join(lines), hint="see search_spaces/sentiment.yaml for an example"
            ) from None

    @classmethod
    def from_prompt(cls, task: Task) -> SearchSpace:
        """Make the space that holds the task's manual prompt and nothing else."""
        return cls(SpaceSpec(title=f"the manual prompt of {task.name}", template=task.prompt))

    @property
    def name(self) -> str:
        """What to call it: the file's name without ending, else the title."""
        return self.path.stem if self.path is not None else self.spec.title or "unnamed"

    @property
    def slots(self) -> Mapping[str, Slot]:
        """Name to slot."""
        return self.spec.slots

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the slots, as listed."""
        return tuple(self.spec.slots)

    @property
    def fingerprint(self) -> str:
        """Hash of the content: template and slots, not titles or where the file lies."""
        content = self.spec.model_dump(exclude={"title", "about", "format"})
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]

    def at(self, *keys: str | int) -> str:
        """Where a field stands, for errors: ``file:line: slots.cue.one_of[1]``."""
        if self.path is not None:
            return specfile.locate(self.path, *keys)
        return f"search space: {dotted(keys)}"

    def bind(
        self, task: Task, *, answer_at_end: bool, accepts: Callable[[Prompt], bool] | None = None
    ) -> SearchSpace:
        """Attach a task: its fields, labels, label words, and its training examples as demonstrations.

        Args:
            task: what the prompts are for.
            answer_at_end: whether the model reads on from the end of the text (causal, encoder-decoder).
            accepts: says whether the model can score a prompt's label words; draws that it refuses are None.

        Raises:
            SpecError: the space does not fit the task.
            TemplateError: the default prompt is not valid for the task or the model.
        """
        _check_fits(self, task)
        bound = dataclasses.replace(
            self, task=task, answer_at_end=answer_at_end, accepts=accepts, _sets=_demo_sets(self, task)
        )
        bound.default()
        for name, k in bound._sets:  # a wrong demonstration template would spoil every draw that has one
            bound._make(FixedChooser({f"{name}.k": str(k)}))
        return bound

    def default(self) -> Prompt:
        """Return the prompt of all first options."""
        return self._make(FixedChooser({}))

    def draw(self, choose: Chooser, given: Mapping[str, Any] | None = None) -> Prompt | None:
        """Make a prompt with the choices of ``choose``; None where they do not go together.

        Args:
            choose: picks among options.
            given: what is none: texts of token slots, texts that were edited or written, ids of demonstrations.

        Choices do not go together where the prompt is not valid for the task or the model (the answer in the
        middle for a causal model; label words it cannot score), two labels share their words, or a demonstration
        stands twice.
        """
        try:
            prompt = self._make(choose, given)
            return prompt if self.accepts is None or self.accepts(prompt) else None
        except TemplateError:
            return None

    def prompt_from(self, choices: Mapping[str, Any]) -> Prompt:
        """Rebuild a prompt from its ``choices``; slots that are not among them get their default."""
        return self._make(FixedChooser(self.decisions(choices)), self.given(choices))

    def decisions(self, choices: Mapping[str, Any]) -> dict[str, str]:
        """Turn the ``choices`` of a prompt into the options a ``Chooser`` had picked; see ``given`` for the others."""
        decided: dict[str, str] = {}
        given = self.given(choices)
        for name, value in choices.items():
            slot = self.slots.get(name)
            if slot is None:
                raise InputError(f"choices: no slot named {name!r}{nearest(name, self.slots)}")
            if name in given:
                continue
            if slot.pick is not None:
                decided |= {f"{name}.k": str(len(value)), f"{name}.{len(value)}": " ".join(value)}
            elif slot.map is not None and slot.tied:
                decided[name] = words_text({label: value.get(label, ()) for label in slot.map})
            elif slot.map is not None:
                decided |= {f"{name}.{label}": "/".join(words) for label, words in value.items()}
            else:
                decided[name] = " > ".join(value) if slot.order is not None else value
        return decided

    def size(self) -> int:
        """Number of combinations of choices (conditional ones counted right), at most ``MAX_SIZE``."""
        return count(self.spec, self._sets)

    def enumerate(self, most: int | None = None) -> Iterator[Prompt]:
        """All prompts, the default first, each once, made one by one; ``most``: combinations that are looked at."""
        seen: set[str] = set()
        path: list[int] | None = []
        for _ in itertools.count() if most is None else range(most):
            if path is None:
                return
            recorder = Recorder(path)
            prompt = self.draw(recorder)
            if prompt is not None and prompt.key not in seen:
                seen.add(prompt.key)
                yield prompt
            path = next_path(recorder.asked)

    def neighbours(self, prompt: Prompt, rng: np.random.Generator, n: int) -> list[Prompt]:
        """Up to ``n`` different prompts that differ from ``prompt`` in one active choice.

        The choices take turns in a drawn order. Choices that only come up in the neighbour are drawn. A
        prompt without ``choices`` counts as the default.
        """
        decided = self.decisions(prompt.choices)
        given = self.given(prompt.choices)
        recorder = Recorder(inner=FixedChooser(decided))
        self._make(recorder, given)
        found: dict[str, Prompt] = {}
        for name, option in moves(recorder.asked, rng):
            if len(found) >= n:
                break
            near = self.draw(FixedChooser({**decided, name: option}, RandomChooser(rng)), given)
            if near is not None and near.key != prompt.key:
                found.setdefault(near.key, near)
        return list(found.values())

    def given(self, choices: Mapping[str, Any]) -> dict[str, Any]:
        """What stands in a prompt's slots without being one of their options: texts of token slots, texts that were
        edited or written, demonstrations that are no set on offer.
        """
        found: dict[str, Any] = {}
        for name, value in choices.items():
            slot = self.slots.get(name)
            if slot is None:
                continue
            if slot.tokens is not None or (slot.is_written and value not in slot.texts()):
                found[name] = str(value)
            elif slot.pick is not None and value:
                sets = self._sets.get((name, len(value)), ())
                if tuple(value) not in {tuple(example.id for example in demos) for demos in sets}:
                    found[name] = list(value)
        return found

    def _make(self, choose: Chooser, given: Mapping[str, Any] | None = None) -> Prompt:
        if self.task is None:
            raise InputError("search space: not bound to a task", hint="call space.bind(task, ...) first")
        name = str(self.path or "search space")
        walk = Walk(self.spec, self._sets, self.task, choose, name, given or {})
        where = f"{name}: template"
        frame = Template(self.spec.template, where).resolve(walk.settle_all(self.spec.template))
        prompt = Prompt.of_frame(frame, walk.tokens, walk.words, walk.choices)
        prompt.check(set(self.task.fields), answer_at_end=self.answer_at_end, where=where)
        return prompt


def demo_ids(prompt: Prompt) -> frozenset[str]:
    """Ids of the examples that stand in a prompt as demonstrations.

    Names of sections (``order`` slots) may be among them; they are no ids.
    """
    lists = [value for value in prompt.choices.values() if isinstance(value, list)]
    return frozenset(item for ids in lists for item in ids)


def _check_fits(space: SearchSpace, task: Task) -> None:
    """Raise where the space asks for fields or labels that the task does not have."""
    spec = space.spec
    for index, name in enumerate(spec.fields or ()):
        if name not in task.fields:
            raise SpecError(
                f"{space.at('fields', index)}: the task {task.name!r} has no field {name!r}"
                f"{nearest(name, task.fields)}; its fields: {', '.join(task.fields)}"
            )
    if spec.labels is not None:
        _check_labels(space.at("labels"), spec.labels, task)
    slot_name = space.spec.words_slot
    if slot_name is not None:
        _check_labels(space.at("slots", slot_name, "map"), spec.slots[slot_name].map or (), task)
    for keys, text in [(("template",), spec.template), *spec.templates()]:
        _check_fields(space, keys, text, task)


def _check_labels(where: str, labels: Iterable[str], task: Task) -> None:
    given = list(labels)
    if set(given) != set(task.labels):
        unknown = [label for label in given if label not in task.labels]
        guess = nearest(unknown[0], task.labels) if unknown else ""
        raise SpecError(
            f"{where}: must be the labels of the task {task.name!r}, which are "
            f"{', '.join(task.labels) or 'none'} (got {', '.join(given)}){guess}"
        )


def _check_fields(space: SearchSpace, keys: tuple[str | int, ...], text: str, task: Task) -> None:
    """Check one text by itself, slots left empty but those of tokens, so that a mistake in a rare option shows at once."""
    tokens = dict.fromkeys(space.spec.token_slots, "x")
    values: dict[str, SlotValue] = {**dict.fromkeys(space.slots, ""), **{name: Hole(name) for name in tokens}}
    words = {label: Data("word") for label in task.labels}
    if words:
        values.setdefault(IMPLICIT_WORDS, words)
    if space.spec.words_slot is not None:
        values[space.spec.words_slot] = words
    try:
        read = Prompt.of_frame(Template(text, "text").resolve(values), tokens, {}, {}).fields()
    except TemplateError as error:
        raise TemplateError(f"{space.at(*keys)}: {error.message}", hint=error.hint) from None
    for name in sorted(read - set(task.fields)):
        raise TemplateError(
            f"{space.at(*keys)}: the task {task.name!r} has no field {name!r}{nearest(name, task.fields)}; "
            f"its fields: {', '.join(task.fields)}"
        )


def _demo_sets(space: SearchSpace, task: Task) -> DemoSets:
    """Draw the demonstration sets of every ``pick`` slot and k."""
    sets: dict[tuple[str, int], tuple[tuple[Example, ...], ...]] = {}
    shown: set[Example] = set()
    for name, slot in space.slots.items():
        for k in slot.pick.k if slot.pick is not None else ():
            assert slot.pick is not None
            pool = offered(slot.pick, task.train)
            if k > len(pool):
                raise SpecError(
                    f"{space.at('slots', name, 'pick', 'k')}: {k} demonstrations, but the task {task.name!r} "
                    f"has {len(pool)} different training examples",
                    hint="list smaller numbers, or give the task more training examples",
                )
            if k > 0:
                drawn = draw_sets(slot.pick, name, k, pool)
                free = [demos for demos in drawn if shown.isdisjoint(demos)]
                # The first set is what the slot shows by default: not what another slot does.
                sets[name, k] = (
                    (free[0], *(demos for demos in drawn if demos is not free[0])) if free else drawn
                )
        shown.update(*(demos[0] for (owner, _), demos in sets.items() if owner == name))
    return sets
