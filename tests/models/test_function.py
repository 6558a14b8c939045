"""Functions as models."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from autoprompt.models import CompletingModel, Failure, ScoringModel, TextReply, TextRequest
from autoprompt.models.function import FunctionModel, cut_at_stop
from autoprompt.prompt import Piece, Rendered


def shout(text: str) -> str:
    return text.upper() + "!\nmore"


def whisper(text: str, mark: str = ".") -> str:
    return text.lower() + mark


class Speaker:
    def __call__(self, text: str) -> str:
        return text


def request(text: str, stop: tuple[str, ...] = ()) -> TextRequest:
    return TextRequest(Rendered((Piece("Say: "), Piece(text, is_field=True), Piece(" "))), 8, stop)


def test_it_completes_and_cuts() -> None:
    model = FunctionModel(shout)
    assert isinstance(model, CompletingModel)
    assert not isinstance(model, ScoringModel)
    assert (model.kind, model.deterministic, model.max_length) == ("text", False, None)
    assert model.complete([request("hello"), request("you", ("\n",))]) == [
        TextReply("SAY: HELLO!\nmore", 3),
        TextReply("SAY: YOU!", 3),
    ]
    assert model.batches([request("a"), request("b")]) == [[0], [1]]


def test_exceptions_and_other_types_are_failures() -> None:
    def broken(text: str) -> object:
        if "raise" in text:
            raise TimeoutError("too slow")
        return None if "none" in text else text

    replies = FunctionModel(broken).complete([request("raise"), request("none"), request("fine")])
    assert isinstance(replies[0], Failure)
    assert "TimeoutError: too slow" in replies[0].message
    assert isinstance(replies[1], Failure)
    assert "NoneType" in replies[1].message
    assert isinstance(replies[2], TextReply)


def test_interrupts_pass() -> None:
    def interrupted(text: str) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FunctionModel(interrupted).complete([request("x")])


def test_fingerprints_tell_functions_apart() -> None:
    functions = [
        shout,
        whisper,
        functools.partial(whisper, mark="?"),
        functools.partial(whisper, mark="!"),
        Speaker(),
        str.upper,
        lambda text: text,
    ]
    prints = [FunctionModel(function).fingerprint for function in functions]
    assert len(set(prints)) == len(functions)
    assert FunctionModel(shout).fingerprint == prints[0]
    assert FunctionModel(Speaker()).fingerprint == prints[4]


def test_the_first_stop_string_counts() -> None:
    assert cut_at_stop("one two three", ("three", "two", "")) == "one "
    assert cut_at_stop("one", ("x",)) == "one"


class Client:
    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.session = object()

    def ask(self, prompt: str) -> str:
        return self.answer

    def __call__(self, prompt: str) -> str:
        return self.answer


def make(answer: str) -> Callable[[str], str]:
    return lambda prompt: answer


@pytest.mark.parametrize("form", [make, Client, lambda answer: Client(answer).ask])
def test_what_a_function_carries_along_is_part_of_what_it_is(
    form: Callable[[str], Callable[[str], str]],
) -> None:
    assert FunctionModel(form("good")).fingerprint != FunctionModel(form("bad")).fingerprint
    assert FunctionModel(form("good")).fingerprint == FunctionModel(form("good")).fingerprint
