"""Templates and prompts: brackets, the whitespace rule, escaping, checks, rendering, the sandbox."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprompt.errors import InputError, LabelWordError, TemplateError
from autoprompt.prompt import Piece, Prompt
from autoprompt.soft import SoftRows
from autoprompt.template import HOLE_END, HOLE_START, MARKS, Data, SlotValue, Template, escape

CODE = st.text(alphabet="{}%#[]-+ \nab|.'\"", max_size=24)
ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=40)


def resolve(text: str, **values: SlotValue) -> str:
    return Template(text).resolve(values)


def render(text: str, answer: str = "", **fields: object) -> str:
    return Prompt(text).render(fields).text(answer)


# ------------------------------------------------------------------------------------------- slots


def test_slots_are_replaced_and_fields_stay() -> None:
    text = resolve("[[ name ]]: {{ text }} [[cue]] {{ answer }}", name="Review", cue="It was")
    assert text == "Review: {{ text }} It was {{ answer }}"


def test_slots_inside_slots_are_replaced() -> None:
    assert resolve("[[ a ]]", a="x [[ b ]] z", b="[[ c ]]", c="y") == "x y z"


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("[[ a | lower ]]", "some text"),
        ("[[ a | upper ]]", "SOME TEXT"),
        ("[[ a|title ]]", "Some Text"),
        ("[[ a | lower | capitalize ]]", "Some text"),
    ],
)
def test_filters(reference: str, expected: str) -> None:
    assert resolve(reference, a="sOME Text") == expected


def test_filters_leave_fields_and_escapes_alone() -> None:
    assert resolve("[[ a | upper ]]", a="read {{ text }} now") == "READ {{ text }} NOW"
    upper = resolve("[[ a | upper ]] {{ answer }}", a=Data("x {{ y }}"))
    assert render(upper) == "X {{ Y }} "


def test_filters_work_on_label_words() -> None:
    assert resolve("[[ w.no | capitalize ]]", w={"no": "nein"}) == "Nein"


def test_label_words_by_label_even_with_spaces_and_slashes() -> None:
    words = {"very bad": "awful", "Sci/Tech": "tech"}
    assert resolve("[[ w.very bad ]], [[ w.Sci/Tech ]]", w=words) == "awful, tech"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[ nme ]]", r"no slot named 'nme' \(did you mean 'name'\?\); slots: name, words"),
        ("[[ name | lowr ]]", r"no slot filter 'lowr' \(did you mean 'lower'\?\); filters: "),
        ("[[ name.x ]]", r"slot 'name' has no parts"),
        ("[[ words ]]", r"one word per label: write \[\[ words.LABEL \]\] with LABEL one of no, yes"),
        ("[[ words.maybe ]]", r"LABEL one of no, yes \(got 'maybe'\)"),
        ("[[ name", r"cannot read the slot at '\[\[ name'"),
        ("[[ name ]", r"cannot read the slot"),
        ("[[ name\n]]", r"cannot read the slot"),
        ("[[ ]]", r"cannot read the slot"),
        ("[[ 1a ]]", r"cannot read the slot"),
        ("ok [[ name ]] but [[ na me ]]", r"cannot read the slot at '\[\[ na me"),
    ],
)
def test_wrong_slots_are_explained(text: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        resolve(text, name="x", words={"no": "no", "yes": "yes"})


def test_errors_say_where_and_are_input_errors() -> None:
    with pytest.raises(InputError, match=r"my.yaml: template: no slot named 'b'"):
        Template("[[ b ]]", "my.yaml: template").resolve({})
    with pytest.raises(TemplateError, match=r"template: slot a: no slot named 'b'"):
        resolve("[[ a ]]", a="[[ b ]]")


def test_circles_are_refused() -> None:
    with pytest.raises(TemplateError, match="in a circle: a -> b -> a"):
        resolve("[[ a ]]", a="[[ b ]]", b="[[ a ]]")


def test_references_in_order_each_once() -> None:
    assert Template("[[ b ]] [[ a.x ]] [[ b | lower ]]").references() == ["b", "a"]


def test_single_brackets_are_text() -> None:
    assert resolve("[a] [ [b] ]") == "[a] [ [b] ]"


# --------------------------------------------------------------------------------- white space rule


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("[[ a ]]\nx", {"a": ""}, "x"),
        ("x\n[[ a ]]\ny", {"a": ""}, "x\ny"),
        ("x\n\n[[ a ]]\n\ny", {"a": ""}, "x\n\ny"),
        ("x\n\n[[ a ]]\n\n[[ b ]]\n\ny", {"a": "", "b": ""}, "x\n\ny"),
        ("x\n\n[[ a ]]\n\n[[ b ]]\n\ny", {"a": "", "b": "B"}, "x\n\nB\n\ny"),
        ("[[ a ]][[ b ]]\nx", {"a": "", "b": ""}, "x"),
        ("[[ a ]] [[ b ]]\nx", {"a": "", "b": ""}, "x"),
        ("x\n\n\ny", {}, "x\n\n\ny"),
        ("[[ a ]] x", {"a": ""}, "x"),
        ("x [[ a ]] y", {"a": ""}, "x y"),
        ("x [[ a ]]", {"a": ""}, "x"),
        ("x[[ a ]]", {"a": " y"}, "x y"),
        ("x[[ a ]].", {"a": ""}, "x."),
        ("x [[ a ]] [[ b ]] y", {"a": "", "b": ""}, "x y"),
        ("[[ a ]][[ b ]] x", {"a": "", "b": " hint"}, "hint x"),
        ("\n\n  x", {}, "  x"),
        ("x \n\n", {}, "x"),
        ("x\n\n[[ a ]]", {"a": ""}, "x"),
        ("[[ a ]]\nz", {"a": "[[ b ]]\ny", "b": ""}, "y\nz"),
        ("[[ a ]]\n\nz", {"a": "y\n\n[[ b ]]", "b": ""}, "y\n\nz"),
        ("[[ a ]]\n\nz", {"a": "[[ b ]]\n\n[[ c ]]", "b": "", "c": ""}, "z"),
    ],
)
def test_empty_slots_leave_no_trace(text: str, values: dict[str, str], expected: str) -> None:
    assert resolve(text, **values) == expected


def test_blank_lines_and_spaces_inside_data_stay() -> None:
    data = Data(" a\n\n\n b  ")
    assert render(resolve("x\n[[ d ]]|{{ answer }}", d=data)) == "x\n a\n\n\n b  |"
    assert render(resolve("x [[ e ]][[ d ]][[ e ]]\n{{ answer }}", d=data, e="")) == f"x {data}\n"


# ---------------------------------------------------------------------------------------- escaping


@pytest.mark.parametrize(
    "data",
    ["{{ x }}", "{% if %}", "{# no #}", "[[ slot ]]", "{{{{", "{{{%", "[[[[", "{", "a{", "a[", "{%- raw %}",
     "{% endraw %}", "{{ answer }}", "{##}", "[{", "{[[", "x\n{", "{{-", "}}", "%}", "]]", "#", ""],
)  # fmt: skip
def test_data_stay_text(data: str) -> None:
    text = resolve("<[[ d ]]> {{ answer }}", d=Data(data))
    assert "[[" not in text
    assert Prompt(text).fields() == set()
    assert render(text, "A") == f"<{data}> A"
    assert render(resolve("<[[ w.l ]]> {{ answer }}", w={"l": data}), "A") == f"<{data}> A"


@given(before=CODE, data=CODE, after=CODE)
@settings(max_examples=200, deadline=None)
def test_any_data_stay_text_wherever_they_meet(before: str, data: str, after: str) -> None:
    text = Template("<[[ a ]][[ b ]][[ c ]]>{{ answer }}").resolve(
        {"a": Data(before), "b": Data(data), "c": Data(after)}
    )
    assert "[[" not in text
    assert render(text, "A") == f"<{before}{data}{after}>A"


@given(ANY_TEXT)
@settings(max_examples=200, deadline=None)
def test_escape_is_exact(data: str) -> None:
    clean = "".join("\ufffd" if character in MARKS else character for character in data)
    assert render(escape(data) + "{{ answer }}", "A") == clean + "A"


def test_a_bracket_beside_data_makes_no_code() -> None:
    text = resolve("{[[ d ]]} [[[ e ]]] {{ answer }}", d=Data("{ text }"), e=Data("[x"))
    assert render(text) == "{{ text }} [[x] "
    assert resolve("{[[ d ]]", d="") == "{"


def test_a_resolved_prompt_is_a_template_again() -> None:
    text = resolve("[[ d ]] {{ text }} {{ answer }}", d=Data("a [[ b ]] {{ c }}"))
    assert Template(text).resolve({}) == text


# ---------------------------------------------------------------------------------------- rendering


def test_rendering_keeps_fields_apart() -> None:
    rendered = Prompt("Text: {{ text }} It was {{ answer }}!").render({"text": "nice"})
    assert rendered.before == (Piece("Text: "), Piece("nice", is_field=True), Piece(" It was "))
    assert rendered.after == (Piece("!"),)
    assert rendered.text("good") == "Text: nice It was good!"


def test_field_values_are_never_read_as_code() -> None:
    value = "{{ answer }} {% raw %} [[ slot ]]"
    rendered = Prompt("{{ text }} {{ answer }}").render({"text": value})
    assert rendered.before[0] == Piece(value, is_field=True)


@pytest.mark.parametrize("mark", sorted(MARKS))
def test_field_values_cannot_pass_for_marks(mark: str) -> None:
    rendered = Prompt("{{ text }} {{ answer }}.").render({"text": f"a{mark}b"})
    assert rendered.before == (Piece("a\ufffdb", is_field=True), Piece(" "))


def test_templates_cannot_hold_marks() -> None:
    with pytest.raises(TemplateError, match="non-character"):
        Prompt(f"{{{{ text }}}} {min(MARKS)} {{{{ answer }}}}").check({"text"})


def test_lists_filters_and_conditions_of_jinja_work() -> None:
    listing = "{% for c in choices %}- {{ c }}\n{% endfor %}"
    text = listing + "{% if title %}{{ title | upper }}{% endif %} {{ answer }}"
    assert render(text, "A", choices=["x", "y"], title="t") == "- x\n- y\nT A"


def test_missing_field_is_an_error_that_lists_the_fields() -> None:
    with pytest.raises(TemplateError, match="'txt' is undefined; the example has label, text"):
        Prompt("{{ txt }} {{ answer }}").render({"text": "x", "label": "y"})


@pytest.mark.parametrize(
    "expression",
    [
        "''.__class__",
        "text.__class__.__mro__",
        "text.__init__.__globals__",
        "text.format.__self__.__class__",
        "(text | attr('__class__'))",
        "''['__class__']",
    ],
)
def test_the_sandbox_gives_no_way_out(expression: str) -> None:
    with pytest.raises(TemplateError, match=r"unsafe|undefined|has no"):
        Prompt(f"{{{{ {expression} }}}} {{{{ answer }}}}").render({"text": "x"})


@pytest.mark.parametrize("expression", ["1 // 0", "text + 1", "text | round", "range(10 ** 9)", "text.x.y"])
def test_failing_expressions_are_template_errors(expression: str) -> None:
    with pytest.raises(TemplateError, match="prompt: "):
        Prompt(f"{{{{ {expression} }}}} {{{{ answer }}}}").render({"text": "x"})


def test_chance_is_refused() -> None:
    with pytest.raises(TemplateError, match="random"):
        Prompt("{{ choices | random }} {{ answer }}").check({"choices"})


@pytest.mark.parametrize(
    "text", ["{{ text } {{ answer }}", "{% if text %}{{ answer }}", "{{ text | no }}{{ answer }}"]
)
def test_syntax_errors_are_template_errors_with_a_line(text: str) -> None:
    with pytest.raises(TemplateError, match="prompt: line 1: "):
        Prompt(text).check({"text"})


# ----------------------------------------------------------------------------------------- checking


def test_a_good_prompt_passes() -> None:
    Prompt("{{ a }} {{ b }} It was {{ answer }}.").check({"a", "b", "c"}, answer_at_end=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ text }}", r"exactly once \(found 0 times\)"),
        ("{{ text }} {{ answer }} {{ answer }}", r"exactly once \(found 2 times\)"),
        ("{{ text }} {{ answer | upper }}", r"exactly once \(found 0 times\)"),
        ("{{ text }} {{ answer }} {{ answer | upper }}", r"exactly once \(found 2 times\)"),
        ("{{ txt }} {{ answer }}", r"no field 'txt' \(did you mean 'text'\?\); fields: text, title"),
        ("It was {{ answer }}", r"reads none of the task's fields \(text, title\)"),
    ],
)
def test_bad_prompts_are_explained(text: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        Prompt(text).check({"text", "title"})


@pytest.mark.parametrize("tail", [".", "!", '"', " .", ")", ""])
def test_punctuation_may_follow_the_answer(tail: str) -> None:
    Prompt("{{ text }} {{ answer }}" + tail).check({"text"}, answer_at_end=True)


@pytest.mark.parametrize(
    "text", ["{{ answer }} is what I think of {{ text }}", "{{ text }} a {{ answer }} film"]
)
def test_the_answer_in_the_middle_is_for_masked_models(text: str) -> None:
    Prompt(text).check({"text"}, answer_at_end=False)
    with pytest.raises(TemplateError, match="in the middle"):
        Prompt(text).check({"text"}, answer_at_end=True)
    with pytest.raises(TemplateError, match="hint: move"):
        Prompt(text).check({"text"}, answer_at_end=True)


def test_escaped_answers_do_not_count() -> None:
    text = resolve("[[ d ]] {{ text }} {{ answer }}", d=Data("{{ answer }}"))
    Prompt(text).check({"text"}, answer_at_end=True)


# ------------------------------------------------------------------------------------------ identity


def test_key_is_content() -> None:
    prompt = Prompt("{{ text }} {{ answer }}", {"a": ("x",), "b": ("y",)}, {"slot": "1"})
    same = Prompt("{{ text }} {{ answer }}", {"b": ("y",), "a": ("x",)}, {"slot": "2"})
    assert prompt == same
    assert prompt.key == same.key
    assert hash(prompt) == hash(same)
    assert prompt.key != Prompt(prompt.text, {"a": ("y",), "b": ("x",)}).key
    assert prompt.key != Prompt(prompt.text + " ", prompt.words).key
    assert len(prompt.key) == 32
    assert set(prompt.key) <= set(string.hexdigits)


def test_fields() -> None:
    prompt = Prompt("{{ text }} {% if b %}{{ c }}{% endif %} {{ answer }}", {"a": ("x", "z"), "b": ("y",)})
    assert prompt.fields() == {"text", "b", "c"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"a": "good", "b": ("bad",)}, "expected a tuple"),
        ({"a": (), "b": ("bad",)}, "one or more words"),
        ({"a": (" good",), "b": ("bad",)}, "without spaces around"),
        ({"a": ("good",), "b": ("good",)}, "stands for both 'a' and 'b'"),
    ],
)
def test_label_words_that_would_be_misread_are_refused(words: dict[str, Any], said: str) -> None:
    with pytest.raises(LabelWordError, match=said):
        Prompt("{{ text }} {{ answer }}", words)


def test_rows_are_part_of_what_a_prompt_is() -> None:
    frame = f"{{{{ text }}}} {HOLE_START}a{HOLE_END} {{{{ answer }}}}"
    hard = Prompt.of_frame(frame, {"a": "some words"}, {}, {})
    one, other = (hard.softened({"a": SoftRows([[value, 0.0]] * 2)}) for value in (1.0, 2.0))
    assert len({hard, one, other}) == 3
    assert one == hard.softened({"a": SoftRows([[1.0, 0.0]] * 2)})
    assert one.hardened() == hard
    assert one.filled({"a": "other words"}).soft == {}
    piece = next(piece for piece in one.render({"text": "x"}).before if piece.slot)
    assert (piece.text, piece.rows) == ("some words", one.soft["a"])
    assert all(not piece.slot for piece in hard.render({"text": "x"}).before)
    with pytest.raises(TemplateError, match="no token slot 'b'"):
        hard.softened({"b": SoftRows([[1.0]])})


@pytest.mark.parametrize("values", [[[]], [[float("nan")]], [[float("inf")]]])
def test_rows_are_a_matrix_of_finite_numbers(values: list[list[float]]) -> None:
    with pytest.raises(InputError, match="soft rows"):
        SoftRows(values)


def test_a_slot_in_a_finished_prompt_is_refused_and_brackets_can_be_written() -> None:
    with pytest.raises(TemplateError, match=r"\[\[A\]\] is a slot of a search space") as caught:
        Prompt("{{ text }} Verdict, [[A]] or [[B]]: {{ answer }}").check({"text"})
    assert "write [{##}[ for [[" in caught.value.hint
    prompt = Prompt("{{ text }} Verdict, [{##}[A]] or [{##}[B]]: {{ answer }}")
    prompt.check({"text"})
    assert prompt.render({"text": "[[ x ]]"}).text("[[A]]") == "[[ x ]] Verdict, [[A]] or [[B]]: [[A]]"
