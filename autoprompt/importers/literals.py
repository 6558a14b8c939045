"""Reads the few Python and JSON literals that templates and label words of other tools hold.

Those tools hand such text to ``eval``. Here it is read sign by sign: texts, whole numbers, ``True``, ``None``,
lists and braces. What is no literal (a ``lambda``) is kept as the text it is and runs nowhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from autoprompt.errors import TemplateError

MAX_DEPTH = 8
_CONSTANTS = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'", "/": "/", "\n": ""}
_NUMBER = re.compile(r"-?\d{1,9}(?![\w.])")
_WORD = re.compile(r"[A-Za-z]+(?![\w.(])")
_CODE_POINT = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2}))")
_BLANK = re.compile(r"\s*")
_OPEN, _CLOSE = "([{", ")]}"


@dataclass(frozen=True)
class Code:
    """A value that is no literal: its source, read by nobody but those who know it by heart."""

    source: str


class Reader:
    """Reads literals from one text.

    Attributes:
        text: what is read.
        place: where the next sign stands.
        where: what to call the text in errors.
        keeps_code: whether values that are no literals are kept as ``Code`` instead of refused.
    """

    def __init__(self, text: str, place: int = 0, *, where: str, keeps_code: bool = False) -> None:
        self.text = text
        self.place = place
        self.where = where
        self.keeps_code = keeps_code

    def value(self, depth: int = 0) -> Any:
        """Read one value; a set (``{"mask"}``) is a dict of its members to None, a tuple a list."""
        sign = self._sign()
        if depth > MAX_DEPTH:
            raise self.error(f"brackets lie more than {MAX_DEPTH} deep")
        if sign and sign in "\"'":
            return self._string()
        if sign and sign in "[(":
            return self._list(depth)
        if sign == "{":
            return self.braces(depth)
        for pattern in (_NUMBER, _WORD):
            match = pattern.match(self.text, self.place)
            if match and (pattern is _NUMBER or match[0] in _CONSTANTS):
                self.place = match.end()
                return int(match[0]) if pattern is _NUMBER else _CONSTANTS[match[0]]
        if self.keeps_code:
            return self._code()
        raise self.error("expected a text in quotes, a number, a list or braces")

    def braces(self, depth: int = 0) -> dict[str, Any]:
        """Read ``{...}``: a dict whose keys become text, or a set."""
        self._take("{")
        found: dict[str, Any] = {}
        while self._sign() != "}":
            key = self.value(depth + 1)
            if isinstance(key, (list, dict, Code)) or key is None:
                raise self.error("a key must be a text in quotes or a number")
            if str(key) in found:
                raise self.error(f"the key {str(key)!r} stands twice")
            found[str(key)] = None
            if self._sign() == ":":
                self.place += 1
                found[str(key)] = self.value(depth + 1)
            self._comma_before("}")
        self.place += 1
        return found

    def at_end(self) -> bool:
        """Whether nothing but blanks is left."""
        return not self._sign()

    def error(self, problem: str) -> TemplateError:
        """Make an error that shows where reading stopped."""
        rest = self.text[self.place : self.place + 30]
        at = f"at {rest!r}" if rest else "at the end of the text"
        return TemplateError(f"{self.where}: {problem} ({at}, character {self.place})")

    def _list(self, depth: int) -> list[Any]:
        closing = _CLOSE[_OPEN.index(self.text[self.place])]
        self.place += 1
        found = []
        while self._sign() != closing:
            found.append(self.value(depth + 1))
            self._comma_before(closing)
        self.place += 1
        return found

    def _comma_before(self, closing: str) -> None:
        if self._sign() == ",":
            self.place += 1
        elif self._sign() != closing:
            raise self.error(f"expected ',' or {closing!r}")

    def _take(self, sign: str) -> None:
        if self._sign() != sign:
            raise self.error(f"expected {sign!r}")
        self.place += 1

    def _sign(self) -> str:
        match = _BLANK.match(self.text, self.place)
        assert match is not None
        self.place = match.end()
        return self.text[self.place : self.place + 1]

    def _string(self) -> str:
        quote = self.text[self.place]
        self.place += 1
        found = []
        while (sign := self.text[self.place : self.place + 1]) != quote:
            if not sign:
                raise self.error(f"the text has no closing {quote}")
            if sign == "\\":
                found.append(self._escaped())
            else:
                found.append(sign)
                self.place += 1
        self.place += 1
        # JSON writes what lies beyond 16 bits as two halves; a half alone is no character.
        return "".join(found).encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _escaped(self) -> str:
        match = _CODE_POINT.match(self.text, self.place)
        if match:
            self.place = match.end()
            return chr(int(match[1] or match[2], 16))
        name = self.text[self.place + 1 : self.place + 2]
        if name not in _ESCAPES or not name:
            raise self.error("cannot read the escape; known ones are \\n \\t \\r \\\\ \\\" \\' \\uXXXX \\xXX")
        self.place += 2
        return _ESCAPES[name]

    def _code(self) -> Code:
        """Take everything up to the comma or bracket that ends the value, strings and brackets inside it whole."""
        start, depth = self.place, 0
        while sign := self.text[self.place : self.place + 1]:
            if sign in "\"'":
                self._string()
                continue
            if depth == 0 and sign in ",)]}":
                break
            depth += (sign in _OPEN) - (sign in _CLOSE)
            self.place += 1
        if self.place == start:
            raise self.error("expected a value")
        return Code(self.text[start : self.place].strip())
