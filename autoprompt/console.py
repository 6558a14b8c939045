"""What the command line says: results on stdout, everything else (progress, notes, errors) on stderr."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import typer

from autoprompt.errors import AutopromptError, InputError, StudyMismatch

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from autoprompt.api import Round
    from autoprompt.budget import Budget, Meter

OK, FAILED, WRONG_INPUT, BELOW, INTERRUPTED = 0, 1, 2, 3, 130
EXIT_CODES = """Exit codes: 0 ok; 1 the run or the model failed; 2 wrong input; 3 below --fail-under;
130 interrupted (everything is kept, and the same command goes on)."""

_QUIET_SECONDS, _SLOW_SECONDS, _STEP = 2.0, 30.0, 0.1
"""Plain progress: never two lines within 2 s; else one for every 10 % of the budget, and one every 30 s."""


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """End the command with a message and an exit code where the library raised on purpose: no traceback."""
    try:
        yield
    except AutopromptError as error:
        fail(error.message, error.hint)
        raise typer.Exit(WRONG_INPUT if isinstance(error, (InputError, StudyMismatch)) else FAILED) from None
    except KeyboardInterrupt:
        fail("interrupted")
        raise typer.Exit(INTERRUPTED) from None


def fail(message: str, hint: str = "") -> None:
    """Say what went wrong and what to do next."""
    typer.echo(f"{typer.style('error:', fg='red', bold=True)} {message}", err=True)
    if hint:
        typer.echo(f"{typer.style('hint:', bold=True)} {hint}", err=True)


def say(message: str, *, quiet: bool = False) -> None:
    """Tell something by the way."""
    if not quiet:
        typer.echo(message, err=True)


def put_json(document: object) -> None:
    """Print plain data as the only thing on stdout."""
    typer.echo(json.dumps(document, indent=2, allow_nan=False))


@contextlib.contextmanager
def progress(*, silent: bool) -> Iterator[Callable[[Round], None] | None]:
    """Show a search as it goes: one live line on a terminal, a few plain lines elsewhere.

    Yields:
        what ``optimize`` takes as ``on_round``; None where nothing is to be shown.
    """
    if silent:
        yield None
    elif sys.stderr.isatty():
        with _live() as (bar, task):
            yield lambda state: bar.update(task, completed=100 * share(state), description=summary(state))
    else:
        yield PlainProgress(time.monotonic).show


@contextlib.contextmanager
def waiting(what: str, *, silent: bool) -> Iterator[None]:
    """Show that something is under way and for how long."""
    if silent or not sys.stderr.isatty():
        yield
        return
    with _live() as (bar, task):
        bar.update(task, total=None, description=what)
        yield


@contextlib.contextmanager
def _live() -> Iterator[tuple[RichProgress, TaskID]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.description}", markup=False)
    console = Console(stderr=True)
    with Progress(BarColumn(bar_width=20), text, TimeElapsedColumn(), console=console, transient=True) as bar:
        yield bar, bar.add_task("loading the model, scoring the manual prompt", total=100)


class PlainProgress:
    """Plain lines for logs: seldom enough not to fill them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start the clock (seconds)."""
        self._clock = clock
        self._start = clock()
        self._last_time = float("-inf")
        self._last_share = 0.0

    def show(self, state: Round) -> None:
        """Print a line if one is due."""
        now, done = self._clock(), share(state)
        silence = now - self._last_time
        if state.answered < 1:  # its calls are charged, not yet spent: only time makes a line due
            done = self._last_share
        if silence < _QUIET_SECONDS or (silence < _SLOW_SECONDS and done - self._last_share < _STEP):
            return
        self._last_time, self._last_share = now, done
        typer.echo(f"{summary(state)} · {now - self._start:.0f} s", err=True)


def summary(state: Round) -> str:
    """Best so far, prompts tried, spent of the budget."""
    prompts = "prompt" if state.prompts == 1 else "prompts"
    best = "-" if math.isnan(state.best) else f"{100 * state.best:.1f}"
    within = "" if state.answered == 1 else f" · {state.answered:.0%} of this round"
    return f"best {best} · {state.prompts} {prompts} · {_spent(state.spent, state.budget)}{within}"


def share(state: Round) -> float:
    """Share of the budget that is spent, in [0, 1]: the largest over its units."""
    spent, budget = state.spent, state.budget
    pairs = ((spent.calls, budget.calls), (spent.tokens, budget.tokens), (spent.seconds, budget.seconds))
    return min(1.0, max(used / limit for used, limit in pairs if limit is not None))


def _spent(spent: Meter, budget: Budget) -> str:
    parts = []
    if budget.calls is not None:
        parts.append(f"{spent.calls:,}/{budget.calls:,} calls")
    if budget.tokens is not None:
        parts.append(f"{spent.tokens:,}/{budget.tokens:,} tokens")
    if budget.seconds is not None:
        parts.append(f"{spent.seconds:.0f}/{budget.seconds:g} s")
    return ", ".join(parts)
