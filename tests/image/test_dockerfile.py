"""What is true of docker/ without an engine, and that the checks notice where it is not."""

import json
import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

from stages import COMPOSE, DOCKERFILE, stages

BINARY = os.environ["SIDEDRAFT_BINARY"]
TOOLS = Path(os.environ["IMAGE_TOOLS"])
# An exact release: a tag with a full version, or a digest.
PINNED = re.compile(r":[\w.-]*\d+\.\d+[\w.-]*$|@sha256:[0-9a-f]{64}$")
RUNTIMES = ("cpu", "cuda")


def unpinned(dockerfile: str) -> list[str]:
    return [stage.base for stage in stages(dockerfile).values() if not PINNED.search(stage.base)]


def hadolint(dockerfile: str) -> str:
    """What hadolint says, at any level."""
    ran = subprocess.run([TOOLS / "hadolint", "-"], input=dockerfile, capture_output=True, text=True)
    said = (ran.stdout + ran.stderr).strip()
    return said or ("" if ran.returncode == 0 else f"hadolint ended with {ran.returncode}")


def compose_faults(compose: str) -> str:
    """What the compose specification's own schema has against a file."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(compose)
        file.flush()
        command = [TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", file.name]
        ran = subprocess.run(command, capture_output=True, text=True)
    return "" if ran.returncode == 0 else ran.stdout + ran.stderr


class Dockerfile(unittest.TestCase):
    def setUp(self):
        self.text = DOCKERFILE.read_text()
        self.stages = stages(self.text)

    def test_every_base_is_pinned(self):
        self.assertEqual(unpinned(self.text), [])

    def test_a_base_that_is_not_pinned_is_noticed(self):
        base = self.stages["cpu"].base
        for loose in "debian:latest", "debian", "debian:12", "debian:bookworm-slim":
            self.assertEqual(unpinned(self.text.replace(f"FROM {base} ", f"FROM {loose} ")), [loose])

    def test_hadolint_has_nothing_to_say(self):
        self.assertEqual(hadolint(self.text), "")
        self.assertIn("DL3002", hadolint(self.text + "USER root\n"))
        self.assertIn("DL3006", hadolint(self.text.replace(self.stages["cpu"].base, "debian")))

    def test_neither_variant_runs_as_root(self):
        for name in RUNTIMES:
            self.assertEqual(self.stages[name].one("USER"), "65532:65532")

    def test_both_variants_are_the_same_but_for_their_base(self):
        cpu, cuda = (self.stages[name] for name in RUNTIMES)
        self.assertEqual(cpu.steps, cuda.steps)

    def test_labels_bear_the_version_of_the_crate(self):
        cargo = (DOCKERFILE.parents[1] / "Cargo.toml").read_text()
        version = re.search(r'^version = "(.*)"$', cargo, re.MULTILINE)[1]
        for name in RUNTIMES:
            self.assertIn(f'org.opencontainers.image.version="{version}"', self.stages[name].one("LABEL"))

    def test_what_it_sets_is_what_the_binary_reads(self):
        told = subprocess.run([BINARY, "serve", "--help"], capture_output=True, text=True, check=True).stdout
        known = set(re.findall(r"\[env: (\w+)=", told))
        for text in self.text, COMPOSE.read_text():
            used = set(re.findall(r"\bSIDEDRAFT_\w+", text))
            self.assertTrue(used)
            self.assertLessEqual(used, known)

    def test_the_health_check_passes_while_the_binary_runs_and_fails_when_it_does_not(self):
        port = self.stages["cpu"].one("EXPOSE")
        serve = [BINARY, "serve", "--listen=127.0.0.1:0", "--upstream=http://127.0.0.1:9"]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            listens = json.loads(process.stdout.readline())["listening"].rsplit(":", 1)[1]
            check = [word.replace(f"/{port}", f"/{listens}") for word in self.stages["cpu"].health]
            self.assertNotEqual(check, self.stages["cpu"].health)
            there = subprocess.run(check, timeout=10).returncode
            process.kill()
        gone = subprocess.run(check, timeout=10, stderr=subprocess.DEVNULL).returncode
        self.assertEqual((there, gone != 0), (0, True))


class Compose(unittest.TestCase):
    def setUp(self):
        self.text = COMPOSE.read_text()

    def test_the_specifications_schema_takes_it(self):
        self.assertEqual(compose_faults(self.text), "")

    def test_a_misspelt_name_or_a_value_of_another_kind_is_noticed(self):
        for right, wrong in ("read_only: true", "readonly: true"), ("cap_drop: [ALL]", "cap_drop: ALL"):
            self.assertIn(right, self.text)
            self.assertIn(wrong.split(":")[0], compose_faults(self.text.replace(right, wrong)))

    def test_its_images_are_pinned(self):
        images = re.findall(r"^\s+image: (\S+)", self.text, re.MULTILINE)
        self.assertEqual([each for each in images if not PINNED.search(each)], [])

    def test_it_uses_the_port_that_the_image_listens_on(self):
        port = stages(DOCKERFILE.read_text())["cpu"].one("EXPOSE")
        self.assertIn(f'"127.0.0.1:{port}:{port}"', self.text)


if __name__ == "__main__":
    unittest.main()
