"""What of a model's texts may stand in a slot, and why the others may not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from autoprompt.edits import problem_with
from autoprompt.example import WORD
from autoprompt.slots import Slot
from autoprompt.task import Example

RUN = 8
"""Words in a row that also stand in an example of train or select make a text a copy ..."""
HALF = 4
"""... and so do as few as these where they are half of the text."""
_MARK = re.compile(r"\{\{.*?\}\}|\[\[.*?\]\]", re.DOTALL)


class Copies:
    """Finds what was copied from examples.

    Args:
        examples: whose fields, choices and answers no text may repeat.
    """

    def __init__(self, examples: Iterable[Example]) -> None:
        texts = dict.fromkeys(_spaced(text) for example in examples for text in _texts_of(example))
        self._all = "\n".join(texts)  # a search in one long text takes no memory beside it

    def found(self, text: str, own: Sequence[str] = ()) -> str:
        """The words of a text that are copied, empty where none are.

        Args:
            text: what was written.
            own: texts that may be repeated: the options of the slot.
        """
        split = WORD.findall(_MARK.sub(" ", text).lower())
        needed = min(RUN, max(HALF, -(-len(split) // 2)))
        known = "\n".join(map(_spaced, own))
        for start in range(len(split) - needed + 1):
            run = f" {' '.join(split[start : start + needed])} "
            if run in self._all and run not in known:
                return run.strip()
        return ""


def refusal(slot: Slot, text: str, copies: Copies) -> str:
    """Why a text may not stand in a slot, in the few words that such cases are counted under; empty where it may."""
    if not text.strip():
        return "empty"
    if text not in slot.texts():
        problem = problem_with(slot, text)
        if problem and slot.llm is not None and len(text) > slot.llm.longest:
            return "too long"
        if problem:
            return problem
    copied = copies.found(text, slot.texts())
    return "repeats training or select examples" if copied else ""


def marks_of(text: str) -> tuple[str, ...]:
    """The brackets of a text, each once, in order."""
    return tuple(dict.fromkeys(_MARK.findall(text)))


def fitted(slot: Slot, text: str, before: str) -> str:
    """A text as the slot would write it: brackets spelled as in its options, on one line where all of these are, the
    white space at its ends that the text before it has.
    """
    known = {_squeezed(mark): mark for option in slot.texts() for mark in marks_of(option)}
    text = _MARK.sub(lambda match: known.get(_squeezed(match[0]), match[0]), text.strip())
    if not any("\n" in option.strip() for option in slot.texts()):
        text = " ".join(text.split())
    like = before if before.strip() else next((each for each in slot.texts() if each.strip()), "")
    lead = like[: len(like) - len(like.lstrip())]
    return lead + text + like[len(like.rstrip()) :] if text else ""


def _squeezed(mark: str) -> str:
    return re.sub(r"\s+", "", mark)


def _spaced(text: str) -> str:
    """The words of a text in lower case, with single spaces around them."""
    return f" {' '.join(WORD.findall(text.lower()))} "


def _texts_of(example: Example) -> Iterable[str]:
    for value in example.fields.values():
        yield from map(str, value) if isinstance(value, (list, tuple)) else [str(value)]
    yield from (example.target, *example.references, *example.choices)
