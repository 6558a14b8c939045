from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprompt.budget import Budget, Meter
from autoprompt.errors import BudgetError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2000, Budget(calls=2000)),
        ("2000", Budget(calls=2000)),
        ("2_000", Budget(calls=2000)),
        ("2,000 calls", Budget(calls=2000)),
        ("2k", Budget(calls=2000)),
        ("2K calls", Budget(calls=2000)),
        ("1 call", Budget(calls=1)),
        ("2M tokens", Budget(tokens=2_000_000)),
        ("1.5ktok", Budget(tokens=1500)),
        ("1.005M", Budget(calls=1_005_000)),
        ("90 s", Budget(seconds=90)),
        ("10 min", Budget(seconds=600)),
        ("10 Min", Budget(seconds=600)),
        ("10 m", Budget(seconds=600)),
        ("1 h", Budget(seconds=3600)),
        ("500 calls, 2 min", Budget(calls=500, seconds=120)),
        (Budget(tokens=3), Budget(tokens=3)),
    ],
)
def test_parse(value: Budget | int | str, expected: Budget) -> None:
    assert Budget.parse(value) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "above 0 .got 0"),
        (-5, "above 0"),
        ("0", "above 0"),
        (True, "expected an int"),
        (None, "expected an int"),
        (2.5, "expected an int"),
        ("", "cannot read"),
        ("many", "cannot read"),
        ("10 mins of time", "cannot read"),
        ("10 tokns", "unknown unit 'tokns'.*did you mean 'tokens'"),
        ("10, 20", "calls given twice"),
    ],
)
def test_bad_budgets_are_refused(value: object, message: str) -> None:
    with pytest.raises(BudgetError, match=message) as error:
        Budget.parse(value)  # type: ignore[arg-type]
    if "twice" not in message:
        assert error.value.hint


@pytest.mark.parametrize(
    "limits",
    [{}, {"calls": 0}, {"calls": 2.5}, {"calls": True}, {"tokens": -1}, {"seconds": float("inf")},
     {"seconds": float("nan")}, {"seconds": "5"}],
)  # fmt: skip
def test_limits_are_finite_numbers_above_zero(limits: dict[str, object]) -> None:
    with pytest.raises(BudgetError):
        Budget(**limits)  # type: ignore[arg-type]


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    st.builds(
        Budget,
        calls=st.integers(1, 10**9),
        tokens=st.none() | st.integers(1, 10**12),
        seconds=st.none() | st.integers(1, 10**6) | st.floats(1e-6, 1e7),
    )
)
def test_what_a_budget_prints_reads_back(budget: Budget) -> None:
    assert Budget.parse(str(budget)) == budget


def test_meter() -> None:
    meter, budget = Meter(calls=8, tokens=90, seconds=3), Budget(calls=10, tokens=100, seconds=4)
    assert meter.fits(budget, 2, 10)
    assert not meter.fits(budget, 3, 0)
    assert not meter.fits(budget, 0, 11)
    assert not meter.out_of_time(budget)
    assert Meter(seconds=4).out_of_time(budget)
    assert not Meter(seconds=1e9).out_of_time(Budget(calls=1))
