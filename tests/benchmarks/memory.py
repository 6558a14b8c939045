"""Peak memory over the loaded model, each figure in a process of its own.

``python -m tests.benchmarks.memory gpt2 small A ours 8 16`` prints one figure as JSON.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tests.benchmarks.measure import table

_STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")
HEAD = [
    "family", "size", "workload", "prompts x examples", "way", "weights MB", "loaded MB", "peak extra MB",
    "peak / loaded",
]  # fmt: skip
NOTES = """\
loaded: resident set with the model, the tokenizer, the texts of the workload and all libraries in memory, before the
first forward; peak extra: how much higher it rose from then on. B: a step, candidates x examples;
naive: AutoPrompt's loop. weights: the parameters alone."""


@dataclass(frozen=True)
class Peak:
    """Megabytes."""

    weights: float
    loaded: float
    extra: float


def resident() -> float:
    """Resident set now, MB."""
    return _status("VmRSS")


def reset_peak() -> None:
    """Forget the peak so far.

    ``ru_maxrss`` cannot: in a child process it begins with what its parent had when it was started.
    """
    RESET.write_text("5")


def peak() -> float:
    """Highest resident set since ``reset_peak``, MB."""
    return _status("VmHWM")


def _status(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", _STATUS.read_text("ascii"))
    assert found is not None
    return int(found[1]) / 1024


def measure(family: str, size: str, name: str, column: str, prompts: int, examples: int) -> Peak:
    """Run one way of a workload in this process."""
    import torch

    from tests.benchmarks import gradient, scoring
    from tests.benchmarks.models import KINDS, make_subject
    from tests.benchmarks.workloads import gradient_step

    torch.set_num_threads(1)
    (known,) = (each for each in KINDS if each == family)
    subject = make_subject(known, size)
    weights = sum(each.numel() * each.element_size() for each in subject.model.parameters()) / 2**20
    if name == "B":
        step = gradient_step(subject, gradient.ORDERS[0], prompts, examples)
        both = (
            ("gradient ours", "candidates ours") if column == "ours" else ("gradient all", "candidates naive")
        )
        ways = [way for each, way in gradient.ways(subject, step).items() if each in both]
    else:
        workload = scoring.MAKERS[name](subject, prompts, examples)
        ways = [scoring.ways(subject, workload, [column])[column]]
    loaded = resident()
    reset_peak()
    for way in ways:
        way()()
    return Peak(weights, loaded, peak() - loaded)


def report(
    names: Sequence[str],
    families: Sequence[str],
    size: str,
    prompts: Sequence[int],
    examples: int,
    columns: Sequence[str],
) -> str:
    """The table; every row comes from a process of its own."""
    rows = []
    for family in families:
        for name in names:
            for column in columns:
                for count in prompts:
                    found = _apart(family, size, name, column, count, examples)
                    cells = [f"{value:.0f}" for value in (found.weights, found.loaded, found.extra)]
                    times = f"{(found.loaded + found.extra) / found.loaded:.2f}"
                    rows.append([family, size, name, f"{count} x {examples}", column, *cells, times])
                    print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    return f"## Memory\n\n{table(HEAD, rows)}\n\n{NOTES}\n"


def _apart(family: str, size: str, name: str, column: str, prompts: int, examples: int) -> Peak:
    given = [family, size, name, column, str(prompts), str(examples)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.memory", *given],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """One figure."""
    family, size, name, column, prompts, examples = sys.argv[1:]
    print(json.dumps(asdict(measure(family, size, name, column, int(prompts), int(examples)))))


if __name__ == "__main__":
    main()
