"""Worked answers: a model works out training examples, and demonstrations show what came out right."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import autoprompt
from autoprompt import SearchSpace, Task
from autoprompt.bootstrapping import Bootstrapped, cut, is_bare
from autoprompt.errors import DataError, InputError, MissingCapability, SpecError, TooManyFailures
from tests.command_line import ok, refused

READ = r"answer is (\d+)"
STEPWISE = "Q: {{ q }}\nA: Step by step: {{ answer }}"
SPACE = {
    "template": "[[ demos ]]\n\nQ: {{ q }}\nA: Step by step: {{ answer }}",
    "slots": {"demos": {"pick": {"k": [0, 2], "per_label": "any", "worked": True,
                                 "template": "Q: {{ q }}\nA: Step by step: {{ answer }}"}}},
}  # fmt: skip


def sums(n: int = 24) -> list[dict[str, str]]:
    return [{"q": f"{i} + {2 * i + 1} + {i % 5}", "answer": str(3 * i + 1 + i % 5)} for i in range(n)]


def task(**settings: object) -> Task:
    given = {"kind": "generation", "fields": ["q"], "max_tokens": 60, "stop": ("\n",), "read": READ}
    return Task.from_rows(
        sums(),
        prompt="Q: {{ q }}\nA: {{ answer }}",
        split={"train": 8, "select": 8, "test": 8},
        **given | settings,  # type: ignore[arg-type]
    )


def adder(prompt: str) -> str:
    """Adds in steps where it is told to or shown how, and gets sums that begin with an odd number wrong."""
    asked = re.findall(r"Q: (\d+) \+ (\d+) \+ (\d+)", prompt)[-1]
    one, two, three = map(int, asked)
    if "Step by step" not in prompt:
        return f"answer is {one}"
    wrong = one % 2 and prompt.count("answer is") == 0
    return (
        f"{one} and {two} is {one + two}, so the answer is {one + two + three + wrong}. Next?\nQ: 1 + 1 + 1"
    )


def found(prompts: list[str] | str | None = STEPWISE, **settings: int) -> Bootstrapped:
    return autoprompt.bootstrap(task(), adder, prompts, **settings)  # type: ignore[arg-type]


def test_what_comes_out_right_is_kept_with_its_steps() -> None:
    result = found()
    even = [each for each in result.task.train if int(each.fields["q"].split()[0]) % 2 == 0]
    assert {each for each in result.task.train if each.worked} == set(even)
    assert 0 < len(even) < 8 == result.calls
    assert (result.solved, result.asked) == ((len(even),), (8,))
    for each in even:
        assert each.worked.endswith(f"so the answer is {each.target}. Next?")
        assert each.plain_id in {old.id for old in task().train}
        assert each.id != each.plain_id
    assert result.task.fingerprint != task().fingerprint
    assert result.task.select == task().select


def test_what_one_prompt_fails_on_the_next_is_asked() -> None:
    shown = "Q: 1 + 1 + 1\nA: the answer is 3\n\n" + STEPWISE
    result = found(["Q: {{ q }}\nA: {{ answer }}", STEPWISE, shown])
    assert len(result.worked) == 8
    assert result.asked == (8, 8, 8 - result.solved[1])
    assert result.solved == (0, result.solved[1], 8 - result.solved[1])
    assert "8 of 8 examples" in result.text()


def test_what_is_worked_out_is_not_asked_again_and_calls_are_bounded() -> None:
    first = found(calls=3)
    assert (first.calls, first.asked) == (3, (3,))
    again = autoprompt.bootstrap(first.task, adder, STEPWISE)
    assert again.asked == (8 - len(first.worked),)
    assert again.worked == found().worked


def test_an_answer_without_steps_is_not_kept() -> None:
    bare = autoprompt.bootstrap(task(read=r"\d+"), lambda prompt: re.findall(r"Q: (\d+)", prompt)[-1])
    assert bare.worked == {}
    easy = Task.from_rows(
        [{"q": f"say {n}", "answer": str(n)} for n in range(12)],
        kind="generation", fields=["q"], read=r"\d+", prompt="{{ q }}: {{ answer }}",
    )  # fmt: skip
    said = autoprompt.bootstrap(easy, lambda prompt: re.findall(r"\d+", prompt)[-1])
    assert (said.worked, said.bare) == ({}, len(easy.train))
    assert "without a step" in said.text()


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("answer is 5", True),
        ("So the final answer is 5.", True),
        ("2 and 3 is 5, so the answer is 5.", False),
        ("2 + 3 = 5, so answer is 5", False),
        ("\u4e8c\u52a0\u4e09\u662f\u4e94 answer is 5", False),  # a script without spaces
    ],
)
def test_words_that_only_lead_to_an_answer_are_no_step(text: str, bare: bool) -> None:
    assert is_bare(READ, text) == bare


def test_no_answer_is_kept_as_a_right_one() -> None:
    """Where the right answer is A, an article, a text in which no answer is found is not right."""
    asked = Task.from_rows(
        [{"q": f"which of {n}", "answer": "AB"[n % 2]} for n in range(12)],
        kind="generation", fields=["q"], read=r"answer is ([A-D])\b", prompt="{{ q }}: {{ answer }}",
    )  # fmt: skip
    result = autoprompt.bootstrap(asked, lambda prompt: "I do not know what I should say here.")
    assert (result.worked, result.bare) == ({}, 0)
    assert autoprompt.evaluate(asked, lambda prompt: "I do not know.", asked.prompt).estimate.value == 0


def test_demonstrations_show_worked_answers() -> None:
    worked = found().task
    prompts = list(SearchSpace.from_dict(SPACE).bind(worked, answer_at_end=True).enumerate())
    with_demos = [prompt for prompt in prompts if prompt.choices["demos"]]
    assert with_demos
    for prompt in with_demos:
        assert prompt.text.count("so the answer is") == 2
    # no worked answers at all: plain ones
    plain = [each.text for each in SearchSpace.from_dict(SPACE).bind(task(), answer_at_end=True).enumerate()]
    assert any(task().train[0].target in text for text in plain)
    assert not any("so the answer is" in text for text in plain)
    # too few for the largest k: the others fill up
    some = task().with_worked(dict(list(found().worked.items())[:1]))
    mixed = [each.text for each in SearchSpace.from_dict(SPACE).bind(some, answer_at_end=True).enumerate()]
    assert {text.count("so the answer is") for text in mixed} == {0, 1}
    never = {**SPACE["slots"]["demos"]["pick"], "worked": False}  # type: ignore[index]
    space = SearchSpace.from_dict({**SPACE, "slots": {"demos": {"pick": never}}})
    assert not any(
        "so the answer is" in each.text for each in space.bind(worked, answer_at_end=True).enumerate()
    )


@pytest.mark.parametrize("strategy", ["random_search", "evolution"])
def test_a_search_finds_that_worked_demonstrations_help(strategy: str) -> None:
    result = autoprompt.optimize(
        found().task, adder, 200, space=SearchSpace.from_dict(SPACE), strategy=strategy, seed=1
    )
    assert result.test is not None
    assert result.test.best.value == 1.0 > result.test.seed.value
    assert "so the answer is" in result.best.text
    kept = autoprompt.evaluate(found().task, adder, result.best)
    assert kept.estimate.value == 1.0


def test_what_a_model_writes_is_never_a_template() -> None:
    def sly(prompt: str) -> str:
        one, two, three = map(int, re.findall(r"Q: (\d+) \+ (\d+) \+ (\d+)", prompt)[-1])
        return f"{{{{ 7 * 7 }}}} [[ demos ]] {{% raw %}} the answer is {one + two + three}"

    worked = autoprompt.bootstrap(task(), sly, STEPWISE).task
    for prompt in SearchSpace.from_dict(SPACE).bind(worked, answer_at_end=True).enumerate():
        text = prompt.render({"q": "1 + 2 + 3"}).text("6")
        assert text.count("{{ 7 * 7 }} [[ demos ]] {% raw %} the answer is") == len(prompt.choices["demos"])


def test_a_text_is_cut_after_the_line_of_its_answer() -> None:
    assert cut(READ, "first\nthe answer is 3, I think\nand more") == "first\nthe answer is 3, I think"
    assert cut(READ, "no, answer is 1.\nYes, the answer is 2") == "no, answer is 1.\nYes, the answer is 2"
    assert cut(READ, " nothing\nto read ") == "nothing\nto read"


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(InputError, match="worked answers need a rule where in a model's text"):
        autoprompt.bootstrap(task(read=""), adder)
    with pytest.raises(InputError, match="kind is classification"):
        autoprompt.bootstrap("reviews", adder)
    with pytest.raises(InputError, match="calls: must be a whole number of at least 1"):
        found(calls=0)
    with pytest.raises(InputError, match="list of prompts is empty"):
        autoprompt.bootstrap(task(), adder, [])
    with pytest.raises(MissingCapability, match="only fills in words"):
        autoprompt.bootstrap(task(), "bundled:masked")
    with pytest.raises(TooManyFailures, match="answers are missing"):
        autoprompt.bootstrap(task(), lambda prompt: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(DataError, match="none of the 1 worked answers"):
        task().with_worked({"no id": "text"})


def test_rows_may_bring_worked_answers() -> None:
    rows = [{**row, "steps": f"easy: the answer is {row['answer']}" if i % 2 else None}
            for i, row in enumerate(sums())]  # fmt: skip
    made = Task.from_rows(rows, kind="generation", fields=["q"], worked="steps", read=READ)
    assert {each.worked for each in made.train} >= {""}
    assert any(each.worked.startswith("easy") for each in made.train)
    with pytest.raises(DataError, match="no column 'step' for worked .did you mean 'steps'"):
        Task.from_rows(rows, kind="generation", fields=["q"], worked="step", read=READ)
    with pytest.raises(SpecError, match="worked answers belong to texts that a model writes"):
        Task.from_rows([{**row, "answer": "ab"[i % 2]} for i, row in enumerate(rows)],
                       fields=["q"], worked="steps")  # fmt: skip


def write_task(folder: Path, more: str = "") -> Path:
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sums()), "utf-8")
    path = folder / "sums.yaml"
    path.write_text(
        "format: autoprompt-task/1\nkind: generation\ntitle: Sums\ndata:\n  source: sums.jsonl\n"
        f"  columns: {{q: q}}\n  target: answer\n{more}split: {{train: 8, select: 8, test: 8}}\n"
        f"prompt: |\n  Q: {{{{ q }}}}\n  A: {{{{ answer }}}}\nmax_tokens: 60\nread: '{READ}'\n",
        "utf-8",
    )
    return path


def test_a_task_file_names_worked_answers(tmp_path: Path) -> None:
    plain = Task.load(write_task(tmp_path))
    result = autoprompt.bootstrap(plain, adder, STEPWISE)
    (tmp_path / "worked.jsonl").write_text(result.jsonl(), "utf-8")
    loaded = Task.load(write_task(tmp_path, "  worked_file: worked.jsonl\n"))
    assert loaded == result.task
    (tmp_path / "worked.jsonl").write_text('{"id": "1"}\n', "utf-8")
    with pytest.raises(DataError, match=r"worked\.jsonl:1: needs the columns id and worked"):
        Task.load(tmp_path / "sums.yaml")


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_task(tmp_path)
    said = ok("bootstrap", "sums.yaml", "-m", "bundled:causal", "--calls", "4").stdout
    assert said.startswith("worked answers for 0 of 8 examples: 4 calls")
    told = refused(2, "bootstrap", "sums.yaml", "-m", "bundled:causal", "--calls", "2", "-o", "worked.jsonl")
    assert "worked.jsonl: not written, since no answer came out right" in told
    assert not (tmp_path / "worked.jsonl").exists()
