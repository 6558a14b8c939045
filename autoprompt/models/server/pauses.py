"""How long to wait before a request is repeated: back-off without a clock or a die, and ``Retry-After``."""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

LONGEST_PAUSE = 30.0
LONGEST_RETRY_AFTER = 60.0
"""Seconds a server's own wish is followed for at most."""


def pause(first: float, attempt: int, request: bytes) -> float:
    """Seconds before repetition ``attempt`` (from 1): twice as long each time, spread over [1/2, 1] of it.

    The spread is a hash of the request and the attempt, so that requests that failed together do not come back
    together, and the same run waits the same times.
    """
    digest = hashlib.blake2b(request + attempt.to_bytes(4, "big"), digest_size=4).digest()
    spread = 0.5 + 0.5 * int.from_bytes(digest, "big") / 2**32
    return min(LONGEST_PAUSE, first * 2.0 ** min(attempt - 1, 32)) * spread


def retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds a ``Retry-After`` header asks for (RFC 9110, section 10.2.3: seconds or a date), within limits.

    Args:
        header: its value; None where there is none.
        now: the present; None: the clock's.

    Returns:
        None where there is no header or it cannot be read.
    """
    if header is None:
        return None
    text = header.strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        date = date if date.tzinfo is not None else date.replace(tzinfo=timezone.utc)
        seconds = (date - (now or datetime.now(timezone.utc))).total_seconds()
    if seconds != seconds:  # "nan" is a number to float()
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
