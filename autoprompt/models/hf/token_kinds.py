"""What the text of a token says about it: whether it can stand in a prompt, be read, or tell an answer away.

Plain string rules. Whether a tokenizer reads a token back is asked of the tokenizer, in ``vocabulary``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

# Names that vocabularies give to rows that are no text, where the tokenizer does not flag them as special.
_RESERVED = re.compile(
    r"""(?ix)
    <\|.*\|> | <0x[0-9a-f]{2}> | <?madeupword\d+>?
    | [<\[]\|?/?
      (?:unused|un_used|reserved|extra|special|spare|dummy|placeholder|sentinel|loc|image|audio|bos|eos|pad|padding
       |unk|unknown|mask|cls|sep|s|eot|eom|eod|fim)
      (?:[\W\d_]\S*)?
      [>\]]
    """
)
_JOINERS = "\u200c\u200d"  # stand inside words of Persian and of Indic scripts
_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
_PARTS = re.compile(r"['\u2019-]")  # what may stand inside a word
_WORDS = re.compile(r"[^\W\d_]+")
_ENDINGS = ("ness", "ing", "est", "ed", "er", "es", "ly", "s")
_STEM = 3  # letters that must be left without an ending
_SHARED = 4  # letters of a beginning that tells a word away


def is_reserved(entry: str) -> bool:
    """Whether a vocabulary's entry, as it writes it, is a placeholder, a marker or a lone byte."""
    return _RESERVED.fullmatch(entry.lstrip("Ġ▁ ")) is not None


def is_plain_text(text: str) -> bool:
    """Whether a token's text can be seen and stays on its line.

    Nothing of: white space alone, line breaks, control and other invisible characters, pieces of a character.
    """
    if not text.strip() or "\ufffd" in text:
        return False
    if text.isascii():
        return text.isprintable()
    inner = "".join(each for each in text[1:-1] if each not in _JOINERS)
    return not any(unicodedata.category(each) in _UNSEEN for each in text[:1] + inner + text[-1:])


def is_ascii(text: str) -> bool:
    """Whether all of a text is printable ASCII."""
    return text.isascii() and text.isprintable()


def is_word(text: str, *, lower_i: bool = False) -> bool:
    """Whether a text, spaces off, can be a word: letters, with an apostrophe or a hyphen inside at most.

    In lower case, upper case or capitalised; what mixes them otherwise is mostly program text. One letter is a word
    if it is "a", "A", "I" or an ideograph.

    Args:
        text: the text.
        lower_i: whether "i" is a word too, as where a tokenizer knows no capitals.
    """
    parts = _PARTS.split(text)
    if not all(_is_letters(part) for part in parts):
        return False
    if any(part not in (part.lower(), part.upper(), part[0].upper() + part[1:].lower()) for part in parts):
        return False
    if len(text) > 1:
        return True
    return text in "aAI" or (lower_i and text == "i") or "IDEOGRAPH" in unicodedata.name(text, "")


def beginning_with(words: Iterable[str]) -> re.Pattern[str]:
    """Finds words that begin with one of the given ones, in text that was case-folded."""
    each = "|".join(re.escape(word.strip().casefold()) for word in words)
    return re.compile(rf"(?<!\w)(?:{each})")


class Leaks:
    """Tells tokens that give an answer away: label words, their simple forms, and what they begin with.

    Two words are forms of each other if they share an English stem (``happy`` and ``happier``), if one begins with the
    other and that has at least four letters (``good`` and ``goodbye``, ``terrible`` and ``terr``), or if all but two
    letters at their ends are the same (``хороший`` and ``хорошие``; at least four, in English five): rather a harmless
    word too many than an answer in the prompt.

    Args:
        answers: label words; of phrases each word counts.
    """

    def __init__(self, answers: Sequence[str]) -> None:
        words = {word for each in answers for word in _words(each)}
        self._exact = {each.strip().casefold() for each in answers}
        self._stems = {stem for word in words for stem in _stems(word)}
        self._long = {word for word in words if len(word) >= _SHARED}
        self._beginnings = {word[:count] for word in words for count in range(_SHARED, len(word) + 1)}
        self._bodies = {body for word in words for body in _bodies(word)}

    def found_in(self, text: str) -> bool:
        """Whether a token's text gives one of the answers away."""
        return text.strip().casefold() in self._exact or any(self._is_form(word) for word in _words(text))

    def _is_form(self, word: str) -> bool:
        return (
            word in self._beginnings
            or any(word[:count] in self._long for count in range(_SHARED, len(word)))
            or not self._bodies.isdisjoint(_bodies(word))
            or not self._stems.isdisjoint(_stems(word))
        )


def is_single_letter(text: str) -> bool:
    """Whether a text is one letter of an alphabet, which is in too many words to tell one of them away."""
    bare = text.strip()
    return len(bare) == 1 and bare.lower() != bare.upper()


def _is_letters(part: str) -> bool:
    if part.isascii():
        return part.isalpha()
    if unicodedata.normalize("NFKC", part) != unicodedata.normalize("NFC", part):
        return False
    kinds = [unicodedata.category(each) for each in part if each not in _JOINERS]
    return bool(kinds) and kinds[0] in ("Ll", "Lu", "Lo") and all(
        kind[0] == "M" or (kind[0] == "L" and kind != "Lm") for kind in kinds
    )  # fmt: skip


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORDS.findall(text)]


def _bodies(word: str) -> set[str]:
    """A word without none, one and two of its last letters, where enough is left."""
    bodies = (word[:count] for count in range(max(0, len(word) - 2), len(word) + 1))
    return {body for body in bodies if len(body) >= _SHARED + body.isascii()}


def _stems(word: str) -> set[str]:
    """A word and what is left of it without an English ending, spelling changes at the seam undone."""
    stems = {word}
    for ending in _ENDINGS:
        base = word.removesuffix(ending)
        if base == word or len(base) < _STEM:
            continue
        stems |= {base, base + "e"}
        if ending == "ly":  # terribly
            stems.add(base + "le")
        if base[-1] == "i":  # happily, happiness
            stems.add(base[:-1] + "y")
        if base[-1] == base[-2] and len(base) > _STEM:  # sadder, biggest
            stems.add(base[:-1])
    return stems
