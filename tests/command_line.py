"""Calls of the command line, for the tests of its parts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from autoprompt.cli import app
from tests.conftest import ROOT


def enter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder that holds the starter task ``mine``."""
    monkeypatch.chdir(folder)
    assert call("init", "mine").exit_code == 0
    return folder


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


def result_of(result: Result) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(result.stdout)
    return {name: value for name, value in document.items() if name != "cost"}


def refused_after_note(*words: str) -> str:
    return refused(2, *words, "--quiet")
