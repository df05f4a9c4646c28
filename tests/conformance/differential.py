"""Part one: every case directly and through the sidecar, compared field by field."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import compare
import counters
import streams
import wire
from case import Case
from compare import Difference
from wire import NoReply, Reply


@dataclass(frozen=True)
class Outcome:
    """What one case showed."""

    case: Case
    status: int
    """The server's own."""
    became: str
    """What the sidecar counted: speculated, or forwarded and why."""
    found: list[Difference] = field(default_factory=list)

    @property
    def same(self) -> bool:
        return not self.found


def run(case: Case, direct: str, proxied: str) -> Outcome:
    """Sends a case both ways and compares the replies."""
    if case.warm:
        wire.send(direct, case)
    left = wire.send(direct, case)
    before = counters.outcomes(proxied)
    try:
        right = wire.send(proxied, case)
    except NoReply as error:
        return Outcome(case, left.status, "no reply", [Difference("<reply>", left.status, f"<{error}>")])
    became = counters.outcome_since(proxied, before)
    return Outcome(case, left.status, became, list(differences(left, right, case.same_ids)))


def differences(left: Reply, right: Reply, same_ids: bool) -> Iterator[Difference]:
    """Where the sidecar's reply differs from the server's."""
    if left.status != right.status:
        yield Difference("<status>", left.status, f"<{right.status} {right.body[:200]!r}>")
        return
    if left.content_type != right.content_type:
        yield Difference("<content-type>", left.content_type, right.content_type)
    if left.is_stream and right.is_stream:
        try:
            yield from streams.compare(streams.read(left.body, same_ids), streams.read(right.body, same_ids))
        except (streams.Garbled, ValueError, KeyError) as error:
            yield Difference("<stream>", "<as vLLM writes it>", f"<{type(error).__name__}: {error}>")
        return
    try:
        bodies = left.json(), right.json()
    except ValueError:
        if left.body != right.body:
            yield Difference("<body>", left.body, right.body)
        return
    if (compact(left), compact(right)) == (True, False):
        yield Difference("<white space>", "<none>", right.body[:60])
    yield from compare.differences(*(compare.settle(body, same_ids) for body in bodies))


def compact(reply: Reply) -> bool:
    """Whether JSON was written without white space between its parts, as vLLM does."""
    parsed = json.loads(reply.body)
    return len(json.dumps(parsed, ensure_ascii=False, separators=(", ", ": "))) > len(reply.body.decode())
