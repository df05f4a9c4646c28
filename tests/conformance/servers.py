"""Starts the sidecar in front of the server."""

import json
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import counters
import wire

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "target"))
from processes import die_with_parent

START_DEADLINE = 120.0
STOP_DEADLINE = 45.0
POLL_INTERVAL = 0.1


class StartError(Exception):
    """The sidecar did not come up."""


@contextmanager
def sidecar(words: list[str], log: Path) -> Iterator[str]:
    """Runs `sidedraft serve` until the block ends; gives its URL once it is ready to speculate."""
    with open(log, "wb") as output:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=output, preexec_fn=die_with_parent
        )
    try:
        deadline = time.monotonic() + START_DEADLINE
        url = _announced_url(process, deadline, log)
        _wait_until_ready(url, process, deadline, log)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _announced_url(process: subprocess.Popen, deadline: float, log: Path) -> str:
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        line = process.stdout.readline() if selector.select(max(0, deadline - time.monotonic())) else b""
    try:
        return json.loads(line)["listening"]
    except (ValueError, KeyError) as error:
        raise StartError(f"the sidecar did not say where it listens, but {line!r}:\n{_tail(log)}") from error


def _wait_until_ready(url: str, process: subprocess.Popen, deadline: float, log: Path) -> None:
    """Healthy, and done with asking the server what it can do: until then it forwards everything."""
    while True:
        try:
            if wire.get(url, "/health").status == 200 and counters.is_ready(url):
                return
        except wire.NoReply:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise StartError(f"the sidecar is not ready:\n{_tail(log)}")
        time.sleep(POLL_INTERVAL)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])
