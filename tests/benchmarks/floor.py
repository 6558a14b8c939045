"""The least there is to do: tokens that must run, multiply-adds a token, and what this machine multiplies in a second.

Counted are the linear layers of all blocks; attention scores, norms and the head are left out, and all blocks are
counted whole (a way that skips the last block where nobody reads it may do a little less).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from tests.benchmarks.baselines import Ids, Row
from tests.benchmarks.measure import Timing
from tests.benchmarks.models import Subject

GEMM_CALLS = 20


def trie_tokens(rows: Iterable[Ids]) -> int:
    """Nodes of the trie of the rows: each row in sorted order adds what it does not share with the one before."""
    total = 0
    last: Ids = ()
    for ids in sorted(set(rows)):
        total += len(ids) - _shared(last, ids)
        last = ids
    return total


def _shared(one: Ids, other: Ids) -> int:
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count


def least_tokens(subject: Subject, rows: Sequence[Row]) -> int:
    """Tokens that must run: nodes of the trie for causal models, real tokens of different texts for encoders."""
    texts = {row.ids for row in rows}
    return trie_tokens(texts) if subject.kind == "causal" else sum(map(len, texts))


def _weights(module: Any) -> int:
    """Multiply-adds a token in the linear layers of a module."""
    return sum(
        each.weight.numel() for each in module.modules() if isinstance(each, (torch.nn.Linear, Conv1D))
    )


@dataclass(frozen=True)
class Cost:
    """Multiply-adds: a token read (by the encoder, for encoder-decoder models), and a token the decoder reads."""

    read: int
    written: int


def cost(subject: Subject) -> Cost:
    """Count the linear layers. The keys and values of the cross-attention are computed once a token of the source."""
    if subject.kind != "seq2seq":
        return Cost(_weights(subject.model.base_model), 0)
    crossing = sum(
        each.weight.numel()
        for name, each in subject.model.decoder.named_modules()
        if name.endswith(("EncDecAttention.k", "EncDecAttention.v"))
    )
    return Cost(_weights(subject.model.encoder) + crossing, _weights(subject.model.decoder) - crossing)


def scoring_flops(subject: Subject, rows: Sequence[Row]) -> float:
    """Least FLOPs to score the rows; answers are of one token, so a decoder reads its start token only."""
    each = cost(subject)
    return 2.0 * (each.read * least_tokens(subject, rows) + each.written * len({row.ids for row in rows}))


def gradient_flops(subject: Subject, rows: Sequence[Row], starts: Sequence[int]) -> float:
    """Least FLOPs of a gradient by the slot: forward over all that must run, and as much again backward (no
    gradients of weights) for what depends on the slot. In causal models nothing left of it does.
    """
    forward = scoring_flops(subject, rows)
    if subject.kind != "causal":
        return 2 * forward
    left = trie_tokens(row.ids[:start] for row, start in zip(rows, starts, strict=True))
    return 2 * forward - 2.0 * cost(subject).read * left


@dataclass(frozen=True)
class Rate:
    """Floating-point operations a second: of processor time (all threads together), and by the clock."""

    cpu: float
    wall: float


def gemm_way(width: int) -> Callable[[], torch.Tensor]:
    """Prepare float32 products [2048, d] x [d, 4d], to be timed among the ways they are to be compared with."""
    left, right = torch.ones(2048, width), torch.ones(width, 4 * width)
    product = left @ right  # warm

    def run() -> torch.Tensor:
        for _ in range(GEMM_CALLS):
            torch.mm(left, right, out=product)
        return product[:1]

    return run


def rate(timing: Timing, width: int) -> Rate:
    """What this machine multiplies with the threads now set, from the timing of a ``gemm_way``."""
    flops = GEMM_CALLS * 2.0 * 2048 * width * 4 * width
    return Rate(flops / timing.cpu, flops / timing.wall)
