"""LM-BFF's templates (Gao et al., 2021): ``*cls**sent_0*_It_was*mask*.*sep+*``, with ``_`` for a blank.

Its marks, as the tool documents and applies them: ``*sent_i*`` the i-th text; ``-`` without its last character;
``l`` and ``u`` with its first character in lower or upper case; a leading ``+`` a blank before it. ``*mask*`` and
``*label_i*`` bring their own blank, since label words are looked up with one.
"""

from __future__ import annotations

import re

from autoprompt.errors import TemplateError, nearest
from autoprompt.importers.writing import Writer

SPECIAL = ("cls", "sep", "sep+", "bos", "eos")
MARKS = (*SPECIAL, "mask", "sent_0", "sent-_0", "sentl_0", "sentu_0", "sentl-_0", "+sent_0", "+sentl_0")
_SENT = re.compile(r"(?P<blank>\+?)sent(?P<case>[lu]?)(?P<shorter>-?)_(?P<number>\d{1,3})")
_LABEL = re.compile(r"label_(\d{1,3})")
_CASES = {"": "{}", "l": "({}[:1] | lower) ~ {}[1:]", "u": "({}[:1] | upper) ~ {}[1:]"}


def lmbff(text: str, writer: Writer) -> None:
    """Write an LM-BFF template."""
    pieces = text.split("*")
    if len(pieces) % 2 == 0:
        raise TemplateError(
            "lmbff template: an asterisk has no partner: marks stand between two, as in *mask*",
            hint="for example *cls**sent_0*_It_was*mask*.*sep+*",
        )
    for place, piece in enumerate(pieces):
        if place % 2 == 0:
            writer.text(piece.replace("_", " "))
        else:
            _mark(piece, writer)
    if not writer.has_answer:
        raise TemplateError(
            "lmbff template: *mask* is missing: it marks where the answer is read",
            hint="for example *cls**sent_0*_It_was*mask*.*sep+*",
        )


def _mark(name: str, writer: Writer) -> None:
    sentence, label = _SENT.fullmatch(name), _LABEL.fullmatch(name)
    if name in SPECIAL:
        writer.special(f"*{name}*", tight=False)
    elif name == "mask":
        if writer.needs_space():
            writer.text(" ")
            writer.note("A blank was put before the answer: LM-BFF's label words bring their own.")
        writer.answer("*mask*")
    elif sentence:
        _sentence(sentence, writer)
    elif label:
        if writer.needs_space():
            writer.text(" ")
        writer.label_word(int(label[1]), f"*{name}*")
    elif name.startswith("labelx_"):
        raise TemplateError(
            f"lmbff template: *{name}* is the label word of a demonstration, which is drawn anew each time",
            hint="import the template without demonstrations and add a pick slot to the search space",
        )
    else:
        raise TemplateError(
            f"lmbff template: no mark *{name}*{nearest(name, MARKS)}; marks: "
            f"{', '.join(f'*{mark}*' for mark in MARKS)}, *label_0*"
        )


def _sentence(mark: re.Match[str], writer: Writer) -> None:
    number = int(mark["number"])
    field = writer.names.of(f"sent_{number}", place=number)
    if mark["blank"]:
        writer.text(" ")
    expression = _CASES[mark["case"]]
    if mark["shorter"]:
        expression = f"({expression})[:-1]" if mark["case"] else f"{expression}[:-1]"
        writer.note(f"*{mark[0]}* drops the last character of {field!r}, whatever it is, as LM-BFF does.")
    writer.field(field, expression)
