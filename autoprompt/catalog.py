"""A name and the file it stands for: tasks and search spaces (YAML), strategies (one module each).

A name is looked up as a path first, then in the user's own folder (``./tasks``, ``./search_spaces``), then
among what ships. What ships lies in ``autoprompt/_catalog/`` in a wheel and beside the package in a checkout.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Literal

from autoprompt.errors import UnknownName, nearest

Kind = Literal["tasks", "search_spaces"]

_PACKAGE = Path(__file__).resolve().parent
_ENDINGS = (".yaml", ".yml")


def find(kind: Kind, name: str | Path) -> Path:
    """Return the file for a task or a search space given by path or by name.

    Raises:
        UnknownName: there is none; carries the nearest name and the list.
    """
    path = Path(name)
    if path.suffix in _ENDINGS or len(path.parts) > 1:
        if path.is_file():
            return path
        raise UnknownName(
            f"no file {str(name)!r}{nearest(path.stem, names(kind))}",
            hint=f"give a path that exists, or one of: {', '.join(names(kind))}",
        )
    for folder in _folders(kind):
        for ending in _ENDINGS:
            if (folder / f"{name}{ending}").is_file():
                return folder / f"{name}{ending}"
    word = "task" if kind == "tasks" else "search space"
    raise UnknownName(
        f"no {word} named {str(name)!r}{nearest(str(name), names(kind))}; "
        f"there are: {', '.join(names(kind)) or 'none'}",
        hint=f"give one of these names, the path of a .yaml file, or put it in ./{kind}/",
    )


def names(kind: Kind) -> list[str]:
    """Names of all tasks or search spaces that ``find`` finds by name, sorted."""
    return sorted(
        {
            path.stem
            for folder in _folders(kind)
            if folder.is_dir()
            for path in folder.iterdir()
            if path.suffix in _ENDINGS
            and path.is_file()
            and not path.name.startswith(".")  # an editor's own files
        }
    )


def shipped(kind: Kind) -> Path:
    """The folder of what ships with the library."""
    in_wheel = _PACKAGE / "_catalog" / kind
    return in_wheel if in_wheel.is_dir() else _PACKAGE.parent / kind


def strategies() -> list[str]:
    """Names of the strategies: one file each in ``autoprompt/strategies``, sorted."""
    return sorted(
        path.stem for path in (_PACKAGE / "strategies").glob("*.py") if not path.name.startswith("_")
    )


def strategy_class(name: str) -> type[Any]:
    """Return the class of a strategy: ``random_search`` is ``RandomSearch`` in
    ``strategies/random_search.py``.

    Raises:
        UnknownName: no such file, or it does not hold the class its name promises.
    """
    if name not in strategies():
        raise UnknownName(
            f"no strategy named {name!r}{nearest(name, strategies())}; "
            f"there are: {', '.join(strategies()) or 'none'}"
        )
    module = importlib.import_module(f"autoprompt.strategies.{name}")
    class_name = "".join(part.capitalize() for part in name.split("_"))
    found = vars(module).get(class_name) or vars(module).get(class_name.upper())
    if not isinstance(found, type):
        raise UnknownName(f"{module.__file__}: holds no class {class_name}, which its file name promises")
    return found


def _folders(kind: Kind) -> list[Path]:
    return [Path.cwd() / kind, shipped(kind)]
