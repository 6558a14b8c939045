"""How others do it, written here from the description of what they do (../shared/field/speed.md, gradient.md 1 and 6).

All work on ids that are already made: tokenisation is outside their clock and inside ours. They read logits of the
whole vocabulary at every position, as ``model(...).logits`` gives them, and look at one place of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from autoprompt.prompt import Rendered
from tests.benchmarks.models import Subject

Ids = tuple[int, ...]
SORTED_BATCH = 64


@dataclass(frozen=True)
class Row:
    """``ids``: what the model reads (the encoder of an encoder-decoder model); ``place``: where the answer is read."""

    ids: Ids
    place: int


def encode(subject: Subject, rendered: Sequence[Rendered]) -> list[Row]:
    """Texts as ids."""
    if subject.kind == "masked":
        mask, mask_id = subject.tokenizer.mask_token, subject.tokenizer.mask_token_id
        taken = _ids(subject, [each.text(mask) for each in rendered])
        return [Row(ids, ids.index(mask_id)) for ids in taken]
    taken = _ids(subject, [each.text().rstrip(" ") for each in rendered])
    if subject.kind == "seq2seq":
        return [Row(ids, 0) for ids in taken]
    return [Row(ids, len(ids) - 1) for ids in taken]


def answer_ids(subject: Subject, rendered: Rendered, answers: Sequence[str]) -> torch.Tensor:
    """[C] the token of each answer where it stands.

    Raises:
        ValueError: an answer is more than one token there.
    """
    (row,) = encode(subject, [rendered])
    found = []
    for answer in answers:
        if subject.kind == "seq2seq":
            ids = tuple(subject.tokenizer(text_target=answer)["input_ids"][:-1])
            whole, place = ids, 0
        else:
            (whole,) = _ids(subject, [rendered.text(answer)])
            place = row.place + (subject.kind == "causal")
            ids = whole[place : place + 1 + len(whole) - len(row.ids) - (subject.kind == "causal")]
        if len(ids) != 1:
            raise ValueError(f"answer {answer!r} is {len(ids)} tokens")
        found.append(whole[place])
    return torch.tensor(found)


def _ids(subject: Subject, texts: Sequence[str]) -> list[Ids]:
    return [tuple(ids) for ids in subject.tokenizer(list(texts))["input_ids"]]


def padded(rows: Sequence[Row], width: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, both [R, T], filled up on the right to the longest row or ``width``."""
    width = max(width, *(len(row.ids) for row in rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for at, row in enumerate(rows):
        ids[at, : len(row.ids)] = torch.tensor(row.ids)
        mask[at, : len(row.ids)] = 1
    return ids, mask


def _all_logits(subject: Subject, mask: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
    """[R, T, V] (T is 1 for a decoder that has written nothing yet)."""
    model: Any = subject.model
    if subject.kind == "seq2seq":
        inputs["decoder_input_ids"] = torch.full((len(mask), 1), subject.start)
    logits: torch.Tensor = model(attention_mask=mask, **inputs).logits
    return logits


def _at_places(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    """[R, V] log-probabilities at the answer places, nats."""
    places = torch.tensor([row.place for row in rows])
    return torch.log_softmax(logits[torch.arange(len(rows)), places].float(), dim=-1)


def _selected(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    """[R, V] log-probabilities at the answer places, picked as AutoPrompt does: by a mask over all logits."""
    mask = torch.zeros(logits.shape[:2], dtype=torch.bool)
    for at, row in enumerate(rows):
        mask[at, row.place] = True
    return torch.log_softmax(logits.masked_select(mask.unsqueeze(-1)).view(len(rows), -1), dim=-1)


def _batch(subject: Subject, rows: Sequence[Row], answers: torch.Tensor, width: int = 0) -> torch.Tensor:
    """[R, C]. An encoder-decoder model is run once an answer, as with ``labels=`` and as lm-eval does."""
    ids, mask = padded(rows, width)
    with torch.inference_mode():
        if subject.kind == "seq2seq":
            columns = [
                _at_places(_all_logits(subject, mask, input_ids=ids), rows)[:, answer] for answer in answers
            ]
            return torch.stack(columns, dim=1)
        return _at_places(_all_logits(subject, mask, input_ids=ids), rows)[:, answers]


def naive(
    subject: Subject, groups: Sequence[Sequence[Row]], answers: torch.Tensor, width: int = 0
) -> torch.Tensor:
    """The loop everyone writes first: one prompt at a time, its examples in one batch, padded to the longest.

    Args:
        subject: the model.
        groups: [prompts][examples] rows.
        answers: [C] ids.
        width: pad to this many tokens at least (0: to the longest of the prompt's own examples).

    Returns:
        [N, C] log-probabilities in nats, prompt by prompt.
    """
    return torch.cat([_batch(subject, rows, answers, width) for rows in groups])


def one_at_a_time(subject: Subject, groups: Sequence[Sequence[Row]], answers: torch.Tensor) -> torch.Tensor:
    """AutoPrompt's evaluation of candidates: one at a time on all examples, logits picked by a mask.

    Args:
        subject: the model.
        groups: [candidates][examples] rows.
        answers: [C] ids.

    Returns:
        [N, C] log-probabilities in nats, candidate by candidate.
    """
    found = []
    for rows in groups:
        ids, mask = padded(rows)
        with torch.no_grad():
            found.append(_selected(_all_logits(subject, mask, input_ids=ids), rows)[:, answers])
    return torch.cat(found)


def sorted_batches(subject: Subject, rows: Sequence[Row], answers: torch.Tensor) -> torch.Tensor:
    """As lm-eval does: all requests sorted by length, the longest first, 64 a batch, padded to the batch's longest."""
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index].ids))
    scores = torch.empty(len(rows), len(answers))
    for start in range(0, len(order), SORTED_BATCH):
        batch = order[start : start + SORTED_BATCH]
        scores[batch] = _batch(subject, [rows[index] for index in batch], answers)
    return scores


def padded_tokens(groups: Sequence[Sequence[Row]], width: int = 0) -> int:
    """Tokens run for groups that are each padded to their longest row or ``width``."""
    return sum(len(rows) * max(width, *(len(row.ids) for row in rows)) for rows in groups)


def sorted_tokens(rows: Sequence[Row]) -> int:
    """Tokens ``sorted_batches`` runs."""
    ordered = sorted(rows, key=lambda row: -len(row.ids))
    return padded_tokens(
        [ordered[start : start + SORTED_BATCH] for start in range(0, len(rows), SORTED_BATCH)]
    )


def slot_places(rows: Sequence[Row], trigger: Ids) -> list[int]:
    """Where the trigger's ids stand in each row.

    Raises:
        ValueError: not exactly once in a row.
    """
    starts = []
    for row in rows:
        found = [at for at in range(len(row.ids)) if row.ids[at : at + len(trigger)] == trigger]
        if len(found) != 1:
            raise ValueError(f"the trigger stands {len(found)} times in a row")
        starts += found
    return starts


def all_parameter_gradient(
    subject: Subject, rows: Sequence[Row], starts: Sequence[int], length: int, targets: torch.Tensor
) -> torch.Tensor:
    """AutoPrompt's gradient: ``loss.backward()`` on the whole batch, so that all weights get theirs too.

    Args:
        subject: the model; its parameters require gradients, as they do when it is loaded.
        rows: N texts.
        starts: where the slot begins in each.
        length: L positions of the slot.
        targets: [N] id of the right answer of each.

    Returns:
        [L, D] gradient of the mean loss by the slot's input embeddings, nats a unit.
    """
    ids, mask = padded(rows)
    embedded = subject.model.get_input_embeddings()(ids)
    embedded.retain_grad()
    logs = _selected(_all_logits(subject, mask, inputs_embeds=embedded), rows)
    (-logs[torch.arange(len(rows)), targets].mean()).backward()  # type: ignore[no-untyped-call]
    gradient = embedded.grad
    assert gradient is not None
    subject.model.zero_grad(set_to_none=True)
    return torch.stack([gradient[at, start : start + length] for at, start in enumerate(starts)]).sum(0)
