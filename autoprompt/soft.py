"""Rows that stand in a prompt in place of tokens: the soft end of the continuum."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprompt.errors import InputError

Matrix = NDArray[np.float32]


class SoftRows:
    """What a model reads at L places of a prompt instead of the embeddings of tokens.

    Frozen, and equal where the numbers are: a prompt that holds them is what it holds.

    Attributes:
        values: [L, D] in float32, read-only, as the model's embedding module gives them (its scale in them).
    """

    __slots__ = ("__dict__", "values")

    def __init__(self, values: Matrix | Sequence[Sequence[float]]) -> None:
        """Copy ``values``.

        Raises:
            InputError: they are no [L, D] of finite numbers.
        """
        copied = np.array(values, np.float32, order="C")
        if copied.ndim != 2 or not copied.size:
            raise InputError(f"soft rows: expected [L, D] with L and D at least 1 (got {copied.shape})")
        if not np.isfinite(copied).all():
            raise InputError(
                "soft rows: hold numbers that are not finite",
                hint="train with a lower lr, or clip gradients",
            )
        copied.setflags(write=False)
        self.values: Matrix = copied

    @functools.cached_property
    def key(self) -> str:
        """Hash of shape and content."""
        shape = json.dumps(self.values.shape).encode()
        return hashlib.sha256(shape + self.values.astype("<f4").tobytes()).hexdigest()[:32]

    @property
    def shape(self) -> tuple[int, int]:
        """(L, D)."""
        length, width = self.values.shape
        return length, width

    def __len__(self) -> int:
        return len(self.values)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, SoftRows) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        length, width = self.shape
        return f"SoftRows([{length}, {width}], {self.key[:8]})"
