"""Project: train rows, and look for the words that do as well.

Nearest tokens alone do badly by any measure, and say nothing of what rows mean (Khashabi et al. 2022, "Prompt
Waywardness"). So a beam goes over the nearest tokens of every row, the rows not yet decided staying rows, and candidates
are scored on examples. Beside it stand the controls that say what the rows were worth: as many drawn prompts scored in
the same way, and the prompt that training began at. Where nearest tokens say nothing of a row, the findings say so.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprompt.asks import Answer, Ask, Score, Scored
from autoprompt.errors import InputError, UnknownName, nearest
from autoprompt.prompt import Prompt
from autoprompt.soft import SoftRows
from autoprompt.strategies import Play
from autoprompt.strategies.soft import Soft
from autoprompt.task import Example
from autoprompt.vocabulary import Metric

METRICS: tuple[Metric, ...] = ("cosine", "l2", "norm", "centred", "whitened")
SAMPLE = 2000
"""Tokens whose embeddings stand for all where a mean or a median length is taken."""
FAR, CLOSE, LONG = 1.0, 0.02, 3.0
"""Distance to the nearest token in lengths of it, lead of the nearest token in cosine, length of a row in median lengths of
tokens: beyond, at or under these, nearest tokens say nothing (trained rows of small models all were there)."""
Place = tuple[str, int]
"""(slot, position)."""
Merit = tuple[float, float]


@dataclass(frozen=True)
class _Path:
    """A prompt some of whose rows have become tokens."""

    tokens: tuple[tuple[Place, int], ...]
    prompt: Prompt


@dataclass(kw_only=True)
class Project(Soft):
    """Soft training, then a way back to words, with controls.

    Attributes:
        share: of the calls, how many training may take where ``steps`` is not given.
        nearest: tokens considered a row; fewer where the budget would not pay for the beam and its control.
        width: paths kept by the beam; likewise.
        metric: by which tokens are near.
        sample: examples a path is scored on; as many of train.
        left_out: whether it is measured what each row is worth, by the mean embedding in its place.
    """

    share: float = 0.5
    nearest: int = 8
    width: int = 2
    metric: Metric = "cosine"
    sample: int = 32
    left_out: bool = True
    _findings: dict[str, Any] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        for name in ("nearest", "width", "sample"):
            if getattr(self, name) < 1:
                raise InputError(f"project: {name} must be at least 1 (got {getattr(self, name)!r})")
        if self.metric not in METRICS:
            raise UnknownName(
                f"project: no metric {self.metric!r}{nearest(str(self.metric), METRICS)}; it is one of {', '.join(METRICS)}"
            )
        if not 0 < self.share < 1:
            raise InputError(f"project: share must lie between 0 and 1 (got {self.share!r})")
        if self.method == "prefix":
            raise InputError(
                "project: keys and values stand for no words: no layer's can be looked up in a table of tokens",
                hint='use strategy soft with method="prefix", or project rows of another method',
            )
        if self._training(0, 1).discrete:
            raise InputError(
                f"project: method {self.method!r} ends in tokens of itself, so there are no rows to project",
                hint=f"use strategy soft with method={self.method!r}",
            )

    def floor(self, train: int, select: int) -> int:
        """That of the training, which is part of it, and the start in words."""
        return select + math.ceil(super().floor(train, select) / self.share)

    @property
    def findings(self) -> Mapping[str, Any]:
        """Scores on select of every way back to words and of the controls; what is near to every row."""
        found = {**super().findings, **self._findings}
        told = [some["report"] for some in (super().findings, self._findings) if "report" in some]
        return {**found, "report": "\n".join(told)} if told else found

    def _search(self) -> Play:
        self._findings = {}
        starts = self._starts()
        control = yield from self._on_select([starts[0].hardened()], "start")
        seeds = yield from self.trained(starts)
        measured = [each.best for each in seeds if each.best is not None]
        if not measured:
            return
        merit, best = max(measured, key=lambda pair: pair[0])
        self._findings = {
            "soft": merit[0],
            "in words": {"start": control[0][0]},
            "rows": self._neighbours(best),
        }
        self._tell()
        yield from self._by_metric(best)
        evaluations = yield from self._beam(best)
        yield from self._drawn(evaluations)
        if self.left_out:
            yield from self._worth(best)
        self._tell()

    def _affordable(self) -> int | None:
        """Calls that training may take."""
        calls = self._setting.calls
        return None if calls is None else int(self.share * calls)

    def _on_select(
        self, prompts: Sequence[Prompt], note: str
    ) -> Generator[Sequence[Ask], Sequence[Answer], list[Merit]]:
        """The merits of prompts on select."""
        answers = yield [Score(prompt, self._setting.select, note=note) for prompt in prompts]
        return [each.merit for each in answers if isinstance(each, Scored)]

    def _by_metric(self, best: Prompt) -> Play:
        """The nearest tokens by each measure."""
        for metric in METRICS:
            slots = {}
            for name, rows in best.soft.items():
                ids, _ = self._board.vocabulary.nearest(rows.values, self._board.allowed[name], 1, metric)
                slots[name] = ids[:, 0].tolist()
            prompt = self._in_tokens(slots)
            if prompt is None:
                self._findings["in words"][f"nearest, {metric}"] = None
                continue
            merits = yield from self._on_select([prompt], f"nearest, {metric}")
            self._findings["in words"][f"nearest, {metric}"] = merits[0][0]

    def _beam(self, best: Prompt) -> Generator[Sequence[Ask], Sequence[Answer], int]:
        """Row after row becomes one of its nearest tokens, the clearest first; how many candidates were scored."""
        examples = self._examples()
        nearest, width = self._beam_size(sum(map(len, best.soft.values())))
        near = {
            name: self._board.vocabulary.nearest(rows.values, self._board.allowed[name], nearest, self.metric)
            for name, rows in best.soft.items()
        }
        paths, evaluations = [_Path((), best)], 0
        for name, at in self._order(near):
            options = [int(token) for token in near[name][0][at]]
            tried = [self._decided(path, (name, at), token) for path in paths for token in options]
            answers = yield [
                Score(path.prompt, examples, note=f"beam {name}.{at}", beside=True) for path in tried
            ]
            evaluations += len(tried)
            paths = [tried[index] for index in _best(answers)]
            if len(paths[0].tokens) < sum(map(len, best.soft.values())):
                paths = paths[:width]  # at the end all are kept: not every one is read back as its tokens
        found: list[Prompt] = []
        for path in paths:
            prompt = self._in_tokens(_slots(path, best))
            if prompt is not None and len(found) < self.width:
                found.append(prompt)
        if found:
            merits = yield from self._on_select(found, "beam")
            self._findings["in words"]["beam"] = max(merits)[0]
        return evaluations

    def _beam_size(self, rows: int) -> tuple[int, int]:
        """Tokens a row and paths such that the calls that are left pay for the beam, as many drawn prompts, and what each
        row is worth.
        """
        if self._setting.calls is None:
            return self.nearest, self.width
        each, select = len(self._examples()), len(self._setting.select)
        left = self._setting.calls - self._spent - 2 * self.width * select
        left -= (1 + rows) * each if self.left_out else 0

        def cost(nearest: int, width: int) -> int:
            return 2 * each * nearest * (1 + width * (rows - 1))

        sizes = [(nearest, width) for width in range(self.width, 0, -1) for nearest in (self.nearest,)]
        sizes += [(nearest, 1) for nearest in range(self.nearest - 1, 0, -1)]
        return next((size for size in sizes if cost(*size) <= left), (1, 1))

    def _order(self, near: Mapping[str, tuple[NDArray[np.int64], NDArray[np.float32]]]) -> list[Place]:
        """All places, the row whose nearest token leads the next one most first."""
        leads: list[tuple[float, Place]] = []
        for name, (_, values) in near.items():
            lead = np.abs(values[:, 0] - values[:, 1]) if values.shape[1] > 1 else np.zeros(len(values))
            leads += [(-float(each), (name, at)) for at, each in enumerate(lead)]
        return [place for _, place in sorted(leads)]

    def _decided(self, path: _Path, place: Place, token: int) -> _Path:
        """A path with one more row as a token."""
        name, at = place
        values = path.prompt.soft[name].values.copy()
        values[at] = self._board.vocabulary.rows([token])[0]
        return _Path((*path.tokens, (place, token)), path.prompt.softened({name: SoftRows(values)}))

    def _drawn(self, count: int) -> Play:
        """The control: as many drawn prompts, scored on the same examples, the best of them on select."""
        prompts = [prompt for _, prompt in self._board.drawn(count)]
        if not prompts:
            return
        answers = yield [Score(prompt, self._examples(), note="drawn") for prompt in prompts]
        kept = [prompts[index] for index in _best(answers)[: self.width]]
        merits = yield from self._on_select(kept, "drawn")
        self._findings["in words"][f"best of {len(prompts)} drawn"] = max(merits)[0]

    def _worth(self, best: Prompt) -> Play:
        """What each row is worth: the loss with the mean embedding in its place, less the loss as it is."""
        examples, mean = self._examples(), self._some_embeddings().mean(axis=0)
        places = [(name, at) for name, rows in best.soft.items() for at in range(len(rows))]
        asks = [Score(best, examples, note="whole", beside=True)]
        for name, at in places:
            values = best.soft[name].values.copy()
            values[at] = mean
            asks.append(
                Score(
                    best.softened({name: SoftRows(values)}),
                    examples,
                    note=f"without {name}.{at}",
                    beside=True,
                )
            )
        answers = yield asks
        losses = [each.loss for each in answers if isinstance(each, Scored)]
        for row, loss in zip(self._findings["rows"], losses[1:], strict=True):
            worth = loss - losses[0]
            row["worth"] = round(worth, 4) if np.isfinite(worth) else None  # free text has no losses

    def _neighbours(self, best: Prompt) -> list[dict[str, Any]]:
        """What is near to every row, and whether that says anything."""
        vocabulary = self._board.vocabulary
        length = float(np.median(np.linalg.norm(self._some_embeddings(), axis=1)))
        found = []
        for name, rows in best.soft.items():
            allowed = self._board.allowed[name]
            ids, cosines = vocabulary.nearest(rows.values, allowed, 5, "cosine")
            _, distances = vocabulary.nearest(rows.values, allowed, 1, "l2")
            for at, row in enumerate(rows.values):
                lead = float(cosines[at, 0] - cosines[at, 1]) if cosines.shape[1] > 1 else 1.0
                apart, long = float(distances[at, 0]) / length, float(np.linalg.norm(row)) / length
                found.append(
                    {
                        "slot": name,
                        "at": at,
                        "nearest": [vocabulary.text([int(token)]) for token in ids[at]],
                        "cosines": [round(float(each), 3) for each in cosines[at]],
                        "lead": round(lead, 3),
                        "distance": round(apart, 3),
                        "length": round(long, 3),
                        "telling": lead >= CLOSE and apart <= FAR and long <= LONG,
                    }
                )
        return found

    def _some_embeddings(self) -> NDArray[np.float32]:
        """[n, D] embeddings of tokens allowed in the first slot, spread over the vocabulary."""
        ids = np.flatnonzero(next(iter(self._board.allowed.values())))
        return self._board.vocabulary.rows(ids[:: max(1, len(ids) // SAMPLE)].tolist())

    def _examples(self) -> tuple[Example, ...]:
        return self._pool[: self.sample]

    def _tell(self) -> None:
        """Put the findings in one line."""
        words = self._findings["in words"]
        scores = " · ".join(f"{name} {100 * value:.1f}" for name, value in words.items() if value is not None)
        rows = self._findings["rows"]
        mute = sum(not row["telling"] for row in rows)
        self._findings["report"] = (
            f"words     on select: soft {100 * self._findings['soft']:.1f} · {scores}"
            + (f"; the nearest tokens of {mute} of {len(rows)} rows say nothing of them" if mute else "")
        )


def _best(answers: Sequence[Answer]) -> list[int]:
    """Indices of scored prompts, the least loss first; by score where there are no losses."""
    keys = []
    for index, each in enumerate(answers):
        assert isinstance(each, Scored)
        loss = each.loss if np.isfinite(each.loss) else -each.sure
        keys.append((loss, index))
    return [index for _, index in sorted(keys)]


def _slots(path: _Path, best: Prompt) -> dict[str, list[int]]:
    """The tokens of a path at its end, slot by slot."""
    chosen = dict(path.tokens)
    return {name: [chosen[name, at] for at in range(len(rows))] for name, rows in best.soft.items()}
