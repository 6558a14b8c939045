"""Runs lines of ids through a model, the fastest way its family allows, and hands on what is read in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from autoprompt.errors import ModelError
from autoprompt.models import LabelRequest, Request
from autoprompt.models.hf.contexts import evaluating, fused
from autoprompt.models.hf.encoded import Encoded
from autoprompt.models.hf.head import Head
from autoprompt.models.hf.limits import read_alike
from autoprompt.models.hf.tokens import Ids, Tokens
from autoprompt.models.hf.tree import TreeRunner
from autoprompt.prompt import Piece, Rendered

Line = tuple[Ids, Ids]
"""What one row of a batch reads: the encoder's ids (empty for other models), and its own."""
Spot = tuple[int, int]
"""(line, position in its own ids)."""
Forward = Callable[[Sequence[Ids], Sequence[Ids]], torch.Tensor]
"""Runs the encoder's ids and R rows of own ids, padded to T, and returns their logits, [R, T, V]."""
_PROBE = 24  # tokens of the rows on which an architecture is tried
_SHARED = 18  # of them begin several rows: enough for the tree's attention to merge, as in long texts
_FULL_LOGITS = 1 << 26  # numbers in one batch of logits where the head cannot be gated (256 MB in float32)

_SAMPLE = "The quick brown fox jumps over the lazy dog, which did not mind (not at all)."


def sample_line(encode: Callable[[Sequence[Request]], list[Encoded]], tokens: Tokens) -> Line:
    """A line of many different tokens, on which it is seen how a model can be run; short enough for all of them."""
    (encoded,) = encode([LabelRequest(Rendered((Piece(_SAMPLE),)), ("a",))])
    if encoded.source:
        return encoded.source[:_PROBE], encoded.rows[0]
    return (), tokens.open_ended([_SAMPLE])[0][:_PROBE]


class Reader:
    """Runs one model.

    Args:
        model: the transformers model.
        forward: runs lines side by side.
        sample: gives a line on which the architecture is tried.
        causal: whether it reads on from the end of a text.
        use_tree: see below.
        batch_tokens: see below.

    Attributes:
        head: its output layer.
        tree: its way to run what lines begin with in common once.
        use_tree: whether to do so where its family allows it.
        batch_tokens: tokens at a time; may be lowered where memory is short.
        fills: whether lines may be filled up to one length: not where a family reads what fills them (FNet, ConvBERT,
            MobileBERT), nor where longer texts are read otherwise.
        alike: see ``read_alike``.
        close: how far numbers of two ways may be apart that are to be the same.
    """

    def __init__(
        self,
        model: Any,
        forward: Forward,
        sample: Callable[[], Line],
        *,
        causal: bool,
        use_tree: bool,
        batch_tokens: int,
    ) -> None:
        self._model = model
        self._forward = forward
        self._sample = sample
        self._causal = causal
        parameter = next(model.parameters())
        self._device = parameter.device
        self.close = 1e-4 if parameter.dtype == torch.float32 else 2e-2
        self.head = Head(model)
        self.tree = TreeRunner(model, self.head, causal=causal)
        self.use_tree = use_tree
        self.batch_tokens = batch_tokens
        self.fills = True
        self.alike = read_alike(model)

    def read(self, lines: Sequence[Line], spots: Iterable[Spot]) -> Iterator[tuple[list[Spot], torch.Tensor]]:
        """Run distinct lines, and yield some spots with what is read there (see ``Head.read``), until all are."""
        if not lines:
            return
        self.learn(lines)
        with torch.inference_mode(), evaluating(self._model), fused(self._model):
            alike = max(len(row) for _, row in lines) <= self.alike
            if self.tree.able and self.use_tree and alike:
                yield from self.tree.read([row for _, row in lines], list(spots), self.batch_tokens)
                return
            wanted: dict[int, list[int]] = {}
            for line, position in spots:
                wanted.setdefault(line, []).append(position)
            for batch in self._side_by_side(lines, sorted(wanted)):
                width = max(len(lines[line][1]) for line in batch)
                read = [(line, position) for line in batch for position in wanted[line]]
                flat = [at * width + position for at, line in enumerate(batch) for position in wanted[line]]
                forward = self._forward_of([lines[line] for line in batch])
                yield read, self.head.read(forward, torch.tensor(flat, device=self._device))

    def _side_by_side(self, lines: Sequence[Line], order: Sequence[int]) -> Iterator[list[int]]:
        """Lines in padded batches within the bound on tokens, the shortest first; of one length where they must be."""
        bound = self.batch_tokens
        if not self.head.gated:
            vocabulary = int(self._model.config.get_text_config().vocab_size)
            bound = min(bound, max(1, _FULL_LOGITS // vocabulary))
        widths = [sum(map(len, line)) for line in lines]
        batch: list[int] = []
        for line in sorted(order, key=lambda line: (widths[line], line)):
            mixed = bool(batch) and self._apart(lines[line], lines[batch[0]])
            if batch and (mixed or (len(batch) + 1) * widths[line] > bound):
                yield batch
                batch = []
            batch.append(line)
        if batch:
            yield batch

    def _apart(self, one: Line, other: Line) -> bool:
        """Whether two lines must not be filled up to one length."""
        if self.fills:
            return (len(one[1]) > self.alike) is not (len(other[1]) > self.alike)
        return [*map(len, one)] != [*map(len, other)]

    def learn(self, lines: Sequence[Line] = ()) -> None:
        """See on a small batch, before the first use, how this architecture can be run.

        The batch is made of the sample, or of the line with the most different tokens: where all are alike, so is all that
        is attended to, and a wrong order would not show.
        """
        if self.head.learnt and self.tree.able is not None:
            return
        source, row = max([self._sample(), *lines], key=lambda line: len(set(line[1][:_PROBE])))
        row = (row * _PROBE)[:_PROBE]
        first, rest = row[:_SHARED], row[_SHARED:]
        rows = list(dict.fromkeys([row, first + rest[::-1], first + row[:1], row[::-1]]))
        forward = self._forward_of([(source, each) for each in rows])
        width = max(map(len, rows))
        spots = torch.tensor(
            [at * width + len(each) - 1 for at, each in enumerate(rows)], device=self._device
        )
        with torch.inference_mode(), evaluating(self._model), fused(self._model):
            if not self.head.learnt:
                self.head.learn(forward, spots, close=self.close)
            if self._causal:
                self._check_causal([(source, each) for each in rows[:2]])
            if not self.head.understood:
                self.tree.able = False
            elif self.tree.able is None:
                self.tree.learn(rows, self.head.states(forward, spots), close=self.close)
            if not (self.tree.able and self.use_tree):
                alone = [self._at_end((source, each)) for each in rows]
                self.fills = near(self.head.read(forward, spots), torch.cat(alone), 10 * self.close)

    def _check_causal(self, lines: Sequence[Line]) -> None:
        """See that what is read after a shared beginning does not depend on what follows.

        Raises:
            ModelError: it does, so that answers are no continuations.
        """
        width = len(lines[0][1])
        spots = torch.tensor([row * width + _SHARED - 1 for row in range(len(lines))], device=self._device)
        read = self.head.read(self._forward_of(lines), spots)
        if not near(read[:1], read[-1:], 10 * self.close):
            raise ModelError(
                f"model {type(self._model).__name__}: what it makes of a token depends on the tokens after it, so it does "
                "not read on from a text",
                hint="use a causal or an encoder-decoder model, or a masked one for answers of one token",
            )

    def _at_end(self, line: Line) -> torch.Tensor:
        """[1, .] what is read at the end of a line that is run alone."""
        return self.head.read(self._forward_of([line]), torch.tensor([len(line[1]) - 1], device=self._device))

    def _forward_of(self, lines: Sequence[Line]) -> Callable[[], torch.Tensor]:
        sources, rows = [source for source, _ in lines], [row for _, row in lines]
        return lambda: self._forward(sources, rows)


def near(found: torch.Tensor, expected: torch.Tensor, share: float) -> bool:
    """Whether rows differ by no more than a share of their length; what is no number says nothing."""
    return not ((found - expected).norm(dim=-1) > share * expected.norm(dim=-1)).any()
