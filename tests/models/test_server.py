"""A server's model: asked, read and mistrusted, over a loopback server that is real but for its size."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from autoprompt.errors import MissingCapability, ServerError
from autoprompt.models import (
    CompletingModel,
    Failure,
    LabelReply,
    LabelRequest,
    RankReply,
    RankRequest,
    ScoringModel,
    TextReply,
    TextRequest,
)
from autoprompt.models.load import load_model
from autoprompt.models.server.model import FirstTokens, ServerModel, WholeAnswers
from autoprompt.prompt import Piece, Rendered
from autoprompt.testing import check_model
from tests.models.loopback import Loopback, Offers, Trouble
from tests.models.minds import Exact, Talker, Toyish, exact

FAST = "backoff=0.001&timeout=20"


@pytest.fixture(scope="module")
def mind() -> Exact:
    return exact("bundled:causal")


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def toyish() -> Iterator[Loopback]:
    with Loopback(Toyish()) as server:
        yield server


def serve(server: Loopback, options: str = "", name: str = "small") -> ServerModel:
    model = load_model(f"openai:{name}@{server.url}?{FAST}&{options}".rstrip("&"))
    assert isinstance(model, ServerModel)
    return model


def label(text: str, *answers: str) -> LabelRequest:
    return LabelRequest(Rendered((Piece(text),)), answers or ("great", "terrible"))


def scoring(model: ServerModel) -> ScoringModel:
    assert isinstance(model, ScoringModel)
    return model


# What a server can do is found out, and used.


@pytest.mark.parametrize(
    ("offers", "kind", "way"),
    [
        (Offers(), WholeAnswers, "echo, 0 new tokens"),
        (Offers(no_new_tokens=False), WholeAnswers, "echo, 1 new token"),
        (Offers(several=False), WholeAnswers, "echo, 0 new tokens"),
        (Offers(echo=False, prompt_logprobs=True), WholeAnswers, "prompt_logprobs"),
        (Offers(echo=False), FirstTokens, ""),
        (Offers(silently=True), FirstTokens, ""),
        (Offers(echo=False, top=5), FirstTokens, ""),
        (Offers(echo=False, top=0), ServerModel, ""),
        (Offers(completions=False, top=0), ServerModel, ""),
    ],
)
def test_the_best_way_to_read_labels_is_found(offers: Offers, kind: type[ServerModel], way: str) -> None:
    with Loopback(Toyish(), offers) as server:
        model = serve(server)
        assert type(model) is kind
        assert model._dialect.whole == way
        assert model.kind == ("text" if kind is ServerModel else "causal")
        assert isinstance(model, ScoringModel) == (kind is not ServerModel)
        assert isinstance(model, CompletingModel)
        assert model._dialect.several == (offers.several and bool(way))
        (said,) = model.complete([TextRequest(Rendered((Piece("A fine, great film. It was "),)), 3)])
        assert isinstance(said, TextReply)
        assert said.text


def test_fields_that_a_server_does_not_know_are_left_out() -> None:
    offers = Offers(strict=("seed", "max_tokens"), completions=False)
    with Loopback(Talker(lambda text: "good"), offers) as server:
        model = serve(server, "labels=text")
        assert model.complete([TextRequest(Rendered((Piece("So?"),)), 7)]) == [TextReply("good", 1)]
        sent = server.bodies[-1]
        assert sent["max_completion_tokens"] == 7
        assert sent["temperature"] == 0
        assert sent["messages"] == [{"role": "user", "content": "So?"}]
        assert any("/chat/completions" in remark for remark in model.remarks)


def test_labels_can_be_read_as_the_user_wants(toyish: Loopback) -> None:
    assert type(serve(toyish, "labels=first")) is FirstTokens
    assert type(serve(toyish, "labels=text")) is ServerModel
    toyish.offers = Offers(echo=False, top=0)
    for wanted in ("whole", "first"):
        with pytest.raises(MissingCapability, match=f"labels={wanted}"):
            serve(toyish, f"labels={wanted}")


def test_a_server_that_lists_no_models_is_asked_all_the_same() -> None:
    with Loopback(Toyish(), Offers(models=None)) as server:
        model = serve(server, name="whatever")
        assert model.remarks == (model.reading,)


# Log-probabilities are those of the model behind it.

TEXTS = (
    "It was a fine film. It was ",
    "Boring.\nVerdict: ",
    "«Très déçu», he said, and it was ",
    "It is (",
    "Über allem war es",
)


@pytest.mark.parametrize(
    "offers", [Offers(), Offers(no_new_tokens=False), Offers(echo=False, prompt_logprobs=True, several=False)]
)
def test_whole_answers_are_scored_as_by_the_model_itself(mind: Exact, offers: Offers) -> None:
    requests = [
        label(text, "great", "terrible", "not worth the money", "great fun", "déçu") for text in TEXTS
    ]
    direct = scoring(load_model("bundled:causal")).logprobs(requests)  # type: ignore[arg-type]
    with Loopback(mind, offers) as server:
        replies = scoring(serve(server)).logprobs(requests)
    for reply, expected in zip(replies, direct, strict=True):
        assert isinstance(reply, LabelReply), reply
        assert isinstance(expected, LabelReply)
        assert reply.log_probs == pytest.approx(expected.log_probs, abs=1e-4)


def test_first_tokens_are_those_of_the_model_itself(mind: Exact) -> None:
    requests = [label("A great, lovely film. It was "), label("A bad, dull, terrible film. It was ")]
    direct = scoring(load_model("bundled:causal")).logprobs(requests)  # type: ignore[arg-type]
    with Loopback(mind, Offers(echo=False)) as server:
        replies = scoring(serve(server)).logprobs(requests)
    for reply, expected in zip(replies, direct, strict=True):
        assert isinstance(reply, LabelReply), reply
        assert isinstance(expected, LabelReply)
        assert reply.log_probs == pytest.approx(expected.log_probs, abs=1e-4)


def test_continuations_are_those_of_the_model_itself(mind: Exact) -> None:
    requests = [
        TextRequest(Rendered((Piece("A lovely film. It was "),)), 6, (".",)),
        TextRequest(Rendered((Piece("The soup was cold. It was"),)), 6),
        TextRequest(Rendered((Piece("So"),)), 0),
    ]
    direct = load_model("bundled:causal")
    assert isinstance(direct, CompletingModel)
    with Loopback(mind) as server:
        replies = serve(server).complete(requests)
    texts = [
        [each.text for each in some if isinstance(each, TextReply)]
        for some in (replies, direct.complete(requests))
    ]
    assert texts[0] == texts[1]
    assert texts[0][0]
    assert texts[0][2] == ""


@pytest.mark.parametrize("offers", [Offers(), Offers(echo=False), Offers(echo=False, top=0)])
def test_the_contract_of_models_is_kept(offers: Offers) -> None:
    with Loopback(Toyish(), offers) as server:
        check_model(serve(server, "deterministic"), answers=("good", "bad"))


def test_chat_can_score_whole_answers_where_the_server_goes_on_with_a_message(mind: Exact) -> None:
    with Loopback(mind, Offers(prompt_logprobs=True)) as server:
        model = serve(server, "chat")
        assert model._dialect.whole == "chat prompt_logprobs"
        (reply,) = scoring(model).logprobs([label("A lovely film. ", "great", "dull")])
        direct = scoring(load_model("bundled:causal")).logprobs([label("A lovely film.\n", "great", "dull")])  # type: ignore[arg-type]
        assert isinstance(reply, LabelReply)
        assert isinstance(direct[0], LabelReply)
        assert reply.log_probs == pytest.approx(direct[0].log_probs, abs=1e-4)


def test_ranks_among_words(toyish: Loopback) -> None:
    model = scoring(serve(toyish))
    text = Rendered((Piece("A great and lovely film. It was "),))
    first, none = model.ranks([RankRequest(text, "bad", ("good", "bad", "great")), RankRequest(text, "bad")])
    assert isinstance(first, RankReply)
    (scores,) = model.logprobs([label("A great and lovely film. It was ", "good", "bad", "great")])
    assert isinstance(scores, LabelReply)
    assert first.rank == 1 + sum(each > scores.log_probs[1] for each in scores.log_probs)
    assert first.top == ("good", "bad", "great")[scores.log_probs.index(max(scores.log_probs))]
    assert isinstance(none, Failure)


def test_tokens_are_the_servers_count_and_money_follows(toyish: Loopback) -> None:
    model = serve(toyish, "price_in=2&price_out=10")
    (reply,) = scoring(model).logprobs([label("It was so ")])
    assert isinstance(reply, LabelReply)
    assert reply.tokens == 2 * 4  # two texts of four words
    (said,) = model.complete([TextRequest(Rendered((Piece("It was"),)), 5)])
    assert isinstance(said, TextReply)
    assert said.tokens == 2
    assert (model.read, model.written) == (10, 5)
    assert f"{(10 * 2 + 5 * 10) / 1e6:.4f} at the prices given" in model.spent
    assert model.count_tokens([label("It was so "), label("")]) == [9, 5]  # estimates


# What may pass is tried again, a bounded number of times.


@pytest.mark.parametrize(
    "trouble",
    [
        Trouble(limited=lambda number: number % 3 == 0, retry_after="0"),
        Trouble(limited=lambda number: number % 3 == 0, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"),
        Trouble(limited=lambda number: number % 3 == 0, retry_after="soon"),
        Trouble(broken=lambda number: number % 2 == 0),
        Trouble(broken=lambda number: number % 2 == 0, status=500),
        Trouble(cut=lambda number: number % 3 == 1),
        Trouble(garbage=lambda number: b"<html><h1>Bad gateway</h1>" if number % 3 == 1 else None),
        Trouble(garbage=lambda number: b'{"choices": [' if number % 3 == 1 else None),
    ],
)
def test_what_passes_is_tried_again(trouble: Trouble) -> None:
    requests = [label(f"Film {number} was a lovely one. It was ") for number in range(20)]
    with Loopback(Toyish()) as server:
        calm = scoring(serve(server)).logprobs(requests)
    with Loopback(Toyish(), trouble=trouble) as server:
        model = serve(server)
        assert type(model) is WholeAnswers
        assert scoring(model).logprobs(requests) == calm
        assert not any(isinstance(each, Failure) for each in calm)


def test_tries_are_bounded_and_counted(toyish: Loopback) -> None:
    model = serve(toyish, "retries=3")
    before = toyish.posts
    toyish.trouble = Trouble(broken=lambda number: True)
    (reply,) = scoring(model).logprobs([label("It was ")])
    assert isinstance(reply, Failure)
    assert "503" in reply.message
    assert "not now" in reply.message
    assert toyish.posts - before == 4
    assert "3 of them repetitions" in model.spent


def test_what_cannot_pass_is_not_tried_again(toyish: Loopback) -> None:
    model = serve(toyish)
    before = toyish.posts
    toyish.trouble = Trouble(broken=lambda number: True, status=400)
    replies = scoring(model).logprobs([label(f"It was {number} ") for number in range(40)])
    assert all(isinstance(reply, Failure) and "400" in reply.message for reply in replies)
    assert toyish.posts - before == 40


def test_a_server_that_only_fails_is_given_up(toyish: Loopback) -> None:
    model = serve(toyish, "retries=1&concurrency=2")
    toyish.trouble = Trouble(broken=lambda number: True)
    with pytest.raises(ServerError, match="failed 8 requests in a row"):
        scoring(model).logprobs([label(f"It was {number} ") for number in range(40)])
    toyish.trouble = Trouble()
    (reply,) = scoring(model).logprobs([label("It was ")])  # the same object works again
    assert isinstance(reply, LabelReply)


def test_a_key_that_is_withdrawn_ends_it(toyish: Loopback) -> None:
    model = serve(toyish)
    toyish.offers = Offers(key="another")
    with pytest.raises(ServerError, match="refuses to go on: HTTP 401"):
        scoring(model).logprobs([label("It was ")])


def test_a_server_that_dies_is_an_error_that_says_how_to_go_on(toyish: Loopback) -> None:
    model = serve(toyish, "retries=1")
    toyish.trouble = Trouble(dies_at=toyish.posts + 5)
    with pytest.raises(ServerError, match="does not answer any more") as caught:
        scoring(model).logprobs([label(f"It was {number} ") for number in range(30)])
    assert "autoprompt resume" in caught.value.hint
    with pytest.raises(ServerError):
        scoring(model).logprobs([label("It was ")])


def test_the_end_of_one_request_ends_what_waits_and_what_is_under_way(toyish: Loopback) -> None:
    """Others are in a pause of an hour, or waiting for an answer that does not come: the error comes at once."""
    model = load_model(f"openai:small@{toyish.url}?backoff=100000&timeout=3000&concurrency=3")
    assert isinstance(model, WholeAnswers)
    held = threading.Event()
    first = toyish.posts + 1

    def garbage(number: int) -> bytes | None:
        if number == first:
            return b"nonsense"  # tried again after a pause
        if number == first + 1:
            held.wait(200)
            return b"too late"
        toyish.offers = Offers(key="another")
        return None

    toyish.trouble = Trouble(garbage=garbage)
    with pytest.raises(ServerError, match="401"):
        model.logprobs([label(f"It was {number} ") for number in range(3)])
    held.set()


def test_requests_run_side_by_side_over_kept_connections(toyish: Loopback) -> None:
    model = serve(toyish, "concurrency=4")
    toyish.trouble = Trouble(slow=0.01)
    scoring(model).logprobs([label(f"It was {number} ") for number in range(40)])
    assert 2 <= toyish.widest <= 4
    assert toyish.connections <= 5
    batches = model.batches([label(f"It was {number} ") for number in range(10)])
    assert [len(batch) for batch in batches] == [1] * 10
