"""Progress: a live line on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autoprompt.api import Round
from autoprompt.budget import Budget, Meter
from autoprompt.console import PlainProgress, share
from tests.command_line import (
    enter,
)
from tests.conftest import ROOT


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own that holds the starter task ``mine``."""
    return enter(tmp_path, monkeypatch)


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
