"""The floors: imports go down only, heavy libraries enter by named doors, files stay small, data folders hold data."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "autoprompt"
FLOORS: list[set[str]] = [
    {"errors"},
    {"budget", "metrics", "statistics", "policy", "template", "catalog", "probe", "word_sets", "soft"},
    {"prompt"},
    {"specfile", "vocabulary", "importers"},
    {"example"},
    {"rows", "splits", "taskfile"},
    {"task"},
    {"asks", "slots"},
    {"spacefile", "edits", "demonstrations"},
    {"drawing"},
    {"counting"},
    {"space"},
    {"triggers", "trial"},
    {"models", "strategies", "study"},
    {"cache", "workers", "strategy_text"},
    {"grading"},
    {"questions", "readable"},
    {"harness"},
    {"notes"},
    {"exporters", "softfiles"},
    {"result"},
    {"inputs"},
    {"prompt_inputs"},
    {"api", "forecast", "testing", "label_words", "bootstrapping"},
    {"relations"},
    {"starter_data"},
    {"command", "console", "describe", "starter"},
    {"preparing"},
    {"cli"},
    {"__main__", "__init__"},
]
DOORS = {
    "torch": ("models/hf/",),
    "transformers": ("models/hf/",),
    "datasets": ("rows.py",),
    "optuna": ("strategies/tpe.py",),
    "joblib": ("workers.py",),
    "scipy": ("probe.py", "statistics.py"),
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def floor_of(path: Path) -> tuple[int, str]:
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for number, names in enumerate(FLOORS):
        if name in names:
            return number, name
    raise AssertionError(f"{path} stands on no floor: add it to FLOORS and to ARCHITECTURE.md")


def imports_of(path: Path) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "autoprompt" else []
            )
            found.append(node.module or "")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    number, name = floor_of(path)
    if name == "__init__":
        return
    for imported in imports_of(path):
        parts = imported.split(".")
        if parts[0] != "autoprompt" or len(parts) == 1 or parts[1] == "__version__":
            continue
        other, other_name = floor_of(PACKAGE / parts[1])
        assert other < number or other_name == name, (
            f"{path.name} ({name}) imports {imported}, which is not below it"
        )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_enter_by_named_doors(path: Path) -> None:
    place = path.relative_to(PACKAGE).as_posix()
    for imported in imports_of(path):
        doors = DOORS.get(imported.split(".")[0])
        assert doors is None or place.startswith(doors), f"{place} imports {imported}; its doors are {doors}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n") < 400, f"{path} has 400 lines or more"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            docstring = ast.get_docstring(node, clean=False) or ""
            length = node.end_lineno - node.lineno - docstring.count("\n")
            assert length < 50, f"{path}:{node.lineno} {node.name} has {length} lines"


def test_the_story_fits_on_one_page() -> None:
    assert (PACKAGE / "api.py").read_text("utf-8").count("\n") < 275


@pytest.mark.parametrize("folder", ["tasks", "search_spaces"])
def test_data_folders_hold_data_only(folder: str) -> None:
    assert not list((ROOT / folder).rglob("*.py")), "one .py file in a data folder breaks editable installs"


def test_nothing_runs_code_from_data() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), f"{path}:{node.lineno}"
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert isinstance(node.value, ast.Constant), f"{path}:{node.value.lineno}"
                assert node.value.value is False, f"{path}:{node.value.lineno}"
        assert not {"pickle", "dill", "cloudpickle"} & {name.split(".")[0] for name in imports_of(path)}, path
