"""A world in which every token at every position adds its own share to the loss: what a search over tokens should do
in it is known exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from autoprompt.asks import Answer, Ask, Fluent, Gradient, Score, Scored, Slope
from autoprompt.policy import TokenPolicy
from autoprompt.prompt import Prompt, Rendered
from autoprompt.space import SearchSpace
from autoprompt.strategies import Setting, Strategy
from autoprompt.task import Task

WORDS = 40
"""Tokens of the vocabulary: ``w0`` to ``w39``; those from 30 on are only allowed under the policy ``any``."""
READABLE = 30


@dataclass(frozen=True)
class Words:
    """A vocabulary of whole words; ``torn`` ones are never read back as they are."""

    torn: frozenset[int] = frozenset()

    @property
    def size(self) -> int:
        return WORDS

    def allowed(self, policy: TokenPolicy) -> NDArray[np.bool_]:
        ids = np.arange(WORDS)
        return (ids < READABLE) if policy.preset == "readable" else ids < WORDS

    def text(self, ids: Sequence[int]) -> str:
        return " ".join(f"w{each}" for each in ids)

    def read(self, rendered: Sequence[Rendered]) -> list[Mapping[str, tuple[int, ...]] | None]:
        found: list[Mapping[str, tuple[int, ...]] | None] = []
        for each in rendered:
            slots = {piece.slot: ids_of(piece.text) for piece in (*each.before, *each.after) if piece.slot}
            torn = any(token in self.torn for ids in slots.values() for token in ids)
            found.append(None if torn else slots)
        return found

    def distances(self, ids: Sequence[int]) -> NDArray[np.float32]:
        apart: NDArray[np.float32] = np.abs(np.arange(WORDS)[None] - np.array(ids)[:, None]).astype(
            np.float32
        )
        return apart


def ids_of(text: str) -> tuple[int, ...]:
    return tuple(int(word[1:]) for word in text.split())


def make_task(rows: int = 32) -> Task:
    def split(name: str) -> list[dict[str, str]]:
        return [{"text": f"{name} {at}", "label": "yes" if at % 2 else "no"} for at in range(rows)]

    return Task.from_rows(
        {"train": split("a"), "select": split("b"), "test": split("c")},
        name="linear",
        kind="classification",
        target="label",
        words={"no": ("no",), "yes": ("yes",)},
        prompt="{{ text }} is {{ answer }}",
    )


def make_space(task: Task, **tokens: object) -> SearchSpace:
    content = {
        "template": "{{ text }} [[ trigger ]] is {{ answer }}",
        "slots": {"trigger": {"tokens": {"n": 3, **tokens}}},
    }
    return SearchSpace.from_dict(content).bind(task, answer_at_end=True)


@dataclass
class World:
    """Answers questions. ``shares`` [L, V]: what each token adds to the loss, in nats."""

    shares: NDArray[np.float64]
    spread: float = 0.02
    perplexity: float = 10.0
    asked: list[Ask] = field(default_factory=list)

    @classmethod
    def drawn(cls, seed: int, length: int = 3) -> World:
        """Shares drawn evenly between 0 and 1."""
        return cls(np.random.default_rng(seed).uniform(0, 1, (length, WORDS)))

    @property
    def best(self) -> tuple[int, ...]:
        """The readable trigger with the least loss."""
        return tuple(int(each) for each in self.shares[:, :READABLE].argmin(axis=1))

    def loss(self, ids: Sequence[int]) -> float:
        rows = self.shares[: len(ids)]
        return 0.2 + float(sum(row[token] for row, token in zip(rows, ids, strict=False)))

    def answer(self, ask: Ask) -> Answer:
        self.asked.append(ask)
        ids = trigger_of(ask.prompt)
        if isinstance(ask, Score):
            rng = np.random.default_rng([len(each.id) + ord(each.id[0]) for each in ask.examples])
            noise = self.spread * rng.standard_normal(len(ask.examples))
            losses = np.maximum(0.0, self.loss(ids) + noise) if ids else np.full(len(ask.examples), 3.0)
            return Scored((losses < 1.0).astype(float), losses, ("yes",) * len(losses), 5.0)
        if isinstance(ask, Gradient):
            changes = self.shares[: len(ids)].astype(np.float32)
            return Slope(self.loss(ids), {"trigger": ids}, {"trigger": changes})
        likely = tuple(tuple(range(WORDS - 1, -1, -1))[: ask.likely] for _ in ids) if ask.likely else ()
        return Fluent(self.perplexity * (1 + ids[0]), {"trigger": ids}, {"trigger": likely})

    def play(
        self,
        strategy: Strategy,
        task: Task,
        space: SearchSpace,
        *,
        calls: int,
        seed: int = 0,
        torn: frozenset[int] = frozenset(),
    ) -> tuple[Scored, Prompt]:
        """Run a strategy until its budget is spent; the best readable prompt on select."""
        first = self.answer(Score(task.seed_prompt, task.select))
        assert isinstance(first, Scored)
        best = (first, task.seed_prompt)
        rng = np.random.default_rng(seed)
        setting = Setting(space, task.seed_prompt, first, task.train, task.select, rng, calls, Words(torn))
        strategy.begin(setting)
        spent = 0
        while asks := strategy.ask():
            answers: list[Answer] = []
            for ask in asks:
                spent += len(ask.examples) * (3 if isinstance(ask, Gradient) else 1)
                if spent > calls:
                    break
                answers.append(self.answer(ask))
                answer = answers[-1]
                if isinstance(answer, Scored) and isinstance(ask, Score) and not ask.beside:
                    whole = ask.examples == task.select
                    best = (answer, ask.prompt) if whole and answer.merit > best[0].merit else best
            strategy.tell(asks, answers)
            if spent > calls:
                break
        return best


def trigger_of(prompt: Prompt) -> tuple[int, ...]:
    return ids_of(prompt.slots.get("trigger", ""))
