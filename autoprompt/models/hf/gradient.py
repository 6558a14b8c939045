"""Gradients of the loss by the tokens of a prompt's slots, and what they predict for every other token.

Three things are kept apart: what is run (``Batch``), how it is run (``Run``: padded rows here, packed trees
elsewhere), and what is computed from what the head reads at the answer places (``losses``). Weights are frozen
meanwhile: only the way from the logits back to the slots' rows is differentiated.
"""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autoprompt.errors import InputError, LabelWordError, MissingCapability, ModelError
from autoprompt.models import Floats, GradientReply, GradientRequest, Kind, LabelRequest, SlotGradient
from autoprompt.models.hf.contexts import evaluating, fused
from autoprompt.models.hf.encoded import Encoded
from autoprompt.models.hf.head import Head
from autoprompt.models.hf.input_table import InputTable, Table
from autoprompt.models.hf.side_by_side import Padded, decoder_logits, encoder_states, padded
from autoprompt.models.hf.slots import Batch, SlotFinder, Slotted, batch_of, check_standing, shared_ids
from autoprompt.models.hf.tokens import Ids, Tokens, fit
from autoprompt.prompt import Rendered

Encode = Callable[[Sequence[LabelRequest]], list[Encoded]]
# Every activation of a batch is kept for the way back, so a batch holds that many times fewer tokens than one
# that is only scored: on a CPU 512, 1.15 times as fast as 2,048 and a quarter of the memory (GPT-2 and Llama of 6
# layers, GPT-2 of 12).
_FEWER = 2
_RUNS = 4  # batches whose beginnings are remembered
Run = Callable[[Batch, torch.Tensor], torch.Tensor]
"""(a batch, rows [M, D] that stand in it) to what the head reads at the batch's places, [n, .], which depends on the
rows."""


class PaddedRun:
    """Runs the rows of a batch side by side, filled up to one width.

    Args:
        model: the transformers model.
        table: of the rows that stand in the batches.
        kind: how it reads.
        pad: the id to fill rows up with.
        head: its output layer.
    """

    def __init__(self, model: Any, table: Table, *, kind: Kind, pad: int, head: Head) -> None:
        self._model = model
        self._table = table
        self._pad = pad
        self._head = head
        self._options = {"use_cache": False} if kind == "causal" else {}

    def __call__(self, batch: Batch, given: torch.Tensor) -> torch.Tensor:
        """What the head reads at the places of a batch, [n, .], differentiable by the rows ``given`` [M, D]."""
        ids, mask = padded(batch.rows, self._pad, given.device)
        places = [row * ids.shape[1] + position for row, position in batch.places]
        flat = torch.tensor(places, device=given.device)
        if batch.sources:
            return self._head.read(self._decoder(batch, (ids, mask), given), flat)

        def forward() -> torch.Tensor:
            output = self._model(input_ids=ids, attention_mask=mask, return_dict=True, **self._options)
            return output.logits  # type: ignore[no-any-return]

        with self._table.spliced(given):
            return self._head.read(forward, flat)

    def _decoder(self, batch: Batch, rows: Padded, given: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Run the encoder, once a source, and give back what runs the decoder on it."""
        sources = padded(batch.sources, self._pad, given.device)
        with self._table.spliced(given):
            states = encoder_states(self._model, sources)
        return lambda: decoder_logits(self._model, states, sources[1], batch.source_of, rows)


class Gradients:
    """Answers gradient requests about one model.

    Args:
        model: the transformers model.
        tokens: its tokenizer.
        kind: how it reads.
        name: its name, for errors.
        encode: requests as ids, however long.
        max_length: tokens that fit, None where unbounded; fields are shortened to it.
        table: the model's input embeddings.
        head: its output layer.
        run_with: makes what runs batches with rows of a table.
        from_slots: whether that runs what stands before the slots forwards only, and remembers it.
    """

    def __init__(
        self,
        model: Any,
        tokens: Tokens,
        *,
        kind: Kind,
        name: str,
        encode: Encode,
        max_length: int | None,
        table: InputTable,
        head: Head,
        run_with: Callable[[Table], Run],
        from_slots: bool = False,
    ) -> None:
        self._model = model
        self._tokens = tokens
        self._name = name
        self.kind = kind
        self._encode = encode
        self._max_length = max_length
        self._table = table
        self.head = head
        self.run_with = run_with
        self.from_slots = from_slots
        self._runs: OrderedDict[tuple[Ids, ...], Run] = OrderedDict()
        self._finder = SlotFinder(tokens, kind, name=name)

    def new_run(self) -> Run:
        """What runs batches with embeddings in them."""
        return self.run_with(self._table)

    def reply(self, requests: Sequence[GradientRequest], batch_tokens: int) -> GradientReply:
        """Gradient of the mean loss over the requests, by the embeddings of the slots' tokens.

        Args:
            requests: at least one; all with the same slots and the same tokens in them.
            batch_tokens: padded tokens run together where there is no way back; here half of them.

        Raises:
            InputError: no requests, or right answers that are not among the answers.
            TemplateError: a slot is not a whole number of tokens, or other tokens in another request.
            LabelWordError: an answer cannot be scored.
            ModelError: the loss is no finite number.
        """
        ids, slotted = self.slotted(requests)
        weight = self._table.weight
        summed = []
        with torch.inference_mode(False), torch.enable_grad(), differentiable(self._model):
            # by the rows of the table: what the module makes of them it makes of every other row
            standing = self._standing(requests[0].rendered, ids)
            total = torch.zeros_like(standing)
            for part in parts(slotted, batch_tokens // _FEWER, from_slots=self.from_slots):
                shifts = torch.zeros_like(total, requires_grad=True)
                batch = batch_of(part, len(weight))
                read = self._run_of(part)(batch, standing + self._table.scale * shifts)
                loss = losses(part, batch, self.head, read).sum()
                total += torch.autograd.grad(loss, shifts)[0]
                summed.append(loss.detach())
        mean = math.fsum(torch.stack(summed).tolist()) / len(slotted)
        gradient = (total / len(slotted)).cpu().numpy()
        if not (math.isfinite(mean) and np.isfinite(gradient).all()):
            raise ModelError(
                f"model {self._name!r}: the loss or its gradient is no finite number",
                hint="use dtype=float32 or bfloat16",
            )
        slots, start = {}, 0
        for name, each in ids.items():
            slots[name] = SlotGradient(each, gradient[start : start + len(each)])
            start += len(each)
        return GradientReply(mean, slots, sum(each.encoded.tokens for each in slotted))

    def _run_of(self, part: Sequence[Slotted]) -> Run:
        """What runs a part, and remembers what its texts begin with; another one for other beginnings.

        To the last digit these are what the batch that they were computed in makes of them. A search that is resumed must
        find what it would have found, so they serve only the very same batch again.
        """
        key = tuple(each.encoded.rows[0][: min(each.at)] for each in part) if self.from_slots else ()
        if key not in self._runs:
            self._runs[key] = self.new_run()
        self._runs.move_to_end(key)
        while len(self._runs) > _RUNS:
            self._runs.popitem(last=False)
        return self._runs[key]

    def first_order(self, gradient: Floats, *, block: int = 8192) -> NDArray[np.float32]:
        """[L, V] in float32: every row of the table times ``gradient`` [L, D], ``block`` rows at a time."""
        weight = self._table.weight
        if gradient.ndim != 2 or gradient.shape[1] != weight.shape[1]:
            raise InputError(
                f"first_order: a gradient is [L, {weight.shape[1]}] for {self._name!r} (got {gradient.shape})"
            )
        if block < 1:
            raise InputError(f"first_order: block must be at least 1 (got {block})")
        change = np.empty((len(gradient), len(weight)), np.float32)
        with torch.inference_mode():
            rows = torch.from_numpy(np.array(gradient, np.float32)).to(weight.device)
            for start in range(0, len(weight), block):
                some = rows @ weight[start : start + block].float().T
                change[:, start : start + block] = some.cpu().numpy()
        return change

    def _standing(self, rendered: Rendered, ids: Mapping[str, Ids]) -> torch.Tensor:
        """[L, D] in float32: what is read at the slots' places, slot after slot."""
        soft = rendered.soft
        return torch.cat(
            [
                self._table.embedded(each) if name not in soft else self._table.tensor(soft[name])
                for name, each in ids.items()
            ]
        )

    def slotted(self, requests: Sequence[GradientRequest]) -> tuple[Mapping[str, Ids], list[Slotted]]:
        """The ids of every slot, and the requests as ids."""
        if not requests:
            raise InputError("gradients: there are no requests")
        for request in requests:
            known = range(len(request.answers))
            if not request.right or any(index not in known for index in request.right):
                raise InputError(
                    f"gradients: right answers are indices below {len(known)}, at least one (got {request.right})"
                )
        encoded = self._encode(
            [LabelRequest(each.rendered, each.answers, ended=each.ended) for each in requests]
        )
        fitted = [self._fitted(request, each) for request, each in zip(requests, encoded, strict=True)]
        found = self._finder.find([rendered for rendered, _ in fitted])
        ids = shared_ids(found)
        slotted = []
        for request, text, (_, each) in zip(requests, found, fitted, strict=True):
            check_standing(text, each, self.kind)
            at = tuple(place for name in ids for place in text.slots[name].at)
            right = tuple(dict.fromkeys(request.right))
            slotted.append(Slotted(each, at, right, request.among_answers, ended=request.ended))
        return ids, slotted

    def _fitted(self, request: GradientRequest, encoded: Encoded) -> tuple[Rendered, Encoded]:
        """The text with its fields shortened until it fits, and that as ids."""

        def encode(rendered: Rendered) -> Encoded:
            return self._encode([LabelRequest(rendered, request.answers, ended=request.ended)])[0]

        rendered = request.rendered
        if self._max_length is not None and encoded.length > self._max_length:
            rendered, _ = fit(rendered, self._max_length, lambda each: encode(each).length, self._tokens)
            encoded = encode(rendered)
        if encoded.problem:
            raise LabelWordError(encoded.problem)
        return rendered, encoded


def parts(slotted: Sequence[Slotted], bound: int, *, from_slots: bool) -> Iterator[list[Slotted]]:
    """Requests sorted by length, as many together as keep within ``bound`` padded tokens that are led back
    through; at least one. ``from_slots``: whether what stands before the slots is not led back through.
    """

    def width(each: Slotted) -> int:
        return each.encoded.width - (min(each.at) if from_slots else 0)

    part: list[Slotted] = []
    rows = 0
    for each in sorted(slotted, key=width):
        rows += len(each.encoded.rows)
        if part and rows * width(each) > bound:
            yield part
            part, rows = [], len(each.encoded.rows)
        part.append(each)
    yield part


def losses(part: Sequence[Slotted], batch: Batch, head: Head, read: torch.Tensor) -> torch.Tensor:
    """-log of the summed probability of the right answers, in nats; a token's where the request is ``ended``.

    Args:
        part: B requests.
        batch: the batch made of them.
        head: the model's output layer.
        read: [n, .] what the head reads at the batch's places.

    Returns:
        [B], in float32.
    """
    number = {place: at for at, place in enumerate(batch.places)}
    count = max(len(each.encoded.reads) for each in part)
    right, given = torch.zeros(2, len(part), count, dtype=torch.bool)
    first, picks = 0, []  # (request * C + answer, place, target)
    for at, each in enumerate(part):
        for answer, one in enumerate(each.encoded.reads):
            for step, target in enumerate(one.targets):
                place = number[first + one.row, one.start + step]
                picks.append((at * count + answer, place, target))
        right[at, list(each.right)] = True
        given[at, : len(each.encoded.reads)] = True
        first += len(each.encoded.rows)
    cells, rows, targets = torch.tensor(picks, device=read.device).T
    if all(each.among_answers and each.encoded.at_one_place for each in part):
        values = head.picked(read, rows, targets)  # what the vocabulary sums to would cancel
    else:
        values = head.log_probs(read, rows, targets)
    scores = values.new_zeros(len(part) * count).index_add(0, cells, values).view(len(part), count)
    compared = torch.tensor([each.among_answers for each in part], device=read.device)
    whole = torch.where(compared, _log_sum(scores, given), 0.0)  # the vocabulary sums to 1
    found = whole - _log_sum(scores, right)
    if not any(each.ended for each in part):
        return found
    lengths = [len(each.encoded.reads[each.right[0]].targets) if each.ended else 1 for each in part]
    return found / torch.tensor(lengths, device=read.device)


@contextlib.contextmanager
def frozen(model: Any) -> Iterator[None]:
    """No gradient by any weight inside the block; the user's flags are left as they were."""
    parameters = list(model.parameters())
    if any(parameter.is_inference() for parameter in parameters):
        raise MissingCapability(
            "gradients: the model's weights were made inside torch.inference_mode(), which rules gradients out",
            hint="load the model outside torch.inference_mode()",
        )
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def differentiable(model: Any) -> Iterator[None]:
    """The model inside the block: weights frozen, no dropout, fewer and lighter steps."""
    with frozen(model), evaluating(model), fused(model):
        yield


def _log_sum(scores: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """[B] log of the summed probability of the chosen answers [B, C], from log-probabilities [B, C]."""
    mask = chosen.to(scores.device)
    return torch.logsumexp(scores.masked_fill(~mask, -math.inf), dim=-1)
