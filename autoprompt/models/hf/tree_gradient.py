"""Gradients over a tree: what stands before the slots is run once, and only forwards.

What a causal model reads before the first token of a slot does not depend on the slot. Its keys and values are
computed without a way back and attended to; from the slot on, shared beginnings are run, and led back, once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autoprompt.models.hf.attention import Run, tree_attention
from autoprompt.models.hf.gradient import InputTable
from autoprompt.models.hf.layout import Layouts
from autoprompt.models.hf.slots import Batch
from autoprompt.models.hf.tokens import Ids
from autoprompt.models.hf.tree import TreeRunner
from autoprompt.models.hf.trie import Node, Trie, share


class TreeRun:
    """Runs the rows of a batch as a tree.

    Args:
        model: the transformers model, causal, of a family that can be run so.
        runner: what runs it.
        table: its input embeddings.
    """

    def __init__(self, model: object, runner: TreeRunner, table: InputTable) -> None:
        self._model = model
        self._runner = runner
        self._table = table

    def __call__(self, batch: Batch, shifts: torch.Tensor) -> torch.Tensor:
        """What the head reads at the places of a batch, [n, D], differentiable by ``shifts`` [L, D]."""
        size = len(self._table.weight)
        marked = _marked(batch, size)
        distinct = list(dict.fromkeys(marked))
        number = {row: at for at, row in enumerate(distinct)}
        trie = _parted(share(distinct), size)
        spots = [trie.locate(number[marked[row]], position) for row, position in batch.places]
        after = _after(trie, size)
        before = [node for node in range(len(trie.nodes)) if not after[node]]
        parts = [before] if before else []
        parts.append([node for node in range(len(trie.nodes)) if after[node]])
        layouts = Layouts(trie, parts, spots, causal=True, device=shifts.device)
        run = Run(causal=True)
        with tree_attention(self._model):
            if before:
                with torch.no_grad():
                    self._runner.states(run, layouts.make(0))
            last = layouts.make(len(parts) - 1)
            slots = last.ids - size
            at = torch.nonzero(slots[0] >= 0).flatten()
            which = slots[0, at]
            ids = torch.tensor(_ids(batch), device=shifts.device)
            last.ids[0, at] = ids[which]
            with self._table.shifted(at, which, shifts):
                states = self._runner.states(run, last)
        order = torch.tensor([last.places[spot] for spot in spots], device=states.device)
        return states[order]


def _ids(batch: Batch) -> list[int]:
    """[L] the tokens of the slots, the same in every row."""
    return [batch.rows[0][position] for position in batch.at[0]]


def _marked(batch: Batch, size: int) -> list[Ids]:
    """The rows, the tokens of the slots under ids of their own behind the vocabulary: shared with no other text."""
    found = []
    for row, at in zip(batch.rows, batch.at, strict=True):
        ids = list(row)
        for number, position in enumerate(at):
            ids[position] = size + number
        found.append(tuple(ids))
    return found


def _after(trie: Trie, size: int) -> Sequence[bool]:
    """[nodes] whether a node holds a slot's token or comes after one."""
    found: list[bool] = []
    for node in trie.nodes:
        held = any(token >= size for token in node.ids)
        found.append(held or (node.parent >= 0 and found[node.parent]))
    return found


def _parted(trie: Trie, size: int) -> Trie:
    """The same tree with nodes ending where the first slot begins."""
    nodes: list[Node] = []
    place: list[int] = []  # old node to its last part
    for node in trie.nodes:
        parent = place[node.parent] if node.parent >= 0 else -1
        first = next((at for at, token in enumerate(node.ids) if token >= size), 0)
        if first:
            nodes.append(Node(parent, node.start, node.ids[:first]))
            parent = len(nodes) - 1
        nodes.append(Node(parent, node.start + first, node.ids[first:]))
        place.append(len(nodes) - 1)
    return Trie(nodes, [place[at] for at in trie.last])
