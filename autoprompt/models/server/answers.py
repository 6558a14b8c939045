"""What a server's JSON says: texts, tokens with their log-probabilities, likeliest first tokens, tokens used.

Everything that is not as it must be is ``Garbled``, with the field in its message; nothing is filled in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoprompt.models.server.wire import Garbled

_ROUNDING = 1e-3
"""Nats by which a log-probability may be above 0: some servers round, none may be surer than sure."""


@dataclass(frozen=True)
class Spelled:
    """Tokens of a text, and log P(token | all before) of each in nats; None where the server says none."""

    tokens: tuple[str, ...]
    log_probs: tuple[float | None, ...]


@dataclass(frozen=True)
class Used:
    """Tokens a server says it read and wrote; None where it does not say."""

    read: int | None
    written: int | None


def choices(found: Mapping[str, Any], count: int = 1) -> list[dict[str, Any]]:
    """The choices of a reply in the order of the prompts, as many as were asked for."""
    given = found.get("choices")
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise Garbled("the server's answer has no list of choices")
    if len(given) != count:
        raise Garbled(f"the server's answer has {len(given)} choices (expected {count})")
    places = [each.get("index", place) for place, each in enumerate(given)]
    if sorted(places, key=str) != sorted(range(count), key=str):
        raise Garbled(f"the server's choices are numbered {places}")
    return [given[places.index(place)] for place in range(count)]


def text_of(choice: Mapping[str, Any], *, chat: bool) -> str:
    """What was written."""
    if not chat:
        text = choice.get("text")
    else:
        message = choice.get("message")
        text = message.get("content") if isinstance(message, dict) else None
        if isinstance(message, dict) and text is None and "content" in message:
            reason = message.get("refusal") or choice.get("finish_reason")
            raise Garbled(f"the server's message holds no text ({reason})")
    if not isinstance(text, str):
        raise Garbled(f"the server's choice holds no {'message content' if chat else 'text'}")
    return text


def echoed(choice: Mapping[str, Any]) -> Spelled:
    """Tokens of prompt and continuation, of a completion with ``echo``."""
    given = choice.get("logprobs")
    if not isinstance(given, dict):
        raise Garbled("the server's choice holds no logprobs")
    tokens, values = given.get("tokens"), given.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(values, list):
        raise Garbled("the server's logprobs hold no tokens and token_logprobs")
    if len(tokens) != len(values) or not all(isinstance(each, str) for each in tokens):
        raise Garbled(f"the server gave {len(tokens)} tokens and {len(values)} log-probabilities")
    return Spelled(tuple(tokens), tuple(None if each is None else _log_prob(each) for each in values))


def prompt_tokens(holder: Mapping[str, Any]) -> Spelled:
    """Tokens of the prompt alone, from ``prompt_logprobs``: per token a table of which it is the first entry."""
    given = holder.get("prompt_logprobs")
    if not isinstance(given, list):
        raise Garbled("the server's answer holds no prompt_logprobs")
    tokens: list[str] = []
    values: list[float | None] = []
    for place in given:
        entry = next(iter(place.values()), None) if isinstance(place, dict) else None
        if place is None:
            tokens.append("")
            values.append(None)
        elif isinstance(entry, dict) and isinstance(entry.get("decoded_token"), str):
            tokens.append(entry["decoded_token"])
            values.append(_log_prob(entry.get("logprob")))
        else:
            raise Garbled("the server's prompt_logprobs are not tables of decoded_token and logprob")
    return Spelled(tuple(tokens), tuple(values))


def likeliest(choice: Mapping[str, Any], asked: int) -> dict[str, float]:
    """Log-probabilities of the likeliest first tokens, at most ``asked``; of tokens spelled alike the sum.

    Read in both forms there are: a table (completions) or a list of entries (chat).
    """
    given = choice.get("logprobs")
    if not isinstance(given, dict):
        raise Garbled("the server's choice holds no logprobs")
    pairs: list[tuple[str, float]] = []
    table, content = given.get("top_logprobs"), given.get("content")
    if isinstance(table, list) and table and isinstance(table[0], dict):
        pairs = [(str(token), _log_prob(value)) for token, value in table[0].items()]
    elif isinstance(content, list) and content and isinstance(content[0], dict):
        entries = content[0].get("top_logprobs")
        for entry in entries if isinstance(entries, list) else []:
            if not isinstance(entry, dict) or not isinstance(entry.get("token"), str):
                raise Garbled("the server's top_logprobs hold an entry without a token")
            pairs.append((entry["token"], _log_prob(entry.get("logprob"))))
    if not pairs:
        raise Garbled("the server's logprobs hold no top_logprobs")
    # Some servers add the token they drew; what is not among the likeliest would make the bound below them wrong.
    pairs = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:asked]
    if math.fsum(math.exp(value) for _, value in pairs) > 1 + 0.05:
        raise Garbled("the server's top_logprobs hold more probability than there is")
    found: dict[str, float] = {}
    for token, value in pairs:
        found[token] = log_sum([found[token], value]) if token in found else value
    return found


def used(found: Mapping[str, Any]) -> Used:
    """Tokens read and written, where the server says so in whole numbers."""
    given = found.get("usage")
    table = given if isinstance(given, dict) else {}
    counts = [table.get(name) for name in ("prompt_tokens", "completion_tokens")]
    read, written = (each if type(each) is int and each >= 0 else None for each in counts)
    return Used(read, written)


def model_names(found: Mapping[str, Any]) -> dict[str, str]:
    """The models a server lists, each with what it says it is made of (``root``), where it does.

    Raises:
        Garbled: this is no list of models.
    """
    given = found.get("data")
    if not isinstance(given, list):
        raise Garbled("no list of models")
    entries = [each for each in given if isinstance(each, dict) and isinstance(each.get("id"), str)]
    return {each["id"]: str(each.get("root") or "") for each in entries}


def total(spelled: Spelled, start: int, end: int) -> float:
    """Sum of the log-probabilities of some tokens, in nats.

    Raises:
        Garbled: one of them has none.
    """
    values = [value for value in spelled.log_probs[start:end] if value is not None]
    if len(values) < end - start or end <= start:
        raise Garbled("the server gave no log-probability for a token of the answer")
    return math.fsum(values)


def log_sum(values: Sequence[float]) -> float:
    """Logarithm of the sum of exp."""
    high = max(values)
    return high + math.log(math.fsum(math.exp(value - high) for value in values))


def _log_prob(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Garbled(f"the server gave {value!r:.40} for a log-probability")
    number = float(value)
    if not math.isfinite(number) or number > _ROUNDING:
        raise Garbled(f"the server gave a log-probability of {number:g}; it must be a number, 0 at most")
    return min(number, 0.0)
