"""What ``autoprompt init NAME --data FILE`` writes: a task and a search space for rows that are there already.

Which column is the answer, which ones prompts read and what kind of task it is are guessed from the rows; the file that is
written says so, and is meant to be edited.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoprompt.errors import DataError, nearest
from autoprompt.example import Row, raw_key
from autoprompt.rows import read_source, target_column

MOST_LABELS, LONGEST = 150, 40
"""Different answers up to which they are labels, where each stands twice on average, and characters of the longest."""
_LISTED = 6
_PLAIN = re.compile(r"[A-Za-z][A-Za-z-]*( [A-Za-z-]+)*")
_NOT_PLAIN = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")


@dataclass(frozen=True)
class Guess:
    """What the rows of a file look like.

    Attributes:
        source: the file, folder or dataset id.
        target: column of the answer.
        columns: field name to column.
        left_out: columns that prompts do not read.
        labels: the answers, the most frequent first; none where they are texts to write.
        rows: number of rows by role.
        several: whether a row lists several answers that all are right.
    """

    source: str
    target: str
    columns: Mapping[str, str]
    left_out: tuple[str, ...]
    labels: Mapping[str, int]
    rows: Mapping[str, int]
    several: bool = False

    def __str__(self) -> str:
        """One line: what is taken for what."""
        rows = ", ".join(
            f"{count:,} {role}" if len(self.rows) > 1 else f"{count:,}" for role, count in self.rows.items()
        )
        shown = [f"{label} ({count})" for label, count in list(self.labels.items())[:_LISTED]]
        shown += ["..."] * (len(self.labels) > _LISTED)
        answers = f"{len(self.labels)} labels: {', '.join(shown)}" if self.labels else "texts to be written"
        left = f"; left out: {', '.join(self.left_out)}" if self.left_out else ""
        return f"{rows} rows; answers from {self.target!r}, {answers}; prompts read {', '.join(self.columns.values())}{left}"


def guess(source: str, target: str | None = None) -> Guess:
    """Read rows and tell what they look like.

    Args:
        source: a data file, a folder saved by ``datasets`` or a dataset id.
        target: column of the answer; None: ``label``, ``target`` or ``answer``, whichever is there.

    Raises:
        DataError: they cannot be read, no column can be the answer, none holds text, or all answers are alike.
    """
    tables = read_source(source, Path())
    names = [str(name) for name in dict.fromkeys(name for rows in tables.values() for name in rows[0].values)]
    if target is not None and target not in names:
        raise DataError(
            f"{source}: no column {target!r}{nearest(target, names)}; columns: {', '.join(names)}",
            hint="--target COLUMN",
        )
    try:
        target = target or target_column(tables, source)
    except DataError as error:
        mark = next((mark for mark in ";\t|" if len(names) == 1 and mark in names[0]), None)
        hint = (
            "name it: --target COLUMN"
            if mark is None
            else f"cells seem to be set apart by {mark!r}: save it with commas"
        )
        raise DataError(error.message, hint=hint) from None
    if not (Path(source).is_file() or Path(source).suffix):
        # read once more, so that class numbers become the names that the dataset declares
        tables = read_source(source, Path(), target=target)
    rows = [row for part in tables.values() for row in part]
    _refuse_empty(rows, target)
    fields = [name for name in names if name != target and _is_text(rows, name)]
    if not fields:
        raise DataError(
            f"{source}: no column of text beside the answer {target!r}; columns: {', '.join(names)}"
        )
    for name in fields:
        _refuse_empty(rows, name)
    columns, left_out = _field_names(fields), tuple(name for name in names if name not in (*fields, target))
    counts = {role: len(part) for role, part in tables.items()}
    if all(isinstance(row.values[target], list) for row in rows):
        return Guess(source, target, columns, left_out, {}, counts, several=True)
    answers = Counter(raw_key(row.values[target], f"{row.where}: column {target!r}") for row in rows)
    if len(answers) == 1:
        raise DataError(
            f"{source}: every answer in column {target!r} is {next(iter(answers))!r}",
            hint="name another: --target COLUMN",
        )
    few = 2 * len(answers) <= len(rows) and len(answers) <= MOST_LABELS and max(map(len, answers)) <= LONGEST
    return Guess(source, target, columns, left_out, dict(answers.most_common()) if few else {}, counts)


def files_for(name: str, found: Guess, folder: Path) -> dict[Path, str]:
    """The text of ``tasks/NAME.yaml`` and ``search_spaces/NAME.yaml`` below ``folder``."""
    task = folder / "tasks" / f"{name}.yaml"
    place = Path(found.source)
    source = os.path.relpath(place.absolute(), task.parent.absolute()) if place.exists() else found.source
    return {
        folder / "search_spaces" / f"{name}.yaml": _space(found),
        task: _task(name, found, Path(source).as_posix()),
    }


def _task(name: str, found: Guess, source: str) -> str:
    columns = ", ".join(f"{field}: {_scalar(column)}" for field, column in found.columns.items())
    lines = [
        f"# A task from {found.source}. What stands here was guessed from its rows: change what is wrong.",
        "format: autoprompt-task/1",
        f"kind: {'classification' if found.labels else 'generation    # the model writes its answer'}",
        f"title: {_scalar(name)}",
        "data:",
        f"  source: {_scalar(source)}   # seen from this file",
        f"  columns: {{{columns}}}   # field that prompts read: column of the data",
        f"  {'references' if found.several else 'target'}: {_scalar(found.target)}   # column with the right answer"
        + "s" * found.several,
    ]
    if found.labels:
        lines += [
            f"labels: [{', '.join(map(_scalar, found.labels))}]",
            "words:   # what the model is to say for each label, best a common word; several count together",
            *(f"  {_scalar(label)}: [{_scalar(label.strip())}]" for label in found.labels),
        ]
    lines += [
        "# {{ field }} is data; {{ answer }} marks where the model answers. This is the prompt to beat: write your own.",
        "prompt: |",
        *(f"  {line}" for line in (*_shown(found), "Answer: {{ answer }}")),
        "metric: accuracy" if found.labels else "metric: exact_match",
        *(
            []
            if found.labels
            else ["# read: 'answer is (\\w+)'   # where in a longer text the answer stands", "max_tokens: 32"]
        ),
        "# Prompts compete on select; demonstrations come from train; test is touched once, at the end.",
        "# Sizes may be set: {seed: 0, train: 100, select: 100, test: 400}",
        "split: {seed: 0}",
        f"space: {name}   # search_spaces/{name}.yaml",
    ]
    return "\n".join(lines) + "\n"


def _space(found: Guess) -> str:
    shown = _shown(found)
    named = [f"[[ name ]] {line}" for line in shown] if len(shown) == 1 else shown
    labels = len(found.labels)
    counts = [0, labels, *([2 * labels] if 2 * labels <= 8 else [])] if labels else [0, 2, 4]
    told = [f"[[ words.{label} ]]" for label in found.labels if label.isidentifier()]
    asked = (
        f"Which is it: {', '.join(told[:-1])} or {told[-1]}?" if 1 < len(told) == labels <= _LISTED else ""
    )
    instructions = (
        ["Read the text and decide which answer fits best.", "For each input give the right label.", asked]
        if labels
        else ["Answer as the examples do.", "Give the right answer, and nothing else.", ""]
    )
    return (
        "\n".join(
            [
                "# A search space: every choice in a slot is a prompt that may be tried. The first choice is the default.",
                "# Your own instructions, written for your data, are worth more than these general ones.",
                "format: autoprompt-space/1",
                "title: Ways to ask",
                "template: |",
                "  [[ instruction ]]",
                "",
                "  [[ demos ]]",
                "",
                "  [[ shape ]]",
                "slots:",
                "  instruction:",
                "    optional:   # nothing, or one of these",
                *(f"      - {json.dumps(text)}" for text in instructions if text),
                "    edit: {}   # words may be deleted, moved or replaced",
                "  shape:",
                "    one_of:",
                f"      - {json.dumps(chr(10).join([*named, '[[ cue ]] {{ answer }}']), ensure_ascii=False)}",
                *(["  name:", '    one_of: ["", "Input:", "Text:"]'] if len(shown) == 1 else []),
                "  cue:",
                '    one_of: ["Answer:", "Output:", "It is", "=>"]',
                "  demos:",
                "    pick:   # examples from train, with their answers, in front of the question",
                f"      k: {counts}",
                *(["      per_label: equal"] if labels else []),
                '      template: "[[ shape ]]"',
                '      separator: "\\n\\n"',
                "      sets: 8",
            ]
        )
        + "\n"
    )


def _shown(found: Guess) -> list[str]:
    """How a prompt shows the fields: the only one as it is, several with their names."""
    if len(found.columns) == 1:
        return [f"{{{{ {field} }}}}" for field in found.columns]
    return [f"{field.replace('_', ' ').strip()}: {{{{ {field} }}}}" for field in found.columns]


def _field_names(columns: Sequence[str]) -> dict[str, str]:
    """Names that templates can read, each with its column; the only one is ``text``, which shipped spaces know."""
    if len(columns) == 1:
        return {"text": columns[0]}
    names: dict[str, str] = {}
    for column in columns:
        name = re.sub(r"\W+", "_", column).strip("_") or "text"
        name = f"field_{name}" if not name.isidentifier() or name == "answer" else name
        while name in names:
            name += "_"
        names[name] = column
    return names


def _is_text(rows: Iterable[Row], column: str) -> bool:
    """Whether text stands there, and not a number alone (a CSV file has text only)."""
    values = [value for row in rows if (value := row.values.get(column)) not in (None, "")]
    return (
        bool(values)
        and all(isinstance(value, str) for value in values)
        and not all(_is_number(str(value)) for value in values)
    )


def _refuse_empty(rows: Iterable[Row], column: str) -> None:
    """Refuse rows in which a column holds nothing: as a label or a text it would count like any other.

    Raises:
        DataError: says how many and where the first stands.
    """
    empty = [row for row in rows if row.values.get(column) is None or not str(row.values[column]).strip()]
    if empty:
        count = f"{len(empty)} rows have" if len(empty) > 1 else "1 row has"
        raise DataError(
            f"{empty[0].where}: {count} nothing in column {column!r}, this one first",
            hint="leave such rows out of the file, or fill them",
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _scalar(text: str) -> str:
    """A text as YAML has it: bare where that can mean nothing else."""
    bare = _PLAIN.fullmatch(text) and text.lower() not in _NOT_PLAIN
    return text if bare else json.dumps(text, ensure_ascii=False)
