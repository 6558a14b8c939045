"""The run folder: what was asked for, every trial, and how the run stands.

``study.json`` is the header (the identity of the run), ``trials.jsonl`` the log (one line a scored prompt,
appended and synced; a torn last line is tolerated), ``answers.db`` the cache. All but the cache are readable
with ``jq``. Opening the folder again with the same header resumes it: the strategy replays through the cache,
and what is already in the log is checked instead of written twice.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from autoprompt.asks import Answer, Ask, Complete, Completed, Score
from autoprompt.errors import DataError, InputError, StudyMismatch
from autoprompt.task import Example
from autoprompt.trial import Trial as Trial
from autoprompt.trial import may_win, measured
from autoprompt.trial import rank as rank

Status = Literal["complete", "budget", "interrupted", "failed"]
"""complete: the strategy had no more questions. budget: it was spent. interrupted: stopped from outside, can
be resumed. failed: the model failed; no winner is declared."""

HEADER, LOG, ANSWERS, LOCK = "study.json", "trials.jsonl", "answers.db", ".lock"
DERIVED = frozenset(("metric", "select_size", "answer_read_as", "model_kind", "model_revision"))
"""What the header says beside the identity: it follows from the task and the model."""


class Study:
    """A log of trials, in a folder or in memory."""

    def __init__(self, folder: Path | None, header: Mapping[str, Any]) -> None:
        """Open ``folder`` for the run that ``header`` identifies; None keeps the log in memory.

        Raises:
            StudyMismatch: the folder belongs to a different run; the message names the fields.
            InputError: another process is using the folder, or it is no folder.
        """
        self.folder = folder
        self.header = dict(header)
        self.trials: list[Trial] = []
        self.replayed = 0
        """How many of the trials were in the log already."""
        self._best: Trial | None = None
        self._keys: set[str] = set()
        self._logged: list[dict[str, Any]] = []
        self._log: IO[str] | None = None
        self._lock: IO[str] | None = None
        self._rounds = 0
        if folder is not None:
            try:
                self._open(folder)
            except BaseException:
                self.close()
                raise

    def _open(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder / LOCK)
        except OSError as error:
            raise InputError(f"run_dir {str(folder)!r}: cannot be used as a folder ({error})") from None
        path = folder / HEADER
        plain = json.loads(json.dumps(self.header))
        if path.exists():
            _compare(folder, read_header(path), plain)
        else:
            write_atomically(path, json.dumps(plain, indent=2, ensure_ascii=False) + "\n")
        self._logged = read_log(folder / LOG, repair=True)
        self._log = (folder / LOG).open("a", encoding="utf-8")

    @property
    def answers_path(self) -> Path | None:
        """Where the cache of this run lies."""
        return None if self.folder is None else self.folder / ANSWERS

    @property
    def prompts(self) -> int:
        """Number of different prompts in the trials."""
        return len(self._keys)

    def record(
        self, asks: Sequence[Ask], answers: Sequence[Answer], *, select: Sequence[Example], calls: int
    ) -> None:
        """Log one round: a trial for every answered ask.

        Args:
            asks: the round's asks; those beyond the answers were not paid for.
            answers: the harness's answers.
            select: the select examples; a trial on other ones is not complete.
            calls: calls spent after the round.
        """
        for ask, answer in zip(asks, answers, strict=False):
            complete = (
                isinstance(ask, Score) and not ask.repeat and _same(ask.examples, select)
            )  # gradients and perplexities are no scores
            self._append(
                Trial(
                    number=len(self.trials),
                    round=self._rounds,
                    text=ask.prompt.text,
                    words={label: list(words) for label, words in ask.prompt.words.items()},
                    choices=dict(ask.prompt.choices),
                    key=ask.prompt.key,
                    complete=complete,
                    n=len(ask.texts) if isinstance(ask, Complete) else len(ask.examples),
                    calls=calls,
                    note=ask.note or type(ask).__name__.lower(),
                    beside=isinstance(ask, Score) and ask.beside,
                    written=_written(ask, answer),
                    soft=ask.prompt.soft,
                    asked=ask.prompt if ask.prompt.soft else None,
                    **measured(answer),
                )
            )
        if self._log is not None:
            self._log.flush()
            os.fsync(self._log.fileno())
        self._rounds += 1

    def _append(self, trial: Trial) -> None:
        row = trial.row()
        known = trial.number < len(self._logged) and self._logged[trial.number] == row
        if known:
            self.replayed += 1
        elif trial.number < len(self._logged):
            self._forget(trial.number)  # the model answered differently than it did before
        self.trials.append(trial)
        self._keys.add(trial.key)
        if may_win(trial) and (self._best is None or rank(trial) < rank(self._best)):
            self._best = trial
        if not known and self._log is not None:
            self._log.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _forget(self, number: int) -> None:
        """Drop the logged lines from ``number`` on: what was lost in the cache came out differently."""
        assert self.folder is not None
        assert self._log is not None
        self._log.close()
        self._logged = self._logged[:number]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self._logged)
        write_atomically(self.folder / LOG, lines)
        self._log = (self.folder / LOG).open("a", encoding="utf-8")

    def best(self) -> Trial | None:
        """The best complete trial of a prompt of text; None before there is one.

        Highest score that is sure, then fewest missing answers, lowest loss, fewest tokens, first asked.
        Missing answers count as wrong here and only here: means over different examples do not compare, and a
        prompt must not win by losing its hard examples. The score that is shown stays the mean of the answers
        that are there.
        """
        return self._best

    def best_beside(self) -> Trial | None:
        """The best of the complete trials that break a rule of their space; None where there is none."""
        beside = [
            trial
            for trial in self.trials
            if trial.beside and trial.complete and trial.score is not None and not trial.soft
        ]
        return min(beside, key=rank, default=None)

    def best_soft(self) -> Trial | None:
        """The best of the complete trials of prompts that hold rows: of what was trained where anything was (a start is
        ``beside``), None where there is none.
        """
        soft = [trial for trial in self.trials if trial.soft and trial.complete and trial.score is not None]
        trained = [trial for trial in soft if not trial.beside]
        return min(trained or soft, key=rank, default=None)

    def perplexities(self) -> dict[str, float]:
        """Key of a prompt to how its token slots read, where that was asked."""
        return {trial.key: trial.perplexity for trial in self.trials if trial.perplexity is not None}

    def pareto(self) -> list[Trial]:
        """Complete trials that no other beats in score, tokens and, where it is known, perplexity at once; from the
        shortest to the best.
        """
        perplexity = self.perplexities()
        front: list[Trial] = []
        seen: set[str] = set()
        complete = [trial for trial in self.trials if may_win(trial)]
        for trial in sorted(complete, key=lambda trial: (trial.tokens, rank(trial))):
            value = perplexity.get(trial.key, 0.0)
            beaten = any(
                (each.sure or 0.0) >= (trial.sure or 0.0) and perplexity.get(each.key, 0.0) <= value
                for each in front  # none of them is longer
            )
            if trial.key not in seen and not beaten:
                front.append(trial)
                seen.add(trial.key)
        return front

    def close(self) -> None:
        """Close the log and let other processes use the folder."""
        for file in (self._log, self._lock):
            if file is not None:
                file.close()


def _written(ask: Ask, answer: Answer) -> tuple[tuple[str, str | None], ...]:
    """Texts with what a model wrote after them; empty where none were asked for."""
    if isinstance(ask, Complete) and isinstance(answer, Completed):
        return tuple(zip(ask.texts, answer.texts, strict=True))
    return ()


def _same(examples: Sequence[Example], select: Sequence[Example]) -> bool:
    """Whether these are the select examples, in whatever order."""
    if len(examples) != len(select):
        return False
    return tuple(examples) == tuple(select) or Counter(examples) == Counter(select)


def read_header(path: Path) -> dict[str, Any]:
    """Read the header of a run.

    Raises:
        DataError: it is not one.
    """
    try:
        header = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not the header of a run ({error})", hint="choose another folder") from None
    if not isinstance(header, dict):
        raise DataError(
            f"{path}: not the header of a run (must be a JSON object)", hint="choose another folder"
        )
    return header


def read_log(path: Path, *, repair: bool = False) -> list[dict[str, Any]]:
    """Read trials up to the first line that is torn or broken; what is left out is cut off the file if
    ``repair``.

    Nothing is lost by that: a resumed run writes the same lines again.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    rows: list[dict[str, Any]] = []
    end = 0
    while (stop := content.find(b"\n", end)) >= 0:
        try:
            row = json.loads(content[end:stop])
        except ValueError:
            break
        if not isinstance(row, dict):
            break
        rows.append(row)
        end = stop + 1
    if repair and end < len(content):
        with path.open("r+b") as file:
            file.truncate(end)
    return rows


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file, text in UTF-8, so that at every moment either the old or the new content is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _locked(path: Path) -> IO[str]:
    """Hold the folder for this process; the lock ends with the process, however that ends."""
    file = path.open("w", encoding="utf-8")
    try:
        import fcntl
    except ImportError:  # Windows: no advisory lock; two runs on one folder are the user's to avoid
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise InputError(
            f"run_dir {str(path.parent)!r}: another process is using it",
            hint="wait for it to end, or choose another folder",
        ) from None
    return file


def _compare(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Compare two headers by content: where there is a fingerprint, names and paths may differ."""
    names = [name for name in {**old, **new} if not name.endswith("_fingerprint") and name not in DERIVED]
    lines: list[str] = []
    changed: list[str] = []
    for name in names:
        mark = f"{name}_fingerprint"
        by = mark if mark in new or mark in old else name
        if old.get(by) == new.get(by):
            continue
        changed.append(name)
        was, now = _short(old.get(name)), _short(new.get(name))
        if was == now:
            was, now = (f"{was} with other content ({str(header.get(by))[:8]})" for header in (old, new))
        lines.append(f"  {name}: was {was}, now {now}")
    if changed:
        raise StudyMismatch(
            f"run_dir {str(folder)!r} holds a run with a different {', '.join(changed)}:\n"
            + "\n".join(lines),
            hint="repeat the call that made it, or choose another folder",
        )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:97] + "..."
