"""Keys and values in place of tokens: nothing changes where they are the tokens' own, and all that follows where not."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from autoprompt.cache import _dump, _load
from autoprompt.errors import InputError, MissingCapability, UnknownName
from autoprompt.models import (
    CompletingModel,
    Failure,
    GradientRequest,
    LabelRequest,
    TextRequest,
    TuneReply,
    TuneRequest,
)
from autoprompt.models.hf.gradient import losses
from autoprompt.models.hf.slots import batch_of
from autoprompt.models.load import load_model
from autoprompt.prompt import Piece, Rendered
from autoprompt.soft import SoftRows, Training
from tests.models.test_soft import ANSWERS, FIELDS, own_rows, scores, softened
from tests.models.test_soft import text as text_around
from tests.models.tiny import make_model

Rows = dict[str, SoftRows]
CAUSAL = ("gpt2", "llama", "opt", "gemma", "gemma2", "mistral", "qwen3", "gpt_neox", "phi")
MASKED = ("bert", "roberta", "albert", "modernbert", "xlm-roberta")


def text(field: str, kind: str) -> Rendered:
    """Two slots before the data."""
    before = (
        Piece("Review "),
        Piece("good film", slot="a"),
        Piece(" : it "),
        Piece("people loved", slot="b"),
        Piece(" . "),
        Piece(field, is_field=True),
        Piece(" It was "),
    )
    return Rendered(before, (Piece(" ."),) if kind == "masked" else ())


def texts(loaded: Any, rows: Rows, fields: Sequence[str] = FIELDS) -> list[Rendered]:
    return [softened(text(field, loaded.kind), rows) for field in fields]


def request(loaded: Any, rows: Rows, batches: tuple[tuple[int, ...], ...], **settings: Any) -> TuneRequest:
    """The task that the first and the last of three texts are good, and the second is bad."""
    asked = tuple(
        GradientRequest(each, ANSWERS, (at % 2,), True) for at, each in enumerate(texts(loaded, rows))
    )
    done, state = settings.pop("done", 0), settings.pop("state", b"")
    training = Training(**{"steps": 20, "method": "prefix", "lr": 1.0, **settings})
    return TuneRequest(asked, batches, training, done, state)


def tuned(loaded: Any, *requests: TuneRequest) -> list[TuneReply]:
    replies = loaded.tune(requests)
    for reply in replies:
        assert isinstance(reply, TuneReply), reply
    return list(replies)


def load(architecture: str, *, tree: bool = True) -> Any:
    loaded: Any = load_model(make_model(architecture))
    loaded._reader.use_tree = tree
    return loaded


def own(loaded: Any) -> Rows:
    """The keys and values of the slots' own tokens, as a training of no steps gives them."""
    rows = own_rows(loaded, text(FIELDS[0], loaded.kind))
    (reply,) = tuned(loaded, request(loaded, rows, ()))
    assert reply.losses == ()
    return dict(reply.rows)


def moved(rows: Rows, seed: int, scale: float = 1.0) -> Rows:
    draw = np.random.default_rng(seed)
    return {
        name: SoftRows((each.values + scale * draw.normal(size=each.shape)).astype(np.float32), "prefix")
        for name, each in rows.items()
    }


@functools.cache
def ready(architecture: str) -> tuple[Any, Rows]:
    loaded = load(architecture)
    return loaded, own(loaded)


@pytest.mark.parametrize("architecture", CAUSAL)
def test_keys_and_values_of_a_text_score_as_the_text(architecture: str) -> None:
    loaded, rows = ready(architecture)
    layers, heads, width = loaded._prefixes.shape
    assert {(each.form, each.shape[1]) for each in rows.values()} == {("prefix", layers * 2 * heads * width)}
    hard = [text(field, loaded.kind) for field in FIELDS]
    np.testing.assert_allclose(scores(loaded, texts(loaded, rows)), scores(loaded, hard), atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", MASKED)
def test_a_masked_models_are_those_of_the_texts_they_were_read_in(architecture: str) -> None:
    """What a token's keys are depends on all the text, so that one text is met, and of several the mean."""
    loaded = load(architecture)
    hard = text(FIELDS[0], "masked")
    soft = softened(hard, own_rows(loaded, hard))
    (reply,) = loaded.tune(
        [TuneRequest((GradientRequest(soft, ANSWERS, (0,), True),), (), Training(steps=1, method="prefix"))]
    )
    assert isinstance(reply, TuneReply)
    found = scores(loaded, [softened(hard, dict(reply.rows))])
    np.testing.assert_allclose(found, scores(loaded, [hard]), atol=1e-5, rtol=0)
    others = scores(loaded, texts(loaded, own(loaded)))
    expected = scores(loaded, [text(field, "masked") for field in FIELDS])
    assert np.abs(others - expected).max() < 0.5


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "opt", "gemma", "qwen3", "gpt_neox", "phi"])
def test_any_keys_and_values_score_as_in_a_cache(architecture: str) -> None:
    """Against transformers' own cache with ours written into it, one text at a time; nothing stands between them and the end
    of what is in the cache.
    """
    loaded, rows = ready(architecture)
    rows = {**rows, "b": moved(rows, 0)["b"]}
    model, layers = loaded._model, loaded._prefixes.shape[0]
    found = scores(loaded, texts(loaded, rows))
    for field, given in zip(FIELDS, found, strict=True):
        hard = text(field, loaded.kind)
        (encoded,) = loaded._encode([LabelRequest(hard, ANSWERS)])
        (slotted,) = loaded._finder.find([hard])
        end = max(at for slot in slotted.slots.values() for at in slot.at) + 1
        for read, value in zip(encoded.reads, given, strict=True):
            ids = torch.tensor([encoded.rows[read.row]])
            with torch.no_grad():
                cache = model(ids[:, :end], use_cache=True).past_key_values
                for name, each in rows.items():
                    pairs = torch.from_numpy(each.values.copy()).view(len(each), layers, 2, -1)
                    at = list(slotted.slots[name].at)
                    for layer in range(layers):
                        for part, held in enumerate((cache.layers[layer].keys, cache.layers[layer].values)):
                            held[0, :, at] = (
                                pairs[:, layer, part].view(len(each), *held.shape[1::2]).transpose(0, 1)
                            )
                logits = model(ids[:, end:], past_key_values=cache, use_cache=True).logits[0].log_softmax(-1)
            expected = sum(
                float(logits[read.start + step - end, token]) for step, token in enumerate(read.targets)
            )
            assert value == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "opt", "bert", "roberta"])
def test_scores_are_alike_in_any_batch_and_any_way(architecture: str) -> None:
    """Two prefixes, rows of embeddings and plain text in one batch; as a tree, and padded side by side."""
    loaded, rows = ready(architecture)
    embeddings = own_rows(loaded, text(FIELDS[0], loaded.kind))
    mixed = {"a": moved(rows, 3)["a"], "b": embeddings["b"]}
    asked = [
        each
        for some in (moved(rows, 1), moved(rows, 2), embeddings, mixed, {})
        for each in texts(loaded, some)
    ]
    together = scores(loaded, asked)
    alone = np.concatenate([scores(loaded, [each]) for each in asked])
    np.testing.assert_allclose(together, alone, atol=1e-5, rtol=0)
    padded = load(architecture, tree=False)
    np.testing.assert_allclose(scores(padded, asked), together, atol=1e-5, rtol=0)
    assert np.abs(together[:3] - together[3:6]).max() > 1e-2
    np.testing.assert_allclose(together[6:9], together[12:], atol=1e-5, rtol=0)  # the tokens' own
    assert np.abs(together[9:12] - together[6:9]).max() > 1e-2


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "opt", "gemma"])
def test_generation_under_any_padding(architecture: str) -> None:
    loaded, rows = ready(architecture)
    assert isinstance(loaded, CompletingModel)
    asked = [TextRequest(each, 8) for each in texts(loaded, moved(rows, 4))]
    together = loaded.complete(asked)
    assert together == [loaded.complete([each])[0] for each in asked]
    plain = loaded.complete([TextRequest(text(field, loaded.kind), 8) for field in FIELDS])
    assert loaded.complete([TextRequest(each, 8) for each in texts(loaded, rows)]) == plain
    assert together != plain


@pytest.mark.parametrize(
    ("architecture", "tree"),
    [("gpt2", True), ("gpt2", False), ("llama", True), ("opt", True), ("bert", True)],
)
def test_the_gradient_is_what_differences_give(architecture: str, tree: bool) -> None:
    model, tokenizer = make_model(architecture)
    smooth = copy.deepcopy(model).double()
    for module in smooth.modules():
        if "activation_fn" in dict(module.named_children()):
            module.activation_fn = torch.nn.GELU()  # OPT's has kinks
    loaded: Any = load_model((smooth, tokenizer))
    loaded._reader.use_tree = tree
    rows = moved(own(loaded), 5, 0.3)
    prefixes, gradients = loaded._prefixes, loaded._gradients
    assert gradients.from_slots == (tree and architecture != "bert")
    _, slotted = gradients.slotted(request(loaded, rows, ()).texts)
    batch = batch_of(slotted, len(prefixes.weight))
    at = torch.cat([prefixes.tensor(each) for each in rows.values()])

    def loss_at(given: torch.Tensor) -> torch.Tensor:
        read = gradients.run_with(prefixes)(batch, given)
        return losses(slotted, batch, gradients.head, read).sum()

    given = at.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss_at(given), given)
    draw = torch.Generator().manual_seed(0)
    ways = [slope, *(torch.randn(at.shape, generator=draw) for _ in range(3))]
    for way in ways:
        step = 1e-2 * way / way.norm()
        with torch.no_grad():
            change = float(loss_at(at + step) - loss_at(at - step))
        assert change == pytest.approx(2 * float((slope * step).sum()), rel=0.02, abs=2e-6)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "opt", "gemma2", "bert", "albert"])
def test_training_lowers_the_loss_from_that_of_the_start(architecture: str) -> None:
    loaded, rows = ready(architecture)
    begin = own_rows(loaded, text(FIELDS[0], loaded.kind))
    (reply,) = tuned(loaded, request(loaded, begin, ((0, 1, 2),) * 10))
    first = torch.tensor(scores(loaded, texts(loaded, rows))).log_softmax(-1)
    assert reply.losses[0] == pytest.approx(-float(first[[0, 1, 2], [0, 1, 0]].mean()), abs=1e-5)
    assert reply.losses[-1] < 0.8 * reply.losses[0]
    after = torch.tensor(scores(loaded, texts(loaded, dict(reply.rows)))).log_softmax(-1)
    assert -float(after[[0, 1, 2], [0, 1, 0]].mean()) < reply.losses[0]
    assert _load(_dump(reply)) == reply


@pytest.mark.parametrize("optimizer", ["adafactor", "adamw"])
def test_a_training_in_parts_is_the_whole(optimizer: Any) -> None:
    loaded, _ = ready("llama")
    begin = own_rows(loaded, text(FIELDS[0], loaded.kind))
    batches = ((0, 1), (2,), (1, 2), (0,), (2, 1))
    settings: dict[str, Any] = {"optimizer": optimizer, "schedule": "cosine"}
    (whole,) = tuned(loaded, request(loaded, begin, batches, **settings))
    (first,) = tuned(loaded, request(loaded, begin, batches[:2], **settings))
    again = load("llama")  # as after a restart
    (rest,) = tuned(
        again, request(again, dict(first.rows), batches[2:], done=2, state=first.state, **settings)
    )
    assert (*first.losses, *rest.losses) == whole.losses
    assert rest.rows == whole.rows


def test_side_by_side_is_one_by_one() -> None:
    """Two prefixes and rows of embeddings in one call."""
    loaded, rows = ready("gpt2")
    begin = own_rows(loaded, text(FIELDS[0], loaded.kind))
    asked = (
        request(loaded, begin, ((0, 1), (2,))),
        request(loaded, moved(rows, 6), ((1,), (0, 2)), lr=0.3),
        request(loaded, begin, ((0, 1), (2,)), method="prompt"),
    )
    for reply, each in zip(tuned(loaded, *asked), asked, strict=True):
        (alone,) = tuned(loaded, each)
        np.testing.assert_allclose(reply.losses, alone.losses, atol=1e-5)
        for name, values in reply.rows.items():
            assert values.form == alone.rows[name].form
            np.testing.assert_allclose(values.values, alone.rows[name].values, atol=1e-3)


def test_a_step_is_as_long_in_every_layer() -> None:
    """The learning rate counts in root mean squares of a layer's keys, or of its values."""
    loaded, rows = ready("gpt2")
    unit = loaded._prefixes.unit.numpy()
    assert len(np.unique(unit)) == 4  # keys and values of two layers
    real = np.concatenate([each.values for each in rows.values()])
    rms = np.sqrt((real.reshape(len(real), 4, -1) ** 2).mean(axis=(0, 2)))
    np.testing.assert_allclose(unit.reshape(4, -1)[:, 0], rms, rtol=0.5)
    (reply,) = tuned(loaded, request(loaded, rows, ((0, 1, 2),), optimizer="adamw", lr=0.25))
    apart = np.abs(reply.rows["a"].values - rows["a"].values) / unit
    assert apart.max() == pytest.approx(apart.reshape(2, 4, -1).max(axis=(0, 2)).min(), rel=1e-3)


def test_random_rows_give_keys_and_values_as_long_as_real_ones() -> None:
    loaded, rows = ready("gpt2")
    draw = np.random.default_rng(0)
    begin = {
        name: SoftRows(draw.normal(size=(len(each), 32)) * loaded._table.unit) for name, each in rows.items()
    }
    (drawn,) = tuned(loaded, request(loaded, begin, ()))
    made = np.concatenate([each.values for each in drawn.rows.values()]) / loaded._prefixes.unit.numpy()
    lengths = np.sqrt((made.reshape(len(made), 4, -1) ** 2).mean(axis=(0, 2)))
    np.testing.assert_allclose(lengths, 1, atol=0.35)


@pytest.mark.parametrize(
    ("architecture", "why"),
    [
        ("t5", "encoder-decoder"),
        ("bart", "encoder-decoder"),
        ("gpt_neo", "Interface"),
        ("deberta-v2", "Interface"),
    ],
)
def test_families_that_cannot_are_refused(architecture: str, why: str) -> None:
    loaded = load(architecture)
    begin = own_rows(loaded, text(FIELDS[0], loaded.kind))
    with pytest.raises(MissingCapability, match=rf"(?s){why}.*GPT-2, Llama.*method=\"prompt\""):
        loaded.tune([request(loaded, begin, ())])


def test_places_that_mean_nothing_are_failures_that_teach() -> None:
    loaded, rows = ready("gpt2")
    hard = [text_around(field, "causal") for field in FIELDS]
    own_of = own_rows(loaded, hard[0])
    asked = tuple(GradientRequest(softened(each, own_of), ANSWERS, (0,), True) for each in hard)
    (late,) = loaded.tune([TuneRequest(asked, (), Training(steps=1, method="prefix"))])
    assert isinstance(late, Failure)
    assert "before it differs from example to example" in late.message
    assert "front=True" in late.message
    last = Rendered((Piece("the film "), Piece("good film", slot="a"), Piece(" ")))
    (reply,) = loaded.logprobs([LabelRequest(softened(last, rows), ANSWERS)])
    assert isinstance(reply, Failure)
    assert "right after it" in reply.message
    (other,) = loaded.tune([request(loaded, rows, ((0,),), method="prompt")])
    assert isinstance(other, Failure)
    assert 'method="prefix"' in other.message


def test_rows_of_another_model_or_form_are_refused() -> None:
    loaded, rows = ready("gpt2")
    narrow = {name: SoftRows(each.values[:, :64], "prefix") for name, each in rows.items()}
    with pytest.raises(MissingCapability, match=r"do not fit model.*2 layers keep 2 x 4 x 8 numbers"):
        scores(loaded, texts(loaded, narrow))
    with pytest.raises(MissingCapability, match=r"(?s)in every layer.*prefix"):
        loaded.gradients([GradientRequest(texts(loaded, rows)[0], ANSWERS, (0,), True)])
    with pytest.raises(UnknownName, match="did you mean 'prefix'"):
        SoftRows([[1.0]], "prefx")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="trust and pull"):
        Training(steps=1, method="prefix", trust=1.0)
    same = SoftRows(rows["a"].values)
    assert same != rows["a"]
    assert dataclasses.asdict(Training(steps=1))["method"] == "prompt"
    assert SoftRows(np.arange(6, dtype=np.float32).reshape(2, 3)).key == "5c6e3ffa28d20d387f18e5426ad8ae4a"


def test_plain_prompts_are_untouched_by_prefixes_beside_them() -> None:
    """The model's own attention is back after a prefix, and a prompt of text scores to the bit as before."""
    loaded = load("gpt2")
    hard = [text(field, "causal") for field in FIELDS]
    before = scores(loaded, hard)
    scores(loaded, texts(loaded, ready("gpt2")[1]))
    assert loaded._model.config._attn_implementation == make_model("gpt2")[0].config._attn_implementation
    assert "autoprompt" not in loaded._model.config._attn_implementation
    np.testing.assert_array_equal(scores(load("gpt2"), hard), before)
    np.testing.assert_array_equal(scores(loaded, hard), before)
