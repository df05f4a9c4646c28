"""Checks of `/v1/completions`. Each gives what the direct server's must equal."""

import openai
from replies import expect, joined, refusal, settled, shape
from server import Server

# Long enough for a few verification rounds, short enough that float32 greedy does not part.
MAX_TOKENS = 24
PROMPT = "The capital of France is"
GREEDY = {"prompt": PROMPT, "max_tokens": MAX_TOKENS, "temperature": 0.0}
TOKEN_IDS = {"extra_body": {"return_token_ids": True}}
# The server takes no n above 1 at temperature 0; this is as greedy.
ONE_CANDIDATE = {"temperature": 1.0, "extra_body": {"return_token_ids": True, "top_k": 1}}
USAGE = {"stream_options": {"include_usage": True}}


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


def several_prompts(server: Server) -> object:
    reply = server.complete(**GREEDY | {"prompt": [PROMPT, "One, two, three,"]}, **TOKEN_IDS)
    expect([choice["index"] for choice in reply["choices"]] == [0, 1], "two prompts give not two choices in order")
    return settled(reply)


def sampled_several(server: Server) -> object:
    reply = server.complete(prompt=PROMPT, max_tokens=8, temperature=1.0, n=2, **TOKEN_IDS)
    expect([choice["index"] for choice in reply["choices"]] == [0, 1], "n=2 gives not two choices in order")
    counted = sum(len(choice["token_ids"]) for choice in reply["choices"])
    expect(reply["usage"]["completion_tokens"] == counted, f"usage counts not {counted} tokens: {reply['usage']}")
    return [shape(choice) for choice in reply["choices"]]


def several(server: Server) -> object:
    reply = server.complete(prompt=PROMPT, max_tokens=MAX_TOKENS, n=3, logprobs=1, **ONE_CANDIDATE)
    ids = [choice["token_ids"] for choice in reply["choices"]]
    expect(len(ids) == 3 and ids[0] == ids[1] == ids[2], f"one candidate for each token, but choices differ: {ids}")
    return settled(reply)


def streamed(server: Server) -> object:
    chunks = server.stream(**GREEDY, **TOKEN_IDS)
    expect(all("usage" not in chunk for chunk in chunks), "usage in a stream that did not ask for it")
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    expect(reasons[-1] == "length" and not any(reasons[:-1]), f"finish reasons {reasons}")
    return joined(chunks)


def streamed_usage(server: Server) -> object:
    *rest, last = server.stream(**GREEDY, **USAGE, logprobs=1)
    expect(not last["choices"], "the usage chunk has choices")
    expect(last["usage"]["completion_tokens"] == MAX_TOKENS, f"usage counts not {MAX_TOKENS}: {last['usage']}")
    expect(all("usage" not in chunk for chunk in rest), "usage before the last chunk")
    return joined(rest), settled(last)


def streamed_several(server: Server) -> object:
    choices = joined(server.stream(prompt=PROMPT, max_tokens=MAX_TOKENS, n=2, logprobs=1, **ONE_CANDIDATE))
    expect(list(choices) == [0, 1], f"n=2 gives choices {list(choices)}")
    expect(choices[0]["token_ids"] == choices[1]["token_ids"], f"one candidate for each token, but {choices}")
    return choices


def greedy_several(server: Server) -> object:
    return refusal(openai.BadRequestError, lambda: server.complete(**GREEDY, n=2))


def bad_temperature(server: Server) -> object:
    return refusal(openai.BadRequestError, lambda: server.complete(prompt=PROMPT, temperature=-1.0))


def unknown_model(server: Server) -> object:
    return refusal(openai.NotFoundError, lambda: server.complete(model="no-such-model", prompt=PROMPT))


CHECKS = {
    "completion": plain,
    "completion, token ids": token_ids,
    "completion, logprobs=2": logprobs,
    "completion, stop string": stop_string,
    "completion, two prompts": several_prompts,
    "completion, n=2, sampled": sampled_several,
    "completion, n=3, logprobs, one candidate": several,
    "completion, streamed": streamed,
    "completion, streamed with usage and logprobs": streamed_usage,
    "completion, streamed, n=2, logprobs, one candidate": streamed_several,
    "completion, n=2 at temperature 0 is a BadRequestError": greedy_several,
    "completion, temperature=-1 is a BadRequestError": bad_temperature,
    "completion, unknown model is a NotFoundError": unknown_model,
}
