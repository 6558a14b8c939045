"""Workload B: one gradient step, as AutoPrompt makes it and as we do."""

from __future__ import annotations

import dataclasses
import functools

import torch

from autoprompt.models import GradientRequest, OpenModel
from tests.benchmarks import baselines, floor, ours
from tests.benchmarks.baselines import Row
from tests.benchmarks.measure import Timing, Way, difference, interleaved, seconds, table
from tests.benchmarks.models import Subject
from tests.benchmarks.workloads import POSITIONS, SLOT, Step, gradient_step, templates_and_examples

ORDERS = ("examples first", "trigger first")
WHOLE = 128
PARTS = {"tiny": 128, "mini": 24, "small": 24, "base": 4}
TOP = 128
HEAD = [
    "family", "size", "order", "threads", "candidates x examples",
    "gradient: all s", "ours s", "floor s", "x all", "of floor",
    "candidates: naive s", "ours s", "floor s", "x naive", "of floor",
    "step: x AutoPrompt", "x with 128", "max diff gradient", "scores",
]  # fmt: skip
NOTES = """\
gradient: by a slot of 10 positions over the examples, with the first-order estimates over the vocabulary and its
128 best a position. all: backward through all parameters on the whole batch, as AutoPrompt does; ours: gradients()
and first_order(), after a step with another trigger on the same examples. candidates: single-token substitutions;
naive: one at a time on all examples, padded to the longest, logits of all positions, those of the answer picked by
a mask over all of them (AutoPrompt's way). step: gradient and candidates together, as many candidates as were run;
with 128: with the seconds a candidate takes each way times 128 (for ours too high: 128 share more than fewer do).
s: processor seconds (by the clock), medians; tokenisation is in ours and not in theirs.
floor: linear layers of the tokens that must run at this machine's matmul rate, backward counted as forward.
max diff: gradient relative to its largest entry; scores in nats."""


def measure(
    subject: Subject, order: str, candidates: int, examples: int, *, threads: int, repeats: int
) -> list[str]:
    """One row of the table; our side is left out where the model gives no gradients."""
    torch.set_num_threads(threads)
    step = gradient_step(subject, order, candidates, examples)
    rows, starts, groups = encoded(subject, step)
    width = subject.shape.width
    timings = interleaved({**ways(subject, step), "gemm": lambda: floor.gemm_way(width)}, repeats)
    rate = floor.rate(timings["gemm"], width)
    flops = floor.gradient_flops(subject, rows, starts)
    scored = floor.scoring_flops(subject, [row for group in groups for row in group])
    cells = [subject.family, subject.size, order, str(threads), f"{candidates} x {examples}"]
    mine = timings.get("gradient ours")
    cells += _part(timings["gradient all"], mine, flops, rate)
    cells += _part(timings["candidates naive"], timings["candidates ours"], scored, rate)
    if mine is None:
        steps = ["-", "-", "no gradients()"]
    else:
        theirs = timings["gradient all"].result
        apart = float((theirs - mine.result).abs().max() / theirs.abs().max())
        steps = [*(_together(timings, scale) for scale in (1.0, WHOLE / candidates)), f"{apart:.1e}"]
    apart = difference(timings["candidates naive"].result, timings["candidates ours"].result)
    return [*cells, *steps, f"{apart:.1e}"]


def _part(theirs: Timing, mine: Timing | None, flops: float, rate: floor.Rate) -> list[str]:
    least = f"{flops / rate.cpu:.2f}"
    if mine is None:
        return [seconds(theirs), "-", least, "-", "-"]
    ratios = theirs.cpu / mine.cpu, mine.cpu * rate.cpu / flops
    return [seconds(theirs), seconds(mine), least, *(f"{ratio:.2f}" for ratio in ratios)]


def _together(timings: dict[str, Timing], scale: float) -> str:
    theirs = timings["gradient all"].cpu + scale * timings["candidates naive"].cpu
    mine = timings["gradient ours"].cpu + scale * timings["candidates ours"].cpu
    return f"{theirs / mine:.2f}"


def encoded(subject: Subject, step: Step) -> tuple[list[Row], list[int], list[list[Row]]]:
    """The examples with the trigger as it is, where it begins in each, and the examples with each candidate."""
    rows = baselines.encode(subject, step.rendered(step.trigger))
    ids = subject.tokenizer(f" {' '.join(step.trigger)}", add_special_tokens=False)["input_ids"]
    starts = baselines.slot_places(rows, tuple(ids))
    groups = [baselines.encode(subject, step.rendered(trigger)) for trigger in step.substituted()]
    return rows, starts, groups


def ways(subject: Subject, step: Step) -> dict[str, Way]:
    """What is run by the clock: the gradient and the candidates, their way and ours."""
    rows, starts, groups = encoded(subject, step)
    answers = baselines.answer_ids(subject, step.rendered(step.trigger)[0], step.answers)
    targets = answers[torch.tensor(step.right)]
    asked, requests = step.gradient_requests(), step.requests()
    warm_up = templates_and_examples(subject, 2, 4, seed=99).requests()
    found: dict[str, Way] = {
        "gradient all": lambda: functools.partial(_their_gradient, subject, rows, starts, targets),
        "candidates naive": lambda: functools.partial(baselines.one_at_a_time, subject, groups, answers),
        "candidates ours": lambda: functools.partial(ours.scores, ours.fresh(subject, warm_up), requests),
    }
    if ours.fresh_open(subject) is not None:
        found["gradient ours"] = lambda: functools.partial(_our_gradient, _warm(subject, step), asked)
    return found


def _warm(subject: Subject, step: Step) -> OpenModel:
    """A fresh model as it is in a search after its first step: asked about these examples under another trigger."""
    model = ours.fresh_open(subject)
    assert model is not None
    model.gradients(dataclasses.replace(step, trigger=step.substituted()[-1]).gradient_requests())
    return model


def _their_gradient(
    subject: Subject, rows: list[Row], starts: list[int], targets: torch.Tensor
) -> torch.Tensor:
    """[L, D]; candidates are the best of -E.g, as AutoPrompt takes them (for all positions here, as for ours)."""
    gradient = baselines.all_parameter_gradient(subject, rows, starts, POSITIONS, targets)
    with torch.no_grad():
        estimates = subject.model.get_input_embeddings().weight @ gradient.T  # [V, L]
        torch.topk(-estimates.T, TOP, dim=-1)
    return gradient


def _our_gradient(model: OpenModel, asked: list[GradientRequest]) -> torch.Tensor:
    """[L, D]."""
    gradient = model.gradients(asked).slots[SLOT].gradient
    estimates = torch.from_numpy(model.first_order(gradient))  # [L, V]
    torch.topk(-estimates, TOP, dim=-1)
    return torch.from_numpy(gradient)


def report(rows: list[list[str]]) -> str:
    """The table with what its columns mean."""
    title = f"## B (whole: 10 positions, {WHOLE} candidates x 32 examples)"
    return f"{title}\n\n{table(HEAD, rows)}\n\n{NOTES}\n"
