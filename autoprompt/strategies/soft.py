"""Soft: train rows in place of the tokens of a space's token slots, then say what is left of them in words.

Several trainings run side by side, each on batches of its own. After every few steps their rows are measured on select,
and the best iterate is kept, since the last one is often worse: few examples are soon learnt by heart. At the end the best
rows are put back into words by their nearest tokens, so that the result says what the way back costs.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from autoprompt.asks import GRADIENT_CALLS, Answer, Ask, Score, Scored, Tune, Tuned
from autoprompt.errors import InputError, UnknownName, nearest
from autoprompt.prompt import Prompt
from autoprompt.soft import Method, Optimizer, Schedule, SoftRows, Training
from autoprompt.strategies import Play, Played, Setting
from autoprompt.strategies.racing import stratified_order
from autoprompt.strategies.tokensearch.board import Board, Trigger
from autoprompt.strategies.tokensearch.soft_starts import COMMON as COMMON
from autoprompt.strategies.tokensearch.soft_starts import Starts
from autoprompt.task import Example

STEPS, MOST = 300, 1000
"""Steps where the budget is not in calls; steps at most, however much it pays for."""
SHOWN = 2
"""Examples in which the place of keys and values is looked at."""
INITS = ("text", "vocabulary", "labels", "random")
RESTS = ("vocabulary", "cut", "error")


@dataclass
class Seed:
    """One of the trainings that run side by side.

    Attributes:
        number: from 0.
        prompt: where it stands.
        shown: what of it is measured: the prompt itself, or the tokens it stands for; None where those are not read
            back as they are.
        state: what it goes on from.
        batches: where its batches come from.
        best: its best iterate so far, and how good that was on select; the start until there is one.
        done: steps made.
        begun: whether ``best`` is an iterate.
    """

    number: int
    prompt: Prompt
    batches: Iterator[tuple[Example, ...]]
    shown: Prompt | None = None
    state: bytes = b""
    best: tuple[tuple[float, float], Prompt] | None = None
    done: int = 0
    begun: bool = False


@dataclass(kw_only=True)
class Soft(Played):
    """Prompt tuning of the token slots of a space.

    The best iterate on select is the result. The start is measured, but is none: it is words, which mostly were chosen by
    their score on the same examples, so that the luck in it would stop every training at its start (16-shot, 26 trainings
    from prompts that ``tpe`` found: test accuracy 0.7 +- 0.6 points higher without it; cold starts do not differ).

    Attributes:
        steps: steps of each training; None: as many as the budget pays for, at most 1,000.
        batch: examples a step.
        seeds: trainings side by side.
        every: steps between two measurements on select.
        patience: measurements in a row in which no training gets better, after which all end; 0: none.
        start: what to begin at: a text, rows, slot name to rows, or a prompt whose slots have the names of the space's;
            empty: the texts that the slots have, drawn tokens where they have none.
        init: how rows begin that no text or rows are given for: ``text`` and ``vocabulary`` at frequent tokens,
            ``labels`` at the means of the label words' tokens, ``random`` anywhere, as long as embeddings are.
        length: rows of a slot that begins at a text; None: as many as the text has tokens.
        rest: what becomes of it where they are not as many: ``vocabulary`` fills up with drawn tokens, ``cut`` drops
            rows at the end, ``error`` refuses.
        method: how rows are parametrised; see ``Training``, as for the settings after it.
        optimizer: ``adafactor`` or ``adamw``.
        lr: the learning rate, in root mean squares of the embeddings; of ``prefix`` in tenths of those of a layer's keys,
            and of its values.
        warmup: steps over which it rises.
        schedule: what becomes of it afterwards.
        clip: greatest norm of a gradient.
        trust: greatest relative distance from the start.
        pull: nats by which rows are pulled to the start.
        among_answers: whether the loss is among the label words, or over the vocabulary.
        hidden: width of the network of ``residual``, ``mlp`` and ``lstm``.
    """

    moves_tokens: ClassVar[bool] = True
    steps: int | None = None
    batch: int = 16
    seeds: int = 3
    every: int = 10
    patience: int = 0
    start: str | Prompt | SoftRows | Mapping[str, SoftRows] = ""
    init: Literal["text", "vocabulary", "labels", "random"] = "text"
    length: int | None = None
    rest: Literal["vocabulary", "cut", "error"] = "vocabulary"
    method: Method = "prompt"
    optimizer: Optimizer = "adafactor"
    lr: float = 0.5
    warmup: int = 0
    schedule: Schedule = "cosine"
    clip: float = 1.0
    trust: float | None = None
    pull: float = 0.0
    among_answers: bool = True
    hidden: int = 128
    _board: Board = field(init=False, repr=False, compare=False)
    _problems: list[str] = field(init=False, repr=False, compare=False, default_factory=list)
    _made: int = field(init=False, repr=False, compare=False, default=0)
    _drawn_seed: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        """Check the fields."""
        for name, least in (("batch", 1), ("seeds", 1), ("every", 1), ("patience", 0), ("length", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"soft: {name} must be at least {least} (got {value!r})")
        for name, known in (("init", INITS), ("rest", RESTS)):
            value = getattr(self, name)
            if value not in known:
                raise UnknownName(
                    f"soft: no {name} {value!r}{nearest(str(value), known)}; it is one of {', '.join(known)}"
                )
        self._training(0, self.steps if self.steps is not None else 1)
        values = self.start.values() if isinstance(self.start, Mapping) else ()
        if not isinstance(self.start, (str, Prompt, SoftRows, Mapping)) or not all(
            isinstance(rows, SoftRows) for rows in values
        ):
            given = {type(each).__name__ for each in values} or {type(self.start).__name__}
            raise InputError(
                f"soft: start must be a text, a prompt, rows or slot name to rows (got {', '.join(sorted(given))})",
                hint="of a result: start=result.candidate, or result.soft; of an array: SoftRows(array)",
            )

    def describe(self) -> dict[str, Any]:
        """As any strategy's, rows and prompts by their hash."""
        start: object = self.start
        if isinstance(start, (Prompt, SoftRows)):
            start = start.key
        elif isinstance(start, Mapping):
            start = {name: rows.key for name, rows in start.items()}
        return {**super().describe(), "start": start}

    @property
    def in_front(self) -> bool:
        """Keys and values are of a text at one place."""
        return self.method == "prefix"

    def floor(self, train: int, select: int) -> int:
        """Every training measured at its start and after its first steps, and these."""
        steps = 1 if self.steps is None else min(self.every, self.steps)
        batch = min(self.batch, train or select)
        read = min(SHOWN, train or select) if self.method == "prefix" else 0
        return self.seeds * (2 * select + GRADIENT_CALLS * (read + steps * batch))

    @property
    def findings(self) -> Mapping[str, Any]:
        """Why trainings ended before their time, where some did."""
        told = list(dict.fromkeys(self._problems))
        return {"stopped": told, "report": f"stopped   {'; '.join(told)}"} if told else {}

    def begin(self, setting: Setting) -> None:
        """Start afresh."""
        self._problems, self._made = [], 0
        self._board = Board(setting, common=COMMON)
        self._drawn_seed = int(setting.rng.integers(2**20))
        super().begin(setting)

    def tell(self, asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
        """Go on with the answers; say so where the budget does not even pay for a step."""
        if len(answers) < len(self._asks) and not self._made:
            self._problems.append("the budget does not pay for a step: the rows stand where they began")
        super().tell(asks, answers)

    def _search(self) -> Play:
        starts = self._starts()
        if self.method == "prefix":
            starts = yield from self._as_prefixes(starts)
        seeds = yield from self.trained(starts)
        measured = [each.best for each in seeds if each.best is not None]
        if measured:
            best = max(measured, key=lambda pair: pair[0])[1]
            if best.soft and self.method != "prefix":  # from keys and values no way leads back to words
                yield from self._put_into_words(best)

    def _as_prefixes(
        self, starts: Sequence[Prompt]
    ) -> Generator[Sequence[Ask], Sequence[Answer], list[Prompt]]:
        """The starts with the keys and values that the model makes of their rows, before anything else is spent.

        Raises:
            InputError: they cannot stand where the slots stand.
        """
        training = self._training(0, 1)
        asks = [
            Tune(start, (), training, shown=self._pool[:SHOWN], note="keys and values") for start in starts
        ]
        found = []
        for start, answer in zip(starts, (yield asks), strict=True):
            assert isinstance(answer, Tuned)
            if answer.problem:
                problem, _, hint = answer.problem.partition("\n  hint: ")
                raise InputError(f"soft: method prefix: {problem}", hint=hint)
            found.append(start.softened(answer.rows))
        return found

    def trained(self, starts: Sequence[Prompt]) -> Generator[Sequence[Ask], Sequence[Answer], list[Seed]]:
        """Train from each of some prompts side by side; the trainings at their end."""
        steps = self._steps()
        discrete = self._training(0, steps).discrete
        seeds = [
            Seed(number, prompt, self._batches(), prompt.hardened() if discrete else prompt)
            for number, prompt in enumerate(starts)
        ]
        live, stale = list(seeds), 0
        yield from self._measured(live)
        while live and live[0].done < steps:
            count = min(self.every, steps - live[0].done)
            asks = [
                Tune(
                    each.prompt,
                    tuple(next(each.batches) for _ in range(count)),
                    self._training(each.number, steps),
                    each.done,
                    each.state,
                    tuple(self._board.policies.items()),
                    note=f"train {each.number}",
                )
                for each in live
            ]
            answers = yield asks
            self._made += count
            going: list[Seed] = []
            for each, answer in zip(live, answers, strict=True):
                assert isinstance(answer, Tuned)
                each.done += count
                if answer.problem:
                    self._problems.append(answer.problem)
                    continue
                each.state = answer.state
                each.prompt = each.prompt.softened(answer.rows)
                each.shown = self._in_tokens(answer.ids) if discrete else each.prompt
                going.append(each)
            better = yield from self._measured(going)
            stale = 0 if better else stale + 1
            live = [] if self.patience and stale >= self.patience else going
        return seeds

    def _measured(self, seeds: Sequence[Seed]) -> Generator[Sequence[Ask], Sequence[Answer], bool]:
        """Measure where trainings stand on select; whether one is better than it was."""
        select = self._setting.select
        asked = [(each, each.shown) for each in seeds if each.shown is not None]
        answers = (yield [_question(each, shown, select) for each, shown in asked]) if asked else ()
        better = False
        for (each, shown), answer in zip(asked, answers, strict=True):
            assert isinstance(answer, Scored)
            iterate = each.done > 0 or not shown.soft
            if each.best is None or answer.merit > each.best[0] or iterate > each.begun:
                each.best, each.begun, better = (answer.merit, shown), iterate, True
        return better

    def _in_tokens(self, ids: Mapping[str, Sequence[int]]) -> Prompt | None:
        """The prompt that holds these tokens; None where they are not read back as they are."""
        standing = self._board.standing([Trigger.of(ids)])
        return standing[0][1] if standing else None

    def _put_into_words(self, best: Prompt) -> Play:
        """Measure the nearest tokens of rows, by angle and by distance."""
        triggers = []
        for metric in ("cosine", "norm"):
            slots = {}
            for name, rows in best.soft.items():
                ids, _ = self._board.vocabulary.nearest(rows.values, self._board.allowed[name], 1, metric)
                slots[name] = [int(token) for token in ids[:, 0]]
            triggers.append(Trigger.of(slots))
        standing = self._board.standing(triggers)
        if standing:
            yield [Score(prompt, self._setting.select, note="in words") for _, prompt in standing]

    def _steps(self) -> int:
        """Steps of each training, its share of the measurements paid; room is left for the words at the end."""
        if self.steps is not None:
            return self.steps
        calls, select = self._affordable(), len(self._setting.select)
        if calls is None:
            return STEPS
        left = calls // self.seeds - select  # before the first step
        if self.method == "prefix":
            left -= GRADIENT_CALLS * min(SHOWN, len(self._pool))
        else:
            left -= -(-2 * select // self.seeds)  # in words
        step = GRADIENT_CALLS * min(self.batch, len(self._pool))
        steps = min(MOST, left // step)
        while steps > 1 and steps * step + -(-steps // self.every) * select > left:
            steps -= 1
        return max(1, steps)

    def _affordable(self) -> int | None:
        """Calls that training and what follows it may take; None where the budget is not in calls."""
        return self._setting.calls

    @property
    def _pool(self) -> tuple[Example, ...]:
        return self._setting.train or self._setting.select

    def _batches(self) -> Iterator[tuple[Example, ...]]:
        """Batches without end, each example once before any comes again."""
        waiting: list[Example] = []
        size = min(self.batch, len(self._pool))
        while True:
            if len(waiting) < size:
                waiting += [self._pool[at] for at in stratified_order(self._pool, self._setting.rng)]
            yield tuple(waiting[:size])
            waiting = waiting[size:]

    def _training(self, seed: int, steps: int) -> Training:
        ours = {each.name: getattr(self, each.name) for each in fields(Training) if each.name != "seed"}
        return Training(**ours | {"steps": steps, "seed": self._drawn_seed + seed})

    def _starts(self) -> list[Prompt]:
        """A prompt to begin at for every training."""
        return [Starts(self, self._board).prompt() for _ in range(self.seeds)]


def _question(seed: Seed, shown: Prompt, select: tuple[Example, ...]) -> Score:
    """How good a training is; rows that have not moved are measured beside."""
    return Score(shown, select, note=f"step {seed.done}", beside=bool(shown.soft) and not seed.done)
