"""The commands that prepare a search: a task to start from, templates of other tools, label words, worked answers."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from autoprompt import console
from autoprompt.console import reported, say
from autoprompt.errors import InputError

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")]


@app.command(epilog=console.EXIT_CODES)
@reported()
def init(
    name: Annotated[str, typer.Argument(help="A name for the task and its search space.")],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|FOLDER|ID",
            help="Your rows: .csv, .tsv, .json, .jsonl, .parquet, a saved dataset or a dataset id; left out: an example.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of the answer: label, target or answer if left out."),
    ] = None,
) -> None:
    """Write a task and a search space to start from."""
    from autoprompt.starter import write_starter

    written, taken_for = write_starter(name, Path.cwd(), data, target)
    if taken_for:
        typer.echo(taken_for)
    for path in written:
        typer.echo(f"wrote {path.relative_to(Path.cwd())}")
    model, budget = ("MODEL", 2000) if data else ("toy", 200)
    typer.echo(f"now try: autoprompt optimize {name} --model {model} --budget {budget}")


@app.command("import", epilog=console.EXIT_CODES)
@reported()
def import_(
    template: Annotated[
        str, typer.Argument(metavar="TEMPLATE|FILE|-", help="A text, a file, or - for stdin.")
    ],
    form: Annotated[
        str,
        typer.Option(help="autoprompt, lmbff, openprompt, lama, fstring or jinja2; auto tells by its marks."),
    ] = "auto",
    field: Annotated[
        list[str] | None,
        typer.Option(help="A field's name, in order, or THEIRS=OURS; repeat it for each."),
    ] = None,
    labels: Annotated[str | None, typer.Option(help="The task's labels, with commas between them.")] = None,
    label_words: Annotated[
        Path | None, typer.Option(help="A file of label words (a verbalizer) in one of their forms.")
    ] = None,
    choice: Annotated[int, typer.Option(help="Which line of label words, counted from 0.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write a search space (.yaml) instead of printing it."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Read a template of another tool and write it as a search space of ours.

    Knows AutoPrompt ([T] [P] {field}), LM-BFF (*cls**sent_0*...), OpenPrompt ({"mask"}), LAMA ([X] [Y]) and format
    strings ({x}, LangChain).
    """
    import yaml

    from autoprompt.importers import import_template, import_verbalizer

    names = [name.strip() for name in labels.split(",")] if labels else None
    imported = import_template(_read(template), form=form, fields=_fields(field), labels=names)
    words = None
    if label_words is not None:
        if not label_words.is_file() and str(label_words) != "-":
            raise InputError(
                f"--label-words: {label_words}: no such file",
                hint="write the words into a file and give its name",
            )
        words = import_verbalizer(_read(str(label_words)), labels=names, choice=choice)
    content = yaml.safe_dump(imported.space(words), sort_keys=False, allow_unicode=True, width=110)
    for note in (f"read as {imported.form}", *imported.notes):
        say(f"note: {note}", quiet=quiet)
    _put(content, output)


def _read(given: str) -> str:
    """What is given, or what the file of that name holds, without the marks that editors put at its ends."""
    path = Path(given) if given != "-" and len(given) < 256 and "\n" not in given else None
    try:
        if given == "-" or (path is not None and path.is_file()):
            text = sys.stdin.read() if path is None else path.read_text("utf-8")
            return text.removeprefix("\ufeff").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{given}: cannot be read ({error})") from None
    if re.fullmatch(r"[\w./\\~-]+\.\w{1,5}", given):  # the marks of every form are other characters
        raise InputError(
            f"{given}: no such file", hint="give a template's text, or the name of a file that holds one"
        )
    return given


def _fields(given: list[str] | None) -> list[str] | dict[str, str] | None:
    """Names in order, or theirs to ours."""
    if not given or not any("=" in each for each in given):
        return given
    pairs = [each.partition("=") for each in given]
    for theirs, mark, ours in pairs:
        if not (theirs and mark and ours):
            raise InputError(
                f"field: {theirs + mark + ours!r} is no THEIRS=OURS, though another one is",
                hint="write all as THEIRS=OURS, or all as names in order",
            )
    return {theirs: ours for theirs, _, ours in pairs}


def _put(content: str, output: Path | None) -> None:
    if output is None:
        typer.echo(content, nl=False)
        return
    from autoprompt.study import write_atomically

    try:
        write_atomically(output, content)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error})") from None
    typer.echo(f"wrote {output}")


@app.command("label-words", epilog=console.EXIT_CODES)
@reported()
def label_words(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task's name or its YAML file.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help='A Hugging Face id or folder, or "bundled:masked".')
    ],
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", help="A prompt file or a template; else the manual prompt."),
    ] = None,
    method: Annotated[
        Literal["likelihood", "states"],
        typer.Option(help="likelihood (LM-BFF) or states (AutoPrompt's label search)."),
    ] = "likelihood",
    per_label: Annotated[int, typer.Option(help="Words a label.")] = 1,
    candidates: Annotated[int, typer.Option(help="Words looked at for each label.")] = 50,
    keep: Annotated[int, typer.Option(help="Choices that are measured on select.")] = 10,
    matching: Annotated[
        str | None, typer.Option(help="A regular expression every word must match; letters by default.")
    ] = None,
    ban: Annotated[list[str] | None, typer.Option(help="A word to leave out; repeat it for more.")] = None,
    seed: Annotated[int, typer.Option(help="The same call and seed give the same words.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write them as a map slot (.yaml) for a search space."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the slot as JSON on stdout.")] = False,
    quiet: Quiet = False,
) -> None:
    """Find words that stand for the labels, and measure them on select."""
    from autoprompt.label_words import LETTERS, find_label_words

    with console.waiting(f"looking for label words of {task}", silent=as_json or quiet):
        found = find_label_words(
            task,
            model,
            prompt=prompt,
            method=method,
            per_label=per_label,
            candidates=candidates,
            keep=keep,
            matching=LETTERS if matching is None else matching,
            ban=tuple(ban or ()),
            seed=seed,
        )
    if as_json:
        console.put_json(found.slot())
    else:
        typer.echo(found.text())
    if output is not None:
        _put(json.dumps(found.slot(), indent=2) if output.suffix == ".json" else found.yaml(), output)


@app.command("bootstrap", epilog=console.EXIT_CODES)
@reported()
def bootstrap_(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task's name or its YAML file.")],
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="Who works the answers out; it may be a stronger model than yours."
        ),
    ],
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            "-p",
            help="A prompt file or a template; repeat it: the next is asked where one fails.",
        ),
    ] = None,
    calls: Annotated[int | None, typer.Option(help="How often the model may be asked, at most.")] = None,
    workers: Annotated[int, typer.Option(help="Processes the work is spread over.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write them (.jsonl), for worked_file in the task's data."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Let a model work out the training examples step by step, and keep what comes out right.

    Demonstrations show these answers where a search space says worked: true (as reasoning does).
    """
    from autoprompt.bootstrapping import bootstrap

    with console.waiting(f"working out {task}", silent=quiet):
        found = bootstrap(task, model, list(prompt) if prompt else None, calls=calls, workers=workers)
    if output is not None and not found.worked:
        raise InputError(
            f"{output}: not written, since no answer came out right ({found.calls} calls)",
            hint="try other prompts (-p), a stronger model, or a larger max_tokens in the task",
        )
    typer.echo(found.text())
    if output is not None:
        _put(found.jsonl(), output)
