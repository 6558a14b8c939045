"""What the user should know about a run beside its result."""

from __future__ import annotations

from autoprompt.harness import Harness
from autoprompt.models import told


def notes_on(harness: Harness, final: Harness, prompts: int) -> tuple[str, ...]:
    """What the user should know about a search among so many prompts and the measurement on test that followed it."""
    found: list[str] = []
    parts = (("search", harness), ("test", final))
    if harness.shortened or final.shortened:
        counts = " and ".join(
            f"{part.shortened:,} of {part.meter.calls:,} calls of the {name}" for name, part in parts
        )
        found.append(f"examples were shortened to fit {harness.model.max_length} tokens in {counts}")
    if harness.retries or final.retries:
        found.append(
            f"{harness.retries + final.retries:,} questions were asked again after a failure, outside the budget"
        )
    if harness.missing or final.missing:
        counts = " and ".join(
            f"{part.missing:,} of {part.meter.calls:,} of the {name}" for name, part in parts
        )
        found.append(f"answers are missing: {counts}; last failure: {final.failure or harness.failure}")
    found += unread_in(final, "test")
    if harness.budget is not None and harness.budget.seconds is not None:
        found.append("a budget in seconds depends on the machine: the same call may find another prompt")
    found += told(harness.model)
    train, select = len(harness.task.train), len(harness.task.select)
    if not harness.reads_train and prompts > 1 and train >= select / 4:
        found.append(
            f"nothing read the {train:,} train rows, since no prompt shows demonstrations: as select rows they would let "
            f"the search choose on {train + select:,} in place of {select:,}"
        )
    return tuple(found)


def unread_in(harness: Harness, split: str) -> tuple[str, ...]:
    """A note on texts of a model in which no answer was found: no label word, no choice, nothing that ``read`` matches."""
    if not harness.strays:
        return ()
    task, last = harness.task, next(reversed(harness.strays.values()))
    what, place = ("none of the choices", "the choices")
    if task.labels:
        what, place = ("none of the label words", "the label words")
    elif task.kind == "generation":
        what, place = (f"nothing that {task.read!r} finds", "read")
    return (
        f"{len(harness.strays):,} of {harness.meter.calls:,} answers on {split} hold {what} and count as wrong, such as "
        f"{last!r:.80}: say in the prompt how to answer, or change {place}",
    )
