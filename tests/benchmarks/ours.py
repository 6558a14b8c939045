"""Our side, through nothing but the public protocol, asked as the harness asks: ``batches``, then batch by batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autoprompt.models import LabelReply, LabelRequest, OpenModel, ScoringModel
from autoprompt.models.load import load_model
from tests.benchmarks.models import Subject


def fresh(subject: Subject, warm_up: Sequence[LabelRequest] = ()) -> ScoringModel:
    """A model that remembers nothing of earlier rounds, warmed up on requests that share nothing with the round.

    The first call of a process decides once how the architecture can be run; that is no part of a round.
    """
    model = load_model((subject.model, subject.tokenizer))
    assert isinstance(model, ScoringModel)
    if warm_up:
        scores(model, warm_up)
    return model


def fresh_open(subject: Subject, warm_up: Sequence[LabelRequest] = ()) -> OpenModel | None:
    """The same with gradients; None where this version has none."""
    model = fresh(subject, warm_up)
    return model if isinstance(model, OpenModel) else None


def scores(model: ScoringModel, requests: Sequence[LabelRequest]) -> torch.Tensor:
    """[N, C] log-probabilities (each request's up to a constant), nats; tokenisation included.

    Raises:
        ValueError: a request was not answered.
    """
    found = torch.empty(len(requests), len(requests[0].answers))
    for batch in model.batches(requests):
        replies = model.logprobs([requests[index] for index in batch])
        for index, reply in zip(batch, replies, strict=True):
            if not isinstance(reply, LabelReply):
                raise ValueError(reply.message)
            found[index] = torch.tensor(reply.log_probs)
    return found
