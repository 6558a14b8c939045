"""The output layer only where it is read, and only as far as it is needed.

The output layer is the widest of a language model: run over every token, it costs as much as all the rest of a
small model. A hook before it, there only during a call, takes the states of the tokens that are read; the layer
is then run on these alone, and where answers are only compared with each other, on their rows of it alone.
What a model does to its logits afterwards (soft caps, scales, biases) is found out once, by comparing; a model
that does something else runs its own code on the states that are read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Forward = Callable[[], torch.Tensor]
_BLOCK = 1 << 22  # logits at a time (16 MB in float32)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _After:
    """What a model does to the output layer's logits: scale, add ``bias`` [V], cap."""

    scale: float = 1.0
    cap: float | None = None
    bias: torch.Tensor | None = None

    def __call__(self, logits: torch.Tensor, ids: torch.Tensor | None = None) -> torch.Tensor:
        """Apply it to logits of the whole vocabulary, or of the entries ``ids``."""
        logits = logits * self.scale if self.scale != 1.0 else logits
        if self.bias is not None:
            logits = logits + (self.bias if ids is None else self.bias[ids])
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


class Head:
    """The output layer of one model.

    Before ``learn`` and where the model is not understood, a model's own forward gives all logits.

    Attributes:
        learnt: whether it has been found out which way to use.
        gated: whether the layer runs on the tokens that are read only.
        understood: whether it is also known what happens to its logits, so that it can be run from here.
    """

    def __init__(self, model: Any) -> None:
        layer = model.get_output_embeddings()
        self._layer: torch.nn.Module | None = layer if isinstance(layer, torch.nn.Module) else None
        self._candidates = _candidates(model)
        self._after = _After()
        self._name = type(model).__name__
        self.learnt = self._layer is None
        self.gated = False
        self.understood = False

    def learn(self, forward: Forward, places: torch.Tensor, *, close: float) -> None:
        """See on a small batch which way gives this model's own logits.

        Args:
            forward: runs the model and returns its logits, [R, T, V].
            places: [n] some places of the flattened batch.
            close: how far logits may be apart, absolutely and relatively.
        """
        self._compare(forward, places, close)
        self.learnt = True

    def _compare(self, forward: Forward, places: torch.Tensor, close: float) -> None:
        full = self._read(forward, places, gated=False)
        try:
            gated = self._read(forward, places, gated=True)
        except torch.OutOfMemoryError:  # says nothing of the architecture
            raise
        except (RuntimeError, ValueError, IndexError):
            _log.info("%s: its output layer cannot be run on some tokens only", self._name)
            return
        self.gated = torch.allclose(full, gated, rtol=close, atol=close, equal_nan=True)
        if not self.gated or self._layer is None:
            _log.info("%s: its output layer gives other logits on some tokens only", self._name)
            return
        raw = self._layer(self.states(forward, places))
        for after in self._candidates:
            if torch.allclose(full, after(raw), rtol=close, atol=close, equal_nan=True):
                self._after, self.understood = after, True
                return
        _log.info("%s: what it does to its logits is not known here; its own code runs", self._name)

    def states(self, forward: Forward, places: torch.Tensor) -> torch.Tensor:
        """What the output layer reads at ``places``, [n, D]; it is run on a single token."""
        found: list[torch.Tensor] = []

        def take(_: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            hidden = inputs[0]  # [R, T, D]
            found.append(hidden.flatten(0, 1)[places])
            return (hidden[:1, :1], *inputs[1:])

        assert self._layer is not None
        handle = self._layer.register_forward_pre_hook(take)
        try:
            forward()
        finally:
            handle.remove()
        return found[0]

    def read(self, forward: Forward, places: torch.Tensor) -> torch.Tensor:
        """States at ``places`` where the model is understood, else its logits there: [n, D] or [n, V]."""
        return (
            self.states(forward, places) if self.understood else self._read(forward, places, gated=self.gated)
        )

    def logits(self, read: torch.Tensor) -> Iterator[torch.Tensor]:
        """The logits of what was read, some [., V] at a time, in float32."""
        if not self.understood:
            yield read.float()
            return
        assert self._layer is not None
        first = self._after(self._layer(read[:1])).float()
        yield first
        step = max(1, _BLOCK // first.shape[-1])
        for start in range(1, len(read), step):
            yield self._after(self._layer(read[start : start + step])).float()

    def log_probs(self, read: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """[n] log P(target) over the vocabulary at some rows of what was read, in nats."""
        values = self.picked(read, rows, targets)
        norms = torch.cat([torch.logsumexp(block, dim=-1) for block in self.logits(read)])
        return values - norms[rows]

    def picked(self, read: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """[n] logits of targets at some rows of what was read, in float32."""
        if not self.understood:
            return read[rows, targets].float()
        if type(self._layer) is not torch.nn.Linear:  # wrapped or quantised: it knows how to run itself
            blocks, start, found = self.logits(read), 0, torch.zeros(len(rows), device=read.device)
            for block in blocks:
                inside = (rows >= start) & (rows < start + len(block))
                found[inside] = block[rows[inside] - start, targets[inside]]
                start += len(block)
            return found
        ids, which = torch.unique(targets, return_inverse=True)
        weight = self._layer.weight[ids].float()
        bias = None if self._layer.bias is None else self._layer.bias[ids].float()
        if len(ids) <= 64:
            logits = torch.nn.functional.linear(read.float(), weight, bias)[rows, which]
        else:
            logits = (read[rows].float() * weight[which]).sum(dim=-1) + (0.0 if bias is None else bias[which])
        return self._after(logits, targets).float()

    def _read(self, forward: Forward, places: torch.Tensor, *, gated: bool) -> torch.Tensor:
        """[n, V] logits at some places, of the model's own code."""
        if not gated or self._layer is None:
            return forward().flatten(0, 1)[places]

        def select(_: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return (inputs[0].flatten(0, 1)[places].unsqueeze(0), *inputs[1:])

        handle = self._layer.register_forward_pre_hook(select)
        try:
            logits = forward()
        finally:
            handle.remove()
        if logits.shape[:2] != (1, len(places)):
            raise ValueError(f"logits of shape {tuple(logits.shape)} for {len(places)} places")
        return logits[0]


def _candidates(model: Any) -> Sequence[_After]:
    """What models are known to do to their logits."""
    config = model.config.get_text_config().to_dict()
    known = [_After()]
    if config.get("final_logit_softcapping"):  # Gemma 2
        known.append(_After(cap=float(config["final_logit_softcapping"])))
    if config.get("logit_scale"):  # Cohere
        known.append(_After(scale=float(config["logit_scale"])))
    if config.get("logits_scaling"):  # Granite
        known.append(_After(scale=1.0 / float(config["logits_scaling"])))
    biases = dict(model.named_buffers()).get("final_logits_bias")  # BART
    if biases is not None:
        known.append(_After(bias=biases.flatten()))
    return known
