"""Auto: the choice follows from the space, the budget and the examples, and is said in one line."""

from __future__ import annotations

import pytest

from autoprompt.asks import Gradient
from autoprompt.space import SearchSpace
from autoprompt.strategies.auto import Auto, choose
from autoprompt.strategies.racing import Racing
from autoprompt.strategies.random_search import RandomSearch
from autoprompt.strategies.tpe import TPE
from autoprompt.testing import check_strategy, planted, run
from tests.strategies.linear import World, make_task


@pytest.mark.parametrize(
    ("size", "examples", "calls", "expected", "why"),
    [
        (1, 100, 10_000, RandomSearch, "nothing to search"),
        (20, 100, 1_900, RandomSearch, "all 20 prompts"),
        (1000, 32, 32 * 10, RandomSearch, "10 full measurements, too few"),
        (1000, 128, 128 * 10, RandomSearch, "too few"),
        (1000, 32, 32 * 100, TPE, "32 examples are too few to race"),
        (1000, 128, 128 * 100, Racing, "over tpe"),
        (1000, 128, None, Racing, "not in calls"),
        (1000, 16, None, TPE, "not in calls"),
    ],
)
def test_choice(size: int, examples: int, calls: int | None, expected: type, why: str) -> None:
    strategy, note = choose(size, examples, calls)
    assert type(strategy) is expected
    assert why in note
    assert "\n" not in note


def test_hands_on_to_what_it_chose() -> None:
    task = planted(seed=0, slots=4, options=4, n_examples=16)
    auto = Auto()
    assert auto.note == ""
    points = run(auto, task, 16 * 12)
    assert auto.note.startswith("random_search")
    assert points == run(RandomSearch(), task, 16 * 12)
    assert auto.describe() == {"strategy": "auto"}


WORDS = "Read every word of this short text with care, then say what it is."


@pytest.mark.parametrize("others", [[], ["Judge it.", "What is it?"]])
def test_what_is_left_over_goes_to_edits(others: list[str]) -> None:
    task = make_task()
    slots = {"instruction": {"one_of": [WORDS, *others], "edit": {}}}
    space = SearchSpace.from_dict({"template": "[[ instruction ]] {{ text }} {{ answer }}", "slots": slots})
    world, strategy = World.drawn(0), Auto()
    calls = 20 * len(task.select)
    world.play(strategy, task, space.bind(task, answer_at_end=True), calls=calls)
    asked = [ask.prompt.choices["instruction"] for ask in world.asked if ask.prompt.choices]
    assert set(others) <= set(asked)
    edited = [text for text in asked if text not in (WORDS, *others)]
    assert len(set(edited)) >= 10
    assert sum(len(text) < len(WORDS) for text in edited), "words are deleted"
    if others:
        assert strategy.note == (
            "random_search: the budget pays for all 3 prompts of the space; "
            "with the calls it left over hill_climb, for edits of the best"
        )
        assert asked.index(edited[0]) > max(map(asked.index, others)), "options come first"
    else:
        assert strategy.note == "hill_climb: the space holds one prompt, whose words may be edited"


def test_no_edits_are_told_where_none_were_paid_for() -> None:
    task = make_task()
    slots = {"instruction": {"one_of": [WORDS, "Judge it.", "What is it?"], "edit": {}}}
    space = SearchSpace.from_dict({"template": "[[ instruction ]] {{ text }} {{ answer }}", "slots": slots})
    strategy = Auto()
    World.drawn(0).play(strategy, task, space.bind(task, answer_at_end=True), calls=3 * len(task.select) + 2)
    assert strategy.note == "random_search: the budget pays for all 3 prompts of the space"


def test_keeps_the_contract() -> None:
    check_strategy(Auto)


@pytest.mark.parametrize(
    ("wordings", "wanted"), [([], "gradient: "), (["Judge it.", "What is it?"], "half of the calls")]
)
def test_token_slots_are_searched_by_gradient(wordings: list[str], wanted: str) -> None:
    task = make_task()
    slots: dict[str, object] = {"trigger": {"tokens": {"n": 3}}}
    if wordings:
        slots["instruction"] = {"optional": wordings}
    template = f"{'[[ instruction ]] ' if wordings else ''}{{{{ text }}}} [[ trigger ]] is {{{{ answer }}}}"
    space = SearchSpace.from_dict({"template": template, "slots": slots}).bind(task, answer_at_end=True)
    world, strategy = World.drawn(0), Auto()
    world.play(strategy, task, space, calls=3_000)
    assert strategy.note.startswith(wanted)
    asked = [ask.prompt.text for ask in world.asked if isinstance(ask, Gradient)]
    assert asked
    if wordings:
        assert {ask.prompt.choices["instruction"] for ask in world.asked if ask.prompt.choices} == {
            "",
            *wordings,
        }
