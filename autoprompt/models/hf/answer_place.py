"""What a model shows where an answer is read: the words that can stand there, states, log-probabilities.

Label words are looked for with it (Shin et al. 2020, section 2.3; Gao et al. 2021, section 4.1). The place is
the one at which answers are scored: the mask of a masked model, the last token of the text before it of a
causal one, the first place where the answer is the decoder's own of an encoder-decoder model.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from autoprompt.errors import InputError, LabelWordError, MissingCapability
from autoprompt.models import Floats, LabelRequest, RankRequest, Request
from autoprompt.models.hf.contexts import evaluating, fused
from autoprompt.models.hf.encoded import Encoded
from autoprompt.models.hf.reader import Forward, Line, Reader, Spot
from autoprompt.models.hf.tokens import Tokens
from autoprompt.prompt import Rendered

_CONTEXTS = 8  # different surroundings of the answer place in which words are tried
_PROBES = 8  # words tried at a time to find one that is a single token
_SPACES = "Ġ▁"  # how byte-level and SentencePiece vocabularies write a leading space
_LAST, _FIRST = re.compile(r"\S*\s*\Z"), re.compile(r"\A\s*\S*")
Encode = Callable[[Sequence[Request]], list[Encoded]]
Work = Callable[[], torch.Tensor]


class AnswerPlace:
    """The answer place of one model.

    Args:
        model: the transformers model.
        tokens: its tokenizer.
        reader: runs it.
        encode: requests as ids, shortened to fit.
        forward: runs rows side by side and returns their logits.
        with_memory: does a piece of work again with smaller batches where memory is short.
        name: the model's name, for errors.
    """

    def __init__(
        self,
        model: Any,
        tokens: Tokens,
        reader: Reader,
        *,
        encode: Encode,
        forward: Forward,
        with_memory: Callable[[Work], torch.Tensor],
        name: str,
    ) -> None:
        self._model = model
        self._tokens = tokens
        self._reader = reader
        self._encode = encode
        self._forward = forward
        self._with_memory = with_memory
        self._name = name
        self._probes: dict[tuple[str, str], str] = {}
        layer = model.get_output_embeddings()
        self._layer: torch.nn.Module | None = layer if isinstance(layer, torch.nn.Module) else None
        self._device = next(model.parameters()).device

    def words(self, rendered: Sequence[Rendered], matching: str) -> dict[str, int]:
        """Word to id of the words that are one token of the vocabulary at the answer place of these texts.

        How a word is cut up depends on what stands next to it: where that comes from the texts' fields, a
        handful of them is tried. Special and added tokens, and pieces of words where the tokenizer tells
        them from whole ones, are none.

        Args:
            rendered: the texts.
            matching: a regular expression that the words match in full.

        Raises:
            InputError: it is no regular expression.
        """
        try:
            pattern = re.compile(matching)
        except re.error as error:
            raise InputError(f"matching: {matching!r} is no regular expression ({error})") from None
        left = [word for word in self._vocabulary if pattern.fullmatch(word)]
        found: dict[str, int] = {}
        for text in self._contexts(rendered):
            probe = self._probe(text, left)
            if probe is None:
                return {}
            (encoded,) = self._encode([RankRequest(text, probe, tuple(left))])
            here = dict(encoded.among or ())
            found = {
                word: here[word]
                for word in left
                if word in here and found.get(word, here[word]) == here[word]
            }
            left = list(found)
        first = {token: word for word, token in reversed(found.items())}
        return {word: token for word, token in found.items() if first[token] == word}

    def states(self, rendered: Sequence[Rendered]) -> Floats:
        """[N, D] in float32: what the output layer reads at the answer place, after all that a model does before
        it (the transform of a masked head, the scale of T5); NaN for texts without an answer place.

        Raises:
            MissingCapability: the model has no output layer that reads states.
        """
        if self._layer is None:
            raise self._headless()
        lines, asked = self._places(rendered)

        def work() -> torch.Tensor:
            found: torch.Tensor | None = None
            for spots, read in self._states(lines, list(asked)):
                if found is None:
                    found = torch.full((len(rendered), read.shape[-1]), torch.nan)
                texts = [(text, row) for row, spot in enumerate(spots) for text in asked[spot]]
                found[[text for text, _ in texts]] = read.float().cpu()[[row for _, row in texts]]
            return torch.full((len(rendered), 0), torch.nan) if found is None else found

        return self._with_memory(work).numpy()

    def log_probs(self, rendered: Sequence[Rendered], groups: Sequence[int]) -> Floats:
        """[G, V] in float32: mean log P(token | text) at the answer place over the texts of each group, in nats.

        NaN for a group none of whose texts could be read.

        Args:
            rendered: N texts.
            groups: [N] the group of each, counted from 0.
        """
        lines, asked = self._places(rendered)
        size = max(groups) + 1

        def work() -> torch.Tensor:
            sums, counts = torch.zeros(size, 1, device=self._device), torch.zeros(size, device=self._device)
            with torch.inference_mode():
                for spots, read in self._reader.read(lines, list(asked)):
                    left = iter(spots)
                    for block in self._reader.head.logits(read):
                        texts = [[groups[text] for text in asked[next(left)]] for _ in block]
                        weights = torch.zeros(size, len(block), device=block.device)
                        for row, members in enumerate(texts):
                            for group in members:
                                weights[group, row] += 1
                        norms = torch.logsumexp(block, dim=-1, keepdim=True)
                        fine = torch.isfinite(norms[:, 0])
                        sums = sums + weights[:, fine] @ (block[fine] - norms[fine])
                        counts += weights[:, fine].sum(dim=1)
                return (sums / counts[:, None]).cpu()

        return self._with_memory(work).numpy()

    def scores(self, directions: Floats) -> Floats:
        """[C, V] in float32: how much moving the state by each of the directions [C, D] raises each token's
        logit, which is the direction times the token's row of the output layer.

        Raises:
            MissingCapability: the model has no output layer that reads states.
        """
        layer = self._layer
        if layer is None:
            raise self._headless()
        with torch.inference_mode(), evaluating(self._model):
            rows = torch.from_numpy(np.array(directions, np.float32)).to(self._device)
            if type(layer) is torch.nn.Linear:
                blocks = [rows @ block.float().T for block in torch.split(layer.weight, 1 << 14)]
                return np.asarray(torch.cat(blocks, dim=1).cpu().numpy())
            # wrapped or quantised: it knows how to run itself, and its bias is what it makes of nothing
            rows = rows.to(next(self._model.parameters()).dtype)
            change = layer(rows).float() - layer(torch.zeros_like(rows[:1])).float()
            return np.asarray(change.cpu().numpy())

    @functools.cached_property
    def _vocabulary(self) -> list[str]:
        """The texts of all tokens but special and added ones, each once, those first that begin a word."""
        tokenizer = self._tokens.tokenizer
        kept_out = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        entries = sorted(
            (token for token, at in tokenizer.get_vocab().items() if at not in kept_out),
            key=lambda token: (token[:1] not in _SPACES, token),
        )
        texts = (tokenizer.convert_tokens_to_string([token]).strip() for token in entries)
        return [text for text in dict.fromkeys(texts) if text and "\ufffd" not in text]

    def _contexts(self, rendered: Sequence[Rendered]) -> list[Rendered]:
        """One text for each of the first few surroundings of the answer place."""
        return list({self._context(text): text for text in reversed(rendered)}.values())[::-1][:_CONTEXTS]

    def _context(self, text: Rendered) -> tuple[str, str]:
        before, after = ("".join(piece.text for piece in part) for part in (text.before, text.after))
        last, first = _LAST.search(before), _FIRST.search(after)
        assert last is not None  # the patterns match any text
        assert first is not None
        return last[0], first[0]

    def _probe(self, text: Rendered, words: Sequence[str]) -> str | None:
        """The first of the words that is a single token here, so that the answer place can be asked for."""
        context = self._context(text)
        for start in range(0, 0 if context in self._probes else len(words), _PROBES):
            some = words[start : start + _PROBES]
            encoded = self._encode([RankRequest(text, word) for word in some])
            able = [word for word, each in zip(some, encoded, strict=True) if _single(each)]
            if able:
                self._probes[context] = able[0]
                break
        return self._probes.get(context)

    def _places(self, rendered: Sequence[Rendered]) -> tuple[list[Line], dict[Spot, list[int]]]:
        """The distinct lines that are read, and the texts whose answer place each spot is."""
        probes = [self._probe(text, self._vocabulary) for text in rendered]
        able = [at for at, probe in enumerate(probes) if probe is not None]
        encoded = self._encode([LabelRequest(rendered[at], (str(probes[at]),)) for at in able])
        lines: dict[Line, int] = {}
        asked: dict[Spot, list[int]] = {}
        for at, each in zip(able, encoded, strict=True):
            if _single(each):
                read = each.reads[0]
                line = lines.setdefault((each.source, each.rows[read.row]), len(lines))
                asked.setdefault((line, read.start), []).append(at)
        if not asked:
            raise LabelWordError(
                f"model {self._name!r}: no word of its vocabulary is a single token at the answer place",
                hint="put a space, a line break or fixed text before {{ answer }}",
            )
        return list(lines), asked

    def _states(
        self, lines: Sequence[Line], spots: Sequence[Spot]
    ) -> Iterator[tuple[list[Spot], torch.Tensor]]:
        """Some spots and the states there, until all are read.

        Where it is not known what a model does to its logits, it is still known what its output layer reads.
        """
        self._reader.learn(lines)
        head = self._reader.head
        if head.understood:
            yield from self._reader.read(lines, spots)
            return
        with torch.inference_mode(), evaluating(self._model), fused(self._model):
            for spot in sorted(spots, key=lambda spot: len(lines[spot[0]][1])):
                source, row = lines[spot[0]]
                forward = functools.partial(self._forward, [source], [row])
                try:
                    yield [spot], head.states(forward, torch.tensor([spot[1]], device=self._device))
                except torch.OutOfMemoryError:
                    raise
                except (RuntimeError, ValueError, IndexError):
                    raise self._headless() from None

    def _headless(self) -> MissingCapability:
        return MissingCapability(
            f"model {self._name!r} has no output layer whose states can be read",
            hint='look for label words with method="likelihood"',
        )


def _single(encoded: Encoded) -> bool:
    """Whether the one answer of a request is a single token."""
    return not encoded.problem and len(encoded.reads) == 1 and len(encoded.reads[0].targets) == 1
