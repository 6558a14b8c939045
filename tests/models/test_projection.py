"""Nearness of rows to tokens, against the plainest computation of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from autoprompt.errors import InputError, UnknownName
from autoprompt.models.hf.projection import ANGLES, nearness
from autoprompt.models.load import load_model
from autoprompt.policy import TokenPolicy
from autoprompt.vocabulary import Metric
from tests.models.tiny import make_model

Doubles = NDArray[np.float64]
METRICS: tuple[Metric, ...] = get_args(Metric)


def apart(one: Doubles, other: Doubles) -> Doubles:
    """[L, A] Euclidean distances."""
    found: Doubles = np.sqrt(((one[:, None] - other[None]) ** 2).sum(-1))
    return found


def unit(rows: Doubles) -> Doubles:
    found: Doubles = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return found


def whitened(rows: Doubles, table: Doubles) -> Doubles:
    """By the inverse of the covariance, a thousandth of its greatest eigenvalue added on its diagonal."""
    covariance = np.cov(table.T)
    ridge = 1e-3 * np.linalg.eigvalsh(covariance).max() * np.eye(len(covariance))
    inverse = np.linalg.inv(covariance + ridge)
    difference = rows[:, None] - table[None]
    found: Doubles = -np.sqrt(np.einsum("lad,de,lae->la", difference, inverse, difference))
    return found


NAIVE: dict[Metric, Callable[[Doubles, Doubles], Doubles]] = {
    "cosine": lambda rows, table: unit(rows) @ unit(table).T,
    "centred": lambda rows, table: unit(rows - table.mean(0)) @ unit(table - table.mean(0)).T,
    "l2": lambda rows, table: -apart(rows, table),
    "norm": lambda rows, table: -apart(unit(rows) * np.median(np.linalg.norm(table, axis=-1)), table),
    "whitened": whitened,
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", [11, 61])  # torch computes distances between many points in another way
def test_every_measure_is_what_it_says(metric: Metric, size: int) -> None:
    draw = np.random.default_rng(0)
    table = draw.normal(size=(size, 6)) * (1, 2, 0.1, 1, 3, 0.5) + (5, 0, 0, 1, 0, 0)
    rows = np.concatenate([draw.normal(size=(7, 6)) * 3, table[:3]])
    found = nearness(torch.tensor(rows).float(), torch.tensor(table).float(), metric).numpy()
    np.testing.assert_allclose(found, NAIVE[metric](rows, table), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_one_token_is_the_nearest_of_one(metric: Metric) -> None:
    near = nearness(torch.ones(2, 4), torch.ones(1, 4), metric)
    assert near.shape == (2, 1)
    assert torch.isfinite(near).all()


def test_an_unknown_measure_is_named_with_those_there_are() -> None:
    with pytest.raises(UnknownName, match=r"no metric 'cosin'.*cosine.*whitened"):
        nearness(torch.ones(1, 2), torch.ones(1, 2), "cosin")  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=["gpt2", "gemma", "bart", "t5", "bert"])
def loaded(request: pytest.FixtureRequest) -> Any:
    return load_model(make_model(request.param))


@pytest.mark.parametrize("metric", METRICS)
def test_a_token_is_nearest_to_its_own_row(loaded: Any, metric: Metric) -> None:
    vocabulary = loaded.vocabulary
    allowed = vocabulary.allowed(TokenPolicy("any"))
    tokens = np.flatnonzero(allowed)
    rows = vocabulary.rows(tokens.tolist())
    if (
        metric == "norm"
    ):  # a row is lengthened or cut to the median length first: only one of that length keeps it
        length = np.median(np.linalg.norm(rows, axis=-1))
        tokens = tokens[np.abs(np.linalg.norm(rows, axis=-1) / length - 1) < 0.1]
        rows = vocabulary.rows(tokens.tolist())
    ids, values = vocabulary.nearest(rows, allowed, 3, metric)
    np.testing.assert_array_equal(ids[:, 0], tokens)
    assert allowed[ids].all()
    if metric in ANGLES:
        np.testing.assert_allclose(values[:, 0], 1, atol=1e-5)
        assert (np.diff(values, axis=1) <= 0).all()
    else:
        assert (np.diff(values, axis=1) >= 0).all()
        assert (values >= 0).all()
        if metric != "norm":
            np.testing.assert_allclose(values[:, 0] / values[:, 1], 0, atol=1e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_only_tokens_that_are_allowed_are_found(metric: Metric) -> None:
    loaded: Any = load_model(make_model("gpt2"))
    vocabulary = loaded.vocabulary
    allowed = vocabulary.allowed(TokenPolicy("any")).copy()
    first, *others = np.flatnonzero(allowed)[:4]
    allowed[:] = False
    allowed[others] = True
    ids, values = vocabulary.nearest(vocabulary.rows([int(first)]), allowed, 9, metric)
    assert sorted(ids[0]) == sorted(others)  # no more than there are
    assert ids.shape == values.shape == (1, 3)
    with pytest.raises(InputError, match="no token is allowed"):
        vocabulary.nearest(vocabulary.rows([int(first)]), np.zeros_like(allowed), 1, metric)
