"""One chunk of a tree as index tensors: which tokens attend to which.

The tokens of a chunk stand in one row, siblings side by side. Each family of siblings attends to the tokens of
its ancestors, which run in this chunk or were kept from an earlier one, and each sibling to its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from autoprompt.models.hf.trie import Trie

# Siblings that differ by up to this many tokens, or by a quarter of their length, are padded together.
_SLACK = 4


@dataclass(frozen=True)
class Block:
    """B siblings of nearly one length, padded to n tokens; m of them are asked.

    Attributes:
        keys: [B, n] places of their tokens in the row; the last one is repeated as padding.
        queries: [B, m] places of the tokens that ask, in the row of those that ask.
        real: [B, m] which of these are no padding.
        offsets: [B or 1, m] where they stand among their sibling's tokens.
        mask: [B or 1, 1, m, n] which of their own tokens each attends to; None for the plain order of the model.
        whole: (first, end) of their places where they stand side by side without padding and all tokens ask.
    """

    keys: torch.Tensor
    queries: torch.Tensor
    real: torch.Tensor
    offsets: torch.Tensor
    mask: torch.Tensor | None
    whole: tuple[int, int] | None


@dataclass(frozen=True)
class Family:
    """Siblings in blocks, and what they attend to before themselves.

    Attributes:
        blocks: the siblings.
        kept: nodes of earlier chunks, first to last.
        here: (first, end) places in this chunk's row that follow them.
        context: number of tokens in both.
    """

    blocks: list[Block]
    kept: list[int]
    here: list[tuple[int, int]]
    context: int


@dataclass(frozen=True)
class Layout:
    """A chunk, ready to run.

    Attributes:
        ids: [1, T] tokens; ``positions`` [1, T] where they stand in their rows.
        families: all tokens ask.
        reading: the same families, where only the tokens that are read ask; families without any are left out.
        reads: [R] places of these.
        places: node and offset of each read to its number among the reads.
        kept: (node, first, end) of the nodes that later chunks attend to.
        dropped: nodes that no later chunk needs.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    families: list[Family]
    reading: list[Family]
    reads: torch.Tensor
    places: dict[tuple[int, int], int]
    kept: list[tuple[int, int, int]]
    dropped: list[int]


class Layouts:
    """Makes the layouts of a tree's chunks, one after another.

    Args:
        trie: the tree.
        chunks: its nodes, chunk by chunk.
        reads: (node, offset) of the tokens that are read.
        causal: whether tokens attend to earlier ones only.
        device: where the index tensors live.
    """

    def __init__(
        self,
        trie: Trie,
        chunks: Sequence[Sequence[int]],
        reads: Sequence[tuple[int, int]],
        *,
        causal: bool,
        device: torch.device,
    ) -> None:
        self._trie = trie
        self._chunks = chunks
        self._causal = causal
        self._device = device
        self._reads: dict[int, list[int]] = {}
        for node, offset in sorted(set(reads)):
            self._reads.setdefault(node, []).append(offset)
        # the last chunk in which a node has a child or a grandchild: until then its keys and values are kept
        self._needed: dict[int, int] = {}
        for number, chunk in enumerate(chunks):
            for node in chunk:
                for before in trie.path(node):
                    self._needed[before] = number

    def make(self, number: int) -> Layout:
        """The layout of one chunk."""
        nodes = self._trie.nodes
        chunk = self._chunks[number]
        by_parent: dict[int, list[int]] = {}
        for node in chunk:
            by_parent.setdefault(nodes[node].parent, []).append(node)
        order: list[int] = []
        for siblings in by_parent.values():
            siblings.sort(key=lambda node: (-len(nodes[node].ids), node))
            order += siblings
        ends = list(itertools.accumulate(len(nodes[node].ids) for node in order))
        first = {node: end - len(nodes[node].ids) for node, end in zip(order, ends, strict=True)}
        places: dict[tuple[int, int], int] = {}
        for node in order:
            for offset in self._reads.get(node, ()):
                places[node, offset] = len(places)
        families, reading = [], []
        for parent, siblings in by_parent.items():
            kept, here, context = self._ancestors(parent, first)
            families.append(
                Family([self._whole(each, first) for each in self._alike(siblings)], kept, here, context)
            )
            read = [node for node in siblings if node in self._reads]
            if read:
                blocks = [self._asking(each, first, places) for each in self._alike(read)]
                reading.append(Family(blocks, kept, here, context))
        return Layout(
            ids=self._tensor([[token for node in order for token in nodes[node].ids]]),
            positions=self._tensor(
                [[nodes[node].start + at for node in order for at in range(len(nodes[node].ids))]]
            ),
            families=families,
            reading=reading,
            reads=self._tensor([first[node] + offset for node, offset in places]),
            places=places,
            kept=[
                (node, first[node], first[node] + len(nodes[node].ids))
                for node in order
                if self._needed.get(node, number) > number
            ],
            dropped=[node for node, last in self._needed.items() if last == number],
        )

    def _ancestors(self, parent: int, first: dict[int, int]) -> tuple[list[int], list[tuple[int, int]], int]:
        nodes = self._trie.nodes
        path = [*self._trie.path(parent), parent] if parent >= 0 else []
        kept = [node for node in path if node not in first]
        here = [(first[node], first[node] + len(nodes[node].ids)) for node in path if node in first]
        return kept, here, sum(len(nodes[node].ids) for node in path)

    def _alike(self, siblings: Sequence[int]) -> list[list[int]]:
        """Siblings, the longest first, in blocks of nearly one length."""
        blocks: list[list[int]] = []
        longest = 0
        for node in siblings:
            length = len(self._trie.nodes[node].ids)
            if not blocks or longest - length > max(_SLACK, longest // 4):
                blocks.append([])
                longest = length
            blocks[-1].append(node)
        return blocks

    def _whole(self, siblings: Sequence[int], first: dict[int, int]) -> Block:
        lengths = [len(self._trie.nodes[node].ids) for node in siblings]
        n = lengths[0]
        start = self._tensor([first[node] for node in siblings])[:, None]
        length = self._tensor(lengths)[:, None]
        steps = torch.arange(n, device=self._device)[None]
        keys = start + torch.minimum(steps, length - 1)
        real = steps < length
        even = lengths[-1] == n
        mask = None if self._causal or even else real[:, None, None, :]
        whole = (first[siblings[0]], first[siblings[-1]] + n) if even else None
        return Block(keys, keys, real, steps, mask, whole)

    def _asking(
        self, siblings: Sequence[int], first: dict[int, int], places: dict[tuple[int, int], int]
    ) -> Block:
        lengths = [len(self._trie.nodes[node].ids) for node in siblings]
        reads = [self._reads[node] for node in siblings]
        m = max(map(len, reads))
        start = self._tensor([first[node] for node in siblings])[:, None]
        length = self._tensor(lengths)[:, None]
        steps = torch.arange(lengths[0], device=self._device)[None]
        offsets = self._tensor([[*each, *[each[-1]] * (m - len(each))] for each in reads])
        queries = self._tensor(
            [
                [places[node, offset] for offset in (*each, *[each[-1]] * (m - len(each)))]
                for node, each in zip(siblings, reads, strict=True)
            ]
        )
        real = self._tensor([[at < len(each) for at in range(m)] for each in reads]).bool()
        inside = (steps < length)[:, None, :].expand(-1, m, -1)
        mask = steps[:, None, :] <= offsets[:, :, None] if self._causal else inside
        keys = start + torch.minimum(steps, length - 1)
        return Block(keys, queries, real, offsets, mask[:, None], None)

    def _tensor(self, values: object) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)
