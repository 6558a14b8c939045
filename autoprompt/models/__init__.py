"""What a model must be able to do, as protocols, and ``load_model`` that makes one from what the user gave.

A model answers requests about rendered text. It knows nothing of tasks, prompts' slots, budgets or caches.
How open it is decides which protocol it meets; the check is ``isinstance``:

- ``Model``: has an identity and counts tokens.
- ``CompletingModel``: continues a text (causal, encoder-decoder, servers, plain functions).
- ``ScoringModel``: gives log-probabilities of given answers, and ranks over its vocabulary.
- ``FluentModel``: says how likely the tokens of a prompt's slots are where they stand.
- ``OpenModel``: shows its vocabulary, and gives gradients by the tokens of a prompt.
- ``TunableModel``: trains rows that stand in place of tokens.
- ``LabelSearchModel``: shows what it makes of the place where answers are read.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from autoprompt.errors import MissingCapability
from autoprompt.models.requests import (
    Failure as Failure,
)
from autoprompt.models.requests import (
    Floats as Floats,
)
from autoprompt.models.requests import (
    FluencyReply as FluencyReply,
)
from autoprompt.models.requests import (
    FluencyRequest as FluencyRequest,
)
from autoprompt.models.requests import (
    GradientReply as GradientReply,
)
from autoprompt.models.requests import (
    GradientRequest as GradientRequest,
)
from autoprompt.models.requests import (
    LabelReply as LabelReply,
)
from autoprompt.models.requests import (
    LabelRequest as LabelRequest,
)
from autoprompt.models.requests import (
    RankReply as RankReply,
)
from autoprompt.models.requests import (
    RankRequest as RankRequest,
)
from autoprompt.models.requests import (
    Reply as Reply,
)
from autoprompt.models.requests import (
    Request as Request,
)
from autoprompt.models.requests import (
    SlotFluency as SlotFluency,
)
from autoprompt.models.requests import (
    SlotGradient as SlotGradient,
)
from autoprompt.models.requests import (
    TextReply as TextReply,
)
from autoprompt.models.requests import (
    TextRequest as TextRequest,
)
from autoprompt.models.requests import (
    TuneReply as TuneReply,
)
from autoprompt.models.requests import (
    TuneRequest as TuneRequest,
)
from autoprompt.prompt import Rendered
from autoprompt.vocabulary import Vocabulary as Vocabulary

Kind = Literal["masked", "causal", "seq2seq", "text"]
"""``text``: only completes (a function, a server without log-probabilities)."""


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
class StreamingModel(Model, Protocol):
    """Works on several batches at once."""

    def stream(self, batches: Sequence[Sequence[Request]]) -> Generator[list[Reply], None, None]:
        """Yield the replies of each batch of requests of one kind, in order; leaving the generator ends the work."""
        ...


@runtime_checkable
class TellingModel(Model, Protocol):
    """Answers in one of several ways, and tells which."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the user should know about how it answers."""
        ...

    @property
    def spent(self) -> str:
        """What this object was asked so far, and what that cost, in words."""
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


@runtime_checkable
class TunableModel(OpenModel, Protocol):
    """Trains rows that stand in a prompt in place of tokens."""

    def tune(self, requests: Sequence[TuneRequest]) -> list[TuneReply | Failure]:
        """One reply a request, in order; those of equal length and like training run in one batch, each as if alone."""
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


def told(model: Model) -> tuple[str, ...]:
    """What a model has to say about its answers so far; empty for one that only has one way."""
    if not isinstance(model, TellingModel):
        return ()
    return (*model.remarks, f"this session: {model.spent}")


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
