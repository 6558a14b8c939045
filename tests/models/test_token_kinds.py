"""What the text of a token says about it."""

from __future__ import annotations

import pytest

from autoprompt.models.hf.token_kinds import Leaks, is_plain_text, is_reserved, is_word


@pytest.mark.parametrize(
    ("label", "leaks", "fine"),
    [
        ("good", ["good", "Good", " GOOD", "##good", "goods", "goodness", "goodbye"], ["go", "god", "goo"]),
        ("great", ["great", "greatly", "greater", "greatest", "grea", "Greats"], ["greet", "gre", "grade"]),
        ("bad", ["badly", "Bad", "baddest", "badness", "very bad,"], ["badge", "ba", "bar"]),
        ("yes", ["Yes", "yes!"], ["yesterday", "ye", "yet"]),
        ("no", ["No", "NO"], ["north", "not", "none", "know"]),
        ("terrible", ["terribly", "terr", "terrib", "terribles"], ["terror", "ter"]),
        ("happy", ["happier", "happily", "happiness", "happ"], ["hap", "happen"]),
        ("nice", ["nicer", "nicest", "nicely"], ["nick", "niche"]),
        ("хороший", ["хорошие", "Хорош", "хорошая"], ["хор", "хоровой"]),
        ("плохой", ["плохая", "плох"], ["плоть", "пол"]),
        ("sports", ["sport", "sporting", "Sport"], ["spot", "spo"]),
        ("Sci/Tech", ["sci", "tech", "technology", "Sci/Tech"], ["sit", "te"]),
        ("A", ["a", "A"], ["an", "B"]),
        ("5", ["5"], ["50", "five"]),
        (":)", [":)"], [":", ")"]),
    ],
)
def test_forms_of_label_words(label: str, leaks: list[str], fine: list[str]) -> None:
    found = Leaks([label])
    assert [text for text in leaks if not found.found_in(text)] == []
    assert [text for text in fine if found.found_in(text)] == []


def test_words() -> None:
    words = [
        "great",
        "Great",
        "GREAT",
        "don't",
        "X-ray",
        "a",
        "I",
        "好",
        "очень",
        "café",
        "cafe\u0301",
        "हिन्दी",
    ]
    assert [text for text in words if not is_word(text)] == []
    others = [
        "",
        "b",
        "i",
        "9",
        "r2",
        "don'",
        "-ray",
        "getName",
        "great film",
        "ﬁlm",
        "ª",
        "ʰa",
        "great.",
        "_a",
    ]
    assert [text for text in others if is_word(text)] == []
    assert is_word("i", lower_i=True)


def test_reserved_entries_and_plain_text() -> None:
    reserved = [
        "<unused12>",
        "[unused3]",
        "<extra_id_5>",
        "<|reserved_special_token_7|>",
        "<0x0A>",
        "[PAD]",
        "</s>",
    ]
    assert [entry for entry in [*reserved, "▁<mask>", "madeupword0001"] if not is_reserved(entry)] == []
    assert [
        entry for entry in ["<br>", "[1]", "great", "<", "[such]", "<h1>", "<span>"] if is_reserved(entry)
    ] == []
    assert [text for text in ["great", " a b", "é", "می\u200cخواهم"] if not is_plain_text(text)] == []
    unseen = ["", "  ", "a\n", "\ta", "\u200b", "a\u2028b", "\ufffd", "\x00", "\u00a0", "soft\u00adhyphen"]
    assert [text for text in unseen if is_plain_text(text)] == []
