"""Metrics against known values and against the libraries that define them."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from autoprompt import metrics
from autoprompt.errors import MissingDependency
from autoprompt.metrics import METRICS


@dataclass(frozen=True)
class Answer:
    target: str
    references: tuple[str, ...] = ()


def score(name: str, prediction: str, *answers: str, rank: int | None = None) -> float:
    return METRICS[name].per_example(
        prediction, rank, Answer(answers[0], answers if len(answers) > 1 else ())
    )


def test_correct() -> None:
    assert score("accuracy", "a", "a") == 1
    assert score("accuracy", "a", "b") == 0


def test_ranks() -> None:
    assert score("p_at_1", "Paris", "Rome", rank=1) == 1
    assert score("p_at_1", "Rome", "Rome", rank=2) == 0
    assert score("p_at_1", "Rome", "Rome") == 1
    assert score("mrr", "x", "Rome", rank=4) == 0.25
    assert score("mrr", "x", "Rome") == 0


def test_squad_normalisation() -> None:
    assert metrics.normalize("  The Beatles' \n album, an  ") == "beatles album"
    assert score("exact_match", "the Eiffel Tower!", "Eiffel tower") == 1
    assert score("exact_match", "Eiffel", "Eiffel tower", "eiffel") == 1
    assert score("exact_match", "Eiffel", "Eiffel tower") == 0


@pytest.mark.parametrize(
    ("said", "target", "right"),
    [("5", "-5", 0), ("35", "3.5", 0), ("-5.", "-5", 1), ("$3.50!", "3.50", 1), (".5", "0.5", 0), ("1,000", "1000", 1),
     ("", "The", 0), ("a", "A", 1), ("the", "A", 0), ("?", "!", 0), ("well-known", "wellknown", 1), ("U.S.", "us", 1)],
)  # fmt: skip
def test_numbers_keep_sign_and_point_and_nothing_is_no_answer(said: str, target: str, right: int) -> None:
    assert score("exact_match", said, target) == right


def test_stray_texts_are_no_labels_of_their_own() -> None:
    targets = ["good", "bad"] * 50
    said = [f"hm {at}" if at % 10 == 0 else target for at, target in enumerate(targets)]
    scores = np.array([float(a == b) for a, b in zip(targets, said, strict=True)])
    assert METRICS["macro_f1"].over_set(targets, said, scores) == pytest.approx((2 * 40 / 90 + 1) / 2)


def test_token_f1() -> None:
    assert score("token_f1", "chief of the protocol", "Chief of Protocol") == 1
    assert score("token_f1", "red red car", "red car") == pytest.approx(0.8)  # P 2/3, R 1
    assert score("token_f1", "dog", "cat", "a dog barks") == pytest.approx(2 / 3)
    assert score("token_f1", "", "") == 1
    assert score("token_f1", "", "the") == score("exact_match", "", "A") == 0  # no answer is no article
    assert score("token_f1", "x", "the") == 0


def test_rouge_and_bleu() -> None:
    pytest.importorskip("rouge_score")
    pytest.importorskip("sacrebleu")
    # The longest common subsequence of "the cat sat" and "the cat was here" has 2 words: P 2/3, R 2/4.
    assert score("rouge_l", "the cat sat", "the cat was here") == pytest.approx(2 * 2 / 7)
    assert score("rouge_l", "a b", "x y", "a b") == 1
    assert score("bleu", "the cat sat on the mat", "the cat sat on the mat") == 1
    assert 0 < score("bleu", "the cat sat on a mat", "the cat sat on the mat") < 1
    assert score("bleu", "ok", "ok") == 1  # effective order: no 4-grams needed
    over = METRICS["corpus_bleu"].over_set
    assert (
        over(["the cat sat on the mat"] * 2, ["the cat sat on the mat", None], np.array([1.0, np.nan])) == 1
    )


@pytest.mark.parametrize(
    ("module", "name"), [("rouge_score.rouge_scorer", "rouge_l"), ("sacrebleu.metrics.bleu", "bleu")]
)
def test_missing_packages_say_how_to_install(monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> None:
    metrics._rouge.cache_clear()
    metrics._bleu.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency, match=r"autoprompt-continuum\[metrics\]"):
        score(name, "a", "a")


def test_set_metrics_equal_scikit_learn() -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for _ in range(20):
        targets = [str(x) for x in rng.integers(0, 4, 60)]
        guesses = [str(x) for x in rng.integers(0, 5, 60)]  # one label that is never a target
        scores = np.array([float(a == b) for a, b in zip(targets, guesses, strict=True)])
        assert METRICS["accuracy"].over_set(targets, guesses, scores) == pytest.approx(np.mean(scores))
        assert METRICS["macro_f1"].over_set(targets, guesses, scores) == pytest.approx(
            sklearn_metrics.f1_score(targets, guesses, labels=sorted(set(targets)), average="macro")
        )
        known = [g if g in set(targets) else targets[0] for g in guesses]
        assert METRICS["balanced_accuracy"].over_set(targets, known, scores) == pytest.approx(
            sklearn_metrics.balanced_accuracy_score(targets, known)
        )


def test_missing_answers_are_left_out() -> None:
    targets, guesses = ["a", "b", "a"], ["a", None, "b"]
    scores = np.array([1.0, np.nan, 0.0])
    assert METRICS["accuracy"].over_set(targets, guesses, scores) == 0.5
    assert METRICS["balanced_accuracy"].over_set(targets, guesses, scores) == 0.5
    for metric in METRICS.values():
        assert math.isnan(metric.over_set(["a"], [None], np.array([np.nan])))


def test_every_kind_has_a_default_that_fits() -> None:
    for kind, name in metrics.DEFAULT_METRIC.items():
        assert kind in METRICS[name].kinds


def test_mean_reciprocal_rank() -> None:
    ranks = [1, 2, 4]
    for name, value in (("mrr", 7 / 12), ("p_at_1", 1 / 3)):
        scores = np.array([score(name, "x", "Rome", rank=rank) for rank in ranks])
        assert METRICS[name].over_set(["Rome"] * 3, ["x"] * 3, scores) == pytest.approx(value)
