"""Chain: stages in turn, each from the best so far, each within its share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from autoprompt.asks import Answer, Ask, Score, Scored, scored_pairs
from autoprompt.errors import InputError
from autoprompt.strategies import Setting
from autoprompt.strategies.chain import Chain
from autoprompt.strategies.hill_climb import HillClimb
from autoprompt.strategies.racing import Racing
from autoprompt.strategies.random_search import RandomSearch
from autoprompt.strategies.tpe import TPE
from autoprompt.testing import check_strategy, planted, run


@dataclass(kw_only=True)
class Spy(RandomSearch):
    """Random search that remembers what it was given."""

    settings: list[Setting] = field(init=False, repr=False, compare=False, default_factory=list)
    told: list[Scored] = field(init=False, repr=False, compare=False, default_factory=list)
    wanted: int = field(init=False, repr=False, compare=False, default=0)

    def begin(self, setting: Setting) -> None:
        self.settings.append(setting)
        super().begin(setting)

    def tell(self, asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
        self.told += [answer for _, answer in scored_pairs(asks, answers)]
        self.wanted += len(asks)


def test_keeps_the_contract() -> None:
    quick = TPE(startup=4, redraws=5)
    check_strategy(lambda: Chain(strategies=(RandomSearch(), quick)))
    check_strategy(lambda: Chain(strategies=(Chain(strategies=(RandomSearch(), RandomSearch())), quick)))
    check_strategy(lambda: Chain(strategies=(Racing(inner=RandomSearch()), RandomSearch()), shares=(1, 3)))


def test_each_stage_starts_from_the_best_prompt_so_far_with_its_share() -> None:
    task = planted(seed=3, slots=4, options=4, n_examples=16)
    first, second = Spy(batch=4), Spy(batch=4)
    run(Chain(strategies=(first, second), shares=(1.0, 3.0)), task, 16 * 41)
    assert first.settings[0].calls == 16 * 10
    assert second.settings[0].calls == 16 * 30
    assert len(first.told) == 10
    merits = [first.settings[0].seed_scored.merit, *(scored.merit for scored in first.told)]
    assert second.settings[0].seed_scored.merit == max(merits)
    again = task.oracle(Score(second.settings[0].seed_prompt, task.task.select))
    assert again.merit == max(merits)


def test_what_a_stage_leaves_over_goes_to_the_next() -> None:
    task = planted(seed=3, slots=2, options=2, n_examples=16)
    first, second = Spy(), Spy()
    points = run(Chain(strategies=(first, second)), task, 16 * 101)
    assert len(first.told) == 3
    assert second.settings[0].calls == 16 * 97
    assert points[-1].calls == 16 * 4  # the second stage's questions were all answered from memory
    assert len(second.told) == second.wanted >= 3


@pytest.mark.parametrize(("options", "left"), [(4, 0), (2, 97)])
def test_a_stage_without_a_share_gets_no_more_than_is_left(options: int, left: int) -> None:
    task = planted(seed=3, slots=2 if left else 4, options=options, n_examples=16)
    first, second = Spy(), Spy()
    run(Chain(strategies=(first, second), shares=(1.0, 0.0)), task, 16 * 101)
    assert first.settings[0].calls == 16 * 100
    assert [setting.calls for setting in second.settings] == ([16 * left] if left else [])


def test_a_climb_begins_at_the_best_of_the_stage_before() -> None:
    task = planted(seed=3, slots=4, options=4, n_examples=16)
    first = Spy()
    asked: list[Score] = []

    def answer(ask: Score) -> Scored:
        asked.append(ask)
        return task.oracle(ask)

    run(Chain(strategies=(first, HillClimb()), shares=(1.0, 1.0)), task, 16 * 21, answer=answer)
    before = 1 + len(first.told)
    best = max(asked[:before], key=lambda ask: task.oracle(ask).merit).prompt
    assert best.choices, "else the seed is the best"
    (one, *_) = asked[before:]
    assert sum(best.choices[name] != one.prompt.choices[name] for name in best.choices) == 1


def test_what_a_race_filled_in_does_not_lead() -> None:
    task = planted(seed=1, slots=4, options=4, n_examples=64)
    first, second = Spy(batch=8), Spy(batch=8)
    for seed in range(6):
        race = Racing(inner=Chain(strategies=(first, second)), method="halving")
        run(race, task, 64 * 20, seed)
        began = second.settings[-1]
        assert not began.seed_scored.imputed


def test_a_stage_that_repeats_itself_for_ever_ends() -> None:
    task = planted(seed=1, slots=2, options=2, n_examples=16)

    class Same(RandomSearch):
        def ask(self) -> list[Score]:
            return [Score(task.task.seed_prompt, task.task.select)]

    last = Spy()
    run(Chain(strategies=(Same(), last)), task, 16 * 20)
    assert last.told


def test_budget_below_one_round_of_the_first_stage() -> None:
    task = planted(seed=3, slots=4, options=4, n_examples=16)
    first, second = Spy(batch=8), Spy(batch=8)
    points = run(Chain(strategies=(first, second)), task, 16 * 5)
    assert points[-1].calls == 16 * 5
    assert (len(first.told), len(second.told)) == (2, 2)


def test_without_a_budget_in_calls_a_stage_ends_by_itself() -> None:
    task = planted(seed=3, slots=2, options=3, n_examples=16)
    chain = Chain(strategies=(RandomSearch(), TPE(startup=2, redraws=2)))
    assert run(chain, task, 10**9)[-1].calls == 16 * 9


def test_notes_of_the_stages_and_the_identity_are_nested() -> None:
    chain = Chain(strategies=(RandomSearch(batch=2), Racing(inner=TPE())), shares=(1, 2))
    described = chain.describe()
    assert described["strategy"] == "chain"
    assert described["shares"] == [1, 2]
    assert described["strategies"][0] == {"strategy": "random_search", "batch": 2}
    assert described["strategies"][1]["inner"]["strategy"] == "tpe"


@pytest.mark.parametrize(
    ("strategies", "shares", "message"),
    [
        ((), None, "at least one strategy"),
        ((RandomSearch(),), (1.0, 2.0), "1 strategies need as many shares"),
        ((RandomSearch(), RandomSearch()), (0.0, 1.0), "the first one above"),
        ((RandomSearch(), RandomSearch()), (1.0, -1.0), "at least 0"),
    ],
)
def test_refuses(
    strategies: tuple[RandomSearch, ...], shares: tuple[float, ...] | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Chain(strategies=strategies, shares=shares)
