"""Families of models that do something of their own: scores and texts are those of a plain forward all the same."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf

from autoprompt.models import FluencyReply, FluencyRequest, LabelReply, LabelRequest
from autoprompt.models.load import load_model
from autoprompt.prompt import Piece, Rendered
from tests.models.test_parity import MIXED, check, naive_causal, requests
from tests.models.tiny import make_tokenizer

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
    narrow = {"embedding_size": 16, "intra_bottleneck_size": 32, "true_hidden_size": 32, "pad_token_id": 0}
    model, tokenizer = odd("mobilebert", "words", hf.AutoModelForMaskedLM, **SMALL, **narrow)
    for name in ("bos_token_id", "eos_token_id"):  # its own configuration has none
        delattr(model.config, name)
    return model, tokenizer


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
