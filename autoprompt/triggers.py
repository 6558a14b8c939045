"""Spaces made of prompts: the manual prompt with a trigger in it, and a prompt whose own words are slots, for tokens and
rows or for local edits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from autoprompt.errors import TemplateError
from autoprompt.prompt import Prompt
from autoprompt.space import SearchSpace
from autoprompt.task import Task

TRIGGER, EDIT = "trigger", "edit"
"""Names of the spaces that are made of the manual prompt."""
_FIELD = re.compile(
    r"\{\{-?\s*(?P<name>[A-Za-z_]\w*)[^{}]*\}\}[^\s{\[]*"
)  # and what is glued to it, as ``?``

_CODE = re.compile(r"(\{\{.*?\}\})", re.DOTALL)
_GLUED_BEFORE = re.compile(r"[^\s\w]*")  # what ends a field, as ``?`` or a closing quotation mark
_GLUED_AFTER = re.compile(r"[^\s\w]*\Z")  # what begins one, as an opening quotation mark
_STRETCH = re.compile(r"[^\s](?:[^\n]*[^\s])?(?<!\s)")


def trigger_space(task: Task, n: int = 5, *, front: bool = False, **options: object) -> SearchSpace:
    """The manual prompt with ``n`` tokens to be found after the last field before the answer.

    They stand there since what is said last steers most, and since all that stands before them is read once a search.

    Args:
        task: whose prompt.
        n: how many tokens.
        front: whether they stand before the whole prompt instead, as keys and values must (``Soft(method="prefix")``).
        options: further settings of the slot, as in a space file: ``policy``, ``matching``, ``ban``, ``init``,
            ``shortest``, ``longest``.

    Raises:
        SpecError: a setting is not one, or not of a value that is allowed.
    """
    tokens = {"n": n, **options}
    content = {
        "title": f"the manual prompt of {task.name} with a trigger of {n} tokens",
        "template": f"[[ {TRIGGER} ]] {task.prompt}" if front else with_trigger(task.prompt),
        "slots": {TRIGGER: {"tokens": tokens}},
    }
    return SearchSpace.from_dict(content)


def soft_space(task: Task, prompt: Prompt | str | None = None, **options: object) -> SearchSpace:
    """A prompt whose own words are token slots: a search begins at them, and so do soft prompts.

    Every stretch of words in a line is a slot of its own, ``words_1``, ``words_2``, ...; white space at its ends, and
    punctuation that is glued to a field, stays as it is. So any prompt that was found, by whatever strategy, can be gone
    on from: rows of its own tokens score exactly as it does.

    Args:
        task: what the prompt is for.
        prompt: the prompt, or its template; None: the task's manual prompt.
        options: further settings of all slots, as in a space file: ``policy``, ``matching``, ``ban``.

    Raises:
        TemplateError: the prompt has loops, conditions or comments, or no words of its own.
        SpecError: a setting is not one, or not of a value that is allowed.
    """
    return _words_as_slots(task, prompt, lambda words: {"tokens": {"init": words, **options}})


def edit_space(task: Task, prompt: Prompt | str | None = None, **options: object) -> SearchSpace:
    """A prompt whose own words may be edited, so that evolutions and hill climbs can go on from any prompt.

    Slots are as in ``soft_space``; fields, label words and the answer stay as they are.

    Args:
        task: what the prompt is for.
        prompt: the prompt, or its template; None: the task's manual prompt.
        options: further settings of all slots, as in a space file: ``ops``, ``unit``, ``max_edits``, ``words``, ``lock``.

    Raises:
        TemplateError: the prompt has loops, conditions or comments, or no words of its own.
        SpecError: a setting is not one, or not of a value that is allowed.
    """
    return _words_as_slots(task, prompt, lambda words: {"one_of": [words], "edit": options})


def _words_as_slots(
    task: Task, prompt: Prompt | str | None, slot_of: Callable[[str], Mapping[str, object]]
) -> SearchSpace:
    """The space in which every stretch of a prompt's own words is a slot."""
    text = prompt.text if isinstance(prompt, Prompt) else prompt or task.prompt
    if "{%" in text or "{#" in text:
        raise TemplateError(
            "prompt: has template code that is not an expression, so its words cannot become slots",
            hint="write the prompt without loops, conditions and comments, or declare token slots in a space file",
        )
    slots: dict[str, Mapping[str, object]] = {}

    def slotted(stretch: re.Match[str]) -> str:
        if not re.search(r"\w", stretch[0]):
            return stretch[0]
        slots[f"words_{len(slots) + 1}"] = slot_of(stretch[0])
        return f"[[ words_{len(slots)} ]]"

    parts = _CODE.split(text)
    for at in range(0, len(parts), 2):
        first, last = at == 0, at == len(parts) - 1
        glued = "" if first else _GLUED_BEFORE.match(parts[at])[0]  # type: ignore[index]
        held = parts[at][len(glued) :]
        tail = "" if last else _GLUED_AFTER.search(held)[0]  # type: ignore[index]
        body = held[: len(held) - len(tail)]
        parts[at] = glued + _STRETCH.sub(slotted, body) + tail
    if not slots:
        raise TemplateError(f"prompt: {text!r:.100} has no words of its own that could become slots")
    content: dict[str, object] = {
        "title": f"the words of a prompt of {task.name} as slots",
        "template": "".join(parts),
        "slots": slots,
    }
    if isinstance(prompt, Prompt) and dict(prompt.words) != dict(task.words):
        words = {label: [list(given)] for label, given in prompt.words.items()}
        content["slots"] = {**slots, "label_words": {"map": words, "tied": True}}
    return SearchSpace.from_dict(content)


def with_trigger(template: str) -> str:
    """The template with ``[[ trigger ]]`` after the last field before the answer, at its front where it has loops,
    conditions or comments.
    """
    slot = f"[[ {TRIGGER} ]]"
    fields = list(_FIELD.finditer(template))
    answer = next(at for at, match in enumerate(fields) if match["name"] == "answer")
    if "{%" in template or "{#" in template or not answer:
        return f"{slot} {template}"
    end = fields[answer - 1].end()
    gap = "" if template[end].isspace() else " "
    return f"{template[:end]} {slot}{gap}{template[end:]}"
