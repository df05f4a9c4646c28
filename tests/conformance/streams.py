"""What a stream says, however it was cut into chunks.

A speculating server may put several tokens into one chunk, so chunks are not compared one by one. A stream is read
into parts that do not depend on where it was cut:

- per choice: its text, its token ids and its log-probabilities, each put together;
- every other value that some chunk of a choice holds, with where it is: in every chunk, or in the choice's first, last
  or other chunks. A choice that came in a single chunk may have it at either end;
- the key order of each kind of chunk: the chat's opening chunk with the role, a chunk with content, one that
  finishes a choice, the one with the usage. There may be no content chunk, where the last one holds everything;
- the usage: each choice's last, and whether it only ever grows;
- the order: opening chunks first, the usage after every choice, `[DONE]` at the end and only there.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from compare import Difference, differences, of_keys, settle
from wire import parse

DONE = "[DONE]"
# Put together, rather than compared chunk by chunk. The usage of each chunk is looked at apart.
JOINED = {"text", "token_ids", "logprobs", "content", "usage", "index"}


class Garbled(Exception):
    """The bytes are not a stream of server-sent events as vLLM writes them."""


@dataclass
class Choice:
    """One choice of a stream."""

    chunks: list[dict] = field(default_factory=list)
    """Its chunks, each reduced to {path: value} of what is not put together."""
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: dict[str, list] = field(default_factory=dict)
    counted: list[dict] = field(default_factory=list)
    """The usage of each chunk that has one."""


@dataclass
class Stream:
    """A whole stream."""

    choices: dict[int, Choice] = field(default_factory=dict)
    shapes: dict[str, list[list[str]]] = field(default_factory=dict)
    """The different key orders of each kind of chunk."""
    kinds: list[str] = field(default_factory=list)
    """The kind of each event, in order."""
    loose: list[dict] = field(default_factory=list)
    """Events without a choice: the usage, errors."""


def events(body: bytes) -> Iterator[str]:
    """The data of each event. vLLM writes one `data: ` line an event, and a blank line after it."""
    text = body.decode("utf-8")
    if text and not text.endswith("\n\n"):
        raise Garbled(f"it ends in {text[-60:]!r}")
    for event in text.removesuffix("\n\n").split("\n\n"):
        if not event.startswith("data: ") or "\n" in event:
            raise Garbled(f"not one line of data: {event[:200]!r}")
        yield event.removeprefix("data: ")


def read(body: bytes, same_ids: bool = False) -> Stream:
    """Reads a stream's bytes."""
    stream = Stream()
    for data in events(body):
        if data == DONE:
            stream.kinds.append("done")
            continue
        event = settle(parse(data), same_ids)
        kind = _kind(event)
        stream.kinds.append(kind)
        shape = _shape(event)
        if shape not in stream.shapes.setdefault(kind, []):
            stream.shapes[kind].append(shape)
        if not event.get("choices"):
            stream.loose.append(event)
        for part in event.get("choices") or []:
            _add(stream.choices.setdefault(part["index"], Choice()), event, part)
    return stream


def _kind(event: dict) -> str:
    if "error" in event:
        return "error"
    if not event.get("choices"):
        return "usage"
    part = event["choices"][0]
    if part.get("finish_reason") is not None:
        return "finish"
    return "opening" if "role" in (part.get("delta") or {}) else "content"


def _shape(value: object, path: str = "") -> list[str]:
    """The paths of all keys, in order, but inside token maps, whose keys are the tokens themselves."""
    if isinstance(value, list):
        return _shape(value[0], f"{path}[]") if value else []
    if not isinstance(value, dict) or path.endswith(".top_logprobs[]"):
        return []
    return [each for key, item in value.items() for each in (f"{path}.{key}", *_shape(item, f"{path}.{key}"))]


def _add(choice: Choice, event: dict, part: dict) -> None:
    delta = part.get("delta")
    choice.text += (part.get("text") if delta is None else delta.get("content")) or ""
    choice.token_ids += part.get("token_ids") or []
    for name, entries in (part.get("logprobs") or {}).items():
        choice.logprobs.setdefault(name, []).extend(entries or [])
    if event.get("usage") is not None:
        choice.counted.append(event["usage"])
    around = {key: value for key, value in event.items() if key != "choices"}
    values = {**_flat(around), **_flat(part), **{f"delta.{key}": item for key, item in _flat(delta or {}).items()}}
    choice.chunks.append(values)


def _flat(value: dict) -> dict[str, object]:
    skipped = JOINED | {"delta"}
    return {key: item for key, item in value.items() if key not in skipped and item is not None}


def compare(direct: Stream, proxied: Stream) -> Iterator[Difference]:
    """Where two streams differ, but for where they were cut."""
    yield from _kinds(direct, proxied)
    if direct.choices.keys() != proxied.choices.keys():
        yield Difference("choices", sorted(direct.choices), sorted(proxied.choices))
    for index in sorted(direct.choices.keys() & proxied.choices.keys()):
        left, right, path = direct.choices[index], proxied.choices[index], f"choices[{index}]"
        for name in ("text", "token_ids", "logprobs"):
            yield from differences(getattr(left, name), getattr(right, name), f"{path}.{name}")
        yield from _values(left, right, path)
        yield from _usage(left, right, path)
    yield from differences(direct.loose, proxied.loose, "events")


def _kinds(direct: Stream, proxied: Stream) -> Iterator[Difference]:
    for kind in dict.fromkeys([*direct.shapes, *proxied.shapes]):
        left, right = direct.shapes.get(kind, []), proxied.shapes.get(kind, [])
        if kind == "content" and not (left and right):
            continue
        strange = [shape for shape in right if shape not in left]
        if strange:
            yield of_keys(f"<{kind} chunk>", left[0] if left else [], strange[0])
        elif len(left) != len(right) and kind != "content":
            yield Difference(f"<{kind} chunk> (how many forms)", len(left), len(right))
    left, right = _order(direct.kinds), _order(proxied.kinds)
    if left != right:
        yield Difference("<order of chunks>", left, right)


def _order(kinds: list[str]) -> list[str]:
    """The kinds in their order, a run of them once; content and finishing chunks of several choices mix freely."""
    merged: list[str] = []
    for kind in kinds:
        kind = "choices" if kind in ("content", "finish") else kind
        if not merged or merged[-1] != kind or kind == "done":
            merged.append(kind)
    return merged


def _values(left: Choice, right: Choice, path: str) -> Iterator[Difference]:
    """The values that are not put together, and where they are."""
    for name in dict.fromkeys(key for choice in (left, right) for chunk in choice.chunks for key in chunk):
        places = _places(left, name), _places(right, name)
        if not _agree(*places):
            yield Difference(f"{path}.{name} (where: value)", *places)


def _places(choice: Choice, name: str) -> list[tuple[str, object]]:
    """Where a value is, and what: once for all if every chunk has the same."""
    last = len(choice.chunks) - 1
    found = [(number, chunk[name]) for number, chunk in enumerate(choice.chunks) if name in chunk]
    if len(found) == len(choice.chunks) and all(value == found[0][1] for _, value in found):
        return [("only" if last == 0 else "every", found[0][1])]
    return [({0: "first", last: "last"}.get(number, "other"), value) for number, value in found]


def _agree(left: list, right: list) -> bool:
    """A choice in a single chunk has its values at both ends, and in every chunk."""
    if len(left) != len(right):
        return False
    return all(a[1] == b[1] and (a[0] == b[0] or "only" in (a[0], b[0])) for a, b in zip(left, right, strict=True))


def _usage(left: Choice, right: Choice, path: str) -> Iterator[Difference]:
    if bool(left.counted) != bool(right.counted):
        yield Difference(f"{path}.usage (chunks with it)", len(left.counted), len(right.counted))
    elif left.counted:
        yield from differences(left.counted[-1], right.counted[-1], f"{path}.usage (last)")
        grows = [usage["completion_tokens"] for usage in right.counted]
        if grows != sorted(grows):
            yield Difference(f"{path}.usage.completion_tokens", "<growing>", grows)
        if len(right.counted) != len(right.chunks):
            counted = f"{len(right.counted)} of {len(right.chunks)}"
            yield Difference(f"{path}.usage (chunks with it)", "<every>", counted)
