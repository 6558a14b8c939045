"""The commands that prepare a search: import and label-words (init is in test_cli.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoprompt.space import SearchSpace
from tests.command_line import ok, refused


def test_a_template_becomes_a_space_that_can_be_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = ok("import", "{sentence} [T] [T] [P] .", "--field", "sentence=text", "-o", "trigger.yaml")
    assert "wrote trigger.yaml" in done.stdout
    assert "read as autoprompt" in done.stderr
    space = SearchSpace.load(tmp_path / "trigger.yaml")
    assert space.spec.token_slots["trigger"].n == 2
    assert space.spec.template == "{{ text }} [[ trigger ]] {{ answer }} ."


def test_templates_come_from_files_and_words_with_them(tmp_path: Path) -> None:
    template, words = tmp_path / "template.txt", tmp_path / "words.json"
    template.write_text("*cls**sent_0*_It_was*mask*.*sep+*", "utf-8")
    words.write_text('{"0": ["\\u0120bad"], "1": ["\\u0120good"]}', "utf-8")
    done = ok(
        "import", str(template), "--field", "text", "--labels", "0,1", "--label-words", str(words), "-q"
    )
    assert "{{ text" in done.stdout
    assert "good" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["[X] is {what} [Y]"], "could be"),
        (["{text} [T] [P]", "--form", "lana"], "did you mean 'lama'"),
        (["{a} {b} [P]", "--field", "a=text", "--field", "b"], "THEIRS=OURS"),
        (["no marks"], "no mark of a known form"),
    ],
)
def test_wrong_templates_end_with_what_is_allowed(given: list[str], said: str) -> None:
    assert said in refused(2, "import", *given)


def test_label_words_are_found_measured_and_written(tmp_path: Path) -> None:
    path = tmp_path / "words.yaml"
    done = ok(
        "label-words",
        "reviews",
        "-m",
        "bundled:causal",
        "--candidates",
        "8",
        "--keep",
        "2",
        "-o",
        str(path),
        "-q",
    )
    assert "manual" in done.stdout
    content = path.read_text("utf-8")
    assert "map:" in content
    assert "tied" in content


def test_label_words_of_a_model_that_shows_none() -> None:
    assert "toy" in refused(1, "label-words", "reviews", "-m", "toy", "--json")
