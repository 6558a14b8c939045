"""The two models that ship: small, documented, trained on text that is not the text they are tested on, and good enough
that prompts matter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import autoprompt
from autoprompt.models import bundled
from tests.conftest import ROOT

NAMES = ("causal", "masked")
PHRASES = ROOT / "examples" / "bundled_models" / "phrases"


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_model_is_small_and_has_a_card(name: str) -> None:
    folder = bundled.folder(name)
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert size <= 8_000_000
    card = (folder / "README.md").read_text("utf-8")
    for word in ("licence", "Wikipedia", "CC BY-SA", "steps", "held-out", "nats", "limits"):
        assert word.lower() in card.lower(), f"the model card does not speak of {word}"


@pytest.mark.parametrize(("name", "floor"), [("masked", 0.70), ("causal", 0.60)])
def test_the_manual_prompt_beats_chance(name: str, floor: float) -> None:
    evaluation = autoprompt.evaluate(
        "reviews", f"bundled:{name}", autoprompt.Task.load("reviews").seed_prompt
    )
    assert evaluation.estimate.n == 600
    assert evaluation.estimate.interval.low > floor


def test_the_best_found_prompt_beats_the_manual_one_and_reads_back(tmp_path: Path) -> None:
    result = autoprompt.optimize("reviews", "bundled:causal", 4000)
    assert result.test is not None
    assert result.test.paired.interval.low > 0, result.verdict
    result.save(tmp_path / "best_prompt.txt")
    again = autoprompt.evaluate("reviews", "bundled:causal", tmp_path / "best_prompt.txt")
    assert again.estimate == result.test.best


@pytest.mark.parametrize("task", ["reviews", "news"])
def test_the_training_phrases_do_not_hold_the_tasks_rows(task: str) -> None:
    trained = {gram for path in PHRASES.glob("*.tsv") for line in _lines(path) for gram in _grams(line)}
    assert len(trained) > 1000
    rows = [json.loads(line)["text"] for line in _lines(ROOT / "tasks" / f"{task}.jsonl")]
    shared = sum(bool(set(_grams(text)) & trained) for text in rows)
    assert not shared, f"{shared} of {len(rows)} rows share six words in a row with a training phrase"


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


def _grams(text: str, n: int = 6) -> Iterator[tuple[str, ...]]:
    words = "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
    return (tuple(words[at : at + n]) for at in range(len(words) - n + 1))
