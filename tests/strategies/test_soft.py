"""The training of rows as a strategy: what it asks, where it begins, and what it makes of the answers."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from autoprompt.asks import Answer, Ask, Score, Scored, Tune, Tuned
from autoprompt.errors import InputError, UnknownName
from autoprompt.prompt import Prompt
from autoprompt.soft import SoftRows, Training
from autoprompt.space import SearchSpace
from autoprompt.strategies import Setting
from autoprompt.strategies.soft import MOST, STEPS, Soft
from tests.asking import TASK, load, space_of

MODEL = load("gpt2")
TWO = "[[ u ]] {{ text }} [[ t ]] It was {{ answer }}"
SELECT = len(TASK.select)


@dataclass
class World:
    """Answers questions without a model: rows move by one a step, and ``losses`` say what they are worth by their sum of
    steps. ``fails``: trainings that fail at this step.
    """

    loss: Callable[[int], float] = lambda step: 1 / (1 + step)
    fails: Mapping[int, int] = field(default_factory=dict)
    asked: list[Ask] = field(default_factory=list)
    calls: int = 0

    def answer(self, ask: Ask) -> Answer:
        self.asked.append(ask)
        if isinstance(ask, Tune):
            self.calls += 3 * len(ask.examples)
            steps = len(ask.batches)
            number = int(ask.note.split()[1])
            if self.fails.get(number, 1000) < ask.done + steps:
                return Tuned({}, {}, (), b"", f"training {number} failed (lr {ask.training.lr}; lower it)")
            assert ask.state == (b"" if not ask.done else str(ask.done).encode())
            rows = {name: SoftRows(each.values + steps) for name, each in ask.prompt.soft.items()}
            ids = {name: (300,) * len(each) for name, each in rows.items()} if ask.training.discrete else {}
            return Tuned(rows, ids, (1.0,) * steps, str(ask.done + steps).encode())
        assert isinstance(ask, Score)
        self.calls += len(ask.examples)
        step = int(ask.note.split()[1]) if ask.note.startswith("step") else -1
        loss = self.loss(step) if step >= 0 else 5.0
        n = len(ask.examples)
        return Scored(np.full(n, 0.5), np.full(n, loss), ("good",) * n, 5.0)

    def play(self, strategy: Soft, setting: Setting) -> World:
        strategy.begin(setting)
        while asks := strategy.ask():
            strategy.tell(asks, [self.answer(ask) for ask in asks])
        return self

    def of(self, kind: type[Any], note: str = "") -> list[Any]:
        return [ask for ask in self.asked if isinstance(ask, kind) and ask.note.startswith(note)]


def setting_of(
    space: SearchSpace | None = None, calls: int | None = None, seed: int = 0, **changes: Any
) -> Setting:
    scored = Scored(np.zeros(SELECT), np.ones(SELECT), ("bad",) * SELECT, 5.0)
    setting = Setting(
        space or space_of(), TASK.seed_prompt, scored, TASK.train, TASK.select, np.random.default_rng(seed), calls,
        MODEL.vocabulary,
    )  # fmt: skip
    return dataclasses.replace(setting, **changes)


def away_from(best: int, step: int) -> float:
    return 1.0 + abs(step - best)


def rows_of(values: Any) -> SoftRows:
    return SoftRows(np.asarray(values, np.float32))


def first_prompt(strategy: Soft, space: SearchSpace | None = None) -> Prompt:
    """What the first training begins at."""
    strategy.begin(setting_of(space))
    prompt: Prompt = strategy.ask()[0].prompt
    return prompt


def read(prompt: Prompt) -> Mapping[str, tuple[int, ...]]:
    (found,) = MODEL.vocabulary.read([prompt.hardened().render(TASK.train[0].fields, with_slots=True)])
    assert found is not None
    return found


# Questions.


def test_trainings_run_side_by_side_and_are_measured_between() -> None:
    world = World().play(Soft(steps=7, batch=3, seeds=2, every=3), setting_of())
    notes = [ask.note for ask in world.asked]
    assert notes[:14] == [
        *("step 0", "step 0", "train 0", "train 1", "step 3", "step 3"),
        *("train 0", "train 1", "step 6", "step 6", "train 0", "train 1", "step 7", "step 7"),
    ]
    assert set(notes[14:]) == {"in words"}
    for number in range(2):
        tunes = [ask for ask in world.of(Tune) if ask.note == f"train {number}"]
        assert [(ask.done, len(ask.batches)) for ask in tunes] == [(0, 3), (3, 3), (6, 1)]
        seed = tunes[0].training.seed  # drawn once a run
        assert seed == world.of(Tune)[0].training.seed + number
        assert {ask.training for ask in tunes} == {Training(steps=7, schedule="cosine", seed=seed)}
        batches = [batch for ask in tunes for batch in ask.batches]
        assert {len(batch) for batch in batches} == {3}
        flat = [example.id for batch in batches for example in batch]
        for start in (0, len(TASK.train)):  # each example once before any comes again
            assert len(set(flat[start : start + len(TASK.train)])) == len(
                flat[start : start + len(TASK.train)]
            )
    one, other = ([ask.batches for ask in world.of(Tune, f"train {number}")] for number in range(2))
    assert one != other
    for asks in (world.of(Score, "step"), world.of(Score, "in words")):
        assert all(ask.examples == TASK.select for ask in asks)
        assert all(ask.beside == (ask.note == "step 0") for ask in asks)
    assert not any(ask.prompt.soft for ask in world.of(Score, "in words"))


def test_the_best_iterate_is_put_into_words_and_not_the_last() -> None:
    found = []
    for best in (4, 8):
        strategy = Soft(steps=8, seeds=1, every=2)
        world = World(loss=functools.partial(away_from, best)).play(strategy, setting_of())
        (rows,) = (ask.prompt.soft["t"].values for ask in world.of(Score, f"step {best}"))
        ids, _ = MODEL.vocabulary.nearest(rows, strategy._board.allowed["t"], 1, "cosine")
        words = [read(ask.prompt)["t"] for ask in world.of(Score, "in words")]
        found.append(tuple(ids[:, 0]) in words)
        assert world.of(Tune)[-1].done == 6
    assert any(found)  # nearest tokens may not be read back


def test_patience_ends_what_gets_no_better() -> None:
    worse = World(loss=float).play(Soft(steps=20, seeds=2, every=2, patience=2), setting_of())
    assert [ask.note for ask in worse.of(Score, "step")][
        -1
    ] == "step 6"  # the first iterate is what others must beat
    better = World().play(Soft(steps=20, seeds=2, every=2, patience=2), setting_of())
    assert [ask.note for ask in better.of(Score, "step")][-1] == "step 20"
    assert worse.of(Score, "in words")


def test_a_training_that_fails_ends_alone_and_is_told() -> None:
    strategy = Soft(steps=8, seeds=3, every=2)
    assert not strategy.findings
    world = World(fails={1: 3}).play(strategy, setting_of())
    ends = [max(ask.done for ask in world.of(Tune, f"train {number}")) for number in range(3)]
    assert ends == [6, 2, 6]
    assert strategy.findings["stopped"] == ["training 1 failed (lr 0.5; lower it)"]
    assert strategy.findings["report"] == "stopped   training 1 failed (lr 0.5; lower it)"
    all_failed = World(fails=dict.fromkeys(range(3), 1)).play(strategy, setting_of())
    assert len(strategy.findings["stopped"]) == 3
    assert all_failed.of(Score, "in words")  # of where they began
    World().play(strategy, setting_of())
    assert not strategy.findings
    json.dumps(strategy.findings)


@pytest.mark.parametrize("every", [1, 4, 10])
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("calls", [60, 173, 500, 2_000])
def test_as_many_steps_as_the_budget_pays_for(calls: int, seeds: int, every: int) -> None:
    """Most of it is spent, none too much, and the words at the end are paid for."""
    if calls < seeds * (3 * 4 + 2 * SELECT) + 2 * SELECT:
        pytest.skip("pays for less than a step")
    world = World().play(Soft(batch=4, seeds=seeds, every=every), setting_of(calls=calls))
    unspent = (2 - len(world.of(Score, "in words"))) * SELECT
    assert unspent <= 2 * SELECT
    assert calls - seeds * (3 * 4 + SELECT) - seeds < world.calls + unspent <= calls


def test_other_budgets_and_great_ones() -> None:
    assert World().play(Soft(every=100, seeds=1), setting_of()).of(Tune)[0].training.steps == STEPS
    many = World().play(Soft(every=500, seeds=1, batch=1), setting_of(calls=10**7))
    assert many.of(Tune)[0].training.steps == MOST
    few = World().play(Soft(), setting_of(calls=20))
    assert few.of(Tune)[0].training.steps == 1


def test_a_round_cut_short_is_the_end() -> None:
    strategy = Soft(steps=4, seeds=2, every=2)
    strategy.begin(setting_of())
    world = World()
    for _ in range(2):
        asks = strategy.ask()
        strategy.tell(asks, [world.answer(ask) for ask in asks])
    assert not strategy.findings
    asks = strategy.ask()
    strategy.tell(asks, [world.answer(asks[0])])
    assert not strategy.ask()
    assert not strategy.findings  # some steps were made


def test_it_is_told_where_not_a_step_was_paid_for() -> None:
    strategy = Soft(steps=4, seeds=2, every=2)
    for rounds, answered in ((0, 1), (1, 0), (1, 1)):
        strategy.begin(setting_of())
        world = World()
        for _ in range(rounds):
            strategy.tell(strategy.ask(), [world.answer(ask) for ask in strategy.ask()])
        asks = strategy.ask()
        strategy.tell(asks, [world.answer(ask) for ask in asks[:answered]])
        assert not strategy.ask()
        assert "does not pay for a step" in strategy.findings["report"]


def test_the_same_setting_and_answers_give_the_same_questions() -> None:
    strategy = Soft(steps=4, every=2)
    runs = [
        World().play(each, setting_of(seed=5)).asked for each in (strategy, strategy, Soft(steps=4, every=2))
    ]
    assert runs[0] == runs[1] == runs[2]
    assert World().play(strategy, setting_of(seed=6)).asked != runs[0]


@pytest.mark.parametrize("method", ["pez", "temperature"])
def test_methods_that_end_in_tokens_are_measured_in_tokens(method: Any) -> None:
    world = World().play(Soft(steps=4, every=2, seeds=1, method=method), setting_of())
    assert not any(ask.prompt.soft for ask in world.of(Score))
    assert not world.of(Score, "in words")
    assert all(set(dict(ask.policies)) == {"t"} for ask in world.of(Tune))
    (shown,) = world.of(Score, "step 2")
    assert shown.prompt.slots["t"] == MODEL.vocabulary.text((300, 300))


def test_without_train_examples_select_is_trained_on() -> None:
    world = World().play(Soft(steps=1, seeds=1, batch=100), setting_of(train=()))
    assert sorted(each.id for each in world.of(Tune)[0].examples) == sorted(each.id for each in TASK.select)


# Starts.


def test_a_text_is_begun_at_exactly() -> None:
    prompt = first_prompt(Soft(start="the film was good"))
    assert prompt.slots["t"] == "the film was good"
    ids = read(prompt)["t"]
    np.testing.assert_array_equal(prompt.soft["t"].values, MODEL.vocabulary.rows(ids))
    from_slot = first_prompt(Soft(), space_of(init="people loved"))
    assert from_slot.slots["t"] == "people loved"
    np.testing.assert_array_equal(from_slot.soft["t"].values, MODEL.vocabulary.rows(read(from_slot)["t"]))
    assert first_prompt(Soft(init="vocabulary"), space_of(init="people loved")).slots["t"] != "people loved"


def test_a_prompt_is_begun_at_with_all_its_slots() -> None:
    space = space_of(template=TWO)
    given = space.prompt_from({"t": "good people", "u": "the slow dog"})
    prompt = first_prompt(Soft(start=given), space)
    assert prompt.hardened() == given
    for name, ids in read(prompt).items():
        np.testing.assert_array_equal(prompt.soft[name].values, MODEL.vocabulary.rows(ids))
    rows = rows_of(np.ones((2, 32)))
    half = first_prompt(
        Soft(start=given.softened({"u": rows_of(np.ones((len(read(given)["u"]), 32)))})), space
    )
    assert (half.soft["u"].values == 1).all()
    np.testing.assert_array_equal(half.soft["t"].values, prompt.soft["t"].values)
    by_name = first_prompt(Soft(start={"u": rows}), space)
    assert by_name.soft["u"] == rows
    assert len(read(by_name)["u"]) == 2
    assert rows in first_prompt(Soft(start=rows), space).soft.values()


@pytest.mark.parametrize("length", [1, 2, 6])
def test_rows_of_any_number_are_begun_at(length: int) -> None:
    rows = rows_of(np.random.default_rng(0).normal(size=(length, 32)))
    prompt = first_prompt(Soft(start=rows))
    assert prompt.soft["t"] == rows
    assert len(read(prompt)["t"]) == length


def test_the_length_and_what_becomes_of_the_rest() -> None:
    start = "the film was good"
    ids = read(first_prompt(Soft(start=start)))["t"]
    longer = read(first_prompt(Soft(start=start, length=len(ids) + 3)))["t"]
    assert longer[: len(ids)] == ids
    assert len(longer) == len(ids) + 3
    assert read(first_prompt(Soft(start=start, length=2, rest="cut")))["t"] == ids[:2]
    for length, rest, hint in (
        (2, "vocabulary", "rest='cut'"),
        (2, "error", "fills up"),
        (9, "error", "fills up"),
    ):
        with pytest.raises(InputError, match=f"{len(ids)} tokens.* {length} rows") as caught:
            first_prompt(Soft(start=start, length=length, rest=rest))  # type: ignore[arg-type]
        assert hint in caught.value.hint


def test_rows_begin_as_init_says() -> None:
    vocabulary: Any = MODEL.vocabulary
    space = space_of(n=8)
    drawn = first_prompt(Soft(), space)
    np.testing.assert_array_equal(drawn.soft["t"].values, vocabulary.rows(read(drawn)["t"]))
    anywhere = first_prompt(Soft(init="random"), space).soft["t"].values
    assert anywhere.std() == pytest.approx(vocabulary.unit, rel=0.2)
    assert np.abs(anywhere.mean()) < vocabulary.unit / 4
    labels = first_prompt(Soft(init="labels"), space)
    words = [word for words in TASK.words.values() for word in words]
    for at, word in enumerate(words):
        ids = read(space.prompt_from({"t": word}))["t"]
        np.testing.assert_allclose(labels.soft["t"].values[at], vocabulary.rows(ids).mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(
        labels.soft["t"].values[len(words) :], vocabulary.rows(read(labels)["t"])[len(words) :]
    )
    seeds = World().play(Soft(steps=1, seeds=3), setting_of(space)).of(Score, "step 0")
    assert len({ask.prompt.key for ask in seeds}) == 3


# What is wrong.


@pytest.mark.parametrize(
    ("settings", "error", "wanted"),
    [
        ({"batch": 0}, InputError, "batch must be at least 1"),
        ({"seeds": 0}, InputError, "seeds must be at least 1"),
        ({"every": 0}, InputError, "every must be at least 1"),
        ({"steps": 0}, InputError, "steps must be at least 1"),
        ({"length": 0}, InputError, "length must be at least 1"),
        ({"patience": -1}, InputError, "patience must be at least 0"),
        ({"lr": 0}, InputError, "lr .* above 0"),
        ({"init": "label"}, UnknownName, "did you mean 'labels'"),
        ({"rest": "cutt"}, UnknownName, "did you mean 'cut'"),
        ({"method": "promt"}, UnknownName, "did you mean 'prompt'"),
        ({"optimizer": "adam"}, UnknownName, "did you mean 'adamw'"),
        ({"schedule": "cos"}, UnknownName, "constant, linear, cosine"),
        ({"method": "pez", "trust": 0.5}, InputError, "method prompt only"),
    ],
)
def test_settings_that_are_wrong_are_refused(
    settings: dict[str, Any], error: type[Exception], wanted: str
) -> None:
    with pytest.raises(error, match=wanted):
        Soft(**settings)


@pytest.mark.parametrize(
    ("start", "wanted"),
    [
        ({"v": rows_of(np.ones((2, 32)))}, "no token slot 'v'"),
        (TASK.seed_prompt, "none of the token slots t"),
    ],
)
def test_starts_that_are_wrong_are_refused(start: Any, wanted: str) -> None:
    with pytest.raises(InputError, match=wanted):
        first_prompt(Soft(start=start))


def test_a_model_without_tokens_is_refused() -> None:
    with pytest.raises(InputError, match="no tokens"):
        Soft().begin(setting_of(vocabulary=None))


def test_what_it_is_can_be_written_down() -> None:
    rows = rows_of(np.ones((2, 32)))
    prompt = space_of().prompt_from({"t": "good people"})
    starts: Sequence[Any] = ("", "the film", rows, {"t": rows}, prompt, prompt.softened({"t": rows}))
    described = [json.dumps(Soft(start=start).describe()) for start in starts]
    assert len(set(described)) == len(starts)
    assert json.loads(described[0])["strategy"] == "soft"


def test_a_text_for_one_slot_leaves_the_others_their_own() -> None:
    space = space_of(template=TWO, init="people loved")
    assert sorted(first_prompt(Soft(), space).slots.values()) == ["people loved"] * 2
    assert sorted(first_prompt(Soft(start="the slow dog"), space).slots.values()) == [
        "people loved",
        "the slow dog",
    ]


def test_rows_replace_a_text_of_any_length() -> None:
    for length in (1, 7):
        rows = rows_of(np.ones((length, 32)))
        prompt = first_prompt(Soft(start=rows), space_of(init="the film was good"))
        assert prompt.soft["t"] == rows
        assert len(read(prompt)["t"]) == length


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (np.zeros((3, 32)), "got ndarray"),
        ({"t": "good people"}, "got str"),
        (3, "got int"),
        (None, "got NoneType"),
    ],
)
def test_a_start_of_another_kind_is_refused(start: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"soft: start must be a text, a prompt, rows .*{said}") as caught:
        Soft(start=start)
    assert "result.candidate" in caught.value.hint
