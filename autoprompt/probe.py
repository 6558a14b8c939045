"""A linear classifier on the states of a model: which directions tell the labels apart."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
PENALTIES = (100.0, 10.0, 1.0, 0.1, 0.01)
"""Tried in this order; times the number of examples, half the sum of the squared weights of standardised states."""
_FOLDS = 5


def class_directions(states: Floats, targets: Indices) -> Floats:
    """[C, D] weights of a multinomial logistic regression (eq. 4 of Shin et al. 2020) for states as they are.

    It is fitted to standardised states, with the greatest penalty whose share of right answers in a
    cross-validation lies within a standard error of the best one's (Hastie et al. 2009, section 7.10): there are
    often fewer examples than dimensions, and a loosely fitted classifier then goes by directions that mean
    nothing. Biases shift all words alike and are left out, as in the authors' own code.

    Args:
        states: [N, D] finite.
        targets: [N] the label of each, counted from 0; each has an example.
    """
    spread = states.std(axis=0)
    spread[spread < 1e-9 * (1 + np.abs(states).max())] = np.inf  # says nothing: no weight
    inputs = np.hstack([(states - states.mean(axis=0)) / spread, np.ones((len(states), 1))])
    fold = np.empty(len(targets), np.int64)
    for label in np.unique(targets):  # each label's examples go over the folds in turn
        fold[targets == label] = np.arange((targets == label).sum()) % _FOLDS
    wanted = np.eye(int(targets.max()) + 1)[targets]
    hits = [_held_out_hits(inputs, wanted, fold, penalty) for penalty in PENALTIES]
    best, count = max(hits), int((fold > 0).sum())
    near = best - np.sqrt(best * (1 - best / max(1, count)))  # one standard error of a binomial count less
    penalty = next(each for each, hit in zip(PENALTIES, hits, strict=True) if hit >= near)
    weights = _fit(inputs, wanted, penalty)
    return np.asarray(weights[:-1].T / spread, np.float64)


def _held_out_hits(inputs: Floats, wanted: Floats, fold: Indices, penalty: float) -> int:
    """How many examples that were left out of the fit are answered right.

    The first fold always stays in, so that every label is known; with one example a label nothing is left out.
    """
    hits = 0
    for out in (fold == number for number in range(1, int(fold.max()) + 1)):
        weights = _fit(inputs[~out], wanted[~out], penalty)
        hits += int(((inputs[out] @ weights).argmax(axis=1) == wanted[out].argmax(axis=1)).sum())
    return hits


def _fit(inputs: Floats, wanted: Floats, penalty: float) -> Floats:
    """[D + 1, C] weights; the last row is the bias, which is free."""
    from scipy.optimize import minimize

    shape = (inputs.shape[1], wanted.shape[1])

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(shape)
        logs = _log_shares(inputs @ weights)
        held = len(inputs) * penalty * weights
        held[-1] = 0
        slope = inputs.T @ (np.exp(logs) - wanted) + held
        return float(-(logs * wanted).sum() + 0.5 * (held * weights).sum()), slope.ravel()

    fitted = minimize(loss, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B")
    return np.asarray(fitted.x.reshape(shape), np.float64)


def _log_shares(logits: Floats) -> Floats:
    return np.asarray(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True), np.float64)
