"""Shows that the comparison sees what it is there to see, and nothing else.

Replies as vLLM 0.32 writes them are changed in one way at a time. Each planted difference must be found, and a stream
that is only cut elsewhere must be found the same. Run before everything else: a suite that is blind finds no fault.
"""

import copy
import json
from collections.abc import Callable

import differential
from wire import Reply

_TOP = {" Paris": -0.26, " the": -2.7}
_WHOLE = {
    "id": "cmpl-814ba728ca97e5da", "object": "text_completion", "created": 1, "model": "smol",
    "choices": [{"index": 0, "text": " Paris.", "finish_reason": "length", "stop_reason": None, "token_ids": [5, 6],
                 "logprobs": {"text_offset": [0, 6], "token_logprobs": [-0.26, -0.5], "tokens": [" Paris", "."],
                              "top_logprobs": [_TOP, {".": -0.5, ",": -1.5}]}}],
    "usage": {"prompt_tokens": 5, "total_tokens": 7, "completion_tokens": 2},
}  # fmt: skip


def _chunk(text: str, ids: list[int], **fields) -> dict:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": None, "token_ids": ids, **fields}
    usage = {"completion_tokens": fields.get("counted", len(ids))}
    choice.pop("counted", None)
    return {"id": "cmpl-814ba728ca97e5da", "created": 1, "choices": [choice], "usage": usage}


_END = {"finish_reason": "stop", "stop_reason": ","}
_STREAM = [
    _chunk(" four", [1], counted=1),
    _chunk(",", [2], counted=2),
    _chunk(" five", [3], counted=3, **_END),
    {"id": "cmpl-814ba728ca97e5da", "created": 1, "choices": [], "usage": {"completion_tokens": 3}},
    "[DONE]",
]

Change = Callable[[object], object]


def _set(*path: str | int, value: object) -> Change:
    def change(reply):
        at = reply
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        return reply

    return change


def _dropped(*path: str | int) -> Change:
    def change(reply):
        at = reply
        for key in path[:-1]:
            at = at[key]
        del at[path[-1]]
        return reply

    return change


def _turned(*path: str | int) -> Change:
    """The keys of an object the other way round."""

    def change(reply):
        at = reply
        for key in path:
            at = at[key]
        items = list(at.items())
        at.clear()
        at.update(reversed(items))
        return reply

    return change


_CHOICE = ("choices", 0)
_LOGPROBS = (*_CHOICE, "logprobs")
SEEN_IN_WHOLE: dict[str, Change] = {
    "another id of a token": _set(*_CHOICE, "token_ids", value=[5, 7]),
    "a token more": _set(*_CHOICE, "token_ids", value=[5, 6, 7]),
    "another text": _set(*_CHOICE, "text", value=" Paris!"),
    "another reason to end": _set(*_CHOICE, "finish_reason", value="stop"),
    "a missing null": _dropped(*_CHOICE, "stop_reason"),
    "a key more": _set("more", value=None),
    "another order of keys": _turned("usage"),
    "another order of tokens in a row": _turned(*_LOGPROBS, "top_logprobs", 0),
    "a log-probability off by 0.003": _set(*_LOGPROBS, "token_logprobs", 1, value=-0.503),
    "a log-probability that is a whole number": _set(*_LOGPROBS, "token_logprobs", 1, value=0),
    "another offset": _set(*_LOGPROBS, "text_offset", 1, value=5),
    "another count": _set("usage", "completion_tokens", value=3),
    "a count with a fraction": _set("usage", "completion_tokens", value=2.0),
    "another form of id": _set("id", value="chatcmpl-814ba728ca97e5da"),
    "an id of another length": _set("id", value="cmpl-814ba728"),
    "a time that is text": _set("created", value="1"),
}
SAME_IN_WHOLE: dict[str, Change] = {
    "nothing": lambda reply: reply,
    "another id": _set("id", value="cmpl-0123456789abcdef"),
    "another time": _set("created", value=2),
    "a log-probability off by 0.001": _set(*_LOGPROBS, "token_logprobs", 1, value=-0.501),
}
SEEN_IN_STREAM: dict[str, Change] = {
    "another text": _set(1, "choices", 0, "text", value=";"),
    "another id of a token": _set(1, "choices", 0, "token_ids", value=[9]),
    "a chunk lost": _dropped(1),
    "no end": _dropped(4),
    "usage lost": _dropped(3),
    "usage before the end": lambda events: [*events[:2], events[3], events[2], events[4]],
    "the reason to end in the middle": _set(1, "choices", 0, "finish_reason", value="stop"),
    "no reason to stop": _dropped(2, "choices", 0, "stop_reason"),
    "another order of keys": _turned(2, "choices", 0),
    "a key more in every chunk": lambda events: [e if e == "[DONE]" else {**e, "more": 1} for e in events],
    "a key more in one chunk": _set(1, "system_fingerprint", value="x"),
    "a count that shrinks": _set(1, "usage", "completion_tokens", value=0),
    "a chunk without its count": _dropped(1, "usage"),
    "the end twice": lambda events: [*events, "[DONE]"],
}
SAME_IN_STREAM: dict[str, Change] = {
    "nothing": lambda events: events,
    "two chunks in one": lambda events: [_chunk(" four,", [1, 2], counted=2), *events[2:]],
    "all chunks in one": lambda events: [_chunk(" four, five", [1, 2, 3], counted=3, **_END), *events[3:]],
    "text held back": lambda events: [
        _chunk("", [1], counted=1), _chunk(" four", [2], counted=2), _chunk(", five", [3], counted=3, **_END),
        *events[3:],
    ],
}  # fmt: skip


def _stream(events: list) -> Reply:
    data = (event if event == "[DONE]" else json.dumps(event) for event in events)
    return Reply(200, "text/event-stream; charset=utf-8", "".join(f"data: {each}\n\n" for each in data).encode())


def _whole(reply: dict) -> Reply:
    return Reply(200, "application/json", json.dumps(reply, separators=(",", ":")).encode())


def failures() -> list[str]:
    """What the comparison gets wrong."""
    wrong = []
    for original, form, seen, same in (
        (_WHOLE, _whole, SEEN_IN_WHOLE, SAME_IN_WHOLE),
        (_STREAM, _stream, SEEN_IN_STREAM, SAME_IN_STREAM),
    ):
        for name, change in {**seen, **same}.items():
            changed = form(change(copy.deepcopy(original)))
            found = list(differential.differences(form(original), changed, same_ids=False))
            if name in same:
                # The server too may cut as it likes.
                found += differential.differences(changed, form(original), same_ids=False)
            if bool(found) != (name in seen):
                wrong.append(f"{form.__name__}, {name}: {[str(each) for each in found] or 'not seen'}")
    return wrong


def count() -> int:
    return sum(map(len, (SEEN_IN_WHOLE, SAME_IN_WHOLE, SEEN_IN_STREAM, SAME_IN_STREAM)))


if __name__ == "__main__":
    for each in failures():
        print(each)
    print(f"{count() - len(failures())} of {count()} hold")
