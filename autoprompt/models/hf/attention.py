"""Attention over a tree of tokens, as an attention function of transformers.

transformers 5 routes every family that uses its ``AttentionInterface`` through one function. Ours knows the
layout of the chunk that is being run: each family of siblings attends to its ancestors' keys and values, which
are computed once, and each sibling to its own. What a family of models does besides (grouped heads, soft caps,
sliding windows, scales) comes as arguments and is done here as there; an argument that is not known ends the
attempt, and the model is run row by row.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from transformers import AttentionInterface

from autoprompt.models.hf.contexts import routed
from autoprompt.models.hf.layout import Block, Family, Layout
from autoprompt.models.hf.prefix_attention import KeysValues, put

NAME = "autoprompt_tree"
# arguments that change nothing here: dropout is off, positions are in queries and keys already
_KNOWN = {
    "dropout", "position_ids", "use_cache", "output_attentions", "is_causal", "cache_position", "layer_idx",
    "deterministic",
}  # fmt: skip
_LONG = 16  # tokens of context from which on two attentions and a merge beat one over joined keys
_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # gives the log-sum-exp a merge needs


class Unsupported(Exception):
    """This family of models cannot be run as a tree."""


class Enough(Exception):
    """Keys and values of the last block are known; the rest of its first run is not needed."""


class Run:
    """The state of one tree's run through a model: the chunk at hand, and keys and values that later ones need.

    Attributes:
        layout: the chunk.
        modules: the attention modules of one forward, in order.
        capturing: stop at the next attention, after taking its keys and values.
        reading: only the tokens that are read ask.
    """

    def __init__(self, *, causal: bool) -> None:
        self.causal = causal
        self.layout: Layout | None = None
        self.modules: list[torch.nn.Module] = []
        self.capturing = False
        self.reading = False
        self._layer = 0
        self._captured: KeysValues | None = None
        self._kept: dict[tuple[int, int], KeysValues] = {}  # by layer and node

    def give(self, node: int, layers: Sequence[KeysValues]) -> None:
        """Hand in the keys and values of a node that need not be run."""
        for layer, pair in enumerate(layers):
            self._kept[layer, node] = pair

    def kept(self, node: int) -> list[KeysValues]:
        """Keys and values of a node that later chunks attend to, layer by layer."""
        return [
            pair for (_, other), pair in sorted(self._kept.items(), key=lambda item: item[0]) if other == node
        ]

    @contextlib.contextmanager
    def chunk(self, layout: Layout) -> Iterator[None]:
        """Run the model on one chunk inside the block."""
        self.layout, self.modules = layout, []
        self.capturing = self.reading = False
        self._layer, self._captured = 0, None
        token = _active.set(self)
        try:
            yield
        finally:
            _active.reset(token)
            dropped = set(layout.dropped)
            self._kept = {key: pair for key, pair in self._kept.items() if key[1] not in dropped}

    def attend(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        window: int | None,
        cap: float | None,
    ) -> torch.Tensor:
        """[1, m, H, d] attention of the tokens that ask; ``query`` [1, H, m, d], ``key`` and ``value`` [1, K, T, d]."""
        assert self.layout is not None
        if self.reading:
            if self._captured is None:
                raise Unsupported("a last block without attention")
            key, value = self._captured
        else:
            self.modules.append(module)
            key, value = put(key, value)
            for node, first, end in self.layout.kept:
                self._kept[self._layer, node] = key[:, :, first:end].clone(), value[:, :, first:end].clone()
            if self.capturing:
                self._captured = key, value
                raise Enough
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        asked = query.shape[2]
        out = query.new_empty(1, asked, query.shape[1], value.shape[-1])
        for family in self.layout.reading if self.reading else self.layout.families:
            before = self._context(family, key, value)
            attention = _Attention(key, value, before, family.context, scale, window, cap, causal=self.causal)
            for block in family.blocks:
                attention.block(query, block, out)
        self._layer += 1
        return out

    def _context(self, family: Family, key: torch.Tensor, value: torch.Tensor) -> KeysValues | None:
        if not family.context:
            return None
        kept = [self._kept[self._layer, node] for node in family.kept]
        keys = [pair[0] for pair in kept] + [key[:, :, first:end] for first, end in family.here]
        values = [pair[1] for pair in kept] + [value[:, :, first:end] for first, end in family.here]
        if len(keys) == 1:
            return keys[0], values[0]
        return torch.cat(keys, dim=2), torch.cat(values, dim=2)


class _Attention:
    """Attention of the siblings of one family."""

    def __init__(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        before: KeysValues | None,
        context: int,
        scale: float,
        window: int | None,
        cap: float | None,
        *,
        causal: bool,
    ) -> None:
        self._key, self._value, self._before = key, value, before
        self._context, self._scale, self._window, self._cap = context, scale, window, cap
        self._causal = causal

    def block(self, query: torch.Tensor, block: Block, out: torch.Tensor) -> None:
        """Write [1, ., H, d] results of one block of siblings into their places of ``out``."""
        asked = _take(query, block.queries, block.whole)  # [B, H, m, d]
        keys, values = (_take(each, block.keys, block.whole) for each in (self._key, self._value))
        groups = asked.shape[1] // keys.shape[1]
        if groups > 1:
            keys, values = (each.repeat_interleave(groups, dim=1) for each in (keys, values))
        if self._mergeable(block, asked):
            result = self._merged(asked, keys, values, groups)
        else:
            result = self._joined(asked, keys, values, block, groups)
        if block.whole is not None:
            first, end = block.whole
            B, H, m, d = result.shape
            out[0, first:end].view(B, m, H, d).copy_(result.transpose(1, 2))
        else:
            out[0, block.queries[block.real]] = result.transpose(1, 2)[block.real]

    def _mergeable(self, block: Block, asked: torch.Tensor) -> bool:
        return (
            self._context >= _LONG
            and self._causal
            and block.mask is None
            and self._cap is None
            and not self._windowed(block)
            and asked.device.type == "cpu"
            and asked.shape[-1] == self._value.shape[-1]
            and not (torch.is_grad_enabled() and (asked.requires_grad or self._key.requires_grad))
        )

    def _windowed(self, block: Block) -> bool:
        return self._window is not None and self._context + block.keys.shape[1] > self._window

    def _merged(
        self, asked: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, groups: int
    ) -> torch.Tensor:
        """Attention to the ancestors and to the own tokens apart, merged by their log-sum-exp.

        (Dao et al. 2022, "FlashAttention", section 3.1: softmax over blocks of keys.) The ancestors' keys are
        read once for all siblings.
        """
        assert self._before is not None
        B, H, m, d = asked.shape
        own, own_norm = _flash(asked, keys, values, 0.0, True, scale=self._scale)
        # siblings that share their keys and values stand in one long row of queries, grouped heads too
        ancestors, ancestors_values = self._before
        K = H // groups
        rows = asked.reshape(B, K, groups, m, d).permute(1, 2, 0, 3, 4).reshape(1, K, groups * B * m, d)
        other, norm = _flash(rows, ancestors, ancestors_values, 0.0, False, scale=self._scale)
        other = other.reshape(K, groups, B, m, d).permute(2, 0, 1, 3, 4).reshape(B, H, m, d)
        norm = norm.reshape(K, groups, B, m).permute(2, 0, 1, 3).reshape(B, H, m)
        share = torch.sigmoid(own_norm - norm).to(own.dtype)[..., None]
        return torch.lerp(other, own, share)

    def _joined(
        self, asked: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, block: Block, groups: int
    ) -> torch.Tensor:
        """One attention over the ancestors' and the own keys side by side."""
        B, m = asked.shape[0], asked.shape[2]
        mask = self._mask(block, m)
        if self._before is not None:
            before = [each.repeat_interleave(groups, dim=1) if groups > 1 else each for each in self._before]
            keys = torch.cat([before[0].expand(B, -1, -1, -1), keys], dim=2)
            values = torch.cat([before[1].expand(B, -1, -1, -1), values], dim=2)
        if self._cap is None:
            return torch.nn.functional.scaled_dot_product_attention(
                asked,
                keys,
                values,
                attn_mask=mask,
                scale=self._scale,
                is_causal=mask is None and self._causal,
            )
        weights = self._cap * torch.tanh(asked @ keys.transpose(2, 3) * (self._scale / self._cap))
        if mask is not None:
            weights = weights.masked_fill(~mask, -math.inf)
        return weights.softmax(dim=-1, dtype=torch.float32).to(values.dtype) @ values

    def _mask(self, block: Block, m: int) -> torch.Tensor | None:
        """[B or 1, 1, m, context + n] which keys are attended to; None where the plain causal order says it all."""
        n = block.keys.shape[1]
        plain = block.mask is None and not self._windowed(block)
        if plain and (not self._causal or (not self._context and self._cap is None)):
            return None
        device = block.keys.device
        steps = torch.arange(n, device=device)
        mask = block.mask
        if mask is None:
            mask = torch.ones(1, 1, m, n, dtype=torch.bool, device=device)
            if self._causal:
                mask = (steps[None, None, :] <= block.offsets[:, :, None])[:, None]
        mask = torch.nn.functional.pad(mask, (self._context, 0), value=True)
        if self._windowed(block):
            assert self._window is not None
            at = torch.arange(self._context + n, device=device)
            ahead = (self._context + block.offsets)[:, None, :, None] - at  # how far back a key stands
            mask = mask & (ahead < self._window) & (ahead > -self._window)
        return mask


def _take(tensor: torch.Tensor, places: torch.Tensor, whole: tuple[int, int] | None) -> torch.Tensor:
    """[B, H, n, d] rows of ``tensor`` [1, H, T, d] at ``places`` [B, n]; a view where they stand side by side."""
    B, n = places.shape
    H, d = tensor.shape[1], tensor.shape[3]
    if whole is not None:
        first, end = whole
        return tensor[0, :, first:end].view(H, B, n, d).transpose(0, 1)
    by_token = tensor[0].transpose(0, 1)
    if by_token.stride(1) == d:  # a token's heads lie side by side: whole tokens are copied
        return by_token.index_select(0, places.flatten()).view(B, n, H, d).transpose(1, 2)
    return tensor[0].index_select(1, places.flatten()).view(H, B, n, d).transpose(0, 1)


_active: ContextVar[Run | None] = ContextVar("run", default=None)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **other: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls; ``other`` may hold what is known not to matter here."""
    run = _active.get()
    if run is None:
        raise Unsupported("no tree is being run")
    unknown = [name for name, given in other.items() if given is not None and name not in _KNOWN]
    if unknown or attention_mask is not None:
        raise Unsupported(f"attention with {', '.join(unknown) or 'a mask of its own'}")
    return run.attend(module, query, key, value, scaling, sliding_window, softcap), None


AttentionInterface.register(NAME, _attention)


def tree_attention(model: Any) -> contextlib.AbstractContextManager[None]:
    """Route the model's attention through the tree inside the block; the user's model is left as it was."""
    return routed(model, NAME)
