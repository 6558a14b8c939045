"""How likely the tokens of a prompt's slots are where they stand.

Causal models: log P(token | all tokens before it), so that a slot's sum is log P(slot | text before) by the chain
rule. What follows the slot has no say in it and is not run. Masked models: log P(token | all other tokens), each
token masked in turn with the rest of the text, the mask of the answer place included, as it is (pseudo-likelihood,
Salazar et al. 2020, eq. 2). Encoder-decoder models give their encoder's text no likelihood.

The first token of a text has nothing before it. Where a slot opens the text and the tokenizer puts no special token
there, the text is read after the token that begins texts or, where there is none, the one that ends them, so that
every token of every slot has a likelihood and perplexities are means over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from autoprompt.errors import InputError, MissingCapability, TemplateError
from autoprompt.models import Failure, FluencyReply, FluencyRequest, Kind, SlotFluency
from autoprompt.models.hf.encoded import Encoded, Read
from autoprompt.models.hf.reader import Line, Reader, Spot
from autoprompt.models.hf.slots import SlotFinder, SlottedText
from autoprompt.models.hf.tokens import Ids, Tokens, fit
from autoprompt.prompt import Rendered

_JUDGE = "let a causal model judge, such as bundled:causal"
_Ask = tuple[tuple[int, int], int]
"""((request, number of the read), the token that is looked up)."""


@dataclass(frozen=True)
class SlotRows(Encoded):
    """A fluency request as ids: one read a token, slot after slot.

    Attributes:
        sizes: each slot's name, and how many of the reads are its.
    """

    sizes: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class _Likelihood:
    """Of one token, in nats, and the likeliest ones in its place as (id, log-probability)."""

    log_prob: float
    likely: Sequence[tuple[int, float]]


class Fluency:
    """Answers fluency requests about one model.

    Args:
        model: the transformers model.
        tokens: its tokenizer.
        kind: how it reads.
        name: its name, for errors.
        max_length: tokens that fit, None where unbounded; fields are shortened to it.
        reader: runs the model.

    Raises:
        MissingCapability: the model gives the text it reads no likelihood, or its tokenizer does not say which
            characters a token covers.
    """

    def __init__(
        self, model: Any, tokens: Tokens, *, kind: Kind, name: str, max_length: int | None, reader: Reader
    ) -> None:
        if kind not in ("causal", "masked"):
            raise MissingCapability(
                f"model {name!r} ({kind}): an encoder-decoder model gives the text that its encoder reads no "
                "likelihood, so it cannot say how likely a slot is",
                hint=_JUDGE,
            )
        if not tokens.tokenizer.is_fast:
            raise MissingCapability(
                f"model {name!r}: its tokenizer does not say which characters a token covers, so the tokens of "
                "a slot cannot be found",
                hint=f"load the fast tokenizer (AutoTokenizer.from_pretrained, with a tokenizer.json), or {_JUDGE}",
            )
        self._tokens = tokens
        self._causal = kind == "causal"
        self._name = name
        self._max_length = max_length
        self._reader = reader
        self._finder = SlotFinder(tokens, kind, name=name)
        configured = getattr(model.config.get_text_config(), "bos_token_id", None)  # MobileBERT's has none
        openings = (tokens.tokenizer.bos_token_id, tokens.tokenizer.eos_token_id, configured)
        self._opening = next((token for token in openings if isinstance(token, int)), None)

    def encode(self, requests: Sequence[FluencyRequest]) -> list[SlotRows]:
        """Requests as ids, shortened to fit; one whose slots cannot be read says why in its ``problem``.

        Raises:
            InputError: fewer than no likely tokens are asked for.
        """
        for request in requests:
            if request.likely < 0:
                raise InputError(f"fluency: likely is the number of tokens, 0 or more (got {request.likely})")
        texts = list(dict.fromkeys(request.rendered for request in requests))
        rows = dict(zip(texts, self._encoded(texts), strict=True))
        return [rows[request.rendered] for request in requests]

    def replies(
        self, requests: Sequence[FluencyRequest], encoded: Sequence[SlotRows]
    ) -> list[FluencyReply | Failure]:
        """One reply a request, in order. ``encoded``: the requests as ids."""
        most = max((request.likely for request in requests), default=0)
        found: dict[tuple[int, int], _Likelihood] = {}
        lines, asked = self._asked(encoded)
        for spots, read in self._reader.read(lines, asked):
            left = iter(spots)
            for logits in self._reader.head.logits(read):
                found.update(_likelihoods(logits, [asked[next(left)] for _ in logits], most))
        return [
            _reply(request, each, [found[index, number] for number in range(len(each.reads))])
            for index, (request, each) in enumerate(zip(requests, encoded, strict=True))
        ]

    def _encoded(self, texts: Sequence[Rendered]) -> list[SlotRows]:
        """Distinct texts as ids."""
        try:
            found = self._finder.find(texts)
        except TemplateError:  # one of them, perhaps; the others are read all the same
            return [self._alone(rendered) for rendered in texts]
        return [
            self._rows(text)
            if not rendered.soft and (self._max_length is None or len(text.ids) <= self._max_length)
            else self._alone(rendered)
            for rendered, text in zip(texts, found, strict=True)
        ]  # fmt: skip

    def _alone(self, rendered: Rendered) -> SlotRows:
        """One text as ids, its fields shortened until it fits."""
        if rendered.soft:
            return _unreadable(
                f"slot {next(iter(rendered.soft))!r} holds rows, which have no likelihood as tokens do"
            )
        if not any(piece.slot for piece in (*rendered.before, *rendered.after)):
            return _unreadable("there is no slot in this text whose fluency could be told")
        try:
            shorter, cut = fit(rendered, self._max_length, self._length, self._tokens)
            (text,) = self._finder.find([shorter])
        except TemplateError as error:
            return _unreadable(f"{error.message} ({error.hint})" if error.hint else error.message)
        return self._rows(text, cut)

    def _length(self, rendered: Rendered) -> int:
        """Tokens of the text as it is scored, answers left out."""
        place = self._tokens.place(rendered)
        if self._causal:
            return len(self._tokens.open_ended([place.before])[0])
        mask = str(self._tokens.tokenizer.mask_token)
        return len(self._tokens.whole([place.before + place.gap + mask + place.after])[0])

    def _rows(self, text: SlottedText, cut: int = 0) -> SlotRows:
        """The rows that are run for a text. ``cut``: tokens cut from its fields."""
        sizes = tuple((name, len(slot.at)) for name, slot in text.slots.items())
        pairs = [pair for slot in text.slots.values() for pair in zip(slot.at, slot.ids, strict=True)]
        if not self._causal:
            mask = int(self._tokens.tokenizer.mask_token_id)
            rows = tuple((*text.ids[:at], mask, *text.ids[at + 1 :]) for at, _ in pairs)
            reads = tuple(Read(row, at, (token,)) for row, (at, token) in enumerate(pairs))
            return SlotRows(rows, reads, len(text.ids), shortened=cut, sizes=sizes)
        row, shift = text.ids[: max(pairs)[0]], -1  # a token is read off at the one before it
        if not min(pairs)[0]:
            if self._opening is None:
                return _unreadable(
                    f"slot {sizes[0][0]!r} opens the text, and {self._name!r} has no token that begins or ends a "
                    "text to read it after (put some text before the slot)"
                )
            row, shift = (self._opening, *row), 0
        reads = tuple(Read(0, at + shift, (token,)) for at, token in pairs)
        return SlotRows((row,), reads, len(row), shortened=cut, sizes=sizes)

    def _asked(self, encoded: Sequence[SlotRows]) -> tuple[list[Line], dict[Spot, list[_Ask]]]:
        """Distinct rows, and what is asked at which place in them.

        A causal model reads the same after the same beginning, so that is asked in one row only: candidates
        that differ in a late token share all places before it.
        """
        lines: dict[Line, int] = {}
        asked: dict[Spot, list[_Ask]] = {}
        first: dict[Ids, Spot] = {}
        for index, each in enumerate(encoded):
            for number, read in enumerate(each.reads):
                row = each.rows[read.row]
                spot = (lines.setdefault(((), row), len(lines)), read.start)
                if self._causal:
                    spot = first.setdefault(row[: read.start + 1], spot)
                asked.setdefault(spot, []).append(((index, number), read.targets[0]))
        return list(lines), asked


def _unreadable(problem: str) -> SlotRows:
    return SlotRows(((0,),), (), 1, problem=problem)


def _likelihoods(
    logits: torch.Tensor, asks: Sequence[Sequence[_Ask]], most: int
) -> Iterator[tuple[tuple[int, int], _Likelihood]]:
    """What was asked at each of some places.

    Args:
        logits: [n, V] there, in float32.
        asks: [n] what is asked there.
        most: how many of the likeliest tokens are wanted at most.
    """
    norms = torch.logsumexp(logits, dim=-1)
    picks = [(row, who, target) for row, some in enumerate(asks) for who, target in some]
    rows, targets = (torch.tensor([pick[at] for pick in picks], device=logits.device) for at in (0, 2))
    values = (logits[rows, targets] - norms[rows]).tolist()
    likely: list[list[tuple[int, float]]] = [[] for _ in asks]
    if most:
        top = torch.topk(logits, min(most, logits.shape[-1]), dim=-1)
        for row, (ids, some) in enumerate(
            zip(top.indices.tolist(), (top.values - norms[:, None]).tolist(), strict=True)
        ):
            kept = [pair for pair in zip(ids, some, strict=True) if math.isfinite(pair[1])]
            likely[row] = sorted(kept, key=lambda pair: (-pair[1], pair[0]))
    for (row, who, _), value in zip(picks, values, strict=True):
        yield who, _Likelihood(value, likely[row])


def _reply(
    request: FluencyRequest, encoded: SlotRows, found: Sequence[_Likelihood]
) -> FluencyReply | Failure:
    """``found``: one a read."""
    if encoded.problem:
        return Failure(encoded.problem)
    if not all(math.isfinite(each.log_prob) for each in found):
        return Failure("the model gave no finite number (NaN or infinite logits)")
    slots, start = {}, 0
    for name, size in encoded.sizes:
        some = range(start, start + size)
        start += size
        likely = [found[at].likely[: request.likely] for at in some] if request.likely else []
        slots[name] = SlotFluency(
            ids=tuple(encoded.reads[at].targets[0] for at in some),
            log_probs=tuple(found[at].log_prob for at in some),
            likely=tuple(tuple(token for token, _ in each) for each in likely),
            likely_log_probs=tuple(tuple(value for _, value in each) for each in likely),
        )
    return FluencyReply(slots, encoded.tokens, encoded.shortened)
