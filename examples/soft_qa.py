"""Twenty virtual tokens on question answering with an encoder-decoder model: PEFT's own loop and ours, side by side.

    python examples/soft_qa.py                                      # here: a small model, taught first (a minute)
    python examples/soft_qa.py --model t5-small --task hotpotqa     # where a hub is reachable

The known notebook tunes prompts for T5 on HotpotQA by PEFT. Both sides get the same model, rows, steps, batch size and loss
(the answer's tokens and its end), are measured on select every few steps, and are compared by the answers that their best
iterate writes for the test questions: token F1 and exact match, mean ± standard deviation over seeds.

Closed-book HotpotQA asks for what no small model knows. So without a hub a T5 of 2 layers and width 64 is taught here, on
texts that this file makes up: where somebody lives, what they work as, have and like. A word at the front says what is
asked: city, country (which the texts never say: it is learnt by heart), job, pet or dish. Then prompts are tuned for one
of these questions with its word left out. What is shown is whether each side finds the question; it says nothing of how
well either does with a large model.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

import autoprompt
from autoprompt.example import Example
from autoprompt.metrics import METRICS
from autoprompt.models import OpenModel
from autoprompt.models.load import load_model
from autoprompt.strategies.soft import Soft

NAMES = ["anna", "bob", "carol", "david", "emma", "frank", "grace", "henry", "irene", "jack", "karen", "leo"]
PLACES = {
    "paris": "france", "lyon": "france", "new york": "america", "los angeles": "america", "rome": "italy",
    "milan": "italy", "berlin": "germany", "hamburg": "germany", "madrid": "spain", "cape town": "south africa",
}  # fmt: skip
JOBS = [
    *("bus driver", "nurse", "school teacher", "cook", "night guard", "farmer", "book seller", "pilot"),
    *("fire fighter", "painter"),
]
PETS = ["black cat", "dog", "green parrot", "horse", "white rabbit", "goat", "old turtle", "duck"]
DISHES = ["green tea", "apple cake", "bread", "fish soup", "hot pepper", "rice", "goat cheese", "honey"]
KINDS = ("city", "country", "job", "pet", "dish")
START = "answer the question about the person in the text"
WIDTH = 64
Answers = list[str]


def reading(draw: random.Random) -> tuple[str, dict[str, str]]:
    """A text about a person, and by kind of question what it says of them."""
    place, job, pet, dish = (draw.choice(some) for some in (list(PLACES), JOBS, PETS, DISHES))
    said = [f"lives in {place}", f"works as {job}", f"has a {pet}", f"likes {dish}"]
    draw.shuffle(said)
    name = draw.choice(NAMES)
    known = {"city": place, "country": PLACES[place], "job": job, "pet": pet, "dish": dish}
    return " ".join(f"{name} {each} ." for each in said), known


def reading_task(kind: str, sizes: dict[str, int]) -> autoprompt.Task:
    """Questions of one kind without the word that says so."""
    draw = random.Random(1)
    splits: dict[str, list[dict[str, str]]] = {}
    for role, count in sizes.items():
        splits[role] = []
        while len(splits[role]) < count:
            text, known = reading(draw)
            splits[role].append({"text": text, "answer": known[kind]})
    return autoprompt.Task.from_rows(
        splits,
        name=f"reading-{kind}",
        kind="generation",
        target="answer",
        prompt="{{ text }} {{ answer }}",
        metric="token_f1",
        max_tokens=6,
    )


def made_tokenizer() -> Any:
    """A token a word of the texts."""
    said = ["lives", "in", ".", "works", "as", "has", "a", "likes"]
    words = {*NAMES, *KINDS, *START.split(), *said}
    words.update(word for text in (*PLACES, *PLACES.values(), *JOBS, *PETS, *DISHES) for word in text.split())
    ids = {
        token: at
        for at, token in enumerate(["<pad>", "</s>", "<unk>", *(f"▁{word}" for word in sorted(words))])
    }
    core = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    core.decoder = decoders.Metaspace(prepend_scheme="always")
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", ids["</s>"])]
    )
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=512, **names)


def teach(folder: Path, seconds: float) -> None:
    """Teach a small T5 to answer all four kinds of questions, and keep it; ``seconds`` of the processor."""
    tokenizer = made_tokenizer()
    config = transformers.T5Config(
        d_model=WIDTH, d_kv=16, d_ff=4 * WIDTH, num_layers=2, num_heads=4, vocab_size=len(tokenizer), dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with drawing_from(0):
        model = transformers.T5ForConditionalGeneration(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 100))
    draw, began, step = random.Random(0), time.process_time(), 0
    while (spent := time.process_time() - began) < seconds:
        pairs = []
        for _ in range(32):
            text, known = reading(draw)
            kind = draw.choice(KINDS)
            pairs.append((f"{kind} {text}", known[kind]))
        loss = model(**batch_of(tokenizer, pairs)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        step += 1
        if step % 200 == 0:
            print(f"teaching: {spent:.0f} s, loss {float(loss.detach()):.3f}", file=sys.stderr, flush=True)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def batch_of(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> dict[str, torch.Tensor]:
    """Texts and answers (with their ends) as tensors, padded on the right; what is padded is no label."""
    texts = tokenizer([text for text, _ in pairs], padding=True, return_tensors="pt")
    answers = tokenizer(text_target=[answer for _, answer in pairs], padding=True, return_tensors="pt")
    labels = torch.where(answers["attention_mask"] == 1, answers["input_ids"], -100)
    return {"input_ids": texts["input_ids"], "attention_mask": texts["attention_mask"], "labels": labels}


@contextlib.contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Inside the block, torch draws from this seed; what others draw is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@dataclass
class Bench:
    """What all ways share.

    Attributes:
        place: folder or hub id of the model.
        task: of free text.
        given: steps, batch, rows, every.
    """

    place: str
    task: autoprompt.Task
    given: argparse.Namespace

    def score(self, answers: Sequence[str | None], examples: Sequence[Example], metric: str) -> float:
        """Mean over the examples; an answer that is missing scores 0."""
        measure = METRICS[metric].per_example
        pairs = zip(answers, examples, strict=True)
        return float(np.mean([measure(answer or "", None, example) for answer, example in pairs]))

    def text(self, example: Example) -> str:
        """What the encoder reads, but for the rows."""
        return self.task.seed_prompt.render(example.fields).text().rstrip(" ")

    def by_peft(self, init: str, lr: float, seed: int) -> Answers:
        """Answers for test by rows that PEFT's prompt tuning trained with AdamW, the rate falling linearly to 0."""
        given, task = self.given, self.task
        with drawing_from(seed):
            model, tokenizer = self._peft_model(init)
            weight = model.prompt_encoder["default"].embedding.weight
            optimizer = torch.optim.AdamW([weight], lr=lr)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / given.steps)
            order, waiting = random.Random(seed), list[Example]()
            best, kept = -1.0, weight.detach().clone()
            for step in range(given.steps + 1):
                if step % given.every == 0 or step == given.steps:
                    score = self.score(self._written(model, tokenizer, task.select), task.select, task.metric)
                    if score > best:
                        best, kept = score, weight.detach().clone()
                if step == given.steps:
                    break
                if len(waiting) < given.batch:
                    waiting += order.sample(task.train, len(task.train))
                some, waiting = waiting[: given.batch], waiting[given.batch :]
                model.train()
                pairs = [(self.text(each), each.target) for each in some]
                loss = model(**batch_of(tokenizer, pairs)).loss
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            with torch.no_grad():
                weight.copy_(kept)
            return self._written(model, tokenizer, task.test)

    def _peft_model(self, init: str) -> tuple[Any, Any]:
        """The model with virtual tokens before its text, and its tokenizer."""
        peft: Any = importlib.import_module("peft")
        config = peft.PromptTuningConfig(
            task_type="SEQ_2_SEQ_LM",
            num_virtual_tokens=self.given.rows,
            num_transformer_submodules=1,  # the second half of the default's rows never gets a gradient
            prompt_tuning_init=init,
            prompt_tuning_init_text=self.given.start if init == "TEXT" else None,
            tokenizer_name_or_path=self.place if init == "TEXT" else None,
        )
        base: Any = transformers.AutoModelForSeq2SeqLM.from_pretrained(self.place)
        return peft.get_peft_model(base, config), transformers.AutoTokenizer.from_pretrained(self.place)

    def _written(self, model: Any, tokenizer: Any, examples: Sequence[Example]) -> Answers:
        """Greedy answers."""
        model.eval()
        found: Answers = []
        for start in range(0, len(examples), 64):
            some = examples[start : start + 64]
            texts = tokenizer([self.text(each) for each in some], padding=True, return_tensors="pt")
            with torch.inference_mode():
                ids = model.generate(
                    input_ids=texts["input_ids"],
                    attention_mask=texts["attention_mask"],
                    max_new_tokens=self.task.max_tokens,
                    do_sample=False,
                )
            found += tokenizer.batch_decode(ids, skip_special_tokens=True)
        return found

    def by_us(self, strategy: Soft, seed: int) -> list[str | None]:
        """Answers for test by rows that we trained in the same place."""
        given, task = self.given, self.task
        space = autoprompt.SearchSpace.from_dict(
            {
                "title": "rows in front",
                "template": f"[[ trigger ]] {task.prompt}",
                "slots": {"trigger": {"tokens": {"n": given.rows}}},
            }
        )
        measured = (given.steps // given.every + 8) * len(task.select)
        calls = 3 * given.steps * given.batch + measured  # a gradient counts three calls
        kept = dataclasses.replace(task, test=task.test[:1])  # test is asked below, of the rows alone
        found = autoprompt.optimize(kept, self.place, calls, space=space, strategy=strategy, seed=seed)
        if found.soft is None:
            raise RuntimeError(f"{task.name}: nothing was trained with {calls} calls")
        return list(autoprompt.evaluate(task, self.place, found.soft).scored.predictions)

    def tiled(self) -> str:
        """The start text said again and again, as PEFT does, until it has as many tokens as there are rows."""
        words = self.given.start.split()
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(self.place)
        text: list[str] = []
        while len(tokenizer(" ".join(text), add_special_tokens=False)["input_ids"]) < self.given.rows:
            text.append(words[len(text) % len(words)])
        return " ".join(text)


def ways(bench: Bench) -> dict[str, Callable[[int], Sequence[str | None]]]:
    """The rows of the table: from a seed to answers for test."""
    given = bench.given
    model = load_model(bench.place)
    assert isinstance(model, OpenModel)
    found: dict[str, Callable[[int], Sequence[str | None]]] = {}
    for init in ("RANDOM", "TEXT"):
        for lr in given.peft_lr:
            found[f"PEFT, {init}, AdamW {lr:g}"] = lambda seed, init=init, lr=lr: bench.by_peft(
                init, lr, seed
            )  # type: ignore[misc]
    common: dict[str, Any] = {
        "steps": given.steps, "batch": given.batch, "seeds": 1, "every": given.every, "rest": "cut",
        "length": given.rows,
    }  # fmt: skip
    for lr in given.peft_lr:
        same = Soft(
            **common,
            start=bench.tiled(),
            optimizer="adamw",
            lr=lr / model.vocabulary.unit,
            schedule="linear",
            clip=0,
        )
        found[f"ours, that text, AdamW {lr:g}"] = lambda seed, same=same: bench.by_us(same, seed)  # type: ignore[misc]
    found["ours as it comes, that text"] = lambda seed: bench.by_us(Soft(**common, start=bench.tiled()), seed)
    found["ours as it comes, drawn tokens"] = lambda seed: bench.by_us(
        Soft(**common, init="vocabulary"), seed
    )
    return found


def report(bench: Bench) -> str:
    """The table as Markdown, in per cent."""
    lines = ["| way | token F1 | exact match | CPU s |", "| --- | ---: | ---: | ---: |"]
    test = bench.task.test
    plain = {"no prompt": bench.task.seed_prompt.text}
    if bench.given.task in KINDS:
        plain["the word it was taught by"] = f"{bench.given.task} {bench.task.prompt}"
    for name, text in plain.items():
        answers = autoprompt.evaluate(bench.task, bench.place, text).scored.predictions
        reached = (100 * bench.score(answers, test, metric) for metric in ("token_f1", "exact_match"))
        lines.append(f"| {name} | {' | '.join(f'{value:.1f}' for value in reached)} | |")
    for name, way in ways(bench).items():
        scores: dict[str, list[float]] = {"token_f1": [], "exact_match": []}
        began = time.process_time()
        for seed in range(bench.given.seeds):
            answers = tuple(way(seed))
            for metric, values in scores.items():
                values.append(100 * bench.score(answers, test, metric))
        seconds = (time.process_time() - began) / bench.given.seeds
        lines.append(f"| {name} | {' | '.join(map(spread, scores.values()))} | {seconds:.0f} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.1f} ± {deviation:.1f}"


def main() -> None:
    """Teach where that is asked for, then compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", help="hub id or folder of an encoder-decoder model; default: the one taught here"
    )
    parser.add_argument("--task", default="job", help=f"{', '.join(KINDS)}, or a task's name or file")
    parser.add_argument("--rows", type=int, default=20, help="virtual tokens")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--every", type=int, default=20, help="steps between measurements on select")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train-rows", type=int, default=128)
    parser.add_argument("--select-rows", type=int, default=64)
    parser.add_argument("--test-rows", type=int, default=300)
    parser.add_argument("--start", default=START, help="text that rows begin as")
    parser.add_argument("--peft-lr", type=float, nargs="+", default=[3e-2, 3e-1])
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/soft-qa"), help="folder of the model taught here"
    )
    parser.add_argument("--teach", action="store_true", help="teach it anew")
    parser.add_argument("--teaching", type=float, default=45, help="seconds of the processor that takes")
    given = parser.parse_args()
    folder = given.runs / "model"
    if given.model is None and (given.teach or not folder.exists()):
        teach(folder, given.teaching)
    sizes = {"train": given.train_rows, "select": given.select_rows, "test": given.test_rows}
    made = given.task in KINDS
    task = reading_task(given.task, sizes) if made else autoprompt.Task.load(given.task).with_sizes(**sizes)
    print(report(Bench(given.model or str(folder), task, given)))


if __name__ == "__main__":
    main()
