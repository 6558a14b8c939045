"""Relations: reading folders, leaving out what a model cannot answer, and one search each with a table."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from autoprompt import Prompt, Task
from autoprompt.errors import AutopromptError, InputError, LabelWordError
from autoprompt.models import Failure, RankReply, RankRequest, ScoringModel
from autoprompt.models.load import load_model
from autoprompt.models.toy import ToyModel
from autoprompt.prompt import Rendered
from autoprompt.relations import RelationRow, RelationTable, fit_relation, load_relations, optimize_relations
from autoprompt.space import SearchSpace
from tests.models.tiny import make_model, shared_model

TOPICS = {
    "sports": ("the match", "a league", "the goalkeeper", "our coach"),
    "business": ("the shares", "a bank", "the price", "our profit"),
    "technology": ("the chip", "a robot", "the computer", "our phone"),
}


def facts(name: str, n: int = 2, names: tuple[str, str] = ("subject", "object")) -> list[dict[str, str]]:
    """n facts of each of four subjects a topic."""
    return [
        {names[0]: f"{subject} of {name} {i}", names[1]: topic, "uri": "Q1"}
        for i in range(n)
        for topic, subjects in TOPICS.items()
        for subject in subjects
    ]


def write(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def relation(folder: Path, name: str, template: str = "[X] is about [Y] .", *, test: bool = True) -> Path:
    for file in ("train", "dev", *(("test",) if test else ())):
        write(folder / name / f"{file}.jsonl", facts(file))
    (folder / name / "meta.json").write_text(json.dumps({"template": template, "label": "topic"}), "utf-8")
    return folder / name


def two_relations(folder: Path) -> list[Task]:
    return load_relations(relation(relation(folder, "P1").parent, "P2").parent)


CUES = SearchSpace.from_dict(
    {
        "format": "autoprompt-space/1",
        "title": "cues",
        "template": "{{ subject }} [[ cue ]] {{ answer }}.",
        "slots": {"cue": {"one_of": ["is about", "topic:", "news, section", "maybe", "whatever"]}},
    }
)
search = functools.partial(optimize_relations, strategy="random_search")


class Counting(ToyModel):
    """The toy; notes how much it is asked, and may break at a text."""

    def __init__(self, error: BaseException | None = None, at: str = "", after: int = 0) -> None:
        self.asked = 0
        self.error, self.at, self.after = error, at, after

    def ranks(self, requests: Sequence[RankRequest]) -> list[RankReply | Failure]:
        self.asked += len(requests)
        hit = any(self.at in request.rendered.text() for request in requests)
        if self.error is not None and self.asked > self.after and hit:
            raise self.error
        return super().ranks(requests)


class Narrow(Counting):
    """The toy, which knows no word "technology"."""

    def check_answers(
        self, rendered: Rendered, answers: Sequence[str], *, single_token: bool = False
    ) -> None:
        if single_token and "technology" in answers:
            raise LabelWordError("label word 'technology': 2 tokens")


def test_a_relation_becomes_a_cloze_task(tmp_path: Path) -> None:
    relation(tmp_path, "P361", "the [X] 's part : [Y] .")
    (task,) = load_relations(tmp_path)
    assert (task.name, task.kind, task.metric, task.candidates) == ("P361", "cloze", "p_at_1", "vocabulary")
    assert (task.fields, task.space) == (("subject",), None)
    assert task.prompt == "the {{ subject }}'s part: {{ answer }}."
    assert [len(task.split(role)) for role in ("train", "select", "test")] == [24, 24, 24]
    assert task.test[0].fields == {"subject": "the match of test 0"}
    assert task.test[0].target == "sports"


def test_the_files_of_lama_are_read(tmp_path: Path) -> None:
    rows = facts("lama", names=("sub_label", "obj_label"))
    write(tmp_path / "TREx" / "P17.jsonl", rows)
    write(tmp_path / "TREx" / "P9.jsonl", rows)
    templates = [{"relation": name, "template": f"[X] {name} [Y] ."} for name in ("P9", "P17", "P20")]
    write(tmp_path / "relations.jsonl", templates)
    nine, seventeen = load_relations(tmp_path / "TREx")
    assert [nine.name, seventeen.name] == ["P9", "P17"]
    assert seventeen.prompt == "{{ subject }} P17 {{ answer }}."
    parts = [seventeen.split(role) for role in ("train", "select", "test")]
    assert [len(part) for part in parts] == [6, 6, 12]
    assert len({item.id for part in parts for item in part}) == 24
    # The folder's own file of templates goes before the one above it.
    write(tmp_path / "TREx" / "relations.jsonl", [{"relation": "P9", "template": "[X] nine [Y]"}])
    assert [task.prompt for task in load_relations(tmp_path / "TREx", names=["P9", "P17"])] == [
        "{{ subject }} nine {{ answer }}",
        "{{ subject }} P17 {{ answer }}.",
    ]


def test_a_missing_test_split_is_half_of_train(tmp_path: Path) -> None:
    relation(tmp_path, "P17", test=False)
    (task,) = load_relations(tmp_path)
    assert [len(task.split(role)) for role in ("train", "select", "test")] == [12, 24, 12]
    assert not set(task.train) & set(task.test)
    (again,) = load_relations(tmp_path)
    (other,) = load_relations(tmp_path, seed=1)
    assert again == task
    assert set(other.test) != set(task.test)
    write(tmp_path / "P17" / "train.jsonl", facts("train")[:7])  # an odd number
    (task,) = load_relations(tmp_path)
    assert len(task.train) + len(task.test) == 7


def test_names_choose_and_order(tmp_path: Path) -> None:
    for name in ("P9", "P17", "P103"):
        relation(tmp_path, name)
    assert [task.name for task in load_relations(tmp_path)] == ["P9", "P17", "P103"]
    assert [task.name for task in load_relations(tmp_path, names=["P103", "P9", "P103"])] == ["P103", "P9"]
    with pytest.raises(InputError, match=r"'P104' \(did you mean 'P103'\?\); there: P9, P17, P103"):
        load_relations(tmp_path, names=["P104"])


def test_limits_are_the_most_rows_and_nested(tmp_path: Path) -> None:
    relation(tmp_path, "P17")
    (small,) = load_relations(tmp_path, limits={"train": 5, "test": 8})
    (large,) = load_relations(tmp_path, limits={"train": 9, "test": 1000})
    assert [len(small.split(role)) for role in ("train", "select", "test")] == [5, 24, 8]
    assert len(large.test) == 24
    assert set(small.train) < set(large.train)
    with pytest.raises(InputError, match="limits: no split 'dev'"):
        load_relations(tmp_path, limits={"dev": 5})


def test_a_broken_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing: no such folder"):
        load_relations(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"holds no relations\n  hint: a relation is P17/train\.jsonl"):
        load_relations(tmp_path)
    (relation(tmp_path, "P17") / "meta.json").unlink()
    with pytest.raises(InputError, match=r"P17: no template for P17"):
        load_relations(tmp_path)


FACT = '{"subject": "a", "object": "b"}\n'
BROKEN = [
    ("dev.jsonl", FACT + '{"subject": "a"', r"dev\.jsonl:2: not JSON"),
    (
        "train.jsonl",
        FACT + '{"subject": "c"}',
        r"P17/train\.jsonl:2: column 'object' .* \(got None\); columns: subject",
    ),
    ("test.jsonl", '{"sub_label": "a", "obj_label": " "}\n', r"test\.jsonl:1: column 'obj_label'"),
    ("test.jsonl", '{"text": "a", "label": "b"}\n', r"column 'subject' .* columns: text, label"),
    ("test.jsonl", "", r"test\.jsonl: holds no rows"),
    ("meta.json", "{", r"P17/meta\.json: not JSON"),
    ("meta.json", "[1]", r"P17/meta\.json: no template for P17 \(got None\)\n  hint: write"),
    ("meta.json", '{"template": 3}', r"no template for P17 \(got 3\)"),
    ("meta.json", '{"template": "[X] is ."}', r"P17/meta\.json: .*\[Y\]"),
    ("meta.json", '{"template": "it is [Y] ."}', r"P17/meta\.json: "),
    ("meta.json", '{"template": "[X] [Y] [Y] ."}', r"P17/meta\.json: "),
]


@pytest.mark.parametrize(("file", "text", "message"), BROKEN)
def test_a_broken_file_is_named(tmp_path: Path, file: str, text: str, message: str) -> None:
    (relation(tmp_path, "P17") / file).write_text(text, "utf-8")
    with pytest.raises(InputError, match=message):
        load_relations(tmp_path)


def test_objects_that_are_no_single_token_are_left_out_and_counted(tmp_path: Path) -> None:
    model = load_model(make_model("bert"))
    assert isinstance(model, ScoringModel)
    words = ["good", "Bad", "film", "Zanzibar"]
    for file, n in (("train", 16), ("dev", 12), ("test", 8)):
        own = [{"subject": f"{file} {i}", "object": words[i % 4]} for i in range(n)]
        write(tmp_path / "P17" / f"{file}.jsonl", own)
    (tmp_path / "P17" / "meta.json").write_text('{"template": "[X] is a [Y] now ."}', "utf-8")
    (task,) = load_relations(tmp_path)
    fitted = fit_relation(task, model, fewest=6)
    assert [len(fitted.split(role)) for role in ("train", "select", "test")] == [12, 9, 6]
    assert {item.target for item in fitted.test} == {"good", "Bad", "film"}
    gone = "9 of 36 facts left out: their objects (1 of 4, such as 'Zanzibar')"
    note = f"{gone} are no single token of BertForMaskedLM"
    assert fitted.notes == (note,)
    (row,) = search([task], model, 100, fewest=6).entries
    assert (row.status, row.n, row.notes) == ("complete", 6, (note,))
    assert 0 < row.manual[1] <= 1


def test_limits_count_what_is_left(tmp_path: Path) -> None:
    relation(tmp_path, "P17")
    (task,) = load_relations(tmp_path)
    fitted = fit_relation(task, Narrow(), limits={"select": 10}, fewest=16)
    assert [len(fitted.split(role)) for role in ("train", "select", "test")] == [16, 10, 16]
    with pytest.raises(InputError, match=r"train has 16 facts, and at least 17 .*; 24 of 72 facts left out"):
        fit_relation(task, Narrow(), fewest=17)


def test_a_causal_model_needs_the_object_at_the_end(tmp_path: Path) -> None:
    relation(tmp_path, "P17", "[X] plays [Y] music .")
    relation(tmp_path, "P30", "[X] plays [Y] .")
    middle, end = load_relations(tmp_path)
    assert fit_relation(end, ToyModel()) == end
    with pytest.raises(InputError, match="manual template: .*in the middle"):
        fit_relation(middle, ToyModel())
    table = search([middle, end], "toy", 200)
    assert [row.status for row in table.entries] == ["skipped", "complete"]
    assert (
        table.text().split("\n")[-1].startswith("P17: skipped: manual template: {{ answer }} stands in the")
    )


def test_figures_are_those_of_the_ranks(tmp_path: Path) -> None:
    relation(tmp_path, "P17")
    (task,) = load_relations(tmp_path)
    model = Counting()
    table = search([task], model, 500, space=CUES)
    (row,) = table.entries
    assert (row.relation, row.strategy, row.status, row.n) == ("P17", "random_search", "complete", 24)
    for text, figures in ((task.prompt, row.manual), (row.prompt, row.found)):
        requests = [RankRequest(Prompt(text).render(item.fields), item.target) for item in task.test]
        ranks = [reply.rank for reply in ToyModel().ranks(requests) if isinstance(reply, RankReply)]
        assert figures[0] == pytest.approx(sum(rank == 1 for rank in ranks) / 24)
        assert figures[1] == pytest.approx(sum(1 / rank for rank in ranks) / 24)
    assert row.calls == 5 * 24  # the manual prompt is one of the five of the space
    assert model.asked == row.calls + 2 * 24  # the second figure costs no question
    assert row.prompt != task.prompt
    assert row.found[0] > row.manual[0]
    assert 0 < row.found[1] < 1


def test_relations_do_not_depend_on_each_other(tmp_path: Path) -> None:
    tasks = two_relations(tmp_path)
    table = search(tasks, "toy", 300, space=CUES)
    one, two = ({**row, "relation": ""} for row in table.rows())
    assert one == two
    made: list[str] = []

    def own(task: Task) -> SearchSpace:
        made.append(task.name)
        return CUES

    assert search(tasks, "toy", 300, space=own) == table
    assert made == ["P1", "P2"]


def test_all_relations_are_resumed(tmp_path: Path) -> None:
    tasks = two_relations(tmp_path / "data")

    def run(model: Counting, folder: str) -> RelationTable:
        return search(tasks, model, 200, space=CUES, run_dir=tmp_path / folder)

    whole = run(Counting(), "whole")
    assert (tmp_path / "whole" / "P2" / "result.json").is_file()
    stopped = run(Counting(KeyboardInterrupt(), after=60), "cut")
    assert [row.status for row in stopped.entries] == ["interrupted"]
    assert stopped.means() == {}
    again, replay = Counting(), Counting()
    assert run(again, "cut") == run(replay, "cut") == whole
    assert (again.asked > 0, replay.asked) == (True, 0)
    # Another call on the same folders is no resumption.
    with pytest.raises(AutopromptError, match="different budget"):
        search(tasks, "toy", 300, space=CUES, run_dir=tmp_path / "cut")


def test_a_failing_relation_is_noted_and_the_others_go_on(tmp_path: Path) -> None:
    relation(tmp_path, "P1")
    relation(tmp_path, "P2", "Break: [X] is about [Y] .")
    relation(tmp_path, "P3")
    seen: list[tuple[str, str]] = []
    model = Counting(RuntimeError("out of\nmemory"), at="Break")
    table = search(
        load_relations(tmp_path), model, 200, on_relation=lambda row: seen.append((row.relation, row.status))
    )
    assert seen == [("P1", "complete"), ("P2", "failed"), ("P3", "complete")]
    assert table.entries[1].notes == ("failed: RuntimeError: out of memory",)
    assert math.isnan(table.entries[1].found[1])
    first, last = table.entries[0], table.entries[2]
    assert table.means()["manual"][0] == pytest.approx((first.manual[0] + last.manual[0]) / 2)
    assert "mean of 2" in table.text()


def test_an_error_of_every_relation_is_raised(tmp_path: Path) -> None:
    tasks = two_relations(tmp_path)
    with pytest.raises(InputError, match="budget: 10 calls do not cover"):
        search(tasks, "toy", 10)
    with pytest.raises(InputError, match="did you mean 'random_search'"):
        search(tasks, "toy", 200, strategy="random_serch")
    with pytest.raises(InputError, match="gives no probabilities"):
        search(tasks, lambda text: text, 200)
    with pytest.raises(InputError, match="one or more cloze tasks"):
        search([tasks[0], tasks[0]], "toy", 200)
    with pytest.raises(InputError, match="one or more cloze tasks"):
        search([], "toy", 200)
    with pytest.raises(InputError, match=r"limits: no split 'tset' \(did you mean 'test'\?\)"):
        search(tasks, "toy", 200, limits={"tset": 3})


def table_of(*entries: tuple[str, str, tuple[float, float]]) -> RelationTable:
    return RelationTable(
        tuple(
            RelationRow(name, strategy, "budget", 50, (0.1, 0.2), found, True, f"{{{{ subject }}}}\na|{name}")
            for name, strategy, found in entries
        )
    )


def test_strategies_stand_side_by_side() -> None:
    both = table_of(("P1", "tpe", (0.2, 0.3)), ("P2", "tpe", (0.4, 0.5))) + table_of(
        ("P1", "gcg", (0.6, 0.7))
    )
    means = both.means()
    assert list(means) == ["manual", "tpe", "gcg"]
    assert means["tpe"] == pytest.approx((0.2, 0.3))  # P2 was not searched by both
    assert means["gcg"] == pytest.approx((0.6, 0.7))
    head, one, two, mean = both.text().split("\n")
    assert head.split()[:3] == ["relation", "n", "manual"]
    assert one.split()[:8] == ["P1", "50", "10.0", "20.0", "20.0*", "30.0", "60.0*", "70.0"]
    assert two.split()[:8] == ["P2", "50", "10.0", "20.0", "40.0*", "50.0", "–", "–"]
    assert mean.split() == ["mean", "of", "1", "10.0", "20.0", "20.0", "30.0", "60.0", "70.0"]
    with pytest.raises(InputError, match="same relation by the same strategy"):
        both + table_of(("P1", "gcg", (0.1, 0.1)))


def test_markdown_has_one_cell_a_column() -> None:
    skipped = RelationRow("P3", "tpe", "skipped", notes=("skipped: too few",))
    table = table_of(("P1", "tpe", (0.2, 0.3)), ("P2", "tpe", (0.4, 0.5))) + RelationTable((skipped,))
    lines = table.markdown().split("\n")
    assert {line.replace("\\|", "").count("|") for line in lines[:6]} == {8}
    assert r"{{ subject }}⏎a\|P1" in lines[2]
    assert "skipped" in lines[4]
    assert lines[5].startswith("| mean of 2 |")
    assert lines[6:] == ["", "- P3: skipped: too few"]


def test_rows_are_json() -> None:
    table = table_of(("P1", "tpe", (0.2, 0.3))) + RelationTable((RelationRow("P2", "tpe", "failed"),))
    one, two = json.loads(json.dumps(table.rows(), allow_nan=False))
    assert one["found"] == {"p_at_1": 0.2, "mrr": 0.3}
    assert one["prompt"] == "{{ subject }}\na|P1"
    assert two["manual"] == {"p_at_1": None, "mrr": None}


def test_every_shared_relation_is_read(shared: Path) -> None:
    tasks = load_relations(shared / "data" / "facts", limits={"train": 200, "select": 100, "test": 200})
    assert len(tasks) >= 20
    for task in tasks:
        assert min(len(task.split(role)) for role in ("train", "select", "test")) >= 20
        assert "[X]" not in task.prompt
        assert " ." not in task.prompt
    prompts = {task.name: task.prompt for task in tasks}
    assert prompts["P17"] == "{{ subject }} is located in {{ answer }}."
    assert prompts["P413"] == "{{ subject }} plays in {{ answer }} position."


def test_a_real_model_knows_some_facts(shared: Path) -> None:
    model = load_model(shared_model("minilm-mlm"))
    tasks = load_relations(shared / "data" / "facts", names=["P17"])
    limits = {"train": 20, "select": 20, "test": 40}
    (row,) = search(tasks, model, 40, limits=limits).entries
    assert row.n == 40
    assert 0.05 < row.manual[0] < row.manual[1] < 1  # chance is 1 in 30,000
