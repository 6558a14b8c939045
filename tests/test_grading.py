from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from autoprompt.asks import Scored
from autoprompt.errors import MissingCapability, SpecError
from autoprompt.grading import (
    MISSING,
    content_free,
    grade,
    label_log_probs,
    needs_calibration,
    parse_answer,
    pooled,
    request_for,
)
from autoprompt.models import (
    Failure,
    LabelReply,
    LabelRequest,
    RankReply,
    RankRequest,
    TextReply,
    TextRequest,
)
from autoprompt.models.function import FunctionModel
from autoprompt.models.toy import ToyModel
from autoprompt.task import Example, Task
from tests.small import Spy, small_task

TASK = small_task()
GOOD = Example({"text": "x"}, "good")


def label_reply(*shares: float) -> LabelReply:
    return LabelReply(tuple(math.log(share) for share in shares), 7, 2)


def test_several_words_of_a_label_add_up() -> None:
    # labels in order of words: good = good + great, bad = bad
    found = grade(TASK, TASK.seed_prompt, GOOD, label_reply(0.2, 0.15, 0.3))
    assert (found.score, found.prediction, found.tokens, found.shortened) == (1.0, "good", 7, 2)
    assert found.loss == pytest.approx(-math.log(0.35 / 0.65))
    wrong = grade(TASK, TASK.seed_prompt, GOOD, label_reply(0.1, 0.1, 0.3))
    assert (wrong.score, wrong.prediction) == (0.0, "bad")
    assert wrong.loss == pytest.approx(-math.log(0.2 / 0.5))


def test_label_log_probs_by_hand() -> None:
    found = label_log_probs(label_reply(0.1, 0.2, 0.3, 0.4), ("b", "a"), {"a": ("x",), "b": ("u", "v", "w")})
    assert np.exp(found) == pytest.approx([0.6, 0.4])


def test_calibration_by_hand() -> None:
    # log P - log P(content-free): good 0.35/0.7, bad 0.3/0.2: bad wins although good is likelier
    found = grade(TASK, TASK.seed_prompt, GOOD, label_reply(0.2, 0.15, 0.3), label_reply(0.5, 0.2, 0.2))
    assert found.prediction == "bad"
    assert found.loss == pytest.approx(-math.log(0.5 / (0.5 + 1.5)))
    assert grade(TASK, TASK.seed_prompt, GOOD, label_reply(0.2, 0.15, 0.3), Failure("no")) == MISSING


def test_what_is_calibrated() -> None:
    calibrated = small_task(calibrate=True)
    assert needs_calibration(calibrated, ToyModel())
    assert not needs_calibration(TASK, ToyModel())
    assert not needs_calibration(calibrated, FunctionModel(str.upper))
    blank = content_free(Example({"text": "long", "facts": ["a", "b"]}, "good"))
    assert blank.fields == {"text": "N/A", "facts": ["N/A", "N/A"]}


def choice_task(normalize: bool) -> Task:
    data = [
        {"question": f"q{i}", "choices": [f"a{i}", f"bb{i}", "Zürich"], "answer": f"bb{i}"} for i in range(12)
    ]
    return Task.from_rows(
        data, kind="multiple_choice", fields=["question"], choices="choices", target="answer", normalize=normalize,
    )  # fmt: skip


def test_multiple_choice_takes_the_rows_own_choices() -> None:
    task = choice_task(normalize=False)
    example = task.select[0]
    request = request_for(task, ToyModel(), task.seed_prompt, example)
    assert isinstance(request, LabelRequest)
    assert request.answers == example.choices
    found = grade(task, task.seed_prompt, example, label_reply(0.1, 0.3, 0.2))
    assert (found.prediction, found.score) == (example.choices[1], 1.0)
    assert found.loss == pytest.approx(-math.log(0.3 / 0.6))


def test_normalisation_is_per_byte() -> None:
    task = choice_task(normalize=True)
    example = Example({"question": "q"}, "ab", choices=("ab", "Zürich"))  # 2 and 7 bytes
    # per byte: log(0.1)/2 = -1.151, log(0.001)/7 = -0.987
    found = grade(task, task.seed_prompt, example, label_reply(0.1, 0.001))
    assert (found.prediction, found.score) == ("Zürich", 0.0)
    plain = grade(choice_task(normalize=False), task.seed_prompt, example, label_reply(0.1, 0.001))
    assert (plain.prediction, plain.score) == ("ab", 1.0)
    a, b = math.log(0.1) / 2, math.log(0.001) / 7
    assert found.loss == pytest.approx(math.log(math.exp(a) + math.exp(b)) - a)


@pytest.mark.parametrize(("metric", "score"), [("p_at_1", 0.0), ("mrr", 0.25)])
def test_cloze(metric: str, score: float) -> None:
    data = [{"subject": f"s{i}", "answer": f"w{i % 3}"} for i in range(12)]
    task = Task.from_rows(data, kind="cloze", target="answer", metric=metric, candidates="targets")
    example = task.select[0]
    request = request_for(task, ToyModel(), task.seed_prompt, example)
    assert isinstance(request, RankRequest)
    assert (request.target, request.among) == (example.target, ("w0", "w1", "w2"))
    found = grade(task, task.seed_prompt, example, RankReply(-2.5, 4, "other", 3))
    assert (found.score, found.loss, found.prediction) == (score, 2.5, "other")
    assert grade(task, task.seed_prompt, example, RankReply(-0.1, 1, "x", 3)).score == 1.0


def test_generation() -> None:
    data = [{"q": f"q{i}", "answer": f"the Answer {i}", "all": [f"the Answer {i}", "so"]} for i in range(12)]
    task = Task.from_rows(
        data, kind="generation", target="answer", references="all", fields=["q"], max_tokens=9
    )
    example = task.select[0]
    request = request_for(task, ToyModel(), task.seed_prompt, example)
    assert isinstance(request, TextRequest)
    assert (request.max_tokens, request.stop) == (9, ("\n",))
    for text, score in ((f" {example.target.upper()}! ", 1.0), ("So.", 1.0), ("sofa", 0.0)):
        found = grade(task, task.seed_prompt, example, TextReply(text, 4))
        assert (found.score, found.prediction) == (score, text.strip())
        assert math.isnan(found.loss)


THOUGHT = "Two and two are four, so the answer is 4. No: one more. So the answer is 5."


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (r"answer is (\w+)", THOUGHT, "5"),
        (r"\d+", THOUGHT, "5"),
        (r"answer is (\w+)", "I do not know. 5?", ""),
        (r"is (x)?", "it is 5", ""),
        ("", THOUGHT, THOUGHT),
    ],
)
def test_an_answer_is_read_by_the_declared_rule(read: str, text: str, said: str) -> None:
    rows = [{"q": f"q{i}", "answer": "5"} for i in range(12)]
    task = Task.from_rows(rows, kind="generation", fields=["q"], max_tokens=40, stop=(), read=read)
    found = grade(task, task.seed_prompt, task.select[0], TextReply(text, 4))
    assert (found.prediction, found.score) == (said, float(said == "5"))


def test_a_rule_that_cannot_be_followed_is_refused() -> None:
    rows = [{"q": f"q{i}", "answer": "no" if i % 2 else "yes"} for i in range(12)]
    with pytest.raises(SpecError, match=r"read: no regular expression: .*\(got '\(a'\)"):
        Task.from_rows(rows, kind="generation", fields=["q"], read="(a")
    with pytest.raises(SpecError, match="use kind: generation"):
        Task.from_rows(rows, fields=["q"], read="a")
    plain, ruled = (Task.from_rows(rows, kind="generation", fields=["q"], read=read) for read in ("", "a"))
    assert plain.fingerprint != ruled.fingerprint


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("good", "good"),
        ("  GREAT, really", "good"),
        ("It was bad, not good", "bad"),
        ("goodness", None),
        ("not_bad", None),
        ("badgood", None),
        ("", None),
        ("(bad)", "bad"),
    ],
)
def test_answers_are_read_as_whole_words(text: str, label: str | None) -> None:
    assert parse_answer(text, {"good": ("good", "great"), "bad": ("bad",)}) == label


def test_of_two_words_at_one_place_the_longer_counts() -> None:
    words = {"place": ("New York",), "age": ("New",), "c": ("c++",)}
    assert parse_answer("new york", words) == "place"
    assert parse_answer("new shoes", words) == "age"
    assert parse_answer("use C++ here", words) == "c"
    countries = {"land": ("US",), "we": ("us",)}
    assert [parse_answer(text, countries) for text in ("us", "US", "Us")] == ["we", "land", "land"]


def test_models_that_only_write_text_are_parsed() -> None:
    model = FunctionModel(str.upper)
    request = request_for(TASK, model, TASK.seed_prompt, GOOD)
    assert isinstance(request, TextRequest)
    right = grade(TASK, TASK.seed_prompt, GOOD, TextReply(" Great!", 3))
    assert (right.score, right.prediction) == (1.0, "good")
    assert math.isnan(right.loss)
    unread = grade(TASK, TASK.seed_prompt, GOOD, TextReply("who knows", 3))
    assert (unread.score, unread.prediction, unread.stray, right.stray) == (
        0.0,
        "who knows",
        "who knows",
        None,
    )
    renamed = dataclasses.replace(TASK, words={"good": ("great",), "bad": ("awful",)})
    for text in ("good", "good."):  # the label's name is none of its words, with or without a full stop
        assert grade(renamed, renamed.seed_prompt, GOOD, TextReply(text, 3)).score == 0.0
    choices = choice_task(normalize=False)
    spoken = grade(choices, choices.seed_prompt, choices.select[0], TextReply(choices.select[0].target, 3))
    assert spoken.score == 1.0


def test_failures_are_missing_and_never_zero() -> None:
    found = grade(TASK, TASK.seed_prompt, GOOD, Failure("no"))
    assert found == MISSING
    assert math.isnan(found.score)
    assert found.prediction is None
    assert isinstance(request_for(TASK, Spy(), TASK.seed_prompt, GOOD), LabelRequest)


def test_answers_in_scripts_without_spaces_are_found() -> None:
    words = {"good": ("好评",), "bad": ("差评",)}
    assert parse_answer("这是好评", words) == "good"
    assert parse_answer("badge of honour", {"bad": ("bad",), "good": ("good",)}) is None


def test_stop_strings_do_not_cut_what_a_label_is_looked_for_in() -> None:
    task = small_task()
    model = FunctionModel(lambda text: "\n\nLet me think.\nAnswer: good")
    request = request_for(task, model, task.seed_prompt, task.test[0])
    assert isinstance(request, TextRequest)
    assert request.stop == ()
    (reply,) = model.complete([request])
    assert grade(task, task.seed_prompt, task.test[0], reply).prediction == "good"


def test_prompts_answer_together_by_their_mean_probabilities() -> None:
    """Two prompts that are half sure of the wrong label lose to one that is very sure of the right one."""
    task = small_task(1)
    examples = task.test
    sure, unsure = np.log([[0.95, 0.05]] * 2), np.log([[0.4, 0.6]] * 2)
    answers = [Scored(np.zeros(2), np.zeros(2), ("x",) * 2, 5.0, log_probs=each) for each in (sure, unsure)]
    both = pooled(task, examples, answers)
    assert both.log_probs == pytest.approx(np.log([[0.675, 0.325]] * 2))
    assert both.predictions == (task.labels[0],) * 2
    right = [example.target == task.labels[0] for example in examples]
    assert both.scores.tolist() == [float(each) for each in right]
    assert both.losses == pytest.approx([-np.log(0.675 if each else 0.325) for each in right])
    assert both.tokens == 10.0


def test_together_what_one_misses_is_missing() -> None:
    task = small_task(1)
    holed = np.array([[np.nan, np.nan], [-0.1, -2.4]])
    answers = [Scored(np.zeros(2), np.zeros(2), ("x",) * 2, 5.0, log_probs=holed) for _ in range(2)]
    both = pooled(task, task.test, answers)
    assert both.missing == 1
    assert both.predictions[0] is None
    with pytest.raises(MissingCapability, match="one by one"):
        pooled(task, task.test, [*answers, Scored(np.zeros(2), np.zeros(2))])
