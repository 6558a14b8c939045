"""Answers of a server that cannot be used are missing, never zero, and never end a run with a crash."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from autoprompt.models import Failure, LabelReply, LabelRequest, TextRequest
from autoprompt.models.load import load_model
from autoprompt.models.server.model import ServerModel, WholeAnswers
from autoprompt.prompt import Piece, Rendered
from tests.models.loopback import Loopback, Trouble
from tests.models.minds import Toyish

REQUEST = LabelRequest(Rendered((Piece("It was "),)), ("great", "terrible"))


@pytest.fixture
def toyish() -> Iterator[Loopback]:
    with Loopback(Toyish()) as server:
        yield server


def whole(server: Loopback) -> WholeAnswers:
    model = load_model(f"openai:small@{server.url}?retries=0")
    assert isinstance(model, WholeAnswers)
    return model


def completion(**changes: Any) -> dict[str, Any]:
    """What a server says to the two texts of one label request, changed in some field of its first choice."""
    choices = [
        {
            "index": at,
            "text": text,
            "logprobs": {"tokens": ["It", " was", text], "token_logprobs": [None, -1.0, -2.0 - at]},
        }
        for at, text in enumerate((" great", " terrible"))
    ]
    choices[0].update(changes)
    return {"choices": choices}


def logprobs(tokens: object, values: object) -> dict[str, Any]:
    return completion(logprobs={"tokens": tokens, "token_logprobs": values})


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "no list of choices"),
        ({"choices": []}, "0 choices"),
        ({"choices": [1, 2]}, "no list of choices"),
        ({"choices": completion()["choices"][:1]}, "1 choices"),
        (completion(index=1), "numbered"),
        (completion(logprobs=None), "no logprobs"),
        (completion(logprobs={"tokens": ["It"]}), "no tokens and token_logprobs"),
        (logprobs(["It", " was", " great"], [None, -1.0]), "3 tokens and 2"),
        (logprobs(["It", " was", " great"], [None, -1.0, math.nan]), "must be a number"),
        (logprobs(["It", " was", " great"], [None, -1.0, -math.inf]), "must be a number"),
        (logprobs(["It", " was", " great"], [None, -1.0, 0.5]), "must be a number"),
        (logprobs(["It", " was", " great"], [None, -1.0, "-1"]), "for a log-probability"),
        (
            logprobs(["It", " was", " great"], [None, -1.0, None]),
            "no log-probability for a token of the answer",
        ),
        (logprobs(["It", " was", " grand"], [None, -1.0, -1.0]), "do not spell"),
        (logprobs(["eat"], [-1.0]), "fewer"),
        (logprobs([" great"], [None]), "no token before the answer"),
    ],
)
def test_garbage_is_missing(toyish: Loopback, document: dict[str, Any], message: str) -> None:
    model = whole(toyish)
    toyish.trouble = Trouble(garbage=lambda number: json.dumps(completion()).encode())
    assert model.logprobs([REQUEST]) == [LabelReply((-2.0, -3.0), 7)]
    toyish.trouble = Trouble(garbage=lambda number: json.dumps(document).encode())
    (reply,) = model.logprobs([REQUEST])
    assert isinstance(reply, Failure)
    assert message in reply.message


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"choices": [{"text": None}]}, "no text"),
        ({"choices": [{"message": {"content": "good"}}]}, "no text"),
        ([], "no JSON object"),
    ],
)
def test_no_text_is_missing(toyish: Loopback, document: object, message: str) -> None:
    model = whole(toyish)
    toyish.trouble = Trouble(garbage=lambda number: json.dumps(document).encode())
    (reply,) = model.complete([TextRequest(Rendered((Piece("It was"),)), 3)])
    assert isinstance(reply, Failure)
    assert message in reply.message


def test_a_refusal_in_chat_is_missing(toyish: Loopback) -> None:
    model = load_model(f"openai:small@{toyish.url}?chat&labels=text")
    assert isinstance(model, ServerModel)
    said = {"choices": [{"message": {"content": None, "refusal": "I would rather not"}}]}
    toyish.trouble = Trouble(garbage=lambda number: json.dumps(said).encode())
    (reply,) = model.complete([TextRequest(Rendered((Piece("It was"),)), 3)])
    assert reply == Failure("the server's message holds no text (I would rather not)")


def test_nothing_is_asked_for_no_requests(toyish: Loopback) -> None:
    model = whole(toyish)
    before = toyish.posts
    assert model.complete([]) == model.logprobs([]) == model.ranks([]) == []
    assert toyish.posts == before
