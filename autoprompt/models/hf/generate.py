"""Generation in batches, greedy or drawn."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from autoprompt.models import TextRequest
from autoprompt.models.function import cut_at_stop
from autoprompt.models.hf.contexts import evaluating, quiet
from autoprompt.models.hf.tokens import Ids, Tokens


class Generator:
    """Continues rows of ids with the likeliest token at each step, or with drawn ones where a request has a temperature.

    No penalties or other settings a model may bring along.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, tokens: Tokens) -> None:
        self._model = model
        self._tokens = tokens
        config, own = model.config, model.generation_config
        # Some checkpoints end texts with an id their tokenizer does not call its end: any of them ends.
        ends = [tokenizer.eos_token_id, config.get_text_config().eos_token_id, own.eos_token_id]
        flat = [each for end in ends for each in (end if isinstance(end, list) else [end])]
        self._ends = sorted({end for end in flat if isinstance(end, int)})
        self._two_parts = bool(config.is_encoder_decoder)
        positions = getattr(config, "max_position_embeddings", None)
        self._longest = positions - 1 if self._two_parts and isinstance(positions, int) else None

    def texts(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        requests: Sequence[TextRequest],
        *,
        contexts: Sequence[Ids] | None,
    ) -> list[str]:
        """Continue each row.

        Args:
            ids: [R, T]; padded on the left for causal models, on the right for encoders.
            mask: [R, T] attention mask.
            requests: one per row.
            contexts: the rows without padding, for causal models; None for encoder-decoder models.

        Returns:
            The new text of each row, up to its end, its first stop string or its ``max_tokens``.
        """
        given = 1 if self._two_parts else ids.shape[1]
        longest = max(request.max_tokens for request in requests)
        if self._longest is not None:
            longest = min(longest, self._longest)
        if longest < 1:
            return [""] * len(requests)
        stops = _AtStops(self, requests, contexts, given)
        drawn = any(request.temperature > 0 for request in requests)
        with quiet(), evaluating(self._model), torch.inference_mode():
            output = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=self._settings(longest),
                stopping_criteria=StoppingCriteriaList([stops]),
                logits_processor=LogitsProcessorList([_Draws(requests)] if drawn else []),
            )
        return [
            self.text(row[given:], request, context)
            for row, request, context in zip(
                output.tolist(), requests, contexts or [()] * len(requests), strict=True
            )
        ]

    def first_two(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[2, R, V] logits of the first two new tokens of each row, the first of which is its last one again.

        The second shows what was kept of the text. It is not the likeliest, which rounding could change.
        """
        settings = self._settings(2)
        settings.output_logits = settings.return_dict_in_generate = True
        with quiet(), evaluating(self._model), torch.inference_mode():
            output = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=settings,
                prefix_allowed_tokens_fn=lambda row, so_far: [int(ids[row, -1])],
            )
        return torch.stack(output.logits)

    def text(self, new: Sequence[int], request: TextRequest, context: Ids) -> str:
        """The text of one row's new ids, cut where it ends."""
        kept = list(new[: request.max_tokens])
        ends = [at for at, token in enumerate(kept) if token in self._ends]
        kept = kept[: ends[0]] if ends else kept
        text = self._tokens.continuation(context, kept) if context else self._tokens.text(kept)
        return cut_at_stop(text, request.stop)

    def _settings(self, longest: int) -> GenerationConfig:
        return GenerationConfig(
            max_new_tokens=longest,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            min_length=0,
            eos_token_id=self._ends or None,
            pad_token_id=self._ends[0] if self._ends else 0,
            use_cache=True,
        )


class _Draws(LogitsProcessor):  # type: ignore[misc]
    """Makes the likeliest token a drawn one: with Gumbel noise added to logits over temperature, the largest is a draw from
    their softmax (Gumbel 1954; Maddison et al. 2014, section 2).

    Every row has a generator of its own, seeded by its request, so that the rows beside it change nothing.
    """

    def __init__(self, requests: Sequence[TextRequest]) -> None:
        self._rows = [
            (request.temperature, _generator(request) if request.temperature > 0 else None)
            for request in requests
        ]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """[R, V] logits before and after."""
        after = scores.float().clone()
        for row, (temperature, rng) in enumerate(self._rows):
            if rng is not None:
                noise = torch.from_numpy(rng.gumbel(size=after.shape[1])).to(after)
                after[row] = after[row] / temperature + noise
        return after


def _generator(request: TextRequest) -> np.random.Generator:
    """A generator that depends on the seed and the text before the answer place."""
    before = "".join(piece.text for piece in request.rendered.before)
    digest = hashlib.sha256(json.dumps([request.seed, before]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


class _AtStops(StoppingCriteria):  # type: ignore[misc]
    """Ends a row at its first stop string or its own ``max_tokens``."""

    def __init__(
        self,
        generator: Generator,
        requests: Sequence[TextRequest],
        contexts: Sequence[Ids] | None,
        given: int,
    ) -> None:
        self._generator = generator
        self._requests = requests
        self._contexts = contexts or [()] * len(requests)
        self._given = given

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        done = []
        for row, request, context in zip(input_ids.tolist(), self._requests, self._contexts, strict=True):
            new = row[self._given :]
            done.append(len(new) >= request.max_tokens or self._stopped(new, request, context))
        return torch.tensor(done, device=input_ids.device)

    def _stopped(self, new: Sequence[int], request: TextRequest, context: Ids) -> bool:
        if not request.stop:
            return False
        endless = TextRequest(request.rendered, request.max_tokens)
        text = self._generator.text(new, endless, context)
        return any(stop in text for stop in request.stop)
