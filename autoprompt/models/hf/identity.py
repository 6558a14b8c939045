"""What a model is, as a hash: weights, configuration and tokenizer; never a path or a display name."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip
# Entries of config.json that say where it came from, not what the model is.
_VOLATILE = ("_name_or_path", "name_or_path", "transformers_version", "_commit_hash", "torch_dtype", "dtype")


def folder_content(folder: Path, *, allow_bin: bool) -> str:
    """Hash of what is in a model's folder.

    The same files elsewhere hash alike, whatever the library versions.
    """
    digest = hashlib.sha256()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    digest.update(_steady(config).encode())
    weights = sorted(folder.glob("*.safetensors"))
    if not weights and allow_bin:
        weights = sorted(folder.glob("*.bin"))
    for path in [*weights, *(folder / name for name in _TOKENIZER_FILES)]:
        if path.is_file():
            stat = path.stat()
            digest.update(
                f"\n{path.name} {_file_hash(path.resolve(), stat.st_size, stat.st_mtime_ns)}".encode()
            )
    return f"folder {digest.hexdigest()}"


def object_content(model: Any, tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of a model's weights and configuration and of its tokenizer, as they are in memory."""
    digest = hashlib.sha256()
    digest.update(f"{type(model).__name__}\n{_steady(model.config.to_diff_dict())}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"\n{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        raw = tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8)
        digest.update(memoryview(raw.numpy()))
    digest.update(tokenizer_content(tokenizer).encode())
    return f"object {digest.hexdigest()}"


def tokenizer_content(tokenizer: PreTrainedTokenizerBase) -> str:
    """What a tokenizer does, as text.

    Its truncation and padding state, which every call changes, is left out.
    """
    if tokenizer.is_fast:
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        state.pop("truncation", None)
        state.pop("padding", None)
    else:
        state = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    return json.dumps([state, str(tokenizer.special_tokens_map)], sort_keys=True)


def _steady(config: dict[str, Any]) -> str:
    return json.dumps(
        {key: value for key, value in config.items() if key not in _VOLATILE}, sort_keys=True, default=str
    )


@functools.lru_cache(maxsize=256)
def _file_hash(path: Path, size: int, modified: int) -> str:
    """SHA-256 of a file, read once while its size and time of change (in nanoseconds) stay."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
