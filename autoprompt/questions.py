"""From what a strategy asks to questions for a model, and from replies that are no scores back to answers."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np

from autoprompt.asks import (
    GRADIENT_CALLS,
    Complete,
    Completed,
    Fluency,
    Fluent,
    Gradient,
    Score,
    Slope,
    Tune,
    Tuned,
    price,
)
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
    CompletingModel,
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
    TextReply,
    TextRequest,
    TunableModel,
    TuneReply,
    TuneRequest,
    answer,
)
from autoprompt.models.load import load_model
from autoprompt.prompt import Piece, Rendered
from autoprompt.task import Task

OtherAsk = Gradient | Fluency | Tune | Complete
"""What is asked besides scores: about a prompt's slots, and for texts."""


@dataclass(frozen=True)
class Question:
    """What a model is asked, and what it costs.

    Attributes:
        key: hash of all that the answer depends on.
        request: the request; for a gradient those of all examples, since their mean is asked for; for a training all
            of it.
        blank: its content-free twin where scores are calibrated.
        calls: what it is charged as.
        judge: who is asked, where that need not be the model that is prompted.
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
        if each.judge is None and not isinstance(each.request, (tuple, TuneRequest))
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
            batches = question.request.batches or (range(len(texts)),)
            asked = [texts[index] for batch in batches for index in batch]
        elif question.judge is not None and question.calls:
            asked = [question.request]
        try:
            total += question.weight * sum((question.judge or model).count_tokens(asked))
        except (TemplateError, LabelWordError):  # it cannot be read, as its answer will say
            continue
    return total


class OtherAnswers:
    """Puts all questions but scores to a model, or to the one that judges or writes.

    Args:
        task: what is measured.
        model: the model that is prompted.
    """

    def __init__(self, task: Task, model: Model) -> None:
        self._task = task
        self._model = model
        self._fingerprint = model.fingerprint
        self._models: dict[str, Model] = {"": model}

    def questions(self, ask: OtherAsk) -> list[Question]:
        """One question about all examples for a gradient or a training, one an example for a fluency, one a text."""
        if isinstance(ask, Complete):
            return _text_questions(self._named(ask.model), ask)
        if isinstance(ask, Tune):
            return [_tune_question(self._task, self._fingerprint, ask)]
        if isinstance(ask, Gradient):
            return [_gradient_question(self._task, self._fingerprint, ask)]
        return _fluency_questions(self._named(ask.judge), ask)

    def replies(
        self, ask: OtherAsk, questions: Sequence[Question], known: Container[str] = ()
    ) -> dict[str, Reply]:
        """By key; a prompt the model cannot read is a failure, and the run goes on. Trainings may be of several asks, and
        texts too: they run side by side. What is ``known`` is asked only where it stands in a batch with something new.
        """
        if isinstance(ask, Complete):
            return _written(self._named(ask.model), questions, known)
        questions = [each for each in questions if each.key not in known]
        if isinstance(ask, Tune):
            asked = [each.request for each in questions if isinstance(each.request, TuneRequest)]
            return dict(zip([each.key for each in questions], self._tunable().tune(asked), strict=True))
        if isinstance(ask, Fluency):
            texts = [each.request for each in questions if isinstance(each.request, FluencyRequest)]
            try:
                given = answer(self._named(ask.judge), texts)
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

    def answer(self, ask: OtherAsk, replies: Sequence[Reply]) -> Slope | Fluent | Tuned | Completed:
        """What the strategy is told."""
        if isinstance(ask, Complete):
            problems = [each.message for each in replies if isinstance(each, Failure)]
            texts = (each.text if isinstance(each, TextReply) else None for each in replies)
            return Completed(tuple(texts), problems[-1] if problems else "")
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

    def _named(self, name: str) -> Model:
        """The model that judges or writes, loaded once; without a name the one that is prompted."""
        if name not in self._models:
            self._models[name] = load_model(name)
        return self._models[name]

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
    return Question(key, request, calls=price(ask))


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


def _text_questions(writer: Model, ask: Complete) -> list[Question]:
    """One question a text.

    Raises:
        MissingCapability: the model writes no texts.
    """
    if not isinstance(writer, CompletingModel):
        raise MissingCapability(
            f"model {writer.name!r} ({writer.kind}) cannot write texts",
            hint='name one that can: strategy=Propose(model="bundled:causal"), a folder, or a server',
        )
    fingerprint = f"{writer.fingerprint} writes"
    questions = []
    for at, text in enumerate(ask.texts):
        seed = ask.seed + at if ask.temperature else 0
        request = TextRequest(
            Rendered((Piece(text),)), ask.max_tokens, temperature=ask.temperature, seed=seed
        )
        questions.append(Question(question_key(fingerprint, request), request, judge=writer))
    return questions


def _written(writer: Model, questions: Sequence[Question], known: Container[str]) -> dict[str, Reply]:
    """What a model writes, by key, batch by batch; a text that is too long for it is a failure."""
    replies: dict[str, Reply] = {}
    keys: list[str] = []
    requests: list[Request] = []
    for question in questions:
        assert isinstance(question.request, TextRequest)
        try:
            writer.count_tokens([question.request])
        except TemplateError as error:
            replies[question.key] = Failure(error.message)
        else:
            keys.append(question.key)
            requests.append(question.request)
    for batch in writer.batches(requests) if requests else []:
        if any(keys[index] not in known for index in batch):
            given = answer(writer, [requests[index] for index in batch])
            replies.update((keys[index], reply) for index, reply in zip(batch, given, strict=True))
    return {key: reply for key, reply in replies.items() if key not in known}


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
