"""A language model small enough to read.

Deterministic, instant, without torch. For tests, docs and first tries.

It reads a text as a bag of words. Its lexicon sorts some words into classes (positive, negative, and four
news topics). With E(c) = number of words of class c in the example's fields (the whole text where no field
is marked; a word after "not", "never" or "hardly" counts for the opposite feeling), the logit of a word w of
class c at the answer place is

    logit(w) = focus * E(c) + prior(w) + (pull(prompt, w) + 2 * noise(fields, w)) / focus

where ``prior``, ``pull`` and ``noise`` are hashes of their arguments spread evenly over [-1, 1], and
``focus`` depends on the words of the prompt alone (what does not come from fields): it starts at 0.6, cue
words that fit the question (``review``, ``topic``, ...) raise it, filler (``maybe``, ``random``, ...)
lowers it, within [0.2, 2.5]. So prompts matter: a focused prompt lets the evidence speak, a vague one
leaves prior, pull and noise. P(w) is the softmax over the lexicon and 64 buckets that stand for all other
words; a phrase's log-probability is the sum over its words.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
from collections.abc import Iterable, Sequence

from autoprompt.errors import LabelWordError
from autoprompt.models import (
    Failure,
    Kind,
    LabelReply,
    LabelRequest,
    RankReply,
    RankRequest,
    Request,
    TextReply,
    TextRequest,
)
from autoprompt.models.function import cut_at_stop
from autoprompt.prompt import Rendered

_VERSION = "toy/1"
_TOKEN = re.compile(r"\w+|[^\w\s]")
_BUCKETS = tuple(f"#{number}" for number in range(64))
_BATCH = 256
_CLASSES = {
    "positive": "positive good great excellent wonderful lovely superb fine happy brilliant delightful "
    "charming love loved enjoyed perfect amazing fresh warm funny best friendly clean fast yes",
    "negative": "negative bad terrible awful horrible poor sad dull boring worst hate hated broken dirty "
    "slow rude disappointing mess cold weak tedious waste stale noisy no",
    "world": "world politics government president minister election war peace treaty border troops nation",
    "sports": "sports sport team match season coach goal league player win champion tournament",
    "business": "business market company shares profit bank stock trade price investors economy sales",
    "technology": "technology tech software computer internet chip phone science data robot satellite",
}
_CLASS_OF = {word: name for name, words in _CLASSES.items() for word in words.split()}
_OPPOSITE = {"positive": "negative", "negative": "positive"}
_NEGATIONS = frozenset(("not", "never", "hardly", "t"))
_CUES = {
    "review": 0.35, "sentiment": 0.5, "feeling": 0.35, "opinion": 0.3, "overall": 0.25, "it": 0.05,
    "topic": 0.5, "news": 0.3, "section": 0.35, "about": 0.2, "category": 0.3, "classify": 0.2, "was": 0.1,
    "answer": 0.1, "carefully": 0.1, "maybe": -0.3, "random": -0.4, "whatever": -0.4, "somehow": -0.25,
    "perhaps": -0.25, "banana": -0.3, "ignore": -0.4, "guess": -0.2,
}  # fmt: skip


class ToyModel:
    """The toy (see the module's text for its formula). Kind ``causal``: it completes, scores and ranks."""

    name = "toy"
    kind: Kind = "causal"
    deterministic = True
    max_length: None = None

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the formula's version and its word lists."""
        return hashlib.sha256(f"{_VERSION}{_CLASSES}{_CUES}".encode()).hexdigest()[:32]

    def count_tokens(self, requests: Sequence[Request]) -> list[int]:
        """Words and punctuation marks before the answer place, at least 1."""
        return [max(1, len(_TOKEN.findall(_before(request.rendered)))) for request in requests]

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        """Batches of 256 requests, sorted by length."""
        counts = self.count_tokens(requests)
        order = sorted(range(len(requests)), key=lambda index: (counts[index], index))
        return [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]

    def logprobs(self, requests: Sequence[LabelRequest]) -> list[LabelReply | Failure]:
        """Log-probabilities of the answers, in nats."""
        counts = self.count_tokens(requests)
        return [_score(request, tokens) for request, tokens in zip(requests, counts, strict=True)]

    def ranks(self, requests: Sequence[RankRequest]) -> list[RankReply | Failure]:
        """Rank of the target among the lexicon's words, or among the words asked for."""
        counts = self.count_tokens(requests)
        return [_rank(request, tokens) for request, tokens in zip(requests, counts, strict=True)]

    def complete(self, requests: Sequence[TextRequest]) -> list[TextReply | Failure]:
        """The likeliest word of the lexicon (the first in alphabetical order among equals), and no more."""
        counts = self.count_tokens(requests)
        replies: list[TextReply | Failure] = []
        for request, tokens in zip(requests, counts, strict=True):
            logits = _logits(request.rendered)
            best = min(_CLASS_OF, key=lambda word: (-logits[word], word)) if request.max_tokens > 0 else ""
            replies.append(TextReply(cut_at_stop(best, request.stop), tokens))
        return replies

    def check_answers(
        self, rendered: Rendered, answers: Sequence[str], *, single_token: bool = False
    ) -> None:
        """Raise LabelWordError for an answer without a word in it."""
        for answer in answers:
            if not _TOKEN.findall(answer):
                raise LabelWordError(f"label word {answer!r}: holds no word")


def _score(request: LabelRequest, tokens: int) -> LabelReply | Failure:
    logits = _logits(request.rendered)
    total = _log_sum(logits.values())
    scores = []
    for answer in request.answers:
        words = _TOKEN.findall(answer.lower())
        if not words:
            return Failure(f"label word {answer!r}: holds no word")
        scores.append(math.fsum(logits[_entry(word)] - total for word in words))
    return LabelReply(tuple(scores), tokens)


def _rank(request: RankRequest, tokens: int) -> RankReply | Failure:
    logits = _logits(request.rendered)
    target = request.target.lower()
    words = tuple(_CLASS_OF) if request.among is None else tuple(word.lower() for word in request.among)
    if target not in words:
        return Failure(f"target {request.target!r} is not among the words that are ranked")
    value = {word: logits[_entry(word)] for word in words}
    better = sum(each > value[target] for each in value.values())
    top = min(value, key=lambda word: (-value[word], word))
    return RankReply(value[target] - _log_sum(logits.values()), better + 1, top, tokens)


@functools.lru_cache(maxsize=4096)
def _logits(rendered: Rendered) -> dict[str, float]:
    """Logit of every lexicon word and bucket at the answer place (the module's formula)."""
    marked = any(piece.is_field for piece in rendered.before)
    fields = " ".join(piece.text for piece in rendered.before if piece.is_field or not marked)
    prompt = " ".join(piece.text for piece in rendered.before if not piece.is_field).strip()
    focus = _focus(prompt)
    evidence = _evidence(fields)
    return {
        word: focus * evidence.get(_CLASS_OF.get(word, ""), 0)
        + _spread("prior", word)
        + (_spread(f"pull {prompt}", word) + 2 * _spread(f"noise {fields}", word)) / focus
        for word in (*_CLASS_OF, *_BUCKETS)
    }


def _focus(prompt: str) -> float:
    words = {word.lower() for word in _TOKEN.findall(prompt)}
    return min(2.5, max(0.2, 0.6 + math.fsum(_CUES.get(word, 0.0) for word in words)))


def _evidence(text: str) -> dict[str, int]:
    """How many words of each class the text has."""
    counts: dict[str, int] = {}
    negated = False
    for word in (each.lower() for each in _TOKEN.findall(text)):
        name = _CLASS_OF.get(word)
        if name is not None:
            name = _OPPOSITE.get(name, name) if negated else name
            counts[name] = counts.get(name, 0) + 1
        # a negation reaches over the words up to the next lexicon word or the end of the clause
        negated = word in _NEGATIONS or (negated and name is None and word.isalnum())
    return counts


def _entry(word: str) -> str:
    """The vocabulary's entry for a word: itself, or the bucket its hash falls in."""
    return word if word in _CLASS_OF else _BUCKETS[_hash(word) % len(_BUCKETS)]


@functools.lru_cache(maxsize=1 << 17)
def _spread(context: str, word: str) -> float:
    """A hash as a number in [-1, 1)."""
    return _hash(f"{context}\n{word}") / 2**31 - 1.0


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def _log_sum(logits: Iterable[float]) -> float:
    values = list(logits)
    high = max(values)
    return float(high + math.log(math.fsum(math.exp(value - high) for value in values)))


def _before(rendered: Rendered) -> str:
    return "".join(piece.text for piece in rendered.before)
