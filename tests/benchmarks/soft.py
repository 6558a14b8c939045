"""Training of soft rows: PEFT's prompt tuning under transformers' Trainer, as its guides have it, and ours.

``python -m tests.benchmarks.soft gpt2 small ours`` prints the peak memory of one way as JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers

from autoprompt.models import GradientRequest, TunableModel, TuneReply, TuneRequest
from autoprompt.prompt import Piece, Rendered
from autoprompt.soft import SoftRows, Training
from tests.benchmarks import baselines, ours
from tests.benchmarks.measure import Timing, Way, interleaved, table
from tests.benchmarks.memory import Peak, peak, reset_peak, resident
from tests.benchmarks.models import FAMILIES, KINDS, Subject, make_subject
from tests.benchmarks.workloads import POSITIONS, SLOT, Step, gradient_step

EXAMPLES = 32
BATCH = 16
SEEDS = 4
FRONT, AFTER = "trigger first", "examples first"
TASK_TYPES = {"causal": "CAUSAL_LM", "masked": "FEATURE_EXTRACTION", "seq2seq": "SEQ_2_SEQ_LM"}
IN_TURN, AT_ONCE = f"{SEEDS} in turn", f"{SEEDS} at once"
MEMORY = ("peft", "ours in front", "ours", "label words", AT_ONCE)
HEAD = ["family", "size", "threads", "steps x batch", "way", "cpu s", "examples / s", "x PEFT", "first loss"]
MEMORY_HEAD = ["family", "size", "way", "weights MB", "loaded MB", "peak extra MB", "of PEFT's"]
NOTES = f"""\
{POSITIONS} rows, texts of 10-60 tokens and a cue of 5, {EXAMPLES} examples in the same batches for all ways. peft: its rows
in front of the text, AdamW, texts tokenised before the clock starts and padded to the longest of a batch, loss over the
vocabulary, dropout on. ours in front: the rows there too, the same loss, tokenisation in it; ours: the rows after the
text, whose tokens before them need no way back, the same loss; label words: that with the loss among the two label words,
which is our default. {IN_TURN}, {AT_ONCE}: so many trainings of this third kind one after another, and in one batch;
their examples count once a training. Processor seconds, medians, ways interleaved. Peak memory: as in the table of
memory, each way in a process of its own."""


def soft_texts(step: Step, order: str, rows: SoftRows) -> list[Rendered]:
    """The texts of a step with rows in place of the trigger's tokens."""

    def put(piece: Piece) -> Piece:
        return dataclasses.replace(piece, rows=rows) if piece.slot == SLOT else piece

    texts = dataclasses.replace(step, name=order).rendered(step.trigger)
    return [Rendered(tuple(map(put, text.before)), text.after) for text in texts]


def plain_texts(step: Step) -> list[Rendered]:
    """The texts without a slot: PEFT puts its rows in front by itself."""
    after = (Piece(" ."),) if step.masked else ()
    return [Rendered((Piece(text, is_field=True), Piece(f" {step.cue} ")), after) for text in step.texts]


class AtTheMask(transformers.Trainer):
    """PEFT has no task for masked models: the loss is read at the mask, moved by the virtual tokens."""

    def compute_loss(self, model: Any, inputs: Mapping[str, Any], *_: Any, **__: Any) -> torch.Tensor:
        """Mean cross-entropy over the vocabulary, nats."""
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        at = inputs["places"] + logits.shape[1] - inputs["input_ids"].shape[1]
        return torch.nn.functional.cross_entropy(logits[torch.arange(len(at)), at], inputs["targets"])


def items(subject: Subject, step: Step) -> list[dict[str, torch.Tensor]]:
    """The examples as a guide would tokenise them: labels are -100 but for the answer."""
    texts = plain_texts(step)
    targets = baselines.answer_ids(subject, texts[0], step.answers)[list(step.right)]
    found = []
    for row, target in zip(baselines.encode(subject, texts), targets.tolist(), strict=True):
        ids = torch.tensor(row.ids)
        if subject.kind == "masked":
            found.append({"ids": ids, "place": torch.tensor(row.place), "target": torch.tensor(target)})
        elif subject.kind == "seq2seq":
            found.append({"ids": ids, "labels": torch.tensor([target])})
        else:
            labels = torch.cat([torch.full_like(ids, -100), torch.tensor([target])])
            found.append({"ids": torch.cat([ids, torch.tensor([target])]), "labels": labels})
    return found


def collated(batch: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """A batch padded on the right to its longest text."""
    pad = functools.partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    made = {
        "input_ids": pad([each["ids"] for each in batch]),
        "attention_mask": pad([torch.ones_like(each["ids"]) for each in batch]),
    }
    if "labels" in batch[0]:
        return {**made, "labels": pad([each["labels"] for each in batch], padding_value=-100)}
    both = {f"{name}s": torch.stack([each[name] for each in batch]) for name in ("place", "target")}
    return {**made, **both}


def their_trainer(subject: Subject, step: Step, steps: int) -> Any:
    """PEFT's model in a Trainer over the examples."""
    import peft

    config = peft.PromptTuningConfig(
        task_type=TASK_TYPES[subject.kind],
        num_virtual_tokens=POSITIONS,
        num_transformer_submodules=1,
        prompt_tuning_init="SAMPLE_VOCAB",
    )
    arguments = transformers.TrainingArguments(
        output_dir=tempfile.gettempdir(),
        per_device_train_batch_size=BATCH,
        max_steps=steps,
        learning_rate=3e-2,
        train_sampling_strategy="sequential",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        report_to=[],
        use_cpu=True,
        remove_unused_columns=False,
    )
    kind = AtTheMask if subject.kind == "masked" else transformers.Trainer
    trainer = kind(
        peft.get_peft_model(subject.model, config),
        arguments,
        data_collator=collated,
        train_dataset=items(subject, step),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def their_way(subject: Subject, step: Step, steps: int) -> Way:
    """PEFT and the Trainer, which is made, and has run on other texts, before the clock starts."""

    def prepared() -> Any:
        _trained_by_them(subject, their_trainer(subject, gradient_step(subject, step.name, 0, 4, seed=99), 1))
        return functools.partial(_trained_by_them, subject, their_trainer(subject, step, steps))

    return prepared


def _trained_by_them(subject: Subject, trainer: Any) -> torch.Tensor:
    """[S] losses of the steps, nats."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train()
    subject.model.eval()
    return torch.tensor([line["loss"] for line in trainer.state.log_history if "loss" in line])


def our_way(
    subject: Subject,
    step: Step,
    steps: int,
    order: str = AFTER,
    *,
    among_answers: bool = False,
    seeds: int = 1,
    at_once: bool = True,
) -> Way:
    """``tune`` of a model that has run other texts before, but none of these."""

    def asked(of: Step, count: int) -> list[TuneRequest]:
        batches = tuple(
            tuple((BATCH * number + at) % len(of.texts) for at in range(BATCH)) for number in range(count)
        )
        return [
            TuneRequest(
                tuple(
                    GradientRequest(text, of.answers, (right,), among_answers=among_answers)
                    for text, right in zip(soft_texts(of, order, rows), of.right, strict=True)
                ),
                batches,
                Training(steps=steps, seed=seed, among_answers=among_answers),
            )
            for seed, rows in enumerate(starts(subject, seeds))
        ]

    def prepared() -> Any:
        model = ours.fresh(subject)
        assert isinstance(model, TunableModel)
        model.tune(asked(gradient_step(subject, order, 0, 4, seed=99), 1))
        requests = asked(step, steps)
        groups = [requests] if at_once else [[each] for each in requests]
        return functools.partial(_trained_by_us, model, groups)

    return prepared


def starts(subject: Subject, count: int) -> list[SoftRows]:
    """As many [L, D] starts at the embeddings of drawn tokens."""
    weight = subject.model.get_input_embeddings().weight.detach()
    drawn = torch.randint(len(weight), (count, POSITIONS), generator=torch.Generator().manual_seed(0))
    return [SoftRows(weight[ids].numpy()) for ids in drawn]


def _trained_by_us(model: TunableModel, groups: Sequence[Sequence[TuneRequest]]) -> torch.Tensor:
    """[S] losses of the steps of the first training, nats."""
    replies = [reply for group in groups for reply in model.tune(group)]
    for reply in replies:
        if not isinstance(reply, TuneReply):
            raise RuntimeError(reply.message)
    first = replies[0]
    assert isinstance(first, TuneReply)
    return torch.tensor(first.losses)


def ways(subject: Subject, steps: int) -> dict[str, Way]:
    """All ways, by name."""
    step = gradient_step(subject, AFTER, 0, EXAMPLES)
    return {
        "peft": their_way(subject, step, steps),
        "ours in front": our_way(subject, step, steps, FRONT),
        "ours": our_way(subject, step, steps),
        "label words": our_way(subject, step, steps, among_answers=True),
        IN_TURN: our_way(subject, step, steps, seeds=SEEDS, at_once=False, among_answers=True),
        AT_ONCE: our_way(subject, step, steps, seeds=SEEDS, among_answers=True),
    }


def measure(subject: Subject, steps: int, *, threads: int, repeats: int) -> list[list[str]]:
    """The rows of the table for one model."""
    torch.set_num_threads(threads)
    timings = interleaved(ways(subject, steps), repeats)
    start = [subject.family, subject.size, str(threads), f"{steps} x {BATCH}"]
    rows = []
    for name, timing in timings.items():
        trainings = SEEDS if name in (IN_TURN, AT_ONCE) else 1
        rows.append([*start, name, *_cells(timing, timings["peft"], steps, trainings)])
    return rows


def _cells(timing: Timing, theirs: Timing, steps: int, trainings: int) -> list[str]:
    pace, other = (count * steps * BATCH / each.cpu for count, each in ((trainings, timing), (1, theirs)))
    return [f"{timing.cpu:.2f}", f"{pace:.1f}", f"{pace / other:.2f}", f"{float(timing.result[0]):.3f}"]


def peak_of(family: str, size: str, name: str, steps: int) -> Peak:
    """Peak memory of one way in this process, MB."""
    torch.set_num_threads(1)
    (known,) = (each for each in KINDS if each == family)
    subject = make_subject(known, size)
    weights = sum(each.numel() * each.element_size() for each in subject.model.parameters()) / 2**20
    run = ways(subject, steps)[name]()
    loaded = resident()
    reset_peak()
    run()
    return Peak(weights, loaded, peak() - loaded)


def memory_rows(family: str, size: str, steps: int) -> list[list[str]]:
    """The memory of every way, each in a process of its own."""
    found = {}
    for name in MEMORY:
        command = [sys.executable, "-m", "tests.benchmarks.soft", family, size, name, "--steps", str(steps)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[name] = Peak(**json.loads(done.stdout.splitlines()[-1]))
    rows = []
    for name, each in found.items():
        cells = [f"{value:.0f}" for value in dataclasses.astuple(each)]
        rows.append([family, size, name, *cells, f"{each.extra / found['peft'].extra:.2f}"])
    return rows


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What the subcommand takes."""
    command.add_argument("--families", nargs="+", default=["gpt2", "bert", "t5"], choices=FAMILIES)
    command.add_argument("--size", default="small", choices=["tiny", "mini", "small", "base"])
    command.add_argument("--threads", type=int, nargs="+", default=[1])
    command.add_argument("--steps", type=int, default=16)
    command.add_argument("--repeats", type=int, default=5)
    command.add_argument("--no-memory", action="store_true", help="throughput only")


def from_arguments(given: argparse.Namespace) -> str:
    """Both tables with what their columns mean."""
    rows: list[list[str]] = []
    memory: list[list[str]] = []
    for family in given.families:
        for threads in given.threads:
            found = measure(
                make_subject(family, given.size), given.steps, threads=threads, repeats=given.repeats
            )
            rows += _shown(found)
        if not given.no_memory:
            memory += _shown(memory_rows(family, given.size, given.steps))
    parts = ["## Soft rows", table(HEAD, rows), *([table(MEMORY_HEAD, memory)] if memory else []), NOTES]
    return "\n\n".join(parts) + "\n"


def _shown(rows: list[list[str]]) -> list[list[str]]:
    """The rows, printed as they come."""
    print("\n".join(" | ".join(row) for row in rows), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """One figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family")
    parser.add_argument("size")
    parser.add_argument("way", choices=MEMORY)
    parser.add_argument("--steps", type=int, default=2)
    given = parser.parse_args()
    print(json.dumps(dataclasses.asdict(peak_of(given.family, given.size, given.way, given.steps))))


if __name__ == "__main__":
    main()
