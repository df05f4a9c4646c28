#!/usr/bin/env python3
"""Checks every dependency's licence and origin against deny.toml, as `cargo deny check licenses sources` would.

Needs no network and no tool but cargo, so that it runs wherever the tests do. Advisories need a database from the
network: `cargo deny check advisories` is for machines that have one.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REGISTRY = "registry+"


def main() -> int:
    allowed = set(tomllib.loads((ROOT / "deny.toml").read_text())["licenses"]["allow"])
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    packages = [package for package in metadata["packages"] if package["source"] is not None]
    faults = []
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if not package["source"].startswith(REGISTRY):
            faults.append(f"{name} does not come from a registry: {package['source']}")
        if not is_allowed(package["license"] or "", allowed):
            faults.append(f"{name} has licence {package['license']!r}")
    for fault in faults:
        print(f"licences: {fault}", file=sys.stderr)
    print(f"licences: {len(packages)} dependencies, {len(faults)} not allowed")
    return 1 if faults else 0


def is_allowed(expression: str, allowed: set[str]) -> bool:
    """Whether an SPDX expression can be satisfied by allowed licences. `/` is cargo's old way to write OR."""
    tokens = re.findall(r"\(|\)|/|[^\s()/]+", expression)
    position = 0

    def peek() -> str | None:
        return tokens[position] if position < len(tokens) else None

    def take() -> str:
        nonlocal position
        position += 1
        return tokens[position - 1]

    def either() -> bool:
        satisfied = both()
        while peek() in ("OR", "/"):
            take()
            satisfied = both() or satisfied
        return satisfied

    def both() -> bool:
        satisfied = one()
        while peek() == "AND":
            take()
            satisfied = one() and satisfied
        return satisfied

    def one() -> bool:
        if peek() == "(":
            take()
            satisfied = either()
            take()
            return satisfied
        name = take()
        if peek() == "WITH":
            take()
            name = f"{name} WITH {take()}"
        return name in allowed

    return bool(tokens) and either() and position == len(tokens)


if __name__ == "__main__":
    sys.exit(main())
