"""What replies are reduced to, so that two of them can be compared, and the comparison."""

from collections.abc import Callable
from itertools import groupby

import openai

# Fields that name one request, so no two replies agree on them.
OF_THE_REQUEST = {"id", "created"}
# What the prefix cache held depends on what was asked before.
OF_THE_CACHE = {"cached_tokens", "created_cache_tokens"}

LOGPROB_TOLERANCE = 0.05


class Mismatch(Exception):
    """A reply is not what it should be."""


def expect(holds: object, otherwise: str) -> None:
    if not holds:
        raise Mismatch(otherwise)


def settled(reply: object) -> object:
    """The reply without what differs from request to request, its keys all kept."""
    if isinstance(reply, dict):
        changing = OF_THE_REQUEST | OF_THE_CACHE
        return {key: "…" if key in changing else settled(value) for key, value in reply.items()}
    return [settled(item) for item in reply] if isinstance(reply, list) else reply


def shape(value: object) -> object:
    """The keys alone, at every depth."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return None


def joined(chunks: list[dict]) -> dict[int, dict]:
    """A stream's choices by index, each with its content, however it was cut into chunks, and its chunks' shapes.

    A speculating server may send several tokens in one chunk, so only the whole is compared.
    """
    chunks = sorted((chunk for chunk in chunks if chunk["choices"]), key=_index)
    return {index: _choice(list(own)) for index, own in groupby(chunks, key=_index)}


def _index(chunk: dict) -> int:
    return chunk["choices"][0]["index"]


def _choice(chunks: list[dict]) -> dict:
    choices = [chunk["choices"][0] for chunk in chunks]
    deltas = [choice.get("delta", {}) for choice in choices]
    logprobs = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    names = {name: None for each in logprobs for name in each}
    shapes = [sorted(c) + sorted(c["choices"][0]) + sorted(d) for c, d in zip(chunks, deltas, strict=True)]
    prompts = [source["prompt_token_ids"] for source in chunks + choices if source.get("prompt_token_ids")]
    return {
        "text": "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices),
        "roles": [delta["role"] for delta in deltas if "role" in delta],
        "token_ids": [token for choice in choices for token in choice.get("token_ids") or []],
        "prompt_token_ids": prompts,
        "logprobs": {name: [item for each in logprobs for item in each.get(name) or []] for name in names},
        "finish_reasons": [choice["finish_reason"] for choice in choices if choice["finish_reason"]],
        "finished_last": bool(choices[-1]["finish_reason"]),
        "stop_reason": choices[-1].get("stop_reason"),
        "shapes": [keys for keys, _ in groupby(shapes)],
    }


def refusal(kind: type[openai.APIStatusError], call: Callable[[], object]) -> object:
    """The error's body, when the call is refused with that kind of error."""
    try:
        call()
    except kind as error:
        expect(isinstance(error.body, dict) and error.body.get("message"), f"no message in {error.body!r}")
        return error.body
    except openai.OpenAIError as error:
        raise Mismatch(f"{type(error).__name__}, not {kind.__name__}: {error}") from error
    raise Mismatch("it was accepted")


def compare(got: object, direct: object, at: str = "reply") -> None:
    """Equal, but that logprobs may differ a little: the server's own depend on the batch."""
    if isinstance(got, dict) and isinstance(direct, dict):
        expect(got.keys() == direct.keys(), f"{at} has keys {list(got)}, direct {list(direct)}")
        for key in got:
            compare(got[key], direct[key], f"{at}.{key}")
    elif isinstance(got, list | tuple) and isinstance(direct, list | tuple):
        expect(len(got) == len(direct), f"{at} has {len(got)} items, direct {len(direct)}: {got!r} / {direct!r}")
        for index, (left, right) in enumerate(zip(got, direct, strict=True)):
            compare(left, right, f"{at}[{index}]")
    elif isinstance(got, float) and isinstance(direct, float):
        expect(abs(got - direct) <= LOGPROB_TOLERANCE, f"{at} is {got}, direct {direct}")
    else:
        expect(got == direct, f"{at} is {got!r}, direct {direct!r}")
