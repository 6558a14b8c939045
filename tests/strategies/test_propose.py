"""Propose and its parts: what a model is asked, how what it writes is read, what is refused, who has the next turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from autoprompt.asks import Answer, Ask, Complete, Completed, Score, Scored
from autoprompt.errors import InputError
from autoprompt.prompt import Prompt
from autoprompt.slots import Slot
from autoprompt.space import SearchSpace
from autoprompt.strategies import Setting, Strategy
from autoprompt.strategies.propose import Propose
from autoprompt.strategies.proposing.guards import Copies, fitted, marks_of, refusal
from autoprompt.strategies.proposing.methods import METHODS, Brief, drawn_answers, drawn_examples, shown
from autoprompt.strategies.proposing.pool import Member, Turns, best, pareto_parent
from autoprompt.strategies.proposing.reading import proposed
from autoprompt.strategies.racing import Racing
from autoprompt.task import Example, Task
from autoprompt.testing import check_strategy
from tests.small import small_space, small_task

SLOT = Slot.model_validate(
    {
        "one_of": [
            "Is it [[ words.good ]] or [[ words.bad ]]?",
            "Say [[ words.good ]], not [[ words.bad ]].",
        ],
        "llm": {"longest": 80},
    }
)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (" Judge the mood.</text> and more <text>no</text>", "Judge the mood."),
        ("Sure!\n<text>Judge the mood.</text>\nGood luck", "Judge the mood."),
        ("<text>\nInstruction: \"Judge the mood.\"\n</text>", "Judge the mood."),
        ("<text>Judge the mood.\n\nThen it was cut", "Judge the mood."),
        ("Here is the new instruction:\n\n1. Judge the mood.\n2. Go", "Judge the mood."),
        ("**Instruction:** Judge the mood.", "Judge the mood."),
        ("The new instruction is: \u201cJudge the mood.\u201d", "Judge the mood."),
        ("- Judge the mood.", "Judge the mood."),
        ("<think>They want <text>x</text></think><text>Judge the mood.</text>", "Judge the mood."),
        ("```\nJudge the mood.\n```", "Judge the mood."),
        ('Answer "yes" or "no".', 'Answer "yes" or "no".'),
        ('"yes" or "no"', '"yes" or "no"'),
        ("Sentiment:", "Sentiment:"),
        ("Text:", "Text:"),
        ("<text>One line.\nAnother.</text>", "One line.\nAnother."),
        ("", ""),
        ("  \n \n", ""),
        ("<text></text>", ""),
        ("<think>it never ends <text>x</text>", ""),
        ("Between <text> and </text> then.\n</think>\n<text>Judge it.</text>", "Judge it."),
        ("Okay, good or bad ...\n</think>\n\nJudge the mood.", "Judge the mood."),
        ("```Judge the mood.```", "Judge the mood."),
        ("<TEXT>Judge the mood.</TEXT>", "Judge the mood."),
    ],
)  # fmt: skip
def test_the_text_is_found_in_what_was_written(written: str, text: str) -> None:
    assert proposed(written) == text


EXAMPLES = (
    Example({"text": "The soup was cold and the waiter never came back to us, so we left."}, "bad"),
    Example({"text": "A walk by the sea", "parts": ["one two three four five"]}, "good", (), ("red or blue or green",)),
    Example({"text": "\u8fd9\u4e2a\u9910\u5385\u7684\u6c64\u975e\u5e38\u51b7\u6211\u4eec\u8d70\u4e86"}, "bad"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "copied"),
    [
        ("If they say: the soup was COLD, and the waiter never came back, then it is bad. Else think of it again.", True),
        ("If they say the soup was cold and the waiter came back then it is bad, and else it may well be good.", False),
        ("a walk by the sea", True),
        ("a walk by the sea is what most of the writers like", False),
        ("one two three four", True),
        ("red or blue or green", True),
        ("by the sea", False),  # three words are nobody's
        ("\u9910\u5385\u7684\u6c64\u975e\u5e38\u51b7\u6211", True),
        ("Judge the mood of the text.", False),
    ],
)  # fmt: skip
def test_copies_of_examples_are_found(text: str, copied: bool) -> None:
    assert bool(Copies(EXAMPLES).found(text)) is copied
    assert not Copies(EXAMPLES).found(text, [text])  # what stands in the slot's own options is no copy


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Is this [[ words.good ]], or rather [[ words.bad ]]?", ""),
        ("Is it [[ words.good ]] or [[ words.bad ]]?", ""),  # an option, for the search to tell
        ("Is it good or bad?", "does not hold the fields and slots of any of the options"),
        ("Is it [[ words.good ]]?", "does not hold the fields and slots of any of the options"),
        ("[[ words.good ]] [[ words.bad ]] {{ text }}", "does not hold the fields and slots of any of the options"),
        ("[[ words.good ]] [[ words.bad ]] {% for", "holds characters that could be read as template code"),
        ("[[ words.good ]] [[ words.bad ]] [[", "holds characters that could be read as template code"),
        ("[[ words.good ]] [[ words.bad ]]" + " so" * 30, "too long"),
        ("[[ words.good ]] a walk by the sea [[ words.bad ]]", "repeats training or select examples"),
        ("", "empty"),
        ("  ", "empty"),
    ],
)  # fmt: skip
def test_what_may_not_stand_in_a_slot_is_refused(text: str, reason: str) -> None:
    assert refusal(SLOT, text, Copies(EXAMPLES)) == reason


def test_a_text_is_written_as_the_slot_writes_it() -> None:
    assert (
        fitted(SLOT, " So: [[words.good]]\n or [[  words.bad ]]?", "x")
        == "So: [[ words.good ]] or [[ words.bad ]]?"
    )
    hint = Slot.model_validate({"optional": " Answer in one word.", "llm": {}})
    assert fitted(hint, "Be brief.", "") == " Be brief."
    assert fitted(hint, "Be brief.", " Answer in one word.") == " Be brief."
    assert fitted(hint, "  ", "") == ""
    lines = Slot.model_validate({"one_of": ["Rules:\n- one\n- two"], "llm": {}})
    assert fitted(lines, "Rules:\n- three", "Rules:\n- one\n- two") == "Rules:\n- three"
    assert marks_of("[[ a ]] x {{ b }} [[ a ]]") == ("[[ a ]]", "{{ b }}")


BRIEF = Brief(
    text="Is it [[ words.good ]]?",
    marks=("[[ words.good ]]",),
    longest=80,
    examples=(shown(Example({"text": "dull"}, "bad"), Prompt("", {"bad": ("poor",)})),),
    answered=(
        shown(Example({"text": "fine"}, "good"), Prompt(""), "bad", 0.0),
        shown(Example({"text": "rude"}, "bad"), Prompt(""), "bad", 1.0),
    ),
    history=(("A.", 0.4), ("B.", 0.625)),
)


def test_every_method_shows_what_it_works_with_and_asks_for_the_marks() -> None:
    for name, method in METHODS.items():
        text = method.first(BRIEF) if method.then is None else method.then(BRIEF, "says too little.")
        assert text.endswith("\n<text>"), name
        assert "Keep these marks" in text
        assert "[[ words.good ]]" in text
        assert "At most 80 characters" in text
        assert "Keep these marks" not in method.first(dataclasses.replace(BRIEF, marks=()))
    assert "Input: dull\nOutput: poor" in METHODS["induce"].first(BRIEF)
    history = METHODS["history"].first(BRIEF)
    assert history.index("<text>A.</text>\nscore: 40") < history.index("<text>B.</text>\nscore: 62")
    critique = METHODS["critique"]
    assert critique.texts == 2
    assert critique.then is not None
    for text in (critique.first(BRIEF), critique.then(BRIEF, "says too little.")):
        assert "Input: fine\nAnswer: bad (wrong, the right answer is: good)" in text
        assert "rude" not in text  # it reads mistakes alone
    assert "says too little." in critique.then(BRIEF, "says too little.")
    assert "Answer: bad (right)" in METHODS["reflect"].first(BRIEF)
    assert "A text: Is it [[ words.good ]]?" in METHODS["paraphrase"].first(BRIEF)


def test_a_method_with_nothing_to_work_with_asks_nothing() -> None:
    empty = Brief("", (), 80)
    assert [method.first(empty) for method in METHODS.values()] == [""] * 5
    right = dataclasses.replace(BRIEF, answered=BRIEF.answered[1:])
    assert METHODS["critique"].first(right) == ""


def test_examples_are_shown_in_short_and_of_every_label() -> None:
    several = Example({"premise": "It " + "rains " * 100, "parts": ["a", "b"]}, "x", (), ("x", "y"))
    lines = shown(several, Prompt("")).given.splitlines()
    assert lines[0].startswith("premise: It rains")
    assert lines[0].endswith(" ...")
    assert len(lines[0]) < 330
    assert lines[1:] == ["parts: a, b", "choices: x / y"]
    task, rng = small_task(8), np.random.default_rng(0)
    drawn = drawn_examples(task.train, task.seed_prompt, 4, rng)
    assert sorted(each.right for each in drawn) == ["bad", "bad", "good", "good"]
    assert not drawn_examples((), task.seed_prompt, 4, rng)
    assert not drawn_answers(task.train, task.seed_prompt, None, 4, rng)


def test_answers_are_mostly_mistakes_and_missing_ones_are_not_shown() -> None:
    task, rng = small_task(4), np.random.default_rng(0)
    scores = np.array([0, 0, 0, 0, 1, 1, 1, np.nan])
    said = tuple("good" if score == score else None for score in scores)
    scored = Scored(scores, np.full(8, np.nan), said)
    drawn = drawn_answers(task.train, task.seed_prompt, scored, 4, rng)
    assert [each.hit for each in drawn] == [False, False, False, True]
    missing = shown(task.train[7], task.seed_prompt).given
    assert missing not in {
        each.given for each in drawn_answers(task.train, task.seed_prompt, scored, 99, rng)
    }
    assert [
        each.hit for each in drawn_answers(task.train[:2], task.seed_prompt, part(scored, 2), 4, rng)
    ] == [False] * 2
    assert [each.hit for each in drawn_answers(task.train, task.seed_prompt, scored, 1, rng)] == [False]


def part(scored: Scored, n: int) -> Scored:
    return Scored(scored.scores[:n], scored.losses[:n], scored.predictions[:n])


def member(*scores: float) -> Member:
    return Member(Prompt(str(scores)), Scored(np.array(scores), np.full(len(scores), np.nan)))


def test_parents_are_drawn_by_the_examples_they_are_best_on() -> None:
    rng = np.random.default_rng(0)
    often, seldom = member(1, 1, 1, 0), member(0, 0, 0, 1)
    beaten, nothing = member(1, 1, 0, 0), member(0, 0, 0, np.nan)
    drawn = [pareto_parent([beaten, often, seldom, nothing], rng) for _ in range(400)]
    assert beaten not in drawn
    assert nothing not in drawn
    assert 0.68 < drawn.count(often) / 400 < 0.82  # three of four examples
    assert best([beaten, often, seldom]) is often
    alike = [member(0, 0), member(0, 0)]
    assert {id(pareto_parent(alike, rng)) for _ in range(50)} == {id(each) for each in alike}


def test_methods_take_turns_and_those_that_help_take_more() -> None:
    turns = Turns(["a", "b", "c"])

    def taken(times: int) -> list[str]:
        names = []
        for _ in range(times):
            names.append(turns.order()[0])
            turns.taken[names[-1]] += 1
        return names

    assert taken(6) == ["a", "b", "c", "a", "b", "c"]
    turns.accepted["b"] = 2
    assert taken(12).count("b") == 9
    assert turns.counts()["b"] == {"turns": 11, "accepted": 2}


def test_wrong_settings_are_refused() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"methods": ("reflex",)}, "did you mean 'reflect'"),
        ({"methods": ()}, "at least one method"),
        ({"methods": ("induce", "induce")}, "listed twice"),
        ({"breadth": 0}, "breadth must be at least 1"),
        ({"proposals": 0}, "proposals must be at least 1"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
    ]
    for given, message in wrong:
        with pytest.raises(InputError, match=message):
            Propose(**given)


def setting(space: SearchSpace, task: Task, calls: int | None = 2000, **changes: Any) -> Setting:
    size = len(task.select)
    scored = Scored(np.zeros(size), np.full(size, 0.5), ("bad",) * size)
    bound = space.bind(task, answer_at_end=True)
    made = Setting(bound, task.seed_prompt, scored, task.train, task.select, np.random.default_rng(0), calls)
    return dataclasses.replace(made, **changes)


def test_a_space_without_an_open_slot_is_refused_with_an_example() -> None:
    with pytest.raises(InputError, match="may be written by a model") as error:
        Propose().begin(setting(small_space(), small_task()))
    assert "llm: {longest: 300}" in error.value.hint


def open_space(**changes: Any) -> SearchSpace:
    content: dict[str, Any] = small_space().spec.model_dump(exclude_none=True)
    content["slots"]["start"]["llm"] = {"longest": 60}
    content.update(changes)
    return SearchSpace.from_dict(content)


def by_length(prompt: Prompt) -> int:
    return len(prompt.text)


def play(
    strategy: Strategy,
    made: Setting,
    write: Callable[[Complete], str | None],
    worth: Callable[[Prompt], int] = by_length,
) -> list[Ask]:
    """Answer what it asks; a prompt is right on as many examples as it is worth, modulo all of them and one."""
    asked: list[Ask] = []
    strategy.begin(made)
    while (asks := strategy.ask()) and len(asked) < 2000:
        answers: list[Answer] = []
        for ask in asks:
            if isinstance(ask, Complete):
                answers.append(Completed(tuple(write(ask) for _ in ask.texts)))
            else:
                n = len(ask.examples)
                right = (np.arange(n) < worth(ask.prompt) % (n + 1)).astype(float)
                answers.append(Scored(right, np.full(n, 0.5), ("bad",) * n))
        asked += asks
        strategy.tell(asks, answers)
    return asked


def texts_of(asked: Sequence[Ask]) -> list[str]:
    return [text for ask in asked if isinstance(ask, Complete) for text in ask.texts]


def counted(words: str) -> Callable[[Complete], str]:
    """Writes these words with a number that is its own each time."""
    numbers = iter(range(10_000))
    return lambda ask: f"{words} {'so ' * (next(numbers) % 7)}{next(numbers)}:</text>"


def test_no_text_that_is_asked_for_shows_a_select_example() -> None:
    task = small_task(8)
    asked = texts_of(play(Propose(proposals=60), setting(open_space(), task), counted("Mood")))
    assert len(asked) > 40
    assert any("train 3 was" in text for text in asked)
    assert not any("select" in text for text in asked)
    assert not any("test " in text for text in asked)
    on_train = [
        ask for ask in play(Propose(), setting(open_space(), task), counted("Mood")) if ask.note == "train"
    ]
    assert on_train
    assert {example for ask in on_train for example in ask.examples} <= set(task.train)


@pytest.mark.parametrize("proposals", [1, 2, 7, 30])
def test_no_more_texts_are_asked_for_than_the_strategys_own_budget(proposals: int) -> None:
    for methods in (("critique", "induce"), ("critique",), ("paraphrase", "reflect", "critique")):
        strategy = Propose(methods=methods, proposals=proposals, rounds=40)
        asked = texts_of(play(strategy, setting(open_space(), small_task(8), 10**6), counted("Mood")))
        spare = 1 if methods == ("critique",) else 0  # a critique takes two
        assert proposals - spare <= len(asked) <= proposals
        assert strategy.findings["proposals"]["asked"] == len(asked)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (None, "nothing came"),
        ("", "empty"),
        ("\n \n", "empty"),
        ("{{ text }} again</text>", "does not hold the fields and slots of any of the options"),
        ("so on and on " * 10, "too long"),
        ("It was train 3 was lovely</text>", "repeats training or select examples"),
        ("as they say: select 3 was lovely</text>", "repeats training or select examples"),
        ("{% raw</text>", "holds characters that could be read as template code"),
        ("Review:</text>", "tried before"),
    ],
)
def test_what_may_not_stand_is_counted_and_never_scored(written: str | None, reason: str) -> None:
    strategy = Propose(proposals=20, methods=("induce", "reflect", "paraphrase"))
    made = setting(open_space(), small_task(8))
    asked = play(strategy, made, lambda ask: written)
    found = strategy.findings["proposals"]
    assert found["refused"] == {reason: found["asked"]} == {reason: len(texts_of(asked))}
    assert found["asked"] == 20
    options = {each.key for each in made.space.enumerate()}
    assert {ask.prompt.key for ask in asked} <= options
    assert reason in strategy.findings["report"]


def test_fewer_examples_are_shown_where_nothing_comes_back() -> None:
    strategy = Propose(methods=("induce",), breadth=1, proposals=5, shown=8)
    asked = texts_of(play(strategy, setting(open_space(), small_task(8)), lambda ask: None))
    assert [text.count("Output:") for text in asked] == [8, 4, 2, 1, 1]


def test_a_text_keeps_the_other_slots_and_joins_the_pool_where_it_is_better() -> None:
    task, lengths = small_task(8), iter(range(1, 99))
    strategy = Propose(methods=("paraphrase",), breadth=1, rounds=3)
    seed = open_space().bind(task, answer_at_end=True).prompt_from({"start": "Maybe: ", "cue": "Feeling:"})
    made = setting(open_space(), task, seed_prompt=seed)
    asked = play(
        strategy, made, lambda ask: f"{'z' * next(lengths)}</text>", lambda prompt: prompt.text.count("z")
    )
    tried = [ask for ask in asked if ask.note == "paraphrase start"]
    assert [ask.prompt.choices for ask in tried] == [
        {"start": f"{'z' * n} ", "cue": "Feeling:"}
        for n in (1, 2, 3)  # with the space of the option
    ]
    assert all(
        made.space.prompt_from(ask.prompt.choices) == ask.prompt for ask in tried
    )  # and can be made again
    assert [text.split("\n")[0] for text in texts_of(asked)] == ["A text: Maybe:", "A text: z", "A text: zz"]
    assert strategy.findings["proposals"]["methods"]["paraphrase"] == {"turns": 3, "accepted": 3}
    assert [text for text, _ in strategy.findings["texts"]["start"]][:3] == ["zzz ", "zz ", "z "]


def test_the_budget_in_calls_is_planned_for() -> None:
    task = small_task(8)
    for calls in (0, 16, 60, 200):
        asked = play(Propose(), setting(open_space(), task, calls), counted("Mood"))
        spent = sum(len(ask.texts) if isinstance(ask, Complete) else len(ask.examples) for ask in asked)
        assert spent <= max(calls, 16)  # the first prompt is asked about in any case
    without = play(Propose(rounds=2), setting(open_space(), task, None), counted("Mood"))
    assert len(texts_of(without)) > 10


def test_what_is_read_is_paid_for_before_texts_are_asked_for() -> None:
    """``reflect`` draws several parents, and each is read on train: what is left must pay for scoring what is written."""
    task = small_task(12)
    for calls in range(150, 420, 30):
        asked = play(
            Propose(methods=("reflect",), sample=12), setting(open_space(), task, calls), counted("Mood")
        )
        spent, scored = 0, 0
        for ask in asked:
            spent += len(ask.texts) if isinstance(ask, Complete) else len(ask.examples)
            scored += isinstance(ask, Score) and ask.note.startswith("reflect") and spent <= calls
        assert scored == len(texts_of(asked)) > 0


def test_a_method_that_has_nothing_to_work_with_leaves_its_turn() -> None:
    content = open_space().spec.model_dump(exclude_none=True)
    content["slots"]["start"]["one_of"] = [""]
    empty = SearchSpace.from_dict(content)
    strategy = Propose(methods=("paraphrase", "induce"), breadth=2, rounds=2)
    asked = play(strategy, setting(empty, small_task(8)), counted("Mood"), lambda prompt: 0)
    assert len(texts_of(asked)) == 4
    assert strategy.findings["proposals"]["methods"] == {
        "paraphrase": {"turns": 0, "accepted": 0},
        "induce": {"turns": 4, "accepted": 0},
    }
    alone = Propose(methods=("paraphrase",))
    assert texts_of(play(alone, setting(empty, small_task(8)), counted("Mood"))) == []
    assert "nothing to work with" in alone.findings["proposals"]["problem"].replace("anything", "nothing")


def test_slots_take_turns_and_a_space_may_hide_them() -> None:
    content: dict[str, Any] = {
        "template": "[[ shape ]] {{ answer }}",
        "slots": {
            "shape": {"one_of": ["{{ text }}", "[[ start ]] {{ text }} [[ end ]]"]},
            "start": {"one_of": ["Read:"], "llm": {"longest": 40}},
            "end": {"one_of": ["So:"], "llm": {"longest": 40}},
        },
    }
    asked = play(
        Propose(methods=("paraphrase",)),
        setting(SearchSpace.from_dict(content), small_task(8)),
        counted("Look"),
    )
    notes = [ask.note for ask in asked if isinstance(ask, Complete)]
    assert notes[:4] == ["write: paraphrase start", "write: paraphrase end"] * 2
    never: dict[str, Any] = {
        "template": "[[ gate ]] [[ key ]] [[ end ]] {{ text }} {{ answer }}",
        "slots": {
            "gate": {"one_of": ["a", "b"]},
            "key": {"one_of": ["k"], "when": {"gate": ["a"]}},
            "end": {"one_of": ["So:"], "when": {"gate": ["b"], "key": ["k"]}, "llm": {}},
        },
    }
    strategy = Propose()
    made = setting(SearchSpace.from_dict(never), small_task(8))
    assert play(strategy, made, counted("Look")) == []
    assert strategy.findings == {}


@dataclasses.dataclass(kw_only=True)
class Answered(Strategy):
    """Opens the first slot of a planted space to models and answers what is to be written with an option's text."""

    inner: Strategy

    def begin(self, setting: Setting) -> None:
        content: dict[str, Any] = setting.space.spec.model_dump(exclude_none=True)
        first = next(iter(content["slots"].values()))
        self._options = first["one_of"]
        first["llm"] = {}
        assert setting.space.task is not None
        space = SearchSpace.from_dict(content).bind(setting.space.task, answer_at_end=True)
        self.inner.begin(dataclasses.replace(setting, space=space))

    def ask(self) -> Sequence[Ask]:
        while (asks := self.inner.ask()) and all(isinstance(ask, Complete) for ask in asks):
            self.inner.tell(asks, [self._written(ask) for ask in asks if isinstance(ask, Complete)])
        return asks

    def tell(self, asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
        self.inner.tell(asks, answers)

    def _written(self, ask: Complete) -> Completed:
        return Completed(
            tuple(self._options[(ask.seed + len(text)) % len(self._options)] for text in ask.texts)
        )


def test_the_contract_of_strategies_is_kept() -> None:
    check_strategy(lambda: Answered(inner=Propose()))
    check_strategy(
        lambda: Answered(inner=Propose(methods=("critique", "induce"), breadth=2, temperature=0.0))
    )


def test_it_can_race() -> None:
    task = small_task(16)
    strategy = Racing(inner=Propose(methods=("induce", "paraphrase"), rounds=3))
    asked = play(strategy, setting(open_space(), task), counted("Mood"))
    assert any(ask.note.startswith("block") for ask in asked)
    assert len(texts_of(asked)) == 18
    assert any(isinstance(ask, Score) and len(ask.examples) == 32 for ask in asked)
