"""A small real server that speaks OpenAI's protocol over a model of this library, with switches for all that goes wrong.

    with Loopback(exact("bundled:causal")) as server:
        model = load_model(f"openai:small@{server.url}")

Completions give log-probabilities of the prompt (``echo``, or ``prompt_logprobs``), the likeliest first tokens, and greedy
continuations; chat is the same with a plain template around the messages. Which of this a server offers is in ``Offers``,
what goes wrong in ``Trouble``. Also runs by itself: ``python -m tests.models.loopback --model bundled:causal --port 8123``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.models.minds import Mind, exact


@dataclass
class Offers:
    """What a server can do; the rest it refuses with status 400, or 404 for a call."""

    models: tuple[str, ...] | None = ("small",)
    """None: it lists none, and takes any name."""
    completions: bool = True
    chat: bool = True
    echo: bool = True
    no_new_tokens: bool = True
    several: bool = True
    prompt_logprobs: bool = False
    top: int = 20
    key: str = ""
    silently: bool = False
    """It takes ``echo`` and gives the new token alone, as some servers do."""
    behind: str = ""
    """What a request's path begins with where this server stands in for another one, as a proxy."""
    strict: tuple[str, ...] = ()
    """Fields that it refuses."""


@dataclass
class Trouble:
    """What goes wrong; counts are of posts, the first is 1, those of the probes among them.

    Attributes:
        dies_at: the post at which it stops for good, its connections with it; None never.
        limited: posts that are answered with status 429 and ``Retry-After``.
        broken: posts that are answered with status 503.
        status: what the posts in ``broken`` are answered with.
        garbage: posts answered with these bytes and status 200.
        cut: posts whose answer breaks off in the middle.
        slow: seconds each post takes.
    """

    dies_at: int | None = None
    limited: Callable[[int], bool] = lambda number: False
    retry_after: str = "0"
    broken: Callable[[int], bool] = lambda number: False
    status: int = 503
    garbage: Callable[[int], bytes | None] = lambda number: None
    cut: Callable[[int], bool] = lambda number: False
    slow: float = 0.0


class Loopback:
    """The server, in threads of this process, at a port of its own.

    Attributes:
        posts: requests for answers so far, refused ones among them.
        bodies: what they held.
        widest: most of them under way at once.
        connections: how many were opened.
    """

    def __init__(
        self, mind: Mind, offers: Offers | None = None, trouble: Trouble | None = None, *, port: int = 0
    ) -> None:
        self.mind = mind
        self.offers = offers or Offers()
        self.trouble = trouble or Trouble()
        self.posts = self.widest = self.connections = 0
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self._now = 0
        self._lock = threading.Lock()
        self._open: set[Any] = set()
        self.dead = False
        self._server = _Server(("127.0.0.1", port), _handler(self))
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Loopback:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close the port and all connections."""
        if not self.dead:
            self.dead = True
            self._server.shutdown()
        self._server.server_close()
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            _shut(connection)

    def die(self) -> None:
        """The same from within a request."""
        self.dead = True
        self._server.socket.close()
        threading.Thread(target=self._server.shutdown, daemon=True).start()
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            _shut(connection)

    def opened(self, connection: Any) -> None:
        with self._lock:
            self.connections += 1
            self._open.add(connection)

    def closed(self, connection: Any) -> None:
        with self._lock:
            self._open.discard(connection)

    def enter(self, body: dict[str, Any], key: str) -> int:
        with self._lock:
            self.posts += 1
            self._now += 1
            self.widest = max(self.widest, self._now)
            self.bodies.append(body)
            self.keys.append(key)
            return self.posts

    def leave(self) -> None:
        with self._lock:
            self._now -= 1


class Refusal(Exception):
    """An error in OpenAI's form."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.document = {"error": {"message": message, "type": "invalid_request_error", "code": code or None}}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none."""


def _shut(connection: Any) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(2)


def _handler(server: Loopback) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            server.opened(self.connection)

        def finish(self) -> None:
            server.closed(self.connection)
            super().finish()

        def log_message(self, *_: object) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            try:
                self._check_key()
                if _path(server, self.path) != "/v1/models" or server.offers.models is None:
                    raise Refusal(404, f"no {self.path} here")
                entries = [
                    {"id": name, "object": "model", "root": f"root of {name}"}
                    for name in server.offers.models
                ]
                self._send(200, {"object": "list", "data": entries})
            except Refusal as error:
                self._send(error.status, error.document)

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            number = server.enter(json.loads(content), self.headers.get("Authorization", ""))
            try:
                self._answer(number, json.loads(content))
            except Refusal as error:
                self._send(error.status, error.document)
            finally:
                server.leave()

        def _answer(self, number: int, body: dict[str, Any]) -> None:
            trouble = server.trouble
            if server.dead or (trouble.dies_at is not None and number >= trouble.dies_at):
                server.die()
                self.close_connection = True
                return
            time.sleep(trouble.slow)
            if trouble.limited(number):
                self._send(429, {"error": {"message": "slow down"}}, {"Retry-After": trouble.retry_after})
                return
            if trouble.broken(number):
                raise Refusal(trouble.status, "not now")
            garbage = trouble.garbage(number)
            if garbage is not None:
                self._send_bytes(200, garbage)
                return
            self._check_key()
            found = _found(server, _path(server, self.path), body)
            if trouble.cut(number):
                self._send_bytes(200, json.dumps(found).encode()[:-20], missing=20)
                self.close_connection = True
                return
            self._send(200, found)

        def _check_key(self) -> None:
            key = server.offers.key
            if key and self.headers.get("Authorization") != f"Bearer {key}":
                given = self.headers.get("Authorization", "").removeprefix("Bearer ")
                raise Refusal(401, f"Incorrect API key provided: {given}", "invalid_api_key")

        def _send(self, status: int, document: object, headers: Mapping[str, str] | None = None) -> None:
            self._send_bytes(status, json.dumps(document).encode(), headers)

        def _send_bytes(
            self, status: int, content: bytes, headers: Mapping[str, str] | None = None, missing: int = 0
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content) + missing))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    return Handler


def _path(server: Loopback, path: str) -> str:
    return path.removeprefix(server.offers.behind)


def _found(server: Loopback, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to a post."""
    offers = server.offers
    chat = path == "/v1/chat/completions"
    if not (chat and offers.chat) and not (path == "/v1/completions" and offers.completions):
        raise Refusal(404, f"no {path} here")
    if offers.models is not None and body["model"] not in offers.models:
        raise Refusal(404, f"The model `{body['model']}` does not exist", "model_not_found")
    for name in offers.strict:
        if name in body:
            raise Refusal(400, f"Unrecognized request argument supplied: {name}")
    if chat:
        return _chatted(server.mind, offers, body)
    prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
    if len(prompts) > 1 and not offers.several:
        raise Refusal(400, "prompt must be a string")
    given = [_completed(server.mind, offers, body, prompt) for prompt in prompts]
    read = sum(len(server.mind.read(prompt)) for prompt in prompts)
    found = [{"index": index, "finish_reason": "length", **each} for index, each in enumerate(given)]
    found.reverse()  # the order is the index's business
    return {
        "object": "text_completion",
        "choices": found,
        "usage": _usage(read, sum(_new(body) for _ in given)),
    }


def _completed(mind: Mind, offers: Offers, body: dict[str, Any], prompt: str) -> dict[str, Any]:
    if "prompt_logprobs" in body:
        if not offers.prompt_logprobs:
            raise Refusal(400, "prompt_logprobs: unknown field")
        return {"text": "", "prompt_logprobs": _tables(mind.read(prompt))}
    new = _new(body)
    if not body.get("echo"):
        if body.get("logprobs") is None:
            return {"text": mind.write(prompt, new, body.get("stop", ())), "logprobs": None}
        if offers.top < body["logprobs"]:
            raise Refusal(400, f"logprobs must be at most {offers.top}")
        likeliest = mind.next(prompt, body["logprobs"])
        table = {
            "top_logprobs": [dict(likeliest)],
            "tokens": [likeliest[0][0]],
            "token_logprobs": [likeliest[0][1]],
        }
        return {"text": likeliest[0][0], "logprobs": table}
    if not offers.echo or (new == 0 and not offers.no_new_tokens):
        raise Refusal(400, "echo is not supported" if not offers.echo else "max_tokens must be at least 1")
    tokens: list[tuple[str, float | None]] = list(mind.read(prompt))
    extra: list[tuple[str, float | None]] = list(mind.next(prompt, 1)) if new else []
    if offers.silently:
        tokens, extra = [], list(mind.next(prompt, 1))
    names, values = zip(*tokens, *extra, strict=True)
    return {
        "text": prompt + "".join(name for name, _ in extra),
        "logprobs": {"tokens": names, "token_logprobs": values},
    }


def _chatted(mind: Mind, offers: Offers, body: dict[str, Any]) -> dict[str, Any]:
    """Messages as one text: what the user says, then the assistant's place."""
    user, *said = body["messages"]
    text = f"{user['content']}\n"
    if "prompt_logprobs" in body:
        if not offers.prompt_logprobs or not body.get("continue_final_message"):
            raise Refusal(400, "prompt_logprobs: unknown field")
        tokens = mind.read(text + said[0]["content"])
        choice = {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "length"}
        return {"choices": [choice], "prompt_logprobs": _tables(tokens), "usage": _usage(len(tokens), 1)}
    choice = {"index": 0, "finish_reason": "stop", "logprobs": None}
    if body.get("logprobs"):
        if body["top_logprobs"] > offers.top:
            raise Refusal(400, f"top_logprobs must be at most {offers.top}")
        likeliest = [
            {"token": name, "logprob": value} for name, value in mind.next(text, body["top_logprobs"])
        ]
        choice["logprobs"] = {"content": [{**likeliest[0], "top_logprobs": likeliest}]}
    limit = int(body.get("max_tokens") or body["max_completion_tokens"])
    choice["message"] = {"role": "assistant", "content": mind.write(text, limit, body.get("stop", ()))}
    return {"choices": [choice], "usage": _usage(len(mind.read(text)), limit)}


def _new(body: Mapping[str, Any]) -> int:
    return int(body.get("max_tokens", 16))


def _tables(tokens: Sequence[tuple[str, float | None]]) -> list[dict[str, object] | None]:
    return [
        None if value is None else {str(place): {"logprob": value, "rank": 1, "decoded_token": name}}
        for place, (name, value) in enumerate(tokens)
    ]


def _usage(read: int, written: int) -> dict[str, int]:
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def main() -> None:
    """Serve a bundled model until interrupted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="bundled:causal")
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--no-echo", action="store_true")
    parser.add_argument("--key", default="")
    given = parser.parse_args()
    offers = Offers(models=("small",), echo=not given.no_echo, key=given.key)
    with Loopback(exact(given.model), offers, port=given.port) as server:
        print(f"openai:small@{server.url}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
