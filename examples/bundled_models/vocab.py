"""The tokenizers of the bundled models, trained on the training text."""

from __future__ import annotations

from collections.abc import Iterable

import forms
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast
from words import Bank

POSITIONS = 256


def forced_words(bank: Bank) -> list[str]:
    """Words that have to be single tokens: label words, places, the commoner opinion words."""
    words = forms.LABEL_WORDS.split() + forms.LANGUAGES.split()
    for names in (*forms.LABELS.values(), forms.CORE.values(), forms.TOPICS.values()):
        for name in names:
            words += name.split()
    for slot in ("country", "city", "language"):
        words += [word for word in bank.slots.get(slot, []) if " " not in word]
    words += bank.adjectives[True][:50] + bank.adjectives[False][:50]
    return list(dict.fromkeys(word for word in words if word.isalpha()))


def build(kind: str, texts: Iterable[str], bank: Bank, size: int, repeat: int) -> Tokenizer:
    """Train a WordPiece (masked) or byte-level BPE (causal) tokenizer of at most `size` tokens."""
    forced = forced_words(bank)
    trainer: trainers.WordPieceTrainer | trainers.BpeTrainer
    ends: tuple[str, str, tuple[str, ...]]
    lines = list(texts)
    if kind == "masked":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=40))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece(prefix="##")
        specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        trainer = trainers.WordPieceTrainer(
            vocab_size=size, special_tokens=specials, limit_alphabet=200, show_progress=False
        )
        lines.append((" ".join(forced) + " ") * repeat)
        ends = ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ("[CLS]", "[SEP]"))
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        specials = ["<pad>", "<s>", "</s>"]
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        capitals = [word.capitalize() for word in forced]
        lines.append((" " + " ".join(forced + capitals)) * repeat)
        ends = ("<s> $A", "<s> $A $B", ("<s>",))
    tokenizer.train_from_iterator(lines, trainer, length=len(lines))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=ends[0],
        pair=ends[1],
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ends[2]],
    )
    return tokenizer


def wrap(kind: str, tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers loads it."""
    names = (
        {
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "mask_token": "[MASK]",
        }
        if kind == "masked"
        else {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=POSITIONS,
        padding_side="right",
        clean_up_tokenization_spaces=False,
        **names,
    )
