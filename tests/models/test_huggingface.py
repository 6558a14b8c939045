"""What Hugging Face models do at the edges: long texts, chat, words that do not fit, identity, failures."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import pre_tokenizers

from autoprompt.errors import InputError, LabelWordError, MissingCapability, ModelError, TemplateError
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
from autoprompt.models.hf.loading import load_pair
from autoprompt.models.hf.settings import Settings
from autoprompt.models.load import load_model
from autoprompt.prompt import Piece, Rendered
from tests.models.tiny import make_config, make_model, make_tokenizer, shared_model

LONG = "the film was great and the people loved it, " * 8
TEMPLATE = "{% for message in messages %}User: {{ message['content'] }}\n{% endfor %}Bot:"


def prompt(field: str, before: str = "Review: ", ending: str = " It was ", after: str = "") -> Rendered:
    pieces = (Piece(before), Piece(field, is_field=True), Piece(ending))
    return Rendered(tuple(piece for piece in pieces if piece.text), (Piece(after),) if after else ())


def scoring(architecture: str, settings: Settings | None = None) -> Any:
    model, tokenizer = make_model(architecture)
    return load_pair(model, tokenizer, settings or Settings())


def one(model: Any, rendered: Rendered, *answers: str) -> LabelReply:
    (reply,) = model.logprobs([LabelRequest(rendered, answers)])
    assert isinstance(reply, LabelReply), reply
    return reply


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
    asked = [LabelRequest(prompt(LONG[:end]), ("good", "bad")) for end in range(0, 200, 7)]
    batches = model.batches(asked)
    assert sorted(index for batch in batches for index in batch) == list(range(len(asked)))
    assert batches == model.batches(asked)
    counts = model.count_tokens(asked)
    assert all(len(batch) == 1 or len(batch) * max(counts[at] for at in batch) <= 120 for batch in batches)
    assert any(len(batch) > 1 for batch in batches)
    replies = model.logprobs(asked)
    assert [reply.tokens for reply in replies] == counts
    for batch in batches:
        for at, reply in zip(batch, model.logprobs([asked[at] for at in batch]), strict=True):
            assert reply.log_probs == pytest.approx(replies[at].log_probs, abs=1e-5)


def test_out_of_memory_halves_the_batch_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    model = scoring("gpt2")
    asked = [LabelRequest(prompt(LONG[:end]), ("good", "bad")) for end in range(0, 200, 7)]
    expected = model.logprobs(asked)
    forward = model._forward
    widths = []

    def small_memory(sources: Any, rows: Any, places: Any) -> torch.Tensor:
        size = len(rows) * max(map(len, rows))
        widths.append(size)
        if size > 300:
            raise torch.OutOfMemoryError("full")
        return forward(sources, rows, places)  # type: ignore[no-any-return]

    monkeypatch.setattr(model, "_forward", small_memory)
    for reply, other in zip(model.logprobs(asked), expected, strict=True):
        assert reply.log_probs == pytest.approx(other.log_probs, abs=1e-5)
    widths.clear()
    model.logprobs(asked)
    assert max(widths) <= 300
    monkeypatch.setattr(model, "_forward", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
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
    assert not ours._head.gated


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


class TestIdentity:
    def test_equal_content_has_one_fingerprint(self) -> None:
        model, tokenizer = make_model("gpt2")
        first = load_model((model, tokenizer))
        tokenizer(["a", "b b"], padding=False, truncation=True, max_length=4)  # leaves state in the tokenizer
        second = load_model((copy.deepcopy(model), copy.deepcopy(tokenizer)))
        assert first.fingerprint == second.fingerprint

    def test_what_changes_scores_changes_the_fingerprint(self) -> None:
        model, tokenizer = make_model("gpt2")
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.transformer.wte.weight[3, 3] += 1e-3
        words = copy.deepcopy(tokenizer)
        words.add_tokens(["greatest"])
        activation = copy.deepcopy(model)
        activation.config.activation_function = "relu"
        variants = [
            load_model((model, tokenizer)),
            load_model((other, tokenizer)),
            load_model((model, words)),
            load_model((activation, tokenizer)),
            load_pair(model, tokenizer, Settings(max_length=50)),
            load_pair(copy.deepcopy(model).to(torch.bfloat16), tokenizer, Settings()),
        ]
        assert len({variant.fingerprint for variant in variants}) == len(variants)

    def test_a_folder_is_its_content_not_its_path(self, tmp_path: Path) -> None:
        model, tokenizer = make_model("gpt2")
        model.save_pretrained(tmp_path / "one")
        tokenizer.save_pretrained(tmp_path / "one")
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        one_, two = load_model(str(tmp_path / "one")), load_model(tmp_path / "two")
        assert one_.fingerprint == two.fingerprint
        assert one_.fingerprint != load_model(f"{tmp_path / 'one'}?dtype=bfloat16").fingerprint
        with torch.no_grad():
            changed = copy.deepcopy(model)
            changed.transformer.wte.weight[3, 3] += 1e-3
        changed.save_pretrained(tmp_path / "two")
        assert load_model(tmp_path / "two").fingerprint != one_.fingerprint
        expected = one(load_model((model, tokenizer)), prompt("the film"), "good")
        assert one(one_, prompt("the film"), "good").log_probs == pytest.approx(expected.log_probs, abs=1e-5)


class TestLoading:
    def save(self, folder: Path, model: Any, tokenizer: Any) -> str:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    def test_the_class_follows_the_architecture(self, tmp_path: Path) -> None:
        for architecture, kind in (
            ("bert", "masked"),
            ("opt", "causal"),
            ("bart", "seq2seq"),
            ("t5", "seq2seq"),
        ):
            folder = self.save(tmp_path / architecture, *make_model(architecture))
            model = load_model(folder)
            assert model.kind == kind
            assert isinstance(model, CompletingModel) == (kind != "masked")

    def test_a_checkpoint_without_a_head_is_refused(self, tmp_path: Path) -> None:
        model, tokenizer = make_model("bert")
        headless = self.save(tmp_path / "a", model.bert, tokenizer)
        with pytest.raises(ModelError, match="BertModel has no language-model head"):
            load_model(headless)
        folder = tmp_path / "b"
        self.save(folder, model.bert, tokenizer)
        config = (folder / "config.json").read_text().replace("BertModel", "BertForMaskedLM")
        (folder / "config.json").write_text(config)
        with pytest.raises(ModelError, match="weights are missing"):
            load_model(str(folder))

    def test_what_cannot_be_read_is_one_line(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        folder = self.save(tmp_path / "a", *make_model("gpt2"))
        (tmp_path / "a" / "model.safetensors").write_bytes(b"nothing of the kind")
        with pytest.raises(ModelError, match="cannot load its weights"):
            load_model(folder)
        with pytest.raises(ModelError, match="cannot load its configuration") as caught:
            load_model("nobody/no-such-model")
        assert "HF_HUB_OFFLINE" in str(caught.value)
        assert caught.value.__cause__ is None
        assert "".join(capfd.readouterr()) == ""

    def test_pickled_weights_need_the_users_word(self, tmp_path: Path) -> None:
        model, tokenizer = make_model("gpt2")
        self.save(tmp_path, model, tokenizer)
        (tmp_path / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
        with pytest.raises(InputError, match="allow_bin"):
            load_model(tmp_path)
        loaded = load_model(f"{tmp_path}?allow_bin")
        expected = one(load_model((model, tokenizer)), prompt("x"), "good")
        assert one(loaded, prompt("x"), "good").log_probs == pytest.approx(expected.log_probs, abs=1e-5)

    def test_pairs_are_checked(self) -> None:
        model, tokenizer = make_model("gpt2")
        with pytest.raises(InputError, match=r"got \(tokenizer, model\)"):
            load_model((tokenizer, model))
        with pytest.raises(InputError, match="needs its tokenizer"):
            load_model(model)
        with pytest.raises(ModelError, match="no language-model head"):
            load_model((make_model("bert")[0].bert, make_model("bert")[1]))


class TestRealWeights:
    def test_stories_know_how_stories_go_on(self) -> None:
        model = load_model(f"{shared_model('stories3m')}")
        sad = prompt("She lost her doll and cried.", "Lily was a little girl. ", " She was very ")
        happy = prompt("She got a new doll and smiled.", "Lily was a little girl. ", " She was very ")
        for rendered, right in ((sad, 1), (happy, 0)):
            values = one(model, rendered, "happy", "sad").log_probs
            assert values[right] > values[1 - right]
        assert isinstance(model, CompletingModel)
        (reply,) = model.complete([TextRequest(prompt("", "", "Once upon a time, there was a little"), 8)])
        assert isinstance(reply, TextReply)
        assert reply.text.startswith(" girl")

    def test_chat(self) -> None:
        folder = shared_model("tinystories-instruct-3m-chat")
        model = load_model(str(folder))
        assert model.max_length == 256
        has_template = bool(transformers.AutoTokenizer.from_pretrained(folder).chat_template)
        if has_template:
            assert load_model(f"{folder}?chat").fingerprint != model.fingerprint
        else:
            with pytest.raises(InputError, match="no chat template"):
                load_model(f"{folder}?chat")

    def test_tokens_that_end_in_a_space_are_scored_whole(self) -> None:
        """Its tokenizer has tokens such as "was ": the answer's tokens begin before the answer does."""
        folder = shared_model("tinystories-656k")
        ours: Any = load_model(str(folder))
        model, tokenizer = ours._model, ours._parts.tokenizer
        text = "Lily lost her doll and she was very"
        context = tokenizer(text).input_ids
        wholes = [tokenizer(f"{text} {word}").input_ids for word in ("sad", "happy", "big")]
        start = len(context)
        while any(whole[:start] != context[:start] for whole in wholes):
            start -= 1
        assert start < len(context)
        expected = []
        for whole in wholes:
            with torch.no_grad():
                logs = torch.log_softmax(model(torch.tensor([whole])).logits[0].double(), dim=-1)
            expected.append(sum(float(logs[at - 1, whole[at]]) for at in range(start, len(whole))))
        rendered = Rendered((Piece(f"{text} "),))
        assert one(ours, rendered, "sad", "happy", "big").log_probs == pytest.approx(expected, abs=1e-4)

    def test_masked_english(self) -> None:
        """Its tokenizer.json asks for truncation to 48 tokens, which must not happen here."""
        model: Any = load_model(str(shared_model("minilm-mlm")))
        (encoded,) = model._encoded([LabelRequest(prompt(LONG * 2, after="."), ("good", "bad"))])
        assert encoded.tokens > 150
        good = one(
            model, prompt("I loved this film, it is a masterpiece.", "", after="."), "great", "terrible"
        )
        poor = one(
            model, prompt("I hated this film, it is a waste of time.", "", after="."), "great", "terrible"
        )
        assert good.log_probs[0] - good.log_probs[1] > poor.log_probs[0] - poor.log_probs[1]
        with pytest.raises(LabelWordError, match="##") as caught:
            model.check_answers(prompt("x", after="."), ["amazingness"])
        assert "amazing" in str(caught.value)

    def test_letters_to_sounds(self) -> None:
        """The decoder starts with <s> twice: once as its start, once as the tokenizer's own first token."""
        model: Any = load_model(str(shared_model("g2p-bart-us")))
        assert model.kind == "seq2seq"
        hf_model, tokenizer = model._model, model._parts.tokenizer
        source = tokenizer("hello").input_ids
        target = tokenizer(text_target="h").input_ids
        given = torch.tensor([[hf_model.config.decoder_start_token_id, target[0]]])
        with torch.no_grad():
            logits = hf_model(torch.tensor([source]), decoder_input_ids=given).logits
        expected = float(torch.log_softmax(logits[0, 1].double(), dim=-1)[target[1]])
        reply = one(model, Rendered((Piece("hello", True),)), "h")
        assert reply.log_probs[0] == pytest.approx(expected, abs=1e-4)
        assert reply.log_probs[0] > -0.1
