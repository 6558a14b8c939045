"""Wrong input is refused before anything happens, and a call is kept as it was typed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

import autoprompt
from autoprompt.command import Call, check_output
from autoprompt.errors import InputError, MissingCapability, MissingDependency, ModelError, TooManyFailures
from autoprompt.models import LabelReply, LabelRequest
from autoprompt.models.toy import ToyModel
from tests.command_line import (
    call,
    enter,
    ok,
    refused,
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own that holds the starter task ``mine``."""
    return enter(tmp_path, monkeypatch)


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
        (("evaluate", "mine", "-m", "toy", "-p", "just words"), "a template with {{ answer }}"),
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


def test_call_line_can_be_pasted() -> None:
    typed = Call(task="a b.yaml", model="gpt2?chat", budget="10 min", space="x", workers=2, output="o.txt")
    assert typed.line(Path("r")) == (
        "autoprompt optimize 'a b.yaml' --model 'gpt2?chat' --budget '10 min' --space x "
        "--strategy auto --seed 0 --run-dir r --workers 2 --output o.txt"
    )


def test_a_call_that_does_not_fit_a_run_from_python_is_not_kept_as_its_own(home: Path) -> None:
    autoprompt.optimize("mine", "toy", 100, run_dir="run")
    assert "different budget" in refused(
        2, "optimize", "mine", "-m", "toy", "-b", "150", "--run-dir", "run", "-q"
    )
    assert not (home / "run" / "command.json").exists()
    ok("optimize", "mine", "-m", "toy", "-b", "100", "--run-dir", "run")
    ok("resume", "run")
