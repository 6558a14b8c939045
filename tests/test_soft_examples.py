"""What the examples on soft prompts compare is comparable: PEFT reads the same texts, trains, and is judged alike."""

from __future__ import annotations

import importlib
import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch

import autoprompt
from autoprompt.models import GradientRequest, LabelRequest, TuneReply, TuneRequest, bundled
from autoprompt.models.load import load_model
from autoprompt.prompt import Piece, Rendered
from autoprompt.soft import SoftRows, Training
from tests.benchmarks import soft
from tests.benchmarks.models import make_subject
from tests.benchmarks.workloads import SLOT, gradient_step
from tests.conftest import ROOT

pytest.importorskip("peft", reason="the examples compare with PEFT")

N = 4


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the examples."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module


@pytest.fixture(scope="module")
def task() -> autoprompt.Task:
    words = {"negative": ("bad",), "positive": ("good",)}
    things = ["film", "food", "music", "hotel", "book", "play", "song", "house"]
    rows = [
        {
            "text": f"the {thing} was {'awful , nobody' if label == 'negative' else 'lovely and we'} liked it",
            "label": label,
        }
        for thing in things
        for label in words
    ]
    return autoprompt.Task.from_rows(
        {"train": rows[:8], "select": rows[8:12], "test": rows[12:]},
        name="sst-2-16-0",
        kind="classification",
        target="label",
        words=words,
        prompt="{{ text }} It was {{ answer }}.",
    )


@pytest.fixture
def trainee(modules: Any, task: autoprompt.Task, request: pytest.FixtureRequest) -> Any:
    by_peft = modules("soft_trainees.by_peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        base = by_peft.Base(bundled.folder(request.param), task, N)
        return by_peft.PeftTrainee(base, by_peft.Setting("SAMPLE_VOCAB", 3e-2), 12, seed=3)


@pytest.mark.parametrize("trainee", ["causal", "masked"], indirect=True)
def test_peft_is_read_where_the_answer_stands(trainee: Any, task: autoprompt.Task) -> None:
    base = trainee._base
    examples = task.test[:3]
    found = trainee.scores(examples)
    embed = base.model.get_input_embeddings()
    for example, scores in zip(examples, found, strict=True):
        (line,) = base.lines([example])
        ids = torch.tensor(line.rows)
        with torch.inference_mode():
            rows = torch.from_numpy(trainee.rows)[None]
            logits = base.model(inputs_embeds=torch.cat([rows, embed(ids)], dim=1)).logits
        (place,) = {read.start for read in line.reads}
        words = [token for read in line.reads for token in read.targets]
        expected = torch.log_softmax(logits[0, N + place], -1)[words]
        assert np.abs(scores - expected.numpy()).max() < 1e-4


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_both_sides_read_the_same_text(modules: Any, task: autoprompt.Task, kind: str) -> None:
    base = modules("soft_trainees.by_peft").Base(bundled.folder(kind), task, 0)
    loaded: Any = load_model(f"bundled:{kind}")
    for example in task.test:
        (line,) = base.lines([example])
        rendered = task.seed_prompt.render(example.fields)
        (asked,) = loaded._encode([LabelRequest(rendered, ("bad", "good"))])
        assert (asked.rows, asked.reads) == (line.rows, line.reads)


@pytest.mark.parametrize("trainee", ["masked"], indirect=True)
def test_peft_learns_and_its_iterates_can_be_put_back(
    modules: Any, trainee: Any, task: autoprompt.Task
) -> None:
    table = modules("soft_table")
    batches = table.batches_of(len(task.train), 4, 12, seed=0)
    points = table.trained(trainee, task, batches, 4)
    assert [point.step for point in points] == [0, 4, 8, 12]
    assert points[-1].loss < points[0].loss
    trainee.rows = points[1].rows
    assert table.judged(trainee.scores(task.select), task.select, task)[1] == pytest.approx(
        points[1].loss, abs=1e-6
    )


def test_ours_goes_on_where_it_stopped(modules: Any, task: autoprompt.Task) -> None:
    table, by_us = modules("soft_table"), modules("soft_trainees.by_us")
    model: Any = load_model("bundled:causal")
    space = autoprompt.trigger_space(task, 2)
    prompt = space.bind(task, answer_at_end=True).prompt_from({"trigger": "people music"})
    batches = table.batches_of(len(task.train), 4, 4, seed=0)
    ends = []
    for every in (2, 4):
        one = by_us.OurTrainee(model, task, prompt, Training(steps=4))
        points = table.trained(one, task, batches, every)
        ends.append(points[-1])
        assert points[-1].loss < points[0].loss
    assert np.abs(ends[0].rows - ends[1].rows).max() < 1e-5


def test_batches_show_every_example_once_a_pass(modules: Any) -> None:
    batches = modules("soft_table").batches_of(32, 16, 5, seed=1)
    assert len(batches) == 5
    assert {len(batch) for batch in batches} == {16}
    assert sorted(batches[0] + batches[1]) == list(range(32))
    assert batches[:2] != batches[2:4]


def test_who_stops_early_has_what_was_best_on_dev_by_then(modules: Any) -> None:
    table = modules("soft_table")
    curve = [
        {"step": 0, "select": 0.5, "loss": 0.7, "test": 0.51},
        {"step": 10, "select": 0.8, "loss": 0.6, "test": 0.70},
        {"step": 20, "select": 0.8, "loss": 0.5, "test": 0.72},
        {"step": 30, "select": 0.7, "loss": 0.1, "test": 0.99},
    ]
    cold, warm = ({"curve": curve, "method": method} for method in ("ours, cold", table.WARM))
    assert [table.stopped(cold, step) for step in (0, 10, 30)] == [0.51, 0.70, 0.72]
    curve[0]["select"] = 0.9  # chosen there, so it says nothing
    assert [table.stopped(cold, step) for step in (0, 10, 30)] == [0.51, 0.51, 0.51]
    assert [table.stopped(warm, step) for step in (0, 10, 30)] == [0.51, 0.70, 0.72]
    cells = {("model", "mr"): {"ours, cold": {"16-1": {**cold, "test": 0.75}}}}
    assert "| model | mr | 1 | 30 | - | - | - | 75.0 ± 0.0 | - |" in table.report(cells, 30)


def test_a_reading_text_says_what_is_asked_but_for_the_country(modules: Any) -> None:
    soft_qa = modules("soft_qa")
    text, known = soft_qa.reading(random.Random(0))
    assert set(known) == set(soft_qa.KINDS)
    assert all((answer in text) == (kind != "country") for kind, answer in known.items())
    tokenizer = soft_qa.made_tokenizer()
    ids = tokenizer(f"{text} {known['country']} {soft_qa.START}")["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(tokenizer(known["dish"])["input_ids"], skip_special_tokens=True) == known["dish"]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_both_sides_of_the_benchmark_have_the_same_loss() -> None:
    subject = make_subject("t5", "tiny")
    step = gradient_step(subject, soft.AFTER, 0, 4)
    model: Any = soft.their_trainer(subject, step, 1).model.eval()
    with torch.inference_mode():
        theirs = float(model(**soft.collated(soft.items(subject, step))).loss)
    rows = SoftRows(model.prompt_encoder["default"].embedding.weight.detach().numpy())
    slot = Piece(" ".join(step.trigger), slot=SLOT, rows=rows)
    texts = [Rendered((slot, Piece(" "), *text.before), text.after) for text in soft.plain_texts(step)]
    asked = tuple(
        GradientRequest(text, step.answers, (right,)) for text, right in zip(texts, step.right, strict=True)
    )
    loaded: Any = load_model((subject.model, subject.tokenizer))
    (reply,) = loaded.tune([TuneRequest(asked, ((0, 1, 2, 3),), Training(steps=1))])
    assert isinstance(reply, TuneReply), reply
    assert reply.losses[0] == pytest.approx(theirs, abs=1e-4)
