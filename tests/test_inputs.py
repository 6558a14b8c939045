"""Bad input gets a clear error before any model is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import autoprompt
from autoprompt.budget import Budget
from autoprompt.errors import (
    AutopromptError,
    BudgetError,
    DataError,
    InputError,
    LabelWordError,
    MissingCapability,
    SpecError,
    TemplateError,
    UnknownName,
)
from autoprompt.inputs import check_capability, check_floor, load_space, model_kind
from autoprompt.models.function import FunctionModel
from autoprompt.models.toy import ToyModel
from autoprompt.prompt import Prompt, Rendered
from autoprompt.prompt_inputs import load_prompt
from autoprompt.readable import fit_words
from autoprompt.space import SearchSpace
from autoprompt.strategies import Strategy
from autoprompt.strategies.chain import Chain
from autoprompt.strategies.gradient import Gradient
from autoprompt.strategies.grips import Grips
from autoprompt.strategies.loop import Loop
from autoprompt.strategies.racing import Racing
from autoprompt.strategies.random_search import RandomSearch
from autoprompt.strategies.soft import Soft
from autoprompt.task import Task
from autoprompt.triggers import edit_space, trigger_space
from tests.small import Spy, rows, small_space, small_task

TASK: dict[str, Any] = {
    "format": "autoprompt-task/1",
    "kind": "classification",
    "title": "mine",
    "data": {
        "source": {"train": "train.jsonl", "select": "select.jsonl", "test": "test.jsonl"},
        "columns": {"text": "text"},
        "target": "label",
    },
    "labels": ["good", "bad"],
    "words": {"good": ["good"], "bad": ["bad"]},
    "prompt": "{{ text }} It was {{ answer }}",
}


def write_task(folder: Path, **changes: Any) -> Path:
    for name in ("train", "select", "test"):
        lines = "".join(json.dumps(row) + "\n" for row in rows(name, 6))
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**TASK, **changes}, sort_keys=False), encoding="utf-8")
    return path


def never_load(spec: object) -> None:
    raise AssertionError(f"a model was loaded: {spec!r}")


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("api", "forecast"):
        monkeypatch.setattr(f"autoprompt.{module}.load_model", never_load)


def folder_model(folder: Path, architecture: str) -> str:
    folder.mkdir()
    for name, content in (
        ("config.json", json.dumps({"architectures": [architecture]})),
        ("model.safetensors", ""),
        ("tokenizer.json", "{}"),
    ):
        (folder / name).write_text(content, encoding="utf-8")
    return str(folder)


def damaged(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = write_task(folder)
        (folder / name).write_bytes(content)
        return path

    return make


def edited(old: str, new: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = write_task(folder)
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
        return path

    return make


ONE_CLASS = b'{"text": "a", "label": "good"}\n{"text": "b", "label": "good"}\n'
BAD_TASKS: list[tuple[str, Callable[[Path], object], type[AutopromptError], str]] = [
    ("unknown name", lambda folder: "reviws", UnknownName, "no task named 'reviws' .did you mean 'reviews'"),
    ("unknown file", lambda folder: folder / "none.yaml", UnknownName, "no file"),
    ("missing field", damaged("select.jsonl", b'{"txt": "a", "label": "good"}\n'), DataError,
     r"select.jsonl.*no column 'text' for field 'text' .did you mean 'txt'"),
    ("unknown label", damaged("test.jsonl", b'{"text": "a", "label": "god"}\n'), DataError, "'god'.*good, bad"),
    ("label without words", lambda folder: write_task(folder, words={"good": ["good"]}), SpecError,
     r"mine.yaml:\d+: words: label 'bad' has no words"),
    ("no answer place", lambda folder: write_task(folder, prompt="{{ text }} It was"), TemplateError,
     r"\{\{ answer \}\} must stand exactly once"),
    ("two answer places", lambda folder: write_task(folder, prompt="{{ text }} {{ answer }} {{ answer }}"),
     TemplateError, "found 2 times"),
    ("unknown field", lambda folder: write_task(folder, prompt="{{ txet }} {{ answer }}"), TemplateError,
     "no field 'txet' .did you mean 'text'"),
    ("broken template", lambda folder: write_task(folder, prompt="{{ text {{ answer }}"), TemplateError, "line 1"),
    ("answer in the middle", lambda folder: write_task(folder, prompt="It is {{ answer }}: {{ text }}"),
     TemplateError, "stands in the middle.*reads on from the end"),
    ("empty split", damaged("select.jsonl", b""), DataError, "select.*no rows"),
    ("one class", damaged("select.jsonl", ONE_CLASS), DataError, "one label only"),
    ("not UTF-8", damaged("test.jsonl", b'{"text": "caf\xe9", "label": "good"}\n'), DataError, "UTF-8"),
    ("typo", edited("labels:", "lables:"), SpecError, r"mine.yaml:\d+: .*lables.*(did you mean|labels)"),
    ("wrong kind", edited("kind: classification", "kind: clasification"), SpecError, r"mine.yaml:2: kind"),
    ("repeated key", edited("title: mine", "title: mine\ntitle: yours"), SpecError, "title"),
    ("no YAML", edited("title: mine", "title: [mine"), SpecError, "mine.yaml"),
    ("unknown metric", lambda folder: write_task(folder, metric="acuracy"), SpecError,
     "no metric 'acuracy' .did you mean 'accuracy'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "error", "message"), [case[1:] for case in BAD_TASKS], ids=[c[0] for c in BAD_TASKS]
)
def test_bad_tasks(
    tmp_path: Path, make: Callable[[Path], object], error: type[AutopromptError], message: str
) -> None:
    with pytest.raises(error, match=r"(?s)" + message) as caught:
        autoprompt.optimize(make(tmp_path), "toy", 100, run_dir=tmp_path / "run")  # type: ignore[arg-type]
    assert isinstance(caught.value, InputError)
    assert not (tmp_path / "run").exists()


BAD_CALLS: list[tuple[dict[str, Any], type[AutopromptError], str]] = [
    ({"budget": 0}, BudgetError, "above 0"),
    ({"budget": "soon"}, BudgetError, "cannot read"),
    (
        {"budget": 23},
        BudgetError,
        "23 calls do not cover one full comparison.*12 select examples.*'small' take 24",
    ),
    ({"model": "./no/such/folder"}, UnknownName, "no such folder"),
    ({"model": "bundled:nothing"}, UnknownName, "no bundled model 'nothing'"),
    ({"model": ""}, InputError, "name is empty"),
    ({"model": 3}, InputError, "cannot use a int"),
    ({"space": "sentimnt"}, UnknownName, "no search space named 'sentimnt'"),
    ({"space": "no/such.yaml"}, UnknownName, "no file"),
    ({"strategy": "random_serch"}, UnknownName, "did you mean 'random_search'"),
    ({"strategy": RandomSearch}, InputError, "expected a name or a Strategy"),
    ({"strategy": "chain"}, InputError, "has no default"),
    ({"seed": -1}, InputError, "seed: must be a whole number of at least 0"),
    ({"seed": "a"}, InputError, "seed: must be a whole number"),
    ({"workers": 0}, InputError, "workers: must be a whole number of at least 1"),
    ({"workers": 2, "model": Spy()}, InputError, "it was given as an object"),
]


@pytest.mark.parametrize(("changes", "error", "message"), BAD_CALLS, ids=[str(c[0]) for c in BAD_CALLS])
def test_bad_calls(
    tmp_path: Path, changes: dict[str, Any], error: type[AutopromptError], message: str
) -> None:
    call = {"model": "toy", "budget": 100, "space": small_space(), "strategy": "random_search", **changes}
    with pytest.raises(error, match=message):
        autoprompt.optimize(small_task(), run_dir=tmp_path / "run", **call)
    assert not (tmp_path / "run").exists()


def test_a_space_that_does_not_fit(tmp_path: Path) -> None:
    space = SearchSpace.from_dict({"template": "{{ txt }} {{ answer }}"})
    with pytest.raises(AutopromptError, match=r"no field 'txt' .did you mean 'text'"):
        autoprompt.optimize(small_task(), "toy", 100, space=space)
    middle = SearchSpace.from_dict({"template": "It is {{ answer }}: {{ text }}"})
    with pytest.raises(TemplateError, match="stands in the middle"):
        autoprompt.optimize(small_task(), "toy", 100, space=middle)


def test_strategies_that_wrap_others_get_the_space_of_those() -> None:
    task, front = small_task(), Soft(method="prefix")
    assert load_space(None, task, Racing(inner=Gradient())).slots == trigger_space(task).slots
    assert (
        load_space(None, task, Chain(strategies=(Grips(), Racing(inner=Grips())))).slots
        == edit_space(task).slots
    )
    both = load_space(None, task, Chain(strategies=(Gradient(), front)))
    assert both.spec.template == trigger_space(task, front=True).spec.template


def test_a_stage_without_its_slots_is_refused_before_the_others_are_paid() -> None:
    mixed = Chain(strategies=(RandomSearch(), Gradient()))
    with pytest.raises(InputError, match=r"(?s)gradient moves tokens.*no token slots.*trigger"):
        autoprompt.optimize(small_task(), "toy", 1000, space=small_space(), strategy=mixed)
    with pytest.raises(MissingCapability, match="no tokens"):
        check_capability(small_task(), ToyModel(), small_task().seed_prompt, mixed)


@pytest.mark.parametrize("strategy", [Gradient(), Loop(), Racing(inner=Gradient())])
def test_gradients_of_free_text_are_refused_before_anything_is_paid(strategy: Strategy) -> None:
    rows = [{"text": f"word {number}", "out": f"answer {number}"} for number in range(30)]
    task = Task.from_rows(
        rows,
        target="out",
        kind="generation",
        prompt="{{ text }} -> {{ answer }}",
        split={"train": 10, "select": 10, "test": 10},
    )
    with pytest.raises(MissingCapability, match=r"(?s)gradient follows gradients.*free text.*soft trains"):
        autoprompt.optimize(task, "bundled:causal", 1000, strategy=strategy)


def test_the_answer_in_the_middle_is_for_masked_models_only(tmp_path: Path) -> None:
    task = write_task(tmp_path, prompt="It is {{ answer }}: {{ text }}")
    causal = folder_model(tmp_path / "causal", "GPT2LMHeadModel")
    masked = folder_model(tmp_path / "masked", "BertForMaskedLM")
    with pytest.raises(TemplateError, match="stands in the middle"):
        autoprompt.optimize(task, causal, 100)
    with pytest.raises(TemplateError, match="stands in the middle"):
        autoprompt.evaluate(small_task(), causal, "It is {{ answer }}: {{ text }}")
    with pytest.raises(AssertionError, match="a model was loaded"):  # all checks passed
        autoprompt.optimize(task, masked, 100)


def test_bad_calls_of_evaluate_and_estimate(tmp_path: Path) -> None:
    task = small_task()
    good = "{{ text }} {{ answer }}"
    with pytest.raises(InputError, match=r"no split 'tests' .did you mean 'test'"):
        autoprompt.evaluate(task, "toy", good, split="tests")
    with pytest.raises(TemplateError, match="must stand exactly once"):
        autoprompt.evaluate(task, "toy", "{{ text }}")
    with pytest.raises(DataError, match="no such file"):
        autoprompt.evaluate(task, "toy", tmp_path / "none.txt")
    with pytest.raises(
        DataError, match="has label words for a, but the labels of task 'small' are good, bad"
    ):
        autoprompt.evaluate(task, "toy", Prompt(good, {"a": ("b",)}))
    with pytest.raises(UnknownName, match="no such folder"):
        autoprompt.evaluate(task, "./none/at/all", good)
    with pytest.raises(BudgetError, match="24"):
        autoprompt.estimate(task, "toy", 20)


@pytest.mark.parametrize(
    ("architecture", "extra", "kind"),
    [
        ("GPT2LMHeadModel", {}, "causal"),
        ("LlamaForCausalLM", {}, "causal"),
        ("BertForMaskedLM", {}, "masked"),
        ("T5ForConditionalGeneration", {"is_encoder_decoder": True}, "seq2seq"),
        ("LlavaForConditionalGeneration", {}, None),
        ("BertModel", {}, None),
    ],
)
def test_the_kind_of_a_folder(
    tmp_path: Path, architecture: str, extra: dict[str, bool], kind: str | None
) -> None:
    name = folder_model(tmp_path / "m", architecture)
    (tmp_path / "m" / "config.json").write_text(json.dumps({"architectures": [architecture], **extra}))
    assert model_kind(name) == kind
    assert model_kind(tmp_path / "m") == kind
    assert model_kind(f"{name}?max_length=64") == kind


def test_the_kind_of_other_models() -> None:
    assert model_kind("toy") == "causal"
    assert model_kind("someone/some-model") is None
    assert model_kind(str.upper) == "text"
    assert model_kind(Spy(kind="masked")) == "masked"
    assert model_kind(ToyModel()) == "causal"


def test_prompts_as_text_object_or_file(tmp_path: Path) -> None:
    task = small_task()
    prompt = load_prompt("{{ text }} {{ answer }}", task)
    assert prompt == Prompt("{{ text }} {{ answer }}", task.words)
    assert load_prompt(prompt, task) is prompt
    (tmp_path / "p.txt").write_text("{{ text }} {{ answer }}\n", encoding="utf-8")
    assert load_prompt(tmp_path / "p.txt", task) == prompt
    assert load_prompt(str(tmp_path / "p.txt"), task) == prompt
    own = Prompt("{{ text }} {{ answer }}", {"good": ("yes",), "bad": ("no",)})
    assert load_prompt(own, task) == own


def test_the_floor_counts_what_will_be_asked() -> None:
    plain, calibrated = small_task(), small_task(calibrate=True)
    check_floor(plain, Spy(), Budget(calls=24))
    check_floor(calibrated, Spy(), Budget(calls=26))
    with pytest.raises(BudgetError, match=r"25 calls do not cover .* take 26"):
        check_floor(calibrated, Spy(), Budget(calls=25))
    with pytest.raises(BudgetError, match="take 36"):  # its noise is measured, too
        check_floor(plain, Spy(deterministic=False), Budget(calls=35))
    words = sum(len(f"{example.fields['text']} It was ".split()) for example in plain.select)
    check_floor(plain, Spy(), Budget(tokens=2 * words))
    with pytest.raises(BudgetError, match=f"tokens do not cover .* take {2 * words}"):
        check_floor(plain, Spy(), Budget(tokens=2 * words - 1))
    check_floor(plain, Spy(), Budget(seconds=1e-9))


class Choosy(Spy):
    """Cannot score words with an e in them."""

    def check_answers(
        self, rendered: Rendered, answers: Sequence[str], *, single_token: bool = False
    ) -> None:
        for word in answers:
            if "e" in word:
                raise LabelWordError(f"label word {word!r}: several tokens")


def words_space(tied: bool, good: list[Any], bad: list[Any]) -> SearchSpace:
    slot = {"map": {"good": good, "bad": bad}, "tied": tied}
    return SearchSpace.from_dict({"template": "{{ text }} {{ answer }}", "slots": {"words": slot}})


def test_label_words_that_the_model_cannot_score_are_left_out() -> None:
    good, bad = ["good", "fine", ["nice", "top"], "big"], ["bad", "sad", "low", "rude"]
    task = small_task()
    loose, notes = fit_words(task, words_space(False, good, bad), Choosy())
    assert loose.slots["words"].map == {"good": ["good", "big"], "bad": ["bad", "sad", "low"]}
    assert notes == (
        "label words left out of the search, since spy cannot score them: 'fine', 'nice', 'rude'",
    )
    tied, _ = fit_words(task, words_space(True, good, bad), Choosy())
    assert tied.slots["words"].map == {"good": ["good"], "bad": ["bad"]}
    assert len(list(tied.bind(task, answer_at_end=True).enumerate())) == 1
    untouched = words_space(False, good, bad)
    assert fit_words(task, untouched, Spy()) == (untouched, ())
    assert fit_words(task, small_space(), Choosy())[1] == ()
    with pytest.raises(LabelWordError, match=r"cannot score its words for 'good' .*'fine'"):
        fit_words(task, words_space(False, ["fine"], ["bad"]), Choosy())


def test_what_a_model_cannot_do() -> None:
    text = [{"q": f"q{i}", "answer": f"a{i}"} for i in range(12)]
    cloze = Task.from_rows(text, kind="cloze", target="answer", name="facts")
    generation = Task.from_rows(text, kind="generation", target="answer")
    with pytest.raises(MissingCapability, match="only fills in words"):
        check_capability(generation, Spy(kind="masked"), generation.seed_prompt)
    with pytest.raises(MissingCapability, match="ranks words"):
        check_capability(cloze, FunctionModel(str.upper), cloze.seed_prompt)
    check_capability(generation, FunctionModel(str.upper), generation.seed_prompt)
    check_capability(small_task(), FunctionModel(str.upper), small_task().seed_prompt)
    with pytest.raises(LabelWordError, match="label word 'great': several tokens"):
        check_capability(small_task(), Choosy(), small_task().seed_prompt)

    class NoSingles(Spy):
        def check_answers(
            self, rendered: Rendered, answers: Sequence[str], *, single_token: bool = False
        ) -> None:
            if single_token:
                raise LabelWordError("several tokens")

    with pytest.raises(
        LabelWordError, match=r"12 of 12 answers are no single word of model 'spy'.*'a0'"
    ) as error:
        check_capability(cloze, NoSingles(), cloze.seed_prompt)
    assert "only_targets" in error.value.hint


def test_rows_and_dictionaries_in_place_of_a_task_or_a_space_say_what_makes_one() -> None:
    with pytest.raises(InputError, match=r"task: expected a name, .* \(got list\)\n.*Task.from_rows"):
        autoprompt.optimize(rows("a", 3), "toy", 100)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"space: expected a name, .* \(got dict\)\n.*SearchSpace.from_dict"):
        autoprompt.optimize(small_task(), "toy", 100, space={"template": "{{ text }}"})  # type: ignore[arg-type]
