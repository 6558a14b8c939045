"""What a run found: the prompt, how good it is on unseen data, and at what cost."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from autoprompt.asks import Scored
from autoprompt.budget import Meter
from autoprompt.exporters import FORMAT, write_prompt
from autoprompt.metrics import METRICS, mean
from autoprompt.prompt import Prompt
from autoprompt.statistics import Estimate, Paired, bootstrap_set, estimate, paired, paired_set
from autoprompt.study import Status, Trial, write_atomically
from autoprompt.task import Example, Task

FINISHED: tuple[Status, ...] = ("complete", "budget")
"""The statuses of runs that were brought to their end."""


def estimate_on(task: Task, examples: Sequence[Example], scored: Scored) -> Estimate:
    """The task's metric over examples, with its interval."""
    metric = METRICS[task.metric]
    if metric.over_set is mean:
        return estimate(scored.scores)
    targets = [example.target for example in examples]
    return bootstrap_set(metric.over_set, targets, scored.predictions, scored.scores)


def mean_difference(one: Scored, other: Scored) -> float | None:
    """Mean absolute difference of two answers to the same question, where both are there; None if nowhere."""
    differences = np.abs(one.scores - other.scores)
    present = differences[~np.isnan(differences)]
    return float(present.mean()) if present.size else None


@dataclass(frozen=True)
class Comparison:
    """Two prompts on the same test examples, which the search did not see."""

    seed: Estimate
    best: Estimate
    paired: Paired

    @classmethod
    def of(cls, task: Task, seed: Scored, best: Scored) -> Comparison:
        """Compare two answers to the same question on ``task.test``."""
        metric = METRICS[task.metric]
        figures = [estimate_on(task, task.test, scored) for scored in (seed, best)]
        if metric.over_set is mean:
            return cls(figures[0], figures[1], paired(best.scores, seed.scores))
        targets = [example.target for example in task.test]
        pair = paired_set(
            metric.over_set, targets, best.predictions, best.scores, seed.predictions, seed.scores
        )
        return cls(figures[0], figures[1], pair)

    @property
    def shows_gain(self) -> bool:
        """Whether the interval of the paired difference lies above zero, and the test agrees: on a handful of rows the
        interval alone would claim too much.
        """
        return self.paired.interval.low > 0 and self.paired.p_value < 1 - self.paired.interval.level


@dataclass(frozen=True)
class Evaluation:
    """A prompt on one split, or several that answer as one.

    Attributes:
        prompts: the prompts that were scored.
        split: on which split of the task.
        metric: name of the task's metric.
        estimate: the metric over the split, with its interval.
        scored: the answers, example by example.
        spent: what it cost.
        notes: what the model has to say about its answers.
    """

    prompts: tuple[Prompt, ...]
    split: str
    metric: str
    estimate: Estimate
    scored: Scored
    spent: Meter
    notes: tuple[str, ...] = ()

    @property
    def prompt(self) -> Prompt:
        """The first of them."""
        return self.prompts[0]

    def __str__(self) -> str:
        missing = f", {self.estimate.missing} missing" if self.estimate.missing else ""
        return f"{self.metric} {_figures(self.estimate)} (n={self.estimate.n}{missing}) on {self.split}"


@dataclass(frozen=True)
class Result:
    """The outcome of ``optimize``. ``str(result)`` is a report of five lines; one more for what is kept beside, and for a
    soft prompt.

    Attributes:
        status: complete | budget | interrupted | failed.
        best: the prompt to use: the candidate if it beats the seed prompt on test, else the seed prompt.
        candidate: the best prompt on select; the seed prompt where there is none.
        seed_prompt: the manual prompt of the task.
        seed_select: the seed prompt's mean score on select; NaN if the run ended before it was known.
        best_select: the candidate's score there, NaN likewise; optimistic, since it was chosen by it.
        test: both prompts on test; None when the run was interrupted or failed.
        spent: what the search cost.
        measured: what the final measurement cost, outside the search's budget.
        chosen: the strategy, and why, where it was chosen automatically.
        noise: mean absolute difference of two scorings of the seed prompt; None for a deterministic model.
        pareto: trials that no other beats in score, tokens and, where it is known, perplexity.
        perplexities: how the token slots of prompts read, by the prompt's key.
        beside: the best of the prompts that break a rule of their space, such as its token policy; None: none tried.
        soft: the best prompt with rows in place of tokens; None where none was trained.
        soft_select: its score on select; NaN where there is none.
        soft_test: the same on test, where that was touched.
        findings: what the strategy found besides prompts, as plain data.
        trials: all of them.
        header: the identity of the run: task, model, space, strategy, seed, budget, version.
        notes: what the user should know (duplicates across splits, shortened examples, missing answers).
        folder: the run folder.
    """

    status: Status
    best: Prompt
    candidate: Prompt
    seed_prompt: Prompt
    seed_select: float
    best_select: float
    test: Comparison | None
    spent: Meter
    measured: Meter
    header: Mapping[str, Any]
    chosen: str = ""
    noise: float | None = None
    pareto: tuple[Trial, ...] = ()
    perplexities: Mapping[str, float] = field(default_factory=dict, repr=False)
    beside: Trial | None = None
    soft: Prompt | None = None
    soft_select: float = math.nan
    soft_test: Estimate | None = None
    findings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    trials: tuple[Trial, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()
    folder: Path | None = None

    @property
    def gap(self) -> float:
        """What the way back to words costs: the soft prompt's score less the best one of text, on test where it was
        touched, else on select; NaN where there is no soft prompt, or one of keys and values, from which no way leads back.
        """
        if self.soft is not None and self.soft.has_prefix:
            return math.nan
        if self.soft_test is not None and self.test is not None:
            return self.soft_test.value - self.test.best.value
        return self.soft_select - self.best_select

    @property
    def shortest(self) -> Trial | None:
        """The shortest prompt on the Pareto front that lies within one standard error of the best one's score on select
        (the rule of Breiman et al. 1984, section 3.4.3, for trees); None where that is the candidate itself.

        The standard error is that of a share, sqrt(p (1 - p) / n), which is the largest that scores of such a mean can have.
        """
        best = self.best_select
        if math.isnan(best):
            return None
        error = math.sqrt(max(0.0, best * (1 - best)) / self.header["select_size"])
        near = [trial for trial in self.pareto if trial.sure is not None and trial.sure >= best - error]
        found = min(near, key=lambda trial: (trial.tokens, -(trial.sure or 0.0), trial.number), default=None)
        return None if found is None or found.key == self.candidate.key else found

    @property
    def verdict(self) -> str:
        """One sentence: the gain on test with its interval, or that none is shown."""
        if self.test is None:
            return f"no verdict: the run is {self.status} and test was not touched"
        if self.candidate.key == self.seed_prompt.key:
            n = self.test.best.n
            return f"no prompt beat the manual one on select: the manual prompt is returned (n={n})"
        pair = self.test.paired
        figures = (
            f"{100 * pair.difference:+.1f} points, 95 % interval "
            f"[{100 * pair.interval.low:.1f}, {100 * pair.interval.high:.1f}], n={pair.n}"
        )
        if self.test.shows_gain:
            return f"{figures} against the manual prompt"
        return f"no gain shown ({figures}): the manual prompt is returned"

    def __str__(self) -> str:
        header, spent, measured = self.header, self.spent, "select" if self.test is None else "test"
        if math.isnan(self.seed_select):
            test = "not measured: the run ended before the manual prompt was scored"
        elif self.test is None:
            on_select = f"{100 * self.best_select:.1f} (manual prompt {100 * self.seed_select:.1f})"
            test = f"{on_select}; test not touched"
            if self.candidate.key != self.seed_prompt.key:
                test += f"; best there: {_one_line(self.candidate)}"
        else:
            found = "" if self.test.shows_gain else "candidate "
            test = f"{found}{_figures(self.test.best)}, manual prompt {_figures(self.test.seed)}"
        where = f" · saved in {self.folder}" if self.folder else ""
        tried = len({trial.key for trial in self.trials})
        whole = len({trial.key for trial in self.trials if trial.complete})
        prompts = f"{tried:,} prompts" if whole == tried else f"{tried:,} prompts, {whole:,} of them in full,"
        lines = "\n".join(
            [
                f"prompt    {_one_line(self.best)}",
                f"{measured:<10}{header['metric']} {test}",
                f"verdict   {self.verdict}",
                f"spent     {spent.calls:,} calls, {spent.tokens:,} tokens, {spent.seconds:.1f} s "
                f"(budget {header['budget']})"
                f" · test {self.measured.calls:,} calls, {self.measured.seconds:.1f} s",
                f"run       {self.status} · {prompts} on {header['select_size']} select rows of "
                f"{header['task']} with {header['model']}, {self.chosen}{where}",
            ]
        )
        if self.beside is not None and self.beside.score is not None:
            lines += (
                f"\nbeside    select {100 * self.beside.score:.1f} where any token may stand: "
                f"{_one_line(self.beside.prompt)}"
            )
        if self.soft is not None:
            test = f"test {_figures(self.soft_test)}, " if self.soft_test is not None else ""
            back = (
                "keys and values, which stand for no words"
                if self.soft.has_prefix
                else f"discretisation gap {100 * self.gap:+.1f} points to the candidate in words"
            )
            lines += (
                f"\nsoft      {test}select {100 * self.soft_select:.1f} with {_shapes(self.soft)}; {back}"
            )
        if "report" in self.findings:
            lines += f"\n{self.findings['report']}"
        return lines

    def document(self) -> dict[str, Any]:
        """Everything one needs to use the prompt and to believe its score, as plain data (valid JSON)."""
        document: dict[str, Any] = {
            "format": FORMAT,
            "prompt": self.best.text,
            "label_words": {label: list(words) for label, words in self.best.words.items()},
            "answer_read_as": self.header["answer_read_as"],
            "status": self.status,
            "strategy": self.chosen,
            "verdict": self.verdict,
            "run": dict(self.header),
            "select": {
                "seed_prompt": _finite(self.seed_select),
                "candidate": _finite(self.best_select),
                "n": self.header["select_size"],
                "note": "the candidate was chosen by this score, so it is optimistic",
            },
            "test": None,
            "seed_prompt": {
                "prompt": self.seed_prompt.text,
                "label_words": {label: list(words) for label, words in self.seed_prompt.words.items()},
            },
            "candidate": self._described(self.candidate, self.best_select),
            "beside": None
            if self.beside is None
            else self._described(self.beside.prompt, self.beside.score or 0.0),
            "shortest": None
            if self.shortest is None
            else self._described(self.shortest.prompt, self.shortest.score or 0.0),
            "soft": self._described_soft(),
            "findings": _finite(self.findings),
            "noise_floor": _finite(self.noise),
            "cost": {"search": dict(vars(self.spent)), "test": dict(vars(self.measured))},
            "pareto": [self._on_front(trial) for trial in self.pareto],
            "notes": list(self.notes),
        }
        if self.test is not None:
            pair = self.test.paired
            document["test"] = {
                "seed_prompt": _plain(self.test.seed),
                "candidate": _plain(self.test.best),
                "difference": {
                    "value": _finite(pair.difference),
                    "interval": [pair.interval.low, pair.interval.high],
                    "level": pair.interval.level,
                    "p_value": pair.p_value,
                    "n": pair.n,
                },
            }
        return document

    def _described(self, prompt: Prompt, select: float) -> dict[str, Any]:
        return {
            "prompt": prompt.text,
            "label_words": {label: list(words) for label, words in prompt.words.items()},
            "choices": dict(prompt.choices),
            "select": _finite(select),
            "perplexity": _finite(self.perplexities.get(prompt.key)),
        }

    def _described_soft(self) -> dict[str, Any] | None:
        if self.soft is None:
            return None
        return {
            "prompt": self.soft.text,
            "slots": {
                name: {"text": self.soft.slots[name], **rows.told()} for name, rows in self.soft.soft.items()
            },
            "note": "rows are read in place of the slots' texts, which only say where they stand",
            "select": _finite(self.soft_select),
            "test": None if self.soft_test is None else _plain(self.soft_test),
            "discretisation_gap": _finite(self.gap),
        }

    def _on_front(self, trial: Trial) -> dict[str, Any]:
        return {
            "prompt": trial.text,
            "score": trial.score,
            "tokens": trial.tokens,
            "perplexity": _finite(self.perplexities.get(trial.key)),
        }

    def keep(self) -> None:
        """Write ``result.json`` and the best prompt into the run folder, where there is one.

        A replay that was interrupted leaves what a finished run has written.
        """
        if self.folder is None:
            return
        path, finished = self.folder / "result.json", self.status in FINISHED
        if not finished and path.is_file() and json.loads(path.read_text("utf-8"))["status"] in FINISHED:
            return
        text = json.dumps(self.document(), indent=2, ensure_ascii=False, allow_nan=False)
        write_atomically(path, text + "\n")
        if finished:
            self.save(self.folder / "best_prompt.txt")

    def save(self, path: str | Path) -> list[Path]:
        """Write the best prompt; the ending decides the form (``.txt`` with a ``.json`` beside it,
        ``.jinja``, ``.json``, ``.messages.json``). Returns the files written.
        """
        return write_prompt(path, self.document())


def _shapes(prompt: Prompt) -> str:
    parts = (f"{len(rows)} rows at {name}" for name, rows in prompt.soft.items())
    return " and ".join(parts)


def _figures(estimate: Estimate) -> str:
    interval = estimate.interval
    return f"{100 * estimate.value:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _finite(value: Any) -> Any:
    """Plain data with null where a number is none: JSON knows no other."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(estimate: Estimate) -> dict[str, Any]:
    interval = estimate.interval
    return {
        "value": _finite(estimate.value),
        "interval": [interval.low, interval.high],
        "level": interval.level,
        "n": estimate.n,
        "missing": estimate.missing,
    }


def _one_line(prompt: Prompt) -> str:
    text = prompt.text.replace("\n", "⏎")
    words = "/".join("+".join(words) for words in prompt.words.values())
    text = text if len(text) <= 160 else text[:157] + "..."
    return f"{text}  ({words})" if words else text
