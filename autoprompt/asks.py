"""The questions a strategy may ask about prompts, and their answers.

Questions are data: a strategy emits them, the harness answers them. So any strategy can wrap another, and
everything that is spent is spent in one place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from autoprompt.policy import TokenPolicy
from autoprompt.prompt import Prompt
from autoprompt.soft import SoftRows, Training
from autoprompt.task import Example

GRADIENT_CALLS = 3
"""What the gradient of one example costs: a run forwards, and one back, which is twice the work."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """How well does ``prompt`` do on each of ``examples`` (N of them)?

    Attributes:
        prompt: the prompt to score.
        examples: the examples, in the order in which the answer lists them.
        repeat: tells repeated questions apart when the noise of a model is measured; 0 otherwise.
        note: a word for the log on why it was asked, such as ``seed`` or ``block 2``; changes nothing.
        beside: the prompt breaks a rule of its space (its token policy, its bound on perplexity), or is half a soft one on
            its way to words: it may be kept beside the result and never is it.
    """

    prompt: Prompt
    examples: tuple[Example, ...]
    repeat: int = 0
    note: str = field(default="", compare=False)
    beside: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Gradient:
    """In which direction should the tokens in the token slots of ``prompt`` go?

    Attributes:
        prompt: a prompt with token slots.
        examples: what the loss is the mean over.
        among_answers: whether the loss compares label words with each other, as scores do, or with the whole
            vocabulary (AutoPrompt, Shin et al. 2020, section 2.2).
        note: a word for the log.
    """

    prompt: Prompt
    examples: tuple[Example, ...]
    among_answers: bool = True
    note: str = field(default="", compare=False)


@dataclass(frozen=True)
class Fluency:
    """How likely are the tokens in the token slots of ``prompt`` where they stand?

    Attributes:
        prompt: a prompt with token slots.
        examples: the texts they stand in.
        likely: how many of the likeliest tokens are asked for at each position.
        judge: the model that judges, by name; empty: the one that is being prompted.
        note: a word for the log.
    """

    prompt: Prompt
    examples: tuple[Example, ...]
    likely: int = 0
    judge: str = ""
    note: str = field(default="", compare=False)


@dataclass(frozen=True)
class Tune:
    """Train the rows in the soft slots of ``prompt`` for some steps.

    Tunes of one round that differ in prompt, batches and seed only are trained together.

    Attributes:
        prompt: a prompt with soft slots; training starts at their rows, or goes on from ``state``.
        batches: a batch of examples a step; the loss is its mean.
        training: how.
        done: steps that were made before.
        state: what the ``Tuned`` before this gave.
        policies: slot to the tokens it may become, for methods that end in tokens.
        shown: examples to look at where no step is asked for: the answer is then what training begins at.
        note: a word for the log.
    """

    prompt: Prompt
    batches: tuple[tuple[Example, ...], ...]
    training: Training
    done: int = 0
    state: bytes = b""
    policies: tuple[tuple[str, TokenPolicy], ...] = ()
    shown: tuple[Example, ...] = ()
    note: str = field(default="", compare=False)

    @property
    def examples(self) -> tuple[Example, ...]:
        """All examples that are read, as often as they are."""
        return (*self.shown, *(example for batch in self.batches for example in batch))


@dataclass(frozen=True)
class Complete:
    """What does a model write after each of ``texts``?

    They are plain texts, not templates, and what comes back is data.

    Attributes:
        prompt: the prompt that is to become better by what is written; for the log, changes nothing.
        texts: what is read.
        model: who writes, by name; empty: the model that is being prompted.
        max_tokens: most new tokens a text.
        temperature: 0: the likeliest token at each step; else tokens are drawn.
        seed: of the draws of the first text, one more for each text after it, so that a text that is asked twice is
            continued in two ways.
        note: a word for the log.
    """

    prompt: Prompt = field(compare=False)
    texts: tuple[str, ...]
    model: str = ""
    max_tokens: int = 100
    temperature: float = 0.0
    seed: int = 0
    note: str = field(default="", compare=False)

    @property
    def examples(self) -> tuple[Example, ...]:
        """None: it is not about examples."""
        return ()


Ask = Score | Gradient | Fluency | Tune | Complete


@dataclass(frozen=True, eq=False)
class Scored:
    """The answer to a ``Score``.

    Attributes:
        scores: [N] metric per example in [0, 1], higher is better; NaN where the answer is missing (never 0
            for that).
        losses: [N] nats, lower is better: -log P(right answer), among the candidates where the task has
            candidates; NaN where missing or where the task has none (generation).
        predictions: what the model answered, one text per example; None where missing.
        tokens: mean number of tokens the model read per example.
        value: the task's metric over the set where it is not the mean of the scores (macro F1, corpus BLEU); None
            where it is.
        log_probs: [N, C] of every candidate among the candidates, in nats, where all examples have the same ones; None
            where they do not. NaN where missing.
        imputed: how many of ``scores`` were not measured but filled in by a strategy that wraps another one
            (racing); always 0 in what the harness answers and the study records.
    """

    scores: Floats
    losses: Floats
    predictions: tuple[str | None, ...] = ()
    tokens: float = 0.0
    value: float | None = None
    imputed: int = 0
    log_probs: Floats | None = None

    @property
    def missing(self) -> int:
        """How many answers are missing."""
        return int(np.isnan(self.scores).sum())

    @property
    def score(self) -> float:
        """The metric over the answers that are there, for most metrics their mean; NaN if none is."""
        return _nanmean(self.scores) if self.value is None else self.value

    @property
    def loss(self) -> float:
        """Mean loss over the answers that are there, in nats; NaN if none is."""
        return _nanmean(self.losses)

    @property
    def sure(self) -> float:
        """The score if every missing answer were wrong: the lower bound of what it would be with all of them.

        Candidates are compared by it, because means over different examples do not compare: a prompt must not
        win by losing its hard examples. It equals ``score`` where nothing is missing; NaN if nothing is
        there.
        """
        if self.missing == len(self.scores):
            return float("nan")
        return self.score * (len(self.scores) - self.missing) / len(self.scores)

    @property
    def merit(self) -> tuple[float, float]:
        """What candidates on the same examples are compared by: the score that is sure, then the smaller
        loss.
        """
        sure, loss = self.sure, self.loss
        return (
            -np.inf if np.isnan(sure) else sure,
            -np.inf if np.isnan(loss) else -loss,
        )


@dataclass(frozen=True, eq=False)
class Slope:
    """The answer to a ``Gradient``.

    Attributes:
        loss: mean over the examples, in nats; NaN where the model failed.
        ids: slot name to the ids of its L tokens; empty where the model failed.
        changes: slot name to [L, V], the first-order estimate of how the loss changes when a token is replaced by
            each of the vocabulary, in nats, up to a constant a position.
        problem: why there is no answer; empty where there is one.
    """

    loss: float
    ids: Mapping[str, tuple[int, ...]]
    changes: Mapping[str, npt.NDArray[np.float32]]
    problem: str = ""


@dataclass(frozen=True, eq=False)
class Fluent:
    """The answer to a ``Fluency``.

    Attributes:
        perplexity: of the slots' tokens, exp of the mean negative log-probability over all of them and all
            examples; NaN where the model failed on every example.
        ids: slot name to the ids of its L tokens.
        likely: slot name to [L][K] ids of the likeliest tokens, the likeliest first, by their mean log-probability
            over the examples; empty where none were asked for.
        problem: why there is no answer; empty where there is one.
    """

    perplexity: float
    ids: Mapping[str, tuple[int, ...]]
    likely: Mapping[str, tuple[tuple[int, ...], ...]]
    problem: str = ""


@dataclass(frozen=True, eq=False)
class Tuned:
    """The answer to a ``Tune``.

    Attributes:
        rows: slot name to its rows after the last step; empty where the model failed.
        ids: slot name to the tokens they stand for, for methods that end in tokens.
        losses: of every step, in nats, before it was made.
        state: what training goes on from.
        problem: why there is no answer; empty where there is one.
    """

    rows: Mapping[str, SoftRows]
    ids: Mapping[str, tuple[int, ...]]
    losses: tuple[float, ...]
    state: bytes
    problem: str = ""


@dataclass(frozen=True, eq=False)
class Completed:
    """The answer to a ``Complete``.

    Attributes:
        texts: what was written, one a text; None where the model failed.
        problem: why the last of those is missing; empty where all are there.
    """

    texts: tuple[str | None, ...]
    problem: str = ""


Answer = Scored | Slope | Fluent | Tuned | Completed


def price(ask: Ask) -> int:
    """Calls that an ask costs at most: where nothing of it was asked before."""
    if isinstance(ask, Complete):
        return len(ask.texts)
    return len(ask.examples) * (GRADIENT_CALLS if isinstance(ask, (Gradient, Tune)) else 1)


def scored_pairs(asks: Sequence[Ask], answers: Sequence[Answer]) -> list[tuple[Score, Scored]]:
    """The scores among the questions of a round, with their answers; what was not answered is left out."""
    return [
        (ask, answer)
        for ask, answer in zip(asks, answers, strict=False)
        if isinstance(ask, Score) and isinstance(answer, Scored)
    ]


def _nanmean(values: Floats) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")
