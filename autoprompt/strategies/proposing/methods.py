"""What a model is asked to write, and after which text: one method, one way to come to a new text.

Methods know nothing of searches. Each is given a ``Brief`` and returns a text to be continued. What is shown of data is
of train, never of select. The wording is this project's; where the ideas come from is said at each method.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from autoprompt.asks import Scored
from autoprompt.prompt import Prompt
from autoprompt.task import Example

LONGEST_FIELD = 300
LONGEST_REASON = 600
"""Characters shown of a field, and of what a model gave as reasons."""
OPEN, CLOSE = "<text>", "</text>"


@dataclass(frozen=True)
class Shown:
    """A train example as it is shown.

    Attributes:
        given: its fields.
        right: the right answer, in the words the prompt uses for it.
        said: what was answered under the prompt; None where that is not known.
        hit: whether that was right.
    """

    given: str
    right: str
    said: str | None = None
    hit: bool = False

    def __str__(self) -> str:
        """With the answer that was given, where there is one."""
        if self.said is None:
            return f"{self.given}\nRight answer: {self.right}"
        verdict = "right" if self.hit else f"wrong, the right answer is: {self.right}"
        return f"{self.given}\nAnswer: {self.said} ({verdict})"


@dataclass(frozen=True)
class Brief:
    """What a method is told.

    Attributes:
        text: what stands in the slot now; may be empty.
        marks: the brackets that a new text must hold, as they are written.
        longest: characters a new text may have.
        examples: drawn examples of train.
        answered: examples of train with what was answered under the prompt, mistakes and others in a drawn order.
        history: (text, score in [0, 1]) of texts tried in the slot, from the worst to the best.
    """

    text: str
    marks: tuple[str, ...]
    longest: int
    examples: tuple[Shown, ...] = ()
    answered: tuple[Shown, ...] = ()
    history: tuple[tuple[str, float], ...] = ()

    @property
    def mistakes(self) -> tuple[Shown, ...]:
        """Those of the answered examples that were answered wrong."""
        return tuple(each for each in self.answered if not each.hit)


@dataclass(frozen=True)
class Method:
    """A way to come to a new text.

    Attributes:
        first: the text to be continued; empty where there is nothing to work with.
        then: a second one, made of what the model wrote after the first; None where that is the new text already.
        reads_answers: whether it reads what was answered under the prompt on train.
    """

    first: Callable[[Brief], str]
    then: Callable[[Brief, str], str] | None = None
    reads_answers: bool = False

    @property
    def texts(self) -> int:
        """How many texts the model writes for one new one."""
        return 1 if self.then is None else 2


def shown(example: Example, prompt: Prompt, said: str | None = None, score: float = 0.0) -> Shown:
    """An example in the prompt's own words for its answers.

    Args:
        example: of train.
        prompt: says what its labels are called.
        said: the answer that was given.
        score: in [0, 1], of that answer; from a half on it counts as right.
    """
    lines = [f"{name}: {_cut(_value(value))}" for name, value in example.fields.items()]
    if example.choices:
        lines.append(f"choices: {' / '.join(example.choices)}")
    if len(lines) == 1 and len(example.fields) == 1:
        lines = [f"Input: {_cut(_value(next(iter(example.fields.values()))))}"]
    return Shown(
        "\n".join(lines),
        _word(example.target, prompt),
        None if said is None else _cut(_word(said, prompt) or "(nothing)"),
        score >= 0.5,
    )


def drawn_examples(
    examples: Sequence[Example], prompt: Prompt, n: int, rng: np.random.Generator
) -> tuple[Shown, ...]:
    """Up to n drawn examples, one of each target in turn as far as they go."""
    groups: dict[str, list[Example]] = {}
    for at in rng.permutation(len(examples)):
        groups.setdefault(examples[at].target, []).append(examples[at])
    rows = itertools.zip_longest(*groups.values())
    drawn = [example for row in rows for example in row if example is not None]
    return tuple(shown(each, prompt) for each in drawn[:n])


def drawn_answers(
    examples: Sequence[Example], prompt: Prompt, scored: Scored | None, n: int, rng: np.random.Generator
) -> tuple[Shown, ...]:
    """Up to n drawn examples with what was answered: mistakes, and one that was right where there is room."""
    if scored is None:
        return ()
    known = [
        shown(examples[at], prompt, said, float(scored.scores[at]))
        for at in rng.permutation(len(examples))
        if (said := scored.predictions[at]) is not None
    ]
    mistakes, hits = [each for each in known if not each.hit], [each for each in known if each.hit]
    kept = mistakes[: max(n - 1, 1)] if hits else mistakes[:n]
    return tuple(kept + hits[: n - len(kept)])


def _word(answer: str, prompt: Prompt) -> str:
    words = prompt.words.get(answer)
    return words[0] if words else answer


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _cut(text: str, longest: int = LONGEST_FIELD) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else text[:longest].rstrip() + " ..."


def _wanted(brief: Brief, what: str) -> str:
    """The last lines of every text: what is to be written, and how."""
    marks = ""
    if brief.marks:
        marks = f" Keep these marks, words are put in their place: {' '.join(brief.marks)}"
    return f"{what} At most {brief.longest} characters, between {OPEN} and {CLOSE}.{marks}\n{OPEN}"


def _block(parts: Sequence[object]) -> str:
    return "\n\n".join(str(part) for part in parts)


def _current(brief: Brief) -> str:
    return brief.text.strip() or "(nothing yet)"


def _induce(brief: Brief) -> str:
    """From inputs and outputs to the instruction behind them (APE, Zhou et al. 2023, section 3.1)."""
    if not brief.examples:
        return ""
    pairs = [f"{each.given}\nOutput: {each.right}" for each in brief.examples]
    return _block(
        [
            "Somebody was given one instruction and followed it on these inputs.",
            *pairs,
            _wanted(brief, "Write the instruction."),
        ]
    )


def _history(brief: Brief) -> str:
    """From texts and their scores, the best last, to a better one (OPRO, Yang et al. 2024, section 4.2)."""
    if not brief.history:
        return ""
    tried = [
        f"{OPEN}{text.strip() or '(nothing)'}{CLOSE}\nscore: {100 * score:.0f}"
        for text, score in brief.history
    ]
    some = [f"{each.given}\nRight answer: {each.right}" for each in brief.examples[:2]]
    return _block(
        [
            "These texts stood in the same place of a prompt. The score says how many of 100 answers were right.",
            *tried,
            *(["The prompt asks for answers such as these.", *some] if some else []),
            _wanted(brief, "Write a text for that place that is unlike all of these and scores higher."),
        ]
    )


def _criticise(brief: Brief) -> str:
    """From mistakes to reasons: the first half of ProTeGi (Pryzant et al. 2023, section 2.1)."""
    if not brief.mistakes:
        return ""
    return _block(
        [
            f"A prompt holds this text: {_current(brief)}",
            "With it, these answers were wrong.",
            *brief.mistakes,
            "In one or two sentences: what about the text can have led to these mistakes?\nIt",
        ]
    )


def _mend(brief: Brief, reasons: str) -> str:
    """From reasons to a new text: the second half of ProTeGi."""
    return _block(
        [
            f"A prompt holds this text: {_current(brief)}",
            "With it, these answers were wrong.",
            *brief.mistakes,
            f"What is wrong with the text: It {_cut(reasons, LONGEST_REASON)}",
            _wanted(brief, "Write a better text for the same place."),
        ]
    )


def _reflect(brief: Brief) -> str:
    """From answers with feedback, good and bad ones, to a new text (GEPA, Agrawal et al. 2025, section 3)."""
    if not brief.answered:
        return ""
    return _block(
        [
            f"A prompt holds this text: {_current(brief)}",
            "This is what was answered with it, and whether that was right.",
            *brief.answered,
            _wanted(
                brief,
                "Think of what the task is and of what the answers lack. Then write a better text for the same place, "
                "one that holds for inputs like these and names none of them.",
            ),
        ]
    )


def _paraphrase(brief: Brief) -> str:
    """The same in other words (the resampling of APE, Zhou et al. 2023, section 3.3)."""
    if not brief.text.strip():
        return ""
    return _block([f"A text: {brief.text.strip()}", _wanted(brief, "Say the same in other words.")])


METHODS = {
    "induce": Method(_induce),
    "history": Method(_history),
    "critique": Method(_criticise, _mend, reads_answers=True),
    "reflect": Method(_reflect, reads_answers=True),
    "paraphrase": Method(_paraphrase),
}
