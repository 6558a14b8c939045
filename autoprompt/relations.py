"""Fact retrieval: the relations of LAMA (Petroni et al. 2019) and T-REx (Elsahar et al. 2018) as tasks, one search each.

A fact is a subject, a relation and an object: (Lyon, P17 country, France). A relation's manual template ``[X] is located
in [Y] .`` becomes ``{{ subject }} is located in {{ answer }}.``, and the object is ranked among the model's whole
vocabulary: P@1 is the share of facts whose object stands first, MRR the mean of 1 / rank. Only objects that are a single
token of the model can be ranked; the others are left out for that model and their number is noted, as LAMA does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from autoprompt import api
from autoprompt.asks import Score
from autoprompt.budget import Budget
from autoprompt.cache import Cache
from autoprompt.errors import DataError, InputError, LabelWordError, TemplateError, UnknownName, nearest
from autoprompt.harness import Harness
from autoprompt.importers import import_template
from autoprompt.models import Model, ScoringModel
from autoprompt.models.load import load_model
from autoprompt.result import Result
from autoprompt.rows import check_roles, read_table
from autoprompt.space import SearchSpace
from autoprompt.splits import ROLES
from autoprompt.strategies import Strategy
from autoprompt.strategy_text import load_strategy
from autoprompt.study import ANSWERS
from autoprompt.task import Task

FIGURES = ("p_at_1", "mrr")
"""The metrics that every prompt is measured by, in this order."""
FEWEST = 20
"""A relation with fewer facts in a split says too little."""
_FILES = {"train": "train.jsonl", "select": "dev.jsonl", "test": "test.jsonl"}
_COLUMNS = (("subject", "object"), ("sub_label", "obj_label"))
Limits = Mapping[str, int]
"""``train``, ``select`` or ``test`` to the most rows of it."""
Pair = tuple[float, float]
Search = Callable[..., Result]


def load_relations(
    folder: str | Path, *, names: Sequence[str] | None = None, limits: Limits | None = None, seed: int = 0
) -> list[Task]:
    """Read relations as cloze tasks.

    A relation is a folder ``P17/`` with ``train.jsonl``, ``dev.jsonl`` and ``test.jsonl`` (what is missing is carved
    from train), or one file ``P17.jsonl`` as LAMA has it. Rows hold ``subject`` and ``object``, or ``sub_label`` and
    ``obj_label``. Its template stands in ``P17/meta.json``, or in a ``relations.jsonl`` in the folder or above it.

    Args:
        folder: where the relations lie.
        names: which ones, in this order; None: all that are there.
        limits: the same rows for every model (``optimize_relations`` limits the rows that its model can answer).
        seed: of the splits that are carved.

    Raises:
        UnknownName: no such relation.
        DataError, TemplateError: a file or a template cannot be used; says where.
    """
    check_roles(limits or {}, "limits")
    folder = Path(folder).expanduser()
    places = _places(folder)
    for name in names or ():
        if name not in places:
            raise UnknownName(
                f"{folder}: no relation {name!r}{nearest(name, places)}; there: {', '.join(places)}"
            )
    templates: dict[str, tuple[object, str]] = {}
    for path in (folder.parent / "relations.jsonl", folder / "relations.jsonl"):
        for row in read_table(path) if path.is_file() else ():
            templates[str(row.values.get("relation"))] = (
                row.values.get("template"),
                str(path.parent / row.where),
            )
    chosen = places if names is None else dict.fromkeys(names)
    return [_trimmed(_load(name, places[name], templates, seed), limits) for name in chosen]


def _places(folder: Path) -> dict[str, Path]:
    """Name to folder or file of every relation that is there, P9 before P10."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder", hint="give the folder that holds P17/ or P17.jsonl")
    found = {path.stem: path for path in folder.glob("*.jsonl") if path.name != "relations.jsonl"}
    found |= {path.parent.name: path.parent for path in folder.glob("*/train.jsonl")}
    if not found:
        expected = (
            "a relation is P17/train.jsonl, with dev.jsonl, test.jsonl and meta.json beside it, or P17.jsonl"
        )
        raise DataError(f"{folder}: holds no relations", hint=expected)
    return dict(sorted(found.items(), key=lambda item: (len(item[0]), item[0])))


def _load(name: str, place: Path, templates: Mapping[str, tuple[object, str]], seed: int) -> Task:
    given, where = templates.get(name, (None, str(place)))
    if (place / "meta.json").is_file():
        where = str(place / "meta.json")
        try:
            meta = json.loads(Path(where).read_text("utf-8"))
        except ValueError as error:  # of JSON, or of UTF-8
            raise DataError(f"{where}: not JSON ({error})") from None
        given = meta.get("template") if isinstance(meta, dict) else None
    if not isinstance(given, str):
        wanted = 'write {"template": "[X] is located in [Y] ."} into meta.json'
        raise DataError(f"{where}: no template for {name} (got {given!r})", hint=wanted)
    try:
        prompt = import_template(given, form="lama", fields={"X": "subject"}).template
    except InputError as error:
        raise TemplateError(f"{where}: {error.message}", hint=error.hint) from None
    files = {role: place / file for role, file in _FILES.items() if (place / file).is_file()}
    return Task.from_rows(
        {role: _facts(path) for role, path in (files or {"train": place}).items()},
        name=name,
        kind="cloze",
        fields=("subject",),
        target="object",
        prompt=prompt,
        # Where dev is published and test is not, half of train is neither too few facts nor too wide an interval.
        split={"test": 0.5} if "select" in files and "test" not in files else None,
        seed=seed,
    )


def _facts(path: Path) -> list[dict[str, str]]:
    """The subjects and objects of a file."""
    facts = []
    for row in read_table(path):
        columns = next((pair for pair in _COLUMNS if pair[0] in row.values), _COLUMNS[0])
        fact = {name: row.values.get(column) for name, column in zip(_COLUMNS[0], columns, strict=True)}
        for column, value in zip(columns, fact.values(), strict=True):
            if not isinstance(value, str) or not value.strip():
                wrong = (
                    f"column {column!r} must hold a text (got {value!r}); columns: {', '.join(row.values)}"
                )
                raise DataError(f"{path.parent / row.where}: {wrong}")
        facts.append({name: str(value) for name, value in fact.items()})
    return facts


def _trimmed(task: Task, limits: Limits | None) -> Task:
    return task.with_sizes(**{role: min(n, len(task.split(role))) for role, n in (limits or {}).items()})


def fit_relation(
    task: Task, model: ScoringModel, *, limits: Limits | None = None, fewest: int = FEWEST
) -> Task:
    """The task of the facts whose object is a single token of this model; a note says what was left out.

    Args:
        task: from ``load_relations``.
        model: that is to answer it.
        limits: of the rows it can answer.
        fewest: rows that each split must have.

    Raises:
        TemplateError: the manual template goes on after the answer, and the model reads on from the end of the text.
        DataError: a split has too few rows left.
    """
    task.seed_prompt.check(set(task.fields), answer_at_end=model.kind != "masked", where="manual template")
    rendered = task.seed_prompt.render(task.select[0].fields)
    objects = sorted({example.target for role in ROLES for example in task.split(role)})
    known = set()
    for word in objects:
        with contextlib.suppress(LabelWordError):
            model.check_answers(rendered, [word], single_token=True)
            known.add(word)
    whole = [task.split(role) for role in ROLES]
    train, select, test = kept = [tuple(item for item in part if item.target in known) for part in whole]
    notes = task.notes
    if len(known) < len(objects):
        facts, left = (sum(map(len, parts)) for parts in (whole, kept))
        strange = [word for word in objects if word not in known]
        words = f"{len(strange)} of {len(objects)}, such as {', '.join(map(repr, strange[:3]))}"
        gone = f"{facts - left:,} of {facts:,} facts left out: their objects ({words}) are no single token"
        notes += (f"{gone} of {model.name}",)
    for role, part in zip(ROLES, kept, strict=True):
        if len(part) < fewest:
            least = f"{role} has {len(part)} facts, and at least {fewest} are needed"
            raise DataError("; ".join([least, *notes]), hint="use another model, or lower fewest")
    return _trimmed(dataclasses.replace(task, train=train, select=select, test=test, notes=notes), limits)


@dataclass(frozen=True)
class RelationRow:
    """What came of one relation. P@1 and MRR on test are in [0, 1], NaN where not measured.

    Attributes:
        relation, strategy: what was searched, and how.
        status: as of a ``Result``; ``skipped`` where the model cannot answer it, ``failed`` after any error.
        n: test facts.
        manual: P@1 and MRR of the manual template.
        found: of the prompt that was best on select.
        gain: whether that prompt is shown to be better on test, by the metric of the task.
        prompt: its text.
        calls: what the search spent.
    """

    relation: str
    strategy: str
    status: str = ""
    n: int = 0
    manual: Pair = (math.nan, math.nan)
    found: Pair = (math.nan, math.nan)
    gain: bool = False
    prompt: str = ""
    calls: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RelationTable:
    """Relations by strategies. ``one + other`` puts the searches of two tables side by side."""

    entries: tuple[RelationRow, ...]

    def __add__(self, other: RelationTable) -> RelationTable:
        both = (*self.entries, *other.entries)
        if len({(row.relation, row.strategy) for row in both}) < len(both):
            raise InputError("relations: both tables hold a search of the same relation by the same strategy")
        return RelationTable(both)

    def means(self) -> dict[str, Pair]:
        """P@1 and MRR of ``manual`` and of each strategy: means over the relations that all strategies have measured.

        Each counts the same, however many facts it has (Petroni et al. 2019). Empty where there is none.
        """
        whole = [rows for rows in self._grid() if all(row.n for row in rows)]
        found = {column[0].strategy: [row.found for row in column] for column in zip(*whole, strict=True)}
        pairs = {"manual": [rows[0].manual for rows in whole], **found} if whole else {}
        return {name: (fmean(p for p, _ in each), fmean(m for _, m in each)) for name, each in pairs.items()}

    def rows(self) -> list[dict[str, Any]]:
        """One plain dictionary a relation and strategy, valid JSON: what was not measured is null."""
        plain = [dataclasses.asdict(row) for row in self.entries]
        for row in plain:
            for name in ("manual", "found"):
                values = (None if math.isnan(value) else value for value in row[name])
                row[name] = dict(zip(FIGURES, values, strict=True))
        return plain

    def text(self) -> str:
        """The table for a terminal, notes under it: figures in %, * where a gain is shown on test."""
        return "\n".join([*("  ".join(line).rstrip() for line in self._lines()), *self.notes()])

    def markdown(self) -> str:
        """The same as Markdown."""
        lines = self._lines()
        texts = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        searches = (len(lines[0]) - 4) // 3
        texts.insert(1, "|---|" + "---:|" * (3 + 2 * searches) + "---|" * searches)
        return "\n".join([*texts, "", *(f"- {note}" for note in self.notes())]).rstrip()

    def notes(self) -> list[str]:
        """The notes on all relations, each once."""
        return list(dict.fromkeys(f"{row.relation}: {note}" for row in self.entries for note in row.notes))

    def _grid(self) -> list[list[RelationRow]]:
        """Rows by relation and strategy, empty ones where a relation was not searched."""
        rows = {(row.relation, row.strategy): row for row in self.entries}
        relations, strategies = (dict.fromkeys(cell[place] for cell in rows) for place in (0, 1))
        return [[rows.get((one, two), RelationRow(one, two)) for two in strategies] for one in relations]

    def _lines(self) -> list[list[str]]:
        """Head, relations and means: name, n, two figures of the manual template and of each search, prompts."""
        names = list(dict.fromkeys(row.strategy for row in self.entries))
        head = [title for name in ("manual", *names) for title in (f"{name} P@1", "MRR")]
        prompts = [f"{name} prompt" if len(names) > 1 else "prompt" for name in names]
        lines = [["relation", "n", *head, *prompts]]
        for rows in self._grid():
            some = max(rows, key=lambda row: row.n)
            figures = [text for row in rows for text in _percent(row.found, "*" if row.gain else "")]
            prompts = [row.prompt.replace("\n", "⏎") or row.status for row in rows]
            lines.append([some.relation, str(some.n or "–"), *_percent(some.manual), *figures, *prompts])
        if means := self.means():
            figures = [text for pair in means.values() for text in _percent(pair)]
            whole = sum(all(row.n for row in rows) for rows in self._grid())
            lines.append([f"mean of {whole}", "", *figures, *[""] * len(names)])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            for place, width in enumerate(widths):
                is_number = 0 < place < 4 + 2 * len(names)
                line[place] = line[place].rjust(width) if is_number else line[place].ljust(width)
        return lines


def _percent(pair: Pair, mark: str = "") -> list[str]:
    first, second = ("–" if math.isnan(value) else f"{100 * value:.1f}" for value in pair)
    return [first + mark, second]


def optimize_relations(
    tasks: Sequence[Task],
    model: object,
    budget: Budget | int | str,
    *,
    strategy: Strategy | str = "auto",
    space: SearchSpace | str | Path | Callable[[Task], SearchSpace] | None = None,
    seed: int = 0,
    run_dir: str | Path | None = None,
    limits: Limits | None = None,
    fewest: int = FEWEST,
    on_relation: Callable[[RelationRow], None] | None = None,
) -> RelationTable:
    """Search a prompt for each relation, with one loaded model, and put the outcomes in a table.

    A relation that the model cannot answer is skipped and one that fails is noted; the others go on. Ctrl-C ends the
    table with the relation that is running.

    Args:
        tasks: from ``load_relations``.
        model: as for ``optimize``.
        budget: for each relation.
        strategy: as for ``optimize``.
        space: one for all relations, or a function that makes a task's; None: the manual template, with a trigger in it
            where the strategy moves tokens.
        seed: of each search; the rows do not depend on it.
        run_dir: keeps a run folder for each relation, by its name; the same call resumes all of them.
        limits: as for ``fit_relation``.
        fewest: as for ``fit_relation``.
        on_relation: called after each relation.

    Raises:
        InputError: the call is wrong for all relations; nothing was run.
        AutopromptError: every relation failed; the first one's error.
    """
    check_roles(limits or {}, "limits")
    names = {task.name for task in tasks if task.kind == "cloze" and Path(task.name).name == task.name}
    if not tasks or len(names) < len(tasks):
        raise InputError(
            "relations: must be one or more cloze tasks, with different names that a folder can have"
        )
    budget, strategy, loaded = Budget.parse(budget), load_strategy(strategy), load_model(model)
    if not isinstance(loaded, ScoringModel):
        raise InputError(f"facts are ranked, but model {loaded.name!r} gives no probabilities")
    search = functools.partial(api.optimize, budget=budget, strategy=strategy, seed=seed)
    rows: list[RelationRow] = []
    errors: list[Exception] = []
    for task in tasks:
        row = RelationRow(task.name, str(strategy.describe()["strategy"]), "skipped")
        try:
            fitted = fit_relation(task, loaded, limits=limits, fewest=fewest)
            row = dataclasses.replace(row, status="failed")
            place = None if run_dir is None else Path(run_dir) / task.name
            chosen = space(fitted) if callable(space) else space
            row = _searched(row, fitted, loaded, functools.partial(search, space=chosen), place)
        except Exception as error:  # one relation's failure must not cost the others a night's run
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            row = dataclasses.replace(row, notes=(f"{row.status}: {kind}{' '.join(str(error).split())}",))
            errors += [error] if row.status == "failed" else []
        rows.append(row)
        if on_relation is not None:
            on_relation(row)
        if row.status == "interrupted":
            break
    if errors and len(errors) == len(rows):
        raise errors[0]
    return RelationTable(tuple(rows))


def _searched(row: RelationRow, task: Task, model: Model, search: Search, folder: Path | None) -> RelationRow:
    """The row after the search. Both figures come from the ranks that the run has stored: nothing is asked again."""
    with contextlib.ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="autoprompt-")))
        result = search(task, model, run_dir=place)
        row = dataclasses.replace(row, status=result.status, calls=result.spent.calls, notes=result.notes)
        if result.test is None:
            return row
        values = []
        cache = stack.enter_context(contextlib.closing(Cache(place / ANSWERS)))
        for prompt in (result.seed_prompt, result.candidate):
            for metric in FIGURES:
                by = dataclasses.replace(task, metric=metric)
                (scored,) = Harness(by, model, None, cache, account="test").scores([Score(prompt, task.test)])
                values.append(scored.score)
    manual, found = (values[0], values[1]), (values[2], values[3])
    row = dataclasses.replace(row, n=len(task.test), manual=manual, found=found)
    return dataclasses.replace(row, gain=result.test.shows_gain, prompt=result.candidate.text)
