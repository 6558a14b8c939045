"""What is asked: texts of stated lengths, in tokens of the model's own tokenizer, that share what real rounds share.

- A: 64 prompts x 64 examples. Half of the prompts put the text first, half an instruction (A1: all of them).
- B: one gradient step over a slot of 10 positions, 32 examples, 128 candidates.
- C: 200 templates (20 instructions x 10 sets of demonstrations) x 64 examples.

A part of a workload is a contiguous block of prompts and the first examples, so that it shares as the whole does:
of A the two kinds of prompts take turns, of C all sets of demonstrations of an instruction follow one another, and
two sets in a row share their first half.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from autoprompt.models import GradientRequest, LabelRequest
from autoprompt.prompt import Piece, Rendered
from tests.benchmarks.models import Subject, make_words, zipf_weights

SLOT = "trigger"
POSITIONS = 10


class Writer:
    """Writes pseudo-text of an exact number of tokens.

    Args:
        tokenizer: whose tokens are counted, each word with the space before it; special tokens come on top, and
            a word that begins a text may be cut otherwise.
        seed: of the draws.

    Attributes:
        single: words that are one token, the most frequent first.
    """

    def __init__(self, tokenizer: Any, seed: int = 0) -> None:
        words = make_words()
        encoded = tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
        self._draw = random.Random(seed)
        self._sizes = {word: len(ids) for word, ids in zip(words, encoded, strict=True)}
        self._words = words
        self._weights = list(itertools.accumulate(zipf_weights(len(words))))
        self.single = [word for word in words if self._sizes[word] == 1]

    def text(self, length: int) -> str:
        """A text of ``length`` tokens."""
        return " ".join(self._taken(length))

    def between(self, low: int, high: int) -> str:
        """A text of ``low`` to ``high`` tokens, every length as likely."""
        return self.text(self._draw.randint(low, high))

    def singles(self, count: int) -> list[str]:
        """Different words of one token each."""
        return self._draw.sample(self.single, count)

    def _taken(self, length: int) -> Iterator[str]:
        while length:
            (word,) = self._draw.choices(self._words, cum_weights=self._weights)
            if self._sizes[word] <= length:
                length -= self._sizes[word]
                yield word


@dataclass(frozen=True)
class Workload:
    """``rendered`` [prompts][examples]; ``answers``: two label words of one token each."""

    name: str
    rendered: tuple[tuple[Rendered, ...], ...]
    answers: tuple[str, str]

    @property
    def flat(self) -> list[Rendered]:
        """All texts, prompt by prompt."""
        return [rendered for row in self.rendered for rendered in row]

    def requests(self) -> list[LabelRequest]:
        """The round as the harness asks it: only differences between the answers count."""
        return [LabelRequest(rendered, self.answers, relative=True) for rendered in self.flat]


def templates_and_examples(
    subject: Subject, prompts: int = 64, examples: int = 64, seed: int = 0, *, mixed: bool = True
) -> Workload:
    """Workload A: prompts of 20-60 tokens (cue included), examples of 10-60.

    Where ``mixed``, every second prompt stands after the example; else all stand before it but for a cue of 3.
    """
    writer = Writer(subject.tokenizer, seed)
    answers = writer.singles(2)
    texts = [writer.between(10, 60) for _ in range(examples)]
    rows = []
    for number in range(prompts):
        cue = writer.text(3)
        prompt = writer.between(17, 57)
        if number % 2 or not mixed:
            row = [_rendered(subject, Piece(f"{prompt} "), text, f" {cue} ") for text in texts]
        else:
            row = [_rendered(subject, None, text, f" {prompt} {cue} ") for text in texts]
        rows.append(tuple(row))
    return Workload("A", tuple(rows), (answers[0], answers[1]))


def demonstrations(subject: Subject, prompts: int = 200, examples: int = 64, seed: int = 0) -> Workload:
    """Workload C: an instruction (15-40 tokens) and demonstrations make a prefix of 100-400 tokens."""
    writer = Writer(subject.tokenizer, seed)
    answers = writer.singles(2)
    texts = [writer.between(10, 60) for _ in range(examples)]
    instructions = [writer.between(15, 40) for _ in range(20)]
    halves = [writer.between(50, 180) for _ in range(5)]
    sets = [f"{half} {writer.between(35, 180)}" for half in halves for _ in range(2)]
    cue = writer.text(3)
    rows = [
        tuple(_rendered(subject, Piece(f"{instruction} {shots} "), text, f" {cue} ") for text in texts)
        for instruction in instructions
        for shots in sets
    ]
    return Workload("C", tuple(rows[:prompts]), (answers[0], answers[1]))


def prefixed(subject: Subject, prompts: int, examples: int, prefix: int, seed: int = 0) -> Workload:
    """For scaling: prefixes of one length, examples of 30 tokens, a cue of 3."""
    writer = Writer(subject.tokenizer, seed)
    answers = writer.singles(2)
    texts = [writer.text(30) for _ in range(examples)]
    cue = writer.text(3)
    prefixes = [Piece(f"{writer.text(prefix)} ") for _ in range(prompts)]
    rows = [tuple(_rendered(subject, piece, text, f" {cue} ") for text in texts) for piece in prefixes]
    return Workload("scaling", tuple(rows), (answers[0], answers[1]))


def _rendered(subject: Subject, before: Piece | None, text: str, cue: str) -> Rendered:
    """Text and cue, then the answer place; a masked model reads a full stop after it."""
    pieces = (*((before,) if before else ()), Piece(text, is_field=True), Piece(cue))
    return Rendered(pieces, (Piece(" ."),) if subject.kind == "masked" else ())


@dataclass(frozen=True)
class Step:
    """Workload B: a slot, examples, and the substitutions a step looks at.

    Attributes:
        name: what stands first.
        texts: N examples of 10-60 tokens.
        right: index of the right answer of each.
        trigger: words of one token each.
        candidates: (position, word of one token) each.
        answers: two label words.
        cue: 5 tokens before the answer.
        masked: whether a full stop follows the answer place.
    """

    name: str
    texts: tuple[str, ...]
    right: tuple[int, ...]
    trigger: tuple[str, ...]
    candidates: tuple[tuple[int, str], ...]
    answers: tuple[str, str]
    cue: str
    masked: bool

    def rendered(self, trigger: Sequence[str]) -> list[Rendered]:
        """One text an example."""
        slot = Piece(" ".join(trigger), slot=SLOT)
        after = (Piece(" ."),) if self.masked else ()
        cue = Piece(f" {self.cue} ")
        if self.name == "examples first":
            return [
                Rendered((Piece(text, is_field=True), Piece(" "), slot, cue), after) for text in self.texts
            ]
        # one word before the slot: what begins a text may be cut otherwise
        opening = Piece(f"{self.answers[0]} ")
        return [
            Rendered((opening, slot, Piece(" "), Piece(text, is_field=True), cue), after)
            for text in self.texts
        ]

    def substituted(self) -> list[tuple[str, ...]]:
        """The trigger with each candidate in its place."""
        return [
            (*self.trigger[:position], word, *self.trigger[position + 1 :])
            for position, word in self.candidates
        ]

    def requests(self) -> list[LabelRequest]:
        """Every candidate on every example."""
        return [
            LabelRequest(rendered, self.answers, relative=True)
            for trigger in self.substituted()
            for rendered in self.rendered(trigger)
        ]

    def gradient_requests(self) -> list[GradientRequest]:
        """The loss of the right answer among the whole vocabulary, as AutoPrompt has it."""
        return [
            GradientRequest(rendered, self.answers, (right,))
            for rendered, right in zip(self.rendered(self.trigger), self.right, strict=True)
        ]


def gradient_step(
    subject: Subject, name: str, candidates: int = 128, examples: int = 32, seed: int = 0
) -> Step:
    """Workload B with ``examples first`` or ``trigger first``; candidates take the positions in turn."""
    writer = Writer(subject.tokenizer, seed)
    answers = writer.singles(2)
    drawn = writer.singles(POSITIONS + candidates)
    return Step(
        name=name,
        texts=tuple(writer.between(10, 60) for _ in range(examples)),
        right=tuple(number % 2 for number in range(examples)),
        trigger=tuple(drawn[:POSITIONS]),
        candidates=tuple((number % POSITIONS, word) for number, word in enumerate(drawn[POSITIONS:])),
        answers=(answers[0], answers[1]),
        cue=writer.text(5),
        masked=subject.kind == "masked",
    )
