"""Label words: planted ones are found by both methods in every family, and the figures are what a user gets."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from autoprompt import probe, word_sets
from autoprompt.api import evaluate
from autoprompt.errors import DataError, InputError, LabelWordError, MissingCapability
from autoprompt.label_words import LETTERS, METHODS, LabelWordSearch, Method, find_label_words
from autoprompt.models import LabelSearchModel
from autoprompt.models.load import load_model
from autoprompt.probe import class_directions
from autoprompt.prompt import Prompt
from autoprompt.space import RandomChooser, SearchSpace
from autoprompt.task import Task
from autoprompt.word_sets import WordSets, label_options
from tests.models.tiny import make_model

FAMILIES = ["gpt2", "bert", "t5"]
PROMPT = "Review: {{ text }} It was {{ answer }}"
MANUAL = {"yes": ("good",), "no": ("bad",)}


@functools.cache
def texts() -> list[str]:
    parts = (
        ["The film", "A book", "It", "Paris"],
        ["was", "is"],
        ["great", "slow", "a cat", "loved", "really"],
    )
    ends = ["", " in the rain", ", overall"]
    return [f"{a} {b} {c}{d}." for a, b, c, d in itertools.product(*parts, ends)]  # 120


@functools.cache
def planted(architecture: str) -> tuple[Task, tuple[str, str]]:
    """A task whose labels say which of two hidden words a random model prefers, and these words."""
    model = load_model(make_model(architecture))
    assert isinstance(model, LabelSearchModel)
    rendered = [Prompt(PROMPT).render({"text": text}) for text in texts()]
    words = model.answer_place.words(rendered, "[a-zA-Z]+")
    names, ids = list(words), list(words.values())
    logs = model.answer_place.log_probs(rendered, range(len(rendered)))[:, ids]
    pairs = list(
        itertools.combinations([at for at in range(len(names)) if names[at] not in ("good", "bad")], 2)
    )
    share = [abs((logs[:, one] > logs[:, other]).mean() - 0.5) for one, other in pairs]
    one, other = pairs[int(np.argmin(share))]
    assert min(share) < 0.2
    labels = np.where(logs[:, one] > logs[:, other], "yes", "no")
    rows = [{"text": text, "label": str(label)} for text, label in zip(texts(), labels, strict=True)]
    task = Task.from_rows(
        rows, name="planted", prompt=PROMPT, words=MANUAL, split={"train": 48, "select": 36, "test": 36}
    )
    return task, (names[one], names[other])


def search(architecture: str, method: Method = "likelihood", **options: Any) -> LabelWordSearch:
    options.setdefault("matching", "[a-zA-Z]+")  # the tiny vocabularies hold few words of two letters
    return find_label_words(planted(architecture)[0], make_model(architecture), method=method, **options)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("architecture", FAMILIES)
def test_planted_words_are_matched(architecture: str, method: Method) -> None:
    task, hidden = planted(architecture)
    model = make_model(architecture)
    reached = evaluate(task, model, Prompt(PROMPT, {"yes": hidden[:1], "no": hidden[1:]}), split="select")
    assert reached.estimate.value == 1.0  # the hidden words are right everywhere by construction
    found = search(architecture, method, candidates=200, keep=6)
    assert found.manual is not None
    assert found.manual.score < 0.85
    assert found.ranked[0].train_score == 1.0  # as the hidden words reach
    assert found.ranked[0].score >= 0.94
    assert evaluate(task, model, found.best).estimate.value >= 0.88
    assert len(found.ranked) == 6


@pytest.mark.parametrize("calibrate", [False, True])
@pytest.mark.parametrize("per_label", [1, 2])
def test_figures_are_what_a_user_gets(per_label: int, calibrate: bool) -> None:
    task = dataclasses.replace(planted("gpt2")[0], calibrate=calibrate)
    model = make_model("gpt2")
    found = find_label_words(task, model, per_label=per_label, candidates=8, keep=3)
    assert [each.score for each in found.ranked] == sorted(
        (each.score for each in found.ranked), reverse=True
    )
    assert found.manual is not None
    for each in (*found.ranked, found.manual):
        for split, score, loss in (
            ("train", each.train_score, each.train_loss),
            ("select", each.score, each.loss),
        ):
            checked = evaluate(task, model, Prompt(PROMPT, each.words), split=split)
            assert checked.estimate.value == pytest.approx(score)
            assert checked.scored.loss == pytest.approx(loss, abs=1e-4)
    # the manual words on train and select, three candidates on select, train twice (calibration: one text more)
    blank = 1 if calibrate else 0
    assert found.calls == 48 + (48 + blank) + (48 + blank + 36 + 3 * 36 + (4 - 1) * blank)


@pytest.mark.parametrize("per_label", [1, 3])
def test_no_word_stands_twice_whatever_its_case(per_label: int) -> None:
    found = search("gpt2", per_label=per_label, candidates=9, keep=20)
    assert len(found.ranked) == 20
    for each in found.ranked:
        words = [word.casefold() for words in each.words.values() for word in words]
        assert len(set(words)) == len(words) == 2 * per_label
    assert len({tuple(each.words.values()) for each in found.ranked}) == 20


def test_words_are_restricted() -> None:
    plain = search("bert", candidates=10, keep=4, matching=LETTERS)
    used = {word for each in plain.ranked for words in each.words.values() for word in words}
    assert all(word.isalpha() and len(word) > 1 for word in used)
    other = search("bert", candidates=10, keep=4, matching=LETTERS, ban=[word.upper() for word in used])
    assert not used & {word for each in other.ranked for words in each.words.values() for word in words}
    short = search("bert", candidates=10, keep=4, matching="[a-m]+")
    assert all(set(word) <= set("abcdefghijklm") for each in short.ranked for (word,) in each.words.values())


def test_the_same_call_finds_the_same() -> None:
    assert search("t5", candidates=8, keep=3) == search("t5", candidates=8, keep=3)


def test_the_slot_is_drawn_from_a_search_space() -> None:
    found = search("gpt2", per_label=2, candidates=8, keep=3)
    slot = found.slot()
    assert slot["tied"] is True
    assert slot["map"]["yes"][0] == "good"
    assert [len(column) for column in slot["map"].values()] == [4, 4]
    assert len(found.slot(2)["map"]["no"]) == 2
    space = SearchSpace.from_dict({"template": PROMPT, "slots": {"words": slot}})
    bound = space.bind(planted("gpt2")[0], answer_at_end=True)
    assert bound.default().words == MANUAL
    drawn = [bound.draw(RandomChooser(np.random.default_rng(seed))) for seed in range(30)]
    words = {tuple(prompt.words.items()) for prompt in drawn if prompt is not None}
    assert words == {tuple(each.items()) for each in (MANUAL, *(each.words for each in found.ranked))}


def test_the_table_shows_every_row_and_the_manual_words() -> None:
    found = search("gpt2", candidates=6, keep=2)
    lines = found.text().splitlines()
    assert lines[0].startswith("label words for planted with")
    assert f"{found.calls:,} calls" in lines[0]
    assert len(lines) == 2 + 2 + 1
    assert "/".join(found.ranked[0].words["no"]) in lines[2]
    assert lines[-1].split()[:3] == ["manual", *(words[0] for words in found.prompt.words.values())]


def test_manual_words_that_cannot_be_scored_are_no_obstacle() -> None:
    task = dataclasses.replace(planted("bert")[0], words={"yes": ("marvellous",), "no": ("bad",)})
    found = find_label_words(task, make_model("bert"), candidates=8, keep=3)
    assert found.manual is None
    assert found.best.words == found.ranked[0].words
    assert "marvellous" not in found.slot()["map"]["yes"]
    assert found.text().splitlines()[-1].split() == ["manual", "marvellous", "bad", "-", "-", "-", "-"]


def test_another_prompt_can_be_given() -> None:
    other = "{{ text }}\nSentiment: {{ answer }}"
    found = search("gpt2", candidates=6, keep=2, prompt=other)
    assert found.prompt.text == other
    assert found.best.text == other
    assert found.prompt.words == MANUAL


def test_wrong_calls_teach() -> None:
    task, model = planted("gpt2")[0], make_model("gpt2")
    with pytest.raises(MissingCapability, match="output layer"):
        find_label_words(task, "toy")
    with pytest.raises(InputError, match="did you mean 'states'"):
        find_label_words(task, model, method="state")  # type: ignore[arg-type]
    for name in ("per_label", "candidates", "keep"):
        with pytest.raises(InputError, match=f"{name}: must be a whole number"):
            find_label_words(task, model, **{name: 0})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="seed"):
        find_label_words(task, model, seed=-1)
    with pytest.raises(InputError, match="at least per_label=3"):
        find_label_words(task, model, per_label=3, candidates=2)
    with pytest.raises(LabelWordError, match="loosen matching"):
        find_label_words(task, model, matching="xyzzy")
    with pytest.raises(InputError, match="stands in the middle"):
        find_label_words(task, model, prompt="{{ answer }} {{ text }}")
    three = dataclasses.replace(task, labels=("yes", "no", "maybe"), words={**MANUAL, "maybe": ("it",)})
    with pytest.raises(DataError, match="no example of maybe"):
        find_label_words(three, model)
    said = Task.from_rows([{"text": f"t{i}", "target": "a"} for i in range(30)], kind="generation")
    with pytest.raises(InputError, match="only classification"):
        find_label_words(said, model)


def random_sets(labels: int, options: int, seed: int = 0) -> WordSets:
    rng = np.random.default_rng(seed)
    words = [[(f"w{at}",) for at in rng.permutation(2 * options)[:options]] for _ in range(labels)]
    targets = np.arange(30) % labels
    return WordSets(words, [rng.normal(size=(options, 30)) for _ in range(labels)], targets, balanced=False)


def test_changing_one_label_at_a_time_finds_what_trying_all_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = random_sets(3, 8).best(5, np.random.default_rng(0))
    monkeypatch.setattr(word_sets, "_AT_ONCE", 100)  # and in blocks
    monkeypatch.setattr(word_sets, "_PICKS", 7)
    assert random_sets(3, 8).best(5, np.random.default_rng(0)) == exact
    monkeypatch.setattr(word_sets, "_WORK", 0)
    monkeypatch.setattr(word_sets, "_STARTS", 20)
    assert random_sets(3, 8).best(5, np.random.default_rng(0))[0] == exact[0]


def test_combinations_are_judged_as_grades_are() -> None:
    worth = [np.log([[0.7, 0.2, 0.6], [0.1, 0.1, 0.1]]), np.log([[0.3, 0.4, 0.8], [0.2, 0.9, 0.3]])]
    targets = np.array([0, 1, 0])
    sets = WordSets([[("a",), ("b",)], [("c",), ("A",)]], worth, targets, balanced=False)
    guesses, losses = sets.answers((0, 0))
    assert guesses.tolist() == [0, 1, 1]
    assert losses == pytest.approx(-np.log([0.7, 0.4 / 0.6, 0.6 / 1.4]))
    assert sets.words((1, 0), ["x", "y"]) == {"x": ("b",), "y": ("c",)}
    # (a, A) would be right everywhere, but is one word for both labels
    assert sets.best(9, np.random.default_rng(0)) == [(0, 0), (1, 1), (1, 0)]
    with pytest.raises(LabelWordError, match="same few words"):
        WordSets([[("a",)], [("A",)]], [worth[0][:1]] * 2, targets, balanced=True).best(
            1, np.random.default_rng(0)
        )


def test_every_label_counts_alike_where_the_metric_says_so() -> None:
    """Nine of one label and one of the other: saying the first always is worth 0.9 or 0.5."""
    targets = np.array([0] * 9 + [1])
    always = np.stack([np.full(10, 9.0), np.linspace(4, -4, 10)])
    other = np.stack([np.full(10, 0.0), np.full(10, 1.0)])
    words = [[("a",), ("b",)], [("c",), ("d",)]]
    plain = WordSets(words, [always, other], targets, balanced=False).best(1, np.random.default_rng(0))
    even = WordSets(words, [always, other], targets, balanced=True).best(1, np.random.default_rng(0))
    assert plain[0][0] == 0
    assert even[0][0] == 1


def test_options_stay_few() -> None:
    words = [f"w{at}" for at in range(60)]
    assert len(label_options(words, 1)) == 60
    assert len(label_options(words, 4)) <= 2000
    assert ("w0", "w1", "w2", "w3") in label_options(words, 4)
    assert label_options(["Good", "good", "fine"], 2) == [("Good", "fine"), ("good", "fine")]


def test_the_classifier_is_a_logistic_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    targets = np.arange(90) % 3
    states = rng.normal(size=(90, 6)) * [1, 5, 0.1, 1, 1, 0] + np.eye(3, 6)[targets] * 0.7 + 3
    states[:, 5] = 2.0  # a constant says nothing
    monkeypatch.setattr(probe, "PENALTIES", (0.1,))
    directions = class_directions(states, targets)
    spread = np.where(states.std(axis=0) > 0, states.std(axis=0), 1)
    theirs = linear.LogisticRegression(C=1 / 9, tol=1e-8).fit(
        (states - states.mean(axis=0)) / spread, targets
    )
    assert np.allclose(directions, theirs.coef_ / spread, atol=1e-3)
    assert (directions[:, 5] == 0).all()


@pytest.mark.parametrize("loose", [True, False])
def test_the_penalty_is_chosen_by_what_was_left_out(loose: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many dimensions that say a little each want a tight fit; noise that all share wants a loose one, which
    takes it away.
    """

    def draw(rng: np.random.Generator, targets: NDArray[np.int64]) -> NDArray[np.float64]:
        size = (len(targets), 60)
        if not loose:
            return rng.normal(size=size) + 0.35 * targets[:, None]
        states = rng.normal(size=(len(targets), 1)) + 0.3 * rng.normal(size=size)
        states[:, 7] += 1.5 * targets
        return states

    reached: dict[tuple[float, ...], float] = dict.fromkeys([(each,) for each in probe.PENALTIES], 0.0)
    reached[probe.PENALTIES] = 0.0
    targets, truth = np.arange(60) % 2, np.arange(600) % 2
    for seed in range(4):
        rng = np.random.default_rng(seed)
        states, fresh = draw(rng, targets), draw(rng, truth)
        for penalties in reached:
            monkeypatch.setattr(probe, "PENALTIES", penalties)
            directions = class_directions(states, targets)
            guesses = ((fresh - states.mean(axis=0)) @ directions.T).argmax(axis=1)
            reached[penalties] += float((guesses == truth).mean()) / 4
    *fixed, chosen = reached.values()
    assert (fixed[0] < fixed[-1]) is loose
    assert chosen > max(fixed) - (max(fixed) - min(fixed)) / 3


@pytest.mark.parametrize(("name", "method"), [("masked", "likelihood"), ("causal", "states")])
def test_the_bundled_models_find_words_for_reviews(name: str, method: Method) -> None:
    task = Task.load("reviews").with_sizes(train=40, select=60, test=150)
    found = find_label_words(task, f"bundled:{name}", method=method, candidates=30, keep=4)
    assert found.manual is not None
    assert found.ranked[0].score >= found.manual.score - 0.02
    assert evaluate(task, f"bundled:{name}", found.best).estimate.value > 0.65
