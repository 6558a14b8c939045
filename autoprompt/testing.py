"""For authors of strategies and models: planted tasks with a known best prompt, checks of the contracts.

    from autoprompt.testing import check_strategy, planted, run

    check_strategy(lambda: MyStrategy(batch=4))
    print(run(MyStrategy(), planted(seed=0, slots=5, options=4), calls=4000, seed=0)[-1])

A planted task needs no model: the accuracy of every prompt is known by construction, and what a prompt does
on an example is drawn once from a hash of both, so that asking again gives the same answer.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from autoprompt import models
from autoprompt.asks import Floats, Score, Scored
from autoprompt.prompt import Prompt
from autoprompt.space import SearchSpace
from autoprompt.strategies import Setting, Strategy
from autoprompt.task import Example, Task

LABELS = ("good", "bad")
_CHOICE = re.compile(r"\bs(\d+)o(\d+)\b")
SHARPNESS = 4.0
"""How fast the planted model's confidence grows with the distance from the boundary (logits per accuracy)."""
MAX_ROUNDS = 10_000
Question = tuple[str, tuple[str, ...], int]
"""Prompt key, example ids, repeat."""


class Point(NamedTuple):
    """Progress of a run: calls spent, and the true accuracy of the prompt that looks best by then."""

    calls: int
    accuracy: float


@dataclass(frozen=True, eq=False)
class Planted:
    """A task whose best prompt is known.

    Attributes:
        space: one ``one_of`` slot for every axis of ``accuracies``; bound to the task.
        task: two labels, balanced; the seed prompt is the space's default.
        accuracies: [options, ..., options] true accuracy of every prompt, one axis a slot.
        shared: share of the chance that prompts have in common on an example; the rest is the prompt's own.
        seed: what it was drawn from.
    """

    space: SearchSpace
    task: Task
    accuracies: Floats
    shared: float
    seed: int

    @property
    def best_score(self) -> float:
        """True accuracy of the best prompt."""
        return float(self.accuracies.max())

    @functools.cached_property
    def best_key(self) -> str:
        """Key of the best prompt."""
        return next(
            prompt.key for prompt in self.space.enumerate() if self.accuracy(prompt) == self.best_score
        )

    def accuracy(self, prompt: Prompt) -> float:
        """True accuracy of a prompt: what its score tends to as examples grow in number."""
        places = {int(slot): int(option) for slot, option in _CHOICE.findall(prompt.text)}
        return float(self.accuracies[tuple(places[slot] for slot in range(self.accuracies.ndim))])

    def oracle(self, ask: Score) -> Scored:
        """Answer a question.

        The prompt is right on an example when a uniform draw lies below its accuracy; the draw is the
        example's own with probability ``shared``, otherwise the pair's. The loss falls with the distance
        between the two.
        """
        margins = self._margins(ask.prompt)
        values = np.array([margins[self._places[example.id]] for example in ask.examples])
        right = values > 0
        predictions = tuple(
            example.target if hit else LABELS[1 - LABELS.index(example.target)]
            for example, hit in zip(ask.examples, right, strict=True)
        )
        losses = np.log1p(np.exp(-SHARPNESS * values))
        return Scored(right.astype(np.float64), losses, predictions, float(len(ask.prompt.text.split())))

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        examples = (*self.task.train, *self.task.select, *self.task.test)
        return {example.id: place for place, example in enumerate(examples)}

    @functools.cached_property
    def _known(self) -> dict[str, Floats]:
        return {}

    def _margins(self, prompt: Prompt) -> Floats:
        """[train + select + test] accuracy minus the draw, for every example of the task."""
        if prompt.key not in self._known:
            size = len(self._places)
            common = _generator(self.seed, "examples").random(size)
            own = _generator(self.seed, prompt.key)
            draws = np.where(own.random(size) < self.shared, common, own.random(size))
            self._known[prompt.key] = self.accuracy(prompt) - draws
        return self._known[prompt.key]


def planted(
    seed: int = 0,
    slots: int = 4,
    options: int = 4,
    interactions: float = 0.5,
    n_examples: int = 128,
    *,
    low: float = 0.5,
    high: float = 0.9,
    shared: float = 0.5,
) -> Planted:
    """Make a task whose best prompt is known.

    The worth of a prompt is a sum of one normal draw for each option taken, and of one for each pair of
    options taken in neighbouring slots; it is scaled so that the worst prompt has accuracy ``low`` and the
    best ``high``.

    Args:
        seed: what all is drawn from.
        slots: number of slots.
        options: options a slot; the space has options ** slots prompts.
        interactions: standard deviation of the pair effects, in units of that of the single effects.
        n_examples: select examples N (the task has as many for test and 16 for train).
        low: accuracy of the worst prompt.
        high: accuracy of the best prompt.
        shared: how much prompts agree on which examples are hard, from 0 to 1.
    """
    rng = _generator(seed, "worth")
    worth = np.zeros((options,) * slots)
    for slot in range(slots):
        shape = [1] * slots
        shape[slot] = options
        worth = worth + rng.standard_normal(options).reshape(shape)
        if slot:
            shape[slot - 1] = options
            worth = worth + interactions * rng.standard_normal((options, options)).reshape(shape)
    spread = float(np.ptp(worth)) or 1.0
    accuracies = low + (high - low) * (worth - worth.min()) / spread
    names = [[f"s{slot}o{option}" for option in range(options)] for slot in range(slots)]
    task = _planted_task(seed, n_examples, " ".join(first for first, *_ in names))
    return Planted(_planted_space(names, task), task, accuracies, shared, seed)


def run(
    strategy: Strategy,
    planted: Planted,
    calls: int,
    seed: int = 0,
    *,
    answer: Callable[[Score], Scored] | None = None,
) -> list[Point]:
    """The smallest loop there is: a strategy, a planted task, a budget in calls.

    A (prompt, example) pair is charged once; the first ask that does not fit ends the run. The seed prompt
    is scored first and paid for like any other, as ``optimize`` does.

    Args:
        strategy: what is tried.
        planted: where.
        calls: budget.
        seed: of the strategy's draws.
        answer: answers in place of ``planted.oracle``, for instance with answers missing.

    Returns:
        One point after the seed prompt and one after every round.
    """
    return _play(strategy, planted, calls, seed, answer or planted.oracle)[1]


def check_strategy(make: Callable[[], Strategy]) -> None:
    """Check that a strategy keeps the contract of ``autoprompt.strategies``.

    Deterministic given setting and answers; a second ``begin`` starts afresh; no question twice; nothing
    outside the space; ends when the space is used up, also without a budget in calls; takes rounds that are
    answered in part, answers that are missing, a budget below one round and a space of one prompt; leaves
    the global random states alone; describes itself as plain data that running does not change.

    Args:
        make: returns a new strategy, the same one every time.

    Raises:
        AssertionError: the first point that is not kept, in words.
    """
    small = planted(seed=1, slots=3, options=3, n_examples=24)
    budget, oracle = 24 * 12, small.oracle
    states = repr((random.getstate(), np.random.get_state()))
    strategy = make()
    described = json.dumps(strategy.describe())
    first = _play(strategy, small, budget, 7, oracle)[0]
    _require(json.dumps(strategy.describe()) == described, "describe() changed by running")
    _require(_play(strategy, small, budget, 7, oracle)[0] == first, "a second begin() does not start afresh")
    _require(_play(make(), small, budget, 7, oracle)[0] == first, "same setting and answers, other asks")
    everything = _play(make(), small, None, 7, oracle)[0]
    for asked in (first, everything):
        _require(len(set(asked)) == len(asked), "the same question was asked twice")
    keys = {prompt.key for prompt in small.space.enumerate()}
    _require({key for key, _, _ in everything} <= keys, "a prompt outside the space was asked about")
    _require(any(len(ids) == 24 for _, ids, _ in first), "no prompt was measured on all select examples")
    for share in (0.3, 1.0):
        _play(make(), small, budget, 7, with_missing(oracle, share))
    for calls in (0, 25, 40, 24 * 3):
        _play(make(), small, calls, 7, oracle)
    _play(make(), small, budget, 7, oracle, short=True)
    single = planted(seed=1, slots=1, options=1, n_examples=24)
    _play(make(), single, None, 7, single.oracle)
    unmoved = repr((random.getstate(), np.random.get_state())) == states
    _require(unmoved, "a global random state was used: draw from setting.rng only")


def with_missing(answer: Callable[[Score], Scored], share: float) -> Callable[[Score], Scored]:
    """An oracle that loses ``share`` of the answers (NaN, never 0), always the same ones."""

    def answered(ask: Score) -> Scored:
        scored = answer(ask)
        lost = np.array(
            [_generator(0, f"{ask.prompt.key} {example.id}").random() < share for example in ask.examples]
        )
        kept = tuple(None if gone else text for gone, text in zip(lost, scored.predictions, strict=True))
        return Scored(
            np.where(lost, np.nan, scored.scores), np.where(lost, np.nan, scored.losses), kept, scored.tokens
        )

    return answered


def check_model(
    model: models.Model,
    *,
    template: str = "{{ text }} It was {{ answer }}",
    answers: tuple[str, ...] = LABELS,
    tolerance: float = 1e-4,
) -> None:
    """Check that a model keeps the contract of ``autoprompt.models``, for whichever protocols it meets.

    One reply a request, of the right type and in order; a batch answers like its requests one by one;
    log-probabilities are not above 0, one for each answer; ranks start at 1; batches hold each request once;
    the identity is a text that does not change by asking.

    Args:
        model: the model.
        template: a prompt with ``{{ text }}`` and ``{{ answer }}``, which comes last for a causal model.
        answers: label words the model can score.
        tolerance: nats by which a batch may differ from single requests.

    Raises:
        AssertionError: the first point that is not kept, in words.
    """
    _require(isinstance(model, models.Model), "misses a property or method of the protocol Model")
    _require(isinstance(model, (models.ScoringModel, models.CompletingModel)), "neither scores nor completes")
    before = model.fingerprint
    _require(isinstance(before, str) and bool(before), "fingerprint must be a text that is not empty")
    prompt = Prompt(template)
    texts = ("a fine film", "bad", "I would not go there again , not for all the money .", "so so")
    rendered = [prompt.render({"text": text}) for text in texts]
    if isinstance(model, models.ScoringModel):
        for item in rendered:
            model.check_answers(item, answers)
        labels = [models.LabelRequest(item, answers) for item in rendered]
        _check_replies(model, labels, model.logprobs, models.LabelReply, tolerance)
        ranks = [models.RankRequest(item, answers[0], answers) for item in rendered]
        _check_replies(model, ranks, model.ranks, models.RankReply, tolerance)
    if isinstance(model, models.CompletingModel):
        completions = [models.TextRequest(item, max_tokens=4) for item in rendered]
        _check_replies(model, completions, model.complete, models.TextReply, tolerance)
    _require(model.fingerprint == before, "fingerprint changed by asking")


def _check_replies(
    model: models.Model,
    requests: Sequence[models.Request],
    reply: Callable[..., Sequence[models.Reply]],
    kind: type[models.LabelReply] | type[models.RankReply] | type[models.TextReply],
    tolerance: float,
) -> None:
    counts = model.count_tokens(requests)
    _require(len(counts) == len(requests), "count_tokens: not one number a request")
    order = sorted(itertools.chain.from_iterable(model.batches(requests)))
    _require(order == list(range(len(requests))), "batches: does not hold every request exactly once")
    together = reply(requests)
    _require(len(together) == len(requests), f"{kind.__name__}: not one reply a request")
    _require(list(reply([])) == [], f"{kind.__name__}: no requests must give no replies")
    for index, (request, answer) in enumerate(zip(requests, together, strict=True)):
        _require(isinstance(answer, kind), f"request {index}: not a {kind.__name__} ({answer!r})")
        _check_reply(request, answer)
        if model.deterministic:
            (alone,) = reply([request])
            same = _close(answer, alone, tolerance)
            _require(same, f"request {index}: in a batch {answer!r}, alone {alone!r} (order or padding)")


def _check_reply(request: models.Request, answer: models.Reply) -> None:
    if isinstance(request, models.LabelRequest) and isinstance(answer, models.LabelReply):
        _require(len(answer.log_probs) == len(request.answers), "logprobs: not one number an answer")
        _require(max(answer.log_probs) <= 1e-6, f"logprobs: above 0 ({answer.log_probs})")
    if isinstance(answer, models.RankReply):
        _require(answer.log_prob <= 1e-6 and answer.rank >= 1, f"ranks: impossible ({answer!r})")


def _close(one: object, other: object, tolerance: float) -> bool:
    if isinstance(one, models.LabelReply) and isinstance(other, models.LabelReply):
        return bool(np.allclose(one.log_probs, other.log_probs, rtol=0, atol=tolerance))
    if isinstance(one, models.RankReply) and isinstance(other, models.RankReply):
        return abs(one.log_prob - other.log_prob) <= tolerance
    return one == other


def _play(
    strategy: Strategy,
    planted: Planted,
    calls: int | None,
    seed: int,
    answer: Callable[[Score], Scored],
    short: bool = False,
) -> tuple[list[Question], list[Point]]:
    """Run a strategy; return what was asked and answered, in order, and the progress.

    ``calls`` None: no budget. ``short``: only the first half of every round is answered.
    """
    task, select = planted.task, planted.task.select
    best_prompt, best = task.seed_prompt, answer(Score(task.seed_prompt, select))
    charged = {(best_prompt.key, example.id, 0) for example in select}
    points = [Point(len(charged), planted.accuracy(best_prompt))]
    asked: list[Question] = []
    left = None if calls is None else max(0, calls - len(charged))
    rng = np.random.default_rng(seed)
    strategy.begin(Setting(planted.space, best_prompt, best, task.train, select, rng, left))
    exhausted = False
    while not exhausted and (asks := strategy.ask()):
        answers: list[Scored] = []
        for ask in asks[: len(asks) // 2] if short else asks:
            assert isinstance(ask, Score), "a space without token slots has no gradients to ask for"
            new = {(ask.prompt.key, example.id, ask.repeat) for example in ask.examples} - charged
            exhausted = calls is not None and bool(new) and len(charged) + len(new) > calls
            if exhausted:
                break
            charged |= new
            answers.append(answer(ask))
            asked.append((ask.prompt.key, tuple(example.id for example in ask.examples), ask.repeat))
            if len(ask.examples) == len(select) and not ask.repeat and answers[-1].merit > best.merit:
                best_prompt, best = ask.prompt, answers[-1]
        strategy.tell(asks[: len(answers)], answers)
        points.append(Point(len(charged), planted.accuracy(best_prompt)))
        _require(len(points) < MAX_ROUNDS, f"does not stop: {MAX_ROUNDS} rounds")
    return asked, points


def _planted_task(seed: int, n_examples: int, seed_words: str) -> Task:
    def split(name: str, size: int) -> tuple[Example, ...]:
        return tuple(Example({"text": f"{name} {seed} {i}"}, LABELS[i % 2]) for i in range(size))

    return Task(
        name=f"planted-{seed}",
        kind="classification",
        fields=("text",),
        prompt=f"{seed_words} {{{{ text }}}} {{{{ answer }}}}",
        metric="accuracy",
        train=split("train", 16),
        select=split("select", n_examples),
        test=split("test", n_examples),
        labels=LABELS,
        words={label: (label,) for label in LABELS},
    )


def _planted_space(names: Sequence[Sequence[str]], task: Task) -> SearchSpace:
    slots = {f"slot{place}": {"one_of": list(options)} for place, options in enumerate(names)}
    template = " ".join(f"[[ {name} ]]" for name in slots) + " {{ text }} {{ answer }}"
    return SearchSpace.from_dict({"template": template, "slots": slots}).bind(task, answer_at_end=True)


def _generator(seed: int, name: str) -> np.random.Generator:
    """A generator that depends on nothing but the two."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
