#!/usr/bin/env python3
"""Whether replayed rollouts earn what direct ones do: 512 of each, by the answers of the `math` workload.

usage: rewards.py BINARY POLICIES, under `target.py with bfloat16 --model POLICIES/policy-1`

Samples 16 prompts x 8 four times under policy-1, swaps the running server to policy-3 and samples the same prompts
again, directly and through a sidecar that replays the rollouts of policy-1. Exits with 1 where the mean rewards under
policy-3 differ by three standard errors or more, or where too little was replayed for that to say anything.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "target"
# Both have a `servers`; that of conformance starts sidecars.
sys.path[:0] = [str(HERE.parent / "conformance"), str(TARGET)]

import layout
from servers import sidecar

ROLLOUTS = 512
LEAST_REPLAYED = 0.2
STANDARD_ERRORS = 3.0


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    binary, policies = sys.argv[1], Path(sys.argv[2])
    server = os.environ["SIDEDRAFT_TARGET_BFLOAT16"]
    workload = layout.BENCHMARK / "workloads" / "math.jsonl"
    if not workload.is_file():
        print(f"rewards: there is no workload at {workload}: see SIDEDRAFT_BENCHMARK", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "rl.json"
        # Always, so that there is something to judge even where decoding is faster.
        words = [binary, "serve", "--upstream", server, "--listen", "127.0.0.1:0", "--replay"]
        words += ["--tokenizer", str(policies / "policy-1"), "--speculate", "always", "--draft-tokens", "64"]
        with sidecar(words, layout.LOGS / "rewards-sidecar.log") as url:
            subprocess.run(bench(binary, server, url, workload, policies, report), check=True)
        return judge(json.loads(report.read_text()))


def bench(binary: str, server: str, url: str, workload: Path, policies: Path, report: Path) -> list[str]:
    # Epoch 1 has policy-1, epoch 2 policy-3.
    policy = "$((2 * SIDEDRAFT_EPOCH - 1))"
    between = f"{sys.executable} {TARGET / 'load_policy.py'} {url} {policies}/policy-{policy} {policy}"
    words = [binary, "bench", "rl", "--direct", server, "--proxy", url, "--workload", str(workload), "--logprobs"]
    words += ["--epochs", "2", "--steps", "4", "--prompts", "16", "--samples", "8", "--concurrency", "16"]
    return words + ["--between", between, "--json", str(report)]


def judge(report: dict) -> int:
    (summary,) = (cell["summary"] for cell in report["cells"] if cell["epoch"] == 2)
    rewards = {arm: summary[arm]["reward"] for arm in ("direct", "proxied")}
    for arm, reward in rewards.items():
        print(f"{arm}: mean reward {reward['mean']:.4f}, standard error {reward['error']:.4f}, {reward['rollouts']} rollouts")
    replayed = summary["speculation"]["accepted_by_drafter"].get("replay", 0.0)
    difference = rewards["proxied"]["mean"] - rewards["direct"]["mean"]
    error = math.hypot(*(reward["error"] for reward in rewards.values()))
    print(f"difference {difference:+.4f}, {abs(difference) / error:.2f} standard errors; {replayed:.0%} of the tokens replayed")
    faults = []
    if any(reward["rollouts"] < ROLLOUTS for reward in rewards.values()):
        faults.append(f"fewer than {ROLLOUTS} rollouts")
    if replayed < LEAST_REPLAYED:
        faults.append(f"only {replayed:.0%} of the tokens were replayed")
    if abs(difference) >= STANDARD_ERRORS * error:
        faults.append("the means differ")
    for fault in faults:
        print(f"rewards: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
