"""The manual prompt with a trigger: where it goes, for every shipped task, and that models read it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from autoprompt import catalog
from autoprompt.errors import InputError, SpecError
from autoprompt.models import OpenModel
from autoprompt.models.load import load_model
from autoprompt.policy import TokenPolicy
from autoprompt.space import FixedChooser
from autoprompt.specfile import read_spec
from autoprompt.task import Example, Task
from autoprompt.taskfile import TaskForm
from autoprompt.triggers import trigger_space, with_trigger
from tests.small import small_task

TASK = small_task()


def shipped() -> Iterator[tuple[str, Task]]:
    """Every shipped task; those whose data is not bundled with a few rows of their own form."""
    for name in catalog.names("tasks"):
        form = read_spec(catalog.find("tasks", name), TaskForm)
        if name in ("reviews", "news"):
            yield name, Task.load(name)
            continue
        targets = list(form.labels) or ["word"]
        rows = tuple(
            Example({field: f"{field} {at}" for field in form.data.columns}, targets[at % len(targets)])
            for at in range(2 * len(targets))
        )
        fields = tuple(form.data.columns)
        words = {label: (f"word{at}",) for at, label in enumerate(form.labels)}
        yield name, Task(
            name=name, kind=form.kind, fields=fields, prompt=form.prompt, metric=form.metric, train=rows,
            select=rows, test=rows, labels=form.labels, words=words,
        )  # fmt: skip


SHIPPED = dict(shipped())


@pytest.mark.parametrize("name", sorted(SHIPPED))
@pytest.mark.parametrize("end", [False, True])
def test_every_shipped_task_has_a_trigger_space(name: str, end: bool) -> None:
    task = SHIPPED[name]
    space = trigger_space(task, 4, policy="any").bind(task, answer_at_end=end)
    assert space.spec.token_slots["trigger"].n == 4
    assert space.default().text == task.prompt  # without a trigger it is the manual prompt
    prompt = space.draw(FixedChooser({}), {"trigger": "so {{ many [[ words"})
    assert prompt is not None
    prompt.check(set(task.fields), answer_at_end=end)
    for example in task.train[:3]:
        before = prompt.render(example.fields, with_slots=True).before
        names = [piece.slot for piece in before]
        assert names.count("trigger") == 1  # once, and before the answer, where every kind of model reads it
        last = max(at for at, piece in enumerate(before) if piece.is_field)
        assert names.index("trigger") == last + 2  # a blank, or a sign and a blank, between
        assert before[last + 1].text in (" ", "? ")
        plain = task.seed_prompt.render(example.fields).text("A")
        start = "".join(piece.text for piece in before[: last + 2])
        rest = plain.removeprefix(start.rstrip(" "))
        assert prompt.render(example.fields).text("A") == f"{start}so {{{{ many [[ words{rest}"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ text }} It was {{ answer }}.", "{{ text }} [[ trigger ]] It was {{ answer }}."),
        ("{{ a }}\n{{- b | upper -}}\n{{answer}}", "{{ a }}\n{{- b | upper -}} [[ trigger ]]\n{{answer}}"),
        ("Is {{ a }}? {{ answer }}", "Is {{ a }}? [[ trigger ]] {{ answer }}"),
        ('"{{ a }}".\n{{ answer }}', '"{{ a }}". [[ trigger ]]\n{{ answer }}'),
        ("{{ a }}{{ answer }}", "{{ a }} [[ trigger ]] {{ answer }}"),
        ("{{ answer }}: {{ text }}", "[[ trigger ]] {{ answer }}: {{ text }}"),
        ("{{ a }} is {{ answer }} {{ b }}", "{{ a }} [[ trigger ]] is {{ answer }} {{ b }}"),
        (
            "{% for x in text %}{{ x }}\n{% endfor %}{{ answer }}",
            "[[ trigger ]] {% for x in text %}{{ x }}\n{% endfor %}{{ answer }}",
        ),
        (
            "{% if a %}{{ a }}{% endif %} {{ answer }}",
            "[[ trigger ]] {% if a %}{{ a }}{% endif %} {{ answer }}",
        ),
        ("{{ a }} {# not {{ b }} #} {{ answer }}", "[[ trigger ]] {{ a }} {# not {{ b }} #} {{ answer }}"),
    ],
)
def test_where_a_trigger_goes(template: str, expected: str) -> None:
    assert with_trigger(template) == expected


def test_a_wrong_setting_of_a_trigger_is_an_error_that_teaches() -> None:
    with pytest.raises(SpecError, match=r"slots\.trigger\.tokens\.polcy"):
        trigger_space(TASK, polcy="any")
    with pytest.raises(SpecError, match=r"slots\.trigger\.tokens\.policy.*'readable' \(got 'redable'\)"):
        trigger_space(TASK, policy="redable")
    with pytest.raises(SpecError, match=r"slots\.trigger\.tokens\.n.*got 0"):
        trigger_space(TASK, 0)
    space = trigger_space(TASK, 2, ban=("bad",), longest=3, init="so well")
    assert (space.spec.token_slots["trigger"].ban, space.spec.token_slots["trigger"].lengths) == (
        ["bad"],
        (2, 3),
    )
    with pytest.raises(InputError, match="not bound to a task"):
        space.default()


@pytest.mark.parametrize("model", ["bundled:masked", "bundled:causal"])
def test_bundled_models_read_the_triggers_of_bundled_tasks(model: str) -> None:
    loaded = load_model(model)
    assert isinstance(loaded, OpenModel)
    vocabulary = loaded.vocabulary
    rng = np.random.default_rng(0)
    for name in ("reviews", "news"):
        task = SHIPPED[name]
        words = tuple(word for some in task.words.values() for word in some)
        allowed = np.flatnonzero(vocabulary.allowed(TokenPolicy("readable", answers=words)))
        space = trigger_space(task).bind(task, answer_at_end=model != "bundled:masked")
        drawn = [tuple(int(token) for token in rng.choice(allowed, 5)) for _ in range(8)]
        prompts = [space.prompt_from({"trigger": vocabulary.text(ids)}) for ids in drawn]
        texts = [prompt.render(task.train[0].fields, with_slots=True) for prompt in prompts]
        assert vocabulary.read(texts) == [{"trigger": ids} for ids in drawn]
