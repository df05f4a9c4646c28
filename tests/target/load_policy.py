#!/usr/bin/env python3
"""Swaps the weights of a running vLLM for those of a folder, as a trainer does between two steps.

usage: load_policy.py URL FOLDER VERSION

URL is the server's own or a sidecar's, which is so told of the new version. FOLDER is a Hugging Face folder on the
server's machine. The server has to run with VLLM_SERVER_DEV_MODE=1. Requests under way are kept and go on under the new
weights; should a step fail, the server is resumed all the same, and the exit status is 1.

As the command between the epochs of `sidedraft bench rl`:

    --between 'python3 tests/target/load_policy.py http://localhost:8001 FOLDER/policy-$SIDEDRAFT_EPOCH $SIDEDRAFT_EPOCH'
"""

import json
import sys
import urllib.error
import urllib.request

PATIENCE = 600.0


class LoadError(Exception):
    """A step that the server refused."""


def main() -> int:
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    url, folder, version = sys.argv[1].rstrip("/"), sys.argv[2], sys.argv[3]
    try:
        load(url, folder, version)
    except LoadError as error:
        print(f"load_policy.py: {error}", file=sys.stderr)
        return 1
    return 0


def load(url: str, folder: str, version: str) -> None:
    post(url, "/pause?mode=keep", {})
    try:
        post(url, "/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": folder}})
        post(url, "/update_weight_version", {"new_version": version})
        # Cached blocks were computed by the old weights.
        post(url, "/reset_prefix_cache", {})
    finally:
        post(url, "/resume", {})


def post(url: str, path: str, body: dict) -> None:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url + path, data=data, headers={"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=PATIENCE) as reply:
            answer = reply.read()
    except urllib.error.HTTPError as error:
        raise LoadError(f"{path}: {error.code} {error.read().decode(errors='replace')}") from error
    except (OSError, ValueError) as error:
        raise LoadError(f"{path}: {error}") from error
    # A step that failed may be answered with 200.
    if answer and (json.loads(answer) or {}).get("success") is False:
        raise LoadError(f"{path}: {answer.decode(errors='replace')}")


if __name__ == "__main__":
    sys.exit(main())
