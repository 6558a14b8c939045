"""Tokenizers of many families, trained here on a few sentences."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import transformers as hf
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tests.models.tiny import SENTENCES, make_tokenizer

RUSSIAN = [
    "Это очень хороший фильм, и актёры тоже хорошие.",
    "Это очень плохой фильм, я не хотел его смотреть.",
]


def sentencepiece_bpe() -> Any:
    """As Llama's: spaces as ``▁``, bytes for what it has no token for."""
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    # merges are learnt within words, as sentencepiece does, and carried out without cutting words apart
    core.pre_tokenizer = pre_tokenizers.Split("▁", behavior="merged_with_next")
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=460, special_tokens=special, show_progress=False)
    core.train_from_iterator(SENTENCES, trainer)
    model = core.model
    plain = Tokenizer(model)
    plain.normalizer, plain.decoder = core.normalizer, core.decoder
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=plain, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def word_ends() -> Any:
    """As CLIP's and the first GPT's: a mark where a word ends, none where it starts."""
    core = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
    )
    core.train_from_iterator(SENTENCES, trainer)
    return hf.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


def whole_words() -> Any:
    """A token a word, as of word-level models; it writes a space before every token."""
    core = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.train_from_iterator(
        SENTENCES, trainers.WordLevelTrainer(special_tokens=["[UNK]", "[MASK]"], show_progress=False)
    )
    return hf.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", mask_token="[MASK]")


def many_scripts() -> Any:
    """As GPT-2's and Llama 3's: bytes; Russian and English; marks that nothing flags as special."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=520,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(SENTENCES + RUSSIAN * 3, trainer)
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|endoftext|>")
    tokenizer.add_tokens(["wonderful", AddedToken("<plot>", special=False), " great film"])
    return tokenizer


def bert_with_unused() -> Any:
    """WordPiece with Han characters and rows kept free, as BERT's."""
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    texts = [*SENTENCES, *RUSSIAN, "好 的 电影", "Don't watch it, it's \"bad\""]
    trainer = trainers.WordPieceTrainer(
        vocab_size=340,
        special_tokens=["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    plain = Tokenizer(
        models.WordPiece(core.get_vocab(), unk_token="[UNK]")
    )  # no entry of it is flagged as added
    plain.normalizer, plain.pre_tokenizer = core.normalizer, core.pre_tokenizer
    plain.decoder = core.decoder
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=plain, unk_token="[UNK]", mask_token="[MASK]", pad_token="[PAD]"
    )


TRAINED: dict[str, Callable[[], Any]] = {
    **{
        kind: functools.partial(make_tokenizer, kind)
        for kind in ("words", "bytes", "bytes+bos", "bytes+mask", "pieces+bos", "pieces+mask", "pieces+eos")
    },
    "sentencepiece_bpe": sentencepiece_bpe,
    "word_ends": word_ends,
    "whole_words": whole_words,
    "many_scripts": many_scripts,
    "bert_with_unused": bert_with_unused,
}
