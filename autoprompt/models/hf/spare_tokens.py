"""Soft prompts whose rows are read for tokens that no text is cut into, so that they may stand anywhere."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from autoprompt.errors import InputError, TemplateError
from autoprompt.models.hf.peft_format import Fields, Matrix, Reading, readings, refuse_chat, until_answer
from autoprompt.models.hf.scoring import HuggingFaceModel
from autoprompt.models.hf.tokens import Ids
from autoprompt.prompt import Prompt
from autoprompt.template import HOLE, escape

_UNUSED = re.compile(
    r"(?i)[<\[]\|?(?:unused|reserved|madeupword|spare|dummy|placeholder)(?:[\W_]*(?:special|token))*[\W_]*\d*\|?[>\]]"
    r"|madeupword\d+"
)


@dataclass(frozen=True)
class Spared:
    """A prompt whose rows are read for tokens that are used for nothing else.

    Attributes:
        ids: soft slot to the ids of its rows.
        rows: [N, D] the rows, slot after slot, in the space of the table (the module's scale taken out).
        own: [N, D] what the table holds for these ids.
        template: Jinja2, with ``{{ soft_NAME }}`` where the rows of a slot are read.
        opening: ids before it.
        closing: ids after it.
        spelled: entries among the ids that a text is cut into where it spells them out.
        module: path of the embedding module.
    """

    ids: Mapping[str, Ids]
    rows: Matrix
    own: Matrix
    template: str
    opening: Ids
    closing: Ids
    spelled: tuple[str, ...]
    module: str


def spare(model: HuggingFaceModel, prompt: Prompt, samples: Sequence[Fields]) -> Spared:
    """Give every row of a prompt a token that no text is cut into.

    Raises:
        InputError: the table has too few of them.
    """
    refuse_chat(model)
    need = sum(map(len, prompt.soft.values()))
    ids = unused_ids(model, need)
    tokenizer = model._parts.tokenizer
    given = iter(ids)
    of = {name: tuple(itertools.islice(given, len(rows))) for name, rows in prompt.soft.items()}
    reads = readings(model, prompt, samples)
    holes = {**prompt.slots, **{name: f"{{{{ soft_{name} }}}}" for name in of}}
    taken = prompt.fields() & {f"soft_{name}" for name in of}
    if taken:
        raise TemplateError(f"prompt: has a field {min(taken)!r}, which is what rows are called here")
    template = HOLE.sub(
        lambda hole: holes[hole[1]] if hole[1] in of else escape(holes[hole[1]]), prompt.frame
    )
    template = until_answer(model, template)
    for read in reads:
        if as_used(model, template, of, prompt.slots, read) != _with_ids(read, of):
            raise TemplateError(
                f"prompt: with fields {dict(read.fields)!r:.80} the rows cannot be put in place from outside",
                hint="keep the soft slots apart from the data by a space, and save_soft the prompt",
            )
    table, module = model._table, _table_path(model)
    rows = np.concatenate([rows.values for rows in prompt.soft.values()]).astype(np.float64) / table.scale
    own = table.weight[list(ids)].float().cpu().numpy()
    spelled = tuple(
        str(tokenizer.convert_ids_to_tokens(each)) for each in ids if each in tokenizer.added_tokens_decoder
    )
    first = reads[0]
    return Spared(of, rows.astype(np.float32), own, template, first.opening, first.closing, spelled, module)


def as_used(
    model: HuggingFaceModel, template: str, of: Mapping[str, Ids], anchors: Mapping[str, str], read: Reading
) -> Ids:
    """The ids a user gets who follows the README beside an adapter with spare tokens."""
    marks = {f"soft_{name}": f"\ue000{name}\ue001" for name in of}
    masked = model.kind == "masked"
    prompt = Prompt(template if masked else template + "{{ answer }}")
    text = prompt.render({**read.fields, **marks}).text(
        str(model._parts.tokenizer.mask_token) if masked else ""
    )
    text, whole, regions = text if masked else text.rstrip(" "), "", []
    for at, part in enumerate(re.split("\ue000(.*?)\ue001", text)):
        shown = anchors[part] if at % 2 else part
        if at % 2:
            regions.append((len(whole), len(whole) + len(shown), of[part]))
        whole += shown
    cut = model._tokens.spans(whole) or []
    ids = [token for token, _ in cut]
    for start, end, new in regions:
        inside = [
            at for at, (_, span) in enumerate(cut) if whole[max(span[0], start) : min(span[1], end)].strip()
        ]
        if inside[-1] - inside[0] + 1 != len(new):
            return ()
        ids[inside[0] : inside[-1] + 1] = new
    return (*read.opening, *ids, *read.closing)


def unused_ids(model: HuggingFaceModel, count: int) -> Ids:
    """Ids of the table that no text is cut into: rows behind the tokenizer's last, then placeholders such as
    ``[unused1]``; last of all placeholders that only a text which spells them out is cut into.

    Raises:
        InputError: there are fewer.
    """
    tokenizer, size = model._parts.tokenizer, model.vocabulary.size
    entries = {at: entry for entry, at in tokenizer.get_vocab().items()}
    padded = [at for at in range(size) if at not in entries]
    named = [at for at, entry in sorted(entries.items()) if at < size and _UNUSED.fullmatch(entry)]
    cut = model._tokens.bare([entries[at] for at in named])
    never = [at for at, ids in zip(named, cut, strict=True) if at not in ids]
    found = (*padded, *never, *(at for at in named if at not in never))
    if len(found) < count:
        raise InputError(
            f"model {model.name!r}: its table has {len(found)} tokens that stand for nothing, but the prompt has "
            f"{count} soft rows",
            hint="save_soft the prompt, use fewer rows, or put all rows before the data and export PROMPT_TUNING",
        )
    return found[:count]


def has_biased_tied_head(model: HuggingFaceModel) -> bool:
    """Whether the output layer is the table with a bias; PEFT's trainable tokens leave the bias out there."""
    head = model._model.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear) or head.weight.data_ptr() != model._table.weight.data_ptr():
        return False
    return head.bias is not None and bool(head.bias.any())


def _with_ids(read: Reading, of: Mapping[str, Ids]) -> Ids:
    ids = list(read.ids)
    for name, new in of.items():
        for at, token in zip(read.at[name], new, strict=True):
            ids[at] = token
    return tuple(ids)


def _table_path(model: HuggingFaceModel) -> str:
    """Where the module of the input embeddings hangs; of an encoder-decoder model the encoder's."""
    reader = model._model.get_encoder() if model.kind == "seq2seq" else model._model
    table = reader.get_input_embeddings()
    names: list[str] = [
        name for name, each in model._model.named_modules(remove_duplicate=False) if each is table
    ]
    return next((name for name in names if "encoder" in name), names[0])
