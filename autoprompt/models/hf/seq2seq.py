"""Encoder-decoder models.

The encoder reads the text before the answer place, the decoder writes the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autoprompt.errors import InputError
from autoprompt.models import Failure, Kind, LabelRequest, RankRequest, Request, TextReply, TextRequest
from autoprompt.models.hf.encoded import Encoded, share_rows
from autoprompt.models.hf.generate import Generator
from autoprompt.models.hf.scoring import HuggingFaceModel, Parts
from autoprompt.models.hf.side_by_side import decoder_logits, encoder_states
from autoprompt.models.hf.tokens import Ids, answers_of, ranked_words


class Seq2SeqModel(HuggingFaceModel):
    """Scores answers as what the decoder writes.

    An answer is a text of its own: no leading space is added to it.
    """

    kind: Kind = "seq2seq"

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._generator = Generator(parts.model, parts.tokenizer, self._tokens)
        config = self._model.config
        start = config.decoder_start_token_id
        if start is None:
            start = self._model.generation_config.decoder_start_token_id
        if not isinstance(start, int):
            raise InputError(
                f"model {self.name!r}: its configuration has no decoder_start_token_id",
                hint="set it in config.json",
            )
        self._start = start

    def complete(self, requests: Sequence[TextRequest]) -> list[TextReply | Failure]:
        """Answers of the decoder; one reply a request, in order."""
        encoded = self._encoded(requests)

        def run(batch: Sequence[int]) -> list[str]:
            with self._spliced([encoded[index] for index in batch]) as placed:
                ids, mask = self._padded([each.source for each in placed])
                return self._generator.texts(ids, mask, [requests[index] for index in batch], contexts=None)

        return self._with_memory(lambda: self._completed(requests, run))

    def _encode(self, requests: Sequence[Request]) -> list[Encoded]:
        befores = [self._tokens.place(request.rendered).before for request in requests]
        sources = self._tokens.whole(befores)
        words = [(*answers_of(request), *(ranked_words(request) or ())) for request in requests]
        flat = list(dict.fromkeys(word for each in words for word in each))
        targets = dict(zip(flat, self._tokens.targets(flat), strict=True))
        return [
            self._built(request, source, targets) for request, source in zip(requests, sources, strict=True)
        ]

    def _built(self, request: Request, source: Ids, targets: dict[str, Ids]) -> Encoded:
        if not source:
            return Encoded(((self._start,),), (), 1, problem="the text before the answer place is empty")
        if isinstance(request, TextRequest):
            return Encoded((), (), len(source), source=source)
        # Given: [decoder start] + [special tokens the tokenizer puts first]; scored: the answer after them.
        start = 1 + self._tokens.target_lead
        answers = answers_of(request)
        for answer in answers:
            problem = self._problem(request, answer, targets[answer][start - 1 :])
            if problem:
                return Encoded(((self._start,),), (), len(source), source=source, problem=problem)
        end: Ids = ()
        if isinstance(request, LabelRequest) and request.ended:
            end = (int(self._parts.tokenizer.eos_token_id or self._model.config.eos_token_id),)
        rows, reads = share_rows([(self._start, *targets[answer], *end) for answer in answers], start)
        words = ranked_words(request)
        among = None
        if words is not None:
            among = tuple((word, targets[word][-1]) for word in words if len(targets[word]) == start)
        return Encoded(rows, reads, len(source), source=source, among=among)

    def _problem(self, request: Request, answer: str, span: Ids) -> str:
        if not span or not answer.strip():
            return f"label word {answer!r}: holds nothing to score"
        if self._parts.tokenizer.unk_token_id in span:
            return f"label word {answer!r}: the tokenizer of {self.name!r} has no token to spell it with"
        if isinstance(request, RankRequest) and len(span) > 1:
            pieces = self._parts.tokenizer.convert_ids_to_tokens(list(span))
            return (
                f"target {answer!r}: only single tokens can be ranked, and {self.name!r} splits it into "
                f"{' '.join(pieces)}"
            )
        return ""

    def _forward(self, sources: Sequence[Ids], rows: Sequence[Ids]) -> torch.Tensor:
        distinct = list(dict.fromkeys(sources))  # each text is read once, however many answers it has
        number = {source: at for at, source in enumerate(distinct)}
        texts = self._padded(distinct)
        states = encoder_states(self._model, texts)
        source_of = [number[source] for source in sources]
        return decoder_logits(self._model, states, texts[1], source_of, self._padded(rows))
