"""The commands that prepare a search: import and label-words (init is in test_cli.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

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


def test_what_editors_put_at_the_ends_of_a_file_is_no_part_of_it(tmp_path: Path) -> None:
    template, words = tmp_path / "template.txt", tmp_path / "words.json"
    template.write_bytes(b"\xef\xbb\xbfReview: {text}\r\nSentiment:\r\n")
    words.write_bytes(b'\xef\xbb\xbf["bad", "good"]\r\n')
    done = ok("import", str(template), "--labels", "bad mood, good mood", "--label-words", str(words), "-q")
    content = yaml.safe_load(done.stdout)
    assert content["template"] == "Review: {{ text }}\nSentiment: {{ answer }}"
    assert content["slots"]["words"]["map"] == {"bad mood": [["bad"]], "good mood": [["good"]]}


def test_a_file_of_label_words_that_is_not_there_is_no_word(tmp_path: Path) -> None:
    missing = str(tmp_path / "words.json")
    assert "no such file" in refused(2, "import", "{text} [T] [P]", "--label-words", missing)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["[X] is {what} [Y]"], "could be"),
        (["{text} [T] [P]", "--form", "lana"], "did you mean 'lama'"),
        (["{a} {b} [P]", "--field", "a=text", "--field", "b"], "THEIRS=OURS"),
        (["no marks"], "no mark of a known form"),
        (["folder/nosuch.txt"], "folder/nosuch.txt: no such file"),
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
