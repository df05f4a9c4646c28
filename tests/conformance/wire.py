"""Sends one request over a connection of its own, and keeps the reply as it came."""

import http.client
import json
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass

from case import Case, encode

TIMEOUT = 180.0
"""Seconds that a reply may take: generous, since the machine may be busy with other things."""


@dataclass(frozen=True)
class Reply:
    """What came back: the status, the media type, and the body's bytes."""

    status: int
    content_type: str | None
    body: bytes

    @property
    def is_stream(self) -> bool:
        return (self.content_type or "").startswith("text/event-stream")

    def json(self) -> object:
        return parse(self.body)


def parse(text: str | bytes) -> object:
    """JSON as strict clients read it: no key twice, no NaN.

    Raises `ValueError`.
    """
    return json.loads(text, object_pairs_hook=_once, parse_constant=_refused)


def _once(items: list[tuple[str, object]]) -> dict:
    keys = dict(items)
    if len(keys) != len(items):
        raise ValueError(f"a key comes twice: {[key for key, _ in items]}")
    return keys


def _refused(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


class NoReply(Exception):
    """The connection failed, or nothing came in time."""


def send(base: str, case: Case, timeout: float = TIMEOUT) -> Reply:
    """Sends a case to the server or the sidecar at `base`."""
    payload = case.payload()
    headers = {} if payload is None else {"Content-Type": "application/json"}
    return request(base, case.method, case.path, payload, {**headers, **case.headers}, timeout)


def request(
    base: str, method: str, path: str, payload: bytes | None, headers: Mapping[str, str], timeout: float = TIMEOUT
) -> Reply:
    address = urllib.parse.urlsplit(base)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=timeout)
    try:
        connection.request(method, path, body=payload, headers=dict(headers))
        reply = connection.getresponse()
        return Reply(reply.status, reply.getheader("Content-Type"), reply.read())
    except (OSError, http.client.HTTPException) as error:
        raise NoReply(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()


def get(base: str, path: str) -> Reply:
    return request(base, "GET", path, None, {})


def ask(base: str, path: str, body: dict) -> dict:
    """A call that must succeed, and its reply."""
    reply = request(base, "POST", path, encode(body), {"Content-Type": "application/json"})
    if reply.status != 200:
        raise NoReply(f"{path}: {reply.status} {reply.body[:300]!r}")
    return reply.json()
