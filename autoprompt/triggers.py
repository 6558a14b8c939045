"""The space a search over tokens has where the user gives none: the task's manual prompt and a trigger in it."""

from __future__ import annotations

import re

from autoprompt.space import SearchSpace
from autoprompt.task import Task

TRIGGER = "trigger"
_FIELD = re.compile(
    r"\{\{-?\s*(?P<name>[A-Za-z_]\w*)[^{}]*\}\}[^\s{\[]*"
)  # and what is glued to it, as ``?``


def trigger_space(task: Task, n: int = 5, **options: object) -> SearchSpace:
    """The manual prompt with ``n`` tokens to be found after the last field before the answer.

    They stand there since what is said last steers most, and since all that stands before them is read once a search.

    Args:
        task: whose prompt.
        n: how many tokens.
        options: further settings of the slot, as in a space file: ``policy``, ``matching``, ``ban``, ``init``,
            ``shortest``, ``longest``.

    Raises:
        SpecError: a setting is not one, or not of a value that is allowed.
    """
    tokens = {"n": n, **options}
    content = {
        "title": f"the manual prompt of {task.name} with a trigger of {n} tokens",
        "template": with_trigger(task.prompt),
        "slots": {TRIGGER: {"tokens": tokens}},
    }
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
