"""Runs in which a model writes: planted tasks, what they cost, what is logged, and that they resume."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoprompt import asks, questions
from autoprompt.api import Round, optimize
from autoprompt.asks import Ask, Complete, Completed, Score, Scored
from autoprompt.budget import Budget
from autoprompt.cache import Cache, question_key
from autoprompt.errors import MissingCapability
from autoprompt.harness import RETRIES, Harness
from autoprompt.models import (
    Failure,
    LabelReply,
    LabelRequest,
    Model,
    Reply,
    Request,
    TextReply,
    TextRequest,
)
from autoprompt.models.load import load_model
from autoprompt.prompt import Piece, Rendered
from autoprompt.result import Result
from autoprompt.space import SearchSpace
from autoprompt.strategies.chain import Chain
from autoprompt.strategies.propose import Propose
from autoprompt.strategies.random_search import RandomSearch
from autoprompt.study import read_log
from tests.models.tiny import make_model
from tests.small import Spy, small_space, small_task

KEYS = ("mood", "carefully", "whole")
"""Words of an instruction, each of which makes the planted model right more often."""
TASK = small_task(20)
SPACE = SearchSpace.from_dict(
    {
        "template": "[[ instruction ]]\n{{ text }} It was {{ answer }}",
        "slots": {
            "instruction": {
                "one_of": ["Say [[ words.good ]] or [[ words.bad ]].", "Is it [[ words.bad ]], or [[ words.good ]]?"],
                "llm": {"longest": 90},
            }
        },
    }
)  # fmt: skip


@dataclass
class Author(Spy):
    """Right more often, the more of KEYS its instruction holds, and a writer with some sense.

    What it writes to a text depends on the text and the seed alone. ``says`` replaces what it would write.
    """

    name: str = "author"
    fingerprint: str = "author/1"
    says: Callable[[str], str | None] | None = None
    wrote: list[str] = field(default_factory=list)
    fails_once: bool = False

    def complete(self, requests: Sequence[TextRequest]) -> list[TextReply | Failure]:
        replies: list[TextReply | Failure] = []
        for request in requests:
            text = request.rendered.text()
            self.wrote.append(text)
            said = written(text, request.seed) if self.says is None else self.says(text)
            if said is None or (self.fails_once and self.wrote.count(text) == 1):
                replies.append(Failure("no line"))
            else:
                replies.append(TextReply(said, len(text.split())))
        return replies

    def _label(self, request: LabelRequest) -> LabelReply | Failure:
        text = request.rendered.text()
        self.asked.append(text)
        instruction, _, sentence = text.rpartition("\n")
        draw = hashlib.sha256(sentence.encode()).digest()[0] / 256
        right = draw < 0.55 + 0.13 * sum(key in instruction for key in KEYS)
        good = any(word in sentence for word in ("lovely", "superb", "charming"))
        likely = {"good": -0.2, "great": -2.5, "bad": -0.2}
        unlikely = {"good": -2.0, "great": -2.5, "bad": -2.0}
        chosen = "good" if good == right else "bad"
        return LabelReply(
            tuple(
                likely[word] if (word == "bad") == (chosen == "bad") else unlikely[word]
                for word in request.answers
            ),
            len(text.split()),
        )


def written(asked: str, seed: int) -> str:
    """An answer to each kind of text, as a model with some sense would give it."""
    current = re.search(r"(?:A prompt holds this text|A text): (.*)", asked)
    text = current[1].rstrip(".?") if current else "Say [[ words.good ]] or [[ words.bad ]]"
    if asked.endswith("\nIt"):
        return " never says to read carefully."
    if "What is wrong with the text: It never says to read carefully." in asked:
        return f"{text}, carefully.</text>"
    if "Output: bad" in asked and "Output: good" in asked:  # it sees what the examples are about
        return "<text>Say of the mood: [[words.good]] or [[words.bad]].</text> I hope this helps."
    if "(wrong, the right answer is" in asked:
        return f"{text}, of the whole.</text>"
    return f"{text}{'!' * (seed % 3)}</text>"


def run(model: object = None, budget: object = 3000, strategy: Any = None, **options: Any) -> Result:
    return optimize(
        TASK,
        model if model is not None else Author(),
        budget,  # type: ignore[arg-type]
        strategy=strategy or Propose(),
        **{"space": SPACE, "seed": 1, **options},
    )


def test_the_planted_instruction_is_found_by_writing_and_by_nothing_else() -> None:
    for seed in range(2):
        result = run(seed=seed)
        assert all(key in result.best.text for key in KEYS)
        assert result.test is not None
        assert result.test.shows_gain
        assert result.candidate.choices["instruction"] not in SPACE.slots["instruction"].texts()
        rest = run(strategy=RandomSearch(), seed=seed)
        assert not any(key in rest.candidate.text for key in KEYS)
        assert result.best_select > rest.best_select + 0.2
    again = SPACE.bind(TASK, answer_at_end=True).prompt_from(result.candidate.choices)
    assert again == result.candidate


@pytest.mark.parametrize("method", ["induce", "critique", "reflect"])
def test_every_method_brings_what_it_can(method: str) -> None:
    result = run(strategy=Propose(methods=(method,), rounds=2))
    key = {"induce": "mood", "critique": "carefully", "reflect": "whole"}[method]
    assert key in result.candidate.text
    assert result.findings["proposals"]["methods"][method]["accepted"] >= 1


def test_what_is_logged_of_a_text_and_that_it_never_wins(tmp_path: Path) -> None:
    result = run(run_dir=tmp_path / "run", strategy=Propose(rounds=3))
    rows = read_log(tmp_path / "run" / "trials.jsonl")
    lines = [row for row in rows if "written" in row]
    assert len(lines) == result.findings["proposals"]["asked"] > 10
    scored = {row["key"] for row in rows if row["complete"]}
    for row in lines:
        ((asked, said),) = row["written"]
        assert asked
        assert said
        assert row["note"].startswith("write: ")
        assert (row["score"], row["loss"], row["complete"], row["n"], row["missing"]) == (
            None,
            None,
            False,
            1,
            0,
        )
        assert row["key"] in scored  # the prompt that was to become better
    assert all(trial.complete for trial in result.pareto)
    notes = {row["note"] for row in rows}
    assert {"seed", "start", "train", "write: induce instruction", "induce instruction"} <= notes
    document = json.loads((tmp_path / "run" / "result.json").read_text("utf-8"))
    assert document["findings"]["proposals"] == result.findings["proposals"]
    assert "texts that were asked for" in str(result)
    assert sum(trial.complete for trial in result.trials) == len(scored)


def test_a_text_costs_a_call_and_the_budget_is_never_exceeded() -> None:
    for calls in (81, 150, 333):
        result = run(budget=calls)
        assert result.spent.calls <= calls
        assert result.status in ("complete", "budget")
    whole = run(budget=2000, strategy=Propose(rounds=2))
    texts = sum(trial.n for trial in whole.trials if trial.written)
    rows = {(trial.key, trial.note == "train") for trial in whole.trials if not trial.written}
    assert whole.spent.calls == texts + sum(24 if on_train else 40 for _, on_train in rows)
    tokens = run(budget="9k tokens")
    assert tokens.status == "budget"
    assert 5000 < tokens.spent.tokens <= 9000


def test_the_same_call_gives_the_same_run_and_another_seed_another() -> None:
    def log(result: Result) -> list[dict[str, Any]]:
        return [trial.row() for trial in result.trials]

    first = log(run(budget=900))
    assert log(run(budget=900)) == first
    assert log(run(budget=900, seed=2)) != first


class Halt(Exception):
    pass


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_run_that_is_stopped_anywhere_resumes_to_the_same_log(tmp_path: Path, deterministic: bool) -> None:
    def stop(at: int, each: Round) -> None:
        if each.spent.calls >= at:
            raise KeyboardInterrupt

    def model() -> Author:
        return Author(deterministic=deterministic, fails_once=not deterministic)

    whole = run(model(), 900, run_dir=tmp_path / "whole")
    for at in (40, 130, 300, 520):
        halted = run(model(), 900, run_dir=tmp_path / "halted", on_round=lambda each, at=at: stop(at, each))
        assert halted.status == "interrupted"
    author = model()
    resumed = run(author, 900, run_dir=tmp_path / "halted")
    logs = [(tmp_path / name / "trials.jsonl").read_bytes() for name in ("halted", "whole")]
    assert logs[0] == logs[1]
    assert (resumed.spent.calls, resumed.candidate) == (whole.spent.calls, whole.candidate)
    assert resumed.findings == whole.findings
    once = model()
    run(once, 900, run_dir=tmp_path / "halted")
    assert (once.asked, once.wrote) == ([], [])  # all of it was there
    assert len(author.wrote) < sum(trial.n for trial in whole.trials if trial.written)


def test_what_fails_is_missing_and_the_run_goes_on() -> None:
    result = run(Author(says=lambda asked: None), strategy=Propose(proposals=12))
    found = result.findings["proposals"]
    assert result.status == "complete"
    assert (found["asked"], found["written"], found["problem"]) == (12, 0, "no line")
    assert {trial.note for trial in result.trials if trial.complete} == {"seed", "start"}
    assert [trial.missing for trial in result.trials if trial.written] == [1] * 12
    half = run(Author(says=lambda asked: None if len(asked) % 2 else written(asked, 0)))
    found = half.findings["proposals"]
    assert 0 < found["written"] < found["asked"]
    assert half.status == "complete"


def test_what_fails_by_chance_is_asked_again() -> None:
    author = Author(deterministic=False, fails_once=True)
    result = run(author, strategy=Propose(rounds=2))
    assert result.findings["proposals"]["refused"].get("nothing came", 0) == 0
    assert any("asked again after a failure" in note for note in result.notes)
    dead = Author(deterministic=False, says=lambda asked: None)
    harness = Harness(TASK, dead, Budget(calls=9), Cache())
    (answer,) = harness.answer([Complete(TASK.seed_prompt, ("one", "two"))])
    assert isinstance(answer, Completed)
    assert answer.texts == (None, None)
    assert len(dead.wrote) == 2 * (1 + RETRIES)
    assert (harness.meter.calls, harness.missing) == (2, 0)  # a text is no measurement


def test_garbage_is_data() -> None:
    """Nothing a model writes becomes code, ends the run or wins unmeasured."""
    said = iter(
        ["{{ answer }} {{ text }}", "{% for x in y %}", "[[ instruction ]]", "\ufdd0\ufdd2", "\x00" * 5, "<text>" * 9]
        * 20
    )  # fmt: skip
    result = run(Author(says=lambda asked: next(said)), strategy=Propose(proposals=30))
    assert result.status == "complete"
    assert {trial.note for trial in result.trials if trial.complete} == {"seed", "start"}
    assert sum(result.findings["proposals"]["refused"].values()) >= 25


def test_examples_that_are_copied_are_refused_though_they_would_win() -> None:
    cheat = TASK.select[0].fields["text"]
    marks = "[[ words.good ]] [[ words.bad ]]"
    result = run(
        Author(says=lambda asked: f"{cheat} is mood {marks}</text>"), strategy=Propose(methods=("induce",))
    )
    assert result.findings["proposals"]["refused"] == {
        "repeats training or select examples": result.findings["proposals"]["asked"]
    }


def test_the_model_must_write_or_name_one_that_does() -> None:
    with pytest.raises(MissingCapability, match="cannot write texts") as error:
        run(Spy())
    assert "Propose(model=" in str(error.value)
    result = run(Spy(), strategy=Propose(model="toy", rounds=2))
    found = result.findings["proposals"]
    assert found["written"] == found["asked"] > 0
    assert result.status == "complete"


def test_a_proposer_is_loaded_once_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[object] = []
    author = Author(name="other", fingerprint="other/1")

    def load(spec: object) -> Model:
        named.append(spec)
        return author

    monkeypatch.setattr(questions, "load_model", load)
    target = Author()
    result = run(target, strategy=Propose(model="somewhere"))
    assert named == ["somewhere"]
    assert target.wrote == []
    assert len(author.wrote) == result.findings["proposals"]["asked"]
    assert author.asked == []
    assert all(key in result.best.text for key in KEYS)


def test_it_stands_in_a_chain() -> None:
    strategy = Chain(strategies=(RandomSearch(), Propose()))
    result = run(strategy=strategy, budget=2500)
    assert all(key in result.best.text for key in KEYS)
    assert result.findings["proposals"]["written"] > 0


def harness(model: Model, **options: Any) -> Harness:
    return Harness(small_task(), model, options.pop("budget", None), Cache(), **options)


def test_texts_and_scores_in_one_round_each_go_their_own_way() -> None:
    model, task = load_model(make_model("gpt2")), small_task()
    questions: list[Ask] = [
        Complete(task.seed_prompt, ("the film was", "a book"), max_tokens=5),
        Score(task.seed_prompt, task.select),
        Complete(task.seed_prompt, ("the people",), max_tokens=5, temperature=1.0, seed=3),
        Complete(task.seed_prompt, ("the film was", "the film was"), max_tokens=5, temperature=1.0, seed=3),
    ]
    found = harness(model)
    together = found.answer(questions)
    assert found.meter.calls == 2 + len(task.select) + 1 + 2
    for ask, answer in zip(questions, together, strict=True):
        (alone,) = harness(model).answer([ask])
        if isinstance(answer, Scored):
            assert isinstance(alone, Scored)
            assert np.allclose(alone.losses, answer.losses)
        else:
            assert isinstance(answer, Completed)
            assert isinstance(alone, Completed)
            assert alone.texts == answer.texts
            assert None not in answer.texts
    drawn = together[3]
    assert isinstance(drawn, Completed)
    assert drawn.texts[0] != drawn.texts[1]  # a text that is asked twice is continued in two ways
    again = found.answer(questions)
    assert [each.texts for each in again if isinstance(each, Completed)] == [
        each.texts for each in together if isinstance(each, Completed)
    ]
    assert found.meter.calls == 2 + len(task.select) + 1 + 2  # charged once
    greedy = Complete(task.seed_prompt, ("a dog", "a dog"), max_tokens=5)
    (answer,) = found.answer([greedy])
    assert isinstance(answer, Completed)
    assert answer.texts[0] == answer.texts[1]
    assert found.meter.calls == 2 + len(task.select) + 1 + 2 + 1  # the same question
    assert asks.price(greedy) == 2


def test_a_text_that_is_too_long_is_missing_and_the_others_are_not() -> None:
    model, task = load_model(make_model("gpt2")), small_task()
    ask = Complete(task.seed_prompt, ("the film was", "the film was " * 400), max_tokens=5)
    (answer,) = harness(model, budget=Budget(tokens=5000)).answer([ask])
    assert isinstance(answer, Completed)
    assert answer.texts[0] is not None
    assert answer.texts[1] is None
    assert "reads at most" in answer.problem


def test_when_time_is_up_texts_are_neither_answered_nor_charged() -> None:
    found = Harness(TASK, Author(), Budget(seconds=10), Cache())
    found.meter.seconds = 11
    assert found.answer([Complete(TASK.seed_prompt, ("one",))]) == []
    assert (found.exhausted, found.meter.calls) == (True, 0)


def test_a_question_for_a_text_is_one_of_its_own() -> None:
    plain = TextRequest(Rendered((Piece("x"),)), 5)
    drawn = [dataclasses.replace(plain, temperature=t, seed=s) for t, s in ((0.5, 0), (0.5, 1), (1.0, 0))]
    keys = {question_key("m", each) for each in (plain, *drawn)}
    assert len(keys) == 4
    assert question_key("m", dataclasses.replace(plain, seed=9)) == question_key("m", plain)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5"])
def test_drawn_texts_depend_on_seed_and_text_alone(kind: str) -> None:
    model: Any = load_model(make_model(kind))

    def said(requests: Sequence[Request]) -> list[Reply]:
        return list(model.complete(requests))

    texts = ("the film was", "a good book, and it", "people")
    asked = [
        TextRequest(Rendered((Piece(text),)), 8, temperature=0.9, seed=seed)
        for text in texts
        for seed in (1, 2)
    ]
    asked.append(TextRequest(Rendered((Piece(texts[0]),)), 8))
    together = said(asked)
    assert said(asked) == together
    for at, request in enumerate(asked):
        assert said([request]) == [together[at]], "the rows beside it changed what was drawn"
    assert said(asked[::-1]) == together[::-1]
    assert together[0] != together[1]
    (greedy,) = said([TextRequest(Rendered((Piece(texts[0]),)), 8, seed=5)])
    assert greedy == together[-1]
    (cold,) = said([TextRequest(Rendered((Piece(texts[0]),)), 8, temperature=1e-6, seed=5)])
    assert cold == greedy


def test_draws_follow_the_models_probabilities() -> None:
    """The first token of many draws, against the softmax of the logits."""
    import torch

    from autoprompt.models.hf.generate import _Draws

    logits = torch.tensor([[1.0, 0.0, -1.0, 2.0]])
    counts = np.zeros(4)
    for seed in range(4000):
        draws = _Draws([TextRequest(Rendered((Piece("x"),)), 1, temperature=0.7, seed=seed)])
        counts[int(draws(torch.zeros(1, 1), logits).argmax())] += 1
    expected = torch.softmax(logits[0] / 0.7, 0).numpy()
    assert np.abs(counts / 4000 - expected).max() < 4 * np.sqrt(0.25 / 4000)


def test_a_space_without_open_slots_is_told_before_any_text_is_asked_for() -> None:
    author = Author()
    with pytest.raises(ValueError, match="may be written by a model"):
        run(author, space=small_space())
    assert author.wrote == []
