#!/usr/bin/env python3
"""Checks charts/sidedraft without a cluster and without helm.

    chart.py check --binary BIN    lint, render, validate; compare with the golden files; run the probes against BIN
    chart.py update                write the golden files and the manifest in docs/kubernetes.md anew

The packages that both need are pinned in requirements.txt and kept in the cache folder (`.cache`, or
`SIDEDRAFT_CACHE`); the first run fetches them from PyPI.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from pinned import environment  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    check = verbs.add_parser("check")
    check.add_argument("--binary", type=Path, required=True)
    verbs.add_parser("update")
    options = parser.parse_args()
    python = environment("chart", HERE / "requirements.txt") / "python"
    variables = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    if options.verb == "update":
        return subprocess.run([python, HERE / "render.py"], env=variables).returncode
    if not options.binary.is_file():
        parser.error(f"{options.binary} is not there: cargo build")
    variables["SIDEDRAFT_BINARY"] = str(options.binary.resolve())
    tests = ["-m", "unittest", "discover", "-s", str(HERE), "-p", "test_*.py"]
    return subprocess.run([python, *tests], env=variables).returncode


if __name__ == "__main__":
    sys.exit(main())
