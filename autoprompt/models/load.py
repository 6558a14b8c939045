"""From what the user gave to a model: ``load_model``.

``check_model`` is everything that can be checked before anything heavy is imported or read.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autoprompt.errors import InputError, UnknownName, nearest
from autoprompt.models import Model, bundled
from autoprompt.models.function import FunctionModel
from autoprompt.models.hf.settings import Settings
from autoprompt.models.server.names import FORM, PREFIX, PUBLIC, is_server, parse_server
from autoprompt.models.toy import ToyModel

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")
_FORMS = (
    '"toy", "bundled:masked", "bundled:causal", a folder, a Hugging Face id (each may be followed by '
    f'options: "gpt2?chat&max_length=512"), a server\'s model ({FORM}), (model, tokenizer), a function '
    "str -> str, or an object with the methods of autoprompt.models.Model"
)


@dataclass(frozen=True)
class _Parsed:
    """A model's name, taken apart."""

    kind: Literal["toy", "folder", "hub", "server"]
    name: str
    place: str
    settings: Settings


def load_model(spec: object) -> Model:
    """Make a model from what the user gave.

    Args:
        spec: ``"toy"``; ``"bundled:NAME"``; a folder; a Hugging Face id; ``"openai:NAME@URL"`` for a server; each
            but the toy with options as a query (``"gpt2?chat&max_length=512"``, see ``hf.settings.Settings`` and
            ``server.names.ServerSettings``); ``(hf_model, tokenizer)``; a function ``str -> str``; or an object
            that meets the protocols, which is returned as it is.

    Returns:
        A ``Model`` that is a ``CompletingModel``, a ``ScoringModel`` or both.

    Raises:
        InputError: the spec is none of these, or bad options.
        UnknownName: no model of that name.
        ModelError: it is there but cannot be loaded; a server is not there or refuses.
        MissingCapability: a server cannot do what its options demand.
    """
    if isinstance(spec, os.PathLike):
        spec = os.fspath(spec)
    if isinstance(spec, str):
        return _load_named(_parse(spec))
    if isinstance(spec, tuple):
        _check_pair(spec)
        from autoprompt.models.hf.loading import load_pair

        return load_pair(spec[0], spec[1], Settings())
    _check_object(spec)
    if isinstance(spec, Model):
        return spec
    if callable(spec):
        return FunctionModel(spec)
    raise InputError(f"model: cannot use a {type(spec).__name__}")  # _check_object has said so already


def check_model(spec: object) -> None:
    """Check all that can be checked without loading anything: the name, the folder's files, the options.

    Raises:
        InputError, UnknownName: as ``load_model``.
    """
    if isinstance(spec, os.PathLike):
        spec = os.fspath(spec)
    if isinstance(spec, str):
        parsed = _parse(spec)
        if parsed.kind == "folder":
            _check_folder(parsed)
    elif isinstance(spec, tuple):
        _check_pair(spec)
    else:
        _check_object(spec)


def _load_named(parsed: _Parsed) -> Model:
    if parsed.kind == "toy":
        return ToyModel()
    if parsed.kind == "server":
        from autoprompt.models.server.model import load_server

        return load_server(parsed.name)
    if parsed.kind == "folder":
        _check_folder(parsed)
        from autoprompt.models.hf.loading import load_folder

        return load_folder(Path(parsed.place), parsed.settings, name=parsed.name)
    from autoprompt.models.hf.loading import load_hub

    return load_hub(parsed.place, parsed.settings, name=parsed.name)


def _parse(spec: str) -> _Parsed:
    if not spec.strip():
        raise InputError(f"model: the name is empty; allowed: {_FORMS}")
    if is_server(spec):
        parse_server(spec).key()  # offline: whether there is one where one is needed
        return _Parsed("server", spec, "", Settings())
    _check_server_form(spec)
    name, mark, query = (spec, "", "") if Path(spec).is_dir() else spec.partition("?")
    if name == "toy":
        if mark:
            raise InputError(f"model {spec!r}: the toy takes no options")
        return _Parsed("toy", spec, "", Settings())
    settings = Settings.parse(query, where=spec)
    if name.startswith("bundled:"):
        return _Parsed("folder", spec, str(_bundled_folder(name)), _local(settings, spec))
    path = Path(name).expanduser()
    if path.is_dir():
        return _Parsed("folder", spec, str(path), _local(settings, spec))
    if path.is_file():
        raise InputError(
            f"model {name!r} is a file; a model is a folder with config.json, weights and tokenizer",
            hint=f"give its folder: {str(path.parent)!r}",
        )
    _check_hub_id(name, path)
    return _Parsed("hub", spec, name, settings)


def _check_server_form(spec: str) -> None:
    """A URL, or almost the prefix of a server, is answered with the form that is meant."""
    if re.match(r"https?://", spec, re.IGNORECASE):
        raise InputError(
            f"model {spec.partition('?')[0]!r}: a URL alone names no model",
            hint=f"write {PREFIX}NAME@{spec.partition('?')[0]}",
        )
    scheme, mark, rest = spec.partition(":")
    meant = ("openai", "server", "vllm", "ollama", "litellm")
    almost = scheme.lower() in meant or bool(nearest(scheme, meant[:1]))
    if (mark and almost) or re.match(r"openai[/@]", spec, re.IGNORECASE):
        name = rest if mark and almost else re.sub(r"^openai[/@]", "", spec, flags=re.IGNORECASE)
        where = f"{PREFIX}{name.partition('?')[0]}" + ("" if "@http" in name else "@http://HOST:PORT/v1")
        raise UnknownName(
            f"model {spec.partition('?')[0]!r}: not a model; a server's is {FORM} (without @URL: {PUBLIC})",
            hint=f"write {where}",
        )


def _local(settings: Settings, spec: str) -> Settings:
    if settings.revision is not None:
        raise InputError(f"model {spec!r}: revision is for Hugging Face ids; a folder has none")
    return settings


def _bundled_folder(name: str) -> Path:
    wanted = name.removeprefix("bundled:")
    known = bundled.names()
    if wanted not in known:
        raise UnknownName(
            f"model {name!r}: no bundled model {wanted!r}{nearest(wanted, known)}; "
            f"bundled: {', '.join(known) or 'none in this installation'}"
        )
    return bundled.folder(wanted)


def _check_hub_id(name: str, path: Path) -> None:
    """Refuse what cannot be a hub id; what looks like a path is answered with the folders nearby."""
    has_slashes = name.count("/") > 1 and ":" not in name  # "scheme:..." is no path
    looks_like_path = name.startswith((".", "/", "~")) or has_slashes or "\\" in name
    parent_is_there = len(path.parts) > 1 and path.parent.is_dir()
    if looks_like_path or parent_is_there:
        siblings = (
            [child.name for child in path.parent.iterdir() if child.is_dir()] if parent_is_there else []
        )
        raise UnknownName(
            f"model {name!r}: no such folder{nearest(path.name, siblings)}",
            hint="a model is a folder with config.json, weights (safetensors) and tokenizer",
        )
    if not _HUB_ID.fullmatch(name):
        known = ["toy", *(f"bundled:{each}" for each in bundled.names())]
        raise UnknownName(f"model {name!r}: not a model{nearest(name, known)}; allowed: {_FORMS}")


def _check_folder(parsed: _Parsed) -> None:
    """Check that a folder holds what will be read from it."""
    folder = Path(parsed.place)
    files = {path.name for path in folder.iterdir()}
    where = f"model {parsed.name!r}"
    if "config.json" not in files:
        if "adapter_config.json" in files:
            raise InputError(
                f"{where}: the folder holds a PEFT adapter, not a model",
                hint="merge it into its base model (merge_and_unload) and save that",
            )
        inside = sorted(path.parent.name for path in folder.glob("*/config.json"))
        hint = (
            f"models in it: {', '.join(inside)}" if inside else "save one with model.save_pretrained(folder)"
        )
        raise InputError(f"{where}: the folder has no config.json", hint=hint)
    _read_json(folder / "config.json", where)
    if not any(name.endswith(".safetensors") for name in files):
        bins = sorted(name for name in files if name.endswith(".bin"))
        if not bins:
            raise InputError(f"{where}: the folder has no weights (*.safetensors)")
        if not parsed.settings.allow_bin:
            raise InputError(
                f"{where}: the folder has no safetensors, only {bins[0]}, a pickle that can run code",
                hint="add ?allow_bin to the name if you trust its source",
            )
    if not files & {"tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.txt", "vocab.json",
                    "spiece.model", "sentencepiece.bpe.model"}:  # fmt: skip
        raise InputError(f"{where}: the folder has no tokenizer (tokenizer.json)")
    if parsed.settings.chat and not _has_chat_template(folder, files, where):
        raise InputError(
            f"{where}: chat is asked for, but the model has no chat template", hint="leave ?chat out"
        )


def _has_chat_template(folder: Path, files: set[str], where: str) -> bool:
    if files & {"chat_template.jinja", "chat_template.json", "chat_templates"}:
        return True
    if "tokenizer_config.json" not in files:
        return False
    return bool(_read_json(folder / "tokenizer_config.json", where).get("chat_template"))


def _read_json(path: Path, where: str) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{where}: cannot read {path.name}: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{where}: {path.name} must hold a JSON object")
    return content


def _check_pair(pair: tuple[object, ...]) -> None:
    if len(pair) != 2:
        raise InputError(f"model: a tuple must be (model, tokenizer) (got {len(pair)} entries)")
    for entry in pair:
        if not _is_from(entry, "transformers", "torch", "peft"):
            raise InputError(
                "model: a tuple must be (model, tokenizer), both from transformers "
                f"(got {tuple(type(each).__name__ for each in pair)})"
            )


def _check_object(spec: object) -> None:
    if isinstance(spec, type):
        raise InputError(f"model: got the class {spec.__name__}; give an instance of it")
    if isinstance(spec, Model):
        return
    if _is_from(spec, "transformers", "torch", "peft"):
        raise InputError(
            f"model: got a {type(spec).__name__} alone; a model needs its tokenizer",
            hint="give (model, tokenizer)",
        )
    if not callable(spec):
        raise InputError(f"model: cannot use a {type(spec).__name__} (got {spec!r:.80}); allowed: {_FORMS}")


def _is_from(value: object, *packages: str) -> bool:
    """Whether the value's class, or one it is built on, comes from one of the packages (without importing
    them).
    """
    return any(cls.__module__.partition(".")[0] in packages for cls in type(value).__mro__)
