"""Law 2: a run that is killed at random moments and started again ends like one that was not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autoprompt.study import read_log
from tests.conftest import ROOT
from tests.killing import BUDGET, KILLS


def document(folder: Path) -> dict[str, Any]:
    """The result without what resuming may change: time, and how much came from the cache."""
    found: dict[str, Any] = json.loads((folder / "result.json").read_text("utf-8"))
    for cost in found["cost"].values():
        del cost["seconds"], cost["cached"]
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
@pytest.mark.parametrize("strategy", ["random_search", "tpe"])
def test_a_run_killed_at_random_moments_ends_like_one_that_was_not(tmp_path: Path, strategy: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.killing", str(tmp_path), strategy],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= KILLS // 4, "hardly any process was killed in time"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert (killed / "trials.jsonl").read_bytes() == (whole / "trials.jsonl").read_bytes()
    assert (killed / "best_prompt.txt").read_bytes() == (whole / "best_prompt.txt").read_bytes()
    assert document(killed) == document(whole)
    trials = read_log(killed / "trials.jsonl")
    assert len(trials) == BUDGET // 12
    assert max(trial["calls"] for trial in trials) == document(killed)["cost"]["search"]["calls"] <= BUDGET
    assert document(killed)["status"] == "budget"
