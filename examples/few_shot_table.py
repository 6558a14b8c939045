"""Manual prompt, random search and TPE at equal calls, on real 16-shot data and several models.

    python examples/few_shot_table.py                       # all models and tasks; an hour or two on two cores
    python examples/few_shot_table.py --demonstrations      # prompts may hold examples; several times as long
    python examples/few_shot_table.py --models bundled:masked --tasks sst-2 --seeds 2 --prompts 20
    python examples/few_shot_table.py --report              # print the table of what has been run so far

Data: ``../shared/data`` (16 training and 16 selection examples a class, five seeds; facts of one relation). Every cell is
a run folder under ``runs/few-shot``: stopping loses nothing, and the same command goes on. Each search may spend
``--prompts`` times the number of selection examples in calls. Test accuracy is on all test rows, or on the first 2,000
of them where there are more (one fixed subset).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import autoprompt
from autoprompt.errors import LabelWordError
from autoprompt.models import (
    Failure,
    Kind,
    LabelReply,
    LabelRequest,
    RankReply,
    RankRequest,
    Request,
    ScoringModel,
)
from autoprompt.prompt import Rendered

SEEDS = ("16-100", "16-13", "16-21", "16-42", "16-87")
STRATEGIES = ("random_search", "tpe")
TEST_ROWS = 2000
FEWEST_FACTS = 20
TOPICS = {"World": "world", "Sports": "sports", "Business": "business", "Sci/Tech": "technology"}
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
MODELS = Path(__file__).resolve().parents[2] / "shared" / "models"


class Remembering:
    """A scoring model that answers the same question once: the manual prompt's test is shared by all runs."""

    def __init__(self, model: ScoringModel) -> None:
        """Wrap ``model``; its identity stays."""
        self._model = model
        self._labels: dict[LabelRequest, LabelReply | Failure] = {}
        self._ranks: dict[RankRequest, RankReply | Failure] = {}
        self.name: str = model.name
        self.kind: Kind = model.kind
        self.fingerprint: str = model.fingerprint
        self.deterministic: bool = model.deterministic
        self.max_length: int | None = model.max_length

    def count_tokens(self, requests: Sequence[Request]) -> list[int]:
        """As the model."""
        return self._model.count_tokens(requests)

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        """As the model."""
        return self._model.batches(requests)

    def check_answers(
        self, rendered: Rendered, answers: Sequence[str], *, single_token: bool = False
    ) -> None:
        """As the model."""
        self._model.check_answers(rendered, answers, single_token=single_token)

    def logprobs(self, requests: Sequence[LabelRequest]) -> list[LabelReply | Failure]:
        """As the model, each question once."""
        new = [request for request in requests if request not in self._labels]
        self._labels.update(zip(new, self._model.logprobs(new) if new else [], strict=True))
        return [self._labels[request] for request in requests]

    def ranks(self, requests: Sequence[RankRequest]) -> list[RankReply | Failure]:
        """As the model, each question once."""
        new = [request for request in requests if request not in self._ranks]
        self._ranks.update(zip(new, self._model.ranks(new) if new else [], strict=True))
        return [self._ranks[request] for request in requests]


def rows(path: Path, *names: str, limit: int | None = None) -> list[dict[str, str]]:
    """Read the named columns of a JSON lines file: all rows, or ``limit`` of them evenly spaced (files may be sorted)."""
    with path.open(encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    n = len(lines) if limit is None else min(limit, len(lines))
    return [{name: lines[i * len(lines) // n][name] for name in names} for i in range(n)]


def few_shot_task(name: str, seed: str) -> autoprompt.Task:
    """One of the 16-shot classification sets with its published manual prompt, in the form any model can read."""
    folder = DATA / "few-shot" / name
    splits = {
        "train": rows(folder / seed / "train.jsonl", "text", "label"),
        "select": rows(folder / seed / "dev.jsonl", "text", "label"),
        "test": rows(folder / "test.jsonl", "text", "label", limit=TEST_ROWS),
    }
    if name == "agnews":
        for row in (row for part in splits.values() for row in part):
            row["label"] = TOPICS[row["label"]]
        words = {topic: (topic,) for topic in TOPICS.values()}
        prompt, space = "{{ text }} Topic: {{ answer }}.", "topic"
    else:
        words = {"negative": ("terrible",), "positive": ("great",)}
        prompt, space = "{{ text }} It was {{ answer }}.", "sentiment"
    return autoprompt.Task.from_rows(
        splits,
        name=f"{name}-{seed}",
        kind="classification",
        target="label",
        words=words,
        prompt=prompt,
        space=space,
    )


def fact_task(relation: str, model: ScoringModel) -> autoprompt.Task | None:
    """One T-REx relation, of the rows whose object is a single word of the model's vocabulary; None if few are."""
    folder = DATA / "facts" / relation
    meta = json.loads((folder / "meta.json").read_text("utf-8"))
    prompt = meta["template"].replace("[X]", "{{ subject }}").replace("[Y]", "{{ answer }}")
    rendered = autoprompt.Prompt(prompt).render({"subject": "It"})
    splits: dict[str, list[dict[str, str]]] = {}
    for role, file in (("train", "train"), ("select", "dev"), ("test", "test")):
        path = folder / f"{file}.jsonl"
        if path.is_file():
            splits[role] = [
                row for row in rows(path, "subject", "object") if _is_word(model, rendered, row["object"])
            ]
    if "test" not in splits:  # the relation was published without one: the second half of train
        half = len(splits["train"]) // 2
        splits["test"] = splits["train"][half:]
        splits["train"] = splits["train"][:half]
    if min(len(part) for part in splits.values()) < FEWEST_FACTS:
        return None
    return autoprompt.Task.from_rows(
        splits, name=f"facts-{relation}", kind="cloze", target="object", prompt=prompt, space="fact"
    )


def _is_word(model: ScoringModel, rendered: Rendered, word: str) -> bool:
    try:
        model.check_answers(rendered, [word], single_token=True)
    except LabelWordError:
        return False
    return True


def zero_shot(space: autoprompt.SearchSpace) -> autoprompt.SearchSpace:
    """The same space without demonstrations."""
    slots = {
        name: slot.model_copy(update={"pick": slot.pick.model_copy(update={"k": [0]})}) if slot.pick else slot
        for name, slot in space.slots.items()
    }
    return dataclasses.replace(space, spec=space.spec.model_copy(update={"slots": slots}))


def run_model(name: str, args: argparse.Namespace) -> None:
    """Run every task, seed and strategy for one model."""
    loaded = autoprompt.load_model(name)
    assert isinstance(loaded, ScoringModel)
    model = Remembering(loaded)
    short = name.rstrip("/").rpartition("/")[2].replace(":", "-")
    for task_name in args.tasks:
        for number, seed in enumerate(SEEDS[: args.seeds]):
            task = (
                fact_task(task_name, loaded) if task_name.startswith("P") else few_shot_task(task_name, seed)
            )
            if task is None:
                print(
                    f"{short:28} {task_name:8} has fewer than {FEWEST_FACTS} answers that are words of this model"
                )
                break
            assert task.space is not None
            space = autoprompt.SearchSpace.load(task.space)
            for strategy in STRATEGIES:
                folder = args.runs / short / f"{task_name}-{seed}-{strategy}"
                calls = args.prompts * len(task.select)
                result = autoprompt.optimize(
                    task,
                    model,
                    calls,
                    space=space if args.demonstrations else zero_shot(space),
                    strategy=strategy,
                    seed=number,
                    run_dir=folder,
                )
                assert result.test is not None
                print(
                    f"{short:28} {task_name:8} {seed:7} {strategy:14} manual {100 * result.test.seed.value:5.1f} "
                    f"found {100 * result.test.best.value:5.1f}  ({result.test.best.n} test rows)",
                    flush=True,
                )


def report(runs: Path) -> str:
    """The table as Markdown: test score in %, mean ± standard deviation over seeds."""
    cells: dict[tuple[str, str], dict[str, list[float]]] = {}
    for path in sorted(runs.glob("*/*/result.json")):
        test = json.loads(path.read_text("utf-8"))["test"]
        if test is None:
            continue
        task, strategy = path.parent.name.partition("-16-")[0], path.parent.name.rpartition("-")[2]
        cell = cells.setdefault((path.parent.parent.name, task), {})
        cell.setdefault(strategy, []).append(100 * test["candidate"]["value"])
        cell.setdefault("manual", []).append(100 * test["seed_prompt"]["value"])
    lines = ["| model | task | manual | random search | tpe | seeds |", "|---|---|---|---|---|---|"]
    for (model, task), cell in cells.items():
        if all(name in cell for name in STRATEGIES):
            found = " | ".join(_mean_sd(cell[name]) for name in STRATEGIES)
            seeds = min(len(cell[name]) for name in STRATEGIES)
            lines.append(f"| {model} | {task} | {cell['manual'][0]:.1f} | {found} | {seeds} |")
    return "\n".join(lines)


def _mean_sd(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {spread:.1f}"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    local = [
        str(path.parent) for path in sorted(MODELS.glob("*/config.json")) if "bart" not in path.parent.name
    ]
    parser.add_argument("--models", nargs="+", default=["bundled:masked", "bundled:causal", *local])
    parser.add_argument("--tasks", nargs="+", default=["sst-2", "agnews", "P17"])
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--prompts", type=int, default=50, help="full evaluations on select per search")
    parser.add_argument("--demonstrations", action="store_true", help="let prompts hold examples")
    parser.add_argument("--runs", type=Path, default=Path("runs/few-shot"))
    parser.add_argument("--report", action="store_true", help="only print the table of what has been run")
    args = parser.parse_args()
    if not args.report:
        for name in args.models:
            run_model(name, args)
    print(report(args.runs))


if __name__ == "__main__":
    main()
