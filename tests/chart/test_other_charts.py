"""The examples for others' charts hold the container that this chart renders."""

import unittest

import kubernetes_validate
from render import CHART, container, manifest, values

OTHERS = CHART / "examples"


def own(port: int, upstream: int, volume: str) -> dict:
    """Sidedraft's container of this chart, with the ports and the name of the volume of another."""
    given = values(OTHERS / "sidecar.yaml")
    given["sidedraft"]["port"] = port
    given["vllm"]["port"] = upstream
    found = container(manifest(given, "Deployment"), "sidedraft")
    for mount in found["volumeMounts"]:
        mount["name"] = mount["name"].replace("models", volume)
    return found


class OtherCharts(unittest.TestCase):
    def test_the_production_stack(self):
        patch = values(OTHERS / "production-stack" / "sidecar.yaml")
        self.assertEqual(container(patch, "sidedraft"), own(8001, 8000, "models"))
        given = values(OTHERS / "production-stack" / "values.yaml")
        self.assertEqual(given["routerSpec"]["extraArgs"], ["--k8s-port", "8001"])

    def test_llm_d(self):
        given = values(OTHERS / "llm-d" / "values.yaml")
        (found,) = given["decode"]["initContainers"]
        self.assertEqual(found, own(given["routing"]["servicePort"], 8200, "model-storage"))
        self.assertIn("--port=8200", given["decode"]["containers"][0]["args"])

    def test_what_they_add_makes_a_valid_pod(self):
        patch = values(OTHERS / "production-stack" / "sidecar.yaml")
        llm_d = values(OTHERS / "llm-d" / "values.yaml")
        for containers in patch["spec"]["template"]["spec"]["initContainers"], llm_d["decode"]["initContainers"]:
            spec = {"initContainers": containers, "containers": [{"name": "vllm", "image": "vllm"}]}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any"}, "spec": spec}
            kubernetes_validate.validate(pod, "1.29", strict=True)


if __name__ == "__main__":
    unittest.main()
