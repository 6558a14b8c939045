"""Answers by the hash of their question, in SQLite (WAL).

The key holds everything the answer depends on, the model's fingerprint included, so a cache can never serve
an answer of another model, dtype or template. Losing the file costs time and nothing else.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprompt.errors import InputError
from autoprompt.models import (
    Failure,
    Floats,
    FluencyReply,
    FluencyRequest,
    GradientReply,
    LabelReply,
    LabelRequest,
    RankReply,
    RankRequest,
    Reply,
    Request,
    SlotFluency,
    SlotGradient,
    TextReply,
    TuneReply,
)
from autoprompt.soft import SoftRows

_Stored = LabelReply | RankReply | TextReply | FluencyReply | GradientReply | TuneReply
_REPLIES: dict[str, type[_Stored]] = {
    "label": LabelReply,
    "rank": RankReply,
    "text": TextReply,
    "fluency": FluencyReply,
    "gradient": GradientReply,
    "tune": TuneReply,
}
_NAMES = {cls: name for name, cls in _REPLIES.items()}
_FAILED = "failed"
_LOOKUP = 500  # variables per SQL statement; SQLite's smallest compiled limit is 999


def question_key(fingerprint: str, request: Request, repeat: int = 0) -> str:
    """Hash of a question: the model's fingerprint, the request's content, and which repetition it is."""
    rendered = request.rendered
    content: list[object] = [
        fingerprint,
        type(request).__name__,
        [[piece.text, piece.is_field] for piece in rendered.before],
        [[piece.text, piece.is_field] for piece in rendered.after],
        repeat,
    ]
    soft = [
        [at, piece.rows.key]
        for at, piece in enumerate((*rendered.before, *rendered.after))
        if piece.rows is not None
    ]
    if soft:
        content.append(soft)
    if isinstance(request, LabelRequest):
        content += [request.answers, request.relative, *(["ended"] if request.ended else [])]
    elif isinstance(request, RankRequest):
        content += [request.target, request.among]
    elif isinstance(request, FluencyRequest):
        slots = [[piece.slot for piece in part] for part in (rendered.before, rendered.after)]
        content += [request.likely, slots]
    else:
        content += [request.max_tokens, request.stop]
        if request.temperature:
            content += ["drawn", request.temperature, request.seed]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class Cache:
    """A table from question key to reply, and the seconds the model has run, by account."""

    def __init__(self, path: Path | None = None) -> None:
        """Open or make the table at ``path``; None keeps it in memory. A broken file is set aside and begun
        anew.

        Raises:
            InputError: the file cannot be opened or made.
        """
        self._path = path
        try:
            self._db = _open(path)
        except sqlite3.OperationalError as error:  # no permission, no space, locked: not broken
            raise InputError(f"cannot open the cache {str(path)!r}: {error}") from None
        except sqlite3.DatabaseError:
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Set a broken file aside; its answers are asked again."""
        assert self._path is not None
        self._path.replace(self._path.with_suffix(".broken"))
        for extra in ("-wal", "-shm"):
            self._path.with_name(self._path.name + extra).unlink(missing_ok=True)
        self._db = _open(self._path)

    def get(self, keys: Sequence[str], *, failures: bool = False) -> dict[str, Reply]:
        """Return the replies that are there, by key; one that cannot be read counts as not there, and one that failed does
        unless ``failures``, since it is worth another try.
        """
        found: dict[str, Reply] = {}
        for start in range(0, len(keys), _LOOKUP):
            part = keys[start : start + _LOOKUP]
            marks = ",".join("?" * len(part))
            try:
                rows = self._db.execute(
                    f"SELECT key, reply FROM answers WHERE key IN ({marks})", part
                ).fetchall()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:  # the file opens, but a page of it is broken
                self._db.close()
                self._begin_anew()
                return found
            for key, text in rows:
                reply = _load(text)
                if reply is not None and (failures or not isinstance(reply, Failure)):
                    found[key] = reply
        return found

    def put(self, replies: Mapping[str, Reply], *, account: str, seconds: float = 0.0) -> None:
        """Store replies in one transaction and book ``seconds`` of model time."""
        rows = [(key, _dump(reply)) for key, reply in replies.items()]
        try:
            self._put(rows, account, seconds)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            self._db.close()
            self._begin_anew()
            self._put(rows, account, seconds)

    def _put(self, rows: Sequence[tuple[str, str]], account: str, seconds: float) -> None:
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)
            self._db.execute(
                "INSERT INTO spent VALUES (?, ?) "
                "ON CONFLICT(account) DO UPDATE SET seconds = seconds + excluded.seconds",
                (account, seconds),
            )

    def seconds(self, account: str) -> float:
        """Seconds the model has run on this account (``search`` or ``test``), over all sessions of the
        run.
        """
        try:
            row = self._db.execute("SELECT seconds FROM spent WHERE account = ?", (account,)).fetchone()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            self._db.close()
            self._begin_anew()
            return 0.0
        return float(row[0]) if row else 0.0

    def __len__(self) -> int:
        like = f'["{_FAILED}"%'
        (count,) = self._db.execute("SELECT COUNT(*) FROM answers WHERE reply NOT LIKE ?", (like,)).fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _open(path: Path | None) -> sqlite3.Connection:
    database = sqlite3.connect(":memory:" if path is None else str(path), timeout=30)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        with database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, reply TEXT) WITHOUT ROWID"
            )
            database.execute("CREATE TABLE IF NOT EXISTS spent (account TEXT PRIMARY KEY, seconds REAL)")
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database


def _dump(reply: Reply) -> str:
    if isinstance(reply, Failure):
        return json.dumps([_FAILED, reply.message])
    return json.dumps([_NAMES[type(reply)], *_values(reply)])


def _values(reply: _Stored) -> Iterable[object]:
    if isinstance(reply, FluencyReply):
        slots = [
            [name, slot.ids, slot.log_probs, slot.likely, slot.likely_log_probs]
            for name, slot in reply.slots.items()
        ]
        return slots, reply.tokens, reply.shortened
    if isinstance(reply, GradientReply):
        gradients = [[name, slot.ids, _packed(slot.gradient)] for name, slot in reply.slots.items()]
        return reply.loss, gradients, reply.tokens, reply.shortened
    if isinstance(reply, TuneReply):
        rows = [
            [name, _packed(each.values), *([each.form] if each.form != "embeddings" else [])]
            for name, each in reply.rows.items()
        ]
        state = base64.b64encode(reply.state).decode("ascii")
        return rows, list(reply.ids.items()), reply.losses, state, reply.tokens, reply.shortened
    return (getattr(reply, item.name) for item in dataclasses.fields(reply))


def _load(text: str) -> Reply | None:
    try:
        name, *values = json.loads(text)
        if name == _FAILED:
            return Failure(*values)
        if name == "label":
            values[0] = tuple(values[0])
        elif name == "fluency":
            values[0] = {
                slot: SlotFluency(
                    tuple(ids), tuple(log_probs), tuple(map(tuple, likely)), tuple(map(tuple, theirs))
                )
                for slot, ids, log_probs, likely, theirs in values[0]
            }
        elif name == "gradient":
            values[1] = {slot: SlotGradient(tuple(ids), _unpacked(rows)) for slot, ids, rows in values[1]}
        elif name == "tune":
            values[0] = {slot: SoftRows(_unpacked(rows), *form) for slot, rows, *form in values[0]}
            values[1] = {slot: tuple(ids) for slot, ids in values[1]}
            values[2:4] = tuple(values[2]), base64.b64decode(values[3])
        return _REPLIES[name](*values)
    except (ValueError, TypeError, KeyError, IndexError):
        return None


def _packed(rows: Floats) -> list[object]:
    """[L, D] in float32 as its width and its bytes."""
    return [rows.shape[1], base64.b64encode(np.ascontiguousarray(rows, "<f4").tobytes()).decode("ascii")]


def _unpacked(stored: Sequence[Any]) -> NDArray[np.float32]:
    width, content = stored
    return np.frombuffer(base64.b64decode(content), "<f4").reshape(-1, width)
