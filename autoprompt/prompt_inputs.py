"""Prompts that the user gave become objects, and are checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoprompt.errors import DataError, InputError
from autoprompt.exporters import read_prompt
from autoprompt.inputs import check_capability
from autoprompt.models import Kind, Model
from autoprompt.prompt import Prompt
from autoprompt.task import Task


def load_prompt(prompt: Prompt | str | Path, task: Task) -> Prompt:
    """A prompt as it is, from a prompt file, or from a template text; the task's words where it has none of
    its own.
    """
    if isinstance(prompt, Path) or (isinstance(prompt, str) and _is_path(prompt)):
        prompt = read_prompt(prompt)
    elif isinstance(prompt, str):
        prompt = Prompt(prompt)
    finished = prompt if prompt.words or not task.words else Prompt(prompt.text, task.words, prompt.choices)
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
    given = [prompt] if isinstance(prompt, (Prompt, str, Path)) else list(prompt)
    if not given:
        raise InputError("prompt: the list of prompts is empty", hint="give at least one")
    return tuple(load_prompt(each, task) for each in given)


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
