"""The metrics that the code registers, read from its source.

A running sidecar shows a family with labels only once something was counted in it, so its page alone cannot tell all
names. test_metrics.py holds what is read here against such a page.
"""

import re
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"
# A name, a text and, for families with labels, the labels or the name of a list of them.
CALL = re.compile(r'"((?:sidedraft_|vllm:)\w+)",\s*"[^"]*",?\s*\)?,?\s*(&\[[^\]]*\]|&\w+)?')
# Figures of the draft model, whose names have their prefix from the loop that registers them.
FIGURE = re.compile(r'Kind::(?:Counter|Gauge),\s*"(\w+)"')
PREFIX = "sidedraft_draft_model_"
# Figures that are registered where they are read.
OWN_FIGURE = re.compile(r'\.figure\(\s*Kind::\w+,\s*"(sidedraft_\w+)"')
HISTOGRAM = "_seconds"


@dataclass(frozen=True)
class Metric:
    labels: frozenset[str]
    histogram: bool
    # Whether the page shows it before anything was counted.
    at_once: bool


def registered() -> dict[str, Metric]:
    found = {}
    for path in sorted((SOURCE / "telemetry").glob("*.rs")):
        code = path.read_text().split("#[cfg(test)]")[0]
        for name, listed in CALL.findall(code):
            labels = labels_of(listed, code)
            found[name] = Metric(labels, name.endswith(HISTOGRAM), not labels)
    drafters = (SOURCE / "setup" / "drafters.rs").read_text()
    assert f'"{PREFIX}{{name}}"' in drafters, f"{PREFIX} is no longer how figures of the draft model begin"
    for name in FIGURE.findall(drafters):
        found[PREFIX + name] = Metric(frozenset(), False, False)
    for name in OWN_FIGURE.findall((SOURCE / "api" / "sidecar.rs").read_text()):
        found[name] = Metric(frozenset(), False, True)
    return found


def labels_of(listed: str, code: str) -> frozenset[str]:
    if listed and not listed.startswith("&["):
        (listed,) = re.findall(rf"let {listed[1:]} = (\[[^\]]*\])", code)
    return frozenset(re.findall(r'"(\w+)"', listed))
