"""TPE: better than random at equal calls, repeatable, silent, and an end in a small space."""

from __future__ import annotations

import logging
import statistics

import numpy as np
import optuna
import pytest

from autoprompt.asks import Scored
from autoprompt.errors import InputError
from autoprompt.space import SearchSpace
from autoprompt.strategies import Setting
from autoprompt.strategies.random_search import RandomSearch
from autoprompt.strategies.tpe import TPE, objective
from autoprompt.testing import check_strategy, planted, run


def test_keeps_the_contract() -> None:
    check_strategy(lambda: TPE(startup=4, redraws=5))


def test_beats_random_search_at_equal_calls() -> None:
    gains = []
    for seed in range(12):
        task = planted(seed=seed, slots=5, options=4, n_examples=64)
        found = [run(strategy, task, 64 * 50, seed)[-1].accuracy for strategy in (TPE(), RandomSearch())]
        gains.append(found[0] - found[1])
    assert statistics.median(gains) > 0
    assert statistics.mean(gains) > 0.01


def test_comes_near_the_best_prompt() -> None:
    regrets = []
    for seed in range(6):
        task = planted(seed=seed, slots=4, options=4, n_examples=128)
        regrets.append(task.best_score - run(TPE(), task, 128 * 60, seed)[-1].accuracy)
    assert statistics.median(regrets) < 0.03


def test_asks_every_prompt_of_a_small_space_once_and_ends() -> None:
    task = planted(seed=0, slots=2, options=3, n_examples=8)
    points = run(TPE(startup=3, redraws=5), task, 10**6)
    assert points[-1].calls == 8 * 9


def test_conditional_choices_and_prompts_that_are_refused() -> None:
    task = planted(seed=0, n_examples=8).task
    content = {
        "template": "[[ kind ]] {{ text }} {{ answer }}",
        "slots": {
            "kind": {"one_of": ["short", "long [[ a ]] [[ b ]]", "{{ answer }} twice"]},
            "a": {"one_of": ["a0", "a1", "a2"]},
            "b": {"optional": "b1"},
        },
    }
    space = SearchSpace.from_dict(content).bind(task, answer_at_end=True)
    seed_prompt = space.default()
    half = Scored(np.full(8, 0.5), np.full(8, 1.0))
    strategy = TPE(startup=2)
    strategy.begin(Setting(space, seed_prompt, half, task.train, task.select, np.random.default_rng(0)))
    asked: list[str] = []
    while asks := strategy.ask():
        asked += [ask.prompt.text for ask in asks]
        strategy.tell(asks, [half] * len(asks))
    assert len(asked) == len(set(asked)) == 6
    assert all(text.startswith("long a") for text in asked)


def test_the_objective_orders_by_score_first() -> None:
    def of(right: int, loss: float) -> float:
        scores = np.array([1.0] * right + [0.0] * (10_000 - right))
        value = objective(Scored(scores, np.full(10_000, loss)))
        assert value is not None
        return value

    assert of(5001, 1e9) > of(5000, 0.0)
    assert of(5000, 0.5) > of(5000, 0.51) > of(5000, 3.0) > of(5000, float("nan"))
    assert objective(Scored(np.full(3, np.nan), np.full(3, np.nan))) is None


def test_losses_decide_between_equal_scores_only_beyond_what_batches_change() -> None:
    scores = np.ones(4)
    near = [objective(Scored(scores, np.full(4, 0.5 + shift))) for shift in (0.0, 1e-7)]
    assert near[0] == near[1]


def test_is_silent_and_leaves_the_users_log_level(capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.DEBUG)
    try:
        task = planted(seed=0, slots=2, options=3, n_examples=8)
        run(TPE(startup=3), task, 8 * 6)
        assert optuna.logging.get_verbosity() == logging.DEBUG
    finally:
        optuna.logging.set_verbosity(before)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize("field", ["batch", "startup", "redraws"])
def test_refuses_numbers_below_one(field: str) -> None:
    with pytest.raises(InputError, match=f"{field} must be at least 1"):
        TPE(**{field: 0})


def test_learns_from_a_seed_prompt_that_the_space_can_make() -> None:
    task = planted(seed=0, n_examples=8)
    rng = np.random.default_rng(0)
    seed = task.space.neighbours(task.space.default(), rng, 1)[0]
    strategy = TPE()
    strategy.begin(Setting(task.space, seed, Scored(np.ones(8), np.zeros(8)), (), task.task.select, rng))
    (trial,) = strategy._study.trials
    assert trial.value == pytest.approx(1.0)
    assert any(trial.params.values())
