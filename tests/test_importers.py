from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from autoprompt.errors import AutopromptError, InputError, LabelWordError, TemplateError, UnknownName
from autoprompt.importers import FORMS, Imported, import_template, import_verbalizer
from autoprompt.prompt import Prompt
from autoprompt.space import SearchSpace
from autoprompt.template import Data, Template
from tests.small import small_task

REVIEW = {"sentence": "No reason to watch.", "text": "No reason to watch."}
PAIR = {"premise": "He eats an apple.", "hypothesis": "He Eats fruit."}


def rendered(imported: Imported, fields: dict[str, Any], answer: str, **slots: str) -> str:
    """The text of an imported template for one example, its token slots holding these texts."""
    words = {label: Data(f"<{label}>") for label in imported.labels}
    values: dict[str, Any] = {name: Data(text) for name, text in slots.items()}
    prompt = Prompt(Template(imported.template).resolve({**values, **({"words": words} if words else {})}))
    prompt.check(set(fields))
    assert prompt.fields() == set(imported.fields)
    SearchSpace.from_dict(imported.space())
    return prompt.render(fields).text(answer)


# What each tool feeds its model, marks of the tokenizer left out, worked out by hand from its documentation.
ONE_TO_ONE: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("{sentence} It was [P] .", {}, REVIEW, "No reason to watch. It was bad ."),
    ("[CLS] {sentence} It was [P]. [SEP]", {}, REVIEW, "No reason to watch. It was bad."),
    ("<s> {{{sentence}}} is [P] </s>", {}, REVIEW, "{No reason to watch.} is bad"),
    ("[CLS] {premise} [SEP] {hypothesis} [P] . [SEP]", {}, PAIR, "He eats an apple.\nHe Eats fruit. bad ."),
    ("*cls**sent_0*_It_was*mask*.*sep+*", {"fields": ["text"]}, REVIEW, "No reason to watch. It was bad."),
    ("*cls*_This_is*mask*.*+sent_0**sep+*", {"fields": ["text"]}, REVIEW, " This is bad. No reason to watch."),
    ("*cls**mask*:_*sent_0*", {"fields": ["text"]}, REVIEW, "bad: No reason to watch."),
    ("*cls**sent-_0*?*mask*,*+sentl_1**sep+*", {"fields": ["premise", "hypothesis"]}, PAIR,
     "He eats an apple? bad, he Eats fruit."),
    ("*cls**sentl-_0*!*mask*,_I_think*+sentu_1**sep+*", {"fields": {"sent_0": "premise", "sent_1": "hypothesis"}}, PAIR,
     "he eats an apple! bad, I think He Eats fruit."),
    ("*cls**sent_0**sep+**sent_1*_?*mask**sep+*", {"fields": ["premise", "hypothesis"]}, PAIR,
     "He eats an apple.\nHe Eats fruit. ? bad"),
    ('{"placeholder":"text_a"} It was {"mask"}.', {"fields": ["text"]}, REVIEW, "No reason to watch. It was bad."),
    ("{'meta':  'sentence', 'shortenable': False,}   {\"text\": \"It is\"}  {'mask'}!", {}, REVIEW,
     "No reason to watch. It is bad!"),
    ('{"placeholder": "text_a", "post_processing": lambda s: s.rstrip(string.punctuation)}? {"mask"}, '
     '{"placeholder": "text_b", "post_processing": lambda y: y[:1].lower() + y[1:]}',
     {"fields": ["premise", "hypothesis"]}, PAIR, "He eats an apple? bad, he Eats fruit."),
    ('{"meta": "premise", "post_processing": lambda x: x+" {{x}}, ok"} {"mask"} {"special": "<eos>"}',
     {"form": "openprompt"}, PAIR, "He eats an apple. {{x}}, ok bad"),
    ('{"meta": "premise", "post_processing": str.upper} 第{"mask"}句', {}, PAIR, "HE EATS AN APPLE. 第bad句"),
    ("[X] is located in [Y] .", {}, {"subject": "Rome"}, "Rome is located in bad."),
    ("[X] 's town ( near [Y] ) , [X] ?", {"fields": ["place"]}, {"place": "Rome"}, "Rome's town (near bad), Rome?"),
    ("[X] capit ##al 2019 [Y] .", {}, {"subject": "Rome"}, "Rome capital 2019 bad."),
    ("Review: {text}\nSentiment: {answer}", {}, REVIEW, "Review: No reason to watch.\nSentiment: bad"),
    ("Review: {text}\nSentiment:", {}, REVIEW, "Review: No reason to watch.\nSentiment: bad"),
    ("Review: {text}\nSentiment:\n", {}, REVIEW, "Review: No reason to watch.\nSentiment:\nbad"),
    ('{{"review": "{text}", "x": {{% if %}}}} {{#{answer}#}}', {}, REVIEW,
     '{"review": "No reason to watch.", "x": {% if %}} {#bad#}'),
    ("{{ text | upper }} {{ answer }}.", {}, REVIEW, "NO REASON TO WATCH. bad."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "options", "fields", "expected"), ONE_TO_ONE, ids=[row[0] for row in ONE_TO_ONE]
)
def test_the_text_is_what_the_tool_makes(
    text: str, options: dict[str, Any], fields: dict[str, Any], expected: str
) -> None:
    imported = import_template(text, **options)
    assert imported == import_template(text, **{**options, "form": imported.form})
    used = {name: value for name, value in fields.items() if name in imported.fields}
    assert rendered(imported, used, "bad") == expected
    assert imported.slots == {}


def test_runs_of_triggers_become_slots() -> None:
    one = import_template("[CLS] {sentence} [T] [T] [T] [P] . [SEP]")
    assert one.template == "{{ sentence }} [[ trigger ]] {{ answer }} ."
    assert one.slots == {"trigger": {"tokens": {"n": 3}}}
    assert one.form == "autoprompt"
    assert one.notes == ("Dropped [CLS] and [SEP] at the ends: the tokenizer adds such marks itself.",)
    two = import_template("[T][T] {premise} [P] {hypothesis}\n[T]", fields=["premise", "hypothesis"])
    assert two.template == "[[ trigger_1 ]] {{ premise }} {{ answer }} {{ hypothesis }}\n[[ trigger_2 ]]"
    assert two.slots == {"trigger_1": {"tokens": {"n": 2}}, "trigger_2": {"tokens": {"n": 1}}}
    assert any("masked" in note for note in two.notes)
    text = rendered(two, PAIR, "so", trigger_1="a b", trigger_2="c")
    assert text == "a b He eats an apple. so He Eats fruit.\nc"


def test_soft_tokens_become_token_slots() -> None:
    imported = import_template(
        '{"meta": "p"} {"soft"} {"soft": None, "duplicate": 3} {"soft": "It was", "soft_id": 2} {"mask"}, '
        '{"soft_id": 2} {"soft": None, "duplicate": 20, "same": True, "post_processing": "mlp"}'
    )
    assert imported.template == ("{{ p }} [[ soft_1 ]] [[ soft_2 ]] {{ answer }}, [[ soft_2 ]] [[ soft_3 ]]")
    assert imported.slots == {
        "soft_1": {"tokens": {"n": 4}},
        "soft_2": {"tokens": {"n": 2, "init": "It was"}},
        "soft_3": {"tokens": {"n": 20}},
    }
    assert [
        word for word in ("vectors", "MLP", "same: True") if not any(word in note for note in imported.notes)
    ] == []
    space = SearchSpace.from_dict(imported.space())
    tokens = space.slots["soft_2"].tokens
    assert tokens is not None
    assert (tokens.n, tokens.init) == (2, "It was")


def test_label_words_by_number_and_in_the_space() -> None:
    imported = import_template(
        "*cls**sent_0*_not*label_0*_but*mask*.*sep+*", fields=["text"], labels=["neg.a", "pos"]
    )
    assert imported.template == "{{ text }} not [[ words.neg.a ]] but {{ answer }}."
    assert rendered(imported, {"text": "Hm."}, "good") == "Hm. not <neg.a> but good."
    words = import_verbalizer('{"0": "bad", "1": ["good", "fine"]}', labels=["neg.a", "pos"])
    content = imported.space(words)
    assert content["labels"] == ["neg.a", "pos"]
    assert content["slots"]["words"] == {"map": {"neg.a": [["bad"]], "pos": [["good", "fine"]]}}
    assert SearchSpace.from_dict(content).spec.words_slot == "words"


def test_an_imported_space_draws_prompts_for_a_task() -> None:
    imported = import_template("[CLS] {sentence} [T] [T] [P] . [SEP]", fields={"sentence": "text"})
    words = import_verbalizer({"good": ["Ġfine", "Ġnice"], "bad": "Ġpoor"}, labels=["bad", "good"])
    space = SearchSpace.from_dict(imported.space(words)).bind(small_task(), answer_at_end=False)
    prompt = space.prompt_from({"trigger": "really so"})
    assert prompt.text == "{{ text }} really so {{ answer }} ."
    assert prompt.words == {"bad": ("poor",), "good": ("fine", "nice")}
    assert space.default().render({"text": "Hm."}).text("poor") == "Hm. poor ."


def test_lines_of_result_files_are_read() -> None:
    fact = import_template('{"relation": "P19", "template": "[X] was born in [Y] .", "type": "N-1"}')
    assert (fact.form, fact.template) == ("lama", "{{ subject }} was born in {{ answer }}.")
    assert "P19" in fact.notes[0]
    scored = import_template("-0.06262 *cls**sent_0*_He_was*mask*.*sep+*\n", fields=["text"])
    assert scored.template == "{{ text }} He was {{ answer }}."
    assert "-0.06262" in scored.notes[0]


REFUSED: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("{sentence} [T] [Q] [P]", {}, TemplateError, r"no mark \[Q\].*\[T\]"),
    ("{sentence} [T]", {}, TemplateError, r"\[P\] is missing"),
    ("{sentence} [P] [P]", {}, TemplateError, "more than once"),
    ("[T] [P]", {}, TemplateError, "none of the task's fields"),
    ("{sentence} " + "[T] " * 65 + "[P]", {}, TemplateError, "65 tokens"),
    ("{sentence} [P]", {"fields": ["sentense"]}, TemplateError, "did you mean 'sentense'"),
    (
        "{sentence} [P]",
        {"fields": {"sentense": "text"}},
        InputError,
        "no 'sentense' .did you mean 'sentence'",
    ),
    ("{sentence} [P]", {"fields": "sentence"}, InputError, "fields: expected the names"),
    ("{answer} [P]", {}, TemplateError, "marks where the answer is read"),
    ("{not} [P]", {}, TemplateError, "no name of a field"),
    ("{none} [P]", {}, TemplateError, "no name of a field"),
    ("{self} [P]", {"fields": {"self": "a }}{{ b"}}, TemplateError, "no name of a field"),
    ("*cls**sent_0*_It*mask*", {}, InputError, r'fields=\["text"\]'),
    ("*cls**sent_1*_It*mask*", {"fields": ["text"]}, TemplateError, "field number 2"),
    ("*cls**sent_0*_It*maks*", {"fields": ["text"]}, TemplateError, "did you mean 'mask'"),
    ("*cls**sent_0*_It*mask*_5*", {"fields": ["text"]}, TemplateError, "no partner"),
    ("*cls**sent_0*_It", {"fields": ["text"]}, TemplateError, "mask.* is missing"),
    ("*sent_0**mask**labelx_0*", {"fields": ["text"]}, TemplateError, "pick slot"),
    ("*sent_0**mask**label_1*", {"fields": ["text"], "labels": ["a"]}, InputError, "label number 1"),
    ("*sent_0**mask**label_0*", {"fields": ["text"], "labels": ["a]"]}, InputError, "cannot stand"),
    ("*sent_0**mask**label_0*", {"fields": ["text"], "labels": "a"}, InputError, "labels: expected"),
    ('{"meta": "x"} {"maks"}', {}, TemplateError, "no key 'maks' .did you mean 'mask'"),
    ('{"meta": "x"} It', {}, TemplateError, '"mask".* is missing'),
    ('{"meta": "x", "mask"} It', {}, TemplateError, "exactly one of"),
    ('{"placeholder": "text_c"} {"mask"}', {}, TemplateError, r'\{"meta": "text_c"\}'),
    ('{"meta": x} {"mask"}', {}, TemplateError, "meta must be a text"),
    ('{"meta": "x" {"mask"}', {}, TemplateError, "expected ','"),
    ('{"meta": "x"} {"mask', {"form": "openprompt"}, TemplateError, "no closing"),
    ('{"meta": "x"} {"soft_id": 0} {"mask"}', {}, TemplateError, "from 1"),
    ('{"meta": "x"} {"soft", "duplicate": 0} {"mask"}', {}, TemplateError, "0 tokens"),
    ('{"meta": "x", "post_processing": lambda x: x.title()} {"mask"}', {}, TemplateError, r"\{\{ x.rstrip"),
    ('{"meta": "x", "post_processing": "mlp"} {"mask"}', {}, TemplateError, "not one of the known"),
    ("{text:>10} {answer}", {}, TemplateError, "formatted with ':>10'"),
    ("{text!r} {answer}", {}, TemplateError, "formatted with '!r'"),
    ("{} {answer}", {}, TemplateError, "no name, only a place"),
    ("{0} {answer}", {}, TemplateError, "no name, only a place"),
    ("{text.__class__} {answer}", {}, TemplateError, "more than a name"),
    ("{text} } {answer}", {}, TemplateError, "written twice"),
    ("{answer}", {}, TemplateError, "none of the task's fields"),
    ("[X] {text} [Y]", {}, InputError, "lama or fstring"),
    ("{{ text }} {answer}", {}, InputError, "fstring or jinja2"),
    ("{{ text }} [T] [P]", {}, InputError, "autoprompt or jinja2"),
    ("It is <maks> now", {}, TemplateError, "<maks>"),
    ("a *maks* b", {}, TemplateError, r"did you mean '\*mask\*'"),
    ("", {}, TemplateError, "no mark of a known form"),
    ("{{ text }}", {}, TemplateError, "exactly once"),
    ("{{ text }} [[ cue ]] {{ answer }}", {}, TemplateError, "slot 'cue'"),
    ("{{ text }} {{ answer }}", {"fields": ["txt"]}, TemplateError, "did you mean 'txt'"),
    ("{{ text }} {{ answer }}", {"fields": {"text": "review"}}, InputError, "cannot become 'review'"),
    ("{{ text | upperr }} {{ answer", {}, TemplateError, "."),
    ("{{ text }}" + "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}{{ answer }}", {}, TemplateError, "too deep"),
    ("{text}", {"form": "langchain"}, UnknownName, "no template form"),
]


@pytest.mark.parametrize(
    ("text", "options", "kind", "message"), REFUSED, ids=[row[0][:40] for row in REFUSED]
)
def test_errors_teach(text: str, options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        import_template(text, **options)


def test_nothing_is_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    code = f'open({str(trap)!r}, "w")'
    for value in (code, f"(lambda: {code})()", f"[{code}]", f"f'{{{code}}}'"):
        for text in (
            f'{{"meta": {value}}} {{"mask"}}',
            f'{{"meta": "x", "post_processing": {value}}} {{"mask"}}',
            f'{{"meta": "x", "post_processing": lambda x: {value}}} {{"mask"}}',
            f"{{{value}}} [P]",
        ):
            with pytest.raises(AutopromptError):
                import_template(text)
        with pytest.raises(AutopromptError):
            import_verbalizer(f"{{'0': {value}}}")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("source", "labels", "expected"),
    [
        (
            '{"0": ["\\u0120worse"], "1": ["Ġbetter", "caf\u00c3\u00a9"]}',
            None,
            {"0": ("worse",), "1": ("better", "café")},
        ),
        (
            '{"0": ["▁worse"], "1": ["▁better", "▁better"]}',
            ["neg", "pos"],
            {"neg": ("worse",), "pos": ("better",)},
        ),
        ("{'pos': 'great', 'neg': 'terrible',}", ["neg", "pos"], {"neg": ("terrible",), "pos": ("great",)}),
        ({0: "no", 1: ["<!>yes", "right"]}, None, {"0": ("no",), "1": ("yes", "right")}),
        ([["yes", "right"], ["no"]], ["a", "b"], {"a": ("yes", "right"), "b": ("no",)}),
        ("[{'a', 'b'}, ['c']]", None, {"0": ("a", "b"), "1": ("c",)}),
        ("bad, worse\ngood\n\nx\ny\n", None, {"0": ("bad", "worse"), "1": ("good",)}),
        (
            '0.25820 {"0": "bad", "1": "good"}\n-0.1 {"0": "x", "1": "y"}\n',
            None,
            {"0": ("bad",), "1": ("good",)},
        ),
    ],
)
def test_label_words(source: Any, labels: list[str] | None, expected: dict[str, tuple[str, ...]]) -> None:
    words = import_verbalizer(source, labels=labels)
    assert words == expected
    assert list(words) == list(expected)


def test_one_verbalizer_of_several() -> None:
    scored = '0.25820 {"0": "bad", "1": "good"}\n-0.1 {"0": "x", "1": "y"}\n'
    assert import_verbalizer(scored, choice=1) == {"0": ("x",), "1": ("y",)}
    assert import_verbalizer("a\nb\n\n\nc\nd", choice=1) == {"0": ("c",), "1": ("d",)}
    assert import_verbalizer('[{"p": "x"}, {"p": ["y"]}]', choice=1) == {"p": ("y",)}
    with pytest.raises(InputError, match="holds 2"):
        import_verbalizer(scored, choice=2)


@pytest.mark.parametrize(
    ("source", "labels", "kind", "message"),
    [
        ('{"0": 0, "1": 1}', None, LabelWordError, "places in a vocabulary"),
        ('{"0": ["##able"]}', None, LabelWordError, "inside of a word"),
        ('{"0": ["Ġ\u00c3"]}', None, LabelWordError, "part of a character"),
        ('{"0": "Ġ"}', None, LabelWordError, "without spaces"),
        ('{"0": "same", "1": "same"}', None, LabelWordError, "both"),
        ('{"0": []}', None, LabelWordError, "a word or a list"),
        ('{"posi": "a", "neg": "b"}', ["neg", "pos"], InputError, "unknown: 'posi' .did you mean 'pos'"),
        ('{"neg": "b"}', ["neg", "pos"], InputError, "missing: pos"),
        ("a\nb\nc", ["neg", "pos"], InputError, "3 labels, but the task has 2"),
        ('{"0": "a", "0": "b"}', None, TemplateError, "stands twice"),
        ('{"0": a}', None, TemplateError, "in quotes"),
        ("{", None, TemplateError, "end of the text"),
        ("[" * 5000, None, TemplateError, "deep"),
        ("{}", None, InputError, "there are none"),
        (" \n", None, InputError, "empty"),
        (7, None, InputError, "expected a mapping"),
    ],
)
def test_label_word_errors_teach(
    source: Any, labels: list[str] | None, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        import_verbalizer(source, labels=labels)


SNIPPETS = [
    *"[]{}*_'\"\\:,.%#|!<>() \n\té0", "{{", "}}", "[[", "]]", "{%", "%}", "[T]", "[P]", "[X]", "[Y]", "[CLS]", "</s>",
    "*cls*", "*mask*", "*sent_0*", "*+sentl_1*", "*label_0*", "*sep+*", "{text}", "{answer}", "{{ answer }}", "{{ text }}",
    '{"mask"}', '{"placeholder": "text_a"}', '{"soft": "It was", "soft_id": 1}', '"post_processing": lambda x: x.strip()',
    '{"meta": "x", "post_processing": lambda s: s.rstrip("[[{{")}', "lambda", "{% raw %}", "\ufdd0", "\x00", "It was",
]  # fmt: skip
FUZZED_FORMS = ("auto", *FORMS)
CORES: list[tuple[str, str, list[str] | None]] = [
    ("[CLS] {text} [T] [T] is [P] . [SEP]", "autoprompt", ["text", "other"]),
    ("*cls**sent-_0*?*mask*,_so*+sentl_1**sep+*", "lmbff", ["text", "other"]),
    ('{"placeholder": "text_a"} {"soft": "It was"} {"mask"}. {"soft"}', "openprompt", None),
    ("[X] is located in [Y] .", "lama", None),
    ("Review: {text}\nSentiment: {answer}", "fstring", None),
    ("Review: {{ text | trim }}\nSentiment: {{ answer }}", "jinja2", None),
]


def test_no_text_makes_another_error_and_what_is_read_renders() -> None:
    rng = random.Random(4)
    read = dict.fromkeys(FORMS, 0)
    for _ in range(800):
        text = "".join(rng.choices(SNIPPETS, k=rng.randint(0, 6)))
        form, fields = rng.choice(FUZZED_FORMS), rng.choice([None, ["text", "other"]])
        if rng.random() < 0.7:
            core, form, fields = rng.choice(CORES)
            place = rng.randint(0, len(core))
            text = (
                core[:place]
                + "".join(rng.choices(SNIPPETS, k=rng.randint(0, 2)))
                + core[place + rng.randint(0, 1) :]
            )
        try:
            imported = import_template(
                text, form=form, fields=fields, labels=rng.choice([None, ["neg", "pos"]])
            )
        except AutopromptError:  # anything else fails the test
            continue
        if imported.form != "jinja2":
            text = rendered(
                imported, dict.fromkeys(imported.fields, "Zq {{ x }} [[ y ]]"), "Answer", **slots_of(imported)
            )
            assert text.count("Answer") == 1
        read[imported.form] += 1
    assert min(read.values()) > 20, read


def slots_of(imported: Imported) -> dict[str, str]:
    return dict.fromkeys(imported.slots, "word [[")


def test_no_label_words_make_another_error() -> None:
    rng = random.Random(5)
    signs = [
        '"0"',
        '"1"',
        "'a'",
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "0",
        "None",
        " ",
        "\n",
        "Ġ",
        "▁",
        "\\",
        "0.5 {",
        '"Ġx"',
    ]
    read = 0
    for _ in range(4000):
        text = rng.choice(["", "{", '{"0": "a", '])
        text += "".join(rng.choices(signs, k=rng.randint(0, 8))) + rng.choice(["", "}"])
        try:
            words = import_verbalizer(text, labels=rng.choice([None, ["neg", "pos"]]))
        except AutopromptError:  # anything else fails the test
            continue
        assert words
        assert all(group and all(word == word.strip() for word in group) for group in words.values())
        read += 1
    assert read > 50
