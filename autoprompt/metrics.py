"""Metrics: a score in [0, 1] per example, and one number over a set of predictions. Higher is better.

A metric of one example is what a search compares candidates by; the number over the set is what is reported.
For most the second is the mean of the first; for macro F1, balanced accuracy and corpus BLEU it is not.
"""

from __future__ import annotations

import functools
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from autoprompt.errors import MissingDependency

Floats = npt.NDArray[np.float64]


class Answered(Protocol):
    """What a metric needs to know of an example."""

    @property
    def target(self) -> str:
        """The right answer."""
        ...

    @property
    def references(self) -> tuple[str, ...]:
        """All acceptable answers; empty where only the target is."""
        ...


PerExample = Callable[[str, "int | None", Answered], float]
OverSet = Callable[[Sequence[str], Sequence["str | None"], Floats], float]


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: what ``metric:`` in a task calls it.
        kinds: the kinds of task it fits.
        per_example: (prediction, rank of the target or None, example) -> score in [0, 1].
        over_set: (N targets, N predictions or None, [N] scores with NaN where missing) -> score in [0, 1]
            over the answers that are there; NaN where none is.
    """

    name: str
    kinds: tuple[str, ...]
    per_example: PerExample
    over_set: OverSet


def correct(prediction: str, rank: int | None, example: Answered) -> float:
    """1 where the prediction is the target, 0 otherwise."""
    return float(prediction == example.target)


def p_at_1(prediction: str, rank: int | None, example: Answered) -> float:
    """1 where the target stands first among the candidates (LAMA's P@1, Petroni et al. 2019)."""
    return float(rank == 1) if rank is not None else correct(prediction, rank, example)


def reciprocal_rank(prediction: str, rank: int | None, example: Answered) -> float:
    """1 / rank of the target; its mean is MRR. Without ranks, only the first place counts."""
    return 1.0 / rank if rank is not None else correct(prediction, rank, example)


def exact_match(prediction: str, rank: int | None, example: Answered) -> float:
    """1 where the normalised prediction equals a normalised reference (SQuAD, Rajpurkar et al. 2016)."""
    return float(normalize(prediction) in {normalize(reference) for reference in _references(example)})


def token_f1(prediction: str, rank: int | None, example: Answered) -> float:
    """F1 over normalised tokens, the best over the references (SQuAD, Rajpurkar et al. 2016)."""
    return max(_f1(normalize(prediction), normalize(reference)) for reference in _references(example))


def rouge_l(prediction: str, rank: int | None, example: Answered) -> float:
    """ROUGE-L F measure, the best over the references (Lin 2004), by the rouge-score package."""
    scores = _rouge().score_multi(list(_references(example)), prediction)
    return float(scores["rougeL"].fmeasure)


def bleu(prediction: str, rank: int | None, example: Answered) -> float:
    """Sentence BLEU / 100 with effective order, by the sacrebleu package (Post 2018)."""
    score = _bleu().sentence_score(prediction, list(_references(example))).score
    return min(1.0, float(score) / 100)  # a perfect match comes out a rounding error above 100


def mean(targets: Sequence[str], predictions: Sequence[str | None], scores: Floats) -> float:
    """Mean of the scores that are there."""
    present = np.asarray(scores, dtype=float)
    present = present[~np.isnan(present)]
    return float(present.mean()) if present.size else float("nan")


def macro_f1(targets: Sequence[str], predictions: Sequence[str | None], scores: Floats) -> float:
    """Mean over the labels that are a target of F1 = 2 TP / (2 TP + FP + FN).

    What a model says beside these, in whatever words, misses its target and is no label of its own.
    """
    pairs = _present(targets, predictions)
    values = []
    for label in sorted({target for target, _ in pairs}):
        hits = sum(target == guess == label for target, guess in pairs)
        named = sum((target == label) + (guess == label) for target, guess in pairs)
        values.append(2 * hits / named)
    return float(np.mean(values)) if values else float("nan")


def balanced_accuracy(targets: Sequence[str], predictions: Sequence[str | None], scores: Floats) -> float:
    """Mean over the labels that are a target of the share found."""
    pairs = _present(targets, predictions)
    sizes = Counter(target for target, _ in pairs)
    hits = Counter(target for target, guess in pairs if target == guess)
    return float(np.mean([hits[label] / sizes[label] for label in sorted(sizes)])) if sizes else float("nan")


def corpus_bleu(targets: Sequence[str], predictions: Sequence[str | None], scores: Floats) -> float:
    """Corpus BLEU / 100 against the first reference of each example, by the sacrebleu package (Post 2018)."""
    pairs = _present(targets, predictions)
    if not pairs:
        return float("nan")
    result = _corpus_bleu().corpus_score([guess for _, guess in pairs], [[target for target, _ in pairs]])
    return min(1.0, float(result.score) / 100)


def normalize(text: str) -> str:
    """SQuAD's normalisation: lower case, no punctuation, no articles, single spaces.

    Beyond it, the sign and the point of a number stay, and a text that is nothing but an article or punctuation (the
    answer A) stays as it is: else -5 would be 5, and no answer would be A.
    """
    text = text.lower()
    bare = _ARTICLE.sub(" ", _PUNCTUATION.sub("", text))
    return " ".join(bare.split() or text.split())


_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_SIGN, _POINT = r"(?<![\w)\]])-(?=\.?\d)", r"(?<![^\W\d])\.(?=\d)"
_PUNCTUATION = re.compile(rf"(?!{_SIGN}|{_POINT})[{re.escape(string.punctuation)}]")
_CHOICE = ("classification", "multiple_choice")

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric("accuracy", _CHOICE, correct, mean),
            Metric("macro_f1", ("classification",), correct, macro_f1),
            Metric("balanced_accuracy", ("classification",), correct, balanced_accuracy),
            Metric("p_at_1", ("cloze",), p_at_1, mean),
            Metric("mrr", ("cloze",), reciprocal_rank, mean),
            Metric("exact_match", ("generation",), exact_match, mean),
            Metric("token_f1", ("generation",), token_f1, mean),
            Metric("rouge_l", ("generation",), rouge_l, mean),
            Metric("bleu", ("generation",), bleu, mean),
            Metric("corpus_bleu", ("generation",), bleu, corpus_bleu),
        )
    }
)

DEFAULT_METRIC: Mapping[str, str] = MappingProxyType(
    {
        "classification": "accuracy",
        "multiple_choice": "accuracy",
        "cloze": "p_at_1",
        "generation": "exact_match",
    }
)


def _references(example: Answered) -> tuple[str, ...]:
    return example.references or (example.target,)


def _f1(prediction: str, reference: str) -> float:
    guessed, right = prediction.split(), reference.split()
    if not guessed or not right:
        return float(guessed == right)
    shared = sum((Counter(guessed) & Counter(right)).values())
    return 2 * shared / (len(guessed) + len(right))


def _present(targets: Sequence[str], predictions: Sequence[str | None]) -> list[tuple[str, str]]:
    pairs = zip(targets, predictions, strict=True)
    return [(target, guess) for target, guess in pairs if guess is not None]


def _missing(package: str) -> MissingDependency:
    return MissingDependency(
        f"this metric needs the package {package}, which is not installed",
        hint='pip install "autoprompt-continuum[metrics]"',
    )


@functools.lru_cache(maxsize=1)
def _rouge() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise _missing("rouge-score") from None
    return RougeScorer(["rougeL"], use_stemmer=False)


@functools.lru_cache(maxsize=1)
def _bleu() -> Any:
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError:
        raise _missing("sacrebleu") from None
    return BLEU(effective_order=True)


@functools.lru_cache(maxsize=1)
def _corpus_bleu() -> Any:
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError:
        raise _missing("sacrebleu") from None
    return BLEU()
