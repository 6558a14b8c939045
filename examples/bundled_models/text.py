"""Write the generated part of the training text of the bundled models from the phrase banks.

Every document is put together from ``phrases/*.tsv`` and the tables in forms.py and events.py:
reviews with and without a verdict, series of reviews in one form, short news items with their
topic, and plain sentences.  The word that carries a verdict is put between two marks, so that
training can find it: ``unmark`` takes them out again.  The same seed gives the same documents.

    python text.py --phrases phrases --count 20
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forms
from words import PRONOUN, Bank, Words, articles, capital, mark, unmark


@dataclass
class Review:
    """One review, without its verdict."""

    text: str
    positive: bool
    domain: str


class Writer(Words):
    """Writes documents from a bank with one random generator."""

    def review(self, domain: str = "", positive: bool | None = None, mixed: float = 0.2) -> Review:
        """A review of one to four clauses; `mixed` of them weigh both sides."""
        domain = domain or self.one(self.domains)
        sign = self.chance(0.5) if positive is None else positive
        if self.chance(mixed):
            body = self.two_sided(domain, sign)
        else:
            number = self.rng.choices((1, 2, 3, 4), (25, 38, 25, 12))[0]
            parts = list(dict.fromkeys(self.clause(sign, domain) for _ in range(number)))
            stock = self.bank.neutral.get(domain, [])
            if stock and self.chance(0.4):
                neutral = self.fill(self.one(stock), domain)
                parts.insert(self.rng.randrange(len(parts) + 1), neutral)
            body = self.joined(parts)
        if self.chance(self.noise):
            body = self.noisy(body)
        body = PRONOUN.sub("I", body)
        if self.chance(0.12):
            body = body.lower()
        return Review(body, sign, domain)

    def two_sided(self, domain: str, sign: bool) -> str:
        """Both sides, with the last or the larger one deciding."""
        with_it, against = self.clause(sign, domain), self.clause(not sign, domain)
        shape = self.rng.randrange(6)
        if shape == 0:
            text = f"{against}, but {with_it}"
        elif shape == 1:
            text = f"although {against}, {with_it}"
        elif shape == 2:
            text = f"{against}. However, {with_it}"
        elif shape == 3:
            text = f"{with_it}, even if {against}"
        elif shape == 4:
            parts = [with_it, against, self.clause(sign, domain), self.clause(sign, domain)]
            self.rng.shuffle(parts)
            return self.joined(parts)
        else:
            text = f"{against}, yet {with_it}"
        if self.chance(0.5):
            return self.joined([text, self.clause(sign, domain)])
        return capital(text) + "."

    def joined(self, parts: Sequence[str]) -> str:
        """Clauses as sentences, or strung together."""
        text = capital(parts[0])
        for part in parts[1:]:
            joiner = self.rng.choices(
                (". ", ", and ", ", ", "! ", "; ", " and ", " - "), (60, 14, 8, 5, 4, 6, 3)
            )[0]
            text += joiner + (capital(part) if joiner in (". ", "! ") else part)
        return text + self.rng.choices((".", "!", "", "..."), (80, 10, 8, 2))[0]

    def verdict(self, row: tuple[Any, ...], review: Review, firm: bool = False) -> str:
        """A verdict in the form of a table row; it may fail to tell the polarity."""
        _, template, kind, for_positive, for_negative = row
        sign, word, filler = review.positive, "", False
        if not firm and not self.chance(for_positive if sign else for_negative):
            draw = self.rng.random()
            if kind != "adj" or draw < 0.35:
                sign = not sign
            elif draw < 0.65 or not template.endswith("was {w}."):
                word = self.one(forms.NEUTRAL_WORDS.split())
            else:
                word, filler = self.one(forms.FILLERS.split("|")), True
        word = word or self.label(kind, sign)
        text = template.replace("{w2}", "" if filler else self.tail())
        text = text.replace("{w}", mark(word)).replace("{W}", mark(capital(word)))
        text = re.sub(r" +\.", ".", self.fill(self.fill(text, review.domain), review.domain))
        return capital(articles(text))

    def single(self) -> str:
        """One review, with a verdict after it, before it, on both sides, or nowhere."""
        review = self.review()
        draw = self.rng.random()
        if draw < 0.2:
            return review.text
        gap = self.rng.choices((" ", "\n"), (85, 15))[0]
        if draw < 0.78:
            text = review.text + gap + self.verdict(self.weighted(forms.SUFFIXES), review)
            if self.chance(0.12):
                text += " " + capital(self.clause(review.positive, review.domain)) + "."
        elif draw < 0.92:
            text = self.verdict(self.weighted(forms.PREFIXES), review) + gap + review.text
        else:
            text = self.verdict(self.weighted(forms.PREFIXES), review) + " " + review.text
            text += gap + self.verdict(self.weighted(forms.SUFFIXES), review)
        return text.lower() if self.chance(0.06) else text

    def simple(self) -> str:
        """A word or a clause or two with a short verdict: the first lesson in polarity."""
        domain, sign, draw = self.one(self.domains), self.chance(0.5), self.rng.random()
        if draw < 0.2:
            text = capital(self.adjective(sign, 0.15)) + self.one((".", "!", "", ","))
        elif draw < 0.7:
            text = capital(self.clause(sign, domain)) + self.one((".", ".", "!", ""))
        else:
            text = self.joined([self.clause(sign, domain), self.clause(sign, domain)])
        text = PRONOUN.sub("I", text)
        template, pair, for_positive, for_negative = self.one(forms.SIMPLE)
        right = self.chance(for_positive if sign else for_negative)
        word = pair.split()[0 if sign == right else 1]
        text = template.replace("{x}", text).replace("{w}", mark(word))
        return text.lower() if self.chance(0.1) else text

    def series(self) -> str:
        """One to five reviews in one form, with or without an instruction before them."""
        number = self.rng.choices((1, 2, 3, 4, 5), (30, 28, 22, 12, 8))[0]
        same = self.one(self.domains) if self.chance(0.4) else ""
        gap = self.rng.choices(("\n", "\n\n", " "), (50, 30, 20))[0]
        firm, lines, kind = self.chance(0.7), [], "adj"
        if self.chance(0.62):
            _, head, foot, kinds = self.weighted(forms.CARDS)
            kind = self.one(kinds.split())
            colon = self.one((":", ":", ":", " -"))
            lower = self.chance(0.1)
            pair = {sign: self.label(kind, sign, 0.8) for sign in (True, False)}
            upper = self.chance(0.15)
            for _ in range(number):
                review = self.review(same)
                sign = review.positive if firm or self.chance(0.93) else not review.positive
                word = pair[sign] if firm else self.label(kind, sign)
                word = mark(capital(word) if upper else word)
                start = head if head.endswith("?") else head + colon
                line = f"{start} {review.text}{'' if gap == ' ' else chr(10)}"
                line += f"{' ' if gap == ' ' else ''}{foot}{colon} {word}"
                lines.append(line.lower() if lower else line)
        else:
            row = self.weighted(forms.SUFFIXES)
            kind = row[2]
            for _ in range(number):
                review = self.review(same)
                lines.append(review.text + " " + self.verdict(row, review, firm))
        if self.chance(0.4):
            stock = forms.INSTRUCTIONS.get(kind, forms.ANY_INSTRUCTION)
            if self.chance(0.15):
                stock = forms.ANY_INSTRUCTION
            lines.insert(0, self.one(stock.split("|")))
        return gap.join(lines)

    # --- news ------------------------------------------------------------------------------

    def news_item(self, topic: str) -> str:
        """One or two clauses of news about a topic."""
        parts = [self.fill(self.one(self.bank.news[topic])) for _ in range(1 + self.chance(0.3))]
        text = ". ".join(capital(part) for part in parts) + ("" if self.chance(0.15) else ".")
        if self.chance(0.1) and "city" in self.bank.slots:
            text = self.one(self.bank.slots["city"]) + self.one((": ", " - ")) + text
        if self.chance(self.noise):
            text = self.noisy(text)
        return text.lower() if self.chance(0.1) else text

    def topic_word(self, topic: str, reliability: float, plain: bool) -> str:
        """The name of the topic, a word near it, or (if unreliable) anything."""
        if not self.chance(reliability):
            names = ("people", "the weather", "new plans", "{city}", "{country}")
            return self.fill(self.one(names if self.chance(0.5) else ["world"] * 3 + self.topics))
        return topic if plain else self.one(forms.TOPICS.get(topic, topic).split())

    def headed(self, row: tuple[Any, ...], topic: str) -> str:
        """A news form filled for a topic."""
        word = self.topic_word(topic, row[2], row[3])
        text = row[1].replace("{t}", mark(word)).replace("{T}", mark(capital(word)))
        return self.fill(text)

    def news(self) -> str:
        """A news document: one item or a series, usually with its topic."""
        draw = self.rng.random()
        topic = self.one(self.topics)
        if draw < 0.12:
            return self.news_item(topic)
        if draw < 0.52:
            row = self.weighted(forms.NEWS_SUFFIXES)
            return self.news_item(topic) + self.one((" ", " ", "\n")) + self.headed(row, topic)
        if draw < 0.7:
            return self.headed(self.weighted(forms.NEWS_PREFIXES), topic) + " " + self.news_item(topic)
        number, gap = self.rng.randint(1, 4), self.one(("\n", "\n\n", " "))
        _, head, foot = self.weighted(forms.NEWS_CARDS)
        form = None if self.chance(0.6) else self.weighted(forms.NEWS_SUFFIXES)
        break_, lines = (" " if gap == " " else "\n"), []
        for _ in range(number):
            topic = self.one(self.topics)
            item = self.news_item(topic)
            if form:
                lines.append(f"{item} {self.headed(form, topic)}")
            else:
                word = mark(self.topic_word(topic, 0.97, self.chance(0.8)))
                lines.append(f"{head}: {item}{break_}{foot}: {word}")
        if self.chance(0.4):
            lines.insert(0, self.one(forms.NEWS_INSTRUCTIONS.split("|")))
        return gap.join(lines)

    # --- other -----------------------------------------------------------------------------

    def plain(self) -> str:
        """A sentence or two about words of opinion, people and places."""
        sign = self.chance(0.5)
        domain = self.one(self.domains)
        word, near = self.adjective(sign, 0.3), self.adjective(sign, 0.3)
        far = self.adjective(not sign, 0.3)
        feel = self.one(forms.LABELS["feel"][0 if sign else 1].split())
        name = "positive" if sign else "negative"
        shapes = (
            f"It was {word} and {near}.",
            f"{word}, {near}, {self.adjective(sign, 0.2)}",
            f"{word} means {near}.",
            f"The opposite of {word} is {far}.",
            f"Not {far} but {word}.",
            f"{capital(word)} is a {name} word.",
            f"A friend called the {{noun}} {word}, and he was {feel}.",
            f"My sister was {feel} because the {{aspect}} was {word}.",
            f"They talked about the {word} {{aspect}} for hours.",
            f"The {{noun}} was {word}, so we were {feel}.",
            f"We went to {{city}} and it was {word}.",
            "The people of {country} voted on a new law.",
            "The {noun} was made in {country}.",
            "He lives in {city} and speaks {language}.",
            "She moved from {city} to {city} last year.",
            "The flight from {city} to {city} takes {n} hours.",
            "{country} and {country} are countries.",
            "They speak {language} in {country}.",
            "I bought the {noun} in {city} on a {weekday}.",
            "The country {country} and the city {city}.",
            "{person} is a {job} from {country}.",
            "{person} has a {colour} {animal} and likes {food}.",
            "My {family} lives near the {place} in {city}.",
            "In {month}, {person} had {food} with my {family}.",
            "We met {number} people from {country} in {month}.",
            "It was a {weekday}.",
        )
        text = self.fill(self.one(shapes), domain)
        stock = self.bank.neutral.get(domain, [])
        if stock and self.chance(0.25):
            text += " " + capital(self.fill(self.one(stock), domain)) + "."
        return capital(articles(text))

    def document(self) -> str:
        """One document, with marks around its verdict words."""
        draw = self.rng.random()
        if draw < 0.46:
            return self.single()
        if draw < 0.68:
            return self.series()
        if draw < 0.92:
            return self.news()
        return self.plain()


def main() -> None:
    """Print some documents."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--phrases", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    writer = Writer(Bank.load(options.phrases), options.seed)
    for _ in range(options.count):
        print(unmark(writer.document())[0], end="\n---\n")


if __name__ == "__main__":
    main()
