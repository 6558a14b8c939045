"""Soft prompts on real 16-shot data, PEFT's prompt tuning against ours at equal steps: a table, and curves as PNG.

    python examples/soft_table.py --models bundled:causal --tasks sst-2 --seeds 2 --steps 40
    python examples/soft_table.py                # all models and tasks; hours on one core
    python examples/soft_table.py --report       # table and curves of what has been run

Every column but the last trains ten rows, all of them on the same batches of the same examples, by the same loss (-log of
the right label word's probability among the label words), and take the iterate that is best on the 16-shot dev set. A
cell is a file in ``--runs``: the same command again goes on where it stopped. Needs ../shared beside the checkout, peft
and matplotlib.

- PEFT default: what PEFT and torch do where nothing is said: rows drawn from N(0, 1), AdamW at 1e-3, decay 0.01.
- PEFT best: of four documented settings the best on dev, which is four times the steps: rows of random tokens
  (SAMPLE_VOCAB) with AdamW at 1e-3, 1e-2 and 3e-2, rows of a sentence that says the task (TEXT) at 3e-2, the rate
  falling linearly to 0.
- ours, front: our training with the rows before the text, as PEFT has them, from random readable tokens.
- ours, cold: the same with the rows where triggers stand, after the text.
- ours, warm: the rows stand in place of the words of a prompt that a short search over templates finds (``--calls``; no
  demonstrations), and begin at those words, so that there are as many as it has tokens. The search chose those words on
  dev, so their accuracy there is luck in part and does not compete with that of the iterates.

PEFT's rows stand before the tokenizer's first token, dropout is on in its training, and for masked models, which it has
no task for, it is used as FEATURE_EXTRACTION and read at the mask, moved by its rows.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import few_shot_table as few_shot
import numpy as np
from soft_trainees import Batches, Rows, Scores, Trainee, words_of
from soft_trainees.by_peft import DEFAULT, DOCUMENTED, SAID, Base, PeftTrainee
from soft_trainees.by_us import OurTrainee
from trigger_table import spread

import autoprompt
from autoprompt.example import Example
from autoprompt.models import TunableModel, bundled
from autoprompt.models.load import load_model
from autoprompt.policy import TokenPolicy
from autoprompt.prompt import Prompt
from autoprompt.soft import Training
from autoprompt.strategies.soft import COMMON

WARM = "ours, warm"
METHODS = ("peft default", "peft best", "ours, front", "ours, cold", WARM)
COLORS = ("#999999", "#d08a2e", "#7fb3d5", "#1f5fa8", "#b03a5b")
TRIES = 100
CURVE_ROWS = 250
"""Test rows a point of a curve is measured on; the number in the table is on all of them."""


@dataclass(frozen=True)
class Point:
    """An iterate: the step it came after, accuracy and loss (nats) on dev, the rows."""

    step: int
    select: float
    loss: float
    rows: Rows


def judged(scores: Scores, examples: Sequence[Example], task: autoprompt.Task) -> tuple[float, float]:
    """Accuracy and mean loss in nats."""
    right = [list(task.words).index(each.target) for each in examples]
    logs = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    return float((logs.argmax(1) == right).mean()), float(-logs[np.arange(len(right)), right].mean())


def trained(trainee: Trainee, task: autoprompt.Task, batches: Batches, every: int) -> list[Point]:
    """The iterates after every so many steps, the start first."""
    points = [Point(0, *judged(trainee.scores(task.select), task.select, task), trainee.rows)]
    for start in range(0, len(batches), every):
        some = batches[start : start + every]
        trainee.train(some)
        seen = judged(trainee.scores(task.select), task.select, task)
        points.append(Point(start + len(some), *seen, trainee.rows))
    return points


def best(points: Sequence[Point], method: str) -> Point:
    """The most accurate on dev, of those the one of least loss, of those the first; a start that was chosen on dev is out
    of it.
    """
    some = points[1:] if method == WARM else points
    return min(some, key=lambda point: (-point.select, point.loss))


def batches_of(count: int, size: int, steps: int, seed: int) -> list[tuple[int, ...]]:
    """Passes through all examples in a drawn order, cut into batches; what is left of a pass is left out."""
    draw = random.Random(seed)
    found: list[tuple[int, ...]] = []
    size = min(size, count)
    while len(found) < steps:
        order = draw.sample(range(count), count)
        found += [tuple(order[at : at + size]) for at in range(0, count - size + 1, size)]
    return found[:steps]


@dataclass
class Bench:
    """What the cells of one model, task and sample of 16 examples a class share."""

    spec: str
    model: TunableModel
    task: autoprompt.Task
    seed: int
    given: argparse.Namespace

    def runs(self, method: str) -> Iterator[tuple[str, Trainee]]:
        """What is trained for a column; the best on dev counts."""
        steps, seed = self.given.steps, self.seed
        if method.startswith("peft"):
            name = self.spec.removeprefix("bundled:")
            folder = bundled.folder(name) if name != self.spec else Path(self.spec)
            base = Base(folder, self.task, self.given.rows)
            for setting in [DEFAULT] if method == "peft default" else DOCUMENTED:
                yield f"{setting.init} {setting.lr:g}", PeftTrainee(base, setting, steps, seed)
        else:
            lr = self.given.warm_lr if method == WARM else self.given.lr
            training = Training(
                steps=steps, lr=lr, optimizer=self.given.optimizer, schedule="cosine", seed=seed
            )
            prompt = self.warm() if method == WARM else self.cold(front=method == "ours, front")
            yield " | ".join(prompt.slots.values()), OurTrainee(self.model, self.task, prompt, training)

    def cold(self, *, front: bool) -> Prompt:
        """The manual prompt with random readable tokens."""
        space = autoprompt.trigger_space(self.task, self.given.rows)
        if front:
            space = autoprompt.SearchSpace.from_dict(
                {
                    "title": "rows in front",
                    "template": f"[[ trigger ]] {self.task.prompt}",
                    "slots": {"trigger": {"tokens": {"n": self.given.rows}}},
                }
            )
        bound = space.bind(self.task, answer_at_end=self.model.kind != "masked")
        vocabulary, rng = self.model.vocabulary, np.random.default_rng(self.seed)
        allowed = np.flatnonzero(vocabulary.allowed(TokenPolicy(answers=words_of(self.task))))[:COMMON]
        for _ in range(TRIES):
            ids = [int(token) for token in rng.choice(allowed, self.given.rows)]
            prompt = bound.prompt_from({"trigger": vocabulary.text(ids)})
            read = vocabulary.read([prompt.render(each.fields, with_slots=True) for each in self.task.train])
            # at the front of a text a word may be another token than inside it: as many as there are rows will do
            tokens = {each["trigger"] if each is not None else () for each in read}
            if {len(each) for each in tokens} == {self.given.rows}:
                return prompt
        raise RuntimeError(
            f"{self.task.name}: no drawn tokens are read as {self.given.rows} in {prompt.text!r}"
        )

    def warm(self) -> Prompt:
        """The best of the prompts that a short search over templates meets, its own words as the rows' places; test is
        kept from it but for a row a label.
        """
        task = self.task.with_sizes(test=len(self.task.labels))
        assert task.space is not None
        space = few_shot.zero_shot(autoprompt.SearchSpace.load(task.space))
        found = autoprompt.optimize(
            task, self.model, self.given.calls, space=space, strategy="tpe", seed=self.seed
        )
        words = autoprompt.soft_space(task, found.candidate)
        return words.bind(task, answer_at_end=self.model.kind != "masked").default()

    def cell(self, method: str) -> dict[str, object]:
        """Train, take the best on dev, and only then look at test."""
        task, began = self.task, time.process_time()
        batches = batches_of(len(task.train), self.given.batch, self.given.steps, self.seed)
        tried = [
            (said, one, trained(one, task, batches, self.given.every)) for said, one in self.runs(method)
        ]
        ends = [best(points, method) for _, _, points in tried]
        end = min(ends, key=lambda point: (-point.select, point.loss))
        said, trainee, points = tried[ends.index(end)]
        seconds = time.process_time() - began
        some = random.Random(0).sample(list(task.test), min(CURVE_ROWS, len(task.test)))
        curve = []
        for point in points:
            trainee.rows = point.rows
            test, _ = judged(trainee.scores(some), some, task)
            curve.append({"step": point.step, "select": point.select, "loss": point.loss, "test": test})
        trainee.rows = end.rows
        test, _ = judged(trainee.scores(task.test), task.test, task)
        return {"said": said, "curve": curve, "test": test, "n": len(task.test), "seconds": seconds}


def fill(given: argparse.Namespace) -> None:
    """Run the cells that are not there yet, seed by seed so that a table cut short is even."""
    for spec in given.models:
        model = load_model(spec)
        assert isinstance(model, TunableModel)
        for sample in few_shot.SEEDS[: given.seeds]:
            for name in given.tasks:
                number = int(sample.rpartition("-")[2])
                bench = Bench(spec, model, few_shot.few_shot_task(name, sample), number, given)
                for method in given.methods:
                    key = {"model": Path(spec).name, "task": name, "sample": sample, "method": method}
                    path = (
                        given.runs / f"{'_'.join([*key.values(), str(given.steps)]).replace(':', '-')}.json"
                    )
                    if not path.exists():
                        row = {**key, "steps": given.steps, **bench.cell(method)}
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_text(json.dumps(row, indent=1, ensure_ascii=False), "utf-8")
                        print(f"{path.stem}: {row['test']:.3f} ({row['said']})", file=sys.stderr, flush=True)


Cells = dict[tuple[str, str], dict[str, dict[str, dict[str, Any]]]]


def read_cells(given: argparse.Namespace) -> Cells:
    """(model, task) to method to sample to cell, of the runs of so many steps."""
    cells: Cells = defaultdict(dict)
    for path in sorted(given.runs.glob("*.json")):
        row = json.loads(path.read_text("utf-8"))
        if row["steps"] == given.steps:
            cells[row["model"], row["task"]].setdefault(row["method"], {})[row["sample"]] = row
    return dict(sorted(cells.items()))


def stopped(cell: dict[str, Any], step: int) -> float:
    """Test accuracy on the rows of the curve of the best on dev of the first steps."""
    points = [point for point in cell["curve"] if point["step"] <= step]
    points = points[1:] if cell["method"] == WARM and len(points) > 1 else points
    return float(min(points, key=lambda point: (-point["select"], point["loss"]))["test"])


def report(cells: Cells, steps: int) -> str:
    """Test accuracy in per cent, mean and standard deviation over the samples, at the end and stopped early."""
    lines = [
        "| model | task | samples | steps | " + " | ".join(METHODS) + " |",
        "|" + " --- |" * (4 + len(METHODS)),
    ]
    for (model, task), methods in cells.items():
        samples = sorted(set.intersection(*(set(rows) for rows in methods.values())))
        for step in (0, steps // 10, steps // 5, steps):
            said = []
            for rows in (methods.get(method, {}) for method in METHODS):
                values = [rows[sample] for sample in samples if sample in rows]
                ended = step == steps
                said.append(spread([each["test"] if ended else stopped(each, step) for each in values]))
            lines.append(f"| {model} | {task} | {len(samples)} | {step} | " + " | ".join(said) + " |")
    return "\n".join(lines)


def draw(cells: Cells, path: Path, which: str) -> None:
    """Accuracy on ``which`` rows (test, select) against steps, mean and standard deviation over the samples: a row a
    model, a column a task.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    models, tasks = (sorted({key[at] for key in cells}) for at in (0, 1))
    size = (4.2 * len(tasks), 3 * len(models) + 0.6)
    figure, axes = pyplot.subplots(len(models), len(tasks), figsize=size, squeeze=False, layout="constrained")
    for (model, task), methods in cells.items():
        axis = axes[models.index(model), tasks.index(task)]
        for method, color in zip(METHODS, COLORS, strict=True):
            curves = [cell["curve"] for cell in methods.get(method, {}).values()]
            if curves:
                steps = [point["step"] for point in curves[0]]
                values = 100 * np.array(
                    [[point[which] for point in curve] for curve in curves]
                )  # [samples, points]
                mean, deviation = values.mean(0), values.std(0)
                axis.plot(steps, mean, color=color, label=method)
                axis.fill_between(steps, mean - deviation, mean + deviation, color=color, alpha=0.15, lw=0)
        axis.set_title(f"{model}, {task}", fontsize=10)
        axis.grid(alpha=0.25)
    figure.supxlabel("steps")
    figure.supylabel(f"accuracy on {which}, %")
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Fill the cells, print the table, draw the curves."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    local = [str(few_shot.MODELS / name) for name in ("stories3m", "minilm-mlm")]
    parser.add_argument("--models", nargs="+", default=["bundled:causal", "bundled:masked", *local])
    parser.add_argument("--tasks", nargs="+", default=list(SAID), choices=list(SAID))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, default=5, help="how many of the five published samples")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--every", type=int, default=10, help="steps between points of a curve")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rows", type=int, default=10, help="virtual tokens")
    parser.add_argument(
        "--lr", type=float, default=0.5, help="ours, in units of the embeddings' root mean square"
    )
    parser.add_argument(
        "--warm-lr",
        type=float,
        default=0.2,
        help="likewise, from the words of a found prompt: larger steps leave it at once",
    )
    parser.add_argument("--optimizer", default="adafactor", choices=["adafactor", "adamw"], help="ours")
    parser.add_argument(
        "--calls", type=int, default=4000, help="budget of the search a warm start comes from"
    )
    parser.add_argument("--test-rows", type=int, default=few_shot.TEST_ROWS)
    parser.add_argument("--runs", type=Path, default=Path("runs/soft-table"))
    parser.add_argument("--report", action="store_true", help="only show what is there")
    given = parser.parse_args()
    few_shot.TEST_ROWS = given.test_rows
    if not given.report:
        fill(given)
    cells = read_cells(given)
    print(report(cells, given.steps))
    for which in ("test", "select"):
        draw(cells, given.runs / f"{which}-{given.steps}.png", which)


if __name__ == "__main__":
    main()
