"""The tokens a model reads, and which of them may stand in a prompt."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from autoprompt.errors import InputError, UnknownName, nearest
from autoprompt.models.hf.input_table import InputTable
from autoprompt.models.hf.projection import ANGLES, nearness
from autoprompt.models.hf.round_trip import RoundTrip
from autoprompt.models.hf.slots import SlotFinder
from autoprompt.models.hf.token_kinds import Leaks, beginning_with, is_ascii, is_single_letter
from autoprompt.models.hf.tokens import Ids, Tokens
from autoprompt.policy import Preset, TokenPolicy, scripts_of
from autoprompt.prompt import Rendered
from autoprompt.vocabulary import Metric

Mask = NDArray[np.bool_]
_KEPT = 64  # policies whose masks are remembered


class HuggingFaceVocabulary:
    """The V rows of a model's input embeddings as tokens; see ``autoprompt.models.Vocabulary``.

    Args:
        tokens: the tokenizer.
        finder: finds slots in the text the model reads.
        table: the model's input embeddings.
        name: the model's name, for errors.
    """

    def __init__(self, tokens: Tokens, finder: SlotFinder, table: InputTable, *, name: str) -> None:
        self._tokens = tokens
        self._finder = finder
        self._table = table
        self._name = name
        self._masks: dict[TokenPolicy, Mask] = {}

    @functools.cached_property
    def _round_trip(self) -> RoundTrip:
        self._finder.require_offsets()
        return RoundTrip(self._tokens)

    @property
    def size(self) -> int:
        """V."""
        return len(self._table.weight)

    def allowed(self, policy: TokenPolicy) -> Mask:
        """[V] which tokens may stand in a slot; read-only.

        Never special, added, reserved and control tokens, parts of a character, white space alone, and tokens that
        no text is cut into.

        Raises:
            MissingCapability: the tokenizer does not say which characters a token covers.
            InputError: ``matching`` is no regular expression, a word to ban is empty, or no token is left.
        """
        if policy not in self._masks:
            if len(self._masks) >= _KEPT:
                self._masks.clear()
            mask = self._judged(policy)
            mask.setflags(write=False)
            self._masks[policy] = mask
        return self._masks[policy]

    def text(self, ids: Sequence[int]) -> str:
        """The text of a slot that holds these tokens, without white space at its ends."""
        return self._round_trip.decoded([tuple(ids)])[0].strip()

    def read(self, rendered: Sequence[Rendered]) -> list[Mapping[str, Ids] | None]:
        """The tokens of every slot of every text; None where a slot is not a whole number of tokens.

        Raises:
            MissingCapability: the tokenizer does not say which characters a token covers.
            TemplateError: a text has no slot, one that the model does not read or that stands twice.
        """
        return [
            None if found is None else {name: slot.ids for name, slot in found.slots.items()}
            for found in self._finder.find_whole(rendered)
        ]

    def distances(self, ids: Sequence[int], *, block: int = 8192) -> NDArray[np.float32]:
        """[L, V] in float32: Euclidean distances between rows of the table, ``block`` rows at a time."""
        weight = self._table.weight
        out = np.empty((len(ids), len(weight)), np.float32)
        with torch.inference_mode():
            rows = weight[torch.tensor(list(ids), dtype=torch.long, device=weight.device)].float()
            for start in range(0, len(weight), block):
                some = weight[start : start + block].float()
                # from the differences: by way of a product small distances would be lost in rounding
                apart = torch.cdist(rows, some, compute_mode="donot_use_mm_for_euclid_dist")
                out[:, start : start + block] = apart.cpu().numpy()
        return out

    def rows(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """[L, D] what the model reads for these tokens: their rows, as its embedding module gives them."""
        return self._table.embedded(ids).cpu().numpy()

    @functools.cached_property
    def unit(self) -> float:
        """r, the root mean square of the embeddings as they are read."""
        return self._table.unit

    def nearest(
        self, rows: NDArray[np.float32], allowed: Mask, count: int = 1, metric: Metric = "cosine"
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The tokens nearest to rows [L, D]: ids and values [L, K]; see ``autoprompt.vocabulary.Vocabulary``.

        Raises:
            InputError: no such metric, or no token is allowed.
        """
        ids = np.flatnonzero(allowed)
        if not len(ids):
            raise InputError("nearest: no token is allowed")
        with torch.inference_mode():
            table = self._table.embedded(ids.tolist()).cpu()
            near = nearness(torch.from_numpy(np.array(rows, np.float32)), table, metric)
            values, places = torch.topk(near, min(count, len(ids)), dim=-1)
        signed = values if metric in ANGLES else -values
        return ids[places.numpy()], signed.numpy()

    def _judged(self, policy: TokenPolicy) -> Mask:
        """[V] which tokens the policy lets through."""
        texts = self._round_trip.candidates
        ids: Iterable[int] = self._preset(policy.preset)
        if policy.matching:
            pattern = self._compiled(policy.matching)
            ids = [each for each in ids if pattern.fullmatch(texts[each].strip())]
        if policy.scripts:
            ids = [each for each in ids if scripts_of([texts[each]]) <= set(policy.scripts)]
        if policy.ban:
            banned = self._banned(policy.ban)
            ids = [each for each in ids if not banned.search(texts[each].casefold())]
        if policy.answers:
            leaks, pieces = Leaks(policy.answers), self._pieces_of(policy.answers)
            ids = [each for each in ids if each not in pieces and not leaks.found_in(texts[each])]
        mask = np.zeros(self.size, np.bool_)
        mask[[each for each in ids if each < self.size]] = True
        if not mask.any():
            raise InputError(
                f"model {self._name!r}: no token of its vocabulary is left by {policy}",
                hint="choose a wider preset (any), leave out matching, or ban fewer words",
            )
        return mask

    def _preset(self, preset: Preset) -> Sequence[int]:
        if preset == "readable":
            return self._round_trip.readable
        reached = self._round_trip.reached
        if preset == "any":
            return reached
        if preset == "ascii":
            return [each for each in reached if is_ascii(self._round_trip.candidates[each])]
        known = get_args(Preset)
        raise UnknownName(
            f"policy: no preset {preset!r}{nearest(preset, known)}; presets: {', '.join(known)}"
        )

    def _compiled(self, pattern: str) -> re.Pattern[str]:
        try:
            return re.compile(pattern)
        except re.error as error:
            raise InputError(
                f"matching: {pattern!r} is no regular expression: {error}",
                hint="it must match a token's whole text: '[a-z]+', '[а-яё]+' (Cyrillic); put a \\ before a "
                "bracket or sign that is meant as it is",
            ) from None

    def _banned(self, words: Sequence[str]) -> re.Pattern[str]:
        for word in words:
            if not word.strip():
                raise InputError(
                    f"ban: a word to keep out is empty (got {list(words)}), and every token begins with nothing",
                    hint="leave it out",
                )
        return beginning_with(words)

    def _pieces_of(self, answers: Sequence[str]) -> set[int]:
        """The tokens of label words that are cut into several, single letters left out."""
        texts = self._round_trip.candidates
        return {
            each
            for answer in answers
            for ids in self._round_trip.spelled(answer.strip())
            if len(ids) > 1
            for each in ids
            if each in texts and not is_single_letter(texts[each])
        }
