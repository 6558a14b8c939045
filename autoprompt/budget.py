"""What may be spent (Budget) and what was (Meter).

One call is one prompt on one example, forward. A token is one token of the text the model reads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from autoprompt.errors import BudgetError, nearest

_UNITS = {
    "call": ("calls", 1), "calls": ("calls", 1),
    "token": ("tokens", 1), "tokens": ("tokens", 1), "tok": ("tokens", 1),
    "s": ("seconds", 1), "sec": ("seconds", 1), "second": ("seconds", 1), "seconds": ("seconds", 1),
    "m": ("seconds", 60), "min": ("seconds", 60), "minute": ("seconds", 60),
    "minutes": ("seconds", 60),
    "h": ("seconds", 3600), "hour": ("seconds", 3600), "hours": ("seconds", 3600),
}  # fmt: skip
_SCALE = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}
_FORM = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*([A-Za-z]*)\s*")
_THOUSANDS = re.compile(r"(?<![\d,])\d{1,3}(?:,\d{3})+(?!\d)")
_HINT = 'for example budget=2000, "10 min", "2M tokens" or Budget(calls=2000)'


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits on a search; the first one reached ends it. ``None`` means no limit in that unit.

    Attributes:
        calls: prompt-on-example forwards.
        tokens: tokens read by the model.
        seconds: wall-clock seconds that the model runs; what a strategy thinks in between comes on top. Such a budget
            is outside the law "same call, same run".
    """

    calls: int | None = None
    tokens: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        limits = {"calls": self.calls, "tokens": self.tokens, "seconds": self.seconds}
        if all(limit is None for limit in limits.values()):
            raise BudgetError("budget: needs at least one of calls, tokens, seconds", hint=_HINT)
        for unit, limit in limits.items():
            _check_limit(unit, limit)

    @classmethod
    def parse(cls, value: Budget | int | str) -> Budget:
        """Read ``2000``, ``"2k calls"``, ``"10 min"``, ``"2M tokens"``, or several joined by commas.

        What ``str`` makes of a budget reads back as the same budget.

        Raises:
            BudgetError: it cannot be read, or a limit is not above 0.
        """
        if isinstance(value, Budget):
            return value
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise BudgetError(
                f"budget: expected an int (calls), a text or a Budget (got {value!r})", hint=_HINT
            )
        if isinstance(value, int):
            return cls(calls=value)
        limits: dict[str, float] = {}
        plain = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), value)
        for part in plain.split(","):
            unit, amount = _parse_part(part, value)
            if unit in limits:
                raise BudgetError(f"budget: {unit} given twice in {value!r}")
            limits[unit] = amount
        return cls(
            calls=int(limits["calls"]) if "calls" in limits else None,
            tokens=int(limits["tokens"]) if "tokens" in limits else None,
            seconds=limits.get("seconds"),
        )

    def __str__(self) -> str:
        parts = []
        if self.calls is not None:
            parts.append(f"{self.calls:,} calls")
        if self.tokens is not None:
            parts.append(f"{self.tokens:,} tokens")
        if self.seconds is not None:
            seconds = format(Decimal(repr(float(self.seconds))), "f").removesuffix(".0")
            parts.append(f"{seconds} s")
        return ", ".join(parts)


def _check_limit(unit: str, limit: object) -> None:
    if limit is None:
        return
    whole = unit != "seconds"
    number = isinstance(limit, int if whole else (int, float)) and not isinstance(limit, bool)
    if not number or not 0 < float(str(limit)) < float("inf"):
        what = "a whole number" if whole else "a finite number"
        raise BudgetError(f"budget: {unit} must be {what} above 0 (got {limit!r})", hint=_HINT)


def _parse_part(part: str, whole: str) -> tuple[str, float]:
    """Return (unit, amount) of one ``number scale unit`` group."""
    match = _FORM.fullmatch(part)
    hint = 'write a number and a unit: "2000", "2k calls", "2M tokens", "90 s", "10 min", "1 h"'
    if match is None:
        raise BudgetError(f"budget: cannot read {whole!r}", hint=hint)
    number, scale, name = match.groups()
    if not name and scale not in _SCALE:  # one word: a unit ("10 Min"), or scale and unit together ("2ktok")
        scale, name = ("", scale) if scale.lower() in _UNITS else (scale[:1], scale[1:])
    unit = _UNITS.get(name.lower() or "calls")
    if unit is None or scale not in _SCALE:
        raise BudgetError(
            f"budget: unknown unit {scale + name!r} in {whole!r}{nearest(name.lower(), _UNITS)}", hint=hint
        )
    return unit[0], float(Decimal(number.replace("_", "")) * _SCALE[scale] * unit[1])


@dataclass
class Meter:
    """What was spent so far.

    Attributes:
        calls: prompt-on-example forwards, each distinct one once, wherever its answer came from.
        tokens: tokens read for them.
        seconds: wall-clock seconds the model was running, over all sessions of the run.
        cached: calls among ``calls`` whose answer came from the cache (charged all the same).
    """

    calls: int = 0
    tokens: int = 0
    seconds: float = 0.0
    cached: int = 0

    def fits(self, budget: Budget, calls: int, tokens: int) -> bool:
        """Whether ``calls`` and ``tokens`` more stay within ``budget``."""
        return not (
            (budget.calls is not None and self.calls + calls > budget.calls)
            or (budget.tokens is not None and self.tokens + tokens > budget.tokens)
        )

    def out_of_time(self, budget: Budget) -> bool:
        """Whether the seconds of ``budget`` have passed."""
        return budget.seconds is not None and self.seconds >= budget.seconds
