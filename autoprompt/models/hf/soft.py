"""Requests whose texts hold rows in place of tokens: where they stand, and how they are read."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from autoprompt.errors import TemplateError
from autoprompt.models import Kind
from autoprompt.models.hf.encoded import Encoded
from autoprompt.models.hf.input_table import InputTable
from autoprompt.models.hf.prefixes import Prefixes
from autoprompt.models.hf.slots import SlotFinder, Slotted, SlottedText, check_standing
from autoprompt.prompt import Rendered
from autoprompt.soft import SoftRows

_READ = 8  # texts that a masked model's keys and values are the mean over


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
        check_read_after(soft, {name: text.slots[name].at for name in soft}, encoded, kind)
    except TemplateError as error:
        return dataclasses.replace(encoded, problem=error.message)
    return dataclasses.replace(encoded, soft=tuple(soft.values()), soft_at=tuple(places))


def check_read_after(
    soft: Mapping[str, SoftRows], at: Mapping[str, Sequence[int]], encoded: Encoded, kind: Kind
) -> None:
    """See that nothing is read at the places of keys and values: only what follows them reads them.

    Raises:
        TemplateError: an answer stands right after them.
    """
    read = {each.start for each in encoded.reads} or {len(row) - 1 for row in encoded.rows}
    for name, rows in soft.items():
        if rows.form == "prefix" and kind == "causal" and not read.isdisjoint(at[name]):
            raise TemplateError(
                f"slot {name!r}: an answer would be read right after it, where keys and values say nothing: only text "
                "that follows them reads them",
                hint="put text between the slot and {{ answer }}",
            )


def check_place(
    ids: Mapping[str, Sequence[int]], soft: Mapping[str, SoftRows], texts: Sequence[Slotted], kind: Kind
) -> None:
    """See that keys and values can be trained where they are to stand: before the data, at one place in all texts. They say
    where they stand (positions are in them), and what stood before them when they were computed.

    Raises:
        TemplateError: they cannot.
    """
    given = {name: SoftRows(soft[name].values, "prefix") for name in ids}
    lengths = [len(each) for each in ids.values()]
    for text in texts:
        places = iter(text.at)
        at = {name: list(itertools.islice(places, length)) for name, length in zip(ids, lengths, strict=True)}
        check_read_after(given, at, text.encoded, kind)
    end = max(texts[0].at) + 1 if kind == "causal" else 1
    if len({(text.at, text.encoded.rows[0][:end]) for text in texts}) > 1:
        raise TemplateError(
            f"slot {list(ids)[-1]!r}: what stands before it differs from example to example, but keys and values "
            "belong to one place in a text",
            hint='put the slots before the data, such as "[[ slot ]] {{ text }} ... {{ answer }}" (trigger_space(task, n, '
            'front=True) does), or train with method="prompt", whose rows stand anywhere',
        )


def as_prefixes(
    table: InputTable,
    prefixes: Prefixes,
    soft: Mapping[str, SoftRows],
    texts: Sequence[Slotted],
    kind: Kind,
) -> dict[str, torch.Tensor]:
    """Slot to [L, W]: the keys and values that the model computes for rows where they stand.

    A causal model's do not depend on what follows, so that they give the very scores of the rows. A masked model's do: they
    are the mean over the first texts, and scores differ a little.

    Args:
        table: of rows that are embeddings.
        prefixes: of those that are keys and values, and stay.
        soft: the rows of every slot, in the order of the texts' places.
        texts: with slots at one place.
        kind: how the model reads.
    """
    if all(rows.form == "prefix" for rows in soft.values()):
        return {name: prefixes.tensor(rows) for name, rows in soft.items()}
    read = []
    for text in texts[:1] if kind == "causal" else texts[:_READ]:
        encoded = dataclasses.replace(text.encoded, soft=tuple(soft.values()), soft_at=text.at)
        with spliced(lambda: table, lambda: prefixes, [encoded]) as (placed,):
            row = placed.rows[0][: max(text.at) + 1] if kind == "causal" else placed.rows[0]
            read.append(prefixes.read(row)[list(text.at)])
    mean = torch.stack(read).double().mean(dim=0).float()
    return dict(zip(soft, torch.split(mean, [len(rows) for rows in soft.values()]), strict=True))


@contextlib.contextmanager
def spliced(
    table_of: Callable[[], InputTable], prefixes_of: Callable[[], Prefixes], encoded: Sequence[Encoded]
) -> Iterator[list[Encoded]]:
    """Inside the block, rows are read where the requests hold them; yields the requests with the rows' ids in place.

    Different prompts may stand in one batch: each has ids of its own. Those of keys and values follow those of
    embeddings.
    """
    soft = [each for each in encoded if each.soft and not each.problem]
    if not soft:
        yield list(encoded)
        return
    table = table_of()
    distinct = list(dict.fromkeys(each.soft for each in soft))
    slots = [rows for prompt in distinct for rows in prompt]
    embedded = sum(len(rows) for rows in slots if rows.form == "embeddings")
    next_of = {
        "embeddings": itertools.count(len(table.weight)),
        "prefix": itertools.count(len(table.weight) + embedded),
    }
    ids = {
        prompt: [next(next_of[rows.form]) for rows in prompt for _ in range(len(rows))] for prompt in distinct
    }
    with contextlib.ExitStack() as stack:
        if embedded:
            parts = [table.tensor(rows) for rows in slots if rows.form == "embeddings"]
            stack.enter_context(table.spliced(torch.cat(parts)))
        if any(rows.form == "prefix" for rows in slots):
            prefixes = prefixes_of()
            parts = [prefixes.tensor(rows) for rows in slots if rows.form == "prefix"]
            stack.enter_context(prefixes.spliced(torch.cat(parts), len(table.weight) + embedded))
        yield [each.with_ids(each.soft_at, ids[each.soft]) if each.soft in ids else each for each in encoded]
