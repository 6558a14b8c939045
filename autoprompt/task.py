"""What is to be done: data in three splits, labels, a metric, and the manual prompt to beat."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from autoprompt import catalog
from autoprompt.errors import DataError, SpecError, TemplateError
from autoprompt.example import Example as Example
from autoprompt.example import Kind as Kind
from autoprompt.example import Layout, Row, check_text, digest, raw_key
from autoprompt.prompt import Prompt
from autoprompt.rows import check_roles, plain, python_rows, read_source, read_worked, target_column
from autoprompt.specfile import locate, read_spec
from autoprompt.splits import ROLES, make_splits, note_shared, take
from autoprompt.taskfile import TaskForm, check_metric, check_words, default_metric, problem_with_read

Candidates = Literal["vocabulary", "targets"]


@dataclass(frozen=True, eq=False)
class Task:
    """Data, labels, metric and the manual prompt. Checked when made; equal to another that measures the same.

    Attributes:
        name: what reports call it.
        kind: how an answer is found: the likeliest label word; the likeliest choice of the row; the likeliest
            word of the vocabulary (cloze); the model's own text (generation).
        fields: names that templates may read.
        prompt: the manual prompt, a Jinja2 template with ``{{ answer }}``.
        metric: a name in ``metrics.METRICS``.
        train: examples that may stand in prompts and feed gradients.
        select: examples that candidates are compared on.
        test: examples that are touched once, after the choice.
        labels: names of the labels (classification).
        words: label to the words that stand for it, the first one in texts.
        max_tokens: longest completion, in tokens (generation).
        stop: texts that end a completion (generation).
        read: a regular expression whose last match in a completion, or its first group, is the answer (generation).
        calibrate: whether label scores are corrected by those of a content-free input (Zhao et al. 2021).
        candidates: what a cloze target is ranked among: every word of the vocabulary, or all targets of the data.
        among: these targets, where ``candidates`` is ``targets``.
        normalize: whether a choice is scored by its log-probability per unit of length instead of the sum.
        space: name of the search space to use unless another is given.
        notes: what was found while loading: duplicates, dropped rows, encodings.
    """

    name: str
    kind: Kind
    fields: tuple[str, ...]
    prompt: str
    metric: str
    train: tuple[Example, ...]
    select: tuple[Example, ...]
    test: tuple[Example, ...]
    labels: tuple[str, ...] = ()
    words: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    max_tokens: int = 32
    stop: tuple[str, ...] = ("\n",)
    read: str = ""
    calibrate: bool = False
    candidates: Candidates = "vocabulary"
    among: tuple[str, ...] = ()
    normalize: bool = False
    space: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.candidates == "targets" and not self.among:
            targets = {item.target for role in ROLES for item in self.split(role)}
            object.__setattr__(self, "among", tuple(sorted(targets)))
        _check(self)
        notes = note_shared({role: self.split(role) for role in ROLES}, self.notes)
        object.__setattr__(self, "notes", notes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def split(self, role: str) -> tuple[Example, ...]:
        """The examples of ``train``, ``select`` or ``test``."""
        return {"train": self.train, "select": self.select, "test": self.test}[role]

    @functools.cached_property
    def seed_prompt(self) -> Prompt:
        """The manual prompt, which a search has to beat."""
        return Prompt(self.prompt, self.words)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of all that decides what is measured: not of the name, the notes or the default space."""
        content = {
            "kind": self.kind,
            "fields": sorted(self.fields),
            "prompt": self.seed_prompt.key,
            "metric": self.metric,
            "labels": self.labels,
            "among": self.among,
            "settings": [self.calibrate, self.candidates, self.normalize],
            "completion": [self.max_tokens, self.stop, *([self.read] if self.read else [])],
            "splits": {role: [item.id for item in self.split(role)] for role in ROLES},
        }
        return digest(content)

    def with_sizes(
        self,
        train: int | None = None,
        select: int | None = None,
        test: int | None = None,
        *,
        seed: int = 0,
    ) -> Task:
        """The same task on fixed subsets: stratified by seed, and a smaller one is part of a larger one.

        Raises:
            DataError: a split has fewer examples than asked.
        """
        parts: dict[str, tuple[Example, ...]] = {}
        for role, n in (("train", train), ("select", select), ("test", test)):
            examples = self.split(role)
            if n is not None and not 1 <= n <= len(examples):
                raise DataError(
                    f"task {self.name}: {role} must be between 1 and {len(examples)} examples (got {n})"
                )
            stratify = self.kind == "classification"  # only labels recur often enough to have a proportion
            parts[role] = examples if n is None else take(examples, n, seed=seed, stratify=stratify)
        return dataclasses.replace(self, train=parts["train"], select=parts["select"], test=parts["test"])

    def only_targets(self, words: Sequence[str]) -> Task:
        """The same task without the examples whose answer is not among ``words``; a note says how many went.

        Raises:
            DataError: a split would be empty.
        """
        allowed = set(words)
        parts = {role: tuple(e for e in self.split(role) if e.target in allowed) for role in ROLES}
        dropped = sum(len(self.split(role)) - len(parts[role]) for role in ROLES)
        note = f"{dropped} rows were dropped: their answer is none of the {len(allowed)} allowed words"
        return dataclasses.replace(
            self,
            train=parts["train"],
            select=parts["select"],
            test=parts["test"],
            among=tuple(word for word in self.among if word in allowed),
            notes=(*self.notes, note) if dropped else self.notes,
        )

    def with_worked(self, worked: Mapping[str, str]) -> Task:
        """The same task with worked answers for some of its training examples.

        Args:
            worked: ``plain_id`` of an example to its answer as it was worked out; those of other examples change nothing.

        Raises:
            DataError: there are some, and none is for an example of train.
        """
        known = {example.plain_id for example in self.train}
        if worked and not known & worked.keys():
            raise DataError(
                f"task {self.name}: none of the {len(worked)} worked answers is for one of its training examples",
                hint="make them anew: ids depend on the fields, the answer and the split",
            )
        train = tuple(
            dataclasses.replace(example, worked=worked.get(example.plain_id, example.worked))
            for example in self.train
        )
        return dataclasses.replace(self, train=train)

    @classmethod
    def load(cls, name_or_path: str | Path) -> Task:
        """Load a task by its name or the path of its YAML file.

        Raises:
            UnknownName: no such task.
            SpecError: the file is wrong.
            TemplateError: the manual prompt is wrong.
            DataError: the data cannot be used.
        """
        path = catalog.find("tasks", name_or_path)
        form = read_spec(path, TaskForm)
        if form.data.columns:  # before any data is read, which may mean a download
            where = locate(path, "prompt")
            Prompt(form.prompt, form.words).check(set(form.data.columns), where=where)
        tables = read_source(
            form.data.source,
            path.parent,
            config=form.data.config,
            revision=form.data.revision,
            splits=form.data.splits,
            target=None if form.data.label_names else form.data.target,
        )
        task = _assemble(
            path.stem,
            form.layout(),
            tables,
            sizes=form.split.sizes(),
            seed=form.split.seed,
            prompt=form.prompt.rstrip("\n"),
            words=form.words,
            metric=form.metric,
        )
        task = dataclasses.replace(
            task,
            max_tokens=form.max_tokens,
            stop=form.stop,
            read=form.read,
            calibrate=form.calibrate,
            candidates=form.candidates,
            normalize=form.normalize,
            space=form.space,
        )
        file = form.data.worked_file
        return task if file is None else task.with_worked(read_worked(path.parent / file))

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[Mapping[str, Any]] | Mapping[str, Sequence[Mapping[str, Any]]],
        *,
        name: str = "rows",
        kind: Kind = "classification",
        fields: Sequence[str] | Mapping[str, str] | None = None,
        target: str | None = None,
        references: str | None = None,
        choices: str | tuple[str, ...] | None = None,
        worked: str | None = None,
        label_names: Mapping[Any, Any] | None = None,
        labels: Sequence[Any] | None = None,
        words: Mapping[Any, str | Sequence[str]] | None = None,
        prompt: str | None = None,
        metric: str | None = None,
        split: Mapping[str, int | float | None] | None = None,
        seed: int = 0,
        max_tokens: int = 32,
        stop: Sequence[str] = ("\n",),
        read: str = "",
        calibrate: bool = False,
        candidates: Candidates = "vocabulary",
        normalize: bool = False,
        space: str | None = None,
    ) -> Task:
        """Make a task from Python rows.

        Args:
            rows: dictionaries, or ``{"train": [...], "select": [...], "test": [...]}``; the rest is made.
            name: what reports call it.
            kind: kind of task.
            fields: columns that templates may read, or our name to column; None: every column of text.
            target: column of the answer; None: ``label``, ``target`` or ``answer``, whichever is there.
            references: column with all acceptable answers (generation).
            choices: column with the list of choices, or one column per choice (multiple choice).
            worked: column with the answer as it was worked out, step by step, where there is one (generation).
            label_names: raw value, as it stands in the rows or as text, to label.
            labels: the labels; None: those of ``words``, or the values that occur.
            words: label to its word or words; None: the labels themselves.
            prompt: manual prompt; None: the fields one a line, then ``Answer: {{ answer }}``.
            metric: None: the usual one of the kind.
            split: role to number of rows or fraction.
            seed: of the split.
            max_tokens: see ``Task``, as for the rest.
            stop: see ``Task``.
            read: see ``Task``.
            calibrate: see ``Task``.
            candidates: see ``Task``.
            normalize: see ``Task``.
            space: see ``Task``.
        """
        tables = python_rows(rows, f"task {name}")
        word_map = _words(words)
        label_map = {_key(raw): _key(label) for raw, label in (label_names or {}).items()}
        layout = Layout(
            kind=kind,
            target=None if references and not target else target or target_column(tables, f"task {name}"),
            columns=fields if isinstance(fields, Mapping) else {one: one for one in _several(fields or ())},
            references=references,
            choices=choices,
            worked=worked,
            label_names=label_map,
            labels=tuple(dict.fromkeys(map(_key, labels or word_map or label_map.values()))),
        )
        return dataclasses.replace(
            _assemble(name, layout, tables, split or {}, seed, prompt, word_map, metric or ""),
            max_tokens=max_tokens,
            stop=_several(stop),
            read=read,
            calibrate=calibrate,
            candidates=candidates,
            normalize=normalize,
            space=space,
        )


def _assemble(
    name: str,
    layout: Layout,
    tables: Mapping[str, Sequence[Row]],
    sizes: Mapping[str, int | float | None],
    seed: int,
    prompt: str | None,
    words: Mapping[str, tuple[str, ...]],
    metric: str,
) -> Task:
    """Turn rows into examples, examples into splits, and these into a task with the usual settings.

    Without a prompt: the fields one a line, then ``Answer: {{ answer }}``. Without labels: those that occur.
    Without words: the labels themselves.
    """
    where = f"task {name}"
    check_roles(sizes, where)
    for role, rows in tables.items():
        if not rows:
            raise DataError(f"{where}: split {role!r} holds no rows")
    columns = layout.columns_for(list(tables.values()))
    if not columns:
        raise DataError(f"{where}: no column of text beside the answer", hint="name the columns by fields")
    given = {role: [layout.example(row, columns) for row in rows] for role, rows in tables.items()}
    splits = make_splits(given, sizes, seed=seed, stratify=layout.kind == "classification", where=where)
    everything = [item for part in given.values() for item in part]
    broken = sum("\ufffd" in str(dict(item.fields)) for item in everything)
    notes = [*splits.notes, *layout.notes(list(tables.values()), columns)]
    notes += [f"{broken} rows hold U+FFFD, the sign of a wrongly decoded character"] if broken else []
    labels: tuple[str, ...] = ()
    if layout.kind == "classification":
        labels = layout.labels or tuple(sorted({item.target for item in everything}))
    lines = [f"{{{{ {field} }}}}" for field in columns]
    return Task(
        name=name,
        kind=layout.kind,
        fields=tuple(columns),
        prompt="\n".join([*lines, "Answer: {{ answer }}"]) if prompt is None else prompt,
        metric=metric or default_metric(layout.kind),
        train=splits.train,
        select=splits.select,
        test=splits.test,
        labels=labels,
        words=words or {label: (label,) for label in labels},
        notes=tuple(notes),
    )


def _check(task: Task) -> None:
    """Refuse a task that could not be run or measured.

    Raises:
        SpecError, TemplateError, DataError: says what is wrong.
    """
    where = f"task {task.name}"
    try:
        check_metric(task.metric, task.kind)
    except ValueError as error:
        raise SpecError(f"{where}: metric: {error}") from None
    problem = problem_with_read(task.read, task.kind)
    if problem:
        raise SpecError(f"{where}: read: {problem}")
    check_words(where, task.kind, task.labels, task.words)
    try:
        check_text(task.prompt, f"{where}: prompt")
    except DataError as error:
        raise TemplateError(error.message) from None
    task.seed_prompt.check(set(task.fields), where=f"{where}: prompt")
    if task.kind != "generation" and any(item.worked for item in task.train):
        raise SpecError(
            f"{where}: worked answers belong to texts that a model writes (the kind is {task.kind})",
            hint="use kind: generation with a pattern under read, or leave them out",
        )
    for role in ROLES:
        examples = task.split(role)
        if not examples:
            raise DataError(f"{where}: split {role!r} is empty")
        targets = {item.target for item in examples}
        stray = sorted(targets - set(task.labels))
        if task.kind == "classification" and stray:
            raise DataError(f"{where}: {role} holds the label {stray[0]!r}; labels: {', '.join(task.labels)}")
        if task.kind == "classification" and len(targets) == 1:
            raise DataError(
                f"{where}: split {role!r} holds one label only ({targets.pop()!r}, {len(examples)} rows): it needs two",
                hint="give more rows of the rare labels, other sizes, or another seed (split: {seed: 1})",
            )


def _words(words: Mapping[Any, str | Sequence[str]] | None) -> dict[str, tuple[str, ...]]:
    return {_key(label): _several(given) for label, given in (words or {}).items()}


def _several(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _key(raw: object) -> str:
    """A label as text, converted as the data's values are, so that ``0`` and ``True`` meet their rows."""
    return raw_key(plain(raw), "Task.from_rows: a label in labels, label_names or words")
