"""What a loopback server thinks with: a function, or a real model token by token."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from autoprompt.models import CompletingModel, LabelReply, LabelRequest, TextReply, TextRequest
from autoprompt.models.load import load_model
from autoprompt.models.toy import ToyModel
from autoprompt.prompt import Piece, Rendered

Token = tuple[str, float]


class Mind(Protocol):
    """What a server needs of a model."""

    def read(self, text: str) -> list[tuple[str, float | None]]:
        """The text's tokens with log P(token | all before)."""
        ...

    def next(self, text: str, count: int) -> list[Token]:
        """The likeliest next tokens."""
        ...

    def write(self, text: str, max_tokens: int, stop: Sequence[str]) -> str:
        """A greedy continuation."""
        ...


@dataclass
class Talker:
    """A model that only says what a function says; its tokens are words, all of them equally likely."""

    say: Callable[[str], str]
    top: Mapping[str, float] = field(default_factory=lambda: {" good": -0.5, " bad": -1.5, " so": -3.0})

    def read(self, text: str) -> list[tuple[str, float | None]]:
        words = text.replace(" ", "\0 ").split("\0")
        return [(words[0], None), *((word, -0.1 * len(word)) for word in words[1:])]

    def next(self, text: str, count: int) -> list[Token]:
        return sorted(self.top.items(), key=lambda pair: -pair[1])[:count]

    def write(self, text: str, max_tokens: int, stop: Sequence[str]) -> str:
        return self.say(text)


class Exact:
    """A causal model of this library, token by token."""

    def __init__(self, name: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from autoprompt.models import bundled

        folder = str(bundled.folder(name.removeprefix("bundled:")))
        self._torch = torch
        self._model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        writer = load_model(name)
        assert isinstance(writer, CompletingModel)
        self._writer = writer
        self._lock = threading.Lock()  # one text at a time: each is computed alone, whatever else is asked
        self._known: dict[str, list[tuple[str, float | None]]] = {}

    def read(self, text: str) -> list[tuple[str, float | None]]:
        if text not in self._known:
            ids = self._tokenizer(text)["input_ids"]
            with self._lock, self._torch.inference_mode():
                logits = self._model(self._torch.tensor([ids])).logits[0].float().log_softmax(-1)
            values = [logits[place, token].item() for place, token in enumerate(ids[1:])]
            names = [self._spelled(token) for token in ids]
            self._known[text] = [(names[0], None), *zip(names[1:], values, strict=True)]
        return self._known[text]

    def next(self, text: str, count: int) -> list[Token]:
        ids = self._tokenizer(text)["input_ids"]
        with self._lock, self._torch.inference_mode():
            best = self._model(self._torch.tensor([ids])).logits[0, -1].float().log_softmax(-1).topk(count)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [(self._spelled(token), value) for token, value in pairs]

    def write(self, text: str, max_tokens: int, stop: Sequence[str]) -> str:
        request = TextRequest(Rendered((Piece(text),)), max_tokens, tuple(stop))
        with self._lock:
            (reply,) = self._writer.complete([request])
        assert isinstance(reply, TextReply)
        return reply.text

    def _spelled(self, token: int) -> str:
        return str(self._tokenizer.decode([token]))


def exact(name: str = "bundled:causal") -> Exact:
    """The model behind a name, as a server has it."""
    return Exact(name)


class Toyish:
    """The toy at the end of a text; before it all words are equally likely. Instant."""

    def __init__(self) -> None:
        self._toy = ToyModel()

    def read(self, text: str) -> list[tuple[str, float | None]]:
        words = text.replace(" ", "\0 ").split("\0")
        before, last = "".join(words[:-1]), words[-1]
        (reply,) = self._toy.logprobs([LabelRequest(Rendered((Piece(before),)), (last.strip() or "a",))])
        score = reply.log_probs[0] if isinstance(reply, LabelReply) else -1.0
        return [(words[0], None), *((word, -1.0) for word in words[1:-1]), (last, score)]

    def next(self, text: str, count: int) -> list[Token]:
        words = ("great", "terrible", "good", "bad", "so")
        (reply,) = self._toy.logprobs([LabelRequest(Rendered((Piece(text),)), words)])
        assert isinstance(reply, LabelReply)
        pairs = [(f" {word}", score) for word, score in zip(words, reply.log_probs, strict=True)]
        return sorted(pairs, key=lambda pair: -pair[1])[:count]

    def write(self, text: str, max_tokens: int, stop: Sequence[str]) -> str:
        (reply,) = self._toy.complete([TextRequest(Rendered((Piece(text),)), max_tokens, tuple(stop))])
        assert isinstance(reply, TextReply)
        return f" {reply.text}."
