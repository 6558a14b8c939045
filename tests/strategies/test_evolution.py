"""Evolution and hill climbing: the contract, planted tasks, every kind of change, fronts, the surrogate, model's words."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytest

import autoprompt
from autoprompt.asks import Answer, Ask, Fluency, Fluent, Score, Scored
from autoprompt.errors import InputError
from autoprompt.prompt import Prompt
from autoprompt.space import FixedChooser, SearchSpace
from autoprompt.strategies import Setting, Strategy
from autoprompt.strategies.evolution import Evolution
from autoprompt.strategies.evolving.breeding import Breeder
from autoprompt.strategies.evolving.fitness import Fitness, crowding, evenness, fronts, survivors
from autoprompt.strategies.evolving.surrogate import Surrogate, distance, draws
from autoprompt.strategies.evoprompt import Evoprompt
from autoprompt.strategies.grips import Grips
from autoprompt.strategies.hill_climb import HillClimb
from autoprompt.strategies.random_search import RandomSearch
from autoprompt.task import Task
from autoprompt.testing import check_strategy, planted, run
from tests.test_space import DEMOS, WORDS, bind, make_task

INSTRUCTION = {
    "one_of": ["Say whether the text is good or bad.", "Judge the text."],
    "edit": {"words": {"text": ["story"]}},
}
RICH: dict[str, Any] = {
    "instruction": INSTRUCTION,
    "cue": {"one_of": ["It was", "So:"]},
    "words": WORDS,
    "demos": {"pick": {**DEMOS["pick"], "k": [0, 2, 4]}},
}
TEMPLATE = "[[ instruction ]]\n\n[[ demos ]]\n\n{{ text }} [[ cue ]] {{ answer }}."


def rich() -> SearchSpace:
    return bind(TEMPLATE, **RICH)


def breeder(space: SearchSpace, **options: Any) -> Breeder:
    return Breeder(space, make_task().train, np.random.default_rng(0), set(), **options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Evolution(population=4, batch=3, screen=2),
        lambda: Evolution(population=4, method="de", screen=1),
        lambda: Evolution(population=4, objectives=("score", "tokens"), entropy=0.1, screen=2),
        Evoprompt,
        HillClimb,
        lambda: HillClimb(heat=0.05, compose=2),
    ],
)
def test_keeps_the_contract(make: Callable[[], Strategy]) -> None:
    check_strategy(make)


@pytest.mark.parametrize(
    "make", [lambda: Evolution(screen=4), lambda: Evolution(screen=1, method="de"), HillClimb]
)
def test_beats_random_search_at_equal_calls(make: Callable[[], Strategy]) -> None:
    gains = []
    for seed in range(6):
        task = planted(seed=seed, slots=5, options=4, n_examples=64)
        found = [run(strategy, task, 64 * 80, seed)[-1].accuracy for strategy in (make(), RandomSearch())]
        gains.append(found[0] - found[1])
    assert statistics.mean(gains) > 0.01


def test_every_kind_of_change_makes_prompts_of_the_space() -> None:
    space = rich()
    ids = [example.id for example in make_task().train]
    start = space.draw(FixedChooser({}), {"demos": [ids[0], ids[3]], "instruction": "Judge the story."})
    assert start is not None
    done: dict[str, list[Prompt]] = {}
    for name, prompt in breeder(space).mutants(start):
        done.setdefault(name, []).append(prompt)
        assert space.prompt_from(prompt.choices).key == prompt.key
        assert prompt.text.count("{{ text }}") == 1
        prompt.check({"text", "title"}, answer_at_end=True)
    assert {name.split(": ")[1] for name in done} >= {
        "option",
        "delete",
        "swap",
        "add",
        "replace",
        "resize",
        "reorder",
    }
    assert {name.split(":")[0].split(".")[0] for name in done} == {"instruction", "cue", "words", "demos"}
    assert [each.choices["demos"] for each in done["demos: reorder"]] == [[ids[3], ids[0]]]
    grown = [each.choices["demos"] for each in done["demos: resize"]]
    assert {len(each) for each in grown} == {4}
    for each in grown:  # two of each label
        assert sum(ids.index(one) % 2 for one in each) == 2


def test_only_some_kinds_of_changes() -> None:
    space = rich()
    names = {name for name, _ in breeder(space, only=("edit",)).mutants(space.default())}
    assert names <= {f"instruction: {op}" for op in ("delete", "swap", "add", "replace")}
    assert names


def test_a_known_prompt_is_not_made_again() -> None:
    space = bind(TEMPLATE, **{**RICH, "demos": {"optional": "Texts follow."}})
    one = breeder(space)
    made = [prompt for _, prompt in one.mutants(space.default())]
    assert len({prompt.key for prompt in made}) == len(made)
    assert list(one.mutants(space.default())) == []
    one.settle(made[:2])  # the others were not measured, so they may come again
    assert {prompt.key for _, prompt in one.mutants(space.default())} <= {prompt.key for prompt in made[2:]}


def test_crossing_takes_every_slot_from_one_of_the_two() -> None:
    space = rich()
    one = space.draw(FixedChooser({"cue": "So:", "demos.k": "0"}), {"instruction": "Judge the story."})
    other = space.default()
    assert one is not None
    crosser = breeder(space)
    for _ in range(20):
        child = crosser.crossed(one, other)
        assert child is not None
        for name, value in child.choices.items():
            assert value in (one.choices.get(name), other.choices.get(name))
    assert crosser.differing(one, other) == ["instruction", "cue"]


def test_fitness_rewards_an_even_use_of_labels_and_weighs_labels_alike() -> None:
    examples = make_task().select  # no, yes, no, yes
    one_sided = scored([1, 0, 1, 0], ["no"] * 4)
    even = scored([1, 1, 0, 0], ["no", "yes", "yes", "no"])
    plain, entropic = Fitness(), Fitness(("no", "yes"), entropy=0.1)
    assert plain.of(one_sided, examples)[0] == plain.of(even, examples)[0] == 0.5
    assert entropic.of(even, examples)[0] == pytest.approx(0.6)
    assert entropic.of(one_sided, examples)[0] == pytest.approx(0.5)
    assert evenness(scored([1], [None]), ("no", "yes")) == 0
    stray = scored([0] * 3, ["hm", "what?", "no"])
    assert evenness(stray, ("no", "yes")) == 0  # what is no label is no use of labels
    lopsided = (*examples[:3], examples[0])  # three of no, one of yes
    assert Fitness(("no", "yes"), balanced=True).of(scored([1, 0, 1, 1], ["no"] * 4), lopsided)[0] == 0.5


def scored(scores: Sequence[float], predictions: Sequence[str | None]) -> Scored:
    return Scored(np.array(scores, float), np.full(len(scores), 0.5), tuple(predictions), 5.0)


def test_fronts_and_crowding() -> None:
    values = np.array([[3, 1], [1, 3], [2, 2], [1, 1], [0, 3], [2, 1]], float)
    assert fronts(values) == [[0, 1, 2], [4, 5], [3]]
    apart = crowding(np.array([[0, 4], [1, 3], [3, 2], [4, 0]], float))
    assert np.isinf(apart[[0, 3]]).all()
    assert apart[1:3] == pytest.approx([3 / 4 + 2 / 4, 3 / 4 + 3 / 4])
    assert survivors(values, 4)[:3] == [0, 1, 2]
    assert survivors(np.array([[0, 4], [1, 3], [3, 2], [4, 0]], float), 3) == [0, 3, 2]


def test_several_objectives_breed_short_prompts_too() -> None:
    space = bind("[[ a ]] [[ b ]] {{ text }} [[ cue ]] {{ answer }}", a={"optional": ["one " * 6, "two " * 6]},
                 b={"optional": ["three " * 9, "four " * 3]}, cue={"one_of": ["It was", "So:", "Thus"]})  # fmt: skip
    lengths: dict[bool, float] = {}
    for both in (True, False):
        strategy = Evolution(
            population=4, batch=2, screen=1, objectives=("score", "tokens") if both else ("score",)
        )
        asked = play(strategy, space, lambda prompt: len(prompt.text) / 200, rounds=4)
        lengths[both] = min(len(prompt.text) for prompt in asked[-6:])
        assert len(asked) > 8
        assert (min(len(member.prompt.text) for member in strategy._members) < 30) == both
    assert lengths


def test_perplexity_is_an_objective_where_the_model_can_read() -> None:
    task = Task.load("reviews").with_sizes(train=8, select=12, test=20)
    space = SearchSpace.from_dict(
        {
            "template": "[[ lead ]] {{ text }} [[ cue ]] {{ answer }}.",
            "slots": {
                "lead": {"one_of": ["", "The film was not what I thought.", "Qx zv jj wq ptk vvx zzk."]},
                "cue": {"one_of": ["It was", "In the end it was", "Zq xx it kk", "Verdict:"]},
            },
        }
    )
    result = autoprompt.optimize(
        task,
        "bundled:causal",
        12 * 14,
        space=space,
        seed=1,
        strategy=Evolution(population=4, batch=2, screen=1, fills=0, objectives=("score", "perplexity")),
    )
    read = {
        trial.text: value
        for trial in result.trials
        for key, value in result.perplexities.items()
        if trial.key == key
    }
    assert len(read) >= 6
    worst = min(value for text, value in read.items() if "zzk" in text)
    assert worst > max(value for text, value in read.items() if text.startswith("The film"))
    assert {trial.key for trial in result.pareto} <= result.perplexities.keys()
    assert read[min(read, key=lambda text: read[text])] in [
        result.perplexities[each.key] for each in result.pareto
    ]
    assert not result.findings


def test_a_model_that_cannot_read_says_so() -> None:
    task = Task.load("reviews").with_sizes(train=8, select=12, test=20)
    result = autoprompt.optimize(
        task, "toy", 12 * 8, strategy=Evolution(population=4, objectives=("score", "perplexity"))
    )
    assert "toy" in result.findings["unread"]
    assert result.status in ("budget", "complete")
    assert len({trial.key for trial in result.trials if trial.complete}) > 5


def play(
    strategy: Strategy, space: SearchSpace, worth: Callable[[Prompt], float], rounds: int = 30, **changes: Any
) -> list[Prompt]:
    """Every prompt that was asked about; an example is right by its place, as many as the worth says."""
    task = make_task()
    examples = task.select

    def answered(prompt: Prompt) -> Scored:
        right = np.clip(worth(prompt) * len(examples) - np.arange(len(examples)), 0, 1)
        return Scored(right, 1 - right, ("no",) * len(examples), float(len(prompt.text.split())))

    seed = task.seed_prompt
    setting = Setting(space, seed, answered(seed), task.train, examples, np.random.default_rng(0), 10_000)
    strategy.begin(dataclasses.replace(setting, **changes))
    asked: list[Prompt] = []
    for _ in range(rounds):
        asks = strategy.ask()
        if not asks:
            break
        answers: list[Answer] = []
        for ask in asks:
            assert isinstance(ask, Score)
            answers.append(answered(ask.prompt))
            asked.append(ask.prompt)
        strategy.tell(asks, answers)
    return asked


WANTED = "Judge the story, whether good or bad."


def nearness(prompt: Prompt) -> float:
    """Share of the wanted words that stand in the instruction, less a little for others."""
    words = prompt.choices.get("instruction", "").lower().split()
    wanted = WANTED.lower().split()
    return sum(word in words for word in wanted) / len(wanted) - 0.02 * sum(
        word not in wanted for word in words
    )


@pytest.mark.parametrize(
    "make", [lambda: Evolution(screen=4), HillClimb, Grips, lambda: HillClimb(heat=0.05)]
)
def test_edits_lead_to_texts_that_are_no_option(make: Callable[[], Strategy]) -> None:
    space = bind("[[ instruction ]] {{ text }} {{ answer }}", instruction=INSTRUCTION)
    asked = play(make(), space, nearness, rounds=40)
    options = [
        nearness(space.prompt_from({"instruction": text})) for text in space.slots["instruction"].texts()
    ]
    assert max(map(nearness, asked)) > max(options) + 0.1


def test_grips_moves_by_edits_alone_and_begins_again_where_it_began() -> None:
    space = rich()
    asked = play(Grips(), space, lambda prompt: 0.5, rounds=12)
    first = space.default().choices
    assert len(asked) > 20
    assert all({**each.choices, "instruction": ""} == {**first, "instruction": ""} for each in asked)


def test_what_the_model_expects_is_tried_in_place_of_words() -> None:
    task = make_task()
    space = bind(
        "[[ instruction ]] {{ text }} {{ answer }}", instruction={**INSTRUCTION, "edit": {"ops": ["replace"]}}
    )
    strategy = Evolution(population=4, batch=4, screen=1)
    words = ["judge", "the", "text", "verdict", "good"]

    class Words:
        """The least of a vocabulary that the strategy needs."""

        def allowed(self, policy: Any) -> Any:
            return np.array([word not in policy.answers for word in words])

        def text(self, ids: Sequence[int]) -> str:
            return words[ids[0]]

    seed = scored([1, 0, 0, 0], ["no"] * 4)
    setting = Setting(
        space,
        task.seed_prompt,
        seed,
        task.train,
        task.select,
        np.random.default_rng(0),
        None,
        cast(Any, Words()),
    )
    strategy.begin(setting)
    texts: list[str] = []
    fluencies = 0
    for _ in range(6):
        asks: Sequence[Ask] = strategy.ask()
        answers: list[Answer] = []
        for ask in asks:
            if isinstance(ask, Fluency):
                fluencies += 1
                assert ask.examples == task.train[:4]
                assert ask.prompt.text.endswith("{{ text }} {{ answer }}")
                answers.append(Fluent(1.0, {"words_1": (0, 1, 2)}, {"words_1": ((0,), (1,), (3, 4, 2))}))
            else:
                assert isinstance(ask, Score)
                texts.append(ask.prompt.choices["instruction"])
                answers.append(seed)
        strategy.tell(asks, answers)
    assert fluencies >= 1
    assert "Judge the verdict." in texts  # good is a label word and never stands in for another
    assert not any("good." in text and "Judge" in text for text in texts)


def test_distances_of_values() -> None:
    assert distance("a b c", "a b c") == 0
    assert distance("a b c", "a b d") == pytest.approx(0.5)
    assert distance(["x", "y"], ["y", "x"]) == 0.5
    assert distance(["x", "y"], ["x", "z"]) == pytest.approx(2 / 3)
    assert distance({"no": ["bad"], "yes": ["good"]}, {"no": ["bad"], "yes": ["great"]}) == 0.5
    assert distance("a", ["a"]) == 1


def test_the_surrogate_knows_what_was_not_measured() -> None:
    task = planted(seed=1, slots=4, options=4, interactions=0.5, n_examples=64)
    prompts = list(task.space.enumerate())
    order = np.random.default_rng(0).permutation(len(prompts))
    surrogate = Surrogate()
    for place in order[:60]:
        surrogate.add(prompts[place], task.accuracy(prompts[place]))
    rest = [prompts[place] for place in order[60:]]
    truth = np.array([task.accuracy(prompt) for prompt in rest])
    assert np.corrcoef(surrogate.posterior(rest)[0], truth)[0, 1] > 0.9
    mean, spread = surrogate.posterior(rest[:5])
    drawn = draws(mean, spread, 400, np.random.default_rng(0))
    assert drawn.mean(0) == pytest.approx(mean, abs=0.1)
    measured = draws(*surrogate.posterior([prompts[order[0]]]), 400, np.random.default_rng(0)).std()
    assert measured < drawn.std(0).min()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Evolution(method=cast(Any, "gas")), "did you mean 'ga'"),
        (lambda: Evolution(population=2), "population must be at least 4"),
        (lambda: Evolution(objectives=("tokens",)), "objectives are score"),
        (lambda: Evolution(read_with=0), "read_with must be at least 1"),
        (lambda: Evolution(crossing=2), "crossing must be between"),
        (lambda: HillClimb(candidates=0), "hill_climb: candidates must be at least 1"),
        (lambda: HillClimb(heat=-1), "must not be below 0"),
        (lambda: Grips(changes=("edits",)), "grips: changes are option, edit, demonstrations"),
    ],
)
def test_wrong_settings_are_refused(make: Callable[[], Strategy], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make()
