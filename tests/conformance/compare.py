"""The differences between two JSON replies.

Objects must have the same keys in the same order, numbers the same kind (0 is not 0.0). Log-probabilities may be apart
by `LOGPROB_TOLERANCE`: the server's own depend on the shape of the batch. Everything else must be equal, but for ids
and times, of which only the form is compared.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

LOGPROB_TOLERANCE = 2e-3

IDS = {"id", "request_id"}
_RANDOM = re.compile(r"[0-9a-f]{8,32}")


@dataclass(frozen=True)
class Difference:
    """Where two replies part, and what is there."""

    path: str
    direct: object
    proxied: object

    def __str__(self) -> str:
        return f"{self.path}: direct {short(self.direct)}, sidecar {short(self.proxied)}"


def short(value: object, limit: int = 160) -> str:
    text = value if isinstance(value, str) and value.startswith("<") else repr(value)
    return text if len(text) <= limit else f"{text[: limit - 40]} … {text[-38:]}"


def settle(value: object, same_ids: bool) -> object:
    """The reply without what is drawn or told by the clock for each request."""
    if isinstance(value, dict):
        return {key: _settled(key, item, same_ids) for key, item in value.items()}
    if isinstance(value, list):
        return [settle(item, same_ids) for item in value]
    return value


def _settled(key: str, value: object, same_ids: bool) -> object:
    if key == "created" and type(value) is int:
        return "<time>"
    if key in IDS and isinstance(value, str) and not same_ids:
        return _RANDOM.sub(lambda found: f"<{len(found[0])} digits>", value)
    return settle(value, same_ids)


def differences(direct: object, proxied: object, path: str = "") -> Iterator[Difference]:
    """Every place where two settled values differ, outermost first."""
    if isinstance(direct, dict) and isinstance(proxied, dict):
        yield from _of_objects(direct, proxied, path)
    elif isinstance(direct, list) and isinstance(proxied, list):
        if len(direct) != len(proxied):
            yield Difference(f"{path}[] (count)", len(direct), len(proxied))
        for index, (left, right) in enumerate(zip(direct, proxied, strict=False)):
            yield from differences(left, right, f"{path}[{index}]")
    elif type(direct) is not type(proxied):
        yield Difference(path, direct, proxied)
    elif isinstance(direct, float) and "logprob" in path:
        if not abs(direct - proxied) <= LOGPROB_TOLERANCE:
            yield Difference(path, direct, proxied)
    elif direct != proxied:
        yield Difference(path, direct, proxied)


def _of_objects(direct: dict, proxied: dict, path: str) -> Iterator[Difference]:
    if list(direct) != list(proxied):
        yield of_keys(f"{path}{{}}", list(direct), list(proxied))
    for key in direct:
        if key in proxied:
            yield from differences(direct[key], proxied[key], f"{path}.{key}".lstrip("."))


def of_keys(path: str, direct: list[str], proxied: list[str]) -> Difference:
    """The keys that only one side has, or else both orders."""
    left = [key for key in direct if key not in proxied]
    right = [key for key in proxied if key not in direct]
    if left or right:
        return Difference(f"{path} (keys of one only)", left, right)
    return Difference(f"{path} (order of keys)", direct, proxied)
