from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoprompt.errors import DataError, InputError
from autoprompt.exporters import ENDINGS, FORMAT, read_prompt, write_prompt
from autoprompt.prompt import Prompt

TEXTS = [
    "{{ text }} It was {{ answer }}.",
    "Größe – 日本語 🎭 \u2028{{ text }}\n\n{{ answer }}",
    "  lead and trail {{ text }} {{ answer }}   ",
    "ends in breaks {{ text }}{{ answer }}\n\n",
    "cr {{ text }}\r\nlf\r{{ answer }}",
    "{% raw %}{{{% endraw %} braces }} {##}[[ {{ text }} {{answer}}",
    "tab\t{{ text }}\x0b\x1f{{ answer }}",
]
WORDS = {"good": ("good", "großartig"), "bad": ("bad", "} {{")}


def document(text: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "prompt": text,
        "label_words": {k: list(v) for k, v in WORDS.items()},
        "test": None,
    }


@pytest.mark.parametrize("ending", [".txt", ".jinja", ".json"])
@pytest.mark.parametrize("text", TEXTS)
def test_a_prompt_reads_back_as_it_was(tmp_path: Path, text: str, ending: str) -> None:
    files = write_prompt(tmp_path / f"best{ending}", document(text))
    assert files[0] == tmp_path / f"best{ending}"
    assert all(file.is_file() for file in files)
    assert read_prompt(files[0]) == Prompt(text, WORDS)
    assert read_prompt(str(files[-1])) == Prompt(text, WORDS)


@settings(
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_reads_back(tmp_path: Path, text: str) -> None:
    assert read_prompt(write_prompt(tmp_path / "any.txt", document(text))[0]).text == text


def test_the_text_file_holds_the_prompt_and_nothing_else(tmp_path: Path) -> None:
    write_prompt(tmp_path / "best.txt", document(TEXTS[0]))
    assert (tmp_path / "best.txt").read_bytes() == (TEXTS[0] + "\n").encode()
    assert json.loads((tmp_path / "best.json").read_text("utf-8")) == document(TEXTS[0])


@pytest.mark.parametrize("mark", ["{{ answer }}", "{{answer}}", "{{- answer -}}"])
def test_messages_end_before_the_answer(tmp_path: Path, mark: str) -> None:
    (file,) = write_prompt(tmp_path / "best.messages.json", document(f"Read: {{{{ text }}}}\nIt was {mark}."))
    content = json.loads(file.read_text("utf-8"))
    assert content == [{"role": "user", "content": "Read: {{ text }}\nIt was"}]


def test_a_text_without_a_document_is_a_prompt_without_words(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("{{ text }} {{ answer }}\n", encoding="utf-8")
    assert read_prompt(tmp_path / "mine.txt") == Prompt("{{ text }} {{ answer }}")


def test_an_edited_text_counts_with_the_words_beside_it(tmp_path: Path) -> None:
    write_prompt(tmp_path / "best.txt", document(TEXTS[0]))
    (tmp_path / "best.txt").write_text("New {{ text }} {{ answer }}", encoding="utf-8")
    assert read_prompt(tmp_path / "best.txt") == Prompt("New {{ text }} {{ answer }}", WORDS)


@pytest.mark.parametrize("name", ["best", "best.md", "best.TXT", "best.yaml"])
def test_unknown_endings_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="ending decides the form") as error:
        write_prompt(tmp_path / name, document(TEXTS[0]))
    assert all(ending in str(error.value) for ending in ENDINGS)
    assert not list(tmp_path.iterdir())


def test_somebody_elses_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('{"rows": [1, 2]}', encoding="utf-8")
    with pytest.raises(InputError, match="was not written by this library"):
        write_prompt(tmp_path / "data.txt", document(TEXTS[0]))
    assert (tmp_path / "data.json").read_text("utf-8") == '{"rows": [1, 2]}'
    assert not (tmp_path / "data.txt").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "not UTF-8 at byte 0"),
        (b"[1, 2]", "not a prompt written by this library"),
        (b"{}", "not a prompt written by this library"),
        (b"{torn", "not a prompt written by this library"),
        (b'{"format": "other/9"}', "format is 'other/9', this version reads"),
        (b'{"format": "autoprompt-prompt/1", "prompt": 3, "label_words": {}}', "must be text"),
        (b'{"format": "autoprompt-prompt/1", "prompt": "x", "label_words": {"a": "word"}}', "lists of words"),
    ],
)
def test_files_that_are_no_prompts(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_prompt(path)
    if message != "must be text":  # beside a text, only the rest of the document is read
        (tmp_path / "p.txt").write_text("{{ text }} {{ answer }}", encoding="utf-8")
        with pytest.raises(DataError, match=message):
            read_prompt(tmp_path / "p.txt")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_prompt(tmp_path / "none.txt")


def test_a_prompt_saved_by_a_windows_editor_is_the_same_prompt(tmp_path: Path) -> None:
    text = "One line\n{{ text }}\n{{ answer }}"
    path, sidecar = write_prompt(tmp_path / "best.txt", document(text))
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_prompt(path) == Prompt(text, WORDS)
    path.write_bytes(path.read_bytes().replace(b"One", b"Two"))
    assert read_prompt(path) == Prompt(text.replace("One", "Two"), WORDS)
    sidecar.unlink()
    assert read_prompt(path) == Prompt(text.replace("One", "Two"))


def test_the_label_words_of_another_file_are_not_written_over(tmp_path: Path) -> None:
    first, other = document("{{ text }} one {{ answer }}"), document("{{ text }} two {{ answer }}")
    write_prompt(tmp_path / "best.txt", first)
    write_prompt(tmp_path / "best.jinja", first)  # the same prompt in another form
    for ending in (".jinja", ".json", ".txt"):
        with pytest.raises(InputError, match="which is another prompt") as told:
            write_prompt(
                tmp_path / f"best{ending}", {**first, "label_words": {"good": ["no"], "bad": ["yes"]}}
            )
        assert "another name" in told.value.hint
    assert read_prompt(tmp_path / "best.txt") == Prompt(first["prompt"], WORDS)
    (tmp_path / "best.jinja").unlink()
    write_prompt(tmp_path / "best.txt", other)
    assert read_prompt(tmp_path / "best.txt") == Prompt(other["prompt"], WORDS)


def test_a_byte_order_mark_is_no_part_of_a_prompt(tmp_path: Path) -> None:
    for text in ("{{ text }} It was {{ answer }}", "\ufeff{{ text }} It was {{ answer }}"):
        files = write_prompt(tmp_path / "best.txt", document(text))
        assert read_prompt(files[0]) == Prompt(text, WORDS)  # what begins with one truly is left alone
    for file in write_prompt(tmp_path / "plain.txt", document(TEXTS[0])):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
        assert read_prompt(file) == Prompt(TEXTS[0], WORDS)
