"""Seconds, interleaved: every way once, then every way again, so that a busy minute of the machine hits all alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Way = Callable[[], Callable[[], torch.Tensor]]
"""Prepares (outside the clock) what is then run by the clock and returns numbers to compare."""


@dataclass(frozen=True)
class Timing:
    """Medians over the repeats. ``cpu``: processor seconds, all threads together; ``wall``: seconds by the clock;
    ``result``: of the last repeat.
    """

    cpu: float
    wall: float
    result: torch.Tensor


def interleaved(ways: Mapping[str, Way], repeats: int) -> dict[str, Timing]:
    """Run each way ``repeats`` times; every repeat begins with another way."""
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, torch.Tensor] = {}
    names = list(ways)
    for repeat in range(repeats):
        turn = repeat % len(names)
        for name in names[turn:] + names[:turn]:
            run = ways[name]()
            gc.collect()
            at_cpu, at_wall = time.process_time(), time.perf_counter()
            results[name] = run()
            cpu[name].append(time.process_time() - at_cpu)
            wall[name].append(time.perf_counter() - at_wall)
    return {
        name: Timing(statistics.median(cpu[name]), statistics.median(wall[name]), results[name])
        for name in names
    }


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table with columns of even width; all but the first two columns are set to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: list[str]) -> str:
        padded = (
            cell.ljust(width) if at < 2 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if at < 2 else "-" * (width - 1) + ":" for at, width in enumerate(widths)]
    return "\n".join([line(head), line(rule), *map(line, rows)])


def seconds(timing: Timing) -> str:
    """Processor seconds (seconds by the clock)."""
    return f"{timing.cpu:.2f} ({timing.wall:.2f})"


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Greatest difference between two [N, C] scores, each relative to its own first answer, nats."""
    return float(((one - one[:, :1]) - (other - other[:, :1])).abs().max())
