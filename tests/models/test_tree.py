"""Rows run as a tree give what they give one by one, in every mode."""

from __future__ import annotations

import functools
import operator
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import autoprompt
from autoprompt.models import LabelReply, LabelRequest, RankReply, RankRequest
from autoprompt.models.hf.loading import load_pair
from autoprompt.models.hf.settings import Settings
from autoprompt.models.hf.trie import FAMILY_COST, apart, chunks, share, shared_starts
from autoprompt.prompt import Piece, Rendered
from tests.models.test_parity import FIELDS, MIXED, SINGLE, naive_causal, naive_masked, naive_seq2seq
from tests.models.tiny import CAUSAL, MASKED, SEQ2SEQ, make_model

ROW_BY_ROW = {"gpt_neo", "deberta-v2", "t5", "bart"}  # attention, or positions, of their own
WHOLE_LAST_BLOCK = {"albert"}  # one block, run several times
INSTRUCTIONS = ["Was it good? ", "Was it good or bad, overall? ", "Is the film good? A cat: "]


def asked(answers: tuple[str, ...]) -> list[LabelRequest]:
    """Prompts that begin alike, with the instruction or with the example."""
    found = []
    for instruction in INSTRUCTIONS:
        for field in FIELDS:
            text = Piece(field, is_field=True)
            first = Rendered((Piece(instruction), text, Piece(" It was ")))
            found += [first, Rendered((text, Piece(". " + instruction + "It was ")))]
    return [LabelRequest(rendered, answers) for rendered in found]


def naive(architecture: str, request: LabelRequest) -> list[float]:
    model, tokenizer = make_model(architecture)
    if architecture in CAUSAL:
        return naive_causal(model, tokenizer, request)
    return (naive_masked if architecture in MASKED else naive_seq2seq)(model, tokenizer, request)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def check_modes(architecture: str, answers: tuple[str, ...], batches: Sequence[int]) -> None:
    requests = asked(answers)
    expected = [naive(architecture, request) for request in requests]
    for tree in (True, False):
        for batch_tokens in batches:
            ours: Any = load_pair(*make_model(architecture), Settings(tree=tree, batch_tokens=batch_tokens))
            for reply, values in zip(ours.logprobs(requests), expected, strict=True):
                assert isinstance(reply, LabelReply)
                assert reply.log_probs == pytest.approx(values, abs=1e-4)
            assert ours._reader.head.understood


@pytest.mark.parametrize("architecture", [*CAUSAL, *MASKED, *SEQ2SEQ])
def test_every_mode_gives_the_naive_scores(architecture: str) -> None:
    check_modes(architecture, SINGLE if architecture in MASKED else MIXED, (7, 90, 2048))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "bert", "t5"])
def test_threads_do_not_matter(architecture: str) -> None:
    check_modes(architecture, SINGLE, (2048,))


@pytest.mark.parametrize("architecture", [*CAUSAL, *MASKED, *SEQ2SEQ])
def test_families_run_as_trees(architecture: str) -> None:
    ours: Any = load_pair(*make_model(architecture), Settings())
    ours.logprobs(asked(SINGLE))
    assert ours._reader.tree.able is (architecture not in ROW_BY_ROW)
    assert ours._reader.tree.trims is (architecture not in ROW_BY_ROW | WHOLE_LAST_BLOCK)


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2", "roberta", "bart"])
def test_relative_scores_differ_by_a_constant(architecture: str) -> None:
    ours: Any = load_pair(*make_model(architecture), Settings())
    plain = ours.logprobs(asked(SINGLE))
    compared = ours.logprobs([LabelRequest(each.rendered, SINGLE, relative=True) for each in asked(SINGLE)])
    for one, other in zip(plain, compared, strict=True):
        gaps = [a - b for a, b in zip(one.log_probs, other.log_probs, strict=True)]
        assert gaps == pytest.approx([gaps[0]] * len(gaps), abs=1e-5)
    if (
        architecture != "roberta"
    ):  # answers of several tokens are read at several places: nothing to leave out
        plain = ours.logprobs(asked(MIXED))
        compared = ours.logprobs([LabelRequest(each.rendered, MIXED, relative=True) for each in asked(MIXED)])
        for one, other in zip(plain, compared, strict=True):
            assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "bert"])
def test_ranks_are_the_same(architecture: str) -> None:
    requests = [RankRequest(each.rendered, "good") for each in asked(SINGLE)]
    tree, rows = (
        load_pair(*make_model(architecture), Settings(tree=use)).ranks(requests)  # type: ignore[attr-defined]
        for use in (True, False)
    )
    for one, other in zip(tree, rows, strict=True):
        assert isinstance(one, RankReply)
        assert (one.rank, one.top) == (other.rank, other.top)
        assert one.log_prob == pytest.approx(other.log_prob, abs=1e-5)


def test_the_users_model_is_left_as_it_was() -> None:
    model, tokenizer = make_model("gpt2")
    model.train()
    before = model.config._attn_implementation
    ours: Any = load_pair(model, tokenizer, Settings())
    ours.logprobs(asked(SINGLE))
    assert ours._reader.tree.trims
    assert model.config._attn_implementation == before
    assert model.training
    modules = list(model.modules())
    assert not any(each._forward_pre_hooks or each._forward_hooks for each in modules)
    assert not any("forward" in vars(each) for each in modules)
    model.eval()


def drawn(seed: int, count: int = 60) -> list[tuple[int, ...]]:
    """Distinct rows, many of which begin alike and some of which begin others."""
    draw = random.Random(seed)
    rows: list[tuple[int, ...]] = [tuple(draw.randrange(4) for _ in range(draw.randint(1, 12)))]
    while len(rows) < count:
        start = draw.choice(rows)
        kept = start[: draw.randint(0, len(start))]
        row = kept + tuple(draw.randrange(4) for _ in range(draw.randint(0, 30)))
        if row and row not in rows:
            rows.append(row)
    return rows


@pytest.mark.parametrize("seed", range(20))
def test_a_tree_spells_every_row_once(seed: int) -> None:
    rows = drawn(seed)
    trie = share(rows)
    for number, row in enumerate(rows):
        path = [*trie.path(trie.last[number]), trie.last[number]]
        assert sum((trie.nodes[node].ids for node in path), ()) == row
        assert [trie.nodes[node].start for node in path] == [
            sum(len(trie.nodes[other].ids) for other in path[:at]) for at in range(len(path))
        ]
        for position in range(len(row)):
            node, offset = trie.locate(number, position)
            assert node in path
            assert trie.nodes[node].ids[offset] == row[position]
    assert all(node.parent < at and node.ids for at, node in enumerate(trie.nodes))
    distinct = {row[:end] for row in rows for end in range(1, len(row) + 1)}
    assert len(distinct) <= trie.tokens <= sum(map(len, rows))
    # what is run twice is less than a family of siblings would cost, for each family that was not made
    assert trie.tokens <= len(distinct) + FAMILY_COST * len(rows)
    parts = list(chunks(trie, 25))
    assert sorted(functools.reduce(operator.iadd, parts, [])) == list(range(len(trie.nodes)))
    assert all(len(part) == 1 or sum(len(trie.nodes[at].ids) for at in part) <= 25 for part in parts)
    assert apart(rows).tokens == sum(map(len, rows))


def test_long_shared_beginnings_are_run_once() -> None:
    start = tuple(range(100))
    rows = [(*start, 1000 + at, 7, 8) for at in range(50)]
    trie = share(rows)
    assert trie.tokens == 100 + 50 * 3
    assert list(shared_starts(rows)) == [0] + [100] * 49
    assert shared_starts([start, start[:40], (*start[:41], 0)]).tolist() == [0, 40, 40]


def test_a_search_finds_the_same_in_every_mode(tmp_path: Path) -> None:
    """With the tree and without, in small batches and large ones, with a cache on disk and in memory."""
    ways: list[tuple[str, Path | None]] = [
        ("bundled:causal", tmp_path),
        ("bundled:causal", None),
        ("bundled:causal?tree=false", None),
        ("bundled:causal?batch_tokens=200", None),
    ]
    first, *others = (autoprompt.optimize("reviews", model, 1500, run_dir=folder) for model, folder in ways)
    assert len({trial.score for trial in first.trials}) > 2
    for other in others:
        assert [trial.prompt for trial in other.trials] == [trial.prompt for trial in first.trials]
        assert [trial.score for trial in other.trials] == [trial.score for trial in first.trials]
        assert [trial.loss for trial in other.trials] == pytest.approx(
            [trial.loss for trial in first.trials], abs=1e-4
        )
        assert other.candidate == first.candidate
        assert (other.spent.calls, other.spent.tokens) == (first.spent.calls, first.spent.tokens)
