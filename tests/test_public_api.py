"""The public names are these and no others, and each can be had."""

from __future__ import annotations

import inspect

import pytest

import autoprompt


def test_all_is_sorted_and_importable() -> None:
    assert autoprompt.__all__ == sorted(autoprompt.__all__)
    assert set(dir(autoprompt)) == set(autoprompt.__all__)
    for name in autoprompt.__all__:
        assert getattr(autoprompt, name) is not None


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'optimise'"):
        _ = autoprompt.optimise


def test_optimize_has_nine_parameters_and_no_tenth() -> None:
    assert list(inspect.signature(autoprompt.optimize).parameters) == [
        "task", "model", "budget", "space", "strategy", "seed", "run_dir", "workers", "on_round",
    ]  # fmt: skip
