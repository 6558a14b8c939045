"""Logits only where they are read.

The output layer is the widest of a language model: run over every token, it costs as much as all the rest
of a small model. A hook before the layer, there only during the call, hands on the rows that are read and
no others. Whatever the model does to its logits afterwards (scaling, soft caps, biases) happens to these
alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Forward = Callable[[], torch.Tensor]


class Head:
    """The output layer of one model; runs over all tokens until ``gate`` is called.

    Attributes:
        checked: whether it has been decided which of the two ways to use.
        gated: whether the layer runs on the rows that are read only.
    """

    def __init__(self, model: Any) -> None:
        layer = model.get_output_embeddings()
        self._layer: torch.nn.Module | None = layer if isinstance(layer, torch.nn.Module) else None
        self.checked = self._layer is None
        self.gated = False

    def gate(self) -> None:
        """From now on run the layer on the rows that are read only."""
        self.checked = self.gated = True

    def open(self) -> None:
        """From now on run the layer over all tokens; batches must be small."""
        self.checked, self.gated = True, False

    def logits(self, forward: Forward, places: torch.Tensor) -> torch.Tensor:
        """Logits at some places of a batch.

        Args:
            forward: runs the model and returns its logits, [R, T, V].
            places: [n] places in the flattened batch (row * T + position).

        Returns:
            [n, V], in the model's dtype.
        """
        if self._layer is None or not self.gated:
            return forward().flatten(0, 1)[places]

        def select(_: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            hidden = inputs[0]  # [R, T, D]
            return (hidden.flatten(0, 1)[places].unsqueeze(0), *inputs[1:])

        handle = self._layer.register_forward_pre_hook(select)
        try:
            logits = forward()
        finally:
            handle.remove()
        if logits.shape[:2] != (1, len(places)):
            raise ValueError(f"logits of shape {tuple(logits.shape)} for {len(places)} places")
        return logits[0]
