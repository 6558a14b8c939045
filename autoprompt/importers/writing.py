"""Puts an imported template together: literal text escaped, fields, slots and the answer as Jinja2."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from autoprompt.errors import InputError, TemplateError, nearest
from autoprompt.prompt import Prompt
from autoprompt.template import Data, SlotValue, Template, escape

MAX_TOKENS = 64
"""The most tokens one slot may hold (``slots.Tokens``)."""

Fields = Sequence[str] | Mapping[str, str]
_LABEL = re.compile(r"[^\]|\s](?:[^\]|\n]*[^\]|\s])?")


@dataclass(frozen=True)
class Part:
    """A piece of the template to be.

    ``text`` is literal; ``code`` is Jinja2 or a reference to label words; ``slot`` holds the number of a token
    slot; ``break`` is a mark of the tokenizer (``[SEP]``), ``tight`` where blanks beside it belong to it.
    """

    kind: Literal["text", "code", "slot", "break"]
    value: str = ""
    number: int = 0
    tight: bool = True


@dataclass
class Names:
    """Which of the task's fields a foreign name means.

    Attributes:
        given: the task's fields in order, or foreign name to field; None keeps the foreign names.
    """

    given: Fields | None
    _known: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.given is None:
            return
        names = self.given.values() if isinstance(self.given, Mapping) else self.given
        is_list = isinstance(self.given, (Sequence, Mapping)) and not isinstance(self.given, str)
        if not is_list or not all(isinstance(name, str) for name in [*self.given, *names]):
            raise InputError(
                f"fields: expected the names of the task's fields in order, or a mapping from the template's "
                f"names to them (got {self.given!r:.80})",
                hint='write fields=["text"] or fields={"sentence": "text"}',
            )

    def of(self, theirs: str, *, place: int | None = None, default: str | None = None) -> str:
        """Return our name of a field.

        Args:
            theirs: the name in the template.
            place: which field it is, counted from 0, where the form counts its fields.
            default: our name where nothing is given; None refuses to guess.

        Raises:
            TemplateError: there is no such field.
            InputError: nothing says which field it is.
        """
        if theirs not in self._known:
            self._known[theirs] = self._checked(self._find(theirs, place, default), theirs)
        return self._known[theirs]

    def check_all_used(self) -> None:
        """Refuse a mapping that names fields the template does not read."""
        for theirs in self.given if isinstance(self.given, Mapping) else ():
            if theirs not in self._known:
                raise InputError(
                    f"fields: the template reads no {theirs!r}{nearest(theirs, self._known)}; "
                    f"it reads: {', '.join(self._known) or 'nothing'}"
                )

    def _find(self, theirs: str, place: int | None, default: str | None) -> str:
        if self.given is None:
            if default is None:
                raise InputError(
                    f"the template reads {theirs!r}, and nothing says which field of the task that is",
                    hint='give the names of the task\'s fields in order: fields=["text"] or ["premise", "hypothesis"]',
                )
            return default
        if isinstance(self.given, Mapping):
            if theirs not in self.given and default is None:
                raise TemplateError(
                    f"fields: says nothing of {theirs!r}{nearest(theirs, self.given)}, which the template reads; "
                    f"it names: {', '.join(self.given) or 'nothing'}"
                )
            return self.given.get(theirs, default or "")
        if theirs in self.given:
            return theirs
        if place is not None and place < len(self.given):
            return self.given[place]
        wanted = f"{theirs!r}" if place is None else f"{theirs!r}, field number {place + 1}"
        raise TemplateError(
            f"the template reads {wanted}, but the fields given are {', '.join(self.given) or 'none'}"
            f"{nearest(theirs, self.given)}",
            hint=f'name one more field, or say which one it is: fields={{"{theirs}": "..."}}',
        )

    def _checked(self, name: str, theirs: str) -> str:
        """Refuse names that Jinja2 would not read as a field."""
        readable = name.isidentifier() and name != "answer"
        if readable:
            try:
                readable = Prompt(f"{{{{ {name} }}}}{{{{ answer }}}}").render({name: "x"}).text() == "x"
            except TemplateError:
                readable = False
        if not readable:
            reason = "marks where the answer is read" if name == "answer" else "is no name of a field"
            raise TemplateError(
                f"the template reads {theirs!r}, but {name!r} {reason}",
                hint=f'say which field of the task it is: fields={{"{theirs}": "text"}}',
            )
        return name


class Writer:
    """Collects the parts of one template, then checks and writes it.

    Attributes:
        form: the form it comes from, for errors.
        names: which field a foreign name means.
        labels: the task's labels in order, for forms that write label words by number.
        notes: what was changed or dropped, in plain sentences.
    """

    def __init__(self, form: str, names: Names, labels: Sequence[str] | None) -> None:
        self.form = form
        self.names = names
        self.labels = labels
        self.notes: list[str] = []
        self._parts: list[Part] = []
        self._tokens: list[dict[str, Any]] = []
        self._label_words: list[str] = []
        self._has_answer = False

    def note(self, sentence: str) -> None:
        """Keep a sentence about what was changed; the same one once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def text(self, literal: str) -> None:
        """Add text that stands as it is."""
        if literal and self._parts and self._parts[-1].kind == "text":
            self._parts[-1] = Part("text", self._parts[-1].value + literal)
        elif literal:
            self._parts.append(Part("text", literal))

    def field(self, name: str, expression: str = "{}") -> None:
        """Add a field of ours; ``expression`` is Jinja2 with ``{}`` where its name goes."""
        self._parts.append(Part("code", f"{{{{ {expression.replace('{}', name)} }}}}"))

    def answer(self, mark: str) -> None:
        """Add the place of the answer, which the foreign template writes as ``mark``."""
        if self._has_answer:
            raise TemplateError(
                f"{self.form} template: {mark} stands more than once, and a prompt has one answer",
                hint="write the other places as plain text",
            )
        self._has_answer = True
        self._parts.append(Part("code", "{{ answer }}"))

    def label_word(self, number: int, mark: str) -> None:
        """Add the word of a label that is given by its number."""
        if self.labels is None or number >= len(self.labels):
            given = ", ".join(self.labels or ()) or "none"
            raise InputError(
                f"{self.form} template: {mark} is the word of label number {number} (counted from 0), but the "
                f"labels given are {given}",
                hint='give the task\'s labels in order: labels=["negative", "positive"]',
            )
        label = self.labels[number]
        if not _LABEL.fullmatch(label):
            raise InputError(
                f"labels: {label!r} cannot stand in [[ words.LABEL ]]: no ']', '|' or outer blanks"
            )
        self._label_words.append(label)
        self._parts.append(Part("code", f"[[ words.{label} ]]"))

    def tokens(self, n: int, init: str = "") -> int:
        """Add a slot of ``n`` tokens, perhaps with the text to start from; return its number."""
        if not 1 <= n <= MAX_TOKENS:
            raise TemplateError(
                f"{self.form} template: {n} tokens in a row, but a slot holds 1 to {MAX_TOKENS} of them",
                hint="write fewer, or break the row with a word",
            )
        self._tokens.append({"n": n, "init": init} if init else {"n": n})
        self.slot(len(self._tokens) - 1)
        return len(self._tokens) - 1

    def slot(self, number: int) -> None:
        """Add a token slot once more."""
        self._parts.append(Part("slot", number=number))

    def special(self, mark: str, *, tight: bool = True) -> None:
        """Add a mark of the tokenizer: dropped at the ends, a line break between texts.

        Args:
            mark: how the foreign template writes it.
            tight: whether blanks beside it belong to it and go with it.
        """
        self._parts.append(Part("break", mark, tight=tight))

    def needs_space(self) -> bool:
        """Whether something stands before this place and does not end in a blank."""
        last = self._parts[-1] if self._parts else Part("break")
        return last.kind != "break" and not (last.kind == "text" and last.value[-1].isspace())

    @property
    def has_answer(self) -> bool:
        """Whether the place of the answer was added."""
        return self._has_answer

    def finish(self, slot_name: str) -> tuple[str, dict[str, Any], Prompt]:
        """Return the template, the specifications of its slots, and the prompt with a word in every slot.

        Args:
            slot_name: what to call its token slot; numbered where there are several.

        Raises:
            TemplateError: it has no answer or reads no field.
        """
        count = len(self._tokens)
        names = [slot_name if count == 1 else f"{slot_name}_{number + 1}" for number in range(count)]
        template = "".join(self._source(part, names) for part in self._without_breaks()).rstrip()
        slots = {name: {"tokens": tokens} for name, tokens in zip(names, self._tokens, strict=True)}
        prompt = check(template, f"{self.form} template", names, self._label_words)
        self.names.check_all_used()
        prompt.render(dict.fromkeys(prompt.fields(), "text"))
        self._note_the_place(prompt.text)
        return template, slots, prompt

    def _note_the_place(self, text: str) -> None:
        if re.search(r"\w", text.rpartition("{{ answer }}")[2]):
            self.note("Text follows the answer, so only a masked model can use this template as it is.")

    def _source(self, part: Part, names: Sequence[str]) -> str:
        if part.kind == "slot":
            return f"[[ {names[part.number]} ]]"
        return escape(part.value) if part.kind == "text" else part.value

    def _without_breaks(self) -> list[Part]:
        """Turn marks of the tokenizer between texts into line breaks, and drop those at the ends."""
        segments: list[list[Part]] = [[]]
        breaks: list[Part] = []
        for part in self._parts:
            if part.kind == "break":
                breaks.append(part)
                segments.append([])
            else:
                segments[-1].append(part)
        if not breaks:
            return self._parts
        kept = [index for index, segment in enumerate(segments) if not _is_blank(segment)]
        first, last = (kept[0], kept[-1]) if kept else (0, 0)
        for index in kept:
            before = index > 0 and (breaks[index - 1].tight or index > first)
            after = index < len(breaks) and (breaks[index].tight or index < last)
            segments[index] = _trimmed(segments[index], before, after)
        ends = [mark for place, mark in enumerate(breaks) if not first <= place < last]
        inner = [mark for place, mark in enumerate(breaks) if first <= place < last]
        self._note_breaks([mark.value for mark in ends], [mark.value for mark in inner])
        joined: list[Part] = []
        for index in kept:
            joined += [*([Part("text", "\n")] if joined else []), *segments[index]]
        return _merged(joined)

    def _note_breaks(self, ends: Sequence[str], inner: Sequence[str]) -> None:
        if ends:
            self.note(f"Dropped {_listed(ends)} at the ends: the tokenizer adds such marks itself.")
        if inner:
            self.note(f"{_listed(inner)} between two texts became a line break: marks are no text.")


def check(template: str, where: str, slots: Sequence[str], labels: Sequence[str]) -> Prompt:
    """Check a template with a word in every slot; return the prompt this makes.

    Raises:
        TemplateError: the answer does not stand exactly once, no field is read, or it cannot be read at all.
    """
    words = {label: Data("word") for label in labels}
    values: dict[str, SlotValue] = {name: Data("word") for name in slots}
    if words:
        values["words"] = words
    prompt = Prompt(Template(template, where).resolve(values))
    try:
        prompt.check(prompt.fields(), where=where)
    except RecursionError:
        raise TemplateError(f"{where}: brackets lie too deep to be read") from None
    return prompt


def check_labels(labels: Sequence[str] | None) -> None:
    """Refuse labels that are no list of texts.

    Raises:
        InputError: they are not.
    """
    if labels is None:
        return
    is_list = isinstance(labels, Sequence) and not isinstance(labels, str)
    if not is_list or not all(isinstance(label, str) for label in labels):
        raise InputError(
            f"labels: expected the task's labels in order (got {labels!r:.80})",
            hint='write labels=["negative", "positive"]',
        )


def _is_blank(segment: Sequence[Part]) -> bool:
    return all(part.kind == "text" and not part.value.strip() for part in segment)


def _trimmed(segment: list[Part], before: bool, after: bool) -> list[Part]:
    """Take blanks off the literal text at the ends of a segment."""
    segment = _merged(segment)
    if before and segment[0].kind == "text":
        segment[0] = Part("text", segment[0].value.lstrip())
    if after and segment[-1].kind == "text":
        segment[-1] = Part("text", segment[-1].value.rstrip())
    return segment


def _merged(parts: Sequence[Part]) -> list[Part]:
    """Join neighbouring texts: an opening bracket may not come about between two of them."""
    merged: list[Part] = []
    for part in parts:
        if part.kind == "text" and merged and merged[-1].kind == "text":
            merged[-1] = Part("text", merged[-1].value + part.value)
        else:
            merged.append(part)
    return merged


def _listed(marks: Sequence[str]) -> str:
    return " and ".join(dict.fromkeys(marks))
