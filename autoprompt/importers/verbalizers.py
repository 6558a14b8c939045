"""Label words of other tools: AutoPrompt's and LM-BFF's label maps, OpenPrompt's verbalizers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from autoprompt.errors import InputError, LabelWordError, nearest
from autoprompt.importers.literals import Reader
from autoprompt.importers.writing import check_labels
from autoprompt.prompt import Prompt

WHERE = "label words"
_SCORE = re.compile(r"-?\d+\.\d+\s+(?=\{)")
_BYTE_BLANK, _PIECE_BLANK = "\u0120", "\u2581"  # Ġ of byte-level BPE, ▁ of SentencePiece
_PREFIXED = "<!>"  # OpenPrompt: this word goes without the blank that it puts before words


def import_verbalizer(
    source: str | Mapping[Any, Any] | Sequence[Any], *, labels: Sequence[str] | None = None, choice: int = 0
) -> dict[str, tuple[str, ...]]:
    """Read label words: label to its words, marks of tokenizers taken off.

    Args:
        source: a mapping (label to word or words), a list (the i-th for the i-th label), or text: JSON, a Python
            dict, LM-BFF's files (one mapping a line, best first), or OpenPrompt's (one label a line, its words
            with commas between, a blank line between verbalizers).
        labels: the task's labels in order; needed to name the labels where the source counts them.
        choice: which one, where the text holds several.

    Raises:
        InputError: it cannot be read, or its labels are not the task's.
        LabelWordError: a word cannot stand for a label.
    """
    if isinstance(source, str):
        found = _read(source)
        if not 0 <= choice < len(found):
            raise InputError(
                f"{WHERE}: choice {choice}, but the text holds {len(found)} (the first is number 0)",
                hint="give the number of one of them",
            )
        source = found[choice]
    check_labels(labels)
    words = _as_mapping(source, labels)
    if not words:
        raise InputError(f"{WHERE}: there are none", hint='for example {"0": ["bad"], "1": ["good"]}')
    if labels is not None:
        words = _named(words, labels)
    byte_level = any(word.startswith(_BYTE_BLANK) for group in words.values() for word in group)
    clean = {
        label: tuple(dict.fromkeys(_clean(word, label, byte_level) for word in group))
        for label, group in words.items()
    }
    return dict(Prompt("", clean).words)


def _read(text: str) -> list[Mapping[Any, Any] | Sequence[Any]]:
    """All verbalizers that a text holds."""
    start = _SCORE.sub("", text.strip(), count=1)
    if not start:
        raise InputError(f"{WHERE}: the text is empty", hint='for example {"0": ["bad"], "1": ["good"]}')
    if start[0] not in "{[":
        return _read_lines(text)
    found: list[Mapping[Any, Any] | Sequence[Any]] = []
    reader = Reader(text, where=WHERE)
    while not reader.at_end():
        score = _SCORE.match(text, reader.place)
        reader.place = score.end() if score else reader.place
        value = reader.value()
        if not isinstance(value, (dict, list)):
            raise reader.error("expected braces or a list")
        found.append(value)
    if len(found) == 1 and isinstance(found[0], list) and all(_is_map(item) for item in found[0]):
        found = list(found[0])  # a list of mappings is a list of verbalizers, not one
    return found


def _is_map(value: object) -> bool:
    """Whether it was read as a dict, not as a set (whose members lead to None)."""
    return isinstance(value, dict) and any(item is not None for item in value.values())


def _read_lines(text: str) -> list[Mapping[Any, Any] | Sequence[Any]]:
    groups: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.strip():
            groups[-1].append([word.strip() for word in line.split(",")])
        elif groups[-1]:
            groups.append([])
    return [group for group in groups if group]


def _as_mapping(source: object, labels: Sequence[str] | None) -> dict[str, list[str]]:
    if isinstance(source, Mapping):
        return {str(label): _group(words, str(label)) for label, words in source.items()}
    if not isinstance(source, Sequence) or isinstance(source, (str, bytes)):
        raise InputError(
            f"{WHERE}: expected a mapping from label to words, or a list (got {source!r:.60})",
            hint='for example {"0": ["bad"], "1": ["good"]}',
        )
    names = [str(place) for place in range(len(source))] if labels is None else list(labels)
    if len(names) != len(source):
        raise InputError(
            f"{WHERE}: words for {len(source)} labels, but the task has {len(names)}: {', '.join(names) or 'none'}"
        )
    return {name: _group(words, name) for name, words in zip(names, source, strict=True)}


def _group(words: object, label: str) -> list[str]:
    group = [words] if isinstance(words, str) else words
    if isinstance(group, Mapping):
        group = list(group)  # a set of words, as it is read
    if not isinstance(group, Sequence) or not group or not all(isinstance(word, str) for word in group):
        raise LabelWordError(
            f"{WHERE} of {label!r}: expected a word or a list of words (got {words!r:.60})",
            hint="numbers are places in a vocabulary or a list and say nothing without it",
        )
    return [str(word) for word in group]


def _named(words: dict[str, list[str]], labels: Sequence[str]) -> dict[str, list[str]]:
    """Put the task's labels in the place of numbers, in the task's order."""
    if set(words) == set(labels):
        return {label: words[label] for label in labels}
    if set(words) == {str(place) for place in range(len(labels))}:
        return {label: words[str(place)] for place, label in enumerate(labels)}
    unknown = next((label for label in words if label not in labels), None)
    missing = [label for label in labels if label not in words]
    problem = (
        f"missing: {', '.join(missing)}"
        if unknown is None
        else f"unknown: {unknown!r}{nearest(unknown, labels)}"
    )
    raise InputError(
        f"{WHERE}: the labels of the task are {', '.join(labels) or 'none'}, the words are for "
        f"{', '.join(words) or 'none'} ({problem})",
        hint="give the labels by name, or as numbers from 0 in the task's order",
    )


def _clean(word: str, label: str, byte_level: bool) -> str:
    plain = word.removeprefix(_PREFIXED)
    if plain.startswith("##"):
        raise LabelWordError(
            f"{WHERE} of {label!r}: {word!r} is the inside of a word and cannot stand by itself",
            hint="take it out, or write the whole word",
        )
    if byte_level:
        plain = _from_bytes(plain, label)
    return plain.replace(_PIECE_BLANK, " ").strip()


def _from_bytes(word: str, label: str) -> str:
    """Undo GPT-2's alphabet, in which every byte is one printable character."""
    try:
        return bytes(_ALPHABET[sign] for sign in word).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        raise LabelWordError(
            f"{WHERE} of {label!r}: {word!r} is part of a character in byte-level BPE, not a word",
            hint="take it out, or write the whole word",
        ) from None


def _alphabet() -> dict[str, int]:
    """Character to byte: printable bytes stand for themselves, the others follow from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


_ALPHABET = _alphabet()
