"""Where a target stands among all words, read off the logits at its answer place."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from autoprompt.models import Failure, RankReply
from autoprompt.models.hf.encoded import Encoded
from autoprompt.models.hf.reader import Line, Reader, Spot
from autoprompt.models.hf.tokens import Tokens


def ranked(reader: Reader, tokens: Tokens, encoded: Sequence[Encoded]) -> list[RankReply | Failure]:
    """One reply a request: 1 + the number of strictly likelier entries.

    Args:
        reader: runs the model.
        tokens: its tokenizer.
        encoded: the requests as ids.
    """
    replies: list[RankReply | Failure] = [Failure(each.problem) for each in encoded]
    asked: dict[Spot, list[int]] = {}
    lines: dict[Line, int] = {}
    for index, each in enumerate(encoded):
        if not each.problem:
            line = lines.setdefault((each.source, each.rows[0]), len(lines))
            asked.setdefault((line, each.reads[0].start), []).append(index)
    for spots, read in reader.read(list(lines), asked):
        left = iter(spots)
        for block in reader.head.logits(read):
            norms = torch.logsumexp(block, dim=-1)
            for logits, norm in zip(block, norms, strict=True):
                for index in asked[next(left)]:
                    replies[index] = _rank(tokens, encoded[index], logits, norm)
    return replies


def failure(problem: str, values: Sequence[float]) -> Failure | None:
    """Why there is no reply: what the request's problem is, or that numbers are none; None where there is one."""
    if problem:
        return Failure(problem)
    if not all(map(math.isfinite, values)):
        return Failure("the model gave no finite number (NaN or infinite logits)")
    return None


def _rank(tokens: Tokens, encoded: Encoded, logits: torch.Tensor, norm: torch.Tensor) -> RankReply | Failure:
    """Rank one target. ``logits``: [V] at the answer place; ``norm``: their log-sum-exp."""
    if encoded.among is not None and not encoded.among:
        return Failure("none of the words to rank among is a single token at this answer place")
    target = encoded.reads[0].targets[0]
    value = float(logits[target] - norm)
    if encoded.among is None:
        better = int((logits > logits[target]).sum())
        top = tokens.text([int(logits.argmax())]).strip()
    else:
        some = logits[torch.tensor([token for _, token in encoded.among], device=logits.device)]
        better = int((some > logits[target]).sum())
        top = encoded.among[int(some.argmax())][0]
    return failure("", [value]) or RankReply(value, better + 1, top, encoded.tokens, encoded.shortened)
