"""A run's soft prompt from its folder: evaluated, refused for another model, exported as an adapter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import autoprompt
from autoprompt.command import export_adapter
from autoprompt.errors import InputError
from autoprompt.strategies.soft import Soft
from tests.command_line import enter, ok, refused
from tests.test_token_search import model_of, reviews

FRONT = {
    "title": "rows in front",
    "template": "[[ trigger ]] {{ text }} . It was {{ answer }}",
    "slots": {"trigger": {"tokens": {"n": 3, "policy": "any"}}},
}


def trained(folder: Path) -> autoprompt.Result:
    space = autoprompt.SearchSpace.from_dict(FRONT)
    strategy = Soft(seeds=1, steps=4, every=2)
    return autoprompt.optimize(
        reviews(), model_of("gpt2"), 800, space=space, strategy=strategy, run_dir=folder
    )


def test_the_folder_scores_what_was_reported_and_knows_its_model(tmp_path: Path) -> None:
    result = trained(tmp_path / "run")
    assert result.soft is not None
    assert result.soft_test is not None
    again = autoprompt.evaluate(reviews(), model_of("gpt2"), tmp_path / "run" / "soft")
    assert again.prompt.key == result.soft.key
    assert again.estimate.value == result.soft_test.value
    with pytest.raises(InputError, match="trained with"):
        autoprompt.evaluate(reviews(), model_of("llama"), str(tmp_path / "run" / "soft"))
    with pytest.raises(InputError, match="holds soft rows"):
        autoprompt.find_label_words(reviews(), model_of("gpt2"), prompt=result.soft)
    both = autoprompt.evaluate(reviews(), model_of("gpt2"), [tmp_path / "run" / "soft", result.candidate])
    assert len(both.prompts) == 2


def test_commands_take_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(tmp_path, monkeypatch)
    space, run = tmp_path / "front.yaml", str(tmp_path / "run")
    space.write_text(json.dumps({"format": "autoprompt-space/1", **FRONT}), "utf-8")
    model = ("--model", "bundled:causal")
    done = ok(
        *("optimize", "mine", *model, "--strategy", "soft", "--budget", "300", "--space", str(space)),
        *("--run-dir", run, "--quiet"),
    )
    assert "discretisation gap" in done.output
    about = json.loads((tmp_path / "run" / "soft" / "soft.json").read_text("utf-8"))["about"]
    told = f"accuracy {100 * about['test']['value']:.1f}"
    for given in (f"{run}/soft", f"{run}/soft/soft.json"):
        assert told in ok("evaluate", "mine", *model, "--prompt", given).output
    ok("export", run, "--peft", str(tmp_path / "adapter"))
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text("utf-8"))
    assert config["peft_type"] == "PROMPT_TUNING"
    said = refused(2, "evaluate", "mine", *model, "--prompt", str(tmp_path / "adapter"))
    assert "import_peft(folder, template, model)" in said
    assert "--peft FOLDER" in refused(2, "export", run)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    ok("export", run, "--peft", "again")
    assert (tmp_path / "elsewhere" / "again" / "adapter_config.json").is_file()


def test_a_run_without_rows_has_no_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    enter(tmp_path, monkeypatch)
    ok("optimize", "mine", "--model", "toy", "--budget", "100", "--run-dir", str(run), "--quiet")
    with pytest.raises(InputError, match="has no soft prompt"):
        export_adapter(run, tmp_path / "adapter")
