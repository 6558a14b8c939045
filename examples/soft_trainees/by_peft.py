"""Prompt tuning by PEFT, with its rows before all tokens, on causal and masked models."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import autoprompt
from autoprompt.example import Example
from autoprompt.models.hf.encoded import Read, common_start, share_rows
from autoprompt.prompt import Rendered
from soft_trainees import Batches, Rows, Scores, words_of

SAID = {
    "sst-2": "Classify if the review is negative or positive:",
    "mr": "Classify if the review is negative or positive:",
    "agnews": "Classify the news as world, sports, business or technology:",
}
"""What rows begin as where a text is asked for, in the words of PEFT's guide."""


@dataclass(frozen=True)
class Setting:
    """One of PEFT's: how rows begin, AdamW's rate, and whether it falls linearly to 0."""

    init: str
    lr: float
    linear: bool = True


DEFAULT = Setting("RANDOM", 1e-3, linear=False)
DOCUMENTED = (
    Setting("SAMPLE_VOCAB", 1e-3),
    Setting("SAMPLE_VOCAB", 1e-2),
    Setting("SAMPLE_VOCAB", 3e-2),
    Setting("TEXT", 3e-2),
)
"""Of PEFT's comparison of methods the first, of its guide for prompt tuning the last, and what lies between."""


@dataclass(frozen=True)
class Line:
    """An example as ids: the rows the model reads, and where each label word's tokens are looked up in them."""

    rows: tuple[tuple[int, ...], ...]
    reads: tuple[Read, ...]


class Base:
    """A transformers model and the texts of a task as it reads them, for PEFT.

    Args:
        folder: of the model.
        task: its manual prompt is the text.
        n: rows that must find room before it.
    """

    def __init__(self, folder: Path, task: autoprompt.Task, n: int) -> None:
        config = transformers.AutoConfig.from_pretrained(folder)
        self.folder, self.task, self.n = folder, task, n
        self.masked = "MaskedLM" in config.architectures[0]
        kind = transformers.AutoModelForMaskedLM if self.masked else transformers.AutoModelForCausalLM
        self.model: Any = kind.from_pretrained(folder).eval()
        self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
        self._room = config.max_position_embeddings - n
        self._lines: dict[str, Line] = {}

    def lines(self, examples: Sequence[Example]) -> list[Line]:
        """Their texts, shortened by the last words where they are too long."""
        new = [each for each in examples if each.id not in self._lines]
        self._lines.update((each.id, self._line(each)) for each in new)
        return [self._lines[each.id] for each in examples]

    def _line(self, example: Example) -> Line:
        fields = dict(example.fields)
        while True:
            rendered = self.task.seed_prompt.render(fields)
            line = self._masked(rendered) if self.masked else self._causal(rendered)
            if max(map(len, line.rows)) <= self._room:
                return line
            fields["text"] = fields["text"].rpartition(" ")[0]

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text)["input_ids"])

    def _masked(self, rendered: Rendered) -> Line:
        row = self._ids(rendered.text(self._tokenizer.mask_token))
        place = row.index(self._tokenizer.mask_token_id)
        words = [self._ids(rendered.text(word))[place] for word in words_of(self.task)]
        return Line((row,), tuple(Read(0, place, (word,)) for word in words))

    def _causal(self, rendered: Rendered) -> Line:
        before = "".join(piece.text for piece in rendered.before)
        wholes = [self._ids(before + word) for word in words_of(self.task)]
        return Line(*share_rows(wholes, common_start(self._ids(before.rstrip()), wholes)))


class PeftTrainee:
    """Rows trained by PEFT's prompt tuning.

    Args:
        base: the model and its texts.
        setting: how.
        steps: of the whole training, which the rate falls over.
        seed: of the rows and of dropout.
    """

    def __init__(self, base: Base, setting: Setting, steps: int, seed: int) -> None:
        peft: Any = importlib.import_module("peft")
        config = peft.PromptTuningConfig(
            task_type="FEATURE_EXTRACTION" if base.masked else "CAUSAL_LM",
            num_virtual_tokens=base.n,
            prompt_tuning_init=setting.init,
            prompt_tuning_init_text=SAID[base.task.name.rpartition("-16-")[0]]
            if setting.init == "TEXT"
            else None,
            tokenizer_name_or_path=str(base.folder) if setting.init == "TEXT" else None,
        )
        self._base, self._seed, self._done = base, seed, 0
        with drawing_from(seed):
            self._model: Any = peft.get_peft_model(base.model, config)
        self._weight: torch.nn.Parameter = self._model.prompt_encoder["default"].embedding.weight
        self._optimizer = torch.optim.AdamW([self._weight], lr=setting.lr)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: 1 - step / steps if setting.linear else 1.0
        )

    @property
    def rows(self) -> Rows:
        """[n, D]."""
        return np.array(self._weight.detach().numpy())

    @rows.setter
    def rows(self, rows: Rows) -> None:
        with torch.no_grad():
            self._weight.copy_(torch.from_numpy(rows))

    def train(self, batches: Batches) -> None:
        """As a Trainee does."""
        examples, labels = self._base.task.train, list(self._base.task.words)
        self._model.train()
        with drawing_from(self._seed + 1000 * self._done):
            for batch in batches:
                right = torch.tensor([labels.index(examples[at].target) for at in batch])
                scores = self._forward(self._base.lines([examples[at] for at in batch]))
                loss = torch.nn.functional.cross_entropy(scores, right)
                self._optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self._optimizer.step()
                self._schedule.step()
        self._done += len(batches)
        self._model.eval()

    def scores(self, examples: Sequence[Example]) -> Scores:
        """As a Trainee does."""
        lines = self._base.lines(examples)
        order = sorted(range(len(lines)), key=lambda at: len(lines[at].rows[0]))
        found = np.empty((len(lines), len(self._base.task.words)))
        for start in range(0, len(order), 32):
            some = order[start : start + 32]
            with torch.inference_mode():
                found[some] = self._forward([lines[at] for at in some]).numpy()
        return found

    def _forward(self, lines: Sequence[Line]) -> torch.Tensor:
        """[N, C]; the output layer is run where answers are read alone, which changes no number."""
        ids = [torch.tensor(row) for line in lines for row in line.rows]
        row, at, target, owner = [], [], [], []
        first = 0
        for number, line in enumerate(lines):
            for word, read in enumerate(line.reads):
                for offset, token in enumerate(read.targets):
                    row.append(first + read.row)
                    at.append(self._base.n + read.start + offset)
                    target.append(token)
                    owner.append(number * len(line.reads) + word)
            first += len(line.rows)
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(each) for each in ids], batch_first=True)
        with only_at(self._base.model.get_output_embeddings(), row, at):
            logits = self._model(input_ids=padded, attention_mask=mask).logits
        logs = torch.log_softmax(logits, -1)[torch.arange(len(target)), target]
        size = len(lines) * len(lines[0].reads)
        return torch.zeros(size).index_add(0, torch.tensor(owner), logs).view(len(lines), -1)


@contextlib.contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Inside the block, torch draws from this seed; what others draw is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def only_at(layer: torch.nn.Module, rows: Sequence[int], places: Sequence[int]) -> Iterator[None]:
    """Inside the block, the output layer gives [K, V] for K places instead of [R, T, V]."""

    def keep(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (given[0][rows, places],)

    hook = layer.register_forward_pre_hook(keep)
    try:
        yield
    finally:
        hook.remove()
