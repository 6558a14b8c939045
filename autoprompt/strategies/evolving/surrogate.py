"""What measured prompts say about others: a Gaussian process over the choices a prompt is made of.

The covariance of two prompts is a sum over their slots, for effects of single choices, plus one over pairs of slots, for
effects of two choices together (Duvenaud et al. 2011, "Additive Gaussian Processes"), plus one of all slots. How far
apart two values of a slot are is no yes or no: texts by the words they share, demonstrations by the examples, orders by
the pairs that stand alike. So a text that was edited in one place is near its parent, where samplers over categories see
two that have nothing in common.

Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning", algorithm 2.1 and equation 2.30; batches are drawn by
Thompson sampling (Thompson 1933; Kandasamy et al. 2018).
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autoprompt.asks import Floats
from autoprompt.prompt import Prompt

_WORD = re.compile(r"\w+|[^\w\s]")
_PIECE = re.compile(r"\w+|\s+|[^\w\s]")
_ALIKE = 1e-9  # spread below which measurements differ by rounding only
PARTS = ((0.7, 0.3, 0.0), (0.4, 0.6, 0.0), (0.2, 0.8, 0.0), (0.4, 0.2, 0.4))
"""Shares of the variance between prompts that are due to single choices, to pairs of them, and to all together."""
NOISES = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Variance of a measurement's noise, in units of the variance between prompts."""
MOST = 400
"""Prompts that are fitted, the latest; beyond, fits would take longer than measurements."""


class Surrogate:
    """Fits what was measured; draws what may be.

    A measurement on the share w of all examples has 1/w times the noise of a whole one. With weights W the covariance of
    measurements is K + n / W, which is W^-1/2 (W^1/2 K W^1/2 + n) W^-1/2: one eigendecomposition serves all noises n.
    """

    def __init__(self) -> None:
        self._values: dict[str, dict[str, int]] = {}
        self._tables: dict[str, list[list[float]]] = {}
        self._held: dict[str, list[Any]] = {}
        self._rows: list[dict[str, int]] = []
        self._targets: list[float] = []
        self._weights: list[float] = []

    def add(self, prompt: Prompt, target: float, weight: float = 1.0) -> None:
        """Take over a measurement, the larger the better, on this share of the examples."""
        self._rows.append(self._places(prompt.choices))
        self._targets.append(target)
        self._weights.append(weight)

    def take(self, prompts: Sequence[Prompt], targets: Floats, weights: Floats) -> None:
        """These measurements in place of all before."""
        self._rows, self._targets, self._weights = [], [], []
        for prompt, target, weight in zip(prompts, targets, weights, strict=True):
            self.add(prompt, float(target), float(weight))

    def __len__(self) -> int:
        return len(self._targets)

    def posterior(self, prompts: Sequence[Prompt]) -> tuple[Floats, Floats]:
        """Mean [N] and covariance [N, N] of what N prompts are worth, given all measurements; in their units up to scale and
        origin. The shares and the noise are those that make what was measured the likeliest.
        """
        rows, targets = self._rows[-MOST:], np.array(self._targets[-MOST:])
        weights = np.array(self._weights[-MOST:])
        roots = np.sqrt(weights)
        apart, spread = targets - float(np.average(targets, weights=weights)), float(targets.std())
        weighted = roots * apart / spread if spread > _ALIKE else np.zeros(len(targets))
        asked = [self._places(prompt.choices) for prompt in prompts]
        known = self._distances(rows, rows)
        best: tuple[float, tuple[float, float, float], float, Floats, Floats] | None = None
        for parts in PARTS:
            values, vectors = np.linalg.eigh(roots[:, None] * _covariance(known, parts) * roots)
            values, turned = np.maximum(values, 0.0), vectors.T @ weighted
            for noise in NOISES:
                # of the variance, at its likeliest; where all measurements are alike they do not say
                scale = float(np.mean(turned**2 / (values + noise))) or 1.0
                evidence = -0.5 * (len(targets) * np.log(scale) + float(np.log(values + noise).sum()))
                if best is None or evidence > best[0] + 1e-9:
                    best = (evidence, parts, scale, vectors, values + noise)
        assert best is not None
        _, parts, scale, vectors, spectrum = best
        across = (_covariance(self._distances(asked, rows), parts) * roots) @ vectors
        among = _covariance(self._distances(asked, asked), parts)
        mean = across @ ((vectors.T @ weighted) / spectrum)
        return mean, scale * (among - (across / spectrum) @ across.T)

    def _places(self, choices: Mapping[str, Any]) -> dict[str, int]:
        """Slot to the number of its value; distances to the values before it are noted."""
        places = {}
        for name, value in choices.items():
            numbers = self._values.setdefault(name, {})
            spelled = json.dumps(value)
            if spelled not in numbers:
                held = self._held.setdefault(name, [])
                apart = [distance(value, other) for other in held]
                table = self._tables.setdefault(name, [])
                for row, far in zip(table, apart, strict=True):
                    row.append(far)
                table.append([*apart, 0.0])
                held.append(value)
                numbers[spelled] = len(numbers)
            places[name] = numbers[spelled]
        return places

    def _distances(self, left: Sequence[Mapping[str, int]], right: Sequence[Mapping[str, int]]) -> Floats:
        """[left, right, slots] how far apart the values are, from 0 to 1; 1 where one of the two has none."""
        layers = []
        for name, table in self._tables.items():
            size = len(table)
            full = np.ones((size + 1, size + 1))
            full[:size, :size] = table
            full[size, size] = 0.0
            one, other = (np.array([row.get(name, size) for row in rows]) for rows in (left, right))
            layers.append(full[one[:, None], other[None, :]])
        return np.stack(layers, axis=2) if layers else np.zeros((len(left), len(right), 1))


def draws(
    mean: Floats, spread: Floats, count: int, rng: np.random.Generator, boldness: float = 1.0
) -> Floats:
    """[count, N] draws of the worth of N prompts.

    Args:
        mean: [N], as ``posterior`` gives it.
        spread: [N, N], likewise.
        count: draws.
        rng: draws them.
        boldness: how far draws lie from what is expected, in units of what is likely; 1 is Thompson sampling.
    """
    values, vectors = np.linalg.eigh(spread)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    steps: Floats = boldness * rng.standard_normal((count, len(mean))) @ root.T
    return mean + steps


def distance(one: Any, other: Any) -> float:
    """How far apart two values of a slot are, from 0 (alike) to 1."""
    if one == other:
        return 0.0
    if isinstance(one, str) and isinstance(other, str):
        return _unshared(_WORD.findall(one.lower()), _WORD.findall(other.lower())) or _spelled_apart(
            one, other
        )
    if isinstance(one, list) and isinstance(other, list):
        shared = _unshared(one, other)
        return shared if shared else _turned(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return float(np.mean([one[label] != other.get(label) for label in one]))
    return 1.0


def _unshared(one: Sequence[str], other: Sequence[str]) -> float:
    """One less the share of all items that both have (Jaccard)."""
    left, right = set(one), set(other)
    return 1.0 - len(left & right) / len(left | right) if left | right else 0.0


def _spelled_apart(one: str, other: str) -> float:
    """Of texts of the same words: half the share of neighbours (words, marks, stretches of white space, as they are written)
    that they do not share, so that another order, case or line break is never the same text.
    """
    pairs = [list(itertools.pairwise(["", *_PIECE.findall(text), ""])) for text in (one, other)]
    return 0.5 * max(0.2, _unshared(*[[repr(pair) for pair in each] for each in pairs]))


def _turned(one: Sequence[str], other: Sequence[str]) -> float:
    """Half the share of pairs that stand the other way round (Kendall): an order matters less than what is ordered."""
    places = {item: place for place, item in enumerate(other)}
    pairs = list(itertools.combinations(one, 2))
    return 0.5 * sum(places[a] > places[b] for a, b in pairs) / max(1, len(pairs))


def _covariance(distances: Floats, parts: tuple[float, float, float]) -> Floats:
    """Of two prompts by the distances [..., slots] of their values; 1 for like prompts."""
    alike = 1.0 - distances
    slots = distances.shape[-1]
    alone = alike.mean(axis=-1)
    pairs = alone if slots < 2 else (alike.sum(-1) ** 2 - (alike**2).sum(-1)) / (slots * (slots - 1))
    return np.asarray(parts[0] * alone + parts[1] * pairs + parts[2] * np.exp(-distances.sum(-1)))
