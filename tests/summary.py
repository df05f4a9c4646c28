#!/usr/bin/env python3
"""Counts the tests of a run, from the JUnit file that nextest wrote.

usage: summary.py JUNIT.xml

Prints a line for each kind of test and one for all. Exits with 1 if a test failed, or if a kind
ran none: a suite that was skipped whole must not look like one that passed.
"""

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

# nextest's name of each test binary, and what we call its tests.
KINDS = {
    "sidedraft": "unit",
    "sidedraft::property": "property",
    "sidedraft::allocations": "allocations",
    "sidedraft::fake": "fake",
    "sidedraft::fake_selftest": "fake",
    "sidedraft::reliability": "reliability",
    "sidedraft::simulated": "simulated",
    "sidedraft::real": "real",
}
OUTCOMES = ("passed", "failed", "skipped")


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    counts = count(Path(sys.argv[1]))
    for kind in counts:
        print(f"{kind}: {described(counts[kind])}")
    missing = [kind for kind, outcomes in counts.items() if not outcomes["passed"] + outcomes["failed"]]
    if missing:
        print(f"no test ran: {', '.join(missing)}")
    total = sum(counts.values(), Counter())
    print(f"{total['passed']} passed, {total['failed']} failed")
    return 1 if total["failed"] or missing else 0


def count(junit: Path) -> dict[str, Counter]:
    """Outcomes of each kind. A binary with a name not foreseen here is a kind of its own."""
    counts = {kind: Counter() for kind in KINDS.values()}
    for suite in ElementTree.parse(junit).getroot().iter("testsuite"):
        kind = KINDS.get(suite.get("name"), suite.get("name"))
        outcomes = counts.setdefault(kind, Counter())
        outcomes.update(outcome(case) for case in suite.iter("testcase"))
    return counts


def outcome(case: ElementTree.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "skipped" if case.find("skipped") is not None else "passed"


def described(outcomes: Counter) -> str:
    return ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in OUTCOMES)


if __name__ == "__main__":
    sys.exit(main())
