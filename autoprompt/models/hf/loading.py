"""Load a model and its tokenizer from a folder, the hub, or the user's own objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto import modeling_auto

from autoprompt.errors import InputError, ModelError
from autoprompt.models import Model, bundled
from autoprompt.models.hf import identity
from autoprompt.models.hf.causal import CausalModel
from autoprompt.models.hf.contexts import quiet
from autoprompt.models.hf.masked import MaskedModel
from autoprompt.models.hf.scoring import Parts
from autoprompt.models.hf.seq2seq import Seq2SeqModel
from autoprompt.models.hf.settings import Settings

Family = Literal["masked", "causal", "seq2seq"]
_AUTO: dict[Family, Any] = {
    "masked": transformers.AutoModelForMaskedLM,
    "causal": transformers.AutoModelForCausalLM,
    "seq2seq": transformers.AutoModelForSeq2SeqLM,
}
_NAMES: dict[Family, Any] = {
    "seq2seq": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    "masked": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "causal": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
}
_KINDS: dict[Family, Callable[[Parts], Model]] = {
    "masked": MaskedModel,
    "causal": CausalModel,
    "seq2seq": Seq2SeqModel,
}


@dataclass(frozen=True)
class _Source:
    """Where to load from, and what to call it in errors."""

    place: str
    name: str
    settings: Settings

    def fail(self, what: str, error: Exception, hint: str = "") -> ModelError:
        """An error of one line: what transformers said, without its stack."""
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        return ModelError(f"model {self.name!r}: cannot load its {what}: {first.strip()}", hint=hint)


def load_folder(folder: Path, settings: Settings, *, name: str) -> Model:
    """Load the model in a local folder; nothing is fetched.

    Raises:
        ModelError: it cannot be loaded, or has no language-model head.
        InputError: options that do not fit it.
    """
    source = _Source(str(folder), name, settings)
    model, tokenizer = _load(source, local=True)
    content = identity.folder_content(folder, allow_bin=settings.allow_bin)
    return _assemble(model, tokenizer, settings, name=name, content=content)


def load_hub(hub_id: str, settings: Settings, *, name: str) -> Model:
    """Load a model of the Hugging Face hub, from the local cache where it is there.

    Raises:
        ModelError: there is none of that id, or it cannot be reached or loaded.
        InputError: options that do not fit it.
    """
    model, tokenizer = _load(_Source(hub_id, name, settings), local=False)
    commit = str(model.config._commit_hash or "")
    content = f"hub {hub_id} {commit}" if commit else identity.object_content(model, tokenizer)
    return _assemble(model, tokenizer, settings, name=name, content=content, revision=commit)


def load_pair(model: Any, tokenizer: Any, settings: Settings) -> Model:
    """Use a model and tokenizer as they are: device and dtype stay, neither is changed.

    Raises:
        InputError: they are something else, the model has no language-model head, or it is an adapter of virtual tokens.
    """
    if isinstance(model, PreTrainedTokenizerBase) and isinstance(tokenizer, torch.nn.Module):
        raise InputError("model: got (tokenizer, model); give (model, tokenizer)")
    # an adapter is no PreTrainedModel, but passes on what is asked of the model in it
    is_adapter = isinstance(model, torch.nn.Module) and type(model).__module__.startswith("peft.")
    if not (isinstance(model, PreTrainedModel) or is_adapter) or not isinstance(
        tokenizer, PreTrainedTokenizerBase
    ):
        raise InputError(
            "model: a tuple must be (model, tokenizer), both from transformers "
            f"(got ({type(model).__name__}, {type(tokenizer).__name__}))"
        )
    if is_adapter:
        _refuse_virtual_tokens(model)
    content = identity.object_content(model, tokenizer)
    name = model.config.name_or_path or type(model).__name__
    return _assemble(model, tokenizer, settings, name=name, content=content)


def _refuse_virtual_tokens(adapter: Any) -> None:
    """Refuse what PEFT puts before a text in its forward: logits then stand at other places than the text's tokens, and of
    an encoder-decoder model the halves cannot be run apart. Keys and values of other models do neither.
    """
    for config in (adapter.peft_config[each] for each in adapter.active_adapters):
        harmless = config.peft_type == "PREFIX_TUNING" and not adapter.config.is_encoder_decoder
        if config.is_prompt_learning and not harmless:
            raise InputError(
                f"model: an adapter of {config.peft_type.value} puts virtual tokens before every text, so answers would "
                "be read at the wrong places",
                hint="give the base model, and the adapter as a prompt: softfiles.import_peft(folder, template, model)",
            )


def _assemble(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings,
    *,
    name: str,
    content: str,
    revision: str = "",
) -> Model:
    family = _family(model.config, [type(model).__name__, *(model.config.architectures or [])], name)
    if settings.chat:
        if family != "causal":
            raise InputError(f"model {name!r}: chat is for causal models (this one is {family})")
        if not tokenizer.chat_template:
            raise InputError(
                f"model {name!r}: chat is asked for, but the model has no chat template",
                hint="leave ?chat out",
            )
    return _KINDS[family](Parts(model, tokenizer, settings, name, content, revision))


def _family(config: Any, architectures: list[str], name: str) -> Family:
    """Which way a model reads: by its class, else (no architecture known) by its configuration."""
    for architecture in architectures:
        for family, names in _NAMES.items():
            listed = {each for entry in names.values() for each in _as_tuple(entry)}
            if architecture in listed and (family != "seq2seq" or config.is_encoder_decoder):
                return family
    if config.architectures:
        raise ModelError(
            f"model {name!r}: {config.architectures[0]} has no language-model head",
            hint="use a checkpoint of class ...ForMaskedLM, ...ForCausalLM or ...ForConditionalGeneration",
        )
    order: tuple[Family, ...] = ("seq2seq",) if config.is_encoder_decoder else ("masked", "causal")
    for family in order:
        if config.model_type in _NAMES[family]:
            return family
    raise ModelError(f"model {name!r}: no language model is known for model type {config.model_type!r}")


def _as_tuple(entry: str | tuple[str, ...]) -> tuple[str, ...]:
    return (entry,) if isinstance(entry, str) else entry


def _load(source: _Source, *, local: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    settings = source.settings
    place, revision = source.place, settings.revision or "main"
    hint = "" if local else (
        f"check the id {place!r}; offline, give a folder, or unset HF_HUB_OFFLINE to download it; "
        f"models at hand: toy{''.join(f', bundled:{each}' for each in bundled.names())}"
    )  # fmt: skip
    with quiet():
        try:
            config = AutoConfig.from_pretrained(
                place, revision=revision, local_files_only=local, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise source.fail("configuration", error, hint) from None
        family = _family(config, list(config.architectures or []), source.name)
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                place, revision=revision, local_files_only=local, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError, ImportError, TypeError) as error:
            raise source.fail("tokenizer", error, hint) from None
        model = _load_weights(source, family, config, revision, local=local, hint=hint)
    return model, tokenizer


def _load_weights(
    source: _Source, family: Family, config: Any, revision: str, *, local: bool, hint: str
) -> PreTrainedModel:
    settings = source.settings
    try:
        model, info = _AUTO[family].from_pretrained(
            source.place,
            config=config,
            revision=revision,
            local_files_only=local,
            trust_remote_code=False,
            use_safetensors=None if settings.allow_bin else True,
            dtype=_dtype(settings),
            output_loading_info=True,
        )
        model = model.to(_device(settings)).eval()
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        if "safetensors" in str(error) and not settings.allow_bin:
            hint = (
                "add ?allow_bin to the name if you trust its source: pickled weights can run code when read"
            )
        raise source.fail("weights", error, hint) from None
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"model {source.name!r}: {len(missing)} weights are missing from the checkpoint, such as "
            f"{missing[0]}, and would be random",
            hint="use a checkpoint saved with its language-model head",
        )
    return model


def _device(settings: Settings) -> str:
    if settings.device is not None:
        return settings.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _dtype(settings: Settings) -> torch.dtype:
    if settings.dtype is not None:
        return getattr(torch, settings.dtype)  # type: ignore[no-any-return]
    return torch.float32 if _device(settings) == "cpu" else torch.bfloat16
