"""A soft prompt as a folder that keeps everything.

``soft.json`` is for people (template, anchors, label words, model, scores), ``rows-HASH.safetensors`` holds one float32
tensor a slot: [L, D], or of keys and values [L, layers * 2 * heads * d]. A folder, so that what belongs together is moved
together. The JSON names its tensors by their hash and is written last, so that at every moment the folder holds the old or
the new prompt whole.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pydantic
import safetensors.numpy

from autoprompt.errors import DataError, InputError, MissingCapability
from autoprompt.models import Model
from autoprompt.prompt import Prompt
from autoprompt.soft import Form, SoftRows
from autoprompt.softfiles.disk import Tensors, parsed, read_json, refuse_hard, write_json
from autoprompt.study import write_atomically
from autoprompt.template import HOLE, HOLE_END, HOLE_START

if TYPE_CHECKING:
    from autoprompt.models.hf.scoring import HuggingFaceModel

FORMAT: Literal["autoprompt-soft/1"] = "autoprompt-soft/1"
_MARK = re.compile(r"\[\[ (\w+) \]\]")


class _Embedding(pydantic.BaseModel, extra="forbid", strict=True):
    shape: list[int]
    rms: float
    sha256: str
    sample: str


class _Base(pydantic.BaseModel, extra="forbid", strict=True):
    name: str
    revision: str
    kind: str
    chat: bool
    dtype: str
    fingerprint: str
    tokenizer: str
    embedding: _Embedding
    weights: str


class _Rows(pydantic.BaseModel, extra="forbid", strict=True):
    file: str = pydantic.Field(pattern=r"^rows-[0-9a-f]{8}\.safetensors$")
    sha256: str
    shapes: dict[str, list[int]]
    forms: dict[str, Form] = {}  # of the slots whose rows are no embeddings


class _File(pydantic.BaseModel, extra="forbid", strict=True):
    """``soft.json``."""

    format: Literal["autoprompt-soft/1"]
    library: str
    key: str
    template: str
    slots: dict[str, str]
    text: str
    label_words: dict[str, list[str]]
    rows: _Rows
    model: _Base
    about: dict[str, Any]


def save_soft(path: str | Path, prompt: Prompt, model: Model, about: Mapping[str, Any] | None = None) -> Path:
    """Write a soft prompt into a folder.

    Args:
        path: the folder; made where it is absent. A soft prompt that is there is replaced.
        prompt: with rows in some of its token slots.
        model: the one they were trained with.
        about: anything JSON can say, such as scores.

    Returns:
        The folder.

    Raises:
        InputError: the prompt has no rows, ``about`` is no JSON, or the folder holds something else of that name.
        MissingCapability: the model's embeddings cannot be read.
    """
    from autoprompt import __version__
    from autoprompt.models.hf.portrait import opened, portrait

    folder = Path(path)
    base = _Base(**portrait(opened(model)))
    refuse_hard(prompt)
    _check_rows(prompt, opened(model), base)
    before = _replaced(folder)
    tensors = {name: rows.values for name, rows in prompt.soft.items()}
    raw = safetensors.numpy.save(tensors, metadata={"format": "np"})
    digest = hashlib.sha256(raw).hexdigest()
    shapes = {name: list(rows.shape) for name, rows in prompt.soft.items()}
    forms: dict[str, Form] = {
        name: rows.form for name, rows in prompt.soft.items() if rows.form != "embeddings"
    }
    file = _File(
        format=FORMAT,
        library=__version__,
        key=prompt.key,
        template=_readable(prompt),
        slots=dict(prompt.slots),
        text=prompt.text,
        label_words={label: list(words) for label, words in prompt.words.items()},
        rows=_Rows(file=f"rows-{digest[:8]}.safetensors", sha256=digest, shapes=shapes, forms=forms),
        model=base,
        about=_as_json(about or {}),
    )
    if _prompt_of(file, tensors) != prompt:  # law 4: what is read back is what was scored
        raise InputError(
            f"{folder}: the soft prompt would not read back as it is", hint="make it with Prompt.softened"
        )
    write_atomically(folder / file.rows.file, raw)
    write_json(folder / "soft.json", file.model_dump(exclude=None if forms else {"rows": {"forms"}}))
    if before is not None and before.rows.file != file.rows.file:
        (folder / before.rows.file).unlink(missing_ok=True)
    return folder


def keep_soft(folder: Path, prompt: Prompt, model: Model, about: Mapping[str, Any]) -> None:
    """``save_soft`` at the end of a run, which is not lost where the model cannot be told again: then a ``README.txt``
    in the folder says so.
    """
    try:
        save_soft(folder, prompt, model, about)
    except MissingCapability as error:
        write_atomically(folder / "README.txt", f"The soft prompt was not kept: {error.message}\n")


def load_soft(path: str | Path, model: Model | None = None) -> Prompt:
    """Read a soft prompt back.

    Args:
        path: the folder ``save_soft`` wrote.
        model: what it is to be used with. None leaves unchecked whether that is what it was trained with.

    Raises:
        DataError: the folder is missing, torn or not such a folder.
        InputError: the model is another one; the error says what differs. The same weights elsewhere, or in another
            precision, are no other model.
    """
    folder = Path(path)
    file = _file(folder)
    prompt = _prompt_of(file, _tensors(folder, file))
    if prompt.key != file.key:
        raise DataError(
            f"{folder / 'soft.json'}: does not give the prompt that was saved (key {prompt.key}, saved: {file.key})",
            hint="undo edits by hand; to change the template, make a new prompt and save_soft it",
        )
    if model is not None:
        _check_model(folder, file, model)
    return prompt


def about_soft(path: str | Path) -> dict[str, Any]:
    """What ``save_soft`` was told about the prompt, and the model it belongs to.

    Raises:
        DataError: the folder is missing or not such a folder.
    """
    file = _file(Path(path))
    return {**file.about, "model": file.model.model_dump(include={"name", "revision", "kind", "fingerprint"})}


def _check_rows(prompt: Prompt, model: HuggingFaceModel, base: _Base) -> None:
    """See that the model can read the rows."""
    for name, rows in prompt.soft.items():
        if rows.form == "prefix":
            model._prefixes.tensor(rows)
        elif rows.shape[1] != base.embedding.shape[1]:
            raise InputError(
                f"slot {name!r}: its rows are {rows.shape[1]} wide, but the embeddings of {base.name!r} "
                f"{base.embedding.shape[1]}",
                hint="save it with the model it was trained with",
            )


def _readable(prompt: Prompt) -> str:
    """The frame with ``[[ name ]]`` where token slots stand."""
    for name in _MARK.findall(prompt.frame):
        if name in prompt.slots:
            raise InputError(
                f"prompt: its text holds '[[ {name} ]]' as it stands, which is how the slot {name!r} is written in a file",
                hint="name the slot otherwise",
            )
    return HOLE.sub(lambda hole: f"[[ {hole[1]} ]]", prompt.frame)


def _prompt_of(file: _File, tensors: Tensors) -> Prompt:
    frame = _MARK.sub(
        lambda mark: f"{HOLE_START}{mark[1]}{HOLE_END}" if mark[1] in file.slots else mark[0], file.template
    )
    words = {label: tuple(some) for label, some in file.label_words.items()}
    prompt = Prompt.of_frame(frame, file.slots, words, {})
    return prompt.softened(
        {name: SoftRows(values, file.rows.forms.get(name, "embeddings")) for name, values in tensors.items()}
    )


def _file(folder: Path) -> _File:
    path = folder / "soft.json"
    if not path.is_file() and (folder / "adapter_config.json").is_file():
        raise DataError(
            f"{folder}: an adapter of PEFT, no soft prompt of ours",
            hint="softfiles.import_peft(folder, template, model) makes a prompt of it",
        )
    content = read_json(path, "give the folder that save_soft wrote")
    if content.get("format") != FORMAT:
        raise DataError(f"{path}: format is {content.get('format')!r}, this version reads {FORMAT!r}")
    try:
        return _File(**content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path}: {where}: {first['msg']}", hint="undo edits by hand, or save_soft the prompt anew"
        ) from None


def _tensors(folder: Path, file: _File) -> Tensors:
    """The rows, seen to be those the JSON was written with."""
    path = folder / file.rows.file
    again = "copy the whole folder anew, or save_soft the prompt anew"
    if not path.is_file():
        raise DataError(f"{path}: no such file, but soft.json names it", hint=again)
    raw = path.read_bytes()
    if hashlib.sha256(raw).hexdigest() != file.rows.sha256:
        raise DataError(
            f"{path}: is torn or not the file that soft.json was written with ({len(raw)} bytes)", hint=again
        )
    tensors = parsed(path, raw)
    shapes = {name: list(values.shape) for name, values in tensors.items()}
    if shapes != file.rows.shapes:
        raise DataError(f"{path}: holds {shapes}, but soft.json says {file.rows.shapes}", hint=again)
    return tensors


def _check_model(folder: Path, file: _File, model: Model) -> None:
    from autoprompt.models.hf.portrait import differences, opened, portrait

    found = differences(file.model.model_dump(), portrait(opened(model)))
    if found:
        revision = f" at {file.model.revision}" if file.model.revision else ""
        raise InputError(
            f"{folder}: was trained with {file.model.name!r}{revision}, which {model.name!r} is not: {'; '.join(found)}",
            hint=f"load {file.model.name!r}; load_soft(path) without a model reads the rows all the same, as a start",
        )


def _replaced(folder: Path) -> _File | None:
    """The soft prompt that is in the folder; None where there is none.

    Raises:
        InputError: something else is there under its name.
    """
    if folder.is_file():
        raise InputError(f"cannot save into {str(folder)!r}: it is a file", hint="name a folder")
    if not (folder / "soft.json").is_file():
        return None
    try:
        return _file(folder)
    except DataError as error:
        raise InputError(
            f"cannot save into {str(folder)!r}: its soft.json was not written by this version ({error.message})",
            hint="choose another folder",
        ) from None


def _as_json(about: Mapping[str, Any]) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(json.dumps(about, allow_nan=False))
        return content
    except (TypeError, ValueError) as error:
        raise InputError(
            f"about: cannot be written as JSON ({error})", hint="give numbers, texts, lists and mappings"
        ) from None
