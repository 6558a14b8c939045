"""Training of rows that stand in texts: the optimisers, what is trained, and that nothing else is."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pytest
import torch
from transformers.optimization import Adafactor

from autoprompt.models import Failure, GradientRequest, LabelRequest, TextRequest, TuneReply, TuneRequest
from autoprompt.models.hf.optimizers import State, rate, update
from autoprompt.models.load import load_model
from autoprompt.policy import TokenPolicy
from autoprompt.prompt import Piece, Rendered
from autoprompt.soft import DISCRETE, Method, Optimizer, SoftRows, Training
from tests.models.test_soft import ANSWERS, FIELDS, own_rows, softened, text
from tests.models.tiny import make_model

METHODS: tuple[Method, ...] = tuple(
    each for each in get_args(Method) if each != "prefix"
)  # its slots stand in front
KINDS = ("gpt2", "bert", "t5")
Rows = dict[str, SoftRows]


@pytest.mark.parametrize("shape", [(5,), (4, 6)])
@pytest.mark.parametrize("kind", get_args(Optimizer))
def test_an_optimiser_moves_as_the_one_it_is_named_after(kind: Optimizer, shape: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(0)
    ours = torch.randn(shape, generator=draw)
    theirs = ours.clone().requires_grad_()
    reference = (
        torch.optim.AdamW([theirs], lr=1, weight_decay=0)
        if kind == "adamw"
        else Adafactor(
            [theirs], lr=1, scale_parameter=False, relative_step=False, warmup_init=False, beta1=None,
            weight_decay=0, decay_rate=-0.8, clip_threshold=1.0,
        )
    )  # fmt: skip
    state: State = {}
    for step in range(20):
        gradient = torch.randn(shape, generator=draw) * 10.0 ** (step % 4 - 2)
        gradient[0] *= 0 if step == 7 else 1
        lr = 0.3 / (step + 1)
        theirs.grad = gradient.clone()
        reference.param_groups[0]["lr"] = lr
        reference.step()
        state = update(kind, ours, gradient, state, lr)
        torch.testing.assert_close(ours, theirs.detach(), atol=2e-6, rtol=2e-6)
    assert float(state["step"]) == 20


def test_the_rate_rises_and_falls_as_the_schedule_says() -> None:
    def rates(**settings: Any) -> list[float]:
        training = Training(steps=6, lr=2.0, **settings)
        return [rate(training, step) for step in range(8)]

    assert rates() == [2.0] * 8
    assert rates(warmup=2) == [1.0, *[2.0] * 7]
    assert rates(warmup=2, schedule="linear") == pytest.approx([1, 2, 2, 1.5, 1, 0.5, 0, 0])
    cosine = 1 + np.cos(np.pi * np.array([0, 1, 2, 3, 4, 5, 6, 6]) / 6)
    assert rates(schedule="cosine") == pytest.approx(cosine.tolist(), abs=1e-6)
    assert rates(warmup=9, schedule="linear") == pytest.approx([2 * (at + 1) / 9 for at in range(8)])
    assert all(value >= 0 for value in rates(warmup=6, schedule="cosine"))


# What is trained.


def rendered(fields: Sequence[str], kind: str, soft: Rows) -> list[Rendered]:
    return [softened(text(field, kind), soft) for field in fields]


def request(
    loaded: Any,
    soft: Rows,
    steps: int = 8,
    *,
    batch: tuple[int, ...] = (0, 1, 2),
    among: bool = True,
    done: int = 0,
    state: bytes = b"",
    **settings: Any,
) -> TuneRequest:
    """The task that the first and the last of three texts are good, and the second is bad."""
    texts = tuple(
        GradientRequest(each, ANSWERS, (at % 2,), among)
        for at, each in enumerate(rendered(FIELDS, loaded.kind, soft))
    )
    training = Training(**{"steps": 20, **settings})
    policies = tuple((name, TokenPolicy("any")) for name in soft)
    return TuneRequest(texts, (batch,) * steps, training, done, state, policies)


def tuned(loaded: Any, *requests: TuneRequest) -> list[TuneReply]:
    replies = loaded.tune(requests)
    for reply in replies:
        assert isinstance(reply, TuneReply), reply
    return list(replies)


def load(architecture: str) -> tuple[Any, dict[str, SoftRows]]:
    """A model, and rows that are the slots' own tokens."""
    loaded = load_model(make_model(architecture))
    return loaded, own_rows(loaded, text(FIELDS[0], loaded.kind))


def farthest(one: TuneReply, other: TuneReply) -> float:
    assert one.rows.keys() == other.rows.keys()
    return max(float(np.abs(one.rows[name].values - other.rows[name].values).max()) for name in one.rows)


def loss_of(loaded: Any, texts: Sequence[Rendered], right: Sequence[int], among: bool) -> float:
    """By log-probabilities."""
    replies = loaded.logprobs([LabelRequest(each, ANSWERS) for each in texts])
    scores = torch.tensor([reply.log_probs for reply in replies], dtype=torch.float64)
    if among:
        scores = scores.log_softmax(-1)
    return -float(scores[range(len(texts)), list(right)].mean())


@pytest.mark.parametrize(
    ("architecture", "among"),
    [(each, False) for each in ("gpt2", "llama", "gemma", "opt", "bert", "albert", "t5", "bart")]
    + [("gpt_neo", True), ("bert", True), ("t5", True)],
)
def test_training_begins_at_the_loss_of_the_text_it_begins_at(architecture: str, among: bool) -> None:
    loaded, own = load(architecture)
    (reply,) = tuned(loaded, request(loaded, own, 3, among=among, lr=0.1))
    hard = [text(field, loaded.kind) for field in FIELDS]
    assert reply.losses[0] == pytest.approx(loss_of(loaded, hard, (0, 1, 0), among), abs=2e-6)
    after = rendered(FIELDS, loaded.kind, dict(reply.rows))
    (further,) = tuned(loaded, request(loaded, dict(reply.rows), 1, among=among))
    assert further.losses[0] == pytest.approx(loss_of(loaded, after, (0, 1, 0), among), abs=1e-5)
    assert further.losses[0] < reply.losses[0]


@pytest.mark.parametrize(
    ("method", "optimizer"),
    [
        ("prompt", "adafactor"),
        ("prompt", "adamw"),
        ("residual", "adafactor"),
        ("mlp", "adamw"),
        ("lstm", "adafactor"),
    ],
)
@pytest.mark.parametrize("architecture", KINDS)
def test_training_lowers_the_loss(architecture: str, method: Method, optimizer: Optimizer) -> None:
    loaded, own = load(architecture)
    asked = request(loaded, own, 12, method=method, optimizer=optimizer, hidden=16, lr=0.1)
    (reply,) = tuned(loaded, asked)
    (plain,) = tuned(loaded, request(loaded, own, 1))
    assert reply.losses[0] == pytest.approx(plain.losses[0], abs=1e-6)  # networks begin at the start as well
    assert reply.losses[-1] < 0.85 * reply.losses[0]
    assert not reply.ids
    for name, rows in reply.rows.items():
        assert rows.shape == own[name].shape
        assert np.abs(rows.values - own[name].values).max() > 1e-3


@pytest.mark.parametrize(
    ("architecture", "method"), [("t5", "prompt"), ("bert", "lstm"), *(("gpt2", each) for each in METHODS)]
)
def test_side_by_side_is_one_by_one(architecture: str, method: Method) -> None:
    """Other batches, other seeds, other lengths of the slots and another number of texts."""
    loaded, own = load(architecture)
    one = request(loaded, own, 3, method=method, seed=1, lr=0.1)
    longer = text(FIELDS[1], loaded.kind)
    longer = dataclasses.replace(
        longer,
        before=tuple(
            dataclasses.replace(each, text="a slow dog and a cat") if each.slot == "middle" else each
            for each in longer.before
        ),
    )
    soft = own_rows(loaded, longer)
    other = TuneRequest(
        (GradientRequest(softened(longer, soft), ANSWERS, (2, 1), True),) * 2, ((0,), (0, 1), (1,)),
        Training(steps=20, method=method, lr=0.3, seed=2), policies=tuple((name, TokenPolicy("any")) for name in soft),
    )  # fmt: skip
    shorter = request(loaded, own, 1, batch=(2, 0), method=method)
    alone = [tuned(loaded, each)[0] for each in (one, other, shorter)]
    for reply, expected in zip(tuned(loaded, one, other, shorter), alone, strict=True):
        np.testing.assert_allclose(reply.losses, expected.losses, atol=1e-4)
        assert farthest(reply, expected) < 1e-3
        assert (reply.ids, reply.tokens) == (expected.ids, expected.tokens)


@pytest.mark.parametrize(
    ("method", "optimizer"),
    [("prompt", "adamw"), ("lstm", "adamw"), *((each, "adafactor") for each in METHODS)],
)
def test_a_training_in_parts_is_the_whole(method: Method, optimizer: Optimizer) -> None:
    loaded, own = load("gpt2")

    def part(steps: int, before: TuneReply | None = None, done: int = 0) -> TuneReply:
        state = before.state if before is not None else b""
        soft = dict(before.rows) if before is not None else own
        settings: dict[str, Any] = {
            "method": method,
            "optimizer": optimizer,
            "schedule": "cosine",
            "warmup": 3,
        }
        settings |= {"lr": 5.0, "seed": 3, "hidden": 8}
        if method == "prompt":
            settings |= {"trust": 0.3, "pull": 0.1}
        (reply,) = tuned(loaded, request(loaded, soft, steps, done=done, state=state, **settings))
        return reply

    whole = part(6)
    first = part(1)
    second = part(2, first, 1)
    last = part(3, second, 3)
    assert (*first.losses, *second.losses, *last.losses) == whole.losses
    assert farthest(last, whole) == 0
    assert last.ids == whole.ids
    assert last.state == whole.state


def test_a_text_that_comes_twice_in_a_batch_counts_twice() -> None:
    loaded, own = load("gpt2")
    (reply,) = tuned(loaded, request(loaded, own, 2, batch=(1, 0, 1, 1)))
    singles = [tuned(loaded, request(loaded, own, 1, batch=(at,)))[0] for at in range(2)]
    assert reply.losses[0] == pytest.approx((singles[0].losses[0] + 3 * singles[1].losses[0]) / 4, abs=1e-6)
    assert reply.tokens == 2 * (singles[0].tokens + 3 * singles[1].tokens)
    (spread,) = tuned(loaded, request(loaded, own, 2, batch=(0, 1, 1, 1)))
    assert farthest(reply, spread) < 1e-5


@pytest.mark.parametrize("architecture", KINDS)
def test_the_model_is_left_as_it_was(architecture: str) -> None:
    model, tokenizer = make_model(architecture)
    model = copy.deepcopy(model).train()
    first = next(iter(model.parameters())).requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wanted = [each.requires_grad for each in model.parameters()]
    loaded = load_model((model, tokenizer))
    modes = [each.training for each in model.modules()]
    own = own_rows(loaded, text(FIELDS[0], loaded.kind))
    one, other = tuned(loaded, request(loaded, own, 3), request(loaded, own, 3))
    # no dropout; but places in a batch differ by their rounding
    assert one.losses == pytest.approx(other.losses, abs=1e-5)
    assert [each.requires_grad for each in model.parameters()] == wanted
    assert not first.requires_grad
    assert [each.training for each in model.modules()] == modes
    assert all(each.grad is None for each in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_rows_stay_in_the_trust_region_and_are_pulled() -> None:
    loaded, own = load("gpt2")

    def reach(**settings: Any) -> list[float]:
        (reply,) = tuned(loaded, request(loaded, own, 8, **settings))
        (before, after) = (
            np.concatenate([each.values for each in some.values()]) for some in (own, reply.rows)
        )
        return list(np.linalg.norm(after - before, axis=1) / np.linalg.norm(before, axis=1))

    free, near = reach(lr=1.0), reach(lr=1.0, trust=0.2)
    assert min(free) > 0.2
    assert max(near) == pytest.approx(0.2, rel=1e-4)
    assert sum(reach(lr=0.1, pull=100.0)) < 0.5 * sum(reach(lr=0.1))


@pytest.mark.parametrize(
    ("architecture", "method"), [("gpt2", "pez"), ("t5", "straight"), *(("bert", each) for each in DISCRETE)]
)
def test_methods_that_end_in_tokens_say_which(architecture: str, method: Method) -> None:
    loaded, own = load(architecture)
    asked = request(loaded, own, 20, method=method, lr=1.0, clip=0.0)
    policy = TokenPolicy("any", matching="[a-z]{1,3}")
    (reply,) = tuned(loaded, dataclasses.replace(asked, policies=tuple((name, policy) for name in own)))
    allowed = loaded.vocabulary.allowed(policy)
    for name, ids in reply.ids.items():
        assert len(ids) == len(own[name])
        assert allowed[list(ids)].all()
        near, _ = loaded.vocabulary.nearest(reply.rows[name].values, allowed, 1, "cosine")
        if method not in ("entropy", "temperature"):  # those may still be between tokens
            assert tuple(near[:, 0]) == ids
            np.testing.assert_allclose(reply.rows[name].values, loaded.vocabulary.rows(ids), atol=1e-4)
    assert reply.ids.keys() == own.keys()
    assert len({round(loss, 3) for loss in reply.losses}) > 1  # other tokens have been tried


@pytest.mark.parametrize("method", ["pez", "langevin", "straight"])
def test_methods_on_tokens_begin_at_the_tokens(method: Method) -> None:
    loaded, own = load("bert")
    plain, discrete = tuned(loaded, request(loaded, own, 1), request(loaded, own, 1, method=method))
    assert discrete.losses[0] == pytest.approx(plain.losses[0], abs=1e-5)


@pytest.mark.parametrize(
    ("method", "optimizer", "factor"),
    [
        ("prompt", "adafactor", 2.0**6),
        ("prompt", "adamw", 2.0**-6),
        ("residual", "adamw", 2.0**6),
        ("lstm", "adafactor", 2.0**-6),
        ("pez", "adafactor", 2.0**6),
        ("temperature", "adamw", 2.0**-6),
    ],
)
def test_a_training_is_the_same_at_any_scale_of_the_embeddings(
    method: Method, optimizer: Optimizer, factor: float
) -> None:
    """OPT with projections around a narrow table: what one is multiplied by the others are divided by."""
    model, tokenizer = make_model("opt")
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled.get_input_embeddings().weight.mul_(factor)
        decoder = scaled.model.decoder
        decoder.project_in.weight.div_(factor)
        decoder.project_out.weight.div_(factor)  # the output layer is the same table
    replies = []
    for each in (model, scaled):
        loaded = load_model((each, tokenizer))
        own = own_rows(loaded, text(FIELDS[0], "causal"))
        replies += tuned(
            loaded,
            request(
                loaded, own, 5, method=method, optimizer=optimizer, clip=0.1, pull=0.5 * (method == "prompt")
            ),
        )
    np.testing.assert_allclose(replies[0].losses, replies[1].losses, rtol=1e-4)
    assert replies[0].losses[-1] != replies[0].losses[0]


def test_a_half_precision_model_is_trained_in_full_precision() -> None:
    model, tokenizer = make_model("llama")
    loaded = load_model((copy.deepcopy(model).to(torch.bfloat16), tokenizer))
    own = own_rows(loaded, text(FIELDS[0], "causal"))
    (small,) = tuned(loaded, request(loaded, own, 4, lr=1e-4))
    for name, rows in small.rows.items():
        moved = rows.values - own[name].values
        assert np.abs(moved).max() > 0
        assert np.abs(moved).max() < 2.0**-9 * np.abs(own[name].values).max()  # bfloat16 would lose it
    (reply,) = tuned(loaded, request(loaded, own, 20))
    assert reply.losses[-1] < 0.7 * reply.losses[0]


def test_a_loss_that_is_no_number_is_a_failure_that_names_the_rate() -> None:
    loaded, own = load("gpt2")
    broken, sound = loaded.tune([request(loaded, own, 4, lr=1e38), request(loaded, own, 4)])
    assert isinstance(broken, Failure)
    assert "lr 1e+38" in broken.message
    assert isinstance(sound, TuneReply)
    (alone,) = tuned(loaded, request(loaded, own, 4))
    assert farthest(sound, alone) < 1e-4
    (last,) = loaded.tune([request(loaded, own, 1, lr=1e39)])  # its only step leads to no numbers
    assert isinstance(last, Failure)
    assert "lr" in last.message


def test_what_cannot_be_read_is_a_failure_of_its_own() -> None:
    loaded, own = load("gpt2")
    torn = {**own, "middle": SoftRows(own["middle"].values[:1])}
    broken, sound = loaded.tune([request(loaded, torn), request(loaded, own)])
    assert isinstance(broken, Failure)
    assert "holds 1 rows" in broken.message
    assert isinstance(sound, TuneReply)


@pytest.mark.parametrize(
    ("architecture", "last", "target"),
    [("gpt2", "transformer.ln_f", "a slow dog"), ("t5", "decoder.final_layer_norm", "good")],
)
def test_free_text_is_learnt_with_its_end(architecture: str, last: str, target: str) -> None:
    model, tokenizer = make_model(architecture)
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.get_submodule(last).weight.mul_(8)  # so sure of itself that a prompt can make it say anything
    loaded: Any = load_model((model, tokenizer))
    hard = Rendered((Piece("the film was good , the people loved it", slot="s"), Piece(" . it was ")))
    own = own_rows(loaded, hard)
    given = GradientRequest(softened(hard, own), (target,), (0,), False, ended=True)
    training = Training(steps=70, optimizer="adamw", schedule="linear")
    (reply,) = tuned(loaded, TuneRequest((given,), ((0,),) * training.steps, training))
    whole, open_ended = loaded.logprobs(
        [LabelRequest(hard, (target,), ended=ended) for ended in (True, False)]
    )
    (encoded,) = loaded._encode([LabelRequest(hard, (target,), ended=True)])
    targets = encoded.reads[0].targets
    assert targets[-1] == tokenizer.eos_token_id
    assert whole.log_probs[0] < open_ended.log_probs[0]
    assert reply.losses[0] == pytest.approx(-whole.log_probs[0] / len(targets), rel=1e-5)  # of a token
    assert reply.losses[-1] < 0.8
    before, after = (
        loaded.complete([TextRequest(each, 12)])[0] for each in (hard, softened(hard, dict(reply.rows)))
    )
    assert after.text.strip() == target != before.text.strip()
