"""Families of models that do something of their own: scores and texts are those of a plain forward all the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf

from autoprompt.errors import ModelError
from autoprompt.models import FluencyReply, FluencyRequest, LabelReply, LabelRequest, TextRequest
from autoprompt.models.load import load_model
from autoprompt.prompt import Piece, Rendered
from tests.models.test_parity import (
    FIELDS,
    MIXED,
    SINGLE,
    _greedy,
    check,
    naive_causal,
    naive_masked,
    rendered,
    requests,
)
from tests.models.tiny import make_model, make_tokenizer

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
}


def odd(architecture: str, kind: str = "bytes", auto: Any = hf.AutoModelForCausalLM, **settings: Any) -> Any:
    """(model, tokenizer) with random weights so large that every part of the model shows in its scores."""
    tokenizer = make_tokenizer(kind)
    common = {
        "vocab_size": len(tokenizer) + 3,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    config = hf.AutoConfig.for_model(architecture, **{**common, **settings})
    with torch.random.fork_rng():  # vectors keep what they begin with, whatever ran before
        torch.manual_seed(0)
        model = auto.from_config(config).float()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            parameter.copy_(0.25 * noise if parameter.dim() > 1 else parameter + 0.1 * noise)
    return model.eval(), tokenizer


def gptj() -> Any:
    """Attention of its own, which a text of one token does not show."""
    return odd("gptj", n_embd=32, n_layer=2, n_head=4, n_positions=128, rotary_dim=4)


def deepseek() -> Any:
    """Keys wider than values."""
    return odd(
        "deepseek_v3",
        **SMALL,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        moe_intermediate_size=16,
        kv_lora_rank=8,
        q_lora_rank=8,
        qk_rope_head_dim=8,
        v_head_dim=8,
        qk_nope_head_dim=8,
    )


def mobilebert() -> Any:
    """Embeddings that look at their neighbours, padding included."""
    narrow: dict[str, Any] = {
        "embedding_size": 16,
        "intra_bottleneck_size": 32,
        "true_hidden_size": 32,
        "pad_token_id": 0,
    }
    model, tokenizer = odd("mobilebert", "words", hf.AutoModelForMaskedLM, **SMALL, **narrow)
    for name in ("bos_token_id", "eos_token_id"):  # its own configuration has none
        delattr(model.config, name)
    return model, tokenizer


def fnet() -> Any:
    """Mixes all tokens, padding included."""
    return odd("fnet", "words", hf.AutoModelForMaskedLM, **SMALL, pad_token_id=0)


def convbert() -> Any:
    """Looks at its neighbours, padding included."""
    return odd("convbert", "words", hf.AutoModelForMaskedLM, **SMALL, embedding_size=16, pad_token_id=0)


def recurrent_gemma() -> Any:
    """Reads padding on its left."""
    return odd(
        "recurrent_gemma",
        **SMALL,
        num_key_value_heads=1,
        head_dim=8,
        lru_width=32,
        attention_window_size=64,
        block_types=["recurrent", "attention"],
    )


def minimax() -> Any:
    """Keeps a sum over the text, in which padding on the left counts from the second new token on."""
    layers = ["linear_attention", "full_attention"]
    experts = {"num_local_experts": 2, "num_experts_per_tok": 1}
    return odd("minimax", **SMALL, num_key_value_heads=2, head_dim=8, layer_types=layers, **experts)


def longrope() -> Any:
    """All positions are others as soon as one text of a batch is long."""
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [3.0] * 4,
    }
    more: dict[str, Any] = {
        "num_key_value_heads": 2,
        "pad_token_id": 1,
        "original_max_position_embeddings": 30,
    }
    return odd("phi3", **SMALL, **more, rope_parameters=rope)


def llama4() -> Any:
    """Attends within chunks."""
    more: dict[str, Any] = {
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_local_experts": 2,
        "intermediate_size_mlp": 48,
    }
    return odd("llama4_text", **SMALL, **more, attention_chunk_size=30, pad_token_id=1)


def check_causal(model: Any, tokenizer: Any, ours: Any) -> None:
    asked = requests(MIXED)
    check(ours.logprobs(asked), [naive_causal(model, tokenizer, request) for request in asked])


def test_a_first_text_of_one_token_says_nothing_of_a_family() -> None:
    model, tokenizer = gptj()
    ours: Any = load_model((model, tokenizer))
    (reply,) = ours.logprobs([LabelRequest(Rendered((Piece("a"),)), ("good",))])
    assert isinstance(reply, LabelReply)
    check_causal(model, tokenizer, ours)


def test_gradients_run_a_family_as_scores_do() -> None:
    ours: Any = load_model(gptj())
    assert not ours._gradients.from_slots
    assert not ours._reader.tree.able


def test_keys_wider_than_values() -> None:
    model, tokenizer = deepseek()
    ours: Any = load_model((model, tokenizer))
    check_causal(model, tokenizer, ours)
    assert ours._reader.tree.able


def test_configurations_without_special_tokens() -> None:
    model, tokenizer = odd("codegen", n_embd=32, n_layer=2, n_head=4, n_positions=128, rotary_dim=4)
    assert not hasattr(model.config, "pad_token_id")
    check_causal(model, tokenizer, load_model((model, tokenizer)))
    ours: Any = load_model(mobilebert())
    slotted = Rendered((Piece("It was "), Piece("good", slot="word"), Piece(" and ")))
    (reply,) = ours.fluency([FluencyRequest(slotted)])
    assert isinstance(reply, FluencyReply)


@pytest.mark.parametrize("family", [mobilebert, fnet, convbert])
def test_what_is_read_of_padding_is_none(family: Any) -> None:
    model, tokenizer = family()
    ours: Any = load_model((model, tokenizer))
    asked = [LabelRequest(rendered(field, " It was ", "."), SINGLE) for field in FIELDS]
    check(ours.logprobs(asked), [naive_masked(model, tokenizer, request) for request in asked])


def test_most_families_are_padded() -> None:
    for architecture in ("gpt_neo", "deberta-v2", "bart"):
        ours: Any = load_model(make_model(architecture))
        assert ours._learnt().fills


@pytest.mark.parametrize("family", [longrope, llama4])
def test_long_texts_that_are_read_otherwise(family: Any) -> None:
    model, tokenizer = family()
    ours: Any = load_model((model, tokenizer))
    asked = requests(SINGLE)
    lengths = ours.count_tokens(asked)
    assert min(lengths) < ours._reader.alike + 4 < max(lengths)
    # an answer that goes over the border is read as a long text or a short one, as answers beside it are
    asked = [
        each for each, length in zip(asked, lengths, strict=True) if abs(length - ours._reader.alike) > 4
    ]
    check(ours.logprobs(asked), [naive_causal(model, tokenizer, request) for request in asked])
    short = [each for each in asked if ours.count_tokens([each])[0] < ours._reader.alike]
    check(ours.logprobs(short), [naive_causal(model, tokenizer, request) for request in short])
    assert ours._reader.tree.able


@pytest.mark.parametrize("family", [recurrent_gemma, minimax, longrope])
def test_generation_where_rows_must_be_of_one_length(family: Any) -> None:
    model, tokenizer = family()
    ours: Any = load_model((model, tokenizer))
    asked = [TextRequest(rendered(field, " It was "), 6) for field in FIELDS]
    texts = [reply.text for reply in ours.complete(asked)]
    assert texts == [_greedy(model, tokenizer, request, two_parts=False) for request in asked]
    assert ours._fills_left is (family is longrope)


def test_a_model_that_looks_ahead_is_no_causal_one() -> None:
    ours: Any = load_model(odd("xlnet", d_model=32, n_layer=2, n_head=4, d_inner=48))
    with pytest.raises(ModelError, match="does not read on from a text"):
        ours.logprobs([LabelRequest(rendered("it", " It was "), ("good",))])
