"""Where soft prompts begin: at texts, at tokens drawn for them, at the label words, at rows that are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autoprompt.errors import InputError, UnknownName, nearest
from autoprompt.prompt import Prompt
from autoprompt.soft import SoftRows
from autoprompt.strategies.tokensearch.board import Board, Trigger

if TYPE_CHECKING:
    from autoprompt.strategies.soft import Soft

TRIES = 100
"""Draws after which tokens that are read back as they are do not seem to exist."""
COMMON = 5000
"""Tokens that vocabulary starts are drawn from, the first of those allowed (Lester et al. 2021, section 3.2)."""


@dataclass
class Starts:
    """Makes prompts to begin training at."""

    soft: Soft
    board: Board

    def prompt(self) -> Prompt:
        """A prompt with rows in all token slots."""
        rows, texts = self._rows(), self._texts()
        trigger, prompt = self._anchored(rows, texts)
        made = {
            name: rows.get(name) or self._made(name, trigger[name], name in texts)
            for name, _ in trigger.slots
        }
        return prompt.softened(made)

    def _anchored(self, rows: Mapping[str, SoftRows], texts: Mapping[str, str]) -> tuple[Trigger, Prompt]:
        """Tokens for all slots, as many as there are to be rows, that are read back as they are: of the slots' texts, and
        drawn where a slot has none or too few.
        """
        known = {name: self._ids_of(name, text) for name, text in texts.items()}
        drawn = False
        for _ in range(TRIES):
            slots = {}
            for name, spec in self.board.specs.items():
                ids = known.get(name, [])
                wanted = rows[name].shape[0] if name in rows else self._wanted(ids, spec.n)
                slots[name] = self._fitted(name, ids, wanted, asked=name not in rows and name in known)
                drawn |= slots[name] != ids[:wanted]
            standing = self.board.standing([Trigger.of(slots)])
            if standing:
                return standing[0]
            if not drawn:
                break
        if drawn:
            raise InputError(
                "soft: no drawn tokens are read back as they are in the token slots",
                hint="put a space between the slots and what stands beside them",
            )
        raise InputError(
            f"soft: the start {self.board.prompt(Trigger.of(slots)).text!r:.200} is not read back as its tokens",
            hint="begin at a text of whole words, with spaces around the slot",
        )

    def _wanted(self, ids: Sequence[int], n: int) -> int:
        return (self.soft.length or len(ids)) if ids else n

    def _rows(self) -> dict[str, SoftRows]:
        """Rows that are given, by slot."""
        given = self._given()
        for name, rows in given.items():
            if rows.form == "prefix" and self.soft.method != "prefix":
                raise InputError(
                    f"soft: the start of slot {name!r} is keys and values, which method {self.soft.method!r} does not train",
                    hint='go on with Soft(method="prefix"), or begin at a text or at rows of embeddings',
                )
        return given

    def _given(self) -> dict[str, SoftRows]:
        start, names = self.soft.start, list(self.board.specs)
        if isinstance(start, Prompt):
            return {name: rows for name, rows in start.soft.items() if name in names}
        if isinstance(start, SoftRows):
            return {names[0]: start}
        if isinstance(start, Mapping):
            for name in start:
                if name not in names:
                    raise UnknownName(
                        f"soft: start: no token slot {name!r}{nearest(name, names)}; token slots: {', '.join(names)}"
                    )
            return dict(start)
        return {}

    def _texts(self) -> dict[str, str]:
        """Texts that are given, by slot."""
        start, names = self.soft.start, list(self.board.specs)
        own = (
            {name: text for name, text in self.board.texts.items() if text}
            if self.soft.init == "text"
            else {}
        )
        if isinstance(start, Prompt):
            found = {name: text for name, text in start.slots.items() if name in names}
            if not found:
                raise InputError(
                    f"soft: start: the prompt has none of the token slots {', '.join(names)}",
                    hint="give the text of a slot, or make a space of the prompt with soft_space",
                )
            return {**own, **found}
        return {**own, names[0]: start} if isinstance(start, str) and start else own

    def _ids_of(self, name: str, text: str) -> list[int]:
        """The tokens of a text in its slot."""
        base = self.board.base.filled({name: text})
        (found,) = self.board.vocabulary.read([base.render(self.board.probe.fields, with_slots=True)])
        if found is None:
            raise InputError(
                f"soft: start {text!r} is no whole number of tokens in slot {name!r}",
                hint="put a space between the slot and what stands beside it",
            )
        return list(found[name])

    def _fitted(self, name: str, ids: list[int], wanted: int, *, asked: bool) -> list[int]:
        """As many tokens as there are to be rows; ``asked``: whether what becomes of the others was left to ``rest``."""
        if len(ids) == wanted:
            return ids
        if asked and self.soft.rest == "error":
            raise InputError(
                f"soft: the start of slot {name!r} has {len(ids)} tokens, but {wanted} rows are wanted",
                hint="give another length, or rest='vocabulary' (fills up) or rest='cut'",
            )
        if len(ids) > wanted:
            if self.soft.rest == "cut" or not asked:
                return ids[:wanted]
            raise InputError(
                f"soft: the start of slot {name!r} has {len(ids)} tokens, more than the {wanted} rows wanted",
                hint="give another length, or rest='cut'",
            )
        common = np.flatnonzero(self.board.allowed[name])[:COMMON]
        return [*ids, *(int(each) for each in self.board.rng.choice(common, wanted - len(ids)))]

    def _made(self, name: str, ids: Sequence[int], given: bool) -> SoftRows:
        """The rows of a slot that holds these tokens."""
        vocabulary, rng = self.board.vocabulary, self.board.rng
        rows = vocabulary.rows(ids)
        if not given and self.soft.init == "random":
            rows = (vocabulary.unit * rng.standard_normal(rows.shape)).astype(np.float32)
        if not given and self.soft.init == "labels":
            means = [
                vocabulary.rows(self._ids_of(name, word)).mean(axis=0)
                for words in self.board.base.words.values()
                for word in words
            ]
            if not means:
                raise InputError("soft: init labels: the task has no label words", hint="init='vocabulary'")
            count = min(len(means), len(rows))
            rows[:count] = means[:count]
        return SoftRows(rows)
