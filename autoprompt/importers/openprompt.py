"""OpenPrompt's templates (Ding et al., 2022): ``{"placeholder": "text_a"} It was {"mask"}.``

Blanks are read as OpenPrompt reads them: any run of them before a piece is one blank. Functions given as
``post_processing`` are compared with a list of known ones and written as Jinja2; none is ever run.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import Any

from autoprompt.errors import TemplateError, nearest
from autoprompt.importers.literals import Code, Reader
from autoprompt.importers.writing import Writer

WHERE = "openprompt template"
SOURCES = ("placeholder", "meta", "mask", "soft", "soft_id", "special", "text")
OPTIONS = ("shortenable", "post_processing", "duplicate", "same", "single_token", "add_prefix_space")
PLACEHOLDERS = ("text_a", "text_b")
_LAMBDA = re.compile(r"lambda\s+([A-Za-z_]\w*)\s*:\s*(.*)", re.DOTALL)
_TEXT = r"(?P<text>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|string\.punctuation)"
# What a known function makes of x, as Jinja2; STRIP and PLUS take a text.
_STRIP = re.compile(rf"x\.(?P<name>l?r?strip)\({_TEXT}\)", re.DOTALL)
_PLUS = re.compile(rf"x\+{_TEXT}", re.DOTALL)
_KNOWN = {
    "x": "{}",
    "x.strip()": "{} | trim",
    "x.lstrip()": "{}.lstrip()",
    "x.rstrip()": "{}.rstrip()",
    "x.lower()": "{} | lower",
    "x.upper()": "{} | upper",
    "x.capitalize()": "{} | capitalize",
    "x[:-1]": "{}[:-1]",
    "x[:1].lower()+x[1:]": "({}[:1] | lower) ~ {}[1:]",
    "x[0].lower()+x[1:]": "({}[:1] | lower) ~ {}[1:]",
    "x[:1].upper()+x[1:]": "({}[:1] | upper) ~ {}[1:]",
    "x[0].upper()+x[1:]": "({}[:1] | upper) ~ {}[1:]",
}


@dataclass(frozen=True)
class Piece:
    """Text, or what stands between a pair of braces; ``blank`` where a blank stands before it."""

    blank: bool
    text: str = ""
    keys: dict[str, Any] | None = None
    source: str = ""


def openprompt(text: str, writer: Writer) -> None:
    """Write an OpenPrompt template."""
    pieces = _pieces(text)
    shared: dict[int, int] = {}
    place = 0
    while place < len(pieces):
        piece = pieces[place]
        run = 0
        while place + run < len(pieces) and _is_plain_soft(pieces[place + run].keys):
            run += 1
        if piece.blank and "special" not in (piece.keys or ()):
            writer.text(" ")
        if run:
            count = sum(_duplicates(other, writer) for other in pieces[place : place + run])
            _note_soft(writer)
            writer.tokens(count)
        elif piece.keys is None:
            writer.text(piece.text)
        else:
            _braces(piece, piece.keys, writer, shared)
        place += max(run, 1)
    if not writer.has_answer:
        raise TemplateError(
            f'{WHERE}: {{"mask"}} is missing: it marks where the answer is read',
            hint='for example {"placeholder": "text_a"} It was {"mask"}.',
        )
    if "  " in text:
        writer.note("Several blanks in a row became one, as OpenPrompt reads them.")


def _pieces(text: str) -> list[Piece]:
    pieces: list[Piece] = []
    place = 0
    while place < len(text):
        start = place
        while text[place : place + 1] == " ":
            place += 1
        blank = place > start
        if place == len(text):
            break
        if text[place] == "{":
            reader = Reader(text, place, where=WHERE, keeps_code=True)
            keys = reader.braces()
            _check_keys(keys, text[place : reader.place])
            pieces.append(Piece(blank, keys=keys, source=text[place : reader.place]))
            place = reader.place
            continue
        end = text.find("{", place)
        end = len(text) if end < 0 else end
        literal = text[place:end].rstrip(" ")
        pieces.append(Piece(blank, literal))
        place += len(literal)
    return pieces


def _check_keys(keys: dict[str, Any], source: str) -> None:
    for key, value in keys.items():
        if key not in (*SOURCES, *OPTIONS):
            raise TemplateError(
                f"{WHERE}: {source:.60}: no key {key!r}{nearest(key, (*SOURCES, *OPTIONS))}; "
                f"keys: {', '.join((*SOURCES, *OPTIONS))}"
            )
        if isinstance(value, Code) and key != "post_processing":
            raise TemplateError(f"{WHERE}: {source:.60}: {key} must be a text, a number, True or None")
    given = [key for key in SOURCES if key in keys and not (key == "soft_id" and "soft" in keys)]
    if len(given) != 1:
        raise TemplateError(
            f"{WHERE}: {source:.60}: needs exactly one of {', '.join(SOURCES)} (got {', '.join(given) or 'none'})"
        )
    if given[0] in ("placeholder", "meta", "special", "text") and not isinstance(keys[given[0]], str):
        raise TemplateError(
            f"{WHERE}: {source:.60}: {given[0]} must be a text in quotes (got {keys[given[0]]!r:.40})"
        )


def _braces(piece: Piece, keys: dict[str, Any], writer: Writer, shared: dict[int, int]) -> None:
    processing = keys.get("post_processing")
    if "placeholder" in keys or "meta" in keys:
        _field(piece, keys, writer)
        return
    if processing == "mlp":
        writer.note("post_processing by an MLP acts on soft vectors and was dropped.")
    elif processing is not None:
        raise TemplateError(
            f"{WHERE}: {piece.source:.60}: post_processing goes with placeholder and meta only"
        )
    if "mask" in keys:
        writer.answer('{"mask"}')
    elif "special" in keys:
        writer.special(keys["special"])
    elif "text" in keys:
        writer.text(keys["text"])
    else:
        _soft(piece, keys, writer, shared)


def _field(piece: Piece, keys: dict[str, Any], writer: Writer) -> None:
    if "meta" in keys:
        field = writer.names.of(keys["meta"], default=keys["meta"])
    else:
        theirs = keys["placeholder"]
        if theirs not in PLACEHOLDERS:
            raise TemplateError(
                f"{WHERE}: no placeholder {theirs!r}{nearest(theirs, PLACEHOLDERS)}; OpenPrompt's examples have "
                f"{' and '.join(PLACEHOLDERS)}",
                hint=f'write {{"meta": "{theirs}"}} for any other field',
            )
        field = writer.names.of(theirs, place=PLACEHOLDERS.index(theirs), default=theirs)
    if keys.get("shortenable", True) is False:
        writer.note(
            f"shortenable: False was dropped: where a text is too long, any field may be shortened ({field})."
        )
    expression, after = _processed(keys.get("post_processing"), field)
    writer.field(field, expression)
    writer.text(after)


def _processed(processing: object, field: str) -> tuple[str, str]:
    """(Jinja2 with ``{}`` for the field, literal text after it) of a known function; others are refused."""
    if processing is None:
        return "{}", ""
    source = processing.source if isinstance(processing, Code) else repr(processing)
    match = _LAMBDA.fullmatch(source.strip())
    body = ""
    if match:
        body = _outside_quotes(match[2], match[1])
        if body in _KNOWN:
            return _KNOWN[body], ""
        strip, plus = _STRIP.fullmatch(body), _PLUS.fullmatch(body)
        if strip:
            return f"{{}}.{strip['name']}({_quoted(_text_of(strip['text']))})", ""
        if plus:
            return "{}", _text_of(plus["text"])
    if source.startswith("str.") and f"x.{source[4:]}()" in _KNOWN:
        return _KNOWN[f"x.{source[4:]}()"], ""
    raise TemplateError(
        f"{WHERE}: post_processing {source:.60} is not one of the known functions, and code of a template is not run; "
        f'known: lambda x: x.strip() / .rstrip("...") / .lower() / .upper() / x + "." / x[:-1] / '
        "x[:1].lower() + x[1:]",
        hint=f"write the template in Jinja2, for example {{{{ {field}.rstrip('.!?') }}}}, or change the data",
    )


def _outside_quotes(body: str, variable: str) -> str:
    """The body of a lambda, its variable called x, without blanks, texts in quotes left as they are."""
    parts = re.split(r"('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")", body)
    for place in range(0, len(parts), 2):
        parts[place] = re.sub(rf"\b{variable}\b", "x", re.sub(r"\s+", "", parts[place]))
    return "".join(parts)


def _text_of(source: str) -> str:
    return string.punctuation if source == "string.punctuation" else str(Reader(source, where=WHERE).value())


def _quoted(text: str) -> str:
    """A Jinja2 text in quotes that holds no bracket a template could stumble over."""
    signs = [
        sign
        if sign.isprintable() and sign not in "'\\{}["
        else f"\\U{ord(sign):08x}".replace("\\U000000", "\\x")
        for sign in text
    ]
    return "'" + "".join(signs) + "'"


def _soft(piece: Piece, keys: dict[str, Any], writer: Writer, shared: dict[int, int]) -> None:
    number = keys.get("soft_id")
    if "soft_id" in keys and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
        raise TemplateError(
            f"{WHERE}: {piece.source:.60}: soft_id must be a whole number from 1 (got {number!r})"
        )
    _note_soft(writer)
    if number in shared:
        writer.slot(shared[number])
        return
    init = keys.get("soft") or ""
    if not isinstance(init, str):
        raise TemplateError(f"{WHERE}: {piece.source:.60}: soft must be a text or None (got {init!r:.40})")
    count = len(init.split()) if init.strip() else _duplicates(piece, writer)
    slot = writer.tokens(count, init.strip())
    if number is not None:
        shared[number] = slot


def _is_plain_soft(keys: dict[str, Any] | None) -> bool:
    """Whether it is a soft token that starts from nothing and is shared with no other place."""
    return keys is not None and "soft" in keys and not keys["soft"] and "soft_id" not in keys


def _duplicates(piece: Piece, writer: Writer) -> int:
    keys = piece.keys or {}
    if keys.get("post_processing") == "mlp":
        writer.note("post_processing by an MLP acts on soft vectors and was dropped.")
    count = keys.get("duplicate", 1)
    if not isinstance(count, int) or isinstance(count, bool):
        raise TemplateError(
            f"{WHERE}: {piece.source:.60}: duplicate must be a whole number (got {count!r:.40})"
        )
    if keys.get("same"):
        writer.note("same: True was dropped: the tokens of a slot need not be the same.")
    return count


def _note_soft(writer: Writer) -> None:
    writer.note(
        "Soft tokens are vectors that no word need stand for; they became token slots, which hold real tokens, and "
        "their texts what the search starts from."
    )
