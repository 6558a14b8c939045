"""The command line: every command, wrong inputs, exit codes, what goes to stdout and what to stderr."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from autoprompt import __version__, catalog
from autoprompt.api import Round
from autoprompt.budget import Budget, Meter
from autoprompt.cli import app
from autoprompt.command import Call, check_output
from autoprompt.console import PlainProgress, share
from autoprompt.describe import listed
from autoprompt.errors import InputError, MissingCapability, MissingDependency, ModelError, TooManyFailures
from autoprompt.models import LabelReply, LabelRequest
from autoprompt.models.toy import ToyModel
from autoprompt.result import Comparison
from autoprompt.specfile import read_spec
from autoprompt.taskfile import TaskForm
from tests.conftest import ROOT

HEAVY = {"torch", "transformers", "optuna", "datasets", "sklearn", "scipy", "numpy", "jinja2", "rich"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own that holds the starter task ``mine``."""
    monkeypatch.chdir(tmp_path)
    assert call("init", "mine").exit_code == 0
    return tmp_path


def call(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), prog_name="autoprompt")


def ok(*words: str) -> Result:
    result = call(*words)
    assert result.exit_code == 0, result.output
    return result


def refused(code: int, *words: str) -> str:
    """What a refused call says on stderr; it must say ``error:``, without a traceback."""
    result = call(*words)
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output
    assert result.stdout == ""
    return result.stderr


def in_process(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "autoprompt", *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def only_run(home: Path) -> Path:
    (run,) = (home / "runs").iterdir()
    return run.relative_to(home)


def trials(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "trials.jsonl").read_text("utf-8").splitlines()]


# --- optimize, resume -----------------------------------------------------------------------------


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


def result_of(result: Result) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(result.stdout)
    return {name: value for name, value in document.items() if name != "cost"}


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
    for budget in ("1000", "1k", "1_000 calls"):
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


def refused_after_note(*words: str) -> str:
    return refused(2, *words, "--quiet")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": "autoprompt-command/1", "arguments": {"task": 1}}']
)
def test_broken_command_file(home: Path, content: str) -> None:
    (home / "run").mkdir()
    (home / "run" / "command.json").write_text(content, "utf-8")
    assert "not a call written by" in refused(2, "resume", "run")


# --- wrong input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("optimize", "mina", "-m", "toy", "-b", "60"), "did you mean 'mine'?"),
        (("optimize", "no/such.yaml", "-m", "toy", "-b", "60"), "no/such.yaml"),
        (("optimize", "mine", "-m", "bundled:nothing", "-b", "60"), "no bundled model 'nothing'"),
        (("optimize", "mine", "-m", "./nothing", "-b", "60"), "no such folder"),
        (("optimize", "mine", "-m", "", "-b", "60"), "the name is empty"),
        (("optimize", "mine", "-m", "toy", "-b", "60", "-s", "sentimant"), "did you mean 'sentiment'?"),
        (("optimize", "mine", "-m", "toy", "-b", "60", "--strategy", "tpee"), "did you mean 'tpe'?"),
        (("optimize", "mine", "-m", "toy", "-b", "0"), "above 0 (got 0)"),
        (("optimize", "mine", "-m", "toy", "-b", "lots"), "cannot read 'lots'"),
        (("optimize", "mine", "-m", "toy", "-b", "5 parsecs"), "unknown unit 'parsecs'"),
        (("optimize", "mine", "-m", "toy", "-b", "19"), "do not cover one full comparison"),
        (("optimize", "mine", "-m", "toy", "-b", "60", "--seed", "-1"), "seed: "),
        (("optimize", "mine", "-m", "toy", "-b", "60", "--workers", "0"), "workers: "),
        (("optimize", "mine", "-m", "toy", "-b", "60", "-o", "best.doc"), "endings: .txt, .jinja, .json"),
        (("optimize", "mine", "-m", "toy", "-b", "60", "-o", "tasks"), "the ending decides"),
        (
            ("optimize", "mine", "-m", "toy", "-b", "60", "-o", "tasks/mine.yaml/x.txt"),
            "is a file, not a folder",
        ),
        (
            ("optimize", "mine", "-m", "toy", "-b", "60", "--run-dir", "tasks/mine.yaml"),
            "is a file, not a folder",
        ),
        (("evaluate", "mine", "-m", "toy", "-p", "{{ txt }} {{ answer }}"), "did you mean 'text'?"),
        (("evaluate", "mine", "-m", "toy", "-p", "no.txt"), "no.txt: no such file"),
        (("evaluate", "mine", "-m", "toy", "-p", "no/prompt"), "no/prompt: no such file"),
        (("evaluate", "mine", "-m", "toy", "-p", "just words"), "{{ answer }} must stand exactly once"),
        (("evaluate", "mine", "-m", "toy", "-p", "long " * 99), "{{ answer }} must stand exactly once"),
        (("evaluate", "mine", "-m", "toy", "--split", "tests"), "did you mean 'test'?"),
        (("evaluate", "mine", "-m", "toy", "--fail-under", "85"), "write 0.85"),
        (("estimate", "mine", "-m", "toy", "-b", "none"), "cannot read 'none'"),
        (("resume", "runs/none"), "no run folder"),
        (("resume", "tasks"), "holds no command.json"),
        (("export", "none", "-o", "x.txt"), "no run folder"),
        (("export", "tasks", "-o", "x.txt"), "no result yet"),
        (("export", "tasks", "-o", "x.pdf"), "the ending decides"),
        (("list", "task"), "did you mean 'tasks'?"),
        (("show", "mina"), "did you mean 'mine'?"),
        (("show", "./tasks/"), "tasks"),
        (("init", "mine"), "already there; nothing was written"),
        (("init", "../mine"), "must be letters, digits"),
    ],
)
def test_wrong_input_is_refused_before_anything_happens(
    home: Path, words: tuple[str, ...], says: str
) -> None:
    before = sorted(home.rglob("*"))
    assert says in refused(2, *words)
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize(
    "words",
    [
        ("optimize", "mine"),
        ("optimise",),
        ("optimize", "mine", "-m", "toy", "-b", "9", "--seed", "x"),
        ("-x",),
    ],
)
def test_usage_errors(words: tuple[str, ...]) -> None:
    result = call(*words)
    assert result.exit_code == 2
    assert "Error" in result.stderr


def test_foreign_file_beside_the_output_is_not_overwritten(home: Path) -> None:
    (home / "package.json").write_text('{"name": "mine"}', "utf-8")
    with pytest.raises(InputError, match="no prompt of ours"):
        check_output(Path("package.txt"))
    check_output(Path("other.txt"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission(home: Path) -> None:
    (home / "locked").mkdir(mode=0o500)
    with pytest.raises(InputError, match="no permission"):
        check_output(Path("locked/best.txt"))


@pytest.mark.parametrize(
    "error",
    [
        ModelError("out of memory", hint="smaller"),
        TooManyFailures("9 of 10 missing"),
        MissingCapability("no log-probabilities"),
        MissingDependency("not installed"),
    ],
)
def test_failed_model_ends_with_1(home: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def broken(self: ToyModel, requests: Sequence[LabelRequest]) -> list[LabelReply]:
        raise error

    monkeypatch.setattr(ToyModel, "logprobs", broken)
    said = refused(1, "optimize", "mine", "-m", "toy", "-b", "60", "-q")
    assert str(error.args[0]) in said


def test_unexpected_errors_keep_their_traceback(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: ToyModel, requests: Sequence[LabelRequest]) -> list[LabelReply]:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(ToyModel, "logprobs", broken)
    result = call("evaluate", "mine", "-m", "toy")
    assert isinstance(result.exception, ZeroDivisionError)


# --- evaluate, estimate, export -------------------------------------------------------------------


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
    ok("export", "run", "-o", "d.jinja")
    scored = json.loads(ok("evaluate", "mine", "-m", "toy", "-p", "d.jinja", "--json").stdout)
    of_run = json.loads(ok("evaluate", "mine", "-m", "toy", "-p", "run", "--json").stdout)
    result = json.loads((home / "run" / "result.json").read_text("utf-8"))
    assert scored == of_run | {"cost": scored["cost"]}
    assert scored["value"] == result["test"]["candidate"]["value"]


# --- list, show, init, help -----------------------------------------------------------------------


def test_list_names_everything(home: Path) -> None:
    text = ok("list").stdout
    for name in (*catalog.names("tasks"), *catalog.names("search_spaces"), *catalog.strategies(), "toy"):
        assert re.search(rf"^  {re.escape(name)}\b", text, re.MULTILINE), name
    assert "mine  What guests wrote, happy or not" in re.sub(" +", "  ", ok("list", "tasks").stdout).replace(
        "  ", " "
    ).replace("mine ", "mine  ")


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


# --- progress -------------------------------------------------------------------------------------


def test_plain_progress_is_seldom(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    progress = PlainProgress(lambda: now[0])
    for second, calls in ((0, 10), (1, 500), (3, 510), (4, 520), (20, 530), (33, 540), (33.5, 990)):
        now[0] = second
        progress.show(Round(calls // 10, 0.5, Meter(calls=calls), Budget(calls=1000)))
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(" · ")[2] for line in lines] == ["0 s", "3 s", "33 s"]
    assert lines[1] == "best 50.0 · 51 prompts · 510/1,000 calls · 3 s"


def test_share_is_of_the_tightest_limit() -> None:
    budget = Budget(calls=100, tokens=1000, seconds=10)
    assert share(Round(1, 0.0, Meter(calls=10, tokens=500, seconds=2), budget)) == 0.5
    assert share(Round(1, 0.0, Meter(calls=10, tokens=500, seconds=20), budget)) == 1.0


def test_live_line_on_a_terminal(home: Path) -> None:
    script = shutil.which("script")
    if script is None:
        pytest.skip("needs the script command")
    command = f"{sys.executable} -m autoprompt optimize mine -m toy -b 60"
    done = subprocess.run(
        [script, "-qec", command, "/dev/null"],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "\x1b[2K" in done.stdout, "the line is redrawn in place"
    assert re.search(r"best \d+\.\d · \d+ prompts? · \d+/60 calls", done.stdout)


def test_call_line_can_be_pasted() -> None:
    typed = Call(task="a b.yaml", model="gpt2?chat", budget="10 min", space="x", workers=2, output="o.txt")
    assert typed.line(Path("r")) == (
        "autoprompt optimize 'a b.yaml' --model 'gpt2?chat' --budget '10 min' --space x "
        "--strategy auto --seed 0 --run-dir r --workers 2 --output o.txt"
    )
