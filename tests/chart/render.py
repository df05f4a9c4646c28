"""Renders the chart's examples, and writes what is committed of that."""

import re
from pathlib import Path

import helm_python as helm
import yaml

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
CHART = REPOSITORY / "charts" / "sidedraft"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
GOLDEN = HERE / "golden"
PAGE = REPOSITORY / "docs" / "kubernetes.md"
# Of what does the page show the manifest.
SHOWN = CHART / "examples" / "sidecar.yaml"
BLOCK = re.compile(r"(<!-- rendered: begin -->\n).*?(<!-- rendered: end -->)", re.DOTALL)


def values(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def render(given: dict) -> dict[str, str]:
    """Each template's output by its name, as `helm install demo --namespace inference` would send it.

    Raises helm's errors: what they say is what a person sees who gives wrong values.
    """
    with helm.Chart.load(CHART) as chart:
        rendered = chart.render(given, name="demo", namespace="inference")
    named = {name.split("/templates/")[1]: text.strip() + "\n" for name, text in rendered.items()}
    return {name: text for name, text in sorted(named.items()) if text.strip()}


def manifests(rendered: dict[str, str]) -> list[dict]:
    return [yaml.safe_load(text) for name, text in rendered.items() if name.endswith(".yaml")]


def manifest(given: dict, kind: str) -> dict:
    """The one manifest of a kind; the test's pod is not asked for by it."""
    (found,) = [each for each in manifests(render(given)) if each["kind"] == kind]
    return found


def container(deployment: dict, name: str) -> dict:
    pod = deployment["spec"]["template"]["spec"]
    (found,) = [each for each in pod.get("initContainers", []) + pod["containers"] if each["name"] == name]
    return found


def golden(rendered: dict[str, str]) -> str:
    """All of it as one text. The dashboard is left out, since its source is committed."""
    shown = {name: text for name, text in rendered.items() if name != "dashboard.yaml"}
    return "\n".join(f"# {name}\n{text}" for name, text in shown.items())


def page(current: str) -> str:
    """docs/kubernetes.md with its manifest as the chart renders it."""
    rendered = render(values(SHOWN))
    text = "---\n".join(rendered[name] for name in ("deployment.yaml", "service.yaml", "serviceaccount.yaml"))
    # Labels that each manifest has would bury what is to be seen.
    text = re.sub(r"^ *(helm\.sh/chart|app\.kubernetes\.io/(version|managed-by)): .*\n", "", text, flags=re.MULTILINE)
    return BLOCK.sub(lambda found: f"{found[1]}```yaml\n{text}```\n{found[2]}", current)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for example in EXAMPLES:
        (GOLDEN / example.name.replace(".yaml", ".txt")).write_text(golden(render(values(example))))
    PAGE.write_text(page(PAGE.read_text()))
