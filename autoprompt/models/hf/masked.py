"""Masked language models: they read the whole text, and the mask stands at the answer place."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autoprompt.errors import InputError, MissingCapability
from autoprompt.models import Kind, Request, TextRequest
from autoprompt.models.hf.encoded import Encoded, Read
from autoprompt.models.hf.scoring import HuggingFaceModel, Parts
from autoprompt.models.hf.tokens import Ids, Place, answers_of, ranked_words
from autoprompt.models.hf.words import WordTokens


class MaskedModel(HuggingFaceModel):
    """Scores single tokens at the mask. It does not continue texts, so it is no ``CompletingModel``."""

    kind: Kind = "masked"

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        mask, mask_id = parts.tokenizer.mask_token, parts.tokenizer.mask_token_id
        if not isinstance(mask, str) or not isinstance(mask_id, int):
            raise InputError(f"model {self.name!r}: a masked model, but its tokenizer has no mask token")
        self._mask, self._mask_id = mask, mask_id
        self._words = WordTokens(self._tokens, mask=mask)

    def _encode(self, requests: Sequence[Request]) -> list[Encoded]:
        for request in requests:
            if isinstance(request, TextRequest):
                raise MissingCapability(
                    f"model {self.name!r}: a masked model does not continue texts",
                    hint="use a causal or encoder-decoder model for tasks that generate",
                )
        places = [self._tokens.place(request.rendered) for request in requests]
        texts = [place.before + place.gap + self._mask + place.after for place in places]
        wholes = self._tokens.whole(texts)
        return [
            self._built(request, place, whole)
            for request, place, whole in zip(requests, places, wholes, strict=True)
        ]

    def _built(self, request: Request, place: Place, whole: Ids) -> Encoded:
        length = len(whole)
        masks = [at for at, token in enumerate(whole) if token == self._mask_id]
        earlier = place.before.count(self._mask)  # data may spell the mask out; ours is the one after those
        if earlier >= len(masks):
            return Encoded((whole,), (), length, problem="the tokenizer lost the mask at the answer place")
        answers = answers_of(request)
        reads = []
        for answer, token in zip(answers, self._words.ids(place, answers), strict=True):
            if token is None or not answer.strip():
                return Encoded((whole,), (), length, problem=self._problem(place, answer))
            reads.append(Read(0, masks[earlier], (token,)))
        words = ranked_words(request)
        among = None
        if words is not None:
            ids = self._words.ids(place, words)
            among = tuple((word, token) for word, token in zip(words, ids, strict=True) if token is not None)
        return Encoded((whole,), tuple(reads), length, among=among)

    def _problem(self, place: Place, answer: str) -> str:
        if not answer.strip():
            return f"label word {answer!r}: holds nothing to score"
        pieces = self._words.pieces(place, answer)
        other = self._words.alternatives(place, answer)
        return (
            f"label word {answer!r}: a masked model scores single tokens, and {self.name!r} reads it as "
            f"{' '.join(pieces)} here; single tokens near it: {', '.join(other) or 'none'}"
        )

    def _forward(self, sources: Sequence[Ids], rows: Sequence[Ids]) -> torch.Tensor:
        ids, mask = self._padded(rows)
        return self._model(input_ids=ids, attention_mask=mask, return_dict=True).logits  # type: ignore[no-any-return]
