"""Local edits: units, operators, what may be written in a slot, and spaces that hold edited texts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import autoprompt
from autoprompt.edits import cut, distance, edits, problem_with
from autoprompt.errors import InputError, SpecError, TemplateError
from autoprompt.inputs import load_space
from autoprompt.slots import Edit, Slot
from autoprompt.space import FixedChooser, SearchSpace
from autoprompt.strategies.grips import Grips
from autoprompt.triggers import edit_space
from tests.test_space import DEMOS, bind, make_space, make_task

SAID = "Classify the sentiment of the review as [[ words.positive ]] or negative, in one word."
ALL = Edit(ops=["delete", "swap", "add", "replace", "case"], words={"review": ["text", "opinion"]})


def texts(text: str, pool: tuple[str, ...] = (), **rules: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, edited in edits(text, Edit(**rules), pool, np.random.default_rng(0)):
        found.setdefault(name, []).append(edited)
    return found


def test_phrases_begin_at_closed_class_words_and_after_punctuation() -> None:
    units = cut(SAID, Edit()).units
    assert [unit.text + unit.end for unit in units] == [
        "Classify",
        "the sentiment",
        "of the review",
        "as",
        "[[ words.positive ]]",
        "or negative,",
        "in one word.",
    ]
    assert [unit.locked for unit in units] == [False] * 4 + [True] + [False] * 2


def test_other_units() -> None:
    assert [unit.text for unit in cut("Read it. Then say so!", Edit(unit="sentence")).units] == [
        "Read it",
        "Then say so",
    ]
    assert [unit.text for unit in cut("Read it.", Edit(unit="word")).units] == ["Read", "it"]
    one, two = cut("Is it good?\nSay it is.", Edit(lock=["it is"])).units[-2:]
    assert (one.text, one.locked, one.gap) == ("Say", False, "\n")
    assert (two.text, two.locked) == ("it is.", True)


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet="aB .,!?\n{}[]%#it\u00e9", max_size=40), st.sampled_from(["phrase", "word", "sentence"])
)
def test_a_cut_text_is_the_text(text: str, unit: Any) -> None:
    assert str(cut(text, Edit(unit=unit, lock=["it"]))) == text


def test_operators() -> None:
    found = texts(
        SAID,
        (SAID, "Read the opinion."),
        ops=["delete", "swap", "add", "replace", "case"],
        words={"review": ["text"]},
    )
    assert "The sentiment of the review as [[ words.positive ]] or negative, in one word." in found["delete"]
    assert "Classify the sentiment of the review as [[ words.positive ]] or negative." in found["delete"]
    assert (
        "Classify of the review the sentiment as [[ words.positive ]] or negative, in one word."
        in found["swap"]
    )
    assert (
        "Of the review the sentiment classify as [[ words.positive ]] or negative, in one word."
        in found["swap"]
    )
    assert (
        "Classify the opinion the sentiment of the review as [[ words.positive ]] or negative, in one word."
        in found["add"]
    )
    assert found["replace"] == [
        "Classify the sentiment of the text as [[ words.positive ]] or negative, in one word."
    ]
    assert (
        "CLASSIFY THE SENTIMENT OF THE REVIEW AS [[ words.positive ]] OR NEGATIVE, IN ONE WORD."
        in found["case"]
    )
    assert len(found["delete"]) == 6  # all but the locked one
    assert len(found["swap"]) == 15


def test_what_is_locked_stays() -> None:
    held = re.compile(r"\[\[ words\.positive \]\]")
    for name, edited in edits(SAID, Edit(lock=["in one word"]), (SAID, "Judge."), np.random.default_rng(1)):
        assert len(held.findall(edited)) == 1, (name, edited)
        assert "in one word." in edited
        assert edited != SAID


def test_line_breaks_and_ends_stay() -> None:
    found = texts(" Read it.\nSay so. ", ops=["delete"], unit="sentence")["delete"]
    assert " Read it. " in found
    assert all(edited.startswith(" ") and edited.endswith(" ") for edited in found)
    assert texts("One", ops=["delete", "swap"]) == {}


def test_edits_are_drawn_alike_from_like_generators() -> None:
    one, other = (list(edits(SAID, ALL, (SAID,), np.random.default_rng(3))) for _ in range(2))
    assert one == other
    assert len({edited for _, edited in one}) == len(one)
    assert one != list(edits(SAID, ALL, (SAID,), np.random.default_rng(4)))


def test_distance_counts_units_whatever_their_case() -> None:
    assert distance(SAID, SAID.upper().replace("WORDS.POSITIVE", "words.positive"), Edit()) == 0
    assert distance("of the review", "of the review as said", Edit()) == 1
    assert distance("one two", "two one", Edit(unit="word")) == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Judge [[ name ]] now.", ""),
        ("Judge now.", "fields and slots"),
        ("Judge [[ name ]] [[ name ]].", "fields and slots"),
        ("Judge [[ name ]] {{ text }}", "fields and slots"),
        ("Judge [[ name ]] {{", "template code"),
        ("Judge [[ name ]] \ufdd0", "template code"),
        ("Now judge what was written there about [[ name ]].", "more than 2 edits"),
    ],
)
def test_what_may_be_written_by_edits(text: str, problem: str) -> None:
    slot = Slot(one_of=["Judge [[ name ]].", "Say [[ name ]] so."], edit=Edit(max_edits=2))
    assert problem in problem_with(slot, text)
    assert bool(problem) == bool(problem_with(slot, text))


def test_what_may_be_written_by_models() -> None:
    slot = Slot.model_validate({"one_of": ["Judge."], "llm": {"longest": 20}})
    assert problem_with(slot, "Anything at all.") == ""
    assert "more than the 20 allowed" in problem_with(slot, "Anything at all, and more.")
    assert "empty" in problem_with(slot, " \n")
    assert "no option" in problem_with(Slot(one_of=["Judge."]), "Say.")


def test_a_space_rebuilds_prompts_with_edited_texts() -> None:
    space = bind(cue={"one_of": ["It was", "So I say"], "edit": {"unit": "word"}})
    prompt = space.draw(FixedChooser({}), {"cue": "So was"})
    assert prompt is not None
    assert prompt.text == "So was {{ text }} {{ answer }}"
    assert space.prompt_from(prompt.choices).key == prompt.key
    assert space.given(prompt.choices) == {"cue": "So was"}
    near = space.neighbours(prompt, np.random.default_rng(0), 3)
    assert all("So was" in each.text for each in near)
    with pytest.raises(TemplateError, match="fields and slots"):
        space.prompt_from({"cue": "So {{ text }}"})


def test_a_space_takes_demonstrations_that_are_no_set_on_offer() -> None:
    space = bind("[[ demos ]]\n\n{{ text }} [[ cue ]] {{ answer }}.", cue={"one_of": ["So:"]}, demos=DEMOS)
    train = make_task().train
    ids = [train[0].id, train[7].id]
    prompt = space.draw(FixedChooser({}), {"demos": ids})
    assert prompt is not None
    assert "text 0 So: bad.\n\ntext 7 So: good." in prompt.text
    assert prompt.choices["demos"] == ids
    assert space.prompt_from(prompt.choices).key == prompt.key
    for wrong, said in (
        (ids[:1], "allowed: 0, 2"),
        ([ids[0], ids[0]], "twice"),
        ([ids[0], "none"], "'none'"),
    ):
        assert space.draw(FixedChooser({}), {"demos": wrong}) is None
        with pytest.raises(TemplateError, match=said):
            space.prompt_from({"demos": wrong})


@pytest.mark.parametrize(
    "slots",
    [
        {"cue": {"map": {"no": ["bad"], "yes": ["good"]}, "edit": {}}},
        {"cue": {"one_of": ["a b"], "edit": {"ops": []}}},
        {"cue": {"one_of": ["a", "b"], "llm": {}}, "more": {"optional": "c", "when": {"cue": ["a"]}}},
    ],
)
def test_where_edits_do_not_go(slots: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        make_space(
            "[[ cue ]] [[ more ]] {{ text }} {{ answer }}" if "more" in slots else "[[ cue ]] {{ answer }}",
            **slots,
        )


def test_what_is_open_is_part_of_the_identity() -> None:
    plain = {"template": "[[ cue ]] {{ text }} {{ answer }}", "slots": {"cue": {"one_of": ["a", "b"]}}}
    opened = {**plain, "slots": {"cue": {"one_of": ["a", "b"], "edit": {}}}}
    assert SearchSpace.from_dict(plain).fingerprint != SearchSpace.from_dict(opened).fingerprint


def test_the_words_of_any_prompt_may_be_edited() -> None:
    task = make_task(prompt="Review: {{ text }}?\nAll in all, it was {{ answer }}.")
    space = edit_space(task, unit="word", lock=["it was"]).bind(task, answer_at_end=True)
    assert space.default().key == task.seed_prompt.key
    assert {name: slot.texts() for name, slot in space.slots.items()} == {
        "words_1": ["Review:"],
        "words_2": ["All in all, it was"],
    }
    prompt = space.draw(FixedChooser({}), {"words_2": "All, it was"})
    assert prompt is not None
    assert prompt.text == "Review: {{ text }}?\nAll, it was {{ answer }}."
    again = edit_space(task, prompt)
    assert again.slots["words_2"].texts() == ["All, it was"]
    with pytest.raises(SpecError, match="unt"):
        edit_space(task, unt="word")


def test_a_search_by_edits_alone_gets_the_manual_prompts_words() -> None:
    task = make_task()
    assert load_space(None, task, Grips()).slots == edit_space(task).slots
    assert load_space("edit", task).slots == edit_space(task).slots
    with pytest.raises(InputError, match="no slot of the space may be edited") as told:
        autoprompt.optimize(task, "toy", 100, space=make_space(cue={"one_of": ["a", "b"]}), strategy="grips")
    assert "edit: {}" in str(told.value)


def test_a_search_by_edits_begins_at_a_text_where_the_space_begins_at_none() -> None:
    """The shipped spaces begin with an empty instruction, and an empty text has no words to edit."""
    space = make_space(
        "[[ instruction ]] {{ text }} [[ cue ]] {{ answer }}",
        instruction={"one_of": ["", "Is the whole review kind?"], "edit": {}},
        cue={"one_of": ["a", "b"]},
    )
    result = autoprompt.optimize(make_task(), "toy", 60, space=space, strategy="grips")
    assert result.trials[1].choices == {"instruction": "Is the whole review kind?", "cue": "a"}
    assert sum(trial.note.startswith("instruction: ") for trial in result.trials) == 4


def test_a_whole_search_by_edits_is_written_and_read_back(tmp_path: Path) -> None:
    task = make_task(prompt="Review: {{ text }}\nAll in all, it was {{ answer }}.")
    result = autoprompt.optimize(task, "toy", 60, strategy=Grips(), run_dir=tmp_path / "run")
    assert result.status == "budget"
    edited = [trial for trial in result.trials if trial.note.startswith("words_")]
    assert len(edited) >= 8
    again = autoprompt.optimize(task, "toy", 60, strategy=Grips(), run_dir=tmp_path / "run")
    assert [trial.key for trial in again.trials] == [trial.key for trial in result.trials]
