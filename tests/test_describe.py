"""What ``list``, ``show``, ``init`` and ``--help`` say, and that listing is cheap."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from autoprompt import __version__, catalog
from autoprompt.describe import listed, shown
from autoprompt.specfile import read_spec
from autoprompt.taskfile import TaskForm
from tests.command_line import (
    enter,
    in_process,
    ok,
    refused,
    trials,
)
from tests.conftest import ROOT

HEAVY = {"torch", "transformers", "optuna", "datasets", "sklearn", "scipy", "numpy", "jinja2", "rich"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own that holds the starter task ``mine``."""
    return enter(tmp_path, monkeypatch)


def test_list_names_everything(home: Path) -> None:
    text = ok("list").stdout
    for name in (*catalog.names("tasks"), *catalog.names("search_spaces"), *catalog.strategies(), "toy"):
        assert re.search(rf"^  {re.escape(name)}\b", text, re.MULTILINE), name
    assert re.search(r"^  mine +What guests wrote, happy or not$", ok("list", "tasks").stdout, re.MULTILINE)


def test_titles_are_those_of_the_files() -> None:
    assert dict(listed("tasks")) == {
        name: read_spec(catalog.find("tasks", name), TaskForm).title for name in catalog.names("tasks")
    }
    assert all(title for kind in ("spaces", "strategies") for _, title in listed(kind))


def test_list_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom autoprompt.cli import app\n"
        "try:\n    app(['list'])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"print('heavy:', *sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "heavy:"


def test_show_task_and_space_of_one_name(home: Path) -> None:
    text = ok("show", "mine").stdout
    for part in ("classification, measured by accuracy", "happy: good", "{{ text }} It was {{ answer }}"):
        assert part in text
    assert "splits    train 10, select 10, test 20" in text
    assert "540 prompts" in text
    assert '"Overall feeling:"' in text
    assert "tied" in text
    assert "2 of them" in text
    by_path = ok("show", "tasks/mine.yaml").stdout + "\n" + ok("show", "search_spaces/mine.yaml").stdout
    assert by_path.replace("(tasks", f"({home}/tasks").replace("(search", f"({home}/search") == text


@pytest.mark.parametrize("name", [*catalog.names("tasks"), *catalog.names("search_spaces")])
def test_show_what_ships(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert name in ok("show", name).stdout


@pytest.mark.parametrize("name", catalog.strategies())
def test_show_strategy(name: str) -> None:
    text = ok("show", name).stdout
    assert dict(listed("strategies"))[name] in text
    assert "hyper-parameters and their defaults:" in text


def test_show_strategy_defaults() -> None:
    text = re.sub(" +", " ", ok("show", "racing").stdout)
    assert "inner tpe (Strategy)" in text
    assert "alpha 0.1 (float)" in text


def test_show_run(home: Path) -> None:
    ok("optimize", "mine", "-m", "toy", "-b", "100", "--run-dir", "run")
    text = ok("show", "run").stdout
    assert "status    budget" in text
    assert "100 calls, seed 0" in text
    best = max(row["score"] for row in trials(home / "run") if row["complete"])
    assert f"\n1. {100 * best:5.1f}  " in text


def test_init_refuses_to_overwrite_any_of_its_files(home: Path) -> None:
    (home / "search_spaces" / "other.yaml").write_text("mine", "utf-8")
    assert "search_spaces" in refused(2, "init", "other")
    assert not (home / "tasks" / "other.yaml").exists()
    assert (home / "search_spaces" / "other.yaml").read_text("utf-8") == "mine"


def test_version_and_help() -> None:
    assert ok("--version").stdout == f"autoprompt {__version__}\n"
    for words in ((), ("optimize",), ("evaluate",), ("list",)):
        text = " ".join(ok(*words, "--help").stdout.split())
        assert (
            "0 ok; 1 the run or the model failed; 2 wrong input; 3 below --fail-under; 130 interrupted"
            in text
        )


def test_module_is_the_command(tmp_path: Path) -> None:
    done = in_process("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"autoprompt {__version__}\n")
    wrong = in_process("show", "nothing-at-all", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: nothing named 'nothing-at-all'")


def test_a_space_with_token_slots_is_told(tmp_path: Path) -> None:
    path = tmp_path / "trigger.yaml"
    slot = "{tokens: {n: 3, shortest: 2, longest: 4, matching: '[a-z]+', ban: [film], init: was it so}}"
    path.write_text(
        f"template: '{{{{ text }}}} [[ trigger ]] {{{{ answer }}}}'\nslots: {{trigger: {slot}}}\n", "utf-8"
    )
    told = shown(str(path))
    assert (
        '2 to 4 tokens of the model\'s vocabulary, policy readable, from "was it so", matching [a-z]+' in told
    )
    assert "without film" in told
    assert "1 prompts, and the tokens of the token slots" in told


def test_show_a_run_says_which_prompts_hold_rows_and_leaves_out_those_beside(home: Path) -> None:
    ok("optimize", "mine", "-m", "toy", "-b", "100", "--run-dir", "run")
    lines = trials(home / "run")
    last = [row for row in lines if row["complete"]][-1]
    more = [
        {**last, "number": 900, "key": "a", "score": 1.5, "text": "beside", "beside": True},
        {**last, "number": 901, "key": "b", "score": 1.25, "text": "rows", "soft": {"trigger": {"rows": 3}}},
    ]
    with (home / "run" / "trials.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in more)
    first, second = re.findall(r"^[12]\. .*", ok("show", "run").stdout, re.MULTILINE)
    assert re.fullmatch(r"1\. 125.0  rows  \(.*\)  with rows in place of trigger", first)
    assert "rows in place" not in second


@pytest.mark.parametrize("content", ["{}", "{", "[]", '{"task": 1}'])
def test_show_a_folder_of_somebody_else(content: str, home: Path) -> None:
    (home / "other").mkdir()
    (home / "other" / "study.json").write_text(content, "utf-8")
    assert "study.json" in refused(2, "show", "other")


def test_what_an_editor_leaves_beside_a_task_is_no_task(home: Path) -> None:
    (home / "tasks" / ".#mine.yaml").symlink_to("nowhere")  # Emacs, while a file is being edited
    (home / "tasks" / "._mine.yaml").write_bytes(b"\x00\x05")
    (home / "tasks" / "old.yaml").mkdir()
    before = ok("list", "tasks").stdout
    assert "mine" in before
    assert "old" not in before.split()
    assert ".#" not in before
    assert "._" not in before
