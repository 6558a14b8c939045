"""Runs a search again and again in processes that are killed at random moments; see ``test_resume.py``.

Half of the processes kill themselves before a random line of the core is executed, half are killed from outside after
a random time. Prints the number of processes that died of it.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import optuna  # noqa: F401  imported once here, not in every process

import autoprompt
from autoprompt.models import Failure, LabelReply, LabelRequest, Request
from autoprompt.models.toy import ToyModel
from tests.small import small_space, small_task

CORE = ("api.py", "harness.py", "cache.py", "study.py", "workers.py")
BUDGET, KILLS = 230, 20


class SlowToy(ToyModel):
    """The toy in small batches that take a moment."""

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        return [list(range(i, min(i + 6, len(requests)))) for i in range(0, len(requests), 6)]

    def logprobs(self, requests: Sequence[LabelRequest]) -> list[LabelReply | Failure]:
        time.sleep(0.003)
        return super().logprobs(requests)


def search(folder: Path, strategy: str) -> None:
    autoprompt.optimize(
        small_task(), SlowToy(), BUDGET, space=small_space(), strategy=strategy, seed=5, run_dir=folder
    )


def die_at(line: int) -> None:
    """Kill this process before the given number of lines of the core was executed."""
    left = line

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if os.path.basename(frame.f_code.co_filename) not in CORE:
            return None
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def main(folder: Path, strategy: str) -> None:
    search(folder / "whole", strategy)
    rng = random.Random(strategy)
    died = 0
    for turn in range(KILLS):
        by_line, lines, seconds = turn % 2 == 0, rng.randint(1, 12_000), rng.uniform(0.0, 0.25)
        child = os.fork()
        if child == 0:
            if by_line:
                die_at(lines)
            search(folder / "killed", strategy)
            os._exit(0)
        if not by_line:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        died += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    search(folder / "killed", strategy)
    print(died)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
