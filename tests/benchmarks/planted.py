"""Classification tasks whose best trigger is known by construction, on masked, causal and encoder-decoder models.

A small model is taught a made-up language: every text speaks well or badly of some subjects, one word each, and every
*asking* word of a prompt asks about one subject. The answer is the verdict of the majority of what was asked about;
most words ask nothing. So every position of a trigger counts by itself, words that ask the same stand for each other,
and only a trigger that asks about the right subjects answers all texts rightly.

The task then comes from the taught model as a teacher: a hidden trigger of ``n`` asking words is planted, and what the
model answers under it is the label of every text. The hidden trigger scores 1.0 by construction, whatever the model
learnt, and nothing can score more. Kept are texts with as many good as bad verdicts that the model answers with a clear
margin, equally many of both labels; so the text alone says nothing, and without a trigger or with a random one the
model is right half of the time. How hard it is depends on ``n`` and on how few words ask for something.

Attention that looks up the word of one's own subject is written into the first layer before teaching, which then takes
a few hundred steps instead of tens of thousands. A model with random weights does not serve: of the variance of
its answers 3 to 6 % come from trigger and text together (BERT, GPT-2, T5 of two layers, d = 32).
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from autoprompt.models import LabelReply, LabelRequest, OpenModel
from autoprompt.models.load import load_model
from autoprompt.policy import TokenPolicy
from autoprompt.prompt import Prompt
from autoprompt.task import Task
from tests.benchmarks.models import Family, Shape, Subject, make_subject
from tests.benchmarks.workloads import Writer

Kind = Literal["masked", "causal", "seq2seq"]
FAMILIES: dict[Kind, Family] = {"masked": "bert", "causal": "gpt2", "seq2seq": "t5"}
SLOT = "trigger"
_SHAPE = Shape(layers=2, width=32, heads=4, vocabulary=8192)
_BELIEF = 1.5  # log-odds of an answer for each verdict that speaks for it
_RATE, _LEARNT = 3e-3, 0.94  # learning rate; share of right answers at which the next lesson begins
_WINDOW, _STEPS = 15, 800  # steps that the share is over; most steps before the rate falls
_OTHERS = 20  # random triggers that are measured
_MARGIN = 1.0  # nats between the answers under the hidden trigger that are clear,
_PART = 0.3  # as is this part of the widest margin, where the model never is that sure


@dataclass(frozen=True)
class Size:
    """How large the language is, and how it is taught.

    Attributes:
        subjects: S, what texts tell of; at most a head's width.
        spoken: subjects a text tells of; even.
        sayings: words that say the same of a subject.
        askers: words that ask about the same subject.
        lessons: of ever longer texts and triggers.
        batch: texts a step.
        cooling: steps after the last lesson, over which the learning rate falls to nothing.
    """

    subjects: int = 8
    spoken: int = 6
    sayings: int = 6
    askers: int = 20
    lessons: int = 5
    batch: int = 64
    cooling: int = 100


LARGE = Size()
SMALL = Size(subjects=4, spoken=2, sayings=2, askers=10, lessons=2, batch=32, cooling=40)
"""Taught in about a second: for tests."""


class Language:
    """Words, each one token, and what they are for; drawn by a seed.

    Attributes:
        answers: the label words, for a bad and a good verdict.
        cue: stands before the answer.
        opening: stands first, since what begins a text may be cut otherwise.
        sayings: [S][2][.] words that speak badly, well of a subject.
        askers: [S][.] words that ask about a subject.
        idle: all other words; they say and ask nothing.
    """

    def __init__(self, words: Sequence[str], size: Size, seed: int) -> None:
        left = iter(random.Random(seed).sample(words, len(words)))

        def some(number: int) -> list[str]:
            return [next(left) for _ in range(number)]

        self.size = size
        self.answers = next(left), next(left)
        self.opening, self.cue = next(left), " ".join(some(2))
        self.sayings = [[some(size.sayings) for _ in self.answers] for _ in range(size.subjects)]
        self.askers = [some(size.askers) for _ in range(size.subjects)]
        self.idle = list(left)

    def text(
        self, rng: np.random.Generator, spoken: int, fillers: int, *, even: bool = False
    ) -> tuple[str, dict[int, int]]:
        """A text on so many subjects, with so many idle words; and subject to verdict (-1 or 1).

        ``even``: with as many bad verdicts as good ones.
        """
        about = [int(each) for each in rng.permutation(len(self.sayings))[:spoken]]
        drawn = rng.permutation(spoken) % 2 if even else rng.integers(2, size=spoken)
        sides = [int(each) for each in drawn]
        words = [_one(self.sayings[each][side], rng) for each, side in zip(about, sides, strict=True)]
        words += [_one(self.idle, rng) for _ in range(fillers)]
        rng.shuffle(words)
        return " ".join(words), {each: 2 * side - 1 for each, side in zip(about, sides, strict=True)}

    def asked(self, rng: np.random.Generator, count: int) -> tuple[str, list[int]]:
        """A trigger of so many words, three in ten of them idle; and the subjects it asks about."""
        about = [int(rng.integers(len(self.askers))) for _ in range(count) if rng.random() < 0.7]
        words = [_one(self.askers[each], rng) for each in about]
        words += [_one(self.idle, rng) for _ in range(count - len(about))]
        rng.shuffle(words)
        return " ".join(words), about

    def frame(self, kind: Kind, text: str, trigger: str, answer: str) -> str:
        """All of them as one prompt, or as a template."""
        parts = (self.opening, text, trigger, self.cue, answer, "." if kind == "masked" else "")
        return " ".join(part for part in parts if part)


def _one(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


@dataclass(frozen=True)
class Taught:
    """A model that speaks the language. ``right``: share of right answers in its last steps, ties left out."""

    language: Language
    model: OpenModel
    right: float
    steps: int


@functools.lru_cache(maxsize=4)
def taught(kind: Kind, seed: int, size: Size = LARGE) -> Taught:
    """Make a model and teach it; the same arguments give the same model.

    Raises:
        RuntimeError: it did not learn the language.
    """
    # not the model that others may have asked for: this one is changed
    subject = make_subject.__wrapped__(FAMILIES[kind], "planted", _SHAPE, seed)
    language = Language(Writer(subject.tokenizer).single, size, seed)
    with torch.no_grad():
        _prepare(subject, language, torch.Generator().manual_seed(seed))
    right, steps = _teach(subject, language, np.random.default_rng(seed))
    if right < _LEARNT - 0.05:
        raise RuntimeError(f"{kind}, seed {seed}: {right:.0%} of its answers are right after {steps} steps")
    model = load_model((subject.model, subject.tokenizer))
    assert isinstance(model, OpenModel)
    return Taught(language, model, right, steps)


def _prepare(subject: Subject, language: Language, draw: torch.Generator) -> None:
    """Write a look-up into the first layer: words of a subject carry its axis, words that say something of it the
    verdict on one more, and a head lets words of one subject read each other's verdict.
    """
    S, width, model = language.size.subjects, _SHAPE.width, subject.model
    verdict, found, asks, start = S, S + 1, S + 2, S + 3  # axes of the embedding
    table = model.get_input_embeddings().weight
    table.copy_(0.5 * width**-0.5 * torch.randn(table.shape, generator=draw))
    for number in range(S):
        for side, words in enumerate(language.sayings[number]):
            table[_ids(subject, words), number] += 1
            table[_ids(subject, words), verdict] += 2 * side - 1
        table[_ids(subject, language.askers[number]), number] += 1
        table[_ids(subject, language.askers[number]), asks] += 1
    head, axes = slice(width // _SHAPE.heads), range(S)
    gain = 1.0
    match subject.kind:
        case "masked":
            model.bert.embeddings.position_embeddings.weight.mul_(0.1)
            layer = model.bert.encoder.layer[0].attention
            parts = [getattr(layer.self, name).weight for name in ("query", "key", "value")]
            parts.append(layer.output.dense.weight)
        case "causal":
            model.transformer.wpe.weight.mul_(0.1)
            layer = model.transformer.h[0].attn
            parts = [*layer.c_attn.weight.T.split(width), layer.c_proj.weight.T]
        case "seq2seq":  # its attention is not scaled down by the root of the head's width
            gain, layer = 0.9, model.encoder.block[0].layer[0].SelfAttention
            parts = [layer.q.weight, layer.k.weight, layer.v.weight, layer.o.weight]
            table[subject.start, start] += 1  # the decoder's first token, which reads what asking words found
            across = model.decoder.block[0].layer[1].EncDecAttention
            for part, axis in ((across.q.weight, start), (across.k.weight, asks), (across.v.weight, found)):
                part[head] = 0
                part[0, axis] = 0.5 if axis != found else 1.0
            across.o.weight[:, head] = 0
            across.o.weight[found, 0] = 2
    query, key, value, output = parts
    for part in (query, key):
        part[head] = 0
        part[axes, axes] = gain
    value[head] = 0
    value[0, verdict] = 1
    output[:, head] = 0
    output[found, 0] = 2


def _ids(subject: Subject, words: Sequence[str]) -> list[int]:
    """The token of each word."""
    spaced = [f" {word}" for word in words]
    return [int(ids[0]) for ids in subject.tokenizer(spaced, add_special_tokens=False)["input_ids"]]


def _teach(subject: Subject, language: Language, rng: np.random.Generator) -> tuple[float, int]:
    """Lessons of longer texts and triggers, each until the answers are right; then the rate falls to nothing.

    The target of a text is a distribution over the two answers: log-odds ``_BELIEF`` a verdict, so that the loss
    tells how many of the right subjects are asked about. There is no dropout.

    Returns:
        The share of right answers in the last steps, and the number of steps.
    """
    choices = torch.tensor(_ids(subject, language.answers))
    optimizer = torch.optim.AdamW(subject.model.parameters(), lr=0.0, betas=(0.9, 0.98), fused=True)
    right: list[float] = []
    lesson, learnt, step, cooling = 0, _STEPS, 0, language.size.cooling
    while step < learnt + cooling:
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1, (step + 1) / 30, 1 - (step - learnt) / cooling)
        texts, sums = _batch(subject, language, rng, lesson)
        log_probs = _logits(subject, texts).log_softmax(-1)[:, choices]
        second = torch.sigmoid(_BELIEF * sums)
        loss = -((1 - second) * log_probs[:, 0] + second * log_probs[:, 1]).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(subject.model.parameters(), 1.0)
        optimizer.step()
        if (decided := sums != 0).any():
            right.append(float(((log_probs[:, 1] > log_probs[:, 0]) == (sums > 0))[decided].float().mean()))
        step += 1
        if learnt > step and len(right) >= _WINDOW and np.mean(right[-_WINDOW:]) > _LEARNT:
            if lesson + 1 < language.size.lessons:
                lesson, right = lesson + 1, []
            else:
                learnt = step
    optimizer.zero_grad(set_to_none=True)
    return float(np.mean(right[-_WINDOW:])), step


def _batch(
    subject: Subject, language: Language, rng: np.random.Generator, lesson: int
) -> tuple[list[str], torch.Tensor]:
    """B prompts of one length without their answers; and the sum of the verdicts each asks about, [B]."""
    spoken = int(rng.integers(2, 3 + min(language.size.spoken - 2, lesson)))
    fillers, count = int(rng.integers(4)), int(rng.integers(lesson == 0, 2 + 2 * lesson))
    mask = str(subject.tokenizer.mask_token) if subject.kind == "masked" else ""
    texts, sums = [], []
    for _ in range(language.size.batch):
        text, verdicts = language.text(rng, spoken, fillers)
        trigger, about = language.asked(rng, count)
        texts.append(language.frame(subject.kind, text, trigger, mask))
        sums.append(sum(verdicts.get(each, 0) for each in about))
    return texts, torch.tensor(sums)


def _logits(subject: Subject, texts: list[str]) -> torch.Tensor:
    """[B, V] at the answer place."""
    ids, model = subject.tokenizer(texts, return_tensors="pt")["input_ids"], subject.model
    if subject.kind == "masked":  # before ". [SEP]"
        logits = model.cls(model.bert(input_ids=ids).last_hidden_state[:, -3])
    elif subject.kind == "causal":
        logits = model(input_ids=ids, logits_to_keep=1).logits[:, -1]
    else:
        first = torch.full((len(ids), 1), subject.start)
        logits = model(input_ids=ids, decoder_input_ids=first).logits[:, -1]
    return logits  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Planted:
    """A task with a known best prompt.

    Attributes:
        task: its manual prompt is the template with an empty slot.
        model: answers it.
        space: a search space with one slot of ``n`` tokens.
        trigger: the hidden text; it scores 1.0 on every split.
        empty: accuracy on test without a trigger.
        random: accuracies on test of random triggers of as many readable words.
    """

    task: Task
    model: OpenModel
    space: dict[str, Any]
    trigger: str
    empty: float
    random: tuple[float, ...]


def planted_task(
    kind: Kind, seed: int, n: int = 3, *, size: Size = LARGE, rows: tuple[int, int, int] = (32, 64, 200)
) -> Planted:
    """Make a task with a hidden trigger of ``n`` words.

    Args:
        kind: how the model reads.
        seed: of the language, the model, the trigger and the texts.
        n: words of the trigger, at most two in three subjects: the sum over all of them is nothing. Better odd: texts
            with a tie are left out.
        size: of language and model.
        rows: of train, select and test.

    Raises:
        ValueError: ``n`` is too large.
        RuntimeError: the model did not learn, or too few texts fit.
    """
    if not 1 <= n <= 2 * size.subjects // 3:
        raise ValueError(
            f"n = {n}: of {size.subjects} subjects a trigger asks about 1 to {2 * size.subjects // 3}"
        )
    school, rng = taught(kind, seed, size), np.random.default_rng([seed, n])
    language, vocabulary = school.language, school.model.vocabulary
    allowed = np.flatnonzero(vocabulary.allowed(TokenPolicy(answers=language.answers)))
    readable = [vocabulary.text([int(token)]) for token in allowed]
    about = [set(language.askers[each]) for each in rng.permutation(size.subjects)[:n]]
    trigger = " ".join(_one([word for word in readable if word in words], rng) for words in about)
    chosen = _texts(school, kind, trigger, sum(rows), rng)
    labelled = [{"text": text, "label": label} for text, label in chosen]
    ends = np.cumsum((0, *rows))
    parts = zip(("train", "select", "test"), ends, ends[1:], strict=False)
    task = Task.from_rows(
        {role: labelled[start:end] for role, start, end in parts},
        name=f"planted-{kind}-{n}-{seed}",
        words={answer: answer for answer in language.answers},
        prompt=language.frame(kind, "{{ text }}", "", "{{ answer }}"),
    )
    space = {
        "title": f"{n} tokens",
        "template": language.frame(kind, "{{ text }}", f"[[ {SLOT} ]]", "{{ answer }}"),
        "slots": {SLOT: {"tokens": {"n": n}}},
    }
    others = [" ".join(_one(readable, rng) for _ in range(n)) for _ in range(_OTHERS)]
    empty, *drawn = (_accuracy(school, kind, other, chosen[-rows[2] :]) for other in ("", *others))
    return Planted(task, school.model, space, trigger, empty, tuple(drawn))


def _margins(school: Taught, kind: Kind, trigger: str, texts: Sequence[str]) -> NDArray[np.float64]:
    """[N] log-odds of the second answer against the first under a trigger, in nats."""
    prompt = Prompt(school.language.frame(kind, "{{ text }}", trigger, "{{ answer }}"))
    answers, model = school.language.answers, school.model
    requests = [LabelRequest(prompt.render({"text": text}), answers, relative=True) for text in texts]
    found = np.empty(len(requests))
    for batch in model.batches(requests):
        for at, reply in zip(batch, model.logprobs([requests[at] for at in batch]), strict=True):
            assert isinstance(reply, LabelReply), reply
            found[at] = reply.log_probs[1] - reply.log_probs[0]
    return found


def _accuracy(school: Taught, kind: Kind, trigger: str, labelled: Sequence[tuple[str, str]]) -> float:
    """Share of the labels that the model gives under a trigger."""
    seconds = np.array([label == school.language.answers[1] for _, label in labelled])
    return float(((_margins(school, kind, trigger, [text for text, _ in labelled]) > 0) == seconds).mean())


def _texts(
    school: Taught, kind: Kind, trigger: str, count: int, rng: np.random.Generator
) -> list[tuple[str, str]]:
    """Different texts with the model's clear answers under the hidden trigger, which take turns.

    Raises:
        RuntimeError: among forty times as many there are too few.
    """
    language, needed = school.language, count // 2 + 1
    kept: dict[str, dict[str, None]] = {answer: {} for answer in language.answers}
    for _ in range(40):
        texts = [
            language.text(rng, language.size.spoken, int(rng.integers(4)), even=True)[0] for _ in range(count)
        ]
        margins = _margins(school, kind, trigger, texts)
        clear = min(_MARGIN, _PART * np.abs(margins).max())
        for text, margin in zip(texts, margins, strict=True):
            if abs(margin) >= clear:
                kept[language.answers[int(margin > 0)]].setdefault(text)
        if min(map(len, kept.values())) >= needed:
            turns = (zip(pair, language.answers, strict=True) for pair in zip(*kept.values(), strict=False))
            return [each for turn in turns for each in turn][:count]
    sizes = [len(texts) for texts in kept.values()]
    raise RuntimeError(f"trigger {trigger!r}: too few texts ({sizes} of {needed} for each answer)")
