"""Propose: a language model writes new texts for the slots that are open to models, and they compete like any others.

Opt-in, and bounded twice: by the budget of the run, in which a text costs a call, and by ``proposals``. What a model writes
is data. It must hold the brackets of the slot's options, be no longer than the slot allows, hold no template code, and
repeat no example (``proposing/guards.py``); what does not is dropped and counted. Models read examples of train and of
train only: from select they learn nothing but how well texts did as a whole.

Where it stands among its like: GEPA accepts on 3 examples, here a text is scored on all of select, or raced by
``Racing(inner=Propose())``; OPRO and ProTeGi score on test or on what they show; none of them refuses copies.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autoprompt.asks import Answer, Ask, Complete, Completed, Score, Scored
from autoprompt.errors import InputError, nearest
from autoprompt.prompt import Prompt
from autoprompt.space import FixedChooser, RandomChooser
from autoprompt.strategies import Play, Played, Setting
from autoprompt.strategies.proposing.guards import Copies, fitted, marks_of, refusal
from autoprompt.strategies.proposing.methods import METHODS, Brief, drawn_answers, drawn_examples
from autoprompt.strategies.proposing.pool import Member, Turn, Turns, best, pareto_parent
from autoprompt.strategies.proposing.reading import proposed
from autoprompt.task import Example

DRAWS = 100
"""Prompts drawn to find one with an open slot in it, where the space's default has none."""
HISTORY = 8
"""Texts shown with their scores."""
START_SHARE = 0.25
"""Of the calls, what the slots' own options may take."""
NOTHING = "nothing came"
KNOWN = "tried before"
UNFIT = "makes no valid prompt"


@dataclass(kw_only=True)
class Propose(Played):
    """Lets a model write texts for open slots (``llm:`` in the space file); the other slots stay as they are.

    A round deals ``breadth`` turns out to the methods (see ``pool.Turns``), lets the model write, drops what may not stand,
    and scores the rest on select. A prompt that beats the one it came from joins the pool, from which ``reflect`` draws its
    parents by the examples they are best on and the other methods take the best.

    Attributes:
        model: who writes: a local model or a server, by name; empty: the model that is being prompted.
        methods: of ``induce`` (from inputs and outputs), ``history`` (from scored texts), ``critique`` (reasons for
            mistakes, then a new text), ``reflect`` (answers with feedback), ``paraphrase``.
        rounds: most rounds.
        breadth: texts a round; fewer where the budget would not pay for scoring them.
        proposals: texts the model may be asked for in the whole run; a critique takes two.
        temperature: at 0 a model says the same whenever it is asked the same.
        max_tokens: most tokens of a text.
        shown: examples shown at a time; halved for a method whenever nothing comes back, as from a model that reads only
            short texts.
        sample: examples of train on which a prompt's mistakes are looked for.
    """

    model: str = ""
    methods: tuple[str, ...] = ("induce", "history", "critique", "reflect", "paraphrase")
    rounds: int = 12
    breadth: int = 6
    proposals: int = 64
    temperature: float = 0.8
    max_tokens: int = 120
    shown: int = 5
    sample: int = 24
    _pool: list[Member] = field(init=False, repr=False, compare=False, default_factory=list)
    _turns: Turns = field(init=False, repr=False, compare=False, default_factory=lambda: Turns(()))
    _asked: int = field(init=False, repr=False, compare=False, default=0)
    _wrote: int = field(init=False, repr=False, compare=False, default=0)
    _refused: Counter[str] = field(init=False, repr=False, compare=False, default_factory=Counter)
    _tried: dict[str, dict[str, float]] = field(init=False, repr=False, compare=False, default_factory=dict)
    _problem: str = field(init=False, repr=False, compare=False, default="")
    _seen: set[str] = field(init=False, repr=False, compare=False, default_factory=set)
    _copies: Copies = field(init=False, repr=False, compare=False)
    _at_once: dict[str, int] = field(init=False, repr=False, compare=False, default_factory=dict)
    _base: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        """Check the fields."""
        if not self.methods:
            raise InputError(f"propose: needs at least one method; methods: {', '.join(METHODS)}")
        for name in self.methods:
            if name not in METHODS:
                raise InputError(
                    f"propose: no method {name!r}{nearest(str(name), METHODS)}; methods: {', '.join(METHODS)}"
                )
        if len(set(self.methods)) < len(self.methods):
            raise InputError(f"propose: a method is listed twice in {self.methods!r}")
        for name in ("rounds", "breadth", "proposals", "max_tokens", "shown", "sample"):
            if getattr(self, name) < 1:
                raise InputError(f"propose: {name} must be at least 1 (got {getattr(self, name)!r})")
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"propose: temperature must be at least 0 (got {self.temperature!r})")

    @property
    def writers(self) -> tuple[str, ...]:
        """Who writes."""
        return (self.model,)

    @property
    def findings(self) -> Mapping[str, Any]:
        """What was asked for, written, refused and why, and what each method brought."""
        if not self._pool:
            return {}
        methods = self._turns.counts()
        found = [f"{name} {each['accepted']} of {each['turns']}" for name, each in methods.items()]
        refused = [f"{count} {reason}" for reason, count in self._refused.most_common()]
        return {
            "proposals": {
                "asked": self._asked,
                "written": self._wrote,
                "refused": dict(sorted(self._refused.items())),
                "methods": methods,
                "problem": self._problem,
            },
            "texts": {
                name: [[text, round(score, 6)] for text, score in reversed(_ranked(tried))]
                for name, tried in self._tried.items()
            },
            "report": (
                f"written   {self._wrote} of {self._asked} texts that were asked for; better than what they came from: "
                f"{', '.join(found)} turns; refused: {', '.join(refused) or 'none'}"
            ),
        }

    def begin(self, setting: Setting) -> None:
        """Start afresh.

        Raises:
            InputError: no slot is open to models.
        """
        if not any(slot.llm is not None for slot in setting.space.slots.values()):
            raise InputError(
                f"propose: no slot of the search space {setting.space.name!r} may be written by a model",
                hint="open one: slots: {instruction: {one_of: [...], llm: {longest: 300}}}",
            )
        self._pool, self._turns = [], Turns(self.methods)
        self._asked = self._wrote = 0
        self._refused, self._tried, self._problem = Counter(), {}, ""
        self._seen = {setting.seed_prompt.key}
        self._copies = Copies((*setting.train, *setting.select))
        self._at_once = dict.fromkeys(self.methods, self.shown)
        self._base = int(setting.rng.integers(2**30))
        super().begin(setting)

    def _search(self) -> Play:
        order = self._setting.rng.permutation(len(self._setting.train))
        sample = tuple(self._setting.train[at] for at in order[: self.sample])
        yield from self._start()
        for _ in range(self.rounds if self._pool else 0):
            if not self._size(0) or self._asked >= self.proposals:
                return
            unread = sum(member.train is None for member in self._pool)
            turns = yield from self._deal(sample)
            if not turns and unread == sum(member.train is None for member in self._pool):
                self._problem = self._problem or "no method has anything to work with, or calls to do it"
                return
            yield from self._compete((yield from self._write(turns)))

    def _start(self) -> Play:
        """The first members: the seed prompt if it has an open slot, else the first drawn prompt that has, and the same
        prompt with the slots' other options.
        """
        select = self._setting.select
        root = next(self._roots(), None)
        if root is None:
            return
        others: list[Prompt] = []
        if root.key == self._setting.seed_prompt.key:
            self._join(Member(root, self._setting.seed_scored))
        else:
            others.append(root)
        others += [
            prompt
            for name in self._open(root)
            for text in self._setting.space.slots[name].texts()
            if (prompt := self._with(root, name, text)) is not None
        ]
        new = [each for each in dict.fromkeys(others) if each.key not in self._seen][: 1 + self.breadth]
        if self._setting.calls is not None:
            least = 0 if self._pool else 1
            new = new[: max(least, int(START_SHARE * self._setting.calls) // len(select))]
        if not new:
            return
        self._seen.update(each.key for each in new)
        answers = yield [Score(each, select, note="start") for each in new]
        for prompt, answer in zip(new, answers, strict=True):
            if isinstance(answer, Scored) and not answer.imputed:
                self._join(Member(prompt, answer))

    def _roots(self) -> Iterator[Prompt]:
        """Prompts with an open slot."""
        space, rng = self._setting.space, self._setting.rng
        if self._open(self._setting.seed_prompt):
            yield self._setting.seed_prompt
        for draw in range(DRAWS):
            prompt = space.draw(RandomChooser(rng) if draw else FixedChooser({}))
            if prompt is not None and self._open(prompt):
                yield prompt

    def _open(self, prompt: Prompt) -> list[str]:
        """The slots of a prompt that are open to models."""
        slots = self._setting.space.slots
        return [name for name in prompt.choices if name in slots and slots[name].llm is not None]

    def _with(self, prompt: Prompt, slot: str, text: str) -> Prompt | None:
        """The prompt with another text in a slot; None where that makes no valid one."""
        space, choices = self._setting.space, {**prompt.choices, slot: text}
        return space.draw(FixedChooser(space.decisions(choices)), space.given(choices))

    def _join(self, member: Member) -> None:
        self._pool.append(member)
        self._note(member.prompt, member.scored)

    def _note(self, prompt: Prompt, scored: Scored) -> None:
        """Remember how well the texts of a prompt's open slots did, at their best."""
        if not math.isnan(scored.sure):
            for name in self._open(prompt):
                tried = self._tried.setdefault(name, {})
                text = str(prompt.choices[name])
                tried[text] = max(tried.get(text, 0.0), scored.sure)

    def _size(self, reading: int) -> int:
        """Texts that the round may ask for where so many calls go to reading answers: what is left pays for writing and
        scoring them.
        """
        if self._setting.calls is None:
            return self.breadth
        each = len(self._setting.select) + max(METHODS[name].texts for name in self.methods)
        left = self._setting.calls - self._spent
        return max(0, min(self.breadth, (left - reading) // each))

    def _deal(self, sample: tuple[Example, ...]) -> Generator[Sequence[Ask], Sequence[Answer], list[Turn]]:
        """Whose turn it is, on what; prompts whose answers are read are first asked about on train. A method that has
        nothing to work with leaves its turn to the next.
        """
        dealt: list[Turn] = []
        unread: dict[Member, None] = {}
        for _ in range(self.breadth):
            for name in self._turns.order():
                turn = self._turn(name, sample)
                reads = bool(sample) and METHODS[name].reads_answers and turn.parent.train is None
                reading = {**unread, turn.parent: None} if reads else unread
                pays = len(dealt) < self._size(len(sample) * len(reading))
                if pays and (reads or METHODS[name].first(turn.brief)):
                    self._turns.taken[name] += 1
                    dealt.append(turn)
                    unread = reading
                    break
        if unread:
            answers = yield [Score(each.prompt, sample, note="train") for each in unread]
            for parent, answer in zip(unread, answers, strict=True):
                assert isinstance(answer, Scored)
                parent.train = answer
        for turn in dealt:
            if turn.parent in unread:
                turn.brief = self._brief(turn.method, turn.parent, turn.slot, sample)
        return dealt

    def _turn(self, name: str, sample: tuple[Example, ...]) -> Turn:
        """A turn of a method, as far as it can be told what it is about."""
        parent = pareto_parent(self._pool, self._setting.rng) if name == "reflect" else best(self._pool)
        slots = self._open(parent.prompt)
        slot = slots[self._turns.taken[name] % len(slots)]
        return Turn(name, parent, slot, self._brief(name, parent, slot, sample))

    def _brief(self, method: str, parent: Member, slot: str, sample: tuple[Example, ...]) -> Brief:
        """What a method is told."""
        n = self._at_once[method]
        spec, rng = self._setting.space.slots[slot], self._setting.rng
        assert spec.llm is not None
        text = str(parent.prompt.choices[slot])
        return Brief(
            text=text,
            marks=marks_of(text),
            longest=spec.llm.longest,
            examples=drawn_examples(self._setting.train, parent.prompt, n, rng),
            answered=drawn_answers(sample, parent.prompt, parent.train, n, rng),
            history=tuple(_ranked(self._tried.get(slot, {}))[-max(2, HISTORY * n // self.shown) :]),
        )

    def _write(
        self, turns: Sequence[Turn]
    ) -> Generator[Sequence[Ask], Sequence[Answer], list[tuple[Turn, str]]]:
        """What the model writes, in one step or in two, as far as ``proposals`` goes."""
        firsts: list[tuple[Turn, str]] = []
        left = self.proposals - self._asked
        for turn in turns:
            method = METHODS[turn.method]
            text = method.first(turn.brief)
            if not text:  # no mistakes to learn from, say: the turn is not taken
                self._turns.taken[turn.method] -= 1
            elif method.texts <= left:
                left -= method.texts
                firsts.append((turn, text))
        written: list[tuple[Turn, str]] = []
        seconds: list[tuple[Turn, str]] = []
        for turn, text in (yield from self._continued(firsts)):
            then = METHODS[turn.method].then
            if then is None:
                written.append((turn, text))
            elif text.strip():
                seconds.append((turn, then(turn.brief, text)))
        written += yield from self._continued(seconds)
        return written

    def _continued(
        self, texts: Sequence[tuple[Turn, str]]
    ) -> Generator[Sequence[Ask], Sequence[Answer], list[tuple[Turn, str]]]:
        """What the model writes after some texts; those that nothing came of are left out."""
        if not texts:
            return []
        seed = self._base + self._asked
        answers = yield [
            Complete(
                turn.parent.prompt,
                (text,),
                model=self.model,
                max_tokens=self.max_tokens,
                temperature=self.temperature,
                seed=seed + at,
                note=f"write: {turn.method} {turn.slot}",
            )
            for at, (turn, text) in enumerate(texts)
        ]
        came: list[tuple[Turn, str]] = []
        mute: set[str] = set()
        for (turn, _), answer in zip(texts, answers, strict=True):
            assert isinstance(answer, Completed)
            (text,) = answer.texts
            if text is None:
                mute.add(turn.method)
            else:
                came.append((turn, text))
        self._at_once |= {name: max(1, self._at_once[name] // 2) for name in mute}
        return came

    def tell(self, asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
        """Count what was written, and go on with the answers."""
        for answer in answers:
            if isinstance(answer, Completed):
                missing = answer.texts.count(None)
                self._asked += len(answer.texts)
                self._wrote += len(answer.texts) - missing
                self._refused += Counter({NOTHING: missing})
                self._problem = answer.problem or self._problem
        super().tell(asks, answers)

    def _compete(self, written: Sequence[tuple[Turn, str]]) -> Play:
        """Score what may stand, and keep what is better than what it came from."""
        candidates: list[tuple[Turn, Prompt]] = []
        for turn, text in written:
            prompt = self._candidate(turn, text)
            if prompt is not None:
                candidates.append((turn, prompt))
        if not candidates:
            return
        answers = yield [
            Score(prompt, self._setting.select, note=f"{turn.method} {turn.slot}")
            for turn, prompt in candidates
        ]
        for (turn, prompt), answer in zip(candidates, answers, strict=True):
            if not isinstance(answer, Scored) or answer.imputed:  # a race has dropped it
                continue
            member = Member(prompt, answer)
            if member.merit > turn.parent.merit:
                self._turns.accepted[turn.method] += 1
                self._pool.append(member)
            self._note(prompt, answer)

    def _candidate(self, turn: Turn, written: str) -> Prompt | None:
        """The prompt that holds the new text; None, and a count of the reason, where there is none to be tried."""
        slot = self._setting.space.slots[turn.slot]
        text = fitted(slot, proposed(written), turn.brief.text)
        reason, prompt = refusal(slot, text, self._copies), None
        if not reason:
            prompt = self._with(turn.parent.prompt, turn.slot, text)
            reason = UNFIT if prompt is None else KNOWN if prompt.key in self._seen else ""
        if reason or prompt is None:
            self._refused[reason] += 1
            return None
        self._seen.add(prompt.key)
        return prompt


def _ranked(tried: Mapping[str, float]) -> list[tuple[str, float]]:
    """Texts with their scores, from the worst to the best."""
    return sorted(tried.items(), key=lambda pair: pair[1])
