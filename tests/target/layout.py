"""Where the test target lives on disk, and how its scripts talk to a person.

Everything is kept under one cache folder, so that removing that folder removes
every trace. `SIDEDRAFT_CACHE` moves it, for example to share one copy between
several checkouts.
"""

import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
CACHE = Path(os.environ.get("SIDEDRAFT_CACHE") or REPOSITORY / ".cache").resolve() / "target"

# Models and workloads of the benchmark are no part of this repository.
BENCHMARK = Path(os.environ.get("SIDEDRAFT_BENCHMARK") or REPOSITORY.parent / "shared").resolve()

UV_VENV = CACHE / "uv"
VENV = CACHE / "venv"
PYTHON = VENV / "bin" / "python"
LOGS = CACHE / "logs"
MODEL = CACHE / "models" / "smollm2-135m-instruct"
POLICIES = CACHE / "models" / "policies"
GGUF = CACHE / "models" / "smollm2-135m-instruct.Q4_1.gguf"

_STARTED = time.monotonic()


class TargetError(Exception):
    """Something a person can act on: shown as one message, without a traceback."""


def say(message: str) -> None:
    """A progress line on stderr, since stdout belongs to the machine-readable answers."""
    print(f"[target {time.monotonic() - _STARTED:6.1f}s] {message}", file=sys.stderr, flush=True)


def paths() -> dict[str, str]:
    """What other programs need to know of the cache."""
    return {"python": str(PYTHON), "model": str(MODEL), "gguf": str(GGUF)}
