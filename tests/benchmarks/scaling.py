"""Our seconds against the number of prompts and examples, the length of the prefix and the width of the model."""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from autoprompt.models import LabelRequest
from tests.benchmarks import baselines, floor, ours
from tests.benchmarks.measure import interleaved, table
from tests.benchmarks.models import Family, Shape, Subject, make_subject
from tests.benchmarks.workloads import Workload, prefixed

WIDTH, PROMPTS, EXAMPLES, PREFIX = 192, 16, 16, 50
HEAD = ["against", "value", "tokens that must run", "ours CPU s", "floor CPU s", "of floor", "us a token"]


@dataclasses.dataclass(frozen=True)
class Point:
    """One measurement: the quantity, tokens that must run, processor seconds of ours, and those of the floor (by
    the matmul rate of that moment until ``steadied``).
    """

    value: int
    width: int
    tokens: int
    seconds: float
    flops: float
    rate: float

    @property
    def least(self) -> float:
        """Processor seconds of the floor."""
        return self.flops / self.rate


def _subject(family: Family, width: int) -> Subject:
    return make_subject(family, f"d={width}", Shape(4, width, max(1, width // 64), 8192))


def _by_prompts(family: Family, count: int) -> tuple[Subject, Workload]:
    subject = _subject(family, WIDTH)
    return subject, prefixed(subject, count, EXAMPLES, PREFIX)


def _by_examples(family: Family, count: int) -> tuple[Subject, Workload]:
    subject = _subject(family, WIDTH)
    return subject, prefixed(subject, PROMPTS, count, PREFIX)


def _by_prefix(family: Family, length: int) -> tuple[Subject, Workload]:
    subject = _subject(family, WIDTH)
    return subject, prefixed(subject, PROMPTS, 2, length)  # few examples: the prefix is what costs


def _by_width(family: Family, width: int) -> tuple[Subject, Workload]:
    subject = _subject(family, width)
    return subject, prefixed(subject, 4, EXAMPLES, PREFIX)


PANELS: dict[str, tuple[Callable[[Family, int], tuple[Subject, Workload]], tuple[int, ...]]] = {
    "prompts": (_by_prompts, (8, 16, 32, 64, 128)),
    "examples": (_by_examples, (8, 16, 32, 64, 128)),
    "prefix tokens": (_by_prefix, (50, 100, 200, 400, 800)),
    "model width d": (_by_width, (64, 128, 256, 384, 768)),
}


def measure(family: Family, panel: str, repeats: int, values: Sequence[int] = ()) -> list[Point]:
    """The points of one panel, one thread."""
    torch.set_num_threads(1)
    make, given = PANELS[panel]
    found = []
    for value in values or given:
        subject, workload = make(family, value)
        warm_up = prefixed(subject, 1, 4, 20, seed=99).requests()
        way = functools.partial(_prepared, subject, workload, warm_up)
        width = subject.shape.width
        gemm = functools.partial(floor.gemm_way, width)
        timings = interleaved({"ours": way, "gemm": gemm}, repeats)
        rows = baselines.encode(subject, workload.flat)
        tokens, flops = floor.least_tokens(subject, rows), floor.scoring_flops(subject, rows)
        rate = floor.rate(timings["gemm"], width).cpu
        found.append(Point(value, width, tokens, timings["ours"].cpu, flops, rate))
    return found


def _prepared(
    subject: Subject, workload: Workload, warm_up: list[LabelRequest]
) -> Callable[[], torch.Tensor]:
    return functools.partial(ours.scores, ours.fresh(subject, warm_up), workload.requests())


def steadied(panels: dict[str, list[Point]]) -> dict[str, list[Point]]:
    """The points with one matmul rate for each width: the median over all points of that width."""
    rates: dict[int, list[float]] = {}
    for points in panels.values():
        for point in points:
            rates.setdefault(point.width, []).append(point.rate)
    return {
        name: [dataclasses.replace(point, rate=statistics.median(rates[point.width])) for point in points]
        for name, points in panels.items()
    }


def slope(values: Sequence[float], seconds: Sequence[float]) -> float:
    """Least-squares slope of log seconds against log value: 1 is linear."""
    return float(np.polyfit(np.log(values), np.log(seconds), 1)[0])


def report(family: Family, repeats: int, folder: Path) -> str:
    """Table and slopes; the plot is written to ``folder``."""
    panels = steadied({name: measure(family, name, repeats) for name in PANELS})
    rows, slopes = [], []
    for name, points in panels.items():
        for point in points:
            rows.append([
                name, str(point.value), f"{point.tokens:,}", f"{point.seconds:.3f}", f"{point.least:.3f}",
                f"{point.seconds / point.least:.2f}", f"{1e6 * point.seconds / point.tokens:.1f}",
            ])  # fmt: skip
        slopes.append(f"{name}: {_slopes(points)}")
    path = draw(panels, family, folder)
    lines = "\n".join(slopes)
    return f"## Scaling ({family}, 4 layers, one thread)\n\n{table(HEAD, rows)}\n\n{lines}\n\nplot: {path}\n"


def _slopes(points: Sequence[Point]) -> str:
    values = [point.value for point in points]
    mine = slope(values, [point.seconds for point in points])
    least = slope(values, [point.least for point in points])
    tokens = [point.tokens for point in points]
    if max(tokens) == min(tokens):
        return f"slope {mine:.2f} (floor {least:.2f})"
    by_token = slope(tokens, [point.seconds for point in points])
    return f"slope {mine:.2f} (floor {least:.2f}); against tokens that must run {by_token:.2f}"


def draw(panels: dict[str, list[Point]], family: Family, folder: Path) -> Path:
    """Four log-log panels as a PNG."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter

    figure, axes = pyplot.subplots(1, 4, figsize=(15, 4), sharey=False, layout="constrained")
    for axis, (name, points) in zip(axes, panels.items(), strict=True):
        values = [point.value for point in points]
        mine = [point.seconds for point in points]
        axis.loglog(values, mine, "o-", color="#1f5fa8", label="ours")
        axis.loglog(values, [point.least for point in points], "s--", color="#888888", label="floor")
        axis.set_xticks(values, [str(value) for value in values])
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel(name)
        axis.set_title(f"slope {slope(values, mine):.2f}", fontsize=10)
        axis.grid(which="both", alpha=0.25)
        # whole decades, so that a slope of 1 is to be seen as one
        low, high = min(point.least for point in points), max(mine)
        axis.set_ylim(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)))
    axes[0].set_ylabel("CPU seconds a round")
    axes[0].legend(frameon=False)
    figure.suptitle(f"{family}-like, 4 layers, d={WIDTH} where not said otherwise, one thread", fontsize=11)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"scaling-{family}.png"
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path
