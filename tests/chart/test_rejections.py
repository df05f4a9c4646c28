"""Values that are wrong are refused, by a message that names them."""

import unittest

import helm_python as helm
from render import CHART, render, values

SIDECAR = values(CHART / "examples" / "sidecar.yaml")
STANDALONE = values(CHART / "examples" / "standalone.yaml")

# Where the value is, the value, and what the message says of it.
WRONG = [
    ("modee", "sidecar", "additional properties 'modee' not allowed"),
    ("mode", "beside", "at '/mode': value must be one of 'sidecar', 'standalone'"),
    ("replicas", 2, "additional properties 'replicas' not allowed"),
    ("replicaCount", "2", "at '/replicaCount': got string, want integer"),
    ("image.repository", "a/b:latest", "at '/image/repository': 'a/b:latest' does not match pattern"),
    ("image.digest", "sha256:abc", "at '/image/digest'"),
    ("image.pullPolicy", "Sometimes", "at '/image/pullPolicy': value must be one of"),
    ("image.repository", "", "image.repository is required"),
    ("sidedraft.draftmodel", {}, "at '/sidedraft': additional properties 'draftmodel' not allowed"),
    ("sidedraft.draftModel.path", "models/draft", "at '/sidedraft/draftModel/path'"),
    ("sidedraft.draftModel.precision", "int4", "at '/sidedraft/draftModel/precision': value must be one of"),
    ("sidedraft.draftModel.threads", 0, "at '/sidedraft/draftModel/threads': minimum: got 0, want 1"),
    ("sidedraft.draftTokens", 65, "at '/sidedraft/draftTokens': maximum: got 65, want 64"),
    ("sidedraft.strategy", "fastest", "at '/sidedraft/strategy': value must be one of"),
    ("sidedraft.port", 80000, "at '/sidedraft/port': maximum"),
    ("sidedraft.upstream", "vllm:8000", "at '/sidedraft/upstream'"),
    ("sidedraft.logFormat", "yaml", "at '/sidedraft/logFormat': value must be one of 'json', 'text'"),
    ("sidedraft.extraArgs", ["retries=3"], "at '/sidedraft/extraArgs/0'"),
    ("sidedraft.extraEnv", [{"nam": "A"}], "at '/sidedraft/extraEnv/0'"),
    ("sidedraft.resources", {"limit": {}}, "at '/sidedraft/resources': additional properties 'limit' not allowed"),
    ("sidedraft.readinessProbe", {"httpget": {}}, "at '/sidedraft/readinessProbe': additional properties"),
    ("vllm.modle", "x", "at '/vllm': additional properties 'modle' not allowed"),
    ("vllm.model", "", "vllm.model is required in mode sidecar"),
    ("vllm.port", 8000, "vllm.port and sidedraft.port are both 8000"),
    ("vllm.drainSeconds", 60, "terminationGracePeriodSeconds must be longer than vllm.drainSeconds"),
    ("service.type", "ExternalName", "at '/service/type': value must be one of"),
    ("podDisruptionBudget", {"enabled": "yes"}, "at '/podDisruptionBudget/enabled': got string, want boolean"),
    ("serviceMonitor.interval", "15", "at '/serviceMonitor/interval'"),
    ("sidedraft.upstream", "http://vllm:8000", "sidedraft.upstream is for mode standalone"),
    ("sidedraft.extraArgs", ["--listen=0.0.0.0:1"], "sidedraft.extraArgs repeats --listen"),
    ("sidedraft.extraArgs", ["--upstream-api-key=k"], "use apiKey.existingSecret"),
    ("sidedraft.extraArgs", ["--api-key=k"], "sidedraft.apiKey.existingSecret"),
    ("sidedraft.gpu.mode", "maybe", "at '/sidedraft/gpu/mode': value must be one of 'none', 'own', 'shared'"),
    ("sidedraft.gpu", {"mode": "own", "resource": "gpu"}, "at '/sidedraft/gpu/resource'"),
    ("sidedraft.gpu.mode", "shared", "needs sidedraft.gpu.claimTemplate"),
    ("sidedraft.otlpEndpoint", "collector:4317", "at '/sidedraft/otlpEndpoint'"),
    ("sidedraft.tls.existingsecret", "s", "at '/sidedraft/tls': additional properties 'existingsecret' not allowed"),
    ("sidedraft.tls.upstreamClientSecret", "s", "are about TLS, and sidedraft.upstream is not https"),
]


def given(base: dict, path: str, value: object) -> dict:
    """`base` with one value more."""
    name, _, rest = path.partition(".")
    return base | {name: given(base.get(name) or {}, rest, value) if rest else value}


class Rejections(unittest.TestCase):
    def refused(self, wrong: dict, message: str):
        with self.assertRaises(helm.HelmError) as refusal:
            render(wrong)
        self.assertIn(message, str(refusal.exception))

    def test_what_is_wrong_is_named(self):
        for path, value, message in WRONG:
            with self.subTest(path=path, value=value):
                self.refused(given(SIDECAR, path, value), message)

    def test_standalone_needs_an_upstream_and_time_to_drain(self):
        self.refused(given(STANDALONE, "sidedraft.upstream", ""), "sidedraft.upstream is required in mode standalone")
        self.refused(given(STANDALONE, "sidedraft.drainTimeoutSeconds", 60), "must be longer than")

    def test_a_draft_model_that_is_to_draft_alone_must_be_there(self):
        self.refused(given(STANDALONE, "sidedraft.drafter", "neural"), "needs sidedraft.draftModel.path")

    def test_a_gpu_needs_a_draft_model_and_one_that_is_shared_a_vllm_to_share_with(self):
        self.refused(given(STANDALONE, "sidedraft.gpu.mode", "own"), "needs sidedraft.draftModel.path")
        shared = {"mode": "shared", "claimTemplate": "gpu"}
        alone = given(given(STANDALONE, "sidedraft.draftModel.path", "/m"), "sidedraft.gpu", shared)
        self.refused(alone, "there is no vLLM in the pod to share with")

    def test_pods_are_scraped_once(self):
        both = given(given(SIDECAR, "serviceMonitor.enabled", True), "podMonitor.enabled", True)
        self.refused(both, "scrape each pod twice")

    def test_what_they_are_made_from_is_right(self):
        for base in SIDECAR, STANDALONE:
            render(base)


if __name__ == "__main__":
    unittest.main()
