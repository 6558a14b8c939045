"""Local edits of a slot's text, by phrases, words or sentences: delete, swap, add back, replace, case.

The operators are those of GrIPS (Prasad et al. 2023, "GrIPS: Gradient-free, Edit-based Instruction Search", section 3);
its constituency parser is replaced by a chunker that breaks a line at punctuation and before words such as ``of``,
``the`` or ``or``, so that nothing has to be installed. What stands in brackets (``{{ field }}``, ``[[ slot ]]``) is
never touched, nor what a space locks.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from autoprompt.slots import Edit, Slot
from autoprompt.template import MARKS

_BRACKETS = r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}|\[\[.*?\]\]"
_CODE = re.compile(_BRACKETS, re.DOTALL)
_OPENERS = re.compile(r"\{\{|\{%|\{#|\[\[")
_END = re.compile(r"(?s)(.*?[^.,;:!?])([.,;:!?]+[\"')\u201d\u2019]*)\Z")
_STOPS = ".!?"
_LONGEST_PHRASE = 4
_OPENING = frozenset(
    re.findall(
        r"\w+",
        """
        a an the this that these those each every any some no all both either neither its their his her our your my
        of in on at by for from to into onto with without about between among over under after before during than
        and or but nor so yet if whether when while where which who whom whose what how why because since unless
        until as like is are was were be been being has have had do does did can could may might must shall should
        will would not
        """,
    )
)
"""Closed-class words that begin a phrase of English."""


@dataclass(frozen=True)
class Unit:
    """A stretch of text that edits move as a whole.

    Attributes:
        gap: the white space before it.
        text: its words.
        end: the punctuation after them.
        locked: whether edits leave it alone.
    """

    gap: str
    text: str
    end: str = ""
    locked: bool = False


@dataclass(frozen=True)
class Cut:
    """A text cut into units; ``tail`` is the white space at its end."""

    units: tuple[Unit, ...]
    tail: str = ""

    def __str__(self) -> str:
        return "".join(unit.gap + unit.text + unit.end for unit in self.units) + self.tail

    @property
    def free(self) -> list[int]:
        """Places of the units that may be edited."""
        return [place for place, unit in enumerate(self.units) if not unit.locked]


def cut(text: str, rules: Edit) -> Cut:
    """Cut a text into the units that the rules name."""
    words = list(_words(text, rules.lock))
    if rules.unit != "word":
        begins = _begins_phrase if rules.unit == "phrase" else _begins_sentence
        words = list(_grouped(words, begins))
    return Cut(tuple(words), text[len(text.rstrip()) :] if text.strip() else text)


def edits(text: str, rules: Edit, pool: Sequence[str], rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """All single edits of a text, (name of the operator, new text), the operators in turn, each in a drawn order.

    Args:
        text: what stands in the slot.
        rules: which operators, on what.
        pool: texts whose units may be added back: the options of the slot.
        rng: orders them.
    """
    whole = cut(text, rules)
    queues: list[tuple[str, list[Callable[[], Cut]]]] = []
    for name in rules.ops:
        tried = list(_OPERATORS[name](whole, rules, pool))
        queues.append((name, [tried[at] for at in rng.permutation(len(tried))]))
    seen = {text}
    while queues:
        for at in rng.permutation(len(queues)):
            name, waiting = queues[at]
            if waiting:
                found = str(waiting.pop()())
                if found not in seen and found.strip():
                    seen.add(found)
                    yield name, found
        queues = [(name, waiting) for name, waiting in queues if waiting]


def problem_with(slot: Slot, text: str) -> str:
    """Why a text that is no option of a slot may not stand there; empty where it may.

    Whoever wrote it, it must hold the very brackets of one of the options, and be no longer, or no further from
    them, than the slot allows.
    """
    options = slot.texts()
    if slot.edit is None and slot.llm is None:
        return "is no option, and nothing else may be written there"
    held = Counter(_CODE.findall(text))
    alike = [option for option in options if Counter(_CODE.findall(option)) == held]
    if not alike:
        return "does not hold the fields and slots of any of the options"
    if _OPENERS.search(_CODE.sub(" ", text)) or not MARKS.isdisjoint(text):
        return "holds characters that could be read as template code"
    if not text.strip():
        return "is empty"
    if slot.llm is not None and len(text) <= slot.llm.longest:
        return ""
    if slot.edit is None:
        return f"has {len(text)} characters, more than the {slot.llm.longest if slot.llm else 0} allowed"
    if min(distance(text, option, slot.edit) for option in alike) > slot.edit.max_edits:
        return f"is more than {slot.edit.max_edits} edits away from every option"
    return ""


def distance(one: str, other: str, rules: Edit) -> int:
    """Units to be put in, left out or replaced to get from one text to the other; case does not count."""
    left, right = ([unit.text.lower() for unit in cut(text, rules).units] for text in (one, other))
    row = list(range(len(right) + 1))
    for at, word in enumerate(left):
        previous, row = row, [at + 1]
        for place, against in enumerate(right):
            row.append(min(previous[place] + (word != against), previous[place + 1] + 1, row[place] + 1))
    return row[-1]


def _words(text: str, lock: Sequence[str]) -> Iterator[Unit]:
    """The words of a text; what is in brackets, and what is locked, with all that is glued to it."""
    held = "|".join([_BRACKETS, *(re.escape(each) for each in sorted(lock, key=len, reverse=True) if each)])
    for match in re.finditer(rf"(?s)(\s*)((?:({held})|\S)+)", text):
        gap, word, locked = match[1], match[2], match[3] is not None
        parted = None if locked else _END.match(word)
        yield Unit(gap, parted[1], parted[2]) if parted else Unit(gap, word, "", locked)


def _grouped(words: Sequence[Unit], begins: Callable[[Sequence[Unit], Unit], bool]) -> Iterator[Unit]:
    group: list[Unit] = []
    for word in words:
        if group and begins(group, word):
            yield _joined(group)
            group = []
        group.append(word)
    if group:
        yield _joined(group)


def _joined(words: Sequence[Unit]) -> Unit:
    text = words[0].text + "".join(
        before.end + word.gap + word.text for before, word in itertools.pairwise(words)
    )
    return Unit(words[0].gap, text, words[-1].end, any(word.locked for word in words))


def _begins_phrase(group: Sequence[Unit], word: Unit) -> bool:
    last = group[-1]
    if last.end or "\n" in word.gap or word.locked or last.locked or len(group) == _LONGEST_PHRASE:
        return True
    return word.text.lower() in _OPENING and last.text.lower() not in _OPENING


def _begins_sentence(group: Sequence[Unit], word: Unit) -> bool:
    return "\n" in word.gap or any(stop in group[-1].end for stop in _STOPS)


def _deletions(whole: Cut, rules: Edit, pool: Sequence[str]) -> Iterator[Callable[[], Cut]]:
    if len(whole.units) > 1:
        for place in whole.free:
            yield functools.partial(_without, whole, place)


def _without(whole: Cut, place: int) -> Cut:
    """The text without a unit; its line break and its full stop stay."""
    units = list(whole.units)
    gone = units.pop(place)
    if place < len(units) and (place == 0 or "\n" in gone.gap):
        units[place] = dataclasses.replace(units[place], gap=gone.gap)
    last = units[place - 1]
    if place and gone.end[:1] in tuple(_STOPS) and last.end[:1] not in tuple(_STOPS) and not last.locked:
        units[place - 1] = dataclasses.replace(last, end=gone.end)
    return _recased(whole, units)


def _swaps(whole: Cut, rules: Edit, pool: Sequence[str]) -> Iterator[Callable[[], Cut]]:
    for one, other in itertools.combinations(whole.free, 2):
        if whole.units[one].text != whole.units[other].text:
            yield functools.partial(_swapped, whole, one, other)


def _swapped(whole: Cut, one: int, other: int) -> Cut:
    """The text with the words of two units exchanged; white space and punctuation stay where they are."""
    units = list(whole.units)
    texts = units[one].text, units[other].text
    units[one] = dataclasses.replace(units[one], text=texts[1])
    units[other] = dataclasses.replace(units[other], text=texts[0])
    return _recased(whole, units)


def _additions(whole: Cut, rules: Edit, pool: Sequence[str]) -> Iterator[Callable[[], Cut]]:
    here = {unit.text.lower() for unit in whole.units}
    new: dict[str, str] = {}
    for text in pool:
        for unit in cut(text, rules).units:
            if not unit.locked and unit.text.lower() not in here:
                new.setdefault(unit.text.lower(), unit.text)
    for words in new.values():
        for place in range(len(whole.units) + 1):
            yield functools.partial(_with, whole, place, words)


def _with(whole: Cut, place: int, text: str) -> Cut:
    """The text with a unit put in before the one at a place; at the end it takes the full stop over."""
    units = list(whole.units)
    if not units:
        return Cut((Unit("", text),), whole.tail)
    if place == len(units):
        last = units[-1]
        units[-1] = dataclasses.replace(last, end="" if last.end[:1] in tuple(_STOPS) else last.end)
        units.append(Unit(" ", text, last.end if last.end[:1] in tuple(_STOPS) else ""))
    else:
        follower = units[place]
        units[place] = dataclasses.replace(follower, gap=" ")
        units.insert(place, Unit(follower.gap if place else whole.units[0].gap, text))
    return _recased(whole, units)


def _replacements(whole: Cut, rules: Edit, pool: Sequence[str]) -> Iterator[Callable[[], Cut]]:
    listed = {word.lower(): others for word, others in rules.words.items()}
    for place in whole.free:
        words = whole.units[place].text.split(" ")
        for at, word in enumerate(words):
            for other in listed.get(word.lower(), ()):
                changed = " ".join([*words[:at], _cased_as(word, other), *words[at + 1 :]])
                yield functools.partial(_put, whole, place, changed)


def _put(whole: Cut, place: int, text: str) -> Cut:
    units = list(whole.units)
    units[place] = dataclasses.replace(units[place], text=text)
    return Cut(tuple(units), whole.tail)


def _cases(whole: Cut, rules: Edit, pool: Sequence[str]) -> Iterator[Callable[[], Cut]]:
    for change in (str.lower, str.upper, _sentence_case):
        units = [
            unit if unit.locked else dataclasses.replace(unit, text=change(unit.text)) for unit in whole.units
        ]
        if change is _sentence_case:
            units = [
                unit if unit.locked or not place else dataclasses.replace(unit, text=unit.text.lower())
                for place, unit in enumerate(units)
            ]
        yield functools.partial(Cut, tuple(units), whole.tail)


def _sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:].lower()


def _cased_as(word: str, other: str) -> str:
    return other[:1].upper() + other[1:] if word[:1].isupper() else other


def _recased(before: Cut, units: Sequence[Unit]) -> Cut:
    """Keep the capital letter at the start of the text, and take it from the unit that stood there."""
    first = before.units[0]
    if not units or first.locked or not first.text[:1].isupper() or first.text.isupper():
        return Cut(tuple(units), before.tail)
    head = first.text.split(" ", 1)[0]
    moved = [
        dataclasses.replace(unit, text=unit.text[:1].lower() + unit.text[1:])
        if place and not unit.locked and unit.text == first.text and head[1:].islower()
        else unit
        for place, unit in enumerate(units)
    ]
    if not moved[0].locked:
        moved[0] = dataclasses.replace(moved[0], text=moved[0].text[:1].upper() + moved[0].text[1:])
    return Cut(tuple(moved), before.tail)


_OPERATORS = {
    "delete": _deletions,
    "swap": _swaps,
    "add": _additions,
    "replace": _replacements,
    "case": _cases,
}
