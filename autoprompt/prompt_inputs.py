"""Prompts that the user gave become objects, and are checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from autoprompt.errors import DataError, InputError
from autoprompt.exporters import read_prompt
from autoprompt.inputs import check_capability
from autoprompt.models import Kind, Model
from autoprompt.prompt import Prompt
from autoprompt.softfiles import load_soft
from autoprompt.task import Task


def load_prompt(prompt: Prompt | str | Path, task: Task, *, soft: bool = True) -> Prompt:
    """A prompt as it is, from a prompt file or the folder of a soft prompt, or from a template text; the task's words
    where it has none of its own. ``soft``: whether it may hold rows.
    """
    folder = soft_folder(prompt)
    if folder is not None:
        prompt = load_soft(folder)
    elif isinstance(prompt, Path) or (isinstance(prompt, str) and _is_path(prompt)):
        prompt = read_prompt(prompt)
    elif isinstance(prompt, str):
        prompt = Prompt(prompt)
    finished = prompt if prompt.words or not task.words else dataclasses.replace(prompt, words=task.words)
    if finished.soft and not soft:
        raise InputError(
            "prompt: holds soft rows, but label words are looked for with a prompt of text",
            hint="give its text, or prompt.hardened()",
        )
    finished.check(set(task.fields))
    if task.labels and set(finished.words) != set(task.labels):
        raise DataError(
            f"prompt: has label words for {', '.join(finished.words)}, but the labels of task {task.name!r} "
            f"are {', '.join(task.labels)}"
        )
    return finished


def load_prompts(
    prompt: Prompt | str | Path | Sequence[Prompt | str | Path], task: Task
) -> tuple[Prompt, ...]:
    """One prompt, or several that answer as one; each as ``load_prompt`` takes it."""
    given = listed(prompt)
    if not given:
        raise InputError("prompt: the list of prompts is empty", hint="give at least one")
    return tuple(load_prompt(each, task) for each in given)


def listed(prompt: Prompt | str | Path | Sequence[Prompt | str | Path]) -> list[Prompt | str | Path]:
    """One or several as a list."""
    return [prompt] if isinstance(prompt, (Prompt, str, Path)) else list(prompt)


def check_soft(prompt: Prompt | str | Path | Sequence[Prompt | str | Path], model: Model) -> None:
    """See that soft prompts that came from folders were trained with this model.

    Raises:
        InputError: one was not; says what differs.
    """
    for each in listed(prompt):
        folder = soft_folder(each)
        if folder is not None:
            load_soft(folder, model)


def soft_folder(prompt: object) -> Path | None:
    """The folder of a soft prompt, where its path or that of its soft.json is given; or of an adapter, of which
    ``load_soft`` tells what to do with it.
    """
    if not isinstance(prompt, (str, Path)):
        return None
    if isinstance(prompt, str) and ("{{" in prompt or "\n" in prompt or len(prompt) > 255):
        return None
    folder = Path(prompt).parent if Path(prompt).name == "soft.json" else Path(prompt)
    marks = ("soft.json", "adapter_config.json")
    return folder if any((folder / name).is_file() for name in marks) else None


def check_prompts(
    prompts: Sequence[Prompt], task: Task, kind: Kind | None, model: Model | None = None
) -> None:
    """Check prompts against a task's fields, where a model of this kind reads its answer (None: not known yet), and what
    the loaded model can do.
    """
    for prompt in prompts:
        prompt.check(set(task.fields), answer_at_end=kind is not None and kind != "masked")
        if model is not None:
            check_capability(task, model, prompt)


def _is_path(text: str) -> bool:
    return "{{" not in text and text.endswith((".txt", ".jinja", ".json"))
