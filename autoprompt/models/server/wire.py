"""Requests to a server: many at once, each with a time limit and a bounded number of repetitions.

A request is repeated where another try may help: nothing or half an answer came back, or the status was 408, 409, 425,
429 or 5xx (but 501, 505). ``1 + retries`` tries a request; the harness asks what failed up to twice more unless the
server is called deterministic, so one question costs at most ``3 * (1 + retries)`` requests.
"""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from autoprompt.models.server.line import Cut, Line
from autoprompt.models.server.names import ServerSpec
from autoprompt.models.server.pauses import pause, retry_after

_AGAIN = frozenset((408, 409, 425, 429))
_NEVER = frozenset((501, 505))
_OUT_OF_MONEY = frozenset(("insufficient_quota", "billing_hard_limit_reached"))
_IN_A_ROW = 8
_HEALTH = 10.0  # seconds within which a server that lives answers something
_T = TypeVar("_T")


class Refused(Exception):
    """The server answered, but not with success: ``status``, and its own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status
        self.message = message


class Garbled(Exception):
    """The server answered with success, but not with what was asked for."""


class Unreachable(Exception):
    """Nothing came back."""


class Gone(Exception):
    """The server does not work any more: no use in asking it anything."""


class _Again(Exception):
    """A try that failed in a way that may pass; ``after``: seconds the server asks to wait."""

    def __init__(self, error: Exception, after: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.after = after


class Wire:
    """Carries requests to one server.

    Attributes:
        sent: requests sent, repetitions included.
        repeated: repetitions among them.
    """

    def __init__(self, spec: ServerSpec, key: str) -> None:
        self._spec = spec
        self._key = key
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._lines = [Line(spec.url, spec.settings.timeout)]
        self._lock = threading.Lock()
        self._failed_in_a_row = 0
        self._not_before = 0.0
        self.sent = 0
        self.repeated = 0
        weakref.finalize(self, _hang_up, self._lines)

    def get(self, path: str) -> dict[str, Any]:
        """Ask for what stands at a path; tried twice, so that a server that is not there is told at once."""
        return self._call("GET", path, None, 1)

    def post(self, path: str, body: Mapping[str, object], *, probing: bool = False) -> dict[str, Any]:
        """Send a JSON object and return the one that comes back.

        Args:
            path: below the API's root.
            body: what is sent.
            probing: to find out what the server can do; failures do not count against it, and what it answers with
                status 500 is tried twice only, since some servers say so to what they do not know.

        Raises:
            Refused: a status that is no success, after the repetitions that apply.
            Garbled: success without a JSON object.
            Unreachable: nothing came back, though the server lives.
            Gone: the server is not there, or has failed many requests in a row.
            Cut: another request ended the round.
        """
        data = json.dumps(body).encode()
        limit = self._spec.settings.retries
        try:
            found = self._call("POST", path, data, limit, probing=probing)
        except (Unreachable, Refused, Garbled) as error:
            if isinstance(error, Unreachable) and not self._lives():
                raise Gone(f"does not answer any more ({error}; {limit + 1} tries)") from None
            if not probing and not (isinstance(error, Refused) and not may_pass(error.status)):
                self._count_failure(error)
            raise
        with self._lock:
            self._failed_in_a_row = 0
        return found

    def in_order(self, jobs: Sequence[Callable[[], _T]]) -> Generator[_T, None, None]:
        """Run jobs that use this wire, ``concurrency`` at once, and yield their results in order.

        No more than twice as many are begun ahead of the result that is waited for. The first exception ends all
        others, as leaving the generator does: what waits is dropped, what is under way is cut.
        """
        width = min(self._spec.settings.concurrency, len(jobs))
        if width < 2:
            for job in jobs:
                yield job()
            return
        errors: list[BaseException] = []

        def guarded(job: Callable[[], _T]) -> _T:
            if errors:
                raise Cut
            try:
                return job()
            except BaseException as error:
                errors.append(error)
                if errors[0] is error:
                    self._cut()
                raise

        waiting: deque[Future[_T]] = deque()
        with ThreadPoolExecutor(width, thread_name_prefix="autoprompt-server") as pool:
            try:
                for job in jobs:
                    waiting.append(pool.submit(guarded, job))
                    if len(waiting) == 2 * width:
                        yield waiting[0].result()
                        waiting.popleft()
                while waiting:
                    yield waiting[0].result()
                    waiting.popleft()
            except Cut:
                raise errors[0] from None
            finally:
                if waiting:
                    errors.append(Cut())  # what has not begun does not begin any more
                    self._cut()

    def _call(
        self, method: str, path: str, data: bytes | None, retries: int, *, probing: bool = False
    ) -> dict[str, Any]:
        line = self._lines[-1]
        for attempt in range(retries + 1):
            if attempt:
                with self._lock:
                    self.repeated += 1
                line.wait(pause(self._spec.settings.backoff, attempt, data or path.encode()))
            line.wait(max(0.0, self._not_before - time.monotonic()))
            try:
                return self._try(line, method, path, data)
            except _Again as again:
                if again.after is not None:  # for all requests: the server has asked not to be asked
                    self._not_before = max(self._not_before, time.monotonic() + again.after)
                error = again.error
                if probing and attempt and isinstance(error, Refused) and error.status == 500:
                    break
        raise error

    def _try(self, line: Line, method: str, path: str, data: bytes | None) -> dict[str, Any]:
        with self._lock:
            self.sent += 1
        try:
            status, headers, content = line.exchange(method, path, data, self._headers, line.timeout)
        except (OSError, http.client.HTTPException) as error:
            raise _Again(Unreachable(_said(error, line.timeout))) from None
        if 300 <= status < 400:
            raise Refused(status, f"moved to {headers.get('Location', 'another place')}")
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        if status != 200:
            message, code = self._words(found, content)
            refused = Refused(status, message)
            if may_pass(status) and code not in _OUT_OF_MONEY:
                raise _Again(refused, retry_after(headers.get("Retry-After")))
            raise Refused(402, message) if code in _OUT_OF_MONEY else refused
        if not isinstance(found, dict):
            shown = self._clean(content.decode("utf-8", "replace"))
            raise _Again(Garbled(f"the server's answer is no JSON object: {shown!r}"))
        return found

    def _words(self, found: object, content: bytes) -> tuple[str, str]:
        """The server's own words for an error, and its code: fields that servers are known to use."""
        inner = found.get("error", found) if isinstance(found, dict) else found
        if isinstance(inner, dict):
            code = str(inner.get("code") or inner.get("type") or "")
            for name in ("message", "detail", "error"):
                if inner.get(name):
                    return self._clean(str(inner[name])), code
            return self._clean(json.dumps(inner)), code
        text = inner if isinstance(inner, str) else content.decode("utf-8", "replace")
        return self._clean(text) or "no reason given", ""

    def _clean(self, text: str) -> str:
        """One short line without markup, and without the key, which some servers repeat."""
        if self._key:
            text = text.replace(self._key, "***")
        return " ".join(re.sub(r"<[^>]*>", " ", text).split())[:300]

    def _lives(self) -> bool:
        """Whether the server answers anything at all."""
        line = self._lines[-1]
        try:
            line.exchange("GET", "/models", None, self._headers, min(_HEALTH, line.timeout))
        except (OSError, http.client.HTTPException):
            return False
        return True

    def _count_failure(self, error: Exception) -> None:
        """Give up where nothing has succeeded for many requests."""
        limit = max(_IN_A_ROW, 2 * self._spec.settings.concurrency)
        with self._lock:
            self._failed_in_a_row += 1
            if self._failed_in_a_row < limit:
                return
            self._failed_in_a_row = 0  # whoever goes on with this object begins anew
        raise Gone(f"has failed {limit} requests in a row, each tried again; the last: {error}") from None

    def _cut(self) -> None:
        """End what is under way; requests from now on go over a new line."""
        with self._lock:
            old = self._lines.pop()
            self._lines.append(Line(self._spec.url, self._spec.settings.timeout))
        old.cut()


def may_pass(status: int) -> bool:
    """Whether another try may help."""
    return status in _AGAIN or (status >= 500 and status not in _NEVER)


def _hang_up(lines: Sequence[Line]) -> None:
    for line in lines:
        line.cut()


def _said(error: Exception, timeout: float) -> str:
    """What went wrong with a connection, in words."""
    if isinstance(error, TimeoutError):
        return f"silent for {timeout:g} s"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection broke within an answer"
    return f"{error.strerror or error}" if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
