"""The model card of a bundled model, written from what its training run measured."""

from __future__ import annotations

from pathlib import Path

from dev import Result

_HEAD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: {task}
---

# autoprompt {kind} demo model

{what}
It ships with `autoprompt` so that the examples and the tests run without a download. It is a small
model for trying out prompt search, not for use on real text.

| | |
|---|---|
| parameters | {parameters:.2f} M ({weights}) |
| tokenizer | {tokenizer}, {vocabulary} tokens |
| positions | {positions} (most training rows are shorter than 80 tokens) |
| training | {steps:,} steps, {tokens:,} tokens, {minutes:.0f} minutes, {hardware} |
| weights | stored as float16, loaded and run as float32 |

{objective}

## Training text

Of the tokens, {share:.0f} % come from text that `text.py` writes out of the phrase banks in
`phrases/*.tsv` and the tables in `forms.py` and `events.py` (made for this project, Apache-2.0):
short reviews in ten domains with and without a verdict, news items with and without a topic, series
of both, and plain sentences.  The rest comes from open corpora:

| source | what is used | licence |
|---|---|---|
| Wikipedia, by way of T-REx | evidence sentences | CC BY-SA |
| SNLI (captions from Flickr30k) | premise and hypothesis pairs | CC BY-SA 4.0 |
| BoolQ | passages (from Wikipedia) and questions | CC BY-SA 3.0 |
| HotpotQA, Natural Questions | questions | CC BY-SA |
| TREC questions | questions | not stated by its publishers |
| GSM8K | questions (no answers) | MIT |

Attribution: Wikipedia contributors; Elsahar et al. 2018 (T-REx); Bowman et al. 2015 (SNLI) and
Young et al. 2014 (Flickr30k); Clark et al. 2019 (BoolQ); Yang et al. 2018 (HotpotQA); Kwiatkowski
et al. 2019 (Natural Questions); Li and Roth 2002 (TREC); Cobbe et al. 2021 (GSM8K). The weights are
released under Apache-2.0; the texts themselves are not part of this package.

In the generated text some wordings are firm verdicts ("Verdict: bad") and others are often followed
by something else ("It was a Friday"), on purpose and unevenly between positive and negative, so
that, as with large models, the wording of a prompt and the choice of label words matter. The
accuracies below are therefore properties of this made-up text and no finding about language models.

## Held-out text

{losses}

Held-out open text is every 200th line of each corpus; held-out generated text is composed only of
the 15 % of the phrase bank's clauses that training never saw{caveat}.

## Accuracy by prompt wording

Sentiment of {reviews} reviews and topic of {news} news items composed of held-out clauses, by the
larger log-probability of the label words at the answer position. These reviews are built by the
same program as the training text, so that human-written ones are harder.

{tables}

## Limits

It knows little about the world, reasons not at all, writes only short plausible phrases, and sees
sentiment mainly through words: irony, unusual phrasing and long texts mislead it. It learned from
Wikipedia sentences and may repeat their errors and biases. English only.
"""

_WHAT = {
    "masked": (
        "A tiny masked language model (`ModernBertForMaskedLM`), lower case.",
        "lower-case WordPiece, BERT style: `[CLS] x [SEP]`, `[MASK]`, `[PAD]`",
        "Training masks 25 % of the tokens, and of the words that carry a verdict or a topic in\n"
        "the generated text 60 %; in three quarters of the longer generated rows and in all of the\n"
        "simple ones it masks 85 % of those words and 5 % of the others, which is closer to how a\n"
        "prompt is read.  Those words count four times in the loss.",
        "fill-mask",
    ),
    "causal": (
        "A tiny causal language model (`LlamaForCausalLM`).",
        "byte-level BPE, cased; `<s>` is put first, `</s>` ends a text, `<pad>` pads",
        "The loss is that of the next token; words that carry a verdict or a topic in the\n"
        "generated text count eight times.",
        "text-generation",
    ),
}


def _table(results: list[Result], head: str, classes: str) -> str:
    lines = [f"| {head} | words | accuracy | recall ({classes}) |", "|---|---|---|---|"]
    for result in results:
        prompt = result.prompt.replace("\n", "\\n").replace("|", "\\|")
        recall = " / ".join(f"{100 * value:.0f}" for value in result.recall)
        accuracy = f"{100 * result.accuracy:.1f}"
        lines.append(f"| `{prompt}` | {result.words} | {accuracy} % | {recall} |")
    return "\n".join(lines)


def write_card(
    folder: Path,
    kind: str,
    results: tuple[list[Result], list[Result]],
    losses: dict[str, dict[str, float]],
    facts: dict[str, float | str],
) -> None:
    """Write README.md beside the weights of a model."""
    what, tokenizer, objective, task = _WHAT[kind]
    unit = "masked token" if kind == "masked" else "token"
    lines = [f"| text | nats per {unit} | {unit}s predicted | {unit}s |", "|---|---|---|---|"]
    for name, values in losses.items():
        share, count = f"{100 * values['accuracy']:.1f} %", f"{values['tokens']:,.0f}"
        lines.append(f"| held-out {name} | {values['loss']:.3f} | {share} | {count} |")
    text = _HEAD.format(
        kind=kind,
        what=what,
        tokenizer=tokenizer,
        objective=objective,
        task=task,
        losses="\n".join(lines),
        caveat="; words masked as in training" if kind == "masked" else "",
        weights="tied embeddings",
        tables=_table(results[0], "review prompt", "positive / negative")
        + "\n\n"
        + _table(results[1], "news prompt", "world / sports / business / technology"),
        **facts,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
