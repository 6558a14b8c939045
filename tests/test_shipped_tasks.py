"""Every shipped task loads: the bundled ones from their data, the public ones from rows of the same form."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from autoprompt import catalog
from autoprompt.specfile import read_spec
from autoprompt.task import Task
from autoprompt.taskfile import TaskForm

BUNDLED = {"reviews": (120, 240, 600), "news": (76, 120, 260)}
PUBLIC = sorted(set(catalog.names("tasks")) - set(BUNDLED))


def form_of(name: str) -> TaskForm:
    return read_spec(catalog.find("tasks", name), TaskForm)


@pytest.mark.parametrize("name", sorted(BUNDLED))
def test_bundled_tasks(name: str) -> None:
    task = Task.load(name)
    sizes = tuple(len(part) for part in (task.train, task.select, task.test))
    assert sizes == BUNDLED[name]
    assert task.notes == ()
    for part in (task.train, task.select, task.test):
        assert len(set(Counter(e.target for e in part).values())) == 1  # as many of each label
    assert task.space == name


@pytest.mark.parametrize("name", sorted(BUNDLED))
def test_five_words_do_not_solve_a_bundled_task(name: str) -> None:
    """Not even the five words that tell most, when chosen and weighed on the very data they are tried on."""
    task = Task.load(name)
    examples = (*task.train, *task.select, *task.test)
    bags = [set(re.findall(r"[a-z']+", example.fields["text"].lower())) for example in examples]
    counts: dict[str, Counter[str]] = {}
    for bag, example in zip(bags, examples, strict=True):
        for word in bag:
            counts.setdefault(word, Counter())[example.target] += 1

    def gain(word: str) -> float:
        """Rows won by guessing the usual label of the word, over guessing any label."""
        return max(counts[word].values()) - sum(counts[word].values()) / len(task.labels)

    telling = sorted(counts, key=lambda word: (-gain(word), word))[:5]
    right = 0
    for bag, example in zip(bags, examples, strict=True):
        votes = sum((counts[word] for word in telling if word in bag), Counter[str]())
        right += (votes.most_common(1)[0][0] if votes else task.labels[0]) == example.target
    assert right / len(examples) < 0.75


def stand_in(form: TaskForm) -> list[dict[str, Any]]:
    """Rows with the columns the task names and raw answers as the public data has them."""
    names = list(form.data.label_names) or [f"word{i}" for i in range(8)]
    raw: list[Any] = [
        int(x) if x.isdecimal() else x == "true" if x in ("true", "false") else x for x in names
    ]
    rows = []
    for i in range(3000):
        row: dict[str, Any] = {column: f"{column} {i}" for column in form.data.columns.values()}
        assert form.data.target is not None
        row[form.data.target] = raw[i % len(raw)]
        rows.append({**row, "idx": i})
    return rows


@pytest.mark.parametrize("name", PUBLIC)
def test_public_tasks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    form = form_of(name)
    rows = stand_in(form)
    asked: list[tuple[Any, ...]] = []

    def load_dataset(path: str, config: str | None = None, **options: Any) -> Any:
        asked.append((path, config, options))
        assert "trust_remote_code" not in options
        if "split" in options:  # a file at an address
            part = rows[:1500] if "train" in options["data_files"] else rows[1500:2000]
            return datasets.Dataset.from_list(part)
        parts = {"train": rows[:1600], "validation": rows[1600:2800], "test": rows[2800:]}
        used = {split: parts[split] for split in form.data.splits.values()}
        return datasets.DatasetDict({k: datasets.Dataset.from_list(v) for k, v in used.items()})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    task = Task.load(name)
    if isinstance(form.data.source, str):
        assert asked == [(form.data.source, form.data.config, {"revision": None})]
    assert task.kind == form.kind
    assert task.labels == form.labels
    assert task.space is not None
    assert task.notes == ()
    assert min(len(task.train), len(task.select), len(task.test)) >= 100
    # The manual prompt must do for masked models and for models that read on from its end.
    task.seed_prompt.check(set(task.fields), answer_at_end=True)
    assert task.seed_prompt.render(task.test[0].fields).text("X").count("X") >= 1


@pytest.mark.parametrize("name", sorted([*BUNDLED, *PUBLIC]))
def test_the_space_a_task_names_exists(name: str) -> None:
    assert form_of(name).space in catalog.names("search_spaces")


def test_the_usual_public_sets_ship() -> None:
    wanted = {"sst2", "mr", "cr", "sst5", "ag-news", "trec", "subj", "boolq", "rte", "trex-p17", "hotpotqa"}
    assert wanted == set(PUBLIC)


def test_data_folders_hold_no_code() -> None:
    assert not list(Path(catalog.shipped("tasks")).glob("*.py"))
