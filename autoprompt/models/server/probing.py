"""What a server can do, found out once by a few small questions when the model is loaded.

Only what a server refuses for good, or answers without what was asked for, counts as something it cannot do. A server
that is not there, wants a key or is busy is an error, so that the same call never takes a busy server for a simpler one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autoprompt.errors import MissingCapability, ServerError, nearest
from autoprompt.models.server import answers
from autoprompt.models.server.dialect import Dialect, WholeWay
from autoprompt.models.server.names import ServerSpec
from autoprompt.models.server.spelling import answer_start, common_start
from autoprompt.models.server.wire import Garbled, Gone, Refused, Unreachable, Wire, may_pass

_TEXT = "The weather was fine. Everybody was happy and said that it was"
_ENDINGS = (" good", " broken")
_LOCKED = (401, 403)
_ABSENT = (404, 405, 410, 501)
_WRONG_FIELDS = (400, 422)
_TOPS = (20, 5)
_SETTLED: Mapping[str, object] = {"temperature": 0, "seed": 0}
_WAYS: dict[bool, tuple[WholeWay, ...]] = {
    False: ("echo, 0 new tokens", "echo, 1 new token", "prompt_logprobs"),
    True: ("chat prompt_logprobs",),
}


class Busy(Gone):
    """The server is there, but has no time to show what it can do."""


@dataclass(frozen=True)
class Found:
    """How to speak with the server, what it says the model is made of, and what the user should know."""

    dialect: Dialect
    root: str
    remarks: tuple[str, ...] = field(default=())


def probe(spec: ServerSpec, wire: Wire) -> Found:
    """Find out how to ask this server.

    Raises:
        ServerError: it is not there, refuses the key, has no such model, or does not speak the protocol.
        MissingCapability: it cannot read labels in the way the options demand.
    """
    try:
        listed = _listed(spec, wire)
        dialect, remarks = _spoken(spec, wire, listed)
        wanted = spec.settings.labels
        if wanted in ("auto", "whole"):
            dialect = _with_wholes(wire, dialect)
        if wanted == "first" or (wanted == "auto" and not dialect.whole):
            dialect = _with_first(wire, dialect, spec.settings.top)
    except (Gone, Unreachable) as error:
        hint = "start the server, or mend the URL (http://HOST:PORT/v1)"
        if isinstance(error, Busy):
            raise ServerError(
                f"model {spec.text!r}: the server at {spec.url} is busy: {error}",
                hint="try again later, with a longer timeout=, or say how it reads labels: labels=whole, first or text",
            ) from None
        raise ServerError(
            f"model {spec.text!r}: nothing answers at {spec.url} ({error})", hint=hint
        ) from None
    if (wanted == "whole" and not dialect.whole) or (wanted == "first" and not dialect.top):
        raise MissingCapability(
            f"model {spec.text!r}: labels={wanted} is asked for, but the server gives no "
            + ("log-probabilities of texts it is sent" if wanted == "whole" else "likeliest first tokens"),
            hint="leave labels out: then the best way that the server can is taken",
        )
    name = spec.name
    if listed and name not in listed:
        remarks = (*remarks, f"the server lists no {name!r} ({', '.join(sorted(listed))}), but answers to it")
    return Found(dialect, listed.get(name, ""), remarks)


def _listed(spec: ServerSpec, wire: Wire) -> dict[str, str]:
    """The models the server lists; empty where it lists none."""
    try:
        return answers.model_names(wire.get("/models"))
    except Refused as error:
        if error.status in _LOCKED:
            raise _locked(spec, error) from None
        if 300 <= error.status < 400:
            raise ServerError(f"model {spec.text!r}: {spec.url} has {error.message}") from None
        return {}
    except Garbled:
        return {}


def _spoken(spec: ServerSpec, wire: Wire, listed: Mapping[str, str]) -> tuple[Dialect, tuple[str, ...]]:
    """The call and the fields the server understands."""
    problems: list[Refused | Garbled] = []
    for chat in (True,) if spec.settings.chat else (False, True):
        plain = Dialect(spec.name, chat)
        for dialect in (
            dataclasses.replace(plain, limit=limit, extras=extras)
            for extras in (_SETTLED, {"temperature": 0}, {})
            for limit in ("max_tokens", "max_completion_tokens")
        ):
            try:
                found = wire.post(dialect.path, dialect.text(_TEXT, 1), probing=True)
                answers.choices(found)
            except Refused as error:
                if error.status in _LOCKED:
                    raise _locked(spec, error) from None
                problems.append(error)
                if error.status in _WRONG_FIELDS:
                    continue
                break
            except Garbled as error:
                problems.append(error)
                break
            return dialect, _remarks(spec, dialect)
        if isinstance(problems[-1], Refused) and problems[-1].status not in (*_ABSENT, *_WRONG_FIELDS):
            break  # busy or broken: another call would tell nothing
    raise _silent(spec, wire, listed, problems[0])


def _remarks(spec: ServerSpec, dialect: Dialect) -> tuple[str, ...]:
    found = []
    if dialect.chat and not spec.settings.chat:
        found.append("the server has no /completions: texts go as a user's message to /chat/completions")
    if "temperature" not in dialect.extras:
        found.append("the server takes no temperature: its answers are drawn, not the likeliest")
    return tuple(found)


def _with_wholes(wire: Wire, dialect: Dialect) -> Dialect:
    """The same with a way to get log-probabilities of sent texts, where there is one."""
    for way in _WAYS[dialect.chat]:
        for several in (True, False) if not dialect.chat else (False,):
            able = dataclasses.replace(dialect, whole=way, several=several)
            if _reads_wholes(wire, able):
                return able
    return dialect


def _reads_wholes(wire: Wire, dialect: Dialect) -> bool:
    """Whether the tokens that come back spell what was sent, each with its own log-probability: some servers take the
    fields and give the new token's alone, which would make all answers equal.
    """
    endings = [ending.strip() for ending in _ENDINGS] if dialect.chat else list(_ENDINGS)
    parts = [endings] if dialect.several else [[ending] for ending in endings]
    try:
        read = [
            each
            for part in parts
            for each in dialect.read_wholes(
                _asked(wire, dialect.path, dialect.wholes(_TEXT, part)), _TEXT, part
            )
        ]
        tokens = [each.tokens for each in read]
        starts = [answer_start(each, _TEXT, ending) for each, ending in zip(tokens, endings, strict=True)]
        start = common_start(tokens, starts)
        values = [answers.total(each, start, len(each.tokens)) for each in read]
    except (Refused, Garbled):
        return False
    return values[0] != values[1]


def _with_first(wire: Wire, dialect: Dialect, top: int) -> Dialect:
    """The same with the likeliest first tokens, where the server names them.

    A server that applies the temperature first names one token with certainty: then it is asked at temperature 1.
    """
    warm = {**dialect.extras, "temperature": 1}
    for extras in (dialect.extras, warm) if "temperature" in dialect.extras else (dialect.extras,):
        for asked in dict.fromkeys((top, *(each for each in _TOPS if each < top))):
            able = dataclasses.replace(dialect, top=asked, top_extras=extras)
            try:
                found = _asked(wire, able.path, able.first(_TEXT))
                likeliest = answers.likeliest(answers.choices(found)[0], asked)
            except (Refused, Garbled):
                continue
            values = sorted(likeliest.values(), reverse=True)
            if len(values) > 1 and values[1] > -50:
                return able
    return dialect


def _asked(wire: Wire, path: str, body: Mapping[str, object]) -> dict[str, Any]:
    """Post a probe; a server that is too busy for it, or whose answer never arrives whole, tells nothing about what it can
    do.
    """
    try:
        return wire.post(path, body, probing=True)
    except (Garbled, Unreachable) as error:
        raise Busy(str(error)) from None
    except Refused as error:
        if may_pass(error.status) and error.status != 500:
            raise Busy(str(error)) from None
        raise


def _locked(spec: ServerSpec, error: Refused) -> ServerError:
    sent = (
        f"the key in {spec.key_name}"
        if spec.key()
        else f"to answer without a key ({spec.key_name} is not set)"
    )
    return ServerError(
        f"model {spec.text!r}: the server at {spec.url} refuses {sent}: {error.message}",
        hint=f"export {spec.key_name}=..., or name another environment variable with key_env=NAME",
    )


def _silent(spec: ServerSpec, wire: Wire, listed: Mapping[str, str], error: Refused | Garbled) -> ServerError:
    """Why the first question had no answer, as far as can be told."""
    if listed and spec.name not in listed:
        return ServerError(
            f"model {spec.text!r}: the server at {spec.url} has no model {spec.name!r}"
            f"{nearest(spec.name, listed)}; it has: {', '.join(sorted(listed))}",
            hint=f"its own words: {error}",
        )
    hint = "is this the root of an API that speaks OpenAI's protocol? It often ends in /v1"
    if isinstance(error, Refused) and error.status not in _ABSENT:
        hint = "these are the server's own words; its log may say more"
    if not listed and not spec.url.endswith("/v1") and _has_models(wire):
        hint = f"the API begins at {spec.url}/v1"
    return ServerError(f"model {spec.text!r}: the server at {spec.url} does not answer: {error}", hint=hint)


def _has_models(wire: Wire) -> bool:
    try:
        return bool(answers.model_names(wire.get("/v1/models")))
    except (Refused, Garbled, Unreachable):
        return False
