"""The Grafana dashboard asks for metrics that there are, in PromQL that parses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from kustomized import documents

from rayseg.serve.metrics import Metrics


@pytest.fixture
def dashboard(cluster_folder: Path) -> dict[str, Any]:
    return json.loads((cluster_folder / "base" / "dashboard.json").read_text())


def test_rayseg_exposes_what_is_asked_of_it(dashboard: dict[str, Any]) -> None:
    metrics = Metrics()
    families = [family for family in metrics.registry.collect() if family.name.startswith("rayseg_")]
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    exposed = {family.name: {family.name + end for end in suffixes[family.type]} for family in families}
    asked = {name for query in _queries(dashboard) for name in re.findall(r"\brayseg_\w+", query)}
    assert len(asked) > 10 and asked <= set().union(*exposed.values())


def test_ray_exposes_what_is_asked_of_it(dashboard: dict[str, Any]) -> None:
    """Ray's own dashboards name its metrics."""
    panels = Path(ray.__file__).parent / "dashboard" / "modules" / "metrics" / "dashboards"
    known = {name for file in panels.glob("*_panels.py") for name in re.findall(r"\bray_\w+", file.read_text())}
    asked = {name for query in _queries(dashboard) for name in re.findall(r"\bray_(?!io_)\w+", query)}
    assert asked and asked <= known


def test_prometheus_parses_the_queries(dashboard: dict[str, Any], tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool: PromQL is not parsed")
    assert _promtool(tmp_path, list(_queries(dashboard))) == 0
    assert _promtool(tmp_path, ["sum by (status (rayseg_requests_total)"]) != 0


def test_panels_do_not_lie_on_each_other(dashboard: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_grafana_finds_it(applied: dict[str, Path], dashboard: dict[str, Any]) -> None:
    (found,) = [d for d in documents(applied["cpu"], "ConfigMap") if d["metadata"]["name"] == "rayseg-dashboard"]
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(found["data"]["rayseg.json"]) == dashboard


def _queries(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]


def _promtool(folder: Path, queries: list[str]) -> int:
    texts = [query.replace("$__rate_interval", "5m").replace("$cluster", ".*") for query in queries]
    rules = [{"record": f"query{number}", "expr": text} for number, text in enumerate(texts)]
    file = folder / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    command = ["promtool", "check", "rules", str(file)]
    return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode
