"""The dashboard and the alerts ask for metrics that the binary exports, by labels that they have."""

import json
import re
import unittest

import promql_parser
import yaml
from registered import SOURCE, registered
from render import CHART, manifests, render, values
from sidecar import get, healthy_upstream, sidecar

OURS = re.compile(r"\b(?:sidedraft_|vllm:)\w+")
SELECTED = re.compile(r"((?:sidedraft_|vllm:)\w+)\{([^}]*)\}")
BY = re.compile(r"\b(?:by|ignoring|on|without|group_left)\s*\(([^)]*)\)")
LEGEND = re.compile(r"\{\{\s*(\w+)\s*\}\}")
# Labels that Prometheus adds to each sample, that of a histogram's buckets, and that by which the sidecar's samples
# stand apart from those of a vLLM that speculates by itself.
ADDED = {"pod", "namespace", "le", "engine"}
SERIES = ("_bucket", "_sum", "_count")


def family(name: str, known: dict | None = None) -> str:
    """The metric that a series belongs to."""
    known = registered() if known is None else known
    for suffix in SERIES:
        if name.endswith(suffix) and name.removesuffix(suffix) in known:
            return name.removesuffix(suffix)
    return name


def unknown(text: str, known: dict) -> set[str]:
    """Series that a text asks for, and that belong to none of the known metrics."""
    return {name for name in OURS.findall(text) if family(name, known) not in known}


def renamed(metric: str) -> dict:
    """What the code would register, had somebody renamed a metric there and nowhere else."""
    return {f"{name}_anew" if name == metric else name: of for name, of in registered().items()}


def parsed(expression: str) -> promql_parser.Expr:
    """An expression as Prometheus reads it, with Grafana's variables filled in. Raises ValueError if it cannot."""
    return promql_parser.parse(expression.replace("$__rate_interval", "5m").replace("$pod", ".*"))


def targets(panels: list[dict]) -> list[tuple[str, str, str]]:
    return [(panel["title"], each["expr"], each["legendFormat"]) for panel in panels for each in panel["targets"]]


class Dashboard(unittest.TestCase):
    def setUp(self):
        self.text = (CHART / "dashboards" / "sidedraft.json").read_text()
        self.dashboard = json.loads(self.text)

    def test_every_metric_is_one_that_the_code_registers(self):
        self.assertGreater(len(set(OURS.findall(self.text))), 20)
        self.assertEqual(unknown(self.text, registered()), set())

    def test_a_metric_that_is_renamed_in_the_code_alone_is_noticed(self):
        for metric in sorted({family(name) for name in OURS.findall(self.text)}):
            with self.subTest(metric=metric):
                missing = unknown(self.text, renamed(metric))
                self.assertEqual({family(name) for name in missing}, {metric})

    def test_histograms_are_asked_for_by_their_series_and_others_by_their_name(self):
        for name in set(OURS.findall(self.text)):
            self.assertEqual(registered()[family(name)].histogram, name != family(name), name)

    def test_every_label_is_one_that_the_metric_has(self):
        for title, expression, legend in targets(self.dashboard["panels"]):
            with self.subTest(panel=title, expression=expression):
                metrics = [family(name) for name in OURS.findall(expression)]
                shared = set.intersection(*(set(registered()[name].labels) for name in metrics)) | ADDED
                anyone = set.union(*(set(registered()[name].labels) for name in metrics)) | ADDED
                for name, selectors in SELECTED.findall(expression):
                    used = set(re.findall(r"(\w+)\s*[=!]", selectors))
                    self.assertLessEqual(used, registered()[family(name)].labels | ADDED)
                grouped = {label.strip() for listed in BY.findall(expression) for label in listed.split(",")}
                self.assertLessEqual(grouped, anyone)
                self.assertLessEqual(set(LEGEND.findall(legend)), grouped & shared)

    def test_prometheus_can_read_every_expression(self):
        for title, expression, _ in targets(self.dashboard["panels"]):
            with self.subTest(panel=title):
                parsed(expression)
        with self.assertRaises(ValueError):
            parsed("sum by (pod (sidedraft_paused)")

    def test_every_panel_says_what_it_shows_where_no_other_covers_it(self):
        boxes = []
        for panel in self.dashboard["panels"]:
            self.assertTrue(panel["title"] and panel["targets"])
            at = panel["gridPos"]
            boxes.append({(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])})
            self.assertLessEqual(at["x"] + at["w"], 24)
        self.assertEqual(len(set.union(*boxes)), sum(map(len, boxes)))

    def test_the_config_map_holds_the_file(self):
        rendered = manifests(render(values(CHART / "examples" / "production.yaml")))
        (found,) = [each for each in rendered if each["kind"] == "ConfigMap"]
        self.assertEqual(json.loads(found["data"]["sidedraft.json"]), self.dashboard)
        self.assertEqual(found["metadata"]["labels"]["grafana_dashboard"], "1")


class Page(unittest.TestCase):
    """The sidecar's own page asks for metrics by name, too."""

    def test_every_metric_is_one_that_the_code_registers(self):
        text = (SOURCE / "api" / "page" / "figures.js").read_text()
        self.assertGreater(len(set(OURS.findall(text))), 15)
        self.assertEqual(unknown(text, registered()), set())
        self.assertIn("sidedraft_steps_total", unknown(text, renamed("sidedraft_steps_total")))


class Alerts(unittest.TestCase):
    def test_a_metric_that_is_renamed_in_the_code_alone_is_noticed(self):
        text = (CHART / "alerts" / "sidedraft.yaml").read_text()
        self.assertEqual(unknown(text, registered()), set())
        self.assertEqual(unknown(text, renamed("sidedraft_paused")), {"sidedraft_paused"})

    def test_every_metric_and_label_is_one_that_the_code_registers(self):
        (group,) = yaml.safe_load((CHART / "alerts" / "sidedraft.yaml").read_text())["groups"]
        for rule in group["rules"]:
            with self.subTest(alert=rule["alert"]):
                parsed(rule["expr"])
                names = OURS.findall(rule["expr"])
                self.assertTrue(names)
                for name in names:
                    self.assertIn(name, registered())
                    labels = registered()[name].labels | ADDED
                    for selected, selectors in SELECTED.findall(rule["expr"]):
                        self.assertLessEqual(set(re.findall(r"(\w+)\s*=", selectors)), registered()[selected].labels)
                    grouped = {label.strip() for listed in BY.findall(rule["expr"]) for label in listed.split(",")}
                    self.assertLessEqual(grouped, labels)
                    for text in rule["annotations"].values():
                        self.assertLessEqual(set(re.findall(r"\$labels\.(\w+)", text)), grouped)

    def test_the_rule_holds_the_file(self):
        rendered = manifests(render(values(CHART / "examples" / "production.yaml")))
        (found,) = [each for each in rendered if each["kind"] == "PrometheusRule"]
        self.assertEqual(found["spec"], yaml.safe_load((CHART / "alerts" / "sidedraft.yaml").read_text()))


class Registered(unittest.TestCase):
    """What is read from the source is what a running sidecar shows."""

    def test_a_page_shows_no_other_metric_and_each_that_needs_no_label(self):
        with healthy_upstream() as upstream, sidecar(upstream) as url:
            self.assertEqual(get(url + "/v1/completions", b'{"prompt": [1]}')[0], 404)
            _, page = get(url + "/metrics")
        shown = {name: kind for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", page, re.MULTILINE)}
        self.assertIn("sidedraft_requests_total", shown)
        self.assertLessEqual(set(shown), set(registered()))
        self.assertEqual({name for name, metric in registered().items() if metric.at_once} - set(shown), set())
        for name, kind in shown.items():
            self.assertEqual(registered()[name].histogram, kind == "histogram", name)
        for name, labels in re.findall(r"^([\w:]+)\{([^}]*)\}", page, re.MULTILINE):
            found = set(re.findall(r'(\w+)="', labels))
            self.assertEqual(found - {"le"}, set(registered()[family(name)].labels), name)


if __name__ == "__main__":
    unittest.main()
