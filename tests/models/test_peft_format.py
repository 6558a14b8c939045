"""Adapters of PEFT: what ``PeftModel.from_pretrained`` gives alone is what we score, and what PEFT trained comes in."""

from __future__ import annotations

import functools
import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from autoprompt.errors import DataError, InputError, MissingCapability, TemplateError, UnknownName
from autoprompt.models import LabelRequest, TextReply, TextRequest
from autoprompt.models.hf.peft_format import special_start
from autoprompt.models.load import load_model
from autoprompt.prompt import Prompt
from autoprompt.soft import SoftRows
from autoprompt.softfiles import export_peft, import_peft, load_soft, peft_rows
from autoprompt.template import HOLE_END, HOLE_START
from tests.models.tiny import SEQ2SEQ, make_tokenizer, save_model

FRONT = "Review [[ a ]] : it [[ b ]] . {{ text }} It was {{ answer }} ."
MIDDLE = "Review : {{ text }} . [[ a ]] , it was {{ answer }} ."
SLOTS = {"a": "good film", "b": "people loved"}
TEXTS = ["the film", "a slow dog and a small cat, overall,", '"bad" in 2 ways']
WORDS = {"pos": ("good",), "neg": ("bad",)}
HOME: list[Path] = []  # where models are saved
peft = pytest.importorskip("peft")


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> None:
    HOME[:] = [tmp_path_factory.mktemp("models")]


@functools.cache
def saved(architecture: str) -> Path:
    return save_model(architecture, HOME[0])


@functools.cache
def loaded(architecture: str) -> Any:
    return load_model(architecture if ":" in architecture else saved(architecture))


def soft_prompt(model: Any, template: str, seed: int = 0, fields: dict[str, Any] | None = None) -> Prompt:
    slots = {name: text for name, text in SLOTS.items() if f"[[ {name} ]]" in template}
    frame = template.replace("[[ ", HOLE_START).replace(" ]]", HOLE_END)
    prompt = Prompt.of_frame(frame, slots, WORDS, {})
    (read,) = model.vocabulary.read([prompt.render(fields or {"text": TEXTS[0]}, with_slots=True)])
    draw = np.random.default_rng(seed)
    rows = {name: model.vocabulary.rows(ids) for name, ids in read.items()}
    return prompt.softened(
        {
            name: SoftRows(each + draw.normal(size=each.shape) * model._table.unit)
            for name, each in rows.items()
        }
    )


def as_readme_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The model and ``ids_of`` of the code in a folder's README, with nothing of this library."""
    found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.DOTALL)
    assert found is not None
    assert not re.search(r"(import|from) autoprompt", found[1])
    names: dict[str, Any] = {}
    monkeypatch.chdir(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PEFT warns of is its own
        exec(compile(found[1], "README.md", "exec"), names)
    return names["model"], names["ids_of"]


def ours(model: Any, prompt: Prompt, text: str) -> tuple[torch.Tensor, int, list[int]]:
    """[T, V] logits of our own way, the place where answers are read, and the row that is read."""
    encoded = model._encoded([LabelRequest(prompt.render({"text": text}), ("good",))])
    assert not encoded[0].problem
    with model._spliced(encoded) as placed, torch.no_grad():
        logits = model._forward([placed[0].source], [placed[0].rows[0]])[0]
    return logits, encoded[0].reads[0].start, list(encoded[0].rows[0])


def theirs(adapter: Any, model: Any, ids: list[int], row: list[int]) -> torch.Tensor:
    """[T, V] logits of the adapter: of an encoder-decoder model those of the row its decoder reads."""
    given: dict[str, Any] = {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, len(ids)).long(),
    }
    if model.kind == "seq2seq":
        given["decoder_input_ids"] = torch.tensor([row])
    with torch.no_grad():
        return torch.as_tensor(adapter(**given).logits[0])


@pytest.mark.parametrize(
    "architecture",
    ["gpt2", "llama", "opt", "gemma", "t5", "bart", "bert", "roberta", "albert", "xlm-roberta",
     "bundled:causal", "bundled:masked"],
)  # fmt: skip
def test_an_adapter_of_the_front_gives_our_logits(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hybrid of special tokens, text and rows in two slots."""
    model = loaded(architecture)
    prompt = soft_prompt(model, FRONT)
    adapter, ids_of = as_readme_says(export_peft(tmp_path / "adapter", prompt, model), monkeypatch)
    assert type(adapter.active_peft_config).__name__ == "PromptTuningConfig"
    plain = prompt.hardened()
    for text in TEXTS:
        expected, place, row = ours(model, prompt, text)
        given = theirs(adapter, model, ids_of(text=text), row)
        assert given.shape == expected.shape
        assert float((given[place] - expected[place]).abs().max()) <= 1e-6
        assert float((given[place] - ours(model, plain, text)[0][place]).abs().max()) > 1e-2


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "bert", "roberta"])
def test_texts_padded_on_the_right_are_read_alike(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(architecture)
    prompt = soft_prompt(model, FRONT)
    adapter, ids_of = as_readme_says(export_peft(tmp_path / "adapter", prompt, model), monkeypatch)
    rows = [ids_of(text=text) for text in TEXTS]
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[model._pad] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    with torch.no_grad():
        logits = adapter(input_ids=ids, attention_mask=mask).logits
    for text, given in zip(TEXTS, logits, strict=True):
        expected, place, _ = ours(model, prompt, text)
        assert float((given[place] - expected[place]).abs().max()) <= 5e-6


@pytest.mark.parametrize(
    ("architecture", "template"),
    [("gpt2", FRONT), ("llama", FRONT), ("t5", FRONT), ("bart", FRONT), ("gpt2", MIDDLE), ("bart", MIDDLE)],
)
def test_generation_of_the_adapter_is_ours(
    architecture: str, template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(architecture)
    prompt = soft_prompt(model, template)
    folder = export_peft(tmp_path / "adapter", prompt, model)
    adapter, ids_of = as_readme_says(folder, monkeypatch)
    rows = json.loads((folder / "prompt.json").read_text("utf-8")).get("rows", {})
    spare = [each for row in rows.values() for each in row["ids"]]
    for text in TEXTS:
        ids = ids_of(text=text)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            given = adapter.generate(
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids)).long(),
                max_new_tokens=8,
                do_sample=False,
                pad_token_id=1,
                suppress_tokens=spare or None,
            )[0].tolist()
        new = given[1:] if model.kind == "seq2seq" else given[len(ids) :]
        request = TextRequest(prompt.render({"text": text}), 8)
        (reply,) = model.complete([request])
        assert isinstance(reply, TextReply)
        (encoded,) = model._encoded([request])
        context = () if model.kind == "seq2seq" else encoded.rows[0]
        gap = model._tokens.place(request.rendered).gap if model.kind == "causal" else ""
        assert model._generator.text(new, request, context).removeprefix(gap) == reply.text


@pytest.mark.parametrize(
    ("architecture", "form", "room"),
    [
        ("gpt2", "TRAINABLE_TOKENS", 1e-6),
        ("gpt2", "LORA", 5e-6),
        ("opt", "TRAINABLE_TOKENS", 1e-6),
        ("bart", "TRAINABLE_TOKENS", 1e-6),
        ("bert", "LORA", 5e-6),
        ("roberta", "LORA", 5e-6),
    ],
)
def test_rows_after_the_data_are_read_for_spare_tokens(
    architecture: str, form: Any, room: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(architecture)
    prompt = soft_prompt(model, MIDDLE)
    folder = export_peft(tmp_path / "adapter", prompt, model, form="auto" if architecture != "gpt2" else form)
    reading = json.loads((folder / "prompt.json").read_text("utf-8"))
    assert reading["form"] == form
    spare = reading["rows"]["a"]["ids"]
    adapter, ids_of = as_readme_says(folder, monkeypatch)
    for text in TEXTS:
        ids = ids_of(text=text)
        assert set(spare) < set(ids)
        expected, place, row = ours(model, prompt, text)
        apart = (theirs(adapter, model, ids, row)[place] - expected[place]).abs()
        if form != "LORA":
            apart[spare] = 0  # the logits of the spare tokens themselves
        assert float(apart.max()) <= room
        other, place, _ = ours(model, prompt.hardened(), text)
        assert float((other[place] - expected[place]).abs().max()) > 1e-2


def test_trainable_tokens_leave_the_bias_of_a_tied_head_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why masked models are exported otherwise; where PEFT mends it, they need not be."""
    model = loaded("bert")
    prompt = soft_prompt(model, MIDDLE)
    with pytest.raises(InputError, match=r'(?s)with a bias.*form="LORA"'):
        export_peft(tmp_path / "adapter", prompt, model, form="TRAINABLE_TOKENS")
    assert not (tmp_path / "adapter").exists()
    monkeypatch.setattr("autoprompt.models.hf.adapter_files.has_biased_tied_head", lambda _: False)
    folder = export_peft(tmp_path / "adapter", prompt, model)
    adapter, ids_of = as_readme_says(folder, monkeypatch)
    expected, place, row = ours(model, prompt, TEXTS[0])
    apart = expected[place] - theirs(adapter, model, ids_of(text=TEXTS[0]), row)[place]
    bias = model._model.get_output_embeddings().bias.detach()
    spare = json.loads((folder / "prompt.json").read_text("utf-8"))["rows"]["a"]["ids"]
    apart[spare] = bias[spare]
    assert float(bias.abs().max()) > 0.1
    assert float((apart - bias).abs().max()) < 1e-5


@pytest.mark.parametrize(
    "template",
    [
        "Review:\n[[ a ]]{{ text }} It was {{ answer }}.",
        '("[[ a ]]" {{- text | upper }}) {{ answer }}',
        "{% raw %}{{ x }}{% endraw %}{# no #} [[ a ]]: {% if text %}yes {{ text }}{% endif %} it was {{ answer }}",
    ],
)
@pytest.mark.parametrize("architecture", ["gpt2", "bert", "llama", "t5"])
def test_what_follows_is_read_as_in_the_whole(
    architecture: str, template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(architecture)
    prompt = soft_prompt(model, template)
    adapter, ids_of = as_readme_says(export_peft(tmp_path / "adapter", prompt, model), monkeypatch)
    for text in ("the film", "(bad) 2"):
        expected, place, row = ours(model, prompt, text)
        assert (
            float((theirs(adapter, model, ids_of(text=text), row)[place] - expected[place]).abs().max())
            <= 1e-6
        )


def test_what_no_adapter_can_say_is_refused(tmp_path: Path) -> None:
    model = loaded("gpt2")
    folder = tmp_path / "adapter"
    with pytest.raises(
        TemplateError, match=r"(?s)slot 'a' stand after '\{\{ text \}\} \. '.*TRAINABLE_TOKENS"
    ):
        export_peft(folder, soft_prompt(model, MIDDLE), model, form="PROMPT_TUNING")
    with pytest.raises(InputError, match="no soft rows"):
        export_peft(folder, soft_prompt(model, MIDDLE).hardened(), model)
    with pytest.raises(UnknownName, match="did you mean 'LORA'"):
        export_peft(folder, soft_prompt(model, MIDDLE), model, form="LoRA")  # type: ignore[arg-type]
    with pytest.raises(MissingCapability, match="embeddings can be read"):
        export_peft(folder, soft_prompt(model, MIDDLE), load_model("toy"))
    small = loaded("llama")
    with pytest.raises(InputError, match=r"(?s)stand after.*3 tokens that stand for nothing.*save_soft"):
        export_peft(folder, soft_prompt(small, MIDDLE), small)
    with pytest.raises(MissingCapability, match=r"(?s)before what a decoder writes.*PROMPT_TUNING"):
        export_peft(folder, soft_prompt(loaded("t5"), FRONT), loaded("t5"), form="PREFIX_TUNING")
    loop = "[[ a ]] : {% for shot in shots %}{{ shot.x }} . {% endfor %}{{ text }} it was {{ answer }}"
    fields = {"text": "the film", "shots": [{"x": "a dog"}]}
    prompt = soft_prompt(model, loop, fields=fields)
    with pytest.raises(InputError, match="samples="):
        export_peft(folder, prompt, model)
    assert not folder.exists()
    export_peft(folder, prompt, model, samples=[fields])
    assert "{% for" in json.loads((folder / "prompt.json").read_text("utf-8"))["template"]


def trained_by_peft(architecture: str, folder: Path, kind: str) -> Any:
    """An adapter as PEFT makes and saves it, its rows far from any token."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    auto = AutoModelForSeq2SeqLM if architecture in SEQ2SEQ else AutoModelForCausalLM
    task = "SEQ_2_SEQ_LM" if architecture in SEQ2SEQ else "CAUSAL_LM"
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = auto.from_pretrained(saved(architecture))
        if kind == "p-tuning":
            config = peft.PromptEncoderConfig(task_type=task, num_virtual_tokens=5, encoder_hidden_size=16)
        else:
            config = peft.PromptTuningConfig(task_type=task, num_virtual_tokens=5)
        adapter = peft.get_peft_model(base, config).eval()
        adapter.save_pretrained(folder)
    return adapter


@pytest.mark.parametrize(
    ("architecture", "kind"), [("gpt2", "prompt"), ("gpt2", "p-tuning"), ("t5", "prompt")]
)
def test_an_adapter_of_peft_scores_here_as_there(architecture: str, kind: str, tmp_path: Path) -> None:
    """T5's has rows for two submodules, of which PEFT reads the first half."""
    adapter = trained_by_peft(architecture, tmp_path, kind)
    model = loaded(architecture)
    assert peft_rows(tmp_path).shape == (5, 32)
    template = "Review: {{ text }} It was {{ answer }}"
    prompt = import_peft(tmp_path, template, model, words=WORDS)
    assert prompt.soft["soft"] == peft_rows(tmp_path)
    assert prompt.words == WORDS
    for text in TEXTS:
        ids = list(
            model._encoded([LabelRequest(Prompt(template).render({"text": text}), ("good",))])[0].rows[0]
        )
        if architecture == "t5":
            ids = list(model._tokens.whole([f"Review: {text} It was"])[0])
        expected, place, row = ours(model, prompt, text)
        given = theirs(adapter, model, ids, row)
        assert float((given[place] - expected[place]).abs().max()) <= 1e-6


@pytest.mark.parametrize(
    ("architecture", "kind"), [("gpt2", "prompt"), ("gpt2", "p-tuning"), ("t5", "prompt")]
)
def test_an_adapter_of_virtual_tokens_is_no_model(architecture: str, kind: str, tmp_path: Path) -> None:
    """Its logits are longer than the text: answers were read as many places too early as it has virtual tokens."""
    adapter = trained_by_peft(architecture, tmp_path, kind)
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved(architecture))
    with pytest.raises(InputError, match=r"(?s)virtual tokens before every text.*import_peft"):
        load_model((adapter, tokenizer))


def test_rows_before_a_special_token_come_in_with_a_warning(tmp_path: Path) -> None:
    trained_by_peft("llama", tmp_path, "prompt")
    model = loaded("llama")
    assert special_start(model) == "<s>"
    with pytest.warns(UserWarning, match="before <s>"):
        prompt = import_peft(tmp_path, "{{ text }} It was {{ answer }}", model, slot="start")
    assert set(prompt.soft) == {"start"}
    ours(model, prompt, TEXTS[0])


def test_an_adapter_whose_template_repeats_what_is_in_the_rows_comes_in_with_a_warning(
    tmp_path: Path,
) -> None:
    model = loaded("llama")
    export_peft(tmp_path, soft_prompt(model, "[[ a ]]\n{{ text }}\nIt was\n{{ answer }}"), model)
    reading = json.loads((tmp_path / "prompt.json").read_text("utf-8"))
    assert reading["drop"] > 0
    with pytest.warns(UserWarning, match=f"first {reading['drop']} tokens, too, which the prompt repeats"):
        import_peft(tmp_path, f"{reading['template']}{{{{ answer }}}}", model, words=WORDS)


def test_adapters_that_hold_no_rows_are_errors_that_teach(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)no such folder.*save_pretrained"):
        peft_rows(tmp_path / "none")
    config = {"peft_type": "LORA", "num_virtual_tokens": 5}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="type 'LORA' holds no rows"):
        peft_rows(tmp_path)
    config["peft_type"] = "PROMPT_TUNING"
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(DataError, match=r"(?s)a pickle, which could run code.*safe_serialization"):
        peft_rows(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError, match="no safetensors file"):
        peft_rows(tmp_path)
    trained_by_peft("gpt2", tmp_path, "prompt")
    with pytest.raises(MissingCapability, match="do not fit model"):
        import_peft(tmp_path, "{{ text }} {{ answer }}", loaded("opt"))
    with pytest.raises(DataError, match="import_peft"):
        load_soft(tmp_path)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen3", "opt"])
def test_keys_and_values_of_the_front_give_our_logits(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(architecture)
    prompt = soft_prompt(model, FRONT)
    folder = export_peft(tmp_path / "adapter", prompt, model, form="PREFIX_TUNING")
    adapter, ids_of = as_readme_says(folder, monkeypatch)
    for text in TEXTS:
        ids = ids_of(text=text)
        expected, place, row = ours(model, prompt, text)
        given = theirs(adapter, model, ids, row)
        assert given.shape == (len(ids), expected.shape[1])
        assert float((given[-1] - expected[place]).abs().max()) <= 5e-6
    assert peft_rows(folder).form == "prefix"


def test_a_model_without_heads_has_adapters_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mamba's configuration names no attention heads, and its layers keep no keys and values."""
    tokenizer = make_tokenizer("bytes")
    config = transformers.MambaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, state_size=4
    )
    torch.manual_seed(0)
    for part in (transformers.MambaForCausalLM(config), tokenizer):
        part.save_pretrained(tmp_path / "mamba")
    model: Any = load_model(tmp_path / "mamba")
    prompt = soft_prompt(model, FRONT)
    with pytest.raises(MissingCapability, match=r"(?s)something else.*than keys and values.*PROMPT_TUNING"):
        export_peft(tmp_path / "adapter", prompt, model, form="PREFIX_TUNING")
    adapter, ids_of = as_readme_says(export_peft(tmp_path / "adapter", prompt, model), monkeypatch)
    expected, place, row = ours(model, prompt, TEXTS[0])
    given = theirs(adapter, model, ids_of(text=TEXTS[0]), row)
    assert float((given[-1] - expected[place]).abs().max()) <= 5e-6


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "t5"])
def test_an_adapter_of_ours_comes_in_again(architecture: str, tmp_path: Path) -> None:
    """Special tokens baked in are not read twice."""
    model = loaded(architecture)
    prompt = soft_prompt(model, FRONT)
    folder = export_peft(tmp_path / "adapter", prompt, model)
    reading = json.loads((folder / "prompt.json").read_text("utf-8"))
    again = import_peft(folder, reading["template"] + "{{ answer }}", model)
    assert len(again.soft["soft"]) == len(peft_rows(folder)) - (architecture == "llama")
    for text in TEXTS:
        expected, place, _ = ours(model, prompt, text)
        given, other, _ = ours(model, again, text)
        assert float((given[other] - expected[place]).abs().max()) <= 1e-6


def test_another_s_adapter_is_not_written_over(tmp_path: Path) -> None:
    model = loaded("gpt2")
    prompt = soft_prompt(model, FRONT)
    folder = export_peft(tmp_path / "ours", prompt, model)
    export_peft(folder, soft_prompt(model, MIDDLE), model)
    trained_by_peft("gpt2", tmp_path / "theirs", "prompt")
    before = (tmp_path / "theirs" / "adapter_model.safetensors").read_bytes()
    with pytest.raises(InputError, match="holds adapter_config.json.*not written by export_peft"):
        export_peft(tmp_path / "theirs", prompt, model)
    assert (tmp_path / "theirs" / "adapter_model.safetensors").read_bytes() == before
