"""A GCG step against nanoGCG 0.3.0, which lives in an environment of its own (it needs transformers 4).

Set up: ``python -m venv E; E/bin/pip install torch transformers==4.47.1 nanogcg==0.3.0``.
Problem of ../shared/field/gradient.md, section 6.2: 40 prefix + 20 optimised + 5 + 10 target tokens, W = 256, k = 256.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks.gcg_child import PROBLEM, Outcome, Problem, loss_of
from tests.benchmarks.measure import table
from tests.benchmarks.models import Subject, make_subject
from tests.benchmarks.workloads import Writer

ROOT = Path(__file__).resolve().parents[2]
HEAD = [
    "way", "size", "CPU s a step", "candidates", "candidates / CPU s", "x nanoGCG", "loaded MB", "peak extra MB",
    "check of a loss",
]  # fmt: skip
NOTES = """\
One thread, every repeat of each way in a process of its own, in turn; medians. Candidates: those that re-tokenise to
themselves and were scored. check: greatest difference between a loss the way reported and a plain forward of the
same text, nats a token."""


def report(python: Path, size: str, width: int, repeats: int) -> str:
    """The table; without nanoGCG's environment a note stands in for its row."""
    title = "## B against nanoGCG (GPT-2-like)"
    sides = {"nanogcg": python, "ours": Path(sys.executable)}
    notes = []
    if not python.exists():
        notes.append(f"nanoGCG left out: {python} is not there.")
        del sides["nanogcg"]
    subject = make_subject("gpt2", size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        problem = save(subject, folder, width)
        outcomes: dict[str, list[Outcome]] = {side: [] for side in sides}
        for _ in range(repeats):
            for side in [side for side in sides if side in outcomes]:
                found = _run(sides[side], side, folder)
                if isinstance(found, str):
                    notes.append(f"{side} left out: {found}")
                    del outcomes[side]
                else:
                    outcomes[side].append(found)
        rows = [_row(side, size, found, outcomes, folder, problem) for side, found in outcomes.items()]
    return "\n\n".join([title, table(HEAD, rows), NOTES, *notes]) + "\n"


def save(subject: Subject, folder: Path, width: int) -> Problem:
    """Write model, tokenizer and problem where both sides read them."""
    subject.model.save_pretrained(folder)
    subject.tokenizer.save_pretrained(folder)
    writer = Writer(subject.tokenizer)
    words = writer.singles(75)
    problem = Problem(
        prefix=" ".join(words[:40]),
        trigger=" ".join(words[40:60]),
        after=" ".join(words[60:65]),
        target=" ".join(words[65:]),
        words=writer.single,
        width=width,
        top=256,
    )
    (folder / PROBLEM).write_text(json.dumps(asdict(problem)), "utf-8")
    return problem


def _run(python: Path, side: str, folder: Path) -> Outcome | str:
    """What one process found, or the last line of its complaint."""
    done = subprocess.run(
        [str(python), "-m", "tests.benchmarks.gcg_child", side, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no message"])[-1]
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


def _row(
    side: str,
    size: str,
    found: list[Outcome],
    outcomes: dict[str, list[Outcome]],
    folder: Path,
    problem: Problem,
) -> list[str]:
    rates = {
        name: statistics.median(each.candidates / each.seconds for each in many)
        for name, many in outcomes.items()
    }
    apart = max(abs(each.loss - loss_of(folder, problem, each.text)) for each in found[:1])
    return [
        side,
        size,
        f"{statistics.median(each.seconds for each in found):.2f}",
        f"{statistics.median(each.candidates for each in found):.0f}",
        f"{rates[side]:.1f}",
        f"{rates[side] / rates['nanogcg']:.2f}" if "nanogcg" in rates else "-",
        f"{statistics.median(each.loaded for each in found):.0f}",
        f"{statistics.median(each.extra for each in found):.0f}",
        f"{apart:.1e}",
    ]
