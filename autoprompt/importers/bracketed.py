"""Forms with one mark for each thing: AutoPrompt's ``[T]`` and ``[P]``, LAMA's ``[X]`` and ``[Y]``, and ``{field}``.

``{field}`` is what ``str.format`` reads (AutoPrompt, f-strings, LangChain). It is only taken apart here.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator

from autoprompt.errors import TemplateError, nearest
from autoprompt.importers.writing import Writer

AUTOPROMPT_MARKS = ("[T]", "[P]", "[CLS]", "[SEP]", "<s>", "</s>")
LAMA_MARKS = ("[X]", "[Y]")
SUBJECT = "subject"
_AUTOPROMPT = re.compile(
    r"(?P<run>\[T\](?:\s*\[T\])*)|(?P<answer>\[P\])|\s*(?P<special>\[CLS\]|\[SEP\]|</?s>)\s*"
    r"|(?P<unknown>\[(?:[A-Z]+|[a-z])\])"
)
_LAMA = re.compile(r"(?P<subject>\[X\])|(?P<answer>\[Y\])|(?P<unknown>\[(?:[A-Z]+|[a-z])\])")
# LAMA's templates are written in tokens with a blank between any two, as in "[X] 's capital is [Y] ."
_BEFORE_POINT = re.compile(r"(?<=[^\s]) +(?=(?:[.,;:!?]+|\)|'s|'re|'ve|'ll|n't)(?:\s|$))")
_AFTER_OPENING = re.compile(r"(?<=\() +")
_WORD_PIECE = re.compile(r"(?<=\w) ##(?=\w)")


def autoprompt(text: str, writer: Writer) -> None:
    """Write ``{sentence} [T] [T] [P] .`` (Shin et al., 2020)."""
    for literal, name in format_parts(text, "autoprompt template"):
        end = 0
        for match in _AUTOPROMPT.finditer(literal):
            writer.text(literal[end : match.start()])
            end = match.end()
            if match["run"]:
                writer.tokens(match["run"].count("[T]"))
            elif match["answer"]:
                writer.answer("[P]")
            elif match["special"]:
                writer.special(match["special"])
            else:
                _refuse("autoprompt template", match["unknown"], AUTOPROMPT_MARKS, "[P]")
        writer.text(literal[end:])
        if name is not None:
            writer.field(writer.names.of(name, default=name))
    _need_answer(writer, "[P]", '"{sentence} [T] [T] [T] [P] ."')


def lama(text: str, writer: Writer) -> None:
    """Write ``[X] is located in [Y] .`` (Petroni et al., 2019; LPAQA; what AutoPrompt prints for LAMA)."""
    plain = _WORD_PIECE.sub("", text)
    if plain != text:
        writer.note("Pieces of words (##) were joined to the words before them.")
    tidy = _AFTER_OPENING.sub("", _BEFORE_POINT.sub("", plain))
    if tidy != plain:
        writer.note("Blanks before punctuation were taken out: '[Y] .' became '[Y].'.")
    end = 0
    for match in _LAMA.finditer(tidy):
        writer.text(tidy[end : match.start()])
        end = match.end()
        if match["subject"]:
            writer.field(writer.names.of("X", place=0, default=SUBJECT))
        elif match["answer"]:
            writer.answer("[Y]")
        else:
            _refuse("lama template", match["unknown"], LAMA_MARKS, "[Y]")
    writer.text(tidy[end:])
    _need_answer(writer, "[Y]", '"[X] is located in [Y] ."')


def fstring(text: str, writer: Writer) -> None:
    """Write ``Review: {text} Sentiment: {answer}``; without ``{answer}`` the answer comes at the end."""
    for literal, name in format_parts(text, "fstring template"):
        writer.text(literal)
        if name == "answer":
            writer.answer("{answer}")
        elif name is not None:
            writer.field(writer.names.of(name, default=name))
    if not writer.has_answer:
        if writer.needs_space():
            writer.text(" ")
        writer.answer("{answer}")
        writer.note("It had no place for the answer; {{ answer }} was put at the end.")


def format_parts(text: str, where: str) -> Iterator[tuple[str, str | None]]:
    """(literal text, name of the field after it or None) of a ``str.format`` template.

    Raises:
        TemplateError: braces that do not close, or a field that is more than a name.
    """
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise TemplateError(
            f"{where}: {error}", hint="a brace that is meant as a brace is written twice: {{ or }}"
        ) from None
    for literal, name, form, conversion in parts:
        if name is not None and (form or conversion):
            tail = (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
            raise TemplateError(
                f"{where}: the field {{{name}{tail}}} is formatted with {tail!r}, which is not carried over",
                hint=f"write {{{name}}}, or write the template in Jinja2 with a filter: "
                '{{ "%.2f" | format(price) }}',
            )
        if name is not None and (not name or name.isdecimal()):
            raise TemplateError(
                f"{where}: the field {{{name}}} has no name, only a place",
                hint="give it the name of the task's field: {text}",
            )
        if name is not None and not name.isidentifier():
            raise TemplateError(
                f"{where}: the field {{{name}}} is more than a name",
                hint="write the plain name of the task's field: {text}; braces that are text are written twice",
            )
        yield literal, name


def _refuse(where: str, mark: str, known: tuple[str, ...], answer: str) -> None:
    raise TemplateError(
        f"{where}: no mark {mark}{nearest(mark, known)}; marks: {', '.join(known)}",
        hint=f"the place of the answer is written {answer}; other text in such brackets needs the Jinja2 form",
    )


def _need_answer(writer: Writer, mark: str, example: str) -> None:
    if not writer.has_answer:
        raise TemplateError(
            f"{writer.form} template: {mark} is missing: it marks where the answer is read",
            hint=f"for example {example}",
        )
