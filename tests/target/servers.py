"""Starts and stops vLLM servers, and never leaves one behind.

Each server leads a session of its own, so a signal from the terminal reaches only the script,
which then stops exactly the servers it started. Should the script be killed outright, the kernel
tells the server (`PR_SET_PDEATHSIG`).
"""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import layout
import presets
from layout import TargetError, say
from processes import die_with_parent, signal_group

START_DEADLINE = 300.0
STOP_DEADLINE = 15.0
POLL_INTERVAL = 0.2
LOG_TAIL_LINES = 40


@dataclass
class Server:
    """One vLLM server: the leader of its process group, and where it listens."""

    preset: str
    url: str
    process: subprocess.Popen
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def description(self) -> dict[str, object]:
        return {"url": self.url, "pid": self.pid, "preset": self.preset, "model": presets.SERVED_NAME}

    def is_healthy(self) -> bool:
        """True once it answers, False while it is starting; an error when it has died."""
        if self.process.poll() is not None:
            raise TargetError(
                f"vLLM ({self.preset}) ended while starting, with status {self.process.returncode}. "
                f"The end of {self.log}:\n{_tail(self.log)}"
            )
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as reply:
                return reply.status == 200
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


def launch(preset: str, model: Path, port: int | None = None, extra: list[str] | None = None) -> Server:
    """Starts a server and returns at once. Call from the main thread (see `die_with_parent`)."""
    port = port or _free_port()
    layout.LOGS.mkdir(parents=True, exist_ok=True)
    log = layout.LOGS / f"{preset}-{port}.log"
    command = [str(layout.PYTHON), "-m", "vllm.entrypoints.cli.main"]
    command += presets.arguments(preset, str(model), port) + (extra or [])
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | presets.environment(preset),
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    say(f"starting vLLM ({preset}), pid {process.pid}, log {log}")
    return Server(preset, f"http://127.0.0.1:{port}", process, log)


def wait_until_healthy(servers: list[Server]) -> None:
    """Returns when every server answers; raises when one dies or the deadline passes."""
    deadline = time.monotonic() + START_DEADLINE
    waiting = list(servers)
    while waiting:
        if time.monotonic() > deadline:
            late = waiting[0]
            raise TargetError(
                f"vLLM ({late.preset}) did not answer within {START_DEADLINE:.0f} s. "
                f"The end of {late.log}:\n{_tail(late.log)}"
            )
        for server in list(waiting):
            if server.is_healthy():
                say(f"vLLM ({server.preset}) answers at {server.url}")
                waiting.remove(server)
        if waiting:
            time.sleep(POLL_INTERVAL)


def stop(servers: list[Server]) -> None:
    """Ends the servers and everything they started: asked first, then by force."""
    for server in servers:
        signal_group(server.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_DEADLINE
    while time.monotonic() < deadline and any(_group_is_alive(server) for server in servers):
        time.sleep(POLL_INTERVAL)
    for server in servers:
        if _group_is_alive(server):
            say(f"vLLM ({server.preset}), pid {server.pid}, outlived {STOP_DEADLINE:.0f} s: killing it")
            signal_group(server.pid, signal.SIGKILL)
        server.process.wait()


def _group_is_alive(server: Server) -> bool:
    """Whether any process of the server's group is left, its leader reaped when it has ended."""
    server.process.poll()
    return signal_group(server.pid, 0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(lines[-LOG_TAIL_LINES:])
