"""A reply's choices in one form, whatever the endpoint, streamed or not."""

from dataclasses import dataclass

import streams
from case import CHAT, COMPLETIONS, GENERATE
from wire import Reply


@dataclass
class Answer:
    """One choice."""

    prompt_ids: list[int] | None
    token_ids: list[int] | None
    text: str | None
    tokens: list | None
    """What its log-probabilities call its tokens."""
    logprobs: list[float] | None
    finish_reason: str | None
    stop_reason: str | int | None


@dataclass
class Answers:
    """All choices of a reply, in order, and its count of tokens where it tells."""

    choices: list[Answer]
    completion_tokens: int | None


def read(path: str, body: dict, reply: Reply) -> Answers:
    return _streamed(path, body, reply) if reply.is_stream else _whole(path, body, reply.json())


def _whole(path: str, body: dict, reply: dict) -> Answers:
    choices = []
    for choice in sorted(reply["choices"], key=lambda choice: choice["index"]):
        text = choice["message"]["content"] if path == CHAT else choice.get("text")
        prompt = choice.get("prompt_token_ids") or reply.get("prompt_token_ids")
        choices.append(_answer(path, body, choice, text, prompt, choice.get("logprobs")))
    return Answers(choices, (reply.get("usage") or {}).get("completion_tokens"))


def _streamed(path: str, body: dict, reply: Reply) -> Answers:
    stream = streams.read(reply.body)
    choices = []
    for _, choice in sorted(stream.choices.items()):
        values = {key: value for chunk in choice.chunks for key, value in chunk.items()}
        values["token_ids"] = choice.token_ids
        has_text = path != GENERATE or body.get("output_mode") == "text"
        text = choice.text if has_text else None
        choices.append(_answer(path, body, values, text, values.get("prompt_token_ids"), choice.logprobs or None))
    usage = [event["usage"]["completion_tokens"] for event in stream.loose if event.get("usage")]
    return Answers(choices, usage[-1] if usage else None)


def _answer(
    path: str, body: dict, values: dict, text: str | None, prompt: list | None, logprobs: dict | None
) -> Answer:
    if path == GENERATE:
        prompt = body["token_ids"]
    tokens, numbers = None, None
    if logprobs and path == COMPLETIONS:
        tokens, numbers = logprobs["tokens"], logprobs["token_logprobs"]
    elif logprobs:
        content = logprobs["content"]
        tokens = [entry.get("token", entry.get("token_id")) for entry in content]
        numbers = [entry["logprob"] for entry in content]
    return Answer(
        prompt, values.get("token_ids"), text, tokens, numbers, values.get("finish_reason"), values.get("stop_reason")
    )
