"""Score matrices: every prompt of a sample on every example of a sample, asked of real models once and kept.

A matrix [P, N] holds the score and the loss of P prompts on N examples; row 0 is the task's manual prompt, the others are
drawn from the shipped space of the task. What a search would have seen is then read off it, as often as one likes.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import autoprompt
from autoprompt.asks import Floats, Score
from autoprompt.cache import Cache
from autoprompt.harness import Harness
from autoprompt.readable import Readable, fit_words
from autoprompt.strategies.random_search import Unseen
from examples.few_shot_table import MODELS, few_shot_task, zero_shot

SOURCES = (
    *(
        (model, task, 40, 320)
        for model in ("bundled:masked", "bundled:causal")
        for task in ("sst-2", "mr", "agnews")
    ),
    *((str(MODELS / name), "agnews", 24, 256) for name in ("stories3m", "minilm-mlm")),
)
"""Model, task, prompts beside the manual one, examples. The small models of ../shared are no better than chance at
sentiment."""


@dataclass(frozen=True, eq=False)
class Matrix:
    """What P prompts score on N examples.

    Attributes:
        name: of the model and the task.
        scores: [P, N] 0 or 1; row 0 is the manual prompt.
        losses: [P, N] nats, the right label among the labels.
        targets: [N] labels.
    """

    name: str
    scores: Floats
    losses: Floats
    targets: tuple[str, ...]


def make(model_name: str, task_name: str, prompts: int, examples: int) -> Matrix:
    """Ask the model about every pair; examples are drawn from the task's test set."""
    rng = np.random.default_rng(0)
    model = autoprompt.load_model(model_name)
    task = few_shot_task(task_name, "16-100")
    drawn = tuple(task.test[index] for index in rng.permutation(len(task.test))[:examples])
    task = dataclasses.replace(task, select=drawn)
    assert task.space is not None
    space = zero_shot(autoprompt.SearchSpace.load(task.space))
    fitted, _ = fit_words(task, space, model)
    bound = fitted.bind(task, answer_at_end=model.kind != "masked", accepts=Readable(task, model))
    seen = {task.seed_prompt.key}
    asked = [task.seed_prompt, *Unseen(bound, rng, seen).take(prompts)]
    scored = Harness(task, model, None, Cache()).scores([Score(prompt, drawn) for prompt in asked])
    return Matrix(
        f"{short(model_name)} {task_name}",
        np.array([each.scores for each in scored]),
        np.array([each.losses for each in scored]),
        tuple(example.target for example in drawn),
    )


def matrices(folder: Path, sources: Sequence[tuple[str, str, int, int]] = SOURCES) -> Iterator[Matrix]:
    """The matrices in ``folder``; those that are not there yet are made."""
    for model, task, prompts, examples in sources:
        path = folder / f"{short(model)}-{task}-{prompts}x{examples}.npz"
        if not path.exists():
            print(f"asking {short(model)} about {task}: {(prompts + 1) * examples:,} calls", file=sys.stderr)
            made = make(model, task, prompts, examples)
            folder.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part.npz")
            np.savez_compressed(part, scores=made.scores, losses=made.losses, targets=np.array(made.targets))
            part.replace(path)
        with np.load(path) as held:
            targets = tuple(str(each) for each in held["targets"])
            yield Matrix(f"{short(model)} {task}", held["scores"], held["losses"], targets)


def short(model_name: str) -> str:
    """The last part of a model's name."""
    return model_name.rstrip("/").rpartition("/")[2].replace(":", "-")
