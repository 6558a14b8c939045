"""What there is, by name (``list``), and what one thing is (``show``). Listing loads no data."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprompt import catalog
from autoprompt.errors import InputError, UnknownName, nearest

if TYPE_CHECKING:
    from autoprompt.slots import Slot
    from autoprompt.task import Task
    from autoprompt.taskfile import TaskForm

KINDS = ("tasks", "spaces", "strategies", "models")
_LOCAL = (".jsonl", ".json", ".csv", ".tsv")
_TITLE = re.compile(r"^title:.*(?:\n[ \t]+.*)*", re.MULTILINE)
_STRATEGIES = Path(__file__).parent / "strategies"
_BUNDLED = Path(__file__).parent / "models" / "bundled"


def listed(kind: str) -> list[tuple[str, str]]:
    """Names and one-line titles.

    Raises:
        UnknownName: ``kind`` is not one of ``KINDS``.
    """
    if kind == "tasks":
        return [(name, _title(catalog.find("tasks", name))) for name in catalog.names("tasks")]
    if kind == "spaces":
        return [
            (name, _title(catalog.find("search_spaces", name))) for name in catalog.names("search_spaces")
        ]
    if kind == "strategies":
        return [(name, _first_line(_docstring(name))) for name in catalog.strategies()]
    if kind == "models":
        return _models()
    raise UnknownName(f"nothing to list named {kind!r}{nearest(kind, KINDS)}; kinds: {', '.join(KINDS)}")


def columns(rows: Sequence[tuple[str, str]]) -> str:
    """Names and titles, aligned."""
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"  {name:<{width}}  {title}".rstrip() for name, title in rows) or "  (none)"


def shown(name: str) -> str:
    """Describe whatever goes by this name or path; all of it where several things share the name.

    Raises:
        UnknownName: nothing does.
    """
    path = Path(name)
    if (path / "study.json").is_file():
        return _show_run(path)
    if path.is_dir() and len(path.parts) > 1:
        raise InputError(f"{name!r}: a folder without study.json, so it is no run", hint="give a run folder")
    if path.suffix in (".yaml", ".yml"):
        is_space = path.is_file() and re.search(
            r"^template:", path.read_text("utf-8", "replace"), re.MULTILINE
        )
        return _show_space(name) if is_space else _show_task(name)
    parts = []
    if name in catalog.names("tasks"):
        parts.append(_show_task(name))
    if name in catalog.names("search_spaces"):
        parts.append(_show_space(name))
    if name in catalog.strategies():
        parts.append(_show_strategy(name))
    if name in dict(_models()):
        parts.append(_show_model(name))
    if not parts:
        known = [each for kind in KINDS for each, _ in listed(kind)]
        raise UnknownName(
            f"nothing named {name!r}{nearest(name, known)}",
            hint="`autoprompt list` names all there is; a run is shown by its folder",
        )
    return "\n\n".join(parts)


def _title(path: Path) -> str:
    """The title line of a YAML file; parsing whole files would take a second for all of them."""
    import yaml

    match = _TITLE.search(path.read_text("utf-8", "replace"))
    try:
        return "" if match is None else str(yaml.safe_load(match[0])["title"] or "").strip()
    except yaml.YAMLError:
        return "(not valid YAML)"


def _docstring(strategy: str) -> str:
    source = (_STRATEGIES / f"{strategy}.py").read_text("utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _models() -> list[tuple[str, str]]:
    found = [("toy", "A few lines of arithmetic instead of weights: instant, for tests and first tries.")]
    for config in sorted(
        _BUNDLED.glob("*/config.json")
    ):  # as models.bundled.names(), whose package takes long
        card = config.parent / "README.md"
        heading = re.search(r"^# *(.+)$", card.read_text("utf-8"), re.MULTILINE) if card.is_file() else None
        found.append((f"bundled:{config.parent.name}", heading[1] if heading else ""))
    return found


def _table(rows: Sequence[tuple[str, str]]) -> str:
    """Names and texts; further lines of a text stand under its first."""
    width = max(10, *(len(name) + 2 for name, _ in rows))
    lines = []
    for name, text in rows:
        first, *others = text.split("\n")
        lines += [f"{name:<{width}}{first}".rstrip(), *(f"{'':<{width}}{line}".rstrip() for line in others)]
    return "\n".join(lines)


def _show_task(name: str) -> str:
    from autoprompt.specfile import read_spec
    from autoprompt.task import Task
    from autoprompt.taskfile import TaskForm, default_metric

    path = catalog.find("tasks", name)
    form = read_spec(path, TaskForm)
    task = Task.load(path) if _is_local(form, path.parent) else None
    rows = [
        ("task", f"{path.stem}  ({path})"),
        ("title", form.title),
        ("kind", f"{form.kind}, measured by {form.metric or default_metric(form.kind)}"),
    ]
    names = tuple(form.data.columns) if task is None else task.fields
    rows.append(("fields", ", ".join(names) or "the columns of the data"))
    if form.words:
        rows.append(
            ("labels", "\n".join(f"{label}: {', '.join(words)}" for label, words in form.words.items()))
        )
    rows.append(("prompt", form.prompt.rstrip("\n")))
    rows.append(("space", form.space or "none: name one with --space"))
    rows.append(("data", _source(form)))
    rows.append(("splits", _split_sizes(form, task)))
    if task is not None and task.notes:
        rows.append(("notes", "\n".join(task.notes)))
    if form.about:
        rows.append(("about", form.about.strip()))
    return _table(rows)


def _is_local(form: TaskForm, base: Path) -> bool:
    """Whether the data are text files that are here, so that reading them downloads and imports nothing."""
    source = form.data.source
    places = [source] if isinstance(source, str) else list(source.values())
    return all(place.endswith(_LOCAL) and (base / place).is_file() for place in places)


def _source(form: TaskForm) -> str:
    source = form.data.source
    if isinstance(source, str):
        return source if form.data.config is None else f"{source} ({form.data.config})"
    return "\n".join(f"{role}: {place}" for role, place in source.items())


def _split_sizes(form: TaskForm, task: Task | None) -> str:
    if task is not None:
        sizes = (("train", task.train), ("select", task.select), ("test", task.test))
        return ", ".join(f"{role} {len(examples):,}" for role, examples in sizes)
    asked = ((role, size) for role, size in form.split.sizes().items() if size is not None)
    listed_sizes = ", ".join(f"{role} {size:.0%}" if size < 1 else f"{role} {size:,}" for role, size in asked)
    return f"{listed_sizes or 'as the data come'} (the data are fetched when first used)"


def _show_space(name: str) -> str:
    from autoprompt.space import SearchSpace

    space = SearchSpace.load(name)
    spec = space.spec
    rows = [("space", f"{space.name}  ({space.path})")]
    if spec.title:
        rows.append(("title", spec.title))
    rows.append(("template", spec.template.rstrip("\n")))
    rows += [(slot, _options(body)) for slot, body in space.slots.items()]
    bound = ", at most: how many demonstrations there are depends on the task"
    has_demos = any(slot.pick is not None for slot in space.slots.values())
    tokens = ", and the tokens of the token slots" if spec.token_slots else ""
    rows.append(("size", f"{space.size():,} prompts{bound if has_demos else ''}{tokens}"))
    if spec.about:
        rows.append(("about", spec.about.strip()))
    return _table(rows)


def _options(slot: Slot) -> str:
    from autoprompt.slots import words_of

    if slot.map is not None:
        tied = " (tied: the n-th words go together)" if slot.tied else ""
        words = [
            f"  {label}: {', '.join('+'.join(words_of(option)) for option in options)}"
            for label, options in slot.map.items()
        ]
        lines = [f"label words{tied}", *words]
    elif slot.pick is not None:
        pick = slot.pick
        counts = ", ".join(map(str, pick.k))
        lines = [f"demonstrations: {counts} of them, up to {pick.sets} sets each, {pick.per_label} per label"]
        lines += [f"  {line}" for line in pick.template.split("\n")]
    elif slot.tokens is not None:
        tokens = slot.tokens
        few, many = tokens.lengths
        count = f"{few}" if few == many else f"{few} to {many}"
        start = f", from {json.dumps(tokens.init, ensure_ascii=False)}" if tokens.init else ""
        rules = [f"matching {tokens.matching}"] if tokens.matching else []
        rules += [f"without {', '.join(tokens.ban)}"] if tokens.ban else []
        lines = [
            ", ".join([f"{count} tokens of the model's vocabulary, policy {tokens.policy}{start}", *rules])
        ]
    elif slot.order is not None:
        last = f", {slot.order.last} always last" if slot.order.last else ""
        lines = [f"sections in {len(slot.order.orders())} orders: {', '.join(slot.order.sections)}{last}"]
    else:
        lines = [
            f"{len(slot.texts())} texts",
            *(f"  {json.dumps(text, ensure_ascii=False)}" for text in slot.texts()),
        ]
    for other, values in slot.when.items():
        lines.append(f"  only when {other} is {' or '.join(map(str, values))}")
    return "\n".join(lines)


def _show_strategy(name: str) -> str:
    cls = catalog.strategy_class(name)
    rows = [(item.name, f"{_default(item)}  ({item.type})") for item in dataclasses.fields(cls) if item.init]
    parameters = columns(rows) if rows else "  (none)"
    about = inspect.cleandoc(cls.__doc__ or "")
    story = f"strategy  {name}\n\n{_docstring(name).strip()}\n\n{about}"
    return f"{story}\n\nhyper-parameters and their defaults:\n{parameters}"


def _default(item: dataclasses.Field[Any]) -> str:
    from autoprompt.strategies import Strategy

    value = item.default
    if item.default_factory is not dataclasses.MISSING:
        value = item.default_factory()
    if value is dataclasses.MISSING:
        return "must be given"
    return str(value.describe()["strategy"]) if isinstance(value, Strategy) else repr(value)


def _show_model(name: str) -> str:
    from autoprompt.models import bundled

    if name == "toy":
        from autoprompt.models import toy

        return f"model     toy\n\n{(toy.__doc__ or '').strip()}"
    card = bundled.folder(name.removeprefix("bundled:")) / "README.md"
    text = card.read_text("utf-8").strip() if card.is_file() else "It has no model card."
    return f"model     {name}\n\n{text}"


def _show_run(folder: Path) -> str:
    from autoprompt.study import HEADER, LOG, read_header, read_log

    header = read_header(folder / HEADER)
    path = folder / "result.json"
    try:
        document: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        return _told_run(folder, header, document, read_log(folder / LOG))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{str(folder)!r}: {HEADER}, result.json or {LOG} was not written by this version of autoprompt "
            f"({type(error).__name__}: {error})",
            hint="give the folder of a run",
        ) from None


def _told_run(
    folder: Path, header: Mapping[str, Any], document: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]
) -> str:
    rows = [
        ("run", str(folder)),
        ("status", document.get("status") or "not finished: `autoprompt resume` goes on"),
        ("task", f"{header['task']}, measured by {header['metric']} on {header['select_size']} select rows"),
        ("model", f"{header['model']} ({header['model_kind']})"),
        ("space", str(header["space"])),
        ("strategy", _plain(header["strategy"])),
        ("budget", f"{header['budget']}, seed {header['seed']}, autoprompt {header['version']}"),
        ("prompts", f"{len({trial['key'] for trial in trials}):,} in {len(trials):,} trials"),
    ]
    if document:
        rows.append(("verdict", document["verdict"]))
    return "\n".join([_table(rows), *_best_trials(trials)])


def _plain(strategy: Mapping[str, Any]) -> str:
    settings = [
        f"{name}={_plain(value) if isinstance(value, dict) else value}"
        for name, value in strategy.items()
        if name != "strategy"
    ]
    return f"{strategy['strategy']}({', '.join(settings)})" if settings else str(strategy["strategy"])


def _best_trials(trials: Sequence[Mapping[str, Any]], top: int = 5) -> list[str]:
    """The best complete trials, in the order in which the study ranks them; those of prompts that hold rows say so, since
    their text alone does not score as they do. Prompts that break a rule of their space are not among them.
    """
    from autoprompt.study import Trial, rank

    complete = {
        trial["key"]: trial
        for trial in reversed(trials)
        if trial["complete"] and trial["score"] is not None and not trial["beside"]
    }
    ranked = sorted(complete.values(), key=lambda trial: rank(Trial(**trial)))
    lines = [""] if ranked else []
    for place, trial in enumerate(ranked[:top], start=1):
        words = "/".join("+".join(options) for options in trial["words"].values())
        text = trial["text"].replace("\n", "⏎")
        text = text if len(text) <= 100 else text[:97] + "..."
        rows = f"  with rows in place of {', '.join(trial['soft'])}" if "soft" in trial else ""
        lines.append(
            f"{place}. {100 * trial['score']:5.1f}  {text}" + (f"  ({words})" if words else "") + rows
        )
    return lines
