"""Strict YAML 1.2 into pydantic models; every error says ``file:line: field: what is allowed (got ...)``.

YAML 1.2 core scalars: only ``true``/``false``, ``null``/``~``, integers and floats are anything but text, so
``yes``, ``no``, ``on``, ``off`` and dates stay words. Repeated keys are refused. Anchors and aliases work.
"""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from autoprompt.errors import SpecError, nearest

M = TypeVar("M", bound=BaseModel)

_CORE = "tag:yaml.org,2002:"
_FLOAT = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the YAML 1.2 core schema instead of YAML 1.1's."""


# PyYAML copies these tables from the parent when something is added; empty ones leave nothing of YAML 1.1.
_Loader.yaml_implicit_resolvers = {}
_Loader.yaml_constructors = {}

# PyYAML tries the resolvers in order; None means whatever the first character is.
for _tag, _pattern in (
    ("null", r"(?:null|Null|NULL|~|)"),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)"),
    ("int", r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)"),
    ("float", f"(?:{_FLOAT})"),
):
    _Loader.add_implicit_resolver(_CORE + _tag, re.compile(f"^{_pattern}$"), None)


def _to_null(loader: Any, node: Any) -> None:
    return None


def _to_bool(loader: Any, node: Any) -> bool:
    return str(node.value).lower() == "true"


def _to_int(loader: Any, node: Any) -> int:
    text = str(node.value)
    return int(text, 8 if text.startswith("0o") else 16 if text.startswith("0x") else 10)


def _to_float(loader: Any, node: Any) -> float:
    return float(str(node.value).lower().replace(".inf", "inf").replace(".nan", "nan"))


_SAFE: Any = yaml.SafeLoader
_Loader.add_constructor(_CORE + "null", _to_null)
_Loader.add_constructor(_CORE + "bool", _to_bool)
_Loader.add_constructor(_CORE + "int", _to_int)
_Loader.add_constructor(_CORE + "float", _to_float)
_Loader.add_constructor(_CORE + "str", _SAFE.construct_yaml_str)
_Loader.add_constructor(_CORE + "seq", _SAFE.construct_yaml_seq)
_Loader.add_constructor(_CORE + "map", _SAFE.construct_yaml_map)
_Loader.add_constructor(None, _SAFE.construct_undefined)


def read_spec(path: Path, model: type[M]) -> M:
    """Read a YAML file into ``model``.

    Raises:
        SpecError: not UTF-8, not YAML, a repeated or unknown key, or a value that is not allowed; all at
            once, one a line.
    """
    root = _compose(path)
    data = _construct(path, root)
    try:
        # Through JSON: keys become text (0, true), lists may fill tuples, and strict mode stays strict.
        return model.model_validate_json(json.dumps(data))
    except ValidationError as error:
        lines = [_describe(path, root, model, item) for item in error.errors()]
    except ValueError as error:  # a YAML alias that holds itself
        lines = [f"{path}:1: cannot be read as plain data: {error}"]
    raise SpecError("\n".join(dict.fromkeys(lines)))


def locate(path: Path, *keys: str | int) -> str:
    """Return ``path:line: a.b`` for a field of a YAML file, for errors that are found after reading."""
    line, shown = _place(_compose(path), keys)
    return f"{path}:{line}: {shown}"


def _compose(path: Path) -> yaml.Node:
    text = read_text(path)
    try:
        root: yaml.Node | None = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise SpecError(
            f"{path}:{line}: not valid YAML: {error.problem or error}",
            hint="quote text that holds ': ', '#', '{', '[' or starts with a special character",
        ) from None
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(root, yaml.MappingNode):
        found = "nothing" if root is None else "a list" if isinstance(root, yaml.SequenceNode) else "text"
        raise SpecError(f"{path}:1: must hold 'key: value' lines (got {found})")
    repeated = list(_repeated_keys(path, root))
    if repeated:
        raise SpecError("\n".join(repeated))
    return root


def read_text(path: Path) -> str:
    """Read UTF-8 text (a byte order mark is dropped).

    Raises:
        SpecError: the file cannot be read or is not UTF-8; names the byte and the line.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SpecError(
            f"{path}:{line}: not UTF-8 (byte 0x{raw[error.start]:02x} at offset {error.start})",
            hint=f"save it as UTF-8, for example: iconv -f latin1 -t utf-8 {path.name}",
        ) from None


def _construct(path: Path, root: yaml.Node) -> Any:
    loader = _Loader("")
    try:
        return loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecError(f"{path}:{line}: {error.problem}; only plain YAML values are read") from None
    except ValueError as error:  # an explicit tag on a value that does not fit, such as !!int x
        raise SpecError(f"{path}:1: a value does not fit its tag: {error}") from None
    finally:
        loader.dispose()


def _repeated_keys(path: Path, root: yaml.Node) -> Iterator[str]:
    """Errors for keys that stand twice in one mapping (PyYAML would silently keep the last)."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop(0)
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        if not isinstance(node, yaml.MappingNode):
            continue
        first: dict[Hashable, int] = {}
        for key, value in node.value:
            waiting.append(value)
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                yield f"{path}:{line}: a key must be a word (got a list or mapping)"
            elif key.value in first:
                yield f"{path}:{line}: {key.value}: stands twice, first on line {first[key.value]}"
            else:
                first[key.value] = line


def _place(root: yaml.Node, keys: Sequence[str | int]) -> tuple[int, str]:
    """Line and shown path of a field; parts of a pydantic location that are no keys are passed over."""
    node, line, shown = root, 1, ""
    for index, key in enumerate(keys):
        is_last = index == len(keys) - 1
        if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line, shown = node.start_mark.line + 1, f"{shown}[{key}]"
            continue
        if not isinstance(node, yaml.MappingNode):
            continue
        for key_node, value_node in node.value:
            if key_node.value == str(key):
                node, line = value_node, key_node.start_mark.line + 1
                shown = f"{shown}.{key}" if shown else str(key)
                break
        else:
            if is_last and key != "[key]":
                shown = f"{shown}.{key}" if shown else str(key)
    return line, shown


def _describe(path: Path, root: yaml.Node, model: type[BaseModel], error: Any) -> str:
    """One line for one pydantic error."""
    keys, kind, came = error["loc"], error["type"], error["input"]
    line, shown = _place(root, keys)
    if kind == "extra_forbidden":
        known = _known_keys(model, keys[:-1])
        message = f"unknown key{nearest(str(keys[-1]), known)}; keys: {', '.join(known)}"
    elif kind == "missing":
        message = "is missing"
    elif kind in ("value_error", "assertion_error"):
        message = str(error["ctx"]["error"])
    else:
        message = error["msg"].replace("Input should be", "must be", 1)
        guess = ""
        if kind in ("literal_error", "union_tag_invalid") and isinstance(came, str):
            listed = error["ctx"].get("expected", "") or error["ctx"].get("expected_tags", "")
            guess = nearest(came, re.findall(r"'([^']*)'", listed))
        message = f"{message}{guess} (got {_short(came)})"
    return f"{path}:{line}: {shown}: {message}" if shown else f"{path}:{line}: {message}"


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _known_keys(model: type[BaseModel], keys: Sequence[str | int]) -> list[str]:
    """Names of the fields a mapping at this place may have."""
    found: list[Any] = [model]
    for key in keys:
        following: list[Any] = []
        for item in _unfold(found):
            if isinstance(item, type) and issubclass(item, BaseModel):
                named = item.model_fields.get(str(key))
                if named is not None:
                    following.append(named.annotation)
            elif isinstance(key, int) or typing.get_origin(item) is dict:
                following += typing.get_args(item)[-1 if typing.get_origin(item) is dict else 0 :][:1]
        # A part that leads nowhere is the tag of a union: keep the members that carry it.
        found = following or [item for item in _unfold(found) if _carries(item, key)] or found
    names: dict[str, None] = {}
    for item in _unfold(found):
        if isinstance(item, type) and issubclass(item, BaseModel):
            names.update(dict.fromkeys(item.model_fields))
    return list(names)


def _carries(item: Any, tag: str | int) -> bool:
    if not (isinstance(item, type) and issubclass(item, BaseModel)):
        return False
    if item.__name__ == tag:
        return True
    return any(tag in typing.get_args(named.annotation) for named in item.model_fields.values())


def _unfold(annotations: Sequence[Any]) -> Iterator[Any]:
    """The members of unions and annotated types, one by one."""
    for item in annotations:
        origin = typing.get_origin(item)
        if origin is typing.Annotated:
            yield from _unfold(typing.get_args(item)[:1])
        elif origin is typing.Union or origin is types.UnionType:
            yield from _unfold(typing.get_args(item))
        else:
            yield item
