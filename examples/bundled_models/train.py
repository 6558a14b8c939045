"""Train one of the bundled models on a CPU core.

    python train.py --kind masked --corpus DIR --phrases phrases --out DIR --minutes 65

Without --corpus only the generated text is used.  The schedule follows the elapsed time, so that it
always ends; for the same seed the data and the initial weights are the same, but how many steps fit
into the time depends on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from card import write_card
from data import Rows, prepare, say
from dev import DevSet, Result, evaluate
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
)
from vocab import POSITIONS, wrap
from words import Bank

WIDTH, LAYERS, HEADS = 192, 5, 6
RATES = {"masked": 1.2e-3, "causal": 1.5e-3}
VERDICT_WEIGHT = {"masked": 4.0, "causal": 8.0}
# Until this share of the time: shares of open, generated and simple batches.
STAGES = [(0.3, (0.25, 0.25, 0.5)), (0.6, (0.25, 0.45, 0.3)), (1.0, (0.4, 0.5, 0.1))]


def new_model(kind: str, vocabulary: int) -> PreTrainedModel:
    """A model with random weights."""
    if kind == "masked":
        return ModernBertForMaskedLM(
            ModernBertConfig(
                vocab_size=vocabulary,
                hidden_size=WIDTH,
                num_hidden_layers=LAYERS,
                num_attention_heads=HEADS,
                intermediate_size=384,
                max_position_embeddings=POSITIONS,
                local_attention=2 * POSITIONS,
                global_attn_every_n_layers=1,
                initializer_range=0.04,
                pad_token_id=0,
                cls_token_id=2,
                bos_token_id=2,
                sep_token_id=3,
                eos_token_id=3,
            )
        )
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=512,
            max_position_embeddings=POSITIONS,
            tie_word_embeddings=True,
            initializer_range=0.04,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def corrupt(
    ids: np.ndarray, flags: np.ndarray, kinds: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mask 25 % of the tokens (verdict words 60 %), or in most generated rows 5 % (85 %)."""
    focus = (rng.random(len(ids)) < np.array([0.0, 0.75, 1.0])[kinds])[:, None]
    chance = np.where(flags, np.where(focus, 0.85, 0.6), np.where(focus, 0.05, 0.25))
    chosen = (rng.random(ids.shape) < chance) & (ids > 4)
    if not chosen.any():
        chosen[0, 1] = True
    draw = rng.random(ids.shape)
    shown = np.where(chosen & (draw < 0.88), 4, ids)
    swap = chosen & (draw >= 0.95)
    return np.where(swap, rng.integers(5, size, ids.shape), shown), chosen


def loss_of(
    kind: str,
    model: PreTrainedModel,
    rows: Rows,
    picked: np.ndarray,
    rng: np.random.Generator,
    weight: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of a batch, and (masked) whether each masked token was predicted."""
    ids, flags = rows.padded(picked, 0)
    if kind == "masked":
        shown, chosen = corrupt(ids, flags, rows.kinds[picked], model.config.vocab_size, rng)
        keep = torch.from_numpy(ids != 0).long()
        mask = None if bool(keep.all()) else keep
        hidden = model.model(torch.from_numpy(shown), attention_mask=mask).last_hidden_state
        logits = model.decoder(model.head(hidden[torch.from_numpy(chosen)]))
        target = torch.from_numpy(ids[chosen])
        share = torch.from_numpy(np.where(flags[chosen], weight, 1.0)).float()
        each = functional.cross_entropy(logits, target, reduction="none")
        return (each * share).sum() / share.sum(), logits.argmax(1) == target
    known = torch.from_numpy(ids)
    hidden = model.model(known[:, :-1], use_cache=False).last_hidden_state
    target = known[:, 1:].reshape(-1)
    logits = model.lm_head(hidden.reshape(-1, hidden.shape[-1]))
    each = functional.cross_entropy(logits, target, reduction="none")
    share = torch.from_numpy(np.where(flags[:, 1:], weight, 1.0)).float().reshape(-1)
    share = share * (target != 0)
    return (each * share).sum() / share.sum(), logits.argmax(1) == target


@torch.no_grad()
def held_out_loss(kind: str, model: PreTrainedModel, rows: Rows, limit: int) -> dict[str, float]:
    """Nats per (masked) token on held-out rows, and the share of tokens predicted."""
    model.eval()
    rng = np.random.default_rng(5)
    total, count, right = 0.0, 0, 0
    for picked in rows.batches(2048, rng):
        loss, hits = loss_of(kind, model, rows, picked, rng, 1.0)
        total += loss.item() * len(hits)
        right += int(hits.sum())
        count += len(hits)
        if count > limit:
            break
    return {"loss": total / count, "accuracy": right / count, "tokens": count}


def export(model: PreTrainedModel, tokenizer: Tokenizer, kind: str, folder: Path) -> None:
    """Write a Hugging Face folder: float16 weights that load as float32."""
    folder.mkdir(parents=True, exist_ok=True)
    tied = {"lm_head.weight", "decoder.weight"}
    weights = {
        name: value.half().contiguous() for name, value in model.state_dict().items() if name not in tied
    }
    save_file(weights, folder / "model.safetensors.new", metadata={"format": "pt"})
    os.chmod(folder / "model.safetensors.new", 0o644)
    os.replace(folder / "model.safetensors.new", folder / "model.safetensors")
    wrap(kind, tokenizer).save_pretrained(folder)
    named = json.loads((folder / "tokenizer_config.json").read_text())
    named["tokenizer_class"] = "PreTrainedTokenizerFast"
    named.pop("backend", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(named, indent=2) + "\n")
    settings = json.loads(model.config.to_json_string(use_diff=True))
    settings["architectures"] = [type(model).__name__]
    settings["dtype"] = "float32"
    if kind == "masked":
        settings["reference_compile"] = False
    settings["vocab_size"] = model.config.vocab_size
    (folder / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def report(results: tuple[list[Result], list[Result]]) -> None:
    """Log the accuracy tables."""
    for result in (*results[0], *results[1]):
        print("   ", result.line(), flush=True)


def new_optimizer(model: PreTrainedModel, rate: float) -> torch.optim.AdamW:
    """AdamW, without weight decay for vectors."""
    matrices = [value for value in model.parameters() if value.ndim > 1]
    vectors = [value for value in model.parameters() if value.ndim < 2]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}],
        lr=rate,
        betas=(0.9, 0.98),
        fused=True,
    )


def shares_at(done: float) -> tuple[float, float, float]:
    """The shares of the kinds of batches at a time."""
    return next(shares for until, shares in STAGES if done <= until)


def run(options: argparse.Namespace) -> None:
    """Train, log, export."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    kind, out = options.kind, options.out
    rate = options.rate or RATES[kind]
    tokenizer, rows, made, held = prepare(options)
    wrapped = wrap(kind, tokenizer)
    dev = DevSet.make(Bank.load(options.phrases, "dev"), 400)
    model = new_model(kind, tokenizer.get_vocab_size())
    optimizer = new_optimizer(model, rate)
    rng = np.random.default_rng(options.seed)
    out.mkdir(parents=True, exist_ok=True)
    saved = out.parent / f"{out.name}.checkpoint.pt"
    step, tokens, written, before = 0, 0, 0, 0.0
    if options.resume and saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, tokens, before = state["step"], state["tokens"], state["elapsed"]
        written = state.get("written", int(0.45 * tokens))
        rng = np.random.default_rng(options.seed + step)
    start, budget = time.time() - before, options.minutes * 60
    next_save, next_eval, next_log = before + 300, before + options.evaluate * 60, before
    next_show = before + 600
    streams: dict[int, Iterator[np.ndarray]] = {0: iter(()), 1: iter(()), 2: iter(())}
    average = 0.0
    model.train()
    while True:
        elapsed = time.time() - start
        done = max(elapsed / budget, step / options.steps if options.steps else 0.0)
        if done >= 1:
            break
        kind_of_rows = int(rng.choice(3, p=shares_at(done)))
        picked = next(streams[kind_of_rows], None)
        if picked is None:
            streams[kind_of_rows] = rows.batches(options.batch, rng, kind_of_rows)
            continue
        factor = min(1.0, done / 0.03, step / 100 + 0.01) * max(0.0, min(1.0, (1 - done) / 0.8))
        for group in optimizer.param_groups:
            group["lr"] = rate * factor
        loss, _ = loss_of(kind, model, rows, picked, rng, VERDICT_WEIGHT[kind])
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        size = int(np.sum(rows.starts[picked + 1] - rows.starts[picked]))
        tokens += size
        written += size * (kind_of_rows > 0)
        average += (loss.item() - average) * max(0.01, 1 / step)
        if elapsed >= next_log:
            next_log = elapsed + 30
            speed = tokens / max(elapsed, 1)
            say(f"step {step} tokens {tokens} ({speed:.0f}/s) loss {average:.3f} rate {factor:.3f}")
        if elapsed >= next_save:
            next_save = elapsed + 300
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "tokens": tokens,
                "written": written,
                "elapsed": elapsed,
            }
            torch.save(state, saved.with_suffix(".new"))
            os.replace(saved.with_suffix(".new"), saved)
        if elapsed >= next_eval:
            next_eval = elapsed + options.evaluate * 60
            report(evaluate(kind, model, wrapped, dev, 100))
            say(f"held-out generated {held_out_loss(kind, model, made, 6000)}")
            model.train()
        if options.preview and elapsed >= next_show:
            next_show = elapsed + 900
            export(model, tokenizer, kind, options.preview)
    elapsed = time.time() - start
    export(model, tokenizer, kind, out)
    half = type(model).from_pretrained(out)
    count = 400 if budget > 300 else 40
    results = evaluate(kind, half, wrapped, dev, count, shots=True)
    report(results)
    losses = {"generated": held_out_loss(kind, half, made, 40000)}
    if held:
        losses["open"] = held_out_loss(kind, half, held, 60000)
    say(f"{losses}")
    facts = {
        "parameters": sum(value.numel() for value in model.parameters()) / 1e6,
        "vocabulary": tokenizer.get_vocab_size(),
        "positions": POSITIONS,
        "steps": step,
        "tokens": tokens,
        "share": 100 * written / tokens,
        "minutes": elapsed / 60,
        "hardware": options.hardware,
        "reviews": len(dev.reviews[:count]),
        "news": len(dev.news[:count]),
    }
    write_card(out, kind, results, losses, facts)
    saved.unlink(missing_ok=True)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=("masked", "causal"), required=True)
    parser.add_argument("--corpus", type=Path, help="folder of *.txt.xz files")
    parser.add_argument("--phrases", type=Path, default=Path(__file__).parent / "phrases")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preview", type=Path, help="where to export while training")
    parser.add_argument("--minutes", type=float, default=65.0)
    parser.add_argument("--steps", type=int, default=0, help="stop after this many steps")
    parser.add_argument("--documents", type=int, default=0, help="generated documents")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json to use as it is")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=1024, help="tokens a step")
    parser.add_argument("--rate", type=float, help="peak learning rate")
    parser.add_argument("--hardware", default="one CPU thread", help="for the model card")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--evaluate", type=float, default=10.0, help="minutes between tables")
    parser.add_argument("--resume", action="store_true")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
