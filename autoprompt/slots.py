"""The kinds of slots a search space may have, as they stand in a file, and the options each one offers.

A slot has exactly one source: ``one_of`` (texts), ``optional`` (a text or nothing), ``map`` (label words),
``pick`` (demonstrations) or ``order`` (sections). What it offers is known before anything is drawn, save for
``pick``, whose demonstrations come from the task.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Literal

import pydantic
from pydantic import AfterValidator, Field

from autoprompt.errors import SpecError, TemplateError, nearest
from autoprompt.policy import Preset, TokenPolicy
from autoprompt.template import Template

MAX_SECTIONS = 6
IMPLICIT_WORDS = "words"
"""``[[ words.LABEL ]]`` is the task's own label word where the space has no slot of this name."""


def _one_line_end_off(text: str) -> str:
    """Take off the line break that a YAML block text (``|``) ends in; it is not part of the choice."""
    return text.removesuffix("\n")


Text = Annotated[str, AfterValidator(_one_line_end_off)]
Words = str | list[str]


class _Spec(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)


class Pick(_Spec):
    """Demonstrations: how many, which, in what order, and how each is written.

    Attributes:
        k: the numbers of demonstrations to choose from; the first is the default.
        per_label: ``equal`` takes as many of each label as ``k`` allows.
        order: ``shuffle``, ``fixed`` (the order of the training data) or ``label`` (grouped by label).
        template: one demonstration, with ``{{ answer }}`` where its label word or target goes.
        separator: what stands between demonstrations.
        sets: how many different draws are offered for each ``k``.
    """

    k: list[Annotated[int, Field(ge=0, le=64)]] = Field(min_length=1)
    per_label: Literal["equal", "any"] = "equal"
    order: Literal["shuffle", "fixed", "label"] = "shuffle"
    template: Text
    separator: str = "\n\n"
    sets: int = Field(default=16, ge=1, le=10_000)


class Order(_Spec):
    """Sections (names of slots) in every order; the order they are listed in is the default.

    Attributes:
        sections: the slots to put in order.
        separator: what stands between them.
        last: the one of them that always stands last.
    """

    sections: list[str] = Field(min_length=2, max_length=MAX_SECTIONS)
    separator: str = "\n"
    last: str | None = None

    def orders(self) -> list[tuple[str, ...]]:
        """All orders, the default first."""
        free = [name for name in self.sections if name != self.last]
        end = (self.last,) if self.last is not None else ()
        return [(*names, *end) for names in itertools.permutations(free)]


class Tokens(_Spec):
    """Tokens that a gradient search picks from the model's vocabulary.

    Attributes:
        n: how many tokens.
        init: the text to start from, which says how many they are then; empty: drawn tokens.
        policy: what they may be (``any``, ``ascii``, ``readable``).
        matching: a regular expression that each must match in full.
        ban: words that are kept out, with whatever begins with them.
        shortest: fewest tokens; ``n`` where not given, so that the length stays.
        longest: most tokens, likewise.
    """

    n: int = Field(default=5, ge=1, le=64)
    init: str = ""
    policy: Preset = "readable"
    matching: str = ""
    ban: list[str] = Field(default_factory=list)
    shortest: int | None = Field(default=None, ge=1, le=64)
    longest: int | None = Field(default=None, ge=1, le=64)

    @pydantic.model_validator(mode="after")
    def _check(self) -> Tokens:
        if not self.lengths[0] <= self.n <= self.lengths[1]:
            raise ValueError(f"tokens: n = {self.n} does not lie between shortest and longest {self.lengths}")
        try:
            re.compile(self.matching)
        except re.error as error:
            raise ValueError(f"tokens.matching: no regular expression: {error}") from None
        return self

    @property
    def lengths(self) -> tuple[int, int]:
        """Fewest and most tokens."""
        return self.shortest or self.n, self.longest or self.n

    def rule(self, answers: Sequence[str], scripts: Iterable[str] = ()) -> TokenPolicy:
        """What the tokens may be, the label words kept out.

        Args:
            answers: the label words.
            scripts: the writing systems of the task; readable tokens are of no other, unless ``matching`` says so.
        """
        kept = tuple(sorted(scripts)) if self.policy == "readable" and not self.matching else ()
        return TokenPolicy(self.policy, self.matching, tuple(self.ban), kept, tuple(answers))


class Slot(_Spec):
    """One slot: exactly one source, and perhaps a condition.

    Attributes:
        one_of: texts; the first is the default.
        optional: nothing (the default), this text, or one of these texts.
        map: label to its options; an option is one label word or several that count together.
        tied: whether the i-th options of all labels go together (``map`` only).
        pick: demonstrations.
        order: sections in every order.
        tokens: tokens of the model's vocabulary.
        when: the slot is empty unless the other slots have one of these values (for ``pick`` its ``k``).
    """

    one_of: list[Text] | None = Field(default=None, min_length=1)
    optional: Text | list[Text] | None = None
    map: dict[str, list[Words]] | None = Field(default=None, min_length=1)
    tied: bool = False
    pick: Pick | None = None
    order: Order | None = None
    tokens: Tokens | None = None
    when: dict[str, list[str | int]] = Field(default_factory=dict)

    @pydantic.model_validator(mode="after")
    def _check(self) -> Slot:
        given = [name for name in SOURCES if self.__dict__[name] is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of {', '.join(SOURCES)} (got {', '.join(given) or 'none'})")
        if self.tied and self.map is None:
            raise ValueError("tied goes with map only")
        if self.map is not None:
            if self.when:
                raise ValueError("a map slot holds the label words and cannot depend on a condition")
            _check_map(self.map, self.tied)
        if self.order is not None:
            _refuse_repeats("order.sections", self.order.sections)
            if self.order.last is not None and self.order.last not in self.order.sections:
                raise ValueError(f"order.last: {self.order.last!r} is not one of the sections")
        if self.pick is not None:
            _refuse_repeats("pick.k", self.pick.k)
        _refuse_repeats(given[0], self.texts())
        return self

    def texts(self) -> list[str]:
        """What may stand at the slot, for ``one_of`` and ``optional``; empty for other kinds."""
        if self.one_of is not None:
            return self.one_of
        if self.optional is not None:
            return ["", *([self.optional] if isinstance(self.optional, str) else self.optional)]
        return []

    def templates(self) -> list[tuple[tuple[str | int, ...], str]]:
        """(place in the file, text) of every text of the slot that is read as a template."""
        if self.one_of is not None:
            return [(("one_of", index), text) for index, text in enumerate(self.one_of)]
        if isinstance(self.optional, str):
            return [(("optional",), self.optional)]
        if self.optional is not None:
            return [(("optional", index), text) for index, text in enumerate(self.optional)]
        if self.pick is not None:
            return [(("pick", "template"), self.pick.template)]
        if self.order is not None:
            return [(("order", "sections"), join_sections(self.order.sections, self.order.separator))]
        return []

    def word_options(self) -> list[dict[str, tuple[str, ...]]]:
        """Options of a tied ``map``: label to its words."""
        assert self.map is not None
        count = len(next(iter(self.map.values())))
        return [
            {label: words_of(options[index]) for label, options in self.map.items()} for index in range(count)
        ]

    def word_count(self) -> int:
        """How many choices of label words a ``map`` offers."""
        assert self.map is not None
        counts = [len(options) for options in self.map.values()]
        return counts[0] if self.tied else math.prod(counts)


SOURCES = ("one_of", "optional", "map", "pick", "order", "tokens")


class SpaceSpec(_Spec):
    """A file in ``search_spaces``.

    Attributes:
        format: version of the file format.
        title: a few words.
        about: what it is for and where its choices come from.
        template: the prompt, with ``[[ slot ]]``, ``{{ field }}`` and ``{{ answer }}``.
        slots: name to slot.
        fields: the fields that the task must have, where declared.
        labels: the labels that the task must have, where declared.
    """

    format: Literal["autoprompt-space/1"] = "autoprompt-space/1"
    title: str = ""
    about: str = ""
    template: str = Field(min_length=1)
    slots: dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], Slot] = Field(default_factory=dict)
    fields: list[str] | None = None
    labels: list[str] | None = None

    @property
    def token_slots(self) -> dict[str, Tokens]:
        """The slots that hold tokens."""
        return {name: slot.tokens for name, slot in self.slots.items() if slot.tokens is not None}

    @property
    def words_slot(self) -> str | None:
        """Name of the ``map`` slot, None where the task's own label words are used."""
        return next((name for name, slot in self.slots.items() if slot.map is not None), None)

    def templates(self) -> list[tuple[tuple[str | int, ...], str]]:
        """(place in the file, text) of every text of a slot that is read as a template."""
        return [
            (("slots", name, *place), text)
            for name, slot in self.slots.items()
            for place, text in slot.templates()
        ]


def words_of(option: Words) -> tuple[str, ...]:
    """An option of a ``map`` as a tuple of label words."""
    return (option,) if isinstance(option, str) else tuple(option)


def words_text(words: Mapping[str, Sequence[str]]) -> str:
    """A choice of label words as one readable text."""
    return ", ".join(f"{label}={'/'.join(options)}" for label, options in words.items())


def join_sections(names: Sequence[str], separator: str) -> str:
    """The template text of sections in this order."""
    return separator.join(f"[[ {name} ]]" for name in names)


def references_in(text: str, spec: SpaceSpec) -> tuple[str, ...]:
    """Names of the declared slots that a text refers to, in order."""
    return tuple(name for name in Template(text).references() if name in spec.slots)


def dotted(keys: Sequence[str | int]) -> str:
    """Keys as one place: ``slots.cue.one_of[1]``."""
    parts = [f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys]
    return "".join(parts).removeprefix(".")


def check_references(spec: SpaceSpec, at: Callable[..., str]) -> None:
    """Check that slots refer to slots that exist, in no circle, and that every slot can be reached.

    Args:
        spec: the space.
        at: makes the place of an error from the keys that lead there.

    Raises:
        SpecError: they do not; says where.
        TemplateError: brackets that cannot be read.
    """
    leads_to: dict[str, dict[str, None]] = {name: {} for name in ("", *spec.slots)}
    for keys, text in [(("template",), spec.template), *spec.templates()]:
        for name in _references(text, at, keys):
            if name in spec.slots:
                leads_to[str(keys[1]) if len(keys) > 1 else ""][name] = None
            elif name != IMPLICIT_WORDS:
                raise SpecError(
                    f"{at(*keys)}: no slot named {name!r}{nearest(name, spec.slots)}; "
                    f"slots: {', '.join(spec.slots) or 'none'}"
                )
    for name, slot in spec.slots.items():
        for other in _reach(name, leads_to, (), at) if slot.pick is not None else ():
            if spec.slots[other].tokens is not None:
                raise SpecError(
                    f"{at('slots', name, 'pick', 'template')}: leads to slot {other!r}, which holds tokens; they "
                    "stand once in a prompt, and so not in demonstrations",
                    hint=f"let [[ {other} ]] stand outside the demonstrations",
                )
    for name, slot in spec.slots.items():
        for other, allowed in slot.when.items():
            _check_condition(spec, other, allowed, at("slots", name, "when", other))
            leads_to[name][other] = None
    maps = [name for name, slot in spec.slots.items() if slot.map is not None]
    if len(maps) > 1:
        raise SpecError(f"{at('slots', maps[1])}: the label words are given already by the slot {maps[0]!r}")
    reached = _reach("", leads_to, (), at)
    for name in spec.slots:
        if name not in reached and name not in maps:
            raise SpecError(
                f"{at('slots', name)}: is never used: nothing that the template leads to holds [[ {name} ]]"
            )


def _references(text: str, at: Callable[..., str], keys: tuple[str | int, ...]) -> list[str]:
    try:
        return Template(text).references()
    except TemplateError:
        return Template(text, at(*keys)).references()


def _check_condition(spec: SpaceSpec, other: str, allowed: Sequence[str | int], where: str) -> None:
    slot = spec.slots.get(other)
    if slot is None:
        raise SpecError(f"{where}: no slot named {other!r}{nearest(other, spec.slots)}")
    if slot.map is not None or slot.order is not None or slot.tokens is not None:
        raise SpecError(f"{where}: a condition tests one_of, optional or pick slots (got {other!r})")
    values = slot.texts() if slot.pick is None else [str(k) for k in slot.pick.k]
    for value in map(str, allowed):
        if value not in values:
            raise SpecError(f"{where}: {value!r} is no option of {other!r}{nearest(value, values)}")


def _reach(
    name: str, leads_to: Mapping[str, Mapping[str, None]], above: tuple[str, ...], at: Callable[..., str]
) -> set[str]:
    """Names that can be reached from a slot, itself included; refuses circles."""
    if name in above:
        circle = " -> ".join((*above[above.index(name) :], name))
        raise SpecError(f"{at('slots', name)}: slots refer to each other in a circle: {circle}")
    reached = {name}
    for following in leads_to[name]:
        reached |= _reach(following, leads_to, (*above, name), at)
    return reached


def _check_map(options: Mapping[str, list[Words]], tied: bool) -> None:
    for label, words in options.items():
        if not words or any(not word or not word.strip() for option in words for word in words_of(option)):
            raise ValueError(f"map.{label}: needs at least one label word, none of them empty")
        if any(not words_of(option) for option in words):
            raise ValueError(f"map.{label}: an option is a word or a list of at least one word")
        _refuse_repeats(f"map.{label}", ["/".join(words_of(option)) for option in words] if not tied else [])
    lengths = {label: len(words) for label, words in options.items()}
    if tied and len(set(lengths.values())) > 1:
        counts = ", ".join(f"{label}: {length}" for label, length in lengths.items())
        raise ValueError(f"map: tied options go together, so every label needs as many ({counts})")
    if tied:
        rows = zip(*options.values(), strict=True)
        _refuse_repeats("map", [", ".join("/".join(words_of(option)) for option in row) for row in rows])


def _refuse_repeats(where: str, values: Sequence[str | int]) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"{where}: {value!r} is listed twice")
