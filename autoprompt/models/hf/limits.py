"""How long a text a model takes, and which id may stand for padding."""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

_UNSET = 1_000_000  # tokenizers without a limit of their own say 10**30


def longest_text(model: Any, tokenizer: PreTrainedTokenizerBase, wanted: int | None) -> int | None:
    """Tokens that fit: the least of the model's positions, the tokenizer's limit and what the user asked
    for.
    """
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    limits = []
    if isinstance(positions, int) and positions > 0:
        limits.append(positions - reserved_positions(model))
    if 0 < tokenizer.model_max_length < _UNSET:
        limits.append(int(tokenizer.model_max_length))
    if wanted is not None:
        limits.append(wanted)
    return min(limits, default=None)


def reserved_positions(model: Any) -> int:
    """Positions a text cannot use. RoBERTa's kin number from the padding id + 1 on; their table says so by a
    padding row of its own.
    """
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0


def read_alike(model: Any) -> float:
    """Tokens up to which a text is read alike whatever is run beside it, and in however many parts; infinite for most.

    Longer ones have other rotary positions from their first token on (LongRoPE, Ding et al. 2024: Phi-3's), by the longest
    text in a batch, or attend in chunks (Llama 4's).
    """
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    ends = [getattr(config, "attention_chunk_size", None)]
    ends += [
        each.get("original_max_position_embeddings")
        for each in (rope, *rope.values())
        if isinstance(each, dict) and each.get("rope_type") == "longrope"
    ]
    return min((end for end in ends if isinstance(end, int)), default=math.inf)


def usable_pad(model: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """An id to fill rows up with. It is masked, so any will do that the embedding table has."""
    size = model.get_input_embeddings().num_embeddings
    config = model.config.get_text_config()
    for candidate in (tokenizer.pad_token_id, getattr(config, "pad_token_id", None)):  # CodeGen's has none
        if isinstance(candidate, int) and 0 <= candidate < size:
            return candidate
    return 0
