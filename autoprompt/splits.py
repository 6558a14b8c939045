"""Train, select and test: made by seed where absent, stratified, with nothing asked in two of them.

The order is by a hash of the seed and the content, so it depends neither on the order of the file nor on a
random number library, and a smaller subset is always part of a larger one.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral

from autoprompt.errors import DataError
from autoprompt.example import Example

ROLES = ("train", "select", "test")
_SHARES = {"train": 1, "select": 1, "test": 2}


@dataclass(frozen=True)
class Splits:
    """The splits, and what was found while making them."""

    train: tuple[Example, ...]
    select: tuple[Example, ...]
    test: tuple[Example, ...]
    notes: tuple[str, ...] = field(default=())


def in_order(examples: Sequence[Example], seed: int, *, stratify: bool) -> list[Example]:
    """Shuffle by seed; with ``stratify``, every prefix holds the targets in about the whole's proportion."""
    shuffled = sorted(examples, key=lambda item: hashlib.sha256(f"{seed}/{item.id}".encode()).digest())
    if not stratify:
        return shuffled
    sizes, seen = Counter(item.target for item in shuffled), Counter[str]()
    places: list[float] = []
    for item in shuffled:
        # The k-th of n examples of a label belongs at (k + 1/2) / n of the way.
        places.append((seen[item.target] + 0.5) / sizes[item.target])
        seen[item.target] += 1
    return [shuffled[index] for index in sorted(range(len(places)), key=places.__getitem__)]


def make_splits(
    given: Mapping[str, Sequence[Example]],
    sizes: Mapping[str, int | float | None],
    *,
    seed: int = 0,
    stratify: bool = True,
    where: str = "data",
) -> Splits:
    """Complete and trim the splits of a source.

    Roles that the source lacks are carved from its train split (from its only split where it has one).
    Examples that ask the same as one in a later split (train < select < test) are dropped from the earlier
    one.

    Args:
        given: role to examples, at least one.
        sizes: role to a number of rows, a fraction of the split it is taken from, or None.
        seed: of the order.
        stratify: whether targets keep their proportion.
        where: what to call the source in errors.

    Raises:
        DataError: an empty split, or fewer rows than asked.
    """
    notes: list[str] = []
    found = {role: list(given[role]) for role in ROLES if role in given}
    for role, examples in found.items():
        if not examples:
            raise DataError(f"{where}: split {role!r} holds no rows")
    empty = sum(_is_empty(example) for examples in found.values() for example in examples)
    if empty:
        notes.append(
            f"{empty} rows hold no text at all: they count like any other, repeats of each other left out"
        )
    pool_role = next(role for role in ROLES if role in found)
    _drop_shared(found, notes)
    result: dict[str, list[Example]] = {}
    for role, examples in found.items():
        if role != pool_role:
            count = _count(sizes.get(role), len(examples), role, where)
            result[role] = _trimmed(examples, count, seed, stratify)
            _note_repeats(role, examples, notes)
    result.update(_carved(found[pool_role], pool_role, found, sizes, seed, stratify, where, notes))
    for role in ROLES:
        if not result[role]:
            raise DataError(
                f"{where}: split {role!r} came out empty",
                hint="give more rows, or sizes under split: {train: .., select: .., test: ..}",
            )
    if stratify:
        _note_absent(result, notes)
    train, select, test = (tuple(result[role]) for role in ROLES)
    return Splits(train, select, test, tuple(notes))


def _note_absent(found: Mapping[str, Sequence[Example]], notes: list[str]) -> None:
    """Say which targets one of the splits has no example of."""
    sizes = Counter(item.target for examples in found.values() for item in examples)
    for role in ROLES:
        absent = sorted(set(sizes) - {item.target for item in found[role]})
        if absent:
            named = ", ".join(f"label {target!r} ({sizes[target]} in all)" for target in absent[:3])
            more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
            notes.append(
                f"{role} has no row of {named}{more}: give more of them, other sizes or another seed (split: {{seed: 1}})"
            )


def _is_empty(example: Example) -> bool:
    return not any("".join(value).strip() for value in example.fields.values())


def take(examples: Sequence[Example], n: int, *, seed: int, stratify: bool) -> tuple[Example, ...]:
    """The first ``n`` in the seeded order; all, in their own order, where ``n`` is their number."""
    return tuple(_trimmed(examples, n, seed, stratify))


def note_shared(splits: Mapping[str, Sequence[Example]], notes: Sequence[str]) -> tuple[str, ...]:
    """``notes``, with how many rows of each split ask what an earlier one asks (older counts are replaced)."""
    result = list(notes)
    asked = {role: {item.question for item in splits[role]} for role in ROLES}
    for index, role in enumerate(ROLES):
        for earlier in ROLES[:index]:
            count = sum(item.question in asked[earlier] for item in splits[role])
            ending = f" rows of {role} also stand in {earlier}"
            result = [note for note in result if not note.endswith(ending)]
            result += [f"{count}{ending}"] if count else []
    return tuple(result)


def _carved(
    pool: list[Example],
    pool_role: str,
    found: Mapping[str, Sequence[Example]],
    sizes: Mapping[str, int | float | None],
    seed: int,
    stratify: bool,
    where: str,
    notes: list[str],
) -> dict[str, list[Example]]:
    """The pool's own role and every role the source lacks, as disjoint parts of the pool."""
    roles = [role for role in ROLES if role == pool_role or role not in found]
    if len(roles) == 1:
        _note_repeats(pool_role, pool, notes)
        count = _count(sizes.get(pool_role), len(pool), pool_role, where)
        return {pool_role: _trimmed(pool, count, seed, stratify)}
    pool = _distinct(pool, notes)
    counts = {
        role: _count(sizes[role], len(pool), role, where) for role in roles if sizes.get(role) is not None
    }
    open_roles = [role for role in roles if role not in counts]
    _fit_rounded(counts, sizes, len(pool) - len(open_roles), len(pool))
    asked = sum(counts.values())
    if asked > len(pool) or (open_roles and asked + len(open_roles) > len(pool)):
        parts = " + ".join(f"{role} {count}" for role, count in counts.items()) or "one row a split"
        raise DataError(
            f"{where}: fewer rows than asked: {parts} = {asked} from {len(pool)} rows that differ"
            + (f", and {', '.join(open_roles)} needs rows too" if open_roles else ""),
            hint="ask for fewer under split:, or give more data",
        )
    rest, shares = len(pool) - asked, sum(_SHARES[role] for role in open_roles)
    for role in open_roles:
        counts[role] = max(1, math.floor(rest * _SHARES[role] / shares))
    ordered, start, result = in_order(pool, seed, stratify=stratify), 0, {}
    for role in reversed(roles):  # test first, so that it stays the same whatever the others' sizes
        result[role] = ordered[start : start + counts[role]]
        start += counts[role]
    return result


def _fit_rounded(
    counts: dict[str, int], sizes: Mapping[str, int | float | None], room: int, available: int
) -> None:
    """Take a row back from each of the fractions that were rounded up most, as many as do not fit, in place.

    Args:
        counts: role to a number of rows.
        sizes: role to what was asked for; only fractions give rows back.
        room: rows there are for all counts together.
        available: rows that the fractions are of.
    """
    up = {role: count - float(sizes[role] or 0) * available for role, count in counts.items()}
    taken = [
        role for role, by in up.items() if by > 0 and isinstance(sizes[role], float) and counts[role] > 1
    ]
    for role in sorted(taken, key=lambda role: -up[role])[: max(0, sum(counts.values()) - room)]:
        counts[role] -= 1


def _count(size: int | float | None, available: int, role: str, where: str) -> int:
    if size is None:
        return available
    whole = isinstance(size, Integral) and not isinstance(size, bool)  # a whole number of numpy, too
    if not whole and not (isinstance(size, float) and size <= 1):
        raise DataError(
            f"{where}: the size of split {role!r} must be a whole number of rows, or a fraction up to 1.0 (got {size!r})"
        )
    count = int(size) if whole else round(size * available)
    if count > available:
        raise DataError(f"{where}: fewer rows than asked: {count} for {role}, but there are {available}")
    if count < 1:
        raise DataError(f"{where}: split {role!r} would be empty (asked for {size} of {available} rows)")
    return count


def _trimmed(examples: Sequence[Example], n: int, seed: int, stratify: bool) -> list[Example]:
    if n == len(examples):
        return list(examples)
    return in_order(examples, seed, stratify=stratify)[:n]


def _drop_shared(found: dict[str, list[Example]], notes: list[str]) -> None:
    """Drop from each split what is asked in a later one, in place."""
    for index, role in enumerate(ROLES):
        for later in ROLES[index + 1 :]:
            if role not in found or later not in found:
                continue
            asked = {item.question for item in found[later]}
            kept = [item for item in found[role] if item.question not in asked]
            dropped = len(found[role]) - len(kept)
            if dropped:
                notes.append(f"{dropped} rows of {role} are also in {later} and were dropped from {role}")
                found[role] = kept
                if not kept:
                    raise DataError(f"every row of split {role!r} is also in {later!r}")


def _distinct(pool: list[Example], notes: list[str]) -> list[Example]:
    """The pool without repeated questions, and a note on what was dropped."""
    first: dict[str, Example] = {}
    differing = 0
    for item in pool:
        kept = first.setdefault(item.question, item)
        differing += kept.target != item.target
    dropped = len(pool) - len(first)
    if dropped:
        notes.append(
            f"{dropped} repeated rows were dropped before splitting"
            + (f", {differing} of them with another answer than the one kept" if differing else "")
        )
    return list(first.values())


def _note_repeats(role: str, examples: Sequence[Example], notes: list[str]) -> None:
    repeats = len(examples) - len({item.question for item in examples})
    if repeats:
        notes.append(f"{repeats} rows of {role} repeat another row of {role}; they were kept")
