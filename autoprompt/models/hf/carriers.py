"""What is trained, and the rows it makes: the rows themselves, a network behind them, or weights over tokens.

All count in units of r, the root mean square of the embeddings, and all begin at the rows they are given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch

from autoprompt.soft import Training

_TEMPERATURES = (1.0, 0.05)
_ENTROPY = 1.0  # nats a nat of entropy at the end
_START = 1.0  # logits by which the token to start from leads all others together
_NOISE = (1.0, 1e-4)  # of Langevin steps, from the first to the last
_TINY = 1e-12  # least length, or square of one, that is divided by
_LOGITS = 0.5  # logits that a unit of the learning rate moves


class Carrier(Protocol):
    """Trains one slot.

    Attributes:
        parameters: what is trained, by name.
        pace: share of the learning rate at which one moves, where that is not all of it.
    """

    parameters: dict[str, torch.Tensor]
    pace: dict[str, float]

    def rows(self, progress: float) -> torch.Tensor:
        """[L, D] what is read, differentiable by the parameters. ``progress``: from 0 to 1 over the training."""
        ...

    def penalty(self, progress: float) -> torch.Tensor | None:
        """What is added to the loss, in nats."""
        ...

    def settle(self, progress: float, lr: float, step: int) -> None:
        """After a step, counted from 0 over the whole training."""
        ...

    def ids(self) -> tuple[int, ...] | None:
        """The tokens it stands for; None for one that makes rows."""
        ...


def carrier_of(
    training: Training,
    start: torch.Tensor,
    unit: float,
    tokens: tuple[torch.Tensor, torch.Tensor] | None,
    seed: int,
) -> Carrier:
    """A slot's carrier at its beginning.

    Args:
        training: says which.
        start: [L, D] the rows to begin at.
        unit: r.
        tokens: ids [A] and embeddings [A, D] of the tokens allowed; for methods that end in tokens.
        seed: of what networks and noise are drawn from.
    """
    match training.method:
        case "prompt":
            return Plain(training, start, unit)
        case "residual" | "mlp" | "lstm":
            return Network(training, start, unit, seed)
    assert tokens is not None
    if training.method in ("pez", "langevin"):
        return Nearest(training, start, unit, tokens, seed)
    return Simplex(training, start, unit, tokens)


class Plain:
    """The rows themselves, [L, D] in units of one number or of [D]."""

    def __init__(
        self, training: Training, start: torch.Tensor, unit: float | torch.Tensor, *, pace: float = 1.0
    ) -> None:
        self._training, self._start, self._unit = training, start, unit
        self.parameters = {"rows": (start / unit).requires_grad_()}
        self.pace: dict[str, float] = {"rows": pace}

    def rows(self, progress: float) -> torch.Tensor:
        """The parameter."""
        return self._unit * self.parameters["rows"]

    def penalty(self, progress: float) -> torch.Tensor | None:
        """The pull to the start."""
        if not self._training.pull:
            return None
        start = self._start / self._unit
        apart = (self.parameters["rows"] - start).square().sum(dim=-1)
        return self._training.pull * (apart / start.square().sum(dim=-1).clamp_min(_TINY)).mean()

    def settle(self, progress: float, lr: float, step: int) -> None:
        """Back into the trust region."""
        if self._training.trust is None:
            return
        with torch.no_grad():
            parameter, start = self.parameters["rows"], self._start / self._unit
            apart = parameter - start
            most = self._training.trust * start.norm(dim=-1, keepdim=True)
            reached = apart.norm(dim=-1, keepdim=True).clamp_min(_TINY)
            parameter.copy_(start + apart * torch.clamp(most / reached, max=1.0))

    def ids(self) -> None:
        """Rows are no tokens."""


class Network:
    """The start and what a network adds to it: at first nothing, since its last layer is zero.

    ``residual``: the rows are trained as well, and the network reads them. ``mlp``, ``lstm``: it reads a code that is
    drawn and trained (P-tuning).
    """

    def __init__(self, training: Training, start: torch.Tensor, unit: float, seed: int) -> None:
        self._start, self._unit, self._kind = start / unit, unit, training.method
        length, width = start.shape
        hidden = training.hidden
        draw = torch.Generator().manual_seed(seed)

        def drawn(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=draw) / math.sqrt(shape[-1])

        code = torch.randn(length, width, generator=draw)
        code = self._start.clone() if self._kind == "residual" else code
        self.parameters = {"code": code}
        if self._kind == "lstm":
            for side in ("forwards", "backwards"):
                self.parameters |= {
                    f"{side}.in": drawn(4 * hidden, width),
                    f"{side}.on": drawn(4 * hidden, hidden),
                }
                self.parameters[f"{side}.bias"] = torch.zeros(4 * hidden)
            self.parameters["out"] = torch.zeros(width, 2 * hidden)
        else:
            self.parameters |= {"in": drawn(hidden, width), "bias": torch.zeros(hidden)}
            self.parameters["out"] = torch.zeros(width, hidden)
        # drawn on the CPU, so that they are the same on every device
        self.parameters = {
            name: each.to(start.device).requires_grad_() for name, each in self.parameters.items()
        }
        # a step moves every weight: what a sum over n of them makes moves n times as far
        self.pace = {
            name: 1 / parameter.shape[-1] for name, parameter in self.parameters.items() if name != "code"
        }

    def rows(self, progress: float) -> torch.Tensor:
        """What the network makes."""
        code = self.parameters["code"]
        if self._kind == "lstm":
            sides = [self._one_way("forwards", code), self._one_way("backwards", code.flip(0)).flip(0)]
            inside = torch.cat(sides, dim=-1)
        else:
            read = torch.nn.functional.layer_norm(code, code.shape[-1:])
            inside = torch.relu(read @ self.parameters["in"].T + self.parameters["bias"])
        base = code if self._kind == "residual" else self._start
        return self._unit * (base + inside @ self.parameters["out"].T)

    def _one_way(self, side: str, code: torch.Tensor) -> torch.Tensor:
        """[L, H] an LSTM (Hochreiter & Schmidhuber 1997) over the code."""
        given = code @ self.parameters[f"{side}.in"].T + self.parameters[f"{side}.bias"]
        state = kept = given.new_zeros(given.shape[-1] // 4)
        found = []
        for each in given:
            into, forget, new, out = (each + state @ self.parameters[f"{side}.on"].T).chunk(4)
            kept = torch.sigmoid(forget + 1) * kept + torch.sigmoid(into) * torch.tanh(new)
            state = torch.sigmoid(out) * torch.tanh(kept)
            found.append(state)
        return torch.stack(found)

    def penalty(self, progress: float) -> torch.Tensor | None:
        """None."""
        return None

    def settle(self, progress: float, lr: float, step: int) -> None:
        """Nothing to do."""

    def ids(self) -> None:
        """Rows are no tokens."""


class Nearest:
    """Rows of which the nearest tokens are read; gradients move the rows (PEZ, Wen et al. 2023, algorithm 1).

    ``langevin``: noise is added and the rows go to their nearest tokens after each step (Shi et al. 2023, eq. 4).
    """

    def __init__(
        self,
        training: Training,
        start: torch.Tensor,
        unit: float,
        tokens: tuple[torch.Tensor, torch.Tensor],
        seed: int,
    ) -> None:
        self._noisy, self._unit, self._seed = training.method == "langevin", unit, seed
        self._ids, self._table = tokens
        self._directions = torch.nn.functional.normalize(self._table, dim=-1)
        self.parameters = {"rows": (start / unit).requires_grad_()}
        self.pace: dict[str, float] = {}

    def _nearest(self) -> torch.Tensor:
        """[L] of the tokens allowed, by cosine."""
        return (self.parameters["rows"].detach() @ self._directions.T).argmax(dim=-1)

    def rows(self, progress: float) -> torch.Tensor:
        """The nearest tokens' embeddings; their gradient is the rows'."""
        rows = self._unit * self.parameters["rows"]
        return rows + (self._table[self._nearest()] - rows).detach()

    def penalty(self, progress: float) -> torch.Tensor | None:
        """None."""
        return None

    def settle(self, progress: float, lr: float, step: int) -> None:
        """Langevin's noise, and the way back to tokens."""
        if not self._noisy:
            return
        first, last = _NOISE
        noise = first * (last / first) ** progress
        with torch.no_grad():
            rows = self.parameters["rows"]
            # a step's own numbers, so that a training in parts is the whole
            draw = torch.Generator().manual_seed(1_000_003 * (step + 1) + self._seed)
            rows += math.sqrt(2 * lr * noise) * torch.randn(rows.shape, generator=draw).to(rows.device)
            rows.copy_(self._table[self._nearest()] / self._unit)

    def ids(self) -> tuple[int, ...]:
        """The nearest tokens."""
        return tuple(self._ids[self._nearest()].tolist())


class Simplex:
    """Weights over the tokens allowed, [L, A], that become one token each."""

    def __init__(
        self, training: Training, start: torch.Tensor, unit: float, tokens: tuple[torch.Tensor, torch.Tensor]
    ) -> None:
        self._kind = training.method
        self._ids, self._table = tokens
        near = torch.cdist(start, self._table, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = near.argmin(dim=-1)
        logits = start.new_zeros(len(start), len(self._ids))
        logits[torch.arange(len(start), device=start.device), nearest] = _START + math.log(len(self._ids))
        self.parameters = {"logits": (logits / _LOGITS).requires_grad_()}
        self.pace: dict[str, float] = {}

    def _weights(self, progress: float) -> torch.Tensor:
        logits = _LOGITS * self.parameters["logits"]
        if self._kind == "temperature":
            first, last = _TEMPERATURES
            return torch.softmax(logits / (first * (last / first) ** progress), dim=-1)
        weights = torch.softmax(logits, dim=-1)
        if self._kind == "top_k":  # as many as A^(1 - progress)
            kept = max(1, round(logits.shape[-1] ** (1 - progress)))
            least = torch.topk(weights, kept, dim=-1).values[:, -1:]
            weights = weights * (weights >= least)
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return weights

    def rows(self, progress: float) -> torch.Tensor:
        """The tokens' embeddings by their weights; ``straight``: the likeliest one's, with the gradient of those."""
        mixed = self._weights(progress) @ self._table
        if self._kind != "straight":
            return mixed
        return mixed + (self._table[self.parameters["logits"].argmax(dim=-1)] - mixed).detach()

    def penalty(self, progress: float) -> torch.Tensor | None:
        """The entropy, rising in weight over the second half: before, it would only keep what it began at."""
        if self._kind != "entropy":
            return None
        weights = self._weights(progress)
        rising = max(0.0, 2 * progress - 1)
        return _ENTROPY * rising * -(weights * weights.clamp_min(1e-20).log()).sum(dim=-1).mean()

    def settle(self, progress: float, lr: float, step: int) -> None:
        """Nothing to do."""

    def ids(self) -> tuple[int, ...]:
        """The likeliest tokens."""
        return tuple(self._ids[self.parameters["logits"].argmax(dim=-1)].tolist())


def restored(carrier: Carrier, values: Mapping[str, torch.Tensor]) -> None:
    """Put stored values in a carrier's parameters."""
    with torch.no_grad():
        for name, parameter in carrier.parameters.items():
            parameter.copy_(values[name])
