"""A call of ``autoprompt optimize`` as data: checked first, kept in its run folder, repeated by resume."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from autoprompt import __version__
from autoprompt.budget import Budget
from autoprompt.errors import DataError, InputError, UnknownName, nearest
from autoprompt.exporters import ENDINGS, read_prompt
from autoprompt.inputs import check_call, load_space, load_task
from autoprompt.result import FINISHED
from autoprompt.space import SearchSpace
from autoprompt.strategies import Strategy
from autoprompt.strategy_text import load_strategy
from autoprompt.study import HEADER, write_atomically
from autoprompt.task import Task

COMMAND = "command.json"
FORMAT = "autoprompt-command/1"
RUNS = Path("runs")


@dataclass(frozen=True, kw_only=True)
class Call:
    """What the user typed."""

    task: str
    model: str
    budget: str
    space: str | None = None
    strategy: str = "auto"
    seed: int = 0
    workers: int = 1
    output: str | None = None

    def line(self, run_dir: Path) -> str:
        """The command line that makes this call on this folder."""
        words = ["autoprompt", "optimize", self.task, "--model", self.model, "--budget", self.budget]
        if self.space is not None:
            words += ["--space", self.space]
        words += ["--strategy", self.strategy, "--seed", str(self.seed), "--run-dir", str(run_dir)]
        if self.workers != 1:
            words += ["--workers", str(self.workers)]
        if self.output is not None:
            words += ["--output", self.output]
        return shlex.join(words)


@dataclass(frozen=True)
class Prepared:
    """A call whose names have become objects, all of it checked but the model's weights."""

    task: Task
    space: SearchSpace
    budget: Budget
    strategy: Strategy


def prepare(call: Call) -> Prepared:
    """Check a call, data included, before a model is loaded or a folder is made.

    Raises:
        InputError: something given is wrong.
    """
    budget = Budget.parse(call.budget)
    strategy = load_strategy(call.strategy)
    if call.output is not None:
        check_output(Path(call.output))
    task = load_task(call.task)
    space = load_space(call.space, task, strategy)
    check_call(task, space, budget, call.model, strategy=strategy, workers=call.workers, seed=call.seed)
    return Prepared(task, space, budget, strategy)


def run_folder(call: Call, prepared: Prepared) -> Path:
    """The folder the same command on the same data always gets: ``runs/<task>-<model>-<hash>``.

    The hash is over content, so an edited task or space, or a new version, gets a folder of its own.
    """
    identity = [
        prepared.task.fingerprint,
        prepared.space.fingerprint,
        call.model,
        str(prepared.budget),
        prepared.strategy.describe(),
        call.seed,
        __version__,
    ]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    return RUNS / f"{_file_safe(prepared.task.name)}-{_file_safe(call.model)}-{digest}"


def _file_safe(name: str) -> str:
    last = name.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9._]+", "-", last).strip("-.")[:40] or "model"


def check_output(path: Path) -> None:
    """Check where a prompt is to be written, before it is paid for.

    Raises:
        InputError: an unknown ending, a folder, a place where no file can be made, or a ``.json`` beside it
            that is somebody else's.
    """
    if not path.name.endswith(ENDINGS) or path.name in ENDINGS:
        raise InputError(
            f"output {str(path)!r}: the ending decides the form; endings: {', '.join(ENDINGS)}",
            hint=f"for example --output {path.stem or 'best_prompt'}.txt",
        )
    if path.is_dir():
        raise InputError(
            f"output {str(path)!r}: is a folder", hint=f"name a file: {str(path / 'best.txt')!r}"
        )
    check_folder(path.parent, "output")
    sidecar = path.with_suffix(".json")
    if path.suffix in (".txt", ".jinja") and sidecar.exists():
        try:
            read_prompt(sidecar)
        except DataError:
            raise InputError(
                f"output {str(path)!r}: {sidecar.name}, which is written beside it, exists and is no "
                "prompt of ours",
                hint="choose another name",
            ) from None


def check_folder(folder: Path, what: str) -> None:
    """Check that a folder is there or can be made.

    Raises:
        InputError: it is a file, or its place may not be written to.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise InputError(f"{what} {str(folder)!r}: {str(there)!r} is a file, not a folder")
    if not os.access(there, os.W_OK):
        raise InputError(f"{what} {str(folder)!r}: no permission to write to {str(there)!r}")


def keep(call: Call, run_dir: Path) -> None:
    """Write ``command.json`` into the run folder."""
    document = {
        "format": FORMAT,
        "command": call.line(run_dir),
        "folder": str(Path.cwd()),
        "arguments": asdict(call),
    }
    path = run_dir / COMMAND
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    if not path.is_file() or path.read_text("utf-8") != text:
        write_atomically(path, text)


def is_begun(run_dir: Path) -> bool:
    """Whether the folder holds a run, from here or from Python: a call that failed before one began is not what goes on, and
    one that may not fit the run must not stand as the call that made it.
    """
    return (run_dir / HEADER).is_file()


def is_finished(run_dir: Path) -> bool:
    """Whether the run in the folder came to its end."""
    try:
        return json.loads((run_dir / "result.json").read_text("utf-8"))["status"] in FINISHED
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or none of ours
        return False


def recall(run_dir: Path) -> tuple[Call, Path]:
    """Read the call a run folder was made by, and the folder it was made from.

    Raises:
        UnknownName: no such run folder.
        InputError: it holds no readable ``command.json``.
    """
    check_run(run_dir)
    path = run_dir / COMMAND
    if not path.is_file():
        raise InputError(
            f"{str(run_dir)!r}: holds no {COMMAND}, so it was not made by `autoprompt optimize`",
            hint="repeat the call that made it with the same run_dir: that resumes it",
        )
    try:
        document = json.loads(path.read_text("utf-8"))
        if document["format"] != FORMAT:
            raise ValueError(f"format is {document['format']!r}, this version reads {FORMAT!r}")
        return _call_from(document["arguments"]), Path(document["folder"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a call written by `autoprompt optimize` ({error})") from None


def export_adapter(run_dir: Path, folder: Path) -> Path:
    """Write a run's soft prompt as an adapter of PEFT; returns its folder.

    Raises:
        InputError: the run trained none, or PEFT has no form for it.
    """
    from autoprompt.models.load import load_model
    from autoprompt.softfiles import export_peft, load_soft

    call, home = recall(run_dir)
    if not (run_dir / "soft" / "soft.json").is_file():
        raise InputError(
            f"{str(run_dir)!r}: the run has no soft prompt",
            hint="run `autoprompt optimize ... --strategy soft` (or project), or leave --peft out",
        )
    here = Path.cwd()
    try:
        os.chdir(home if home.is_dir() else here)  # names and paths are meant as they were there
        model = load_model(call.model)
        samples = [example.fields for example in load_task(call.task).select[:4]]
    finally:
        os.chdir(here)
    return export_peft(folder, load_soft(run_dir / "soft", model), model, samples=samples)


def check_run(run_dir: Path) -> None:
    """Raise UnknownName where there is no such run folder."""
    if not run_dir.is_dir():
        beside = [item.name for item in run_dir.parent.iterdir()] if run_dir.parent.is_dir() else []
        raise UnknownName(
            f"no run folder {str(run_dir)!r}{nearest(run_dir.name, beside)}",
            hint="give the folder that `autoprompt optimize` named, such as runs/reviews-toy-0123abcd",
        )


def _call_from(arguments: Mapping[str, Any]) -> Call:
    names = {item.name for item in fields(Call)}
    if set(arguments) != names:
        raise ValueError(f"arguments are {', '.join(arguments)}; they must be {', '.join(sorted(names))}")
    texts = all(isinstance(arguments[name], str) for name in ("task", "model", "budget", "strategy"))
    options = all(isinstance(arguments[name], str | None) for name in ("space", "output"))
    numbers = all(type(arguments[name]) is int for name in ("seed", "workers"))
    if not (texts and options and numbers):
        raise ValueError("an argument has the wrong type")
    return Call(
        task=arguments["task"],
        model=arguments["model"],
        budget=arguments["budget"],
        space=arguments["space"],
        strategy=arguments["strategy"],
        seed=arguments["seed"],
        workers=arguments["workers"],
        output=arguments["output"],
    )


def as_shortest(document: dict[str, Any]) -> dict[str, Any]:
    """A run's result with its shortest prompt within one standard error of the best in place of the best; as it is where
    that is the best one. What was measured on test is of the other prompt and is left out.
    """
    found = document["shortest"]
    if found is None:
        return document
    verdict = "not scored on test: the shortest prompt within one standard error of the best on select"
    told = {"prompt": found["prompt"], "label_words": found["label_words"]}
    return {**document, **told, "test": None, "verdict": verdict}
