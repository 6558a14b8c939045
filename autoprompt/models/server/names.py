"""``openai:NAME@URL?options`` taken apart, and the key, which comes from the environment only."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from autoprompt.errors import InputError, UnknownName, nearest

PREFIX = "openai:"
FORM = '"openai:NAME@URL" such as "openai:qwen2.5@http://localhost:8000/v1"'
PUBLIC = "https://api.openai.com/v1"
KEY, ROOT = "OPENAI_API_KEY", "OPENAI_BASE_URL"
Labels = Literal["auto", "whole", "first", "text"]
_LABELS: tuple[Labels, ...] = ("auto", "whole", "first", "text")
_FLAGS = ("chat", "deterministic")
_COUNTS = {"concurrency": 1, "retries": 0, "top": 2}
_NUMBERS = ("timeout", "backoff", "price_in", "price_out")
_TEXTS = ("labels", "key_env", "identity")
OPTIONS = (*_FLAGS, *_TEXTS, *_COUNTS, *_NUMBERS)
_SECRETS = re.compile(r"(api[-_]?)?(key|token|secret|password|auth(orization)?)", re.IGNORECASE)
_ENDINGS = ("/chat/completions", "/completions", "/models")


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Options of a server's model; the query behind its name (``openai:NAME@URL?chat&concurrency=16``).

    Attributes:
        chat: the text before the answer is the user's message (``/chat/completions``); else it is read on from
            (``/completions``).
        deterministic: the user's word that the server answers the same question alike; failed questions are then
            not asked again, and no noise is measured.
        labels: how label words are read: ``whole`` (log-probabilities of whole answers), ``first`` (the likeliest
            first tokens), ``text`` (looked for in what is written), ``auto`` (the first of these the server can).
        key_env: the environment variable that holds the key.
        identity: what stands for the server in a run's identity, in place of its URL.
        concurrency: requests under way at once.
        retries: how often a request is repeated after the first try.
        top: likeliest first tokens that are asked for, where labels are read so.
        timeout: seconds a server may be silent.
        backoff: seconds of the first pause before a repetition; each further one is twice as long, at most 30.
        price_in: of a million tokens read.
        price_out: of a million tokens written.
    """

    chat: bool = False
    deterministic: bool = False
    labels: Labels = "auto"
    key_env: str | None = None
    identity: str | None = None
    concurrency: int = 8
    retries: int = 6
    top: int = 20
    timeout: float = 60.0
    backoff: float = 0.5
    price_in: float = 0.0
    price_out: float = 0.0


@dataclass(frozen=True)
class ServerSpec:
    """A server's model by name.

    Attributes:
        text: the whole spec as it was given.
        name: of the model, as the server calls it.
        url: root of the API, without a slash at its end.
        given: whether a URL was given, in the spec or the environment.
        settings: the options.
    """

    text: str
    name: str
    url: str
    given: bool
    settings: ServerSettings

    @property
    def key_name(self) -> str:
        """The environment variable that holds the key."""
        return self.settings.key_env or KEY

    @property
    def place(self) -> str:
        """Host, port and path: what tells servers apart."""
        parts = urlsplit(self.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return f"{(parts.hostname or '').lower()}:{port}{parts.path}"

    def key(self) -> str:
        """The key, empty where none is set; never written anywhere.

        Raises:
            InputError: there is none where one is needed, or it cannot be a key.
        """
        key = os.environ.get(self.key_name, "").strip()
        if not key and (self.settings.key_env or not self.given):
            raise InputError(
                f"model {self.text!r}: the environment variable {self.key_name} is not set",
                hint=f"export {self.key_name}=..., or name a server of your own: openai:{self.name}@http://...",
            )
        if not all(33 <= ord(character) < 127 for character in key):  # and never show it
            raise InputError(f"model {self.text!r}: {self.key_name} holds characters that no key has")
        return key


def is_server(spec: str) -> bool:
    """Whether a model's name means a server."""
    return spec.startswith(PREFIX)


def parse_server(spec: str) -> ServerSpec:
    """Take ``openai:NAME@URL?options`` apart; offline.

    Neither NAME nor URL holds a ``?``: the first one begins the options.

    Raises:
        InputError: it has another form, holds a key, or an option's value is wrong.
        UnknownName: an option that does not exist.
    """
    head, _, query = spec.partition("?")
    rest = head.removeprefix(PREFIX)
    marks = [match.start() for match in re.finditer(r"@https?://", rest, re.IGNORECASE)]
    name, url = (rest[: marks[-1]], rest[marks[-1] + 1 :]) if marks else (rest, "")
    if not marks and re.search(r".@[^/]*([.:]|localhost)", name):
        before, _, place = name.rpartition("@")
        raise InputError(
            f"model {_safe(spec)!r}: the URL behind @ must begin with http:// or https://",
            hint=f"write openai:{before}@http://{place}",
        )
    if not name.strip() or name != name.strip() or name.startswith(("http://", "https://")):
        raise InputError(f"model {_safe(spec)!r}: no name of a model; write {FORM}")
    from_environment = os.environ.get(ROOT, "").strip()
    root = _root(url or from_environment or PUBLIC, spec if url else f"{spec} with {ROOT}")
    return ServerSpec(spec, name, root, bool(url or from_environment), _settings(query, spec))


def _root(url: str, where: str) -> str:
    """The URL of the API's root, checked."""
    where = _safe(where)
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        (host or "").encode("idna")  # what connecting would do: no empty or overlong part between two dots
    except ValueError as error:
        raise InputError(f"model {where!r}: not a URL ({error})") from None
    if parts.username is not None or parts.password is not None:
        raise InputError(
            f"model {where!r}: no names or passwords in the URL",
            hint=f"a key comes from the environment only: {KEY}, or key_env=NAME",
        )
    if parts.scheme not in ("http", "https") or not host:
        raise InputError(f"model {where!r}: not a URL of a server; write {FORM}")
    if parts.query or parts.fragment or not url.isascii() or re.search(r"\s", url):
        raise InputError(f"model {where!r}: a URL here holds no query, no #, no spaces and ASCII alone")
    root = url.rstrip("/")
    for ending in _ENDINGS:
        if root.endswith(ending):
            raise InputError(
                f"model {where!r}: the URL must be the root of the API, not one of its calls",
                hint=f"write {root.removesuffix(ending)}",
            )
    return root


def _safe(spec: str) -> str:
    """The spec for an error, without what may be secret in it."""
    spec = re.sub(r"(https?://)[^/@]*@", r"\1***@", spec)
    return re.sub(r"([?&][^=&]*(?:key|token|secret|password|auth)[^=&]*=)[^&]*", r"\1***", spec, flags=re.I)


def _settings(query: str, spec: str) -> ServerSettings:
    given: dict[str, str] = {}
    where = f"model {_safe(spec)!r}"
    for name, value in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True):
        if name not in OPTIONS:
            if _SECRETS.fullmatch(name):
                raise InputError(
                    f"{where}: a key must not stand in a model's name: it would be kept in the run folder",
                    hint=f"put it into the environment variable {KEY}, or name another with key_env=NAME",
                )
            raise UnknownName(
                f"{where}: no option {name!r}{nearest(name, OPTIONS)}; options: {', '.join(OPTIONS)}"
            )
        if name in given:
            raise InputError(f"{where}: option {name!r} is given twice")
        given[name] = value
    labels = given.get("labels", "auto")
    found = next((each for each in _LABELS if each == labels), None)
    if found is None:
        raise UnknownName(
            f"{where}: no labels={labels}{nearest(labels, _LABELS)}; allowed: {', '.join(_LABELS)}"
        )
    default = ServerSettings()
    settings = ServerSettings(
        chat=_flag(given, "chat", where),
        deterministic=_flag(given, "deterministic", where),
        labels=found,
        key_env=_variable(given, where),
        identity=_filled(given, "identity", where),
        concurrency=_count(given, "concurrency", default.concurrency, where),
        retries=_count(given, "retries", default.retries, where),
        top=_count(given, "top", default.top, where),
        timeout=_number(given, "timeout", default.timeout, where),
        backoff=_number(given, "backoff", default.backoff, where),
        price_in=_number(given, "price_in", default.price_in, where),
        price_out=_number(given, "price_out", default.price_out, where),
    )
    if settings.timeout == 0:
        raise InputError(f"{where}: timeout must be above 0 seconds")
    return settings


def _flag(given: dict[str, str], name: str, where: str) -> bool:
    value = given.get(name, "false").lower()
    if value not in ("", "true", "false"):
        raise InputError(f"{where}: {name} is a flag: write {name} or {name}=false (got {value!r})")
    return value != "false"


def _count(given: dict[str, str], name: str, default: int, where: str) -> int:
    value, least = given.get(name, str(default)), _COUNTS[name]
    if not re.fullmatch(r"[0-9]{1,6}", value) or int(value) < least:
        raise InputError(f"{where}: {name} must be a whole number of at least {least} (got {value!r})")
    return int(value)


def _number(given: dict[str, str], name: str, default: float, where: str) -> float:
    value = given.get(name, str(default))
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise InputError(f"{where}: {name} must be a number of at least 0 (got {value!r})")
    return number


def _filled(given: dict[str, str], name: str, where: str) -> str | None:
    value = given.get(name)
    if value == "":
        raise InputError(f"{where}: {name} needs a value, such as {name}=...")
    return value


def _variable(given: dict[str, str], where: str) -> str | None:
    """The name of an environment variable; what is none may be the key itself and is not shown."""
    value = _filled(given, "key_env", where)
    if value is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise InputError(
            f"{where}: key_env takes the name of an environment variable, not a key",
            hint=f"export MY_KEY=... and write key_env=MY_KEY (the default is {KEY})",
        )
    return value
