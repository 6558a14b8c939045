"""What a file of a search space may say, and how mistakes in it are explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autoprompt.errors import InputError, SpecError, TemplateError, UnknownName
from autoprompt.space import SearchSpace
from tests.test_space import WORDS, bind, make_space, make_task


def test_fingerprint_is_content() -> None:
    space = make_space(cue={"one_of": ["a", "b"]})
    titled = SearchSpace.from_dict(
        {"title": "x", "template": space.spec.template, "slots": {"cue": {"one_of": ["a", "b"]}}}
    )
    assert space.fingerprint == titled.fingerprint == space.bind(make_task(), answer_at_end=True).fingerprint
    assert space.fingerprint != make_space(cue={"one_of": ["b", "a"]}).fingerprint
    assert space.names == ("cue",)
    assert space.slots["cue"].one_of == ["a", "b"]


@pytest.mark.parametrize(
    ("slot", "message"),
    [
        ({}, "needs exactly one of one_of, optional, map, pick, order, tokens .got none"),
        ({"one_of": ["a"], "optional": "b"}, "exactly one of .* .got one_of, optional"),
        ({"one_of": []}, "slots.cue.one_of"),
        ({"one_of": ["a", "a"]}, "one_of: 'a' is listed twice"),
        ({"optional": ""}, "optional: '' is listed twice"),
        ({"one_off": ["a"]}, "slots.cue.one_off"),
        ({"one_of": [1]}, r"slots.cue.one_of\[0\]"),
        ({"one_of": ["a"], "tied": True}, "tied goes with map only"),
        ({"map": {"no": ["a", "b"], "yes": ["c"]}, "tied": True}, r"needs as many \(no: 2, yes: 1\)"),
        ({"map": {"no": [], "yes": ["c"]}}, "map.no: needs at least one label word"),
        ({"map": {"no": [""], "yes": ["c"]}}, "map.no: needs at least one label word, none of them empty"),
        ({"map": {"no": ["a", "a"], "yes": ["c"]}}, "map.no: 'a' is listed twice"),
        ({"pick": {"k": [0, 0], "template": "x"}}, "pick.k: 0 is listed twice"),
        ({"pick": {"k": [-1], "template": "x"}}, "slots.cue.pick.k"),
        ({"pick": {"k": [1]}}, "slots.cue.pick.template"),
        ({"pick": {"k": [1], "template": "x", "per_label": "equl"}}, "slots.cue.pick.per_label"),
        ({"order": {"sections": ["a", "b"], "last": "c"}}, "order.last: 'c' is not one of the sections"),
        ({"order": {"sections": ["a", "a"]}}, "order.sections: 'a' is listed twice"),
        ({"order": {"sections": ["cue", "cue2"]}}, "no slot named 'cue2' .did you mean 'cue'"),
        ({"one_of": ["[[ cue ]]"]}, "in a circle: cue -> cue"),
        (
            {"one_of": ["[[ que ]]"]},
            r"cue.one_of\[0\]: no slot named 'que' \(did you mean 'cue'\?\); slots: cue",
        ),
        ({"one_of": ["a"], "when": {"que": ["x"]}}, "when.que: no slot named 'que'"),
    ],
)
def test_wrong_slots_are_explained(slot: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make_space(cue=slot)


def test_wrong_structures_are_explained() -> None:
    one = {"one_of": ["a", "b"]}
    with pytest.raises(SpecError, match=r"template: no slot named 'cu' \(did you mean 'cue'\?\); slots: cue"):
        make_space("[[ cu ]] {{ text }} {{ answer }}", cue=one)
    with pytest.raises(SpecError, match=r"slots\.dead: is never used"):
        make_space(cue=one, dead=one)
    with pytest.raises(SpecError, match="in a circle: a -> b -> a"):
        make_space("[[ a ]] {{ text }} {{ answer }}", a={"one_of": ["[[ b ]]"]}, b={"optional": "x [[ a ]]"})
    with pytest.raises(SpecError, match="'x' is no option of 'cue'"):
        make_space(
            "[[ cue ]][[ b ]] {{ text }} {{ answer }}", cue=one, b={"optional": "c", "when": {"cue": ["x"]}}
        )
    with pytest.raises(SpecError, match="given already by the slot 'words'"):
        make_space("{{ text }} {{ answer }}", words=WORDS, others=WORDS)
    with pytest.raises(TemplateError, match=r"slots.cue.one_of\[1\]: cannot read the slot at '\[\[ x'"):
        make_space(cue={"one_of": ["a", "b [[ x"]})
    with pytest.raises(SpecError, match="slots"):
        SearchSpace.from_dict({"template": "{{ answer }}", "slots": {"a b": one}})
    with pytest.raises(SpecError, match="templat"):
        SearchSpace.from_dict({"templat": "{{ answer }}"})


@pytest.mark.parametrize(
    ("template", "slots", "message"),
    [
        ("{{ txt }} {{ answer }}", {}, r"template: the task 'toy' has no field 'txt' \(did you mean 'text'"),
        (
            "{{ text }} [[ cue ]] {{ answer }}",
            {"cue": {"one_of": ["a", "{{ titel }}"]}},
            r"slots.cue.one_of\[1\]: the task 'toy' has no field 'titel' \(did you mean 'title'\?\)",
        ),
        (
            "{{ text }} [[ cue ]] {{ answer }}",
            {"cue": {"one_of": ["a", "{{ x"]}},
            r"slots.cue.one_of\[1\]: prompt: line 1",
        ),
        ("{{ text }}", {}, r"template: \{\{ answer \}\} must stand exactly once \(found 0"),
        ("[[ words.nope ]] {{ text }} {{ answer }}", {}, r"with LABEL one of no, yes \(got 'nope'\)"),
        ("{{ answer }} is {{ text }}", {}, "in the middle"),
        (
            "{{ text }} {{ answer }}",
            {"words": {"map": {"no": ["a"], "yess": ["b"]}}},
            r"slots.words.map: must be the labels of the task 'toy', which are no, yes \(got no, yess\) "
            r"\(did you mean 'yes'\?\)",
        ),
        (
            "{{ text }} {{ answer }}",
            {"words": {"map": {"no": ["a"], "yes": ["a"]}}},
            "one word stands for two labels: no=a, yes=a",
        ),
        (
            "[[ d ]] {{ text }} {{ answer }}",
            {"d": {"pick": {"k": [0, 60], "template": "{{ text }}"}}},
            "60 demonstrations, but",
        ),
        (
            "[[ d ]] {{ text }} {{ answer }}",
            {"d": {"pick": {"k": [0, 2], "template": "{{ text }}"}}},
            "pick.template: .* exactly once",
        ),
    ],
)
def test_a_space_that_does_not_fit_the_task_is_explained(
    template: str, slots: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        bind(template, **slots)


def test_declared_fields_and_labels_must_be_the_tasks() -> None:
    content = {"template": "{{ text }} {{ answer }}", "fields": ["text", "titles"]}
    with pytest.raises(
        SpecError, match=r"fields\[1\]: the task 'toy' has no field 'titles' \(did you mean 'title'"
    ):
        SearchSpace.from_dict(content).bind(make_task(), answer_at_end=True)
    with pytest.raises(SpecError, match="labels: must be the labels of the task 'toy', which are no, yes"):
        SearchSpace.from_dict({**content, "fields": ["text"], "labels": ["no"]}).bind(
            make_task(), answer_at_end=True
        )


def test_files_are_read_strictly_and_errors_carry_the_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "format: autoprompt-space/1\ntitle: mine\nabout: ''\n"
        "template: |\n  [[ cue ]] {{ text }} {{ answer }}\n"
        "slots:\n  cue:\n    one_of:\n      - yes\n      - |\n        two\n      - '[[ cu ]]'\n"
    )
    with pytest.raises(
        SpecError, match=r"mine.yaml:12: slots.cue.one_of\[2\]: no slot named 'cu' \(did you mean"
    ):
        SearchSpace.load(path)
    path.write_text(path.read_text().replace("[[ cu ]]", "{{ titel }}"))
    with pytest.raises(
        TemplateError, match=r"mine.yaml:12: slots.cue.one_of\[2\]: the task 'toy' has no field 'titel'"
    ):
        SearchSpace.load(path).bind(make_task(), answer_at_end=True)
    path.write_text(path.read_text().replace("{{ titel }}", "three"))
    space = SearchSpace.load(path)
    assert space.slots["cue"].one_of == ["yes", "two", "three"]
    assert space.name == "mine"
    path.write_text(path.read_text().replace("one_of", "one_if"))
    with pytest.raises(
        SpecError, match=r"mine.yaml:8: slots.cue.one_if: unknown key \(did you mean 'one_of'\?\)"
    ):
        SearchSpace.load(path)
    with pytest.raises(UnknownName, match="sentimant"):
        SearchSpace.load("sentimant")
