"""Templates and label words of other tools, read into Jinja2. Nothing that is read is ever run.

>>> import_template("{sentence} [T] [T] [T] [P] .").template
'{{ sentence }} [[ trigger ]] {{ answer }} .'
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autoprompt.errors import InputError, TemplateError, UnknownName, nearest
from autoprompt.importers.bracketed import AUTOPROMPT_MARKS, LAMA_MARKS, autoprompt, fstring, lama
from autoprompt.importers.lmbff import MARKS, lmbff
from autoprompt.importers.openprompt import openprompt
from autoprompt.importers.verbalizers import import_verbalizer
from autoprompt.importers.writing import Fields, Names, Writer, check, check_labels
from autoprompt.template import Template

__all__ = ["FORMS", "Imported", "import_template", "import_verbalizer"]

_READERS: dict[str, tuple[Callable[[str, Writer], None], str]] = {
    "autoprompt": (autoprompt, "trigger"),
    "lmbff": (lmbff, "trigger"),
    "openprompt": (openprompt, "soft"),
    "lama": (lama, "trigger"),
    "fstring": (fstring, "trigger"),
}
FORMS = (*_READERS, "jinja2")
"""The forms that can be read."""

_SIGNS = {
    "autoprompt": re.compile(r"\[[TP]\]"),
    "lmbff": re.compile(r"\*(?:cls|sep\+?|mask|\+?sent[lu]?-?_\d+|labelx?_\d+)\*"),
    "openprompt": re.compile(r"(?<!\{)\{\s*[\"']\w+[\"']\s*[:,}]"),
    "lama": re.compile(r"\[[XY]\]"),
    # An odd number of braces: two stand for one that is text, the last opens a field.
    "fstring": re.compile(r"(?<!\{)(?:\{\{)*\{(?:[^\s{}\"'%#][^{}]*)?\}"),
    "jinja2": re.compile(r"(?<!\{)\{\{-?\s*[A-Za-z_(][^{}]*\}\}|(?<!\{)\{%|\[\[\s*[A-Za-z_][\w. |]*\]\]"),
}
_EXAMPLES = {
    "autoprompt": "{sentence} [T] [T] [T] [P] .",
    "lmbff": "*cls**sent_0*_It_was*mask*.*sep+*",
    "openprompt": '{"placeholder": "text_a"} It was {"mask"}.',
    "lama": "[X] is located in [Y] .",
    "fstring": "Review: {text} Sentiment: {answer}",
    "jinja2": "{{ text }} It was {{ answer }}.",
}
_MARK_LIKE = re.compile(r"\*[+\w-]{2,12}\*|\[[A-Za-z]{1,8}\]|<[A-Za-z/|]{1,8}>")
_SCORE = re.compile(r"\A\s*-?\d+\.\d+\s+(?=\*)")


@dataclass(frozen=True)
class Imported:
    """A template read from another tool's form.

    Attributes:
        template: Jinja2 text, with ``{{ answer }}`` exactly once and ``[[ slot ]]`` where something is searched for.
        slots: specifications of the slots, as a search space file would hold them.
        form: the form it was read as.
        notes: what was changed or dropped, in plain sentences.
        fields: the task's fields it reads, sorted.
        labels: the task's labels in order, where the template writes label words by number.
    """

    template: str
    slots: Mapping[str, Any]
    form: str
    notes: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    labels: tuple[str, ...] = field(default=())

    def space(self, words: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """Return what a search space file would hold (``SearchSpace.from_dict`` takes it).

        Args:
            words: label words, as ``import_verbalizer`` returns them; the task's own where not given.
        """
        slots: dict[str, Any] = {name: dict(slot) for name, slot in self.slots.items()}
        if words:
            slots["words"] = {"map": {label: [list(group)] for label, group in words.items()}}
        content: dict[str, Any] = {
            "format": "autoprompt-space/1",
            "title": f"imported from {self.form}",
            "about": "\n".join(self.notes),
            "template": self.template,
            "slots": slots,
            "fields": list(self.fields),
        }
        if self.labels:
            content["labels"] = list(self.labels)
        return content


def import_template(
    text: str,
    *,
    form: str = "auto",
    fields: Fields | None = None,
    labels: Sequence[str] | None = None,
) -> Imported:
    """Read a template of another tool.

    Args:
        text: the template; also a line of LAMA's ``relations.jsonl`` or of LM-BFF's score files.
        form: one of ``FORMS``, or ``auto`` to tell it by its marks.
        fields: the task's fields in order, or a mapping from the template's names to them.
        labels: the task's labels in order, for templates that write label words by number.

    Raises:
        InputError: no form fits, or two do.
        TemplateError: the text is not such a template.
    """
    if not isinstance(text, str):
        raise InputError(f"template: expected text (got {text!r:.60})")
    check_labels(labels)
    if form not in ("auto", *FORMS):
        raise UnknownName(
            f"no template form {form!r}{nearest(str(form), FORMS)}; forms: {', '.join(FORMS)}, auto"
        )
    notes: list[str] = []
    text = _unwrapped(text, notes)
    form = _recognise(text) if form == "auto" else form
    names = Names(fields)
    if form == "jinja2":
        return _jinja(text, names, tuple(notes))
    writer = Writer(form, names, labels)
    for sentence in notes:
        writer.note(sentence)
    read, slot_name = _READERS[form]
    read(text, writer)
    template, slots, prompt = writer.finish(slot_name)
    used = tuple(labels or ()) if "words" in Template(template).references() else ()
    return Imported(template, slots, form, tuple(writer.notes), tuple(sorted(prompt.fields())), used)


def _unwrapped(text: str, notes: list[str]) -> str:
    """The template alone, where it stands in a line of ``relations.jsonl`` or after a score."""
    score = _SCORE.match(text)
    if score:
        notes.append(f"Dropped the score {score[0].strip()} before the template.")
        return text[score.end() :].rstrip()
    if text.lstrip().startswith("{") and '"template"' in text:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            return text
        if isinstance(line, dict) and isinstance(line.get("template"), str):
            others = ", ".join(f"{name}={value!r:.40}" for name, value in line.items() if name != "template")
            notes.append(f"Took the template out of a JSON line{f' ({others} dropped)' if others else ''}.")
            return str(line["template"])
    return text


def _recognise(text: str) -> str:
    """The one form whose marks stand in the text."""
    fits = [form for form, sign in _SIGNS.items() if sign.search(text)]
    if "autoprompt" in fits and "fstring" in fits:
        fits.remove("fstring")  # AutoPrompt writes its fields that way
    if len(fits) == 1:
        return fits[0]
    examples = "; ".join(f"{form}: {_EXAMPLES[form]}" for form in fits or FORMS)
    if fits:
        raise InputError(
            f"template: could be {' or '.join(fits)} ({examples})",
            hint=f'say which: form="{fits[0]}" (command line: --form {fits[0]})',
        )
    known = [*AUTOPROMPT_MARKS, *LAMA_MARKS, *(f"*{mark}*" for mark in MARKS)]
    guesses = [f"{mark}{nearest(mark, known)}" for mark in dict.fromkeys(_MARK_LIKE.findall(text))]
    found = f"; {', '.join(guesses[:4])} is no mark of any" if guesses else ""
    raise TemplateError(
        f"template: holds no mark of a known form{found}",
        hint=f"forms: {examples}",
    )


def _jinja(text: str, names: Names, notes: tuple[str, ...]) -> Imported:
    """Check a template that is in our form already."""
    slots = Template(text, "jinja2 template").references()
    if slots:
        raise TemplateError(
            f"jinja2 template: refers to the slot {slots[0]!r}, and a template alone does not say what goes there",
            hint="write it as a search space: template and slots in one YAML file",
        )
    prompt = check(text, "jinja2 template", (), ())
    for name in sorted(prompt.fields()):
        if names.of(name, default=name) != name:
            raise InputError(
                f"fields: a Jinja2 template is taken as it is, so {name!r} cannot become {names.of(name)!r}",
                hint="change the name in the template",
            )
    names.check_all_used()
    try:
        prompt.render(dict.fromkeys(prompt.fields(), "text"))
    except TemplateError as error:  # it may want lists or numbers, which made-up texts are not
        notes = (*notes, f"It could not be tried out with a text in every field: {error.message}.")
    except RecursionError:
        raise TemplateError("jinja2 template: brackets lie too deep to be read") from None
    return Imported(prompt.text, {}, "jinja2", notes, tuple(sorted(prompt.fields())))
