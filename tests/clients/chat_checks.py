"""Checks of `/v1/chat/completions`. Each gives what the direct server's must equal."""

import openai
from completion_checks import MAX_TOKENS, ONE_CANDIDATE, TOKEN_IDS, USAGE
from replies import expect, joined, refusal, settled
from server import Server

GREEDY = {"max_completion_tokens": MAX_TOKENS, "temperature": 0.0}
CONVERSATION = [
    {"role": "system", "content": "You answer in one short sentence."},
    {"role": "user", "content": "My name is Zoë 🎉."},
    {"role": "assistant", "content": "Hello, Zoë!"},
    {"role": "user", "content": "What is my name?"},
]


def plain(server: Server) -> object:
    reply = server.chat(**GREEDY)
    choice = reply["choices"][0]
    expect(choice["message"]["role"] == "assistant", f"the role is {choice['message']['role']!r}")
    expect(choice["message"]["content"], "the message is empty")
    usage = reply["usage"]
    expect(usage["completion_tokens"] <= MAX_TOKENS, f"usage counts {usage['completion_tokens']} tokens")
    expect(usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"], f"usage {usage}")
    return settled(reply)


def conversation(server: Server) -> object:
    reply = server.chat(messages=CONVERSATION, **GREEDY, **TOKEN_IDS)
    expect(len(reply["prompt_token_ids"]) == reply["usage"]["prompt_tokens"], "usage miscounts the prompt")
    expect(len(reply["choices"][0]["token_ids"]) == reply["usage"]["completion_tokens"], "usage miscounts the answer")
    return settled(reply)


def logprobs(server: Server) -> object:
    reply = server.chat(**GREEDY, logprobs=True)
    spelt(reply["choices"][0], top=0)
    return settled(reply)


def top_logprobs(server: Server) -> object:
    reply = server.chat(**GREEDY, logprobs=True, top_logprobs=3)
    for entry in spelt(reply["choices"][0], top=3):
        best = max(entry["top_logprobs"], key=lambda top: top["logprob"])
        expect(best["token"] == entry["token"], f"greedy token {entry['token']!r} is not the likeliest: {entry}")
    return settled(reply)


def stop_string(server: Server) -> object:
    reply = server.chat(**GREEDY, stop=[" are", ","])
    choice = reply["choices"][0]
    expect(choice["finish_reason"] == "stop", f"finish_reason is {choice['finish_reason']!r}")
    expect(choice["stop_reason"] in (" are", ","), f"stop_reason is {choice['stop_reason']!r}")
    return settled(reply)


def several(server: Server) -> object:
    reply = server.chat(max_tokens=MAX_TOKENS, n=3, logprobs=True, top_logprobs=1, **ONE_CANDIDATE)
    ids = [choice["token_ids"] for choice in reply["choices"]]
    expect(len(ids) == 3 and ids[0] == ids[1] == ids[2], f"one candidate for each token, but choices differ: {ids}")
    expect([choice["index"] for choice in reply["choices"]] == [0, 1, 2], "the choices are not in order")
    return settled(reply)


def streamed(server: Server) -> object:
    chunks = server.chat_stream(**GREEDY)
    expect(all("usage" not in chunk for chunk in chunks), "usage in a stream that did not ask for it")
    return complete(joined(chunks), 1)


def streamed_logprobs(server: Server) -> object:
    *rest, last = server.chat_stream(**GREEDY, **USAGE, **TOKEN_IDS, logprobs=True, top_logprobs=2)
    expect(not last["choices"], "the usage chunk has choices")
    choices = complete(joined(rest), 1)
    counted = last["usage"]["completion_tokens"]
    lengths = (len(choices[0]["token_ids"]), len(choices[0]["logprobs"]["content"]))
    expect(lengths == (counted, counted), f"usage counts {counted}, ids and logprobs are {lengths}")
    return choices, settled(last)


def streamed_several(server: Server) -> object:
    chunks = server.chat_stream(max_tokens=MAX_TOKENS, n=2, logprobs=True, **ONE_CANDIDATE)
    choices = complete(joined(chunks), 2)
    expect(choices[0]["token_ids"] == choices[1]["token_ids"], f"one candidate for each token, but {choices}")
    return choices


def greedy_several(server: Server) -> object:
    return refusal(openai.BadRequestError, lambda: server.chat(**GREEDY, n=2))


def top_without_logprobs(server: Server) -> object:
    return refusal(openai.BadRequestError, lambda: server.chat(**GREEDY, top_logprobs=2))


def no_messages(server: Server) -> object:
    return refusal(openai.BadRequestError, lambda: server.chat(**GREEDY, messages=[]))


def spelt(choice: dict, top: int) -> list[dict]:
    """The entries of a choice's log-probabilities, once they are known to spell its message."""
    entries = choice["logprobs"]["content"]
    spelling = b"".join(bytes(entry["bytes"]) for entry in entries).decode()
    expect(spelling.startswith(choice["message"]["content"]), f"the tokens spell {spelling!r}: {choice['message']}")
    for entry in entries:
        expect(entry["logprob"] <= 0, f"logprob {entry['logprob']} of {entry['token']!r}")
        expect(len(entry["top_logprobs"]) == top, f"{len(entry['top_logprobs'])} top logprobs, not {top}")
    return entries


def complete(choices: dict[int, dict], count: int) -> dict[int, dict]:
    """The choices of a stream, once each is known to begin with a role and to end with a reason."""
    expect(list(choices) == list(range(count)), f"choices {list(choices)}, not {count}")
    for choice in choices.values():
        expect(choice["text"], "a message is empty")
        expect(choice["roles"] == ["assistant"], f"roles {choice['roles']}")
        expect(choice["finished_last"] and len(choice["finish_reasons"]) == 1, f"reasons {choice['finish_reasons']}")
    return choices


CHECKS = {
    "chat": plain,
    "chat, a conversation with token ids": conversation,
    "chat, logprobs": logprobs,
    "chat, top_logprobs=3": top_logprobs,
    "chat, stop string": stop_string,
    "chat, n=3, logprobs, one candidate": several,
    "chat, streamed": streamed,
    "chat, streamed with usage, token ids and logprobs": streamed_logprobs,
    "chat, streamed, n=2, logprobs, one candidate": streamed_several,
    "chat, n=2 at temperature 0 is a BadRequestError": greedy_several,
    "chat, top_logprobs without logprobs is a BadRequestError": top_without_logprobs,
    "chat, no messages is a BadRequestError": no_messages,
}
