"""Connections to one server, kept open between requests, that can all be cut at once."""

from __future__ import annotations

import base64
import http.client
import socket
import threading
from collections.abc import Mapping
from email.message import Message
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

_HERE = ("localhost", "127.0.0.1", "::1")
_CONNECT = 10.0
"""Seconds a connection may take to come about: it cannot be cut before it is there."""


class Cut(Exception):
    """The line was cut while a request was under way or waiting."""


class Line:
    """Hands out connections, takes them back, and waits on behalf of requests.

    Args:
        url: root of the API.
        timeout: seconds of silence after which a connection is given up.
    """

    def __init__(self, url: str, timeout: float) -> None:
        parts = urlsplit(url)
        self._host, self._secure = parts.hostname or "", parts.scheme == "https"
        self._port = parts.port or (443 if self._secure else 80)
        self._root = url if _proxy(parts.scheme, self._host) and not self._secure else parts.path
        self._proxy = _proxy(parts.scheme, self._host)
        self.timeout = timeout
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []
        self._busy: set[http.client.HTTPConnection] = set()
        self._cut = threading.Event()

    def exchange(
        self, method: str, path: str, data: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, Message, bytes]:
        """Send one request and read all of its response: status, headers, content.

        A connection that was kept open may have been closed by the server since; that is noticed when it is used,
        and the request goes over a new one.

        Raises:
            OSError, http.client.HTTPException: nothing, or not all, came back.
            Cut: the line was cut.
        """
        kept = self._kept()
        if kept is not None:
            try:
                return self._over(kept, method, path, data, headers, timeout)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                pass
        return self._over(self._new(min(_CONNECT, timeout)), method, path, data, headers, timeout)

    def wait(self, seconds: float) -> None:
        """Wait, or raise Cut as soon as the line is cut."""
        if self._cut.wait(seconds):
            raise Cut

    def cut(self) -> None:
        """End all that is under way, from whatever thread."""
        self._cut.set()
        with self._lock:
            busy, idle = list(self._busy), list(self._idle)
            self._idle.clear()
        for connection in busy:  # closing alone would not wake a thread that reads from it
            if isinstance(connection.sock, socket.socket):
                try:
                    connection.sock.shutdown(socket.SHUT_RDWR)
                except OSError:  # closed in the meantime
                    continue
        for connection in idle:
            connection.close()

    def _over(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        data: bytes | None,
        headers: Mapping[str, str],
        timeout: float,
    ) -> tuple[int, Message, bytes]:
        with self._lock:
            self._busy.add(connection)
        keep = False
        try:
            if self._cut.is_set():
                raise Cut
            if connection.sock is None:
                connection.connect()
            connection.sock.settimeout(timeout)
            connection.request(method, self._root + path, body=data, headers=dict(headers))
            with connection.getresponse() as response:
                content = response.read()
                keep = not response.will_close
            return response.status, response.headers, content
        except (OSError, http.client.HTTPException, ValueError):
            if self._cut.is_set():
                raise Cut from None
            raise
        finally:
            with self._lock:
                self._busy.discard(connection)
                keep = keep and not self._cut.is_set()
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()

    def _kept(self) -> http.client.HTTPConnection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _new(self, timeout: float) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        if self._proxy is None:
            return kind(self._host, self._port, timeout=timeout)
        host, port, headers = self._proxy
        connection = kind(host, port, timeout=timeout)
        if self._secure:
            connection.set_tunnel(self._host, self._port, headers)
        return connection


def _proxy(scheme: str, host: str) -> tuple[str, int, dict[str, str]] | None:
    """Host, port and headers of the proxy that the environment names for this host; None where there is none."""
    url = getproxies().get(scheme)
    if not url or host in _HERE or proxy_bypass(host):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    headers = {}
    if parts.username:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["Proxy-Authorization"] = "Basic " + base64.b64encode(login).decode("ascii")
    return (parts.hostname, parts.port or 80, headers) if parts.hostname else None
