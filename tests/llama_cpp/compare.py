#!/usr/bin/env python3
"""Compares the draft model's speed on one thread with llama.cpp's, on the same file, and of 8 sequences with that of one.

usage: compare.py --model FILE.gguf --speed PROGRAM [--llama FOLDER] [--pairs N] [--json FILE]

PROGRAM is the example `draft_speed`; FOLDER is where node-llama-cpp is installed. All run by turns, N times, each alone;
a ratio is the median of those of the single turns. Prints Markdown.
"""

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
LENGTHS = {128: 64, 1024: 64}
BATCH = 8


class Runner:
    """A process that answers each line with a line of JSON."""

    def __init__(self, *command: str | Path):
        self.process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def hear(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.process.args[0]} ended with status {self.process.wait()}")
        return json.loads(line)

    def ask(self, *numbers: int) -> dict:
        print(*numbers, file=self.process.stdin, flush=True)
        return self.hear()

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    options = _parse()
    llama = Runner("node", HERE / "llama.mjs", options.model, options.llama)
    described = llama.hear()
    listed, whole = Runner(options.speed, options.model), Runner(options.speed, options.model, "whole")
    turns = {}
    for turn in range(options.pairs + 1):
        for context, length in LENGTHS.items():
            other = llama.ask(context, length, 1)
            found = {
                "llama.cpp, passes": other["passes"],
                "llama.cpp, clock": other["clock"],
                "whole": whole.ask(context, length, 1)["clock"],
                "listed": listed.ask(context, length, 1)["clock"],
                "whole, 8": whole.ask(context, length // 2, BATCH)["clock"],
                "listed, 8": listed.ask(context, length // 2, BATCH)["clock"],
            }
            print(f"turn {turn}, context {context}: {found}", file=sys.stderr, flush=True)
            if turn > 0:  # the first warms all up
                for name, speed in found.items():
                    turns.setdefault(context, {}).setdefault(name, []).append(speed)
    for runner in (llama, listed, whole):
        runner.end()
    if options.json:
        options.json.write_text(json.dumps({"llama.cpp": described, "tokens/s": turns}, indent=1))
    _print(described, turns, options.pairs)


def _print(described: dict, turns: dict, pairs: int) -> None:
    print(f"llama.cpp {described['release']}: {described['system']}")
    print(f"{platform.processor() or platform.machine()}, one thread, {pairs} turns\n")
    print("| context | what | batch | tokens/s | to llama.cpp's passes | to llama.cpp by the clock | to batch 1 |")
    print("|---|---|---|---|---|---|---|")
    for context, found in turns.items():
        passes, clock = found["llama.cpp, passes"], found["llama.cpp, clock"]
        print(f"| {context} | llama.cpp, passes | 1 | {_spread(passes, 0)} | | | |")
        print(f"| {context} | llama.cpp, by the clock | 1 | {_spread(clock, 0)} | | | |")
        for name, what in (("whole", "whole vocabulary"), ("listed", "listed ids")):
            own, many = found[name], found[f"{name}, 8"]
            print(f"| {context} | {what} | 1 | {_spread(own, 0)} | {_ratio(own, passes)} | {_ratio(own, clock)} | |")
            print(f"| {context} | {what} | {BATCH} | {_spread(many, 0)} | | | {_ratio(many, own)} |")


def _ratio(ours: list[float], theirs: list[float]) -> str:
    return _spread([a / b for a, b in zip(ours, theirs, strict=True)], 2)


def _spread(values: list[float], digits: int) -> str:
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--speed", type=Path, required=True, help="the example draft_speed, built for release")
    parser.add_argument("--llama", type=Path, default=HERE, help="where node-llama-cpp is installed")
    parser.add_argument("--pairs", type=int, default=9, help="turns that count")
    parser.add_argument("--json", type=Path, help="a file for every number")
    return parser.parse_args()


if __name__ == "__main__":
    main()
