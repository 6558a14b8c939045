"""Every example runs as its first lines say, and says what it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, SHARED

SCRIPTS: dict[str, tuple[list[str], str]] = {
    "quickstart.py": ([], "wrote best_prompt.txt"),
    "own_task.py": ([], "verdict"),
    "own_model.py": ([], "verdict"),
    "server.py": ([], "label words are looked for in what the server writes"),
    "few_shot_table.py": (
        ["--models", "bundled:masked", "--tasks", "sst-2", "P17", "--seeds", "1", "--prompts", "3"],
        "| bundled-masked | sst-2 |",
    ),
    "facts.py": (
        [
            *(str(SHARED / "data" / "facts"), "--relations", "P30", "--budget", "100", "--limit-train", "20"),
            *("--limit-select", "20", "--limit-test", "20"),
        ],
        "mean of 1",
    ),
    "projection_table.py": (
        [
            *("--models", "bundled:causal", "--tasks", "sst-2", "--seeds", "1", "--calls", "520"),
            *("--test-rows", "40", "--runs", "cells"),
        ],
        "| bundled:causal | sst-2 | 1 |",
    ),
    "trigger_table.py": (
        [
            *("--models", "bundled:causal", "--tasks", "sst-2", "--seeds", "1", "--calls", "150"),
            *("--test-rows", "40", "--runs", "cells"),
        ],
        "| bundled:causal | sst-2 | 150 |",
    ),
    "template_table.py": (
        [
            *("--models", "bundled:causal", "--tasks", "reasoning/boolean_expressions", "--seeds", "1"),
            *("--methods", "random", "ours", "--prompts", "3", "--test-rows", "20", "--runs", "cells"),
        ],
        "| bundled:causal | reasoning/boolean_expressions | 1 |",
    ),
    "soft_table.py": (
        [
            *(
                "--models",
                "bundled:causal",
                "--tasks",
                "sst-2",
                "--seeds",
                "1",
                "--steps",
                "4",
                "--every",
                "2",
            ),
            *(
                "--methods",
                "peft default",
                "ours, cold",
                "--batch",
                "4",
                "--test-rows",
                "20",
                "--runs",
                "cells",
            ),
        ],
        "| bundled:causal | sst-2 | 1 | 4 |",
    ),
    "soft_qa.py": (
        [
            *("--teaching", "1", "--seeds", "1", "--steps", "2", "--every", "2", "--peft-lr", "0.3"),
            *("--select-rows", "8", "--test-rows", "8"),
        ],
        "| ours as it comes, drawn tokens |",
    ),
}
NEEDS_SHARED = {"few_shot_table.py", "facts.py", "projection_table.py", "soft_table.py", "trigger_table.py"}
NEEDS_PEFT = {"soft_table.py", "soft_qa.py"}


def run(script: str, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / script), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_example_runs(script: str, tmp_path: Path) -> None:
    if script in NEEDS_SHARED and not SHARED.is_dir():
        pytest.skip("needs ../shared, which is not here")
    if script in NEEDS_PEFT:
        pytest.importorskip("peft", reason="what is compared with is not here")
    arguments, promise = SCRIPTS[script]
    done = run(script, arguments, tmp_path)
    assert done.returncode == 0, done.stderr
    assert promise in done.stdout


def test_no_example_is_forgotten() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(SCRIPTS)
