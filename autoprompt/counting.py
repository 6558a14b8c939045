"""How many prompts a space holds, conditional choices counted right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from autoprompt.drawing import DemoSets
from autoprompt.spacefile import SpaceSpec, references_in

MAX_SIZE = 10**12
"""Where counting stops."""


def count(spec: SpaceSpec, sets: DemoSets) -> int:
    """Number of combinations of choices, at most ``MAX_SIZE``; token slots and written texts count once.

    Args:
        spec: the space.
        sets: the demonstration sets on offer.
    """
    start = tuple(name for name in (spec.words_slot,) if name is not None)
    return _count(spec, sets, (*start, *references_in(spec.template, spec)), {}, {})


def _count(
    spec: SpaceSpec,
    sets: DemoSets,
    pending: tuple[str, ...],
    settled: Mapping[str, str],
    known: dict[tuple[tuple[str, ...], frozenset[tuple[str, str]]], int],
) -> int:
    """Number of ways to settle ``pending`` slots and all they lead to.

    Args:
        spec: the space.
        sets: the demonstration sets on offer.
        pending: slots that the walk will meet for sure.
        settled: slots behind us; with their value where a condition tests it, else with an empty text.
        known: results by state; options that lead to the same slots are counted as one with its multiplicity.
    """
    pending = tuple(name for name in pending if name not in settled)
    if not pending:
        return 1
    state = (pending, frozenset(settled.items()))
    if state not in known:
        name, rest = pending[0], pending[1:]
        slot = spec.slots[name]
        # The first condition that is not known to hold: the walk meets them in their order and stops at one that fails.
        unmet = next(
            (
                other
                for other, allowed in slot.when.items()
                if other not in settled or settled[other] not in map(str, allowed)
            ),
            None,
        )
        if unmet is not None and unmet not in settled:
            known[state] = _count(spec, sets, (unmet, *pending), settled, known)
        elif unmet is not None:
            nothing = "0" if slot.pick is not None else ""  # conditions on demonstrations test their number
            known[state] = _count(spec, sets, rest, {**settled, name: nothing}, known)
        else:
            known[state] = sum(
                times
                * _count(spec, sets, tuple(dict.fromkeys((*names, *rest))), {**settled, name: value}, known)
                for (names, value), times in _branches(spec, sets, name).items()
            )
    return min(known[state], MAX_SIZE)


def _branches(spec: SpaceSpec, sets: DemoSets, name: str) -> Counter[tuple[tuple[str, ...], str]]:
    """(slots an option leads to, its value where a condition tests it) to the number of such options."""
    slot = spec.slots[name]
    tested = any(name in other.when for other in spec.slots.values())
    branches: Counter[tuple[tuple[str, ...], str]] = Counter()
    if slot.tokens is not None:
        branches[(), ""] = 1
    elif slot.map is not None:
        branches[(), ""] = slot.word_count()
    elif slot.order is not None:
        branches[tuple(slot.order.sections), ""] = len(slot.order.orders())
    elif slot.pick is not None:
        for k in slot.pick.k:
            names = references_in(slot.pick.template, spec) if k else ()
            offered = len(sets.get((name, k), ())) or slot.pick.sets
            branches[names, str(k) if tested else ""] += offered if k else 1
    else:
        for text in slot.texts():
            branches[references_in(text, spec), text if tested else ""] += 1
    return branches
