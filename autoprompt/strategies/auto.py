"""Auto: the strategy that fits the size of the space, the budget and the number of examples.

Measured on planted tasks (5 slots of 4 options, pair effects half as large as single ones, accuracies from
50 % to 90 %), as points of true accuracy that the winner stays below the best prompt; columns are
budgets in full measurements of N examples:

    N = 64, means of 10 tasks, s.e. 0.8 to 1.8             15    25    35    50
    random_search                                         9.0   7.8   7.8   7.0
    tpe                                                   9.1   4.3   4.9   3.8

    N = 128, means of 30 tasks, s.e. 0.5 to 0.9            10    20    30    40    80
    random_search                                         9.3   7.4   6.8   5.9   4.8
    racing over random_search (waves of 8)                9.3   7.3   6.9   5.7   3.4

So tpe is taken from twice its start-up on, and racing with it: racing costs nothing in small budgets and
gains in larger ones. Racing over tpe itself was not measured over as many tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from autoprompt.asks import Answer, Ask
from autoprompt.strategies import Setting, Strategy
from autoprompt.strategies.chain import Chain
from autoprompt.strategies.gradient import Gradient
from autoprompt.strategies.hill_climb import HillClimb
from autoprompt.strategies.racing import Racing
from autoprompt.strategies.random_search import RandomSearch
from autoprompt.strategies.tpe import TPE

RACING_FROM = 64
"""Examples from which racing saves calls: below, no comparison is decided before the examples are used up."""


@dataclass(kw_only=True)
class Auto(Strategy):
    """Chooses a strategy in ``begin`` and hands everything on to it; ``note`` says what it chose and why."""

    _chosen: Strategy = field(init=False, repr=False, compare=False)
    _note: str = field(init=False, repr=False, compare=False, default="")
    _leftover: Chain | None = field(init=False, repr=False, compare=False, default=None)
    _edited: bool = field(init=False, repr=False, compare=False, default=False)

    @property
    def note(self) -> str:
        """What was chosen and why, in one line."""
        more = "; with the calls it left over hill_climb, for edits of the best"
        return self._note + (more if self._edited else "")

    def begin(self, setting: Setting) -> None:
        """Choose, and start what was chosen."""
        size, calls, examples = setting.space.size(), setting.calls, len(setting.select)
        self._chosen, self._note = choose(size, examples, calls)
        self._leftover, self._edited = None, False
        if setting.space.spec.token_slots and setting.vocabulary is not None:
            if size <= 1 or calls is None:  # without a budget in calls the first stage would never end
                self._chosen, self._note = Gradient(), "gradient: the space has token slots"
            else:
                self._chosen = Chain(strategies=(self._chosen, Gradient()))
                self._note = f"half of the calls {self._note}; the rest gradient, for the token slots"
        elif any(slot.edit is not None for slot in setting.space.slots.values()):
            self._edit_too(size, examples)
        self._chosen.begin(setting)

    def _edit_too(self, size: float, examples: int) -> None:
        """Spend on edits what the chosen strategy leaves over when it has seen all that the space lists."""
        editor: Strategy = HillClimb() if examples < RACING_FROM else Racing(inner=HillClimb())
        if size <= 1:
            self._chosen, self._note = (
                editor,
                "hill_climb: the space holds one prompt, whose words may be edited",
            )
        else:
            self._chosen = self._leftover = Chain(strategies=(self._chosen, editor), shares=(1.0, 0.0))

    def ask(self) -> Sequence[Ask]:
        """The chosen strategy's questions."""
        return self._chosen.ask()

    def tell(self, asks: Sequence[Ask], answers: Sequence[Answer]) -> None:
        """Hand the answers on."""
        self._edited |= self._leftover is not None and self._leftover.begun > 1 and bool(answers)
        self._chosen.tell(asks, answers)


def choose(size: float, examples: int, calls: int | None) -> tuple[Strategy, str]:
    """Return the strategy for what is known, and one line that says why.

    Args:
        size: number of prompts in the space.
        examples: number of select examples N.
        calls: calls left, None where the budget is in other units.
    """
    if size <= 1:
        return RandomSearch(), "random_search: the space holds one prompt, so there is nothing to search"
    affordable = None if calls is None else calls // max(1, examples)
    if affordable is not None and size - 1 <= affordable:
        return RandomSearch(), f"random_search: the budget pays for all {size:,} prompts of the space"
    if affordable is not None and affordable < 2 * TPE().startup:
        return (
            RandomSearch(),
            f"random_search: the budget pays for {affordable} full measurements, too few to model the space",
        )
    pays = "not in calls" if affordable is None else f"enough for {affordable} full measurements"
    if examples >= RACING_FROM:
        why = f"the budget is {pays}, and {examples} examples are enough to drop weak prompts early"
        return Racing(inner=TPE()), f"racing over tpe: {why}"
    return TPE(), f"tpe: the budget is {pays}, and {examples} examples are too few to race"
