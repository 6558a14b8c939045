"""Rows in place of tokens: nothing changes where they are the tokens' own, and all of it where they are not."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from autoprompt.models import (
    CompletingModel,
    Failure,
    FluencyReply,
    FluencyRequest,
    LabelReply,
    LabelRequest,
    TextReply,
    TextRequest,
)
from autoprompt.models.load import load_model
from autoprompt.prompt import Piece, Rendered
from autoprompt.soft import SoftRows
from tests.models.tiny import CAUSAL, MASKED, SEQ2SEQ, make_model

ALL = (*CAUSAL, *MASKED, *SEQ2SEQ)
FIELDS = [
    "the film",
    "a slow dog and a small cat, overall, and the people loved it in the rain",
    "it was bad",
]
ANSWERS = ("good", "bad", "great")
SLOTS = {"front": "good film", "middle": "people loved", "end": "overall"}


def text(field: str, kind: str) -> Rendered:
    """Slots before, between and after the data."""
    before = (
        Piece(SLOTS["front"], slot="front"),
        Piece(" . "),
        Piece(field, is_field=True),
        Piece(" . "),
        Piece(SLOTS["middle"], slot="middle"),
        Piece(" it was "),
    )
    if kind == "masked":
        return Rendered(before, (Piece(" , "), Piece(SLOTS["end"], slot="end"), Piece(" .")))
    return Rendered((*before[:-1], Piece(" , "), Piece(SLOTS["end"], slot="end"), Piece(" : it was ")))


def softened(rendered: Rendered, rows: dict[str, SoftRows]) -> Rendered:
    def soft(piece: Piece) -> Piece:
        return dataclasses.replace(piece, rows=rows[piece.slot]) if piece.slot in rows else piece

    return Rendered(tuple(map(soft, rendered.before)), tuple(map(soft, rendered.after)))


def own_rows(loaded: Any, rendered: Rendered) -> dict[str, SoftRows]:
    """What the model reads for the slots' own tokens."""
    (read,) = loaded.vocabulary.read([rendered])
    return {name: SoftRows(loaded.vocabulary.rows(ids)) for name, ids in read.items()}


def scores(loaded: Any, texts: list[Rendered]) -> np.ndarray:
    replies = loaded.logprobs([LabelRequest(each, ANSWERS) for each in texts])
    assert all(isinstance(each, LabelReply) for each in replies), replies
    return np.array([each.log_probs for each in replies])


@pytest.mark.parametrize("architecture", ALL)
def test_rows_of_the_tokens_themselves_change_nothing(architecture: str) -> None:
    loaded = load_model(make_model(architecture))
    hard = [text(field, loaded.kind) for field in FIELDS]
    soft = [softened(each, own_rows(loaded, each)) for each in hard]
    np.testing.assert_allclose(scores(loaded, soft), scores(loaded, hard), atol=1e-6, rtol=0)
    some = [softened(each, {"middle": own_rows(loaded, each)["middle"]}) for each in hard]
    np.testing.assert_allclose(scores(loaded, some), scores(loaded, hard), atol=1e-6, rtol=0)


@pytest.mark.parametrize("architecture", ALL)
def test_other_rows_score_as_a_plain_forward_and_alike_in_any_batch(architecture: str) -> None:
    """Two prompts and three lengths in one batch, against one text at a time through ``inputs_embeds``."""
    model, tokenizer = make_model(architecture)
    loaded = load_model((model, tokenizer))
    draw = np.random.default_rng(0)
    texts, expected = [], []
    for scale in (1.0, 2.0):
        rows: dict[str, SoftRows] | None = None
        for field in FIELDS:
            hard = text(field, loaded.kind)
            own = own_rows(loaded, hard)
            if rows is None:
                rows = {
                    name: SoftRows(each.values + scale * draw.normal(size=each.shape) * each.values.std())
                    for name, each in own.items()
                }
            texts.append(softened(hard, rows))
            expected.append(naive(model, tokenizer, loaded, hard, rows))
    together = scores(loaded, texts)
    np.testing.assert_allclose(together, np.array(expected), atol=2e-5, rtol=0)
    alone = np.concatenate([scores(load_model((model, tokenizer)), [each]) for each in texts])
    np.testing.assert_allclose(together, alone, atol=5e-6, rtol=0)
    assert np.abs(together[:3] - together[3:]).max() > 1e-3


def naive(model: Any, tokenizer: Any, loaded: Any, hard: Rendered, rows: dict[str, SoftRows]) -> list[float]:
    """Log-probabilities of one-token answers, rows put into ``inputs_embeds`` by hand."""
    (encoded,) = loaded._encode([LabelRequest(hard, ANSWERS)])
    (found,) = loaded._finder.find([hard])
    encoder = model.get_encoder() if loaded.kind == "seq2seq" else model
    found_scores = []
    for read in encoded.reads:
        ids = torch.tensor([encoded.source or encoded.rows[read.row]])
        with torch.no_grad():
            embeds = encoder.get_input_embeddings()(ids).clone()
            for name, each in rows.items():
                embeds[0, list(found.slots[name].at)] = torch.from_numpy(each.values.copy())
            given: dict[str, Any] = {"attention_mask": torch.ones_like(ids)}
            if loaded.kind == "seq2seq":
                given["decoder_input_ids"] = torch.tensor([encoded.rows[read.row]])
            if loaded.kind == "masked" and "token_type_ids" in tokenizer.model_input_names:
                given["token_type_ids"] = torch.zeros_like(ids)
            logits = model(inputs_embeds=embeds, **given).logits[0].log_softmax(-1)
        found_scores.append(
            sum(float(logits[read.start + at, token]) for at, token in enumerate(read.targets))
        )
    return found_scores


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "opt", "gemma", "t5", "bart"])
def test_generation_under_any_padding(architecture: str) -> None:
    loaded = load_model(make_model(architecture))
    assert isinstance(loaded, CompletingModel)
    hard = [text(field, loaded.kind) for field in FIELDS]
    draw = np.random.default_rng(1)
    rows = {name: SoftRows(each.values + 2 * draw.normal(size=each.shape) * each.values.std())
            for name, each in own_rows(loaded, hard[0]).items()}  # fmt: skip
    asked = [TextRequest(softened(each, rows), 8) for each in hard]
    together = loaded.complete(asked)
    alone = [loaded.complete([each])[0] for each in asked]
    assert together == alone
    assert all(isinstance(each, TextReply) for each in together)
    own = [TextRequest(softened(each, own_rows(loaded, each)), 8) for each in hard]
    plain = loaded.complete([TextRequest(each, 8) for each in hard])
    assert [each.text for each in loaded.complete(own)] == [each.text for each in plain]
    assert [each.text for each in together] != [each.text for each in plain]


@pytest.mark.parametrize("architecture", ["gpt2", "bert", "t5"])
def test_a_gradient_is_taken_at_the_rows(architecture: str) -> None:
    """A step against the gradient lowers the loss by what the gradient says."""
    from autoprompt.models import GradientRequest

    loaded = load_model(make_model(architecture))
    hard = text(FIELDS[0], loaded.kind)
    rows = own_rows(loaded, hard)
    draw = np.random.default_rng(2)
    rows["middle"] = SoftRows(rows["middle"].values + draw.normal(size=rows["middle"].shape) * 0.1)

    def asked(given: dict[str, SoftRows]) -> Any:
        return loaded.gradients([GradientRequest(softened(hard, given), ANSWERS, (1,), True)])

    reply = asked(rows)
    gradient = reply.slots["middle"].gradient
    step = 1e-3 * gradient / np.linalg.norm(gradient)
    before, after = (
        asked({**rows, "middle": SoftRows(rows["middle"].values + sign * step)}).loss for sign in (-1, 1)
    )
    assert after - before == pytest.approx(2e-3 * float(np.linalg.norm(gradient)), rel=0.05)


def test_rows_that_do_not_fit_are_failures() -> None:
    loaded = load_model(make_model("gpt2"))
    hard = text(FIELDS[0], "causal")
    own = own_rows(loaded, hard)
    (reply,) = loaded.logprobs(
        [LabelRequest(softened(hard, {"front": SoftRows(own["front"].values[:1])}), ANSWERS)]
    )
    assert isinstance(reply, Failure)
    assert "holds 1 rows" in reply.message


@pytest.mark.parametrize("architecture", ["gpt2", "bert"])
def test_rows_have_no_likelihood(architecture: str) -> None:
    """The text that says where they stand has one, but it is not what is read."""
    loaded = load_model(make_model(architecture))
    hard = text(FIELDS[0], loaded.kind)
    plain, soft = loaded.fluency(
        [FluencyRequest(hard), FluencyRequest(softened(hard, own_rows(loaded, hard)))]
    )
    assert isinstance(plain, FluencyReply)
    assert isinstance(soft, Failure)
    assert "holds rows" in soft.message
