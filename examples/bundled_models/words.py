"""The phrase banks and the making of words and clauses for the bundled models' training text."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import forms
from events import EVENTS

T = TypeVar("T")

OPEN, CLOSE = "\x02", "\x03"
HELD_OUT_PERCENT = 15
_MARKED = re.compile(f"{OPEN}([^{CLOSE}]*){CLOSE}")
_ARTICLE = re.compile(rf"\b([Aa])n? (?=({OPEN}?)([A-Za-z]))")
PRONOUN = re.compile(r"\bi\b")
_WORD = re.compile(r"[A-Za-z]+")
_CHOICE = re.compile(r"\(([^()]*)\)")
_SLOT = re.compile(r"\{(\w+)\}")


def mark(word: str) -> str:
    """Put the marks of a verdict word around `word`."""
    return f"{OPEN}{word}{CLOSE}"


def unmark(text: str) -> tuple[str, list[int]]:
    """Take the marks out; return the text and the character offset of each marked word."""
    starts: list[int] = []
    for number, found in enumerate(_MARKED.finditer(text)):
        starts.append(found.start() - 2 * number)
    return text.replace(OPEN, "").replace(CLOSE, ""), starts


def held_out(clause: str) -> bool:
    """Whether a clause belongs to the share that training never sees."""
    return zlib.crc32(clause.lower().encode()) % 100 < HELD_OUT_PERCENT


def capital(text: str) -> str:
    """Upper-case the first letter, past a mark."""
    for place, letter in enumerate(text):
        if letter.isalpha():
            return text[:place] + letter.upper() + text[place + 1 :]
    return text


def articles(text: str) -> str:
    """Write "a" or "an" after the first letter of the next word."""

    def fix(found: re.Match[str]) -> str:
        return found[1] + ("n " if found[3].lower() in "aeio" else " ")

    return _ARTICLE.sub(fix, text)


def _rows(path: Path, columns: int) -> Iterator[list[str]]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) == columns and all(cells) and not line.startswith("#"):
            yield cells


def _clause(text: str) -> str:
    return text.strip().rstrip(".!;, ")


@dataclass
class Bank:
    """The phrase banks; `part` is "train" (without the held-out clauses) or "dev" (only those)."""

    opinions: dict[str, dict[bool, list[str]]] = field(default_factory=dict)
    adjectives: dict[bool, list[str]] = field(default_factory=dict)
    neutral: dict[str, list[str]] = field(default_factory=dict)
    news: dict[str, list[str]] = field(default_factory=dict)
    slots: dict[str, list[str]] = field(default_factory=dict)
    polarity: dict[str, bool] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path, part: str = "train") -> Bank:
        """Read the banks from `folder`."""
        bank = cls(adjectives={True: [], False: []})
        keep = part == "dev"
        for domain, sign, text in _rows(folder / "opinions.tsv", 3):
            if held_out(text) == keep and sign in "+-":
                bank.opinions.setdefault(domain, {True: [], False: []})
                bank.opinions[domain][sign == "+"].append(_clause(text))
        for sign, word in _rows(folder / "adjectives.tsv", 2):
            if word not in forms.SUPERLATIVES:
                bank.adjectives[sign == "+"].append(word.lower())
        for domain, text in _rows(folder / "neutral.tsv", 2):
            if held_out(text) == keep:
                bank.neutral.setdefault(domain, []).append(_clause(text))
        for topic, text in _rows(folder / "news.tsv", 2):
            if held_out(text) == keep:
                bank.news.setdefault(topic, []).append(_clause(text))
        for name, word in _rows(folder / "slots.tsv", 2):
            bank.slots.setdefault(name, []).append(word)
        bank.slots.setdefault("language", forms.LANGUAGES.split())
        for positive in (True, False):
            for word in bank.adjectives[positive] + forms.CORE[positive].split():
                bank.polarity[word] = positive
        if not bank.opinions or not bank.news:
            raise SystemExit(f"no usable phrase banks in {folder}")
        return bank


class Words:
    """Makes words and clauses from a bank with one random generator."""

    def __init__(
        self, bank: Bank, seed: int, noise: float = 0.15, swap: float = 0.4, made: float = 0.5
    ) -> None:
        self.bank, self.rng = bank, random.Random(seed)
        self.noise, self.swap, self.made = noise, swap, made
        self.domains = sorted(set(bank.opinions) - {"any"}) or ["any"]
        self.topics = sorted(bank.news)
        self.core = {sign: forms.CORE[sign].split() for sign in (True, False)}
        self.all_words = {s: bank.adjectives[s] or self.core[s] for s in (True, False)}

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.rng.random() < probability

    def one(self, items: Sequence[T]) -> T:
        """One of the items."""
        return items[int(self.rng.random() * len(items))]

    def weighted(self, table: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
        """One row of a table whose rows begin with their weight."""
        return self.rng.choices(table, weights=[row[0] for row in table])[0]

    def adjective(self, positive: bool, core: float = 0.5) -> str:
        """An opinion word of this polarity, one of the common ones with chance `core`."""
        return self.one((self.core if self.chance(core) else self.all_words)[positive])

    def nouns(self, domain: str) -> tuple[list[str], list[str]]:
        """The names of the thing reviewed in a domain, and of its parts."""
        whole, parts = forms.NOUNS.get(domain, forms.FALLBACK_NOUNS)
        return whole.split(), parts.split()

    def fill(self, text: str, domain: str = "") -> str:
        """Fill {slots} from the bank, {noun} and {aspect} from the domain."""
        whole, parts = self.nouns(domain)

        def value(found: re.Match[str]) -> str:
            name = found[1]
            if name == "noun":
                return self.one(whole)
            if name == "aspect":
                return self.one(parts)
            if name == "n":
                return str(self.rng.randint(2, 40))
            return self.one(self.bank.slots.get(name, [name]))

        return _SLOT.sub(value, text)

    def made_clause(self, positive: bool, domain: str) -> str:
        """A clause from a small grammar: "the plot was really dull", "nothing good about it"."""
        word, other = self.adjective(positive, 0.25), self.adjective(not positive, 0.4)
        very = self.one(("", "", "", "very ", "really ", "so ", "quite ", "truly ", "just "))
        part = "{aspect}"
        if self.chance(0.68):
            shape = self.one(
                (
                    f"the {part} was {very}{word}",
                    f"the {part} was {very}{word}",
                    f"a {word} {{noun}}",
                    f"{word} {part}",
                    f"the {part} and the {part} were {very}{word}",
                    f"i found the {part} {very}{word}",
                    f"it had a {word} {part}",
                    f"such a {word} {{noun}}",
                    f"it is {very}{word} and {self.adjective(positive, 0.3)}",
                    f"what a {word} {{noun}}",
                    f"we had a {word} time",
                    f"it looks {very}{word}",
                    f"it was {word}, {self.adjective(positive, 0.2)} and {self.adjective(positive, 0.2)}",
                    f"the {part} felt {word}",
                )
            )
        elif positive and self.chance(0.6):
            shape = self.one(
                (
                    f"nothing {other} about the {part}",
                    "nothing went wrong",
                    f"not a single {other} moment",
                    f"never {other}",
                    f"it was not {other} at all",
                    f"i expected a {other} {{noun}} but it was {word}",
                    "i have no complaints about the {aspect}",
                )
            )
        else:
            shape = self.one(
                (
                    f"the {part} was not {other}",
                    f"nothing {other} about the {part}",
                    f"it was far from {other}",
                    f"anything but {other}",
                    f"never {other}",
                    f"i expected a {other} {{noun}} but got a {word} one",
                    f"not {other}, just {word}",
                    f"it is not a {other} {{noun}}",
                )
            )
        return articles(self.fill(shape, domain))

    def event(self, positive: bool, domain: str) -> str:
        """Something that happened, from the table of events."""
        rows = EVENTS[positive]
        text = _CHOICE.sub(lambda found: self.one(found[1].split("|")), self.one(rows))
        return self.fill(text, domain)

    def swapped(self, clause: str, positive: bool) -> str:
        """Replace opinion words of the clause by others of the same polarity."""

        def value(found: re.Match[str]) -> str:
            word = found[0]
            sign = self.bank.polarity.get(word.lower())
            if sign is None or not self.chance(self.swap):
                return word
            return self.adjective(sign, 0.2)

        changed = _WORD.sub(value, clause)
        return articles(changed) if changed != clause else clause

    def clause(self, positive: bool, domain: str) -> str:
        """A clause of opinion about the domain."""
        stock = self.bank.opinions[domain][positive]
        if self.chance(0.2) and "any" in self.bank.opinions:
            stock = self.bank.opinions["any"][positive]
        if not stock or self.chance(self.made):
            maker = self.event if self.chance(0.5) else self.made_clause
            return maker(positive, domain)
        return self.swapped(self.fill(self.one(stock), domain), positive)

    def noisy(self, text: str) -> str:
        """Drop or repeat a word or two."""
        words = text.split(" ")
        if len(words) < 6:
            return text
        for _ in range(self.rng.randint(1, 2)):
            place = self.rng.randrange(len(words))
            if self.chance(0.6):
                del words[place]
            else:
                words.insert(place, self.one(("and", "the", "well", "so", "also", "really", "oh")))
        return " ".join(words)

    def label(self, kind: str, sign: bool, core: float = 0.7) -> str:
        """A verdict word of a kind (see forms.LABELS) for a polarity."""
        if kind == "adj":
            return self.adjective(sign, core)
        return self.one(forms.LABELS[kind][0 if sign else 1].split())

    def tail(self) -> str:
        """What can follow a verdict word."""
        return self.one(("overall", "for me", "from start to finish", "in the end", "to be honest"))
