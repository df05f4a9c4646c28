#!/usr/bin/env python3
"""What the image of the variant without CUDA would hold and do, built by debootstrap: root.py BINARY

Debian's minimal system of the release that the Dockerfile's last stage begins with, what that stage installs, less the
files that Debian's slim images leave out; then what the stage copies, BINARY among it. The binary is run there as the
stage would run it: by its entry point, with its variables, as its user, on a file system that cannot be written to.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from stages import DOCKERFILE, Stage, stages
from upstream import REPLY, first_byte, upstream

ROOT = Path(__file__).resolve().parents[2] / "target" / "image" / "root"
RELEASES = {"12": "bookworm", "13": "trixie"}
# What debuerreotype, which makes Debian's images, takes out of the slim ones.
SLIM = ["doc", "doc-base", "info", "linda", "lintian", "locale", "man", "omf", "help", "gnome/help"]
EMPTIED = ["var/cache/apt", "var/lib/apt/lists", "var/log", "tmp", "run"]
STARTS = 21


def main() -> int:
    (binary,) = sys.argv[1:]
    if "SIDEDRAFT_MOUNTS" not in os.environ:
        # In a mount namespace of its own, where the root can be made read-only.
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, __file__, binary]
        if subprocess.run([*command[:4], "true"], capture_output=True).returncode == 0:
            os.execvpe("unshare", command, os.environ | {"SIDEDRAFT_MOUNTS": "1"})
        print("root: this machine gives no mount namespace, so the root stays writable", file=sys.stderr)
    stage = stages(DOCKERFILE.read_text())["cpu"]
    system = build(stage)
    fill(stage, Path(binary))
    read_only = "SIDEDRAFT_MOUNTS" in os.environ and forbid_writing()
    whole, own = size(ROOT), Path(binary).stat().st_size
    starts = [cold_start(stage, port) for port in range(18001, 18001 + STARTS)]
    print(f"root: {stage.base}, {stage.packages or 'no packages besides'}: {mib(system)} MiB")
    print(f"root: with what is copied into it {mib(whole)} MiB, of which the binary {mib(own)} MiB")
    print(f"root: user {stage.one('USER')}, read-only: {'yes' if read_only else 'NOT HERE'}; it forwards, and is healthy")
    least, middle, most = min(starts), statistics.median(starts), max(starts)
    print(f"root: from its start to the first forwarded byte {middle:.1f} ms ({least:.1f} to {most:.1f}, {STARTS} starts)")
    return 0


def build(stage: Stage) -> int:
    """Makes the root, and tells its size."""
    release = RELEASES[stage.base.split(":")[1].split(".")[0]]
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.parent.mkdir(parents=True, exist_ok=True)
    include = [f"--include={','.join(stage.packages)}"] if stage.packages else []
    with open(ROOT.parent / "debootstrap.log", "w") as log:
        command = ["debootstrap", "--variant=minbase", *include, release, ROOT]
        if subprocess.run(command, stdout=log, stderr=log).returncode:
            sys.exit(f"root: debootstrap failed: {log.name}")
    for name in SLIM:
        shutil.rmtree(ROOT / "usr" / "share" / name, ignore_errors=True)
    for name in EMPTIED:
        for entry in (ROOT / name).iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    return size(ROOT)


def fill(stage: Stage, binary: Path):
    """Copies what the stage takes from the build: the binary, and from a Debian like the build's what else there is."""
    for source, target in stage.copies:
        place = ROOT / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(binary if source.endswith("/sidedraft") else source, place)


def forbid_writing() -> bool:
    subprocess.run(["mount", "--bind", ROOT, ROOT], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", ROOT], check=True)
    try:
        (ROOT / "probe").touch()
    except OSError:
        return True
    sys.exit("root: what was mounted read-only can be written to")


def size(folder: Path) -> int:
    """Bytes of the files, each once."""
    files = {}
    for parent, _, names in os.walk(folder):
        for found in (os.lstat(os.path.join(parent, name)) for name in names):
            files[found.st_ino] = found.st_size
    return sum(files.values())


def mib(count: int) -> str:
    return f"{count / 2**20:.1f}"


def enter(stage: Stage, command: list[str], **more) -> subprocess.Popen:
    """Starts a command in the root as the stage's user, with nothing of this process's environment."""
    user, group = map(int, stage.one("USER").split(":"))
    path = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

    def inside():
        os.chroot(ROOT)
        os.chdir("/")
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)

    return subprocess.Popen(command, env=path | stage.variables | more.pop("variables", {}), preexec_fn=inside, **more)


def cold_start(stage: Stage, port: int) -> float:
    """Milliseconds from the start of the process to the first byte of a reply that it forwards."""
    command = json.loads(stage.one("ENTRYPOINT")) + json.loads(stage.one("CMD"))
    with upstream() as url:
        variables = {"SIDEDRAFT_UPSTREAM": url, "SIDEDRAFT_LISTEN": f"127.0.0.1:{port}"}
        begun = time.perf_counter()
        process = enter(stage, command, variables=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        with process:
            try:
                process.stdout.readline()
                reply, at = first_byte(port, "/v1/models")
                exposed = stage.one("EXPOSE")
                check = [word.replace(f"/{exposed}", f"/{port}") for word in stage.health]
                healthy = enter(stage, check).wait(10)
            finally:
                process.kill()
    if REPLY not in reply or healthy:
        sys.exit(f"root: it does not serve: {reply!r}, and its health check ends with {healthy}")
    return (at - begun) * 1000


if __name__ == "__main__":
    sys.exit(main())
