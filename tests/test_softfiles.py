"""Our own files of soft prompts: all of it comes back, or an error says what is wrong."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from autoprompt.errors import DataError, InputError, MissingCapability
from autoprompt.models import LabelReply, LabelRequest
from autoprompt.models.hf.portrait import differences, opened, portrait
from autoprompt.models.hf.spare_tokens import unused_ids
from autoprompt.models.load import load_model
from autoprompt.prompt import Prompt
from autoprompt.soft import SoftRows
from autoprompt.softfiles import about_soft, export_peft, load_soft, save_soft
from autoprompt.template import HOLE_END, HOLE_START
from tests.conftest import ROOT
from tests.models.tiny import make_model, save_model
from tests.small import Spy

WORDS = {"pos": ("good", "great"), "neg": ("bad",)}
FRAME = "[[ a ]] said [[ c ]] : {{ text }} [ [x]] {% raw %}[[{% endraw %} . [[ b ]] , it was {{ answer }}."
SLOTS = {"a": "good film", "b": "people loved", "c": "overall"}
HOME: list[Path] = []  # where models are saved


def prompt_of(model: Any, seed: int = 0, frame: str = FRAME, slots: dict[str, str] | None = None) -> Prompt:
    """Rows in two slots, words in the third."""
    marked = frame
    for name in slots or SLOTS:
        marked = marked.replace(f"[[ {name} ]]", f"{HOLE_START}{name}{HOLE_END}")
    prompt = Prompt.of_frame(marked, slots or SLOTS, WORDS, {})
    (read,) = model.vocabulary.read([prompt.render({"text": "the film"}, with_slots=True)])
    draw = np.random.default_rng(seed)
    rows = {name: model.vocabulary.rows(ids) for name, ids in read.items() if name != "c"}
    return prompt.softened(
        {name: SoftRows(each + draw.normal(size=each.shape)) for name, each in rows.items()}
    )


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model(make_model("gpt2"))


@pytest.fixture
def folder(model: Any, tmp_path: Path) -> Path:
    return save_soft(tmp_path / "soft", prompt_of(model), model, {"accuracy": 0.875, "seed": 3})


def test_a_soft_prompt_comes_back_and_scores_the_same(model: Any, folder: Path) -> None:
    prompt, again = prompt_of(model), load_soft(folder, model)
    assert again == prompt
    assert again.key == prompt.key
    assert again.slots == prompt.slots
    assert again.frame == prompt.frame
    assert again.hardened().text == prompt.hardened().text
    asked = [LabelRequest(each.render({"text": "a dog"}), ("good", "bad")) for each in (prompt, again)]
    first, second = model.logprobs(asked)
    assert isinstance(first, LabelReply)
    assert first == second
    assert again.filled({"c": "really"}).slots["c"] == "really"


def test_the_files_can_be_read_by_people_and_by_others(model: Any, folder: Path) -> None:
    content = json.loads((folder / "soft.json").read_text("utf-8"))
    assert content["template"] == FRAME
    assert content["slots"] == SLOTS
    assert content["label_words"] == {"pos": ["good", "great"], "neg": ["bad"]}
    assert content["model"]["embedding"]["shape"] == [model.vocabulary.size, 32]
    assert HOLE_START not in (folder / "soft.json").read_text("utf-8")
    tensors = safetensors.numpy.load_file(folder / content["rows"]["file"])
    assert {name: each.dtype for name, each in tensors.items()} == {"a": np.float32, "b": np.float32}
    np.testing.assert_array_equal(tensors["a"], prompt_of(model).soft["a"].values)
    told = about_soft(folder)
    assert told["accuracy"] == 0.875
    assert told["model"]["fingerprint"] == model.fingerprint


def test_saving_again_replaces_and_leaves_nothing_behind(model: Any, folder: Path) -> None:
    other = prompt_of(model, seed=1)
    save_soft(folder, other, model)
    assert load_soft(folder, model) == other
    assert len(list(folder.iterdir())) == 2
    save_soft(folder, other, model)
    assert len(list(folder.iterdir())) == 2


def test_a_stop_between_the_two_files_leaves_the_old_prompt(
    model: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("autoprompt.softfiles.own.write_json", stopped)
    with pytest.raises(KeyboardInterrupt):
        save_soft(folder, prompt_of(model, seed=1), model)
    assert load_soft(folder, model) == prompt_of(model)


def edited(folder: Path, **changes: Any) -> None:
    path = folder / "soft.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")


def test_files_that_are_torn_or_changed_are_errors_that_teach(folder: Path) -> None:
    (rows,) = folder.glob("rows-*.safetensors")
    whole = rows.read_bytes()
    rows.write_bytes(whole[:-4])
    with pytest.raises(DataError, match=r"(?s)torn or not the file.*hint"):
        load_soft(folder)
    rows.unlink()
    with pytest.raises(DataError, match=r"no such file, but soft\.json names it"):
        load_soft(folder)
    rows.write_bytes(whole)
    content = json.loads((folder / "soft.json").read_text("utf-8"))
    edited(folder, template=content["template"].replace("said", "wrote"))
    with pytest.raises(DataError, match="does not give the prompt that was saved"):
        load_soft(folder)
    edited(folder, rows={**content["rows"], "file": "../rows-01234567.safetensors"})
    with pytest.raises(DataError, match=r"rows\.file: String should match"):
        load_soft(folder)
    edited(folder, rows=content["rows"], surprise=1)
    with pytest.raises(DataError, match="surprise: Extra inputs"):
        load_soft(folder)
    edited(folder, format="autoprompt-soft/9")
    with pytest.raises(DataError, match="'autoprompt-soft/9', this version reads 'autoprompt-soft/1'"):
        load_soft(folder)
    (folder / "soft.json").write_text("{", "utf-8")
    with pytest.raises(DataError, match="no JSON"):
        load_soft(folder)
    (folder / "soft.json").write_text("[]", "utf-8")
    with pytest.raises(DataError, match="expected a mapping"):
        load_soft(folder)
    with pytest.raises(DataError, match=r"(?s)no such folder.*save_soft"):
        load_soft(folder / "none")


def test_other_people_s_files_are_not_written_over(model: Any, tmp_path: Path) -> None:
    (tmp_path / "soft.json").write_text('{"mine": 1}', "utf-8")
    with pytest.raises(InputError, match=r"(?s)not written by this version.*another folder"):
        save_soft(tmp_path, prompt_of(model), model)
    assert json.loads((tmp_path / "soft.json").read_text("utf-8")) == {"mine": 1}
    with pytest.raises(InputError, match="it is a file"):
        save_soft(tmp_path / "soft.json", prompt_of(model), model)
    assert len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_saved_says_so(model: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no soft rows"):
        save_soft(tmp_path, prompt_of(model).hardened(), model)
    with pytest.raises(InputError, match="about: cannot be written"):
        save_soft(tmp_path, prompt_of(model), model, {"loss": float("nan")})
    with pytest.raises(MissingCapability, match="embeddings can be read"):
        save_soft(tmp_path, prompt_of(model), Spy())
    narrow = prompt_of(model).softened({"a": SoftRows([[1.0, 2.0]])})
    with pytest.raises(InputError, match=r"slot 'a': its rows are 2 wide, but the embeddings of .* 32"):
        save_soft(tmp_path, narrow, model)
    twice = prompt_of(
        model, frame="{% raw %}[[ a ]]{% endraw %} [[ b ]] {{ text }} {{ answer }}", slots={"b": "loved"}
    )
    load_soft(save_soft(tmp_path / "fine", twice, model), model)
    marked = Prompt.of_frame(
        f"[[ b ]] {HOLE_START}b{HOLE_END} {{{{ text }}}} {{{{ answer }}}}", {"b": "loved"}, {}, {}
    )
    with pytest.raises(InputError, match=r"(?s)holds '\[\[ b \]\]' as it stands.*name the slot otherwise"):
        save_soft(tmp_path / "other", marked.softened({"b": SoftRows(np.ones((1, 32), np.float32))}), model)
    assert [each.name for each in tmp_path.iterdir()] == ["fine"]


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> None:
    HOME[:] = [tmp_path_factory.mktemp("models")]


@functools.cache
def saved(architecture: str) -> Path:
    return save_model(architecture, HOME[0])


def log_probs(model: Any, prompt: Prompt) -> tuple[float, ...]:
    (reply,) = model.logprobs([LabelRequest(prompt.render({"text": "a dog"}), ("good", "bad"))])
    assert isinstance(reply, LabelReply)
    return reply.log_probs


def test_a_model_is_known_again_by_what_it_is(tmp_path: Path) -> None:
    """Elsewhere, as an object, or in another precision it is the same; fine-tuned it is not."""
    model = opened(load_model(saved("bert")))
    saved_as = portrait(model)
    shutil.copytree(saved("bert"), tmp_path / "moved")
    moved = opened(load_model(tmp_path / "moved"))
    assert differences(saved_as, portrait(moved)) == []
    prompt = prompt_of(model)
    save_soft(tmp_path / "soft", prompt, model)
    assert load_soft(tmp_path / "soft", moved) == prompt
    assert log_probs(moved, prompt) == log_probs(model, prompt)
    for dtype in ("bfloat16", "float16"):
        other = opened(load_model(f"{tmp_path / 'moved'}?dtype={dtype}"))
        assert differences(saved_as, portrait(other)) == []
        assert differences(portrait(other), saved_as) == []
        assert load_soft(tmp_path / "soft", other) == prompt
    with torch.no_grad():
        for name, weight in moved._model.named_parameters():
            if "layer.1" in name:
                weight += 1e-3
    (found,) = differences(saved_as, portrait(opened(load_model((moved._model, moved._parts.tokenizer)))))
    assert "fine-tuned" in found


def test_another_model_is_refused_with_what_differs(model: Any, folder: Path) -> None:
    other: Any = load_model(make_model("gpt2", seed=1))
    with pytest.raises(InputError, match=r"(?s)input embeddings \(saved: RMS .*hint: load") as caught:
        load_soft(folder, other)
    assert "tokenizer" not in caught.value.message
    with pytest.raises(
        InputError, match=r"kind \(saved: causal, here: masked\).*tokenizer.*input embeddings"
    ):
        load_soft(folder, load_model(make_model("bert")))


def test_a_chat_template_belongs_to_what_was_trained(tmp_path: Path) -> None:
    shutil.copytree(saved("gpt2"), tmp_path / "chat")
    (tmp_path / "chat" / "chat_template.jinja").write_text("<s>{{ messages[0].content }}</s>", "utf-8")
    plain, chatty = load_model(tmp_path / "chat"), load_model(f"{tmp_path / 'chat'}?chat")
    prompt = prompt_of(chatty)
    folder = save_soft(tmp_path / "soft", prompt, chatty)
    assert load_soft(folder, chatty) == prompt
    with pytest.raises(InputError, match=r"chat \(saved: True, here: False\)"):
        load_soft(folder, plain)
    with pytest.raises(InputError, match=r"(?s)a chat template stands around.*\?chat"):
        export_peft(tmp_path / "adapter", prompt, chatty)


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "t5"])
def test_the_object_and_the_folder_are_one_model(architecture: str) -> None:
    pair, folder = (opened(load_model(each)) for each in (make_model(architecture), saved(architecture)))
    assert differences(portrait(folder), portrait(pair)) == []


def test_spare_tokens_are_rows_behind_the_last_then_placeholders() -> None:
    model, tokenizer = make_model("bert")
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    size = len(state["model"]["vocab"])
    state["model"]["vocab"]["[unused0]"] = size
    names = {"unk_token": "[UNK]", "mask_token": "[MASK]", "pad_token": "[PAD]"}
    again = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), **names)
    again.add_tokens(["<unused1>"])
    inner: Any = load_model((model, again))
    assert again.convert_tokens_to_ids("<unused1>") == size + 1
    assert unused_ids(inner, 3) == (
        size + 2,
        size,
        size + 1,
    )  # behind the last; never cut into; only if spelled out
    with pytest.raises(InputError, match="has 3 tokens that stand for nothing, but the prompt has 4"):
        unused_ids(inner, 4)


def test_reading_without_a_model_loads_nothing_heavy(folder: Path) -> None:
    code = (
        "import sys; from autoprompt.softfiles import load_soft; print(load_soft(sys.argv[1]).key); "
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == load_soft(folder).key
