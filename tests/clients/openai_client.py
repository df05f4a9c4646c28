"""Talks to a server with the official OpenAI client, as a trainer would.

usage: openai_client.py BASE_URL [DIRECT_URL]

Checks that what comes back at BASE_URL is well-formed for that client. With DIRECT_URL, the
unmodified server, it also checks that both give the same greedy answers in replies of the same shape,
and the same errors. For that the server should run in float32: in bfloat16 its own logprobs and
greedy tokens depend on the shape of the batch. Prints a line for each check; exits with 1 if any failed.

Run with the target environment's own Python: it needs the package `openai`.
"""

import sys
from collections.abc import Callable
from itertools import groupby

import openai

# Long enough for a few verification rounds, short enough that float32 greedy does not part.
MAX_TOKENS = 24
PROMPT = "The capital of France is"
MESSAGES = [{"role": "user", "content": "Name three primary colours."}]
GREEDY = {"prompt": PROMPT, "max_tokens": MAX_TOKENS, "temperature": 0.0}
TOKEN_IDS = {"extra_body": {"return_token_ids": True}}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}

# Fields that name one request, so no two replies agree on them.
OF_THE_REQUEST = {"id", "created"}
# What the prefix cache held depends on what was asked before.
OF_THE_CACHE = {"cached_tokens", "created_cache_tokens"}

LOGPROB_TOLERANCE = 0.05


class Mismatch(Exception):
    """A reply is not what it should be."""


class Server:
    """The requests the checks are made of, at one base URL."""

    def __init__(self, url: str):
        self.client = openai.OpenAI(base_url=f"{url.rstrip('/')}/v1", api_key="none", max_retries=0, timeout=120)
        self.model = self.client.models.list().data[0].id

    def complete(self, **parameters) -> dict:
        """One completion, as plain data: what the server sent, without the client's own defaults."""
        reply = self.client.completions.create(**{"model": self.model, **parameters})
        return reply.model_dump(exclude_unset=True)

    def stream(self, **parameters) -> list[dict]:
        """The chunks of a streamed completion."""
        stream = self.client.completions.create(**{"model": self.model, "stream": True, **parameters})
        return [chunk.model_dump(exclude_unset=True) for chunk in stream]

    def chat(self, **parameters) -> dict:
        reply = self.client.chat.completions.create(model=self.model, messages=MESSAGES, **parameters)
        return reply.model_dump(exclude_unset=True)

    def chat_stream(self, **parameters) -> list[dict]:
        stream = self.client.chat.completions.create(
            model=self.model, messages=MESSAGES, stream=True, **parameters
        )
        return [chunk.model_dump(exclude_unset=True) for chunk in stream]


# Checks of one server: each gives what the direct server's must equal.


def models(server: Server) -> object:
    listed = server.client.models.list().data
    expect(listed, "no model is listed")
    return [model.id for model in listed]


def plain(server: Server) -> object:
    reply = server.complete(**GREEDY)
    choice = reply["choices"][0]
    expect(choice["text"], "the text is empty")
    expect(choice["finish_reason"] == "length", f"finish_reason is {choice['finish_reason']!r}")
    usage = reply["usage"]
    expect(usage["completion_tokens"] == MAX_TOKENS, f"usage counts {usage['completion_tokens']} tokens")
    expect(usage["total_tokens"] == usage["prompt_tokens"] + MAX_TOKENS, f"usage does not add up: {usage}")
    return settled(reply)


def token_ids(server: Server) -> object:
    reply = server.complete(**GREEDY, **TOKEN_IDS)
    choice = reply["choices"][0]
    expect(len(choice["token_ids"]) == MAX_TOKENS, f"{len(choice['token_ids'])} token ids")
    expect(choice["prompt_token_ids"], "no prompt_token_ids")
    return settled(reply)


def logprobs(server: Server) -> object:
    reply = server.complete(**GREEDY, logprobs=2)
    found = reply["choices"][0]["logprobs"]
    lengths = {name: len(found[name]) for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")}
    expect(set(lengths.values()) == {MAX_TOKENS}, f"lengths differ: {lengths}")
    expect("".join(found["tokens"]) == reply["choices"][0]["text"], "the tokens do not spell the text")
    for token, logprob, top in zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True):
        expect(logprob <= 0, f"logprob {logprob} of {token!r}")
        expect(top[token] == logprob, f"{token!r} has two logprobs: {top[token]} and {logprob}")
        expect(logprob == max(top.values()), f"greedy token {token!r} is not the likeliest of {top}")
    return settled(reply)


def stop_string(server: Server) -> object:
    reply = server.complete(**GREEDY, stop=["\n"], **TOKEN_IDS)
    choice = reply["choices"][0]
    expect(choice["finish_reason"] == "stop", f"finish_reason is {choice['finish_reason']!r}")
    expect(choice["stop_reason"] == "\n", f"stop_reason is {choice['stop_reason']!r}")
    expect("\n" not in choice["text"], f"the stop string is in {choice['text']!r}")
    return settled(reply)


def several(server: Server) -> object:
    reply = server.complete(prompt=PROMPT, max_tokens=8, temperature=1.0, n=2, **TOKEN_IDS)
    expect([choice["index"] for choice in reply["choices"]] == [0, 1], "n=2 gives not two choices in order")
    counted = sum(len(choice["token_ids"]) for choice in reply["choices"])
    expect(reply["usage"]["completion_tokens"] == counted, f"usage counts not {counted} tokens: {reply['usage']}")
    return [shape(choice) for choice in reply["choices"]]


def streamed(server: Server) -> object:
    chunks = server.stream(**GREEDY, **TOKEN_IDS)
    expect(all("usage" not in chunk for chunk in chunks), "usage in a stream that did not ask for it")
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    expect(reasons[-1] == "length" and not any(reasons[:-1]), f"finish reasons {reasons}")
    return joined(chunks)


def streamed_usage(server: Server) -> object:
    chunks = server.stream(**GREEDY, **USAGE, logprobs=1)
    *rest, last = chunks
    expect(not last["choices"], "the usage chunk has choices")
    expect(last["usage"]["completion_tokens"] == MAX_TOKENS, f"usage counts not {MAX_TOKENS}: {last['usage']}")
    expect(all("usage" not in chunk for chunk in rest), "usage before the last chunk")
    return joined(rest), settled(last)


def streamed_several(server: Server) -> object:
    chunks = server.stream(prompt=PROMPT, max_tokens=8, temperature=1.0, n=2)
    finished = sorted(c["choices"][0]["index"] for c in chunks if c["choices"][0]["finish_reason"])
    expect(finished == [0, 1], f"choices that finished: {finished}")
    return None


def chat(server: Server) -> object:
    reply = server.chat(max_tokens=MAX_TOKENS, temperature=0.0)
    expect(reply["choices"][0]["message"]["content"], "the message is empty")
    return settled(reply)


def chat_streamed(server: Server) -> object:
    chunks = server.chat_stream(max_tokens=MAX_TOKENS, temperature=0.0)
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    expect(text, "the message is empty")
    return text, chunks[-1]["choices"][0]["finish_reason"]


def bad_request(server: Server) -> object:
    return refusal(openai.BadRequestError, lambda: server.complete(prompt=PROMPT, temperature=-1.0))


def unknown_model(server: Server) -> object:
    return refusal(openai.NotFoundError, lambda: server.complete(model="no-such-model", prompt=PROMPT))


CHECKS: dict[str, Callable[[Server], object]] = {
    "models.list": models,
    "completion": plain,
    "completion, token ids": token_ids,
    "completion, logprobs=2": logprobs,
    "completion, stop string": stop_string,
    "completion, n=2": several,
    "completion, streamed": streamed,
    "completion, streamed with usage and logprobs": streamed_usage,
    "completion, streamed, n=2": streamed_several,
    "chat": chat,
    "chat, streamed": chat_streamed,
    "temperature=-1 is a BadRequestError": bad_request,
    "unknown model is a NotFoundError": unknown_model,
}


# What replies are reduced to, so that two of them can be compared.


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


def joined(chunks: list[dict]) -> object:
    """A stream's content, however it was cut into chunks, and the shapes its chunks had.

    A speculating server may send several tokens in one chunk, so only the whole is compared.
    """
    choices = [chunk["choices"][0] for chunk in chunks]
    logprobs = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    shapes = [sorted(chunk) + sorted(choice) for chunk, choice in zip(chunks, choices, strict=True)]
    return {
        "text": "".join(choice["text"] for choice in choices),
        "token_ids": [token for choice in choices for token in choice.get("token_ids") or []],
        "prompt_token_ids": choices[0].get("prompt_token_ids"),
        "logprobs": {key: [item for each in logprobs for item in each[key]] for key in (logprobs or [{}])[0]},
        "finish_reason": choices[-1]["finish_reason"],
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


# Comparing


def expect(holds: object, otherwise: str) -> None:
    if not holds:
        raise Mismatch(otherwise)


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


def main() -> int:
    if len(sys.argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        server, *direct = map(Server, sys.argv[1:])
    except openai.OpenAIError as error:
        print(f"cannot list the models: {error}", file=sys.stderr)
        return 1
    failed = 0
    for name, check in CHECKS.items():
        try:
            got = check(server)
            for other in direct:
                compare(got, check(other))
        except (Mismatch, openai.OpenAIError, KeyError, TypeError, IndexError) as error:
            failed += 1
            print(f"FAILED  {name}: {type(error).__name__}: {error}", flush=True)
        else:
            print(f"ok      {name}{' = direct' if direct else ''}", flush=True)
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
