"""Copies the library's test binary to the place that is named, from cargo's messages on standard input."""

import json
import shutil
import sys

artifacts = [json.loads(line) for line in sys.stdin if line.startswith("{")]
binaries = [
    artifact["executable"]
    for artifact in artifacts
    if artifact["reason"] == "compiler-artifact"
    and artifact["executable"]
    and artifact["profile"]["test"]
    and "lib" in artifact["target"]["kind"]
]
if len(binaries) != 1:
    sys.exit(f"expected one test binary of the library, found {binaries}")
shutil.copy(binaries[0], sys.argv[1])
