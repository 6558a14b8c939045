"""Tiny random models of many architectures, with tokenizers trained here; nothing is downloaded."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from autoprompt.models import LabelReply, LabelRequest
from autoprompt.prompt import Piece, Rendered

SHARED = Path(__file__).resolve().parents[3] / "shared" / "models"
SENTENCES = [
    "The film was great and the people loved it.",
    "The film was terrible and the people hated it.",
    "A good book, a bad book: it was good, it was bad (really).",
    "It was great. It was terrible! Was it good? It was bad, overall.",
    "Review: a long walk in the rain with a slow dog and a small cat.\nSentiment: great",
    "Paris is the capital of France, and Rome is the capital of Italy.",
    "Question: is it good or bad? Answer: \"good\" or (bad) or 'great'.",
]
# Which tokenizer each architecture is tested with.
CAUSAL = {
    "gpt2": "bytes",
    "gpt_neo": "bytes",
    "gpt_neox": "bytes",
    "phi": "bytes",
    "qwen3": "bytes",
    "opt": "bytes+bos",
    "llama": "pieces+bos",
    "mistral": "pieces+bos",
    "gemma": "pieces+bos",
    "gemma2": "pieces+bos",
}
MASKED = {
    "bert": "words",
    "distilbert": "words",
    "electra": "words",
    "roberta": "bytes+mask",
    "modernbert": "bytes+mask",
    "albert": "pieces+mask",
    "xlm-roberta": "pieces+mask",
    "deberta-v2": "pieces+mask",
}
SEQ2SEQ = {"t5": "pieces+eos", "bart": "bytes+mask"}


@functools.cache
def make_tokenizer(kind: str, limit: int = 128) -> Any:
    """A tokenizer trained on the sentences, with the special tokens asked for."""
    family, _, extra = kind.partition("+")
    if family == "words":
        core = _word_piece()
        names = {
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "mask_token": "[MASK]",
        }
        frame = ("[CLS]", "[SEP]")
    else:
        core = _byte_level() if family == "bytes" else _unigram()
        names = {"bos_token": "<s>", "eos_token": "</s>"}
        if family == "pieces":
            names["unk_token"] = "<unk>"
        frame = {"": ("", ""), "bos": ("<s>", ""), "eos": ("", "</s>"), "mask": ("<s>", "</s>")}[extra]
        if extra in ("mask", "eos"):
            names["pad_token"] = "<pad>"
        if extra == "mask":
            names |= {"cls_token": "<s>", "sep_token": "</s>"}
    if any(frame):
        core.post_processor = processors.TemplateProcessing(
            single=" ".join(filter(None, (frame[0], "$A", frame[1]))),
            special_tokens=[(name, core.token_to_id(name)) for name in frame if name],
        )
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=limit, **names)
    if extra == "mask":  # as RoBERTa's, ALBERT's and XLM-R's: the mask takes the space before it along
        tokenizer.add_special_tokens({"mask_token": AddedToken("<mask>", lstrip=True, special=True)})
    return tokenizer


def _word_piece() -> Tokenizer:
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    core.train_from_iterator(
        SENTENCES, trainers.WordPieceTrainer(vocab_size=160, special_tokens=special, show_progress=False)
    )
    return numbered_alike(core, special)


def numbered_alike(core: Tokenizer, special: list[str]) -> Tokenizer:
    """WordPiece in the order of its text: training numbers equal pieces anew in every process."""
    plain = json.loads(core.to_str())
    pieces = [*special, *sorted(set(core.get_vocab()) - set(special))]
    plain["model"]["vocab"] = {piece: number for number, piece in enumerate(pieces)}
    return Tokenizer.from_str(json.dumps(plain))


def _byte_level() -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<s>", "<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(SENTENCES, trainer)
    return core


def _unigram() -> Tokenizer:
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    core.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(
        vocab_size=120,
        unk_token="<unk>",
        special_tokens=["<unk>", "<s>", "<pad>", "</s>"],
        show_progress=False,
    )
    core.train_from_iterator(SENTENCES * 4, trainer)
    return core


_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
}


def make_config(architecture: str, tokenizer: Any) -> Any:
    """A configuration of two small layers."""
    size = len(tokenizer) + 3  # as many models, with some more rows than the tokenizer has ids
    common = {
        "vocab_size": size,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    match architecture:
        case "gpt2":
            return hf.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=128, **common)
        case "gpt_neo":
            return hf.GPTNeoConfig(
                hidden_size=32,
                num_layers=2,
                num_heads=4,
                attention_types=[[["global", "local"], 1]],
                window_size=6,
                max_position_embeddings=128,
                **common,
            )
        case "gpt_neox":
            return hf.GPTNeoXConfig(**_SMALL, **common)
        case "phi":
            return hf.PhiConfig(**_SMALL, **common)
        case "qwen3":
            return hf.Qwen3Config(**_SMALL, num_key_value_heads=2, head_dim=8, **common)
        case "opt":
            return hf.OPTConfig(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                ffn_dim=48,
                word_embed_proj_dim=16,
                max_position_embeddings=128,
                pad_token_id=1,
                **common,
            )
        case "llama":
            return hf.LlamaConfig(**_SMALL, num_key_value_heads=2, **common)
        case "mistral":
            return hf.MistralConfig(**_SMALL, num_key_value_heads=2, sliding_window=6, **common)
        case "gemma":
            return hf.GemmaConfig(**_SMALL, num_key_value_heads=1, head_dim=8, **common)
        case "gemma2":
            return hf.Gemma2Config(
                **_SMALL,
                num_key_value_heads=2,
                head_dim=8,
                sliding_window=6,
                final_logit_softcapping=5.0,
                **common,
            )
        case "bert" | "electra":
            kind = {"bert": hf.BertConfig, "electra": hf.ElectraConfig}[architecture]
            extra = {"embedding_size": 16} if architecture == "electra" else {}
            return kind(**_SMALL, **extra, vocab_size=size, pad_token_id=0)
        case "distilbert":
            return hf.DistilBertConfig(
                dim=32, n_layers=2, n_heads=4, hidden_dim=48, vocab_size=size, max_position_embeddings=128
            )
        case "roberta" | "xlm-roberta":
            kind = {"roberta": hf.RobertaConfig, "xlm-roberta": hf.XLMRobertaConfig}[architecture]
            return kind(**_SMALL, **common, type_vocab_size=1, pad_token_id=tokenizer.pad_token_id)
        case "albert":
            return hf.AlbertConfig(**_SMALL, **common, embedding_size=16, pad_token_id=tokenizer.pad_token_id)
        case "deberta-v2":
            return hf.DebertaV2Config(
                **_SMALL,
                vocab_size=size,
                relative_attention=True,
                position_buckets=16,
                pos_att_type=["p2c", "c2p"],
                norm_rel_ebd="layer_norm",
                share_att_key=True,
                position_biased_input=False,
                pad_token_id=tokenizer.pad_token_id,
            )
        case "modernbert":
            return hf.ModernBertConfig(
                **_SMALL,
                **common,
                local_attention=8,
                global_attn_every_n_layers=2,
                pad_token_id=tokenizer.pad_token_id,
                cls_token_id=0,
                sep_token_id=2,
            )
        case "t5":
            return hf.T5Config(
                d_model=32,
                d_kv=8,
                d_ff=48,
                num_layers=2,
                num_heads=4,
                vocab_size=size,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                decoder_start_token_id=tokenizer.pad_token_id,
            )
        case "bart":
            return hf.BartConfig(
                d_model=32,
                encoder_layers=2,
                decoder_layers=2,
                encoder_attention_heads=4,
                decoder_attention_heads=4,
                encoder_ffn_dim=48,
                decoder_ffn_dim=48,
                max_position_embeddings=128,
                **common,
                pad_token_id=tokenizer.pad_token_id,
                decoder_start_token_id=tokenizer.eos_token_id,
                forced_eos_token_id=None,
            )
    raise ValueError(architecture)


@functools.cache
def make_model(architecture: str, seed: int = 0) -> tuple[Any, Any]:
    """(model, tokenizer) with random weights so large that every part of the model shows in its scores."""
    kind = {**CAUSAL, **MASKED, **SEQ2SEQ}[architecture]
    tokenizer = make_tokenizer(kind)
    config = make_config(architecture, tokenizer)
    if architecture in CAUSAL:
        auto: Any = hf.AutoModelForCausalLM
    else:
        auto = hf.AutoModelForMaskedLM if architecture in MASKED else hf.AutoModelForSeq2SeqLM
    model = auto.from_config(config)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            parameter.copy_(0.25 * noise if parameter.dim() > 1 else parameter + 0.25 * noise)
    return model.eval(), tokenizer


def save_model(architecture: str, home: Path) -> Path:
    """The folder in ``home`` that holds the model of ``make_model`` as ``from_pretrained`` reads it."""
    folder = home / architecture
    for part in make_model(architecture):
        part.save_pretrained(folder)
    return folder


def shared_model(name: str) -> Path:
    """Path of a real model in ../shared/models; skips the test where it is absent."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is not here")
    return SHARED / name


LONG = "the film was great and the people loved it, " * 8


def prompt(field: str, before: str = "Review: ", ending: str = " It was ", after: str = "") -> Rendered:
    pieces = (Piece(before), Piece(field, is_field=True), Piece(ending))
    return Rendered(tuple(piece for piece in pieces if piece.text), (Piece(after),) if after else ())


def one(model: Any, rendered: Rendered, *answers: str) -> LabelReply:
    (reply,) = model.logprobs([LabelRequest(rendered, answers)])
    assert isinstance(reply, LabelReply), reply
    return reply
