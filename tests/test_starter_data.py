"""``autoprompt init NAME --data FILE``: a task and a space of rows that are there already, which run as they are."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoprompt.space import SearchSpace
from autoprompt.task import Task
from tests.command_line import ok, refused

Write = Callable[[str, list[dict[str, Any]]], str]
FRUIT = ("apple", "pear", "plum", "fig", "cherry", "quince", "grape", "melon")


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Go to a folder of its own; returns what writes rows there."""
    monkeypatch.chdir(tmp_path)

    def written(name: str, rows: list[dict[str, Any]]) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            if path.suffix == ".csv":
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            else:
                file.writelines(json.dumps(row) + "\n" for row in rows)
        return name

    return written


def loaded(name: str) -> tuple[Task, SearchSpace]:
    task = Task.load(Path("tasks") / f"{name}.yaml")
    return task, SearchSpace.load(Path("search_spaces") / f"{name}.yaml")


def rated(count: int = 40, **more: str) -> list[dict[str, Any]]:
    return [
        {"no": n, "comment": f"{FRUIT[n % 8]} number {n}", "label": ("fine", "bad")[n % 2], **more}
        for n in range(count)
    ]


def test_a_csv_becomes_a_task_that_runs(write: Write) -> None:
    said = ok("init", "fruit", "--data", write("some/fruit.csv", rated())).stdout
    assert (
        "40 rows; answers from 'label', 2 labels: fine (20), bad (20); prompts read comment; left out: no\n"
        in said
    )
    assert "optimize fruit --model MODEL" in said
    task, _ = loaded("fruit")
    assert (task.kind, task.fields, task.labels) == ("classification", ("text",), ("fine", "bad"))
    assert sorted(map(len, (task.train, task.select, task.test))) == [10, 10, 20]
    report = ok("optimize", "fruit", "-m", "toy", "-b", "100", "--run-dir", "run").stdout
    assert "verdict" in report


def test_several_columns_are_shown_by_their_names(write: Write) -> None:
    rows = [
        {
            "First Name": f"{FRUIT[n % 8]} {n}",
            "first-name": f"x{n}",
            "answer": f"y{n}",
            "2nd": f"z{n}",
            "class": "ab"[n % 2],
        }
        for n in range(20)
    ]
    ok("init", "pairs", "--data", write("pairs.jsonl", rows), "--target", "class")
    task, space = loaded("pairs")
    assert task.fields == ("First_Name", "first_name", "field_answer", "field_2nd")
    assert task.prompt.splitlines()[:2] == ["First Name: {{ First_Name }}", "first name: {{ first_name }}"]
    assert space.bind(task, answer_at_end=True).default().text.startswith("First Name: {{ First_Name }}\n")


@pytest.mark.parametrize(
    "names", [("0", "1"), ("true", "no"), ("it's: so", 'say "no"'), ("ja", "nein - nie")]
)
def test_labels_of_any_kind_are_written_as_they_are(names: tuple[str, str], write: Write) -> None:
    rows = [{"text": f"{FRUIT[n % 8]} {n}", "label": names[n % 2]} for n in range(20)]
    ok("init", "odd", "--data", write("odd.csv", rows))
    task, space = loaded("odd")
    assert sorted(task.labels) == sorted(names)
    assert task.words == {label: (label,) for label in task.labels}
    space.bind(task, answer_at_end=True)


def test_answers_that_are_texts_make_a_task_of_writing(write: Write) -> None:
    rows = [{"question": f"what is {n} and {n}?", "answer": str(n + n)} for n in range(24)]
    said = ok("init", "sums", "--data", write("sums.csv", rows)).stdout
    assert "answers from 'answer', texts to be written; prompts read question" in said
    task, space = loaded("sums")
    assert (task.kind, task.metric, task.fields) == ("generation", "exact_match", ("text",))
    assert "{{ answer }}" in space.bind(task, answer_at_end=True).default().text


def test_many_labels_are_labels_still(write: Write) -> None:
    rows = [{"text": f"{FRUIT[n % 8]} {n}", "label": f"intent {n % 60}"} for n in range(240)]
    assert "60 labels: intent 0 (4)" in ok("init", "intents", "--data", write("intents.csv", rows)).stdout
    assert len(loaded("intents")[0].labels) == 60


def test_lists_of_answers_that_are_all_right(write: Write) -> None:
    rows = [{"question": f"who is {n}?", "answer": [f"Bob {n}", f"Robert {n}"]} for n in range(24)]
    ok("init", "names", "--data", write("names.jsonl", rows))
    task, _ = loaded("names")
    assert task.kind == "generation"
    assert all(len(example.references) == 2 for example in task.train)


def test_given_splits_are_used(write: Write, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    parts = {
        role: datasets.Dataset.from_list(
            [{"text": f"{role} {FRUIT[n % 8]} {n}", "label": n % 2} for n in range(count)], features=features
        )
        for role, count in (("train", 20), ("test", 12))
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    said = ok("init", "saved-one", "--data", "saved").stdout
    assert "20 train, 12 test rows; answers from 'label', 2 labels: " in said
    task, _ = loaded("saved-one")
    assert set(task.labels) == {"good", "bad"}
    assert len(task.test) == 12


@pytest.mark.parametrize(
    ("rows", "words", "message"),
    [
        (
            rated(),
            ("--target", "lable"),
            "no column 'lable' (did you mean 'label'?); columns: no, comment, label",
        ),
        ([{"text": "a", "mood": "b"}] * 3, (), "which column holds the answer? columns: text, mood"),
        ([{"text": f"a {n}", "label": "x"} for n in range(9)], (), "every answer in column 'label' is 'x'"),
        (
            [{"n": n, "label": "ab"[n % 2]} for n in range(9)],
            (),
            "no column of text beside the answer 'label'",
        ),
    ],
)
def test_what_tells_no_task_is_refused_and_nothing_written(
    rows: list[dict[str, Any]], words: tuple[str, ...], message: str, write: Write
) -> None:
    error = refused(2, "init", "mine", "--data", write("d.csv", rows), *words)
    assert message in " ".join(error.split())
    assert not Path("tasks").exists()


def test_a_column_without_data_and_a_file_that_is_not_there(write: Write) -> None:
    assert "--data, which is missing" in refused(2, "init", "mine", "--target", "label")
    write("fruit.csv", rated())
    assert "no such file (did you mean 'fruit.csv'?)" in refused(2, "init", "mine", "--data", "fruits.csv")


def test_labels_with_spaces_around_them_make_a_task_that_loads(write: Write) -> None:
    rows = [{"comment": f"it is {n}", "label": ("good ", "bad")[n % 2]} for n in range(40)]
    ok("init", "mine", "--data", write("d.csv", rows))
    task, _ = loaded("mine")
    assert task.words == {"good ": ("good",), "bad": ("bad",)}


def test_a_place_that_cannot_be_written_to_is_told(write: Write) -> None:
    write("d.csv", rated())
    Path("tasks").write_text("a file", "utf-8")
    assert "cannot be written" in refused(2, "init", "mine", "--data", "d.csv")
    assert "cannot be written" in refused(2, "init", "other")
    assert not list(Path("search_spaces").iterdir())
