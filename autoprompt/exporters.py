"""A finished prompt as files, and back.

``.txt`` and ``.jinja`` hold the prompt and nothing else, so that it can be pasted; a ``.json`` of the same
name beside them holds what the text alone cannot say: label words, how the answer is read, model, data,
scores, cost. ``.json`` holds all of it, ``.messages.json`` the prompt as chat messages. Writing is atomic.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoprompt.errors import DataError, InputError, nearest
from autoprompt.prompt import Prompt
from autoprompt.study import write_atomically

FORMAT = "autoprompt-prompt/1"
ANSWER = re.compile(r"\{\{-?\s*answer\s*-?\}\}")
ENDINGS = (".txt", ".jinja", ".json", ".messages.json")


def write_prompt(path: str | Path, document: Mapping[str, Any]) -> list[Path]:
    """Write a result's document in the form its ending names; return the files written.

    Raises:
        InputError: the ending is not one of ``ENDINGS``, a ``.json`` that is not ours stands where the document of a
            ``.txt`` would go, or that of another prompt, whose file stands beside it.
    """
    path = Path(path)
    text = str(document["prompt"])
    if path.name.endswith(".messages.json"):
        before = ANSWER.split(text)[0].rstrip()  # a chat model answers in its own turn
        _write_json(path, [{"role": "user", "content": before}])
        return [path]
    if path.suffix == ".json":
        _refuse_shared(path, path, document)
        _write_json(path, document)
        return [path]
    if path.suffix in (".txt", ".jinja"):
        sidecar = path.with_suffix(".json")
        _refuse_foreign(sidecar)
        _refuse_shared(path, sidecar, document)
        _write_json(sidecar, document)
        write_atomically(path, text + "\n")
        if read_prompt(path).text != text:  # law 4: the text the user receives is the text that was scored
            raise InputError(f"{path}: the written prompt does not read back as it was scored")
        return [path, sidecar]
    raise InputError(
        f"cannot export to {str(path)!r}: the ending decides the form; endings: {', '.join(ENDINGS)}"
    )


def read_prompt(path: str | Path) -> Prompt:
    """Read a prompt back from a ``.txt``/``.jinja`` (with its ``.json`` beside it, if there is one) or a
    ``.json``.

    Raises:
        DataError: the file is missing, is not UTF-8, or is not such a document.
    """
    path = Path(path)
    content = _read(path)
    if path.suffix == ".json":
        return _prompt_of(path, content)
    # A Windows editor ends every line in CRLF, and some begin the file with a byte order mark.
    text = content.removeprefix("\ufeff").replace("\r\n", "\n").removesuffix("\n")
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        return Prompt(text)
    written = _prompt_of(sidecar, _read(sidecar))
    # Untouched since it was written: a CRLF in it is the prompt's own and was scored with it.
    return written if content == written.text + "\n" else Prompt(text, written.words)


def _read(path: Path) -> str:
    if not path.is_file():
        beside = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(
            f"{path}: no such file{nearest(path.name, beside)}",
            hint="give a prompt file, a run folder, or a template with {{ answer }}",
        )
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}", hint="save the file as UTF-8") from None


def _prompt_of(path: Path, content: str) -> Prompt:
    try:
        document = json.loads(content.removeprefix("\ufeff"))
        if isinstance(document, list):
            raise TypeError("chat messages are written for other programs and hold no label words")
        form = document["format"]
        if form != FORMAT:
            raise DataError(f"{path}: format is {form!r}, this version reads {FORMAT!r}")
        return Prompt(_text(document["prompt"]), _label_words(document))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: not a prompt written by this library ({type(error).__name__}: {error})",
            hint="give the .txt or .json that `autoprompt optimize` or `export` wrote",
        ) from None


def _label_words(document: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {str(label): _words(words) for label, words in document["label_words"].items()}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"must be text (got {value!r:.60})")
    return value


def _words(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise TypeError(f"label_words must be lists of words (got {value!r:.60})")
    return tuple(_text(word) for word in value)


def _refuse_foreign(sidecar: Path) -> None:
    """Do not write over somebody else's data."""
    if sidecar.is_file():
        try:
            read_prompt(sidecar)
        except DataError:
            raise InputError(
                f"cannot write {str(sidecar)!r}: the file is there and was not written by this library",
                hint="choose another name for the prompt",
            ) from None


def _refuse_shared(path: Path, sidecar: Path, document: Mapping[str, Any]) -> None:
    """Do not write over what tells the label words of another file's prompt."""
    for other in (sidecar.with_suffix(ending) for ending in (".txt", ".jinja")):
        if other == path or not other.is_file() or not sidecar.is_file():
            continue
        of_other = read_prompt(other)
        if of_other.key != Prompt(str(document["prompt"]), _label_words(document)).key:
            raise InputError(
                f"cannot write {str(sidecar)!r}: it tells the label words of {str(other)!r}, which is another prompt",
                hint="choose another name for the prompt",
            )


def _write_json(path: Path, content: object) -> None:
    write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
