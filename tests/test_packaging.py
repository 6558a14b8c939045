"""Wheel, editable install and bare checkout all find the tasks, spaces and bundled models; imports stay cheap."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

FIND = (
    "from autoprompt import catalog, Task, SearchSpace; "
    "assert Task.load('reviews').test; assert SearchSpace.load('reviews').slots; "
    "print(catalog.__file__, len(catalog.names('tasks')), len(catalog.names('search_spaces')))"
)


def run(code: str, *, path: Path, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(path)!r}); {code}"],
        capture_output=True, text=True, cwd=folder, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_bare_checkout_finds_what_ships(tmp_path: Path) -> None:
    file, tasks, spaces = run(FIND, path=ROOT, folder=tmp_path).split()
    assert file == str(ROOT / "autoprompt" / "catalog.py")
    assert int(tasks) >= 13
    assert int(spaces) >= 11


def test_a_wheel_finds_what_ships(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert "autoprompt/py.typed" in names
    assert "autoprompt/_catalog/tasks/reviews.jsonl" in names
    assert "autoprompt/models/bundled/masked/model.safetensors" in names
    assert not [name for name in names if name.startswith(("tests/", "tasks/"))]
    file, tasks, spaces = run(FIND, path=tmp_path / "site", folder=tmp_path).split()
    assert file == str(tmp_path / "site" / "autoprompt" / "catalog.py")
    assert int(tasks) >= 13
    assert int(spaces) >= 11


@pytest.mark.parametrize("code", ["import autoprompt", "import autoprompt.cli", "import autoprompt.catalog"])
def test_light_imports_stay_light(code: str, tmp_path: Path) -> None:
    heavy = ("torch", "transformers", "datasets", "optuna", "sklearn", "scipy", "pandas", "joblib")
    out = run(
        f"{code}; print([name for name in {heavy!r} if name in sys.modules])", path=ROOT, folder=tmp_path
    )
    assert out.strip() == "[]"
