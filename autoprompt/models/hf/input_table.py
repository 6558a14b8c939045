"""The table a model looks its tokens up in, and rows that stand in a text without being of it.

A row that is no token has an id behind the last of the table: ``V + m`` for row ``m``. Texts of such ids are padded,
shared, cut and placed as all others are; inside ``spliced`` the module gives the row for the id. So soft prompts
and gradients by tokens need no way of their own through a model.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch

from autoprompt.errors import MissingCapability
from autoprompt.models import Kind
from autoprompt.soft import SoftRows


class Table(Protocol):
    """What knows rows of one form, and lets them stand in texts."""

    @property
    def weight(self) -> torch.Tensor:
        """[V, D], the input embeddings; ids from V on are of rows."""
        ...

    @property
    def unit(self) -> float | torch.Tensor:
        """What a row's numbers are measured in."""
        ...

    def tensor(self, rows: SoftRows) -> torch.Tensor:
        """[L, .] in float32 on the model's device."""
        ...

    def spliced(self, rows: torch.Tensor) -> contextlib.AbstractContextManager[None]:
        """Inside the block, the id ``V + m`` is read as row ``m``."""
        ...


class InputTable:
    """The embedding table of a model.

    Args:
        model: the transformers model.
        kind: how it reads; of an encoder-decoder model it is the encoder's table.
        name: the model's name, for errors.

    Attributes:
        scale: what the module multiplies its rows by (Gemma 3 and BART may, inside the module).
    """

    def __init__(self, model: Any, kind: Kind, *, name: str) -> None:
        reader = model.get_encoder() if kind == "seq2seq" else model
        module = reader.get_input_embeddings()
        if not isinstance(module, torch.nn.Embedding):
            raise MissingCapability(
                f"model {name!r}: its input embeddings are no plain table ({type(module).__name__}), so there "
                "is no gradient by them",
                hint="load the model unquantized, or use a strategy that needs no gradients",
            )
        self._module = module
        self._name = name
        self.scale = self._measured_scale()

    @property
    def weight(self) -> torch.Tensor:
        """[V, D], the rows that are there, more than the tokenizer has ids for where the table is padded."""
        return self._module.weight.detach()

    @functools.cached_property
    def unit(self) -> float:
        """r, the root mean square of the embeddings as they are read."""
        return abs(self.scale) * float(self.weight.float().square().mean().sqrt())

    def embedded(self, ids: Sequence[int]) -> torch.Tensor:
        """[L, D] in float32: what the model reads for these tokens, the module's scale in it."""
        with torch.no_grad():
            return self._module(torch.tensor(list(ids), device=self.weight.device)).float()  # type: ignore[no-any-return]

    def tensor(self, rows: SoftRows) -> torch.Tensor:
        """[L, D] in float32 on the model's device.

        Raises:
            MissingCapability: the rows are of another width than the table, or keys and values.
        """
        if rows.form != "embeddings":
            raise MissingCapability(
                f"soft rows {list(rows.shape)}: keys and values stand in for tokens in every layer, not in the input "
                f"embeddings of model {self._name!r}",
                hint='train them with method="prefix"; gradients by tokens need a prompt of tokens or of method="prompt"',
            )
        length, width = rows.shape
        if width != self.weight.shape[1]:
            raise MissingCapability(
                f"soft rows [{length}, {width}] do not fit model {self._name!r}, whose embeddings are "
                f"{self.weight.shape[1]} wide",
                hint="use the model they were trained with",
            )
        return torch.from_numpy(rows.values.copy()).to(self.weight.device)

    def _measured_scale(self) -> float:
        with torch.inference_mode(False), torch.no_grad():
            rows = self.weight[:64]
            given = self._module(torch.arange(len(rows), device=rows.device)).cpu().double()
            rows = rows.cpu().double()
            scale = float((given * rows).sum() / (rows * rows).sum())
            if not torch.allclose(given, scale * rows, rtol=2e-2, atol=1e-6):
                raise MissingCapability(
                    f"model {self._name!r}: its input embeddings are not the rows of its table",
                    hint="use a strategy that needs no gradients",
                )
        return scale

    @contextlib.contextmanager
    def spliced(self, rows: torch.Tensor) -> Iterator[None]:
        """Inside the block, the id ``V + m`` is read as row ``m``.

        Args:
            rows: [M, D], cast to the model's precision at the place, so that gradients by them are summed in theirs.

        Raises:
            MissingCapability: the model never looked one of them up.
        """
        size = len(self.weight)
        asked: list[torch.Tensor] = []
        used = False

        def known(_: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            asked.append(inputs[0])
            return (torch.where(inputs[0] < size, inputs[0], 0), *inputs[1:])

        def put(_: torch.nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
            nonlocal used
            ids = asked.pop().flatten()
            at = torch.nonzero(ids >= size).flatten()
            if not len(at):
                return output
            used = True
            put_in = rows[ids[at] - size].to(output.dtype)
            return output.flatten(0, -2).index_copy(0, at, put_in).view_as(output)

        hooks = [self._module.register_forward_pre_hook(known), self._module.register_forward_hook(put)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        if not used:
            raise MissingCapability(
                f"model {self._name!r}: it does not look the tokens of slots up in its input embeddings, so "
                "there is no gradient by them",
                hint="use a strategy that needs no gradients",
            )
