"""Keys and values in place of tokens: what one model's layers keep, and rows of them that stand in a text.

A prefix row has an id behind the last of the input table, as a row of embeddings has, and is padded, shared, cut, placed
and generated from in the same way. What the model itself computes at its place is read by no other token, since
attention finds the row's keys and values there in every layer.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from autoprompt.errors import MissingCapability
from autoprompt.models import Kind
from autoprompt.models.hf import attention, prefix_attention
from autoprompt.models.hf.contexts import evaluating, routed
from autoprompt.models.hf.input_table import InputTable
from autoprompt.models.hf.prefix_attention import Given, KeysValues, giving, keeping
from autoprompt.models.hf.reader import Reader
from autoprompt.models.hf.tokens import Tokens
from autoprompt.soft import SoftRows

_PROBE = 32  # tokens, spread over the vocabulary, on which a model is tried and its units are taken
_TRIED = slice(2, 7)  # those that become a prefix there
_REFUSED = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, attention.Unsupported)
"""What an architecture that does something else ends an attempt with."""


class Prefixes:
    """The layers of a model as prefixes see them.

    Args:
        model: the transformers model.
        tokens: its tokenizer.
        table: its input embeddings.
        reader: what runs it, and knows how.
        kind: how it reads.
        name: its name, for errors.
        longest: tokens that fit; None where unbounded.

    Attributes:
        shape: (layers, heads, d): of the keys, and of the values, that layers keep of a token.

    Raises:
        MissingCapability: prefixes cannot stand in this model's texts.
    """

    def __init__(
        self,
        model: Any,
        tokens: Tokens,
        table: InputTable,
        reader: Reader,
        kind: Kind,
        name: str,
        longest: int | None,
    ) -> None:
        self._model, self._table, self._kind, self._name = model, table, kind, name
        self._module = model.get_input_embeddings()
        if kind == "seq2seq":
            raise self._refusal("it is an encoder-decoder model")
        special = set(tokens.tokenizer.all_special_ids)  # RoBERTa counts its positions without padding
        plain = [token for token in range(len(tokens.tokenizer)) if token not in special]
        spread = np.linspace(0, len(plain) - 1, min(_PROBE, longest or _PROBE)).astype(int)
        self._probe = [plain[at] for at in spread]
        kept = self._attempt(lambda: self._kept(self._probe))
        shapes = {tuple(each.shape) for pair in kept for each in pair}
        if len(shapes) != 1 or next(iter(shapes))[2] != len(self._probe):
            raise self._refusal(
                "its layers keep keys and values of different shapes"
                if kept
                else "its attention does not run through transformers' AttentionInterface"
            )
        ((_, heads, _, width),) = shapes
        self.shape = (len(kept), heads, width)
        self._try(reader)

    @property
    def weight(self) -> torch.Tensor:
        """[V, D], the input embeddings, behind whose ids those of rows begin."""
        return self._table.weight

    @functools.cached_property
    def unit(self) -> torch.Tensor:
        """[W] what a number of a row is measured in: the root mean square of the keys, or the values, of its layer over
        tokens of the model.
        """
        layers, heads, width = self.shape
        pairs = self.read(self._probe).view(-1, layers, 2, heads * width)
        return pairs.square().mean(dim=(0, 3)).sqrt().repeat_interleave(heads * width)

    def tensor(self, rows: SoftRows) -> torch.Tensor:
        """[L, W] in float32 on the model's device.

        Raises:
            MissingCapability: the rows are of other layers or heads than the model's, or no keys and values.
        """
        layers, heads, width = self.shape
        if rows.form != "prefix" or rows.shape[1] != layers * 2 * heads * width:
            raise MissingCapability(
                f"soft rows {list(rows.shape)} ({rows.form}) do not fit model {self._name!r}, whose {layers} layers keep "
                f"2 x {heads} x {width} numbers of a token, {layers * 2 * heads * width} in all",
                hint="use the model they were trained with",
            )
        return torch.from_numpy(rows.values.copy()).to(self._table.weight.device)

    def read(self, ids: Sequence[int]) -> torch.Tensor:
        """[T, W] in float32: the keys and values that the layers keep of a text, those of rows that stand in it included."""
        with torch.inference_mode(False), torch.no_grad():
            pairs = torch.stack([torch.stack(pair) for pair in self._kept(ids)])  # [layers, 2, 1, K, T, d]
            return pairs[:, :, 0].permute(3, 0, 1, 2, 4).reshape(len(ids), -1).float()

    @contextlib.contextmanager
    def spliced(self, rows: torch.Tensor, first: int | None = None) -> Iterator[None]:
        """Inside the block, the id ``first + m`` is read as row ``m``.

        Args:
            rows: [M, W] as ``SoftRows`` says, differentiable where gradients are on.
            first: V, where nothing is said.

        Raises:
            MissingCapability: no layer ever read one of them.
        """
        layers, heads, width = self.shape
        given = Given(
            rows.view(len(rows), layers, 2, heads, width), len(self.weight) if first is None else first
        )

        def known(_: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return (given.look(inputs[0]), *inputs[1:])

        hook = self._module.register_forward_pre_hook(known, prepend=True)
        try:
            with giving(given), self._side_by_side():
                yield
        finally:
            hook.remove()
        if not given.used:
            raise self._refusal("it never read those of a prefix")

    @contextlib.contextmanager
    def _side_by_side(self) -> Iterator[None]:
        """Attention that takes prefixes, for rows side by side; trees have their own."""
        if self._model.config._attn_implementation == attention.NAME:
            yield
            return
        with routed(self._model, prefix_attention.NAME):
            yield

    def _kept(self, ids: Sequence[int]) -> list[KeysValues]:
        """Keys and values [1, K, T, d] of every layer."""
        with keeping() as kept, torch.inference_mode(False), torch.no_grad():
            with self._side_by_side():
                self._logits(ids)
            return kept

    def _logits(self, ids: Sequence[int], **options: Any) -> torch.Tensor:
        """[T, V] of one text."""
        return self._run(ids, **options).logits[0]  # type: ignore[no-any-return]

    def _run(self, ids: Sequence[int], **options: Any) -> Any:
        given = torch.tensor([list(ids)], device=self.weight.device)
        past = options.get("past_key_values")
        seen = 0 if past is None else past.get_seq_length()
        mask = torch.ones(1, seen + len(ids), dtype=torch.long, device=given.device)
        cached = {"use_cache": False, **options} if self._kind == "causal" else options
        with evaluating(self._model):
            return self._model(input_ids=given, attention_mask=mask, return_dict=True, **cached)

    def _attempt(self, work: Any) -> Any:
        """Do the work; a refusal where the architecture does something else."""
        try:
            return work()
        except torch.OutOfMemoryError:  # says nothing of the architecture
            raise
        except _REFUSED as error:
            raise self._refusal(f"{type(error).__name__}: {error}") from None

    def _try(self, reader: Reader) -> None:
        """See that a prefix of a text's own keys and values is that text, in every way texts are run."""
        size, last = len(self.weight), len(self._probe) - 1
        own = self.read(self._probe)[_TRIED]
        ids = list(self._probe)
        ids[_TRIED] = range(size, size + len(own))
        close = 1e-4 if self.weight.dtype == torch.float32 else 2e-2

        def states(row: list[int]) -> torch.Tensor:
            return torch.cat([read for _, read in reader.read([((), tuple(row))], [(0, last)])])

        def ways() -> bool:
            with torch.inference_mode(False), torch.no_grad():
                expected, plain = states(self._probe), self._logits(self._probe)[-1]
                with self.spliced(own):
                    alike = [(expected, states(ids)), (plain, self._logits(ids)[-1])]
                if self._kind == "causal":  # other ones, and on from a cache
                    with self.spliced(2 * own):
                        begun = self._run(ids[:-1], use_cache=True).past_key_values
                        after = self._logits(ids[-1:], past_key_values=begun, use_cache=True)[-1]
                        alike.append((self._logits(ids)[-1], after))
            # by the largest number: in bfloat16 the small ones of a sum are rounded as the large ones are
            return all(
                bool((one - other).abs().max() <= close * one.abs().max().clamp_min(1))
                for one, other in alike
            )

        if not self._attempt(ways):
            raise self._refusal("more than keys and values goes from one token to another")

    def _refusal(self, why: str) -> MissingCapability:
        return MissingCapability(
            f"model {self._name!r} ({type(self._model).__name__}): keys and values cannot stand in place of its tokens: "
            f"{why}",
            hint="use a causal or masked model whose tokens meet in attention alone (GPT-2, Llama, OPT, Gemma, BERT, "
            'RoBERTa), or method="prompt", which every model with gradients can do',
        )
