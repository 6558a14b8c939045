"""The parts of the search over tokens, each by itself."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence

import numpy as np
import pytest

from autoprompt.asks import Answer, Ask, Fluency, Fluent, Score, Scored
from autoprompt.errors import InputError
from autoprompt.policy import TokenPolicy
from autoprompt.strategies import Setting
from autoprompt.strategies.tokensearch.board import Board, Trigger
from autoprompt.strategies.tokensearch.generators import by_gradient, by_model, edits, merged, mixed
from autoprompt.strategies.tokensearch.race import Finisher, Rules, race, weighed, within_bound
from autoprompt.strategies.tokensearch.starts import fluent
from tests.strategies.linear import READABLE, WORDS, Words, World, make_space, make_task, trigger_of

TASK = make_task()
START = Trigger.of({"trigger": (1, 2, 3)})


def board(free: bool = False, torn: frozenset[int] = frozenset(), **tokens: object) -> Board:
    scored = World.drawn(0).answer(Score(TASK.seed_prompt, TASK.select))
    assert isinstance(scored, Scored)
    rng = np.random.default_rng(0)
    space = make_space(TASK, **tokens)
    setting = Setting(space, TASK.seed_prompt, scored, TASK.train, TASK.select, rng, 1000, Words(torn))
    return Board(setting, free=free)


def changes(seed: int = 0) -> dict[str, np.ndarray]:
    return {"trigger": np.random.default_rng(seed).normal(size=(3, WORDS)).astype(np.float32)}


def swaps(triggers: Sequence[Trigger]) -> list[tuple[int, int]]:
    """(position, token) of single substitutions."""
    found = []
    for each in triggers:
        places = [at for at in range(3) if each["trigger"][at] != START["trigger"][at]]
        assert len(places) == 1
        found.append((places[0], each["trigger"][places[0]]))
    return found


def test_greedy_candidates_come_in_the_order_of_their_estimate() -> None:
    estimates = changes()
    places = list(START.places())
    found = swaps(list(by_gradient(board(), START, estimates, places=places, top_k=5, greedy=1.0)))
    gains = [estimates["trigger"][at, token] - estimates["trigger"][at, at + 1] for at, token in found]
    assert gains == sorted(gains)
    assert len(found) == len(set(found)) == 15
    for at in range(3):  # the five best of every position, of those that are allowed
        allowed = [
            token for token in np.argsort(estimates["trigger"][at]) if token < READABLE and token != at + 1
        ]
        assert {token for place, token in found if place == at} == set(allowed[:5])


def test_other_candidates_are_drawn_evenly_from_the_same_tokens() -> None:
    places = list(START.places())
    greedy = swaps(list(by_gradient(board(), START, changes(), places=places, top_k=5, greedy=1.0)))
    drawn = swaps(list(by_gradient(board(), START, changes(), places=places, top_k=5, greedy=0.0)))
    half = swaps(list(by_gradient(board(), START, changes(), places=places, top_k=5, greedy=0.5)))
    assert set(greedy) == set(drawn) == set(half)
    assert drawn != greedy
    order = {step: at for at, step in enumerate(greedy)}
    assert [order[step] for step in half[1:6:2]] == sorted(order[step] for step in half[1:6:2])


def test_far_tokens_are_penalised_and_one_position_may_be_chosen() -> None:
    found = swaps(
        list(
            by_gradient(
                board(), START, changes(), places=[("trigger", 1)], top_k=4, greedy=1.0, distance=100.0
            )
        )
    )
    assert [at for at, _ in found] == [1] * 4
    assert {token for _, token in found} == {1, 3, 0, 4}  # the nearest to token 2


def test_the_model_proposes_what_is_allowed_position_by_position() -> None:
    likely = {"trigger": [[39, 5, 6], [2, 7, 8], [9, 35, 36]]}
    found = swaps(list(by_model(board(), START, likely)))
    assert set(found) == {(0, 5), (0, 6), (1, 7), (1, 8), (2, 9)}
    assert {at for at, _ in found[:3]} == {0, 1, 2}
    assert list(by_model(board(), START, {})) == []


def test_edits_keep_to_the_lengths() -> None:
    fixed = list(itertools.islice(edits(board(), START), 50))
    assert all(sorted(each["trigger"]) == [1, 2, 3] for each in fixed)
    assert all(each != START for each in fixed)
    free = list(itertools.islice(edits(board(shortest=2, longest=4), START), 200))
    assert {len(each) for each in free} == {2, 3, 4}
    assert list(edits(board(n=1), Trigger.of({"trigger": (4,)}))) == []
    both = board()
    both.specs = {"single": board(n=1).specs["trigger"], **both.specs}  # one that leaves nothing to edit
    found = list(itertools.islice(edits(both, Trigger.of({"single": (4,), "trigger": (1, 2, 3)})), 50))
    assert len(found) == 50
    assert all(each["single"] == (4,) for each in found)


def test_the_best_substitutions_are_put_together() -> None:
    better = [START.swapped("trigger", 0, 9), START.swapped("trigger", 0, 8), START.swapped("trigger", 2, 7)]
    assert [each["trigger"] for each in merged(START, better)] == [(9, 2, 7)]
    assert list(merged(START, better[:2])) == []


def test_sources_take_turns_by_their_shares() -> None:
    lanes = [
        (share, iter([Trigger.of({name: (at,)}) for at in range(50)]))
        for share, name in ((0.75, "a"), (0.25, "b"))
    ]
    first = [each.slots[0][0] for each in itertools.islice(mixed(lanes), 40)]
    assert first.count("a") == 30
    short = [
        (0.5, iter([START])),
        (0.5, iter([Trigger.of({"c": (at,)}) for at in range(5)])),
        (0.0, iter([START])),
    ]
    assert len(list(mixed(short))) == 6


def test_what_is_written_twice_is_one_trigger_and_what_is_torn_is_none() -> None:
    torn = board(torn=frozenset((5,)))
    standing = torn.standing([START, START, START.swapped("trigger", 0, 5)])
    assert [trigger for trigger, _ in standing] == [START]
    assert "w1 w2 w3" in standing[0][1].text
    visited = {START.swapped("trigger", 0, 6)}
    source = iter([START.swapped("trigger", 0, token) for token in (5, 6, 7, 8, 9)])
    assert [trigger["trigger"][0] for trigger, _ in torn.fresh(source, visited, 2)] == [7, 8]


def test_drawn_triggers_are_allowed_and_differ() -> None:
    drawn = board(torn=frozenset(range(10))).drawn(20)
    assert len({trigger for trigger, _ in drawn}) == 20
    assert all(10 <= token < READABLE for trigger, _ in drawn for token in trigger["trigger"])
    assert any(token >= READABLE for trigger, _ in board(free=True).drawn(40) for token in trigger["trigger"])
    shaken = board().shaken(START)
    assert sum(a != b for a, b in zip(shaken["trigger"], START["trigger"], strict=True)) <= 1


def play(
    questions: Generator[Sequence[Ask], Sequence[Answer], list[Finisher]], world: World
) -> list[Finisher]:
    try:
        asks = next(questions)
        while True:
            asks = questions.send([world.answer(ask) for ask in asks])
    except StopIteration as stop:
        found: list[Finisher] = stop.value
        return found


@pytest.mark.parametrize("laps", [True, False])
def test_a_race_ends_with_the_best_and_the_first_runner(laps: bool) -> None:
    world = World.drawn(5)
    runners = board().drawn(27)
    ranked = play(race(runners, TASK.train, Rules(laps=laps), "step"), world)
    costs = [each.cost for each in ranked]
    assert costs == sorted(costs)
    assert ranked[0].trigger == min(runners, key=lambda runner: world.loss(runner[0]["trigger"]))[0]
    assert runners[0][0] in [each.trigger for each in ranked]
    asked = sum(len(ask.examples) for ask in world.asked)
    assert (asked < 27 * 32 / 2) if laps else (asked == 27 * 32)
    assert len(ranked) <= 5 if laps else len(ranked) == 27


def test_by_score_a_tie_is_no_reason_to_move() -> None:
    world = World.drawn(5)
    world.shares[:] = np.linspace(0, 0.2, WORDS)  # every answer is right
    runners = board().drawn(6)
    ranked = play(race(runners, TASK.train, Rules(objective="score"), "step"), world)
    assert ranked[0].trigger == runners[0][0]


def test_a_runner_without_answers_comes_last() -> None:
    runners = board().drawn(3)
    questions = race(runners, TASK.train, Rules(laps=False), "step")
    asks = next(questions)
    nothing = np.full(32, np.nan)
    answers: list[Answer] = [Scored(nothing, nothing)]
    answers += [World.drawn(1).answer(ask) for ask in asks[1:]]
    with pytest.raises(StopIteration) as stop:
        questions.send(answers)
    assert stop.value.value[-1].trigger == runners[0][0]


def test_perplexity_bounds_and_weighs() -> None:
    world = World.drawn(0)
    runners = [
        (each, board().prompt(each))
        for each in (Trigger.of({"trigger": (at, 2, 3)}) for at in (20, 4, 9, 25))
    ]
    for bound, wanted in ((100.0, [4, 9]), (10.0, [4, 9])):  # where none reads well enough: the best half
        questions = within_bound(runners, TASK.train[0], Rules(max_perplexity=bound))
        asks = next(questions)
        assert all(isinstance(ask, Fluency) for ask in asks)
        with pytest.raises(StopIteration) as stop:
            questions.send([world.answer(ask) for ask in asks])
        assert [trigger["trigger"][0] for trigger, _ in stop.value.value] == wanted
    ranked = [Finisher(0.1 * at, *runner) for at, runner in enumerate(runners)]
    assert play(weighed(ranked, TASK.train[:2], Rules(fluency=1.0)), world)[0].trigger["trigger"][0] == 4
    assert play(weighed(ranked, TASK.train[:2], Rules()), world) == ranked


def test_fluent_starts_are_drawn_from_what_is_likely() -> None:
    world = World.drawn(0)
    questions = fluent(board(), board().drawn(6), TASK.train[0])
    asks: Sequence[Ask] = next(questions)
    rounds = 0
    while True:
        rounds += 1
        answers = [Fluent(5.0, {}, {"trigger": ((11, 12, 39),) * 3}) for _ in asks]
        try:
            asks = questions.send(answers)
        except StopIteration as stop:
            found = stop.value
            break
    assert rounds == 3
    assert found
    assert {token for trigger, _ in found for token in trigger["trigger"]} <= {11, 12}
    assert all(trigger_of(prompt) == trigger["trigger"] for trigger, prompt in found)
    assert world.asked == []


def test_a_policy_that_allows_nothing_is_explained() -> None:
    class Nothing(Words):
        def allowed(self, policy: object) -> np.ndarray:
            return np.zeros(WORDS, bool)

    scored = World.drawn(0).answer(Score(TASK.seed_prompt, TASK.select))
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="no token of the model is allowed by policy 'readable'"):
        Board(
            Setting(make_space(TASK), TASK.seed_prompt, scored, TASK.train, TASK.select, rng, 9, Nothing())  # type: ignore[arg-type]
        )


def test_readable_tokens_are_of_the_writing_systems_of_the_task() -> None:
    seen: list[TokenPolicy] = []

    class Noting(Words):
        def allowed(self, policy: TokenPolicy) -> np.ndarray:
            seen.append(policy)
            return super().allowed(policy)

    scored = World.drawn(0).answer(Score(TASK.seed_prompt, TASK.select))
    rng = np.random.default_rng(0)
    for tokens in ({}, {"policy": "ascii"}, {"matching": "[а-я]+"}):
        space = make_space(TASK, **tokens)
        Board(Setting(space, TASK.seed_prompt, scored, TASK.train, TASK.select, rng, 9, Noting()))  # type: ignore[arg-type]
    assert [policy.scripts for policy in seen] == [("LATIN",), (), ()]
