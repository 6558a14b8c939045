"""Rows side by side: filled up to one width, and what runs a decoder on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutput

from autoprompt.models.hf.tokens import Ids

Padded = tuple[torch.Tensor, torch.Tensor]
"""Ids and attention mask, both [R, T]."""


def padded(rows: Sequence[Ids], pad: int, device: torch.device, *, left: bool = False) -> Padded:
    """Fill rows up with ``pad`` to the longest."""
    width = max(map(len, rows))
    ids, mask = [], []
    for row in rows:
        pads = [pad] * (width - len(row))
        ones, zeros = [1] * len(row), [0] * len(pads)
        ids.append([*pads, *row] if left else [*row, *pads])
        mask.append([*zeros, *ones] if left else [*ones, *zeros])
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def encoder_states(model: Any, sources: Padded) -> torch.Tensor:
    """[S, T, D] what the encoder makes of its texts."""
    ids, mask = sources
    return model.get_encoder()(input_ids=ids, attention_mask=mask, return_dict=True).last_hidden_state  # type: ignore[no-any-return]


def decoder_logits(
    model: Any, states: torch.Tensor, source_mask: torch.Tensor, source_of: Sequence[int], rows: Padded
) -> torch.Tensor:
    """[R, T, V] logits of decoder rows.

    Args:
        model: an encoder-decoder model.
        states: [S, U, D] what the encoder made of its texts.
        source_mask: [S, U] their attention mask.
        source_of: [R] the text each row goes with.
        rows: what the decoder reads.
    """
    which = torch.tensor(source_of, device=states.device)
    ids, mask = rows
    output = model(
        encoder_outputs=BaseModelOutput(last_hidden_state=states[which]),
        attention_mask=source_mask[which],
        decoder_input_ids=ids,
        decoder_attention_mask=mask,
        use_cache=False,
        return_dict=True,
    )
    return output.logits  # type: ignore[no-any-return]
