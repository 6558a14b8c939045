from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from joblib.externals.loky import reusable_executor

from autoprompt.errors import InputError, ModelError
from autoprompt.models import LabelRequest, answer
from autoprompt.models.toy import ToyModel
from autoprompt.prompt import Prompt
from autoprompt.workers import _answer_there, _model_there, answer_batches
from tests.small import Spy

PROMPT = Prompt("{{ text }} It was {{ answer }}")
BATCHES = [
    [LabelRequest(PROMPT.render({"text": f"{word} film {i}"}), ("good", "bad")) for i in range(size)]
    for word, size in (("fine", 3), ("dull", 1), ("", 2), ("warm", 4))
]


def test_two_processes_answer_like_one_and_in_order() -> None:
    model = ToyModel()
    alone = list(answer_batches(model, "toy", BATCHES, 1))
    assert [len(replies) for replies in alone] == [3, 1, 2, 4]
    assert list(answer_batches(model, "toy", BATCHES, 2)) == alone


def test_a_round_that_is_cut_short_costs_no_process_and_no_further_batch() -> None:
    handed_out = []

    class Watched(list[list[LabelRequest]]):
        def __iter__(self) -> Iterator[list[LabelRequest]]:
            for batch in super().__iter__():
                handed_out.append(batch)
                yield batch

    model, many = ToyModel(), Watched(BATCHES * 1000)
    some = answer_batches(model, "toy", many, 2)
    assert next(some) == answer(model, BATCHES[0])
    processes = set(reusable_executor._executor._processes)
    some.close()  # the time is up in the middle of a round
    assert len(handed_out) < len(many)
    assert list(answer_batches(model, "toy", BATCHES, 2)) == [answer(model, batch) for batch in BATCHES]
    assert set(reusable_executor._executor._processes) == processes


def test_a_model_given_as_an_object_cannot_be_sent() -> None:
    with pytest.raises(InputError, match="it was given as an object"):
        next(answer_batches(ToyModel(), ToyModel(), BATCHES, 2))


def test_a_worker_loads_a_model_again_that_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Spy(fingerprint="before")
    monkeypatch.setattr("autoprompt.workers.load_model", lambda source: dataclasses.replace(there))
    _model_there.cache_clear()
    batch = [LabelRequest(PROMPT.render({"text": "fine"}), ("good", "bad"))]
    assert _answer_there("folder", "before", 1, batch) == there.logprobs(batch)
    kept = _model_there("folder", "before", 1)
    assert _model_there("folder", "before", 1) is kept
    there.fingerprint = "after"
    assert _model_there("folder", "after", 1) is not kept
    _model_there.cache_clear()
    with pytest.raises(ModelError, match="a worker process loaded another model"):
        _answer_there("folder", "before", 1, batch)
    _model_there.cache_clear()
