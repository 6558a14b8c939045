"""Token slots in prompts, templates and spaces: whatever stands in them, the string is what counts."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoprompt.errors import SpecError, TemplateError
from autoprompt.exporters import FORMAT, read_prompt, write_prompt
from autoprompt.prompt import Piece, Prompt, Rendered
from autoprompt.space import FixedChooser, RandomChooser, SearchSpace
from tests.small import small_task

TASK = small_task()
TOKENS = {"tokens": {"n": 3}}
NASTY = [
    "plain words",
    "{{",
    "{{ answer }}",
    "{{ text }}",
    "{{ nobody }}",
    "{% if text %}",
    "{%- endraw -%}",
    "{% raw %}",
    "{# note #}",
    "{#",
    "}}",
    "[[",
    "[[ t ]]",
    "[[[ t | upper ]]]",
    "{",
    "{ text }}",
    "%}",
    "# {",
    "\"quoted\" 'text' \\n",
    "Füße 日本語 🙂",
    "a\r\nb\rc\nd",
    "\ufdd0x\ufdd1\ufdd2",
    "\ufdd3t\ufdd4",
    "  blanks at its ends \n",
    "\u00a0no break\u2003",
]
FRAMES = [
    "{{ text }} [[ t ]] It was {{ answer }}",
    "[[ t ]] {{ text }} {{ answer }}",
    "{{ text }}[[ t ]]{{ answer }}",
    "{[[ t ]]{{ text }} {{ answer }}",
    "{{ text }} {[[ t ]]{ text }} {{ answer }}",
    "{[[ t ]]%- if text -%} {{ text }} {{ answer }}",
    "[[[ t ]]] {{ text }} {{ answer }}",
    "{{ text }} [[ t ]][[ u ]] {{ answer }}",
    "{{ text -}} [[ t ]] {{- text }} {{ answer }}",
    "{% if text %}[[ t ]]{% else %}none{% endif %} {{ text }} {{ answer }}",
    "{% for letter in text %}{{ letter }}[[ t ]]{% endfor %} {{ answer }}",
    "{% raw %}{{{% endraw %}[[ t ]]{% raw %}}}{% endraw %} {{ text }} {{ answer }}",
    "{# why #}[[ t ]]{# not #} {{ text }} {{ answer }}",
    "{{ text }}\n\n[[ u ]]\n[[ t ]]\n\n{{ answer }}",
]


def bound(template: str, **slots: Any) -> SearchSpace:
    return SearchSpace.from_dict({"template": template, "slots": slots}).bind(TASK, answer_at_end=True)


def framed(template: str, **texts: str) -> Prompt:
    """A prompt whose token slots hold these texts."""
    space = bound(template, **{name: TOKENS for name in texts if f"[[ {name} ]]" in template})
    prompt = space.draw(FixedChooser({}), texts)
    assert prompt is not None
    return prompt


def joined(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    """Neighbours that are not of the example as one piece, slot names off."""
    found: list[Piece] = []
    for is_field, group in itertools.groupby(pieces, key=lambda piece: piece.is_field):
        some = list(group)
        found += some if is_field else [Piece("".join(piece.text for piece in some))]
    return tuple(found)


def check(prompt: Prompt, text: str) -> Rendered:
    """The frame renders as the text does, read as the ordinary template that a user gets."""
    plain = Prompt(prompt.text, prompt.words)
    assert plain.frame == ""
    expected = plain.render({"text": text})
    merged, apart = prompt.render({"text": text}), prompt.render({"text": text}, with_slots=True)
    assert merged == expected
    assert not any(piece.slot for piece in (*merged.before, *merged.after))
    assert apart.text("A") == expected.text("A")
    assert joined(apart.before) == joined(expected.before)
    assert joined(apart.after) == joined(expected.after)
    return apart


def shown(text: str) -> str:
    """What a slot's text looks like in the model's input."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    return re.sub("[\ufdd0-\ufdd4]", "\ufffd", text)


@pytest.mark.parametrize("text", NASTY)
def test_a_text_stands_as_it_is(text: str) -> None:
    for template in FRAMES:
        prompt = framed(template, t=text, u="other")
        apart = check(prompt, "a {{ text }} \ufdd3t\ufdd4")
        slots = [piece for piece in (*apart.before, *apart.after) if piece.slot == "t"]
        assert slots
        assert {piece.text for piece in slots} == {shown(text)}
        assert not any(piece.is_field for piece in slots)
    simple = framed(FRAMES[0], t=text)
    assert simple.render({"text": "T"}).text("A") == f"T {shown(text)} It was A"
    assert simple.fields() == {"text"}


def test_fuzz_the_frame_renders_as_the_text() -> None:
    rng = random.Random(0)
    atoms = ["{", "}", "{{", "}}", "%", "{%", "#", "{#", "#}", "-", "[", "]", "[[", "raw", "endraw", " ", "\n",
             "\r", "t", "answer", "|", "é", "日", '"', "'", "\\", "\ufdd0", "\ufdd3", "\ufdd4"]  # fmt: skip
    safe = ["{", "}", "%", "#", "-", "[", "]", "it", "é", "\n", '"', "[[ t ]]", "[[ u ]]"]

    def mix(some: list[str], most: int) -> str:
        return "".join(rng.choice(some) for _ in range(rng.randint(1, most)))

    done = 0
    for _ in range(120):
        template = (
            f"{mix(safe, 5)}[[ t ]]{mix(safe, 5)} {{{{ text }}}} {mix(safe, 4)}[[ u ]]. {{{{ answer }}}}"
        )
        texts = {"t": mix(atoms, 6) + "x", "u": mix(atoms, 3) + "é"}
        try:
            prompt = framed(template, **texts)
        except TemplateError:  # the template itself opens code, or brackets that cannot be read
            continue
        done += 1
        check(prompt, mix(atoms, 4))
        refilled = prompt.filled({"t": mix(atoms, 6) + "x"})
        check(refilled, "field")
        assert refilled.key == Prompt(refilled.text, prompt.words).key
        assert framed(template, **refilled.slots) == refilled  # filling a frame is drawing the prompt
    assert done > 60


def test_pieces_bear_slot_names_only_where_asked() -> None:
    prompt = framed("Go: [[ t ]] {{ text }}[[ u ]] {{ answer }}.", t="one two", u="three")
    assert prompt.render({"text": "T"}, with_slots=True) == Rendered(
        (
            Piece("Go: "), Piece("one two", slot="t"), Piece(" "), Piece("T", is_field=True),
            Piece("three", slot="u"), Piece(" "),
        ),
        (Piece("."),),
    )  # fmt: skip
    assert prompt.render({"text": "T"}) == Rendered(
        (Piece("Go: one two "), Piece("T", is_field=True), Piece("three ")), (Piece("."),)
    )


def test_a_slot_that_stands_twice_shows_twice() -> None:
    prompt = framed("[[ t ]] {{ text }} [[ t ]]: {{ answer }}", t="so {")
    assert prompt.render({"text": "T"}).text("A") == "so { T so {: A"
    names = [piece.slot for piece in check(prompt, "x").before if piece.slot]
    assert names == ["t", "t"]


def test_the_key_is_that_of_text_and_words() -> None:
    space = bound("[[ a ]] {{ text }} [[ b ]] {{ answer }}", a=TOKENS, b=TOKENS)
    one = space.prompt_from({"a": "x", "b": ""})
    other = space.prompt_from({"a": "", "b": "x"})
    plain = Prompt(one.text, one.words)
    assert one == plain
    assert (one.key, hash(one)) == (plain.key, hash(plain))
    assert one.key != other.key
    assert one.filled({"a": "y"}).key != one.key
    assert one.filled({"a": "y"}).filled({"a": "x"}) == one


def test_choices_carry_the_texts_and_make_the_prompt_again() -> None:
    cue = {"one_of": ["It was", "So:"]}
    space = bound("[[ t ]] {{ text }} [[ cue ]] [[ u ]] {{ answer }}", t=TOKENS, u=TOKENS, cue=cue)
    prompt = space.draw(FixedChooser({"cue": "So:"}), {"t": "{{ deep", "u": "red\r\nsky"})
    assert prompt is not None
    assert prompt.choices == {"t": "{{ deep", "cue": "So:", "u": "red\nsky"}
    assert prompt.slots == {"t": "{{ deep", "u": "red\nsky"}
    assert space.prompt_from(prompt.choices) == prompt
    refilled = prompt.filled({"u": " blue  "})
    assert refilled.choices == {"t": "{{ deep", "cue": "So:", "u": "blue"}
    assert space.prompt_from(refilled.choices) == refilled


def test_an_emptied_slot_stays_empty_when_the_prompt_is_made_again() -> None:
    space = bound("[[ t ]] {{ text }} {{ answer }}", t={"tokens": {"n": 2, "init": "start here"}})
    assert space.default().text == "start here {{ text }} {{ answer }}"
    emptied = space.draw(FixedChooser({}), {"t": ""})
    assert emptied is not None
    assert emptied.text == "{{ text }} {{ answer }}"
    assert space.prompt_from(emptied.choices) == emptied
    assert not emptied.slots


@pytest.mark.parametrize("blank", ["", "  ", "\n"])
@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("[[ t ]]\n{{ text }} {{ answer }}", "{{ text }} {{ answer }}"),
        ("{{ text }}\n\n[[ t ]]\n\n{{ answer }}", "{{ text }}\n\n{{ answer }}"),
        ("{{ text }} [[ t ]] {{ answer }}", "{{ text }} {{ answer }}"),
        ("{{ text }} [[ t ]][[ t ]] {{ answer }}", "{{ text }} {{ answer }}"),
        ("{{ text }} x[[ t ]]y {{ answer }}", "{{ text }} xy {{ answer }}"),
    ],
)
def test_an_empty_slot_vanishes(template: str, text: str, blank: str) -> None:
    space = bound(template, t=TOKENS)
    prompt = space.draw(FixedChooser({}), {"t": blank})
    assert prompt is not None
    assert prompt == space.default() == Prompt(text, TASK.words)
    assert (prompt.frame, prompt.slots) == ("", {})


def test_filling_refuses_what_is_no_text_of_a_slot() -> None:
    prompt = framed(FRAMES[0], t="x")
    with pytest.raises(TemplateError, match=r"no token slot 'trigger'.*token slots: t"):
        prompt.filled({"trigger": "y"})
    with pytest.raises(TemplateError, match=r"token slot 't' would be empty.*blanks.*") as caught:
        prompt.filled({"t": " \n"})
    assert "draw the prompt anew" in str(caught.value)
    with pytest.raises(TemplateError, match="token slots: none"):
        Prompt("{{ text }} {{ answer }}").filled({"t": "y"})


@pytest.mark.parametrize(
    "inside",
    [
        "{{ text | replace('a', '[[ t ]]') }}",
        "{{ [[ t ]] }} {{ text }}",
        "{% if text == '[[ t ]]' %}{{ text }}{% endif %}",
        "{% if [[ t ]] %}{{ text }}{% endif %}",
        "{# [[ t ]] #} {{ text }}",
        "{% raw %}a [[ t ]]{% endraw %} {{ text }}",
        "{% filter upper %}[[ t ]]{% endfilter %} {{ text }}",
        "{% set x %}a [[ t ]]{% endset %}{{ x }} {{ text }}",
        "{% macro f() %}{% if 1 %}[[ t ]]{% endif %}{% endmacro %}{{ f() }} {{ text }}",
    ],
)
def test_code_is_no_place_for_a_slot(inside: str) -> None:
    """There a text could be changed or run: what is scored would not be what was meant."""
    with pytest.raises(TemplateError, match=r"template: prompt: the token slot 't' stands inside") as caught:
        bound(f"{inside} {{{{ answer }}}}", t=TOKENS)
    assert "let [[ t ]] stand in plain text" in str(caught.value)
    cue = {"one_of": ["So:", inside]}
    with pytest.raises(TemplateError, match=r"slots\.cue\.one_of\[1\].*inside template code"):
        bound("[[ cue ]] {{ text }} {{ answer }}", t=TOKENS, cue=cue)


def test_marks_in_a_template_are_refused() -> None:
    for mark in ("\ufdd3", "\ufdd3x\ufdd4", "\ufdd0"):
        with pytest.raises(TemplateError, match=r"template: .*non-character \(U\+FDD0 to U\+FDD4\)"):
            bound(f"{mark} {{{{ text }}}} [[ t ]] {{{{ answer }}}}", t=TOKENS)


FILE = """\
format: autoprompt-space/1
template: |-
  [[ demos ]]
  {{ text }} [[ cue ]] [[ t ]] {{ answer }}
slots:
  demos:
    pick: {k: [0, 2], template: "{{ text }} [[ cue ]] {{ answer }}"}
  cue:
    one_of: ["It was", "So:"]
  t:
    tokens: {n: 3}
"""
WRONG = [
    ("tokens: {n: 3}", "tokens: {n: 0}", r":11: slots\.t\.tokens\.n: .*greater than or equal to 1 \(got 0\)"),
    ("tokens: {n: 3}", "tokens: {n: 65}", r":11: slots\.t\.tokens\.n: .*less than or equal to 64 \(got 65\)"),
    ("tokens: {n: 3}", "tokens: {n: few}", r":11: slots\.t\.tokens\.n: must be a valid integer \(got \"few\"\)"),
    ("{n: 3}", "{n: 3, shortest: 4}", r":11: slots\.t\.tokens: .*n = 3 does not lie between.*\(4, 3\)"),
    ("{n: 3}", "{n: 3, longest: 2}", r":11: slots\.t\.tokens: .*n = 3 does not lie between.*\(3, 2\)"),
    ("{n: 3}", "{n: 3, longest: 99}", r":11: slots\.t\.tokens\.longest: .*64 \(got 99\)"),
    ("{n: 3}", "{matching: '[a-'}", r":11: slots\.t\.tokens: .*matching.*no regular expression"),
    ("{n: 3}", "{policy: redable}", r":11: slots\.t\.tokens\.policy: must be 'any', 'ascii' or.*'readable'\?.*got"),
    ("{n: 3}", "{polcy: any}", r":11: slots\.t\.tokens\.polcy: unknown key.*'policy'.*keys: n, init, policy"),
    ("tokens: {n: 3}", "tokens: {n: 3}\n    one_of: [a]", r":10: slots\.t: needs exactly one.*one_of, tokens"),
    ("tokens: {n: 3}", "tokens: {n: 3}\n    tied: true", r":10: slots\.t: tied goes with map only"),
    ('["It was", "So:"]', '["a"]\n    when: {t: [x]}', r":10: slots\.cue\.when\.t: a condition tests one_of"),
    ('"{{ text }} [[ cue ]] {{', '"{{ text }} [[ t ]] {{', r":7: slots\.demos\.pick\.template: leads to slot 't'"),
    ('"So:"]', '"[[ t ]]"]', r":7: slots\.demos\.pick\.template: leads to slot 't', which holds tokens"),
    ("[[ t ]]", "[[ t | lower ]]", r":2: template: .*slot 't' holds tokens, which no filter.*lower"),
    ("[[ t ]]", "[[ t.x ]]", r":2: template: .*slot 't' has no parts"),
    ("[[ t ]]", "", r":10: slots\.t: is never used"),
]  # fmt: skip


@pytest.mark.parametrize(("good", "bad", "message"), WRONG)
def test_mistakes_in_a_file_are_errors_that_teach(tmp_path: Path, good: str, bad: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(FILE)
    SearchSpace.load(path).bind(TASK, answer_at_end=True)
    assert FILE.count(good) == 1
    path.write_text(FILE.replace(good, bad))
    with pytest.raises((SpecError, TemplateError), match=re.escape(str(path)) + message):
        SearchSpace.load(path).bind(TASK, answer_at_end=True)


def test_a_filter_in_a_rare_option_is_found_at_once() -> None:
    with pytest.raises(
        TemplateError, match=r"slots\.cue\.one_of\[1\].*holds tokens, which no filter"
    ) as caught:
        bound("{{ text }} [[ cue ]] {{ answer }}", cue={"one_of": ["So", "[[ t | upper ]]"]}, t=TOKENS)
    assert "write [[ t ]]" in str(caught.value)


def test_a_condition_decides_whether_a_slot_is_met() -> None:
    space = bound(
        "[[ style ]] {{ text }} [[ t ]] [[ order ]] {{ answer }}",
        style={"one_of": ["Short:", "Long:"]},
        t={"tokens": {"n": 2, "init": "on"}, "when": {"style": ["Long:"]}},
        u={"tokens": {"n": 1, "init": "u"}},
        last={"optional": "Hm."},
        order={"order": {"sections": ["u", "last"], "separator": " "}},
    )
    short, long = space.prompt_from({"style": "Short:"}), space.prompt_from({"style": "Long:"})
    assert short.text == "Short: {{ text }} u {{ answer }}"
    assert long.text == "Long: {{ text }} on u {{ answer }}"
    assert (set(short.slots), set(long.slots)) == ({"u"}, {"t", "u"})
    assert "t" not in short.choices
    assert space.size() == 2 * 2 * 2  # style, last, order; a token slot counts as one
    prompts = list(space.enumerate())
    assert len({prompt.key for prompt in prompts}) == len(prompts) <= 8
    for prompt in prompts:
        assert space.prompt_from(prompt.choices) == prompt
        check(prompt, "x")


def test_neighbours_keep_the_texts() -> None:
    space = bound(
        "[[ t ]] {{ text }} [[ cue ]] {{ answer }}",
        t=TOKENS,
        cue={"one_of": ["It was", "So:", "[[ u ]] then"]},
        u={"tokens": {"init": "well"}},
    )
    prompt = space.draw(FixedChooser({}), {"t": "deep {{ blue"})
    assert prompt is not None
    near = space.neighbours(prompt, np.random.default_rng(0), 9)
    assert len(near) == 2  # the tokens are no choice
    for each in near:
        assert each.slots["t"] == "deep {{ blue"
        assert each.choices["cue"] != "It was"
    (met,) = (each for each in near if "u" in each.slots)
    assert met.slots["u"] == "well"
    assert {each.key for each in space.neighbours(met.filled({"u": "now"}), np.random.default_rng(0), 9)} == {
        space.prompt_from({"t": "deep {{ blue", "cue": cue}).key for cue in ("It was", "So:")
    }
    moved = space.draw(RandomChooser(np.random.default_rng(1)), {"t": "sea"})
    assert moved is not None
    assert moved.slots["t"] == "sea"


@pytest.mark.parametrize("text", NASTY)
def test_a_written_prompt_reads_back_and_renders_the_same(tmp_path: Path, text: str) -> None:
    for number, template in enumerate(FRAMES):
        prompt = framed(template, t=text, u="{")
        words = {label: list(words) for label, words in prompt.words.items()}
        document = {"format": FORMAT, "prompt": prompt.text, "label_words": words}
        path, sidecar = write_prompt(tmp_path / f"best_prompt{number}.txt", document)
        for back in (read_prompt(path), read_prompt(sidecar)):
            assert back == prompt
            assert back.render({"text": "T {{"}) == prompt.render({"text": "T {{"})
