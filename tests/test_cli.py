"""Running, resuming, measuring and exporting by the command line; exit codes, stdout and stderr."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from autoprompt.models import LabelRequest
from autoprompt.models.toy import ToyModel
from autoprompt.result import Comparison
from tests.command_line import (
    call,
    enter,
    in_process,
    ok,
    only_run,
    refused,
    refused_after_note,
    result_of,
    trials,
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own that holds the starter task ``mine``."""
    return enter(tmp_path, monkeypatch)


def test_starter_runs_as_it_is(home: Path) -> None:
    result = ok("optimize", "mine", "-m", "toy", "-b", "200")
    assert [line.split()[0] for line in result.stdout.splitlines()] == [
        "prompt",
        "test",
        "verdict",
        "spent",
        "run",
    ]
    run = only_run(home)
    assert re.fullmatch(r"mine-toy-[0-9a-f]{8}", run.name)
    assert f"run folder {run}" in result.stderr
    best = max(row["score"] for row in trials(run) if row["complete"])
    assert best > trials(run)[0]["score"], "the starter must show that prompts matter"
    assert trials(run)[-1]["calls"] <= 200
    assert (run / "best_prompt.txt").is_file()


def test_same_command_twice_is_one_run(home: Path) -> None:
    first = ok("optimize", "mine", "-m", "toy", "-b", "100", "--json")
    run = only_run(home)
    log = (run / "trials.jsonl").read_bytes()
    second = ok("optimize", "mine", "-m", "toy", "-b", "100", "--json")
    assert only_run(home) == run
    assert (run / "trials.jsonl").read_bytes() == log
    assert result_of(first) == result_of(second)


@pytest.mark.parametrize("change", [("--seed", "1"), ("-b", "110"), ("--strategy", "tpe")])
def test_another_call_gets_another_folder(home: Path, change: tuple[str, str]) -> None:
    ok("optimize", "mine", "-m", "toy", "-b", "100")
    ok("optimize", "mine", "-m", "toy", "-b", "100", *change)
    assert len(list((home / "runs").iterdir())) == 2


def test_edited_task_gets_another_folder(home: Path) -> None:
    ok("optimize", "mine", "-m", "toy", "-b", "60")
    task = home / "tasks" / "mine.yaml"
    task.write_text(task.read_text("utf-8").replace("It was {{", "All in all it was {{"), "utf-8")
    ok("optimize", "mine", "-m", "toy", "-b", "60")
    assert len(list((home / "runs").iterdir())) == 2


def test_budget_written_differently_is_the_same_call(home: Path) -> None:
    for budget in ("100", "0.1k", "1_00 calls"):
        ok("optimize", "mine", "-m", "toy", "-b", budget, "-q")
    assert len(list((home / "runs").iterdir())) == 1


def test_output_is_written_and_scores_the_same(home: Path) -> None:
    result = ok("optimize", "mine", "-m", "toy", "-b", "200", "-o", "out/best.txt")
    assert "wrote     out/best.txt, out/best.json" in result.stdout
    document = json.loads((home / "out" / "best.json").read_text("utf-8"))
    assert (home / "out" / "best.txt").read_text("utf-8") == document["prompt"] + "\n"
    again = json.loads(ok("evaluate", "mine", "-m", "toy", "-p", "out/best.txt", "--json").stdout)
    assert document["prompt"] == document["candidate"]["prompt"], "here the candidate shows its gain"
    assert again["value"] == document["test"]["candidate"]["value"]
    assert again["prompt"] == document["prompt"]


def test_json_is_alone_on_stdout(home: Path) -> None:
    done = in_process("optimize", "mine", "-m", "toy", "-b", "60", "--json", "-o", "best.jinja", cwd=home)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["format"] == "autoprompt-prompt/1"
    assert document["run"]["task"] == "mine"
    assert "best.jinja" in done.stderr
    assert "best " not in done.stderr.replace("best.j", ""), "no progress with --json"


def test_quiet_says_only_the_result(home: Path) -> None:
    result = ok("optimize", "mine", "-m", "toy", "-b", "60", "--quiet")
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 5


def test_plain_progress_where_stderr_is_no_terminal(home: Path) -> None:
    done = in_process("optimize", "mine", "-m", "toy", "-b", "60", cwd=home)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^best \d+\.\d · 1 prompt · 10/60 calls · \d+ s$", done.stderr, re.MULTILINE)
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr


def test_interrupted_run_goes_on_as_if_nothing_had_been(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = result_of(ok("optimize", "mine", "-m", "toy", "-b", "200", "--json", "--run-dir", "whole"))
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        result = call("optimize", "mine", "-m", "toy", "-b", "200", "--run-dir", "part", "-o", "best.txt")
    assert result.exit_code == 130
    assert "autoprompt resume part" in result.stderr
    assert "everything that was answered is kept" in result.stderr
    assert "Traceback" not in result.output
    assert not (home / "best.txt").exists(), "an unfinished run exports nothing"
    kept = trials(home / "part")
    assert 0 < len(kept) < len(trials(home / "whole"))
    assert "no result yet (interrupted)" in refused(2, "export", "part", "-o", "x.txt")
    assert "interrupted" in ok("show", "part").stdout
    resumed = ok("resume", "part", "--json")
    assert result_of(resumed) == whole
    assert trials(home / "part")[: len(kept)] == kept
    assert (home / "part" / "trials.jsonl").read_bytes() == (home / "whole" / "trials.jsonl").read_bytes()
    assert (home / "best.txt").is_file(), "resume repeats the whole call, the output included"


def stop_after(patch: pytest.MonkeyPatch, calls: int) -> None:
    """Ctrl-C in the middle of the model's work."""
    answer, left = ToyModel.logprobs, [calls]

    def logprobs(self: ToyModel, requests: Sequence[LabelRequest]) -> list[Any]:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return list(answer(self, requests))

    patch.setattr(ToyModel, "logprobs", logprobs)


def test_interrupted_before_the_first_trial(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 0)
        result = call("optimize", "mine", "-m", "toy", "-b", "100", "--run-dir", "part")
    assert result.exit_code == 130
    assert "autoprompt resume part" in result.stderr
    ok("resume", "part")


def test_interrupted_in_the_final_measurement(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Comparison, "of", stopped)
        result = call("optimize", "mine", "-m", "toy", "-b", "100", "--run-dir", "part")
    assert result.exit_code == 130
    assert "autoprompt resume part" in result.stderr
    assert "status    interrupted" in ok("show", "part").stdout
    assert "no result yet (interrupted)" in refused(2, "export", "part", "-o", "x.txt")
    ok("resume", "part")
    assert "status    budget" in ok("show", "part").stdout


def test_resume_works_from_any_folder(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    ok("optimize", "mine", "-m", "toy", "-b", "60")
    run = home / only_run(home)
    log = (run / "trials.jsonl").read_bytes()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    os.chdir(elsewhere)
    result = ok("resume", str(run))
    assert f"read from {home}" in result.stderr
    assert (run / "trials.jsonl").read_bytes() == log
    assert not list(elsewhere.iterdir())


def test_a_call_that_began_no_run_is_not_what_resume_repeats(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = call("optimize", "mine", "-m", "toy", "-b", "200", "--strategy", "gradient", "--run-dir", "run")
    assert failed.exit_code == 1
    assert "gives no gradients" in failed.stderr
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        call("optimize", "mine", "-m", "toy", "-b", "200", "--run-dir", "run")
    assert result_of(ok("resume", "run", "--json"))["status"] in ("budget", "complete")


def test_command_is_kept(home: Path) -> None:
    ok("optimize", "mine", "-m", "toy", "-b", "60", "--seed", "3", "--run-dir", "my run")
    kept = json.loads((home / "my run" / "command.json").read_text("utf-8"))
    assert kept["folder"] == str(home)
    assert kept["arguments"]["seed"] == 3
    assert kept["command"].endswith("--strategy auto --seed 3 --run-dir 'my run'")


def test_folder_of_another_run_is_refused_and_untouched(home: Path) -> None:
    ok("optimize", "mine", "-m", "toy", "-b", "60", "--run-dir", "run")
    before = {path.name: path.read_bytes() for path in (home / "run").iterdir() if path.name != "answers.db"}
    said = refused_after_note("optimize", "mine", "-m", "toy", "-b", "80", "--run-dir", "run")
    assert "different budget" in said
    after = {path.name: path.read_bytes() for path in (home / "run").iterdir() if path.name != "answers.db"}
    assert after == before


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": "autoprompt-command/1", "arguments": {"task": 1}}']
)
def test_broken_command_file(home: Path, content: str) -> None:
    (home / "run").mkdir()
    (home / "run" / "command.json").write_text(content, "utf-8")
    assert "not a call written by" in refused(2, "resume", "run")


def test_a_prompt_file_that_is_not_there_is_called_that(home: Path) -> None:
    (home / "best_prompt.txt").write_text("{{ text }} It was {{ answer }}\n", "utf-8")
    said = refused(2, "evaluate", "mine", "-m", "toy", "--prompt", "best_prompt.tx")
    assert "best_prompt.tx: no such file (did you mean 'best_prompt.txt'?)" in said


def test_evaluate(home: Path) -> None:
    manual = ok("evaluate", "mine", "-m", "toy")
    assert re.fullmatch(r"accuracy \d+\.\d \[.*\] \(n=20\) on test\n", manual.stdout)
    same = ok("evaluate", "mine", "-m", "toy", "--prompt", "{{ text }} It was {{ answer }}")
    assert same.stdout == manual.stdout
    document = json.loads(ok("evaluate", "mine", "-m", "toy", "--split", "select", "--json").stdout)
    assert (document["split"], document["n"], document["metric"]) == ("select", 10, "accuracy")
    assert document["interval"][0] <= document["value"] <= document["interval"][1]


def test_fail_under(home: Path) -> None:
    value = json.loads(ok("evaluate", "mine", "-m", "toy", "--json").stdout)["value"]
    assert 0.5 < value < 1
    ok("evaluate", "mine", "-m", "toy", "--fail-under", str(value))
    result = call("evaluate", "mine", "-m", "toy", "--fail-under", "1", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["value"] == value
    assert "is below 100.00" in result.stderr


def test_estimate(home: Path) -> None:
    text = ok("estimate", "mine", "-m", "toy", "-b", "200").stdout
    assert [line.split()[0] for line in text.splitlines()] == ["speed", "search", "test", "reach"]
    document = json.loads(ok("estimate", "mine", "-m", "toy", "-b", "200", "--json").stdout)
    assert (document["calls"], document["test_calls"], document["prompts"]) == (200, 40, 20)


def test_export(home: Path) -> None:
    ok("optimize", "mine", "-m", "toy", "-b", "200", "--run-dir", "run")
    for name, files in (
        ("a.txt", ["a.json", "a.txt"]),
        ("b.messages.json", ["b.messages.json"]),
        ("c.json", ["c.json"]),
    ):
        ok("export", "run", "-o", f"out/{name}")
        assert sorted(path.name for path in (home / "out").iterdir()) == files
        shutil.rmtree(home / "out")
    ok("export", "run", "-o", "short.json", "--shortest")
    short, whole = (
        json.loads((home / name).read_text("utf-8")) for name in ("short.json", "run/result.json")
    )
    wanted = whole["prompt"] if whole["shortest"] is None else whole["shortest"]["prompt"]
    assert short["prompt"] == wanted
    ok("export", "run", "-o", "d.jinja")
    scored = json.loads(ok("evaluate", "mine", "-m", "toy", "-p", "d.jinja", "--json").stdout)
    of_run = json.loads(ok("evaluate", "mine", "-m", "toy", "-p", "run", "--json").stdout)
    result = json.loads((home / "run" / "result.json").read_text("utf-8"))
    assert scored == of_run | {"cost": scored["cost"]}
    assert scored["value"] == result["test"]["candidate"]["value"]


def test_init_does_not_hide_what_ships(tmp_path: Path) -> None:
    from autoprompt.errors import InputError
    from autoprompt.starter import write_starter

    with pytest.raises(InputError, match="a shipped task has this name"):
        write_starter("reviews", tmp_path)
    assert not list(tmp_path.iterdir())
