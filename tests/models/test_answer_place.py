"""What is shown of the answer place equals a naive forward: one text at a time, all logits, no library code."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from autoprompt.errors import InputError, MissingCapability
from autoprompt.models import LabelReply, LabelRequest, LabelSearchModel
from autoprompt.models.load import load_model
from autoprompt.prompt import Piece, Rendered
from tests.models.tiny import CAUSAL, LONG, MASKED, SEQ2SEQ, make_model, prompt

ALL = {**CAUSAL, **MASKED, **SEQ2SEQ}
FIELDS = ["the film was great", "it", "a slow dog and a small cat in the rain", "was it good?", "it"]
GROUPS = [0, 1, 0, 1, 1]
LETTERS = r"[a-zA-Z]+"


def texts(architecture: str) -> list[Rendered]:
    after = " and the people loved it." if architecture in MASKED else ""
    return [prompt(field, after=after) for field in FIELDS]


def naive_logits(architecture: str, model: Any, tokenizer: Any, rendered: Rendered) -> torch.Tensor:
    """[V] where a word in place of the answer would be read."""
    with torch.no_grad():
        if architecture in MASKED:
            ids = tokenizer(rendered.text(tokenizer.mask_token)).input_ids
            return model(torch.tensor([ids])).logits[0, ids.index(tokenizer.mask_token_id)]  # type: ignore[no-any-return]
        ids = tokenizer(rendered.text().rstrip(" ")).input_ids
        if architecture in CAUSAL:
            return model(torch.tensor([ids])).logits[0, -1]  # type: ignore[no-any-return]
        start = [model.config.decoder_start_token_id]
        if architecture == "bart":  # its tokenizer puts a beginning-of-text token before what is written
            start.append(tokenizer.bos_token_id)
        output = model(torch.tensor([ids]), decoder_input_ids=torch.tensor([start]))
        return output.logits[0, -1]  # type: ignore[no-any-return]


def loaded(model: Any, tokenizer: Any) -> LabelSearchModel:
    ours = load_model((model, tokenizer))
    assert isinstance(ours, LabelSearchModel)
    return ours


@pytest.mark.parametrize("architecture", ALL)
def test_states_times_the_output_layer_are_the_logits(architecture: str) -> None:
    model, tokenizer = make_model(architecture)
    place = loaded(model, tokenizer).answer_place
    rendered = texts(architecture)
    expected = torch.stack([naive_logits(architecture, model, tokenizer, each) for each in rendered])
    states = place.states(rendered)
    assert states.shape[0] == len(FIELDS)
    logits = torch.from_numpy(place.scores(states))
    layer = model.get_output_embeddings()
    if layer.bias is not None:
        logits = logits + layer.bias.detach()
    if architecture == "bart":
        logits = logits + model.final_logits_bias
    if architecture == "gemma2":
        logits = 5.0 * torch.tanh(logits / 5.0)
    assert torch.allclose(logits, expected, atol=1e-3)
    assert np.allclose(states[1], states[4])  # the same text twice
    assert not np.allclose(states[0], states[1], atol=0.1)

    means = torch.log_softmax(expected.double(), dim=-1)
    wanted = torch.stack([means[[0, 2]].mean(dim=0), means[[1, 3, 4]].mean(dim=0)])
    assert torch.allclose(torch.from_numpy(place.log_probs(rendered, GROUPS)).double(), wanted, atol=1e-3)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "bert", "roberta", "xlm-roberta", "t5", "bart"])
def test_words_are_the_single_tokens_that_are_scored(architecture: str) -> None:
    model, tokenizer = make_model(architecture)
    ours = loaded(model, tokenizer)
    rendered = texts(architecture)[:1]
    words = ours.answer_place.words(rendered, LETTERS)
    assert {"good", "great"} <= set(words)
    assert len(set(words.values())) == len(words)
    assert not set(words.values()) & set(tokenizer.all_special_ids)
    assert all(word.isalpha() for word in words)
    ours.check_answers(rendered[0], list(words), single_token=True)
    (reply,) = ours.logprobs([LabelRequest(rendered[0], tuple(words))])
    assert isinstance(reply, LabelReply)
    (row,) = ours.answer_place.log_probs(rendered, [0])
    assert np.allclose(reply.log_probs, row[list(words.values())], atol=1e-3)


def test_words_match_and_are_single_tokens_in_every_surrounding() -> None:
    model, tokenizer = make_model("gpt2")
    place = loaded(model, tokenizer).answer_place
    spaced, glued = prompt("it", ending=" It was "), prompt("it", ending=" It was:\n")
    assert "great" in place.words([spaced], "g.*")
    assert all(word.startswith("g") for word in place.words([spaced], "g.*"))
    for word, token in place.words([spaced, glued], LETTERS).items():
        assert token == place.words([glued], LETTERS)[word]  # one id for both, or it is left out
    with pytest.raises(InputError, match="no regular expression"):
        place.words([spaced], "(")


def test_texts_too_long_are_shortened_and_texts_after_fields_are_read() -> None:
    model, tokenizer = make_model("bert")
    ours = loaded(model, tokenizer)
    assert ours.max_length is not None
    states = ours.answer_place.states([prompt(LONG * 4), Rendered((Piece("good ", is_field=True),))])
    assert np.isfinite(states).all()


@pytest.mark.parametrize("architecture", ["gpt2", "bert", "t5"])
def test_a_model_that_does_something_unknown_to_its_logits(architecture: str) -> None:
    model, tokenizer = make_model(architecture)
    odd = copy.deepcopy(model)

    def twist(_: Any, __: Any, output: Any) -> Any:
        output.logits = output.logits.sin() * 3
        return output

    odd.register_forward_hook(twist)
    rendered = texts(architecture)
    plain, ours = loaded(model, tokenizer).answer_place, loaded(odd, tokenizer).answer_place
    assert np.allclose(ours.states(rendered), plain.states(rendered), atol=1e-3)
    expected = [naive_logits(architecture, odd, tokenizer, each) for each in rendered]
    means = torch.log_softmax(torch.stack(expected), dim=-1)
    (found,) = ours.log_probs(rendered, [0] * len(rendered))
    assert np.allclose(found, means.mean(dim=0).numpy(), atol=1e-3)


def test_a_model_without_an_output_layer_has_no_states(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = make_model("gpt2")
    headless = copy.deepcopy(model)
    monkeypatch.setattr(headless, "get_output_embeddings", lambda: None)
    place = loaded(headless, tokenizer).answer_place
    rendered = texts("gpt2")
    with pytest.raises(MissingCapability, match="likelihood"):
        place.states(rendered)
    with pytest.raises(MissingCapability):
        place.scores(np.zeros((1, 32)))
    expected = torch.log_softmax(naive_logits("gpt2", model, tokenizer, rendered[0]), dim=-1)
    assert np.allclose(place.log_probs(rendered[:1], [0])[0], expected.numpy(), atol=1e-3)


def test_a_text_whose_state_is_no_number_is_missing_not_zero() -> None:
    model, tokenizer = make_model("bert")
    broken = copy.deepcopy(model)
    layer = broken.get_output_embeddings()
    layer.weight = torch.nn.Parameter(layer.weight.detach().clone())  # no longer the table of the inputs
    with torch.no_grad():
        broken.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("dog")] = torch.nan
    place = loaded(broken, tokenizer).answer_place
    rendered = [prompt("it"), prompt("a dog")]
    states = place.states(rendered)
    assert np.isfinite(states[0]).all()
    assert np.isnan(states[1]).all()
    found = place.log_probs([*rendered, rendered[1]], [0, 0, 1])
    assert np.allclose(found[0], place.log_probs(rendered[:1], [0])[0])
    assert np.isnan(found[1]).all()


def test_the_place_is_read_even_where_no_word_can_stand() -> None:
    model, tokenizer = make_model("bert")
    place = loaded(model, tokenizer).answer_place
    glued = [Rendered((Piece("it was glued"),))]
    assert "good" not in place.words(glued, LETTERS)  # it is no token of its own right after another word
    assert place.words(glued, "good|great") == {}
    assert np.isfinite(place.states(glued)).all()  # others are, so the place is known
