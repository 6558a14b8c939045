"""Searches over human-readable templates at equal calls, on real 16-shot data: a table.

    python examples/template_table.py --models bundled:masked --tasks sst-2 --seeds 2 --prompts 40
    python examples/template_table.py             # all models and tasks; hours on one core
    python examples/template_table.py --report    # only print what is there, and ours against each of the others

Every search may spend ``--prompts`` times the number of selection examples in calls, on the same space (the one that ships
for the task), but where a method has a space of its own. A cell is a file in ``--runs``: the same command again goes on
where it stopped. Needs ../shared beside the checkout.

- random: random search.
- GrIPS: phrase edits of an instruction above the manual prompt, and of that prompt, with that paper's settings.
- EvoPrompt: its genetic algorithm, with operators on slots in place of a language model.
- CAPO-like: the same population raced on shared blocks by a paired test at level 0.2, uncorrected, as CAPO has it.
- MIPROv2-like: TPE over instruction x demonstration set, all else as the space begins.
- gp: Bayesian optimization over the same space.
- ours: ``auto``.

Tasks: four sets of 16 examples a class in their five published samples; two of the instruction-induction tasks and two of
BIG-Bench Hard, with 16 examples a class drawn by the sample's number.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import few_shot_table as few_shot
from trigger_table import Remembering, spread

import autoprompt
from autoprompt.errors import LabelWordError
from autoprompt.models import OpenModel
from autoprompt.models.load import load_model
from autoprompt.strategies import Strategy
from autoprompt.strategies.auto import Auto
from autoprompt.strategies.evoprompt import Evoprompt
from autoprompt.strategies.gp import GP
from autoprompt.strategies.grips import Grips
from autoprompt.strategies.racing import Racing
from autoprompt.strategies.random_search import RandomSearch
from autoprompt.strategies.tpe import TPE

Cells = dict[str, dict[str, Any]]
"""What was found, by sample."""
Rows = dict[tuple[str, str], dict[str, Cells]]
"""Model and task -> method -> cells."""
METHODS = ("random", "GrIPS", "EvoPrompt", "CAPO-like", "MIPROv2-like", "gp", "ours")
PUBLISHED = ("sst-2", "mr", "sst-5", "agnews")
LABELS = {
    "instructions/sentiment": ("negative", "positive"),
    "instructions/larger_animal": (),
    "reasoning/boolean_expressions": ("False", "True"),
    "reasoning/navigate": ("No", "Yes"),
}
TASKS = (*PUBLISHED, *LABELS)
GRADES = {
    "very negative": "terrible",
    "negative": "bad",
    "neutral": "okay",
    "positive": "good",
    "very positive": "great",
}
INSTRUCTIONS = {
    "sentiment": "Read the opinion and decide whether the writer found it terrible or great.",
    "sentiment-5": "Read the opinion and grade it on a scale from terrible to great.",
    "topic": "Read the news item and decide which section of the newspaper it belongs to.",
    "classification": "Read the text and decide which of the possible answers is right.",
    "reasoning": "Read the problem carefully and work out the right answer.",
}
"""What GrIPS edits: it needs an instruction, and the manual prompts have none."""
SHOTS = 16


def task_for(name: str, sample: str) -> autoprompt.Task:
    """The task with 16 examples a class to train and to select on."""
    if name == "sst-5":
        folder = few_shot.DATA / "few-shot" / name
        files = {"train": f"{sample}/train.jsonl", "select": f"{sample}/dev.jsonl", "test": "test.jsonl"}
        data = {
            role: few_shot.rows(folder / file, "text", "label", limit=few_shot.TEST_ROWS)
            for role, file in files.items()
        }
        words = {label: (word,) for label, word in GRADES.items()}
        return autoprompt.Task.from_rows(
            data,
            name=f"{name}-{sample}",
            kind="classification",
            target="label",
            words=words,
            prompt="{{ text }} It was {{ answer }}.",
            space="sentiment-5",
        )
    return few_shot.few_shot_task(name, sample) if name in PUBLISHED else drawn_task(name, sample)


def drawn_task(name: str, sample: str) -> autoprompt.Task:
    """A task that was published without samples: rows drawn by the sample's number, the rest to test on."""
    folder = few_shot.DATA / name
    given = {
        role: few_shot.rows(folder / f"{role}.jsonl", "text", "target")
        for role in ("train", "test")
        if (folder / f"{role}.jsonl").is_file()
    }
    draw = random.Random(sample)
    some = draw.sample(given.get("train", given["test"]), len(given.get("train", given["test"])))
    labels = LABELS[name]
    size = SHOTS * max(2, len(labels))
    data = {"train": some[:size], "select": some[size : 2 * size]}
    data["test"] = given["test"] if "train" in given else some[2 * size :]
    if labels:
        return autoprompt.Task.from_rows(
            data,
            name=f"{folder.name}-{sample}",
            kind="classification",
            target="target",
            words={label: (label,) for label in labels},
            prompt="{{ text }}\nAnswer: {{ answer }}",
            space="classification" if name.startswith("instructions") else "reasoning",
        )
    choices = [{**row, "choices": row["text"].split(", ")} for row in data.pop("test")]
    return autoprompt.Task.from_rows(
        {role: [{**row, "choices": row["text"].split(", ")} for row in rows] for role, rows in data.items()}
        | {"test": choices},
        name=f"{folder.name}-{sample}",
        kind="multiple_choice",
        target="target",
        choices="choices",
        prompt="{{ text }}\nAnswer: {{ answer }}",
        space="classification",
    )


def only(
    space: autoprompt.SearchSpace, kept: tuple[str, ...], task: autoprompt.Task
) -> autoprompt.SearchSpace:
    """The space in which the other slots stay as they begin, and label words as in the manual prompt."""
    slots = {}
    for name, slot in space.slots.items():
        content = slot.model_dump(exclude_none=True, exclude_defaults=True)
        content.pop("edit", None)
        content.pop("llm", None)
        if name not in kept:
            if slot.map is not None:
                content["map"] = {label: [list(words)] for label, words in task.words.items()}
            elif slot.pick is None and slot.order is None:
                content = {**content, "one_of": slot.texts()[:1]}
                content.pop("optional", None)
        slots[name] = content
    return autoprompt.SearchSpace.from_dict({"template": space.spec.template, "slots": slots})


def search(method: str, task: autoprompt.Task) -> tuple[Strategy, autoprompt.SearchSpace]:
    """The strategy of a column, and its space."""
    assert task.space is not None
    space = autoprompt.SearchSpace.load(task.space)
    match method:
        case "random":
            return RandomSearch(), space
        case "GrIPS":
            return Grips(), autoprompt.edit_space(task, f"{INSTRUCTIONS[task.space]}\n\n{task.prompt}")
        case "EvoPrompt":
            return Evoprompt(), space
        case "CAPO-like":
            return Racing(inner=Evoprompt(), method="wilcoxon", alpha=0.2, block=30, wave=10), space
        case "MIPROv2-like":
            return TPE(), only(space, ("instruction", "demos"), task)
        case "gp":
            return GP(), space
    assert method == "ours"
    return Auto(), space


def cell(model: Remembering, name: str, sample: str, method: str, prompts: int) -> dict[str, Any]:
    """Search once; test scores of the manual prompt and of the best on select, and how long that is."""
    task = task_for(name, sample)
    strategy, space = search(method, task)
    calls = prompts * len(task.select)
    number = int(sample.rpartition("-")[2])
    result = autoprompt.optimize(task, model, calls, space=space, strategy=strategy, seed=number)
    assert result.test is not None
    tokens = [trial.tokens for trial in result.trials if trial.key == result.candidate.key and trial.complete]
    return {
        "manual": result.test.seed.value,
        "test": result.test.best.value,
        "select": result.best_select,
        "tokens": tokens[0] if tokens else None,
        "prompts": len({trial.key for trial in result.trials}),
        "chosen": result.chosen,
        "prompt": result.candidate.text,
        "words": {label: list(words) for label, words in result.candidate.words.items()},
        "n": result.test.best.n,
    }


def fill(given: argparse.Namespace) -> None:
    """Run the cells that are not there yet, sample by sample so that a table cut short is even."""
    models: dict[str, Remembering] = {}
    for sample in few_shot.SEEDS[: given.seeds]:
        for spec in given.models:
            for name in given.tasks:
                for method in given.methods:
                    key = {"model": Path(spec).name, "task": name, "sample": sample, "method": method}
                    cell_name = (
                        "_".join([*key.values(), str(given.prompts)]).replace(":", "-").replace("/", "-")
                    )
                    path = given.runs / f"{cell_name}.json"
                    if path.exists():
                        continue
                    if spec not in models:
                        model = load_model(spec)
                        assert isinstance(model, OpenModel)
                        models[spec] = Remembering(model)
                    try:
                        found = cell(models[spec], name, sample, method, given.prompts)
                    except LabelWordError as error:  # a masked model scores words of one token only
                        print(f"{path.stem}: left out: {error.message}", file=sys.stderr, flush=True)
                        continue
                    row = {**key, "prompts spent": given.prompts, **found}
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(json.dumps(row, indent=1, ensure_ascii=False), "utf-8")
                    print(
                        f"{path.stem}: {row['manual']:.3f} -> {row['test']:.3f}", file=sys.stderr, flush=True
                    )


def read_rows(runs: Path) -> Rows:
    """The cells that are there, as rows of the table: model and task -> method -> sample -> cell.

    A row is over the samples that all those methods have that have most; one that lacks any of them is left out of it.
    """
    found: Rows = defaultdict(lambda: defaultdict(dict))
    for path in sorted(runs.glob("*.json")):
        cell = json.loads(path.read_text("utf-8"))
        found[cell["model"], cell["task"]][cell["method"]][cell["sample"]] = cell
    rows: Rows = {}
    for key, methods in sorted(found.items()):
        most = max(map(len, methods.values()))
        samples = sorted(set.intersection(*(set(cells) for cells in methods.values() if len(cells) == most)))
        if samples:
            rows[key] = {
                method: {sample: cells[sample] for sample in samples}
                for method, cells in methods.items()
                if set(samples) <= set(cells)
            }
    return rows


def table(rows: Rows) -> str:
    """In Markdown: mean and standard deviation of test scores in per cent, in brackets tokens of the median."""
    titles = ("model", "task", "samples", "manual", *METHODS)
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    for (model, name), methods in rows.items():
        first = list(next(iter(methods.values())).values())
        cells = [spread([each["manual"] for each in first])]
        for method in METHODS:
            some = list(methods.get(method, {}).values())
            lengths = [each["tokens"] for each in some if each["tokens"]]
            said = f" ({statistics.median(lengths):.0f})" if lengths else ""
            cells.append(spread([each["test"] for each in some]) + said if some else "-")
        lines.append(f"| {model} | {name} | {len(first)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def differences(methods: dict[str, Cells], other: str) -> list[float]:
    """Points in per cent by which ours is above another method, or the manual prompt, sample by sample."""
    ours = methods.get("ours", {})
    if other == "manual":
        return [100 * (cell["test"] - cell["manual"]) for cell in ours.values()]
    return [
        100 * (ours[sample]["test"] - cell["test"]) for sample, cell in methods.get(other, {}).items() if ours
    ]


def error(values: Sequence[float]) -> float:
    """Standard error of the mean; of one value that is not known."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf


def comparison(rows: Rows) -> str:
    """Ours against every other method, paired by sample: over all rows, and the rows where it is clearly behind."""
    others = ("manual", *METHODS[:-1])
    lines = ["ours minus another, points of test score: mean ± standard error (pairs)"]
    for other in others:
        if pairs := [each for methods in rows.values() for each in differences(methods, other)]:
            lines.append(f"- {other}: {statistics.fmean(pairs):+.1f} ± {error(pairs):.1f} ({len(pairs)})")
    behind = []
    for (model, name), methods in rows.items():
        for other in METHODS[:-1]:
            values = differences(methods, other)
            if values and statistics.fmean(values) < -2 * error(values):
                behind.append(
                    f"- {model} {name}, {other}: {statistics.fmean(values):+.1f} ± {error(values):.1f}"
                )
    lines += [
        "rows where another search is more than two standard errors above ours:",
        *(behind or ["- none"]),
    ]
    select = [100 * (c["select"] - c["test"]) for m in rows.values() for c in m.get("ours", {}).values()]
    if select:
        lines.append(f"ours loses {statistics.fmean(select):.1f} points from select to test")
    return "\n".join(lines)


def main() -> None:
    """Fill the cells, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    local = [str(few_shot.MODELS / name) for name in ("stories3m", "minilm-mlm")]
    parser.add_argument("--models", nargs="+", default=["bundled:causal", "bundled:masked", *local])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, default=5, help="how many of the five samples")
    parser.add_argument("--prompts", type=int, default=60, help="budget in full measurements")
    parser.add_argument("--test-rows", type=int, default=few_shot.TEST_ROWS)
    parser.add_argument("--runs", type=Path, default=Path("runs/template-table"))
    parser.add_argument("--report", action="store_true", help="only print what is there")
    given = parser.parse_args()
    few_shot.TEST_ROWS = given.test_rows
    if not given.report:
        fill(given)
    rows = read_rows(given.runs)
    print(table(rows), comparison(rows), sep="\n\n")


if __name__ == "__main__":
    main()
