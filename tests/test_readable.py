"""Prompts of a space that a model cannot read are left out, and the result says how many and why."""

from __future__ import annotations

import pytest

import autoprompt
from autoprompt.errors import LabelWordError, TemplateError
from autoprompt.models import Model
from autoprompt.models.toy import ToyModel
from autoprompt.prompt import Prompt, Rendered
from autoprompt.readable import Readable, can_score
from autoprompt.space import SearchSpace
from autoprompt.task import Task

ROWS = [
    {"text": f"it was {'good' if n % 2 else 'bad'} {n}", "label": ("bad", "good")[n % 2]} for n in range(32)
]
TASK = Task.from_rows(ROWS, prompt="{{ text }} So {{ answer }}", name="short")


class Fussy(ToyModel):
    """Reads ten words, and scores no answer after a colon."""

    def check_answers(self, rendered: Rendered, answers: object, *, single_token: bool = False) -> None:
        if len(rendered.text().split()) > 10:
            raise TemplateError("too long")
        if ":" in rendered.text():
            raise LabelWordError("no such token")


def test_the_reasons_are_counted_once_a_prompt() -> None:
    readable = Readable(TASK, Fussy())
    texts = ["{{ text }} So {{ answer }}", "{{ text }}: {{ answer }}", "so " * 20 + "{{ text }} {{ answer }}"]
    prompts = [Prompt(text, TASK.words) for text in texts]
    assert [readable(prompt) for prompt in prompts * 2] == [True, False, False] * 2
    assert readable.notes == (
        "2 of 3 drawn prompts were left out: 1 too long for the model, whatever the row; "
        "1 with label words that the model cannot score at their place",
    )
    assert [can_score(TASK, Fussy(), prompt) for prompt in prompts] == [True, False, False]
    assert Readable(TASK, ToyModel()).notes == ()


@pytest.mark.parametrize("model", [Fussy(), "bundled:causal"])
def test_a_result_tells_of_them(model: Model | str) -> None:
    long = "Read this well. " * 200
    space = SearchSpace.from_dict(
        {
            "template": "[[ lead ]] {{ text }} So {{ answer }}",
            "slots": {"lead": {"one_of": ["", "Now", f"{long}1", f"{long}2"]}},
        }
    )
    result = autoprompt.optimize(TASK, model, 40, space=space)
    (told,) = [note for note in result.notes if "left out" in note]
    assert told.startswith("2 of 4 drawn prompts were left out: too long for the model")
    assert ("(256 tokens)" in told) == (model == "bundled:causal")
