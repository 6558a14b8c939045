"""Tree-structured Parzen estimator over the choices of the space, by Optuna's ask and tell.

Watanabe (2023), "Tree-structured Parzen estimator", arXiv:2304.11127; multivariate and grouped by conditional
parameters as in Falkner et al. (2018), BOHB. Everything stays in memory: a run is repeated from its seed
and answers, so no sampler state has to be saved.

Options are told apart by yes and no: Optuna's distance between them (``categorical_distance_func``) was deprecated in 4.9
and is gone from 5.0 (its pull requests 6635 and 6783), and its ``GPSampler`` never had one. ``gp`` knows distances
between texts, needs no optuna and finds better prompts at equal calls on planted tasks (``python -m tests.benchmarks
templates``); on a real model with 32 examples the two were alike.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autoprompt.asks import Answer, Ask, Score, Scored, scored_pairs
from autoprompt.drawing import FixedChooser, Recorder
from autoprompt.errors import InputError, MissingDependency
from autoprompt.prompt import Prompt
from autoprompt.strategies import Setting, Strategy
from autoprompt.strategies.random_search import Unseen

if TYPE_CHECKING:
    import optuna

TIE_BREAK = 1e-9
"""Weight of the squashed loss beside the score. Different scores of N examples differ by at least 1/N for
right-or-wrong metrics and by far more than this for graded ones, so the loss only orders equal scores."""


class _TrialChooser:
    """Lets Optuna make every choice; choices that come up only sometimes are conditional parameters."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def choice(self, name: str, options: Sequence[str]) -> int:
        return int(self._trial.suggest_categorical(name, list(range(len(options)))))


@dataclass(kw_only=True)
class TPE(Strategy):
    """Proposes prompts whose choices are frequent among the good ones so far and rare among the others.

    Attributes:
        batch: prompts a round; within a round, prompts not yet scored count as bad ones (constant liar), so
            that they differ. Smaller learns faster, larger fills more workers.
        startup: prompts drawn at random before the model of the space is used (the seed prompt counts).
        redraws: proposals of known or invalid prompts in a row after which a random new prompt is taken
            instead.
    """

    batch: int = 4
    startup: int = 12
    redraws: int = 10
    _setting: Setting = field(init=False, repr=False, compare=False)
    _study: optuna.Study = field(init=False, repr=False, compare=False)
    _unseen: Unseen = field(init=False, repr=False, compare=False)
    _seen: set[str] = field(init=False, repr=False, compare=False)
    _pending: dict[str, optuna.Trial] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the fields."""
        for name, value in (("batch", self.batch), ("startup", self.startup), ("redraws", self.redraws)):
            if value < 1:
                raise InputError(f"tpe: {name} must be at least 1 (got {value!r})")

    def begin(self, setting: Setting) -> None:
        """Start afresh with an empty study and the seed prompt as its first trial."""
        try:
            import optuna
        except ImportError:
            raise MissingDependency(
                "tpe: the package optuna is not installed",
                hint="pip install optuna, or use strategy='random_search'",
            ) from None
        self._setting = setting
        self._seen = {setting.seed_prompt.key}
        self._unseen = Unseen(setting.space, setting.rng, self._seen)
        self._pending = {}
        with _silent(), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                n_startup_trials=self.startup,
                seed=int(setting.rng.integers(2**31)),
                multivariate=True,
                group=True,
                constant_liar=True,
            )
            self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._add_seed()

    def ask(self) -> list[Score]:
        """Return up to ``batch`` new prompts; none when the space is used up."""
        asks: list[Score] = []
        with _silent():
            while len(asks) < self.batch:
                prompt, note = self._propose(), "tpe"
                if prompt is None:
                    prompt, note = next(iter(self._unseen.take(1)), None), "random"
                if prompt is None:
                    break
                asks.append(Score(prompt, self._setting.select, note=note))
        return asks

    def tell(self, asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
        """Tell Optuna the objective; a prompt without any answer teaches nothing."""
        with _silent():
            for ask, answer in scored_pairs(asks, answers):
                trial = self._pending.pop(ask.prompt.key, None)
                if trial is not None:
                    self._finish(trial, objective(answer))
            for trial in self._pending.values():  # the budget ended inside the round
                self._finish(trial, None)
            self._pending.clear()

    def _propose(self) -> Prompt | None:
        """A new prompt by TPE, or None when it keeps proposing known ones."""
        for _ in range(self.redraws):
            trial = self._study.ask()
            prompt = self._setting.space.draw(_TrialChooser(trial))
            if prompt is not None and prompt.key not in self._seen:
                self._seen.add(prompt.key)
                self._pending[prompt.key] = trial
                return prompt
            self._finish(trial, None)
        return None

    def _finish(self, trial: optuna.Trial, value: float | None) -> None:
        from optuna.trial import TrialState

        if value is None:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, value)

    def _add_seed(self) -> None:
        """Make the seed prompt a finished trial where its choices, or the first options everywhere, give it."""
        import optuna

        space, seed = self._setting.space, self._setting.seed_prompt
        recorder = Recorder(inner=FixedChooser(space.decisions(seed.choices)))
        prompt = space.draw(recorder)
        value = objective(self._setting.seed_scored)
        if prompt is None or prompt.key != seed.key or value is None:
            return
        with _silent():
            self._study.add_trial(
                optuna.trial.create_trial(
                    value=value,
                    params={name: index for name, _, index in recorder.asked},
                    distributions={
                        name: optuna.distributions.CategoricalDistribution(list(range(len(options))))
                        for name, options, _ in recorder.asked
                    },
                )
            )


def objective(scored: Scored) -> float | None:
    """One number with the order of ``Scored.merit``: the score, less a loss term that only breaks ties.

    Returns None where no answer is there.
    """
    score, gain = comparable(scored)
    if score == float("-inf"):
        return None
    squashed = 1.0 if gain == float("-inf") else -gain / (1.0 - gain)
    return score - TIE_BREAK * squashed


def comparable(scored: Scored) -> tuple[float, float]:
    """``Scored.merit`` without the last digits, which batch size and threads may change."""
    score, gain = scored.merit
    return round(score, 9), round(gain, 4)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep Optuna's log lines away and leave the user's own level as it was."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
