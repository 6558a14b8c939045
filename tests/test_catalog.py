"""Names and the files they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoprompt import catalog
from autoprompt.errors import UnknownName


def test_shipped_tasks_are_found_by_name() -> None:
    names = catalog.names("tasks")
    assert {"reviews", "news", "sst2", "hotpotqa"} <= set(names)
    for name in names:
        assert catalog.find("tasks", name).stem == name


def test_own_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "tasks" / "reviews.yaml"
    own.parent.mkdir()
    own.write_text("x: 1")
    (tmp_path / "tasks" / "mine.yml").write_text("x: 1")
    assert catalog.find("tasks", "reviews").resolve() == own.resolve()
    assert "mine" in catalog.names("tasks")


def test_paths(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("x: 1")
    assert catalog.find("tasks", path) == path
    with pytest.raises(UnknownName, match=r"no file '.*b\.yaml'"):
        catalog.find("tasks", tmp_path / "b.yaml")


def test_unknown_names_teach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UnknownName, match=r"no task named 'revews' \(did you mean 'reviews'\?\); there are: ag-news"
    ):
        catalog.find("tasks", "revews")
    with pytest.raises(UnknownName, match="no search space named 'zzz'"):
        catalog.find("search_spaces", "zzz")
    with pytest.raises(UnknownName, match=r"did you mean 'random_search'\?"):
        catalog.strategy_class("random_serch")


def test_a_wheel_keeps_the_data_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "pkg" / "_catalog" / "tasks"
    inside.mkdir(parents=True)
    (inside / "only.yaml").write_text("x: 1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(catalog, "_PACKAGE", tmp_path / "pkg")
    assert catalog.names("tasks") == ["only"]
    assert catalog.shipped("tasks") == inside


def test_every_strategy_file_holds_its_class() -> None:
    names = catalog.strategies()
    assert "random_search" in names
    assert not any(name.startswith("_") for name in names)
    for name in names:
        assert catalog.strategy_class(name).__name__.lower() == name.replace("_", "")
