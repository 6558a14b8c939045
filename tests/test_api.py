"""optimize and evaluate, from the call to the files."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autoprompt
from autoprompt.api import IDLE_ROUNDS, Round
from autoprompt.asks import Answer, Ask, Score
from autoprompt.errors import InputError, ModelError, StudyMismatch, TooManyFailures
from autoprompt.models import Failure, LabelReply, LabelRequest
from autoprompt.result import Comparison, Result
from autoprompt.space import SearchSpace
from autoprompt.statistics import Estimate, Interval, paired
from autoprompt.strategies import Setting, Strategy
from autoprompt.strategies.random_search import RandomSearch
from autoprompt.study import read_log
from autoprompt.triggers import trigger_space
from tests.small import Spy, small_space, small_task

TASK = small_task()
BUDGET = 130


def search(model: object | None = None, **changes: Any) -> Result:
    call: dict[str, Any] = {"space": small_space(), "strategy": RandomSearch(batch=3), "seed": 1, **changes}
    task = call.pop("task", TASK)
    budget = call.pop("budget", BUDGET)
    return autoprompt.optimize(task, Spy() if model is None else model, budget, **call)


def result_of(folder: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    found: dict[str, Any] = json.loads((folder / "result.json").read_text("utf-8"), parse_constant=refuse)
    return found


def assert_same(one: Result, other: Result) -> None:
    assert one.trials == other.trials
    assert (one.candidate, one.best, one.status, one.test) == (
        other.candidate,
        other.best,
        other.status,
        other.test,
    )
    assert (one.spent.calls, one.spent.tokens) == (other.spent.calls, other.spent.tokens)
    assert one.pareto == other.pareto


def test_a_run(tmp_path: Path) -> None:
    rounds: list[Round] = []
    model = Spy()
    result = search(model, run_dir=tmp_path, on_round=rounds.append)
    assert result.status == "budget"
    assert [trial.number for trial in result.trials] == list(range(10))
    assert result.trials[0].prompt == TASK.seed_prompt
    assert result.trials[0].note == "seed"
    assert result.spent.calls == 120
    best = max(result.trials, key=lambda trial: (trial.score, -trial.loss))  # type: ignore[operator]
    assert result.candidate == best.prompt
    assert (result.seed_select, result.best_select) == (result.trials[0].score, best.score)
    assert result.test is not None
    assert (result.test.paired.n, result.measured.calls) == (12, 24)
    assert result.best == (result.candidate if result.test.shows_gain else TASK.seed_prompt)
    within = [seen for seen in rounds if seen.answered < 1]
    assert within
    assert [seen.answered for seen in within] != sorted(seen.answered for seen in within)  # anew each round
    rounds = [seen for seen in rounds if seen.answered == 1]
    assert [seen.prompts for seen in rounds] == [1, 4, 7, 10]
    assert [seen.spent.calls for seen in rounds] == [12, 48, 84, 120]
    assert [seen.best for seen in rounds] == sorted(seen.best for seen in rounds)
    assert rounds[-1].best == result.best_select
    assert {path.name for path in tmp_path.iterdir()} - {"answers.db-wal", "answers.db-shm"} == {
        ".lock", "study.json", "trials.jsonl", "answers.db", "result.json", "best_prompt.txt", "best_prompt.json",
    }  # fmt: skip
    document = result_of(tmp_path)
    assert document["status"] == "budget"
    assert document["cost"]["search"]["calls"] == 120
    assert document["test"]["candidate"]["n"] == 12
    assert autoprompt.read_prompt(tmp_path / "best_prompt.txt") == result.best


def test_test_is_touched_once_and_after_everything_else() -> None:
    model = Spy()
    search(model)
    places = [index for index, text in enumerate(model.asked) if "test " in text]
    assert places == list(range(len(model.asked) - 24, len(model.asked)))
    assert len({model.asked[index] for index in places}) == 24
    assert not any("train " in text for text in model.asked)


def test_the_same_call_finds_the_same() -> None:
    assert_same(search(), search())
    assert search(seed=2).trials != search(seed=1).trials


@pytest.mark.parametrize("strategy", ["random_search", "tpe", "racing", "auto"])
def test_cache_and_batches_change_nothing(tmp_path: Path, strategy: str) -> None:
    plain = search(strategy=strategy)
    cached = search(strategy=strategy, run_dir=tmp_path)
    assert_same(plain, cached)
    spy = Spy(size=50)
    assert_same(plain, search(spy, strategy=strategy, run_dir=tmp_path))
    assert spy.asked == []
    assert_same(plain, search(Spy(size=50), strategy=strategy))
    before = (tmp_path / "trials.jsonl").read_bytes()
    (tmp_path / "answers.db").write_bytes(b"garbage" * 1000)
    for extra in tmp_path.glob("answers.db-*"):
        extra.unlink()
    assert_same(plain, search(strategy=strategy, run_dir=tmp_path))
    assert (tmp_path / "trials.jsonl").read_bytes() == before


def test_two_workers_change_nothing() -> None:
    assert_same(search("toy"), search("toy", workers=2))


@pytest.mark.parametrize("suffix", [".txt", ".json", ".jinja"])
def test_the_written_prompt_gives_the_same_score(tmp_path: Path, suffix: str) -> None:
    result = search("toy")
    assert result.test is not None
    path = tmp_path / f"best{suffix}"
    result.save(path)
    again = autoprompt.evaluate(TASK, "toy", path)
    expected = result.test.best if result.best == result.candidate else result.test.seed
    assert again.estimate == expected
    assert (again.split, again.metric, again.prompt) == ("test", "accuracy", result.best)
    assert again.spent.calls == 12
    candidate = autoprompt.evaluate(TASK, "toy", result.candidate)
    assert candidate.estimate == result.test.best
    on_select = autoprompt.evaluate(TASK, "toy", result.candidate, split="select")
    assert on_select.estimate.value == pytest.approx(result.best_select, abs=1e-6)
    assert "accuracy" in str(again)
    assert "n=12" in str(again)


def test_a_set_metric(tmp_path: Path) -> None:
    task = small_task(metric="macro_f1")
    result = search(task=task, run_dir=tmp_path)
    assert result.test is not None
    assert result.test.best.value != pytest.approx(result.best_select)
    assert result_of(tmp_path)["run"]["metric"] == "macro_f1"
    assert autoprompt.evaluate(task, Spy(), result.candidate).estimate == result.test.best


def test_a_small_space_ends_the_run() -> None:
    result = search(budget=12 * 37 + 100)
    assert result.status == "complete"
    assert len({trial.key for trial in result.trials}) == 36  # the seed prompt is one of the 36


def interrupt_at(moment: int) -> Callable[[], None]:
    ticks = itertools.count()

    def before() -> None:
        if next(ticks) == moment:
            raise KeyboardInterrupt

    return before


@pytest.mark.parametrize("moment", [0, 2, 3, 7, 24])
def test_an_interrupt_keeps_everything(tmp_path: Path, moment: int) -> None:
    model = Spy(before=interrupt_at(moment))
    result = search(model, run_dir=tmp_path)
    assert result.status == "interrupted"
    assert result.test is None
    assert not any("test " in text for text in model.asked)
    assert result.best == TASK.seed_prompt
    assert result.verdict == "no verdict: the run is interrupted and test was not touched"
    assert len(str(result).splitlines()) == 5
    document = result_of(tmp_path)
    assert (document["status"], document["test"]) == ("interrupted", None)
    assert (document["select"]["seed_prompt"] is None) == (moment < 3)
    assert len(read_log(tmp_path / "trials.jsonl")) == len(result.trials)
    assert not (tmp_path / "best_prompt.txt").exists()
    resumed = search(run_dir=tmp_path)
    assert_same(resumed, search())
    assert result_of(tmp_path)["status"] == "budget"


def test_an_interrupt_while_test_is_measured(tmp_path: Path) -> None:
    moments = (
        3 + 3 * 8
    )  # batches of the search: the seed prompt's, then three rounds of 36 questions in fives
    result = search(Spy(before=interrupt_at(moments + 1)), run_dir=tmp_path)
    assert (result.status, result.test) == ("interrupted", None)
    assert result_of(tmp_path)["test"] is None
    assert_same(search(run_dir=tmp_path), search())


def test_an_interrupted_replay_leaves_what_a_finished_run_wrote(tmp_path: Path) -> None:
    search(run_dir=tmp_path)
    written = result_of(tmp_path)

    def stop(state: Round) -> None:
        raise KeyboardInterrupt

    result = search(run_dir=tmp_path, on_round=stop)
    assert result.status == "interrupted"
    assert result_of(tmp_path) == written
    assert len(read_log(tmp_path / "trials.jsonl")) == 10


def test_an_interrupt_between_rounds(tmp_path: Path) -> None:
    def stop(state: Round) -> None:
        if state.prompts == 4:
            raise KeyboardInterrupt

    result = search(run_dir=tmp_path, on_round=stop)
    assert (result.status, len(result.trials)) == ("interrupted", 4)
    assert_same(search(run_dir=tmp_path), search())


def shaky(text: str) -> str:
    if "select 1 " in text or "test 4 " in text:
        raise RuntimeError("no answer today")
    return "good"


def test_missing_answers_are_counted_and_told(tmp_path: Path) -> None:
    result = search(shaky, run_dir=tmp_path)
    assert result.status == "budget"
    assert {trial.missing for trial in result.trials} == {2}
    assert result.seed_select == 0.5
    assert result.test is not None
    assert (result.test.seed.n, result.test.seed.missing, result.test.paired.n) == (10, 2, 10)
    assert any("answers are missing" in note and "no answer today" in note for note in result.notes)
    assert result.noise == 0.0
    assert result.trials[1].note == "noise floor"
    assert not result.trials[1].complete


@pytest.mark.parametrize("word", ["select", "test"])
def test_too_many_failures(tmp_path: Path, word: str) -> None:
    model = Spy(fails=lambda text: any(f"{word} {i} " in text for i in (1, 2)))
    with pytest.raises(TooManyFailures, match="no winner can be declared"):
        search(model, run_dir=tmp_path)
    document = result_of(tmp_path)
    assert (document["status"], document["test"]) == ("failed", None)
    assert document["prompt"] == TASK.prompt
    assert "failed" in document["verdict"]
    assert not list(tmp_path.glob("best_prompt*"))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".") and path.name != ".lock"]
    assert_same(search(run_dir=tmp_path), search())  # once it is mended, the same call goes on


class Lost(Spy):
    """Stops working after some batches."""

    left = 6

    def logprobs(self, requests: Sequence[LabelRequest]) -> list[LabelReply | Failure]:
        self.left -= 1
        if self.left < 0:
            raise ModelError("the server is gone")
        return super().logprobs(requests)


def test_a_lost_model_is_a_failed_run(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="server is gone"):
        search(Lost(), run_dir=tmp_path)
    assert result_of(tmp_path)["status"] == "failed"
    assert len(read_log(tmp_path / "trials.jsonl")) == 1
    assert_same(search(run_dir=tmp_path), search())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"task": small_task(n=5)}, "task"),
        ({"model": Spy(fingerprint="spy/2")}, "model"),
        ({"space": None}, "space"),
        ({"strategy": RandomSearch(batch=4)}, "strategy"),
        ({"seed": 9}, "seed"),
        ({"budget": BUDGET + 1}, "budget"),
    ],
)
def test_another_call_on_the_same_folder_is_refused(
    tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    search(run_dir=tmp_path)
    written = (tmp_path / "trials.jsonl").read_bytes()
    with pytest.raises(StudyMismatch, match=f"holds a run with a different {field}:"):
        search(run_dir=tmp_path, **changes)
    assert (tmp_path / "trials.jsonl").read_bytes() == written


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search(run_dir=tmp_path)
    monkeypatch.setattr("autoprompt.api.__version__", "99")
    with pytest.raises(StudyMismatch, match="a different version:"):
        search(run_dir=tmp_path)


@dataclass(kw_only=True)
class Stubborn(Strategy):
    """Asks the same question for ever."""

    rounds: int = field(init=False, default=0)

    def begin(self, setting: Setting) -> None:
        self._ask = Score(setting.seed_prompt, setting.select)
        self.rounds = 0

    def ask(self) -> list[Score]:
        self.rounds += 1
        return [self._ask]

    def tell(self, asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
        assert len(answers) == 1


def test_a_strategy_that_only_repeats_itself_comes_to_an_end() -> None:
    strategy = Stubborn()
    result = search(strategy=strategy)
    assert (result.status, strategy.rounds, result.spent.calls) == ("complete", IDLE_ROUNDS, 12)
    assert "no prompt beat the manual one on select" in result.verdict


def test_a_budget_of_tokens_is_kept() -> None:
    result = search(budget="700 tokens")
    assert result.status == "budget"
    assert 0 < result.spent.tokens <= 700
    assert result.spent.tokens == round(sum(12 * trial.tokens for trial in result.trials))


def test_a_budget_of_seconds_resumes_where_answers_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = itertools.count()
    monkeypatch.setattr("autoprompt.harness.time.perf_counter", lambda: float(next(now)))
    model = Spy(fails=lambda text: "select 3 was awful" in text)
    first = search(model, run_dir=tmp_path, budget="20 s")
    assert first.trials[0].missing == 1
    assert_same(first, search(model, run_dir=tmp_path, budget="20 s"))


def test_half_characters_that_a_model_writes_spoil_no_run(tmp_path: Path) -> None:
    """A server may cut an emoji in two at its limit, and no file can hold the half."""

    def cut(prompt: str) -> str:
        return "Judge it \ud83d</text>" if "<text>" in prompt else "good"

    content = small_space().spec.model_dump(exclude_none=True)
    content["slots"]["start"]["llm"] = {"longest": 60}
    space = SearchSpace.from_dict(content)
    result = search(cut, space=space, strategy="propose", run_dir=tmp_path, budget=400)
    assert any("Judge it \ufffd" in trial.text for trial in result.trials)
    assert_same(result, search(cut, space=space, strategy="propose", run_dir=tmp_path, budget=400))
    assert Failure("no \ud83d").message == "no \ufffd"


def test_train_rows_that_nothing_reads_are_noted() -> None:
    note = (
        "nothing read the 12 train rows, since no prompt shows demonstrations: as select rows they would let the "
        "search choose on 24 in place of 12"
    )
    assert note in search().notes
    shown = SearchSpace.from_dict(
        {
            "format": "autoprompt-space/1",
            "title": "with demonstrations",
            "template": "[[ shown ]]{{ text }} It was {{ answer }}",
            "slots": {"shown": {"pick": {"k": [0, 2], "template": "{{ text }} It was {{ answer }}\n"}}},
        }
    )
    assert not any("train rows" in found for found in search(space=shown).notes)
    trained = search("bundled:causal", space=trigger_space(TASK, 2), strategy="gradient", budget=150)
    assert not any("train rows" in found for found in trained.notes)


def test_a_budget_of_seconds_resumes_to_the_same_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = itertools.count()
    monkeypatch.setattr("autoprompt.harness.time.perf_counter", lambda: float(next(now)))
    first = search(run_dir=tmp_path, budget="20 s")
    assert first.status == "budget"
    assert len(first.trials) > 1
    assert any("depends on the machine" in note for note in first.notes)
    assert_same(first, search(run_dir=tmp_path, budget="20 s"))


def test_a_calibrated_task() -> None:
    result = search(task=small_task(calibrate=True))
    assert result.spent.calls == 130
    assert len(result.trials) == 10
    assert "content-free" in result.header["answer_read_as"]


def test_a_path_as_model_and_strings_as_settings(tmp_path: Path) -> None:
    result = autoprompt.optimize(TASK, "toy", "60 calls", strategy="random_search", run_dir=str(tmp_path))
    assert (result.status, len(result.trials)) == ("complete", 1)  # no space: the manual prompt alone
    assert result.folder == tmp_path


def test_a_metric_over_the_set_is_what_candidates_are_compared_by(tmp_path: Path) -> None:
    task = small_task(12, metric="macro_f1")
    result = autoprompt.optimize(task, Spy(), 400, space=small_space(), strategy="tpe", run_dir=tmp_path)
    seed = autoprompt.evaluate(task, Spy(), task.seed_prompt, split="select")
    assert result.seed_select == pytest.approx(seed.estimate.value, abs=1e-6)
    best = autoprompt.evaluate(task, Spy(), result.candidate, split="select")
    assert best.estimate.value == pytest.approx(max(trial.score or 0 for trial in result.trials), abs=1e-6)


def test_two_rows_show_no_gain() -> None:
    few = paired(np.array([0.5, 0.6]), np.array([0.3, 0.3]))
    one = Estimate(0.5, Interval(0.0, 1.0), 2)
    assert few.interval.low > 0
    assert not Comparison(one, one, few).shows_gain


def test_several_prompts_answer_as_one() -> None:
    task = small_task()
    texts = ["{{ text }} It was {{ answer }}", "{{ text }} Opinion: {{ answer }}"]
    one, other = (autoprompt.evaluate(task, "toy", text) for text in texts)
    both = autoprompt.evaluate(task, "toy", texts)
    assert [prompt.text for prompt in both.prompts] == texts
    mean = (np.exp(one.scored.log_probs) + np.exp(other.scored.log_probs)) / 2
    assert np.exp(both.scored.log_probs) == pytest.approx(mean)
    assert both.spent.calls == one.spent.calls + other.spent.calls
    assert autoprompt.evaluate(task, "toy", texts[:1]).estimate == one.estimate
    with pytest.raises(InputError, match="the list of prompts is empty"):
        autoprompt.evaluate(task, "toy", [])


def test_answers_that_hold_no_label_word_are_told() -> None:
    def writes(text: str) -> str:
        return "Positive!" if "Review:" in text else "good"

    note = (
        "12 of 24 answers on test hold none of the label words and count as wrong, such as 'Positive!': "
        "say in the prompt how to answer, or change the label words"
    )
    space = SearchSpace.from_dict(
        {"template": "[[ a ]] {{ text }} It is {{ answer }}", "slots": {"a": {"one_of": ["So:"]}}}
    )
    assert not any(
        "label words" in each for each in autoprompt.optimize(TASK, writes, 200, space=space).notes
    )
    reviewed = dataclasses.replace(TASK, prompt="Review: {{ text }} It is {{ answer }}")
    assert note in autoprompt.optimize(reviewed, writes, 200, space=space).notes
    (alone,) = autoprompt.evaluate(TASK, writes, reviewed.seed_prompt).notes
    assert alone == note.replace("24", "12")


def test_a_prompt_scored_twice_and_texts_in_which_nothing_is_read_are_counted_once() -> None:
    pairs = [{"q": f"{i}+1", "answer": str(i + 1), "wrong": "none"} for i in range(40)]
    sums = autoprompt.Task.from_rows(pairs, fields=["q"], kind="generation", read=r"answer is (\d+)")
    (note,) = autoprompt.optimize(sums, lambda text: "perhaps 5", 100).notes
    assert note.startswith(
        r"20 of 20 answers on test hold nothing that 'answer is (\\d+)' finds and count as wrong"
    )
    several = [{"q": f"{i}", "which": ["fig", "plum"], "label": i % 2} for i in range(40)]
    fruit = autoprompt.Task.from_rows(several, kind="multiple_choice", choices="which")
    (note,) = autoprompt.optimize(fruit, lambda text: "pear", 100).notes
    assert note.startswith(
        "20 of 20 answers on test hold none of the choices and count as wrong, such as 'pear'"
    )
