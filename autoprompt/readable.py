"""What a model can read and score: label words, and whole prompts."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field

from autoprompt.errors import LabelWordError, TemplateError
from autoprompt.grading import request_for
from autoprompt.models import LabelRequest, Model, RankRequest, ScoringModel
from autoprompt.prompt import Prompt, Rendered
from autoprompt.slots import words_of
from autoprompt.space import SearchSpace
from autoprompt.task import Task

_PROBED = 5  # answers of a cloze task that are tried out at a prompt's answer place


@dataclass
class Readable:
    """Accepts the prompts of a space that a model can read and score, and counts those it turns away.

    Attributes:
        task: whose first select row the prompts are tried on.
        model: who is to read them.
    """

    task: Task
    model: Model
    _known: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, prompt: Prompt) -> bool:
        """Whether the prompt may be asked about."""
        if prompt.key not in self._known:
            self._known[prompt.key] = problem_of(self.task, self.model, prompt)
        return not self._known[prompt.key]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was turned away and why, each prompt counted once."""
        away = Counter(problem for problem in self._known.values() if problem)
        if not away:
            return ()
        each = [
            problem if len(away) == 1 else f"{count:,} {problem}" for problem, count in sorted(away.items())
        ]
        return (f"{away.total():,} of {len(self._known):,} drawn prompts were left out: {'; '.join(each)}",)


def fit_words(task: Task, space: SearchSpace, model: Model) -> tuple[SearchSpace, tuple[str, ...]]:
    """Leave out the label words of a space that this model cannot score, and say which.

    A space serves many models, and which words are single tokens differs between them.

    Returns:
        The space and a note, if there is something to note.

    Raises:
        LabelWordError: no words are left for a label.
    """
    name = space.spec.words_slot
    if name is None or not isinstance(model, ScoringModel):
        return space, ()
    slot = space.spec.slots[name]
    options = slot.map or {}
    rendered = task.seed_prompt.render(task.select[0].fields)
    words = {word for column in options.values() for option in column for word in words_of(option)}
    bad = {word for word in words if not can_answer(model, rendered, word)}
    if not bad:
        return space, ()
    good = {
        label: [bad.isdisjoint(words_of(option)) for option in column] for label, column in options.items()
    }
    if slot.tied:  # the i-th options of all labels stay or go together
        rows = [all(row) for row in zip(*good.values(), strict=True)]
        good = dict.fromkeys(good, rows)
    kept = {
        label: [option for option, keep in zip(column, good[label], strict=True) if keep]
        for label, column in options.items()
    }
    listed = ", ".join(repr(word) for word in sorted(bad))
    for label, column in kept.items():
        if not column:
            raise LabelWordError(
                f"search space {space.name!r}: model {model.name!r} cannot score its words for {label!r} "
                f"({listed})",
                hint="give it words of the model's vocabulary, or use a causal or encoder-decoder model",
            )
    slots = {**space.spec.slots, name: slot.model_copy(update={"map": kept})}
    fitted = dataclasses.replace(space, spec=space.spec.model_copy(update={"slots": slots}))
    return fitted, (f"label words left out of the search, since {model.name} cannot score them: {listed}",)


def can_answer(model: ScoringModel, rendered: Rendered, word: str, *, single_token: bool = False) -> bool:
    """Whether the model can score a word at the answer place of a text that it can read."""
    try:
        model.check_answers(rendered, [word], single_token=single_token)
    except (LabelWordError, TemplateError):
        return False
    return True


def can_score(task: Task, model: Model, prompt: Prompt) -> bool:
    """Whether the model can read the prompt and score its answers where the prompt puts them."""
    return not problem_of(task, model, prompt)


def problem_of(task: Task, model: Model, prompt: Prompt) -> str:
    """Why a prompt cannot be asked about; empty where it can.

    A tokenizer may spell a word with one token after a space and with two after a line break, and demonstrations may be
    too long.
    """
    request = request_for(task, model, prompt, task.select[0])
    try:
        if isinstance(model, ScoringModel) and isinstance(request, LabelRequest):
            model.check_answers(request.rendered, request.answers, single_token=False)
        elif isinstance(model, ScoringModel) and isinstance(request, RankRequest):
            some = sorted({example.target for example in task.select})[:_PROBED]
            model.check_answers(request.rendered, some, single_token=True)
        else:
            model.count_tokens([request])
    except LabelWordError:
        return "with label words that the model cannot score at their place"
    except TemplateError:
        limit = "" if model.max_length is None else f" ({model.max_length:,} tokens)"
        return f"too long for the model{limit}, whatever the row"
    return ""
