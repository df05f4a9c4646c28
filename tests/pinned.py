"""Python environments with pinned packages, kept in the cache folder (`.cache`, or `SIDEDRAFT_CACHE`)."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(os.environ.get("SIDEDRAFT_CACHE") or Path(__file__).resolve().parents[1] / ".cache").resolve()


def environment(name: str, requirements: Path) -> Path:
    """The folder of an environment with all of `requirements` and no more, built anew where they or Python are others."""
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    folder = CACHE / name
    venv, stamp = folder / "venv", folder / "venv" / ".stamp"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "setup.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (stamp.is_file() and stamp.read_text() == digest):
            print(f"{name}: installing what the checks need", file=sys.stderr)
            shutil.rmtree(venv, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([venv / "bin" / "python", *install, "-r", requirements], check=True)
            stamp.write_text(digest)
    return venv / "bin"
