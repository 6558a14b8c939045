"""Every error the library raises on purpose, as one tree.

AutopromptError
├── InputError            what the user gave is wrong (also a ValueError)
│   ├── SpecError         a YAML file, with file:line and field
│   ├── UnknownName       no task, model, space or strategy of that name; carries the nearest one
│   ├── TemplateError     a prompt template that cannot be resolved, rendered or scored
│   ├── DataError         rows, splits, labels or encodings that cannot be used
│   ├── LabelWordError    a label word the model cannot score as asked
│   └── BudgetError       a budget that is malformed or below the floor of one comparison
├── MissingCapability     the model cannot do what the task or strategy asks of it
├── MissingDependency     an optional package is not installed; says how to install it
├── ModelError            a model failed while answering (load, memory)
│   └── ServerError       a server is not there, refuses the key, has no such model, or stopped answering
├── StudyMismatch         a run folder belongs to a different call; names the field
└── TooManyFailures       too many answers are missing to declare a winner

Each error has a message (what came, what is allowed) and may have a ``hint`` (the next step).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AutopromptError(Exception):
    """Root of the tree. ``str(error)`` is the message, then the hint on a line of its own."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class InputError(AutopromptError, ValueError):
    """What the user gave is wrong; nothing was run."""


class SpecError(InputError):
    """A YAML file is wrong; the message starts with ``file:line: field:``."""


class UnknownName(InputError):
    """No task, model, space or strategy of that name."""


class TemplateError(InputError):
    """A prompt template cannot be resolved, rendered or scored."""


class DataError(InputError):
    """Rows, splits, labels or encodings cannot be used."""


class LabelWordError(InputError):
    """A label word cannot be scored by this model as asked."""


class BudgetError(InputError):
    """A budget is malformed or below the floor of one full comparison."""


class MissingCapability(AutopromptError):
    """The model cannot do what the task or the strategy asks of it."""


class MissingDependency(AutopromptError):
    """An optional package is not installed."""


class ModelError(AutopromptError):
    """A model failed while loading or answering."""


class ServerError(ModelError):
    """A server is not there, refuses the key, has no such model, or stopped answering."""


class StudyMismatch(AutopromptError):
    """A run folder belongs to a different call."""


class TooManyFailures(AutopromptError):
    """Too many answers are missing to declare a winner."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
