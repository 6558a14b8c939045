"""What stands in the folder of a PEFT adapter: its configuration, its tensors, and how a user reads a prompt with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprompt.errors import InputError, MissingCapability
from autoprompt.models import Kind
from autoprompt.models.hf.peft_format import Baked, Fields, bake, keys_and_values
from autoprompt.models.hf.scoring import HuggingFaceModel
from autoprompt.models.hf.spare_tokens import Spared, has_biased_tied_head, spare
from autoprompt.prompt import Prompt

FORMAT = "autoprompt-peft/1"
# Without a task type PEFT loads an adapter and reads nothing of it; it knows none for masked models.
_TASKS: dict[Kind, str] = {
    "causal": "CAUSAL_LM",
    "seq2seq": "SEQ_2_SEQ_LM",
    "masked": "FEATURE_EXTRACTION",
}
_AUTO: dict[Kind, str] = {
    "causal": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "masked": "AutoModelForMaskedLM",
}


@dataclass(frozen=True)
class Adapter:
    """The files of an adapter.

    Attributes:
        config: ``adapter_config.json``.
        tensors: ``adapter_model.safetensors``.
        reading: ``prompt.json``: what to give the model beside the adapter.
        readme: the same for people, with code.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, NDArray[np.float32]]
    reading: Mapping[str, Any]
    readme: str


def before_the_data(
    model: HuggingFaceModel, prompt: Prompt, samples: Sequence[Fields], *, form: str = "PROMPT_TUNING"
) -> Adapter:
    """All that stands before the data as rows of prompt tuning, or as the keys and values a causal model keeps of them.

    Raises:
        TemplateError: rows stand after the data, or there is no seam between the two.
        MissingCapability: PEFT would read the rest otherwise than the model.
    """
    if form == "PREFIX_TUNING" and model.kind != "causal":
        raise MissingCapability(
            f"model {model.name!r}: PEFT puts keys and values before what a decoder writes, but the prompt of a "
            f"{model.kind} model is what an encoder reads",
            hint="save_soft keeps them for this library"
            if prompt.has_prefix
            else 'export with form="PROMPT_TUNING"',
        )
    if prompt.has_prefix and form != "PREFIX_TUNING":
        raise _only_as_prefix(form)
    baked = bake(model, prompt, samples)
    values, own = baked.rows, model._model.config.get_text_config()
    length, width = values.shape
    # PEFT wants a number of heads, and reads it for keys and values only; Mamba and FNet have none
    heads, layers, extra = getattr(own, "num_attention_heads", 1), own.num_hidden_layers, {}
    if form == "PREFIX_TUNING":
        kept = keys_and_values(model, baked)
        _, layers, _, heads, of_head = kept.shape
        values, width = kept.reshape(length, -1), heads * of_head
        extra = {"encoder_hidden_size": width, "prefix_projection": False}
    else:  # RANDOM, so that no tokenizer is asked for
        extra = {
            "prompt_tuning_init": "RANDOM",
            "prompt_tuning_init_text": None,
            "tokenizer_name_or_path": None,
        }
    config = {
        **_config(model, form),
        "num_virtual_tokens": length,
        "token_dim": width,
        "num_transformer_submodules": 1,  # PEFT's default of 2 for encoder-decoder models is never read
        "num_attention_heads": heads,
        "num_layers": layers,
        **extra,
    }
    reading = {
        **_reading(model, prompt, form),
        "template": baked.rest,
        "drop": baked.drop,
        "closing_ids": list(baked.closing),
        "baked": baked.text,
        "special_rows": baked.special,
    }
    return Adapter(config, {"prompt_embeddings": values}, reading, _baked_readme(model, prompt, baked, form))


def on_spare_tokens(
    model: HuggingFaceModel, prompt: Prompt, samples: Sequence[Fields], *, form: str
) -> Adapter:
    """Rows in place of tokens that no text is cut into, as ``form`` says: TRAINABLE_TOKENS, LORA, or whichever leaves
    the other tokens' logits alone.

    Raises:
        InputError: the form changes other tokens' logits, or there are too few such tokens.
        TemplateError: the rows cannot be put in place from outside.
    """
    if prompt.has_prefix:
        raise _only_as_prefix(form)
    biased = has_biased_tied_head(model)
    if form == "auto":
        form = "LORA" if biased else "TRAINABLE_TOKENS"
    if form == "TRAINABLE_TOKENS" and biased:
        raise InputError(
            f"model {model.name!r}: its output layer is the embedding table with a bias, which PEFT's trainable tokens "
            "leave out, so that every logit would change",
            hint='export with form="LORA", or form="auto"',
        )
    spared = spare(model, prompt, samples)
    ids = [each for some in spared.ids.values() for each in some]
    key = f"base_model.model.{spared.module}"
    config = {**_config(model, form), "target_modules": [spared.module]}
    if form == "LORA":
        config |= {"r": len(ids), "lora_alpha": len(ids), "lora_dropout": 0.0, "bias": "none"}
        picked = np.zeros((len(ids), model.vocabulary.size), np.float32)
        picked[np.arange(len(ids)), ids] = 1
        tensors = {f"{key}.lora_embedding_A": picked, f"{key}.lora_embedding_B": _change(spared).T.copy()}
    else:
        config |= {"token_indices": ids, "init_weights": True}
        tensors = {f"{key}.trainable_tokens_delta": spared.rows}
    reading = {
        **_reading(model, prompt, form),
        "template": spared.template,
        "rows": {
            name: {"anchor": prompt.slots[name], "ids": list(some)} for name, some in spared.ids.items()
        },
        "opening_ids": list(spared.opening),
        "closing_ids": list(spared.closing),
    }
    return Adapter(config, tensors, reading, _spared_readme(model, prompt, spared, form))


def _only_as_prefix(form: str) -> InputError:
    return InputError(
        f"prompt: holds keys and values, which no adapter of form {form} does",
        hint='export with form="PREFIX_TUNING", or save_soft',
    )


def _change(spared: Spared) -> NDArray[np.float32]:
    """[N, D] what added to the table's rows in float32 gives ours, as near as can be."""
    change = (spared.rows.astype(np.float64) - spared.own).astype(np.float32)
    for _ in range(2):  # the sum is rounded: take up what is left
        change += spared.rows - (spared.own + change)
    return change


def _config(model: HuggingFaceModel, form: str) -> dict[str, Any]:
    return {
        "peft_type": form,
        "task_type": _TASKS[model.kind],
        "base_model_name_or_path": model._model.name_or_path or None,
        "revision": model.revision or None,
        "inference_mode": True,
        "auto_mapping": None,
    }


def _reading(model: HuggingFaceModel, prompt: Prompt, form: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "form": form,
        "model": {
            "name": model.name,
            "revision": model.revision,
            "kind": model.kind,
            "fingerprint": model.fingerprint,
        },
        "fields": sorted(prompt.fields()),
        "label_words": {label: list(words) for label, words in prompt.words.items()},
        "add_special_tokens": False,
    }


_HEAD = """# A soft prompt as a PEFT adapter ({form})

Written by autoprompt for the model `{name}`{revision}; with any other model it means nothing.

```python
import json

from jinja2.sandbox import SandboxedEnvironment
from peft import PeftModel
from transformers import {auto}, AutoTokenizer

BASE = {base}
tokenizer = AutoTokenizer.from_pretrained(BASE)
model = PeftModel.from_pretrained({auto}.from_pretrained(BASE), ".").eval()  # "." is this folder
with open("prompt.json", encoding="utf-8") as file:
    reading = json.load(file)
template = SandboxedEnvironment(keep_trailing_newline=True).from_string(reading["template"])
"""
_BAKED = """

def ids_of(**fields):
    {text}
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids[reading["drop"]:] + reading["closing_ids"]
```

- {count} {what} read before these ids; they stand for `{baked}`: special tokens, text, and the soft rows in their
  places. Add no special tokens of your own.{drop}
- {place}.
- Pad on the right, or run texts one at a time: PEFT passes no `position_ids` on, so that left padding shifts the text.
"""
_DROP = """
- The tokenizer would cut what follows otherwise if it stood alone. So the whole text is cut up, and its first {drop}
  tokens, which are among the rows, are left out."""
_SPARED = """

def ids_of(**fields):
    marks = {{f"soft_{{name}}": f"\\ue000{{name}}\\ue001" for name in reading["rows"]}}
    text = template.render(**fields, **marks{answer})
    whole, regions = "", []
    for at, part in enumerate(re.split("\\ue000(.*?)\\ue001", text{strip})):
        if at % 2:
            row = reading["rows"][part]
            regions.append((len(whole), len(whole) + len(row["anchor"]), row["ids"]))
            part = row["anchor"]
        whole += part
    cut = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    ids = cut["input_ids"]
    for start, end, new in regions:
        inside = [at for at, (a, b) in enumerate(cut["offset_mapping"]) if whole[max(a, start):min(b, end)].strip()]
        assert inside[-1] - inside[0] + 1 == len(new)
        ids[inside[0]:inside[-1] + 1] = new
    return reading["opening_ids"] + ids + reading["closing_ids"]
```

- The rows are read for the tokens {ids}, which no text is cut into{spelled}. An anchor text as long as the rows is cut up
  with the whole text, since it decides how what stands beside it is cut, and its tokens are then replaced.
- {place}.
{head}"""
_VLLM = """- vLLM has no prompt adapters any more; with `--enable-prompt-embeds` it reads `prompt_embeds`: the tensor
  `prompt_embeddings` of `adapter_model.safetensors` and the model's own embeddings of the ids, one after the other.
"""


def _baked_readme(model: HuggingFaceModel, prompt: Prompt, baked: Baked, form: str) -> str:
    masked, count, tuned = model.kind == "masked", len(baked.rows), form == "PROMPT_TUNING"
    places = {
        "masked": f"Logits are {count} places longer than the ids: the mask is read at {count} + its place in the ids",
        "causal": f"Logits are {count} places longer than the ids"
        if tuned
        else "Logits stand at the places of the ids",
        "seq2seq": "The decoder's logits are as ever; the encoder's states are as many places longer",
    }
    render = "text = template.render(**fields, answer=tokenizer.mask_token)"
    body = _BAKED.format(
        text=render if masked else 'text = template.render(**fields).rstrip(" ")',
        count=count,
        what="rows are" if tuned else "rows, as the keys and values the model keeps of them, are",
        baked=json.dumps(baked.text, ensure_ascii=False),
        drop=_DROP.format(drop=baked.drop) if baked.drop else "",
        place=places[model.kind],
    )
    vllm = _VLLM if model.kind == "causal" and tuned else ""
    return _head(model, form) + body + _words(prompt) + vllm


def _spared_readme(model: HuggingFaceModel, prompt: Prompt, spared: Spared, form: str) -> str:
    masked = model.kind == "masked"
    ids = [each for some in spared.ids.values() for each in some]
    head = (
        "- Do not merge the adapter where the output layer is the embedding table, of which PEFT warns: the logits of\n"
        "  these tokens would change with it. As it is they do not.\n"
        if form == "LORA"
        else "- Where the output layer is the embedding table, the logits of these tokens change with it: leave them out\n"
        f"  (`suppress_tokens={ids}` when generating).\n"
    )
    body = _SPARED.format(
        answer=", answer=tokenizer.mask_token" if masked else "",
        strip="" if masked else '.rstrip(" ")',
        ids=ids,
        spelled=f", but one that spells out {', '.join(spared.spelled)}" if spared.spelled else "",
        place="Logits stand where they stand without the adapter",
        head=head,
    )
    return _head(model, form).replace("import json\n", "import json\nimport re\n", 1) + body + _words(prompt)


def _head(model: HuggingFaceModel, form: str) -> str:
    return _HEAD.format(
        form=form,
        name=model.name,
        revision=f" at commit {model.revision}" if model.revision else "",
        auto=_AUTO[model.kind],
        base=json.dumps(model._model.name_or_path or "the base model"),
    )


def _words(prompt: Prompt) -> str:
    if not prompt.words:
        return ""
    said = "; ".join(f"{label}: {', '.join(words)}" for label, words in prompt.words.items())
    return f"- Labels are compared by the probability of their words, spelled as they stand after the text: {said}.\n"
