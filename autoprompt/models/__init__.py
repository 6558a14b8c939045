"""What a model must be able to do, as protocols, and ``load_model`` that makes one from what the user gave.

A model answers requests about rendered text. It knows nothing of tasks, prompts' slots, budgets or caches.
How open it is decides which protocol it meets; the check is ``isinstance``:

- ``Model``: has an identity and counts tokens.
- ``CompletingModel``: continues a text (causal, encoder-decoder, servers, plain functions).
- ``ScoringModel``: gives log-probabilities of given answers, and ranks over its vocabulary.
- ``FluentModel``: says how likely the tokens of a prompt's slots are where they stand.
- ``OpenModel``: shows its vocabulary, and gives gradients by the tokens of a prompt.
- ``LabelSearchModel``: shows what it makes of the place where answers are read.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from autoprompt.errors import MissingCapability
from autoprompt.prompt import Rendered
from autoprompt.vocabulary import Vocabulary as Vocabulary

Kind = Literal["masked", "causal", "seq2seq", "text"]
"""``text``: only completes (a function, a server without log-probabilities)."""
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
    """

    rendered: Rendered
    answers: tuple[str, ...]
    relative: bool = False


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
    """Continue the text greedily, up to ``max_tokens`` new tokens or the first stop string (which is cut
    off).
    """

    rendered: Rendered
    max_tokens: int
    stop: tuple[str, ...] = ()


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
    """

    rendered: Rendered
    answers: tuple[str, ...]
    right: tuple[int, ...]
    among_answers: bool = False


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
    """The completion, without the stop string."""

    text: str
    tokens: int
    shortened: int = 0


@dataclass(frozen=True)
class Failure:
    """No answer for this request, and why. Never a score of zero."""

    message: str


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


Reply = LabelReply | RankReply | TextReply | FluencyReply | GradientReply | Failure


@runtime_checkable
class Model(Protocol):
    """Identity and cost."""

    @property
    def name(self) -> str:
        """As the user knows it."""
        ...

    @property
    def kind(self) -> Kind:
        """How it reads."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of what it is (weights or revision, tokenizer, dtype, chat template, settings), never of a
        path.
        """
        ...

    @property
    def deterministic(self) -> bool:
        """Whether asking twice gives the same answer."""
        ...

    @property
    def max_length(self) -> int | None:
        """Tokens that fit; None where unbounded."""
        ...

    def count_tokens(self, requests: Sequence[Request]) -> list[int]:
        """Tokens the model will read for each request, after shortening, padding not counted."""
        ...

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        """Split the requests (given by index) into batches to run one after another: sorted by length, sized
        by tokens. Depends on nothing but the requests and the model's settings.
        """
        ...


@runtime_checkable
class RevisedModel(Model, Protocol):
    """Comes from a hub that keeps revisions."""

    @property
    def revision(self) -> str:
        """The commit of its weights; empty where there is none."""
        ...


@runtime_checkable
class CompletingModel(Model, Protocol):
    """Continues a text."""

    def complete(self, requests: Sequence[TextRequest]) -> list[TextReply | Failure]:
        """One reply a request, in order."""
        ...


@runtime_checkable
class ScoringModel(Model, Protocol):
    """Gives log-probabilities."""

    def logprobs(self, requests: Sequence[LabelRequest]) -> list[LabelReply | Failure]:
        """One reply a request, in order."""
        ...

    def ranks(self, requests: Sequence[RankRequest]) -> list[RankReply | Failure]:
        """One reply a request, in order."""
        ...

    def check_answers(
        self, rendered: Rendered, answers: Sequence[str], *, single_token: bool = False
    ) -> None:
        """Raise LabelWordError for the first answer that cannot be scored at this answer place (a masked
        model scores single tokens; ``single_token``: so does every model that is to rank it), naming
        single-token alternatives.
        """
        ...


@runtime_checkable
class FluentModel(Model, Protocol):
    """Says how likely the tokens of a prompt's slots are where they stand."""

    def fluency(self, requests: Sequence[FluencyRequest]) -> list[FluencyReply | Failure]:
        """One reply a request, in order; a slot that is not a whole number of tokens is a Failure."""
        ...


@runtime_checkable
class OpenModel(ScoringModel, Protocol):
    """Shows its vocabulary, and gives gradients by the tokens of a prompt."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Its tokens."""
        ...

    def gradients(self, requests: Sequence[GradientRequest]) -> GradientReply:
        """Gradient of the mean loss over the requests, which must all hold the same slots with the same tokens.

        Raises:
            TemplateError: a slot's text is not a whole number of tokens where it stands, or its tokens differ
                between the requests.
            LabelWordError: an answer cannot be scored.
        """
        ...

    def first_order(self, gradient: Floats, *, block: int = 8192) -> NDArray[np.float32]:
        """[L, V] estimated change of the loss, in nats, when each token of a slot is replaced by each of the
        vocabulary: (e_new - e_old) . gradient up to a constant a row, which is left out (HotFlip, Ebrahimi et
        al. 2018, eq. 4; AutoPrompt eq. 2). ``block``: rows of the vocabulary at a time.
        """
        ...


class AnswerPlace(Protocol):
    """The place where a model's answers are read."""

    def words(self, rendered: Sequence[Rendered], matching: str) -> Mapping[str, int]:
        """Word to id: those that are a single token at the answer place of these texts, and match in full."""
        ...

    def states(self, rendered: Sequence[Rendered]) -> Floats:
        """[N, D] what the output layer reads there; NaN for a text without an answer place."""
        ...

    def log_probs(self, rendered: Sequence[Rendered], groups: Sequence[int]) -> Floats:
        """[G, V] mean log P(token | text) there over the texts of each group ([N], from 0), in nats."""
        ...

    def scores(self, directions: Floats) -> Floats:
        """[C, V] directions [C, D] of states times the rows of the output layer."""
        ...


@runtime_checkable
class LabelSearchModel(ScoringModel, Protocol):
    """Shows what it makes of the place where answers are read, so that label words can be looked for."""

    @property
    def answer_place(self) -> AnswerPlace:
        """That place."""
        ...


def answer(model: Model, requests: Sequence[Request]) -> list[Reply]:
    """Answer requests of one kind with the model's matching method.

    Raises:
        MissingCapability: the model cannot answer requests of this kind.
    """
    if not requests:
        return []
    first = requests[0]
    if isinstance(first, FluencyRequest):
        if not isinstance(model, FluentModel):
            raise MissingCapability(
                f"model {model.name!r} ({model.kind}) does not say how likely a text is",
                hint="let a causal model judge, such as bundled:causal",
            )
        return list(model.fluency([item for item in requests if isinstance(item, FluencyRequest)]))
    if isinstance(first, TextRequest):
        if not isinstance(model, CompletingModel):
            raise MissingCapability(
                f"model {model.name!r} ({model.kind}) cannot continue a text",
                hint="use a causal or encoder-decoder model, or a task with label words",
            )
        return list(model.complete([item for item in requests if isinstance(item, TextRequest)]))
    if not isinstance(model, ScoringModel):
        raise MissingCapability(
            f"model {model.name!r} ({model.kind}) gives no log-probabilities",
            hint="use a Hugging Face model, or let it answer in text",
        )
    if isinstance(first, LabelRequest):
        return list(model.logprobs([item for item in requests if isinstance(item, LabelRequest)]))
    return list(model.ranks([item for item in requests if isinstance(item, RankRequest)]))
