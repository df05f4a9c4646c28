"""Makes odd requests out of ordinary ones.

The bodies of the cases are the corpus. A mutation works on the parsed body, on its bytes, or on the headers. What would
only cost time (long answers, thousands of choices, whole rows of the vocabulary) is made small again.
"""

import copy
import random

import cases
from case import CHAT, COMPLETIONS, GENERATE, Case, encode

ODD = [
    None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1.0, 1e308, 2**31, 2**63, -(2**63), 49151, 49152, "", "x", "1", "null",
    "🎉", "\u0000", "\ud83d", "<|im_end|>", "a" * 2000, [], {}, [None], [[]], [""], {"": 1}, {"a": {"b": []}}, [0],
    ["a", 1],
]  # fmt: skip

# The limit, which a mutation may break but not lift.
_LIMITS = ("max_tokens", "max_completion_tokens")
_ROWS = ("logprobs", "top_logprobs", "prompt_logprobs")
MOST_TOKENS, MOST_CHOICES, MOST_ROWS = 4, 3, 20
MAX_MODEL_LEN = 4096


def corpus() -> list[Case]:
    """The ordinary requests, with small limits."""
    ordinary = [case for case in cases.ALL if case.group and "beyond the context" not in case.name]
    return [Case(case.name, case.path, tame(case.path, case.body), case.headers) for case in ordinary]


def mutated(base: list[Case], draw: random.Random, name: str) -> Case:
    """An odd request."""
    origin = draw.choice(base)
    path, headers = origin.path, dict(origin.headers)
    if draw.random() < 0.03:
        path = draw.choice((COMPLETIONS, CHAT, GENERATE))
    body = copy.deepcopy(origin.body)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        body = _mutate(body, base, draw)
    raw = encode(tame(path, body))
    if draw.random() < 0.1:
        raw = _mutate_bytes(raw, draw)
    if draw.random() < 0.06:
        headers |= draw.choice(_HEADERS)
    return Case(name, path, headers=headers, raw=raw)


_HEADERS = [
    {"Content-Type": "text/plain"}, {"Content-Type": "application/json; charset=latin-1"}, {"Content-Type": ""},
    {"Content-Type": "APPLICATION/JSON"}, {"Content-Type": "application/vnd.api+json"}, {"X-Request-Id": "ä b/c"},
    {"X-Request-Id": ""}, {"Accept": "text/event-stream"}, {"Accept-Encoding": "gzip, br"}, {"X-Session-ID": "s"},
    {"Expect": "100-continue"}, {"Authorization": "Bearer x"}, {"X-data-parallel-rank": "0"},
]  # fmt: skip


def _mutate(body: object, base: list[Case], draw: random.Random) -> object:
    places = list(_places(body))
    if not places:
        return draw.choice(ODD)
    holder, key = draw.choice(places)
    kind = draw.choice(("replace", "replace", "delete", "rename", "wrap", "cross", "cross", "swap", "insert", "text"))
    match kind:
        case "delete":
            del holder[key]
        case "rename" if isinstance(holder, dict):
            holder[draw.choice((key.upper(), f"{key}_", "no_such_field", f" {key}"))] = holder.pop(key)
        case "wrap":
            holder[key] = draw.choice(([holder[key]], {"value": holder[key]}))
        case "cross" if isinstance(holder, dict):
            _, (other, name) = draw.choice([(None, place) for place in _places(draw.choice(base).body)])
            holder[name if isinstance(name, str) else key] = copy.deepcopy(other[name])
        case "swap":
            other, name = draw.choice(places)
            if other is holder:
                holder[key], other[name] = other[name], holder[key]
        case "insert" if isinstance(holder, list):
            holder.insert(draw.randint(0, len(holder)), draw.choice(ODD))
        case "text" if not isinstance(holder[key], dict | list):
            holder[key] = str(holder[key])
        case _:
            holder[key] = copy.deepcopy(draw.choice(ODD))
    return body


def _places(value: object):
    """Every item of every object and list, as its holder and its key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        # Of a long list of ids, the first are as good as any.
        if not (isinstance(value, list) and key > 3):
            yield from _places(item)


def _mutate_bytes(raw: bytes, draw: random.Random) -> bytes:
    """Changes that keep the limit, or make the JSON invalid."""
    structure = [place for place, byte in enumerate(raw) if byte in b'{}[],:"'] or [0]
    place = draw.choice(structure)
    match draw.randrange(8):
        case 0:
            return raw[: draw.randint(0, len(raw))]
        case 1:
            return raw[:place] + raw[place + 1 :]
        case 2:
            return raw[:place] + draw.choice([b"\x00", b"\xff", b",", b"}", b"//", b"'", b"\xc3"]) + raw[place:]
        case 3:
            return b"\xef\xbb\xbf" + raw
        case 4:
            return raw + draw.choice([b"x", b"{}", b"\n\n ", b"\x00", b"]"])
        case 5:
            return raw.decode("utf-8", "replace").encode("utf-16")
        case 6:
            number = draw.choice([b"NaN", b"Infinity", b"-Infinity", b"1e999", b"9" * 400, b"-", b"01", b"1e-400"])
            return raw.replace(b'"temperature":0', b'"temperature":' + number, 1)
        case _:
            return b'{"a":' + b"[" * 500 + b"]" * 500 + b"," + raw[1:]


def tame(path: str, body: object) -> object:
    """The body with what costs time made small."""
    if not isinstance(body, dict):
        return body
    body = dict(body)
    if path == GENERATE:
        if isinstance(body.get("sampling_params"), dict):
            body["sampling_params"] = _tamed(path, body["sampling_params"])
        return body
    return _tamed(path, body)


def _tamed(path: str, fields: dict) -> dict:
    fields = dict(fields)
    for name in _LIMITS:
        if name in fields:
            # Elsewhere a limit beyond the context is cut to it rather than refused.
            fields[name] = _small(fields[name], MOST_TOKENS, MAX_MODEL_LEN if path == COMPLETIONS else None)
    if "n" in fields:
        fields["n"] = _small(fields["n"], MOST_CHOICES, None)
    for name in _ROWS:
        if name in fields:
            fields[name] = 0 if _number(fields[name]) == -1 else _small(fields[name], MOST_ROWS, 49152)
    # vLLM 0.32 spoils the rows of every other request that is computed together with one that has this.
    if isinstance(fields.get("logprob_token_ids"), list):
        fields["logprob_token_ids"] = []
    limits = [fields.get(name) for name in (_LIMITS if path == CHAT else _LIMITS[:1])]
    if all(limit is None for limit in limits):
        fields["max_tokens"] = 2
    return fields


def _small(value: object, most: int, invalid_over: int | None) -> object:
    """A number like `value`, of the same kind, that costs little; one that will be refused stays."""
    number = _number(value)
    if number is None or number <= most or (invalid_over is not None and number > invalid_over):
        return value
    return type(value)(most) if not isinstance(value, bool) else value


def _number(value: object) -> float | None:
    """What the server may read as a number: text too."""
    try:
        return float(value) if isinstance(value, int | float | str) else None
    except (ValueError, OverflowError):
        return None
