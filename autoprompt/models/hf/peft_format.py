"""What a soft prompt needs to leave this library and to come back: the ids of what stands around its rows.

PEFT reads prompt-tuning rows before everything else, special tokens included. So all that stands before the first
data field is baked in with them: special tokens, text and rows, each as the row the model reads.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel
from transformers.cache_utils import CacheLayerMixin

from autoprompt.errors import InputError, MissingCapability, TemplateError
from autoprompt.models.hf.contexts import evaluating
from autoprompt.models.hf.encoded import Encoded
from autoprompt.models.hf.scoring import HuggingFaceModel
from autoprompt.models.hf.tokens import Ids
from autoprompt.policy import TokenPolicy
from autoprompt.prompt import Prompt, Rendered
from autoprompt.soft import SoftRows
from autoprompt.template import HOLE, HOLE_END, HOLE_START, escape

Fields = Mapping[str, Any]
Matrix = NDArray[np.float32]
_CODE = re.compile(
    r"\{#.*?#\}|\{%[-+]?\s*raw\s*[-+]?%\}.*?\{%[-+]?\s*endraw\s*[-+]?%\}|(?P<code>\{\{|\{%)(?P<strip>-?)",
    re.DOTALL,
)
_ANSWER = re.compile(r"\{\{(-?)\s*answer\s*-?\}\}")
_PROBES = (
    "The film was good.", "a", "1 of 2", '"Quoted', ".", "", "\nline", "\n\n\nline", "  two spaces", "\tTab", "été 中文",
)  # fmt: skip
"""Values of fields with which the seam between what is baked in and the rest is tried."""
_ANCHORS = (".", ",", ":", ";", "-", "the", "a", "and", "of", "it")


@dataclass(frozen=True)
class Baked:
    """A prompt cut in two before its data.

    Attributes:
        rows: [P, D] all that is read before the rest: special tokens, text, soft rows.
        rest: the Jinja2 template of what follows, or of the whole text where it cannot stand alone.
        drop: how many of its first tokens are baked in then.
        closing: ids of the special tokens after it.
        special: how many of the rows are of special tokens at the front.
        text: what the rows stand for, anchors in place of soft rows.
        encoded: the same as ids, with the soft rows and their places.
    """

    rows: Matrix
    rest: str
    drop: int
    closing: Ids
    special: int
    text: str
    encoded: Encoded


@dataclass(frozen=True)
class Reading:
    """A rendered prompt as the model reads it: text, ids, places of its soft rows, special tokens at its ends."""

    fields: Fields
    text: str
    ids: Ids
    at: Mapping[str, Ids]
    opening: Ids
    closing: Ids

    @property
    def fixed(self) -> Ids:
        """The ids without the anchors', which are not read and may differ."""
        soft = set(itertools.chain(*self.at.values()))
        return tuple(-1 if at in soft else each for at, each in enumerate(self.ids))


def bake(model: HuggingFaceModel, prompt: Prompt, samples: Sequence[Fields]) -> Baked:
    """Cut a prompt before its data.

    At the last place where what follows is cut into the same tokens on its own, in every sample. Where there is none
    (Llama's tokenizer puts a space before every text, BERT's knows parts of words), right after the rows: the whole text
    is then cut up, and the tokens that are baked in are left out.

    Raises:
        TemplateError: rows stand after the data, or what stands before the data depends on it.
        MissingCapability: PEFT would embed the rest otherwise than the model.
    """
    refuse_chat(model)
    _refuse_late_rows(prompt)
    _check_peft_table(model)
    code = _first_code(prompt.text)
    static = Prompt(prompt.text[: code.start()] + "{{ answer }}").render({}).text()
    limit = len((static.rstrip() if code["strip"] else static).rstrip(" "))
    reads = readings(model, prompt, samples)
    pieces = prompt.render(reads[0].fields).before
    last = max(at for at, piece in enumerate(pieces) if piece.rows is not None)
    first = sum(len(piece.text) for piece in pieces[: last + 1])
    cuts = ((cut, _prefix(model, reads, cut)) for cut in range(limit, first - 1, -1))
    cut, prefix = next(((cut, prefix) for cut, prefix in cuts if prefix), (0, None))
    drop = 0
    if prefix is None:
        prefix = reads[0].ids[: max(itertools.chain(*reads[0].at.values())) + 1]
        drop = len(prefix) - len(reads[0].opening)
        if len({read.fixed[: len(prefix)] for read in reads}) > 1:
            raise TemplateError(
                "prompt: what stands before the data is cut into other tokens with other data, so it cannot be baked in",
                hint="put a space, a line break or fixed text after the soft rows, or save_soft the prompt",
            )
    rest = escape(static[cut:limit]) + static[limit:] + prompt.text[code.start() :] if cut else prompt.text
    rest = _checked(model, until_answer(model, rest), reads, cut)
    rows = model._table.embedded(prefix).cpu().numpy().copy()
    places = reads[0].at
    for name, at in places.items():
        if prompt.soft[name].form == "embeddings":
            rows[list(at)] = prompt.soft[name].values
    soft = tuple(prompt.soft[name] for name in places)
    encoded = Encoded((prefix,), (), len(prefix), soft=soft, soft_at=tuple(itertools.chain(*places.values())))
    special = len(reads[0].opening)
    return Baked(rows, rest, drop, reads[0].closing, special, reads[0].text[: cut or first], encoded)


def keys_and_values(model: HuggingFaceModel, baked: Baked) -> NDArray[np.float32]:
    """[P, layers, 2, heads, width of a head]: what a causal model keeps of the rows it has read, exactly: all that
    follows sees no more of them.

    Raises:
        MissingCapability: the layers keep different things, so that there is no one tensor of them.
    """
    if any(rows.form == "prefix" for rows in baked.encoded.soft):
        with model._spliced([baked.encoded]) as (placed,):
            read = model._prefixes.read(placed.rows[0])
        layers, heads, width = model._prefixes.shape
        return read.cpu().view(len(read), layers, 2, heads, width).numpy()
    rows = baked.rows
    with torch.no_grad(), evaluating(model._model):
        given = torch.from_numpy(rows)[None].to(model._device, model._dtype)
        cache = model._model(inputs_embeds=given, use_cache=True, return_dict=True).get("past_key_values")
    layers = [] if cache is None else cache.layers
    if not layers or not all(isinstance(layer, CacheLayerMixin) for layer in layers):
        raise MissingCapability(
            f"model {model.name!r}: its layers keep something else of a text than keys and values",
            hint='export with form="PROMPT_TUNING"',
        )
    kept = [each.cpu().float() for layer in layers for each in (layer.keys, layer.values)]
    shapes = {each.shape for each in kept}
    if len(shapes) > 1 or kept[0].shape[2] != len(rows):
        raise MissingCapability(
            f"model {model.name!r}: its layers keep different keys and values ({sorted(map(tuple, shapes))})",
            hint='export with form="PROMPT_TUNING"',
        )
    stacked: NDArray[np.float32] = torch.stack(kept)[:, 0].permute(2, 0, 1, 3).contiguous().numpy()
    return stacked.reshape(len(rows), len(layers), 2, *stacked.shape[2:])


def _refuse_late_rows(prompt: Prompt) -> None:
    code = _first_code(prompt.frame).start()
    for hole in HOLE.finditer(prompt.frame):
        if hole[1] in prompt.soft and hole.start() > code:
            raise TemplateError(
                f"prompt: the rows of slot {hole[1]!r} stand after {prompt.frame[code : hole.start()][:40]!r}, but PEFT "
                "reads prompt-tuning rows before all data",
                hint='export with form="TRAINABLE_TOKENS" or "LORA", or save_soft to keep the prompt as it is',
            )


def in_front(
    model: HuggingFaceModel, template: str, words: Mapping[str, tuple[str, ...]], rows: SoftRows, slot: str
) -> tuple[Prompt, bool]:
    """A prompt with the rows before everything but special tokens, and whether the template is then cut into the
    tokens it has on its own.
    """
    (model._prefixes if rows.form == "prefix" else model._table).tensor(rows)  # refuses rows of another width
    fallback: Prompt | None = None
    for anchor, glue in itertools.product(_anchors(model, len(rows)), ("", " ", "\n")):
        frame = f"{HOLE_START}{slot}{HOLE_END}{glue}{template}"
        prompt = Prompt.of_frame(frame, {slot: anchor}, words, {}).softened({slot: rows})
        try:
            reads = readings(model, prompt, [])
            fallback = fallback or prompt
            if len(reads) < len(_PROBES):
                continue
            alone = [_whole(model, Prompt(template).render(read.fields)) for read in reads]
        except TemplateError:
            continue
        opening, after = len(reads[0].opening), len(reads[0].opening) + len(rows)
        if all(read.ids[after:] == ids[opening:] for read, (_, ids) in zip(reads, alone, strict=True)):
            return prompt, True
    if fallback is None:
        raise InputError(
            f"model {model.name!r}: no text was found that is cut into {len(rows)} tokens at a text's start"
        )
    return fallback, False


def special_start(model: HuggingFaceModel) -> str:
    """The special tokens every text begins with, as written; empty where there are none."""
    (bare,), (whole,) = model._tokens.bare(["a"]), model._tokens.open_ended(["a"])
    return "".join(model._parts.tokenizer.convert_ids_to_tokens(list(whole[: len(whole) - len(bare)])))


def _anchors(model: HuggingFaceModel, count: int) -> Iterator[str]:
    yield from (" ".join([each] * count) for each in _ANCHORS)
    allowed = np.flatnonzero(model.vocabulary.allowed(TokenPolicy())).tolist()
    yield from (model.vocabulary.text([each] * count) for each in allowed[:20])


def readings(model: HuggingFaceModel, prompt: Prompt, samples: Sequence[Fields]) -> list[Reading]:
    """The prompt with the user's fields, and with made-up ones as far as it can be read with text for each field.

    Raises:
        TemplateError: it cannot be read with the user's, or with hardly any made-up ones where there are none.
    """
    found = [_read(model, prompt, fields) for fields in samples]
    problem = ""
    for value in _PROBES:
        try:
            found.append(_read(model, prompt, dict.fromkeys(prompt.fields(), value)))
        except TemplateError as error:
            problem = f" ({error.message}; fields: {value!r})"
    if len(found) < (1 if samples else 2):
        raise TemplateError(
            f"prompt: cannot be tried out with made-up text for each of its fields{problem}",
            hint="give samples=[...], the fields of a few examples",
        )
    return found


def _read(model: HuggingFaceModel, prompt: Prompt, fields: Fields) -> Reading:
    rendered = prompt.render(fields)
    text, ids = _whole(model, rendered)
    (bare,), (start,) = model._tokens.bare([text]), model._tokens.open_ended([text])
    lead = len(start) - len(bare)
    found = model._finder.find([rendered])[0]
    at = {name: found.slots[name].at for name in prompt.soft}
    for name, places in at.items():
        if len(places) != len(prompt.soft[name]) or found.ids[: places[-1] + 1] != ids[: places[-1] + 1]:
            raise TemplateError(
                f"slot {name!r}: its text is read as {len(places)} tokens, but it holds {len(prompt.soft[name])} rows"
            )
    return Reading(fields, text, ids, at, ids[:lead], ids[len(start) :])


def _whole(model: HuggingFaceModel, rendered: Rendered) -> tuple[str, Ids]:
    """The text up to the answer, of masked models all of it, and its ids with special tokens."""
    place = model._tokens.place(rendered)
    if model.kind == "masked":
        text = place.before + place.gap + str(model._parts.tokenizer.mask_token) + place.after
        return text, model._tokens.whole([text])[0]
    cut = model._tokens.open_ended if model.kind == "causal" else model._tokens.whole
    return place.before, cut([place.before])[0]


def _prefix(model: HuggingFaceModel, reads: Sequence[Reading], cut: int) -> Ids | None:
    """The ids before a place in the text; None where it is no seam."""
    found: dict[Ids, Ids] = {}
    for read, rest in zip(reads, model._tokens.bare([read.text[cut:] for read in reads]), strict=True):
        tail = (*rest, *read.closing)
        size = len(read.ids) - len(tail)
        if read.ids[max(size, 0) :] != tail or size <= max(itertools.chain(*read.at.values())):
            return None
        found[read.fixed[:size]] = read.ids[:size]
    return next(iter(found.values())) if len(found) == 1 else None


def _first_code(source: str) -> re.Match[str]:
    for match in _CODE.finditer(source):
        if match["code"]:
            return match
    raise TemplateError("prompt: has no {{ answer }}")


def until_answer(model: HuggingFaceModel, template: str) -> str:
    """The template of what a model that reads on from the end is given; of a masked one all of it."""
    answer = _ANSWER.search(template)
    if model.kind == "masked" or answer is None:
        return template
    before = template[: answer.start()]
    return before.rstrip() if answer[1] else before


def _checked(model: HuggingFaceModel, rest: str, reads: Sequence[Reading], cut: int) -> str:
    """The rest's template, seen to give the text that is left."""
    masked = model.kind == "masked"
    prompt = Prompt(rest if masked else rest + "{{ answer }}")
    for read in reads:
        text = prompt.render(read.fields).text(str(model._parts.tokenizer.mask_token) if masked else "")
        if (text if masked else text.rstrip(" ")) != read.text[cut:]:
            raise TemplateError(
                f"prompt: what follows the soft rows does not stand on its own (got {text!r:.60})",
                hint="let {{ answer }} and the soft slots stand outside of {% %} blocks",
            )
    return rest


def refuse_chat(model: HuggingFaceModel) -> None:
    """Raise TemplateError for a model that reads prompts in a chat template."""
    if model._parts.settings.chat:
        raise TemplateError(
            f"model {model.name!r}: a chat template stands around the prompt, which no adapter says",
            hint="save_soft keeps it; for PEFT train with the model loaded without ?chat",
        )


def _check_peft_table(model: HuggingFaceModel) -> None:
    """PEFT embeds the rest with the first parameter that has as many rows as the configuration has tokens."""
    whole = model._model
    inner = next((each for each in whole.children() if isinstance(each, PreTrainedModel)), whole)
    size = whole.config.get_text_config().vocab_size
    names = [name for name, weight in inner.named_parameters() if weight.shape[:1] == (size,)]
    ids = [0, size // 2, size - 1]
    if names and names[0].endswith(".weight"):
        with torch.no_grad():
            given = inner.get_submodule(names[0].removesuffix(".weight"))(
                torch.tensor(ids, device=model._device)
            )
        if torch.equal(given.float(), model._table.embedded(ids)):
            return
    raise MissingCapability(
        f"model {model.name!r}: PEFT would look its tokens up in {names[0] if names else 'no module'}, which is not its "
        "table of input embeddings",
        hint='export with form="TRAINABLE_TOKENS", or save_soft',
    )
