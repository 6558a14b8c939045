"""Finished prompts: an ordinary Jinja2 template, the words that stand for the labels, and where token slots lie in it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jinja2
import jinja2.meta
import jinja2.nodes
import jinja2.sandbox

from autoprompt.errors import LabelWordError, TemplateError, nearest
from autoprompt.soft import SoftRows
from autoprompt.template import (
    ANSWER_MARK,
    FIELD_END,
    FIELD_START,
    HOLE,
    HOLE_END,
    HOLE_START,
    MARKS,
    MARKS_REFUSED,
    SLOT,
    as_shown,
    fill,
    without_marks,
)

_ANSWER = re.compile(r"\{\{-?\s*answer\s*-?\}\}")
_OUTSIDE_CODE = (
    jinja2.nodes.Template,
    jinja2.nodes.Output,
    jinja2.nodes.If,
    jinja2.nodes.For,
    jinja2.nodes.With,
)
"""What puts its text out as it stands; in anything else, such as ``{% filter upper %}``, it could be changed."""
_PIECES = re.compile(f"{FIELD_START}(?P<field>.*?){FIELD_END}|{HOLE_START}(?P<slot>.*?){HOLE_END}", re.DOTALL)


@dataclass(frozen=True)
class Piece:
    """A stretch of rendered text, from the example (it may be shortened) or of a token slot of that name.

    ``rows``: what is read in place of the slot's tokens, as many as they are.
    """

    text: str
    is_field: bool = False
    slot: str = ""
    rows: SoftRows | None = None


@dataclass(frozen=True)
class Rendered:
    """A prompt rendered for one example: what stands before and after the answer place."""

    before: tuple[Piece, ...]
    after: tuple[Piece, ...] = ()

    @property
    def soft(self) -> dict[str, SoftRows]:
        """The slots that hold rows in place of tokens, with them."""
        pieces = (*self.before, *self.after)
        return {piece.slot: piece.rows for piece in pieces if piece.rows is not None}

    def text(self, answer: str = "") -> str:
        """The whole text with ``answer`` at the answer place."""
        before = "".join(piece.text for piece in self.before)
        return before + answer + "".join(piece.text for piece in self.after)


@dataclass(frozen=True)
class Prompt:
    """A finished prompt: a Jinja2 template and the words that stand for the labels.

    Attributes:
        text: the Jinja2 template, with ``{{ answer }}`` exactly once.
        words: label to label words; empty where the task has no labels.
        choices: how a search space made it (slot to choice); says where it came from, not what it is.
        slots: the texts of its token slots, where it has any; they stand in ``text``.
        frame: ``text`` with marks in their place.
        soft: token slots that hold rows; a row is read in place of each token of the slot's text, which says no more
            than where they stand.
    """

    text: str
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    choices: Mapping[str, Any] = field(default_factory=dict, compare=False)
    slots: Mapping[str, str] = field(default_factory=dict, compare=False)
    frame: str = field(default="", compare=False, repr=False)
    soft: Mapping[str, SoftRows] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse label words that would be scored as something else than is meant."""
        owner: dict[str, str] = {}
        for label, words in self.words.items():
            if isinstance(words, str) or not words:
                raise LabelWordError(
                    f"label words of {label!r}: expected a tuple of one or more words (got {words!r})",
                    hint=f"write {{{label!r}: ({str(words) or 'word'!r},)}}",
                )
            for word in words:
                if not word or word != word.strip():
                    raise LabelWordError(
                        f"label words of {label!r}: words stand without spaces around them (got {word!r})"
                    )
                if owner.setdefault(word, label) != label:
                    raise LabelWordError(
                        f"label words: {word!r} stands for both {owner[word]!r} and {label!r}; one word, one label"
                    )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prompt) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @functools.cached_property
    def key(self) -> str:
        """Hash of the content: the same text and words have the same key wherever they came from."""
        words = sorted((label, list(words)) for label, words in self.words.items())
        content: list[object] = [self.text, words]
        if self.soft:
            content += [self.frame, sorted((name, rows.key) for name, rows in self.soft.items())]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]

    @property
    def has_prefix(self) -> bool:
        """Whether some of its rows are keys and values, which stand for no words."""
        return any(rows.form == "prefix" for rows in self.soft.values())

    def fields(self) -> set[str]:
        """Names of the data fields the template reads (``answer`` not among them)."""
        return set(_fields_of(self.text)) - {"answer"}

    @classmethod
    def of_frame(
        cls,
        frame: str,
        slots: Mapping[str, str],
        words: Mapping[str, tuple[str, ...]],
        choices: Mapping[str, Any],
    ) -> Prompt:
        """The prompt whose token slots hold these texts.

        Args:
            frame: a resolved template with marks where token slots stand.
            slots: their texts.
            words: label words.
            choices: how it was made; the texts of the slots are put with them.

        Raises:
            TemplateError: a token slot stands inside template code, or its text is blank.
        """
        if not slots:
            return cls(frame, words, choices)
        _check_holes(frame)
        slots = {name: as_shown(text) for name, text in slots.items()}
        for name, text in slots.items():
            if not text:
                raise TemplateError(
                    f"prompt: the token slot {name!r} would be empty here, and blanks be left in its place",
                    hint="draw the prompt anew from its space with an empty text: the slot then goes with its line",
                )
        return cls(fill(frame, slots), words, {**choices, **slots}, slots, frame)

    def filled(self, values: Mapping[str, str]) -> Prompt:
        """The same prompt with other texts in some of its token slots."""
        self._check_slots(values)
        other = Prompt.of_frame(self.frame, {**self.slots, **values}, self.words, self.choices)
        if not self.soft:
            return other
        kept = {name: rows for name, rows in self.soft.items() if name not in values}
        return dataclasses.replace(other, soft=kept)

    def softened(self, rows: Mapping[str, SoftRows]) -> Prompt:
        """The same prompt with rows in place of the tokens of some of its token slots.

        Raises:
            TemplateError: there is no such slot.
        """
        self._check_slots(rows)
        return dataclasses.replace(self, soft={**self.soft, **rows})

    def hardened(self) -> Prompt:
        """The same prompt with the tokens of its slots' texts in place of rows."""
        return dataclasses.replace(self, soft={})

    def _check_slots(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.slots:
                raise TemplateError(
                    f"prompt: has no token slot {name!r}{nearest(name, self.slots)}; "
                    f"token slots: {', '.join(self.slots) or 'none'}"
                )

    def render(self, fields: Mapping[str, Any], *, with_slots: bool = False) -> Rendered:
        """Render for one example, keeping apart what came from its fields.

        Args:
            fields: the example's fields.
            with_slots: whether token slots are pieces of their own that bear their names; those that hold rows are in
                any case.

        Raises:
            TemplateError: a field is missing, or ``{{ answer }}`` does not stand exactly once.
        """
        # A search over tokens makes thousands of prompts of one frame: that alone is compiled.
        before, after = _render(self.frame or self.text, fields, framed=bool(self.frame))
        if self.frame and not with_slots:
            before, after = (
                HOLE.sub(lambda hole: hole[0] if hole[1] in self.soft else self.slots[hole[1]], part)
                for part in (before, after)
            )
        return Rendered(*(_pieces(part, self.slots, self.soft) for part in (before, after)))

    def check(self, fields: set[str], *, answer_at_end: bool = False, where: str = "prompt") -> None:
        """Check the template against the fields a task has, before anything is run.

        Args:
            fields: names of the task's fields.
            answer_at_end: whether the model reads on from the end of the text (causal, encoder-decoder).
            where: what to call the prompt in errors.
        """
        slot = SLOT.search(self.text)
        if slot is not None:
            raise TemplateError(
                f"{where}: {slot[0]} is a slot of a search space; in a finished prompt the model would read it as it stands",
                hint="put the text there or, where such brackets are meant, write [{##}[ for [[",
            )
        reads = [node for node in _parsed(self.text).find_all(jinja2.nodes.Name) if node.name == "answer"]
        count = len(_ANSWER.findall(self.text))
        if count != 1 or len(reads) != 1:
            count = max(count, len(reads)) if count else 0
            raise TemplateError(
                f"{where}: {{{{ answer }}}} must stand exactly once (found {count} times): it marks "
                "where the label word or completion is read",
                hint='for example "{{ text }} It was {{ answer }}."',
            )
        for name in sorted(self.fields() - fields):
            raise TemplateError(
                f"{where}: the task has no field {name!r}{nearest(name, fields)}; "
                f"fields: {', '.join(sorted(fields))}"
            )
        if not self.fields():
            raise TemplateError(
                f"{where}: reads none of the task's fields ({', '.join(sorted(fields))}), "
                "so it would answer every example alike"
            )
        tail = _ANSWER.split(self.text)[1]
        if answer_at_end and re.search(r"[\w{]", tail):
            raise TemplateError(
                f"{where}: {{{{ answer }}}} stands in the middle (after it: {tail.strip()[:40]!r}), but a "
                "causal or encoder-decoder model reads on from the end of the text",
                hint="move {{ answer }} to the end, or use a masked model",
            )


class _Answer:
    """What ``{{ answer }}`` is while rendering."""


def _finalize(value: object) -> object:
    """Mark what an expression puts out, so that it can be told from the template's own text."""
    if isinstance(value, _Answer):
        return ANSWER_MARK
    if isinstance(value, jinja2.Undefined):
        return str(value)  # StrictUndefined raises here
    return f"{FIELD_START}{without_marks(str(value))}{FIELD_END}"


_ENVIRONMENT = jinja2.sandbox.SandboxedEnvironment(
    undefined=jinja2.StrictUndefined, finalize=_finalize, keep_trailing_newline=True
)
del _ENVIRONMENT.filters["random"]  # the same prompt and example must give the same text


@functools.lru_cache(maxsize=4096)
def _compiled(text: str, framed: bool = False) -> jinja2.Template:
    if not framed:
        _parsed(text)
    try:
        return _ENVIRONMENT.from_string(text)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"prompt: line {error.lineno}: {error.message}") from None


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> jinja2.nodes.Template:
    if not MARKS.isdisjoint(text):
        raise TemplateError(f"prompt: {MARKS_REFUSED}")
    try:
        return _ENVIRONMENT.parse(text)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"prompt: line {error.lineno}: {error.message}") from None


@functools.lru_cache(maxsize=4096)
def _fields_of(text: str) -> frozenset[str]:
    try:
        return frozenset(jinja2.meta.find_undeclared_variables(_parsed(text)))
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"prompt: line {error.lineno}: {error.message}") from None


@functools.lru_cache(maxsize=4096)
def _check_holes(frame: str) -> None:
    """Refuse token slots in code, comments and blocks that change what stands in them: what the frame renders to
    would not be what its text does.
    """
    raw = False
    for _, kind, value in _lexed(frame):
        raw = kind == "raw_begin" or (raw and kind != "raw_end")
        if raw or kind != "data":
            _refuse_hole(value)
    waiting: list[jinja2.nodes.Node] = [_ENVIRONMENT.parse(frame)]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, _OUTSIDE_CODE):
            for data in node.find_all(jinja2.nodes.TemplateData):
                _refuse_hole(data.data)
        else:
            waiting += [
                child for child in node.iter_child_nodes() if not isinstance(child, jinja2.nodes.TemplateData)
            ]


def _lexed(frame: str) -> list[tuple[int, str, str]]:
    try:
        _ENVIRONMENT.parse(frame)
        return list(_ENVIRONMENT.lex(frame))
    except jinja2.TemplateSyntaxError as error:
        for code in re.findall(r"\{[{%].*?[%}]\}", frame, re.DOTALL):
            _refuse_hole(code)
        raise TemplateError(f"prompt: line {error.lineno}: {error.message}") from None


def _refuse_hole(code: str) -> None:
    found = HOLE.search(code)
    if found is not None:
        raise TemplateError(
            f"prompt: the token slot {found[1]!r} stands inside template code, where its text could be changed or "
            "be read as code",
            hint=f"let [[ {found[1]} ]] stand in plain text, outside {{{{ }}}}, {{% %}}, {{# #}} and what is between "
            "raw, set, filter or macro tags",
        )


def _render(text: str, fields: Mapping[str, Any], *, framed: bool = False) -> tuple[str, str]:
    template = _compiled(text, framed)
    try:
        whole = template.render({**fields, "answer": _Answer()})
    except jinja2.UndefinedError as error:
        raise TemplateError(f"prompt: {error.message}; the example has {', '.join(sorted(fields))}") from None
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise TemplateError(f"prompt: cannot be rendered: {type(error).__name__}: {error}") from None
    before, mark, after = whole.partition(ANSWER_MARK)
    if not mark or ANSWER_MARK in after:
        raise TemplateError("prompt: {{ answer }} must be rendered exactly once")
    return before, after


def _pieces(text: str, slots: Mapping[str, str], soft: Mapping[str, SoftRows]) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    end = 0
    for match in _PIECES.finditer(text):
        if match.start() > end:
            pieces.append(Piece(text[end : match.start()]))
        if match["slot"]:
            pieces.append(Piece(slots[match["slot"]], slot=match["slot"], rows=soft.get(match["slot"])))
        elif match["field"]:
            pieces.append(Piece(match["field"], is_field=True))
        end = match.end()
    if end < len(text):
        pieces.append(Piece(text[end:]))
    return tuple(pieces)
