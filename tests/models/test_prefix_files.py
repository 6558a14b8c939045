"""Keys and values in files: our own folders, and PEFT's prefix tuning, which gives alone what we score."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from autoprompt.errors import DataError, InputError, MissingCapability, TemplateError
from autoprompt.models import GradientRequest, LabelRequest, TextReply, TextRequest, TuneReply, TuneRequest
from autoprompt.prompt import Prompt
from autoprompt.soft import SoftRows, Training
from autoprompt.softfiles import about_soft, export_peft, import_peft, load_soft, peft_rows, save_soft
from tests.models import test_peft_format as plain
from tests.models.test_peft_format import FRONT, MIDDLE, TEXTS, as_readme_says, loaded, saved, theirs
from tests.models.test_prefix_tuning import moved

peft = pytest.importorskip("peft")
START = "[[ a ]] . {{ text }} It was {{ answer }}"


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> None:
    plain.HOME[:] = [tmp_path_factory.mktemp("models")]
    saved.cache_clear()
    loaded.cache_clear()


def prefixed(model: Any, template: str, seed: int | None = 0) -> Prompt:
    """The keys and values of rows near the slots' words, moved at random where there is a seed."""
    soft = plain.soft_prompt(model, template)
    asked = tuple(GradientRequest(soft.render({"text": text}), ("good", "bad"), (0,), True) for text in TEXTS)
    (reply,) = model.tune([TuneRequest(asked, (), Training(steps=1, method="prefix"))])
    assert isinstance(reply, TuneReply), reply
    return soft.softened(reply.rows if seed is None else moved(dict(reply.rows), seed, 0.5))


def ours(model: Any, prompt: Prompt, text: str) -> torch.Tensor:
    """[V] our logits where answers are read."""
    (encoded,) = model._encoded([LabelRequest(prompt.render({"text": text}), ("good",))])
    assert not encoded.problem, encoded.problem
    with model._spliced([encoded]) as (placed,), torch.no_grad():
        return torch.as_tensor(model._forward([()], [placed.rows[0]])[0, encoded.reads[0].start])


@pytest.mark.parametrize("template", [START, FRONT])
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "opt", "gemma", "qwen3"])
def test_an_adapter_gives_our_logits_and_texts(
    architecture: str, template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands before and between the slots is baked in with them."""
    model = loaded(architecture)
    prompt = prefixed(model, template)
    folder = export_peft(tmp_path / "adapter", prompt, model)
    adapter, ids_of = as_readme_says(folder, monkeypatch)
    assert type(adapter.active_peft_config).__name__ == "PrefixTuningConfig"
    for text in TEXTS:
        ids = ids_of(text=text)
        expected = ours(model, prompt, text)
        assert float((theirs(adapter, model, ids, [])[-1] - expected).abs().max()) <= 1e-5
        assert float((ours(model, prompt.hardened(), text) - expected).abs().max()) > 1e-2
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            given = adapter.generate(
                input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)).long(), max_new_tokens=8,
                do_sample=False, pad_token_id=1,
            )[0].tolist()  # fmt: skip
        request = TextRequest(prompt.render({"text": text}), 8)
        (reply,) = model.complete([request])
        assert isinstance(reply, TextReply)
        (encoded,) = model._encoded([request])
        new = model._generator.text(given[len(ids) :], request, encoded.rows[0])
        assert new.removeprefix(model._tokens.place(request.rendered).gap) == reply.text


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_an_adapter_of_ours_comes_in_again(architecture: str, tmp_path: Path) -> None:
    model = loaded(architecture)
    prompt = prefixed(model, FRONT)
    folder = export_peft(tmp_path / "adapter", prompt, model, form="PREFIX_TUNING")
    assert peft_rows(folder).form == "prefix"
    reading = json.loads((folder / "prompt.json").read_text("utf-8"))
    again = import_peft(folder, reading["template"] + "{{ answer }}", model)
    assert again.soft["soft"].form == "prefix"
    for text in TEXTS:
        assert float((ours(model, again, text) - ours(model, prompt, text)).abs().max()) <= 1e-5


@pytest.mark.parametrize("projection", [False, True])
def test_an_adapter_of_peft_scores_here_as_there_and_can_be_trained_on(
    projection: bool, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = peft.PrefixTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=5, prefix_projection=projection, encoder_hidden_size=16
        )
        adapter = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(saved("gpt2")), config).eval()
        adapter.save_pretrained(tmp_path)
    model = loaded("gpt2")
    template = "Review: {{ text }} It was {{ answer }}"
    prompt = import_peft(tmp_path, template, model, words=plain.WORDS)
    assert prompt.soft["soft"].shape == (5, 128)
    for text in TEXTS:
        rendered = Prompt(template).render({"text": text})
        ids = list(model._encoded([LabelRequest(rendered, ("good",))])[0].rows[0])
        given = theirs(adapter, model, ids, [])[-1]
        assert float((given - ours(model, prompt, text)).abs().max()) <= 1e-5
    asked = GradientRequest(prompt.render({"text": TEXTS[0]}), ("good", "bad"), (0,), True)
    (reply,) = model.tune([TuneRequest((asked,), ((0,),) * 3, Training(steps=3, method="prefix"))])
    assert isinstance(reply, TuneReply)
    assert reply.losses[-1] < reply.losses[0]


def test_what_no_adapter_says_is_refused(tmp_path: Path) -> None:
    model, folder = loaded("gpt2"), tmp_path / "adapter"
    prompt = prefixed(model, START)
    for form in ("PROMPT_TUNING", "TRAINABLE_TOKENS", "LORA"):
        with pytest.raises(InputError, match=r"(?s)keys and values.*PREFIX_TUNING"):
            export_peft(folder, prompt, model, form=form)
    late = plain.soft_prompt(model, MIDDLE).softened({"a": prompt.soft["a"]})
    with pytest.raises(TemplateError, match=r"(?s)stand after.*save_soft"):
        export_peft(folder, late, model)
    masked = loaded("bert")
    with pytest.raises(MissingCapability, match="save_soft"):
        export_peft(folder, prefixed(masked, START), masked)
    assert not folder.exists()
    config = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 2, "num_layers": 3, "token_dim": 32}
    export_peft(folder, prompt, model)
    known = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    (folder / "adapter_config.json").write_text(json.dumps({**known, **config}), "utf-8")
    with pytest.raises(DataError, match="do not fit"):
        peft_rows(folder)
    (folder / "adapter_config.json").write_text(json.dumps(known), "utf-8")
    with pytest.raises(MissingCapability, match="do not fit model"):
        import_peft(folder, "{{ text }} It was {{ answer }}", loaded("llama"))


def test_our_own_folder_keeps_them(tmp_path: Path) -> None:
    model = loaded("gpt2")
    prompt = prefixed(model, FRONT)
    mixed = prompt.softened({"a": plain.soft_prompt(model, FRONT).soft["a"]})
    for each in (prompt, mixed):
        folder = save_soft(tmp_path / "soft", each, model, {"accuracy": 0.5})
        again = load_soft(folder, model)
        assert again == each
        assert {name: rows.form for name, rows in again.soft.items()} == {
            name: rows.form for name, rows in each.soft.items()
        }
        assert about_soft(folder)["accuracy"] == 0.5
        assert torch.equal(ours(model, again, TEXTS[0]), ours(model, each, TEXTS[0]))
    content = json.loads((folder / "soft.json").read_text("utf-8"))
    assert content["rows"]["forms"] == {"b": "prefix"}
    content["rows"]["forms"] = {}
    (folder / "soft.json").write_text(json.dumps(content), "utf-8")
    with pytest.raises(DataError, match="does not give the prompt that was saved"):
        load_soft(folder)
    rows = save_soft(tmp_path / "rows", plain.soft_prompt(model, FRONT), model)
    assert "forms" not in json.loads((rows / "soft.json").read_text("utf-8"))["rows"]
    narrow = prompt.softened({"a": SoftRows(prompt.soft["a"].values[:, :32], "prefix")})
    with pytest.raises(MissingCapability, match="do not fit model"):
        save_soft(tmp_path / "narrow", narrow, model)
