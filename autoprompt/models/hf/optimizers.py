"""The two optimisers of prompt tuning, with a state that is a handful of tensors and can be stored."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from autoprompt.soft import Optimizer, Training

State = dict[str, torch.Tensor]
_BETAS = (0.9, 0.999)
_EPS = 1e-8
_TINY = 1e-30
_GREATEST_UPDATE = 1.0


def rate(training: Training, step: int) -> float:
    """The learning rate of a step, counted from 0 over the whole training."""
    if step < training.warmup:
        return training.lr * (step + 1) / training.warmup
    left = max(0.0, 1 - (step - training.warmup) / max(1, training.steps - training.warmup))
    match training.schedule:
        case "linear":
            return training.lr * left
        case "cosine":
            return training.lr * 0.5 * (1 - math.cos(left * math.pi))
    return training.lr


def update(
    kind: Optimizer,
    parameter: torch.Tensor,
    gradient: torch.Tensor,
    state: Mapping[str, torch.Tensor],
    lr: float,
) -> State:
    """Move a parameter in place by one step; return the state after it (empty before the first)."""
    step = state["step"] + 1 if state else torch.ones(())
    rule = _adafactor if kind == "adafactor" else _adamw
    change, kept = rule(gradient, state, float(step))
    parameter.sub_(lr * change)
    return {"step": step, **kept}


def _adamw(
    gradient: torch.Tensor, state: Mapping[str, torch.Tensor], step: float
) -> tuple[torch.Tensor, State]:
    """Adam without decay (Kingma & Ba 2015, algorithm 1)."""
    first, second = _BETAS
    mean = gradient * (1 - first) + (first * state["mean"] if state else 0)
    square = gradient**2 * (1 - second) + (second * state["square"] if state else 0)
    change = (mean / (1 - first**step)) / ((square / (1 - second**step)).sqrt() + _EPS)
    return change, {"mean": mean, "square": square}


def _adafactor(
    gradient: torch.Tensor, state: Mapping[str, torch.Tensor], step: float
) -> tuple[torch.Tensor, State]:
    """Shazeer & Stern 2018, algorithm 4, with their decay 1 - t^-0.8 and the update's clipping, but without
    momentum and without scaling by the parameter (as prompt tuning sets it, Lester et al. 2021, section 3).
    """
    decay = 1 - step**-0.8
    square = gradient**2 + _TINY
    if gradient.dim() < 2:
        seen = square * (1 - decay) + (decay * state["square"] if state else 0)
        change, kept = gradient / seen.sqrt(), {"square": seen}
    else:
        rows = square.mean(dim=-1) * (1 - decay) + (decay * state["rows"] if state else 0)
        columns = square.mean(dim=-2) * (1 - decay) + (decay * state["columns"] if state else 0)
        scale = rows / rows.mean(dim=-1, keepdim=True)
        change = gradient / (scale.sqrt().unsqueeze(-1) * columns.sqrt().unsqueeze(-2))
        kept = {"rows": rows, "columns": columns}
    size = change.square().mean().sqrt()
    return change / torch.clamp(size / _GREATEST_UPDATE, min=1.0), kept
