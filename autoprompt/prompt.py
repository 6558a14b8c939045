"""Templates with two kinds of brackets, and the prompts they become.

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
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jinja2
import jinja2.meta
import jinja2.nodes
import jinja2.sandbox

from autoprompt.errors import LabelWordError, TemplateError, nearest

_SLOT = re.compile(r"\[\[[ \t]*([A-Za-z_]\w*)(?:\.([^\]|\n]+?))?[ \t]*((?:\|[ \t]*\w+[ \t]*)*)\]\]")
_ANSWER = re.compile(r"\{\{-?\s*answer\s*-?\}\}")
_CODE = re.compile(r"(\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\})", re.DOTALL)
_OPENERS = re.compile(r"\{\{|\{%|\{#|\{\Z")
_OPEN_SLOT = re.compile(r"\[(?=\[)")
_FILTERS: dict[str, Callable[[str], str]] = {
    "lower": str.lower,
    "upper": str.upper,
    "title": str.title,
    "capitalize": lambda text: text[:1].upper() + text[1:],
    "trim": str.strip,
}
# Unicode non-characters: never valid in exchanged text, so they can mark places inside rendered text.
_FIELD_START, _FIELD_END, _ANSWER_MARK = "\ufdd0", "\ufdd1", "\ufdd2"
MARKS = frozenset((_FIELD_START, _FIELD_END, _ANSWER_MARK))
_PIECES = re.compile(f"{_FIELD_START}(.*?){_FIELD_END}", re.DOTALL)


class Data(str):
    """Text that is data: inserted as it is, never read as template code."""

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
        stray = _SLOT.sub(" ", self.text)
        if "[[" in stray:
            snippet = stray[stray.index("[[") :][:40]
            raise TemplateError(
                f"{self.where}: cannot read the slot at {snippet!r}",
                hint="write [[ name ]], [[ name | lower ]] or [[ words.LABEL ]]",
            )
        return list(dict.fromkeys(match[1] for match in _SLOT.finditer(self.text)))

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
            if has_slot and not "".join(texts).strip() and not _SLOT.sub("", line).strip():
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


def _split_slots(line: str) -> list[str | re.Match[str]]:
    """Return text and slot matches in turn; text stands at every even place."""
    parts: list[str | re.Match[str]] = []
    end = 0
    for match in _SLOT.finditer(line):
        parts += [line[end : match.start()], match]
        end = match.end()
    return [*parts, line[end:]]


def _join(parts: list[str | re.Match[str]], texts: list[str]) -> str:
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
    code_free = _OPENERS.sub(lambda match: "{% raw %}" + match[0] + "{% endraw %}", _without_marks(text))
    return _OPEN_SLOT.sub("[{##}", code_free)


def _without_marks(text: str) -> str:
    """Replace the characters that mark places: no data may pass for a mark."""
    return "".join("\ufffd" if character in MARKS else character for character in text)


@dataclass(frozen=True)
class Piece:
    """A stretch of rendered text, from the example (it may be shortened) or of a token slot of that name."""

    text: str
    is_field: bool = False
    slot: str = ""


@dataclass(frozen=True)
class Rendered:
    """A prompt rendered for one example: what stands before and after the answer place."""

    before: tuple[Piece, ...]
    after: tuple[Piece, ...] = ()

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
    """

    text: str
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    choices: Mapping[str, Any] = field(default_factory=dict, compare=False)

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

    def __hash__(self) -> int:
        return hash(self.key)

    @functools.cached_property
    def key(self) -> str:
        """Hash of the content: the same text and words have the same key wherever they came from."""
        words = sorted((label, list(words)) for label, words in self.words.items())
        return hashlib.sha256(json.dumps([self.text, words]).encode()).hexdigest()[:32]

    def fields(self) -> set[str]:
        """Names of the data fields the template reads (``answer`` not among them)."""
        return set(_fields_of(self.text)) - {"answer"}

    def render(self, fields: Mapping[str, Any]) -> Rendered:
        """Render for one example, keeping apart what came from its fields.

        Raises:
            TemplateError: a field is missing, or ``{{ answer }}`` does not stand exactly once.
        """
        before, after = _render(self.text, fields)
        return Rendered(_pieces(before), _pieces(after))

    def check(self, fields: set[str], *, answer_at_end: bool = False, where: str = "prompt") -> None:
        """Check the template against the fields a task has, before anything is run.

        Args:
            fields: names of the task's fields.
            answer_at_end: whether the model reads on from the end of the text (causal, encoder-decoder).
            where: what to call the prompt in errors.
        """
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
        return _ANSWER_MARK
    if isinstance(value, jinja2.Undefined):
        return str(value)  # StrictUndefined raises here
    return f"{_FIELD_START}{_without_marks(str(value))}{_FIELD_END}"


_ENVIRONMENT = jinja2.sandbox.SandboxedEnvironment(
    undefined=jinja2.StrictUndefined, finalize=_finalize, keep_trailing_newline=True
)
del _ENVIRONMENT.filters["random"]  # the same prompt and example must give the same text


@functools.lru_cache(maxsize=4096)
def _compiled(text: str) -> jinja2.Template:
    _parsed(text)
    try:
        return _ENVIRONMENT.from_string(text)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"prompt: line {error.lineno}: {error.message}") from None


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> jinja2.nodes.Template:
    if not MARKS.isdisjoint(text):
        raise TemplateError("prompt: holds a Unicode non-character (U+FDD0 to U+FDD2); take it out")
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


def _render(text: str, fields: Mapping[str, Any]) -> tuple[str, str]:
    template = _compiled(text)
    try:
        whole = template.render({**fields, "answer": _Answer()})
    except jinja2.UndefinedError as error:
        raise TemplateError(f"prompt: {error.message}; the example has {', '.join(sorted(fields))}") from None
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise TemplateError(f"prompt: cannot be rendered: {type(error).__name__}: {error}") from None
    before, mark, after = whole.partition(_ANSWER_MARK)
    if not mark or _ANSWER_MARK in after:
        raise TemplateError("prompt: {{ answer }} must be rendered exactly once")
    return before, after


def _pieces(text: str) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    end = 0
    for match in _PIECES.finditer(text):
        if match.start() > end:
            pieces.append(Piece(text[end : match.start()]))
        if match[1]:
            pieces.append(Piece(match[1], is_field=True))
        end = match.end()
    if end < len(text):
        pieces.append(Piece(text[end:]))
    return tuple(pieces)
