"""Part four: mutated requests, which the sidecar must treat as the server does.

For each, the class of the status and the error's type are compared, and the whole replies where the server accepts a
request at temperature 0. Afterwards nothing may be left under way.
"""

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import counters
import differential
import mutations
import wire
from case import Case
from wire import NoReply, Reply

REQUESTS = 1000
AT_ONCE = 4
REPLY_WITHIN = 60.0
IDLE_WITHIN = 30.0
POLL_INTERVAL = 0.1


def run(direct: str, proxied: str, seed: int) -> Iterator[tuple[str, list[str]]]:
    """Each request's name and what differs, then what is left when all are done."""
    base = mutations.corpus()
    asked = [mutations.mutated(base, random.Random(f"{seed}-{number}"), str(number)) for number in range(REQUESTS)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for case, wrong in zip(asked, pool.map(lambda case: check(case, direct, proxied), asked), strict=True):
            yield f"{case.endpoint} {case.name}", wrong
    yield "the sidecar is alive", _alive(proxied)
    yield "nothing is under way", _under_way(proxied)


def check(case: Case, direct: str, proxied: str) -> list[str]:
    """How the sidecar's reply differs in kind, and how to ask again."""
    try:
        left, right = wire.send(direct, case, REPLY_WITHIN), wire.send(proxied, case, REPLY_WITHIN)
    except NoReply as error:
        return [f"{error} within {REPLY_WITHIN:.0f} s; {_reproducer(case)}"]
    if kind(left) == kind(right):
        found = differential.differences(left, right, same_ids=False) if left.status == 200 and _greedy(case) else ()
        # Others' requests for the same prompt are under way: how much of it is cached is a matter of chance.
        return [f"{each}; {_reproducer(case)}" for each in found if "prompt_tokens_details" not in each.path]
    difference = f"direct {kind(left)}, sidecar {kind(right)}; {_reproducer(case)}"
    return [difference, f"{left.body[:300]}", f"{right.body[:300]}"]


def kind(reply: Reply) -> tuple[str, object]:
    """The class of the status, and the type of the error."""
    family = f"{reply.status // 100}xx"
    if reply.status < 400:
        return family, None
    try:
        body = reply.json()
    except ValueError:
        return family, "not JSON"
    error = body.get("error") if isinstance(body, dict) else None
    return family, error.get("type") if isinstance(error, dict) else sorted(body)


def _greedy(case: Case) -> bool:
    """Whether a request leaves nothing to chance."""
    try:
        body = wire.parse(case.raw)
        temperature = body.get("sampling_params", body).get("temperature")
    except (ValueError, AttributeError):
        return False
    return not isinstance(temperature, bool) and temperature == 0


def _reproducer(case: Case) -> str:
    return f"{case.method} {case.path} {case.headers} {case.raw!r}"


def _alive(proxied: str) -> list[str]:
    try:
        status = wire.get(proxied, "/health").status
    except NoReply as error:
        return [str(error)]
    return [] if status == 200 else [f"/health is {status}"]


def _under_way(proxied: str) -> list[str]:
    """Gauges that do not come back to zero."""
    deadline = time.monotonic() + IDLE_WITHIN
    while True:
        left = {name: value for name, value in counters.under_way(proxied).items() if value}
        if not left:
            return []
        if time.monotonic() > deadline:
            return [f"{left} after {IDLE_WITHIN:.0f} s"]
        time.sleep(POLL_INTERVAL)
