"""A strategy as text: its name, and its settings after a question mark, as the options of a model are.

``gp?block=4&boldness=0.3``, ``soft?method=prefix&seeds=1``, ``evolution?objectives=score,tokens``, ``racing?inner=gp``.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any

from autoprompt.catalog import strategies, strategy_class
from autoprompt.errors import InputError, UnknownName, nearest
from autoprompt.strategies import Strategy

_SAID = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "None": "none",
    "Strategy": "the name of a strategy",
}


def load_strategy(strategy: Strategy | str) -> Strategy:
    """A strategy by its text, or as it is.

    Raises:
        UnknownName: no such strategy, or no such setting; carries the nearest one and the list.
        InputError: a setting is not of a kind or a value that is allowed.
    """
    if isinstance(strategy, Strategy):
        return strategy
    if not isinstance(strategy, str):
        raise InputError(
            f"strategy: expected a name or a Strategy (got {strategy!r:.80}); "
            f"names: {', '.join(strategies())}"
        )
    name, _, settings = strategy.partition("?")
    found = strategy_class(name)
    fields = {item.name: item for item in dataclasses.fields(found) if item.init}
    given = dict(_setting(name, part, fields) for part in settings.split("&") if part)
    missing = [
        item.name
        for item in fields.values()
        if item.default is item.default_factory is dataclasses.MISSING and item.name not in given
    ]
    if missing:
        raise InputError(
            f"strategy {name!r}: its setting {missing[0]!r} has no default",
            hint=f'write "{name}?{missing[0]}=...", or give an object: from autoprompt.strategies.{name} import '
            f"{found.__name__}",
        )
    made = found(**given)
    assert isinstance(made, Strategy)
    return made


def _setting(name: str, part: str, fields: Mapping[str, dataclasses.Field[Any]]) -> tuple[str, Any]:
    """The name of a setting and its value."""
    key, mark, text = part.partition("=")
    if key not in fields:
        raise UnknownName(
            f"strategy {name!r}: no setting {key!r}{nearest(key, fields)}; settings: {', '.join(fields) or 'none'}",
            hint=f"autoprompt show {name} says what they mean",
        )
    kind = str(fields[key].type)
    if mark:
        for option in _options(kind):
            try:
                return key, _value(option, text)
            except InputError:  # of a strategy inside
                raise
            except (ValueError, KeyError):
                continue
    wanted = " or ".join(map(_said, _options(kind)))
    raise InputError(
        f"strategy {name!r}: {key} must be {wanted} (got {text!r})", hint=f"autoprompt show {name}"
    )


def _options(kind: str) -> list[str]:
    """The parts of an annotation such as ``int | None``, those that any text fits last."""
    return sorted((part.strip() for part in kind.split("|")), key=lambda part: part not in _SAID)


def _said(kind: str) -> str:
    if kind.startswith("tuple["):
        return "a list with commas"
    return f"one of {', '.join(_words(kind))}" if kind.startswith("Literal[") else _SAID.get(kind, "a text")


def _words(kind: str) -> list[str]:
    """Those of a ``Literal[...]``."""
    return list(ast.literal_eval(kind.removeprefix("Literal")))


def _value(kind: str, text: str) -> Any:
    """A text as what an annotation says; a name of ours stands for one of some words, which the strategy knows.

    Raises:
        ValueError, KeyError: it is none.
    """
    if kind.startswith("Literal["):
        return {word: word for word in _words(kind)}[text]
    if kind.startswith("tuple["):
        inner = kind.removeprefix("tuple[").partition(",")[0]
        return tuple(_value(inner, part.strip()) for part in text.split(","))
    match kind:
        case "int":
            return int(text)
        case "float":
            return float(text)
        case "bool":
            return {"true": True, "false": False}[text.lower()]
        case "None":
            return {"none": None}[text.lower()]
        case "Strategy":
            return load_strategy(text)
    return text
