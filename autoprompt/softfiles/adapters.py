"""Adapters of PEFT: a soft prompt as one, and one as a soft prompt."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import safetensors.numpy

from autoprompt.errors import DataError, InputError, MissingCapability, UnknownName, nearest
from autoprompt.models import Model
from autoprompt.prompt import Prompt
from autoprompt.soft import SoftRows
from autoprompt.softfiles.disk import parsed, read_json, refuse_hard, write_json
from autoprompt.study import write_atomically

Form = Literal["auto", "PROMPT_TUNING", "PREFIX_TUNING", "TRAINABLE_TOKENS", "LORA"]
_FILES = ("adapter_config.json", "adapter_model.safetensors", "prompt.json", "README.md")


def peft_rows(folder: str | Path) -> SoftRows:
    """The rows of a PEFT adapter of prompt tuning, P-tuning or prefix tuning (then keys and values).

    Of an adapter for encoder and decoder the encoder's rows are taken, the only ones PEFT reads. What a projection makes of
    a prefix is what PEFT saves of it.

    Raises:
        DataError: the folder holds no such adapter, or its rows only as a pickle, which is never read.
    """
    folder = Path(folder)
    config = read_json(folder / "adapter_config.json", "give the folder that PEFT's save_pretrained wrote")
    kind = config.get("peft_type")
    if kind not in ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING"):
        hint = "load_soft reads the folder of save_soft" if (folder / "soft.json").is_file() else ""
        raise DataError(
            f"{folder}: a PEFT adapter of type {kind!r} holds no rows of a prompt; read are PROMPT_TUNING, P_TUNING and "
            "PREFIX_TUNING",
            hint=hint,
        )
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        raise DataError(
            f"{path}: no such file"
            + (", only adapter_model.bin, a pickle, which could run code" if pickled else ""),
            hint="load it with PEFT where you trust it, and save_pretrained(..., safe_serialization=True)",
        )
    tensors = parsed(path, path.read_bytes())
    if "prompt_embeddings" not in tensors:
        raise DataError(f"{path}: has no tensor 'prompt_embeddings'{nearest('prompt_embeddings', tensors)}")
    values = tensors["prompt_embeddings"]
    count, parts = config.get("num_virtual_tokens"), config.get("num_transformer_submodules") or 1
    if not isinstance(count, int) or values.ndim != 2 or len(values) not in (count, count * parts):
        raise DataError(
            f"{path}: rows {list(values.shape)} do not fit num_virtual_tokens {count!r} and {parts} submodules"
        )
    if kind != "PREFIX_TUNING":
        return SoftRows(values[:count].astype(np.float32))
    layers, width = config.get("num_layers"), config.get("token_dim")
    if parts != 1 or not isinstance(layers, int) or values.shape[1] != layers * 2 * (width or 0):
        raise DataError(
            f"{path}: keys and values {list(values.shape)} do not fit num_layers {layers!r} and token_dim {width!r} of a "
            "model of one part",
            hint="a prefix is read for causal models; let PEFT save_pretrained it anew",
        )
    return SoftRows(values.astype(np.float32), "prefix")


def import_peft(
    folder: str | Path,
    template: str,
    model: Model,
    *,
    words: Mapping[str, tuple[str, ...]] | None = None,
    slot: str = "soft",
) -> Prompt:
    """A PEFT adapter of prompt tuning, P-tuning or prefix tuning as a prompt: its rows before a template.

    PEFT reads the rows before the special tokens a text begins with, and we after them: where the tokenizer adds such
    tokens, the prompt is a start to train from and not the same function, which a warning says. Of an adapter that
    ``export_peft`` wrote, rows of such tokens are left out: with the template in its ``prompt.json`` (and
    ``{{ answer }}`` at its end) it is the same function again, if all of it in rows; where ``drop`` there is above 0, the
    template repeats what is in the rows, and a warning says so.

    Args:
        folder: of the adapter.
        template: Jinja2 with the task's fields and ``{{ answer }}``, as the adapter was trained with.
        model: its base model.
        words: label words.
        slot: what to call the slot of the rows.

    Raises:
        DataError: see ``peft_rows``.
        MissingCapability: the rows do not fit the model.
    """
    from autoprompt.models.hf import peft_format
    from autoprompt.models.hf.portrait import opened

    rows, special, drop = peft_rows(folder), *_ours(Path(folder))
    inner = opened(model)
    rows = SoftRows(rows.values[special:], rows.form)
    prompt, alike = peft_format.in_front(inner, template, words or {}, rows, slot)
    start = peft_format.special_start(inner)
    if drop:
        warnings.warn(
            f"{folder}: its rows are those of the template's first {drop} tokens, too, which the prompt repeats; scores "
            "differ until it is trained on (load_soft reads the prompt that was exported)",
            stacklevel=2,
        )
    elif start and not special:
        warnings.warn(
            f"{folder}: PEFT reads the rows before {start}, the prompt holds them after it; scores differ until it is "
            "trained on",
            stacklevel=2,
        )
    elif not alike:
        warnings.warn(
            f"{folder}: after the rows the template is cut into other tokens than alone", stacklevel=2
        )
    return prompt


def export_peft(
    folder: str | Path,
    prompt: Prompt,
    model: Model,
    *,
    form: Form = "auto",
    samples: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write a soft prompt as an adapter that ``PeftModel.from_pretrained`` loads without this library.

    The folder also gets ``prompt.json`` and a ``README.md`` that say what to give the model beside it.

    Args:
        folder: made where it is absent; an adapter that is there is replaced.
        prompt: with rows in some of its token slots.
        model: the one they were trained with.
        form: ``PROMPT_TUNING`` where all rows stand before the data: all that stands before the data is baked in.
            ``PREFIX_TUNING`` the same as the keys and values a causal model keeps of it (larger, and nothing of it is
            computed again); the one form for rows that are keys and values. ``TRAINABLE_TOKENS`` where rows stand
            anywhere: each takes the place of a token that no text is cut into. ``LORA`` the same as a change of the
            embedding alone (larger: N x V numbers), for models whose output layer is the embedding table with a bias,
            which PEFT's trainable tokens leave out. ``auto``: ``PROMPT_TUNING`` if it can be, else whichever of the last
            two gives the same scores.
        samples: fields of examples with which the seam is tried, besides made-up ones; needed where fields are no text.

    Returns:
        The folder.

    Raises:
        InputError: the prompt cannot be said in this form; the error names the next step.
        MissingCapability: PEFT could not run this model.
    """
    from autoprompt.models.hf.adapter_files import before_the_data, on_spare_tokens
    from autoprompt.models.hf.portrait import opened

    refuse_hard(prompt)
    if form not in get_args(Form):
        raise UnknownName(
            f"form: no {form!r}{nearest(form, get_args(Form))}; forms: {', '.join(get_args(Form))}"
        )
    inner, folder = opened(model), Path(folder)
    _refuse_foreign(folder)
    if prompt.has_prefix:
        form = "PREFIX_TUNING" if form == "auto" else form
    if form in ("PROMPT_TUNING", "PREFIX_TUNING") or prompt.has_prefix:
        adapter = before_the_data(inner, prompt, samples, form=form)
    elif form != "auto":
        adapter = on_spare_tokens(inner, prompt, samples, form=form)
    else:
        try:
            adapter = before_the_data(inner, prompt, samples)
        except (InputError, MissingCapability) as error:
            try:
                adapter = on_spare_tokens(inner, prompt, samples, form=form)
            except (InputError, MissingCapability) as other:
                raise InputError(
                    f"no form of PEFT says this prompt: {error.message}; {other.message}", hint=other.hint
                ) from None
    write_atomically(
        folder / "adapter_model.safetensors", safetensors.numpy.save(dict(adapter.tensors), {"format": "pt"})
    )
    write_json(folder / "prompt.json", adapter.reading)
    write_atomically(folder / "README.md", adapter.readme)
    write_json(folder / "adapter_config.json", adapter.config)
    return folder


def _ours(folder: Path) -> tuple[int, int]:
    """How many rows of an adapter of ours are of special tokens, and of the template's first tokens; none of another's."""
    path = folder / "prompt.json"
    reading = read_json(path, "") if path.is_file() else {}
    special, drop = (reading.get(name) for name in ("special_rows", "drop"))
    return (special if isinstance(special, int) else 0), (drop if isinstance(drop, int) else 0)


def _refuse_foreign(folder: Path) -> None:
    """Do not write over somebody else's adapter."""
    if folder.is_file():
        raise InputError(f"cannot export to {str(folder)!r}: it is a file", hint="name a folder")
    there = [name for name in _FILES if (folder / name).exists()]
    mine = "prompt.json" in there and read_json(folder / "prompt.json", "").get("form") in get_args(Form)
    if there and not mine:
        raise InputError(
            f"cannot export to {str(folder)!r}: it holds {', '.join(there)}, not written by export_peft",
            hint="choose another folder",
        )
