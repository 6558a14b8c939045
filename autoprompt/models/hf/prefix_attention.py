"""Keys and values that stand at some places of a text in every layer, put in where attention reads them.

transformers hands the keys and values of a layer to one attention function, after the rotation and after the cache. There
those at the places of a prefix are replaced (Li & Liang 2021, "Prefix-Tuning", section 4); what the model computed for
them is read by nobody. Our attention over trees calls ``put`` as well, so that nothing else about a run is different.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "autoprompt_prefix"
KeysValues = tuple[torch.Tensor, torch.Tensor]


class Given:
    """Prefixes inside the block of ``giving``.

    Args:
        pairs: [P, layers, 2, K, d] keys and values of all rows there are.
        first: the id that stands for row 0; the others follow it.

    Attributes:
        used: whether any was put in.
    """

    def __init__(self, pairs: torch.Tensor, first: int) -> None:
        self._pairs, self._first = pairs, first
        self._rows = self._places = self._which = torch.empty(0, dtype=torch.long)
        self._length = self._layer = 0
        self.used = False

    def look(self, ids: torch.Tensor) -> torch.Tensor:
        """At the beginning of a forward: take the places down; returns the ids [R, T] without those of rows."""
        self._rows, self._places = torch.nonzero(ids >= self._first, as_tuple=True)
        self._which = ids[self._rows, self._places] - self._first
        self._length, self._layer = ids.shape[1], 0
        return torch.where(ids >= self._first, 0, ids)

    def put(self, key: torch.Tensor, value: torch.Tensor) -> KeysValues:
        """The keys and values [R, K, S, d] of the next layer, ours in their places; the last T of S are this forward's."""
        layer, self._layer = self._layer, self._layer + 1
        if not len(self._which):
            return key, value
        self.used = True
        at = self._places + key.shape[2] - self._length
        pair = self._pairs[self._which, layer]  # [n, 2, K, d]
        return self._written(key, pair[:, 0], at), self._written(value, pair[:, 1], at)

    def _written(self, tensor: torch.Tensor, new: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        new = new.to(tensor.dtype)
        if not torch.is_grad_enabled():
            # where they lie, so that a cache holds ours for the tokens that are generated after
            tensor[self._rows, :, at] = new
            return tensor
        heads = torch.arange(tensor.shape[1], device=tensor.device)
        return tensor.index_put((self._rows[:, None], heads, at[:, None]), new)


_given: ContextVar[Given | None] = ContextVar("given", default=None)
_kept: ContextVar[list[KeysValues] | None] = ContextVar("kept", default=None)


@contextlib.contextmanager
def giving(given: Given) -> Iterator[None]:
    """Put prefixes in inside the block."""
    token = _given.set(given)
    try:
        yield
    finally:
        _given.reset(token)


@contextlib.contextmanager
def keeping() -> Iterator[list[KeysValues]]:
    """Inside the block, keep what every layer reads, in the order of the layers."""
    kept: list[KeysValues] = []
    token = _kept.set(kept)
    try:
        yield kept
    finally:
        _kept.reset(token)


def put(key: torch.Tensor, value: torch.Tensor) -> KeysValues:
    """The keys and values [R, K, S, d] of a layer with the prefixes in their places."""
    given, kept = _given.get(), _kept.get()
    if given is not None:
        key, value = given.put(key, value)
    if kept is not None:
        kept.append((key, value))
    return key, value


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    **other: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls where rows run side by side: torch's attention, and soft caps (Gemma 2) by hand."""
    key, value = put(key, value)
    if softcap is None:
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, scaling=scaling, is_causal=is_causal, **other
        )
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    weights = softcap * torch.tanh(query @ key.transpose(2, 3) * (scale / softcap))
    if attention_mask is None:  # the plain causal order
        asked, held = weights.shape[2:]
        attention_mask = torch.ones(asked, held, dtype=torch.bool, device=weights.device).tril(held - asked)
    # the least number, not infinity: a row of padding attends to nothing, and must be some number all the same
    weights = weights.masked_fill(~attention_mask, torch.finfo(weights.dtype).min)
    shares = weights.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    return (shares @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
