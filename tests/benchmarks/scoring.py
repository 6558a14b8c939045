"""Workloads A and C: one row of the table a model and number of threads."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch

from tests.benchmarks import baselines, floor, ours
from tests.benchmarks.measure import Timing, Way, difference, interleaved, seconds, table
from tests.benchmarks.models import Subject
from tests.benchmarks.workloads import Workload, demonstrations, templates_and_examples

MAKERS: dict[str, Callable[..., Workload]] = {
    "A": templates_and_examples,
    "A1": functools.partial(templates_and_examples, mixed=False),
    "C": demonstrations,
}
WHOLE = {"A": (64, 64), "A1": (64, 64), "C": (200, 64)}
PARTS = {  # prompts x examples that take about a minute a repeat with one thread
    ("A", "tiny"): (64, 64),
    ("A", "small"): (20, 24),
    ("A", "base"): (8, 12),
    ("A1", "tiny"): (64, 64),
    ("A1", "small"): (8, 64),
    ("A1", "base"): (3, 32),
    ("C", "tiny"): (20, 64),
    ("C", "small"): (3, 48),
    ("C", "base"): (2, 12),
}
COLUMNS = ("naive", "wide", "sorted", "ours")
HEAD = [
    "family", "size", "threads", "prompts x examples", "tokens naive/wide/sorted/least",
    "naive s", "wide s", "sorted s", "ours s", "floor s",
    "ours: x naive", "x wide", "x sorted", "of floor", "max diff",
]  # fmt: skip
NOTES = """\
naive: one prompt at a time, its examples in one batch padded to the longest of them, logits of all positions
(encoder-decoder models: once an answer, as with labels= and in lm-eval).
wide: the same, padded to the longest of the whole workload (what "naive" is in ../shared/field/speed.md).
sorted: as lm-eval batches: sorted by length, 64 a batch. ours: as the harness asks, tokenisation included
(theirs is not). least: tokens that must run; floor: their linear layers at this machine's matmul rate.
s: processor seconds (by the clock), medians. max diff: greatest difference of scores, nats."""


def ways(subject: Subject, workload: Workload, columns: Sequence[str]) -> dict[str, Way]:
    """The columns of the table as what is run by the clock."""
    groups = [baselines.encode(subject, row) for row in workload.rendered]
    rows = [row for group in groups for row in group]
    answers = baselines.answer_ids(subject, workload.rendered[0][0], workload.answers)
    widest = max(len(row.ids) for row in rows)
    requests = workload.requests()
    warm_up = templates_and_examples(subject, 2, 4, seed=99).requests()
    found: dict[str, Way] = {
        "naive": lambda: functools.partial(baselines.naive, subject, groups, answers),
        "wide": lambda: functools.partial(baselines.naive, subject, groups, answers, widest),
        "sorted": lambda: functools.partial(baselines.sorted_batches, subject, rows, answers),
        "ours": lambda: functools.partial(ours.scores, ours.fresh(subject, warm_up), requests),
    }
    return {name: found[name] for name in columns}


def measure(
    subject: Subject, workload: Workload, *, threads: int, repeats: int, columns: Sequence[str] = COLUMNS
) -> list[str]:
    """One row of the table."""
    torch.set_num_threads(threads)
    width = subject.shape.width
    gemm = {"gemm": lambda: floor.gemm_way(width)}
    timings = interleaved({**ways(subject, workload, columns), **gemm}, repeats)
    rate = floor.rate(timings.pop("gemm"), width)
    groups = [baselines.encode(subject, row) for row in workload.rendered]
    rows = [row for group in groups for row in group]
    widest = max(len(row.ids) for row in rows)
    flops = floor.scoring_flops(subject, rows)
    tokens = (
        baselines.padded_tokens(groups),
        baselines.padded_tokens(groups, widest),
        baselines.sorted_tokens(rows),
        floor.least_tokens(subject, rows),
    )
    mine = timings["ours"]
    apart = max(difference(timing.result, mine.result) for timing in timings.values())
    return [
        subject.family,
        subject.size,
        str(threads),
        f"{len(groups)} x {len(groups[0])}",
        "/".join(f"{count:,}" for count in tokens),
        *(seconds(timings[name]) if name in timings else "-" for name in COLUMNS),
        f"{flops / rate.cpu:.2f} ({flops / rate.wall:.2f})",
        *(_ratio(timings, name) for name in COLUMNS[:-1]),
        f"{mine.cpu * rate.cpu / flops:.2f}",
        f"{apart:.1e}",
    ]


def _ratio(timings: dict[str, Timing], name: str) -> str:
    return f"{timings[name].cpu / timings['ours'].cpu:.2f}" if name in timings else "-"


def report(title: str, rows: list[list[str]]) -> str:
    """The table with what its columns mean."""
    prompts, examples = WHOLE[title]
    return f"## {title} (whole: {prompts} x {examples})\n\n{table(HEAD, rows)}\n\n{NOTES}\n"
