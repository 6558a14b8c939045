"""Races on real score matrices: calls saved, test score of the winner, and how often a good prompt is dropped.

``python -m tests.benchmarks racing`` asks real models once (``matrices.py``; some minutes), then replays races on what they
answered: the classes of ``autoprompt.strategies.racing`` themselves, over the prompts of a matrix in a drawn order, with N
of its examples drawn as select examples and the others as test. What has been replayed lies in the folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autoprompt.asks import Answer, Ask, Score, Scored
from autoprompt.prompt import Prompt
from autoprompt.strategies import Setting, Strategy
from autoprompt.strategies.racing import Racing
from autoprompt.strategies.tpe import comparable
from autoprompt.study import write_atomically
from autoprompt.task import Example
from autoprompt.testing import planted
from tests.benchmarks.matrices import SOURCES, Matrix, matrices
from tests.benchmarks.measure import table
from tests.benchmarks.planted_templates import strategy_of

RACES = ("racing", "racing?alpha=0.2", "racing?method=wilcoxon", "racing?method=halving")
HEAD = ["race", "N", "calls", "saved", "test, all", "test, race", "difference ± s.e.", "good lost", "best lost",
        "best lost wrongly"]  # fmt: skip
NOTES = """calls: share of what measuring every prompt on all N examples costs, mean over matrices (lowest to highest).
test: accuracy on the examples that are not among the N, of the winner when all are measured and of the race's winner; the
difference is paired, its s.e. over replays. good lost: of the candidates that are at least as good as the incumbent they
met, over all N examples, the share that was dropped (what alpha bounds). best lost: replays in which the prompt that is
best on all examples of the matrix is dropped; wrongly: though it is at least as good as its incumbent on the N."""
_SPACE = planted(seed=0, slots=1, options=2, n_examples=2).space


@dataclass(kw_only=True)
class Listed(Strategy):
    """Asks about given prompts, ``batch`` a round, in their order."""

    prompts: tuple[Prompt, ...]
    batch: int = 8
    told: dict[str, Scored] = field(init=False, repr=False, compare=False)
    _setting: Setting = field(init=False, repr=False, compare=False)

    def begin(self, setting: Setting) -> None:
        """Start with the first."""
        self._setting, self.told = setting, {}

    def ask(self) -> list[Score]:
        """The next ones."""
        start = len(self.told)
        return [Score(prompt, self._setting.select) for prompt in self.prompts[start : start + self.batch]]

    def tell(self, asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
        """Keep the answers."""
        for ask, answer in zip(asks, answers, strict=True):
            assert isinstance(answer, Scored)
            self.told[ask.prompt.text] = answer


@dataclass(frozen=True)
class Outcome:
    """One replay.

    Attributes:
        share: calls of those of measuring all.
        test_all: test score of the winner when all are measured.
        test: test score of the race's winner.
        good: candidates at least as good as the incumbent they met, on the N select examples.
        good_lost: how many of them were dropped.
        best_lost: whether the prompt that is best on all examples was dropped.
        best_lost_wrongly: whether it was, although it is at least as good as its incumbent on the N.
    """

    share: float
    test_all: float
    test: float
    good: int
    good_lost: int
    best_lost: bool
    best_lost_wrongly: bool


def replay(matrix: Matrix, race: Racing, size: int, seed: int) -> Outcome:
    """Race the prompts of a matrix in a drawn order on ``size`` drawn examples."""
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(matrix.scores.shape[1])
    select, test = drawn[:size], drawn[size:]
    order = 1 + rng.permutation(len(matrix.scores) - 1)
    examples = tuple(Example({"text": str(place)}, matrix.targets[place]) for place in select)
    places = {example.id: place for example, place in zip(examples, select, strict=True)}

    def answer(ask: Score) -> Scored:
        row, columns = int(ask.prompt.text), [places[example.id] for example in ask.examples]
        return Scored(matrix.scores[row, columns], matrix.losses[row, columns], ("",) * len(columns))

    whole = {row: answer(Score(Prompt(str(row)), examples)) for row in range(len(matrix.scores))}
    inner = Listed(prompts=tuple(Prompt(str(row)) for row in order))
    race.inner = inner
    race.begin(Setting(_SPACE, Prompt("0"), whole[0], (), examples, rng))
    met: dict[int, float] = {}
    calls = size
    measured: set[tuple[str, str]] = set()
    while asks := race.ask():
        scores = [ask for ask in asks if isinstance(ask, Score)]
        met |= {int(ask.prompt.text): race._incumbent.score for ask in scores}
        measured |= {(ask.prompt.text, example.id) for ask in scores for example in ask.examples}
        race.tell(asks, [answer(ask) for ask in scores])
    calls += len(measured)
    complete = {0, *(int(text) for text, scored in inner.told.items() if not scored.imputed)}
    good = [row for row in order if whole[row].score >= met[row] - 1e-9]
    best = int(np.argmax(matrix.scores.mean(axis=1)))
    return Outcome(
        share=calls / (size * len(matrix.scores)),
        test_all=_test(matrix, _winner(whole, set(whole)), test),
        test=_test(matrix, _winner(whole, complete), test),
        good=len(good),
        good_lost=sum(row not in complete for row in good),
        best_lost=best not in complete,
        best_lost_wrongly=best not in complete and best in good,
    )


def _winner(whole: dict[int, Scored], rows: set[int]) -> int:
    return max(sorted(rows), key=lambda row: comparable(whole[row]))


def _test(matrix: Matrix, row: int, columns: npt.NDArray[np.int64]) -> float:
    return float(matrix.scores[row, columns].mean())


def replays(matrix: Matrix, race: str, size: int, count: int, folder: Path) -> list[Outcome]:
    """``count`` replays of a race, read from the folder where they have been made."""
    made = strategy_of(race)
    assert isinstance(made, Racing)
    mark = hashlib.sha256(json.dumps(made.describe()).encode()).hexdigest()[:8]
    path = folder / "replays" / f"{matrix.name.replace(' ', '-')}-{mark}-n{size}-{count}.json"
    if path.exists():
        return [Outcome(**each) for each in json.loads(path.read_text("utf-8"))]
    found = [replay(matrix, made, size, seed) for seed in range(count)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps([asdict(each) for each in found]) + "\n")
    print(f"{matrix.name}, {race}, N={size}: {count} replays", file=sys.stderr, flush=True)
    return found


def row(race: str, size: int, by_matrix: Sequence[Sequence[Outcome]]) -> list[str]:
    """A line of the table."""
    every = [each for outcomes in by_matrix for each in outcomes]
    shares = [float(np.mean([each.share for each in outcomes])) for outcomes in by_matrix]
    gains = np.array([each.test - each.test_all for each in every])
    good = sum(each.good for each in every)
    return [
        race,
        str(size),
        f"{100 * np.mean(shares):.0f} % ({100 * min(shares):.0f}-{100 * max(shares):.0f})",
        f"{100 - 100 * np.mean(shares):.0f} %",
        f"{100 * np.mean([each.test_all for each in every]):.2f}",
        f"{100 * np.mean([each.test for each in every]):.2f}",
        f"{100 * gains.mean():+.2f} ± {100 * gains.std(ddof=1) / np.sqrt(len(gains)):.2f}",
        f"{100 * sum(each.good_lost for each in every) / good:.1f} % of {good:,}",
        f"{100 * np.mean([each.best_lost for each in every]):.1f} %",
        f"{100 * np.mean([each.best_lost_wrongly for each in every]):.1f} %",
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--races", nargs="+", default=list(RACES), help="racing?method=halving,eta=3")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128], help="select examples N")
    parser.add_argument("--replays", type=int, default=100, help="of each matrix")
    parser.add_argument("--matrices", type=int, default=len(SOURCES), help="how many of them")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/racing"), help="folder of matrices and replays"
    )


def from_arguments(given: argparse.Namespace) -> str:
    """Make what is missing; the table."""
    held = list(matrices(given.out, SOURCES[: given.matrices]))
    rows = [
        row(race, size, [replays(matrix, race, size, given.replays, given.out) for matrix in held])
        for size in given.sizes
        for race in given.races
    ]
    lines = [f"{matrix.name}: {_spread(matrix)}" for matrix in held]
    return "\n".join(
        [table(HEAD, rows), "", NOTES, "", "Matrices (accuracy in %, manual / lowest / highest):", *lines]
    )


def _spread(matrix: Matrix) -> str:
    means = 100 * matrix.scores.mean(axis=1)
    return f"{means[0]:.0f} / {means.min():.0f} / {means.max():.0f}"
