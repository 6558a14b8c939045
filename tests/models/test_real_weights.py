"""Trained models of ../shared/models; skipped where they are absent."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from autoprompt.errors import InputError, LabelWordError
from autoprompt.models import (
    CompletingModel,
    LabelRequest,
    TextReply,
    TextRequest,
)
from autoprompt.models.load import load_model
from autoprompt.prompt import Piece, Rendered
from tests.models.tiny import LONG, one, prompt, shared_model


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
