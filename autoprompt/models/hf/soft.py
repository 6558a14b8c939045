"""Requests whose texts hold rows in place of tokens: where they stand, and how they are read."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from autoprompt.errors import TemplateError
from autoprompt.models import Kind
from autoprompt.models.hf.encoded import Encoded
from autoprompt.models.hf.input_table import InputTable
from autoprompt.models.hf.slots import SlotFinder, SlottedText, check_standing
from autoprompt.prompt import Rendered
from autoprompt.soft import SoftRows


def with_soft(
    finder_of: Callable[[], SlotFinder], kind: Kind, requests: Sequence[tuple[Rendered, Encoded]]
) -> list[Encoded]:
    """Requests as ids, with the places of the rows that their texts hold in place of tokens."""
    placed = [encoded for _, encoded in requests]
    some = [at for at, (text, encoded) in enumerate(requests) if text.soft and not encoded.problem]
    if not some:
        return placed
    found = finder_of().find_whole([requests[at][0] for at in some])
    for at, text in zip(some, found, strict=True):
        rendered, encoded = requests[at]
        placed[at] = _with_soft(rendered.soft, text, encoded, kind)
    return placed


def _with_soft(
    soft: Mapping[str, SoftRows], text: SlottedText | None, encoded: Encoded, kind: Kind
) -> Encoded:
    if text is None:
        names = ", ".join(map(repr, soft))
        return dataclasses.replace(
            encoded, problem=f"slot {names}: its text is no whole number of tokens here"
        )
    places: list[int] = []
    for name, rows in soft.items():
        at = text.slots[name].at
        if len(at) != len(rows):
            problem = (
                f"slot {name!r}: its text is read as {len(at)} tokens here, but it holds {len(rows)} rows"
            )
            return dataclasses.replace(encoded, problem=problem)
        places += at
    try:
        check_standing(text, encoded, kind)
    except TemplateError as error:
        return dataclasses.replace(encoded, problem=error.message)
    return dataclasses.replace(encoded, soft=tuple(soft.values()), soft_at=tuple(places))


@contextlib.contextmanager
def spliced(table_of: Callable[[], InputTable], encoded: Sequence[Encoded]) -> Iterator[list[Encoded]]:
    """Inside the block, rows are read where the requests hold them; yields the requests with the rows' ids in place.

    Different prompts may stand in one batch: each has ids of its own.
    """
    soft = [each for each in encoded if each.soft and not each.problem]
    if not soft:
        yield list(encoded)
        return
    table = table_of()
    first: dict[tuple[SoftRows, ...], int] = {}
    parts: list[torch.Tensor] = []
    count = len(table.weight)
    for each in soft:
        if each.soft not in first:
            first[each.soft] = count
            parts += map(table.tensor, each.soft)
            count += sum(map(len, each.soft))
    with table.spliced(torch.cat(parts)):
        yield [
            each.with_rows(each.soft_at, first[each.soft]) if each.soft in first else each for each in encoded
        ]
