"""Reads what the sidecar and the server count on their metrics pages."""

import re
import time
from collections import Counter

import wire

_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

REQUESTS = "sidedraft_requests_total"
SERVER_RUNNING = "vllm:num_requests_running"
# A gauge of the sidecar's that says how much is under way, whatever it counts.
UNDER_WAY = re.compile(r"^sidedraft_\w*(running|in_flight|inflight|waiting|active)\w*$")

COUNTED_WITHIN = 2.0
POLL_INTERVAL = 0.05


def samples(base: str) -> dict[tuple[str, frozenset], float]:
    """Every sample of a metrics page, by name and labels."""
    found = {}
    for line in wire.get(base, "/metrics").body.decode().splitlines():
        match = _SAMPLE.match(line)
        if match:
            found[match[1], frozenset(_LABEL.findall(match[2] or ""))] = float(match[3])
    return found


def outcomes(base: str) -> Counter[str]:
    """The sidecar's requests by what became of them: `speculated`, `forwarded: echo`."""
    counted: Counter[str] = Counter()
    for (name, labels), value in samples(base).items():
        if name == REQUESTS:
            of = dict(labels)
            counted[f"{of['outcome']}: {of['reason']}" if of.get("reason") else of["outcome"]] += int(value)
    return counted


def outcome_since(base: str, before: Counter[str]) -> str:
    """What became of the one request sent since. It is counted when it is over, which may be just after its reply."""
    deadline = time.monotonic() + COUNTED_WITHIN
    while True:
        new = outcomes(base) - before
        if new:
            return ", ".join(sorted(new))
        if time.monotonic() > deadline:
            return "not counted"
        time.sleep(POLL_INTERVAL)


def under_way(base: str) -> dict[str, float]:
    """Gauges that must be zero when nothing is asked: the sidecar's own, and the server's running requests."""
    return {
        name: value
        for (name, _), value in samples(base).items()
        if UNDER_WAY.match(name) or name == SERVER_RUNNING
    }


def is_ready(base: str) -> bool:
    """Whether the sidecar knows what its server can do."""
    return samples(base).get(("sidedraft_upstream_ready", frozenset())) == 1.0
