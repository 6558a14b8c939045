"""Which tokens a tokenizer reads back from text that holds them.

What a token is, is worked out from what the tokenizer does with it, not from how its vocabulary marks it: a
token may be used if text that holds it is cut into that very token again. Marks differ (``Ġword``, ``▁word``,
``##piece``, ``word</w>``, a space at the end), and many entries are never read at all.
"""

from __future__ import annotations

import collections
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers.decoders import WordPiece

from autoprompt.models.hf.token_kinds import is_plain_text, is_reserved, is_word
from autoprompt.models.hf.tokens import Ids, Tokens

_ANCHORS = 3  # words between which others are tried
_OPENERS = ("(", '"', "-")  # after these a word begins without a space
_CHUNK = 8192  # texts cut at a time
_PACK = 32  # words tried side by side
_CLEAN = 16384  # pairs of words that must be read back before no word is held to depend on the next
_MOST = 1_000_000  # pairs of words tried where one does


@dataclass(frozen=True)
class _Context:
    """Tokens between which another one is tried.

    Attributes:
        left: before it; the first may be read otherwise at the start of a text and is not compared.
        right: after it.
        words: how many words stand to its left and right where it must be a word of its own; else None.
    """

    left: Ids
    right: Ids
    words: tuple[int, int] | None = None


class RoundTrip:
    """Which tokens a tokenizer reads back from text that holds them.

    Args:
        tokens: the tokenizer.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._entries = {index: entry for entry, index in tokens.tokenizer.get_vocab().items()}
        decoder = tokens.tokenizer.backend_tokenizer.decoder
        # its clean-up takes spaces away that its tokenizer would not need, and makes "do not" of "don't"'s parts
        self._pieces = WordPiece(decoder.prefix, cleanup=False) if isinstance(decoder, WordPiece) else None
        self._anchors = self._found_anchors()

    @functools.cached_property
    def candidates(self) -> Mapping[int, str]:
        """Ids that may stand in a prompt by their entry and text alone, to their text after a word."""
        ids = self._ordinary()
        after = self._anchors[:1]
        (start,) = self.decoded([after])
        whole = self.decoded([(*after, each) for each in ids])
        texts = {
            each: text[len(start) :] if text.startswith(start) else self.decoded([(each,)])[0]
            for each, text in zip(ids, whole, strict=True)
        }
        return {each: text for each, text in texts.items() if is_plain_text(text)}

    @functools.cached_property
    def readable(self) -> Ids:
        """Candidates that are words by their letters and stand as one token between words, whatever those are."""
        cased = any(text.strip() == "I" for text in self.candidates.values())
        ids = [each for each, text in self.candidates.items() if is_word(text.strip(), lower_i=not cased)]
        contexts = self._between_words()
        for context in contexts:
            ids = self._standing(ids, context)
        return tuple(self._independent(ids)) if contexts else ()

    @functools.cached_property
    def reached(self) -> Ids:
        """Candidates that some text is cut into."""
        left = list(self.candidates)
        found: list[int] = []
        for context in self._anywhere():
            standing = set(self._standing(left, context))
            found += standing
            left = [each for each in left if each not in standing]
        return tuple(sorted(found))

    def decoded(self, sequences: Sequence[Ids]) -> list[str]:
        """The text of each sequence of ids, as it is: no clean-up, nothing skipped."""
        if self._pieces is None:
            core = self._tokens.tokenizer.backend_tokenizer
            return list(core.decode_batch([list(each) for each in sequences], skip_special_tokens=False))
        return [
            self._pieces.decode([self._entries[each] for each in ids if each in self._entries])
            for ids in sequences
        ]

    def spelled(self, word: str) -> list[Ids]:
        """The tokens a word is cut into at the start of a text and between words."""
        spelled = self._tokens.bare([word])
        for anchor in self._anchors[:1]:
            other = self.decoded([(anchor,)])[0].strip()
            plain, whole = self._tokens.bare([f"{other} {other} {other}", f"{other} {other} {word} {other}"])
            spelled.append(tuple(each for each in whole if each not in plain))
        return spelled

    def _ordinary(self) -> list[int]:
        """Ids of entries that are neither special nor added nor placeholders."""
        tokenizer = self._tokens.tokenizer
        never = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        return [
            each
            for each, entry in sorted(self._entries.items())
            if each not in never and not is_reserved(entry)
        ]

    def _found_anchors(self) -> Ids:
        """Up to ``_ANCHORS`` tokens that are read back standing as words side by side; the commonest come first in
        most vocabularies.
        """
        found: dict[str, int] = {}
        ids = self._ordinary()
        for start in range(0, len(ids), _CHUNK):
            texts = self.decoded([(each,) for each in ids[start : start + _CHUNK]])
            words = [
                text.strip() for text in texts if len(text.strip()) > 1 and is_word(text.strip().lower())
            ]
            rows = [" ".join([word] * 5) for word in words]
            cut = self._tokens.bare(rows)  # at both ends of a text a word may be cut otherwise
            again = self.decoded([each[-2:-1] * 5 for each in cut])
            for word, row, each, text in zip(words, rows, cut, again, strict=True):
                if len(each) >= 5 and len(set(each[-4:-1])) == 1 and text.strip() == row:
                    found.setdefault(word[0].lower(), each[-2])
                if len(found) == _ANCHORS:
                    return tuple(found.values())
        return tuple(found.values())

    def _between_words(self) -> list[_Context]:
        """Contexts that a readable word must stand in, all of them."""
        contexts = []
        for each in self._anchors[:1]:
            contexts.append(_Context((each, each), (each,), (2, 1)))
            text = self.decoded([(each,) * 3])[0].lstrip()
            if self._tokens.bare([text]) == [
                (each,) * 3
            ]:  # else no word is cut at a text's start as elsewhere
                contexts.append(_Context((), (each,), (0, 1)))
        return contexts

    def _independent(self, ids: Sequence[int]) -> list[int]:
        """The ids without those that do not stand beside others of them.

        Most tokenizers cut words apart first, so that none depends on the next, and ``_CLEAN`` pairs are enough to see
        it. Where tokens reach over spaces (``once upon``) all pairs are tried, as far as ``_MOST``; of a pair that is
        not read back the word goes that disagrees with more of the others.
        """
        left, tried, crossing = set(ids), 0, False
        for step in np.random.default_rng(0).permutation(len(ids)).tolist():
            if tried >= (_MOST if crossing else max(_CLEAN, len(ids))):
                break
            row = [each for each in _walk(ids, step) if each in left]
            packs = [tuple(row[at : at + _PACK]) for at in range(0, len(row), _PACK - 1)]
            broken = [pack for pack, fine in zip(packs, self._side_by_side(packs), strict=True) if not fine]
            pairs = [pair for pack in broken for pair in itertools.pairwise(pack)]
            bad = [pair for pair, fine in zip(pairs, self._side_by_side(pairs), strict=True) if not fine]
            left.difference_update(_cover(bad))
            crossing, tried = crossing or bool(bad), tried + len(row)
        return [each for each in ids if each in left]

    def _side_by_side(self, rows: Sequence[Ids]) -> list[bool]:
        """Whether all tokens of a row are read back, standing between anchors."""
        anchor = self._anchors[:1]
        fine = []
        for start in range(0, len(rows), _CHUNK):
            framed = [anchor * 2 + row + anchor for row in rows[start : start + _CHUNK]]
            cut = self._tokens.bare(self.decoded(framed))
            fine += [each[1 - len(row) :] == row[1:] for row, each in zip(framed, cut, strict=True)]
        return fine

    def _anywhere(self) -> list[_Context]:
        """Contexts of which a token must stand in one."""
        contexts = [_Context((each, each), (each,)) for each in self._anchors]
        for each in self._anchors[:1]:
            contexts.append(_Context((), (each,)))
            word = self.decoded([(each,)])[0].strip()
            lefts = self._tokens.bare([f"{word} {word} {opener}" for opener in _OPENERS])
            contexts += [_Context(left, (each,)) for left in lefts if len(left) > 1]
        return [*contexts, _Context((), ())]

    def _standing(self, ids: Sequence[int], context: _Context) -> list[int]:
        """The ids that are read back in a context."""
        standing = []
        first = min(1, len(context.left))
        for start in range(0, len(ids), _CHUNK):
            part = ids[start : start + _CHUNK]
            rows = [(*context.left, each, *context.right) for each in part]
            texts = self.decoded(rows)
            if first == 0:
                texts = [text.lstrip() for text in texts]
            for each, row, text, cut in zip(part, rows, texts, self._tokens.bare(texts), strict=True):
                wanted = row[first:]
                same = cut[-len(wanted) :] == wanted if first else cut == wanted
                if same and (context.words is None or self._is_apart(each, text, context.words)):
                    standing.append(each)
        return standing

    def _is_apart(self, token: int, text: str, around: tuple[int, int]) -> bool:
        """Whether a token is a word of its own in the text, with so many to its left and right, one space apart."""
        words = text.strip().split(" ")
        return len(words) == sum(around) + 1 and words[around[0]] == self.candidates[token].strip()


def _walk(ids: Sequence[int], step: int) -> list[int]:
    """Every id once, each followed by the one ``step`` places on (itself for 0) but where that was passed already: in
    circles, the last of each followed by its first.
    """
    count = len(ids)
    if step == 0:
        return [each for each in ids for _ in range(2)]
    walk = []
    circles = math.gcd(step, count)
    for start in range(circles):
        walk += [ids[(start + step * turn) % count] for turn in range(count // circles + 1)]
    return walk


def _cover(pairs: Sequence[Ids]) -> list[int]:
    """Ids of which every pair holds one: those in the most pairs, the higher id where as many."""
    cover: list[int] = []
    left = list(pairs)
    while left:
        counts = collections.Counter(each for pair in left for each in set(pair))
        worst = max(counts, key=lambda each: (counts[each], each))
        cover.append(worst)
        left = [pair for pair in left if worst not in pair]
    return cover
