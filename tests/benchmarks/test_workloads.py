"""The benchmark measures what it says: lengths, sharing, counts, and baselines that agree with the library."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from autoprompt.models import LabelRequest
from tests.benchmarks import baselines, floor, gradient, memory, ours, scaling, scoring
from tests.benchmarks.measure import Timing, difference, interleaved, table
from tests.benchmarks.models import FAMILIES, Family, Subject, make_subject, make_tokenizer, make_words
from tests.benchmarks.workloads import (
    POSITIONS,
    Step,
    Workload,
    Writer,
    demonstrations,
    gradient_step,
    templates_and_examples,
)

EDGE = 3  # tokens by which the first word of a text and the special tokens may lengthen it


@pytest.fixture(scope="module", params=FAMILIES)
def subject(request: pytest.FixtureRequest) -> Subject:
    family: Family = request.param
    return make_subject(family, "tiny")


def rows_of(subject: Subject, workload: Workload) -> list[list[baselines.Row]]:
    return [baselines.encode(subject, row) for row in workload.rendered]


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_have_the_length_asked_for_and_words_are_one_or_two_tokens(family: Family) -> None:
    tokenizer = make_tokenizer(family)
    assert len(tokenizer) <= 8192
    writer = Writer(tokenizer)
    for length in (1, 10, 60, 400):
        ids = tokenizer(f" {writer.text(length)}", add_special_tokens=False)["input_ids"]
        assert len(ids) == length
    sizes = [
        len(ids)
        for ids in tokenizer([f" {word}" for word in make_words()], add_special_tokens=False)["input_ids"]
    ]
    assert sum(size <= 2 for size in sizes) > 0.8 * len(sizes)
    assert Writer(tokenizer, seed=3).text(30) == Writer(tokenizer, seed=3).text(30)


def test_workload_a_has_its_lengths_and_both_kinds_of_prompts(subject: Subject) -> None:
    workload = templates_and_examples(subject, 8, 16)
    groups = rows_of(subject, workload)
    assert [len(group) for group in groups] == [16] * 8
    fields = [[piece for piece in each.before if piece.is_field] for each in workload.rendered[0]]
    examples = [
        len(subject.tokenizer(f" {piece.text}", add_special_tokens=False)["input_ids"]) for (piece,) in fields
    ]
    assert min(examples) >= 10
    assert max(examples) <= 60
    extra = 2 if subject.kind == "masked" else 0  # the mask and the full stop
    for group in groups:
        for row, example in zip(group, examples, strict=True):
            assert 20 <= len(row.ids) - example <= 60 + extra + EDGE
    assert [row[0].before[0].is_field for row in workload.rendered] == [True, False] * 4


def test_workload_c_shares_prefixes_of_stated_length() -> None:
    subject = make_subject("gpt2", "tiny")
    workload = demonstrations(subject, examples=2)
    assert len(workload.rendered) == 200
    count = [len(subject.tokenizer(row[0].before[0].text)["input_ids"]) for row in workload.rendered]
    assert min(count) >= 100
    assert max(count) <= 400 + EDGE
    first, second = ([row.ids for row in baselines.encode(subject, each)] for each in workload.rendered[:2])
    together = floor.trie_tokens([first[0], second[0]])
    assert together < len(first[0]) + len(second[0]) - 60  # instruction and first half of the demonstrations


def test_the_whole_of_a_and_c_share_what_was_measured_for_this_project() -> None:
    subject = make_subject("gpt2", "tiny")
    rows = [row for group in rows_of(subject, demonstrations(subject, 20)) for row in group]
    assert sum(len(row.ids) for row in rows) > 4.5 * floor.least_tokens(subject, rows)
    rows = [row for group in rows_of(subject, templates_and_examples(subject)) for row in group]
    assert sum(len(row.ids) for row in rows) > 1.7 * floor.least_tokens(subject, rows)


def test_trie_tokens_of_an_example_counted_by_hand() -> None:
    # 1-2-3, 1-2-4-5, 1-2 (inside), 6: nodes 1, 2, 3, 4, 5, 6
    assert floor.trie_tokens([(1, 2, 3), (1, 2, 4, 5), (1, 2), (6,), (1, 2, 3)]) == 6
    assert floor.trie_tokens([]) == 0


def test_linear_layers_are_counted_from_the_proportions() -> None:
    width, layers = 32, 2
    assert floor.cost(make_subject("gpt2", "tiny")) == floor.Cost(layers * 12 * width**2, 0)
    assert floor.cost(make_subject("bert", "tiny")) == floor.Cost(layers * 12 * width**2, 0)
    feed_forward = 3 * width * (8 * width // 3)
    assert floor.cost(make_subject("llama", "tiny")) == floor.Cost(layers * (4 * width**2 + feed_forward), 0)
    # an encoder block and the keys and values of the cross-attention; the rest of a decoder block
    assert floor.cost(make_subject("t5", "tiny")) == floor.Cost(
        layers * 14 * width**2, layers * 14 * width**2
    )


def test_padded_tokens_are_counted() -> None:
    groups = [[baselines.Row((1,) * 3, 0), baselines.Row((1,) * 5, 0)], [baselines.Row((1,), 0)]]
    assert baselines.padded_tokens(groups) == 11
    assert baselines.padded_tokens(groups, 6) == 18
    assert (
        baselines.sorted_tokens([baselines.Row((1,) * (length + 1), 0) for length in range(65)])
        == 64 * 65 + 1
    )


def test_all_columns_of_a_agree_with_a_plain_forward(subject: Subject) -> None:
    workload = templates_and_examples(subject, 4, 5)
    found = {name: way()() for name, way in scoring.ways(subject, workload, scoring.COLUMNS).items()}
    answers = baselines.answer_ids(subject, workload.flat[0], workload.answers)
    plain = torch.cat(
        [baselines.naive(subject, [[row]], answers) for row in baselines.encode(subject, workload.flat)]
    )
    for name, scores in found.items():
        assert difference(scores, plain) < 1e-4, name
    assert (plain[:, 0] - plain[:, 1]).std() > 0.1  # the texts matter


def test_demonstrations_agree(subject: Subject) -> None:
    workload = demonstrations(subject, 2, 4)
    naive, mine = (way()() for way in scoring.ways(subject, workload, ("naive", "ours")).values())
    assert difference(naive, mine) < 1e-4


@pytest.mark.parametrize("order", gradient.ORDERS)
def test_a_gradient_step_agrees(subject: Subject, order: str) -> None:
    step = gradient_step(subject, order, candidates=11, examples=4)
    found = {name: way()() for name, way in gradient.ways(subject, step).items()}
    assert difference(found["candidates naive"], found["candidates ours"]) < 1e-4
    theirs = found["gradient all"]
    assert theirs.shape == (POSITIONS, subject.shape.width)
    assert theirs.abs().max() > 1e-4
    if "gradient ours" in found:  # a version without gradients leaves the column out
        assert (theirs - found["gradient ours"]).abs().max() < 1e-4 * max(1.0, float(theirs.abs().max()))


def test_the_gradient_baseline_is_the_slope_of_the_loss() -> None:
    subject = make_subject("gpt2", "tiny")
    step = gradient_step(subject, "examples first", candidates=1, examples=3)
    rows, starts, _ = gradient.encoded(subject, step)
    answers = baselines.answer_ids(subject, step.rendered(step.trigger)[0], step.answers)
    targets = answers[torch.tensor(step.right)]
    slope = baselines.all_parameter_gradient(subject, rows, starts, POSITIONS, targets)
    token = rows[0].ids[starts[0] + 4]
    weight = subject.model.get_input_embeddings().weight
    direction = slope[4] / slope[4].norm()
    losses = []
    for size in (1e-2, -1e-2):
        with torch.no_grad():
            kept = weight[token].clone()
            weight[token] += size * direction
        logs = torch.cat(
            [baselines.naive(subject, [[row]], targets[at : at + 1]) for at, row in enumerate(rows)]
        )
        losses.append(float(-logs.mean()))
        with torch.no_grad():
            weight[token] = kept
    # the token's row is also a row of the (tied) output; it is no target, so that changes the loss by its norm only
    assert (losses[0] - losses[1]) / 2e-2 == pytest.approx(float(slope[4].norm()), rel=0.05)
    assert all(parameter.grad is None for parameter in subject.model.parameters())


def test_candidates_are_single_tokens_at_every_position(subject: Subject) -> None:
    step = gradient_step(subject, "trigger first", candidates=20, examples=2)
    before, starts, groups = gradient.encoded(subject, step)
    assert sorted({position for position, _ in step.candidates}) == list(range(POSITIONS))
    for (position, _), group in zip(step.candidates, groups, strict=True):
        for old, new, start in zip(before, group, starts, strict=True):
            changed = [
                at for at, (one, other) in enumerate(zip(old.ids, new.ids, strict=True)) if one != other
            ]
            assert changed == [start + position]


def test_the_floor_of_a_gradient_leaves_out_what_does_not_depend_on_the_slot() -> None:
    subject = make_subject("gpt2", "tiny")
    counts: dict[str, float] = {}
    for order in gradient.ORDERS:
        rows, starts, _ = gradient.encoded(subject, gradient_step(subject, order, candidates=1, examples=8))
        counts[order] = floor.gradient_flops(subject, rows, starts) / floor.scoring_flops(subject, rows)
    assert 1 < counts["examples first"] < 1.6 < counts["trigger first"] < 2


def test_answers_must_be_single_tokens(subject: Subject) -> None:
    rendered = templates_and_examples(subject, 1, 1).flat[0]
    with pytest.raises(ValueError, match="tokens"):
        baselines.answer_ids(subject, rendered, ["zuzuzuzuzuzu"])


def test_repeats_are_interleaved_and_begin_in_turn() -> None:
    order: list[str] = []

    def way(name: str) -> torch.Tensor:
        order.append(name)
        return torch.zeros(1)

    timings = interleaved({"a": lambda: lambda: way("a"), "b": lambda: lambda: way("b")}, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert timings["a"].cpu >= 0


def test_the_gemm_rate_is_a_rate() -> None:
    rate = floor.rate(Timing(2.0, 4.0, floor.gemm_way(64)()), 64)
    assert rate.cpu == 2 * rate.wall == floor.GEMM_CALLS * 2048 * 64 * 256


def test_one_rate_for_each_width_whatever_the_moment() -> None:
    one = scaling.Point(8, 64, 100, 1.0, 600.0, 100.0)
    other, third = dataclasses.replace(one, rate=300.0), dataclasses.replace(one, width=128, rate=50.0)
    found = scaling.steadied({"a": [one], "b": [other, third]})
    assert [point.least for point in found["a"] + found["b"]] == [3.0, 3.0, 12.0]


def test_memory_is_counted_from_the_reset_on() -> None:
    if not memory.RESET.exists():
        pytest.skip("needs Linux")
    torch.ones(16 << 20)  # 64 MB, gone before the reset
    memory.reset_peak()
    before = memory.resident()
    assert memory.peak() - before < 32
    block = torch.ones(16 << 20)
    assert memory.peak() - before > 0.9 * block.numel() * 4 / 2**20 - 8


def test_slope_of_a_power_law() -> None:
    assert scaling.slope([1, 2, 4], [3, 12, 48]) == pytest.approx(2)


def test_tables_are_even() -> None:
    lines = table(["a", "way", "x"], [["1", "naive", "10.00"], ["22", "b", "1"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[2] == "| 1  | naive | 10.00 |"


def test_a_row_of_the_tables_can_be_made() -> None:
    subject = make_subject("gpt2", "tiny")
    threads = torch.get_num_threads()
    row = scoring.measure(subject, templates_and_examples(subject, 2, 3), threads=1, repeats=1)
    assert len(row) == len(scoring.HEAD)
    step = gradient.measure(subject, "examples first", 2, 2, threads=1, repeats=1)
    assert len(step) == len(gradient.HEAD)
    torch.set_num_threads(threads)


def test_ours_refuses_what_was_not_answered() -> None:
    subject = make_subject("bert", "tiny")
    workload = templates_and_examples(subject, 1, 1)
    bad = [LabelRequest(each, ("zuzuzuzuzuzu",)) for each in workload.flat]
    with pytest.raises(ValueError, match="single tokens"):
        ours.scores(ours.fresh(subject), bad)


def test_a_step_with_no_candidate_in_place_is_the_trigger() -> None:
    step = Step("examples first", ("x",), (0,), ("a", "b"), ((1, "c"),), ("y", "z"), "q", masked=False)
    assert step.substituted() == [("a", "c")]
    assert step.rendered(step.trigger)[0].text("y") == "x a b q y"
