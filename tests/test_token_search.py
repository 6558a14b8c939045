"""Token search from end to end on real small models: what it writes is what it scored."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import autoprompt
from autoprompt.models import OpenModel
from autoprompt.models.hf.loading import load_pair
from autoprompt.models.hf.settings import Settings
from autoprompt.policy import TokenPolicy
from autoprompt.result import Result
from autoprompt.strategies import Strategy
from autoprompt.strategies.autoprompt import Autoprompt
from autoprompt.strategies.gradient import Gradient
from autoprompt.task import Task
from tests.models.tiny import make_model

WORDS = {"bad": ("bad",), "good": ("good",)}
FRAGMENTS = ["the film was great", "a slow dog", "it was terrible", "people loved it", "the rain and the cat"]


def reviews(rows: int = 24) -> Task:
    """Made-up rows in the words that the tiny tokenizers know."""
    rng = np.random.default_rng(0)

    def split(name: str) -> list[dict[str, str]]:
        texts = (f"{name} {at} {' '.join(rng.choice(FRAGMENTS, 2))}" for at in range(rows))
        return [{"text": text, "label": "good" if at % 2 else "bad"} for at, text in enumerate(texts)]

    return Task.from_rows(
        {"train": split("one"), "select": split("two"), "test": split("three")},
        name="made-up",
        kind="classification",
        target="label",
        words=WORDS,
        prompt="{{ text }} . It was {{ answer }}",
    )


def model_of(architecture: str) -> OpenModel:
    loaded = load_pair(*make_model(architecture), Settings())
    assert isinstance(loaded, OpenModel)
    return loaded


def search(architecture: str, strategy: Strategy, folder: Path | None = None, calls: int = 1200) -> Result:
    task = reviews()
    return autoprompt.optimize(
        task,
        model_of(architecture),
        calls,
        space=autoprompt.trigger_space(task, 3, policy="any"),
        strategy=strategy,
        run_dir=folder,
    )


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "bert", "roberta", "t5", "bart"])
def test_the_trigger_in_the_file_scores_what_was_reported(architecture: str, tmp_path: Path) -> None:
    result = search(architecture, Gradient(width=12, starts=4))
    assert result.status == "budget"
    written = dataclasses.replace(result, best=result.candidate).save(tmp_path / "trigger.txt")
    text = (tmp_path / "trigger.txt").read_text("utf-8")
    for value in dict(result.candidate.choices).values():
        assert value in autoprompt.Prompt(text.rstrip("\n")).render({"text": ""}).text()
    assert written
    again = autoprompt.evaluate(reviews(), model_of(architecture), tmp_path / "trigger.txt")
    assert result.test is not None
    assert again.estimate.value == result.test.best.value
    assert again.prompt.key == result.candidate.key


@pytest.mark.parametrize("architecture", ["gpt2", "bert", "t5"])
def test_special_tokens_never_stand_in_a_trigger(architecture: str) -> None:
    model = model_of(architecture)
    _, tokenizer = make_model(architecture)
    allowed = model.vocabulary.allowed(TokenPolicy("any", answers=("bad", "good")))
    assert not allowed[[each for each in tokenizer.all_special_ids if each < len(allowed)]].any()
    result = search(architecture, Gradient(width=12, starts=4))
    tried = {trial.choices["trigger"] for trial in result.trials if "trigger" in trial.choices}
    assert len(tried) > 20
    for text in tried:
        assert not any(special in text for special in tokenizer.all_special_tokens)
        assert not {"bad", "good"} & set(text.split())


def test_a_run_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    whole = search("gpt2", Gradient(width=12, starts=4), tmp_path / "whole", calls=900)
    lines = (tmp_path / "whole" / "trials.jsonl").read_text("utf-8")
    part = tmp_path / "part"
    part.mkdir()
    for name in ("study.json", "answers.db"):
        (part / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    kept = lines.splitlines(keepends=True)[: lines.count("\n") // 2]
    (part / "trials.jsonl").write_text("".join(kept), "utf-8")
    again = search("gpt2", Gradient(width=12, starts=4), part, calls=900)
    assert (part / "trials.jsonl").read_text("utf-8") == lines
    assert again.candidate.key == whole.candidate.key
    kinds = {json.loads(line)["note"] for line in lines.splitlines()}
    assert {"seed", "gradient", "step", "select", "fluency"} <= kinds


def test_what_breaks_the_policy_is_kept_beside(tmp_path: Path) -> None:
    task = reviews()
    space = autoprompt.trigger_space(task, 3, matching="[a-z]{3,4}")
    strategy = Gradient(width=8, starts=4, beside=2)
    result = autoprompt.optimize(
        task, model_of("gpt2"), 1500, space=space, strategy=strategy, run_dir=tmp_path / "run"
    )
    assert result.beside is not None
    assert result.beside.beside
    document = json.loads((tmp_path / "run" / "result.json").read_text("utf-8"))
    assert document["beside"]["prompt"] == result.beside.text
    assert "beside" in str(result)
    for word in str(result.candidate.choices.get("trigger", "")).split():
        assert 3 <= len(word) <= 4
    assert document["candidate"]["perplexity"] == result.perplexities.get(result.candidate.key)


def test_an_encoder_decoder_model_needs_a_judge_where_fluency_counts() -> None:
    with pytest.raises(autoprompt.AutopromptError, match=r"nothing says how fluent.*\n.*judge"):
        search("t5", Gradient(width=8, starts=4, max_perplexity=1e9), calls=400)
    result = search("t5", Gradient(width=8, starts=4, fluency=0.01, judge="bundled:causal"), calls=500)
    assert result.perplexities


def test_several_slots_are_searched_at_once() -> None:
    task = reviews()
    slots = {"first": {"tokens": {"n": 2, "policy": "any"}}, "second": {"tokens": {"n": 2, "policy": "any"}}}
    space = autoprompt.SearchSpace.from_dict(
        {"template": "[[ first ]] : {{ text }} [[ second ]] . It was {{ answer }}", "slots": slots}
    )
    result = autoprompt.optimize(
        task, model_of("bert"), 1500, space=space, strategy=Gradient(width=12, starts=4)
    )
    tried = [trial.choices for trial in result.trials if trial.note == "step"]
    assert len({choices["first"] for choices in tried}) > 3
    assert len({choices["second"] for choices in tried}) > 3


def test_a_model_without_gradients_says_so_before_anything_is_paid() -> None:
    task = reviews()
    with pytest.raises(autoprompt.AutopromptError, match="gives no gradients"):
        autoprompt.optimize(task, "toy", 500, strategy=Autoprompt())
