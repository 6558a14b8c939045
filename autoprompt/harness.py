"""The one place that spends: it answers asks within a budget.

Render, key, deduplicate, charge, look up, batch, run, store, grade. Charging comes before the work and counts
each distinct question once a run, wherever its answer comes from, so that a cached, a resumed and a fresh run
are the same run. Batches are cut from all questions that are new in this run, cached or not, and run whole,
so that a resumed run computes exactly the numbers it would have computed; an answer that is stored already
stands.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Container, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from autoprompt.asks import Answer, Ask, Complete, Floats, Score, Scored, Tune
from autoprompt.budget import Budget, Meter
from autoprompt.cache import Cache
from autoprompt.errors import TooManyFailures
from autoprompt.grading import MISSING, Grade, grade, sound
from autoprompt.metrics import METRICS, mean
from autoprompt.models import (
    Failure,
    Model,
    Reply,
    Request,
    TuneRequest,
)
from autoprompt.prompt import Prompt
from autoprompt.questions import OtherAnswers, OtherAsk, Question, count_tokens, score_questions
from autoprompt.space import demo_ids
from autoprompt.task import Example, Task
from autoprompt.workers import answer_batches

RETRIES = 2
MISSING_LIMIT = 0.2
"""Share of missing answers above which a run cannot declare a winner."""


@dataclass(frozen=True)
class _Entry:
    """One ask of a round, paid for: its questions, those that are new in the run, and their tokens where
    counted.
    """

    ask: Ask
    asked: list[Question]
    fresh: dict[str, Question]
    tokens: int

    @property
    def calls(self) -> int:
        """What the new questions are charged as."""
        return sum(question.calls for question in self.fresh.values())


@dataclass
class Harness:
    """Answers asks about prompts for one task and one model.

    Attributes:
        task: what is measured.
        model: who answers.
        budget: what may be spent; None for no limit (the final measurement).
        cache: where answers are kept.
        source: what the user gave as the model; worker processes load theirs from it.
        workers: number of processes a round is spread over.
        account: what the model's seconds are booked on.
        on_batch: called after each batch with (questions done, questions of the round).
        meter: what was spent.
        exhausted: whether an ask did not fit into the budget any more.
        shortened: distinct questions whose example had to be shortened to fit the model.
        missing: distinct questions without an answer.
        failure: the last failure's message.
        strays: what the model wrote where no answer was found in it, by the key of the question.
        reads_train: whether train rows were read: shown in prompts, trained on, or by a model that writes prompts.
    """

    task: Task
    model: Model
    budget: Budget | None
    cache: Cache
    source: object = None
    workers: int = 1
    account: Literal["search", "test"] = "search"
    on_batch: Callable[[int, int], None] | None = None
    meter: Meter = field(default_factory=Meter)
    exhausted: bool = False
    shortened: int = 0
    missing: int = 0
    retries: int = 0
    """Questions asked again after a failure; a question is charged once however often it is asked."""
    failure: str = ""
    strays: dict[str, str] = field(default_factory=dict, repr=False)
    reads_train: bool = False
    _replies: dict[str, Reply] = field(default_factory=dict, repr=False)
    _others: OtherAnswers = field(init=False, repr=False)
    _asked: int = 0
    _fingerprint: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Take over the seconds that earlier sessions of the run used."""
        self._fingerprint = self.model.fingerprint
        self._others = OtherAnswers(self.task, self.model)
        self.meter.seconds = self.cache.seconds(self.account)

    def scores(self, asks: Sequence[Score]) -> list[Scored]:
        """``answer`` for scores alone."""
        return [each for each in self.answer(asks) if isinstance(each, Scored)]

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer the asks in order, as many as fit into the budget.

        The first ask that does not fit ends the round and sets ``exhausted``: an ask is answered whole or not
        at all. When the time runs out within a round, the asks from the first unfinished one on are not
        answered and not charged.

        Raises:
            TooManyFailures: more than ``MISSING_LIMIT`` of all answers so far are missing.
        """
        entries: list[_Entry] = []
        new: dict[str, Question] = {}
        for ask in asks:
            asked = self._questions(ask)
            fresh = self._fresh(asked, new)
            tokens = self._charge(fresh)
            if tokens is None:
                self.exhausted = True
                break
            new.update(fresh)
            self.reads_train |= not isinstance(ask, Score) or bool(demo_ids(ask.prompt))
            entries.append(_Entry(ask, asked, fresh, tokens))
        known = self._run(list(new.values()))
        self._run_others(entries, known)
        answered = list(
            itertools.takewhile(lambda entry: all(key in self._replies for key in entry.fresh), entries)
        )
        for entry in entries[len(answered) :]:
            self.meter.calls -= entry.calls
            self.meter.tokens -= entry.tokens
        for entry in answered:
            self._book(entry, known)
        self._check_failures()
        return [self._answer(entry) for entry in answered]

    def _questions(self, ask: Ask) -> list[Question]:
        if isinstance(ask, Score):
            return score_questions(self.task, self.model, self._fingerprint, ask)
        return self._others.questions(ask)

    def _fresh(self, asked: Sequence[Question], new: Container[str]) -> dict[str, Question]:
        """Questions of one ask that were not asked before in this run, calibration's own included."""
        fresh: dict[str, Question] = {}
        for question in asked:
            for item in (question, question.blank):
                if item is not None and item.key not in self._replies and item.key not in new:
                    fresh.setdefault(item.key, item)
        return fresh

    def _charge(self, fresh: dict[str, Question]) -> int | None:
        """Charge the questions if they fit, before any work; None if they do not.

        Returns the tokens charged: a budget of tokens needs them counted first, else they are read off the
        replies. When the time is up, only what is in the cache fits, so that a resumed run gets as far as it
        got.
        """
        tokens = 0
        calls = sum(question.calls for question in fresh.values())
        if self.budget is not None and fresh:
            if self.budget.tokens is not None:
                tokens = count_tokens(self.model, list(fresh.values()))
            if not self.meter.fits(self.budget, calls, tokens):
                return None
            if self._is_late() and len(self._kept(list(fresh))) < len(fresh):
                return None
        self.meter.calls += calls
        self.meter.tokens += tokens
        return tokens

    def _run(self, questions: list[Question]) -> set[str]:
        """Get a reply for every new question about scores, from the cache or the model; return the keys that were
        in the cache.
        """
        new: list[Question] = []
        requests: list[Request] = []
        for question in questions:
            if question.judge is None and not isinstance(question.request, (tuple, TuneRequest)):
                new.append(question)
                requests.append(question.request)
        known = self._kept([question.key for question in new])
        self._replies.update(known)
        batches = self.model.batches(requests) if requests else []
        waiting = [batch for batch in batches if any(new[index].key not in known for index in batch)]
        done = len(requests) - sum(map(len, waiting))
        start = time.perf_counter()
        with contextlib.closing(self._answers(waiting, requests)) as answers:
            for batch, replies in zip(waiting, answers, strict=True):
                replies = self._retried([requests[index] for index in batch], replies)
                keyed = {new[index].key: reply for index, reply in zip(batch, replies, strict=True)}
                keyed = {key: reply for key, reply in keyed.items() if key not in known}
                now = time.perf_counter()
                self.cache.put(keyed, account=self.account, seconds=now - start)
                self.meter.seconds += now - start
                start = now
                self._replies.update(keyed)
                done += len(batch)
                if self.on_batch is not None:
                    self.on_batch(done, len(requests))
                if self._is_late():
                    self.exhausted = True
                    break
        return set(known)

    def _is_late(self) -> bool:
        """Whether the time is up."""
        return self.budget is not None and self.meter.out_of_time(self.budget)

    def _kept(self, keys: Sequence[str]) -> Mapping[str, Reply]:
        """What the cache holds; when the time is up what failed, too, which there is no time to ask again."""
        return self.cache.get(keys, failures=self._is_late())

    def _run_others(self, entries: Sequence[_Entry], known: set[str]) -> None:
        """Get a reply for every new question that is about no score, ask by ask; trainings that follow each other
        together, and texts that the same model writes.
        """
        others = [entry for entry in entries if not isinstance(entry.ask, Score)]
        for kind, group in itertools.groupby(others, key=lambda entry: _together(entry.ask)):
            some = list(group)
            for part in [some] if kind else [[entry] for entry in some]:
                if not self._run_together(part, known):
                    return

    def _run_together(self, entries: Sequence[_Entry], known: set[str]) -> bool:
        """Get the replies for asks of one kind; False where the time is up."""
        fresh = {key: question for entry in entries for key, question in entry.fresh.items()}
        new = [question for key, question in fresh.items() if key not in self._replies]
        if not new:
            return True
        ask = entries[0].ask
        assert not isinstance(ask, Score)
        stored = self.cache.get([question.key for question in new])
        known.update(stored)
        self._replies.update(stored)
        waiting = [question for question in new if question.key not in stored]
        if waiting and self.budget is not None and self.meter.out_of_time(self.budget):
            self.exhausted = True
            return False
        start = time.perf_counter()
        replies = self._replied(ask, new, stored) if waiting else {}
        seconds = time.perf_counter() - start
        self.cache.put(replies, account=self.account, seconds=seconds)
        self.meter.seconds += seconds
        self._replies.update(replies)
        return True

    def _replied(
        self, ask: OtherAsk, questions: Sequence[Question], known: Container[str]
    ) -> dict[str, Reply]:
        """Replies to the questions that are not known; what could not be written is asked for again, as scores are."""
        replies = self._others.replies(ask, questions, known)
        writer = questions[0].judge if isinstance(ask, Complete) else None
        for _ in range(0 if writer is None or writer.deterministic else RETRIES):
            failed = [each for each in questions if isinstance(replies.get(each.key), Failure)]
            if not failed:
                break
            self.retries += len(failed)
            replies |= self._others.replies(ask, failed)
        return replies

    def _answers(
        self, batches: Sequence[Sequence[int]], requests: Sequence[Request]
    ) -> Generator[list[Reply], None, None]:
        parts = [[requests[index] for index in batch] for batch in batches]
        return answer_batches(self.model, self.source, parts, self.workers)

    def _retried(self, requests: list[Request], replies: list[Reply]) -> list[Reply]:
        """Ask again, a bounded number of times, for what failed; deterministic models would only fail
        again.
        """
        replies = sound(self.model, requests, replies)
        for _ in range(0 if self.model.deterministic else RETRIES):
            failed = [index for index, reply in enumerate(replies) if isinstance(reply, Failure)]
            if not failed:
                break
            self.retries += len(failed)
            asked = [requests[index] for index in failed]
            again = next(answer_batches(self.model, self.source, [asked], 1))
            for index, reply in zip(failed, sound(self.model, asked, again), strict=True):
                replies[index] = reply
        return replies

    def _book(self, entry: _Entry, known: Container[str]) -> None:
        """Count what came back for the questions that an answered ask paid for."""
        for key, question in entry.fresh.items():
            reply = self._replies[key]
            self.meter.cached += question.calls * (key in known)
            if isinstance(reply, Failure):
                continue
            self.shortened += reply.shortened > 0
            if self.budget is None or self.budget.tokens is None:
                self.meter.tokens += question.weight * reply.tokens
        if not isinstance(entry.ask, Score):
            return
        for question in {item.key: item for item in entry.asked if item.key in entry.fresh}.values():
            self._asked += 1
            for item in (question, question.blank):
                given = self._replies[item.key] if item is not None else None
                if isinstance(given, Failure):
                    self.missing += 1
                    self.failure = given.message
                    break

    def _check_failures(self) -> None:
        if self._asked and self.missing / self._asked > MISSING_LIMIT:
            raise TooManyFailures(
                f"{self.missing} of {self._asked} answers are missing (limit {MISSING_LIMIT:.0%}), "
                f"so no winner can be declared; last failure: {self.failure}",
                hint="mend the model or server, then repeat the same call on the same run folder",
            )

    def _answer(self, entry: _Entry) -> Answer:
        if isinstance(entry.ask, Score):
            return self._scored(entry.ask, entry.asked)
        return self._others.answer(entry.ask, [self._replies[question.key] for question in entry.asked])

    def _scored(self, ask: Score, asked: Sequence[Question]) -> Scored:
        grades = [
            self._grade(ask.prompt, example, question)
            for example, question in zip(ask.examples, asked, strict=True)
        ]
        read = [item.tokens for item in grades if item.prediction is not None]
        scores = np.array([item.score for item in grades])
        predictions = tuple(item.prediction for item in grades)
        for question, item in zip(asked, grades, strict=True):
            if item.stray is not None:
                self.strays[question.key] = item.stray
        over_set = METRICS[self.task.metric].over_set
        targets = [example.target for example in ask.examples]
        return Scored(
            scores=scores,
            losses=np.array([item.loss for item in grades]),
            predictions=predictions,
            tokens=float(np.mean(read)) if read else 0.0,
            value=None if over_set is mean else over_set(targets, predictions, scores),
            log_probs=_label_log_probs(grades),
        )

    def _grade(self, prompt: Prompt, example: Example, question: Question) -> Grade:
        reply = self._replies[question.key]
        blank = self._replies[question.blank.key] if question.blank is not None else None
        return MISSING if isinstance(reply, Failure) else grade(self.task, prompt, example, reply, blank)


def _together(ask: Ask) -> str:
    """What asks of one kind that run side by side have in common; empty where each runs alone."""
    if isinstance(ask, Tune):
        return "tune"
    return f"complete {ask.model}" if isinstance(ask, Complete) else ""


def _label_log_probs(grades: Sequence[Grade]) -> Floats | None:
    """[N, C], NaN where missing; None where no grade tells."""
    width = max((len(each.log_probs) for each in grades), default=0)
    if not width:
        return None
    return np.array([each.log_probs or (math.nan,) * width for each in grades])
