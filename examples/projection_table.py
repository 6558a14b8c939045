"""Ways from soft prompts back to words, at equal cost: what each finds, what the soft prompt scores, and the gap.

    python examples/projection_table.py --models bundled:causal --tasks sst-2 --seeds 2 --calls 3000
    python examples/projection_table.py --report

Two tables. Test scores of what a whole search finds within the budget: drawn prompts, the gradient search alone, training
and projection, the same refined by the gradient search, the loop of both, and the methods that train towards tokens (PEZ
and weights on the simplex). And, within the projection, select scores of its ways back to words beside its controls.
Every cell is a file in ``--runs``: the same command again goes on where it stopped. Needs ../shared beside the checkout.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import few_shot_table as few_shot
from trigger_table import Remembering, read_arguments, spread

import autoprompt
from autoprompt.models import OpenModel
from autoprompt.models.load import load_model
from autoprompt.soft import DISCRETE
from autoprompt.strategies import Strategy
from autoprompt.strategies.chain import Chain
from autoprompt.strategies.gradient import Gradient
from autoprompt.strategies.loop import Loop
from autoprompt.strategies.project import Project
from autoprompt.strategies.random_search import RandomSearch
from autoprompt.strategies.soft import Soft

METHODS = ("drawn", "gradient", "projected", "refined", "loop", *DISCRETE)
ROWS = 5


def strategy_for(method: str) -> Strategy:
    """What is run for a column."""
    match method:
        case "drawn":
            return RandomSearch()
        case "gradient":
            return Gradient(beside=0)
        case "projected":
            return Project(seeds=2)
        case "refined":
            return Chain(strategies=(Project(seeds=2, left_out=False), Gradient(beside=0)), shares=(0.6, 0.4))
        case "loop":
            return Loop()
    assert method in DISCRETE
    # noise has to carry a row to another token, so that its steps are larger
    return Soft(seeds=2, method=method, lr=1.5 if method == "langevin" else 0.5)


def cell(model: Remembering, task: autoprompt.Task, method: str, calls: int, seed: int) -> dict[str, Any]:
    """Search once; test scores of the manual prompt, of the words found, and of the rows where there are any."""
    space = autoprompt.trigger_space(task, ROWS)
    result = autoprompt.optimize(task, model, calls, space=space, strategy=strategy_for(method), seed=seed)
    assert result.test is not None
    return {
        "manual": result.test.seed.value,
        "test": result.test.best.value,
        "select": result.best_select,
        "soft": None if result.soft_test is None else result.soft_test.value,
        "in words": dict(result.findings.get("in words", {})),
        "soft select": result.findings.get("soft"),
        "mute": [not row["telling"] for row in result.findings.get("rows", ())],
        "trigger": dict(result.candidate.choices).get("trigger", ""),
        "calls spent": result.spent.calls,
    }


def fill(given: argparse.Namespace) -> None:
    """Run the cells that are not there yet, seed by seed so that a table cut short is even."""
    models: dict[str, Remembering] = {}
    for seed in few_shot.SEEDS[: given.seeds]:
        for spec in given.models:
            for name in given.tasks:
                task = few_shot.few_shot_task(name, seed)
                for method in METHODS:
                    plain = Path(spec).name.replace(":", "-")
                    path = given.runs / f"{plain}_{name}_{seed}_{method}_{given.calls}.json"
                    if path.exists():
                        continue
                    if spec not in models:
                        loaded = load_model(spec)
                        assert isinstance(loaded, OpenModel)
                        models[spec] = Remembering(loaded)
                    row = cell(models[spec], task, method, given.calls, int(seed.rpartition("-")[2]))
                    row |= {"model": Path(spec).name, "task": name, "seed": seed, "method": method}
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(json.dumps(row, indent=1, ensure_ascii=False), "utf-8")
                    told = f"{path.stem}: {row['manual']:.3f} -> {row['test']:.3f}"
                    print(told, file=sys.stderr, flush=True)


def report(runs: Path) -> str:
    """Both tables in Markdown: mean and standard deviation over seeds, in per cent."""
    groups: dict[tuple[str, str], dict[str, dict[str, dict[str, Any]]]] = defaultdict(dict)
    for path in sorted(runs.glob("*.json")):
        row = json.loads(path.read_text("utf-8"))
        groups[row["model"], row["task"]].setdefault(row["method"], {})[row["seed"]] = row
    titles = ["model", "task", "seeds", "manual", "soft", "gap", *METHODS]
    searches = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    inside: list[str] = []
    for (model, name), methods in sorted(groups.items()):
        seeds = sorted(set.intersection(*(set(cells) for cells in methods.values())))
        if set(methods) != set(METHODS) or not seeds:
            continue
        projected = [methods["projected"][seed] for seed in seeds]
        cells = [
            spread([each["manual"] for each in projected]),
            spread([each["soft"] for each in projected]),
            f"{100 * statistics.fmean(each['soft'] - each['test'] for each in projected):+.1f}",
            *(spread([methods[method][seed]["test"] for seed in seeds]) for method in METHODS),
        ]
        searches.append(f"| {model} | {name} | {len(seeds)} | " + " | ".join(cells) + " |")
        inside.append(f"| {model} | {name} | " + " | ".join(_ways(projected)) + " |")
    ways = ["soft", *WAYS, "drawn alike", "rows whose nearest tokens say nothing"]
    head = ["| model | task | " + " | ".join(ways) + " |", "|" + " --- |" * (2 + len(ways))]
    return "\n".join([*searches, "", *head, *inside])


WAYS = (
    "start",
    *(f"nearest, {metric}" for metric in ("cosine", "l2", "norm", "centred", "whitened")),
    "beam",
)


def _ways(projected: Sequence[dict[str, Any]]) -> list[str]:
    """Mean select scores of the ways back to words, of the control, and how many rows are mute."""
    cells = [_mean([each["soft select"] for each in projected])]
    cells += [_mean([each["in words"].get(way) for each in projected]) for way in WAYS]
    drawn = [
        value for each in projected for way, value in each["in words"].items() if way.startswith("best of")
    ]
    mute = [flag for each in projected for flag in each["mute"]]
    return [*cells, _mean(drawn), f"{sum(mute)} of {len(mute)}"]


def _mean(values: Sequence[float | None]) -> str:
    there = [value for value in values if value is not None]
    return f"{100 * statistics.fmean(there):.1f}" if there else ""


def main() -> None:
    """Fill the cells, print the tables."""
    given = read_arguments(
        __doc__, tasks=["sst-2", "agnews"], seeds=3, calls=8000, runs="runs/projection-table"
    )
    if not given.report:
        fill(given)
    print(report(given.runs))


if __name__ == "__main__":
    main()
