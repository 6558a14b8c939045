"""How requests to one server are written: what ``probing`` found it to understand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from autoprompt.models.server import answers
from autoprompt.models.server.answers import Spelled
from autoprompt.models.server.spelling import spells

WholeWay = Literal["", "echo, 0 new tokens", "echo, 1 new token", "prompt_logprobs", "chat prompt_logprobs"]
STOPS = 4  # most servers take no more; the reply is cut at all of them here anyway


@dataclass(frozen=True)
class Dialect:
    """Attributes:
    name: of the model.
    chat: whether texts go as a user's message.
    limit: the field that bounds the new tokens.
    extras: fields that make answers repeatable, as far as the server takes them.
    whole: how log-probabilities of sent texts are asked for; empty where they are not.
    several: whether one request may hold several prompts.
    top: how many likeliest first tokens are asked for; 0: none are given.
    top_extras: ``extras`` for those.
    """

    name: str
    chat: bool = False
    limit: str = "max_tokens"
    extras: Mapping[str, object] = field(default_factory=dict)
    whole: WholeWay = ""
    several: bool = False
    top: int = 0
    top_extras: Mapping[str, object] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Where texts are sent."""
        return "/chat/completions" if self.chat else "/completions"

    def text(
        self, text: str, max_tokens: int, stop: Sequence[str] = (), temperature: float = 0.0, seed: int = 0
    ) -> dict[str, object]:
        """The request to go on from a text, or to answer it; the last two as far as the server takes them."""
        drawn = {"temperature": temperature, "seed": seed} if temperature else {}
        extras = {**self.extras, **{name: value for name, value in drawn.items() if name in self.extras}}
        body = self._start(extras) | self._given(text) | {self.limit: max_tokens}
        stops = [each for each in stop if each][:STOPS]
        return body | ({"stop": stops} if stops else {})

    def first(self, text: str) -> dict[str, object]:
        """The request for the likeliest first tokens after a text, or of the answer to it."""
        body = self._start(self.top_extras) | self._given(text) | {self.limit: 1}
        return body | ({"logprobs": True, "top_logprobs": self.top} if self.chat else {"logprobs": self.top})

    def wholes(self, before: str, endings: Sequence[str]) -> dict[str, object]:
        """The request for the log-probabilities of a text with each of some endings; one where not ``several``."""
        body = self._start(self.extras) | {self.limit: 0 if self.whole == "echo, 0 new tokens" else 1}
        if self.whole == "chat prompt_logprobs":
            (ending,) = endings
            said = [*_messages(before), {"role": "assistant", "content": ending}]
            going_on = {"add_generation_prompt": False, "continue_final_message": True}
            return body | {"messages": said, "prompt_logprobs": 0} | going_on
        texts = [before + ending for ending in endings]
        body |= {"prompt": texts if self.several else texts[0]}
        return body | (
            {"prompt_logprobs": 0} if self.whole == "prompt_logprobs" else {"echo": True, "logprobs": 1}
        )

    def read_wholes(self, found: Mapping[str, Any], before: str, endings: Sequence[str]) -> list[Spelled]:
        """The tokens of each text, without any new one.

        Raises:
            Garbled: the reply does not hold them.
        """
        given = answers.choices(found, len(endings))
        if self.whole == "chat prompt_logprobs":
            return [answers.prompt_tokens(found)]
        if self.whole == "prompt_logprobs":
            return [answers.prompt_tokens(each) for each in given]
        read = [answers.echoed(each) for each in given]
        if self.whole == "echo, 0 new tokens":
            return read
        return [_without_new(each, before + ending) for each, ending in zip(read, endings, strict=True)]

    def _start(self, extras: Mapping[str, object]) -> dict[str, object]:
        return {"model": self.name, **extras}

    def _given(self, text: str) -> dict[str, object]:
        return {"messages": _messages(text)} if self.chat else {"prompt": text}


def _messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _without_new(spelled: Spelled, text: str) -> Spelled:
    """The tokens of the text that was sent. The one new token stands in most servers' answers, not in all: it does if
    the rest spells the text, or if with it the tokens do not.
    """
    if not spells(spelled.tokens[:-1], text) and spells(spelled.tokens, text):
        return spelled
    return Spelled(spelled.tokens[:-1], spelled.log_probs[:-1])
