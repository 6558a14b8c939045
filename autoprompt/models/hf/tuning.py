"""Training of rows that stand in texts in place of tokens; the weights of the model stay as they are.

Several prompts are trained in one batch: each has rows of its own, and rows are read by ids of their own. Texts are
cut into tokens once a request; what stands before the rows is run once where the family allows it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import safetensors.torch
import torch

from autoprompt.errors import LabelWordError, TemplateError
from autoprompt.models import Failure, TuneReply, TuneRequest
from autoprompt.models.hf.carriers import Carrier, Plain, carrier_of, restored
from autoprompt.models.hf.gradient import Gradients, Run, differentiable, losses, parts
from autoprompt.models.hf.input_table import InputTable
from autoprompt.models.hf.optimizers import State, rate, update
from autoprompt.models.hf.prefixes import Prefixes
from autoprompt.models.hf.slots import Slotted, batch_of
from autoprompt.models.hf.soft import as_prefixes, check_place
from autoprompt.policy import TokenPolicy
from autoprompt.soft import Form, Method, SoftRows, Training

# Share of the learning rate at which keys and values move. Begun at a text, 60 steps on bundled:causal and `reviews`: 0.02
# and 0.1 of their root mean squares a step gave 77 % on select, 0.5, as is best for rows of embeddings, 66 %.
_PREFIX_PACE = 0.1
Allowed = Callable[[TokenPolicy], torch.Tensor]
"""A policy to the ids [A] of the tokens it allows."""


@dataclass
class _Training:
    """One request in training.

    Attributes:
        request: what was asked.
        texts: its texts as ids, their rows numbered from ``first``.
        carriers: slot to what is trained.
        starts: slot to [L, D] the rows it began at.
        states: (slot, parameter) to the optimiser's state.
        losses: of the steps so far.
        tokens: read so far.
        problem: why it cannot go on.
    """

    request: TuneRequest
    texts: list[Slotted]
    carriers: dict[str, Carrier]
    starts: dict[str, torch.Tensor]
    states: dict[tuple[str, str], State]
    losses: list[float]
    tokens: int = 0
    problem: str = ""

    def progress(self, step: int) -> float:
        """How far the whole training is at a step of this request, from 0 to 1."""
        return min(1.0, (self.request.done + step) / max(1, self.request.training.steps - 1))

    def stop(self, step: int) -> None:
        """It has left the finite numbers at a step of this request."""
        self.problem = (
            f"step {self.request.done + step + 1}: the loss, its gradient or the rows are no finite numbers "
            f"(lr {self.request.training.lr}; lower it)"
        )


class Tuner:
    """Answers tune requests about one model.

    Args:
        model: the transformers model.
        table: its input embeddings.
        prefixes: makes its keys and values, where it has such as can be trained.
        gradients: turns texts into ids, and runs batches.
        allowed: the tokens a policy allows.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        table: InputTable,
        prefixes: Callable[[], Prefixes],
        gradients: Gradients,
        allowed: Allowed,
    ) -> None:
        self._model, self._table, self._prefixes = model, table, prefixes
        self._gradients, self._allowed = gradients, allowed
        self._unit = table.unit

    def replies(self, requests: Sequence[TuneRequest], batch_tokens: int) -> list[TuneReply | Failure]:
        """One reply a request, in order; those with equally many steps are trained side by side.

        Args:
            requests: what to train.
            batch_tokens: padded tokens run together where there is no way back.
        """
        # runs that remember nothing of other calls: a training that is resumed must be what it was, to the last digit
        runs: dict[bool, Run] = {}
        replies: dict[int, TuneReply | Failure] = {}
        groups: dict[tuple[int, bool], list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault((len(request.batches), request.training.method == "prefix"), []).append(index)
        for (steps, prefixed), indices in groups.items():
            if prefixed not in runs:
                runs[prefixed] = self._gradients.run_with(self._prefixes() if prefixed else self._table)
            run = runs[prefixed]
            with torch.inference_mode(False):
                trained = self._begun([requests[index] for index in indices], indices, replies)
                with torch.enable_grad(), differentiable(self._model):
                    for step in range(steps):
                        self._step(list(trained.values()), step, run, batch_tokens)
                for index, training in trained.items():
                    replies[index] = _reply(training, steps)
        return [replies[index] for index in range(len(requests))]

    def _begun(
        self, requests: Sequence[TuneRequest], indices: Sequence[int], replies: dict[int, TuneReply | Failure]
    ) -> dict[int, _Training]:
        """The requests that can be read, with their carriers; the others' failures go to ``replies``."""
        found: dict[int, _Training] = {}
        first = 0
        for index, request in zip(indices, requests, strict=True):
            try:
                ids, texts = self._gradients.slotted(request.texts)
                _check_rows(ids, request.texts[0].rendered.soft, request.training.method)
                if request.training.method == "prefix":
                    check_place(ids, request.texts[0].rendered.soft, texts, self._gradients.kind)
            except (TemplateError, LabelWordError) as error:
                replies[index] = Failure(str(error))
                continue
            texts = [dataclasses.replace(each, first=first) for each in texts]
            first += sum(map(len, ids.values()))
            found[index] = self._carried(request, list(ids), texts)
        return found

    def _carried(self, request: TuneRequest, names: Sequence[str], texts: list[Slotted]) -> _Training:
        """A request at its beginning, or where its state left it."""
        training, soft = request.training, request.texts[0].rendered.soft
        stored = _opened(request.state, self._table.weight.device)
        carriers: dict[str, Carrier] = {}
        states = {}
        starts = {name: stored[f"{name}/start"] for name in names if f"{name}/start" in stored}
        if not starts:
            starts = self._begin({name: soft[name] for name in names}, texts, training)
        policies = dict(request.policies)
        for number, name in enumerate(names):
            seed = 1009 * training.seed + number
            tokens = self._tokens(policies[name]) if training.discrete else None
            if training.method == "prefix":
                carriers[name] = Plain(training, starts[name], self._prefixes().unit, pace=_PREFIX_PACE)
            else:
                carriers[name] = carrier_of(training, starts[name], self._unit, tokens, seed)
            for each in carriers[name].parameters:
                states[name, each] = _taken(stored, f"{name}/{each}/")
            if request.state:
                restored(carriers[name], _taken(stored, f"{name}="))
        read = 0 if request.batches else sum(each.encoded.tokens for each in texts)
        return _Training(request, texts, carriers, starts, states, [], read)

    def _begin(
        self, soft: Mapping[str, SoftRows], texts: Sequence[Slotted], training: Training
    ) -> dict[str, torch.Tensor]:
        """Slot to the rows that training begins at."""
        if training.method == "prefix":
            return as_prefixes(self._table, self._prefixes(), soft, texts, self._gradients.kind)
        return {name: self._table.tensor(rows) for name, rows in soft.items()}

    def _tokens(self, policy: TokenPolicy) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids [A] and embeddings [A, D] of the tokens a policy allows."""
        ids = self._allowed(policy).to(self._table.weight.device)
        return ids, self._table.embedded(ids.tolist())

    def _step(self, trained: Sequence[_Training], step: int, run: Run, bound: int) -> None:
        """One step of every training that can go on."""
        live = [each for each in trained if not each.problem]
        if not live:
            return
        rows = [
            carrier.rows(each.progress(step)) for each in trained for carrier in each.carriers.values()
        ]  # of all, since their numbers are fixed
        given = torch.cat(rows).detach().requires_grad_()
        total = torch.zeros_like(given)
        found: dict[int, torch.Tensor] = {}
        batch, weights, owner = self._batch(live, step)
        for part in parts(batch, bound, from_slots=self._gradients.from_slots):
            made = batch_of(part, len(self._table.weight))
            loss = losses(part, made, self._gradients.head, run(made, given))
            weight = torch.tensor([weights[id(each)] for each in part], device=loss.device)
            total += torch.autograd.grad((loss * weight).sum(), given)[0]
            for each, value in zip(part, (loss.detach() * weight), strict=True):
                at = owner[id(each)]
                found[at] = found.get(at, torch.zeros(())) + value.cpu()
        sizes = [sum(map(len, each.starts.values())) for each in trained]
        gradients = {id(each): some for each, some in zip(trained, torch.split(total, sizes), strict=True)}
        for number, training in enumerate(live):
            training.losses.append(float(found[number]))
            self._moved(training, gradients[id(training)], step)

    def _batch(
        self, live: Sequence[_Training], step: int
    ) -> tuple[list[Slotted], dict[int, float], dict[int, int]]:
        """The texts of a step, by identity how much each weighs in its prompt's loss, and whose it is."""
        batch: list[Slotted] = []
        weights: dict[int, float] = {}
        owner: dict[int, int] = {}
        for number, each in enumerate(live):
            indices = each.request.batches[step]
            for index in dict.fromkeys(indices):
                text = each.texts[index]
                batch.append(text)
                weights[id(text)] = indices.count(index) / len(indices)
                owner[id(text)] = number
                each.tokens += indices.count(index) * text.encoded.tokens
        return batch, weights, owner

    def _moved(self, each: _Training, gradient: torch.Tensor, step: int) -> None:
        """Lead a prompt's gradient [L, D] by its rows back to what is trained, and move that."""
        training, progress = each.request.training, each.progress(step)
        rows = torch.cat([carrier.rows(progress) for carrier in each.carriers.values()])
        aim = (rows * gradient).sum()
        for carrier in each.carriers.values():
            penalty = carrier.penalty(progress)
            aim = aim if penalty is None else aim + penalty
        named = {
            (name, key): parameter
            for name, carrier in each.carriers.items()
            for key, parameter in carrier.parameters.items()
        }
        slopes = torch.autograd.grad(aim, list(named.values()))
        norm = math.sqrt(sum(float(slope.square().sum()) for slope in slopes))
        if not (math.isfinite(norm) and math.isfinite(each.losses[-1])):
            each.stop(step)
            return
        scale = min(1.0, training.clip / norm) if training.clip and norm else 1.0
        lr = rate(training, each.request.done + step)
        with torch.no_grad():
            for (where, parameter), slope in zip(named.items(), slopes, strict=True):
                pace = each.carriers[where[0]].pace.get(where[1], 1.0)
                each.states[where] = update(
                    training.optimizer, parameter, scale * slope, each.states[where], pace * lr
                )
        for carrier in each.carriers.values():
            carrier.settle(progress, lr, each.request.done + step)
        if not all(bool(parameter.isfinite().all()) for parameter in named.values()):
            each.stop(step)


def _reply(each: _Training, steps: int) -> TuneReply | Failure:
    if each.problem:
        return Failure(each.problem)
    rows, ids, stored = {}, {}, {}
    for name, carrier in each.carriers.items():
        form: Form = "prefix" if each.request.training.method == "prefix" else "embeddings"
        rows[name] = SoftRows(carrier.rows(each.progress(steps)).detach().cpu().numpy(), form)
        tokens = carrier.ids()
        if tokens is not None:
            ids[name] = tokens
        stored[f"{name}/start"] = each.starts[name]
        for key, parameter in carrier.parameters.items():
            stored[f"{name}={key}"] = parameter.detach()
            stored |= {f"{name}/{key}/{part}": value for part, value in each.states[name, key].items()}
    state = safetensors.torch.save({key: value.cpu().contiguous() for key, value in stored.items()})
    return TuneReply(rows, ids, tuple(each.losses), state, each.tokens)


def _check_rows(ids: Mapping[str, Sequence[int]], soft: Mapping[str, SoftRows], method: Method) -> None:
    """See that every slot holds as many rows as its text has tokens, of a form that the method trains."""
    for name, each in ids.items():
        count = len(soft[name]) if name in soft else 0
        if count != len(each):
            raise TemplateError(
                f"slot {name!r}: its text is read as {len(each)} tokens here, but it holds {count} rows",
                hint="give every slot that is trained as many rows as its text has tokens",
            )
        if soft[name].form == "prefix" and method != "prefix":
            raise TemplateError(
                f"slot {name!r}: holds keys and values, which method {method!r} does not train",
                hint='train them with method="prefix"',
            )


def _opened(state: bytes, device: torch.device) -> Mapping[str, torch.Tensor]:
    stored = safetensors.torch.load(state) if state else {}
    return {key: value.to(device) for key, value in stored.items()}


def _taken(stored: Mapping[str, torch.Tensor], start: str) -> State:
    """What is stored under names with this beginning, without it."""
    return {key.removeprefix(start): value for key, value in stored.items() if key.startswith(start)}
