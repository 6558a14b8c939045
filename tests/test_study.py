from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoprompt.asks import Score, Scored
from autoprompt.errors import DataError, InputError, StudyMismatch
from autoprompt.prompt import Prompt
from autoprompt.study import Study, read_log, write_atomically
from tests.conftest import ROOT
from tests.small import small_task

TASK = small_task()
HEADER: dict[str, Any] = {
    "format": "autoprompt-study/1", "version": "1", "task": "small", "task_fingerprint": "t1", "model": "./a",
    "model_kind": "causal", "model_fingerprint": "m1", "space": "s", "space_fingerprint": "s1",
    "strategy": {"strategy": "tpe", "batch": 4}, "seed": 0, "budget": "100 calls", "metric": "accuracy",
    "select_size": 12,
}  # fmt: skip


def prompt(name: str) -> Prompt:
    return Prompt(f"{name} {{{{ text }}}} {{{{ answer }}}}", {"good": ("good",)}, {"cue": [name]})


def scored(right: int, missing: int = 0, loss: float = 1.0, tokens: float = 5.0, n: int = 12) -> Scored:
    scores = np.array([1.0] * right + [0.0] * (n - right - missing) + [np.nan] * missing)
    return Scored(scores, np.where(np.isnan(scores), np.nan, loss), ("x",) * n, tokens)


def record(study: Study, *pairs: tuple[Score, Scored], calls: int = 12) -> None:
    study.record([a for a, _ in pairs], [b for _, b in pairs], select=TASK.select, calls=calls)


def whole(name: str, answer: Scored) -> tuple[Score, Scored]:
    return Score(prompt(name), TASK.select, note="n"), answer


def test_trials_are_written_and_read_back(tmp_path: Path) -> None:
    study = Study(tmp_path / "new" / "run", HEADER)
    record(study, whole("ä {{ '\u2028' }}", scored(6)), whole("b", scored(7, loss=0.25, tokens=3.333)))
    record(study, whole("c", scored(0, missing=12)), calls=30)
    logged = read_log(tmp_path / "new" / "run" / "trials.jsonl")
    study.close()
    assert [row["number"] for row in logged] == [0, 1, 2]
    assert [row["round"] for row in logged] == [0, 0, 1]
    assert logged[1]["score"] == round(7 / 12, 6)
    assert (logged[1]["loss"], logged[1]["tokens"], logged[1]["calls"]) == (0.25, 3.33, 12)
    assert (logged[2]["score"], logged[2]["loss"], logged[2]["missing"], logged[2]["calls"]) == (
        None,
        None,
        12,
        30,
    )
    assert study.trials[0].prompt == prompt("ä {{ '\u2028' }}")
    assert study.trials[0].prompt.choices == {"cue": ["ä {{ '\u2028' }}"]}
    assert json.loads((tmp_path / "new" / "run" / "study.json").read_text("utf-8")) == HEADER


def test_the_best_trial() -> None:
    study = Study(None, HEADER)
    assert study.best() is None
    record(study, whole("a", scored(6, loss=1.0)), whole("b", scored(7, loss=2.0)))
    assert study.best() == study.trials[1]
    record(study, whole("c", scored(7, loss=1.9)))
    assert study.best() == study.trials[2]
    record(study, whole("d", scored(7, loss=1.90001, tokens=4)))  # the same loss to 1e-4, but shorter
    assert study.best() == study.trials[3]
    record(study, whole("e", scored(7, loss=1.9, tokens=4)))  # first come
    assert study.best() == study.trials[3]
    assert study.prompts == 5


def test_a_prompt_does_not_win_by_losing_its_hard_examples() -> None:
    study = Study(None, HEADER)
    record(study, whole("a", scored(9)))
    record(study, whole("b", scored(8, missing=3)))  # 8 of 9, but 8 of 12 are sure
    assert study.best() == study.trials[0]
    record(study, whole("c", scored(9, missing=2, loss=0.1)))  # at best better, but not surely
    assert study.best() == study.trials[0]
    record(study, whole("d", scored(10, missing=2)))  # better even if both were wrong
    assert study.best() == study.trials[3]
    record(study, whole("e", scored(0, missing=12)))
    assert study.best() == study.trials[3]


def test_only_a_trial_on_the_select_examples_may_win() -> None:
    study = Study(None, HEADER)
    record(study, whole("a", scored(3)))
    record(study, (Score(prompt("b"), TASK.select[:6]), scored(6, n=6)))
    record(study, (Score(prompt("c"), TASK.train), scored(12)))  # as many, but others
    record(study, (Score(prompt("d"), TASK.select, repeat=1), scored(12)))
    assert [trial.complete for trial in study.trials] == [True, False, False, False]
    record(study, (Score(prompt("e"), TASK.select[::-1]), scored(4)))
    assert study.best() == study.trials[-1]


def test_the_pareto_set() -> None:
    study = Study(None, HEADER)
    figures = [(6, 9.0), (8, 12.0), (7, 5.0), (5, 5.0), (7, 7.0), (3, 2.0), (8, 20.0)]
    record(study, *(whole(str(i), scored(right, tokens=t)) for i, (right, t) in enumerate(figures)))
    assert [trial.number for trial in study.pareto()] == [5, 2, 1]


def test_the_same_rounds_are_replayed_and_not_written_twice(tmp_path: Path) -> None:
    rounds = [[whole("a", scored(6)), whole("b", scored(7))], [whole("c", scored(5))]]
    study = Study(tmp_path, HEADER)
    for pairs in rounds:
        record(study, *pairs)
    study.close()
    before = (tmp_path / "trials.jsonl").read_bytes()
    again = Study(tmp_path, HEADER)
    for pairs in rounds:
        record(again, *pairs)
    assert again.replayed == 3
    assert again.best() == study.best()
    record(again, whole("d", scored(9)))
    again.close()
    after = (tmp_path / "trials.jsonl").read_bytes()
    assert after.startswith(before)
    assert after.count(b"\n") == 4


def test_what_comes_out_differently_replaces_the_rest_of_the_log(tmp_path: Path) -> None:
    study = Study(tmp_path, HEADER)
    record(study, whole("a", scored(6)), whole("b", scored(7)), whole("c", scored(5)))
    study.close()
    again = Study(tmp_path, HEADER)
    record(again, whole("a", scored(6)), whole("x", scored(8)))
    again.close()
    assert [row["text"][0] for row in read_log(tmp_path / "trials.jsonl")] == ["a", "x"]
    assert again.replayed == 1


@pytest.mark.parametrize(
    "damage", [b'{"number": 3, "te', b"\x00\x00\x00", b"\xff\xfe\n", b"[1, 2]\n", b"not json\n{}\n"]
)
def test_a_torn_end_of_the_log_is_cut_off(tmp_path: Path, damage: bytes) -> None:
    study = Study(tmp_path, HEADER)
    record(study, whole("a", scored(6)), whole("b", scored(7)))
    study.close()
    path = tmp_path / "trials.jsonl"
    whole_log = path.read_bytes()
    path.write_bytes(whole_log + damage)
    assert len(read_log(path)) == 2
    assert path.read_bytes() == whole_log + damage
    again = Study(tmp_path, HEADER)
    record(again, whole("a", scored(6)), whole("b", scored(7)))
    record(again, whole("c", scored(8)))
    again.close()
    assert path.read_bytes().startswith(whole_log)
    assert len(read_log(path)) == 3


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("version", "2", 'version: was "1", now "2"'),
        (
            "task_fingerprint",
            "t2",
            'task: was "small" with other content .t1., now "small" with other content .t2.',
        ),
        ("model_fingerprint", "m2", "different model:"),
        ("space_fingerprint", "s2", "different space:"),
        ("strategy", {"strategy": "tpe", "batch": 8}, 'strategy: was .*"batch": 4.*now .*"batch": 8'),
        ("seed", 1, "seed: was 0, now 1"),
        ("budget", "200 calls", 'budget: was "100 calls", now "200 calls"'),
    ],
)
def test_a_changed_call_is_refused_by_name(tmp_path: Path, field: str, value: object, message: str) -> None:
    Study(tmp_path, HEADER).close()
    with pytest.raises(StudyMismatch, match=message) as error:
        Study(tmp_path, {**HEADER, field: value})
    assert "choose another folder" in str(error.value)
    Study(tmp_path, HEADER).close()  # the refusal does not hold the folder


def test_all_changes_are_named_at_once(tmp_path: Path) -> None:
    Study(tmp_path, HEADER).close()
    with pytest.raises(StudyMismatch, match="a different task, seed:"):
        Study(
            tmp_path, {**HEADER, "seed": 3, "task": "other", "task_fingerprint": "t2", "metric": "macro_f1"}
        )


def test_names_and_paths_are_no_identity(tmp_path: Path) -> None:
    Study(tmp_path, HEADER).close()
    Study(tmp_path, {**HEADER, "task": "renamed", "model": "/moved/a", "space": "copy"}).close()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    study = Study(tmp_path, HEADER)
    code = (
        "import json, sys; from pathlib import Path; from autoprompt.study import Study\n"
        "Study(Path(sys.argv[1]), json.loads(sys.argv[2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), json.dumps(HEADER)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "another process is using it" in done.stderr
    with pytest.raises(InputError, match="another process is using it"):
        Study(tmp_path, HEADER)
    study.close()
    Study(tmp_path, HEADER).close()


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be used as a folder"):
        Study(tmp_path / "file", HEADER)
    (tmp_path / "study.json").write_text("{torn")
    with pytest.raises(DataError, match="not the header of a run"):
        Study(tmp_path, HEADER)


def test_writing_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sub" / "file.json"
    write_atomically(path, "old\r\n")
    assert path.read_bytes() == b"old\r\n"

    def no_space(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, "new")
    assert path.read_bytes() == b"old\r\n"
    assert [item.name for item in path.parent.iterdir()] == ["file.json"]
