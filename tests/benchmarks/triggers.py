"""Planted triggers: which strategy finds them, and after how many calls.

``python -m tests.benchmarks.triggers --kinds masked causal seq2seq --strategies gradient gcg --seeds 10 --budget 10000
--out runs/triggers`` runs every cell (a kind, a strategy, a seed) that has no file in the folder yet, and prints the table.
A cell asks ``autoprompt.optimize`` for nothing but what a user would. All strategies get the same task, model and budget.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np

import autoprompt
from autoprompt.study import write_atomically
from tests.benchmarks.measure import table
from tests.benchmarks.planted import FAMILIES, LARGE, SLOT, Kind, Planted, Size, planted_task

STRATEGIES = ("gradient", "autoprompt", "gcg", "random_search")
FOUND = 0.95
"""Accuracy from which a planted trigger counts as found."""
HEAD = [
    "model", "strategy", "tokens", "calls", "seeds", "test, median (quartiles)", "found",
    "calls to find, median (quartiles)", "cpu s", "empty", "random",
]  # fmt: skip
NOTES = f"""The planted trigger scores 1.00. test: accuracy on unseen texts of the best prompt on select, over seeds.
found: seeds whose test accuracy is at least {FOUND}. calls to find: calls spent (a gradient counts three an example) by
the end of the round in which a prompt first reached {FOUND} on select; seeds in which none did count as infinite.
cpu s: processor seconds for 1,000 calls, median. empty, random: medians without a trigger, and of random words."""


@dataclass(frozen=True)
class Cell:
    """One search.

    Attributes:
        kind: how the model reads.
        strategy: its name.
        seed: of the task, the model and the search.
        n: tokens of the planted trigger.
        budget: calls.
        test: accuracy on test of the best prompt on select.
        select: its accuracy there.
        calls_to_find: calls spent when a prompt first had ``FOUND`` on select; None where none had.
        spent: calls.
        seconds: processor seconds, all threads together.
        empty: accuracy on test without a trigger.
        random: mean accuracy on test of random triggers.
        planted: the hidden trigger.
        trigger: the one found.
    """

    kind: Kind
    strategy: str
    seed: int
    n: int
    budget: int
    test: float
    select: float
    calls_to_find: int | None
    spent: int
    seconds: float
    empty: float
    random: float
    planted: str
    trigger: str


def search(planted: Planted, kind: Kind, strategy: str, seed: int, n: int, budget: int) -> Cell:
    """Run one search with the readable triggers of the space; what it finds beside them does not count."""
    start = time.process_time()
    result = autoprompt.optimize(
        planted.task,
        planted.model,
        budget,
        space=autoprompt.SearchSpace.from_dict(planted.space),
        strategy=strategy,
        seed=seed,
    )
    seconds = time.process_time() - start
    assert result.test is not None
    found = (
        trial.calls
        for trial in result.trials
        if trial.complete and not trial.beside and trial.score is not None and trial.score >= FOUND
    )
    return Cell(
        kind,
        strategy,
        seed,
        n,
        budget,
        test=result.test.best.value,
        select=result.best_select,
        calls_to_find=next(found, None),
        spent=result.spent.calls,
        seconds=seconds,
        empty=planted.empty,
        random=float(np.mean(planted.random)),
        planted=planted.trigger,
        trigger=str(result.candidate.choices.get(SLOT, "")),
    )


def run(
    kinds: Sequence[Kind],
    strategies: Sequence[str],
    seeds: Sequence[int],
    budget: int,
    *,
    lengths: Sequence[int] = (3,),
    size: Size = LARGE,
    folder: Path | None = None,
) -> list[Cell]:
    """Run all cells, or read those that are in ``folder`` already and put the others there.

    A cell's file belongs to this version of the library and of the tasks: take an empty folder to measure anew.
    """
    cells: list[Cell] = []
    for kind, seed, n in itertools.product(kinds, seeds, lengths):
        planted, done = None, len(cells)
        for strategy in strategies:
            path = folder and folder / _file(kind, strategy, seed, n, budget, size)
            if path and path.exists():
                cells.append(Cell(**json.loads(path.read_text("utf-8"))))
                continue
            planted = planted or planted_task(kind, seed, n, size=size)
            cells.append(search(planted, kind, strategy, seed, n, budget))
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, json.dumps(asdict(cells[-1]), indent=1) + "\n")
                _tell(cells[-1])
        _check_same_task(cells[done:], folder)
    return cells


def _check_same_task(cells: Sequence[Cell], folder: Path | None) -> None:
    """Refuse to compare strategies on different tasks, as where a folder was begun by another version.

    Raises:
        ValueError: the cells of a seed differ in what was planted, or in what nothing and random words score.
    """
    tasks: dict[tuple[str, float, float], list[str]] = {}
    for cell in cells:
        tasks.setdefault((cell.planted, cell.empty, cell.random), []).append(cell.strategy)
    if len(tasks) > 1:
        where = f"{cells[0].kind}, seed {cells[0].seed}, {cells[0].n} tokens"
        apart = " and ".join(", ".join(names) for names in tasks.values())
        raise ValueError(f"{folder}: {where}: {apart} were measured on different tasks; measure them anew")


def _file(kind: Kind, strategy: str, seed: int, n: int, budget: int, size: Size) -> str:
    """The name of a cell's file; a strategy may be a path, and the size of the language decides the task."""
    plain = re.sub(r"\W+", "-", strategy)
    mark = hashlib.sha256(json.dumps([strategy, asdict(size)]).encode()).hexdigest()[:8]
    return f"{kind}-{plain}-n{n}-{budget}-{seed}-{mark}.json"


def _tell(cell: Cell) -> None:
    found = f"found after {cell.calls_to_find}" if cell.calls_to_find is not None else "not found"
    name = f"{cell.kind} {cell.strategy} n={cell.n} seed {cell.seed}"
    print(f"{name}: test {cell.test:.2f}, {found}: {cell.trigger}", file=sys.stderr, flush=True)


def report(cells: Sequence[Cell]) -> str:
    """The table: a row for each kind, strategy, length and budget."""
    groups: dict[tuple[str, str, int, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.kind, cell.strategy, cell.n, cell.budget), []).append(cell)
    return f"{table(HEAD, [_row(key, group) for key, group in groups.items()])}\n\n{NOTES}\n"


def _row(key: tuple[str, str, int, int], group: Sequence[Cell]) -> list[str]:
    kind, strategy, n, budget = key
    found = sum(cell.test >= FOUND for cell in group)
    calls = [np.inf if cell.calls_to_find is None else cell.calls_to_find for cell in group]
    return [
        kind,
        strategy,
        str(n),
        f"{budget:,}",
        str(len(group)),
        _spread([cell.test for cell in group], ".2f"),
        f"{found}/{len(group)}",
        _spread(calls, ",.0f"),
        f"{np.median([1000 * cell.seconds / cell.spent for cell in group]):.2f}",
        *(f"{np.median([float(asdict(cell)[name]) for cell in group]):.2f}" for name in ("empty", "random")),
    ]


def _spread(values: Sequence[float], form: str) -> str:
    """Median and quartiles; each a value that occurs, so that infinite ones can be among them."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], method="inverted_cdf")
    return f"{middle:{form}} ({low:{form}}-{high:{form}})"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--kinds", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), help="names of strategies")
    parser.add_argument("--seeds", type=int, default=10, help="how many, from 0")
    parser.add_argument("--budget", type=int, default=10_000, help="calls a search may spend")
    parser.add_argument("--n", type=int, nargs="+", default=[3], help="tokens of the planted trigger")
    parser.add_argument("--out", type=Path, default=Path("runs/triggers"), help="folder of finished cells")


def from_arguments(given: argparse.Namespace) -> str:
    """Run what was asked for; the table."""
    cells = run(
        given.kinds, given.strategies, range(given.seeds), given.budget, lengths=given.n, folder=given.out
    )
    return report(cells)


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m tests.benchmarks.triggers``."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.triggers", description=__doc__)
    add_arguments(parser)
    print(from_arguments(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
