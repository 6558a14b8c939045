"""From a spec to a model, and all that is refused before anything is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from autoprompt.errors import InputError, UnknownName
from autoprompt.models import CompletingModel, Model, ScoringModel
from autoprompt.models.function import FunctionModel
from autoprompt.models.hf.settings import Settings
from autoprompt.models.load import check_model, load_model
from autoprompt.models.toy import ToyModel


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Looks like a model's folder."""
    place = tmp_path / "my-model"
    place.mkdir()
    (place / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    (place / "model.safetensors").write_bytes(b"")
    (place / "tokenizer.json").write_text("{}")
    return place


def test_names_and_objects() -> None:
    toy = load_model("toy")
    assert isinstance(toy, ToyModel)
    assert load_model(toy) is toy
    function = load_model(str.upper)
    assert isinstance(function, FunctionModel)
    assert isinstance(function, CompletingModel)
    assert not isinstance(function, ScoringModel)
    assert isinstance(toy, Model)


@pytest.mark.parametrize(
    ("spec", "error", "match"),
    [
        ("", InputError, "empty"),
        ("toy?chat", InputError, "no options"),
        ("bundled:nothing-like-it", UnknownName, "no bundled model"),
        ("gpt2?cht", UnknownName, "did you mean 'chat'"),
        ("gpt2?chat&chat", InputError, "twice"),
        ("gpt2?chat=maybe", InputError, "flag"),
        ("gpt2?max_length=many", InputError, "whole number"),
        ("gpt2?max_length=0", InputError, "at least 1"),
        ("gpt2?dtype=float23", UnknownName, "did you mean 'float32'"),
        ("gpt2?device=gpu", InputError, "cuda"),
        ("gpt2?revision=", InputError, "needs a value"),
        ("./nowhere/at/all", UnknownName, "no such folder"),
        ("opneai:gpt@http://x", UnknownName, "not a model"),
        (3, InputError, "cannot use a int"),
        (ToyModel, InputError, "give an instance"),
        ((1,), InputError, "model, tokenizer"),
        ((1, 2), InputError, "from transformers"),
    ],
)
def test_bad_specs_are_refused_without_loading(spec: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        check_model(spec)
    with pytest.raises(error, match=match):
        load_model(spec)


def test_good_specs_pass(folder: Path) -> None:
    for spec in (
        "toy",
        "gpt2",
        "org/model?chat&max_length=512&dtype=bfloat16&device=cuda:1&revision=v1.0",
        str.upper,
    ):
        check_model(spec)
    check_model(folder)
    check_model(f"{folder}?max_length=64&batch_tokens=512&allow_bin=false")


def test_options() -> None:
    query = (
        "chat&max_length=512&dtype=bfloat16&device=cuda&revision=refs/pr/1&batch_tokens=2048&allow_bin=true"
    )
    assert Settings.parse(query, where="x") == Settings(
        chat=True,
        max_length=512,
        dtype="bfloat16",
        device="cuda",
        revision="refs/pr/1",
        batch_tokens=2048,
        allow_bin=True,
    )
    assert Settings.parse("", where="x") == Settings()


def test_folders_are_looked_into(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownName, match="did you mean 'my-model'"):
        check_model(str(folder.parent / "my-modle"))
    with pytest.raises(InputError, match="is a file"):
        check_model(str(folder / "config.json"))
    with pytest.raises(InputError, match=r"no config\.json") as caught:
        check_model(folder.parent)
    assert "my-model" in str(caught.value)
    with pytest.raises(InputError, match="revision"):
        check_model(f"{folder}?revision=main")
    with pytest.raises(InputError, match="no chat template"):
        check_model(f"{folder}?chat")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "x"}))
    check_model(f"{folder}?chat")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(InputError, match="no tokenizer"):
        check_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="no weights"):
        check_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"cannot read config\.json"):
        check_model(folder)
    (folder / "config.json").rename(folder / "adapter_config.json")
    with pytest.raises(InputError, match="PEFT adapter"):
        check_model(folder)


def test_checking_imports_no_torch(folder: Path) -> None:
    code = (
        "import sys; from autoprompt.models.load import check_model, load_model\n"
        f"check_model({str(folder)!r}); check_model('gpt2?chat'); load_model('toy'); load_model(str.upper)\n"
        "print(sorted({'torch', 'transformers', 'tokenizers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
