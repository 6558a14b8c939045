"""A small task, a space of 36 prompts and a fast model that notes what it is asked; for the tests of the core."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from autoprompt.models import Failure, Kind, LabelReply, LabelRequest, RankReply, RankRequest, Request
from autoprompt.prompt import Rendered
from autoprompt.space import SearchSpace
from autoprompt.task import Task

WORDS = {"good": ("good", "great"), "bad": ("bad",)}


def rows(name: str, n: int) -> list[dict[str, str]]:
    feelings = {"good": ("lovely", "superb", "charming"), "bad": ("awful", "dull", "rude")}
    return [
        {"text": f"{name} {i} was {feelings[label][i % 3]}", "label": label}
        for i in range(n)
        for label in ("good", "bad")
    ]


def small_task(n: int = 6, *, calibrate: bool = False, metric: str | None = None, seed: int = 0) -> Task:
    """2n examples in each split."""
    data = {"train": rows("train", n), "select": rows("select", n), "test": rows("test", n)}
    return Task.from_rows(
        data, name="small", words=WORDS, prompt="{{ text }} It was {{ answer }}", calibrate=calibrate,
        metric=metric, seed=seed,
    )  # fmt: skip


def small_space() -> SearchSpace:
    return SearchSpace.from_dict(
        {
            "format": "autoprompt-space/1",
            "title": "small",
            "template": "[[ start ]]{{ text }} [[ cue ]] {{ answer }}",
            "slots": {
                "start": {"one_of": ["", "Review: ", "Maybe: ", "Sentiment. ", "Overall: ", "Whatever, "]},
                "cue": {"one_of": ["It was", "Answer:", "Feeling:", "Opinion:", "In short,", "So"]},
            },
        }
    )


@dataclass
class Spy:
    """Answers by hash, at once, and notes every request. ``fails`` says which texts get no answer."""

    kind: Kind = "causal"
    deterministic: bool = True
    size: int = 5
    fails: Callable[[str], bool] | None = None
    before: Callable[[], None] | None = None
    asked: list[str] = field(default_factory=list)
    name: str = "spy"
    max_length: int | None = None
    fingerprint: str = "spy/1"

    def count_tokens(self, requests: Sequence[Request]) -> list[int]:
        return [len(request.rendered.text().split()) for request in requests]

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        order = sorted(range(len(requests)), key=lambda i: (len(requests[i].rendered.text()), i))
        return [order[i : i + self.size] for i in range(0, len(order), self.size)]

    def logprobs(self, requests: Sequence[LabelRequest]) -> list[LabelReply | Failure]:
        if self.before is not None:
            self.before()
        return [self._label(request) for request in requests]

    def ranks(self, requests: Sequence[RankRequest]) -> list[RankReply | Failure]:
        return [RankReply(-1.0, 2, "word", 3) for _ in requests]

    def check_answers(
        self, rendered: Rendered, answers: Sequence[str], *, single_token: bool = False
    ) -> None:
        """Every answer can be scored."""

    def _label(self, request: LabelRequest) -> LabelReply | Failure:
        text = request.rendered.text()
        self.asked.append(text)
        if self.fails is not None and self.fails(text):
            return Failure(f"no answer for {text!r}")
        draws = [
            hashlib.sha256(f"{text}{answer}".encode()).digest()[0] / 256 + 0.01 for answer in request.answers
        ]
        total = sum(draws) + 1
        return LabelReply(tuple(math.log(draw / total) for draw in draws), len(text.split()))
