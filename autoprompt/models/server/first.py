"""Label words by the first token of what a server would say next, where it names the likeliest ones only.

A word is read by the token that spells it, else by the longest token that begins it (two letters at least): then what is
read is the probability that the word begins, which is at least that of the word. Two words that are read by one token are
not told apart, and the question has no answer.

A word that is not among the K likeliest is no likelier than the K-th: it takes that bound. So that a bound decides
nothing, all bounds together must stay within ``SLACK`` of what the words that were seen have; else the question has no
answer. The loss of a right answer that was not seen is then a lower bound too (3 nats or more).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from autoprompt.models.server.answers import log_sum
from autoprompt.models.server.wire import Garbled

SLACK = 0.05
_SHORTEST = 2
_MARKS = str.maketrans({"▁": " ", "Ġ": " ", "Ċ": "\n"})


def first_token_scores(
    likeliest: Mapping[str, float], answers: Sequence[str], gap: str, *, chat: bool
) -> tuple[float, ...]:
    """[C] log P of each answer by its first token, in nats.

    Args:
        likeliest: the likeliest first tokens with their log-probabilities, in nats.
        answers: C answers.
        gap: the spaces the answers begin with here.
        chat: whether the server begins a message of its own, where case and spaces are no matter.

    Raises:
        Garbled: none of the answers is among them, two are not told apart, or bounds would decide.
    """
    tokens = {token: token.translate(_MARKS) for token in likeliest}
    wanted = list(answers)
    if chat:
        tokens = {token: text.strip().casefold() for token, text in tokens.items()}
        wanted = [answer.casefold() for answer in answers]
    elif gap and any(text[:1] == " " for text in tokens.values()):
        tokens = {token: text for token, text in tokens.items() if text[:1] == " "}
        wanted = [gap + answer for answer in answers]
    # else no space before the answer, or a server that writes tokens without theirs
    read = [_longest(tokens, each) for each in wanted]
    _check_apart(answers, wanted, read, tokens)
    bound = min(likeliest.values())
    seen = [log_sum([likeliest[token] for token in found]) for found in read if found]
    if not seen:
        raise Garbled(
            f"none of {', '.join(map(repr, answers))} is among the {len(likeliest)} likeliest first tokens"
        )
    missing = len(answers) - len(seen)
    if missing and bound + math.log(missing) > log_sum(seen) + math.log(SLACK):
        lost = ", ".join(repr(answer) for answer, found in zip(answers, read, strict=True) if not found)
        raise Garbled(
            f"{lost} not among the {len(likeliest)} likeliest first tokens, and no bound on them is low enough"
        )
    values = iter(seen)
    return tuple(next(values) if found else bound for found in read)


def _check_apart(
    answers: Sequence[str], wanted: Sequence[str], read: Sequence[tuple[str, ...]], tokens: Mapping[str, str]
) -> None:
    """Refuse a token that may begin two answers: one that both are read by, or that begins one that no token is seen of."""
    for at, one in enumerate(read):
        for other, more in enumerate(read):
            shared = [
                token
                for token in one
                if token in more or (not more and wanted[other].startswith(tokens[token]))
            ]
            if at != other and shared:
                first, second = sorted((at, other))
                raise Garbled(
                    f"label words {answers[first]!r} and {answers[second]!r} begin with the same token {shared[0]!r}, and "
                    "the server tells no more than first tokens: choose other words, or read texts with labels=text"
                )


def _longest(tokens: Mapping[str, str], answer: str) -> tuple[str, ...]:
    """The tokens that spell the answer, or the longest beginning of it that is there."""
    least = min(len(answer.strip()), _SHORTEST)
    fitting = [
        token for token, text in tokens.items() if len(text.strip()) >= least and answer.startswith(text)
    ]
    longest = max((len(tokens[token]) for token in fitting), default=0)
    return tuple(token for token in fitting if len(tokens[token]) == longest)
