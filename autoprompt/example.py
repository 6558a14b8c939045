"""One example, and how a raw row of data becomes one."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from autoprompt.errors import DataError, nearest
from autoprompt.template import MARKS

Kind = Literal["classification", "multiple_choice", "cloze", "generation"]
WORD = re.compile(r"[\u2e80-\U0010ffff]|[^\W\u2e80-\U0010ffff]+")
"""A word; a sign of a script that sets no spaces between words counts as one."""
_MARKS = "".join(sorted(MARKS))
_JINJA = frozenset(
    re.findall(
        r"\w+",
        "self none None true True false False not and or in is if else range dict lipsum cycler joiner loop",
    )
)
"""Names that a template reads as something else than a field."""


@dataclass(frozen=True, eq=False)
class Example:
    """One row of data. Two examples are equal when their content is.

    Attributes:
        fields: what templates read: text, or a list of texts.
        target: the label's name, the right choice's text, the vocabulary word or the first reference.
        references: all acceptable answers (generation).
        choices: this row's candidates (multiple choice).
        worked: the answer as it was worked out, the steps before it; empty where it is not known (generation).
    """

    fields: Mapping[str, Any]
    target: str
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    worked: str = ""

    @functools.cached_property
    def id(self) -> str:
        """Hash of the content; the same row has the same id wherever it came from."""
        return digest([self.plain_id, self.worked]) if self.worked else self.plain_id

    @functools.cached_property
    def plain_id(self) -> str:
        """The same without the worked answer."""
        return digest([dict(self.fields), self.target, self.references, self.choices])

    @functools.cached_property
    def question(self) -> str:
        """Hash of the content without the answer: two rows that ask the same must not stand in two splits."""
        return digest([dict(self.fields), sorted(self.choices)])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Example) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)


def digest(content: object) -> str:
    """Hash of plain data: 32 hexadecimal digits."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Row:
    """A raw row and where it stands, such as ``reviews.jsonl:12``."""

    values: Mapping[str, Any]
    where: str


@dataclass(frozen=True)
class Layout:
    """Which column of a row is what.

    Attributes:
        kind: kind of the task.
        target: column of the answer; None where ``references`` holds it.
        columns: our field name to the data's column; empty: every column that holds text and is not the
        answer.
        references: column with all acceptable answers (text or list of texts).
        choices: column with the list of choices, or one column per choice.
        worked: column with the answer as it was worked out; a row may leave it empty.
        label_names: raw value of ``target`` (as text) to label.
        labels: the labels that may occur (classification).
    """

    kind: Kind
    target: str | None
    columns: Mapping[str, str] = field(default_factory=dict)
    references: str | None = None
    choices: str | tuple[str, ...] | None = None
    worked: str | None = None
    label_names: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a kind of task that there is not."""
        if self.kind not in get_args(Kind):
            kinds = get_args(Kind)
            raise DataError(
                f"kind: no kind {self.kind!r}{nearest(str(self.kind), kinds)}; kinds: {', '.join(kinds)}"
            )

    def columns_for(self, tables: Sequence[Sequence[Row]]) -> dict[str, str]:
        """Our field name to column: as given, or all columns of the first table that hold text in all of them.

        Numbers are no fields unless asked for: a row number would make every repeated text another question.

        Raises:
            DataError: a field is called ``answer``, which marks the answer place in templates, or by a word of Jinja.
        """
        if "answer" in self.columns:
            raise DataError(
                "fields: no field can be called 'answer': {{ answer }} marks where the answer is read",
                hint="give it another name: fields={'reply': 'answer', ...}",
            )
        for name, column in self.columns.items():
            _check_name(name, column)
        if self.columns or not tables:
            return dict(self.columns)
        found = self._text_columns(tables)
        fields = {name: name for name in found if str(name).isidentifier() and name not in _JINJA}
        if found and not fields:
            _check_name(found[0], found[0])
        return fields

    def notes(self, tables: Sequence[Sequence[Row]], columns: Mapping[str, str]) -> list[str]:
        """What the user should know about the fields that ``columns_for`` gave: texts that no prompt can read, and answers
        that one can.
        """
        unread = [] if self.columns else [name for name in self._text_columns(tables) if name not in columns]
        answers = (self.target, self.references, self.worked)
        return [
            *(
                f"column {name!r} is not read, since a template cannot call it so: name all fields, among them "
                f"{{{_as_name(name)}: {name}}} (columns under data in a task file, fields= in Python)"
                for name in unread
            ),
            *(
                f"field {name!r} is the column of the answer ({column!r}): a prompt that shows it gives the answer away"
                for name, column in columns.items()
                if column in answers
            ),
        ]

    def _text_columns(self, tables: Sequence[Sequence[Row]]) -> list[Any]:
        """Columns of the first table that hold text in all of them and are not the answer, nor another's name for it."""
        rows = [row for table in tables for row in table]
        taken = {self.target, self.references, self.worked, "answer"}
        taken |= {self.choices} if isinstance(self.choices, str) else set(self.choices or ())
        names = dict.fromkeys(name for row in tables[0] for name in row.values)
        return [name for name in names if name not in taken and _holds_text(rows, name)]

    def example(self, row: Row, columns: Mapping[str, str]) -> Example:
        """Make the example of a row.

        Raises:
            DataError: a column is missing, empty or of the wrong type, or the answer is not allowed.
        """
        fields = {
            name: _field(_cell(row, column, f"field {name!r}"), f"{row.where}: column {column!r}")
            for name, column in columns.items()
        }
        references: tuple[str, ...] = ()
        choices: tuple[str, ...] = ()
        if self.choices is not None:
            choices = self._choices(row, self.choices)
        if self.references is not None:
            found = _field(_cell(row, self.references, "references"), f"{row.where}: references")
            references = (found,) if isinstance(found, str) else tuple(found)
            if not references:
                raise DataError(f"{row.where}: column {self.references!r}: holds no answer")
        worked = self._worked(row)
        if self.target is None:
            return Example(fields, references[0], references, choices, worked)
        raw = _cell(row, self.target, "target")
        key = raw_key(raw, f"{row.where}: column {self.target!r}")
        is_place = isinstance(raw, int) and not isinstance(raw, bool) and key not in self.label_names
        if self.kind == "multiple_choice" and is_place:
            target = self._nth(int(key), row, choices)
        else:
            target = self._target(key, row, choices)
        if references and target not in references:
            references = (target, *references)
        return Example(fields, target, references, choices, worked)

    def _worked(self, row: Row) -> str:
        """The worked answer; a row may lack it, but the column must not be misspelt."""
        if self.worked is None or _is_nothing(row.values.get(self.worked, "")):
            return ""
        return raw_key(_cell(row, self.worked, "worked"), f"{row.where}: column {self.worked!r}").strip()

    def _choices(self, row: Row, where: str | tuple[str, ...]) -> tuple[str, ...]:
        named = f"{row.where}: choices"
        if isinstance(where, tuple):
            found: Any = [_cell(row, column, "choices") for column in where]
        else:
            found = _cell(row, where, "choices")
            if isinstance(found, str) or not isinstance(found, Sequence):
                raise DataError(f"{named}: column {where!r} must hold a list of texts (got {_short(found)})")
        choices = tuple(raw_key(item, named).strip() for item in found)
        if len(choices) < 2 or len(set(choices)) < len(choices):
            raise DataError(f"{named}: at least two different choices are needed (got {_short(choices)})")
        return choices

    def _nth(self, place: int, row: Row, choices: tuple[str, ...]) -> str:
        """The choice at a place counted from 0: a number is a place even where it is a choice's text, too."""
        if not 0 <= place < len(choices):
            raise DataError(
                f"{row.where}: column {self.target!r}: {place} is no place among the {len(choices)} choices, "
                f"counted from 0: {_short(choices)}"
            )
        return choices[place]

    def _target(self, raw: str, row: Row, choices: tuple[str, ...]) -> str:
        target = self.label_names.get(raw, raw)
        where = f"{row.where}: column {self.target!r}"
        if self.kind == "classification" and self.labels and target not in self.labels:
            if self.label_names and raw not in self.label_names:
                known = f"label_names: {', '.join(self.label_names)}"
            else:
                known = f"labels: {', '.join(self.labels)}"
            raise DataError(
                f"{where}: value {raw!r} is none of the {known}{nearest(raw, self.labels)}",
                hint="map raw values to labels by data.label_names, or add the label to labels and words",
            )
        if self.kind == "multiple_choice":
            return _chosen(target.strip(), choices, where)
        if not target.strip():
            raise DataError(f"{where}: the answer is empty")
        return target


def _check_name(name: str, column: str) -> None:
    if not str(name).isidentifier() or name in _JINJA:
        why = (
            "which means something else in templates"
            if name in _JINJA
            else "since a template cannot read it so"
        )
        raise DataError(
            f"fields: no field can be called {name!r}, {why}",
            hint=f"give the column another name: fields={{{_as_name(name)!r}: {column!r}, ...}}",
        )


def _as_name(column: object) -> str:
    """A name that a template can read, for a column that has none."""
    name = re.sub(r"\W+", "_", str(column)).strip("_")
    return name if name.isidentifier() and name not in _JINJA else f"the_{name}".rstrip("_")


def _chosen(answer: str, choices: tuple[str, ...], where: str) -> str:
    """The choice that a text means: the text itself, or its place counted from 0; never a guess between them."""
    places = [choices[int(answer)]] if answer.isdecimal() and int(answer) < len(choices) else []
    meant = list(dict.fromkeys([answer, *places] if answer in choices else places))
    if len(meant) > 1:
        raise DataError(
            f"{where}: {answer!r} is the choice {meant[0]!r} and also the place (counted from 0) of the choice "
            f"{meant[1]!r}; choices: {_short(choices)}",
            hint="give places as numbers, not as text (a .jsonl file can)",
        )
    if not meant:
        raise DataError(
            f"{where}: {answer!r} is neither one of the choices nor their place, counted from 0; "
            f"choices: {_short(choices)}"
        )
    return meant[0]


def raw_key(value: object, where: str) -> str:
    """A raw answer as text: ``1`` and ``1.0`` are ``"1"``, ``True`` is ``"true"``; text stays as it is."""
    if isinstance(value, str):
        check_text(value, where)
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and value == value:
        return str(int(value)) if value.is_integer() else repr(value)
    raise DataError(f"{where}: must be text or a number (got {_short(value)})")


def check_text(text: str, where: str) -> None:
    """Refuse text that cannot be written as UTF-8, and the characters that mark places inside rendered
    prompts.

    Raises:
        DataError: names the character.
    """
    for mark in _MARKS:
        if mark in text:
            raise DataError(
                f"{where}: holds the Unicode non-character U+{ord(mark):04X} at place {text.index(mark)}, "
                "which no exchanged text may hold",
                hint="remove it from the data",
            )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: holds half a surrogate pair (U+{ord(text[error.start]):04X}) at place {error.start}"
        ) from None


def _cell(row: Row, column: str, role: str) -> Any:
    if column not in row.values:
        raise DataError(
            f"{row.where}: no column {column!r} for {role}{nearest(column, row.values)}; "
            f"columns: {', '.join(map(str, row.values)) or 'none'}"
        )
    value = row.values[column]
    if _is_nothing(value):
        shown = "null" if value is None else "NaN"
        raise DataError(f"{row.where}: column {column!r} is empty ({shown}), but it is needed for {role}")
    return value


def _is_nothing(value: object) -> bool:
    """Whether a cell is empty: null, or the NaN that pandas puts in its place."""
    return value is None or (isinstance(value, float) and value != value)


def _field(value: object, where: str) -> str | list[str]:
    if isinstance(value, (list, tuple)):
        return [raw_key(item, where) for item in value]
    return raw_key(value, where)


def _holds_text(rows: Sequence[Row], name: str) -> bool:
    """Whether text stands there and never a number; a null or an object beside text is an error of its row."""
    values = [row.values[name] for row in rows if not _is_nothing(row.values.get(name))]
    return any(map(_is_text, values)) and not any(isinstance(value, (int, float)) for value in values)


def _is_text(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(item, str) for item in value)
    return isinstance(value, str)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
