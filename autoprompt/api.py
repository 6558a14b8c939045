"""The whole story on one page: what the user gave is checked, the seed prompt is scored, a strategy asks and
the harness answers until the budget is spent, and the winner meets the seed prompt once on test.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoprompt import __version__
from autoprompt.asks import Answer, Ask, Score, Scored
from autoprompt.budget import Budget, Meter
from autoprompt.cache import Cache
from autoprompt.errors import BudgetError, InputError
from autoprompt.grading import pooled
from autoprompt.harness import Harness
from autoprompt.inputs import (
    check_call,
    check_capability,
    check_floor,
    header,
    load_space,
    load_task,
    model_kind,
    split_of,
    vocabulary_of,
)
from autoprompt.models import told
from autoprompt.models.load import check_model, load_model
from autoprompt.notes import notes_on, unread_in
from autoprompt.prompt import Prompt
from autoprompt.prompt_inputs import check_prompts, check_soft, load_prompts
from autoprompt.readable import Readable, fit_words
from autoprompt.result import FINISHED, Comparison, Evaluation, Result, estimate_on, mean_difference
from autoprompt.softfiles import keep_soft
from autoprompt.space import SearchSpace
from autoprompt.strategies import Setting, Strategy
from autoprompt.strategy_text import load_strategy
from autoprompt.study import Status, Study, Trial
from autoprompt.task import Task

IDLE_ROUNDS = 200
"""Rounds in a row that cost nothing after which a strategy that only repeats itself is taken to be done."""


@dataclass(frozen=True)
class Round:
    """What ``on_round`` is told: different prompts asked about, best score on select so far, what was spent by
    then, what may be spent, and how much of the round's questions are answered (1 after the round).
    """

    prompts: int
    best: float
    spent: Meter
    budget: Budget
    answered: float = 1.0


def optimize(
    task: Task | str | Path,
    model: object,
    budget: Budget | int | str,
    *,
    space: SearchSpace | str | Path | None = None,
    strategy: Strategy | str = "auto",
    seed: int = 0,
    run_dir: str | Path | None = None,
    workers: int = 1,
    on_round: Callable[[Round], None] | None = None,
) -> Result:
    """Find a better prompt than the task's manual one, and measure by how much.

    Args:
        task: a name (``"reviews"``), a YAML file, or a ``Task``.
        model: a Hugging Face id or folder, ``"bundled:masked"``, ``"toy"``, ``(model, tokenizer)``, a
            function ``str -> str``, or an object with the methods of ``autoprompt.models``.
        budget: calls (one prompt on one example), ``"10 min"``, ``"2M tokens"``, or a ``Budget``.
        space: a name, a YAML file or a ``SearchSpace``; the task's own by default.
        strategy: a name, with settings where some are to differ (``"gp?block=4"``), or a ``Strategy``.
        seed: the same inputs and seed give the same run.
        run_dir: folder that keeps the run; the same call on the same folder resumes it.
        workers: processes a round is spread over (the model given by name).
        on_round: called after each round, and within long ones after each batch.

    Raises:
        InputError: something given is wrong; nothing was run.
        StudyMismatch: ``run_dir`` holds a different run.
        TooManyFailures: too many answers are missing to declare a winner.
        ModelError: the model cannot be loaded or failed.
    """
    budget, strategy = Budget.parse(budget), load_strategy(strategy)
    task = load_task(task)
    space = load_space(space, task, strategy)
    check_call(task, space, budget, model, strategy=strategy, workers=workers, seed=seed)
    loaded = load_model(model)
    check_capability(task, loaded, task.seed_prompt, strategy)
    check_floor(task, loaded, budget)
    fitted, notes = fit_words(task, space, loaded)
    readable = Readable(task, loaded)
    bound = fitted.bind(task, answer_at_end=loaded.kind != "masked", accepts=readable)
    identity = header(task, loaded, space, strategy, seed, budget, __version__)
    source = os.fspath(model) if isinstance(model, os.PathLike) else model
    with (
        contextlib.closing(Study(Path(run_dir) if run_dir is not None else None, identity)) as study,
        contextlib.closing(Cache(study.answers_path)) as cache,
    ):
        harness = Harness(task, loaded, budget, cache, source=source, workers=workers)
        run = _Run(task, bound, strategy, harness, study, on_round, readable, notes)
        try:
            run.search(np.random.default_rng(seed))
            return run.conclude("budget" if harness.exhausted else "complete")
        except KeyboardInterrupt:
            return run.conclude("interrupted")
        except InputError:  # the call is wrong, not the run
            raise
        except Exception:
            with contextlib.suppress(OSError):  # what went wrong first is what is told
                run.conclude("failed")
            raise


@dataclass
class _Run:
    """One search from the first question to the result."""

    task: Task
    space: SearchSpace
    strategy: Strategy
    harness: Harness
    study: Study
    on_round: Callable[[Round], None] | None
    readable: Readable
    notes: tuple[str, ...]
    noise: float | None = None

    def search(self, rng: np.random.Generator) -> None:
        """The loop: the seed prompt first, then what the strategy asks."""
        self.harness.on_batch = lambda done, questions: (
            self.show(done / questions) if done < questions else None
        )
        seed_prompt, select = self.task.seed_prompt, self.task.select
        first = self.score(Score(seed_prompt, select, note="seed"))
        if not first:
            raise BudgetError(f"budget: {self.harness.budget} does not cover scoring the manual prompt once")
        if not self.harness.model.deterministic:
            for again in self.score(Score(seed_prompt, select, repeat=1, note="noise floor")):
                self.noise = mean_difference(first[0], again)
        left = None
        if self.harness.budget is not None and self.harness.budget.calls is not None:
            left = self.harness.budget.calls - self.harness.meter.calls
        tokens = vocabulary_of(self.harness.model, self.space)
        train = self.task.train
        self.strategy.begin(Setting(self.space, seed_prompt, first[0], train, select, rng, left, tokens))
        idle = 0
        while not self.harness.exhausted and idle < IDLE_ROUNDS and (asks := self.strategy.ask()):
            before = self.harness.meter.calls
            answers = self.play(asks)
            self.strategy.tell(asks[: len(answers)], answers)
            idle = idle + 1 if self.harness.meter.calls == before else 0

    def score(self, ask: Score) -> list[Scored]:
        """One score, or none where the budget does not pay for it."""
        return [each for each in self.play([ask]) if isinstance(each, Scored)]

    def play(self, asks: Sequence[Ask]) -> list[Answer]:
        """One round: answered within the budget, written down, shown."""
        answers = self.harness.answer(asks)
        self.study.record(asks, answers, select=self.task.select, calls=self.harness.meter.calls)
        if answers:
            self.show()
        return answers

    def show(self, answered: float = 1.0) -> None:
        """Tell the caller how far the search is."""
        if self.on_round is not None and self.harness.budget is not None:
            spent = dataclasses.replace(self.harness.meter)
            best = _score(self.study.best())
            self.on_round(Round(self.study.prompts, best, spent, self.harness.budget, answered))

    def conclude(self, status: Status) -> Result:
        """Measure the winner and the seed prompt on test, once, and write what was found."""
        task, harness, study = self.task, self.harness, self.study
        best = study.best()
        candidate = best.prompt if best is not None else task.seed_prompt
        final = Harness(
            task, harness.model, None, harness.cache, harness.source, harness.workers, account="test"
        )
        test: Comparison | None = None
        if status in FINISHED:
            # One prompt at a time, so that the batches, and with them all digits, are those of evaluate().
            (of_seed,) = final.scores([Score(task.seed_prompt, task.test)])
            (of_best,) = final.scores([Score(candidate, task.test)])
            test = Comparison.of(task, of_seed, of_best)
        soft, soft_test = study.best_soft(), None
        if soft is not None and status in FINISHED:
            (of_soft,) = final.scores([Score(soft.prompt, task.test)])
            soft_test = estimate_on(task, task.test, of_soft)
        result = Result(
            status=status,
            best=candidate if test is not None and test.shows_gain else task.seed_prompt,
            candidate=candidate,
            seed_prompt=task.seed_prompt,
            seed_select=_score(study.trials[0] if study.trials else None),
            best_select=_score(best),
            test=test,
            # A round that was cut short is charged again when it is repeated: what counts is what was answered.
            spent=harness.meter
            if status in FINISHED
            else dataclasses.replace(harness.meter, calls=study.trials[-1].calls if study.trials else 0),
            measured=final.meter,
            header=study.header,
            chosen=self.strategy.note or str(study.header["strategy"]["strategy"]),
            noise=self.noise,
            pareto=tuple(study.pareto()),
            perplexities=study.perplexities(),
            beside=study.best_beside(),
            soft=None if soft is None else soft.prompt,
            soft_select=_score(soft),
            soft_test=soft_test,
            findings=self.strategy.findings,
            trials=tuple(study.trials),
            notes=(*task.notes, *self.notes, *self.readable.notes, *notes_on(harness, final, study.prompts)),
            folder=study.folder,
        )
        result.keep()
        if study.folder is not None and result.soft is not None:
            keep_soft(study.folder / "soft", result.soft, harness.model, result.document()["soft"])
        return result


def _score(trial: Trial | None) -> float:
    return float("nan") if trial is None or trial.score is None else trial.score


def evaluate(
    task: Task | str | Path,
    model: object,
    prompt: Prompt | str | Path | Sequence[Prompt | str | Path],
    *,
    split: str = "test",
) -> Evaluation:
    """Score a prompt on a split of the task, or several as one by the mean of the probabilities they give.

    Args:
        task: as for ``optimize``.
        model: as for ``optimize``.
        prompt: a ``Prompt``, a template text, or the path of a prompt file that ``optimize`` or ``export``
            wrote, or the folder of a soft prompt; or a list of these.
        split: ``test``, ``select`` or ``train``.

    Raises:
        InputError: something given is wrong; nothing was run.
    """
    task = load_task(task)
    prompts = load_prompts(prompt, task)
    examples = split_of(task, split)
    check_model(model)
    check_prompts(prompts, task, model_kind(model))
    loaded = load_model(model)
    check_soft(prompt, loaded)
    check_prompts(prompts, task, loaded.kind, loaded)
    with contextlib.closing(Cache()) as cache:
        harness = Harness(task, loaded, None, cache, source=model, account="test")
        answers = harness.scores([Score(each, examples) for each in prompts])
    scored = answers[0] if len(answers) == 1 else pooled(task, examples, answers)
    estimate = estimate_on(task, examples, scored)
    notes = (*told(loaded), *unread_in(harness, split))
    return Evaluation(prompts, split, task.metric, estimate, scored, harness.meter, notes)
