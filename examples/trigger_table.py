"""Triggers found on real 16-shot data by every way of searching, at equal cost: a table of mean and spread over seeds.

    python examples/trigger_table.py --models bundled:causal --tasks sst-2 --seeds 2 --calls 3000
    python examples/trigger_table.py --report

Manual prompt, random readable triggers, AutoPrompt's and GCG's settings, ours with readable tokens and ours with any.
Every cell is a file in ``--runs``: the same command again goes on where it stopped. Needs ../shared beside the checkout.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import few_shot_table as few_shot
import numpy as np
from numpy.typing import NDArray

import autoprompt
from autoprompt.models import (
    Failure,
    Floats,
    FluencyReply,
    FluencyRequest,
    FluentModel,
    GradientReply,
    GradientRequest,
    OpenModel,
    TunableModel,
    TuneReply,
    TuneRequest,
    Vocabulary,
)
from autoprompt.models.load import load_model
from autoprompt.strategies import Strategy
from autoprompt.strategies.autoprompt import Autoprompt
from autoprompt.strategies.gcg import Gcg
from autoprompt.strategies.gradient import Gradient
from autoprompt.strategies.random_search import RandomSearch

METHODS = ("random", "autoprompt", "gcg", "ours", "ours, any token")
TITLES = ["model", "task", "calls", "seeds", "manual", *METHODS]
TEXTS = 8
"""Examples a perplexity is the mean over."""


class Remembering(few_shot.Remembering):
    """An open model that answers the same question once: the manual prompt's test is shared by all runs."""

    def __init__(self, model: OpenModel) -> None:
        """Wrap ``model``; its identity stays."""
        super().__init__(model)
        self._open = model

    @property
    def vocabulary(self) -> Vocabulary:
        """As the model."""
        return self._open.vocabulary

    def gradients(self, requests: Sequence[GradientRequest]) -> GradientReply:
        """As the model."""
        return self._open.gradients(requests)

    def first_order(self, gradient: Floats, *, block: int = 8192) -> NDArray[np.float32]:
        """As the model."""
        return self._open.first_order(gradient, block=block)

    def tune(self, requests: Sequence[TuneRequest]) -> list[TuneReply | Failure]:
        """As the model."""
        assert isinstance(self._open, TunableModel)
        return self._open.tune(requests)

    def fluency(self, requests: Sequence[FluencyRequest]) -> list[FluencyReply | Failure]:
        """As the model."""
        assert isinstance(self._open, FluentModel)
        return self._open.fluency(requests)


def strategy_for(method: str) -> Strategy:
    """What is run for a column."""
    match method:
        case "random":
            return RandomSearch()
        case "autoprompt":
            return Autoprompt()
        case "gcg":
            return Gcg()
    return Gradient(beside=0)


def cell(model: Remembering, task: autoprompt.Task, method: str, calls: int, seed: int) -> dict[str, object]:
    """Search once; test scores of the manual prompt and of the one found, and how its trigger reads."""
    policy = "any" if method == "ours, any token" else "readable"
    space = autoprompt.trigger_space(task, 5, policy=policy)
    result = autoprompt.optimize(task, model, calls, space=space, strategy=strategy_for(method), seed=seed)
    assert result.test is not None
    found = result.candidate
    trigger = dict(found.choices).get("trigger", "")
    return {
        "manual": result.test.seed.value,
        "test": result.test.best.value,
        "select": result.best_select,
        "trigger": trigger,
        "prompt": found.text,
        "perplexity": perplexity(model, task, space, str(trigger)) if trigger else None,
        "seconds": result.spent.seconds,
        "n": result.test.best.n,
    }


def perplexity(
    model: Remembering, task: autoprompt.Task, space: autoprompt.SearchSpace, trigger: str
) -> float | None:
    """Of the trigger in its place, over some select texts; None for a model that does not say."""
    if model.kind == "seq2seq":
        return None
    bound = space.bind(task, answer_at_end=model.kind != "masked")
    prompt = bound.prompt_from({"trigger": trigger})
    asked = [FluencyRequest(prompt.render(each.fields, with_slots=True)) for each in task.select[:TEXTS]]
    replies = [reply for reply in model.fluency(asked) if isinstance(reply, FluencyReply)]
    values = [math.log(reply.perplexity) for reply in replies]
    return math.exp(statistics.fmean(values)) if values else None


def fill(given: argparse.Namespace) -> None:
    """Run the cells that are not there yet, seed by seed so that a table cut short is even."""
    for spec in given.models:
        model: Remembering | None = None
        for seed in few_shot.SEEDS[: given.seeds]:
            for name in given.tasks:
                task = few_shot.few_shot_task(name, seed)
                for method in METHODS:
                    path = (
                        given.runs
                        / f"{Path(spec).name.replace(':', '-')}_{name}_{seed}_{method}_{given.calls}.json"
                    )
                    if path.exists():
                        continue
                    if model is None:
                        loaded = load_model(spec)
                        assert isinstance(loaded, OpenModel)
                        model = Remembering(loaded)
                    number = int(seed.rpartition("-")[2])
                    row = cell(model, task, method, given.calls, number)
                    row |= {
                        "model": Path(spec).name,
                        "task": name,
                        "seed": seed,
                        "method": method,
                        "calls": given.calls,
                    }
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(json.dumps(row, indent=1, ensure_ascii=False), "utf-8")
                    print(
                        f"{path.stem}: {row['manual']:.3f} -> {row['test']:.3f}", file=sys.stderr, flush=True
                    )


def report(runs: Path) -> str:
    """The table in Markdown: mean and standard deviation of test scores in per cent; medians of perplexity below."""
    rows = [json.loads(path.read_text("utf-8")) for path in sorted(runs.glob("*.json"))]
    groups: dict[tuple[str, str, int], dict[str, dict[str, dict[str, float]]]] = defaultdict(dict)
    for row in rows:
        groups[row["model"], row["task"], row["calls"]].setdefault(row["method"], {})[row["seed"]] = row
    lines = ["| " + " | ".join(TITLES) + " |", "|" + " --- |" * len(TITLES)]
    for (model, name, calls), methods in sorted(groups.items()):
        seeds = sorted(set.intersection(*(set(cells) for cells in methods.values())))
        if set(methods) != set(METHODS) or not seeds:
            continue
        manual = [methods["ours"][seed]["manual"] for seed in seeds]
        cells = [spread(manual)]
        for method in METHODS:
            some = [methods[method][seed] for seed in seeds]
            read = [each["perplexity"] for each in some if each["perplexity"]]
            said = f" ({statistics.median(read):.2g})" if read else ""
            cells.append(spread([each["test"] for each in some]) + said)
        lines.append(f"| {model} | {name} | {calls:,} | {len(seeds)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds, in per cent; a dash where there are none."""
    if not values:
        return "-"
    spread = 100 * statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.fmean(values):.1f} ± {spread:.1f}"


def read_arguments(
    description: str | None, *, tasks: Sequence[str], seeds: int, calls: int, runs: str
) -> argparse.Namespace:
    """What is given on the command line of such a table; the arguments are its defaults."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["bundled:causal", "bundled:masked"])
    parser.add_argument("--tasks", nargs="+", default=tasks, choices=["sst-2", "mr", "agnews"])
    parser.add_argument("--seeds", type=int, default=seeds, help="how many of the five published samples")
    parser.add_argument("--calls", type=int, default=calls, help="budget of a search")
    parser.add_argument("--test-rows", type=int, default=few_shot.TEST_ROWS)
    parser.add_argument("--runs", type=Path, default=Path(runs))
    parser.add_argument("--report", action="store_true", help="only print what is there")
    given = parser.parse_args()
    few_shot.TEST_ROWS = given.test_rows
    return given


def main() -> None:
    """Fill the cells, print the table."""
    given = read_arguments(
        __doc__, tasks=["sst-2", "mr", "agnews"], seeds=5, calls=4000, runs="runs/trigger-table"
    )
    if not given.report:
        fill(given)
    print(report(given.runs))


if __name__ == "__main__":
    main()
