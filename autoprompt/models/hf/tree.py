"""Rows run as a tree: each shared beginning once, without padding, the last block only where it is read."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from autoprompt.models.hf.attention import Enough, Run, Unsupported, tree_attention
from autoprompt.models.hf.head import Head
from autoprompt.models.hf.layout import Layout, Layouts
from autoprompt.models.hf.limits import reserved_positions
from autoprompt.models.hf.tokens import Ids
from autoprompt.models.hf.trie import apart, chunks, share

Places = Sequence[tuple[int, int]]
"""(row, position) of what is read."""
_log = logging.getLogger(__name__)


class TreeRunner:
    """Runs rows of one model as a tree, if its family allows it.

    Attributes:
        able: whether the family can be run so; None until ``learn``.
        trims: whether the last block can be run on the tokens that are read only.
    """

    def __init__(self, model: Any, head: Head, *, causal: bool) -> None:
        self._model = model
        self._head = head
        self._causal = causal
        self._device = next(model.parameters()).device
        self._first_position = reserved_positions(model)
        self._last_block: torch.nn.Module | None = None
        named = "position_ids" in inspect.signature(model.forward).parameters
        self.able: bool | None = None if named else False
        self.trims = False
        self._spreads = False  # whether what comes after the last block needs all tokens to be there (GPT-2)

    def learn(self, rows: Sequence[Ids], expected: torch.Tensor, *, close: float) -> None:
        """See on a few rows, read at their ends, whether the tree gives what the model gives row by row.

        Args:
            rows: some that share beginnings and some that do not.
            expected: [R, D] what the output layer reads at their last positions.
            close: how far states may be apart, absolutely and relatively.
        """
        places = [(row, len(ids) - 1) for row, ids in enumerate(rows)]
        self.able = self._gives(rows, places, expected, close)
        if self.able and self._last_block is not None:
            for self.trims, self._spreads in ((True, False), (True, True), (False, False)):
                if not self.trims or self._gives(rows, places, expected, close):
                    break
        name = type(self._model).__name__
        if not self.able:
            _log.info("%s: cannot be run as a tree of tokens; rows run one beside the other", name)
        elif not self.trims:
            _log.info("%s: its last block is run on all tokens", name)

    def read(
        self, rows: Sequence[Ids], places: Places, bound: int
    ) -> Iterator[tuple[list[tuple[int, int]], torch.Tensor]]:
        """Run rows, at most ``bound`` tokens at a time.

        Args:
            rows: distinct rows of ids.
            places: (row, position) of what is to be read.
            bound: tokens at a time.

        Yields:
            Places, and what the output layer reads there, [n, D]. A place that rows share is read once and
            comes with each of them.
        """
        trie = share(rows) if self._causal else apart(rows)
        parts = list(chunks(trie, bound))
        at = {place: trie.locate(*place) for place in dict.fromkeys(places)}
        askers: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for place, spot in at.items():
            askers.setdefault(spot, []).append(place)
        layouts = Layouts(trie, parts, list(askers), causal=self._causal, device=self._device)
        run = Run(causal=self._causal)
        with tree_attention(self._model):
            for number in range(len(parts)):
                layout = layouts.make(number)
                states = self.states(run, layout)
                found = [(place, row) for spot, row in layout.places.items() for place in askers[spot]]
                if found:
                    order = torch.tensor([row for _, row in found], device=states.device)
                    yield [place for place, _ in found], states[order]

    def states(self, run: Run, layout: Layout) -> torch.Tensor:
        """[R, D] what the output layer reads at the reads of one chunk; inside ``tree_attention``."""
        states = torch.empty(0)
        with run.chunk(layout), contextlib.suppress(Enough), self._trimmed(run, layout) as reads:
            states = self._head.states(lambda: self._forward(layout), reads)
        if self._last_block is None:
            self._last_block = self._block_of(run.modules)
        return states

    def _forward(self, layout: Layout) -> torch.Tensor:
        positions = layout.positions + self._first_position
        if self._causal:
            output = self._model(
                input_ids=layout.ids, position_ids=positions, use_cache=False, return_dict=True
            )
        else:
            output = self._model(input_ids=layout.ids, position_ids=positions, return_dict=True)
        return output.logits  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def _trimmed(self, run: Run, layout: Layout) -> Iterator[torch.Tensor]:
        """Inside, the last block takes keys and values of all tokens, but goes on with those that are read.

        Yields:
            [R] where the reads stand after it.

        Raises:
            Enough: nothing is read, and the last block has taken its keys and values.
        """
        if not self.trims:
            yield layout.reads
            return
        assert self._last_block is not None
        reads, length = layout.reads, layout.ids.shape[1]

        def pick(given: Any) -> Any:
            if isinstance(given, torch.Tensor) and given.dim() > 1 and given.shape[1] == length:
                return given[:, reads]
            if isinstance(given, tuple):
                return tuple(pick(each) for each in given)
            return given

        def spread(given: Any) -> Any:
            if isinstance(given, torch.Tensor) and given.dim() == 3 and given.shape[1] == len(reads):
                return given.new_zeros(1, length, given.shape[2]).index_copy(1, reads, given)
            if isinstance(given, tuple):
                return tuple(spread(each) for each in given)
            return given

        def narrow(
            block: torch.nn.Module, args: tuple[Any, ...], named: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            run.capturing = True
            if not len(reads):
                return args, named
            with contextlib.suppress(Enough):
                block.forward(*args, **named)
            run.capturing, run.reading = False, True
            return pick(args), {name: pick(given) for name, given in named.items()}

        hooks = [self._last_block.register_forward_pre_hook(narrow, with_kwargs=True)]
        if self._spreads:  # the tokens that are not read are left at zero
            hooks.append(self._last_block.register_forward_hook(lambda block, given, output: spread(output)))
        try:
            yield reads if self._spreads else torch.arange(len(reads), device=self._device)
        finally:
            for hook in hooks:
                hook.remove()

    def _gives(self, rows: Sequence[Ids], places: Places, expected: torch.Tensor, close: float) -> bool:
        longest = max(len(row) for row in rows)
        # all in one chunk, and in several so that keys and values are kept from one to the next
        return all(self._gives_in(rows, places, expected, close, bound) for bound in (longest, 8 * longest))

    def _gives_in(
        self, rows: Sequence[Ids], places: Places, expected: torch.Tensor, close: float, bound: int
    ) -> bool:
        found = torch.full_like(expected, torch.nan)
        try:
            for some, states in self.read(rows, places, bound):
                for (row, _), state in zip(some, states, strict=True):
                    found[row] = state
        except torch.OutOfMemoryError:  # says nothing of the architecture
            raise
        except (RuntimeError, ValueError, LookupError, TypeError, Unsupported) as error:
            _log.info("%s: %s", type(self._model).__name__, error)
            return False
        return torch.allclose(found, expected, rtol=close, atol=close)

    def _block_of(self, modules: Sequence[torch.nn.Module]) -> torch.nn.Module | None:
        """The block that holds the last attention; None if it is run more than once (ALBERT's shared layers)."""
        if not modules or sum(module is modules[-1] for module in modules) > 1:
            return None
        names = {module: name for name, module in self._model.named_modules()}
        path = names[modules[-1]].split(".")
        for depth in range(1, len(path)):
            if isinstance(self._model.get_submodule(".".join(path[:depth])), torch.nn.ModuleList):
                return self._model.get_submodule(".".join(path[: depth + 1]))  # type: ignore[no-any-return]
        return None
