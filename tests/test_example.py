"""Raw rows into examples: which columns are fields, and which answer is meant."""

from __future__ import annotations

import math

import pytest

from autoprompt.errors import DataError
from autoprompt.task import Example, Task


def test_identity_is_content() -> None:
    one, two = Example({"a": "x", "b": "y"}, "t"), Example({"b": "y", "a": "x"}, "t")
    assert one == two
    assert hash(one) == hash(two)
    assert one != Example({"a": "x", "b": "y"}, "u")
    assert one.question == Example({"a": "x", "b": "y"}, "u").question
    assert Example({"a": "1"}, "t", choices=("p", "q")) != Example({"a": "1"}, "t", choices=("q", "p"))


@pytest.mark.parametrize("raw", [0, 0.0, "0", False])
def test_raw_values_meet_label_names_as_text(raw: object) -> None:
    names = {"false": "neg"} if raw is False else {0: "neg"}
    rows = [{"text": f"t{i}", "label": raw if i % 2 else "x"} for i in range(20)]
    task = Task.from_rows(rows, label_names={**names, "x": "pos"})
    assert {e.target for e in task.test} == {"neg", "pos"}


def test_multiple_choice() -> None:
    rows = [
        {"question": f"q{i}", "options": ["red", "green", "blue"], "answer": i % 3 if i < 15 else "blue"}
        for i in range(30)
    ]
    task = Task.from_rows(rows, kind="multiple_choice", choices="options", normalize=True)
    assert task.fields == ("question",)
    assert task.labels == ()
    assert all(e.target in e.choices and e.choices == ("red", "green", "blue") for e in task.test)
    wide = [{"q": f"q{i}", "a": "x", "b": f"y{i}", "label": 1} for i in range(12)]
    task = Task.from_rows(wide, kind="multiple_choice", choices=("a", "b"))
    assert task.test[0].target == task.test[0].choices[1]
    rows[3]["answer"] = "purple"
    with pytest.raises(DataError, match=r"row 4: column 'answer': 'purple' is neither one of the choices"):
        Task.from_rows(rows, kind="multiple_choice", choices="options")
    rows[3] = {**rows[3], "options": ["red"]}
    with pytest.raises(DataError, match="row 4: choices: at least two different choices"):
        Task.from_rows(rows, kind="multiple_choice", choices="options")


def test_numbers_are_no_fields_unless_asked_for() -> None:
    rows = [{"id": i, "text": None if i == 0 else f"text {i % 20}", "label": "ab"[i % 2]} for i in range(80)]
    task = Task.from_rows(rows[1:])
    assert task.fields == ("text",)
    assert task.notes, "repeated texts are found although every row has another id"
    assert Task.from_rows(rows[1:], fields=["text", "id"]).fields == ("text", "id")
    with pytest.raises(DataError, match="column 'text' is empty"):
        Task.from_rows(rows)


def test_a_number_is_a_place_among_the_choices() -> None:
    rows = [{"question": f"q{i}", "choices": ["10", "2", "1", "0"], "answer": i % 4} for i in range(40)]
    task = Task.from_rows(rows, kind="multiple_choice", choices="choices")
    assert {(item.fields["question"][1:], item.target) for item in task.test} <= {
        (str(i), ["10", "2", "1", "0"][i % 4]) for i in range(40)
    }
    rows[3]["answer"] = 4
    with pytest.raises(DataError, match="4 is no place among the 4 choices"):
        Task.from_rows(rows, kind="multiple_choice", choices="choices")


def test_a_field_called_answer_is_refused_or_left_out() -> None:
    rows = [{"text": f"t{i}", "answer": "x", "label": "ab"[i % 2]} for i in range(40)]
    assert Task.from_rows(rows).fields == ("text",)
    with pytest.raises(DataError, match="no field can be called 'answer'"):
        Task.from_rows(rows, fields=["text", "answer"])


def test_fields_are_judged_over_all_rows_and_all_splits() -> None:
    rows = [
        {"mixed": i if i % 2 else f"n{i}", "tags": [f"t{i}"], "text": f"text {i}", "label": "ab"[i // 2 % 2]}
        for i in range(40)
    ]
    assert Task.from_rows(rows).fields == Task.from_rows(rows[1:]).fields == ("tags", "text")
    late = [{**row, "mixed": "text"} for row in rows]
    assert Task.from_rows(late).fields == ("mixed", "tags", "text")
    assert Task.from_rows({"train": late[:20], "test": rows[20:]}).fields == ("tags", "text")


def test_text_that_is_a_choice_and_the_place_of_another_is_refused() -> None:
    rows = [{"question": f"q{i}", "choices": ["10", "2", "1", "0"], "answer": "10"} for i in range(40)]
    task = Task.from_rows(rows, kind="multiple_choice", choices="choices")
    assert {item.target for item in task.test} == {"10"}
    rows[3]["answer"] = "1"
    message = r"row 4: .* '1' is the choice '1' and also the place .* of the choice '2'"
    with pytest.raises(DataError, match=message):
        Task.from_rows(rows, kind="multiple_choice", choices="choices")
    rows[3]["choices"] = ["0", "1"]  # both readings agree
    rows[3]["question"] = "agree"
    agreed = Task.from_rows(rows, kind="multiple_choice", choices="choices")
    everything = (*agreed.train, *agreed.select, *agreed.test)
    assert [item.target for item in everything if item.fields["question"] == "agree"] == ["1"]


def test_label_names_come_before_places() -> None:
    rows = [{"question": f"q{i}", "choices": ["red", "green"], "answer": 1 + i % 2} for i in range(40)]
    task = Task.from_rows(rows, kind="multiple_choice", choices="choices", label_names={1: 0, 2: 1})
    assert all(e.target == ["red", "green"][int(e.fields["question"][1:]) % 2] for e in task.test)


def test_columns_of_text_that_no_template_can_name_are_told() -> None:
    rows = [
        {"title": f"t{i}", "Review text": f"r{i}", "loop": "x", "n-th": i, "label": "ab"[i % 2]}
        for i in range(20)
    ]
    told = Task.from_rows(rows)
    assert told.fields == ("title",)
    assert [note.partition(",")[0] for note in told.notes] == [
        "column 'Review text' is not read",
        "column 'loop' is not read",
    ]
    assert "among them {Review_text: Review text} (" in told.notes[0]
    assert "among them {the_loop: loop} (" in told.notes[1]
    named = {"title": "title", "Review_text": "Review text"}
    assert Task.from_rows(rows, fields=named).notes == ()
    alone = [{"Review text": row["Review text"], "label": row["label"]} for row in rows]
    for fields in (None, ["Review text"]):
        with pytest.raises(DataError, match="no field can be called 'Review text'") as caught:
            Task.from_rows(alone, fields=fields)
        assert "fields={'Review_text': 'Review text'" in caught.value.hint


def test_a_field_that_holds_the_answer_is_told() -> None:
    rows = [{"text": f"t{i}", "label": "ab"[i % 2]} for i in range(20)]
    assert Task.from_rows(rows).notes == ()
    (note,) = Task.from_rows(rows, fields=["text", "label"]).notes
    assert (
        note
        == "field 'label' is the column of the answer ('label'): a prompt that shows it gives the answer away"
    )


def test_the_nan_of_pandas_is_an_empty_cell_and_hides_no_column() -> None:
    rows = [{"title": f"t{i}", "body": f"b{i}", "label": "ab"[i % 2]} for i in range(20)]
    rows[7]["body"] = math.nan  # type: ignore[assignment]
    with pytest.raises(
        DataError, match=r"row 8: column 'body' is empty \(NaN\), but it is needed for field 'body'"
    ):
        Task.from_rows(rows)
    sums = [{"q": f"{i}", "steps": f"so {i}" if i % 2 else math.nan, "answer": f"{i}"} for i in range(20)]
    task = Task.from_rows(sums, kind="generation", worked="steps")
    assert {bool(each.worked) for each in task.train} == {True, False}
