"""Random search: distinct prompts, the whole of a small space, an end."""

from __future__ import annotations

import numpy as np
import pytest

from autoprompt.asks import Score
from autoprompt.errors import InputError
from autoprompt.strategies import Setting
from autoprompt.strategies.random_search import RandomSearch
from autoprompt.testing import Planted, check_strategy, planted, run


def setting_of(task: Planted, seed: int = 0, calls: int | None = None) -> Setting:
    seed_prompt, select = task.task.seed_prompt, task.task.select
    scored = task.oracle(Score(seed_prompt, select))
    rng = np.random.default_rng(seed)
    return Setting(task.space, seed_prompt, scored, task.task.train, select, rng, calls)


def all_asked(strategy: RandomSearch, setting: Setting) -> list[str]:
    strategy.begin(setting)
    asked: list[str] = []
    while asks := strategy.ask():
        asked += [ask.prompt.key for ask in asks]
        strategy.tell(asks, [])
    return asked


def test_keeps_the_contract() -> None:
    check_strategy(RandomSearch)
    check_strategy(lambda: RandomSearch(batch=1))


@pytest.mark.parametrize("calls", [None, 10**6])
def test_asks_every_prompt_of_a_small_space_once_and_ends(calls: int | None) -> None:
    task = planted(seed=0, slots=3, options=3, n_examples=8)
    asked = all_asked(RandomSearch(), setting_of(task, calls=calls))
    everything = {prompt.key for prompt in task.space.enumerate()}
    assert len(asked) == len(set(asked)) == 26
    assert set(asked) == everything - {task.task.seed_prompt.key}


def test_a_small_space_is_met_in_an_order_that_depends_on_the_seed_only() -> None:
    task = planted(seed=0, slots=3, options=3, n_examples=8)
    orders = [all_asked(RandomSearch(), setting_of(task, seed, 10**6)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_finds_the_best_prompt_where_the_budget_pays_for_all() -> None:
    for seed in range(5):
        task = planted(seed=seed, slots=2, options=4, n_examples=2000)
        assert run(RandomSearch(), task, 2000 * 16, seed)[-1].accuracy >= task.best_score - 0.02


def test_rounds_have_the_size_asked_for_and_never_the_seed_prompt() -> None:
    task = planted(seed=0, slots=5, options=4, n_examples=8)
    strategy = RandomSearch(batch=5)
    strategy.begin(setting_of(task, calls=80))
    for _ in range(10):
        asks = strategy.ask()
        assert len(asks) == 5
        assert task.task.seed_prompt not in [ask.prompt for ask in asks]
        assert all(ask.examples == task.task.select for ask in asks)


def test_refuses_an_empty_round() -> None:
    with pytest.raises(InputError, match="batch must be at least 1"):
        RandomSearch(batch=0)
