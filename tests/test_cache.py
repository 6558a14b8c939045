from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from autoprompt.cache import Cache, question_key
from autoprompt.errors import InputError
from autoprompt.models import (
    Failure,
    FluencyReply,
    FluencyRequest,
    LabelReply,
    LabelRequest,
    RankReply,
    RankRequest,
    Reply,
    SlotFluency,
    TextReply,
    TextRequest,
)
from autoprompt.prompt import Piece, Prompt, Rendered

REPLIES: dict[str, Reply] = {
    "a": LabelReply((-0.1, -2.5), 7, 1),
    "b": RankReply(-3.25, 4, "París", 9),
    "c": TextReply('two\nlines \u2028 "x"', 5),
    "d": FluencyReply(
        {
            "trigger": SlotFluency((7, 9), (-0.1, -1 / 3), ((7, 2), (4, 9)), ((-0.1, -2.5), (-0.2, -1 / 3))),
            "last": SlotFluency((1,), (0.0,)),
        },
        12,
        3,
    ),
}


@pytest.mark.parametrize("on_disk", [True, False])
def test_replies_come_back_equal(tmp_path: Path, on_disk: bool) -> None:
    cache = Cache(tmp_path / "answers.db" if on_disk else None)
    cache.put(REPLIES, account="search", seconds=1.5)
    cache.put({"e": Failure("no")}, account="search", seconds=0.5)
    cache.put({}, account="test", seconds=4)
    assert cache.get([*"abcdef"]) == REPLIES
    assert cache.get(["a", "e"], failures=True) == {"a": REPLIES["a"], "e": Failure("no")}
    assert len(cache) == 4
    assert (cache.seconds("search"), cache.seconds("test"), cache.seconds("none")) == (2.0, 4.0, 0.0)
    cache.close()
    if on_disk:
        again = Cache(tmp_path / "answers.db")
        assert again.get(["a", "b", "c", "d"]) == REPLIES
        again.close()


def test_many_keys_are_looked_up_in_parts() -> None:
    cache = Cache()
    replies: dict[str, Reply] = {f"k{i}": TextReply(str(i), i) for i in range(2500)}
    cache.put(replies, account="search")
    assert cache.get([*replies, "unknown"]) == replies
    cache.close()


def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    path.write_bytes(b"this is not a database, but it is long enough to be read as one" * 100)
    cache = Cache(path)
    cache.put(REPLIES, account="search")
    assert cache.get(["a"]) == {"a": REPLIES["a"]}
    cache.close()
    assert (tmp_path / "answers.broken").read_bytes().startswith(b"this is not")


def test_a_broken_page_costs_the_answers_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    cache = Cache(path)
    cache.put({f"k{i}": TextReply("x" * 200, 1) for i in range(2000)}, account="search")
    cache.close()
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    path.write_bytes(content)
    broken = Cache(path)
    assert broken.get(["k1", "k2"]) == {}
    broken.put(REPLIES, account="search", seconds=2)
    assert broken.get(["a", "b", "c", "d"]) == REPLIES
    assert broken.seconds("search") == 2.0
    broken.close()


def test_an_answer_that_cannot_be_read_counts_as_not_there(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    cache = Cache(path)
    cache.put(REPLIES, account="search")
    cache.close()
    database = sqlite3.connect(path)
    for text in (
        "not json",
        '["label"]',
        '["other", 1]',
        "[]",
        "3",
        '["fluency", 3, 1]',
        '["fluency", [["a", 1]], 1]',
    ):
        with database:
            database.execute("UPDATE answers SET reply = ? WHERE key = 'a'", (text,))
        cache = Cache(path)
        assert cache.get(["a", "b"]) == {"b": REPLIES["b"]}
        cache.close()
    database.close()


def test_a_file_that_cannot_be_opened_is_not_called_broken(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot open the cache"):
        Cache(tmp_path / "no such folder" / "answers.db")


def test_the_key_holds_all_that_the_answer_depends_on() -> None:
    rendered = Prompt("{{ text }} was {{ answer }}.").render({"text": "it"})
    moved = Rendered(
        (
            Piece("it", True),
            Piece(" was ."),
        ),
        (),
    )
    plain = Rendered((Piece("it was "),), (Piece("."),))
    base = LabelRequest(rendered, ("good", "bad"))
    keys = [
        question_key("m", base),
        question_key("n", base),
        question_key("m", base, repeat=1),
        question_key("m", LabelRequest(rendered, ("bad", "good"))),
        question_key("m", LabelRequest(rendered, ("goodbad",))),
        question_key("m", LabelRequest(moved, ("good", "bad"))),
        question_key("m", LabelRequest(plain, ("good", "bad"))),
        question_key("m", RankRequest(rendered, "good")),
        question_key("m", RankRequest(rendered, "good", ("good", "bad"))),
        question_key("m", TextRequest(rendered, 5)),
        question_key("m", TextRequest(rendered, 6)),
        question_key("m", TextRequest(rendered, 5, ("\n",))),
    ]
    assert len(set(keys)) == len(keys)
    assert question_key("m", LabelRequest(rendered, ("good", "bad"))) == keys[0]


def test_the_key_of_a_fluency_holds_its_slots_and_what_is_asked_of_them() -> None:
    def request(*slots: str, likely: int = 0, after: str = "") -> FluencyRequest:
        before = tuple(Piece(f"part {at}", slot=name) for at, name in enumerate(slots))
        return FluencyRequest(Rendered(before, (Piece(".", slot=after),)), likely)

    asked = [
        request("a", "b"),
        request("b", "a"),
        request("a", ""),
        request("", "a"),
        request("", "", after="a"),
        request("a", "b", after="c"),
        request("a", "b", likely=3),
    ]
    keys = [question_key("m", each) for each in asked]
    assert len(set(keys)) == len(keys)
    assert question_key("m", request("a", "b")) == keys[0]
    rendered, plain = asked[0].rendered, request("", "").rendered
    label = question_key("m", LabelRequest(rendered, ("good", "bad")))
    assert label == question_key("m", LabelRequest(plain, ("good", "bad")))  # a slot's name changes no score
