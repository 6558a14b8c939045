"""Gradients over a tree: what stands before the slots is run once, and only forwards.

What a causal model reads before the first token of a slot does not depend on the slot. Its keys and values are
computed without a way back and attended to; from the slot on, shared beginnings are run, and led back, once. A
search asks for gradients on the same examples again and again, so what stands before the slots is remembered.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autoprompt.models.hf.attention import Run, tree_attention
from autoprompt.models.hf.input_table import Table
from autoprompt.models.hf.layout import Layouts
from autoprompt.models.hf.prefix_attention import KeysValues
from autoprompt.models.hf.slots import Batch
from autoprompt.models.hf.tokens import Ids
from autoprompt.models.hf.tree import TreeRunner
from autoprompt.models.hf.trie import Node, Trie, share


class TreeRun:
    """Runs the rows of a batch as a tree.

    Args:
        model: the transformers model, causal, of a family that can be run so.
        runner: what runs it.
        table: of the rows that stand in the batches.
    """

    def __init__(self, model: torch.nn.Module, runner: TreeRunner, table: Table) -> None:
        self._model = model
        self._runner = runner
        self._table = table
        size = sum(parameter.nbytes for parameter in model.parameters())
        self._beginnings = _Beginnings(size // 8)

    def __call__(self, batch: Batch, given: torch.Tensor) -> torch.Tensor:
        """What the head reads at the places of a batch, [n, D], differentiable by the rows ``given`` [M, D]."""
        size = len(self._table.weight)
        distinct = list(dict.fromkeys(batch.rows))
        number = {row: at for at, row in enumerate(distinct)}
        trie = _parted(share(distinct), size)
        spots = [trie.locate(number[batch.rows[row]], position) for row, position in batch.places]
        after = _after(trie, size)
        run = Run(causal=True)
        new = self._beginnings.recall(
            run, trie, [node for node, is_after in enumerate(after) if not is_after]
        )
        parts = [new] if new else []
        parts.append([node for node, is_after in enumerate(after) if is_after])
        layouts = Layouts(trie, parts, spots, causal=True, device=given.device)
        with tree_attention(self._model):
            if new:
                with torch.no_grad():
                    self._runner.states(run, layouts.make(0))
                self._beginnings.remember(run, trie, new)
            last = layouts.make(len(parts) - 1)
            with self._table.spliced(given):
                states = self._runner.states(run, last)
        order = torch.tensor([last.places[spot] for spot in spots], device=states.device)
        return states[order]


_Key = tuple[Ids, int]


class _Beginnings:
    """Keys and values of what texts begin with, up to ``bound`` bytes; where they take more, none are kept, so that all of
    a batch are remembered, or computed together as they were at first.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._bytes = 0
        self._known: dict[_Key, list[KeysValues]] = {}

    def recall(self, run: Run, trie: Trie, nodes: Sequence[int]) -> list[int]:
        """Give the run what is known of some nodes; return those of which nothing is."""
        new = []
        for node in nodes:
            key = _spelled(trie, node)
            if key in self._known:
                run.give(node, self._known[key])
            else:
                new.append(node)
        return new

    def remember(self, run: Run, trie: Trie, nodes: Sequence[int]) -> None:
        """Take over what the run has kept of some nodes."""
        for node in nodes:
            layers = run.kept(node)
            self._known[_spelled(trie, node)] = layers
            self._bytes += _size(layers)
        if self._bytes > self._bound:
            self._known.clear()
            self._bytes = 0


def _size(layers: Sequence[KeysValues]) -> int:
    return sum(keys.nbytes + values.nbytes for keys, values in layers)


def _spelled(trie: Trie, node: int) -> _Key:
    """What a node's keys and values depend on: all tokens up to its end, and where it begins; among other texts the
    same ones are parted elsewhere.
    """
    ids = tuple(token for each in (*trie.path(node), node) for token in trie.nodes[each].ids)
    return ids, len(trie.nodes[node].ids)


def _after(trie: Trie, size: int) -> Sequence[bool]:
    """[nodes] whether a node holds a row that is spliced in, or comes after one."""
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
