"""Planted template tasks: which strategy reaches the best prompt, against the calls it may spend.

``python -m tests.benchmarks templates --strategies random_search tpe racing+tpe --seeds 20`` runs every cell (a task, a
strategy, a budget, a seed) that has no file in the folder yet, prints the table and draws the curves. ``--report`` does the
last two with the cells that are there. A strategy is a name, with settings (``tpe?batch=2&startup=8``) or inside a race
(``racing+random_search``). Every budget is a search of its own, since strategies may plan by the calls they have.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from autoprompt.asks import Score, Scored
from autoprompt.strategies import Strategy
from autoprompt.strategies.racing import Racing
from autoprompt.strategy_text import load_strategy
from autoprompt.study import write_atomically
from autoprompt.testing import Planted, planted
from autoprompt.testing import run as play
from tests.benchmarks.measure import table

STRATEGIES = ("random_search", "tpe", "racing+random_search", "racing+tpe")
BUDGETS = (200, 500, 1000, 2000, 4000, 8000)
HEAD = ["task", "strategy", "seeds"]
NOTES = """Each cell: seeds in % that meet the very best prompt, measured whole or in part / seeds that end at it / mean
true accuracy below it in points ± s.e. Accuracies lie between 50 and 90 %. What a seed ends at is the prompt that looks
best on the N examples, as users get it."""


@dataclass(frozen=True)
class Shape:
    """A kind of planted task: ``slots`` x ``options``, N ``examples``; ``interactions``: see ``testing.planted``."""

    slots: int
    options: int
    examples: int
    interactions: float

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{self.slots}x{self.options}, N={self.examples}, pairs {self.interactions:g}"


SHAPES = tuple(
    Shape(slots, options, examples, pairs)
    for slots, options, examples in ((5, 4, 64), (6, 5, 128))
    for pairs in (0.0, 0.5, 1.0)
)


@dataclass(frozen=True)
class Cell:
    """One search.

    Attributes:
        shape: of the task.
        strategy: as given on the command line.
        budget: calls.
        seed: of the task and the search.
        best: true accuracy of the best prompt.
        accuracy: that of the prompt the search ends at.
        met: whether the best prompt was ever asked about, on however few examples.
        spent: calls.
        prompts: different prompts asked about.
        seconds: of the processor.
    """

    shape: Shape
    strategy: str
    budget: int
    seed: int
    best: float
    accuracy: float
    met: bool
    spent: int
    prompts: int
    seconds: float

    @property
    def regret(self) -> float:
        """How far below the best prompt, true accuracy."""
        return self.best - self.accuracy


def strategy_of(text: str) -> Strategy:
    """``tpe``, ``tpe?batch=2&startup=8``, and inside a race ``racing+tpe?batch=2``, ``racing?alpha=0.2+tpe``."""
    outer, plus, inner = text.partition("+")
    found = load_strategy(outer)
    if not plus:
        return found
    assert isinstance(found, Racing), f"{text}: only a race holds another strategy"
    return dataclasses.replace(found, inner=strategy_of(inner))


@functools.lru_cache(maxsize=2)
def _task(shape: Shape, seed: int) -> Planted:
    return planted(seed, shape.slots, shape.options, shape.interactions, shape.examples)


def search(shape: Shape, strategy: str, budget: int, seed: int) -> Cell:
    """Run one search."""
    task = _task(shape, seed)
    met: dict[str, float] = {}

    def answer(ask: Score) -> Scored:
        met[ask.prompt.key] = task.accuracy(ask.prompt)
        return task.oracle(ask)

    start = time.process_time()
    last = play(strategy_of(strategy), task, budget, seed, answer=answer)[-1]
    seconds = time.process_time() - start
    return Cell(
        shape,
        strategy,
        budget,
        seed,
        best=task.best_score,
        accuracy=last.accuracy,
        met=max(met.values()) == task.best_score,
        spent=last.calls,
        prompts=len(met),
        seconds=seconds,
    )


def run(
    shapes: Sequence[Shape],
    strategies: Sequence[str],
    budgets: Sequence[int],
    seeds: Iterable[int],
    folder: Path | None = None,
) -> list[Cell]:
    """Run all cells, or read those that are in ``folder`` already and put the others there.

    A cell's file belongs to the strategy's settings, defaults included, but not to its code: take an empty folder to
    measure changed code.
    """
    cells: list[Cell] = []
    for shape, seed in itertools.product(shapes, seeds):
        for strategy, budget in itertools.product(strategies, budgets):
            path = folder and folder / _file(shape, strategy, budget, seed)
            if path and path.exists():
                cells.append(_read(path))
                continue
            cells.append(search(shape, strategy, budget, seed))
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, json.dumps(asdict(cells[-1]), indent=1) + "\n")
        if folder:
            done = [cell for cell in cells if (cell.shape, cell.seed) == (shape, seed)]
            print(f"{shape.name}, seed {seed}: {len(done)} cells", file=sys.stderr, flush=True)
    return cells


def _file(shape: Shape, strategy: str, budget: int, seed: int) -> str:
    settings = json.dumps(strategy_of(strategy).describe())
    mark = hashlib.sha256(settings.encode()).hexdigest()[:8]
    plain = "".join(letter if letter.isalnum() or letter in "+_" else "-" for letter in strategy)
    task = f"{shape.slots}x{shape.options}-n{shape.examples}-{shape.interactions:g}"
    return f"{task}/{plain}-{mark}/{budget}-{seed}.json"


def _read(path: Path) -> Cell:
    content = json.loads(path.read_text("utf-8"))
    return Cell(**{**content, "shape": Shape(**content["shape"])})


def load(
    folder: Path,
    shapes: Sequence[Shape],
    strategies: Sequence[str],
    budgets: Sequence[int],
    seeds: Iterable[int],
) -> list[Cell]:
    """The cells that are there."""
    paths = (
        folder / _file(shape, strategy, budget, seed)
        for shape, strategy, seed, budget in itertools.product(shapes, strategies, list(seeds), budgets)
    )
    return [_read(path) for path in paths if path.exists()]


def groups(cells: Sequence[Cell]) -> dict[tuple[Shape, str], dict[int, list[Cell]]]:
    """Task and strategy to budget to its cells."""
    found: dict[tuple[Shape, str], dict[int, list[Cell]]] = {}
    for cell in cells:
        found.setdefault((cell.shape, cell.strategy), {}).setdefault(cell.budget, []).append(cell)
    return found


def report(cells: Sequence[Cell]) -> str:
    """The table: a row for each task and strategy, a column for each budget."""
    budgets = sorted({cell.budget for cell in cells})
    rows = [
        [
            shape.name,
            strategy,
            str(max(map(len, by_budget.values()))),
            *(_summary(by_budget.get(budget, [])) for budget in budgets),
        ]
        for (shape, strategy), by_budget in groups(cells).items()
    ]
    return f"{table([*HEAD, *(f'{budget:,}' for budget in budgets)], rows)}\n\n{NOTES}\n"


def _summary(cells: Sequence[Cell]) -> str:
    if not cells:
        return ""
    regrets = np.array([cell.regret for cell in cells])
    met, best = float(np.mean([cell.met for cell in cells])), float((regrets == 0).mean())
    return f"{100 * met:.0f} / {100 * best:.0f} / {100 * regrets.mean():.1f} ± {100 * _error(regrets):.1f}"


def _error(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """Standard error of the mean."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def draw(cells: Sequence[Cell], path: Path) -> None:
    """A PNG of what the table says: a column of panels for each task, calls along the bottom."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    found = groups(cells)
    shapes = list(dict.fromkeys(shape for shape, _ in found))
    names = list(dict.fromkeys(strategy for _, strategy in found))
    size = (2.9 * len(shapes) + 1, 8.5)
    figure, axes = pyplot.subplots(3, len(shapes), figsize=size, squeeze=False, sharex=True, sharey="row")
    for column, shape in enumerate(shapes):
        for number, name in enumerate(names):
            by_budget = sorted(found.get((shape, name), {}).items())
            regrets = [100 * np.array([cell.regret for cell in group]) for _, group in by_budget]
            rows = (
                [100 * float(np.mean([cell.met for cell in group])) for _, group in by_budget],
                [100 * float((each == 0).mean()) for each in regrets],
                [float(each.mean()) for each in regrets],
            )
            errors = (None, None, [_error(each) for each in regrets])
            for row, (values, error) in enumerate(zip(rows, errors, strict=True)):
                axes[row, column].errorbar(
                    [budget for budget, _ in by_budget], values, error, label=name, color=f"C{number % 10}",
                    marker="o", markersize=3, capsize=2, linewidth=1.2,
                )  # fmt: skip
        axes[0, column].set_title(shape.name, fontsize=9)
        budgets = sorted({cell.budget for cell in cells})
        axes[2, column].set_xscale("log")
        axes[2, column].set_xticks(budgets, [f"{budget:,}" for budget in budgets], fontsize=7)
        axes[2, column].set_xticks([], minor=True)
        axes[2, column].set_xlabel("calls")
        for axis in axes[:, column]:
            axis.grid(alpha=0.3)
    for row, text in enumerate(
        ("seeds that meet the best prompt, %", "seeds that end at it, %", "points below it")
    ):
        axes[row, 0].set_ylabel(text)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=min(5, len(names)), fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.03 + 0.02 * ((len(names) - 1) // 5), 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "--strategies", nargs="+", default=list(STRATEGIES), help="tpe, tpe?batch=2, racing+tpe"
    )
    parser.add_argument("--seeds", type=int, default=20, help="how many, from 0")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS), help="calls")
    parser.add_argument("--tasks", type=int, nargs="+", default=list(range(len(SHAPES))), metavar="INDEX",
                        help="; ".join(f"{index}: {shape.name}" for index, shape in enumerate(SHAPES)))  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("runs/templates"), help="folder of finished cells")
    parser.add_argument("--report", action="store_true", help="only print and draw what has been run")


def from_arguments(given: argparse.Namespace) -> str:
    """Run what was asked for; the table. The curves go to ``curves.png`` in the folder."""
    shapes = [SHAPES[index] for index in given.tasks]
    seeds = range(given.first, given.first + given.seeds)
    if not given.report:
        run(shapes, given.strategies, given.budgets, seeds, given.out)
    cells = load(given.out, shapes, given.strategies, given.budgets, seeds)
    if not cells:
        return f"nothing has been run in {given.out}"
    draw(cells, given.out / "curves.png")
    return f"{report(cells)}\ncurves: {given.out / 'curves.png'}"
