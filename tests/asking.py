"""A small task with a token slot in its prompt, tiny models, and what the tests of questions about them share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from autoprompt.asks import Answer, Scored, Slope
from autoprompt.budget import Budget
from autoprompt.cache import Cache
from autoprompt.harness import Harness
from autoprompt.models import OpenModel
from autoprompt.models.load import load_model
from autoprompt.prompt import Prompt
from autoprompt.space import SearchSpace
from autoprompt.task import Task
from tests.models.tiny import make_model

WORDS = {"good": ("good", "great"), "bad": ("bad",)}
KINDS = ["gpt2", "bert", "t5"]


def rows(n: int, start: int) -> list[dict[str, str]]:
    things = ("the film", "a book", "the rain", "a dog", "the people", "a cat", "it", "the walk")
    return [
        {"text": f"{things[(start + at) % 8]} was {'great' if label == 'good' else 'bad'}" + "!" * at, "label": label}
        for at in range(n)
        for label in WORDS
    ]  # fmt: skip


TASK = Task.from_rows(
    {"train": rows(4, 0), "select": rows(3, 3), "test": rows(3, 5)}, name="tiny", words=WORDS,
    prompt="{{ text }} It was {{ answer }}",
)  # fmt: skip
SOME = TASK.train[:4]


def space_of(*, template: str = "{{ text }} [[ t ]] It was {{ answer }}", **options: Any) -> SearchSpace:
    slots = {
        name: {"tokens": {"n": 2, "policy": "any", **options}} for name in "tu" if f"[[ {name} ]]" in template
    }
    return SearchSpace.from_dict({"template": template, "slots": slots}).bind(TASK, answer_at_end=False)


def prompt_of(text: str = "good people", **texts: Any) -> Prompt:
    space = space_of(**texts)
    return space.prompt_from({name: text if name == "t" else "the film" for name in space.names})


PROMPT = prompt_of()
UNREADABLE = {
    "no slot": Prompt("{{ text }} It was {{ answer }}", TASK.words),
    "twice": prompt_of(template="[[ t ]] {{ text }} [[ t ]] It was {{ answer }}"),
    "too long": prompt_of("good people " * 80),
    "glued": prompt_of("oo", template="the film was g[[ t ]]d. {{ text }} It was {{ answer }}"),
}


def load(kind: str) -> OpenModel:
    model = load_model(make_model(kind))
    assert isinstance(model, OpenModel)
    return model


def harness(model: object, budget: Budget | None = None, cache: Cache | None = None) -> Harness:
    return Harness(TASK, model, budget, cache if cache is not None else Cache())  # type: ignore[arg-type]


def same(one: Answer, other: Answer) -> bool:
    """Bit by bit."""
    if isinstance(one, Scored) and isinstance(other, Scored):
        return np.array_equal(one.scores, other.scores) and np.array_equal(one.losses, other.losses)
    if isinstance(one, Slope) and isinstance(other, Slope):
        alike = (one.loss, one.ids, one.problem) == (other.loss, other.ids, other.problem)
        return alike and all(
            each.tobytes() == other.changes[name].tobytes() for name, each in one.changes.items()
        )
    return one == other or dataclasses.astuple(one) == dataclasses.astuple(other)


def count(monkeypatch: pytest.MonkeyPatch, model: object, name: str) -> list[int]:
    """Sizes of the calls of a method from here on."""
    sizes: list[int] = []
    real = model.__getattribute__(name)

    def counted(requests: Sequence[Any]) -> Any:
        sizes.append(len(requests))
        return real(requests)

    monkeypatch.setattr(model, name, counted)
    return sizes
