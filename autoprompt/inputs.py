"""What the user gave becomes objects, and is checked before any model is loaded."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from autoprompt.budget import Budget
from autoprompt.errors import (
    BudgetError,
    DataError,
    InputError,
    LabelWordError,
    MissingCapability,
    nearest,
)
from autoprompt.grading import content_free, needs_calibration, request_for
from autoprompt.metrics import METRICS
from autoprompt.models import (
    CompletingModel,
    Kind,
    LabelRequest,
    Model,
    OpenModel,
    RankRequest,
    RevisedModel,
    ScoringModel,
    bundled,
)
from autoprompt.models.load import check_model
from autoprompt.prompt import Prompt
from autoprompt.readable import can_answer
from autoprompt.space import SearchSpace
from autoprompt.strategies import Strategy
from autoprompt.task import Example, Task
from autoprompt.triggers import EDIT, TRIGGER, edit_space, trigger_space
from autoprompt.vocabulary import Vocabulary

SPLITS = ("train", "select", "test")


def load_task(task: Task | str | Path) -> Task:
    """A task by name, by path, or as it is."""
    if isinstance(task, Task):
        return task
    if not isinstance(task, (str, os.PathLike)):
        raise InputError(
            f"task: expected a name, a YAML file or a Task (got {type(task).__name__})",
            hint="rows become a task by Task.from_rows(rows, target=...)",
        )
    return Task.load(task)


def load_space(
    space: SearchSpace | str | Path | None, task: Task, strategy: Strategy | None = None
) -> SearchSpace:
    """A space by name, by path, or as it is; the task's own by default, else the manual prompt alone, or, for a
    strategy that moves tokens or by the name ``trigger``, the manual prompt with a trigger, and for one that only edits
    or by the name ``edit``, the manual prompt's own words.
    """
    if isinstance(space, SearchSpace):
        return space
    if space == TRIGGER:
        return trigger_space(task)
    if space == EDIT:
        return edit_space(task)
    if space is not None and not isinstance(space, (str, os.PathLike)):
        raise InputError(
            f"space: expected a name, a YAML file or a SearchSpace (got {type(space).__name__})",
            hint="what a file would hold becomes one by SearchSpace.from_dict(...)",
        )
    if space is not None:
        return SearchSpace.load(space)
    movers = _innermost(strategy)
    if movers and all(each.moves_tokens for each in movers):
        return trigger_space(task, front=any(each.in_front for each in movers))
    if movers and all(each.edits_only for each in movers):
        return edit_space(task)
    return SearchSpace.load(task.space) if task.space is not None else SearchSpace.from_prompt(task)


def _innermost(strategy: Strategy | None) -> list[Strategy]:
    """What moves things: the strategy itself, or those that it wraps."""
    if strategy is None:
        return []
    return [each for inner in strategy.inside for each in _innermost(inner)] or [strategy]


def split_of(task: Task, name: str) -> tuple[Example, ...]:
    """The examples of one split."""
    splits = {"train": task.train, "select": task.select, "test": task.test}
    if name not in splits:
        raise InputError(f"split: no split {name!r}{nearest(name, SPLITS)}; splits: {', '.join(SPLITS)}")
    if not splits[name]:
        raise DataError(f"task {task.name!r}: its {name} split is empty")
    return splits[name]


def model_kind(spec: object) -> Kind | None:
    """The kind of the model that ``load_model`` would make, without loading it; None where only loading can
    tell.

    Read off ``config.json`` for a folder, off the class for objects; a hub id is not looked up.
    """
    if isinstance(spec, tuple):
        return _kind_of_class(type(spec[0]).__name__, encoder_decoder=True) if spec else None
    if isinstance(spec, Model):
        return spec.kind
    if not isinstance(spec, (str, os.PathLike)):
        return "text" if callable(spec) else None
    name = os.fspath(spec)
    if not Path(name).is_dir():
        name = name.partition("?")[0]
    if name == "toy":
        return "causal"
    folder = (
        bundled.folder(name.removeprefix("bundled:"))
        if name.startswith("bundled:")
        else Path(name).expanduser()
    )
    if not (folder / "config.json").is_file():
        return None
    config = json.loads(
        (folder / "config.json").read_text("utf-8")
    )  # check_model has seen that it is an object
    kinds = (
        _kind_of_class(str(each), encoder_decoder=bool(config.get("is_encoder_decoder")))
        for each in config.get("architectures") or ()
    )
    return next((kind for kind in kinds if kind is not None), None)


def _kind_of_class(name: str, *, encoder_decoder: bool) -> Kind | None:
    """The kind of a transformers class by its name."""
    if name.endswith("ForMaskedLM"):
        return "masked"
    if name.endswith("ForConditionalGeneration"):
        return "seq2seq" if encoder_decoder else None
    return "causal" if name.endswith(("ForCausalLM", "LMHeadModel")) else None


def check_call(
    task: Task,
    space: SearchSpace,
    budget: Budget,
    model: object,
    *,
    strategy: Strategy | None = None,
    workers: int = 1,
    seed: int = 0,
) -> None:
    """Check a call of ``optimize`` before a model is loaded.

    Raises:
        InputError: an empty split, too small a budget, an unknown model, a prompt the model cannot read.
        MissingCapability: a strategy that follows gradients for a task without any.
    """
    for name in ("select", "test"):
        split_of(task, name)
    # Some metrics need a package: say so before anything is paid.
    METRICS[task.metric].per_example("", None, task.select[0])
    if budget.calls is not None:
        _check_floor(task, "calls", budget.calls, 2 * len(task.select))
        if strategy is not None:
            _check_first_steps(task, budget.calls, strategy)
    for what, value, least in (("workers", workers, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{what}: must be a whole number of at least {least} (got {value!r})")
    if workers > 1 and not isinstance(model, (str, os.PathLike)):
        raise InputError(
            f"workers: {workers} workers each load the model by its name, but it was given as an object",
            hint="give the model as a text (an id or a folder), or use workers=1",
        )
    check_model(model)
    kind = model_kind(model)
    at_end = kind is not None and kind != "masked"
    task.seed_prompt.check(set(task.fields), answer_at_end=at_end, where=f"task {task.name!r}: prompt")
    space.bind(task, answer_at_end=at_end)
    _check_movers(task, space, strategy)


def _check_movers(task: Task, space: SearchSpace, strategy: Strategy | None) -> None:
    """Check that what moves tokens finds some, and gradients to follow."""
    for each in _innermost(strategy):
        if each.asks_slopes and task.kind == "generation":
            raise MissingCapability(
                f"strategy: {each.describe()['strategy']} follows gradients of given answers, but task {task.name!r} "
                "asks for free text",
                hint="soft trains rows on such texts; strategies over templates (auto, tpe, evolution) only compare scores",
            )
        if each.moves_tokens and not space.spec.token_slots:
            raise InputError(
                f"strategy: {each.describe()['strategy']} moves tokens, but search space {space.name!r} has no token slots",
                hint='add one to it, such as trigger: {tokens: {n: 5}}, or give space "trigger": the manual prompt with one',
            )


def _check_floor(task: Task, unit: str, given: int, floor: int) -> None:
    if given < floor:
        raise BudgetError(
            f"budget: {given:,} {unit} do not cover one full comparison: the manual prompt and one other on "
            f"the {len(task.select)} select examples of task {task.name!r} take {floor:,}",
            hint=f"give at least {floor:,} {unit}, better {10 * floor:,}, or a smaller select split",
        )


def _check_first_steps(task: Task, given: int, strategy: Strategy) -> None:
    floor = len(task.select) + strategy.floor(len(task.train), len(task.select))
    if given < floor:
        raise BudgetError(
            f"budget: {given:,} calls do not cover the first steps of {strategy.describe()['strategy']}: "
            f"with {len(task.select)} select examples they take {floor:,}, the manual prompt included",
            hint=f"give at least {floor:,} calls, better {10 * floor:,}, or fewer seeds or a smaller batch",
        )


def check_floor(task: Task, model: Model, budget: Budget) -> None:
    """Check, with the model's own count, that the budget covers the manual prompt and one other of its
    length.

    Calibration asks one question more a prompt, and a model that is not deterministic is asked twice for its
    noise.

    Raises:
        BudgetError: it does not.
    """
    asked = [request_for(task, model, task.seed_prompt, example) for example in task.select]
    if needs_calibration(task, model):
        asked += [request_for(task, model, task.seed_prompt, content_free(each)) for each in task.select]
    distinct = list(dict.fromkeys(asked))
    times = 2 if model.deterministic else 3
    if budget.calls is not None:
        _check_floor(task, "calls", budget.calls, times * len(distinct))
    if budget.tokens is not None:
        _check_floor(task, "tokens", budget.tokens, times * sum(model.count_tokens(distinct)))


def check_capability(task: Task, model: Model, prompt: Prompt, strategy: Strategy | None = None) -> None:
    """Check that the loaded model can answer this task, score the prompt's label words and serve the strategy.

    Raises:
        MissingCapability: it cannot.
        LabelWordError: a label word cannot be scored; names alternatives.
    """
    if task.kind == "generation" and not isinstance(model, CompletingModel):
        raise MissingCapability(
            f"task {task.name!r} asks for text, but model {model.name!r} ({model.kind}) only fills in words",
            hint="use a causal or encoder-decoder model",
        )
    if any(each.moves_tokens for each in _innermost(strategy)) and not isinstance(model, OpenModel):
        raise MissingCapability(
            f"model {model.name!r} shows no tokens and gives no gradients",
            hint="use a Hugging Face model, or a strategy that needs neither (random_search, tpe)",
        )
    for name in strategy.writers if strategy is not None else ():
        _check_writer(name, model)
    if not isinstance(model, ScoringModel):
        if task.kind == "cloze":
            raise MissingCapability(
                f"task {task.name!r} ranks words, but model {model.name!r} gives no probabilities"
            )
        return
    request = request_for(task, model, prompt, task.select[0])
    if isinstance(request, LabelRequest):
        model.check_answers(request.rendered, request.answers)
    elif isinstance(request, RankRequest):
        _check_targets(task, model, prompt)


def _check_writer(name: str, model: Model) -> None:
    """Check that the model of that name, or without one the model that is prompted, writes texts."""
    if name:
        check_model(name)
    if (model_kind(name) == "masked") if name else not isinstance(model, CompletingModel):
        raise MissingCapability(
            f"model {name or model.name!r} cannot write texts",
            hint='name one that can: Propose(model="bundled:causal"), a folder, or a server',
        )


def vocabulary_of(model: Model, space: SearchSpace) -> Vocabulary | None:
    """The model's tokens, where the space has slots for them or texts that may be edited, and the model shows them."""
    used = space.spec.token_slots or any(slot.edit is not None for slot in space.slots.values())
    return model.vocabulary if used and isinstance(model, OpenModel) else None


def _check_targets(task: Task, model: ScoringModel, prompt: Prompt) -> None:
    """Cloze targets must be words of the model's vocabulary."""
    targets = sorted({example.target for split in SPLITS for example in split_of(task, split)})
    rendered = prompt.render(task.select[0].fields)
    bad = [target for target in targets if not can_answer(model, rendered, target, single_token=True)]
    if bad:
        raise LabelWordError(
            f"task {task.name!r}: {len(bad)} of {len(targets)} answers are no single word of model "
            f"{model.name!r}'s vocabulary, such as {', '.join(repr(word) for word in bad[:5])}",
            hint="keep the rows it can answer: task.only_targets(words)",
        )


def header(
    task: Task, model: Model, space: SearchSpace, strategy: Strategy, seed: int, budget: Budget, version: str
) -> dict[str, Any]:
    """The identity of a run: whatever of this changes makes it a different run."""
    return {
        "format": "autoprompt-study/1",
        "version": version,
        "task": task.name,
        "task_fingerprint": task.fingerprint,
        "model": model.name,
        "model_kind": model.kind,
        "model_revision": model.revision if isinstance(model, RevisedModel) else "",
        "model_fingerprint": model.fingerprint,
        "space": space.name,
        "space_fingerprint": space.fingerprint,
        "strategy": strategy.describe(),
        "seed": seed,
        "budget": str(budget),
        "metric": task.metric,
        "select_size": len(task.select),
        "answer_read_as": _reading(task, model),
    }


def _reading(task: Task, model: Model) -> str:
    """How an answer becomes a prediction, in words."""
    place = "at the mask" if model.kind == "masked" else "after the text"
    if task.kind == "generation":
        return f"greedy continuation, up to {task.max_tokens} tokens or {list(task.stop)}, stripped"
    if not isinstance(model, ScoringModel):
        return "the first label word that stands in the model's text, as a whole word, whatever its case"
    if task.kind == "classification":
        calibrated = ", minus the same on the content-free input 'N/A'" if task.calibrate else ""
        return f"largest log of the summed probability of a label's words {place}{calibrated}"
    if task.kind == "multiple_choice":
        return f"largest log-probability of a choice {place}" + (" per byte" if task.normalize else "")
    among = "the task's answers" if task.candidates == "targets" else "the vocabulary"
    return f"rank of the answer {place} among {among}"
