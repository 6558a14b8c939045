"""Causal language models: they read on from the end of the text."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from autoprompt.errors import InputError
from autoprompt.models import Failure, Kind, LabelRequest, RankRequest, Request, TextReply, TextRequest
from autoprompt.models.hf.encoded import Encoded, common_start, share_rows
from autoprompt.models.hf.endings import Endings
from autoprompt.models.hf.generate import Generator
from autoprompt.models.hf.reader import near, sample_line
from autoprompt.models.hf.scoring import HuggingFaceModel, Parts
from autoprompt.models.hf.tokens import Ids, Place, answers_of, ranked_words
from autoprompt.models.hf.trie import shared_starts
from autoprompt.models.hf.words import WordTokens

# What a batch's first texts share with the batch before is run twice: the longer the batches, the less of it.
_TREE = 16


class CausalModel(HuggingFaceModel):
    """Scores the answer's tokens after the text, in one sequence; text after the answer place is not read."""

    kind: Kind = "causal"

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._words = WordTokens(self._tokens, mask=None)
        self._endings = Endings(self._tokens)
        self._generator = Generator(parts.model, parts.tokenizer, self._tokens)

    def complete(self, requests: Sequence[TextRequest]) -> list[TextReply | Failure]:
        """Continuations; one reply a request, in order."""
        encoded = self._encoded(requests)

        def run(batch: Sequence[int]) -> list[str]:
            texts: dict[int, str] = {}
            for part in self._alike(batch, encoded):
                rows = [encoded[index].rows[0] for index in part]
                asked = [requests[index] for index in part]
                with self._spliced([encoded[index] for index in part]) as placed:
                    ids, mask = self._padded([each.rows[0] for each in placed], left=True)
                    texts.update(
                        zip(part, self._generator.texts(ids, mask, asked, contexts=rows), strict=True)
                    )
            # The spaces that were cut off the text before the answer place are no part of the answer.
            return [texts[at].removeprefix(self._tokens.place(requests[at].rendered).gap) for at in batch]

        return self._with_memory(lambda: self._completed(requests, run))

    def _alike(self, batch: Sequence[int], encoded: Sequence[Encoded]) -> list[list[int]]:
        """A batch in parts that may be filled up to one length; mostly one."""
        parts: dict[int, list[int]] = {}
        for index in batch:
            each = encoded[index]
            alone = not self._fills_left or each.length > self._reader.alike
            parts.setdefault(len(each.rows[0]) if alone else 0, []).append(index)
        return list(parts.values())

    @functools.cached_property
    def _fills_left(self) -> bool:
        """Whether rows may be filled up on the left: not where a family reads what fills them (RecurrentGemma, MiniMax)."""
        _, row = sample_line(self._encode, self._tokens)
        rows = [row, row[: len(row) // 2]]
        together = self._generator.first_two(*self._padded(rows, left=True))
        alone = [self._generator.first_two(*self._padded([each], left=True)) for each in rows]
        return near(together, torch.cat(alone, dim=1), 10 * self._reader.close)

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        """Requests in the order of their ids, so that those of a batch begin alike; ``_TREE`` times
        ``batch_tokens`` distinct tokens each, which are run ``batch_tokens`` at a time.
        """
        if any(isinstance(request, TextRequest) for request in requests):
            return super().batches(requests)
        encoded = self._encoded(requests)
        order = sorted(range(len(encoded)), key=lambda index: (encoded[index].rows[0], index))
        starts = shared_starts([encoded[index].rows[0] for index in order])
        batches: list[list[int]] = []
        tokens = 0
        for index, start in zip(order, starts.tolist(), strict=True):
            new = sum(map(len, encoded[index].rows))
            tokens += new - start
            if not batches or tokens > _TREE * self._bound:
                batches.append([])
                tokens = new
            batches[-1].append(index)
        return batches

    def _encode(self, requests: Sequence[Request]) -> list[Encoded]:
        places = [self._tokens.place(request.rendered) for request in requests]
        texts = list(dict.fromkeys(place.before for place in places))
        contexts = dict(zip(texts, self._tokens.open_ended(texts), strict=True))
        words = [answers_of(request) for request in requests]
        wholes = self._endings.wholes(
            [
                (place, contexts[place.before], word)
                for place, each in zip(places, words, strict=True)
                for word in each
            ]
        )
        taken = iter(wholes)
        return [
            self._built(request, place, contexts[place.before], [next(taken) for _ in each])
            for request, place, each in zip(requests, places, words, strict=True)
        ]

    def _built(self, request: Request, place: Place, context: Ids, wholes: Sequence[Ids]) -> Encoded:
        if isinstance(request, TextRequest):
            row = context or (self._first(),)
            return Encoded((row,), (), len(row) + request.max_tokens)
        answers = answers_of(request)
        start = common_start(context, wholes)
        if not start:  # nothing to read on from: the text is empty, or its first token merges with an answer
            wholes = [(self._first(), *whole) for whole in wholes]
            start = 1
        for answer, whole in zip(answers, wholes, strict=True):
            problem = self._problem(request, place, answer, whole[start:])
            if problem:
                return Encoded(((self._first(),),), (), 1, problem=problem)
        if isinstance(request, LabelRequest) and request.ended:
            wholes = [(*whole, self._end()) for whole in wholes]
        rows, reads = share_rows(wholes, start)
        return Encoded(rows, reads, max(map(len, rows), default=0), among=self._among(request, place))

    def _problem(self, request: Request, place: Place, answer: str, span: Ids) -> str:
        """Why an answer cannot be scored, or ranked; empty if it can."""
        if not span or not answer.strip():
            return f"label word {answer!r}: holds nothing to score"
        if self._parts.tokenizer.unk_token_id in span:
            return f"label word {answer!r}: the tokenizer of {self.name!r} has no token to spell it with"
        if isinstance(request, RankRequest) and len(span) > 1:
            pieces = self._parts.tokenizer.convert_ids_to_tokens(list(span))
            other = ", ".join(self._words.alternatives(place, answer)) or "none near it"
            return (
                f"target {answer!r}: only single tokens can be ranked, and {self.name!r} splits it into "
                f"{' '.join(pieces)}; single tokens: {other}"
            )
        return ""

    def _among(self, request: Request, place: Place) -> tuple[tuple[str, int], ...] | None:
        words = ranked_words(request)
        if words is None:
            return None
        ids = self._words.ids(place, words)
        return tuple((word, token) for word, token in zip(words, ids, strict=True) if token is not None)

    def _end(self) -> int:
        """The id that ends a text."""
        for candidate in (
            self._parts.tokenizer.eos_token_id,
            self._model.config.get_text_config().eos_token_id,
        ):
            if isinstance(candidate, int):
                return candidate
        raise InputError(
            f"model {self.name!r}: neither tokenizer nor configuration names a token that ends a text"
        )

    def _first(self) -> int:
        """The id a text starts from where it has no token to start from."""
        tokenizer, config = self._parts.tokenizer, self._model.config.get_text_config()
        for candidate in (tokenizer.bos_token_id, tokenizer.eos_token_id, config.bos_token_id):
            if isinstance(candidate, int):
                return candidate
        raise InputError(
            f"model {self.name!r}: the text before the answer place is empty, and the tokenizer has no "
            "beginning-of-text token to start from",
            hint="put some text before {{ answer }}",
        )

    def _forward(self, sources: Sequence[Ids], rows: Sequence[Ids]) -> torch.Tensor:
        ids, mask = self._padded(rows)
        output = self._model(input_ids=ids, attention_mask=mask, use_cache=False, return_dict=True)
        return output.logits  # type: ignore[no-any-return]
