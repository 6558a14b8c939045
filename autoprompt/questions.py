"""From what a strategy asks to questions for a model, and from replies about token slots back to answers."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprompt.asks import GRADIENT_CALLS, Fluency, Fluent, Gradient, Score, Slope, Tune, Tuned
from autoprompt.cache import question_key
from autoprompt.errors import LabelWordError, MissingCapability, TemplateError
from autoprompt.grading import (
    content_free,
    gradient_request,
    needs_calibration,
    request_for,
    tune_request,
)
from autoprompt.models import (
    Failure,
    FluencyReply,
    FluencyRequest,
    FluentModel,
    GradientReply,
    GradientRequest,
    LabelRequest,
    Model,
    OpenModel,
    Reply,
    Request,
    TunableModel,
    TuneReply,
    TuneRequest,
    answer,
)
from autoprompt.models.load import load_model
from autoprompt.prompt import Piece, Rendered
from autoprompt.task import Task

SlotAsk = Gradient | Fluency | Tune
"""What is asked about a prompt's slots."""


@dataclass(frozen=True)
class Question:
    """What a model is asked, and what it costs.

    Attributes:
        key: hash of all that the answer depends on.
        request: the request; for a gradient those of all examples, since their mean is asked for; for a training all
            of it.
        blank: its content-free twin where scores are calibrated.
        calls: what it is charged as.
        judge: who is asked, where that is not the model that is prompted.
    """

    key: str
    request: Request | tuple[GradientRequest, ...] | TuneRequest
    blank: Question | None = None
    calls: int = 1
    judge: Model | None = None

    @property
    def weight(self) -> int:
        """How often a token counts that is read for it."""
        return GRADIENT_CALLS if isinstance(self.request, (tuple, TuneRequest)) else 1


def score_questions(task: Task, model: Model, fingerprint: str, ask: Score) -> list[Question]:
    """One question an example."""
    questions = []
    for example in ask.examples:
        request = request_for(task, model, ask.prompt, example)
        blank = None
        if needs_calibration(task, model):
            other = request_for(task, model, ask.prompt, content_free(example))
            blank = Question(question_key(fingerprint, other, ask.repeat), other)
        questions.append(Question(question_key(fingerprint, request, ask.repeat), request, blank))
    return questions


def count_tokens(model: Model, questions: Sequence[Question]) -> int:
    """Tokens that will be read, counted before they are: as many as the replies will say, each times its question's
    weight.
    """
    plain = [
        each.request
        for each in questions
        if not isinstance(each.request, (tuple, FluencyRequest, TuneRequest))
    ]
    total = sum(model.count_tokens(plain))
    for question in questions:
        asked: list[Request] = []
        if isinstance(question.request, tuple):
            asked = [LabelRequest(each.rendered, each.answers) for each in question.request]
        elif isinstance(question.request, TuneRequest):
            texts = [
                LabelRequest(each.rendered, each.answers, ended=each.ended) for each in question.request.texts
            ]
            asked = [texts[index] for batch in question.request.batches for index in batch]
        elif isinstance(question.request, FluencyRequest) and question.calls:
            asked = [question.request]
        try:
            total += question.weight * sum((question.judge or model).count_tokens(asked))
        except (TemplateError, LabelWordError):  # it cannot be read, as its answer will say
            continue
    return total


class SlotAnswers:
    """Puts questions about token slots to a model, or to the one that judges.

    Args:
        task: what is measured.
        model: the model that is prompted.
    """

    def __init__(self, task: Task, model: Model) -> None:
        self._task = task
        self._model = model
        self._fingerprint = model.fingerprint
        self._judges: dict[str, Model] = {"": model}

    def questions(self, ask: SlotAsk) -> list[Question]:
        """One question about all examples for a gradient or a training, one an example for a fluency."""
        if isinstance(ask, Tune):
            return [_tune_question(self._task, self._fingerprint, ask)]
        if isinstance(ask, Gradient):
            return [_gradient_question(self._task, self._fingerprint, ask)]
        return _fluency_questions(self._judge(ask), ask)

    def replies(self, ask: SlotAsk, questions: Sequence[Question]) -> dict[str, Reply]:
        """By key; a prompt the model cannot read is a failure, and the run goes on. Trainings may be of several asks:
        they run side by side.
        """
        if isinstance(ask, Tune):
            asked = [each.request for each in questions if isinstance(each.request, TuneRequest)]
            return dict(zip([each.key for each in questions], self._tunable().tune(asked), strict=True))
        if isinstance(ask, Fluency):
            texts = [each.request for each in questions if isinstance(each.request, FluencyRequest)]
            try:
                given = answer(self._judge(ask), texts)
            except MissingCapability as error:  # not every strategy that asks depends on the answer
                given = [Failure(f"{error.message} ({error.hint})")] * len(texts)
            return {each.key: reply for each, reply in zip(questions, given, strict=True)}
        model = self._open()
        replies: dict[str, Reply] = {}
        for question in questions:
            assert isinstance(question.request, tuple)
            try:
                replies[question.key] = model.gradients(question.request)
            except (TemplateError, LabelWordError) as error:
                replies[question.key] = Failure(str(error))
        return replies

    def answer(self, ask: SlotAsk, replies: Sequence[Reply]) -> Slope | Fluent | Tuned:
        """What the strategy is told."""
        if isinstance(ask, Fluency):
            return _fluent(replies)
        (reply,) = replies
        if isinstance(reply, TuneReply):
            return Tuned(reply.rows, reply.ids, reply.losses, reply.state)
        if isinstance(ask, Tune):
            assert isinstance(reply, Failure)
            return Tuned({}, {}, (), b"", reply.message)
        if isinstance(reply, Failure):
            return Slope(math.nan, {}, {}, reply.message)
        assert isinstance(reply, GradientReply)
        model = self._open()
        changes = {
            # in the precision the cache keeps, so that a resumed run computes the very same numbers
            name: model.first_order(np.ascontiguousarray(slot.gradient, np.float32))
            for name, slot in reply.slots.items()
        }
        return Slope(reply.loss, {name: slot.ids for name, slot in reply.slots.items()}, changes)

    def _judge(self, ask: Fluency) -> Model:
        """The model that says how likely a prompt's tokens are; loaded once."""
        if ask.judge not in self._judges:
            self._judges[ask.judge] = load_model(ask.judge)
        return self._judges[ask.judge]

    def _tunable(self) -> TunableModel:
        if not isinstance(self._model, TunableModel):
            raise MissingCapability(
                f"model {self._model.name!r} ({self._model.kind}) cannot train soft prompts",
                hint="use a Hugging Face model, or a strategy that trains none",
            )
        return self._model

    def _open(self) -> OpenModel:
        if not isinstance(self._model, OpenModel):
            raise MissingCapability(
                f"model {self._model.name!r} ({self._model.kind}) gives no gradients",
                hint="use a Hugging Face model, or a strategy that needs none",
            )
        return self._model


def _tune_question(task: Task, fingerprint: str, ask: Tune) -> Question:
    """One question about a whole stretch of steps."""
    request = tune_request(task, ask)
    content = [
        [_content(each) for each in request.texts],
        request.batches,
        repr(request.training),
        request.done,
        hashlib.sha256(request.state).hexdigest(),
        repr(request.policies),
    ]
    key = hashlib.sha256(json.dumps([fingerprint, "tune", content]).encode()).hexdigest()
    return Question(key, request, calls=GRADIENT_CALLS * sum(map(len, request.batches)))


def _content(each: GradientRequest) -> list[object]:
    """All that the gradient of a text depends on."""
    return [
        [_spelled(piece) for piece in each.rendered.before],
        [_spelled(piece) for piece in each.rendered.after],
        each.answers,
        each.right,
        each.among_answers,
        *(["ended"] if each.ended else []),
    ]


def _gradient_question(task: Task, fingerprint: str, ask: Gradient) -> Question:
    """One question about all examples."""
    requests = tuple(
        gradient_request(task, ask.prompt, example, among_answers=ask.among_answers)
        for example in ask.examples
    )
    content = [_content(each) for each in requests]
    key = hashlib.sha256(json.dumps([fingerprint, "gradient", content]).encode()).hexdigest()
    return Question(key, requests, calls=GRADIENT_CALLS * len(requests))


def _spelled(piece: Piece) -> list[object]:
    spelled: list[object] = [piece.text, piece.is_field, piece.slot]
    return spelled if piece.rows is None else [*spelled, piece.rows.key]


def _fluency_questions(judge: Model, ask: Fluency) -> list[Question]:
    """One question an example; a masked model runs its text once for every token of the slots. What cannot be
    answered costs nothing.
    """
    fingerprint = judge.fingerprint
    able = isinstance(judge, FluentModel) and judge.kind in ("causal", "masked")
    questions = []
    for example in ask.examples:
        rendered = ask.prompt.render(example.fields, with_slots=True)
        request = FluencyRequest(rendered, ask.likely)
        runs = int(able)
        if able and judge.kind == "masked" and isinstance(judge, OpenModel):
            runs = _slot_tokens(judge, rendered)
        questions.append(Question(question_key(fingerprint, request), request, calls=runs, judge=judge))
    return questions


def _slot_tokens(judge: OpenModel, rendered: Rendered) -> int:
    """Tokens of all slots of a text, at least 1."""
    try:
        (read,) = judge.vocabulary.read([rendered])
    except TemplateError:  # a slot stands twice, say; the reply will tell
        return 1
    return max(1, sum(map(len, read.values()))) if read else 1


def _fluent(replies: Sequence[Reply]) -> Fluent:
    """Perplexity over all examples, and the tokens that are likely in them on average."""
    there = [reply for reply in replies if isinstance(reply, FluencyReply)]
    if not there:
        problem = next((reply.message for reply in replies if isinstance(reply, Failure)), "no answer")
        return Fluent(math.nan, {}, {}, problem)
    slots = {f"{at}.{name}": slot for at, reply in enumerate(there) for name, slot in reply.slots.items()}
    ids = {name: slot.ids for name, slot in there[0].slots.items()}
    alike = [reply for reply in there if {name: slot.ids for name, slot in reply.slots.items()} == ids]
    likely = {
        name: tuple(_likeliest(alike, name, place) for place in range(len(slot.likely)))
        for name, slot in there[0].slots.items()
    }
    return Fluent(FluencyReply(slots, tokens=0).perplexity, ids, likely)


def _likeliest(replies: Sequence[FluencyReply], name: str, place: int) -> tuple[int, ...]:
    """Tokens by their mean log-probability; where a token is not among the likeliest, it counts as the last of them."""
    lost: dict[int, float] = defaultdict(float)
    floors = [reply.slots[name].likely_log_probs[place][-1] for reply in replies]
    for reply, floor in zip(replies, floors, strict=True):
        slot = reply.slots[name]
        for token, value in zip(slot.likely[place], slot.likely_log_probs[place], strict=True):
            lost[token] += value - floor
    return tuple(sorted(lost, key=lambda token: (-lost[token], token)))
