"""One side of the GCG comparison, in a process of its own: ``python -m tests.benchmarks.gcg_child SIDE FOLDER``.

Side ``nanogcg`` runs in the environment of nanoGCG and imports nothing of ours but the memory gauge. FOLDER holds the
model, its tokenizer and ``gcg.json`` (a ``Problem``). One line of JSON is printed.
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.memory import peak, reset_peak, resident

PROBLEM = "gcg.json"
STEPS = 2


@dataclass(frozen=True)
class Problem:
    """Texts of one-token words, joined by single spaces; ``words``: what ours may put in; sizes of the search."""

    prefix: str
    trigger: str
    after: str
    target: str
    words: list[str]
    width: int
    top: int


@dataclass(frozen=True)
class Outcome:
    """Processor seconds a step, candidates scored in it, MB over the loaded model, MB loaded; a text that was
    scored and its loss (mean over the target's tokens, nats), to check one side against the other.
    """

    seconds: float
    candidates: float
    extra: float
    loaded: float
    text: str
    loss: float


def nanogcg_side(folder: Path, problem: Problem) -> Outcome:
    """nanoGCG 0.3.0 with its defaults but for the sizes; a step is what two more steps add, halved."""
    import nanogcg  # type: ignore[import-not-found,unused-ignore]
    import transformers

    logging.getLogger("nanogcg").setLevel(logging.ERROR)
    model = transformers.GPT2LMHeadModel.from_pretrained(folder)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    survivors: list[int] = []
    filter_ids = nanogcg.gcg.filter_ids

    def counted(*given: Any) -> torch.Tensor:
        kept: torch.Tensor = filter_ids(*given)
        survivors.append(len(kept))
        return kept

    nanogcg.gcg.filter_ids = counted

    def run(steps: int) -> Any:
        config = nanogcg.GCGConfig(
            num_steps=steps,
            optim_str_init=f" {problem.trigger}",
            search_width=problem.width,
            topk=problem.top,
            verbosity="ERROR",
        )
        text = problem.prefix + "{optim_str}" + f" {problem.after}"
        return nanogcg.run(model, tokenizer, text, f" {problem.target}", config)

    loaded = resident()
    reset_peak()
    found = run(1)
    extra = peak() - loaded
    seconds = (_clocked(lambda: run(1 + STEPS)) - _clocked(lambda: run(1))) / STEPS
    mean = sum(survivors) / len(survivors)
    return Outcome(seconds, mean, extra, loaded, found.best_string.strip(), found.best_loss)


def our_side(folder: Path, problem: Problem) -> Outcome:
    """The same step through the public protocol: gradient, estimates, draw, check of the tokens, scores."""
    from autoprompt.models import OpenModel
    from autoprompt.models.load import load_model

    model = load_model(str(folder))
    if not isinstance(model, OpenModel):
        raise SystemExit("this version of the model gives no gradients()")
    tokenizer = _tokenizer(folder)
    vocabulary = [ids[0] for ids in tokenizer([f" {word}" for word in problem.words])["input_ids"]]
    words = dict(zip(vocabulary, problem.words, strict=True))
    draw = random.Random(0)
    counts: list[int] = []
    step = functools.partial(_our_step, model, tokenizer, problem, words, draw, counts)
    loaded = resident()
    reset_peak()
    text, loss = step(problem.trigger)
    extra = peak() - loaded

    def steps() -> None:
        trigger = text
        for _ in range(STEPS):
            trigger, _ = step(trigger)

    seconds = _clocked(steps) / STEPS
    return Outcome(seconds, sum(counts) / len(counts), extra, loaded, text, loss)


def _our_step(
    model: Any,
    tokenizer: Any,
    problem: Problem,
    words: dict[int, str],
    draw: random.Random,
    counts: list[int],
    trigger: str,
) -> tuple[str, float]:
    """The best of the candidates and its loss; appends how many there were to ``counts``."""
    from autoprompt.models import GradientRequest, LabelRequest
    from autoprompt.prompt import Piece, Rendered

    def rendered(text: str) -> Rendered:
        slot = Piece(text, slot="trigger")
        return Rendered((Piece(f"{problem.prefix} "), slot, Piece(f" {problem.after} ")))

    asked = GradientRequest(rendered(trigger), (problem.target,), (0,))
    gradient = model.gradients([asked]).slots["trigger"].gradient
    allowed = torch.tensor(list(words))
    estimates = torch.from_numpy(model.first_order(gradient))[:, allowed]
    best = allowed[torch.topk(-estimates, min(problem.top, len(allowed)), dim=-1).indices].tolist()  # [L][k]
    now = trigger.split(" ")
    texts = []
    for position in itertools.islice(itertools.cycle(range(len(now))), problem.width):
        word = words[draw.choice(best[position])]
        texts.append(" ".join([*now[:position], word, *now[position + 1 :]]))
    taken = tokenizer([f" {text}" for text in texts])["input_ids"]
    texts = [text for text, ids in zip(texts, taken, strict=True) if len(ids) == len(now)]
    requests = [LabelRequest(rendered(text), (problem.target,)) for text in texts]
    scores: dict[int, float] = {}
    for batch in model.batches(requests):
        replies = model.logprobs([requests[index] for index in batch])
        scores.update({index: reply.log_probs[0] for index, reply in zip(batch, replies, strict=True)})
    counts.append(len(texts))
    winner = max(scores, key=scores.__getitem__)
    length = len(problem.target.split(" "))
    return texts[winner], -scores[winner] / length


def loss_of(folder: Path, problem: Problem, trigger: str) -> float:
    """Mean loss over the target's tokens by a plain forward pass, nats."""
    import transformers

    model = transformers.GPT2LMHeadModel.from_pretrained(folder)
    tokenizer = _tokenizer(folder)
    context, whole = (
        tokenizer(f"{problem.prefix} {trigger} {problem.after}{end}")["input_ids"]
        for end in ("", f" {problem.target}")
    )
    with torch.inference_mode():
        logs = torch.log_softmax(model(torch.tensor([whole])).logits[0], dim=-1)
    places = range(len(context), len(whole))
    return -sum(float(logs[at - 1, whole[at]]) for at in places) / len(places)


def _tokenizer(folder: Path) -> Any:
    import transformers

    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))


def _clocked(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    """Run one side and print its outcome."""
    side, place = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)
    problem = Problem(**json.loads((place / PROBLEM).read_text("utf-8")))
    outcome = {"nanogcg": nanogcg_side, "ours": our_side}[side](place, problem)
    print(json.dumps(asdict(outcome)))


if __name__ == "__main__":
    main()
