"""What the Hugging Face models share: identity, encoding, batches, log-probabilities and ranks."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import functools
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from autoprompt.errors import LabelWordError, ModelError
from autoprompt.models import (
    Failure,
    Floats,
    FluencyReply,
    FluencyRequest,
    GradientReply,
    GradientRequest,
    Kind,
    LabelReply,
    LabelRequest,
    RankReply,
    RankRequest,
    Request,
    TextReply,
    TextRequest,
    TuneReply,
    TuneRequest,
    Vocabulary,
)
from autoprompt.models.hf.answer_place import AnswerPlace
from autoprompt.models.hf.encoded import Encoded
from autoprompt.models.hf.fluency import Fluency, SlotRows
from autoprompt.models.hf.gradient import Gradients, PaddedRun, Run
from autoprompt.models.hf.input_table import InputTable, Table
from autoprompt.models.hf.limits import longest_text, usable_pad
from autoprompt.models.hf.prefixes import Prefixes
from autoprompt.models.hf.ranking import failure, ranked
from autoprompt.models.hf.reader import Line, Reader, Spot, sample_line
from autoprompt.models.hf.settings import Settings
from autoprompt.models.hf.side_by_side import Padded, padded
from autoprompt.models.hf.slots import SlotFinder
from autoprompt.models.hf.soft import spliced, with_soft
from autoprompt.models.hf.tokens import Ids, Tokens, fit, with_text
from autoprompt.models.hf.tree_gradient import TreeRun
from autoprompt.models.hf.tuning import Tuner
from autoprompt.models.hf.vocabulary import HuggingFaceVocabulary
from autoprompt.policy import TokenPolicy
from autoprompt.prompt import Rendered

_REMEMBERED = 8192  # requests whose ids are kept: count_tokens, batches and logprobs see the same ones
_Answer = TypeVar("_Answer")


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a model is made of.

    Attributes:
        model: the transformers model.
        tokenizer: its tokenizer.
        settings: the user's options.
        name: as the user knows it.
        content: hash of weights and tokenizer, or hub id and commit.
        revision: the hub's commit of the weights; empty for folders and objects.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    settings: Settings
    name: str
    content: str
    revision: str = ""


class HuggingFaceModel(abc.ABC):
    """Scores and ranks with a transformers model.

    Subclasses say how a request becomes ids and how rows are run.
    """

    kind: Kind
    deterministic = True

    def __init__(self, parts: Parts) -> None:
        self.name = parts.name
        self.revision = parts.revision
        self._parts = parts
        self._model = parts.model
        self._tokens = Tokens(parts.tokenizer, chat=parts.settings.chat)
        self._memory: OrderedDict[Request, Encoded] = OrderedDict()
        parameter = next(parts.model.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype
        default = 1024 if self._device.type == "cpu" else 16384
        # As set: unlike the reader's, it is not lowered where memory is short, so that batches stay what they are.
        self._bound = parts.settings.batch_tokens or default
        self._reader = Reader(
            parts.model,
            lambda sources, rows: self._forward(sources, rows),
            lambda: sample_line(self._encode, self._tokens),
            causal=self.kind == "causal",
            use_tree=parts.settings.tree,
            batch_tokens=self._bound,
        )
        self._pad = usable_pad(parts.model, parts.tokenizer)
        self.max_length = longest_text(parts.model, parts.tokenizer, parts.settings.max_length)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of weights (or hub id and commit), tokenizer, dtype, kind of device, chat template,
        maximal length.
        """
        settings = self._parts.settings
        chat = str(self._parts.tokenizer.chat_template) if settings.chat else None
        content = [self._parts.content, self.kind, str(self._dtype), self._device.type, chat, self.max_length]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]

    def count_tokens(self, requests: Sequence[Request]) -> list[int]:
        """Tokens read for each request.

        An answer of several tokens may need a row of its own, which counts.
        """
        return [encoded.tokens for encoded in self._encoded(requests)]

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        """Requests sorted by length, as many a batch as keep it within ``batch_tokens`` padded tokens."""
        return self._packed(self._encoded(requests))

    def logprobs(self, requests: Sequence[LabelRequest]) -> list[LabelReply | Failure]:
        """Sum of log P(token | all before) over each answer's tokens, in nats.

        One reply a request, in order.
        """
        encoded = self._encoded(requests)
        relative = [
            request.relative and each.at_one_place for request, each in zip(requests, encoded, strict=True)
        ]

        def work() -> list[list[float]]:
            with self._spliced(encoded) as placed:
                return self._scores(placed, relative)

        scores = self._with_memory(work)
        return [
            failure(each.problem, values) or LabelReply(tuple(values), each.tokens, each.shortened)
            for each, values in zip(encoded, scores, strict=True)
        ]

    def ranks(self, requests: Sequence[RankRequest]) -> list[RankReply | Failure]:
        """Rank of each target over the vocabulary, 1 + the number of strictly likelier entries.

        Of ``among``, words that are no single token here are left out.
        """
        encoded = self._encoded(requests)

        def work() -> list[RankReply | Failure]:
            with self._spliced(encoded) as placed:
                return ranked(self._reader, self._tokens, placed)

        return self._with_memory(work)

    def fluency(self, requests: Sequence[FluencyRequest]) -> list[FluencyReply | Failure]:
        """How likely the tokens of each text's slots are; see ``FluentModel``. One reply a request, in order."""
        encoded = [each for each in self._encoded(requests) if isinstance(each, SlotRows)]
        return self._with_memory(lambda: self._fluency.replies(requests, encoded))

    def gradients(self, requests: Sequence[GradientRequest]) -> GradientReply:
        """Gradient of the mean loss by the input embeddings of the slots' tokens; see ``OpenModel``."""
        gradients = self._gradients
        return self._with_memory(lambda: gradients.reply(requests, self._reader.batch_tokens))

    def first_order(self, gradient: Floats, *, block: int = 8192) -> NDArray[np.float32]:
        """[L, V] first-order change of the loss for each token of the vocabulary; see ``OpenModel``."""
        return self._gradients.first_order(gradient, block=block)

    def tune(self, requests: Sequence[TuneRequest]) -> list[TuneReply | Failure]:
        """Train the rows of soft slots; see ``TunableModel``. One reply a request, in order."""
        tuner = self._tuner
        return self._with_memory(lambda: tuner.replies(requests, self._reader.batch_tokens))

    @functools.cached_property
    def _tuner(self) -> Tuner:
        def allowed(policy: TokenPolicy) -> torch.Tensor:
            return torch.from_numpy(np.flatnonzero(self.vocabulary.allowed(policy)))

        return Tuner(self._model, self._table, lambda: self._prefixes, self._gradients, allowed)

    @functools.cached_property
    def _fluency(self) -> Fluency:
        return Fluency(
            self._model,
            self._tokens,
            kind=self.kind,
            name=self.name,
            max_length=self.max_length,
            reader=self._reader,
        )

    @functools.cached_property
    def answer_place(self) -> AnswerPlace:
        """Where its answers are read; see ``LabelSearchModel``."""
        return AnswerPlace(
            self._model,
            self._tokens,
            self._reader,
            encode=self._encoded,
            forward=self._forward,
            with_memory=self._with_memory,
            name=self.name,
        )

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """The model's tokens; see ``OpenModel``."""
        return HuggingFaceVocabulary(self._tokens, self._finder, self._table, name=self.name)

    @functools.cached_property
    def _finder(self) -> SlotFinder:
        return SlotFinder(self._tokens, self.kind, name=self.name)

    @functools.cached_property
    def _table(self) -> InputTable:
        return InputTable(self._model, self.kind, name=self.name)

    @functools.cached_property
    def _prefixes(self) -> Prefixes:
        reader = self._learnt()
        return Prefixes(self._model, self._tokens, self._table, reader, self.kind, self.name, self.max_length)

    def _learnt(self) -> Reader:
        self._reader.learn()
        return self._reader

    @functools.cached_property
    def _gradients(self) -> Gradients:
        """Made at the first use, when it is seen how the architecture can be run."""
        model, reader = self._model, self._learnt()
        as_tree = self.kind == "causal" and bool(reader.tree.able) and reader.use_tree

        def run_with(table: Table) -> Run:
            padded_run = PaddedRun(model, table, kind=self.kind, pad=self._pad, head=reader.head)
            return TreeRun(model, reader.tree, table) if as_tree else padded_run

        return Gradients(
            model,
            self._tokens,
            kind=self.kind,
            name=self.name,
            encode=self._encode,
            max_length=self.max_length,
            table=self._table,
            head=reader.head,
            run_with=run_with,
            from_slots=as_tree,
        )

    def check_answers(
        self, rendered: Rendered, answers: Sequence[str], *, single_token: bool = False
    ) -> None:
        """Raise LabelWordError for the first answer that cannot be scored at this answer place."""
        for answer in answers:
            asked: Request = LabelRequest(rendered, (answer,))
            if single_token:
                asked = RankRequest(rendered, answer)
            (encoded,) = self._encoded([asked])
            if encoded.problem:
                raise LabelWordError(encoded.problem)

    @abc.abstractmethod
    def _encode(self, requests: Sequence[Request]) -> list[Encoded]:
        """Requests as ids, however long."""

    @abc.abstractmethod
    def _forward(self, sources: Sequence[Ids], rows: Sequence[Ids]) -> torch.Tensor:
        """Run rows (R of them, padded to T) and return their logits, [R, T, V]."""

    def _encoded(self, requests: Sequence[Request]) -> list[Encoded]:
        """Requests as ids, shortened to fit; remembered."""
        found = {request: self._memory[request] for request in requests if request in self._memory}
        slotted = [
            request for request in requests if request not in found and isinstance(request, FluencyRequest)
        ]
        if slotted:
            found.update(zip(slotted, self._fluency.encode(slotted), strict=True))
        new = [request for request in dict.fromkeys(requests) if request not in found]
        fitted = [
            self._shortened(request, encoded) for request, encoded in zip(new, self._encode(new), strict=True)
        ]
        found.update(zip(new, with_soft(lambda: self._finder, self.kind, fitted), strict=True))
        for request in dict.fromkeys(requests):
            self._memory[request] = found[request]
            self._memory.move_to_end(request)
        while len(self._memory) > _REMEMBERED:
            self._memory.popitem(last=False)
        return [found[request] for request in requests]

    def _shortened(self, request: Request, encoded: Encoded) -> tuple[Rendered, Encoded]:
        if self.max_length is None or encoded.length <= self.max_length:
            return request.rendered, encoded

        def measure(rendered: Rendered) -> int:
            return self._encode([with_text(request, rendered)])[0].length

        rendered, cut = fit(request.rendered, self.max_length, measure, self._tokens)
        (encoded,) = self._encode([with_text(request, rendered)])
        return rendered, dataclasses.replace(encoded, shortened=cut)

    def _spliced(self, encoded: Sequence[Encoded]) -> contextlib.AbstractContextManager[list[Encoded]]:
        return spliced(lambda: self._table, lambda: self._prefixes, encoded)

    def _packed(self, encoded: Sequence[Encoded]) -> list[list[int]]:
        """Indices in batches; depends on the requests and the settings only."""
        order = sorted(range(len(encoded)), key=lambda index: (encoded[index].width, index))
        batches: list[list[int]] = []
        rows = 0
        for index in order:
            rows += max(1, len(encoded[index].rows))
            if not batches or rows * encoded[index].width > self._bound:
                batches.append([])
                rows = max(1, len(encoded[index].rows))
            batches[-1].append(index)
        return batches

    def _scores(self, encoded: Sequence[Encoded], relative: Sequence[bool]) -> list[list[float]]:
        """[requests][answers] log-probabilities in nats, up to a constant where ``relative``; NaN where the model
        gave no number.
        """
        scores = [[0.0] * len(each.reads) for each in encoded]
        asked: dict[Spot, list[tuple[int, int, int]]] = {}
        lines: dict[Line, int] = {}
        for index, each in enumerate(encoded):
            for answer, reading in enumerate(() if each.problem else each.reads):
                line = lines.setdefault((each.source, each.rows[reading.row]), len(lines))
                for step, target in enumerate(reading.targets):
                    asked.setdefault((line, reading.start + step), []).append((index, answer, target))
        for spots, read in self._reader.read(list(lines), asked):
            for compared in (False, True):
                picks = [
                    (index, answer, row, target)
                    for row, spot in enumerate(spots)
                    for index, answer, target in asked[spot]
                    if relative[index] is compared
                ]
                values = self._values(read, picks, relative=compared)
                for (index, answer, _, _), value in zip(picks, values, strict=True):
                    scores[index][answer] += value
        return scores

    def _values(
        self, read: torch.Tensor, picks: Sequence[tuple[int, int, int, int]], *, relative: bool
    ) -> list[float]:
        """Log P of each pick's target, or where only differences count its logit, in nats."""
        if not picks:
            return []
        rows, targets = self._tensor([pick[2] for pick in picks]), self._tensor([pick[3] for pick in picks])
        if relative:
            return self._reader.head.picked(read, rows, targets).tolist()
        needed, rows = torch.unique(rows, return_inverse=True)
        return self._reader.head.log_probs(read[needed], rows, targets).tolist()

    def _completed(
        self, requests: Sequence[TextRequest], run: Callable[[Sequence[int]], list[str]]
    ) -> list[TextReply | Failure]:
        """Complete batch by batch; ``run`` gives the texts for the requests of some indices."""
        encoded = self._encoded(requests)
        replies: list[TextReply | Failure] = [Failure(each.problem) for each in encoded]
        for batch in self._packed(encoded):
            able = [index for index in batch if not encoded[index].problem]
            for index, text in zip(able, run(able) if able else [], strict=True):
                replies[index] = TextReply(text, encoded[index].tokens, encoded[index].shortened)
        return replies

    def _with_memory(self, work: Callable[[], _Answer]) -> _Answer:
        """Do the work; when the accelerator's memory is full, with half the batch from then on."""
        while True:
            try:
                return work()
            except torch.OutOfMemoryError:
                if self._reader.batch_tokens <= 64:
                    raise ModelError(
                        f"model {self.name!r}: out of memory with one text a batch",
                        hint="use a smaller model, dtype=bfloat16, or a smaller max_length",
                    ) from None
            self._reader.batch_tokens //= 2

    def _tensor(self, values: Sequence[int]) -> torch.Tensor:
        return torch.tensor(values, device=self._device)

    def _padded(self, rows: Sequence[Ids], *, left: bool = False) -> Padded:
        return padded(rows, self._pad, self._device, left=left)
