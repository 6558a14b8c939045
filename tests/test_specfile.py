"""Strict YAML: what stays a word, and what every mistake says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from autoprompt.errors import SpecError
from autoprompt.specfile import locate, read_spec


class Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Cat(Form):
    kind: Literal["cat"]
    lives: int = 9


class Dog(Form):
    kind: Literal["dog"]
    barks: bool = True


class Home(Form):
    title: str
    rooms: int = 1
    colour: Literal["red", "green"] = "red"
    words: dict[str, tuple[str, ...]] = {}
    pets: tuple[Annotated[Cat | Dog, Field(discriminator="kind")], ...] = ()
    first: Cat | None = None


class Loose(BaseModel):
    value: Any


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "home.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def complaint(tmp_path: Path, text: str) -> str:
    path = write(tmp_path, text)
    with pytest.raises(SpecError) as caught:
        read_spec(path, Home)
    return caught.value.message.replace(str(path), "home.yaml")


@pytest.mark.parametrize("text", ["yes", "no", "on", "off", "2024-01-31", "1:30", "1_000", "=", "<<", "y"])
def test_words_that_yaml_11_would_change_stay_words(tmp_path: Path, text: str) -> None:
    assert read_spec(write(tmp_path, f"value: {text}\n"), Loose).value == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("010", 10), ("0o10", 8),
        ("0x1f", 31), ("-3", -3), ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5), ('"1"', "1"),
        ("[yes, 1]", ["yes", 1]),
    ],
)  # fmt: skip
def test_core_scalars(tmp_path: Path, text: str, value: object) -> None:
    found = read_spec(write(tmp_path, f"value: {text}\n"), Loose).value
    assert found == value
    assert type(found) is type(value)


def test_anchors_and_tuples(tmp_path: Path) -> None:
    home = read_spec(write(tmp_path, "title: t\nwords: {a: &w [x, yes], b: *w, 1: [z]}\n"), Home)
    assert home.words == {"a": ("x", "yes"), "b": ("x", "yes"), "1": ("z",)}


def test_unknown_key_names_line_and_nearest(tmp_path: Path) -> None:
    assert complaint(tmp_path, "title: t\nromos: 2\n") == (
        "home.yaml:2: romos: unknown key (did you mean 'rooms'?); "
        "keys: title, rooms, colour, words, pets, first"
    )


def test_unknown_key_in_a_tagged_union_lists_that_member(tmp_path: Path) -> None:
    message = complaint(tmp_path, "title: t\npets:\n  - kind: dog\n  - kind: cat\n    live: 3\n")
    assert message == "home.yaml:5: pets[1].live: unknown key (did you mean 'lives'?); keys: kind, lives"


def test_unknown_key_below_an_optional_model(tmp_path: Path) -> None:
    message = complaint(tmp_path, "title: t\nfirst: {kind: cat, livs: 1}\n")
    assert message == "home.yaml:2: first.livs: unknown key (did you mean 'lives'?); keys: kind, lives"


def test_unknown_tag_of_a_union(tmp_path: Path) -> None:
    message = complaint(tmp_path, "title: t\npets:\n  - kind: dgo\n")
    assert message.startswith("home.yaml:3: pets[0]: ")
    assert "'cat', 'dog'" in message


def test_several_errors_one_a_line(tmp_path: Path) -> None:
    message = complaint(tmp_path, "rooms: many\ncolour: gren\n")
    assert message.split("\n") == [
        "home.yaml:1: title: is missing",
        'home.yaml:1: rooms: must be a valid integer (got "many")',
        "home.yaml:2: colour: must be 'red' or 'green' (did you mean 'green'?) (got \"gren\")",
    ]


def test_strict_types(tmp_path: Path) -> None:
    assert complaint(tmp_path, 'title: t\nrooms: "2"\n') == (
        'home.yaml:2: rooms: must be a valid integer (got "2")'
    )
    assert "title: must be a valid string (got 3)" in complaint(tmp_path, "title: 3\n")


def test_repeated_key(tmp_path: Path) -> None:
    message = complaint(tmp_path, "title: t\nwords:\n  a: [x]\n  a: [y]\ntitle: u\n")
    assert "home.yaml:4: a: stands twice, first on line 3" in message
    assert "home.yaml:5: title: stands twice, first on line 1" in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("title: [a\nrooms: 1\n", "not valid YAML"),
        ("title: a\n---\ntitle: b\n", "not valid YAML"),
        ("- a\n", "must hold 'key: value' lines (got a list)"),
        ("", "(got nothing)"),
        ("title: !!python/object:os.system x\n", "only plain YAML values"),
        ("title: &a [*a]\n", "home.yaml:1: "),
        ("? [a]\n: b\n", "a key must be a word"),
        ("title: !!int x\n", "does not fit its tag"),
    ],
)
def test_broken_yaml(tmp_path: Path, text: str, part: str) -> None:
    message = complaint(tmp_path, text)
    assert part in message
    assert message.startswith("home.yaml:")


def test_not_utf8_names_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "home.yaml"
    path.write_bytes("title: a\nabout: caf\u00e9\n".encode("latin-1"))
    with pytest.raises(SpecError, match=r"home\.yaml:2: not UTF-8 \(byte 0xe9 at offset 19\)"):
        read_spec(path, Home)


def test_locate(tmp_path: Path) -> None:
    path = write(tmp_path, "title: t\npets:\n  - kind: dog\n  - kind: cat\n    lives: 3\n")
    assert locate(path, "pets", 1, "lives") == f"{path}:5: pets[1].lives"
    assert locate(path, "words") == f"{path}:1: words"
