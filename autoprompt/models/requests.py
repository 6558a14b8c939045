"""What a model is asked, and what it replies: data, about rendered text."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprompt.policy import TokenPolicy
from autoprompt.prompt import Rendered
from autoprompt.soft import SoftRows, Training

Floats = NDArray[np.float64] | NDArray[np.float32]


@dataclass(frozen=True)
class LabelRequest:
    """log P(answer | text) for each of C answers at the answer place.

    Answers are bare words or phrases without surrounding spaces; the model applies its tokenizer's
    leading-space rule: trailing spaces of the text before the answer place move to the front of the answer.

    Attributes:
        rendered: the text.
        answers: C answers.
        relative: only differences between the answers are asked for. All log-probabilities may then be off by
            one constant, so that a model need not sum over its vocabulary where no answer has a second token.
        ended: the answers are all that is said: the model's end of text belongs to them.
    """

    rendered: Rendered
    answers: tuple[str, ...]
    relative: bool = False
    ended: bool = False


@dataclass(frozen=True)
class RankRequest:
    """Where does ``target`` stand among all single-token words at the answer place?

    ``among`` restricts the ranking to these words (None: every entry of the vocabulary).
    """

    rendered: Rendered
    target: str
    among: tuple[str, ...] | None = None


@dataclass(frozen=True)
class TextRequest:
    """Continue the text, up to ``max_tokens`` new tokens or the first stop string (which is cut off).

    Attributes:
        rendered: the text.
        max_tokens: most new tokens.
        stop: strings that end the continuation.
        temperature: 0: the likeliest token at each step; else tokens are drawn from the softmax of the logits divided by
            it. A model that cannot draw answers as at 0.
        seed: of the draws, which depend on it and on the text alone.
    """

    rendered: Rendered
    max_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class FluencyRequest:
    """How likely is each token of the text's slots, given the rest of the text?

    Causal models: given all that stands before it (chain rule, so that the sum is log P(slot | text before)).
    Masked models: given all but itself (pseudo-likelihood, Salazar et al. 2020).

    Attributes:
        rendered: the text; some of its pieces bear the name of a slot.
        likely: how many of the likeliest tokens are asked for at each position.
    """

    rendered: Rendered
    likely: int = 0


Request = LabelRequest | RankRequest | TextRequest | FluencyRequest


@dataclass(frozen=True)
class GradientRequest:
    """How should the tokens of the slots change so that the right answers become likelier?

    Attributes:
        rendered: the text; some of its pieces bear the name of a slot.
        answers: C answers, as in a ``LabelRequest``.
        right: indices of the right ones; the loss is -log of their summed probability, in nats.
        among_answers: whether that probability is among the answers (as scores are compared) or among the
            whole vocabulary (AutoPrompt, Shin et al. 2020, section 2.2).
        ended: as in a ``LabelRequest``; the loss is then a token's.
    """

    rendered: Rendered
    answers: tuple[str, ...]
    right: tuple[int, ...]
    among_answers: bool = False
    ended: bool = False


@dataclass(frozen=True)
class TuneRequest:
    """Train the rows of the texts' soft slots.

    Attributes:
        texts: N texts with their answers; all hold the same rows.
        batches: S steps, each a batch of indices of texts; the loss is its mean. Empty: the reply is what training begins
            at, for which the texts are read once.
        training: how.
        done: steps made before; the schedule goes on from there.
        state: what the reply before this gave; empty: training begins at the rows.
        policies: slot to the tokens it may become, for methods that end in tokens.
    """

    texts: tuple[GradientRequest, ...]
    batches: tuple[tuple[int, ...], ...]
    training: Training
    done: int = 0
    state: bytes = b""
    policies: tuple[tuple[str, TokenPolicy], ...] = ()


@dataclass(frozen=True)
class TuneReply:
    """Rows after the last step, by slot; the tokens they stand for where the method ends in tokens; the loss of every
    step in nats, before it was made; what training goes on from; tokens read in all.
    """

    rows: Mapping[str, SoftRows]
    ids: Mapping[str, tuple[int, ...]]
    losses: tuple[float, ...]
    state: bytes
    tokens: int
    shortened: int = 0


@dataclass(frozen=True)
class SlotGradient:
    """``ids`` [L]: tokens of a slot; ``gradient`` [L, D]: of the mean loss, by their input embeddings, nats a unit."""

    ids: tuple[int, ...]
    gradient: Floats


@dataclass(frozen=True)
class GradientReply:
    """``loss``: mean over the requests, in nats; ``slots`` by name; ``tokens``: read for all requests."""

    loss: float
    slots: Mapping[str, SlotGradient]
    tokens: int
    shortened: int = 0


@dataclass(frozen=True)
class LabelReply:
    """``log_probs``: [C] nats. ``tokens``: read by the model. ``shortened``: tokens cut from the example's
    fields.
    """

    log_probs: tuple[float, ...]
    tokens: int
    shortened: int = 0


@dataclass(frozen=True)
class RankReply:
    """``log_prob`` of the target in nats, its ``rank`` (1 = first), and the ``top`` word."""

    log_prob: float
    rank: int
    top: str
    tokens: int
    shortened: int = 0


@dataclass(frozen=True)
class TextReply:
    """The completion, without the stop string. Half a character, as of an emoji that was cut off, becomes U+FFFD."""

    text: str
    tokens: int
    shortened: int = 0

    def __post_init__(self) -> None:
        """Let nothing in that no file can hold."""
        object.__setattr__(self, "text", _writable(self.text))


@dataclass(frozen=True)
class Failure:
    """No answer for this request, and why. Never a score of zero."""

    message: str

    def __post_init__(self) -> None:
        """Let nothing in that no file can hold."""
        object.__setattr__(self, "message", _writable(self.message))


def _writable(text: str) -> str:
    """The text with U+FFFD in place of each half of a surrogate pair."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclass(frozen=True)
class SlotFluency:
    """How likely a slot's tokens are.

    Attributes:
        ids: [L] its tokens, in the model's own vocabulary.
        log_probs: [L] of each, in nats.
        likely: [L][K] the likeliest tokens at each position, the likeliest first.
        likely_log_probs: [L][K] theirs, in nats.
    """

    ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    likely: tuple[tuple[int, ...], ...] = ()
    likely_log_probs: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class FluencyReply:
    """The slots by name. ``tokens``: read by the model, over all runs of the text."""

    slots: Mapping[str, SlotFluency]
    tokens: int
    shortened: int = 0

    @property
    def perplexity(self) -> float:
        """exp(- mean log-probability) over all tokens of all slots: 1 where each was certain; NaN without any."""
        values = [value for slot in self.slots.values() for value in slot.log_probs]
        if not values:
            return math.nan
        mean = -math.fsum(values) / len(values)
        return math.exp(mean) if mean < math.log(sys.float_info.max) else math.inf


Reply = LabelReply | RankReply | TextReply | FluencyReply | GradientReply | TuneReply | Failure
