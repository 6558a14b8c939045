"""How a server is named, where its key comes from, what loading it can fail at; pauses, and reading tokens."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest

from autoprompt.errors import InputError, ServerError, UnknownName
from autoprompt.inputs import model_kind
from autoprompt.models import Failure, LabelRequest
from autoprompt.models.load import check_model, load_model
from autoprompt.models.server.first import first_token_scores
from autoprompt.models.server.line import Line
from autoprompt.models.server.model import ServerModel, WholeAnswers
from autoprompt.models.server.names import PUBLIC, parse_server
from autoprompt.models.server.pauses import LONGEST_PAUSE, LONGEST_RETRY_AFTER, pause, retry_after
from autoprompt.models.server.spelling import answer_start, common_start, spells
from autoprompt.models.server.wire import Garbled
from autoprompt.prompt import Piece, Rendered
from tests.models.loopback import Loopback, Offers, Trouble
from tests.models.minds import Toyish

SECRET = "sk-very-secret-0123"
LOCAL = "http://localhost:8000/v1"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def toyish() -> Iterator[Loopback]:
    with Loopback(Toyish()) as server:
        yield server


# Names.


@pytest.mark.parametrize(
    ("spec", "name", "url"),
    [
        (f"openai:qwen@{LOCAL}", "qwen", LOCAL),
        (f"openai:Qwen/Qwen2.5-7B@{LOCAL}/", "Qwen/Qwen2.5-7B", LOCAL),
        (f"openai:llama3:8b@{LOCAL}?chat", "llama3:8b", LOCAL),
        (f"openai:@cf/meta/llama@{LOCAL}", "@cf/meta/llama", LOCAL),
        ("openai:gpt-x", "gpt-x", PUBLIC),
        ("openai:gpt-x@2024", "gpt-x@2024", PUBLIC),
    ],
)
def test_names_and_urls(spec: str, name: str, url: str) -> None:
    parsed = parse_server(spec)
    assert (parsed.name, parsed.url) == (name, url)


def test_the_url_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{LOCAL}/")
    assert parse_server("openai:x").url == LOCAL
    assert parse_server("openai:x").key() == ""
    assert parse_server("openai:x@http://other/v1").url == "http://other/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost")
    with pytest.raises(InputError, match="with OPENAI_BASE_URL"):
        parse_server("openai:x")


def test_options() -> None:
    options = "chat&deterministic=false&labels=first&concurrency=3&retries=0&top=5&timeout=2.5&backoff=0&price_in=.15"
    settings = parse_server(f"openai:x@{LOCAL}?{options}").settings
    assert settings.chat
    assert not settings.deterministic
    assert (settings.labels, settings.concurrency, settings.retries, settings.top) == ("first", 3, 0, 5)
    assert (settings.timeout, settings.backoff, settings.price_in, settings.price_out) == (
        2.5,
        0.0,
        0.15,
        0.0,
    )


@pytest.mark.parametrize(
    ("spec", "error", "match"),
    [
        ("openai:", InputError, "no name of a model"),
        (f"openai:@{LOCAL}", InputError, "no name of a model"),
        (f"openai:{LOCAL}", InputError, "no name of a model"),
        ("openai:x@localhost:8000", InputError, "must begin with http"),
        ("openai:x@gpu.example.org/v1", InputError, "write openai:x@http://gpu.example.org/v1"),
        ("openai:x@http://", InputError, "not a URL of a server"),
        ("openai:x@http://host:port/v1", InputError, "not a URL"),
        ("openai:x@http://gpu..cluster:8000/v1", InputError, "not a URL"),
        (f"openai:x@http://{'a' * 70}.org/v1", InputError, "not a URL"),
        ("openai:x@http://host/v1#a", InputError, "no #"),
        (f"openai:x@{LOCAL}/chat/completions", InputError, f"write {LOCAL}"),
        (f"openai:x@{LOCAL}?cht", UnknownName, "did you mean 'chat'"),
        (f"openai:x@{LOCAL}?chat&chat", InputError, "twice"),
        (f"openai:x@{LOCAL}?chat=perhaps", InputError, "is a flag"),
        (f"openai:x@{LOCAL}?labels=wohle", UnknownName, "did you mean 'whole'"),
        (f"openai:x@{LOCAL}?concurrency=0", InputError, "at least 1"),
        (f"openai:x@{LOCAL}?top=1", InputError, "at least 2"),
        (f"openai:x@{LOCAL}?timeout=0", InputError, "above 0"),
        (f"openai:x@{LOCAL}?timeout=nan", InputError, "a number of at least 0"),
        (f"openai:x@{LOCAL}?price_in=-1", InputError, "a number of at least 0"),
        (f"openai:x@{LOCAL}?identity=", InputError, "needs a value"),
        (f"openai:x@{LOCAL}?key_env=NOT_SET", InputError, "NOT_SET is not set"),
        ("openai:x", InputError, "OPENAI_API_KEY is not set"),
        (LOCAL, InputError, f"write openai:NAME@{LOCAL}"),
        ("OpenAI:x", UnknownName, "write openai:x@http://HOST:PORT/v1"),
        (f"vllm:x@{LOCAL}?chat", UnknownName, f"write openai:x@{LOCAL}"),
        ("openai/x", UnknownName, "write openai:x@http"),
    ],
)
def test_what_is_refused_offline(
    spec: str, error: type[Exception], match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was used"))
    for check in (check_model, load_model):
        with pytest.raises(error, match=match.replace("(", r"\(")) as caught:
            check(spec)
        assert type(caught.value) is error


def test_checking_is_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was used"))
    check_model(f"openai:x@{LOCAL}?chat")
    assert model_kind(f"openai:x@{LOCAL}?chat") is None


# Keys.


@pytest.mark.parametrize(
    "spec",
    [
        f"openai:x@{LOCAL}?key={SECRET}",
        f"openai:x@{LOCAL}?api_key={SECRET}",
        f"openai:x@{LOCAL}?key_env={SECRET}",
        f"openai:x@http://user:{SECRET}@host/v1",
        f"openai:x@http://{SECRET}@host/v1?cht",
    ],
)
def test_a_key_in_a_name_is_refused_and_not_repeated(spec: str) -> None:
    with pytest.raises(InputError) as caught:
        check_model(spec)
    assert SECRET not in str(caught.value)
    assert "environment" in str(caught.value)


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "MY_KEY"])
def test_the_key_goes_to_the_server_and_nowhere_else(
    variable: str, toyish: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    toyish.offers = Offers(key=SECRET)
    option = "" if variable == "OPENAI_API_KEY" else f"?key_env={variable}"
    spec = f"openai:small@{toyish.url}{option}"
    monkeypatch.setenv(variable, f" {SECRET}\n")
    model = load_model(spec)
    assert isinstance(model, WholeAnswers)
    assert set(toyish.keys) == {f"Bearer {SECRET}"}
    assert SECRET not in repr([model.name, model.fingerprint, model.spent, model.reading, model.remarks])
    fingerprint = model.fingerprint
    toyish.offers = Offers()
    monkeypatch.setenv(variable, "another")
    assert load_model(spec).fingerprint == fingerprint


def test_a_wrong_key_is_told_without_the_key(toyish: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    toyish.offers = Offers(key="right")
    with pytest.raises(ServerError, match="without a key") as caught:
        load_model(f"openai:small@{toyish.url}")
    assert "export OPENAI_API_KEY" in caught.value.hint
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with pytest.raises(ServerError, match="refuses the key in OPENAI_API_KEY") as caught:
        load_model(f"openai:small@{toyish.url}")
    assert SECRET not in str(caught.value)  # though the server repeats it
    assert "***" in str(caught.value)
    assert toyish.posts == 0
    monkeypatch.setenv("OPENAI_API_KEY", "with spaces within")
    with pytest.raises(InputError, match="characters that no key has") as refused:
        load_model(f"openai:small@{toyish.url}")
    assert "spaces within" not in str(refused.value)


def test_a_key_that_a_server_repeats_is_in_no_failure(
    toyish: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    model = load_model(f"openai:small@{toyish.url}?retries=0")
    assert isinstance(model, WholeAnswers)
    toyish.trouble = Trouble(garbage=lambda number: f"Bearer {SECRET} is not JSON".encode())
    (reply,) = model.logprobs([LabelRequest(Rendered((Piece("It was "),)), ("good", "bad"))])
    assert isinstance(reply, Failure)
    assert "Bearer *** is not JSON" in reply.message


# Loading.


def test_a_model_that_is_not_there_is_told_with_the_nearest_name(toyish: Loopback) -> None:
    toyish.offers = Offers(models=("small", "large"))
    with pytest.raises(ServerError, match="no model 'smal' .did you mean 'small'.*it has: large, small"):
        load_model(f"openai:smal@{toyish.url}?backoff=0")


def test_a_url_that_misses_its_end_is_told(toyish: Loopback) -> None:
    with pytest.raises(ServerError) as caught:
        load_model(f"openai:small@{toyish.url.removesuffix('/v1')}?backoff=0")
    assert caught.value.hint == f"the API begins at {toyish.url}"


def test_a_server_that_is_not_there_is_told_at_once(toyish: Loopback) -> None:
    toyish.stop()
    with pytest.raises(ServerError, match=f"nothing answers at {toyish.url}.*refused"):
        load_model(f"openai:small@{toyish.url}?backoff=0.001")


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_not_taken_for_a_simple_one(toyish: Loopback, status: int) -> None:
    """A run must not change its way of reading, and with it what it finds, because a server was busy for a moment."""
    toyish.trouble = Trouble(broken=lambda number: number > 1, status=status)
    with pytest.raises(ServerError, match=str(status)):
        load_model(f"openai:small@{toyish.url}?backoff=0&retries=1")
    toyish.trouble = Trouble(broken=lambda number: True, status=status)
    with pytest.raises(ServerError, match=str(status)):
        load_model(f"openai:small@{toyish.url}?backoff=0&retries=1")


def test_a_slow_server_or_one_that_breaks_off_is_not_taken_for_a_simple_one(toyish: Loopback) -> None:
    for trouble in (
        Trouble(cut=lambda number: number > 1),
        Trouble(garbage=lambda number: b"<html>try later</html>" if number > 1 else None),
    ):
        toyish.trouble, toyish.posts = trouble, 0
        with pytest.raises(ServerError, match="is busy") as told:
            load_model(f"openai:small@{toyish.url}?backoff=0&retries=1")
        assert "labels=whole, first or text" in told.value.hint
    toyish.posts = 0
    assert type(load_model(f"openai:small@{toyish.url}?backoff=0&retries=1&labels=text")) is ServerModel


def test_a_server_at_an_ip6_address_is_asked_at_the_usual_port() -> None:
    for url, port in (("http://[::1]/v1", 80), ("https://[::1]/v1", 443), ("http://[::1]:8000/v1", 8000)):
        connection = Line(url, 1.0)._new(1.0)
        assert (connection.host, connection.port) == ("::1", port)


def test_a_server_that_answers_500_to_what_it_does_not_know_is_used_all_the_same(toyish: Loopback) -> None:
    toyish.trouble = Trouble(broken=lambda number: number > 1, status=500)
    assert type(load_model(f"openai:small@{toyish.url}?backoff=0")) is ServerModel


def test_a_proxy_that_the_environment_names_is_used(
    toyish: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    toyish.offers = Offers(behind="http://models.invalid:8000")
    monkeypatch.setenv("http_proxy", toyish.url.removesuffix("/v1"))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert type(load_model("openai:small@http://models.invalid:8000/v1")) is WholeAnswers
    assert toyish.posts


def test_identity() -> None:
    with Loopback(Toyish()) as one, Loopback(Toyish(), Offers(models=("small", "large"))) as other:

        def fingerprint(server: Loopback, options: str = "", name: str = "small") -> str:
            return load_model(f"openai:{name}@{server.url}?{options}").fingerprint

        same = [
            fingerprint(one),
            fingerprint(one, "concurrency=2&timeout=9&retries=1&price_in=3&deterministic"),
        ]
        assert len(set(same)) == 1
        others = [
            fingerprint(one, "labels=first"),
            fingerprint(one, "labels=text"),
            fingerprint(one, "chat&labels=text"),
            fingerprint(other),
            fingerprint(other, name="large"),
            fingerprint(other, "identity=my server"),
        ]
        assert len({*same, *others}) == 1 + len(others)
        assert fingerprint(one, "identity=my server") == fingerprint(other, "identity=my server")


# Pauses.


def test_pauses_double_within_bounds_and_repeat_themselves() -> None:
    waits = [pause(0.5, attempt, b"request") for attempt in range(1, 12)]
    assert waits == [pause(0.5, attempt, b"request") for attempt in range(1, 12)]
    for attempt, seconds in enumerate(waits, start=1):
        full = min(LONGEST_PAUSE, 0.5 * 2 ** (attempt - 1))
        assert full / 2 <= seconds <= full
    assert len({pause(1, 1, bytes([at])) for at in range(50)}) == 50


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("3", 3.0),
        (" 0.5 ", 0.5),
        ("-1", 0.0),
        ("86400", LONGEST_RETRY_AFTER),
        ("nan", None),
        ("later", None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999", None),
        ("Fri, 02 Jan 2026 03:04:15 GMT", 10.0),
        ("Fri, 02 Jan 2026 03:04:15 -0000", 10.0),
        ("Thu, 01 Jan 2026 03:04:15 GMT", 0.0),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)) == seconds


# Which tokens are the answer's.


@pytest.mark.parametrize(
    ("tokens", "before", "answer", "start"),
    [
        (["It", " was", " good"], "It was", " good", 2),
        (["<s>", "▁It", "▁was", "▁go", "od"], "It was", " good", 3),
        (["ĠIt", "Ġwas", "Ġgood"], "It was", " good", 2),
        (["It", "was", "good"], "It was", " good", 2),  # a server that writes tokens without their spaces
        (["It", " was", " ", "good"], "It was", " good", 2),  # the space is the answer's
        (["It", " was", "\n", "good"], "It was\n", "good", 3),  # the line break is the text's
        (["It", " was:", "\n(", "good"], "It was:\n(", "good", 3),
        (["It", " wasg", "ood"], "It was", "good", 1),  # a token that straddles the border
        (["It", " was", " caf", "\ufffd", "\ufffd"], "It was", " café", 2),
        (
            ["C'", "est", "bytes: \\xc3", "bytes:\\xa9", "t", " d", "<0xC3>", "<0xA9>", "j", "à"],
            "C'est ét",
            " déjà",
            5,
        ),
    ],
)
def test_where_an_answer_starts(tokens: list[str], before: str, answer: str, start: int) -> None:
    assert answer_start(tokens, before, answer) == start
    assert spells(tokens, "good") == ("".join(tokens).endswith("good"))


@pytest.mark.parametrize(
    ("tokens", "before", "answer", "match"),
    [
        (["It", " was", " bad"], "It was", " good", "do not spell"),
        (["ood"], "It was", " good", "fewer"),
        (["é", "\ufffd", "\ufffd"], "éé", "é", "do not tell"),
    ],
)
def test_tokens_that_do_not_tell(tokens: list[str], before: str, answer: str, match: str) -> None:
    with pytest.raises(Garbled, match=match):
        answer_start(tokens, before, answer)


def test_answers_are_scored_from_the_first_place_where_any_begins() -> None:
    assert common_start([["a", "b", " c"], ["a", "b", " d", "e"]], [2, 2]) == 2
    assert common_start([["a", "b", " c"], ["a", "bx", "d"]], [2, 1]) == 1
    assert common_start([["a", "b", " c"], ["x", "b", " d"]], [2, 2]) == 0


# Label words by first tokens.

LIKELY = {" good": -0.5, " bad": -2.0, " great": -2.5, "good": -3.0, " t": -3.2, " terr": -4.0, ".": -6.0}


def test_first_tokens() -> None:
    read = first_token_scores
    assert read(LIKELY, ("good", "bad"), " ", chat=False) == (-0.5, -2.0)
    assert read(LIKELY, ("bad", "terrible"), " ", chat=False) == (-2.0, -4.0)  # the longest that begins it
    assert read(LIKELY, ("good", "awful"), " ", chat=False) == (
        -0.5,
        -6.0,
    )  # no likelier than the last one named
    assert read({"▁good": -0.5, "▁bad": -1.0, "good": -1.5}, ("bad", "good"), " ", chat=False) == (-1.0, -0.5)
    assert read({"good": -0.5, "bad": -1.0}, ("bad", "good"), " ", chat=False) == (-1.0, -0.5)
    assert read({"good": -0.5, " good": -1.0, "bad": -2.0}, ("bad", "good"), "", chat=False) == (-2.0, -0.5)
    both = read({"Good": -1.0, " good": -2.0, "BAD": -3.0}, ("good", "Bad"), "", chat=True)
    assert list(both) == pytest.approx([math.log(math.exp(-1) + math.exp(-2)), -3.0])


@pytest.mark.parametrize(
    ("answers", "match"),
    [
        (("awful", "dreadful"), "none of 'awful', 'dreadful' is among the 7"),
        (("terrible", "terrific"), "begin with the same token ' terr'"),
        (("good", "goodness"), "begin with the same token ' good'"),
        (
            ("t", "trash"),
            "begin with the same token ' t'.*labels=text",
        ),  # the likelihood of t is that of trash, too
        (("terrible", "awful"), "'awful' not among the 7 likeliest first tokens, and no bound"),
    ],
)
def test_first_tokens_that_do_not_decide(answers: tuple[str, ...], match: str) -> None:
    with pytest.raises(Garbled, match=match):
        first_token_scores(LIKELY, answers, " ", chat=False)
