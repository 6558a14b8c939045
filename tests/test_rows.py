"""Rows from files and saved datasets: every format, and what every broken file says."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from autoprompt.errors import DataError
from autoprompt.rows import read_table
from autoprompt.task import Task
from tests.test_task import ROWS, complaint, write_rows, write_task


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_every_format_gives_the_same_task(tmp_path: Path, ending: str) -> None:
    write_rows(tmp_path / f"d.{ending}", ROWS)
    task = Task.load(write_task(tmp_path, f"{{source: d.{ending}, columns: {{text: text}}, target: label}}"))
    wanted = Task.from_rows(
        ROWS, fields=["text"], words={"neg": "bad", "pos": "good"}, prompt="{{ text }} It was {{ answer }}."
    )
    assert task.fingerprint == wanted.fingerprint
    assert task == wanted
    assert task.seed_prompt.words == {"neg": ("bad",), "pos": ("good",)}
    assert (task.name, task.metric, wanted.name) == ("mine", "accuracy", "rows")


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    path = write_task(tmp_path, "{source: d.jsonl, target: label}")
    assert "d.jsonl: no such file" in complaint(path)
    (tmp_path / "d.jsonl").write_bytes(
        b'{"text": "a", "label": "pos"}\n{"text": "caf\xe9", "label": "pos"}\n'
    )
    assert complaint(path).startswith("d.jsonl:2: not UTF-8 (byte 0xe9 at offset 43)")
    (tmp_path / "d.jsonl").write_text('{"text": "a", "label": "pos"}\n{"text": }\n')
    assert complaint(path).startswith("d.jsonl:2: not JSON")
    (tmp_path / "d.jsonl").write_text('{"text": "a", "label": "pos"}\n{"label": "pos"}\n')
    assert complaint(path).startswith("d.jsonl:2: no column 'text' for field 'text'; columns: label")
    (tmp_path / "d.jsonl").write_text("\n\n")
    assert "d.jsonl: holds no rows" in complaint(path)
    path = write_task(tmp_path, "{source: d.csv, target: label}")
    (tmp_path / "d.csv").write_text('text,label\n"two\nlines",pos\na,b,c\n')
    assert complaint(path).startswith("d.csv:4: ragged: 3 cells where the header has 2 (text, label)")
    (tmp_path / "d.csv").write_text('text,label\n"open,pos\n')
    assert complaint(path).startswith("d.csv:2: not readable as csv")
    (tmp_path / "d.csv").write_text("text,text\na,b\n")
    assert "column names must differ" in complaint(path)
    (tmp_path / "d.csv").write_text(",text,label\n0,a,b\n")
    assert "(got ['', 'text', 'label'])\n  hint: pandas writes its row numbers so" in complaint(path)
    (tmp_path / "d.xlsx").write_text("x")
    assert "unknown kind of file '.xlsx'" in complaint(
        write_task(tmp_path, "{source: d.xlsx, target: label}")
    )
    (tmp_path / "d.parquet").write_text("x")
    assert "not readable as parquet" in complaint(write_task(tmp_path, "{source: d.parquet, target: label}"))


def test_a_file_per_split_and_a_byte_order_mark(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", ROWS[:60])
    write_rows(tmp_path / "b.csv", ROWS[60:])
    (tmp_path / "b.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "b.csv").read_bytes())
    task = Task.load(
        write_task(tmp_path, "{source: {train: a.jsonl, test: b.csv}, columns: {text: text}, target: label}")
    )
    assert [e.fields["text"] for e in task.test] == [row["text"] for row in ROWS[60:]]
    assert len(task.train) == len(task.select) == 30


def test_broken_characters_are_noted() -> None:
    task = Task.from_rows([*ROWS, {"text": "caf\ufffd", "label": "pos", "score": 1}])
    assert task.notes == ("1 rows hold U+FFFD, the sign of a wrongly decoded character",)


def test_a_folder_saved_by_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
    )
    rows = [{"sentence": row["text"], "label": int(row["label"] == "pos")} for row in ROWS]
    parts = {"train": rows[:60], "validation": rows[60:80], "test": rows[80:]}
    datasets.DatasetDict(
        {name: datasets.Dataset.from_list(part, features=features) for name, part in parts.items()}
    ).save_to_disk(str(tmp_path / "saved"))
    task = Task.load(write_task(tmp_path, "{source: saved, columns: {text: sentence}, target: label}"))
    assert [len(part) for part in (task.train, task.select, task.test)] == [60, 20, 40]
    assert {e.target for e in task.test} == {"neg", "pos"}  # class numbers became names
    path = write_task(tmp_path, "{source: saved, columns: {text: text}, target: label}")
    assert complaint(path).startswith(
        "saved[train] row 1: no column 'text' for field 'text'; columns: sentence, label"
    )
    path = write_task(
        tmp_path, "{source: saved, splits: {train: trian}, columns: {text: sentence}, target: label}"
    )
    assert "no split 'trian' for train (did you mean 'train'?)" in complaint(path)
    (tmp_path / "other").mkdir()
    assert "not one saved by datasets" in complaint(write_task(tmp_path, "{source: other, target: label}"))
    datasets.Dataset.from_list(rows, features=features).save_to_disk(str(tmp_path / "one"))
    path = write_task(
        tmp_path, "{source: one, splits: {train: train}, columns: {text: sentence}, target: label}"
    )
    assert len(Task.load(path).test) == 60
    path = write_task(
        tmp_path, "{source: one, splits: {test: test}, columns: {text: sentence}, target: label}"
    )
    assert complaint(path).startswith("data.splits is for datasets with named splits, which one is not")


def test_a_dataset_that_cannot_be_reached_says_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    message = complaint(write_task(tmp_path, "{source: nobody/nothing, target: label}"))
    assert "dataset 'nobody/nothing' could not be loaded" in message
    assert "save_to_disk" in message


def test_a_tab_separated_cell_may_start_with_a_quotation_mark(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text\tlabel\n" opening only\t1\nother\t0\nclosing "\t1\n', "utf-8")
    rows = read_table(tmp_path / "a.tsv")
    assert [row.values["text"] for row in rows] == ['" opening only', "other", 'closing "']


def test_a_cell_may_be_longer_than_the_csv_module_allows(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    long = "x" * (limit + 1)
    (tmp_path / "a.csv").write_text(f"text,label\n{long},1\n", "utf-8")
    (tmp_path / "a.tsv").write_text(f"text\tlabel\n{long}\t1\n", "utf-8")
    for name in ("a.csv", "a.tsv"):
        assert read_table(tmp_path / name)[0].values["text"] == long
        assert csv.field_size_limit() == limit
    (tmp_path / "a.csv").write_text(f"text,label\n{long},1,2\n", "utf-8")
    with pytest.raises(DataError, match="ragged"):
        read_table(tmp_path / "a.csv")
    assert csv.field_size_limit() == limit


def test_rows_may_be_read_once_and_hold_numbers_of_numpy() -> None:
    texts = [(f"t{i}", i % 2) for i in range(40)]
    plain = Task.from_rows([{"text": text, "label": label} for text, label in texts])
    assert Task.from_rows({"text": text, "label": label} for text, label in texts) == plain  # type: ignore[arg-type]
    file = io.StringIO("text,label\n" + "".join(f"{text},{label}\n" for text, label in texts))
    assert Task.from_rows(csv.DictReader(file)) == plain  # type: ignore[arg-type]
    for kind in (np.int64, np.float32):
        rows = [{"text": np.str_(text), "label": kind(label)} for text, label in texts]
        assert Task.from_rows(rows, labels=np.arange(2).astype(kind).tolist()) == plain
        assert Task.from_rows(rows, words={kind(0): "bad", kind(1): "good"}).labels == ("0", "1")
    assert Task.from_rows([{"text": t, "label": np.bool_(n)} for t, n in texts]).labels == ("false", "true")
    with pytest.raises(DataError, match=r"row 1: must be a dictionary \(got str\)\n.*to_dict"):
        Task.from_rows(["text", "label"])  # type: ignore[list-item]


@pytest.mark.parametrize("setting", ["splits: {test: held-out}", "config: en", "revision: main"])
def test_settings_of_datasets_are_refused_for_files(setting: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "d.jsonl", ROWS)
    for source in ("d.jsonl", "{train: d.jsonl}"):
        path = write_task(
            tmp_path, f"{{source: {source}, {setting}, columns: {{text: text}}, target: label}}"
        )
        assert complaint(path).startswith(
            f"data.{setting.partition(':')[0]} is for datasets with named splits, which d.jsonl is not"
        )
