"""Templates with two kinds of brackets.

``{{ field }}`` is data and stays: a finished prompt is an ordinary Jinja2 template. ``[[ slot ]]`` is tunable
and is resolved here, so no trace of it is left. ``{{ answer }}`` marks where the label word or completion is
read: the mask of a masked model, the end of the text for causal and encoder-decoder models.

The whitespace rule: a template line that holds nothing but slots which are all empty disappears with its line
break, blank lines it would leave doubled become one, and an empty slot at the start or end of a line or
between two spaces takes one space along. Blank lines at the start and white space at the end of the whole go.
Data are touched by none of this but the last. Text put together from parts never becomes code by accident.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from autoprompt.errors import TemplateError, nearest

SLOT = re.compile(r"\[\[[ \t]*([A-Za-z_]\w*)(?:\.([^\]|\n]+?))?[ \t]*((?:\|[ \t]*\w+[ \t]*)*)\]\]")
_CODE = re.compile(r"(\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\})", re.DOTALL)
_OPENERS = re.compile(r"\{\{|\{%|\{#|\{\Z")
_OPEN_SLOT = re.compile(r"\[(?=\[)")
_LINE_BREAK = re.compile(r"\r\n?")
_FILTERS: dict[str, Callable[[str], str]] = {
    "lower": str.lower,
    "upper": str.upper,
    "title": str.title,
    "capitalize": lambda text: text[:1].upper() + text[1:],
    "trim": str.strip,
}
# Unicode non-characters: never valid in exchanged text, so they can mark places inside rendered text.
FIELD_START, FIELD_END, ANSWER_MARK = "\ufdd0", "\ufdd1", "\ufdd2"
HOLE_START, HOLE_END = "\ufdd3", "\ufdd4"
MARKS = frozenset((FIELD_START, FIELD_END, ANSWER_MARK, HOLE_START, HOLE_END))
MARKS_REFUSED = "holds a Unicode non-character (U+FDD0 to U+FDD4); take it out"
HOLE = re.compile(f"{HOLE_START}(.*?){HOLE_END}")


class Data(str):
    """Text that is data: inserted as it is, never read as template code."""

    __slots__ = ()


class Hole(Data):
    """Where the text of a token slot of this name will stand; resolved to a mark that ``fill`` replaces."""

    __slots__ = ()


SlotValue = str | Data | Mapping[str, str]
"""Text (itself a template), data, or label words as a mapping from label to word."""


@dataclass(frozen=True)
class Template:
    """A template text that may hold ``[[ slot ]]`` references.

    Attributes:
        text: the template.
        where: what to call it in errors, such as ``search_spaces/sentiment.yaml: template``.
    """

    text: str
    where: str = "template"

    def references(self) -> list[str]:
        """Names of the slots the text refers to, in order, each once."""
        names, stray = _names(self.text)
        if stray:
            raise TemplateError(
                f"{self.where}: cannot read the slot at {stray!r}",
                hint="write [[ name ]], [[ name | lower ]] or [[ words.LABEL ]]",
            )
        return list(names)

    def resolve(self, values: Mapping[str, SlotValue]) -> str:
        """Return the text with every slot replaced by its value, slots inside values included.

        Args:
            values: slot name to text (itself a template), ``Data`` (inserted as data), or, for label words,
                a mapping from label to word.
        """
        return _strip_blank_ends(self._resolve(values, ()))

    def _resolve(self, values: Mapping[str, SlotValue], above: tuple[str, ...]) -> str:
        self.references()
        lines: list[str] = []
        dropped = False
        for line in self.text.split("\n"):
            parts = _split_slots(line)
            texts = [part if isinstance(part, str) else self._value(part, values, above) for part in parts]
            has_slot = len(parts) > 1
            if has_slot and not "".join(texts).strip() and not SLOT.sub("", line).strip():
                dropped = True
                continue
            resolved = _join(parts, texts)
            if dropped and not resolved.strip() and (not lines or not lines[-1].strip()):
                continue
            dropped = False
            lines.append(resolved)
        while dropped and lines and not lines[-1].strip():
            lines.pop()
        return "\n".join(lines)

    def _value(
        self,
        slot: re.Match[str],
        values: Mapping[str, SlotValue],
        above: tuple[str, ...],
    ) -> str:
        name, key, filters = slot[1], slot[2], slot[3]
        if name not in values:
            raise TemplateError(
                f"{self.where}: no slot named {name!r}{nearest(name, values)}; "
                f"slots: {', '.join(sorted(values)) or 'none'}"
            )
        if name in above:
            raise TemplateError(
                f"{self.where}: slots refer to each other in a circle: {' -> '.join((*above, name))}"
            )
        value = values[name]
        text: str
        if isinstance(value, Mapping):
            text = self._mapped(name, key, value)
        elif key is not None:
            raise TemplateError(f"{self.where}: slot {name!r} has no parts (got {slot[0]})")
        elif isinstance(value, Hole):
            return self._hole(value, filters)
        elif isinstance(value, Data):
            text = value
        else:
            text = Template(value, f"{self.where}: slot {name}")._resolve(values, (*above, name))
        is_data = isinstance(text, Data)
        for filter_name in re.findall(r"\w+", filters):
            if filter_name not in _FILTERS:
                raise TemplateError(
                    f"{self.where}: no slot filter {filter_name!r}{nearest(filter_name, _FILTERS)}; "
                    f"filters: {', '.join(_FILTERS)}"
                )
            text = _FILTERS[filter_name](text) if is_data else _filter_code(text, filter_name)
        return Data(escape(text)) if is_data else text

    def _hole(self, name: Hole, filters: str) -> Data:
        if filters:
            raise TemplateError(
                f"{self.where}: slot {str(name)!r} holds tokens, which no filter may change (got |{filters.strip('| ')})",
                hint=f"write [[ {name} ]]",
            )
        return Data(f"{HOLE_START}{name}{HOLE_END}")

    def _mapped(self, name: str, key: str | None, value: Mapping[str, str]) -> Data:
        if key is None or key not in value:
            raise TemplateError(
                f"{self.where}: slot {name!r} holds one word per label: write "
                f"[[ {name}.LABEL ]] with LABEL one of {', '.join(value)} (got {key!r})"
            )
        return Data(value[key])


def _filter_code(text: str, name: str) -> str:
    """Filter template source, leaving what stands inside its ``{{ }}`` and ``{% %}`` alone."""
    if name in ("trim", "capitalize") or "{" not in text:
        return _FILTERS[name](text)
    pieces = _CODE.split(text)
    pieces[::2] = [_FILTERS[name](piece) for piece in pieces[::2]]
    return "".join(pieces)


@functools.lru_cache(maxsize=10_000)  # a space is drawn from thousands of times, and its texts are few
def _names(text: str) -> tuple[tuple[str, ...], str]:
    """Names of the slots in a text, in order, each once; what begins like a slot and is none, else nothing."""
    stray = SLOT.sub(" ", text)
    found = dict.fromkeys(match[1] for match in SLOT.finditer(text))
    return tuple(found), stray[stray.index("[[") :][:40] if "[[" in stray else ""


@functools.lru_cache(maxsize=10_000)
def _split_slots(line: str) -> tuple[str | re.Match[str], ...]:
    """Return text and slot matches in turn; text stands at every even place."""
    parts: list[str | re.Match[str]] = []
    end = 0
    for match in SLOT.finditer(line):
        parts += [line[end : match.start()], match]
        end = match.end()
    return (*parts, line[end:])


def _join(parts: Sequence[str | re.Match[str]], texts: Sequence[str]) -> str:
    """Join the texts of a line; an empty slot between two spaces (or line ends) takes one space along."""
    line = ""
    after_empty_slot = ends_in_data = False
    for part, text in zip(parts, texts, strict=True):
        if not text:
            after_empty_slot = after_empty_slot or not isinstance(part, str)
            continue
        is_data = isinstance(text, Data)
        if after_empty_slot and not is_data and (not line or line.endswith(" ")):
            text = text.removeprefix(" ")
        line = _adjoin(line, text)
        after_empty_slot, ends_in_data = False, is_data
    return line.rstrip(" ") if after_empty_slot and not ends_in_data else line


def _adjoin(left: str, right: str) -> str:
    """Join two texts so that their meeting does not make an opening bracket of template code."""
    if left.endswith("[") and right.startswith("["):
        return left + "{##}" + right
    if left.endswith("{") and right.startswith(("{", "%", "#")):
        return left[:-1] + "{% raw %}{{% endraw %}" + right
    return left + right


def _strip_blank_ends(text: str) -> str:
    return re.sub(r"\A(?:[ \t]*\n)+", "", text).rstrip()


def escape(text: str) -> str:
    """Return ``text`` as Jinja2 source, free of ``[[``, that renders to it (line breaks become newlines)."""
    code_free = _OPENERS.sub(lambda match: "{% raw %}" + match[0] + "{% endraw %}", without_marks(text))
    return _OPEN_SLOT.sub("[{##}", code_free)


def fill(frame: str, values: Mapping[str, str]) -> str:
    """The template text in which token slots hold these texts, as data.

    Args:
        frame: a resolved template with marks where token slots stand.
        values: slot name to text.
    """
    parts = HOLE.split(frame)
    text = parts[0]
    for name, fixed in zip(parts[1::2], parts[2::2], strict=True):
        if name not in values:
            raise TemplateError(f"prompt: {MARKS_REFUSED}")
        text = _adjoin(_adjoin(text, escape(values[name])), fixed)
    return text


def as_shown(text: str) -> str:
    """The text as a template that holds it shows it: without marks, every line break a newline, no white space at
    its ends, which ``{{-`` beside it would take.
    """
    return _LINE_BREAK.sub("\n", without_marks(text)).strip()


def without_marks(text: str) -> str:
    """Replace the characters that mark places: no data may pass for a mark."""
    return "".join("\ufffd" if character in MARKS else character for character in text)
