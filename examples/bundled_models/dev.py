"""Development sets from the held-out clauses, prompt wordings, and the accuracy of a model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from text import Writer
from transformers import PreTrainedTokenizerBase
from words import Bank

# (template, (word for positive, word for negative)); {x} is the review, {w} the answer
SENTIMENT: list[tuple[str, tuple[str, str]]] = [
    ("{x} It was {w}.", ("great", "terrible")),
    ("{x} It was {w}.", ("good", "bad")),
    ("{x} It was a {w} one.", ("wonderful", "awful")),
    ("{x} The whole thing is {w}.", ("good", "bad")),
    ("{x} All in all, it was {w}.", ("great", "terrible")),
    ("{x} In short, {w}.", ("great", "terrible")),
    ("{x} I {w} it.", ("loved", "hated")),
    ("{x} I feel {w}.", ("happy", "sad")),
    ("{x} Verdict: {w}", ("good", "bad")),
    ("{x} My opinion: {w}.", ("good", "bad")),
    ("{x} Summary: {w}", ("good", "bad")),
    ("{x} Rating: {w}", ("excellent", "terrible")),
    ("{x} Good or bad? {w}.", ("Good", "Bad")),
    ("Review: {x}\nSentiment: {w}", ("positive", "negative")),
    ("Review: {x}\nAnswer: {w}", ("positive", "negative")),
    ("Text: {x}\nThe label is {w}", ("positive", "negative")),
    (
        "Decide whether the review is positive or negative.\nReview: {x}\nSentiment: {w}",
        ("positive", "negative"),
    ),
    ("Question: is this good or bad? {x} Answer: {w}", ("good", "bad")),
]
_NAMES = ("world", "sports", "business", "technology")
NEWS: list[str] = [
    "{x} Topic: {w}.",
    "{x} This is about {w}.",
    "{x} It is about {w}.",
    "{x} Category: {w}",
    "{x} Summary: {w}.",
    "{x} The main word is {w}.",
    "News: {x}\nTopic: {w}",
    "What is the topic of the news?\n{x}\nAnswer: {w}",
]
SHOTS = [
    ("Review: {x}\nSentiment: {w}", ("positive", "negative")),
    ("{x} It was {w}.", ("great", "terrible")),
]


@dataclass
class Result:
    """Accuracy of one prompt, with the recall of each class."""

    prompt: str
    words: str
    accuracy: float
    recall: list[float]

    def line(self) -> str:
        """One line for the log."""
        recall = "/".join(f"{100 * value:.0f}" for value in self.recall)
        prompt = self.prompt.replace("\n", "\\n")
        return f"{100 * self.accuracy:5.1f} ({recall}) {prompt} [{self.words}]"


@dataclass
class DevSet:
    """Reviews (label 0 positive, 1 negative) and news items (label: place in _NAMES)."""

    reviews: list[tuple[str, int]]
    news: list[tuple[str, int]]
    demonstrations: list[tuple[str, int]]

    @classmethod
    def make(cls, bank: Bank, count: int, seed: int = 7) -> DevSet:
        """Compose the sets from a bank of held-out clauses."""
        writer = Writer(bank, seed, noise=0.0, swap=0.0, made=0.0)
        reviews = []
        for number in range(count + 4):
            review = writer.review(positive=number % 2 == 0, mixed=0.1)
            reviews.append((review.text, number % 2))
        topics = [name for name in _NAMES if bank.news.get(name)]
        news = [(writer.news_item(topic), _NAMES.index(topic)) for topic in topics * (count // 4)]
        return cls(reviews[4:], news, reviews[:4])


def _last_tokens(
    kind: str, tokenizer: PreTrainedTokenizerBase, template: str, text: str, words: list[str]
) -> tuple[list[int], int, list[int]]:
    """Token ids of a prompt, the place to read, and the ids of the words there."""
    before, _, after = template.partition("{w}")
    before = before.replace("{x}", text)
    if kind == "masked":
        ids = tokenizer.encode(before + tokenizer.mask_token + after.replace("{x}", text))
        place = ids.index(tokenizer.mask_token_id)
        return ids, place, [tokenizer.convert_tokens_to_ids(word.lower()) for word in words]
    space = " " if before.endswith(" ") else ""
    ids = tokenizer.encode(before.rstrip(" "))
    answers = [tokenizer.encode(space + word, add_special_tokens=False)[0] for word in words]
    return ids, len(ids) - 1, answers


@torch.no_grad()
def predict(
    kind: str,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    texts: list[str],
    words: list[str],
) -> list[int]:
    """The word with the highest log-probability at the answer position, for each text."""
    rows = [_last_tokens(kind, tokenizer, template, text, words) for text in texts]
    order = sorted(range(len(rows)), key=lambda place: len(rows[place][0]))
    found = [0] * len(rows)
    for start in range(0, len(order), 32):
        part = order[start : start + 32]
        width = max(len(rows[place][0]) for place in part)
        ids = torch.full((len(part), width), tokenizer.pad_token_id)
        mask = torch.zeros((len(part), width), dtype=torch.long)
        for number, place in enumerate(part):
            row = rows[place][0]
            ids[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
        logits = model(input_ids=ids, attention_mask=mask).logits
        for number, place in enumerate(part):
            _, position, answers = rows[place]
            found[place] = int(logits[number, position, answers].argmax())
    return found


def _result(prompt: str, words: list[str], labels: list[int], found: list[int]) -> Result:
    recall = []
    for label in sorted(set(labels)):
        hits = [guess == label for guess, true in zip(found, labels, strict=True) if true == label]
        recall.append(sum(hits) / max(1, len(hits)))
    right = sum(guess == label for guess, label in zip(found, labels, strict=True))
    return Result(prompt, " / ".join(words), right / len(labels), recall)


def evaluate(
    kind: str,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    dev: DevSet,
    count: int,
    shots: bool = False,
) -> tuple[list[Result], list[Result]]:
    """Accuracy of every wording on the first `count` reviews and news items."""
    model.eval()
    reviews, news = dev.reviews[:count], dev.news[:count]
    texts, labels = [x for x, _ in reviews], [y for _, y in reviews]
    prompts = list(SENTIMENT)
    if shots:
        for template, pair in SHOTS:
            gap = "\n\n" if "\n" in template else "\n"
            shown = gap.join(
                template.replace("{x}", x).replace("{w}", pair[y]) for x, y in dev.demonstrations
            )
            prompts.append((shown + gap + template, pair))
    first = []
    for template, pair in prompts:
        found = predict(kind, model, tokenizer, template, texts, list(pair))
        result = _result(template, list(pair), labels, found)
        if template.count("\n") > 3:
            result.prompt = "(4 demonstrations) " + template.rpartition(gap)[2]
        first.append(result)
    texts, labels = [x for x, _ in news], [y for _, y in news]
    second = []
    for template in NEWS:
        found = predict(kind, model, tokenizer, template, texts, list(_NAMES))
        second.append(_result(template, list(_NAMES), labels, found))
    return first, second


def mean(values: list[float]) -> float:
    """The mean, or nan for nothing."""
    return sum(values) / len(values) if values else math.nan
