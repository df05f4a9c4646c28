"""Part two: requests at temperature 1, whose replies cannot be the same.

The sidecar's reply must have the form of the server's, and agree with itself and with the server: its text is what
vLLM's own detokenizer makes of its ids; there is a log-probability for each id, and it is what the server gives as a
prompt log-probability to the same id after the same tokens; the reason for the end is true; the usage counts the ids.
"""

from collections.abc import Iterator

import answers
import cases
import compare
import counters
import schema
import wire
from answers import Answer
from case import GENERATE, Case
from cases.prompts import END
from compare import LOGPROB_TOLERANCE
from reference import Reference

# Groups of cases whose requests are worth asking at temperature 1.
GROUPS = {"trainers", "prompts", "logprobs", "stops", "streams", "text", "messages", "requests", "ending"}
# They fix the sample, have no sampled ids to look at, put the prompt into the text, or may fill the model's whole length.
_UNFIT = ("echo", "logprobs -1", "top_k 1", "scoring", "continue_final_message", "no limit")


def chosen() -> list[Case]:
    """Cases of those groups, at temperature 1 and with the ids in the reply."""
    fit = [case for case in cases.ALL if case.group in GROUPS and not any(word in case.name for word in _UNFIT)]
    return [Case(case.name, case.path, _hot(case), case.headers, group=case.group) for case in fit]


def _hot(case: Case) -> dict:
    if case.path == GENERATE:
        sampling = {**case.body["sampling_params"], "temperature": 1.0}
        sampling.pop("seed", None)
        return {**case.body, "sampling_params": sampling}
    body = {**case.body, "temperature": 1.0, "return_token_ids": True}
    body.pop("seed", None)
    return body


def check(case: Case, direct: str, proxied: str, reference: Reference) -> tuple[str | None, list[str]]:
    """What became of the case, and what is wrong with its reply. Nothing became of one that the server refuses."""
    left = wire.send(direct, case)
    if left.status != 200:
        return None, []
    before = counters.outcomes(proxied)
    try:
        right = wire.send(proxied, case)
    except wire.NoReply as error:
        return "no reply", [str(error)]
    became = counters.outcome_since(proxied, before)
    if right.status != 200:
        return became, [f"status {right.status}: {right.body[:200]!r}"]
    found = [f"form: {each}" for each in compare.differences(schema.of(left), schema.of(right))]
    read = answers.read(case.path, case.body, right)
    if read.completion_tokens not in (None, sum(len(choice.token_ids) for choice in read.choices)):
        found.append(f"usage counts {read.completion_tokens} tokens, there are other ids")
    for number, answer in enumerate(read.choices):
        found += [f"choice {number}: {wrong}" for wrong in wrongs(case, answer, direct, reference)]
    return became, found


def wrongs(case: Case, answer: Answer, direct: str, reference: Reference) -> Iterator[str]:
    """What one choice says that is not so."""
    body = case.body.get("sampling_params", case.body)
    ids = answer.token_ids
    yield from _end(body, answer)
    if answer.text is not None:
        expected = text(reference, body, answer)
        if answer.text != expected:
            yield f"text {answer.text!r}, vLLM's of the same ids {expected!r}"
    if answer.logprobs is None:
        return
    if len(answer.logprobs) != len(ids):
        yield f"{len(answer.logprobs)} log-probabilities for {len(ids)} ids"
        return
    if case.path == GENERATE and case.body.get("output_mode") != "text" and answer.tokens != ids:
        yield f"the log-probabilities name {answer.tokens}, the ids are {ids}"
    if body.get("return_tokens_as_token_ids") and answer.tokens != [f"token_id:{id}" for id in ids]:
        yield f"the log-probabilities name {answer.tokens}, the ids are {ids}"
    for position, (own, servers) in enumerate(zip(answer.logprobs, scores(direct, answer), strict=True)):
        if abs(own - servers) > LOGPROB_TOLERANCE:
            yield f"log-probability {position} is {own}, the server's for the same tokens {servers}"


def text(reference: Reference, body: dict, answer: Answer) -> str:
    """The text of an answer's ids, by vLLM's own detokenizer."""
    ended_by_token = answer.finish_reason == "stop" and not isinstance(answer.stop_reason, str)
    return reference.text(body, answer.prompt_ids, answer.token_ids, ended_by_token)


def scores(direct: str, answer: Answer) -> list[float]:
    """The server's log-probability of each id after those before it."""
    tokens = answer.prompt_ids + answer.token_ids
    sampling = {"prompt_logprobs": 0, "max_tokens": 1, "temperature": 0, "detokenize": False}
    reply = wire.ask(direct, "/inference/v1/generate", {"token_ids": tokens, "sampling_params": sampling})
    rows = reply["prompt_logprobs"][len(answer.prompt_ids) :]
    return [row[str(id)]["logprob"] for row, id in zip(rows, answer.token_ids, strict=True)]


def _end(body: dict, answer: Answer) -> Iterator[str]:
    limit = body.get("max_completion_tokens") or body.get("max_tokens", 16 if "prompt" in body else None)
    ids, stop = answer.token_ids, answer.stop_reason
    if answer.finish_reason == "length":
        if limit is not None and len(ids) != limit:
            yield f"ended for its length with {len(ids)} ids of {limit}"
    elif answer.finish_reason != "stop":
        yield f"finish_reason is {answer.finish_reason!r}"
    elif stop is None and (ids[-1:] != [END] or body.get("ignore_eos")):
        yield f"ended with {ids[-1:]}, which is not the end of text"
    elif isinstance(stop, int) and (ids[-1] != stop or stop not in body["stop_token_ids"]):
        yield f"stop_reason is {stop}, the last id {ids[-1]}"
    elif isinstance(stop, str) and stop not in (body["stop"] if isinstance(body["stop"], list) else [body["stop"]]):
        yield f"stop_reason is {stop!r}, the stop strings are {body['stop']}"
