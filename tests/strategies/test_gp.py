"""GP: the contract, better than random and TPE at equal calls, an end in a small space, what it learns from blocks."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
import pytest

from autoprompt.asks import Score, Scored
from autoprompt.errors import InputError
from autoprompt.prompt import Prompt
from autoprompt.strategies.evolving.surrogate import Surrogate, distance
from autoprompt.strategies.gp import GP
from autoprompt.strategies.random_search import RandomSearch
from autoprompt.strategies.tpe import TPE
from autoprompt.testing import Planted, check_strategy, planted, run


@pytest.mark.parametrize("block", [8, 0])
def test_keeps_the_contract(block: int) -> None:
    check_strategy(lambda: GP(block=block, batch=4, pool=20))


def recorded(
    task: Planted, change: Callable[[Scored], Scored] = lambda answer: answer
) -> tuple[list[Score], Callable[[Score], Scored]]:
    """Questions as they are asked, and an oracle that notes them."""
    asked: list[Score] = []

    def answer(ask: Score) -> Scored:
        asked.append(ask)
        return change(task.oracle(ask))

    return asked, answer


def test_beats_random_search_and_tpe_at_equal_calls() -> None:
    found: dict[str, list[float]] = {"gp": [], "random": [], "tpe": []}
    for seed in range(4):
        task = planted(seed=seed, slots=5, options=4, n_examples=64)
        for name, strategy in (("gp", GP()), ("random", RandomSearch()), ("tpe", TPE())):
            found[name].append(run(strategy, task, 1_000, seed)[-1].accuracy)
    best = statistics.mean(found["gp"])
    assert best > statistics.mean(found["random"]) + 0.02
    assert best > statistics.mean(found["tpe"]) + 0.02


def test_asks_every_prompt_of_a_small_space_once_and_ends() -> None:
    task = planted(seed=0, slots=2, options=3, n_examples=16)
    assert run(GP(pool=4), task, 10**6)[-1].calls == 16 * 9


def test_many_prompts_are_seen_in_part_and_the_likeliest_are_measured_whole() -> None:
    task = planted(seed=0, slots=5, options=4, n_examples=64)
    asked, answer = recorded(task)
    run(GP(), task, 1_500, answer=answer)
    parts = [ask for ask in asked if len(ask.examples) == 8]
    whole = [ask for ask in asked[1:] if len(ask.examples) == 64]
    assert len(parts) + len(whole) == len(asked) - 1
    assert len(parts) >= 90
    seen, likely = ([task.accuracy(ask.prompt) for ask in asks] for asks in (parts, whole))
    assert statistics.mean(likely) > statistics.mean(seen) + 0.05
    for ask in parts:  # blocks hold both labels alike
        assert sum(example.target == "good" for example in ask.examples) == 4


def test_measurements_that_are_all_alike_leave_everything_open() -> None:
    task = planted(seed=0, slots=3, options=3, n_examples=16)
    prompts = list(task.space.enumerate())
    process = Surrogate()
    for alike in (0.5, 0.7, 0.1):  # the mean of seven times 0.7 is not 0.7
        process.take(prompts[:7], np.full(7, alike), np.ones(7))
        mean, spread = process.posterior(prompts[7:12])
        assert np.allclose(mean, 0.0)
        assert (np.diag(spread) > 0.1).all()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\n", " "),
        ("", "\n\n"),
        ("It was", "it was"),
        ("not only good", "only not good"),
        ("a a", "a"),
        ("so:", "so"),
    ],
)
def test_texts_that_differ_lie_apart(one: str, other: str) -> None:
    assert 0.1 <= distance(one, other) == distance(other, one) <= 1
    assert distance(one, one) == 0
    assert distance("It was", "it was") < distance("It was", "Verdict") == 1


def test_a_metric_over_the_set_is_measured_whole() -> None:
    task = planted(seed=0, slots=3, options=3, n_examples=32)

    def over_set(answer: Scored) -> Scored:
        return Scored(answer.scores, answer.losses, answer.predictions, value=answer.score**2)

    asked, answer = recorded(task, over_set)
    run(GP(), task, 32 * 8, answer=answer)
    assert {len(ask.examples) for ask in asked} == {32}


def prompts() -> list[Prompt]:
    task = planted(seed=0, slots=2, options=3, n_examples=8)
    return list(task.space.enumerate())


def test_what_was_seen_on_more_examples_counts_for_more() -> None:
    some = prompts()
    process = Surrogate()
    for light, heavy in ((0.1, 1.0), (1.0, 0.1)):
        process.take(
            [some[0], some[0], some[4], some[8]],
            np.array([0.0, 1.0, 0.4, 0.6]),
            np.array([light, heavy, 1, 1]),
        )
        (expected,) = process.posterior([some[0]])[0]
        (middle,) = process.posterior([some[4]])[0]
        assert (expected > middle) == (heavy > light)


def test_what_is_taken_stands_in_place_of_all_before() -> None:
    some = prompts()
    values = np.array([0.1, 0.5, 0.4, 0.9])
    weighted, plain = Surrogate(), Surrogate()
    weighted.add(some[5], 0.7)
    weighted.take(some[:4], values, np.ones(4))
    for prompt, value in zip(some[:4], values, strict=True):
        plain.add(prompt, float(value))
    np.testing.assert_allclose(weighted.posterior(some)[0], plain.posterior(some)[0], atol=1e-9)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch": 1}, "batch must be at least 2"),
        ({"block": -1}, "block must be at least 0"),
        ({"explore": 1.5}, "explore must be between 0 and 1"),
        ({"boldness": 2.0}, "boldness must be between 0 and 1"),
    ],
)
def test_refuses(fields: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        GP(**fields)  # type: ignore[arg-type]
