#!/usr/bin/env python3
"""Asks a real vLLM the same things directly and through the sidecar, and compares the replies.

    cases      requests with every field, directly and through the sidecar, compared field by field
    sampled    some of them at temperature 1: the schema, and whether a reply agrees with itself and the server
    roundtrip  random streams of multi-byte tokens: their text is what vLLM's own detokenizer makes of their ids
    fuzz       mutated requests: the same class of status and type of error, nothing hangs, nothing leaks

Prints a table of cases and `N passed, M failed`; exits with 1 on any difference. Needs a server with
`--dtype float32 --enable-scale-out --enable-prompt-tokens-details --max-logprobs -1` that serves SmolLM2 as `smol`:
`make conformance` starts one, and the sidecar in front of it. `--direct` and `--sidecar` use running ones.
"""

import argparse
import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import report
import selftest
import servers
import wire
from parts import PARTS, Setting

HERE = Path(__file__).resolve().parent
LOG = HERE.parents[1] / "target" / "conformance-sidecar.log"
DOCUMENT = HERE.parents[1] / "docs" / "conformance.md"


def main() -> int:
    options = _parse()
    # So that the sidecar is stopped when we are asked to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if blind := selftest.failures():
        print("the comparison itself is wrong:", *blind, sep="\n")
        return 1
    with ExitStack() as running:
        sidecar = options.sidecar or running.enter_context(servers.sidecar(_command(options), LOG))
        setting = Setting(options.direct, sidecar, options.python, options.model, options.only, options.seed)
        results = []
        for name in options.part or PARTS:
            started = time.monotonic()
            result = PARTS[name](setting)
            result.seconds = time.monotonic() - started
            results.append(result)
            print(report.part(result), flush=True)
    if options.write_docs and (options.part or options.only):
        print("--write-docs: only of a run of everything", file=sys.stderr)
    elif options.write_docs:
        version = wire.get(options.direct, "/version").json()["version"]
        DOCUMENT.write_text(report.document(results, version, options.draft_tokens), encoding="utf-8")
    failed = sum(result.failed for result in results)
    print(f"{sum(result.passed for result in results)} passed, {failed} failed")
    return 1 if failed else 0


def _command(options: argparse.Namespace) -> list[str]:
    words = [options.binary, "serve", "--upstream", options.direct, "--listen", "127.0.0.1:0"]
    words += ["--draft-model", options.draft_model, "--tokenizer", options.model, "--drafter", options.drafter]
    words += ["--speculate", "always", "--draft-tokens", options.draft_tokens, *options.serve]
    return [str(word) for word in words]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    env = os.environ.get
    parser.add_argument("--binary", type=Path, help="the sidecar's executable, to be started")
    parser.add_argument("--sidecar", metavar="URL", help="a running sidecar in front of the server")
    parser.add_argument("--direct", metavar="URL", default=env("SIDEDRAFT_TARGET_FLOAT32"), help="the running server")
    parser.add_argument("--python", default=env("SIDEDRAFT_TARGET_PYTHON"), help="a Python that has vLLM")
    parser.add_argument("--model", default=env("SIDEDRAFT_TARGET_MODEL_DIR"), metavar="FOLDER", help="the served model")
    parser.add_argument("--draft-model", default=env("SIDEDRAFT_TARGET_GGUF"), metavar="PATH")
    parser.add_argument("--drafter", default="auto", help="for the sidecar (default auto)")
    parser.add_argument("--draft-tokens", type=int, default=8, metavar="K", help="drafts a round (default 8)")
    parser.add_argument("--serve", action="append", default=[], metavar="WORD", help="another word for the sidecar")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part (may be repeated)")
    parser.add_argument("--only", default="", metavar="PATTERN", help="only cases whose `endpoint: name` has it")
    parser.add_argument("--seed", type=int, default=20, help="of roundtrip and fuzz (default 20)")
    parser.add_argument("--write-docs", action="store_true", help=f"write {DOCUMENT.relative_to(HERE.parents[1])}")
    options = parser.parse_args()
    if not (options.binary or options.sidecar):
        parser.error("one of --binary and --sidecar is needed")
    for name in ("direct", "python", "model"):
        if not getattr(options, name):
            parser.error(f"--{name} is needed, or target.py, which sets it")
    return options


if __name__ == "__main__":
    sys.exit(main())
