"""The search over tokens, in a world in which the best trigger is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from autoprompt.asks import Fluency, Score
from autoprompt.asks import Gradient as Slopes
from autoprompt.errors import InputError, UnknownName
from autoprompt.strategies import Setting, Strategy
from autoprompt.strategies.autoprompt import Autoprompt
from autoprompt.strategies.gcg import Gcg
from autoprompt.strategies.gradient import Gradient
from autoprompt.strategies.random_search import RandomSearch
from tests.strategies.linear import READABLE, WORDS, Words, World, make_space, make_task, trigger_of

MAKERS: list[Callable[[], Strategy]] = [Gradient, Autoprompt, Gcg]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("seed", range(3))
def test_the_planted_trigger_is_found(make: Callable[[], Strategy], seed: int) -> None:
    task = make_task()
    world = World.drawn(seed)
    _, prompt = world.play(make(), task, make_space(task), calls=12_000, seed=seed)
    # AutoPrompt goes by the score alone, which says nothing once every answer is right
    assert trigger_of(prompt) == world.best or (
        isinstance(make(), Autoprompt) and world.loss(trigger_of(prompt)) < 1.0
    )


def test_random_triggers_are_the_control() -> None:
    task = make_task()
    world = World.drawn(1)
    _, prompt = world.play(RandomSearch(), task, make_space(task), calls=4_000)
    ids = trigger_of(prompt)
    assert len(ids) == 3
    assert max(ids) < READABLE
    assert world.loss(world.best) < world.loss(ids) < world.shares.mean() * 3
    prompts = [trigger_of(ask.prompt) for ask in world.asked if isinstance(ask, Score)][1:]
    assert len(set(prompts)) == len(prompts)  # nothing is paid for twice


def test_the_same_setting_and_answers_give_the_same_questions() -> None:
    task = make_task()
    runs = []
    strategy = Gradient()
    for again in (strategy, strategy, Gradient()):
        world = World.drawn(2)
        world.play(again, task, make_space(task), calls=3_000, seed=5)
        runs.append(world.asked)
    assert runs[0] == runs[1] == runs[2]
    json.dumps(strategy.describe())


@pytest.mark.parametrize("calls", [0, 40, 100, 333, 1_500])
@pytest.mark.parametrize(
    "make", [*MAKERS, lambda: Gradient(average=3, positions="one"), lambda: Gradient(fresh=True)]
)
def test_a_budget_may_end_anywhere(make: Callable[[], Strategy], calls: int) -> None:
    task = make_task(8)
    World.drawn(0).play(make(), task, make_space(task), calls=calls)


def test_only_what_the_policy_allows_is_asked_about_but_for_what_is_kept_beside() -> None:
    task = make_task()
    world = World.drawn(0)
    world.shares[:, READABLE:] -= 1  # the best tokens of all are not readable
    world.play(Gradient(beside=2), task, make_space(task), calls=6_000)
    scores = [ask for ask in world.asked if isinstance(ask, Score)]
    assert all(max(trigger_of(ask.prompt), default=0) < READABLE for ask in scores if not ask.beside)
    beside = [trigger_of(ask.prompt) for ask in scores if ask.beside]
    assert any(max(ids) >= READABLE for ids in beside)
    world.asked.clear()
    world.play(Gradient(beside=0), task, make_space(task), calls=3_000)
    assert not any(isinstance(ask, Score) and ask.beside for ask in world.asked)


def test_what_is_not_read_back_is_no_candidate() -> None:
    task = make_task()
    world = World.drawn(3)
    torn = frozenset(world.best)
    _, prompt = world.play(Gradient(), task, make_space(task), calls=6_000, torn=torn)
    assert trigger_of(prompt)
    for ask in world.asked:
        if isinstance(ask, Score):
            assert torn.isdisjoint(trigger_of(ask.prompt))


def test_nothing_that_can_be_read_ends_in_words() -> None:
    task = make_task()
    strategy = Gradient()
    setting = Setting(
        make_space(task), task.seed_prompt, World.drawn(0).answer(Score(task.seed_prompt, task.select)),  # type: ignore[arg-type]
        task.train, task.select, np.random.default_rng(0), 1000, Words(frozenset(range(WORDS))),
    )  # fmt: skip
    strategy.begin(setting)
    assert list(strategy.ask()) == []


@pytest.mark.parametrize("make", [Gradient, Autoprompt])
def test_a_model_without_tokens_and_a_space_without_slots_are_refused(make: Callable[[], Strategy]) -> None:
    task = make_task()
    scored = World.drawn(0).answer(Score(task.seed_prompt, task.select))
    rng = np.random.default_rng(0)
    from autoprompt.space import SearchSpace

    plain = SearchSpace.from_prompt(task).bind(task, answer_at_end=True)
    for space, tokens, wanted in ((make_space(task), None, "no tokens"), (plain, Words(), "no token slots")):
        with pytest.raises(InputError, match=wanted):
            make().begin(Setting(space, task.seed_prompt, scored, task.train, task.select, rng, 100, tokens))  # type: ignore[arg-type]


def test_the_length_is_searched_where_it_is_free() -> None:
    task = make_task()
    world = World(World.drawn(4).shares)
    world.shares[2] += 0.5  # a third token only costs
    _, prompt = world.play(
        Gradient(edits=0.5), task, make_space(task, shortest=1, longest=4), calls=12_000, seed=1
    )
    lengths = {len(trigger_of(ask.prompt)) for ask in world.asked if isinstance(ask, Score)} - {0}
    assert lengths <= {1, 2, 3, 4}
    assert len(lengths) > 1
    assert len(trigger_of(prompt)) < 3


def test_an_initial_text_is_where_the_search_starts() -> None:
    task = make_task()
    world = World.drawn(0)
    world.play(Gradient(), task, make_space(task, init="w5 w6 w7"), calls=600)
    first = next(ask for ask in world.asked[1:] if isinstance(ask, (Score, Slopes)))
    assert trigger_of(first.prompt) == (5, 6, 7)


def test_perplexity_is_a_bound_or_part_of_the_objective() -> None:
    task = make_task()
    world = World.drawn(0)  # a trigger's perplexity is 10 times one more than the number of its first word
    world.shares[0] = np.linspace(0.3, 0, WORDS)  # ... which is the better the larger it is
    found, went = {}, {}
    for name, strategy in (
        ("free", Gradient()),
        ("bound", Gradient(max_perplexity=105.0)),
        ("weighed", Gradient(fluency=2.0)),
    ):
        world.asked.clear()
        _, prompt = world.play(strategy, task, make_space(task), calls=9_000)
        found[name] = trigger_of(prompt)[0]
        measured = [ask for ask in world.asked if isinstance(ask, Score) and ask.note == "select"]
        went[name] = np.mean([trigger_of(ask.prompt)[0] for ask in measured])
    assert found["free"] == READABLE - 1
    assert found["bound"] <= 9
    assert (
        went["weighed"] < went["free"] - 5
    )  # where the search goes; the result is still the best by its score
    assert any(isinstance(ask, Fluency) for ask in world.asked)


@pytest.mark.parametrize(
    "wrong",
    [{"width": 0}, {"greedy": 1.5}, {"batch": 0}, {"edits": -0.1}, {"patience": 0}, {"average": -1},
     {"max_perplexity": math.nan}],
)  # fmt: skip
def test_wrong_settings_are_explained(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"gradient: {next(iter(wrong))} must be"):
        Gradient(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"positions": "al"}, {"objective": "scores"}, {"accept": "beter"}])
def test_words_that_are_none_of_those_known_are_explained(wrong: dict[str, str]) -> None:
    with pytest.raises(UnknownName, match=f"gradient: no {next(iter(wrong))} .*did you mean"):
        Gradient(**wrong)  # type: ignore[arg-type]
