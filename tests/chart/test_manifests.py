"""What the chart renders is as committed, valid on every Kubernetes that it is for, and known to the binary."""

import json
import subprocess
import sys
import unittest
from pathlib import Path

import helm_python as helm
import kubernetes_validate
import yaml
from render import CHART, EXAMPLES, GOLDEN, HERE, PAGE, container, golden, manifest, manifests, page, render, values
from sidecar import BINARY

KUBERNETES = ["1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"]
# An example that needs a newer one.
SINCE = {"shared-gpu.yaml": "1.34"}
# Resources of the Prometheus operator, of which Kubernetes has no schema. The golden files show them.
CUSTOM = "monitoring.coreos.com/v1"


def lint(example: Path, kubernetes: str) -> list[str]:
    """What the linter has against an example on a cluster of that version."""
    report = helm.lint(CHART, values(example), strict=True, kube_version=f"v{kubernetes}.0")
    return report["errors"] + [message["error"] for message in report["messages"] if message["severity"] > 1]


def clusters(example: Path) -> list[str]:
    return KUBERNETES[KUBERNETES.index(SINCE.get(example.name, KUBERNETES[0])) :]


class Manifests(unittest.TestCase):
    def test_the_linter_has_nothing_to_say(self):
        for example in EXAMPLES:
            for version in clusters(example):
                with self.subTest(example=example.name, kubernetes=version):
                    self.assertEqual(lint(example, version), [])

    def test_a_cluster_that_is_too_old_for_what_is_asked_is_named(self):
        # The linter goes on where a template fails by itself, and says so on standard error.
        lints = "from test_manifests import *; lint(CHART / 'examples' / 'shared-gpu.yaml', sys.argv[1])"
        for version, is_named in ("1.33", True), ("1.34", False):
            ran = subprocess.run([sys.executable, "-c", lints, version], cwd=HERE, capture_output=True, text=True, check=True)
            wanted = f"sidedraft.gpu.mode shared needs Kubernetes 1.34, and this is v{version}.0"
            self.assertEqual(wanted in ran.stderr, is_named, ran.stderr)

    def test_each_example_renders_as_committed(self):
        for example in EXAMPLES:
            with self.subTest(example=example.name):
                committed = (GOLDEN / example.name.replace(".yaml", ".txt")).read_text()
                self.assertEqual(committed, golden(render(values(example))), "make chart-update, and look at the diff")
        self.assertEqual(sorted(path.stem for path in GOLDEN.iterdir()), [path.stem for path in EXAMPLES])

    def test_the_documentation_shows_the_manifest_that_the_chart_renders(self):
        current = PAGE.read_text()
        self.assertIn("- name: sidedraft", current)
        self.assertEqual(current, page(current), "make chart-update")

    def test_every_kubernetes_takes_every_manifest(self):
        for example in EXAMPLES:
            for each in manifests(render(values(example))):
                if each["apiVersion"] == CUSTOM:
                    continue
                for version in clusters(example):
                    with self.subTest(example=example.name, kind=each["kind"], kubernetes=version):
                        used = kubernetes_validate.validate(each, version, strict=True)
                        self.assertEqual(kubernetes_validate.utils.major_minor(used), version)

    def test_the_validation_notices_a_misspelt_field(self):
        deployment = manifest(values(EXAMPLES[0]), "Deployment")
        deployment["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(deployment, "1.34", strict=True)

    def test_the_examples_together_render_every_template(self):
        rendered = {name for example in EXAMPLES for name in render(values(example))}
        templates = {str(path.relative_to(CHART / "templates")) for path in (CHART / "templates").rglob("*.*")}
        self.assertEqual(rendered, templates - {"_helpers.tpl"})

    def test_the_binary_takes_the_flags_of_every_example(self):
        for example in EXAMPLES:
            with self.subTest(example=example.name):
                self.assertTakes(container(manifest(values(example), "Deployment"), "sidedraft")["args"])

    def test_the_binary_takes_every_flag_that_the_chart_can_set(self):
        schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["sidedraft"]["properties"]
        full = values(CHART / "examples" / "sidecar.yaml")
        for setting in ("drafter", "speculate", "strategy"):
            for choice in filter(None, schema[setting]["enum"]):
                with self.subTest(setting=setting, choice=choice):
                    full["sidedraft"] |= {setting: choice, "draftTokens": 64, "tokenizer": "/t", "logFormat": "text"}
                    full["sidedraft"]["draftModel"] |= {"precision": "f32"}
                    self.assertTakes(container(manifest(full, "Deployment"), "sidedraft")["args"])

    def assertTakes(self, arguments: list[str]):
        """With --help at the end, the command reads all its flags, refuses wrong ones, and does no more."""
        for more, status in ([], 0), (["--no-such-flag"], 2):
            ran = subprocess.run([BINARY, *arguments, *more, "--help"], capture_output=True, text=True)
            self.assertEqual(ran.returncode, status, ran.stderr)

    def test_clients_reach_sidedraft_in_both_modes(self):
        for example in EXAMPLES:
            with self.subTest(example=example.name):
                service = manifest(values(example), "Service")
                deployment = manifest(values(example), "Deployment")
                (port,) = service["spec"]["ports"]
                (listens,) = container(deployment, "sidedraft")["ports"]
                self.assertEqual(port["targetPort"], listens["containerPort"])
                labels = deployment["spec"]["template"]["metadata"]["labels"]
                self.assertLessEqual(service["spec"]["selector"].items(), labels.items())

    def test_a_sidecar_starts_before_vllm_and_ends_after_it(self):
        pod = manifest(values(CHART / "examples" / "sidecar.yaml"), "Deployment")["spec"]["template"]["spec"]
        (first,), (vllm,) = pod["initContainers"], pod["containers"]
        self.assertEqual((first["name"], first["restartPolicy"], vllm["name"]), ("sidedraft", "Always", "vllm"))
        self.assertIn(f"--upstream=http://127.0.0.1:{vllm['ports'][0]['containerPort']}", first["args"])
        pause = int(vllm["lifecycle"]["preStop"]["exec"]["command"][1])
        self.assertGreater(pod["terminationGracePeriodSeconds"], pause)

    def test_sidedraft_and_the_test_pod_can_do_nothing_that_they_need_not(self):
        for example in EXAMPLES:
            rendered = render(values(example))
            pods = [manifest(values(example), "Deployment")["spec"]["template"]["spec"]]
            pods.append(yaml.safe_load(rendered["tests/serves.yaml"])["spec"])
            for pod in pods:
                self.assertIs(pod["automountServiceAccountToken"], False)
                for each in pod.get("initContainers", []) + pod["containers"]:
                    with self.subTest(example=example.name, container=each["name"]):
                        context = each["securityContext"]
                        self.assertIs(context["allowPrivilegeEscalation"], False)
                        self.assertEqual(context["capabilities"], {"drop": ["ALL"]})
                        self.assertEqual(context["seccompProfile"], {"type": "RuntimeDefault"})
                        if each["name"] != "vllm":
                            self.assertIs(context["runAsNonRoot"], True)
                            self.assertGreater(context["runAsUser"], 0)
                            self.assertIs(context["readOnlyRootFilesystem"], True)

    def test_a_gpu_is_nobodys_sidedrafts_or_both_containers(self):
        def resources(example: str) -> tuple[dict, dict, dict]:
            deployment = manifest(values(CHART / "examples" / example), "Deployment")
            both = [container(deployment, name) for name in ("sidedraft", "vllm")]
            self.assertEqual("--draft-device=auto" in both[0]["args"], example != "sidecar.yaml")
            return *(each["resources"] for each in both), deployment["spec"]["template"]["spec"]

        own, vllm, pod = resources("sidecar.yaml")
        self.assertNotIn("nvidia.com/gpu", own["limits"])
        self.assertEqual((vllm, pod.get("resourceClaims")), ({"limits": {"nvidia.com/gpu": "1"}}, None))
        own, vllm, pod = resources("gpu.yaml")
        self.assertEqual(own["limits"], {"memory": "8Gi", "nvidia.com/gpu": "1"})
        self.assertEqual((vllm, pod.get("resourceClaims")), ({"limits": {"nvidia.com/gpu": "1"}}, None))
        own, vllm, pod = resources("shared-gpu.yaml")
        self.assertEqual(vllm, {"claims": [{"name": "gpu"}]})
        self.assertEqual((own["claims"], own["limits"]), ([{"name": "gpu"}], {"memory": "4Gi"}))
        self.assertEqual(pod["resourceClaims"], [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}])

    def test_where_clients_speak_tls_so_do_the_probes_the_monitor_and_the_test_pod(self):
        secured = values(CHART / "examples" / "secured.yaml")
        found = container(manifest(secured, "Deployment"), "sidedraft")
        for kind in "startup", "liveness", "readiness":
            self.assertEqual(found[f"{kind}Probe"]["httpGet"]["scheme"], "HTTPS")
        folders = {mount["mountPath"] for mount in found["volumeMounts"]}
        read = [flag.split("=")[1].rsplit("/", 1)[0] for flag in found["args"] if "=/etc/" in flag]
        self.assertEqual((len(read), set(read) - folders), (5, set()))
        (endpoint,) = manifest(secured, "PodMonitor")["spec"]["podMetricsEndpoints"]
        self.assertEqual((endpoint["scheme"], endpoint["authorization"]["credentials"]["name"]), ("https", "sidedraft-key"))
        pod = yaml.safe_load(render(secured)["tests/serves.yaml"])["spec"]["containers"][0]
        self.assertIn("url=https://demo-sidedraft:8000", pod["args"][0])
        self.assertEqual(pod["env"][0]["valueFrom"]["secretKeyRef"]["name"], "sidedraft-key")

    def test_keys_come_from_secrets_only(self):
        deployment = manifest(values(CHART / "examples" / "production.yaml"), "Deployment")
        for name, variable in ("sidedraft", "SIDEDRAFT_UPSTREAM_API_KEY"), ("vllm", "VLLM_API_KEY"):
            (given,) = [each for each in container(deployment, name)["env"] if each["name"] == variable]
            self.assertEqual(given["valueFrom"]["secretKeyRef"], {"name": "vllm-api-key", "key": "api-key"})
        secured = container(manifest(values(CHART / "examples" / "secured.yaml"), "Deployment"), "sidedraft")
        (given,) = [each for each in secured["env"] if each["name"] == "SIDEDRAFT_API_KEY"]
        self.assertEqual(given["valueFrom"]["secretKeyRef"], {"name": "sidedraft-key", "key": "api-key"})

    def test_every_value_is_documented_and_in_the_schema(self):
        schema = json.loads((CHART / "values.schema.json").read_text())
        documented = yaml.safe_load((CHART / "values.yaml").read_text())

        def compare(part: dict, given: dict, path: str):
            if "$ref" in part:
                part = schema["$defs"][part["$ref"].rsplit("/", 1)[1]]
            if part.get("additionalProperties") is not False or path.endswith(("Probe", "resources")):
                return
            self.assertEqual(set(part["properties"]) - {"global"}, set(given), path)
            for name, inner in part["properties"].items():
                if isinstance(given.get(name), dict):
                    compare(inner, given[name], f"{path}.{name}")

        compare(schema, documented, "")


if __name__ == "__main__":
    unittest.main()
