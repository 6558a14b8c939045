"""Every space that ships fits the tasks that name it and gives sound prompts for masked and causal models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from autoprompt import catalog
from autoprompt.prompt import Prompt
from autoprompt.space import RandomChooser, SearchSpace
from autoprompt.task import Example, Task

SPACES = catalog.names("search_spaces")
TASKS = {
    path.stem: yaml.load(path.read_text("utf-8"), yaml.BaseLoader)
    for path in catalog.shipped("tasks").glob("*.yaml")
}
PAIRS = sorted((name, content["space"]) for name, content in TASKS.items() if "space" in content)
# The manual prompt of AG News has its answer in front, as published, which only masked models can read.
MASKED_ONLY = {"ag-news"}


def stand_in(name: str) -> Task:
    """The task with made-up rows: what ships names public data that tests cannot fetch."""
    content: dict[str, Any] = TASKS[name]
    fields = tuple(content["data"]["columns"])
    labels = tuple(content.get("labels", ()))
    rows = tuple(
        Example(
            {field: f"{field} {index}" for field in fields},
            (labels or ("x", "y", "z"))[index % (len(labels) or 3)],
        )
        for index in range(48)
    )
    return Task(
        name=name,
        kind=content["kind"],
        fields=fields,
        prompt=content["prompt"],
        metric=content["metric"],
        train=rows[:24],
        select=rows[24:36],
        test=rows[36:],
        labels=labels,
        words={label: tuple(words) for label, words in content.get("words", {}).items()},
    )


def test_all_spaces_are_here_and_used() -> None:
    assert {
        "sentiment", "sentiment-5", "topic", "question-type", "subjectivity", "boolq", "nli", "fact",
        "question-answering", "reviews", "news",
    } <= set(SPACES)  # fmt: skip
    assert {space for _, space in PAIRS} <= set(SPACES)


@pytest.mark.parametrize("name", SPACES)
def test_files_are_in_order(name: str) -> None:
    space = SearchSpace.load(name)
    path: Path | None = space.path
    assert path is not None
    assert path.read_text("utf-8").startswith("format: autoprompt-space/1\n")
    assert space.spec.title
    assert space.spec.about
    assert space.spec.fields
    assert space.size() >= 1000
    for slot in space.slots.values():
        for words in (slot.map or {}).values():
            assert len(words) >= 5
            assert all(isinstance(word, str) and word.isalpha() for word in words)


@pytest.mark.parametrize("end", [True, False], ids=["causal", "masked"])
@pytest.mark.parametrize(("task_name", "space_name"), PAIRS)
def test_spaces_fit_their_tasks(task_name: str, space_name: str, end: bool) -> None:
    task = stand_in(task_name)
    space = SearchSpace.load(space_name).bind(task, answer_at_end=end)
    rng = np.random.default_rng(0)
    prompts = [space.draw(RandomChooser(rng)) for _ in range(60)]
    assert all(prompts), "every combination must be a prompt"
    sound = [prompt for prompt in prompts if prompt is not None]
    assert len({prompt.key for prompt in sound}) > 45
    for prompt in sound:
        look_over(prompt, task)
        assert set(prompt.words) == set(task.labels)
        assert space.prompt_from(prompt.choices) == prompt
    near = space.neighbours(sound[0], rng, 5)
    assert len(near) == 5


def look_over(prompt: Prompt, task: Task) -> None:
    """No traces of brackets, no stray white space, each field read once, nothing after the answer."""
    prompt.check(set(task.fields), answer_at_end=True)
    text = prompt.render({field: f"<{field}>" for field in task.fields}).text("ANSWER")
    assert "[[" not in prompt.text
    assert "]]" not in prompt.text
    assert "\n\n\n" not in text
    assert "  " not in text
    assert text == text.strip()
    assert all(line == line.strip() for line in text.split("\n"))
    assert text.endswith(("ANSWER", "ANSWER."))
    assert ".." not in text
    assert "??" not in text
    for field in prompt.fields():
        assert text.count(f"<{field}>") == 1


@pytest.mark.parametrize(("task_name", "space_name"), PAIRS)
def test_the_default_is_the_manual_prompt(task_name: str, space_name: str) -> None:
    task = stand_in(task_name)
    default = SearchSpace.load(space_name).bind(task, answer_at_end=False).default()
    assert (default == task.seed_prompt) == (task_name not in MASKED_ONLY)
