"""The kinds of slots a search space may have, as they stand in a file, and the options each one offers.

A slot has exactly one source: ``one_of`` (texts), ``optional`` (a text or nothing), ``map`` (label words),
``pick`` (demonstrations), ``order`` (sections) or ``tokens``. What it offers is known before anything is drawn, save for
``pick``, whose demonstrations come from the task. Texts may be opened to searches that write their own: by local edits
(``edit``) or by a model (``llm``).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

import pydantic
from pydantic import AfterValidator, Field

from autoprompt.policy import Preset, TokenPolicy

MAX_SECTIONS = 6
IMPLICIT_WORDS = "words"
"""``[[ words.LABEL ]]`` is the task's own label word where the space has no slot of this name."""


def _one_line_end_off(text: str) -> str:
    """Take off the line break that a YAML block text (``|``) ends in; it is not part of the choice."""
    return text.removesuffix("\n")


Text = Annotated[str, AfterValidator(_one_line_end_off)]
Words = str | list[str]
Operator = Literal["delete", "swap", "add", "replace", "case"]


class Spec(pydantic.BaseModel):
    """What a file says: checked strictly, nothing else allowed, frozen."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)


class Pick(Spec):
    """Demonstrations: how many, which, in what order, and how each is written.

    Attributes:
        k: the numbers of demonstrations to choose from; the first is the default.
        per_label: ``equal`` takes as many of each label as ``k`` allows.
        order: ``shuffle``, ``fixed`` (the order of the training data) or ``label`` (grouped by label).
        template: one demonstration, with ``{{ answer }}`` where its label word or target goes.
        separator: what stands between demonstrations.
        sets: how many different draws are offered for each ``k``.
        worked: whether answers are written as they were worked out where that is known, and such examples alone are drawn
            if there are enough of them.
    """

    k: list[Annotated[int, Field(ge=0, le=64)]] = Field(min_length=1)
    per_label: Literal["equal", "any"] = "equal"
    order: Literal["shuffle", "fixed", "label"] = "shuffle"
    template: Text
    separator: str = "\n\n"
    sets: int = Field(default=16, ge=1, le=10_000)
    worked: bool = False


class Order(Spec):
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


class Tokens(Spec):
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


class Edit(Spec):
    """The texts of the slot may be edited: an evolution deletes, swaps, adds back and replaces parts of them.

    Attributes:
        ops: the operators; ``replace`` takes words from ``words`` and from what the model expects there.
        unit: what is moved as a whole.
        max_edits: how many units a text may differ by from the option it is nearest to.
        words: word to others that may stand in its place.
        lock: phrases that are never touched.
    """

    ops: list[Operator] = Field(default=["delete", "swap", "add", "replace"], min_length=1)
    unit: Literal["phrase", "word", "sentence"] = "phrase"
    max_edits: int = Field(default=8, ge=1, le=100)
    words: dict[str, list[str]] = Field(default_factory=dict)
    lock: list[str] = Field(default_factory=list)


class Llm(Spec):
    """The texts of the slot may be written anew by a model; what it writes is data, and no template code.

    Attributes:
        longest: characters that it may have.
    """

    longest: int = Field(default=300, ge=1, le=10_000)


class Slot(Spec):
    """One slot: exactly one source, and perhaps a condition.

    Attributes:
        one_of: texts; the first is the default.
        optional: nothing (the default), this text, or one of these texts.
        map: label to its options; an option is one label word or several that count together.
        tied: whether the i-th options of all labels go together (``map`` only).
        pick: demonstrations.
        order: sections in every order.
        tokens: tokens of the model's vocabulary.
        edit: whether and how its texts may be edited (``one_of`` and ``optional`` only).
        llm: whether a model may write its text (likewise).
        when: the slot is empty unless the other slots have one of these values (for ``pick`` its ``k``).
    """

    one_of: list[Text] | None = Field(default=None, min_length=1)
    optional: Text | list[Text] | None = None
    map: dict[str, list[Words]] | None = Field(default=None, min_length=1)
    tied: bool = False
    pick: Pick | None = None
    order: Order | None = None
    tokens: Tokens | None = None
    edit: Edit | None = None
    llm: Llm | None = None
    when: dict[str, list[str | int]] = Field(default_factory=dict)

    @pydantic.model_validator(mode="after")
    def _check(self) -> Slot:
        given = [name for name in SOURCES if self.__dict__[name] is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of {', '.join(SOURCES)} (got {', '.join(given) or 'none'})")
        if self.tied and self.map is None:
            raise ValueError("tied goes with map only")
        if self.is_written and not self.texts():
            raise ValueError("edit and llm go with one_of and optional only")
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

    @property
    def is_written(self) -> bool:
        """Whether a search may put a text there that is none of the options."""
        return self.edit is not None or self.llm is not None

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


def words_of(option: Words) -> tuple[str, ...]:
    """An option of a ``map`` as a tuple of label words."""
    return (option,) if isinstance(option, str) else tuple(option)


def words_text(words: Mapping[str, Sequence[str]]) -> str:
    """A choice of label words as one readable text."""
    return ", ".join(f"{label}={'/'.join(options)}" for label, options in words.items())


def join_sections(names: Sequence[str], separator: str) -> str:
    """The template text of sections in this order."""
    return separator.join(f"[[ {name} ]]" for name in names)


def dotted(keys: Sequence[str | int]) -> str:
    """Keys as one place: ``slots.cue.one_of[1]``."""
    parts = [f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys]
    return "".join(parts).removeprefix(".")


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
