"""One line of a run's log: a prompt that was asked about, and what came of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypedDict

from autoprompt.asks import Answer, Completed, Fluent, Scored, Slope, Tuned
from autoprompt.prompt import Prompt
from autoprompt.soft import SoftRows


@dataclass(frozen=True)
class Trial:
    """One prompt that was asked about: scored, or how its loss changes, or how likely its tokens are, or what a model
    writes that is to make it better.

    Attributes:
        number: place in the log, from 0 (the seed prompt).
        round: the round it was asked in.
        text: the prompt.
        words: label words.
        choices: how the space made it.
        key: hash of the prompt's content.
        complete: whether it was scored on all select examples (only then may it win).
        n: examples asked about, or texts that were to be written.
        missing: answers missing among them.
        score: mean metric in [0, 1] over the answers that are there, None if none is.
        loss: mean nats over them, or None.
        tokens: mean tokens read per example.
        calls: calls spent in the run after the trial's round.
        note: why it was asked.
        beside: it breaks a rule of its space and is kept beside the result, never as it.
        perplexity: of the tokens in its token slots, where this line is about that.
        written: the texts that a model read to write, each with what it wrote (None: nothing came); where there are any.
        soft: the slots that hold rows in place of tokens, and those; in the log their shape and hash.
    """

    number: int
    round: int
    text: str
    words: Mapping[str, Sequence[str]]
    choices: Mapping[str, Any]
    key: str
    complete: bool
    n: int
    missing: int
    score: float | None
    loss: float | None
    tokens: float
    calls: int
    note: str = ""
    beside: bool = False
    perplexity: float | None = None
    written: tuple[tuple[str, str | None], ...] = ()
    soft: Mapping[str, SoftRows] = field(default_factory=dict)
    asked: Prompt | None = field(default=None, compare=False, repr=False)
    """The prompt itself, where it holds rows: its text alone does not make it again."""

    @property
    def prompt(self) -> Prompt:
        """The prompt, as it can be scored again."""
        if self.asked is not None:
            return self.asked
        words = {label: tuple(words) for label, words in self.words.items()}
        return Prompt(self.text, words, dict(self.choices))

    def row(self) -> dict[str, Any]:
        """The line in the log, as JSON has it."""
        row = {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name not in ("soft", "asked", "written")
        }
        if self.written:
            row["written"] = self.written
        if self.soft:
            row["soft"] = {name: rows.told() for name, rows in self.soft.items()}
        return json.loads(json.dumps(row))  # type: ignore[no-any-return]

    @property
    def sure(self) -> float | None:
        """The score if every missing answer were wrong; what trials are ranked by (see ``Scored.sure``)."""
        return None if self.score is None else self.score * (self.n - self.missing) / self.n


def may_win(trial: Trial) -> bool:
    """Whether it may be the result: scored in full, of text, within the rules of its space."""
    return trial.complete and trial.score is not None and not trial.beside and not trial.soft


def rank(trial: Trial) -> tuple[float, int, float, float, int]:
    """Sort key, best first: score with missing answers as wrong, fewest missing, loss in nats, tokens, first asked."""
    sure = -1.0 if trial.sure is None else round(trial.sure, 9)
    # A loss is compared to 1e-4 nats: below that it depends on batch sizes and threads.
    loss = float("inf") if trial.loss is None else round(trial.loss, 4)
    return (-sure, trial.missing, loss, trial.tokens, trial.number)


class _Measured(TypedDict):
    missing: int
    score: float | None
    loss: float | None
    tokens: float
    perplexity: float | None


def measured(answer: Answer) -> _Measured:
    """What a trial says of an answer."""
    loss = perplexity = math.nan
    if isinstance(answer, Scored):
        return _Measured(
            missing=answer.missing,
            score=_rounded(answer.score),
            loss=_rounded(answer.loss),
            tokens=round(answer.tokens, 2),
            perplexity=None,
        )
    if isinstance(answer, Slope):
        loss = answer.loss
    elif isinstance(answer, Fluent):
        perplexity = answer.perplexity
    elif isinstance(answer, Tuned) and answer.losses:
        loss = answer.losses[-1]
    missing = answer.texts.count(None) if isinstance(answer, Completed) else 0
    return _Measured(
        missing=missing, score=None, loss=_rounded(loss), tokens=0.0, perplexity=_rounded(perplexity)
    )


def _rounded(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
