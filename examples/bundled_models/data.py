"""The training rows of the bundled models: open corpus and generated text, as token ids."""

from __future__ import annotations

import argparse
import lzma
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from text import Writer
from tokenizers import Tokenizer
from vocab import POSITIONS, build
from words import Bank, unmark

VOCABULARY = 5376
OPEN_SHARE = 0.55
OPEN_LENGTH = 160  # tokens of an open passage that are used


def say(text: str) -> None:
    """A line for the log."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


def read_corpus(folder: Path | None) -> tuple[list[str], list[str]]:
    """Lines of the open corpus to train on, and one in two hundred held out."""
    train: list[str] = []
    held: list[str] = []
    for path in sorted(folder.glob("*.txt.xz")) if folder else []:
        with lzma.open(path, "rt", encoding="utf-8") as stream:
            for number, line in enumerate(stream):
                (held if number % 200 == 199 else train).append(line.strip())
    return train, held


Row = tuple[np.ndarray, np.ndarray, int]  # ids, flags, kind


@dataclass
class Rows:
    """Token rows, flat: row i is ids[starts[i]:starts[i + 1]], with flags for verdict words.

    `kinds` holds 0 for open rows, 1 for generated ones and 2 for simple generated ones.
    """

    ids: np.ndarray
    flags: np.ndarray
    starts: np.ndarray
    kinds: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    @classmethod
    def pack(cls, parts: list[Row]) -> Rows:
        """Rows from their triples."""
        lengths = [len(ids) for ids, _, _ in parts]
        return cls(
            np.concatenate([ids for ids, _, _ in parts]),
            np.concatenate([flags for _, flags, _ in parts]),
            np.concatenate([[0], np.cumsum(lengths)]),
            np.array([kind for _, _, kind in parts]),
        )

    def batches(self, budget: int, rng: np.random.Generator, kind: int | None = None) -> Iterator[np.ndarray]:
        """Shuffled batches of rows of about the same length, about `budget` tokens each.

        Where there are no rows of the wanted kind, all rows are used.
        """
        order, lengths = rng.permutation(len(self)), np.diff(self.starts)
        if kind is not None and (self.kinds == kind).any():
            order = order[self.kinds[order] == kind]
        for at in range(0, len(order), 6000):
            window = order[at : at + 6000]
            window = window[np.argsort(lengths[window], kind="stable")]
            groups, begin = [], 0
            while begin < len(window):
                end = begin + max(1, budget // int(lengths[window[begin]]))
                while end > begin + 1 and end <= len(window):
                    if (end - begin) * lengths[window[end - 1]] <= budget * 1.1:
                        break
                    end -= 1
                groups.append(window[begin:end])
                begin = end
            for place in rng.permutation(len(groups)):
                yield groups[place]

    def padded(self, rows: np.ndarray, pad: int) -> tuple[np.ndarray, np.ndarray]:
        """The ids and flags of some rows as rectangles."""
        width = int(max(self.starts[rows + 1] - self.starts[rows]))
        ids = np.full((len(rows), width), pad, dtype=np.int64)
        flags = np.zeros((len(rows), width), dtype=bool)
        for number, row in enumerate(rows):
            begin, end = self.starts[row], self.starts[row + 1]
            ids[number, : end - begin] = self.ids[begin:end]
            flags[number, : end - begin] = self.flags[begin:end]
        return ids, flags


def encode(
    tokenizer: Tokenizer, texts: list[str], kind: int, ends: tuple[int, int], longest: int
) -> Iterator[Row]:
    """Token ids with both ends, cut at `longest`, and flags for the marked words."""
    for at in range(0, len(texts), 10000):
        plain = [unmark(text) for text in texts[at : at + 10000]]
        batch = tokenizer.encode_batch([text for text, _ in plain], add_special_tokens=False)
        for encoding, (_, starts) in zip(batch, plain, strict=True):
            body = encoding.ids[: longest - 2]
            if len(body) < 3:
                continue
            flags = np.zeros(len(body) + 2, dtype=bool)
            for start in starts:
                token = encoding.char_to_token(start)
                if token is not None and token < len(body):
                    flags[token + 1] = True
            yield np.array([ends[0], *body, ends[1]], dtype=np.int32), flags, kind


def merged(parts: list[Row], share: float, rng: np.random.Generator) -> list[Row]:
    """String a share of the rows together, so that every position is trained."""
    order = rng.permutation(len(parts))
    cut = int(len(parts) * share)
    rows = [parts[place] for place in order[cut:]]
    pile: list[Row] = []
    for place in order[:cut]:
        if sum(len(ids) for ids, _, _ in pile) + len(parts[place][0]) > POSITIONS and pile:
            inner = [(ids[1:-1], flags[1:-1]) for ids, flags, _ in pile]
            ids = np.concatenate([pile[0][0][:1], *[a for a, _ in inner], pile[0][0][-1:]])
            flags = np.concatenate([[False], *[b for _, b in inner], [False]])
            rows.append((ids, flags, min(kind for _, _, kind in pile)))
            pile = []
        pile.append(parts[place])
    return rows


def prepare(options: argparse.Namespace) -> tuple[Tokenizer, Rows, Rows, Rows | None]:
    """The tokenizer, the training rows, and held-out generated and open rows."""
    kind = options.kind
    bank, unseen = Bank.load(options.phrases), Bank.load(options.phrases, "dev")
    lines, held = read_corpus(options.corpus)
    count = options.documents or max(2000, int(4000 * options.minutes))
    writer = Writer(bank, options.seed)
    documents = [writer.document() for _ in range(count)]
    say(f"{len(lines)} open lines, {len(documents)} documents")
    sample = [unmark(text)[0] for text in documents[:60000]]
    if options.tokenizer:
        tokenizer = Tokenizer.from_file(str(options.tokenizer))
    else:
        tokenizer = build(kind, lines + sample, bank, VOCABULARY, 4000 if lines else 200)
    first, last = ("[CLS]", "[SEP]") if kind == "masked" else ("<s>", "</s>")
    ends = (tokenizer.token_to_id(first) or 0, tokenizer.token_to_id(last) or 0)
    parts = list(encode(tokenizer, lines, 0, ends, OPEN_LENGTH))
    tokens = sum(len(ids) for ids, _, _ in parts)
    limit, used = tokens * (1 - OPEN_SHARE) / OPEN_SHARE if lines else math.inf, 0
    for part in encode(tokenizer, documents, 1, ends, POSITIONS):
        if used < limit:
            parts.append(part)
            used += len(part[0])
    say(f"vocabulary {tokenizer.get_vocab_size()}, tokens: open {tokens}, generated {used}")
    parts = merged(parts, 0.04, np.random.default_rng(options.seed))
    short = [writer.simple() for _ in range(count // 2)]
    parts += encode(tokenizer, short, 2, ends, POSITIONS)
    rows = Rows.pack(parts)
    fresh = Writer(unseen, options.seed + 1)
    texts = [fresh.document() for _ in range(400)]
    made = Rows.pack(list(encode(tokenizer, texts, 1, ends, POSITIONS)))
    others = list(encode(tokenizer, held, 0, ends, OPEN_LENGTH))
    return tokenizer, rows, made, Rows.pack(others) if others else None
