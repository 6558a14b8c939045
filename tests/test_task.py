"""Data into tasks: every format, every mistake, and splits that depend on nothing but content and seed."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from autoprompt.errors import AutopromptError, DataError, InputError, SpecError, TemplateError
from autoprompt.splits import ROLES
from autoprompt.task import Task

ROWS = [
    {"text": f"item {i} is {'good' if i % 3 else 'bad'}", "label": "pos" if i % 3 else "neg", "score": i}
    for i in range(120)
]
HEAD = """\
format: autoprompt-task/1
kind: classification
title: a test
labels: [neg, pos]
words: {neg: [bad], pos: [good]}
prompt: "{{ text }} It was {{ answer }}."
"""


def write_task(folder: Path, data: str, head: str = HEAD, rest: str = "") -> Path:
    path = folder / "mine.yaml"
    path.write_text(f"{head}data: {data}\n{rest}", encoding="utf-8")
    return path


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        arrow = pytest.importorskip("pyarrow")
        parquet.write_table(arrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def complaint(path: Path | str, kind: type[AutopromptError] = DataError) -> str:
    with pytest.raises(kind) as caught:
        Task.load(path)
    return str(caught.value).replace(str(Path(path).parent) + "/", "")


def test_splits_are_stratified_disjoint_and_independent_of_row_order() -> None:
    task = Task.from_rows(ROWS, split={"train": 12, "select": 30, "test": 0.5})
    assert [len(part) for part in (task.train, task.select, task.test)] == [12, 30, 60]
    assert Counter(e.target for e in task.test) == {"pos": 40, "neg": 20}
    assert Counter(e.target for e in task.train) == {"pos": 8, "neg": 4}
    ids = [e.id for part in (task.train, task.select, task.test) for e in part]
    assert len(set(ids)) == len(ids)
    again = Task.from_rows(list(reversed(ROWS)), split={"train": 12, "select": 30, "test": 0.5})
    assert again.fingerprint == task.fingerprint
    other = Task.from_rows(ROWS, split={"train": 12, "select": 30, "test": 0.5}, seed=1)
    assert other.fingerprint != task.fingerprint


def test_default_sizes_use_all_rows() -> None:
    task = Task.from_rows(ROWS)
    assert [len(part) for part in (task.train, task.select, task.test)] == [30, 30, 60]


def test_with_sizes_are_nested_and_stratified() -> None:
    task = Task.from_rows(ROWS)
    small, large = task.with_sizes(test=12), task.with_sizes(test=30)
    assert set(small.test) <= set(large.test) <= set(task.test)
    assert Counter(e.target for e in small.test) == {"pos": 8, "neg": 4}
    assert small.train == task.train
    assert small.fingerprint != large.fingerprint
    with pytest.raises(DataError, match="test must be between 1 and 60 examples"):
        task.with_sizes(test=61)


def test_given_splits_are_kept_and_what_they_share_is_dropped() -> None:
    parts = {"train": ROWS[:60], "select": ROWS[50:80], "test": ROWS[70:110]}
    task = Task.from_rows(parts)
    assert [e.fields["text"] for e in task.test] == [row["text"] for row in ROWS[70:110]]
    assert [len(part) for part in (task.train, task.select)] == [50, 20]
    assert task.notes == (
        "10 rows of train are also in select and were dropped from train",
        "10 rows of select are also in test and were dropped from select",
    )


def test_a_missing_select_is_carved_from_train() -> None:
    task = Task.from_rows({"train": ROWS[:60], "test": ROWS[60:]}, split={"select": 15})
    assert [len(part) for part in (task.train, task.select, task.test)] == [45, 15, 60]
    assert not set(task.train) & set(task.select)


@pytest.mark.parametrize(
    "shares", [(0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.25, 0.25, 0.5), (1 / 3, 1 / 3, 1 / 3)]
)
def test_fractions_of_all_rows_fit_whatever_their_number(shares: tuple[float, float, float]) -> None:
    for n in range(30, 60):
        rows = [{"text": f"row {at}", "label": "pos" if at % 2 else "neg"} for at in range(n)]
        task = Task.from_rows(rows, split=dict(zip(ROLES, shares, strict=True)))
        sizes = [len(task.split(role)) for role in ROLES]
        assert n - 3 < sum(sizes) <= n
        assert all(abs(size - share * n) < 1 for size, share in zip(sizes, shares, strict=True))


def test_one_text_is_a_list_of_one() -> None:
    task = Task.from_rows(ROWS, fields="text", kind="generation", target="label", stop="END")
    assert (list(task.fields), task.stop) == (["text"], ("END",))


@pytest.mark.parametrize("name", ["self", "none", "true", "range", "not"])
def test_columns_that_templates_read_otherwise_need_another_name(name: str) -> None:
    rows = [{name: row["text"], "label": row["label"]} for row in ROWS]
    for given in (None, [name]):
        with pytest.raises(DataError, match="means something else in templates") as told:
            Task.from_rows(rows, fields=given)
        assert f"'the_{name}': '{name}'" in told.value.hint
    assert list(Task.from_rows(rows, fields={f"the_{name}": name}).fields) == [f"the_{name}"]
    beside = [{**row, name: "x"} for row in ROWS]
    assert list(Task.from_rows(beside).fields) == ["text"]


def test_spaces_around_choices_are_not_part_of_them() -> None:
    rows = [{"q": f"capital {n}", "options": [" Paris", "Rome "], "label": n % 2} for n in range(24)]
    task = Task.from_rows(rows, kind="multiple_choice", fields=["q"], choices="options")
    assert {example.choices for example in task.select} == {("Paris", "Rome")}
    named = [{**row, "label": [" Paris", "Rome "][row["label"]]} for row in rows]  # type: ignore[index]
    assert (
        Task.from_rows(named, kind="multiple_choice", fields=["q"], choices="options").select == task.select
    )


def test_rows_without_a_text_are_told() -> None:
    rows = [*ROWS, {"text": " ", "label": "pos"}, {"text": "", "label": "neg"}]
    (note,) = [note for note in Task.from_rows(rows, fields=["text"]).notes if "no text" in note]
    assert note.startswith("2 rows hold no text at all")
    assert not Task.from_rows(ROWS, fields=["text"]).notes


def test_repeated_rows_are_dropped_before_splitting_and_told() -> None:
    doubled = [*ROWS, *ROWS[:7], {**ROWS[0], "label": "pos"}]
    task = Task.from_rows(doubled)
    assert task.notes == (
        "8 repeated rows were dropped before splitting, 1 of them with another answer than the one kept",
    )
    kept = Task.from_rows({"train": ROWS[:60], "test": [*ROWS[60:], ROWS[61]]})
    assert kept.notes == ("1 rows of test repeat another row of test; they were kept",)


def test_fingerprint_follows_what_is_measured_only() -> None:
    task = Task.from_rows(ROWS)
    for same in ({"name": "other"}, {"notes": ("x",)}, {"space": "s"}):
        assert dataclasses.replace(task, **same).fingerprint == task.fingerprint
    for changed in ({"prompt": "{{ text }} {{ answer }}"}, {"calibrate": True}, {"metric": "macro_f1"}):
        assert dataclasses.replace(task, **changed).fingerprint != task.fingerprint
    for changed in ({"max_tokens": 5}, {"stop": (".",)}):  # models that only write use them for labels, too
        assert dataclasses.replace(task, **changed).fingerprint != task.fingerprint


def test_tasks_travel_to_worker_processes() -> None:
    task = Task.from_rows(ROWS)
    assert pickle.loads(pickle.dumps(task)).fingerprint == task.fingerprint


def test_labels_stay_words(tmp_path: Path) -> None:
    write_rows(tmp_path / "d.jsonl", [{"text": f"t{i}", "label": i % 2 == 0} for i in range(20)])
    head = HEAD.replace("[neg, pos]", "[yes, no]").replace(
        "{neg: [bad], pos: [good]}", "{yes: yes, no: [no, 1]}"
    )
    task = Task.load(
        write_task(tmp_path, "{source: d.jsonl, target: label, label_names: {true: yes, false: no}}", head)
    )
    assert task.labels == ("yes", "no")
    assert task.words == {"yes": ("yes",), "no": ("no", "1")}
    assert {e.target for e in task.test} == {"yes", "no"}
    assert task.fields == ("text",)


def test_labels_without_words_are_their_own_words(tmp_path: Path) -> None:
    write_rows(tmp_path / "d.jsonl", ROWS)
    head = HEAD.replace("words: {neg: [bad], pos: [good]}\n", "")
    task = Task.load(write_task(tmp_path, "{source: d.jsonl, columns: {text: text}, target: label}", head))
    assert task.words == {"neg": ("neg",), "pos": ("pos",)}
    assert task == Task.from_rows(ROWS, fields=["text"], labels=["neg", "pos"], prompt=task.prompt)


def test_generation_with_references() -> None:
    rows = [{"question": f"q{i}", "answers": [f"a{i}", "b"]} for i in range(20)]
    task = Task.from_rows(rows, kind="generation", references="answers", metric="token_f1", max_tokens=8)
    assert task.test[0].references == (task.test[0].target, "b")
    assert dataclasses.replace(task, max_tokens=9).fingerprint != task.fingerprint


def test_cloze_candidates_are_all_targets_also_after_trimming() -> None:
    rows = [{"subject": f"s{i}", "target": f"t{i % 7}"} for i in range(40)]
    task = Task.from_rows(rows, kind="cloze", candidates="targets")
    assert task.metric == "p_at_1"
    assert task.among == tuple(f"t{i}" for i in range(7))
    assert task.with_sizes(train=1, select=1, test=1).among == task.among
    fewer = task.only_targets(["t1", "t2"])
    assert fewer.among == ("t1", "t2")
    assert {e.target for e in fewer.test} <= {"t1", "t2"}
    assert "their answer is none of the 2 allowed words" in fewer.notes[-1]
    with pytest.raises(DataError, match="split 'train' is empty"):
        task.only_targets(["nowhere"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"labels": ["pos", "neutral"]},
            r"row 1: column 'label': value 'neg' is none of the labels: pos, neutral",
        ),
        (
            {"target": "lable"},
            r"row 1: no column 'lable' for target \(did you mean 'label'\?\); columns: text, label",
        ),
        ({"fields": ["txt"]}, r"row 1: no column 'txt' for field 'txt' \(did you mean 'text'\?\)"),
        ({"split": {"test": 500}}, r"fewer rows than asked: 500 for test, but there are 120"),
        (
            {"split": {"test": 100, "train": 30}},
            r"fewer rows than asked: train 30 \+ test 100 = 130 from 120 rows",
        ),
        ({"split": {"tset": 5}}, r"no split 'tset' \(did you mean 'test'\?\)"),
        ({"rows": []}, "split 'train' holds no rows"),
        ({"rows": {"train": ROWS, "test": []}}, "split 'test' holds no rows"),
        ({"rows": {"train": ROWS, "dev": ROWS}}, "no split 'dev'"),
        ({"rows": ["text"]}, "row 1: must be a dictionary"),
        ({"rows": [{"text": "a", "value": "b"}]}, "which column holds the answer"),
        (
            {"rows": {"train": ROWS, "test": ROWS[1:3]}},
            r"split 'test' holds one label only \('pos', 2 rows\)",
        ),
        ({"rows": [*ROWS, {"text": None, "label": "pos"}]}, r"row 121: column 'text' is empty \(null\)"),
        (
            {"rows": [*ROWS, {"text": {"a": 1}, "label": "pos"}]},
            "row 121: column 'text': must be text or a number",
        ),
        (
            {"rows": [*ROWS, {"text": "a\ufdd0b", "label": "pos"}]},
            r"row 121: .* non-character U\+FDD0 at place 1",
        ),
        ({"rows": [*ROWS, {"text": "a\ud800", "label": "pos"}]}, "row 121: .* half a surrogate pair"),
    ],
)
def test_data_errors(change: dict[str, Any], message: str) -> None:
    arguments = {"rows": ROWS, **change}
    with pytest.raises(DataError, match=message):
        Task.from_rows(**arguments)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"words": {"pos": ["good"], "neg": []}}, SpecError, "words: label 'neg' has no words"),
        ({"words": {"pos": "good"}, "labels": ["pos", "neg"]}, SpecError, "words: label 'neg' has no words"),
        ({"words": {"pos": "it", "neg": "it"}}, SpecError, "'it' stands for both 'pos' and 'neg'"),
        ({"kind": "generation", "words": {"pos": "good"}}, SpecError, "words belong to classification"),
        ({"metric": "acuracy"}, SpecError, r"no metric 'acuracy' \(did you mean 'accuracy'\?\)"),
        (
            {"metric": "rouge_l"},
            SpecError,
            "rouge_l does not fit classification; allowed: accuracy, macro_f1",
        ),
        (
            {"kind": "clasification"},
            DataError,
            r"no kind 'clasification' \(did you mean 'classification'\?\); kinds: ",
        ),
        (
            {"split": {"test": "10"}},
            DataError,
            "size of split 'test' must be a whole number of rows, .*got '10'",
        ),
        ({"split": {"test": True}}, DataError, "whole number of rows, or a fraction up to 1.0 .got True"),
        ({"split": {"test": 50.0}}, DataError, "whole number of rows, or a fraction up to 1.0 .got 50.0"),
        ({"split": {"train": math.nan}}, DataError, "got nan"),
        ({"split": {"test": -5}}, DataError, "split 'test' would be empty"),
        ({"prompt": "{{ text }} It was"}, TemplateError, r"\{\{ answer \}\} must stand exactly once"),
        (
            {"prompt": "[[ cue ]] {{ text }} {{ answer }}"},
            TemplateError,
            r"prompt: \[\[ cue \]\] is a slot of a search space",
        ),
        ({"prompt": "{{ txt }} {{ answer }}"}, TemplateError, r"no field 'txt' \(did you mean 'text'\?\)"),
        ({"prompt": "{{ text }} {{ answer }}\ufdd2"}, TemplateError, "non-character"),
    ],
)
def test_task_errors(change: dict[str, Any], kind: type[AutopromptError], message: str) -> None:
    with pytest.raises(kind, match=message):
        Task.from_rows(ROWS, **change)


def test_yaml_errors_name_the_line(tmp_path: Path) -> None:
    data = "{source: d.jsonl, columns: {text: text}, target: label}"
    write_rows(tmp_path / "d.jsonl", ROWS)
    path = write_task(tmp_path, data, HEAD.replace("pos: [good]", "pso: [good]"))
    assert complaint(path, SpecError).startswith(
        "mine.yaml:5: words: 'pso' is no label (did you mean 'pos'?)"
    )
    path = write_task(tmp_path, data, HEAD.replace(", pos: [good]", ""))
    assert "mine.yaml:5: words: label 'pos' has no words" in complaint(path, SpecError)
    path = write_task(tmp_path, data, HEAD.replace("{{ answer }}", "it"))
    assert complaint(path, TemplateError).startswith(
        "mine.yaml:6: prompt: {{ answer }} must stand exactly once"
    )
    path = write_task(tmp_path, data, rest="metrik: accuracy\n")
    assert "mine.yaml:8: metrik: unknown key (did you mean 'metric'?)" in complaint(path, SpecError)
    path = write_task(tmp_path, data, rest="split: {test: 1.5}\n")
    assert "mine.yaml:8: split.test: must be less than 1 (got 1.5)" in complaint(path, SpecError)
    path = write_task(tmp_path, "{source: d.jsonl, target: label, sorce: x}")
    assert "mine.yaml:7: data.sorce: unknown key (did you mean 'source'?)" in complaint(path, SpecError)
    path = write_task(tmp_path, "{source: d.jsonl}")
    assert "mine.yaml:7: data: target is missing" in complaint(path, SpecError)
    path = write_task(tmp_path, data, HEAD.replace("[neg, pos]", "[true, 0.5]"))
    assert complaint(path, SpecError).startswith(
        'mine.yaml:4: labels[0]: labels and words are text: put it in quotes, such as "true"\n'
        'mine.yaml:4: labels[1]: labels and words are text: put it in quotes, such as "0.5"'
    )
    path = write_task(tmp_path, data, HEAD.replace("classification", "clasification"))
    assert "mine.yaml:2: kind: must be" in complaint(path, SpecError)
    path = write_task(
        tmp_path, data, HEAD.replace("labels: [neg, pos]\nwords: {neg: [bad], pos: [good]}\n", "")
    )
    assert "labels and their words are missing" in complaint(path, SpecError)


def test_real_data(shared: Path) -> None:
    folder = shared / "data" / "few-shot" / "sst-2"
    seed = next(path for path in sorted(folder.iterdir()) if path.is_dir())

    def rows(path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    task = Task.from_rows(
        {
            "train": rows(seed / "train.jsonl"),
            "select": rows(seed / "dev.jsonl"),
            "test": rows(folder / "test.jsonl"),
        },
        fields=["text"],
        prompt="{{ text }} It was {{ answer }}.",
    )
    assert [len(part) for part in (task.train, task.select, task.test)] == [32, 32, 1821]
    assert len(task.labels) == 2


def test_labels_that_are_numbers_or_truth_values() -> None:
    rows = [{"text": f"t{i}", "label": i % 2} for i in range(40)]
    assert Task.from_rows(rows, words={0: "bad", 1: "good"}).labels == ("0", "1")
    assert Task.from_rows(rows, labels=[0, 1]).labels == ("0", "1")
    truth = [{"text": f"t{i}", "label": bool(i % 2)} for i in range(40)]
    assert set(Task.from_rows(truth, label_names={True: "yes", False: "no"}).labels) == {"yes", "no"}


def test_words_with_spaces_around_them_are_refused() -> None:
    rows = [{"text": f"t{i}", "label": "ab"[i % 2]} for i in range(40)]
    with pytest.raises(InputError, match="without spaces around"):
        Task.from_rows(rows, words={"a": " bad", "b": "good"})


@pytest.mark.parametrize("word", [" bad", "bad ", " ", "\n"])
def test_a_task_made_directly_checks_its_words(word: str) -> None:
    task = Task.from_rows(ROWS)
    with pytest.raises(SpecError, match="without spaces around"):
        dataclasses.replace(task, words={"neg": (word,), "pos": ("good",)})
    with pytest.raises(SpecError, match="'it' stands for both 'neg' and 'pos'"):
        dataclasses.replace(task, words={"neg": ("bad", "it"), "pos": ("it",)})


def test_rows_that_stand_in_two_splits_are_told() -> None:
    apart = Task.from_rows(ROWS, split={"train": 40, "select": 40, "test": 40})
    assert apart.notes == ()
    same = dataclasses.replace(apart, select=apart.train, test=apart.train, notes=("mine",))
    assert same.notes == (
        "mine",
        "40 rows of select also stand in train",
        "40 rows of test also stand in train",
        "40 rows of test also stand in select",
    )
    smaller = same.with_sizes(test=30)
    assert smaller.notes[0] == "mine"
    assert set(smaller.notes[1:]) == {
        "40 rows of select also stand in train",
        "30 rows of test also stand in train",
        "30 rows of test also stand in select",
    }
    assert dataclasses.replace(same, select=apart.select, test=apart.test).notes == ("mine",)


def test_a_label_that_a_split_lacks_is_told() -> None:
    rows = [{"text": f"row {number}", "label": "ab"[number % 2]} for number in range(40)]
    task = Task.from_rows([*rows, {"text": "odd", "label": "c"}], target="label")
    absent = [note for note in task.notes if "no row of label 'c' (1 in all)" in note]
    assert len(absent) == 2
    assert not Task.from_rows(rows, target="label").notes
