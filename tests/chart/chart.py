#!/usr/bin/env python3
"""Checks charts/sidedraft without a cluster and without helm.

    chart.py check --binary BIN    lint, render, validate; compare with the golden files; run the probes against BIN
    chart.py update                write the golden files and the manifest in docs/kubernetes.md anew

The packages that both need are pinned in requirements.txt and kept in the cache folder (`.cache`, or
`SIDEDRAFT_CACHE`); the first run fetches them from PyPI.
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("SIDEDRAFT_CACHE") or HERE.parents[1] / ".cache").resolve() / "chart"
REQUIREMENTS = HERE / "requirements.txt"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    check = verbs.add_parser("check")
    check.add_argument("--binary", type=Path, required=True)
    verbs.add_parser("update")
    options = parser.parse_args()
    python = environment()
    variables = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    if options.verb == "update":
        return subprocess.run([python, HERE / "render.py"], env=variables).returncode
    if not options.binary.is_file():
        parser.error(f"{options.binary} is not there: cargo build")
    variables["SIDEDRAFT_BINARY"] = str(options.binary.resolve())
    tests = ["-m", "unittest", "discover", "-s", str(HERE), "-p", "test_*.py"]
    return subprocess.run([python, *tests], env=variables).returncode


def environment() -> Path:
    """The Python of an environment with the pinned packages, built anew where they or Python are others than before."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    venv, stamp = CACHE / "venv", CACHE / "venv" / ".stamp"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "setup.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (stamp.is_file() and stamp.read_text() == digest):
            print("chart: installing what the checks need", file=sys.stderr)
            shutil.rmtree(venv, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([venv / "bin" / "python", *install, "-r", REQUIREMENTS], check=True)
            stamp.write_text(digest)
    return venv / "bin" / "python"


if __name__ == "__main__":
    sys.exit(main())
