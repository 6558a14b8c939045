"""Any function from text to text as a model that completes."""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
from collections.abc import Callable, Sequence

from autoprompt.models import Failure, Kind, Request, TextReply, TextRequest

_TOKEN = re.compile(r"\w+|[^\w\s]")


class FunctionModel:
    """Completes by calling a function ``str -> str`` with the text before the answer place.

    Trailing spaces of the text are cut off, as for every model that reads on. An exception of the function,
    or an answer that is not text, is a ``Failure`` of that request. Tokens are counted as words and
    punctuation marks.

    Attributes:
        name: the function's qualified name.
        kind: ``text``.
        deterministic: whether the function always answers the same text alike; the user's word for it.
        max_length: None; a function has no bound.
    """

    kind: Kind = "text"
    max_length: None = None

    def __init__(
        self, function: Callable[..., object], *, name: str = "", deterministic: bool = False
    ) -> None:
        self._function = function
        self.name = name or _qualified_name(function)
        self.deterministic = deterministic

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the qualified name, the source where Python can find it, and the plain values it carries along.

        Plain values (text, numbers, lists of them) in closures, defaults and attributes are part of it; other
        objects count by their type, and what is read from globals, files or servers not at all.
        """
        content = f"function\n{_qualified_name(self._function)}\n{_source(self._function)}\n{_state(self._function)}"
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    def count_tokens(self, requests: Sequence[Request]) -> list[int]:
        """Words and punctuation marks of each request's text, at least 1."""
        return [max(1, len(_TOKEN.findall(_question(request)))) for request in requests]

    def batches(self, requests: Sequence[Request]) -> list[list[int]]:
        """One request a batch, in order: each call is a question of its own and may take long."""
        return [[index] for index in range(len(requests))]

    def complete(self, requests: Sequence[TextRequest]) -> list[TextReply | Failure]:
        """Call the function once a request, in order. ``max_tokens`` is the function's own affair."""
        counts = self.count_tokens(requests)
        return [self._complete_one(request, tokens) for request, tokens in zip(requests, counts, strict=True)]

    def _complete_one(self, request: TextRequest, tokens: int) -> TextReply | Failure:
        try:
            answer = self._function(_question(request))
        except (
            Exception
        ) as error:  # whatever the user's function raises is a missing answer, never a score of 0
            return Failure(f"{self.name} raised {type(error).__name__}: {error}")
        if not isinstance(answer, str):
            return Failure(f"{self.name} must return text (got {type(answer).__name__})")
        return TextReply(cut_at_stop(answer, request.stop), tokens)


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """The text up to the first place where any stop string begins."""
    found = [text.find(each) for each in stop if each and each in text]
    return text[: min(found)] if found else text


def _question(request: Request) -> str:
    return "".join(piece.text for piece in request.rendered.before).rstrip(" ")


def _unwrapped(function: Callable[..., object]) -> Callable[..., object]:
    """The plain function (or, for an object with ``__call__``, its class) behind partials and decorators."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    return type(function)


def _qualified_name(function: Callable[..., object]) -> str:
    plain = _unwrapped(function)
    module = inspect.getmodule(plain)  # None for methods of built-in types
    return f"{module.__name__ if module else 'builtins'}.{plain.__qualname__}"


def _state(function: Callable[..., object]) -> str:
    """The plain values a function carries along: closure, defaults, and the attributes of the object it belongs to."""
    found: list[object] = []
    while isinstance(function, functools.partial):
        found += [function.args, function.keywords]
        function = function.func
    function = inspect.unwrap(function)
    if inspect.ismethod(function):
        found.append(_attributes(function.__self__))
        function = function.__func__
    if inspect.isfunction(function):
        found += [
            function.__defaults__,
            function.__kwdefaults__,
            dict(inspect.getclosurevars(function).nonlocals),
        ]
    elif not inspect.isroutine(function) and not inspect.isclass(function):
        found.append(_attributes(function))
    return repr([_plain(value) for value in found])


def _attributes(owner: object) -> dict[str, object]:
    return dict(vars(owner)) if isinstance(owner, object) and "__dict__" in dir(owner) else {}


def _plain(value: object) -> object:
    """``value`` where it reads the same in every process, else the name of its type."""
    if value is None or isinstance(value, (str, int, float, bool, bytes)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return sorted((str(name), repr(_plain(item))) for name, item in value.items())
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _source(function: Callable[..., object]) -> str:
    arguments = ""
    if isinstance(function, functools.partial):
        arguments = repr((function.args, sorted(function.keywords.items())))
    try:
        return inspect.getsource(_unwrapped(function)) + arguments
    except (OSError, TypeError):
        return arguments  # typed at a prompt, or built in
