"""Prompt tuning by us, with the rows wherever the prompt's slot stands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import autoprompt
from autoprompt.example import Example
from autoprompt.models import Failure, GradientRequest, LabelReply, LabelRequest, TunableModel, TuneRequest
from autoprompt.prompt import Prompt
from autoprompt.soft import SoftRows, Training
from soft_trainees import Batches, Rows, Scores


class OurTrainee:
    """Rows trained by us.

    Args:
        model: who is asked.
        task: whose examples.
        prompt: its token slots hold as many tokens as there are rows, which training starts from. The label words are its
            own.
        training: how.
    """

    def __init__(
        self, model: TunableModel, task: autoprompt.Task, prompt: Prompt, training: Training
    ) -> None:
        self._model, self._task, self._prompt, self._training = model, task, prompt, training
        (read,) = model.vocabulary.read([prompt.render(task.train[0].fields, with_slots=True)])
        assert read is not None
        self._lengths = {name: len(ids) for name, ids in read.items()}
        self.rows: Rows = np.concatenate([model.vocabulary.rows(ids) for ids in read.values()])
        self._words = tuple(prompt.words[label][0] for label in task.labels)
        self._done, self._state = 0, b""

    def _soft(self) -> Prompt:
        ends = np.cumsum(list(self._lengths.values()))[:-1]
        parts = np.split(self.rows, ends)
        return self._prompt.softened(
            {name: SoftRows(rows) for name, rows in zip(self._lengths, parts, strict=True)}
        )

    def train(self, batches: Batches) -> None:
        """As a Trainee does."""
        words, labels, prompt = self._words, list(self._task.labels), self._soft()
        texts = tuple(
            GradientRequest(
                prompt.render(each.fields), words, (labels.index(each.target),), among_answers=True
            )
            for each in self._task.train
        )
        asked = TuneRequest(texts, tuple(batches), self._training, self._done, self._state)
        (reply,) = self._model.tune([asked])
        if isinstance(reply, Failure):
            raise RuntimeError(reply.message)
        self.rows = np.concatenate([reply.rows[name].values for name in self._lengths])
        self._state = reply.state
        self._done += len(batches)

    def scores(self, examples: Sequence[Example]) -> Scores:
        """As a Trainee does."""
        prompt, words = self._soft(), self._words
        asked = [LabelRequest(prompt.render(each.fields), words, relative=True) for each in examples]
        found = np.empty((len(asked), len(words)))
        for batch in self._model.batches(asked):
            for at, reply in zip(batch, self._model.logprobs([asked[at] for at in batch]), strict=True):
                if not isinstance(reply, LabelReply):
                    raise RuntimeError(reply.message)
                found[at] = reply.log_probs
        return found
