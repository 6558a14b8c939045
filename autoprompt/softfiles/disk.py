"""Files of soft prompts on disk: JSON and safetensors, read with errors that teach, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from autoprompt.errors import DataError, InputError
from autoprompt.prompt import Prompt
from autoprompt.study import write_atomically

Tensors = dict[str, NDArray[Any]]


def refuse_hard(prompt: Prompt) -> None:
    """Raise InputError for a prompt of words alone."""
    if not prompt.soft:
        raise InputError(
            "prompt: holds no soft rows", hint="a prompt of words is saved by result.save('best_prompt.txt')"
        )


def read_json(path: Path, hint: str) -> dict[str, Any]:
    """The mapping in a JSON file; DataError with the hint where it is not one."""
    if not path.parent.is_dir():
        raise DataError(f"{path.parent}: no such folder", hint=hint)
    if not path.is_file():
        raise DataError(f"{path}: no such file", hint=hint)
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: no JSON ({error})", hint=hint) from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a mapping (got {type(content).__name__})", hint=hint)
    return content


def parsed(path: Path, raw: bytes) -> Tensors:
    """The tensors of a safetensors file; DataError where it is none."""
    try:
        return safetensors.numpy.load(raw)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise DataError(
            f"{path}: no safetensors file, or of a precision numpy has not ({error})",
            hint="copy it anew, or save it in float32",
        ) from None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping for people to read, whole or not at all."""
    write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
