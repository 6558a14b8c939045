"""Search spaces: reading, checking, binding, drawing, counting, listing, neighbours, demonstrations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprompt.drawing import Recorder, next_path
from autoprompt.errors import InputError, SpecError
from autoprompt.prompt import Prompt
from autoprompt.space import MAX_SIZE, FixedChooser, RandomChooser, SearchSpace, demo_ids
from autoprompt.task import Example, Task

WORDS = {"map": {"no": ["bad", "awful"], "yes": ["good", "great"]}, "tied": True}
DEMOS = {"pick": {"k": [0, 2], "template": "{{ text }} [[ cue ]] {{ answer }}.", "sets": 3}}


def make_task(texts: Sequence[str] = (), **changes: Any) -> Task:
    texts = texts or [f"text {index}" for index in range(24)]
    rows = tuple(
        Example({"text": text, "title": f"title {index}"}, "yes" if index % 2 else "no")
        for index, text in enumerate(texts)
    )
    held_out = tuple(Example({"text": f"held {i}", "title": "t"}, "yes" if i % 2 else "no") for i in range(8))
    content: dict[str, Any] = {
        "name": "toy",
        "kind": "classification",
        "fields": ("text", "title"),
        "prompt": "{{ text }} It was {{ answer }}.",
        "metric": "accuracy",
        "train": rows,
        "select": held_out[:4],
        "test": held_out[4:],
        "labels": ("no", "yes"),
        "words": {"no": ("bad",), "yes": ("good",)},
    }
    return Task(**{**content, **changes})


def make_space(template: str = "[[ cue ]] {{ text }} {{ answer }}", **slots: Any) -> SearchSpace:
    return SearchSpace.from_dict({"template": template, "slots": slots})


def bind(
    template: str = "[[ cue ]] {{ text }} {{ answer }}", *, end: bool = True, **slots: Any
) -> SearchSpace:
    return make_space(template, **slots).bind(make_task(), answer_at_end=end)


FULL_TEXT = "Say [[ words.no ]] or [[ words.yes ]].[[ hint ]]"
FULL = {
    "instruction": {"one_of": ["", FULL_TEXT, "Judge."]},
    "hint": {"optional": " One word."},
    "cue": {"one_of": ["It was", "So:"]},
    "words": WORDS,
    "demos": DEMOS,
}
FULL_TEMPLATE = "[[ instruction ]]\n\n[[ demos ]]\n\n{{ text }} [[ cue ]] {{ answer }}."


class Notes:
    """A chooser that follows names and notes what it was asked."""

    def __init__(self, **picks: int) -> None:
        self.picks = picks
        self.asked: dict[str, list[str]] = {}

    def choice(self, name: str, options: Sequence[str]) -> int:
        assert len(options) > 1
        assert name not in self.asked
        self.asked[name] = list(options)
        return self.picks.get(name.replace(".", "_"), 0)


# ------------------------------------------------------------------------------------------ drawing


def test_the_default_takes_first_options() -> None:
    space = bind(FULL_TEMPLATE, **FULL)
    prompt = space.default()
    assert prompt.text == "{{ text }} It was {{ answer }}."
    assert prompt.words == {"no": ("bad",), "yes": ("good",)}
    assert prompt.choices == {
        "words": {"no": ["bad"], "yes": ["good"]},
        "instruction": "",
        "demos": [],
        "cue": "It was",
    }


def test_only_reachable_slots_are_asked() -> None:
    space = bind(FULL_TEMPLATE, **FULL)
    notes = Notes()
    space.draw(notes)
    assert list(notes.asked) == ["words", "instruction", "demos.k", "cue"]
    notes = Notes(instruction=1, demos_k=1)
    prompt = space.draw(notes)
    assert list(notes.asked) == ["words", "instruction", "hint", "demos.k", "demos.2", "cue"]
    assert notes.asked["demos.k"] == ["0", "2"]
    assert notes.asked["words"] == ["no=bad, yes=good", "no=awful, yes=great"]
    assert prompt is not None
    assert prompt.text.startswith("Say bad or good.\n\ntext ")


def test_label_words_are_tied_throughout() -> None:
    space = bind(FULL_TEMPLATE, **FULL)
    prompt = space.prompt_from({"words": {"no": ["awful"], "yes": ["great"]}, "instruction": FULL_TEXT})
    assert prompt.words == {"no": ("awful",), "yes": ("great",)}
    assert prompt.text.startswith("Say awful or great.\n")


def test_untied_words_are_chosen_label_by_label_and_clashes_are_no_prompts() -> None:
    words = {"map": {"no": ["bad", ["poor", "weak"]], "yes": ["good", "bad"]}}
    space = bind("{{ text }} {{ answer }}", words=words)
    notes = Notes(words_no=1)
    prompt = space.draw(notes)
    assert prompt is not None
    assert prompt.words == {"no": ("poor", "weak"), "yes": ("good",)}
    assert notes.asked == {"words.no": ["bad", "poor/weak"], "words.yes": ["good", "bad"]}
    assert space.draw(Notes(words_yes=1)) is None
    assert len(list(space.enumerate())) == 3
    assert space.size() == 4


def test_without_a_map_slot_the_words_are_the_tasks() -> None:
    space = bind("Say [[ words.yes ]]. {{ text }} {{ answer }}")
    assert space.default().text == "Say good. {{ text }} {{ answer }}"
    assert space.default().words == {"no": ("bad",), "yes": ("good",)}


def test_sections_come_in_every_order_and_the_last_stays_last() -> None:
    slots = {
        "parts": {"order": {"sections": ["a", "b", "c"], "separator": "\n\n", "last": "c"}},
        "a": {"one_of": ["A"]},
        "b": {"one_of": ["", "B"]},
        "c": {"one_of": ["{{ text }} {{ answer }}"]},
    }
    space = bind("[[ parts ]]", **slots)
    texts = [prompt.text for prompt in space.enumerate()]
    end = "{{ text }} {{ answer }}"
    assert texts == [f"A\n\n{end}", f"A\n\nB\n\n{end}", f"B\n\nA\n\n{end}"]
    assert space.default().choices["parts"] == ["a", "b", "c"]


def test_conditions_switch_slots_off() -> None:
    slots = {
        "demos": DEMOS,
        "cue": {"one_of": ["It was"]},
        "head": {"one_of": ["Examples:", "Look:"], "when": {"demos": [2]}},
    }
    space = bind("[[ head ]]\n[[ demos ]]\n{{ text }} [[ cue ]] {{ answer }}", **slots)
    assert space.default().text == "{{ text }} It was {{ answer }}"
    assert "head" not in space.default().choices
    with_demos = space.draw(Notes(demos_k=1, head=1))
    assert with_demos is not None
    assert with_demos.text.startswith("Look:\ntext ")
    assert space.size() == len(list(space.enumerate())) == 1 + 3 * 2


def test_invalid_combinations_are_none() -> None:
    slots = {"cue": {"one_of": ["{{ text }} {{ answer }}", "{{ answer }} is {{ text }}", "{{ text }}"]}}
    space = bind("[[ cue ]]", **slots)
    assert space.draw(Notes(cue=1)) is None
    assert space.draw(Notes(cue=2)) is None
    assert len(list(space.enumerate())) == 1
    masked = bind("[[ cue ]]", end=False, **slots)
    assert masked.draw(Notes(cue=1)) is not None


def test_an_unbound_space_cannot_draw() -> None:
    with pytest.raises(InputError, match=r"space.bind\(task"):
        make_space(cue={"one_of": ["a"]}).default()


def test_from_prompt_holds_one_prompt() -> None:
    task = make_task()
    space = SearchSpace.from_prompt(task).bind(task, answer_at_end=True)
    assert list(space.enumerate()) == [task.seed_prompt]
    assert space.size() == 1
    assert space.neighbours(space.default(), np.random.default_rng(0), 5) == []


# ----------------------------------------------------------------------------------- demonstrations


def demo_space(task: Task | None = None, **pick: Any) -> SearchSpace:
    template = "[[ demos ]]\n{{ text }} {{ answer }}"
    content = {"k": [4], "template": "{{ text }} {{ answer }}", "separator": "\n", **pick}
    return make_space(template, demos={"pick": content}).bind(task or make_task(), answer_at_end=True)


@pytest.mark.parametrize("order", ["shuffle", "fixed", "label"])
def test_demonstrations_are_balanced_ordered_and_from_train(order: str) -> None:
    task = make_task()
    by_id = {example.id: (place, example) for place, example in enumerate(task.train)}
    seen_orders = set()
    for prompt in demo_space(task, order=order).enumerate():
        ids = prompt.choices["demos"]
        assert demo_ids(prompt) == set(ids)
        assert len(set(ids)) == 4
        places, targets = zip(*((by_id[i][0], by_id[i][1].target) for i in ids), strict=True)
        assert Counter(targets) == {"no": 2, "yes": 2}
        seen_orders.add((places == tuple(sorted(places)), targets == ("no", "no", "yes", "yes")))
    if order == "fixed":
        assert {in_place for in_place, _ in seen_orders} == {True}
    elif order == "label":
        assert {by_label for _, by_label in seen_orders} == {True}
    else:
        assert len(seen_orders) > 1


def test_an_odd_k_is_as_equal_as_it_can_be() -> None:
    task = make_task()
    targets = {example.id: example.target for example in task.train}
    extra = set()
    for prompt in demo_space(task, k=[3]).enumerate():
        counts = Counter(targets[i] for i in prompt.choices["demos"])
        assert sorted(counts.values()) == [1, 2]
        extra.add(counts.most_common(1)[0][0])
    assert extra == {"no", "yes"}


def test_sets_are_the_same_in_every_run_and_merged_when_equal() -> None:
    first = [prompt.choices["demos"] for prompt in demo_space(sets=6).enumerate()]
    again = [prompt.choices["demos"] for prompt in demo_space(sets=6).enumerate()]
    assert first == again
    assert len(first) == 6
    tiny = demo_space(make_task(["a", "b"]), k=[2], order="fixed", sets=20)
    assert tiny.size() == len(list(tiny.enumerate())) == 1


def test_demonstrations_carry_the_chosen_word_and_the_chosen_cue() -> None:
    space = bind(FULL_TEMPLATE, **FULL)
    prompt = space.draw(Notes(words=1, demos_k=1, cue=1))
    assert prompt is not None
    lines = [line for line in prompt.text.split("\n\n")[:-1] if line]
    assert len(lines) == 2
    assert all(" So: " in line for line in lines)
    assert sorted(line.rsplit(" ", 1)[1] for line in lines) == ["awful.", "great."]


def test_demonstrations_without_labels_carry_the_target() -> None:
    rows = tuple(Example({"text": f"q{i}"}, f"a{i}", (f"a{i}", "other")) for i in range(8))
    task = make_task(
        kind="generation", metric="token_f1", fields=("text",), labels=(), words={}, train=rows[:4],
        select=rows[4:6], test=rows[6:],
    )  # fmt: skip
    prompt = demo_space(task, k=[2], per_label="any").default()
    lines = prompt.text.split("\n")
    assert all(line.replace("q", "a", 1).split()[0] == line.split()[1] for line in lines[:2])
    assert prompt.words == {}


def test_a_demonstration_never_stands_twice() -> None:
    pick = {"pick": {"k": [1], "template": "{{ text }} {{ answer }}", "sets": 12, "per_label": "any"}}
    space = make_space("[[ a ]]\n[[ b ]]\n{{ text }} {{ answer }}", a=pick, b=pick)
    bound = space.bind(make_task(["w", "x", "y", "z"]), answer_at_end=True)
    prompts = list(bound.enumerate())
    assert len(prompts) == 12
    assert bound.size() == 16
    assert all(prompt.choices["a"] != prompt.choices["b"] for prompt in prompts)


def test_what_two_slots_show_by_default_is_not_the_same() -> None:
    texts = list("abcdefgh")
    for name in map(chr, range(ord("a"), ord("u"))):
        pick = {"pick": {"k": [2, 3], "template": "{{ text }} {{ answer }}", "per_label": "any"}}
        space = make_space(
            f"[[ z ]]\n[[ {name} ]]\n{{{{ text }}}} {{{{ answer }}}}", **{"z": pick, name: pick}
        )
        prompt = space.bind(make_task(texts), answer_at_end=True).default()
        assert len({*prompt.choices["z"], *prompt.choices[name]}) == 4


def test_repeated_training_rows_count_once() -> None:
    task = make_task()
    doubled = make_task(train=(*task.train[:3], *task.train[:3]))
    with pytest.raises(SpecError, match="4 demonstrations, but the task 'toy' has 3 different"):
        demo_space(doubled)


@given(
    st.lists(
        st.text(alphabet="{}%#[]-+ \nab|", min_size=1, max_size=16), min_size=4, max_size=8, unique=True
    ),
    st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_demonstration_data_stay_text(texts: list[str], seed: int) -> None:
    task = make_task([f"<{text}>" for text in texts])
    space = make_space(FULL_TEMPLATE, **FULL).bind(task, answer_at_end=True)
    by_id = {example.id: example for example in task.train}
    rng = np.random.default_rng(seed)
    for _ in range(4):
        prompt = space.draw(RandomChooser(rng))
        assert prompt is not None
        assert "[[" not in prompt.text
        assert prompt.fields() == {"text"}
        prompt.check({"text"}, answer_at_end=True)
        whole = prompt.render({"text": "QUERY", "title": ""}).text("ANSWER")
        assert whole.count("QUERY") == whole.count("ANSWER") == 1
        for name in demo_ids(prompt):
            example = by_id[name]
            words = prompt.words[example.target][0]
            assert f"{example.fields['text']} {prompt.choices['cue']} {words}." in whole
        assert prompt.text == prompt.text.strip()


# ----------------------------------------------------------------- counting, listing, neighbourhoods


def test_size_counts_conditional_choices_right() -> None:
    space = bind(FULL_TEMPLATE, **FULL)
    prompts = list(space.enumerate())
    assert len({prompt.key for prompt in prompts}) == len(prompts)
    # words 2 x instruction (1 + 1 x 2 hints + 1) x demos (1 + 3 sets) x cue 2
    assert space.size() == len(prompts) == 2 * 4 * 4 * 2
    assert prompts[0] == space.default()


def test_sizes_of_what_conditions_lead_to() -> None:
    """A pick that is not met counts as none shown, and what stands behind a failed condition is not met."""
    pick = {"k": [0, 2], "sets": 2, "template": "{{ text }} {{ answer }}"}
    slots = {
        "mode": {"one_of": ["few", "none"]},
        "demos": {"pick": pick, "when": {"mode": ["few"]}},
        "cue": {"one_of": ["So", "Thus"], "when": {"demos": [0]}},
    }
    behind = {
        "a": {"one_of": ["x", "y"]},
        "b": {"one_of": ["p", "q", "r"]},
        "c": {"one_of": ["1", "2"], "when": {"a": ["x"], "b": ["p"]}},
    }
    for template, named in (
        ("[[ mode ]] [[ demos ]] {{ text }} [[ cue ]] {{ answer }}", slots),
        ("[[ a ]] {{ text }} [[ c ]] {{ answer }}", behind),
    ):
        space = SearchSpace.from_dict({"template": template, "slots": named}).bind(
            make_task(), answer_at_end=True
        )
        paths, path = 0, []
        while path is not None:
            recorder = Recorder(path)
            space.draw(recorder)
            paths, path = paths + 1, next_path(recorder.asked)
        assert space.size() == paths


def test_listing_ends_after_so_many_combinations() -> None:
    options = [f"o{n}" for n in range(10)]
    slots = {name: {"one_of": options} for name in "abcdef"}
    template = " ".join(f"[[ {name} ]]" for name in slots) + " {{ text }} {{ answer }}"
    space = SearchSpace.from_dict({"template": template, "slots": slots})
    bound = space.bind(
        make_task(), answer_at_end=True, accepts=lambda prompt: prompt.text.startswith("o0 o0 o0 o0")
    )
    assert bound.size() == 10**6
    assert len(list(bound.enumerate(most=1_000))) == 100


OPTION = st.lists(st.sampled_from("abcd"), max_size=2, unique=True)


@given(st.fixed_dictionaries({name: st.lists(OPTION, min_size=1, max_size=3) for name in "abcd"}))
@settings(max_examples=80, deadline=None)
def test_size_is_the_number_of_prompts(graph: dict[str, list[list[str]]]) -> None:
    """Random small spaces; a slot refers to later slots only, so there is no circle."""
    slots = {}
    for name, options in graph.items():
        texts = [
            f"{name}{index} " + " ".join(f"[[ {other} ]]" for other in others if other > name)
            for index, others in enumerate(options)
        ]
        slots[name] = {"one_of": texts}
    template = "[[ a ]][[ b ]] {{ text }} {{ answer }}"
    reached = {"a", "b"} | {o for n in "ab" for others in graph[n] for o in others if o > n}
    reached |= {o for n in "c" if n in reached for others in graph[n] for o in others if o > n}
    space = bind(template, **{name: slot for name, slot in slots.items() if name in reached})
    assert space.size() == len(list(space.enumerate()))


def test_size_of_huge_spaces_is_capped_and_quick() -> None:
    slots = {f"s{i}": {"one_of": [str(j) for j in range(10)]} for i in range(40)}
    template = " ".join(f"[[ s{i} ]]" for i in range(40)) + " {{ text }} {{ answer }}"
    space = bind(template, **slots)
    assert space.size() == MAX_SIZE == 10**12
    assert next(space.enumerate()) == space.default()


def test_prompts_are_rebuilt_from_their_choices_through_json() -> None:
    space = bind(FULL_TEMPLATE, **FULL)
    for prompt in space.enumerate():
        assert space.prompt_from(json.loads(json.dumps(prompt.choices))) == prompt


def test_random_draws_reach_everything_and_follow_the_seed() -> None:
    space = bind(FULL_TEMPLATE, **FULL)
    drawn = [space.draw(RandomChooser(rng)) for rng in [np.random.default_rng(3)] for _ in range(600)]
    again = [space.draw(RandomChooser(rng)) for rng in [np.random.default_rng(3)] for _ in range(600)]
    assert drawn == again
    assert {prompt.key for prompt in drawn if prompt} == {prompt.key for prompt in space.enumerate()}


def test_neighbours_differ_in_one_choice() -> None:
    space = bind(FULL_TEMPLATE, **FULL)
    rng = np.random.default_rng(0)
    for _ in range(30):
        prompt = space.draw(RandomChooser(rng))
        assert prompt is not None
        near = space.neighbours(prompt, rng, 4)
        assert len(near) == len({item.key for item in near}) == 4
        for item in near:
            assert item.key != prompt.key
            shared = prompt.choices.keys() & item.choices.keys()
            changed = [name for name in shared if prompt.choices[name] != item.choices[name]]
            assert len(changed) == 1
    assert space.neighbours(prompt, np.random.default_rng(1), 3) == space.neighbours(
        prompt, np.random.default_rng(1), 3
    )
    # words 1 + instruction 2 + demos 1 (its set is drawn) + cue 1
    assert len(space.neighbours(space.default(), rng, 1000)) == 5


def test_a_prompt_from_elsewhere_has_the_neighbours_of_the_default() -> None:
    space = bind(FULL_TEMPLATE, **FULL)
    assert space.neighbours(Prompt("{{ text }} {{ answer }}"), np.random.default_rng(0), 2)


def test_fixed_choosers_refuse_what_is_not_on_offer() -> None:
    space = bind(FULL_TEMPLATE, **FULL)
    with pytest.raises(
        InputError, match=r"slot cue: no option 'It wos' \(did you mean 'It was'\?\); options: "
    ):
        space.draw(FixedChooser({"cue": "It wos"}))
    with pytest.raises(InputError, match=r"no slot named 'cues' \(did you mean 'cue'\?\)"):
        space.prompt_from({"cues": "It was"})
