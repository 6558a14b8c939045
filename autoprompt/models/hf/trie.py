"""Rows of token ids as a radix tree, so that what rows begin with in common is run once.

A node is a stretch of tokens that all rows below it share. Sharing has a price: attention runs once per family
of siblings, and a family costs about as much as a few tokens. So a shared stretch becomes a node of its own only
where it saves more tokens than that; shorter ones are run again in each child.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprompt.models.hf.tokens import Ids

FAMILY_COST = 6
"""Tokens that a shared stretch must save to be worth a family of siblings of its own (measured on the CPU)."""


@dataclass(frozen=True)
class Node:
    """Tokens ``ids`` at positions ``start`` and on.

    Attributes:
        parent: index of the node before it; -1 for the first of a row.
        start: position of its first token in the rows below it.
        ids: its tokens.
    """

    parent: int
    start: int
    ids: Ids


@dataclass(frozen=True)
class Trie:
    """Nodes, each after its parent, and ``last`` [R]: the node in which each row ends."""

    nodes: list[Node]
    last: list[int]

    @property
    def tokens(self) -> int:
        """Tokens that are run."""
        return sum(len(node.ids) for node in self.nodes)

    def locate(self, row: int, position: int) -> tuple[int, int]:
        """(node, offset in it) of a position of a row."""
        at = self.last[row]
        while position < self.nodes[at].start:
            at = self.nodes[at].parent
        return at, position - self.nodes[at].start

    def path(self, node: int) -> list[int]:
        """The nodes before a node, from the first on."""
        found = []
        at = self.nodes[node].parent
        while at >= 0:
            found.append(at)
            at = self.nodes[at].parent
        return found[::-1]


def shared_starts(rows: Sequence[Ids]) -> NDArray[np.int64]:
    """[R] how many first ids each row shares with the row before it; 0 for the first."""
    lengths = np.array([len(row) for row in rows])
    starts = np.zeros(len(rows), dtype=np.int64)
    step = 4096  # rows at a time: the padded table stays small however many rows there are
    for low in range(1, len(rows), step):
        high = min(len(rows), low + step)
        width = int(lengths[low - 1 : high].max())
        table = np.full((high - low + 1, width), -1, dtype=np.int64)
        for at, row in enumerate(rows[low - 1 : high]):
            table[at, : len(row)] = row
        same = (table[1:] == table[:-1]) & (table[1:] >= 0)
        starts[low:high] = np.logical_and.accumulate(same, axis=1).sum(axis=1)
    return starts


def share(rows: Sequence[Ids]) -> Trie:
    """The tree of causal rows: a token's state depends on what stands before it and nothing else."""
    order = sorted(range(len(rows)), key=lambda row: rows[row])
    ordered = [rows[row] for row in order]
    common = shared_starts(ordered)
    nodes: list[Node] = []
    last = [-1] * len(rows)
    # Families yet to be split up: rows [low, high) of ``ordered``, whose first ``depth`` tokens ``parent`` holds.
    waiting = [(0, len(rows), 0, -1)] if rows else []
    while waiting:
        low, high, depth, parent = waiting.pop()
        families = []
        for first, end in _families(common, low, high, depth):
            row = ordered[first]
            shared = len(row) if end == first + 1 else int(common[first + 1 : end].min())
            at = parent
            if shared > depth:
                at = len(nodes)
                nodes.append(Node(parent, depth, row[depth:shared]))
            done = first
            while done < end and len(ordered[done]) == shared:  # rows that end here; equal ones end together
                last[order[done]] = at
                done += 1
            if done < end:
                families.append((done, end, shared, at))
        waiting.extend(reversed(families))
    return Trie(nodes, last)


def _families(common: NDArray[np.int64], low: int, high: int, depth: int) -> Iterator[tuple[int, int]]:
    """Split rows that share ``depth`` tokens into those that go on alike, where that saves enough."""
    if high - low == 1:
        yield low, high
        return
    cuts = [low, *(low + 1 + np.flatnonzero(common[low + 1 : high] <= depth)).tolist(), high]
    for first, end in itertools.pairwise(cuts):
        yield from _worthwhile(common, first, end, depth)


def _worthwhile(common: NDArray[np.int64], low: int, high: int, depth: int) -> Iterator[tuple[int, int]]:
    """``low``..``high`` as one family if the tokens it saves pay for it, else in parts that do, or row by row."""
    waiting = [(low, high)]
    while waiting:
        first, end = waiting.pop()
        inner = common[first + 1 : end]
        if end - first == 1 or (end - first - 1) * (int(inner.min()) - depth) >= FAMILY_COST:
            yield first, end
            continue
        cut = first + 1 + int(inner.argmin())  # parted where they have the least in common
        waiting += [(cut, end), (first, cut)]


def apart(rows: Sequence[Ids]) -> Trie:
    """Every row on its own, the shortest first: models that read both ways share nothing."""
    order = sorted(range(len(rows)), key=lambda row: (len(rows[row]), row))
    last = [-1] * len(rows)
    for at, row in enumerate(order):
        last[row] = at
    return Trie([Node(-1, 0, rows[row]) for row in order], last)


def chunks(trie: Trie, bound: int) -> Iterator[list[int]]:
    """Nodes in order, as many at a time as hold at most ``bound`` tokens; a longer node stands alone."""
    chunk: list[int] = []
    tokens = 0
    for at, node in enumerate(trie.nodes):
        if chunk and tokens + len(node.ids) > bound:
            yield chunk
            chunk, tokens = [], 0
        chunk.append(at)
        tokens += len(node.ids)
    if chunk:
        yield chunk
