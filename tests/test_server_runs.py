"""Whole searches over a loopback server: like the model itself, through rate limits, garbage and its death."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import autoprompt
from autoprompt.errors import ServerError, StudyMismatch, TooManyFailures
from autoprompt.study import read_log
from tests.command_line import call, ok, refused
from tests.models.loopback import Loopback, Offers, Trouble
from tests.models.minds import Talker, Toyish, exact
from tests.small import small_space, small_task

FAST = "backoff=0.001&timeout=20"
BUDGET = 130


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(Toyish()) as server:
        yield server


def search(spec: str, folder: Path | None, strategy: str = "random_search") -> autoprompt.Result:
    return autoprompt.optimize(
        small_task(), spec, BUDGET, space=small_space(), strategy=strategy, seed=3, run_dir=folder
    )


def named(server: Loopback, options: str = "") -> str:
    return f"openai:small@{server.url}?{FAST}&{options}".rstrip("&")


def document(folder: Path) -> dict[str, Any]:
    """The result without what a break may change: time, and how much came from the cache."""
    found: dict[str, Any] = json.loads((folder / "result.json").read_text("utf-8"))
    for cost in found["cost"].values():
        del cost["seconds"], cost["cached"]
    del found["notes"]
    return found


def log(folder: Path) -> bytes:
    return (folder / "trials.jsonl").read_bytes()


def test_a_server_finds_what_its_model_finds(tmp_path: Path) -> None:
    """The bundled model, directly and behind a server that echoes log-probabilities: the very same trials."""
    task = autoprompt.Task.load("reviews").with_sizes(train=8, select=8, test=6)
    with Loopback(exact("bundled:causal")) as server:
        for name, model in (("direct", "bundled:causal"), ("server", named(server, "deterministic"))):
            autoprompt.optimize(task, model, 32, strategy="random_search", run_dir=tmp_path / name)
    direct, served = (read_log(tmp_path / name / "trials.jsonl") for name in ("direct", "server"))
    assert len(direct) == len(served) == 4
    for one, other in zip(direct, served, strict=True):
        assert other.pop("loss") == pytest.approx(one.pop("loss"), abs=1e-4)
        assert other.pop("tokens") == pytest.approx(2 * one.pop("tokens"), abs=4)  # a text for every answer
        assert one == other
    results = [
        json.loads((tmp_path / name / "result.json").read_text("utf-8")) for name in ("direct", "server")
    ]
    for part in ("status", "verdict", "select", "test", "prompt", "candidate"):
        assert results[0][part] == results[1][part]


@pytest.mark.parametrize("strategy", ["random_search", "tpe"])
def test_a_server_that_dies_and_comes_back_changes_nothing(
    tmp_path: Path, server: Loopback, strategy: str
) -> None:
    """Killed again and again, in the search and in the measurement on test: the same log, the same result."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    spec = named(server, "retries=1")
    search(spec, whole, strategy)
    asked = server.posts
    server.stop()
    deaths = posts = 0
    told: list[str] = []
    stands: list[tuple[str, object]] = []
    while True:
        trouble = Trouble(dies_at=50) if deaths < 6 else Trouble()
        with Loopback(Toyish(), trouble=trouble, port=server.port) as again:
            try:
                search(spec, broken, strategy)
            except ServerError as error:
                deaths += 1
                posts += again.posts
                told.append(str(error))
                stands.append((document(broken)["status"], document(broken)["test"]))
                continue
        posts += again.posts
        break
    assert deaths >= 3
    assert set(stands) == {("failed", None)}
    assert all("does not answer any more" in each and "same run folder" in each for each in told)
    assert log(broken) == log(whole)
    assert document(broken) == document(whole)
    assert document(whole)["status"] == "budget"
    # a death costs the probes of the next start, and at most what was under way
    assert posts <= asked + deaths * (4 + 2 * 8)


def test_rate_limits_and_garbage_change_nothing(tmp_path: Path, server: Loopback) -> None:
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    result = search(named(server), calm)
    assert not any("missing" in note or "asked again" in note for note in result.notes)
    server.trouble = Trouble(
        limited=lambda number: number % 5 == 0,
        broken=lambda number: number % 7 == 0,
        cut=lambda number: number % 11 == 0,
        garbage=lambda number: b'{"choices": [{"index": 0}]}' if number % 13 == 0 else None,
    )
    result = search(named(server), rough)
    assert log(rough) == log(calm)
    assert document(rough) == document(calm)
    assert any("asked again after a failure" in note for note in result.notes)


def test_what_stays_garbage_is_missing_and_told(server: Loopback) -> None:
    """One question in twelve never gets an answer: no zero, no crash, and a note."""

    def garbage(number: int) -> bytes | None:
        asked = json.dumps(server.bodies[number - 1])
        return b'{"choices": []}' if "select 1 was dull" in asked else None

    server.trouble = Trouble(garbage=garbage)
    result = search(named(server), None)
    assert result.status == "budget"
    assert {trial.missing for trial in result.trials if trial.complete} == {1}
    assert any("answers are missing" in note and "0 choices" in note for note in result.notes)


def test_a_server_that_only_talks_nonsense_ends_the_run_honestly(tmp_path: Path, server: Loopback) -> None:
    started = 6  # posts of the probes at most

    server.trouble = Trouble(garbage=lambda number: b'{"choices": []}' if number > started else None)
    with pytest.raises(TooManyFailures, match="no winner can be declared"):
        search(named(server), tmp_path / "run")
    assert document(tmp_path / "run")["status"] == "failed"


def test_a_server_without_log_probabilities_is_read_by_its_words(tmp_path: Path) -> None:
    def say(text: str) -> str:
        gloomy = any(word in text for word in ("awful", "dull", "rude")) and "Review" in text
        return "I would say: Bad, sadly." if gloomy else "Good."

    with Loopback(Talker(say), Offers(echo=False, top=0)) as server:
        result = search(named(server), tmp_path / "run")
        assert result.status == "budget"
        assert (
            "first label word that stands in the model's text" in document(tmp_path / "run")["answer_read_as"]
        )
        assert result.candidate.text.startswith("Review: ")
        assert any("looked for in what the server writes" in note for note in result.notes)
        assert any(note.startswith("this session: ") and "requests" in note for note in result.notes)
        assert result.test is not None
        assert result.test.best.value == 1.0
        server.offers = Offers()  # the same server with another configuration is another run
        with pytest.raises(StudyMismatch, match="model"):
            search(named(server), tmp_path / "run")


def test_no_file_of_a_run_holds_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Loopback
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-0123")
    server.offers = Offers(key="sk-secret-0123")
    monkeypatch.chdir(tmp_path)
    assert call("init", "mine").exit_code == 0
    spec = named(server, "retries=0")
    ok("optimize", "mine", "-m", spec, "-b", "60", "--strategy", "random_search", "--run-dir", "run")
    server.offers = Offers(key="sk-another")  # which it says, with the key that it was given
    said = refused(1, "evaluate", "mine", "-m", spec, "-q")
    assert "Incorrect API key provided: ***" in said
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {"command.json", "study.json", "answers.db", "result.json"} <= {path.name for path in files}
    assert not [path for path in files if b"sk-secret" in path.read_bytes()]


def test_generation_over_chat() -> None:
    rows = [{"q": f"What is {at} + 1?", "a": str(at + 1)} for at in range(12)]
    task = autoprompt.Task.from_rows(
        {"train": rows[:4], "select": rows[4:8], "test": rows[8:]},
        kind="generation", target="a", metric="exact_match", prompt="{{ q }} {{ answer }}", stop=("\n",),
    )  # fmt: skip

    def say(text: str) -> str:
        return f"{int(text.split()[2]) + 1}\nThat was easy." if text.startswith("What is") else "Hello."

    with Loopback(Talker(say), Offers(completions=False)) as server:
        evaluation = autoprompt.evaluate(task, named(server), task.seed_prompt)
    assert evaluation.estimate.value == 1.0


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Loopback) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("init", "mine").exit_code == 0
    spec = named(server, "retries=0")
    shown = ok("evaluate", "mine", "-m", spec)
    assert "accuracy" in shown.stdout
    assert "note: answers are scored by the log-probabilities" in shown.stderr
    assert "did you mean 'small'" in refused(1, "evaluate", "mine", "-m", f"openai:smal@{server.url}")
    server.trouble = Trouble(dies_at=server.posts + 60)
    died = call(
        "optimize", "mine", "-m", spec, "-b", "400", "--strategy", "random_search", "--run-dir", "run"
    )
    assert died.exit_code == 1
    assert "does not answer any more" in died.stderr
    assert "hint: start it again" in died.stderr
    assert "failed" in ok("show", "run").stdout
    assert "nothing answers at" in refused(1, "resume", "run", "-q")
    with Loopback(Toyish(), port=server.port):
        assert "verdict" in ok("resume", "run").stdout
        assert "budget" in ok("show", "run").stdout
