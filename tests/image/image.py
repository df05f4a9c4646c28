#!/usr/bin/env python3
"""Checks docker/ without Docker.

    image.py check --binary BIN    hadolint, pinned bases, the compose file's schema, the health check asked of BIN
    image.py root --binary BIN     a root as the image would have it, and BIN in it: its size, whether it serves, how soon

The packages that the first needs are pinned in requirements.txt. The second needs root and Debian's debootstrap.
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
    parser.add_argument("verb", choices=["check", "root"])
    parser.add_argument("--binary", type=Path, required=True)
    options = parser.parse_args()
    binary = options.binary.resolve()
    if not binary.is_file():
        parser.error(f"{binary} is not there: cargo build")
    if options.verb == "root":
        return subprocess.run([sys.executable, HERE / "root.py", binary]).returncode
    tools = environment("image", HERE / "requirements.txt")
    variables = os.environ | {"SIDEDRAFT_BINARY": str(binary), "IMAGE_TOOLS": str(tools), "PYTHONDONTWRITEBYTECODE": "1"}
    tests = ["-m", "unittest", "discover", "-s", str(HERE), "-p", "test_*.py"]
    return subprocess.run([tools / "python", *tests], env=variables).returncode


if __name__ == "__main__":
    sys.exit(main())
