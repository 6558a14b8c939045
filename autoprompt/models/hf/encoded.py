"""Requests as token ids: the rows a model reads, and where in them which tokens are looked up."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from autoprompt.models.hf.tokens import Ids
from autoprompt.soft import SoftRows


@dataclass(frozen=True)
class Read:
    """One answer: log P(targets[i]) is read at position ``start + i`` of row ``row``."""

    row: int
    start: int
    targets: Ids


@dataclass(frozen=True)
class Encoded:
    """A request as ids.

    Attributes:
        rows: what the (decoder) model reads, one sequence of ids each; answers that need the same input
            share one.
        reads: one per answer.
        length: positions the request needs, to be compared with the model's maximum.
        source: what the encoder of an encoder-decoder model reads.
        among: words to rank and their ids, for rank requests that name them.
        shortened: tokens cut from the example's fields.
        problem: why the request cannot be answered; empty if it can.
        soft: rows that are read in place of some of its tokens.
        soft_at: their places, in the source where there is one, else in every row.
    """

    rows: tuple[Ids, ...]
    reads: tuple[Read, ...]
    length: int
    source: Ids = ()
    among: tuple[tuple[str, int], ...] | None = None
    shortened: int = 0
    problem: str = ""
    soft: tuple[SoftRows, ...] = ()
    soft_at: tuple[int, ...] = ()

    def with_rows(self, at: Sequence[int], first: int) -> Encoded:
        """The same with the ids ``first``, ``first + 1``, ... at some places (see ``InputTable.spliced``)."""
        return self.with_ids(at, range(first, first + len(at)))

    def with_ids(self, at: Sequence[int], ids: Sequence[int]) -> Encoded:
        """The same with these ids at some places."""
        change = dict(zip(at, ids, strict=True))

        def changed(ids: Ids) -> Ids:
            return tuple(change.get(place, token) for place, token in enumerate(ids))

        if self.source:
            return dataclasses.replace(self, source=changed(self.source))
        return dataclasses.replace(self, rows=tuple(map(changed, self.rows)))

    @property
    def tokens(self) -> int:
        """Tokens the model reads."""
        return len(self.source) + sum(map(len, self.rows))

    @property
    def at_one_place(self) -> bool:
        """Whether all answers are one token each and read at the same place."""
        return len({(read.row, read.start, len(read.targets)) for read in self.reads}) == 1 and (
            len(self.reads[0].targets) == 1
        )

    @property
    def width(self) -> int:
        """Positions of the widest row, with the encoder's part and the room for what is generated."""
        return max(self.length, len(self.source) + max(map(len, self.rows), default=0))


def common_start(context: Ids, wholes: Sequence[Ids]) -> int:
    """How many first tokens all wholes share with the context.

    From there on the answers are scored: a token that merges over the boundary is then part of every
    answer, and all are conditioned on the same tokens.
    """
    start = len(context)
    for whole in wholes:
        start = min(start, len(whole))
        while context[:start] != whole[:start]:
            start -= 1
    return start


def share_rows(wholes: Sequence[Ids], start: int) -> tuple[tuple[Ids, ...], tuple[Read, ...]]:
    """Rows and reads that score every whole from ``start`` on.

    The row for a whole is all of it but its last token. A row that begins another one is not run of its
    own: a causal model reads the same there. So answers of one token share a single row.

    Args:
        wholes: ids of text and answer together, each longer than ``start``; they agree before ``start``.
        start: position of the first scored token, at least 1.
    """
    rows: list[Ids] = []
    row_of: dict[Ids, int] = {}
    for whole in sorted(set(wholes), key=lambda ids: (-len(ids), ids)):
        if whole[start:-1] in row_of:
            continue
        rows.append(whole[:-1])
        for end in range(start, len(whole)):
            row_of.setdefault(whole[start:end], len(rows) - 1)
    reads = (Read(row_of[whole[start:-1]], start - 1, whole[start:]) for whole in wholes)
    return tuple(rows), tuple(reads)
