"""What Hugging Face models do at the edges: long texts, chat, words that do not fit, failures."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from tokenizers import pre_tokenizers

from autoprompt.errors import InputError, LabelWordError, MissingCapability, ModelError, TemplateError
from autoprompt.models import (
    Failure,
    LabelRequest,
    RankReply,
    RankRequest,
    ScoringModel,
    TextReply,
    TextRequest,
)
from autoprompt.models.hf.loading import load_pair
from autoprompt.models.hf.settings import Settings
from autoprompt.models.hf.trie import share
from autoprompt.models.load import load_model
from autoprompt.prompt import Piece, Rendered
from tests.models.tiny import LONG, make_config, make_model, make_tokenizer, one, prompt

TEMPLATE = "{% for message in messages %}User: {{ message['content'] }}\n{% endfor %}Bot:"


def scoring(architecture: str, settings: Settings | None = None) -> Any:
    model, tokenizer = make_model(architecture)
    return load_pair(model, tokenizer, settings or Settings())


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "bert", "roberta", "albert", "bart", "t5"])
def test_long_fields_are_shortened_from_their_end(architecture: str) -> None:
    model = scoring(architecture, Settings(max_length=40))
    tokenizer = make_model(architecture)[1]
    rendered = prompt(LONG)
    reply = one(model, rendered, "good", "bad")
    assert 30 < reply.tokens <= 42  # an encoder-decoder model reads two tokens beside the text
    assert reply.shortened > 20
    # what is left is the beginning of the field: the same scores as when the user had cut it there
    for end in range(len(LONG)):
        short = prompt(LONG[:end])
        if model.logprobs([LabelRequest(short, ("good", "bad"))])[0].log_probs == pytest.approx(
            reply.log_probs, abs=1e-5
        ):
            break
    else:
        pytest.fail("no beginning of the field has these scores")
    assert len(tokenizer(short.text()).input_ids) <= 42
    assert one(model, prompt("it"), "good").shortened == 0


def test_the_longest_field_gives_way_first() -> None:
    model = scoring("gpt2", Settings(max_length=60))
    fields = (Piece("A: "), Piece(LONG, True), Piece(" B: "), Piece("a slow dog", True), Piece(" It was "))
    encoded = model._encoded([LabelRequest(Rendered(fields), ("good",))])[0]
    text = model._tokens.text(encoded.rows[0])
    assert text.startswith("A: the film was")
    assert text.endswith(" B: a slow dog It was")


def test_a_prompt_too_long_without_its_fields_is_an_error() -> None:
    model = scoring("gpt2", Settings(max_length=20))
    with pytest.raises(TemplateError, match="reads at most 20"):
        model.count_tokens([LabelRequest(prompt("x", before=LONG), ("good",))])
    with pytest.raises(InputError, match="tokens with its fields empty"):
        model.complete([TextRequest(prompt("x"), 30)])


@pytest.mark.parametrize(
    ("architecture", "longest"), [("gpt2", 128), ("roberta", 126), ("opt", 128), ("bert", 128)]
)
def test_the_longest_text_runs(architecture: str, longest: int) -> None:
    """RoBERTa numbers positions from its padding id + 1 on, so the last ones do not exist."""
    model = scoring(architecture)
    assert model.max_length == longest
    reply = one(model, prompt(LONG * 4), "good")
    assert longest - 4 <= reply.tokens <= longest


def test_an_empty_text_starts_from_the_beginning_of_text() -> None:
    nothing = Rendered(())
    for architecture in ("gpt2", "llama"):
        model, tokenizer = make_model(architecture)
        ids = tokenizer("good").input_ids
        ids = ids if ids[0] == tokenizer.bos_token_id else [tokenizer.bos_token_id, *ids]
        with torch.no_grad():
            logs = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), dim=-1)
        expected = sum(float(logs[at - 1, ids[at]]) for at in range(1, len(ids)))
        assert one(load_model((model, tokenizer)), nothing, "good").log_probs[0] == pytest.approx(
            expected, abs=1e-4
        )
    model, tokenizer = make_model("gpt2")
    bare = copy.deepcopy(tokenizer)
    bare.bos_token = bare.eos_token = None
    headless = copy.deepcopy(model)
    headless.config.bos_token_id = None
    with pytest.raises(InputError, match="beginning-of-text"):
        load_model((headless, bare)).logprobs([LabelRequest(nothing, ("good",))])  # type: ignore[attr-defined]


def test_the_space_moves_to_the_answer() -> None:
    model = scoring("gpt2")
    tokenizer = make_model("gpt2")[1]
    for ending, answer in ((" It was ", " good"), ("\nAnswer:\n", "good"), (" (", "good"), (' "', "good")):
        (encoded,) = model._encoded([LabelRequest(prompt("x", ending=ending), ("good",))])
        assert list(encoded.reads[0].targets) == tokenizer(answer).input_ids


def test_a_trailing_end_of_text_is_not_read_on_from() -> None:
    model, _ = make_model("gpt2")
    closing = make_tokenizer("bytes+mask")
    model = transformers.AutoModelForCausalLM.from_config(make_config("gpt2", closing)).eval()
    ours = load_model((model, closing))
    (encoded,) = ours._encoded([LabelRequest(prompt("x"), ("good", "good bad"))])  # type: ignore[attr-defined]
    assert closing.eos_token_id not in [token for row in encoded.rows for token in row]
    assert closing.eos_token_id not in [token for read in encoded.reads for token in read.targets]


def test_chat_wraps_the_text_as_one_user_message() -> None:
    model, tokenizer = make_model("gpt2")
    talking = copy.deepcopy(tokenizer)
    talking.chat_template = TEMPLATE
    ours: Any = load_pair(model, talking, Settings(chat=True))
    plain: Any = load_pair(model, talking, Settings())
    rendered = prompt("the film", ending="\nIs it good or bad? ")
    by_hand = Rendered((Piece("User: Review: the film\nIs it good or bad?\nBot:"),))
    assert one(ours, rendered, "good", "bad").log_probs == pytest.approx(
        one(plain, by_hand, "good", "bad").log_probs, abs=1e-5
    )
    assert ours.complete([TextRequest(rendered, 5)]) == plain.complete([TextRequest(by_hand, 5)])
    assert ours.fingerprint != plain.fingerprint
    shorter: Any = load_pair(model, talking, Settings(chat=True, max_length=40))
    reply = one(shorter, prompt(LONG), "good")
    assert reply.shortened > 0
    assert reply.tokens <= 40
    with pytest.raises(InputError, match="no chat template"):
        load_pair(model, tokenizer, Settings(chat=True))
    with pytest.raises(InputError, match="chat is for causal"):
        load_pair(*make_model("bert"), Settings(chat=True))


@pytest.mark.parametrize("architecture", ["bert", "roberta", "albert"])
def test_a_masked_model_names_alternatives(architecture: str) -> None:
    model = scoring(architecture)
    rendered = prompt("the film", after=".")
    with pytest.raises(LabelWordError, match="scores single tokens") as caught:
        model.check_answers(rendered, ["good", "goodly"])
    assert "single tokens near it: good" in str(caught.value)
    (reply,) = model.logprobs([LabelRequest(rendered, ("good", "goodly"))])
    assert isinstance(reply, Failure)
    model.check_answers(rendered, ["good", "bad"])
    with pytest.raises(MissingCapability):
        model.count_tokens([TextRequest(rendered, 3)])


def test_a_mask_spelled_out_in_the_data_is_not_the_answer_place() -> None:
    for architecture in ("bert", "roberta"):
        model = scoring(architecture)
        tokenizer = make_model(architecture)[1]
        (encoded,) = model._encoded([LabelRequest(prompt(f"a {tokenizer.mask_token} film"), ("good",))])
        places = [at for at, token in enumerate(encoded.rows[0]) if token == tokenizer.mask_token_id]
        assert len(places) == 2
        assert encoded.reads[0].start == places[1]


def test_words_are_found_where_text_after_a_mask_begins_a_word() -> None:
    """XLM-R's tokenizer writes "<mask>." as mask + "▁." but "good." as "▁good" + "."."""
    tokenizer = copy.deepcopy(make_tokenizer("pieces+mask"))
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    model, _ = make_model("xlm-roberta")
    ours = load_model((model, tokenizer))
    assert isinstance(ours, ScoringModel)
    rendered = prompt("the film", after=".")
    ids = tokenizer(rendered.text("<mask>")).input_ids
    with torch.no_grad():
        logs = torch.log_softmax(
            model(torch.tensor([ids])).logits[0, ids.index(tokenizer.mask_token_id)], dim=-1
        )
    words = [tokenizer.convert_tokens_to_ids(f"▁{word}") for word in ("good", "bad")]
    assert tokenizer.unk_token_id not in words
    assert one(ours, rendered, "good", "bad").log_probs == pytest.approx(
        [float(logs[word]) for word in words], abs=1e-4
    )


def test_unspellable_words_are_failures() -> None:
    for architecture in ("llama", "t5", "albert"):
        (reply,) = scoring(architecture).logprobs([LabelRequest(prompt("the film"), ("good", "雨"))])
        assert isinstance(reply, Failure)
        assert "雨" in reply.message
    (reply,) = scoring("gpt2").logprobs([LabelRequest(prompt("the film"), ("good", " "))])
    assert isinstance(reply, Failure)


def test_ranks_want_single_tokens() -> None:
    for architecture in ("gpt2", "t5", "bert"):
        (reply,) = scoring(architecture).ranks([RankRequest(prompt("the film"), "goodly")])
        assert isinstance(reply, Failure)
        assert "goodly" in reply.message
        with pytest.raises(LabelWordError, match="goodly"):
            scoring(architecture).check_answers(prompt("the film"), ["good", "goodly"], single_token=True)
    scoring("gpt2").check_answers(prompt("the film"), ["goodly"])
    (reply,) = scoring("gpt2").ranks([RankRequest(prompt("the film"), "good", among=("goodly badly",))])
    assert isinstance(reply, Failure)


def test_equal_logits_share_the_best_rank() -> None:
    model, tokenizer = make_model("gpt2")
    even = copy.deepcopy(model)
    with torch.no_grad():
        even.lm_head.weight.zero_()
    (reply,) = load_model((even, tokenizer)).ranks([RankRequest(prompt("x"), "good")])  # type: ignore[attr-defined]
    assert isinstance(reply, RankReply)
    assert reply.rank == 1


@pytest.mark.parametrize("architecture", ["gpt2", "bert", "t5"])
def test_no_number_is_a_failure(architecture: str) -> None:
    model, tokenizer = make_model(architecture)
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.get_output_embeddings().weight[5, 0] = float("nan")
    ours: Any = load_model((broken, tokenizer))
    (label,) = ours.logprobs([LabelRequest(prompt("x"), ("good", "bad"))])
    (rank,) = ours.ranks([RankRequest(prompt("x"), "good")])
    assert isinstance(label, Failure)
    assert isinstance(rank, Failure)
    assert "finite" in label.message


@pytest.mark.parametrize("architecture", ["gpt2", "bert", "bart"])
def test_batches_hold_their_bound_and_every_request(architecture: str) -> None:
    model = scoring(architecture, Settings(batch_tokens=120))
    asked = [LabelRequest(prompt(LONG[end : 2 * end]), ("good", "bad")) for end in range(0, 200, 7)]
    batches = model.batches(asked)
    assert sorted(index for batch in batches for index in batch) == list(range(len(asked)))
    assert batches == model.batches(asked)
    counts = model.count_tokens(asked)
    if architecture == "gpt2":  # what texts begin with in common counts once
        rows = [[model._encoded([asked[at]])[0].rows[0] for at in batch] for batch in batches]
        assert len(batches) == 1
        assert share(rows[0]).tokens < sum(counts)
    else:
        assert all(
            len(batch) == 1 or len(batch) * max(counts[at] for at in batch) <= 120 for batch in batches
        )
    assert any(len(batch) > 1 for batch in batches)
    replies = model.logprobs(asked)
    assert [reply.tokens for reply in replies] == counts
    for batch in batches:
        for at, reply in zip(batch, model.logprobs([asked[at] for at in batch]), strict=True):
            assert reply.log_probs == pytest.approx(replies[at].log_probs, abs=1e-5)


@pytest.mark.parametrize("tree", [True, False], ids=["tree", "rows"])
def test_out_of_memory_halves_the_batch_for_good(monkeypatch: pytest.MonkeyPatch, tree: bool) -> None:
    model = scoring("gpt2", Settings(tree=tree))
    asked = [LabelRequest(prompt(LONG[end:] + LONG[:end]), ("good", "bad")) for end in range(0, 200, 7)]
    expected = model.logprobs(asked)
    place, name = (model._reader.tree, "_forward") if tree else (model, "_forward")
    forward = getattr(place, name)
    widths = []

    def small_memory(*given: Any) -> torch.Tensor:
        size = given[0].ids.numel() if tree else len(given[1]) * max(map(len, given[1]))
        widths.append(size)
        if size > 300:
            raise torch.OutOfMemoryError("full")
        return forward(*given)  # type: ignore[no-any-return]

    monkeypatch.setattr(place, name, small_memory)
    for reply, other in zip(model.logprobs(asked), expected, strict=True):
        assert reply.log_probs == pytest.approx(other.log_probs, abs=1e-5)
    assert max(widths) > 300
    widths.clear()
    model.logprobs(asked)
    assert max(widths) <= 300
    monkeypatch.setattr(place, name, lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
    with pytest.raises(ModelError, match="out of memory"):
        model.logprobs(asked)


def test_a_model_whose_head_cannot_be_gated_scores_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = one(scoring("gpt2"), prompt("the film"), "good", "bad")
    model, tokenizer = make_model("gpt2")
    stubborn = copy.deepcopy(model)
    monkeypatch.setattr(stubborn, "get_output_embeddings", lambda: stubborn.transformer.wte)
    ours: Any = load_model((stubborn, tokenizer))
    assert one(ours, prompt("the film"), "good", "bad").log_probs == pytest.approx(
        expected.log_probs, abs=1e-5
    )
    assert not ours._reader.head.gated


def test_the_users_objects_are_left_as_they_were() -> None:
    model, tokenizer = make_model("gpt2")
    own = copy.deepcopy(model).train()
    own.transformer.drop.p = 0.9
    own.transformer.h[0].eval()
    before = [module.training for module in own.modules()]
    side, verbosity = tokenizer.padding_side, transformers.logging.get_verbosity()
    ours: Any = load_model((own, tokenizer))
    assert one(ours, prompt("x"), "good").log_probs == one(ours, prompt("x"), "good").log_probs
    ours.complete([TextRequest(prompt("x"), 3)])
    assert [module.training for module in own.modules()] == before
    assert (tokenizer.padding_side, transformers.logging.get_verbosity()) == (side, verbosity)
    assert not own.lm_head._forward_pre_hooks


def test_stop_strings_and_token_limits() -> None:
    model = scoring("gpt2")
    asked = TextRequest(prompt("the film"), 12)
    (whole,) = model.complete([asked])
    assert isinstance(whole, TextReply)
    assert len(whole.text) > 3
    stop = whole.text[2:4]
    (cut, again) = model.complete([TextRequest(asked.rendered, 12, (stop,)), asked])
    assert isinstance(cut, TextReply)
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert again == whole
    (nothing,) = model.complete([TextRequest(asked.rendered, 0)])
    assert isinstance(nothing, TextReply)
    assert nothing.text == ""
    assert model.complete([]) == model.logprobs([]) == model.batches([]) == []
