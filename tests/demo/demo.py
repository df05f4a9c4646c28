#!/usr/bin/env python3
"""Shows the sidecar at work: the same rollouts straight to a real vLLM, and through the sidecar.

Starts a vLLM server (tests/target, preset `bfloat16`) and the sidecar in front of it, runs each
prompt once greedy and once at temperature 1, both ways by turns, prints what it measured, faster or
slower, and stops everything. Exits with 1 if something failed to run, or if fewer than half of the
greedy outputs are identical up to a near-tie.

`--target-url` and `--sidecar-url` use servers that are running already.
"""

import argparse
import json
import secrets
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

TARGET = Path(__file__).resolve().parents[1] / "target"
sys.path.insert(0, str(TARGET))

import layout
import report
from processes import die_with_parent
from prompts import PROMPTS
from report import Pair
from rollouts import Arm, DemoError, Rollout, Speculation, chat_prompt, get

PRESET = "bfloat16"
TEMPERATURES = (0.0, 1.0)
WARM_UP_TOKENS = 8
# A sidecar forwards what comes before it has probed its server: not what is to be measured.
WARM_UP_ROLLOUTS_AT_MOST = 20
AGREEING_AT_LEAST = 0.5

SIDECAR_START_DEADLINE = 120.0
STOP_DEADLINE = 20.0
POLL_INTERVAL = 0.1


class Interrupted(Exception):
    """A signal asked us to stop."""


def main() -> int:
    options = _parse()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with ExitStack() as running:
            target = options.target_url or running.enter_context(_target())
            sidecar = options.sidecar_url or running.enter_context(_sidecar(options, target))
            pairs = _run(target, sidecar, options)
            return _conclude(pairs, options)
    except Interrupted as interrupted:
        print(f"demo: stopped by {interrupted}", file=sys.stderr)
        return 130
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def _interrupt(number: int, _frame) -> None:
    # Stopping the servers has deadlines of its own: a second signal need not cut it short.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(signal.Signals(number).name)


@contextmanager
def _target() -> Iterator[str]:
    """A vLLM server, built first if need be. Should we be killed, its stdin closes, and it stops."""
    command = [sys.executable, TARGET / "target.py", "serve", PRESET]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with _stopped_at_the_end(process):
        line = process.stdout.readline()
        if not line:
            raise DemoError("the target server did not start")
        yield json.loads(line)["url"]


@contextmanager
def _sidecar(options: argparse.Namespace, target: str) -> Iterator[str]:
    log = layout.LOGS / "demo-sidecar.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [options.binary, "serve", "--upstream", target, "--listen", "127.0.0.1:0"]
    command += ["--draft-model", options.draft_model or layout.GGUF, "--tokenizer", layout.MODEL]
    command += ["--draft-tokens", str(options.draft_tokens)]
    with open(log, "wb") as output:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=output, preexec_fn=die_with_parent
            )
        except OSError as error:
            raise DemoError(f"cannot start {options.binary}: {error}") from error
    with _stopped_at_the_end(process):
        deadline = time.monotonic() + SIDECAR_START_DEADLINE
        url = _announced_url(process, deadline, log)
        _wait_until_ready(url, process, deadline, log)
        print(f"sidecar at {url}, log {log}", flush=True)
        yield url


@contextmanager
def _stopped_at_the_end(process: subprocess.Popen) -> Iterator[None]:
    """Asks the process to end when the block ends, and kills it if it does not."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _announced_url(process: subprocess.Popen, deadline: float, log: Path) -> str:
    """The URL in the line of JSON that the sidecar prints once it accepts connections."""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        ready = selector.select(max(0, deadline - time.monotonic()))
    line = process.stdout.readline() if ready else b""
    try:
        return json.loads(line)["listening"]
    except (ValueError, KeyError) as error:
        raise DemoError(f"the sidecar did not say where it listens, but {line!r}:\n{_tail(log)}") from error


def _wait_until_ready(url: str, process: subprocess.Popen, deadline: float, log: Path) -> None:
    while True:
        try:
            get(f"{url}/health")
            return
        except DemoError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise DemoError(f"the sidecar is not ready ({error}):\n{_tail(log)}") from error
        time.sleep(POLL_INTERVAL)


def _run(target: str, sidecar: str, options: argparse.Namespace) -> list[Pair]:
    """Every prompt at every temperature, both ways. Which way goes first alternates, so that
    neither always follows the other and a slow spell of the machine hits both."""
    run = secrets.token_hex(4)
    direct = Arm("direct", target, f"demo-{run}-direct")
    proxied = Arm("sidecar", sidecar, f"demo-{run}-sidecar")
    prompts = [chat_prompt(target, text) for text in PROMPTS[: options.rollouts]]
    _warm_up(direct, proxied, prompts[0])

    work = [(prompt, temperature) for prompt in prompts for temperature in TEMPERATURES]
    pairs = []
    for number, (prompt, temperature) in enumerate(work):
        before = proxied.speculation()
        # Over the prompts too, or one temperature would always have the same way first.
        turn = number + number // len(TEMPERATURES)
        order = (direct, proxied) if turn % 2 == 0 else (proxied, direct)
        done = {arm.name: arm.rollout(prompt, temperature, options.max_tokens) for arm in order}
        counted = proxied.speculation() - before
        gap = None if temperature else _parting_gap(direct, prompt, done["direct"], done["sidecar"])
        pairs.append(Pair(temperature, done["direct"], done["sidecar"], counted, gap))
        print(_progress(number + 1, len(work), pairs[-1]), flush=True)
    return pairs


def _warm_up(direct: Arm, proxied: Arm, prompt: list[int]) -> None:
    direct.rollout(prompt, 0.0, WARM_UP_TOKENS)
    for _ in range(WARM_UP_ROLLOUTS_AT_MOST):
        proxied.rollout(prompt, 0.0, WARM_UP_TOKENS)
        if proxied.speculation().rounds:
            return


def _parting_gap(direct: Arm, prompt: list[int], one: Rollout, other: Rollout) -> float | None:
    """How much likelier the server finds its own token where two rollouts part."""
    for position, (left, right) in enumerate(zip(one.token_ids, other.token_ids, strict=False)):
        if left != right:
            return direct.gap(prompt + one.token_ids[:position], left, right)
    return None


def _progress(number: int, of: int, pair: Pair) -> str:
    same = ""
    if pair.temperature == 0:
        gap = "far from a tie" if pair.parting_gap is None else f"{pair.parting_gap:+.2f} nats"
        same = "  identical" if pair.identical else f"  parted ({gap})"
    return (
        f"[{number:2}/{of}] temperature {pair.temperature:g}: "
        f"direct {pair.direct.tokens_per_second:5.1f} tokens/s of {len(pair.direct.token_ids):3}, "
        f"sidecar {pair.proxied.tokens_per_second:5.1f} of {len(pair.proxied.token_ids):3} "
        f"({pair.ratio:.2f}x){same}"
    )


def _conclude(pairs: list[Pair], options: argparse.Namespace) -> int:
    rows = report.table(pairs)
    print(f"\n{report.aligned(rows)}\n")
    for caveat in report.CAVEATS:
        print(f"- {caveat}")
    if options.markdown:
        options.markdown.write_text(report.markdown(rows))
    if sum((pair.speculation for pair in pairs), Speculation()).rounds == 0:
        print("- The sidecar reports no verification round: nothing was speculated.")
    agreeing = report.agreeing_share(pairs)
    if agreeing < AGREEING_AT_LEAST:
        print(f"demo: only {agreeing:.0%} of the greedy outputs agree up to a near-tie", file=sys.stderr)
        return 1
    return 0


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, help="the sidecar's executable")
    parser.add_argument("--draft-model", type=Path, help="default: the target's GGUF file")
    parser.add_argument("--draft-tokens", type=int, default=6, metavar="K", help="drafts a round (default 6)")
    parser.add_argument("--rollouts", type=int, default=len(PROMPTS), metavar="N", help="prompts to run (default all)")
    parser.add_argument("--max-tokens", type=int, default=128, metavar="N", help="tokens a rollout (default 128)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    parser.add_argument("--target-url", metavar="URL", help="use this vLLM server")
    parser.add_argument("--sidecar-url", metavar="URL", help="use this sidecar, or any server in its place")
    options = parser.parse_args()
    if not (options.binary or options.sidecar_url):
        parser.error("one of --binary and --sidecar-url is needed")
    if options.binary and not options.binary.is_file():
        parser.error(f"no executable at {options.binary}: build it first")
    if options.rollouts < 1:
        parser.error("--rollouts: at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
