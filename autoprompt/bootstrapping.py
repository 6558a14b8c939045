"""Worked answers: a model answers the training examples step by step, and what leads to the right answer is kept.

Bootstrapped demonstrations (Khattab et al. 2024, BootstrapFewShot; Zelikman et al. 2022 call one round of it STaR). Several
prompts may be given: what the first fails on, the next one is asked. What a model writes is data: it stands in prompts as
text and is never read as a template.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoprompt.asks import Score
from autoprompt.cache import Cache
from autoprompt.errors import DataError, InputError
from autoprompt.example import WORD, check_text
from autoprompt.grading import read_answer
from autoprompt.harness import Harness
from autoprompt.inputs import load_task
from autoprompt.metrics import METRICS
from autoprompt.models.load import check_model, load_model
from autoprompt.prompt import Prompt
from autoprompt.prompt_inputs import check_prompts, listed, load_prompt
from autoprompt.task import Example, Task

_LEAD = 3  # words that only lead to an answer
_AT_ONCE = 32  # examples asked in one go; what is left of the calls may be fewer


@dataclass(frozen=True)
class Bootstrapped:
    """What came of it.

    Attributes:
        task: the task, its training examples with the worked answers that were found.
        prompts: what was asked, in order.
        solved: for each prompt, how many of the examples it was asked about came out right with steps shown.
        asked: for each prompt, how many examples it was asked about.
        bare: right answers that were not kept, since nothing but the answer was written.
        missing: answers that did not come.
        calls: what it cost, in prompts on examples.
    """

    task: Task
    prompts: tuple[Prompt, ...]
    solved: tuple[int, ...]
    asked: tuple[int, ...]
    bare: int
    missing: int
    calls: int

    @property
    def worked(self) -> dict[str, str]:
        """``plain_id`` of an example to its worked answer."""
        return {each.plain_id: each.worked for each in self.task.train if each.worked}

    def jsonl(self) -> str:
        """The worked answers as a file that ``data.worked_file`` of a task names: a line an example."""
        rows = (
            {"id": each.plain_id, "question": dict(each.fields), "worked": each.worked, "answer": each.target}
            for each in self.task.train
            if each.worked
        )
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def text(self) -> str:
        """What was found, a line a prompt."""
        lines = [
            f"worked answers for {len(self.worked)} of {len(self.task.train)} examples: {self.calls:,} calls"
        ]
        for prompt, solved, asked in zip(self.prompts, self.solved, self.asked, strict=True):
            lines.append(f"  {solved} of {asked} by {json.dumps(prompt.text, ensure_ascii=False)}")
        if self.bare:
            lines.append(f"  {self.bare} right answers without a step before them were left out")
        if self.missing:
            lines.append(f"  {self.missing} answers are missing")
        return "\n".join(lines)


def bootstrap(
    task: Task | str | Path,
    model: object,
    prompt: Prompt | str | Path | Sequence[Prompt | str | Path] | None = None,
    *,
    calls: int | None = None,
    workers: int = 1,
) -> Bootstrapped:
    """Let a model work out the answers of the training examples, and keep the texts whose answer is right.

    Search spaces show them where a ``pick`` slot says ``worked: true`` (as ``reasoning`` does). Examples that have a
    worked answer are not asked again.

    Args:
        task: as for ``optimize``; of kind generation, with a pattern under ``read``.
        model: as for ``optimize``; it may be a stronger one than the one to be prompted.
        prompt: as for ``evaluate``, or a list of them, which are tried in order; the task's manual prompt by default.
        calls: how often the model may be asked; None: once an example and prompt.
        workers: processes the work is spread over (the model given by name).

    Raises:
        InputError: something given is wrong; nothing was run.
        TooManyFailures: too many answers are missing.
    """
    task = load_task(task)
    if task.kind != "generation" or not task.read:
        raise InputError(
            f"task {task.name!r}: worked answers need "
            + (
                "a rule where in a model's text the answer stands (read is empty)"
                if task.kind == "generation"
                else f"texts that a model writes (the kind is {task.kind})"
            ),
            hint="in the task: "
            + ("" if task.kind == "generation" else "kind: generation, and ")
            + 'read: "answer is (\\\\w+)" or the like',
        )
    if calls is not None and (isinstance(calls, bool) or not isinstance(calls, int) or calls < 1):
        raise InputError(f"calls: must be a whole number of at least 1 (got {calls!r})")
    given = listed(task.seed_prompt if prompt is None else prompt)
    prompts = tuple(load_prompt(each, task, soft=False) for each in given)
    if not prompts:
        raise InputError("prompt: the list of prompts is empty", hint="give at least one")
    check_model(model)
    loaded = load_model(model)
    check_prompts(prompts, task, loaded.kind, loaded)
    # the answers are asked for as a search asks for them, but read whole
    whole = dataclasses.replace(task, read="")
    with contextlib.closing(Cache()) as cache:
        teacher = _Teacher(task, Harness(whole, loaded, None, cache, source=model, workers=workers), calls)
        counts = [teacher.ask(each) for each in prompts]
    return Bootstrapped(
        task.with_worked(teacher.worked),
        prompts,
        tuple(solved for _, solved in counts),
        tuple(count for count, _ in counts),
        teacher.bare,
        teacher.missing,
        teacher.harness.meter.calls,
    )


@dataclass
class _Teacher:
    """Asks, and keeps what is right."""

    task: Task
    harness: Harness
    left: int | None
    worked: dict[str, str] = dataclasses.field(default_factory=dict)
    bare: int = 0
    missing: int = 0

    def ask(self, prompt: Prompt) -> tuple[int, int]:
        """Ask about what is not worked out yet; how many were asked, and how many came out right."""
        open_ones = [each for each in self.task.train if not each.worked and each.plain_id not in self.worked]
        some = open_ones if self.left is None else open_ones[: self.left]
        before = len(self.worked)
        for start in range(0, len(some), _AT_ONCE):
            part = tuple(some[start : start + _AT_ONCE])
            (scored,) = self.harness.scores([Score(prompt, part)])
            for example, text in zip(part, scored.predictions, strict=True):
                self._keep(example, text)
        if self.left is not None:
            self.left -= len(some)
        return len(some), len(self.worked) - before

    def _keep(self, example: Example, text: str | None) -> None:
        if text is None:
            self.missing += 1
            return
        answer = read_answer(self.task.read, text)
        if not answer or METRICS[self.task.metric].per_example(answer, None, example) < 1:
            return
        steps = cut(self.task.read, text)
        if is_bare(self.task.read, steps):
            self.bare += 1
            return
        with contextlib.suppress(DataError):  # a character that no prompt may hold
            check_text(steps, "a worked answer")
            self.worked[example.plain_id] = steps


def is_bare(pattern: str, text: str) -> bool:
    """Whether no step stands before the answer: nothing, or a few words that lead to it ("So the final")."""
    last = max((match.start() for match in re.finditer(pattern, text)), default=0)
    return len(WORD.findall(text[:last])) <= _LEAD


def cut(pattern: str, text: str) -> str:
    """A text up to the end of the line in which its answer stands: what a model writes on after it is no part of it."""
    last = max((match.end() for match in re.finditer(pattern, text)), default=len(text))
    end = text.find("\n", last)
    return (text if end < 0 else text[:end]).strip()
