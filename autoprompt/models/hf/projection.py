"""How near rows are to the embeddings of tokens, by five measures."""

from __future__ import annotations

from typing import get_args

import torch

from autoprompt.errors import UnknownName, nearest
from autoprompt.vocabulary import Metric

ANGLES: tuple[Metric, ...] = ("cosine", "centred")
"""Measures that are cosines; the others are distances."""
_SPREAD = (
    1e-3  # of the greatest variance of a direction: what is added to all of them before they are divided by
)


def nearness(rows: torch.Tensor, table: torch.Tensor, metric: Metric) -> torch.Tensor:
    """[L, A] greater where a row is nearer to a token: a cosine, or a distance with its sign changed.

    Args:
        rows: [L, D].
        table: [A, D] embeddings of the tokens.
        metric: the measure.

    Raises:
        UnknownName: no such measure.
    """
    match metric:
        case "cosine":
            return _cosines(rows, table)
        case "centred":  # tables lie to one side of the origin: all tokens are alike as seen from there
            mean = table.mean(dim=0)
            return _cosines(rows - mean, table - mean)
        case "l2":
            return -_apart(rows, table)
        case "norm":
            length = table.norm(dim=-1).median()
            return -_apart(torch.nn.functional.normalize(rows, dim=-1) * length, table)
        case "whitened":
            return -_mahalanobis(rows, table)
    names = get_args(Metric)
    raise UnknownName(
        f"metric: no metric {metric!r}{nearest(str(metric), names)}; metrics: {', '.join(names)}"
    )


def _cosines(rows: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows, dim=-1) @ torch.nn.functional.normalize(table, dim=-1).T


def _apart(rows: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """[L, A] Euclidean distances, from the differences: by way of a product small ones would be lost in rounding."""
    return torch.cdist(rows, table, compute_mode="donot_use_mm_for_euclid_dist")


def _mahalanobis(rows: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """[L, A] distances by the table's covariance."""
    centred = table - table.mean(dim=0)
    covariance = centred.T @ centred / max(1, len(table) - 1)
    values, directions = torch.linalg.eigh(covariance)
    greatest = values.max()
    if greatest <= 0:  # one token, or copies of it
        return _apart(rows, table)
    scale = (values.clamp_min(0) + _SPREAD * greatest).rsqrt()
    return _apart(rows @ directions * scale, table @ directions * scale)
