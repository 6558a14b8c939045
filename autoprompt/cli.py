"""The ``autoprompt`` command. Everything that takes time to import is imported inside the commands."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoprompt import __version__, console
from autoprompt.console import reported, say
from autoprompt.errors import InputError
from autoprompt.preparing import app as preparing

if TYPE_CHECKING:
    from autoprompt.command import Call
    from autoprompt.result import Evaluation, Result
    from autoprompt.task import Task

app = typer.Typer(
    name="autoprompt",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

TaskName = Annotated[
    str, typer.Argument(metavar="TASK", help="A task's name (autoprompt list) or its YAML file.")
]
ModelName = Annotated[
    str,
    typer.Option(
        "--model", "-m", help='A Hugging Face id or folder, "bundled:masked", "openai:NAME@URL", or "toy".'
    ),
]
BudgetText = Annotated[
    str, typer.Option("--budget", "-b", help='What may be spent: 2000 (calls), "2M tokens", "10 min".')
]
SpaceName = Annotated[
    str | None,
    typer.Option("--space", "-s", help="A search space's name or YAML file; the task's own by default."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else there.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")]
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN_DIR", help="A run folder, such as runs/reviews-toy-0123abcd.")
]


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a terminal that lacks a character must not end a run
    app(prog_name="autoprompt")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"autoprompt {__version__}")
        raise typer.Exit


@app.callback(epilog=console.EXIT_CODES)
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Find a better prompt for your task and your language model, and measure by how much."""


@app.command(epilog=console.EXIT_CODES)
@reported()
def optimize(
    task: TaskName,
    model: ModelName,
    budget: BudgetText,
    space: SpaceName = None,
    strategy: Annotated[
        str,
        typer.Option(help='A strategy (autoprompt list strategies), with settings: "gp?block=4&batch=6".'),
    ] = "auto",
    seed: Annotated[int, typer.Option(help="The same call and seed give the same run.")] = 0,
    run_dir: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps the run; by default one in runs/ that fits the call."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes a round is spread over.")] = 1,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", help="Also write the prompt to this .txt, .jinja, .json or .messages.json."
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Search for a better prompt than the manual one.

    The same command again resumes the run, or shows its result where it is finished.
    """
    from autoprompt.command import Call

    call = Call(
        task=task,
        model=model,
        budget=budget,
        space=space,
        strategy=strategy,
        seed=seed,
        workers=workers,
        output=output,
    )
    _run(call, run_dir, as_json=as_json, quiet=quiet)


@app.command(epilog=console.EXIT_CODES)
@reported()
def resume(run_dir: RunFolder, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Go on with a run that was stopped.

    Repeats the call that made the run folder, from the folder that it was made from.
    """
    from autoprompt.command import recall

    call, folder = recall(run_dir)
    run_dir = run_dir.resolve()
    if folder.is_dir() and folder != Path.cwd():
        say(f"names and paths are read from {folder}, where the run was started", quiet=quiet)
        os.chdir(folder)
    if run_dir.is_relative_to(Path.cwd()):
        run_dir = run_dir.relative_to(Path.cwd())
    _run(call, run_dir, as_json=as_json, quiet=quiet)


def _run(call: Call, run_dir: Path | None, *, as_json: bool, quiet: bool) -> None:
    """Check, keep the call, search, report."""
    from autoprompt import command
    from autoprompt.api import optimize as search

    prepared = command.prepare(call)
    folder = run_dir if run_dir is not None else command.run_folder(call, prepared)
    command.check_folder(folder, "run_dir")
    if not command.is_begun(folder):
        command.keep(call, folder)
        say(f"run folder {folder}: the same command, or `autoprompt resume`, goes on with it", quiet=quiet)
    else:
        state = "finished; its result again" if command.is_finished(folder) else "goes on where it stopped"
        say(f"run folder {folder}: {state}", quiet=quiet)
    go_on = f"`autoprompt resume {shlex.quote(str(folder))}` goes on"
    try:
        with console.progress(silent=as_json or quiet) as on_round:
            result = search(
                prepared.task,
                call.model,
                prepared.budget,
                space=prepared.space,
                strategy=prepared.strategy,
                seed=call.seed,
                run_dir=folder,
                workers=call.workers,
                on_round=on_round,
            )
    except KeyboardInterrupt:
        console.fail("interrupted; everything that was answered is kept", go_on)
        raise typer.Exit(console.INTERRUPTED) from None
    command.keep(call, folder)
    if as_json:
        console.put_json(result.document())
    else:
        typer.echo(str(result))
    if result.status == "interrupted":
        console.fail("interrupted; everything that was answered is kept", go_on)
        raise typer.Exit(console.INTERRUPTED)
    for note in result.notes:
        say(f"note: {note}", quiet=quiet)
    _save(result, call.output, quiet=as_json)


def _save(result: Result, output: str | None, *, quiet: bool) -> None:
    if output is None:
        return
    written = ", ".join(map(str, result.save(output)))
    typer.echo(f"wrote     {written}", err=quiet)


@app.command(epilog=console.EXIT_CODES)
@reported()
def evaluate(
    task: TaskName,
    model: ModelName,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", "-p", help="A prompt file, a run folder, or a template; else the manual prompt."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="test, select or train.")] = "test",
    fail_under: Annotated[
        float | None, typer.Option(metavar="X", help="Exit with 3 if the score is below X, in [0, 1].")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score one prompt on one split."""
    from autoprompt.api import evaluate as measure
    from autoprompt.inputs import load_task

    if fail_under is not None and not 0 <= fail_under <= 1:
        raise InputError(
            f"fail-under: must be between 0 and 1 (got {fail_under:g})",
            hint=f"scores are shares: write {fail_under / 100:g}" if 1 < fail_under <= 100 else "",
        )
    loaded = load_task(task)
    with console.waiting(f"scoring {split} of {loaded.name}", silent=as_json or quiet):
        evaluation = measure(loaded, model, _prompt_from(prompt, loaded), split=split)
    if as_json:
        console.put_json(_evaluation_document(evaluation, loaded, model))
    else:
        typer.echo(str(evaluation))
    for note in evaluation.notes:
        say(f"note: {note}", quiet=quiet or as_json)
    value = evaluation.estimate.value
    if fail_under is not None and not value >= fail_under:  # a missing value (NaN) is below, too
        console.fail(f"{evaluation.metric} {100 * value:.2f} is below {100 * fail_under:.2f} (--fail-under)")
        raise typer.Exit(console.BELOW)


def _prompt_from(given: str | None, task: Task) -> Any:
    """What ``evaluate`` takes as a prompt: the manual one, a file, a run's best one, or a text."""
    from autoprompt.exporters import read_prompt
    from autoprompt.prompt_inputs import soft_folder

    if given is None:
        return task.seed_prompt
    if "{{" in given or "\n" in given or len(given) > 255:
        return given
    path = Path(given)
    if path.is_dir():
        return path if soft_folder(path) is not None else read_prompt(path / "best_prompt.txt")
    return path  # a text without {{ answer }} is no prompt


def _evaluation_document(evaluation: Evaluation, task: Task, model: str) -> dict[str, Any]:
    estimate = evaluation.estimate
    return {
        "format": "autoprompt-evaluation/1",
        "version": __version__,
        "task": task.name,
        "task_fingerprint": task.fingerprint,
        "model": model,
        "split": evaluation.split,
        "metric": evaluation.metric,
        "value": estimate.value,
        "interval": [estimate.interval.low, estimate.interval.high],
        "level": estimate.interval.level,
        "n": estimate.n,
        "missing": estimate.missing,
        "prompt": evaluation.prompt.text,
        "label_words": {label: list(words) for label, words in evaluation.prompt.words.items()},
        "cost": vars(evaluation.spent),
    }


@app.command(epilog=console.EXIT_CODES)
@reported()
def estimate(
    task: TaskName, model: ModelName, budget: BudgetText, space: SpaceName = None, as_json: AsJson = False
) -> None:
    """Say what a budget will cost on this machine.

    Measures the model's speed on the manual prompt; answers in calls, tokens and minutes.
    """
    from autoprompt.forecast import estimate as forecast

    with console.waiting("measuring speed", silent=as_json):
        found = forecast(task, model, budget, space=space)
    if as_json:
        console.put_json(dataclasses.asdict(found))
    else:
        typer.echo(str(found))


@app.command(epilog=console.EXIT_CODES)
@reported()
def export(
    run_dir: RunFolder,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .txt, .jinja, .json or .messages.json; the ending decides."),
    ] = None,
    peft: Annotated[
        Path | None, typer.Option(help="A folder for the run's soft prompt as an adapter of PEFT.")
    ] = None,
    shortest: Annotated[
        bool,
        typer.Option(
            "--shortest",
            help="The shortest prompt within one standard error of the best on select; it was not scored on test.",
        ),
    ] = False,
) -> None:
    """Write a finished run's prompt in another form."""
    from autoprompt.command import as_shortest, check_output, check_run, export_adapter
    from autoprompt.exporters import write_prompt

    check_run(run_dir)
    if (output is None) == (peft is None):
        raise InputError("export: give --output FILE, or --peft FOLDER for a soft prompt")
    if peft is not None:
        typer.echo(f"wrote {export_adapter(run_dir, peft)}")
        return
    assert output is not None
    check_output(output)
    path = run_dir / "result.json"
    try:
        document = json.loads(path.read_text("utf-8")) if path.is_file() else None
    except ValueError as error:
        raise InputError(f"{path}: not a result ({error})") from None
    if document is None or document["test"] is None:
        status = "not finished" if document is None else str(document["status"])
        raise InputError(
            f"{str(run_dir)!r}: the run has no result yet ({status})",
            hint=f"`autoprompt resume {shlex.quote(str(run_dir))}` goes on with it",
        )
    if shortest:
        document = as_shortest(document)
    for written in write_prompt(output, document):
        typer.echo(f"wrote {written}")


@app.command("list", epilog=console.EXIT_CODES)
@reported()
def list_names(
    kind: Annotated[
        str | None, typer.Argument(metavar="[tasks|spaces|strategies|models]", help="All of them by default.")
    ] = None,
) -> None:
    """Name the tasks, spaces, strategies and models."""
    from autoprompt.describe import KINDS, columns, listed

    if kind is not None:
        typer.echo(columns(listed(kind)))
        return
    typer.echo("\n\n".join(f"{each}\n{columns(listed(each))}" for each in KINDS))
    typer.echo(
        "\nAny Hugging Face model id or folder is a model, too, and openai:NAME@URL what a server has."
    )
    typer.echo("`autoprompt show NAME` tells more.")


@app.command(epilog=console.EXIT_CODES)
@reported()
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME|RUN_DIR", help="A name or file of any kind, or a run folder.")
    ],
) -> None:
    """Tell what is behind a name, or how a run stands."""
    from autoprompt.describe import shown

    typer.echo(shown(name))


app.add_typer(preparing)

if __name__ == "__main__":
    main()
