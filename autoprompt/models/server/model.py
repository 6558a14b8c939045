"""A server's model: it completes, and it scores answers where the server tells log-probabilities.

What is sent: the text before the answer place without its trailing spaces, which move to the front of the answer, as for
every model that reads on; in chat it is the user's message, cue and all, and the answer begins a message of its own.
Decoding is greedy (temperature 0, seed 0) where the server takes these fields.

A question whose answer cannot be used is a ``Failure``; a server that stops working is a ``ServerError``, so that the run
ends at once, keeps what was answered, and goes on from there.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from autoprompt.errors import LabelWordError, MissingCapability, ServerError
from autoprompt.models import (
    Failure,
    Kind,
    LabelReply,
    LabelRequest,
    RankReply,
    RankRequest,
    Reply,
    Request,
    TextReply,
    TextRequest,
)
from autoprompt.models.function import cut_at_stop
from autoprompt.models.server import answers
from autoprompt.models.server.dialect import Dialect
from autoprompt.models.server.first import first_token_scores
from autoprompt.models.server.names import ServerSpec, parse_server
from autoprompt.models.server.probing import Found, probe
from autoprompt.models.server.spelling import answer_start, common_start
from autoprompt.models.server.wire import Garbled, Gone, Refused, Unreachable, Wire
from autoprompt.prompt import Rendered

_PIECE = re.compile(r"\w+|[^\w\s]")
_LETTERS = 6  # bytes a token of a word, about; a word has one token at least
_PROMPTS = 32  # in one request
_USELESS = (401, 402, 403, 404, 405)
_Reply = TypeVar("_Reply", bound="LabelReply | RankReply | TextReply")


class ServerModel:
    """Completes only: for tasks with free text, and where a server tells no log-probabilities.

    Attributes:
        name: the spec as the user gave it.
        kind: ``text``, or ``causal`` where it scores answers too.
        deterministic: the user's word for it; servers batch what comes, so that digits depend on the company.
        max_length: None; what is too long is refused by the server, and missing.
        reading: how answers are read, in words.
        remarks: that, and what else the user should know about this server.
        read, written: tokens the server says it has read and written for this object.
    """

    kind: Kind = "text"
    max_length: None = None
    reading = "label words are looked for in what the server writes"

    def __init__(self, spec: ServerSpec, wire: Wire, found: Found) -> None:
        self.name = spec.text
        self.deterministic = spec.settings.deterministic
        self.remarks = (self.reading, *found.remarks)
        self.read = self.written = 0
        self._spec = spec
        self._wire = wire
        self._dialect = found.dialect
        self._root = found.root
        self._lock = threading.Lock()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the model's name, what the server says it is made of, the server's host, port and path (or the
        ``identity`` that stands for it), and how it is asked. Never of the key.
        """
        dialect = self._dialect
        content = [
            "openai",
            self._spec.name,
            self._root,
            self._spec.settings.identity or self._spec.place,
            self.reading,
            dialect.chat,
            dict(dialect.extras),
            dialect.top if self.kind == "causal" and not dialect.whole else 0,
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]

    @property
    def spent(self) -> str:
        """What this object has asked for so far, in words, with the money where prices were given."""
        settings = self._spec.settings
        parts = [
            f"{self._wire.sent:,} requests ({self._wire.repeated:,} of them repetitions)",
            f"{self.read:,} tokens read, {self.written:,} written",
        ]
        if settings.price_in or settings.price_out:
            money = (self.read * settings.price_in + self.written * settings.price_out) / 1e6
            parts.append(f"{money:,.4f} at the prices given")
        return ", ".join(parts)

    def count_tokens(self, requests: Sequence[Request]) -> list[int]:
        """An estimate, since no tokenizer is here: a token for every word or mark, one more for every six bytes of a
        longer word. Replies carry the server's own count where it gives one.
        """
        return [self._count(request) for request in requests]

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        """One request a batch, in order, so that each answer is kept as it comes; ``stream`` asks for many at once."""
        return [[index] for index in range(len(requests))]

    def stream(self, batches: Sequence[Sequence[Request]]) -> Generator[list[Reply], None, None]:
        """Yield the replies of each batch, in order, with ``concurrency`` requests under way across batches.

        Raises:
            ServerError: the server has stopped working.
            MissingCapability: it cannot answer requests of this kind.
        """
        requests = [request for batch in batches for request in batch]
        with contextlib.closing(self._answered(requests, self._work(requests))) as replies:
            for batch in batches:
                yield list(itertools.islice(replies, len(batch)))

    def complete(self, requests: Sequence[TextRequest]) -> list[TextReply | Failure]:
        """Greedy continuations, or answers in chat; one reply a request, in order."""
        return list(self._answered(requests, self._text))

    def _text(self, request: TextRequest) -> TextReply:
        before, gap = place(request.rendered)
        if request.max_tokens < 1:
            return TextReply("", self._count(request))
        asked = self._dialect.text(
            before, request.max_tokens, request.stop, request.temperature, request.seed
        )
        found, read = self._ask(asked)
        text = answers.text_of(answers.choices(found)[0], chat=self._dialect.chat)
        cut = cut_at_stop(text, request.stop)
        return TextReply(cut if self._dialect.chat else cut.removeprefix(gap), read or self._count(request))

    def _count(self, request: Request) -> int:
        return max(1, estimated(place(request.rendered)[0]))

    def _ask(self, body: dict[str, object]) -> tuple[dict[str, Any], int | None]:
        """What the server answers, and how many tokens it says it has read; books them."""
        found = self._wire.post(self._dialect.path, body)
        used = answers.used(found)
        with self._lock:
            self.read += used.read or 0
            self.written += used.written or 0
        return found, used.read

    def _work(self, requests: Sequence[Request]) -> Callable[[Any], LabelReply | RankReply | TextReply]:
        """What answers requests of their kind."""
        if not all(isinstance(request, TextRequest) for request in requests):
            raise MissingCapability(f"model {self.name!r} ({self.kind}) gives no log-probabilities")
        return self._text

    def _answered(
        self, requests: Sequence[Request], work: Callable[[Any], _Reply]
    ) -> Generator[_Reply | Failure, None, None]:
        """Answer many requests at once; replies in order.

        Raises:
            ServerError: the server has stopped working.
        """

        def job(request: Request) -> _Reply | Failure:
            try:
                return work(request)
            except Refused as error:
                if error.status in _USELESS:
                    raise Gone(f"refuses to go on: {error}") from None
                return Failure(f"the server refuses the question: {error}")
            except (Garbled, Unreachable) as error:
                return Failure(str(error))

        try:
            yield from self._wire.in_order([functools.partial(job, request) for request in requests])
        except Gone as error:
            raise ServerError(
                f"model {self.name!r}: the server at {self._spec.url} {error}",
                hint="start it again, then repeat the same call on the same run folder (`autoprompt resume RUN_DIR`): "
                "what was answered is kept, and the result is the same as without the break",
            ) from None


class ScoringServer(ServerModel, ABC):
    """Gives log-probabilities of answers as well."""

    kind: Kind = "causal"

    def logprobs(self, requests: Sequence[LabelRequest]) -> list[LabelReply | Failure]:
        """Log-probabilities of the answers, in nats; one reply a request, in order."""
        return list(self._answered(requests, self._label))

    def ranks(self, requests: Sequence[RankRequest]) -> list[RankReply | Failure]:
        """Rank of each target among the words that are asked for; a whole vocabulary is not ranked by servers."""
        return list(self._answered(requests, self._rank))

    def check_answers(
        self, rendered: Rendered, answers: Sequence[str], *, single_token: bool = False
    ) -> None:
        """Raise LabelWordError for an answer that holds nothing; offline, so that tokens are not looked at."""
        for answer in answers:
            if not answer.strip():
                raise LabelWordError(f"label word {answer!r}: holds nothing to score")

    def _work(self, requests: Sequence[Request]) -> Callable[[Any], LabelReply | RankReply | TextReply]:
        if requests and isinstance(requests[0], LabelRequest):
            return self._label
        return self._rank if requests and isinstance(requests[0], RankRequest) else super()._work(requests)

    @abstractmethod
    def _scores(self, before: str, gap: str, words: Sequence[str]) -> tuple[tuple[float, ...], int | None]:
        """[C] log P of each answer after the text, in nats, and the tokens read for them."""

    def _label(self, request: LabelRequest) -> LabelReply:
        if request.ended:
            raise Garbled("a server does not say how likely a text ends")
        scores, read = self._scores(*place(request.rendered), request.answers)
        return LabelReply(scores, read or self._count(request))

    def _rank(self, request: RankRequest) -> RankReply:
        words = request.among
        if words is None or request.target not in words:
            raise Garbled(
                f"a server ranks {request.target!r} only among words that it is given, itself with them"
            )
        scores, read = self._scores(*place(request.rendered), words)
        value = dict(zip(words, scores, strict=True))
        rank = 1 + sum(each > value[request.target] for each in value.values())
        top = min(value, key=lambda word: (-value[word], word))
        return RankReply(value[request.target], rank, top, read or self._count(request))


class WholeAnswers(ScoringServer):
    """Scores all tokens of each answer: the server tells log-probabilities of texts that it is sent."""

    reading = "answers are scored by the log-probabilities that the server gives for texts it is sent"

    def _scores(self, before: str, gap: str, words: Sequence[str]) -> tuple[tuple[float, ...], int | None]:
        """Sum of log P(token | all before) over each answer's tokens, from where the first of them begins."""
        dialect = self._dialect
        gap = "" if dialect.chat else gap
        distinct = list(dict.fromkeys(gap + word for word in words))
        size = _PROMPTS if dialect.several else 1
        parts = [distinct[at : at + size] for at in range(0, len(distinct), size)]
        read: int | None = 0
        wholes: list[answers.Spelled] = []
        for part in parts:
            found, tokens = self._ask(dialect.wholes(before, part))
            wholes += dialect.read_wholes(found, before, part)
            read = None if read is None or tokens is None else read + tokens
        tokens_of = [whole.tokens for whole in wholes]
        starts = [
            answer_start(each, before, ending) for each, ending in zip(tokens_of, distinct, strict=True)
        ]
        start = common_start(tokens_of, starts)
        if start < 1:
            raise Garbled(
                "there is no token before the answer, and of the first one no server tells how likely it is"
            )
        score = {
            ending: answers.total(whole, start, len(whole.tokens))
            for ending, whole in zip(distinct, wholes, strict=True)
        }
        return tuple(score[gap + word] for word in words), read

    def _count(self, request: Request) -> int:
        """Each answer is a text of its own."""
        text = super()._count(request)
        if isinstance(request, TextRequest):
            return text
        words = request.answers if isinstance(request, LabelRequest) else None
        words = request.among or () if isinstance(request, RankRequest) else words
        return sum(text + estimated(word) for word in words or ("",))


class FirstTokens(ScoringServer):
    """Scores answers by their first tokens: the server names the likeliest ones only (see ``first``)."""

    reading = "answers are scored by the likeliest first tokens, which are all that the server tells"

    def _scores(self, before: str, gap: str, words: Sequence[str]) -> tuple[tuple[float, ...], int | None]:
        dialect = self._dialect
        found, read = self._ask(dialect.first(before))
        likeliest = answers.likeliest(answers.choices(found)[0], dialect.top)
        return first_token_scores(likeliest, words, gap, chat=dialect.chat), read


def load_server(spec: str) -> ServerModel:
    """Find out what the server can do, and make the model that does it.

    Raises:
        InputError: the spec is wrong, or there is no key where one is needed.
        ServerError: the server is not there, refuses the key or has no such model.
        MissingCapability: it cannot read labels in the way the options demand.
    """
    parsed = parse_server(spec)
    wire = Wire(parsed, parsed.key())
    found = probe(parsed, wire)
    return _class_for(found.dialect)(parsed, wire, found)


def place(rendered: Rendered) -> tuple[str, str]:
    """The text before the answer place without its trailing spaces, and those spaces."""
    text = "".join(piece.text for piece in rendered.before)
    before = text.rstrip(" ")
    return before, text[len(before) :]


def estimated(text: str) -> int:
    """About how many tokens a text has."""
    return sum(1 + (len(piece.encode()) - 1) // _LETTERS for piece in _PIECE.findall(text))


def _class_for(dialect: Dialect) -> type[ServerModel]:
    if dialect.whole:
        return WholeAnswers
    return FirstTokens if dialect.top else ServerModel
