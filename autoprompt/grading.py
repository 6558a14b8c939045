"""How an example becomes a request to the model, and how the reply becomes a score.

Label words: log P(label) = log of the sum of its words' probabilities. With contextual calibration (Zhao et
al. 2021, "Calibrate Before Use", section 5, diagonal form) each label's log-probability on a content-free
input is subtracted.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprompt.asks import Floats, Scored, Tune
from autoprompt.errors import MissingCapability, ModelError
from autoprompt.metrics import METRICS
from autoprompt.metrics import mean as metric_mean
from autoprompt.models import (
    Failure,
    GradientRequest,
    LabelReply,
    LabelRequest,
    Model,
    RankReply,
    RankRequest,
    Reply,
    Request,
    ScoringModel,
    TextReply,
    TextRequest,
    TuneRequest,
)
from autoprompt.prompt import Prompt
from autoprompt.task import Example, Task

CONTENT_FREE = "N/A"
_NO_SPACES = "\u2e80"  # from here on: Chinese, Japanese and other scripts without spaces between words


@dataclass(frozen=True)
class Grade:
    """One example's result. ``score`` in [0, 1]; ``loss`` in nats, NaN where there is none; NaN and None if
    missing. ``log_probs``: of every label, in nats, where the task has labels and the model tells. ``stray``: what
    the model wrote, where no answer was found in it.
    """

    score: float
    loss: float
    prediction: str | None
    tokens: int = 0
    shortened: int = 0
    log_probs: tuple[float, ...] = ()
    stray: str | None = None


MISSING = Grade(math.nan, math.nan, None)


def request_for(task: Task, model: Model, prompt: Prompt, example: Example) -> Request:
    """The request that asks ``model`` for the answer of ``example`` under ``prompt``."""
    rendered = prompt.render(example.fields)
    if task.kind == "generation" or not isinstance(model, ScoringModel):
        # A label is looked for in all that is said; stop strings are for texts that are themselves the answer.
        return TextRequest(rendered, task.max_tokens, task.stop if task.kind == "generation" else ())
    if task.kind == "classification":
        words = tuple(word for label in task.labels for word in prompt.words[label])
        return LabelRequest(rendered, words, relative=True)  # labels are compared with each other only
    if task.kind == "multiple_choice":
        return LabelRequest(rendered, example.choices)
    return RankRequest(rendered, example.target, task.among if task.candidates == "targets" else None)


def gradient_request(task: Task, prompt: Prompt, example: Example, *, among_answers: bool) -> GradientRequest:
    """The request for the gradient of one example's loss by the tokens in the prompt's token slots.

    Raises:
        MissingCapability: the task has no answers to take a loss of.
    """
    rendered = prompt.render(example.fields, with_slots=True)
    if task.kind == "classification":
        words = [(label, word) for label in task.labels for word in prompt.words[label]]
        right = tuple(at for at, (label, _) in enumerate(words) if label == example.target)
        return GradientRequest(rendered, tuple(word for _, word in words), right, among_answers)
    if task.kind == "multiple_choice":
        right = (example.choices.index(example.target),)
        return GradientRequest(rendered, example.choices, right, among_answers)
    if task.kind == "cloze":
        return GradientRequest(rendered, (example.target,), (0,), among_answers=False)
    raise MissingCapability(
        f"task {task.name!r} asks for free text, which has no gradient here",
        hint="use a strategy that needs no gradients",
    )


def tune_request(task: Task, ask: Tune) -> TuneRequest:
    """The request to train the rows in a prompt's soft slots; free text is learnt with its end."""
    texts = {example: at for at, example in enumerate(dict.fromkeys(ask.shown))}
    batches = tuple(
        tuple(texts.setdefault(example, len(texts)) for example in batch) for batch in ask.batches
    )
    training = ask.training
    requests = tuple(
        GradientRequest(ask.prompt.render(example.fields), (example.target,), (0,), False, ended=True)
        if task.kind == "generation"
        else gradient_request(task, ask.prompt, example, among_answers=training.among_answers)
        for example in texts
    )
    return TuneRequest(requests, batches, training, ask.done, ask.state, ask.policies)


def content_free(example: Example) -> Example:
    """The same row with every text field replaced by a text without content."""
    fields = {
        name: [CONTENT_FREE] * len(value) if isinstance(value, (list, tuple)) else CONTENT_FREE
        for name, value in example.fields.items()
    }
    return Example(fields, example.target, example.references, example.choices)


def needs_calibration(task: Task, model: Model) -> bool:
    """Whether label scores are to be calibrated (only label words can be)."""
    return task.calibrate and task.kind == "classification" and isinstance(model, ScoringModel)


def sound(model: Model, requests: Sequence[Request], replies: Sequence[Reply]) -> list[Reply]:
    """Replies as plain numbers; one that is none to its request, or in numbers that are none, is a missing answer.

    Raises:
        ModelError: there are more or fewer replies than requests, so that nobody knows which is whose.
    """
    if len(replies) != len(requests):
        raise ModelError(
            f"model {model.name!r} gave {len(replies)} replies to {len(requests)} requests: one a request, in order, "
            "is needed",
            hint="autoprompt.testing.check_model(model) tells what a model must keep to",
        )
    return [_sound(*pair) for pair in zip(requests, replies, strict=True)]


def _sound(request: Request, reply: Reply) -> Reply:
    if isinstance(reply, LabelReply) and isinstance(request, LabelRequest):
        values = tuple(map(float, reply.log_probs))
        if len(values) != len(request.answers):
            return Failure(
                f"the model gave {len(values)} log-probabilities for {len(request.answers)} answers"
            )
        plain: Reply = LabelReply(values, int(reply.tokens), int(reply.shortened))
    elif isinstance(reply, RankReply) and isinstance(request, RankRequest):
        values = (float(reply.log_prob),)
        plain = RankReply(values[0], int(reply.rank), str(reply.top), int(reply.tokens), int(reply.shortened))
    elif isinstance(reply, Failure) or (isinstance(reply, TextReply) and isinstance(request, TextRequest)):
        return reply
    else:
        return Failure(
            f"the model gave a {type(reply).__name__}, which is no reply to a {type(request).__name__}"
        )
    if any(math.isnan(value) for value in values):
        return Failure("the model gave a log-probability that is not a number (NaN)")
    if math.isinf(max(values)):
        return Failure(f"the model gave no log-probability but {max(values)}")
    return plain


def grade(task: Task, prompt: Prompt, example: Example, reply: Reply, blank: Reply | None = None) -> Grade:
    """Turn a reply into a score, a loss and a prediction.

    Args:
        task: decides the metric.
        prompt: decides the label words.
        example: holds the right answer.
        reply: what the model said.
        blank: what it said for the content-free example, where scores are calibrated.
    """
    if isinstance(reply, Failure) or isinstance(blank, Failure):
        return MISSING
    if isinstance(reply, LabelReply):
        if task.kind == "multiple_choice":
            names: Sequence[str] = example.choices
            values = np.array(reply.log_probs)
            if task.normalize:
                values = values / np.array([max(1, len(name.encode())) for name in names])
        else:
            names = task.labels
            values = label_log_probs(reply, task.labels, prompt.words)
            if isinstance(blank, LabelReply):
                values = values - label_log_probs(blank, task.labels, prompt.words)
        found = _graded(
            task, example, names[int(values.argmax())], None, _nll(values, names, example.target), reply
        )
        among = tuple((values - np.logaddexp.reduce(values)).tolist())
        return found if task.kind == "multiple_choice" else dataclasses.replace(found, log_probs=among)
    if isinstance(reply, RankReply):
        return _graded(task, example, reply.top, reply.rank, -reply.log_prob, reply)
    assert isinstance(reply, TextReply)
    text = reply.text.strip()
    if task.kind == "generation":
        said = read_answer(task.read, text)
        found = _graded(task, example, said, None, math.nan, reply)
        return dataclasses.replace(found, stray=text) if task.read and not said else found
    candidates = _spoken(task, prompt, example)
    label = parse_answer(text, candidates)
    if label is not None:
        return _graded(task, example, label, None, math.nan, reply)
    shown = repr(text) if text in candidates else text  # a label's name is none of its words, and no answer
    return dataclasses.replace(_graded(task, example, shown, None, math.nan, reply), stray=text)


def pooled(task: Task, examples: Sequence[Example], answers: Sequence[Scored]) -> Scored:
    """Several prompts as one: the mean of the probabilities they give each label (Lester et al. 2021, section 6).

    Args:
        task: with labels.
        examples: N of them.
        answers: of each prompt to the same examples.

    Raises:
        MissingCapability: an answer tells no probabilities of labels.
    """
    given = [answer.log_probs for answer in answers]
    if any(each is None for each in given):
        raise MissingCapability(
            f"task {task.name!r}: prompts answer together by the probabilities of labels, which this task or model "
            "does not give",
            hint="evaluate the prompts one by one",
        )
    mean = np.log(np.mean([np.exp(each) for each in given if each is not None], axis=0))  # [N, C]
    missing = np.isnan(mean).any(axis=1)
    predictions = tuple(
        None if gone else task.labels[int(row.argmax())] for row, gone in zip(mean, missing, strict=True)
    )
    metric = METRICS[task.metric]
    scores = np.array(
        [
            math.nan if said is None else metric.per_example(said, None, example)
            for said, example in zip(predictions, examples, strict=True)
        ]
    )
    targets = [example.target for example in examples]
    losses = -mean[np.arange(len(mean)), [task.labels.index(target) for target in targets]]
    over_set = metric.over_set
    return Scored(
        scores=scores,
        losses=losses,
        predictions=predictions,
        tokens=sum(answer.tokens for answer in answers),
        value=None if over_set is metric_mean else over_set(targets, predictions, scores),
        log_probs=mean,
    )


def label_log_probs(reply: LabelReply, labels: Sequence[str], words: Mapping[str, Sequence[str]]) -> Floats:
    """[labels] log of the summed probability of each label's words, in nats."""
    values = np.array(reply.log_probs, dtype=np.float64)
    ends = np.cumsum([len(words[label]) for label in labels])
    parts = np.split(values, ends[:-1])
    return np.array([np.logaddexp.reduce(part) for part in parts])


def parse_answer(text: str, candidates: Mapping[str, Sequence[str]]) -> str | None:
    """The label one of whose words stands first in ``text`` as a whole word, whatever its case (of two that differ in it
    alone, the one in the case that stands there); None if none does.
    """
    found: list[tuple[int, int, bool, str]] = []
    for name, words in candidates.items():
        for word in words:
            match = re.search(_whole(word), text, re.IGNORECASE)
            if match:
                found.append((match.start(), -len(word), match[0] != word, name))
    return min(found)[3] if found else None


def read_answer(pattern: str, text: str) -> str:
    """The answer in a completion: the last match of ``pattern``, its first group where it has one; nothing where there is no
    match, all of the text where there is no pattern.
    """
    if not pattern:
        return text
    matches = list(re.finditer(pattern, text))
    if not matches:
        return ""
    last = matches[-1]
    return (last[1] or "" if last.re.groups else last[0]).strip()


def _whole(word: str) -> str:
    """A pattern for ``word`` as a whole word; scripts that set no spaces between words have no such borders."""
    start = r"(?<!\w)" if word[:1] < _NO_SPACES else ""
    end = r"(?!\w)" if word[-1:] < _NO_SPACES else ""
    return start + re.escape(word) + end


def _spoken(task: Task, prompt: Prompt, example: Example) -> Mapping[str, Sequence[str]]:
    """What a model that only writes text may say, by the answer it stands for."""
    if task.kind == "classification":
        return prompt.words
    if task.kind == "multiple_choice":
        return {choice: (choice,) for choice in example.choices}
    return {example.target: (example.target,)}


def _nll(values: Floats, names: Sequence[str], target: str) -> float:
    """-log P(target) among the candidates, in nats."""
    return float(np.logaddexp.reduce(values) - values[list(names).index(target)])


def _graded(
    task: Task,
    example: Example,
    prediction: str,
    rank: int | None,
    loss: float,
    reply: LabelReply | RankReply | TextReply,
) -> Grade:
    score = METRICS[task.metric].per_example(prediction, rank, example)
    return Grade(score, loss, prediction, reply.tokens, reply.shortened)
