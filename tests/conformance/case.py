"""One request of the suite, and how it becomes bytes.

Nearly every request gets a `cache_salt` of its own each time it is sent. Two sends of one request would otherwise
share the server's prefix cache, and the second one's `cached_tokens` would tell so.
"""

import json
import secrets
from dataclasses import dataclass, field

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
GENERATE = "/inference/v1/generate"

OMIT = object()
"""A field that a case leaves out, though its kind of request has it by default."""

Body = dict | list | str | int | None


@dataclass(frozen=True)
class Case:
    """A request, sent as it is to the server and through the sidecar."""

    name: str
    path: str
    body: Body = None
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "POST"
    raw: bytes | None = None
    """Sent in place of the body."""
    salted: bool = True
    """Whether each send gets a `cache_salt` of its own."""
    same_ids: bool = False
    """Whether the reply's ids are chosen by the request, so that both must be the same."""
    group: str = ""
    """What it is about."""
    warm: bool = False
    """Whether it is sent once before, so that both replies find the prefix cache filled alike."""

    @property
    def endpoint(self) -> str:
        """The route's name in tables."""
        return {COMPLETIONS: "completions", CHAT: "chat", GENERATE: "generate"}.get(self.path, self.path)

    @property
    def is_edge(self) -> bool:
        """Whether it is about an error or a route, rather than an ordinary request."""
        return self.name.startswith(("error: ", "bytes: ", "route: "))

    def payload(self) -> bytes | None:
        """The request's body as bytes, salted anew."""
        if self.raw is not None or self.body is None:
            return self.raw
        body = self.body
        if self.salted and isinstance(body, dict):
            body = {**body, "cache_salt": secrets.token_hex(16)}
        return encode(body)


def encode(body: Body) -> bytes:
    """JSON as openai-python writes it."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def merged(default: dict, fields: dict) -> dict:
    """The default fields with some replaced, added, or left out."""
    return {key: value for key, value in {**default, **fields}.items() if value is not OMIT}
