"""The form of ``tasks/*.yaml``: strict, so that a typo is an error and not a default."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from autoprompt.errors import SpecError, nearest
from autoprompt.example import Kind, Layout, check_text
from autoprompt.metrics import DEFAULT_METRIC, METRICS

FORMAT = "autoprompt-task/1"

Role = Literal["train", "select", "test"]


def _word(value: Any) -> Any:
    """Labels and words stay words: ``1`` is "1" (``yes`` and ``no`` are text in YAML 1.2 anyway). What YAML may write in
    several ways (true and True, 0.5 and .5) must be quoted, since a word is told by its letters.
    """
    if isinstance(value, (bool, float)):
        raise ValueError(
            f"labels and words are text: put it in quotes, such as {json.dumps(str(value).lower())}"
        )
    return str(value) if isinstance(value, int) else value


def _words(value: Any) -> Any:
    """One word may stand without brackets."""
    return tuple(value) if isinstance(value, list) else (value,)


Word = Annotated[str, BeforeValidator(_word), Field(min_length=1)]
Words = Annotated[tuple[Word, ...], BeforeValidator(_words), Field(min_length=1)]
Size = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DataForm(_Form):
    """Where the rows are, and which column is what."""

    source: str | dict[Role, str]
    config: str | None = None
    revision: str | None = None
    splits: dict[Role, str] = {}
    columns: dict[str, str] = {}
    target: str | None = None
    references: str | None = None
    choices: str | tuple[str, ...] | None = None
    worked: str | None = None
    worked_file: str | None = None
    label_names: dict[str, Word] = {}

    @field_validator("source")
    @classmethod
    def _some_source(cls, source: str | dict[Role, str]) -> str | dict[Role, str]:
        if not source:
            raise ValueError("must name a dataset, a folder or a file")
        return source

    @field_validator("columns")
    @classmethod
    def _names(cls, columns: dict[str, str]) -> dict[str, str]:
        for name in columns:
            if not name.isidentifier() or name == "answer":
                raise ValueError(
                    f"field names are words that templates can read, and not 'answer' (got {name!r})"
                )
        return columns


class SplitForm(_Form):
    """Sizes: a number of rows, or a fraction of the split it is taken from."""

    seed: int = 0
    train: Size | None = None
    select: Size | None = None
    test: Size | None = None

    def sizes(self) -> dict[str, int | float | None]:
        """Role to size."""
        return {"train": self.train, "select": self.select, "test": self.test}


class TaskForm(_Form):
    """One task. ``labels`` stands before ``words`` because words are checked against it."""

    format: Literal["autoprompt-task/1"]
    kind: Kind
    title: str
    about: str = ""
    data: DataForm
    labels: tuple[Word, ...] = ()
    words: Annotated[dict[str, Words], Field(validate_default=True)] = {}
    prompt: str
    metric: str = ""
    split: SplitForm = SplitForm()
    max_tokens: Annotated[int, Field(ge=1)] = 32
    stop: tuple[str, ...] = ("\n",)
    read: str = ""
    calibrate: bool = False
    candidates: Literal["vocabulary", "targets"] = "vocabulary"
    normalize: bool = False
    space: str | None = None

    @field_validator("data")
    @classmethod
    def _answers(cls, data: DataForm, info: ValidationInfo) -> DataForm:
        kind = info.data.get("kind")
        if data.target is None and (kind != "generation" or data.references is None):
            raise ValueError("target is missing: the column that holds the answer")
        if kind == "multiple_choice" and data.choices is None:
            raise ValueError("choices is missing: the column that holds the list of choices")
        return data

    @field_validator("read")
    @classmethod
    def _read(cls, read: str, info: ValidationInfo) -> str:
        problem = problem_with_read(read, info.data.get("kind", "generation"))
        if problem:
            raise ValueError(problem)
        return read

    @field_validator("labels")
    @classmethod
    def _labels(cls, labels: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        repeated = {label for label in labels if labels.count(label) > 1}
        if repeated:
            raise ValueError(f"stand twice: {', '.join(sorted(repeated))}")
        return labels

    @field_validator("words")
    @classmethod
    def _words(cls, words: dict[str, Words], info: ValidationInfo) -> dict[str, Words]:
        labels = info.data.get("labels", ())
        if info.data.get("kind") == "classification" and not labels and not words:
            raise ValueError("labels and their words are missing: words: {label: [word], ...}")
        for label in words:
            if labels and label not in labels:
                raise ValueError(
                    f"{label!r} is no label{nearest(label, labels)}; labels: {', '.join(labels)}"
                )
        if not words:  # as in Task.from_rows
            return {label: (label,) for label in labels}
        for label in labels:
            if label not in words:
                raise ValueError(f"label {label!r} has no words (write {label}: [word])")
        return words

    @field_validator("metric")
    @classmethod
    def _metric(cls, metric: str, info: ValidationInfo) -> str:
        if metric and "kind" in info.data:
            check_metric(metric, info.data["kind"])
        return metric

    def layout(self) -> Layout:
        """Which column is what."""
        labels = (self.labels or tuple(self.words)) if self.kind == "classification" else ()
        return Layout(
            kind=self.kind,
            target=self.data.target,
            columns=self.data.columns,
            references=self.data.references,
            choices=self.data.choices,
            worked=self.data.worked,
            label_names=self.data.label_names,
            labels=labels,
        )


def check_metric(metric: str, kind: Kind) -> None:
    """Refuse a metric that is unknown or does not fit the kind of task.

    Raises:
        ValueError: says which fit.
    """
    fitting = [name for name, item in METRICS.items() if kind in item.kinds]
    if metric not in METRICS:
        raise ValueError(f"no metric {metric!r}{nearest(metric, METRICS)}; for {kind}: {', '.join(fitting)}")
    if metric not in fitting:
        raise ValueError(f"{metric} does not fit {kind}; allowed: {', '.join(fitting)}")


def problem_with_read(read: str, kind: Kind) -> str:
    """Why ``read`` cannot be what it is; empty where it can."""
    if read and kind != "generation":
        return f"says where in a model's text the answer stands; kind {kind} reads no text (use kind: generation)"
    try:
        re.compile(read)
    except re.error as error:
        return f"no regular expression: {error} (got {read!r})"
    return ""


def default_metric(kind: Kind) -> str:
    """The usual metric of a kind of task."""
    return DEFAULT_METRIC[kind]


def check_words(where: str, kind: Kind, labels: Sequence[str], words: Mapping[str, Sequence[str]]) -> None:
    """Refuse labels without words, words without labels, and a word for two of them.

    Raises:
        SpecError: says which; DataError where a word holds what no text may.
    """
    if kind != "classification":
        if labels or words:
            raise SpecError(f"{where}: labels and words belong to classification (the kind is {kind})")
        return
    if len(labels) < 2:
        raise SpecError(f"{where}: labels: at least two are needed (got {', '.join(labels) or 'none'})")
    for label in labels:
        if not words.get(label) or not all(words[label]):
            raise SpecError(f"{where}: words: label {label!r} has no words", hint=f"{label}: [a word]")
    for label in words:
        if label not in labels:
            raise SpecError(f"{where}: words: {label!r} is no label{nearest(label, labels)}")
    owner: dict[str, str] = {}
    for label in labels:
        for word in words[label]:
            check_text(word, f"{where}: words of {label}")
            if word != word.strip():
                raise SpecError(
                    f"{where}: words of {label}: words stand without spaces around them (got {word!r})"
                )
            if owner.setdefault(word, label) != label:
                raise SpecError(f"{where}: words: {word!r} stands for both {owner[word]!r} and {label!r}")
