"""Which words are a single token where they stand, and which others could stand in for one that is not."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from autoprompt.models.hf.tokens import Ids, Place, Tokens

_TAIL = re.compile(r"\S*\s*\Z")
_HEAD = re.compile(r"\A\s*\S*")
_REMEMBERED = 512
_SPACES = "Ġ▁"  # how byte-level and SentencePiece vocabularies write a leading space


class WordTokens:
    """Looks words up in the context that can matter to a tokenizer: the word before and the characters after.

    Args:
        tokens: the tokenizer.
        mask: the mask token of a masked model; None for a model that reads on.
    """

    def __init__(self, tokens: Tokens, mask: str | None) -> None:
        self._tokens = tokens
        self._mask = mask
        self._unknown = tokens.tokenizer.unk_token_id
        self._memory: OrderedDict[tuple[str, str], dict[str, int | None]] = OrderedDict()
        self._vocabulary: list[str] = []

    def ids(self, place: Place, words: Iterable[str]) -> list[int | None]:
        """The id of each word at an answer place; None for a word that is not a single known token there."""
        wanted = list(words)
        context = self._context(place)
        known = self._memory.setdefault(context, {})
        self._memory.move_to_end(context)
        if len(self._memory) > _REMEMBERED:
            self._memory.popitem(last=False)
        new = [word for word in dict.fromkeys(wanted) if word not in known]
        if new:
            find = self._after_text if self._mask is None else self._in_text
            known.update(zip(new, find(*context, new), strict=True))
        return [known[word] for word in wanted]

    def pieces(self, place: Place, word: str) -> list[str]:
        """The tokens a word is made of at an answer place, as the vocabulary writes them."""
        left, right = self._context(place)
        region = (len(left.rstrip(" ")), len(left) + len(word))
        spans = self._tokens.spans(left + word + right)
        if spans is None:
            (ids,) = self._tokens.bare([word])
        else:
            ids = tuple(token for token, span in spans if _overlap(span, region))
        return [str(token) for token in self._tokens.tokenizer.convert_ids_to_tokens(list(ids))]

    def alternatives(self, place: Place, word: str, count: int = 5) -> list[str]:
        """Up to ``count`` words that are single tokens here.

        The same word in other case, then words that share the longest beginning.
        """
        if not self._vocabulary:
            self._vocabulary = _word_starts(self._tokens.tokenizer.get_vocab())
        lower = word.lower()
        ranked = sorted(
            (other for other in self._vocabulary if _shared(lower, other.lower()) >= min(3, len(lower))),
            key=lambda other: (
                other.lower() != lower,
                -_shared(lower, other.lower()),
                abs(len(other) - len(word)),
                other,
            ),
        )
        cased = [each for each in (lower, lower.capitalize(), word.upper()) if each != word]
        candidates = list(dict.fromkeys([*cased, *ranked[: 10 * count]]))
        ids = self.ids(place, candidates)
        found = [other for other, token in zip(candidates, ids, strict=True) if token is not None]
        return found[:count]

    def _context(self, place: Place) -> tuple[str, str]:
        left, right = _TAIL.search(place.before + place.gap), _HEAD.search(place.after)
        assert left is not None  # the patterns match any text
        assert right is not None
        return left[0], right[0] if self._mask is not None else ""

    def _after_text(self, left: str, right: str, words: Sequence[str]) -> list[int | None]:
        """A word is one token if it adds one to the text's, which stay as they are."""
        context, *wholes = self._tokens.bare([left.rstrip(" "), *(left + word for word in words)])
        return [
            self._known(whole[-1]) if whole[:-1] == context and len(whole) == len(context) + 1 else None
            for whole in wholes
        ]

    def _in_text(self, left: str, right: str, words: Sequence[str]) -> list[int | None]:
        """A word is one token if text with it and text with the mask differ in that place only."""
        assert self._mask is not None
        mask_id = self._tokens.tokenizer.mask_token_id
        masked, *wholes = self._tokens.bare(
            [left + self._mask + right, *(left + word + right for word in words)]
        )
        at = _index_of(masked, mask_id, left.count(self._mask))
        found: list[int | None] = []
        for word, whole in zip(words, wholes, strict=True):
            same = at is not None and len(whole) == len(masked) and (
                (*whole[:at], *whole[at + 1 :]) == (*masked[:at], *masked[at + 1 :])
            )  # fmt: skip
            found.append(
                self._known(whole[at]) if same and at is not None else self._covering(left, word, right)
            )
        return found

    def _covering(self, left: str, word: str, right: str) -> int | None:
        """The token that covers a word and nothing else, spaces before it aside.

        Where the text around the mask is cut up otherwise than around a word (SentencePiece begins a new
        word after the mask).
        """
        text = left + word + right
        region = (len(left.rstrip(" ")), len(left) + len(word))
        spans = self._tokens.spans(text)
        covering = [(token, span) for token, span in spans or [] if _overlap(span, region)]
        if len(covering) != 1:
            return None
        token, (start, end) = covering[0]
        return self._known(token) if text[start:end].strip(" ") == word else None

    def _known(self, token: int) -> int | None:
        return None if token == self._unknown else token


def _index_of(ids: Ids, wanted: int | None, occurrence: int) -> int | None:
    places = [at for at, token in enumerate(ids) if token == wanted]
    return places[occurrence] if occurrence < len(places) else None


def _overlap(span: tuple[int, int], region: tuple[int, int]) -> bool:
    return max(span[0], region[0]) < min(span[1], region[1])


def _word_starts(vocabulary: Iterable[str]) -> list[str]:
    """The words of a vocabulary, without the signs for a leading space, the longest spelling of each once."""
    entries = sorted(vocabulary)
    marked = [entry[1:] for entry in entries if entry[:1] in _SPACES and entry[1:].isalpha()]
    plain = [entry for entry in entries if entry.isalpha()]
    return marked or plain


def _shared(one: str, other: str) -> int:
    """Length of the beginning two words share."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count
