"""What is measured: random-weight models of four families and two sizes, with tokenizers trained on pseudo-words.

Nothing is downloaded. Weights are drawn so wide (1 / sqrt(d)) that scores depend on the whole text: two ways of
computing them that agree do so for a reason.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.models.tiny import numbered_alike

Family = Literal["gpt2", "llama", "bert", "t5"]
Kind = Literal["causal", "masked", "seq2seq"]
FAMILIES: tuple[Family, ...] = ("gpt2", "llama", "bert", "t5")
KINDS: dict[Family, Kind] = {"gpt2": "causal", "llama": "causal", "bert": "masked", "t5": "seq2seq"}
PIECES = 8000  # tokens a tokenizer knows; a model may have more rows than that
TYPES = 6000  # different pseudo-words
_POSITIONS = 1024


@dataclass(frozen=True)
class Shape:
    """Layers, width d, attention heads and rows of the vocabulary."""

    layers: int
    width: int
    heads: int
    vocabulary: int


@dataclass(frozen=True)
class Subject:
    """A model under measurement with its tokenizer."""

    family: Family
    size: str
    shape: Shape
    model: Any
    tokenizer: Any

    @property
    def kind(self) -> Kind:
        """How it reads."""
        return KINDS[self.family]

    @property
    def start(self) -> int:
        """The id a decoder starts from (encoder-decoder models only)."""
        return int(self.model.config.decoder_start_token_id)


_BASE_ROWS: dict[Family, int] = {"gpt2": 50257, "llama": 50257, "bert": 30522, "t5": 32128}


def shape_of(family: Family, size: str) -> Shape:
    """small: 6 layers, d=384, V=8192. base: 12 layers, d=768 and the vocabulary of the family.

    mini: what ../shared/field/gradient.md 6 timed the AutoPrompt code on. tiny: for tests.
    """
    match size:
        case "tiny":
            return Shape(2, 32, 4, 8192)
        case "mini":
            return Shape(4, 256, 4, 8192)
        case "small":
            return Shape(6, 384, 6, 8192)
        case "base":
            return Shape(12, 768, 12, _BASE_ROWS[family])
    raise ValueError(f"size {size!r}: tiny, mini, small or base")


@functools.lru_cache(maxsize=2)
def make_subject(family: Family, size: str, shape: Shape | None = None, seed: int = 0) -> Subject:
    """A model with random weights, and its tokenizer.

    Args:
        family: which architecture.
        size: ``tiny``, ``small`` or ``base``; only a name where a shape is given.
        shape: another shape than that of the size.
        seed: of the weights.
    """
    shape = shape or shape_of(family, size)
    tokenizer = make_tokenizer(family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _CLASSES[family](_config(family, shape, tokenizer))
    return Subject(family, size, shape, model.eval(), tokenizer)


_CLASSES: dict[Family, Any] = {
    "gpt2": hf.GPT2LMHeadModel,
    "llama": hf.LlamaForCausalLM,
    "bert": hf.BertForMaskedLM,
    "t5": hf.T5ForConditionalGeneration,
}


def _config(family: Family, shape: Shape, tokenizer: Any) -> Any:
    """Proportions of the families as published; Llama's feed-forward is 8/3 d, a third of its heads hold keys."""
    width, spread = shape.width, shape.width**-0.5
    match family:
        case "gpt2":
            return hf.GPT2Config(
                n_embd=width,
                n_layer=shape.layers,
                n_head=shape.heads,
                n_positions=_POSITIONS,
                vocab_size=shape.vocabulary,
                initializer_range=spread,
                bos_token_id=tokenizer.eos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        case "llama":
            return hf.LlamaConfig(
                hidden_size=width,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                num_key_value_heads=shape.heads // 3 if shape.heads % 3 == 0 else shape.heads,
                intermediate_size=8 * width // 3,
                max_position_embeddings=_POSITIONS,
                vocab_size=shape.vocabulary,
                initializer_range=spread,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        case "bert":
            return hf.BertConfig(
                hidden_size=width,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                intermediate_size=4 * width,
                max_position_embeddings=_POSITIONS,
                vocab_size=shape.vocabulary,
                initializer_range=spread,
                pad_token_id=tokenizer.pad_token_id,
            )
        case "t5":  # its own initialisation is wide enough
            return hf.T5Config(
                d_model=width,
                d_kv=width // shape.heads,
                d_ff=4 * width,
                num_layers=shape.layers,
                num_heads=shape.heads,
                vocab_size=shape.vocabulary,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                decoder_start_token_id=tokenizer.pad_token_id,
            )


@functools.cache
def make_words() -> tuple[str, ...]:
    """Pseudo-words of two to four syllables, the most frequent first (short words are)."""
    draw = random.Random(0)
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprstvz", "aeiou")]
    found: dict[str, None] = {}
    while len(found) < TYPES:
        count = 2 + (len(found) > TYPES // 8) + (len(found) > TYPES // 2 and draw.random() < 0.5)
        found["".join(draw.choices(syllables, k=count))] = None
    return tuple(found)


def zipf_weights(count: int) -> list[float]:
    """Zipf's law: the word of rank r has weight 1 / r."""
    return [1 / rank for rank in range(1, count + 1)]


def _corpus() -> Iterator[str]:
    draw = random.Random(1)
    words = make_words()
    weights = list(itertools.accumulate(zipf_weights(len(words))))
    for _ in range(5000):
        yield " ".join(draw.choices(words, cum_weights=weights, k=draw.randint(8, 24))) + " ."


@functools.cache
def make_tokenizer(family: Family) -> Any:
    """Byte-level BPE (gpt2; llama with <s> first), WordPiece (bert), BPE with </s> last (t5); about a second."""
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    match family:
        case "gpt2" | "llama":
            core = _byte_level()
            frame = ("<s>", "") if family == "llama" else ("", "")
        case "bert":
            core = _word_piece()
            frame = ("[CLS]", "[SEP]")
            names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
        case "t5":
            core = _metaspace()
            frame = ("", "</s>")
            names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    if any(frame):
        core.post_processor = processors.TemplateProcessing(
            single=" ".join(filter(None, (frame[0], "$A", frame[1]))),
            special_tokens=[(name, core.token_to_id(name)) for name in frame if name],
        )
    return hf.PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=_POSITIONS, **names)


def _byte_level() -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_corpus(), trainer)
    return core


def _word_piece() -> Tokenizer:
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    core.train_from_iterator(
        _corpus(), trainers.WordPieceTrainer(vocab_size=PIECES, special_tokens=special, show_progress=False)
    )
    return numbered_alike(core, special)


def _metaspace() -> Tokenizer:
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    core.decoder = decoders.Metaspace(prepend_scheme="always")
    special = ["<pad>", "</s>", "<unk>"]
    core.train_from_iterator(
        _corpus(), trainers.BpeTrainer(vocab_size=PIECES, special_tokens=special, show_progress=False)
    )
    return core
