"""Rows that stand in a prompt in place of tokens: the soft end of the continuum."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from autoprompt.errors import InputError, UnknownName, nearest

Matrix = NDArray[np.float32]
Method = Literal[
    "prompt",
    "residual",
    "mlp",
    "lstm",
    "pez",
    "langevin",
    "temperature",
    "entropy",
    "top_k",
    "straight",
    "prefix",
]
"""How rows are parametrised in training; those in ``DISCRETE`` end in tokens, ``prefix`` in keys and values."""
DISCRETE: tuple[Method, ...] = ("pez", "langevin", "temperature", "entropy", "top_k", "straight")
Optimizer = Literal["adafactor", "adamw"]
Schedule = Literal["constant", "linear", "cosine"]
Form = Literal["embeddings", "prefix"]
"""What a row is: what a model reads for a token, or the keys and values that each of its layers keeps of one."""


class SoftRows:
    """What a model reads at L places of a prompt instead of the embeddings of tokens.

    Frozen, and equal where form and numbers are: a prompt that holds them is what it holds.

    Attributes:
        values: in float32, read-only. ``embeddings``: [L, D], as the model's embedding module gives them (its scale in
            them). ``prefix`` (Li & Liang 2021, section 4): [L, layers * 2 * heads * width of a head], keys as they are
            after the rotation, then values, layer after layer, which is how PEFT lays them out.
        form: which of the two.
    """

    __slots__ = ("__dict__", "form", "values")

    def __init__(self, values: Matrix | Sequence[Sequence[float]], form: Form = "embeddings") -> None:
        """Copy ``values``.

        Raises:
            InputError: they are no [L, D] of finite numbers.
            UnknownName: there is no such form.
        """
        if form not in get_args(Form):
            raise UnknownName(
                f"soft rows: no form {form!r}{nearest(str(form), get_args(Form))}; it is one of {', '.join(get_args(Form))}"
            )
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
        self.form: Form = form

    @functools.cached_property
    def key(self) -> str:
        """Hash of shape and content, and of a form that is not ``embeddings``."""
        shape = json.dumps([*self.values.shape, *([self.form] if self.form != "embeddings" else [])]).encode()
        return hashlib.sha256(shape + self.values.astype("<f4").tobytes()).hexdigest()[:32]

    @property
    def shape(self) -> tuple[int, int]:
        """(L, D)."""
        length, width = self.values.shape
        return length, width

    def told(self) -> dict[str, Any]:
        """What logs and results say of them, as plain data."""
        form = {} if self.form == "embeddings" else {"form": self.form}
        return {"shape": list(self.shape), "key": self.key, **form}

    def __len__(self) -> int:
        return len(self.values)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, SoftRows) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        length, width = self.shape
        form = "" if self.form == "embeddings" else f"{self.form}, "
        return f"SoftRows([{length}, {width}], {form}{self.key[:8]})"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How soft rows are trained. Rows count in units of r, the root mean square of the embeddings, so that one ``lr``
    serves models of any scale: Adam and Adafactor move every number by about ``lr`` a step, whatever its size.

    Attributes:
        steps: steps of the whole training, which schedules are over.
        method: ``prompt`` (Lester et al. 2021), ``residual`` (P + MLP(P), Razdaibiedina et al. 2023), ``mlp`` and ``lstm``
            (P-tuning, Liu et al. 2021; added to the start, so that the first step is at it), ``pez`` (Wen et al. 2023,
            alg. 1), ``langevin`` (FluentPrompt, Shi et al. 2023), and weights on the simplex over tokens that become
            one token by ``temperature``, ``entropy`` or ``top_k``, or are one in the forward pass (``straight``).
            ``prefix`` (Li & Liang 2021): keys and values in every layer, begun at those the model makes of the rows;
            r is then the root mean square of a layer's keys, or of its values.
        optimizer: ``adafactor`` (Shazeer & Stern 2018, without parameter scaling) or ``adamw`` (no decay).
        lr: in units of r a step, about; of ``prefix`` a tenth of that.
        warmup: steps over which the rate rises.
        schedule: what becomes of it after that.
        clip: greatest norm of a prompt's gradient in units of 1/r; 0: none.
        trust: greatest distance of a row from its start, in lengths of that; None: none.
        pull: nats by which a row is pulled to its start, a squared length of that.
        among_answers: whether the loss compares label words with each other, as scores do, or with the whole vocabulary.
        hidden: width of the network of ``residual``, ``mlp`` and ``lstm``.
        seed: of what is drawn in training.
    """

    steps: int
    method: Method = "prompt"
    optimizer: Optimizer = "adafactor"
    lr: float = 0.5
    warmup: int = 0
    schedule: Schedule = "constant"
    clip: float = 1.0
    trust: float | None = None
    pull: float = 0.0
    among_answers: bool = True
    hidden: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the fields."""
        for name, known in (("method", Method), ("optimizer", Optimizer), ("schedule", Schedule)):
            value, names = getattr(self, name), get_args(known)
            if value not in names:
                raise UnknownName(
                    f"training: no {name} {value!r}{nearest(str(value), names)}; it is one of {', '.join(names)}"
                )
        for name, least in (("steps", 1), ("warmup", 0), ("hidden", 1), ("clip", 0), ("pull", 0)):
            if getattr(self, name) < least:
                raise InputError(f"training: {name} must be at least {least} (got {getattr(self, name)!r})")
        if not self.lr > 0 or (self.trust is not None and not self.trust > 0):
            raise InputError(f"training: lr and trust must be above 0 (got {self.lr!r} and {self.trust!r})")
        if self.method != "prompt" and (self.trust is not None or self.pull):
            raise InputError(
                f"training: trust and pull go with method prompt only (got {self.method!r})",
                hint="leave them out, or train with method prompt",
            )

    @property
    def discrete(self) -> bool:
        """Whether it ends in tokens."""
        return self.method in DISCRETE
