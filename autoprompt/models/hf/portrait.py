"""What a model is known again by when something that was trained with it is loaded onto a model later.

Not by one hash of all its weights: the same weights in another precision are the same model here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autoprompt.errors import MissingCapability
from autoprompt.models.hf.identity import tokenizer_content
from autoprompt.models.hf.scoring import HuggingFaceModel

_SAMPLES = 64  # rows of the table, and numbers of the other weights, that a model is known again by
_TOLERANCE = {
    "torch.float16": 2.0**-9,
    "torch.bfloat16": 2.0**-6,
}  # relative; scaled embeddings are rounded twice


def opened(model: object) -> HuggingFaceModel:
    """The model, if its inside can be reached.

    Raises:
        MissingCapability: it cannot.
    """
    if not isinstance(model, HuggingFaceModel):
        raise MissingCapability(
            f"soft prompts belong to models whose embeddings can be read (got {type(model).__name__})",
            hint='use load_model with a folder, a Hugging Face id, "bundled:causal" or (model, tokenizer)',
        )
    return model


def portrait(model: HuggingFaceModel) -> dict[str, Any]:
    """What a model is known again by: its name for people, and numbers of its content for ``differences``.

    ``embedding``: shape [V, D], RMS of what the module gives, a hash of 64 of its rows spread over the table (in
    float32) and one number of each; ``weights``: 64 numbers of the other matrices, since a fine-tuned model may keep
    its table.
    """
    table = model._table
    size, width = table.weight.shape
    ids = np.unique(np.linspace(0, size - 1, min(size, _SAMPLES)).astype(int))
    rows = table.embedded(ids.tolist()).cpu().numpy()
    picked = rows[np.arange(len(ids)), np.arange(len(ids)) * 7 % width]
    return {
        "name": model.name,
        "revision": model.revision,
        "kind": model.kind,
        "chat": model._parts.settings.chat,
        "dtype": str(model._dtype),
        "fingerprint": model.fingerprint,
        "tokenizer": hashlib.sha256(tokenizer_content(model._parts.tokenizer).encode()).hexdigest(),
        "embedding": {
            "shape": [int(size), int(width)],
            "rms": float(f"{table.unit:.9g}"),
            "sha256": hashlib.sha256(rows.astype("<f4").tobytes()).hexdigest(),
            "sample": _written(picked.tolist()),
        },
        "weights": _written(_weights_sample(model)),
    }


def differences(saved: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What of two portraits cannot be the same model; the same weights in another precision can."""
    found = []
    for what in ("kind", "chat"):
        if saved[what] != here[what]:
            found.append(f"{what} (saved: {saved[what]}, here: {here[what]})")
    if saved["tokenizer"] != here["tokenizer"]:
        found.append(f"tokenizer (saved: {saved['tokenizer'][:8]}, here: {here['tokenizer'][:8]})")
    then, now = saved["embedding"], here["embedding"]
    same = saved["dtype"] == here["dtype"]
    apart = max(_TOLERANCE.get(each["dtype"], 2.0**-20) for each in (saved, here))
    if list(then["shape"]) != list(now["shape"]):
        found.append(f"input embeddings (saved: {list(then['shape'])}, here: {list(now['shape'])})")
    elif (same and then["sha256"] != now["sha256"]) or not _close(then["sample"], now["sample"], apart):
        found.append(
            f"input embeddings (saved: RMS {then['rms']:.4g}, here: RMS {now['rms']:.4g}, other rows)"
        )
    elif not _close(saved["weights"], here["weights"], 2.0**-20 if same else apart):
        found.append("weights (the embeddings are alike: is it a fine-tuned form of the other?)")
    return found


def _weights_sample(model: HuggingFaceModel) -> list[float]:
    at = model._table.weight.data_ptr()
    matrices = [
        weight
        for _, weight in sorted(model._model.named_parameters())
        if weight.dim() > 1 and weight.is_floating_point() and weight.data_ptr() != at
    ]
    if not matrices:
        return []
    picks = [(matrices[number * len(matrices) // _SAMPLES], number * 104729) for number in range(_SAMPLES)]
    return [float(weight.detach().reshape(-1)[place % weight.numel()]) for weight, place in picks]


def _written(values: Sequence[float]) -> str:
    return " ".join(f"{value:.9g}" for value in values)


def _close(saved: str, here: str, apart: float) -> bool:
    then, now = np.array(saved.split(), float), np.array(here.split(), float)
    if then.shape != now.shape:
        return False
    room = apart * np.abs(then) + apart * 1e-2 * np.sqrt(np.mean(then**2)) if len(then) else then
    return bool((np.abs(then - now) <= room).all())
