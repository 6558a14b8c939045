"""Strategies given as text: a name, and settings after a question mark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoprompt.catalog import strategies
from autoprompt.errors import InputError, UnknownName
from autoprompt.strategies.chain import Chain
from autoprompt.strategies.evolution import Evolution
from autoprompt.strategies.gp import GP
from autoprompt.strategies.gradient import Gradient
from autoprompt.strategies.racing import Racing
from autoprompt.strategies.random_search import RandomSearch
from autoprompt.strategies.soft import Soft
from autoprompt.strategies.tpe import TPE
from autoprompt.strategy_text import load_strategy
from tests.command_line import enter, ok, refused


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("tpe", TPE()),
        ("gp?block=4&boldness=0.25", GP(block=4, boldness=0.25)),
        ("gp?boldness=1", GP(boldness=1.0)),
        ("evolution?objectives=score, tokens&method=de", Evolution(objectives=("score", "tokens"), method="de")),
        ("soft?method=prefix&seeds=1&steps=none&trust=none", Soft(method="prefix", seeds=1)),
        ("soft?start=Is it good, or bad?&steps=20", Soft(start="Is it good, or bad?", steps=20)),
        ("gradient?race=false&max_perplexity=1e4", Gradient(race=False, max_perplexity=10_000.0)),
        ("racing?inner=random_search&wave=4", Racing(inner=RandomSearch(), wave=4)),
        ("chain?strategies=tpe,gradient&shares=1,2", Chain(strategies=(TPE(), Gradient()), shares=(1.0, 2.0))),
    ],
)  # fmt: skip
def test_settings_are_read_as_their_kind(text: str, made: object) -> None:
    assert load_strategy(text) == made


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gpp?block=4", "no strategy named 'gpp'"),
        ("gp?blok=4", r"no setting 'blok' \(did you mean 'block'\?\); settings: block, explore, batch"),
        ("auto?seeds=2", "no setting 'seeds'.* settings: none"),
        ("gp?block=four", r"block must be a whole number \(got 'four'\)"),
        ("gp?block", r"block must be a whole number \(got ''\)"),
        ("soft?steps=x", "steps must be a whole number or none"),
        ("gradient?race=yes", r"race must be true or false \(got 'yes'\)"),
        ("evolution?method=gas", "method must be one of ga, de"),
        ("chain?shares=a,b&strategies=tpe", "shares must be none or a list with commas"),
        ("racing?inner=tpp", "no strategy named 'tpp'"),
        ("chain", "its setting 'strategies' has no default"),
        ("gp?block=-1", "gp: block must be at least 0"),
        ("soft?method=prefixes", "no method 'prefixes'"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        load_strategy(text)
    assert isinstance(caught.value, UnknownName) == ("no s" in said or "no method" in said)


def test_every_setting_of_every_strategy_can_be_written() -> None:
    for name in strategies():
        text = name + ("?strategies=tpe" if name == "chain" else "")
        described = load_strategy(text).describe()
        plain = {
            key: value
            for key, value in described.items()
            if isinstance(value, (int, float)) and key != "strategy"
        }
        settings = "&".join(f"{key}={str(value).lower()}" for key, value in plain.items())
        again = load_strategy(f"{text}{'&' if '?' in text else '?'}{settings}")
        assert again.describe() == described


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(tmp_path, monkeypatch)
    ok(
        "optimize",
        "mine",
        "-m",
        "toy",
        "-b",
        "150",
        "--strategy",
        "random_search?batch=2",
        "--run-dir",
        "run",
    )
    header = json.loads(Path("run/study.json").read_text("utf-8"))
    assert header["strategy"] == {"strategy": "random_search", "batch": 2}
    assert "complete" in ok("resume", "run").stdout or "budget" in ok("resume", "run").stdout
    told = refused(2, "optimize", "mine", "-m", "toy", "-b", "150", "--strategy", "random_search?bach=2")
    assert "did you mean 'batch'" in told
    assert "autoprompt show random_search" in told
