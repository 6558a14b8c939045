"""Loading Hugging Face models, and what makes two of them the same."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from autoprompt.errors import InputError, ModelError
from autoprompt.models import (
    CompletingModel,
)
from autoprompt.models.hf.loading import load_pair
from autoprompt.models.hf.settings import Settings
from autoprompt.models.load import load_model
from tests.models.tiny import make_model, one, prompt


class TestIdentity:
    def test_equal_content_has_one_fingerprint(self) -> None:
        model, tokenizer = make_model("gpt2")
        first = load_model((model, tokenizer))
        tokenizer(["a", "b b"], padding=False, truncation=True, max_length=4)  # leaves state in the tokenizer
        second = load_model((copy.deepcopy(model), copy.deepcopy(tokenizer)))
        assert first.fingerprint == second.fingerprint

    def test_what_changes_scores_changes_the_fingerprint(self) -> None:
        model, tokenizer = make_model("gpt2")
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.transformer.wte.weight[3, 3] += 1e-3
        words = copy.deepcopy(tokenizer)
        words.add_tokens(["greatest"])
        activation = copy.deepcopy(model)
        activation.config.activation_function = "relu"
        variants = [
            load_model((model, tokenizer)),
            load_model((other, tokenizer)),
            load_model((model, words)),
            load_model((activation, tokenizer)),
            load_pair(model, tokenizer, Settings(max_length=50)),
            load_pair(copy.deepcopy(model).to(torch.bfloat16), tokenizer, Settings()),
        ]
        assert len({variant.fingerprint for variant in variants}) == len(variants)

    def test_a_folder_is_its_content_not_its_path(self, tmp_path: Path) -> None:
        model, tokenizer = make_model("gpt2")
        model.save_pretrained(tmp_path / "one")
        tokenizer.save_pretrained(tmp_path / "one")
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        one_, two = load_model(str(tmp_path / "one")), load_model(tmp_path / "two")
        assert one_.fingerprint == two.fingerprint
        assert one_.fingerprint != load_model(f"{tmp_path / 'one'}?dtype=bfloat16").fingerprint
        with torch.no_grad():
            changed = copy.deepcopy(model)
            changed.transformer.wte.weight[3, 3] += 1e-3
        changed.save_pretrained(tmp_path / "two")
        assert load_model(tmp_path / "two").fingerprint != one_.fingerprint
        expected = one(load_model((model, tokenizer)), prompt("the film"), "good")
        assert one(one_, prompt("the film"), "good").log_probs == pytest.approx(expected.log_probs, abs=1e-5)


class TestLoading:
    def save(self, folder: Path, model: Any, tokenizer: Any) -> str:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    def test_the_class_follows_the_architecture(self, tmp_path: Path) -> None:
        for architecture, kind in (
            ("bert", "masked"),
            ("opt", "causal"),
            ("bart", "seq2seq"),
            ("t5", "seq2seq"),
        ):
            folder = self.save(tmp_path / architecture, *make_model(architecture))
            model = load_model(folder)
            assert model.kind == kind
            assert isinstance(model, CompletingModel) == (kind != "masked")

    def test_a_checkpoint_without_a_head_is_refused(self, tmp_path: Path) -> None:
        model, tokenizer = make_model("bert")
        headless = self.save(tmp_path / "a", model.bert, tokenizer)
        with pytest.raises(ModelError, match="BertModel has no language-model head"):
            load_model(headless)
        folder = tmp_path / "b"
        self.save(folder, model.bert, tokenizer)
        config = (folder / "config.json").read_text().replace("BertModel", "BertForMaskedLM")
        (folder / "config.json").write_text(config)
        with pytest.raises(ModelError, match="weights are missing"):
            load_model(str(folder))

    def test_what_cannot_be_read_is_one_line(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        folder = self.save(tmp_path / "a", *make_model("gpt2"))
        capfd.readouterr()  # saving has a progress bar
        (tmp_path / "a" / "model.safetensors").write_bytes(b"nothing of the kind")
        with pytest.raises(ModelError, match="cannot load its weights"):
            load_model(folder)
        with pytest.raises(ModelError, match="cannot load its configuration") as caught:
            load_model("nobody/no-such-model")
        assert "HF_HUB_OFFLINE" in str(caught.value)
        assert caught.value.__cause__ is None
        assert "".join(capfd.readouterr()) == ""

    def test_pickled_weights_need_the_users_word(self, tmp_path: Path) -> None:
        model, tokenizer = make_model("gpt2")
        self.save(tmp_path, model, tokenizer)
        (tmp_path / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
        with pytest.raises(InputError, match="allow_bin"):
            load_model(tmp_path)
        loaded = load_model(f"{tmp_path}?allow_bin")
        expected = one(load_model((model, tokenizer)), prompt("x"), "good")
        assert one(loaded, prompt("x"), "good").log_probs == pytest.approx(expected.log_probs, abs=1e-5)

    def test_pairs_are_checked(self) -> None:
        model, tokenizer = make_model("gpt2")
        with pytest.raises(InputError, match=r"got \(tokenizer, model\)"):
            load_model((tokenizer, model))
        with pytest.raises(InputError, match="needs its tokenizer"):
            load_model(model)
        with pytest.raises(ModelError, match="no language-model head"):
            load_model((make_model("bert")[0].bert, make_model("bert")[1]))
