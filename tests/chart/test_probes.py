"""The chart's probes and its test pod, asked of the binary with and without a server."""

import os
import shutil
import subprocess
import unittest

import yaml
from render import CHART, container, manifest, render, values
from sidecar import get, healthy_upstream, sidecar

NOBODY = "http://127.0.0.1:9"


def passes(probe: dict, url: str) -> bool:
    """What a kubelet finds."""
    status, _ = get(url + probe["httpGet"]["path"])
    return 200 <= status < 400


class Probes(unittest.TestCase):
    def setUp(self):
        self.container = container(manifest(values(CHART / "examples" / "sidecar.yaml"), "Deployment"), "sidedraft")

    def found(self, url: str) -> list[bool]:
        return [passes(self.container[f"{kind}Probe"], url) for kind in ("startup", "liveness", "readiness")]

    def test_startup_and_liveness_do_not_wait_for_vllm_and_readiness_does(self):
        with sidecar(NOBODY) as url:
            self.assertEqual(self.found(url), [True, True, False])

    def test_all_pass_with_vllm(self):
        with healthy_upstream() as upstream, sidecar(upstream) as url:
            self.assertEqual(self.found(url), [True, True, True])

    def test_startup_and_liveness_ask_a_route_of_the_sidecars_own(self):
        for kind in "startup", "liveness":
            self.assertEqual(self.container[f"{kind}Probe"]["httpGet"]["path"], "/sidedraft/live")

    @unittest.skipUnless(shutil.which("curl"), "the pod has a curl of its own, this machine has none")
    def test_the_test_pod_brings_the_key_and_trusts_whoever_answers(self):
        pod = yaml.safe_load(render(values(CHART / "examples" / "secured.yaml"))["tests/serves.yaml"])
        (script,) = pod["spec"]["containers"][0]["args"]
        flags = "--drafter=off", "--api-key=open-sesame"
        with healthy_upstream() as upstream, sidecar(upstream, *flags) as url:
            there = script.replace("https://demo-sidedraft:8000", url)
            self.assertNotEqual(there, script)
            command = [*pod["spec"]["containers"][0]["command"], there]
            variables = {"PATH": os.environ["PATH"], "KEY": "open-sesame"}
            ran = subprocess.run(command, capture_output=True, text=True, timeout=60, env=variables)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn("sidedraft_upstream_ready 1", ran.stdout)

    @unittest.skipUnless(shutil.which("curl"), "the pod has a curl of its own, this machine has none")
    def test_the_test_pod_finds_a_sidecar_that_serves(self):
        pod = yaml.safe_load(render(values(CHART / "examples" / "sidecar.yaml"))["tests/serves.yaml"])
        (script,) = pod["spec"]["containers"][0]["args"]
        with healthy_upstream() as upstream, sidecar(upstream, "--drafter=off") as url:
            there = script.replace("http://demo-sidedraft:8000", url)
            self.assertNotEqual(there, script)
            command = [*pod["spec"]["containers"][0]["command"], there]
            ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn("sidedraft_upstream_ready 1", ran.stdout)
        self.assertIn("no drafter", ran.stdout)


if __name__ == "__main__":
    unittest.main()
