"""Finds words for the labels of a task: what a model itself would say where the answer is read.

Two ways to candidates, for models of any family:

- ``states``: a linear classifier is trained on the states at the answer place, and a label's words are those
  whose rows of the output layer it would take for that label (AutoPrompt, Shin et al. 2020, section 2.3).
- ``likelihood``: a label's words are those that are likeliest after its training examples (LM-BFF, Gao et al.
  2021, section 4.1).

Either way the candidates are put together, judged on train by accuracy and then by loss, and the best few are
scored on select as any prompt is. N examples, C labels, D width of states, V vocabulary, W candidate words.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import yaml

from autoprompt.asks import Score, Scored
from autoprompt.cache import Cache
from autoprompt.errors import (
    DataError,
    InputError,
    LabelWordError,
    MissingCapability,
    TooManyFailures,
    nearest,
)
from autoprompt.grading import content_free, needs_calibration
from autoprompt.harness import MISSING_LIMIT, Harness
from autoprompt.inputs import load_task, model_kind
from autoprompt.metrics import METRICS, mean
from autoprompt.models import LabelReply, LabelRequest, LabelSearchModel
from autoprompt.models.load import check_model, load_model
from autoprompt.probe import class_directions
from autoprompt.prompt import Prompt, Rendered
from autoprompt.prompt_inputs import load_prompt
from autoprompt.readable import can_score
from autoprompt.task import Example, Task
from autoprompt.word_sets import Choice, WordSets, label_options

Method = Literal["likelihood", "states"]
METHODS: tuple[Method, ...] = ("likelihood", "states")
LETTERS = r"[^\W\d_]{2,}|[^\W\d_\x00-\u2e7f]"
"""Two letters or more, of any script; one is enough where words are written without spaces between them."""
_LIKELY = 1000  # words by states are sought among the likeliest at the answer place
Floats = npt.NDArray[np.float64]
Words = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class RatedWords:
    """Words for the labels and what they are worth with the prompt they were looked for with.

    Attributes:
        words: label to its words.
        train_score: the task's metric on train, which the words were looked for on.
        train_loss: mean loss there, in nats.
        score: the task's metric on select.
        loss: mean loss there, in nats.
    """

    words: Words
    train_score: float
    train_loss: float
    score: float
    loss: float


@dataclass(frozen=True)
class LabelWordSearch:
    """What was found.

    Attributes:
        task: the task's name.
        model: the model's name.
        method: how candidates were found.
        metric: name of the task's metric.
        prompt: the prompt the words were looked for with; its words are the manual ones.
        ranked: the best words found, by score and then loss on select. They were chosen by these figures,
            which are therefore optimistic.
        manual: the manual words; None where the model cannot score them.
        calls: prompts on examples that were run.
    """

    task: str
    model: str
    method: Method
    metric: str
    prompt: Prompt
    ranked: tuple[RatedWords, ...]
    manual: RatedWords | None
    calls: int

    @property
    def best(self) -> Prompt:
        """The prompt with the best words on select; the manual ones unless others are better."""
        first = self.ranked[0]
        if self.manual is not None and _merit(self.manual) >= _merit(first):
            return self.prompt
        return Prompt(self.prompt.text, first.words)

    def slot(self, options: int | None = None) -> dict[str, Any]:
        """A tied ``map`` slot for a search space: the manual words first (where the model can score them), then
        the words found.

        Args:
            options: how many at most; all by default.
        """
        chosen = [self.prompt.words] if self.manual is not None else []
        chosen += [rated.words for rated in self.ranked if rated.words not in chosen]
        columns: dict[str, list[str | list[str]]] = {label: [] for label in self.prompt.words}
        for words in chosen[:options]:
            for label, column in columns.items():
                column.append(words[label][0] if len(words[label]) == 1 else list(words[label]))
        return {"map": columns, "tied": True}

    def yaml(self, name: str = "words") -> str:
        """That slot as it stands under ``slots:`` in the file of a search space."""
        text = yaml.safe_dump(
            {name: self.slot()}, sort_keys=False, allow_unicode=True, default_flow_style=None
        )
        return str(text)

    def text(self) -> str:
        """A table, best words first, the manual ones at the end."""
        head = [f"{self.metric} {split}" if part == "score" else f"loss {split}"
                for split in ("select", "train") for part in ("score", "loss")]  # fmt: skip
        rows = [["", *self.prompt.words, *head]]
        rows += [[str(rank), *_cells(rated)] for rank, rated in enumerate(self.ranked, 1)]
        if self.manual is None:
            rows.append(["manual", *map("/".join, self.prompt.words.values()), *["-"] * 4])
        else:
            rows.append(["manual", *_cells(self.manual)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        title = f"label words for {self.task} with {self.model}, by {self.method}: {self.calls:,} calls"
        return "\n".join([title, *lines])


def find_label_words(
    task: Task | str | Path,
    model: object,
    *,
    prompt: Prompt | str | Path | None = None,
    method: Method = "likelihood",
    per_label: int = 1,
    candidates: int = 50,
    keep: int = 10,
    matching: str = LETTERS,
    ban: Sequence[str] = (),
    seed: int = 0,
) -> LabelWordSearch:
    """Look for label words that fit a model, a task and a prompt.

    Train is read twice, and select once for each of ``keep`` candidates and for the manual words.

    Args:
        task: as for ``optimize``; a classification task.
        model: as for ``optimize``; it must show its output layer (the Hugging Face models do).
        prompt: as for ``evaluate``; the task's manual prompt by default.
        method: ``likelihood`` or ``states``, see the top of the module.
        per_label: words a label, which count together.
        candidates: words a label that are combined.
        keep: combinations that are scored on select.
        matching: a regular expression that the words match in full.
        ban: words that are left out, whatever their case.
        seed: of the starts where there are too many combinations to try all.

    Raises:
        InputError: something given is wrong, or the task is no classification; nothing was run.
        MissingCapability: the model does not show what is needed.
        LabelWordError: too few words of its vocabulary can be used.
        TooManyFailures: too many answers are missing.
    """
    task = load_task(task)
    _check_call(task, method, {"per_label": per_label, "candidates": candidates, "keep": keep}, seed)
    if candidates < per_label:
        raise InputError(f"candidates: at least per_label={per_label} are needed (got {candidates})")
    finished = load_prompt(task.seed_prompt if prompt is None else prompt, task, soft=False)
    check_model(model)
    kind = model_kind(model)
    finished.check(set(task.fields), answer_at_end=kind is not None and kind != "masked")
    loaded = load_model(model)
    finished.check(set(task.fields), answer_at_end=loaded.kind != "masked")
    if not isinstance(loaded, LabelSearchModel):
        raise MissingCapability(
            f"model {loaded.name!r} ({loaded.kind}) does not show its output layer, so words cannot be looked "
            "for in its vocabulary",
            hint="use a Hugging Face model, or let a search space offer label words (a map slot)",
        )
    rng = np.random.default_rng(seed)
    with contextlib.closing(Cache()) as cache:
        search = _Search(task, loaded, finished, Harness(task, loaded, None, cache, source=model))
        words = search.words(matching, ban, len(task.labels) * per_label)
        choices = search.combine(search.candidates(method, words, candidates), per_label, keep, rng)
        ranked, manual = search.rate(choices)
        calls = search.calls + search.harness.meter.calls
    return LabelWordSearch(
        task.name, loaded.name, method, task.metric, finished, tuple(ranked), manual, calls
    )


def _check_call(task: Task, method: str, counts: Mapping[str, int], seed: int) -> None:
    if task.kind != "classification":
        raise InputError(
            f"task {task.name!r}: only classification tasks have label words (its kind is {task.kind})",
            hint="for other kinds, search the template alone",
        )
    if method not in METHODS:
        raise InputError(
            f"method: no method {method!r}{nearest(str(method), METHODS)}; methods: {', '.join(METHODS)}"
        )
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name}: must be a whole number of at least 1 (got {value!r})")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed: must be a whole number of at least 0 (got {seed!r})")
    bare = set(task.labels) - {example.target for example in task.train}
    if bare:
        raise DataError(
            f"task {task.name!r}: train holds no example of {', '.join(sorted(bare))}, so there is nothing to "
            "find words by",
            hint="give rows of every label, or a larger train split",
        )


@dataclass
class _Search:
    """One search, step by step. ``calls`` counts what is run outside the harness."""

    task: Task
    model: LabelSearchModel
    prompt: Prompt
    harness: Harness
    calls: int = 0

    def words(self, matching: str, ban: Sequence[str], least: int) -> dict[str, int]:
        """Word to id of the words that can be used."""
        banned = {word.casefold() for word in ban}
        found = self.model.answer_place.words(self._rendered(self.task.train), matching)
        kept = {word: token for word, token in found.items() if word.casefold() not in banned}
        if len({word.casefold() for word in kept}) < least:
            raise LabelWordError(
                f"model {self.model.name!r}: {len(kept)} words match {matching!r}, are not banned and are single "
                f"tokens at the answer place, but {least} are needed",
                hint="loosen matching, ban fewer words, or put a space or a line break before {{ answer }}",
            )
        return kept

    def candidates(self, method: Method, words: Mapping[str, int], count: int) -> list[list[str]]:
        """[C] the best candidates of each label, the best first."""
        groups = np.array([self.task.labels.index(example.target) for example in self.task.train])
        rendered = self._rendered(self.task.train)
        ids = np.array(list(words.values()))
        likely = self.model.answer_place.log_probs(rendered, groups.tolist())[:, ids]
        self.calls += len(set(rendered))
        if method == "likelihood":
            values = np.asarray(likely, np.float64)
        else:
            values = self._by_states(rendered, groups)[:, ids]
            # The rows of words that a model never says are all but noise, and reach far into every direction.
            values[:, np.argsort(-likely.max(axis=0), kind="stable")[_LIKELY:]] = -np.inf
        names = np.array(list(words), dtype=object)
        return [
            [str(name) for name in names[np.argsort(-row, kind="stable")[: min(count, _LIKELY)]]]
            for row in values
        ]

    def _by_states(self, rendered: Sequence[Rendered], groups: npt.NDArray[np.int64]) -> Floats:
        """[C, V] log of the share of each label in what a classifier of states makes of a token's row."""
        place = self.model.answer_place
        states = np.asarray(place.states(rendered), np.float64)
        self.calls += len(set(rendered))
        there = np.asarray(np.isfinite(states).all(axis=1), np.bool_)
        self._check_missing(there, "the state was no number")
        scores = np.asarray(place.scores(class_directions(states[there], groups[there])), np.float64)
        # eq. 5, as a logarithm: it does not saturate
        return np.asarray(scores - np.logaddexp.reduce(scores, axis=0), np.float64)

    def combine(
        self, candidates: Sequence[Sequence[str]], per_label: int, keep: int, rng: np.random.Generator
    ) -> list[tuple[Words, float, float]]:
        """The best combinations on train, each with its metric and mean loss there."""
        task, train = self.task, self.task.train
        names = list(dict.fromkeys(word for each in candidates for word in each))
        values = self._log_probs(train, names)
        if needs_calibration(task, self.model):
            blank = self._log_probs([content_free(example) for example in train], names)
        else:
            blank = np.zeros_like(values[:, :0])
        there = np.asarray(np.isfinite(np.hstack([values, blank])).all(axis=1), np.bool_)
        self._check_missing(there, "the candidates could not be scored")
        examples = [train[at] for at in np.flatnonzero(there)]
        columns = {word: at for at, word in enumerate(names)}
        options = [label_options(each, per_label) for each in candidates]
        worth = [_together(values[there], blank[there], columns, each) for each in options]
        targets = np.array([task.labels.index(example.target) for example in examples])
        balanced = METRICS[task.metric].over_set is not mean
        sets = WordSets(options, worth, targets, balanced=balanced)
        found = sets.best(keep, rng)
        return [
            (sets.words(choice, task.labels), *self._on_train(sets, choice, examples)) for choice in found
        ]

    def rate(
        self, choices: Sequence[tuple[Words, float, float]]
    ) -> tuple[list[RatedWords], RatedWords | None]:
        """Score combinations on select, best first, and the manual words on train and select."""
        task = self.task
        prompts = [(Prompt(self.prompt.text, words), score, loss) for words, score, loss in choices]
        able = [each for each in prompts if can_score(task, self.model, each[0])]
        if not able:
            raise LabelWordError(
                f"model {self.model.name!r}: none of the words found can be scored on select",
                hint="put a space, a line break or fixed text before {{ answer }}",
            )
        # asked together, so that a model may read a text once for all words
        answers = self._scored([found for found, _, _ in able], task.select)
        rated = [
            RatedWords(found.words, score, loss, on_select.score, on_select.loss)
            for (found, score, loss), on_select in zip(able, answers, strict=True)
        ]
        manual = None
        if can_score(task, self.model, self.prompt):
            (on_train,), (on_select,) = (
                self._scored([self.prompt], split) for split in (task.train, task.select)
            )
            manual = RatedWords(
                self.prompt.words, on_train.score, on_train.loss, on_select.score, on_select.loss
            )
        return sorted(rated, key=_merit, reverse=True), manual

    def _scored(self, prompts: Sequence[Prompt], examples: tuple[Example, ...]) -> list[Scored]:
        answers = self.harness.answer([Score(prompt, examples, note="label words") for prompt in prompts])
        return [answer for answer in answers if isinstance(answer, Scored)]

    def _rendered(self, examples: Sequence[Example]) -> list[Rendered]:
        return [self.prompt.render(example.fields) for example in examples]

    def _log_probs(self, examples: Sequence[Example], words: Sequence[str]) -> Floats:
        """[N, W] log P(word | example), in nats up to a constant a row; NaN where the model cannot tell."""
        asked = [LabelRequest(each, tuple(words), relative=True) for each in self._rendered(examples)]
        distinct = list(dict.fromkeys(asked))
        rows: dict[LabelRequest, Floats] = {}
        for batch in self.model.batches(distinct):
            requests = [distinct[index] for index in batch]
            for request, reply in zip(requests, self.model.logprobs(requests), strict=True):
                values = reply.log_probs if isinstance(reply, LabelReply) else [np.nan] * len(words)
                rows[request] = np.array(values)
        self.calls += len(distinct)
        return np.stack([rows[request] for request in asked])

    def _on_train(self, sets: WordSets, choice: Choice, examples: Sequence[Example]) -> tuple[float, float]:
        guesses, losses = sets.answers(choice)
        metric = METRICS[self.task.metric]
        said = [self.task.labels[at] for at in guesses]
        pairs = list(zip(said, examples, strict=True))
        scores = np.array([metric.per_example(guess, None, example) for guess, example in pairs])
        return metric.over_set([example.target for example in examples], said, scores), float(losses.mean())

    def _check_missing(self, there: npt.NDArray[np.bool_], why: str) -> None:
        missing = there.size - int(there.sum())
        if missing > MISSING_LIMIT * there.size:
            raise TooManyFailures(
                f"{missing} of {there.size} answers on train are missing (limit {MISSING_LIMIT:.0%}): {why}",
                hint="put a space, a line break or fixed text before {{ answer }}; see that the weights are sound",
            )


def _together(
    values: Floats, blank: Floats, columns: Mapping[str, int], options: Sequence[tuple[str, ...]]
) -> Floats:
    """[O, N] log of the summed probability of each option's words, less that on the content-free input."""
    picked = np.array([[columns[word] for word in option] for option in options])
    worth = np.logaddexp.reduce(values[:, picked], axis=2)
    if blank.size:
        worth = worth - np.logaddexp.reduce(blank[:, picked], axis=2)
    return np.asarray(worth.T, np.float64)


def _merit(rated: RatedWords) -> tuple[float, float]:
    return rated.score, -rated.loss


def _cells(rated: RatedWords) -> list[str]:
    measured = ((rated.score, rated.loss), (rated.train_score, rated.train_loss))
    figures = [text for score, loss in measured for text in (f"{100 * score:.1f}", f"{loss:.3f}")]
    return [*map("/".join, rated.words.values()), *figures]
