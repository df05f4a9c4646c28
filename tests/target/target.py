#!/usr/bin/env python3
"""A real vLLM server to test against, on any machine: no GPU, no model hub.

    target.py setup                            build what is needed (once; minutes)
    target.py paths                            where it was built, as JSON
    target.py policies                         build the policies of the benchmark models, print their folder
    target.py serve PRESET [--port P] [--model DIR] [-- …]   one server, until stdin closes
    target.py with PRESET[,PRESET…] [--model DIR] -- CMD …   a command with servers beside it

`serve` prints one line of JSON once the server answers, {"url", "pid", "preset", "model"}, and
stops it when stdin reaches its end or on SIGTERM or SIGINT. Words after `--` go to vLLM.

`with` starts the servers, runs the command with SIDEDRAFT_TARGET_<PRESET> set to each one's URL
(upper case, `-` as `_`), and with SIDEDRAFT_TARGET_MODEL_DIR, SIDEDRAFT_TARGET_GGUF and
SIDEDRAFT_TARGET_PYTHON. Its exit status is the command's.

The model is SmolLM2-135M-Instruct, or the Hugging Face folder that `--model` names.

Presets: float32, bfloat16, float32-plain, bfloat16-plain (see presets.py).
"""

import argparse
import json
import os
import selectors
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import layout
import presets
import servers
from layout import TargetError
from policies import build_policies
from setup_target import set_up

COMMAND_STOP_DEADLINE = 10.0


class Interrupted(Exception):
    """A signal asked us to stop."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


def main() -> int:
    options = _parse(sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return options.run(options)
    except Interrupted as interrupted:
        return 128 + interrupted.number
    except TargetError as error:
        print(f"target.py: {error}", file=sys.stderr)
        return 1


def _interrupt(number: int, _frame) -> None:
    raise Interrupted(number)


def _setup(_options: argparse.Namespace) -> int:
    set_up()
    return 0


def _paths(_options: argparse.Namespace) -> int:
    print(json.dumps(layout.paths()))
    return 0


def _policies(_options: argparse.Namespace) -> int:
    set_up()
    print(build_policies())
    return 0


def _serve(options: argparse.Namespace) -> int:
    set_up()
    with _running([options.preset], options.model, options.port, options.rest) as (server,):
        print(json.dumps(server.description()), flush=True)
        _wait_for_end_of_stdin(server)
    return 0


def _with(options: argparse.Namespace) -> int:
    set_up()
    with _running(options.presets, options.model) as running:
        environment = os.environ | {
            "SIDEDRAFT_TARGET_MODEL_DIR": str(options.model),
            "SIDEDRAFT_TARGET_GGUF": str(layout.GGUF),
            "SIDEDRAFT_TARGET_PYTHON": str(layout.PYTHON),
        }
        for server in running:
            environment["SIDEDRAFT_TARGET_" + server.preset.upper().replace("-", "_")] = server.url
        return _run_command(options.rest, environment)


@contextmanager
def _running(names: list[str], model: Path, port: int | None = None, extra: list[str] | None = None):
    """Servers that answer; they are stopped however the block ends."""
    started: list[servers.Server] = []
    try:
        for name in names:
            started.append(servers.launch(name, model, port, extra))
        servers.wait_until_healthy(started)
        yield started
    finally:
        # Stopping has a deadline of its own, so an impatient second Ctrl-C need not cut it short.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        servers.stop(started)


def _wait_for_end_of_stdin(server: servers.Server) -> None:
    """Returns when stdin is closed; an error when the server ends first."""
    ended = os.pidfd_open(server.pid)
    with selectors.DefaultSelector() as selector:
        selector.register(ended, selectors.EVENT_READ)
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        while True:
            ready = [key.fd for key, _ in selector.select()]
            if ended in ready:
                raise TargetError(f"vLLM ({server.preset}) ended by itself; see {server.log}")
            if not os.read(sys.stdin.fileno(), 4096):
                return


def _run_command(command: list[str], environment: dict[str, str]) -> int:
    """Runs a command in our own process group, where Ctrl-C reaches it too."""
    try:
        process = subprocess.Popen(command, env=environment)
    except OSError as error:
        raise TargetError(f"cannot run {command[0]}: {error}") from error
    try:
        status = process.wait()
    except Interrupted as interrupted:
        # A terminal's Ctrl-C has reached the command already; any other signal is passed on.
        if interrupted.number != signal.SIGINT:
            process.send_signal(interrupted.number)
        _wait_or_kill(process)
        raise
    return status if status >= 0 else 128 - status


def _wait_or_kill(process: subprocess.Popen) -> None:
    for escalate in (process.terminate, process.kill):
        try:
            process.wait(COMMAND_STOP_DEADLINE)
            return
        except (subprocess.TimeoutExpired, Interrupted):
            escalate()
    process.wait()


def _parse(words: list[str]) -> argparse.Namespace:
    """Splits at `--` by hand, since argparse would drop a `--` that belongs to the command."""
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        prog="target.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("setup", help="build the environment and the model").set_defaults(run=_setup)
    verbs.add_parser("paths", help="print where they are").set_defaults(run=_paths)
    policies = verbs.add_parser("policies", help="build the benchmark's policies and print their folder")
    policies.set_defaults(run=_policies)
    serve = verbs.add_parser("serve", help="run one server until stdin closes")
    serve.add_argument("preset", choices=presets.PRESETS)
    serve.add_argument("--port", type=int, help="default: a free one")
    serve.set_defaults(run=_serve)
    beside = verbs.add_parser("with", help="run a command with servers beside it")
    beside.add_argument("presets", type=_preset_list, metavar="PRESET[,PRESET…]")
    beside.set_defaults(run=_with)
    for verb in (serve, beside):
        verb.add_argument("--model", type=Path, default=layout.MODEL, metavar="DIR", help="serve this folder's model")

    options = parser.parse_args(words[:cut])
    options.rest = words[cut + 1 :]
    if options.verb == "with" and not options.rest:
        parser.error("with: a command is needed after --")
    if options.verb not in ("with", "serve") and options.rest:
        parser.error(f"{options.verb} takes no words after --")
    return options


def _preset_list(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in presets.PRESETS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no preset {unknown[0]!r}: one of {', '.join(presets.PRESETS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
