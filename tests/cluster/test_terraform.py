"""What infra/terraform and cluster/ must agree in. Terraform itself checks the module, in .ci/cluster."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from kustomized import documents


@pytest.fixture
def module(request: pytest.FixtureRequest) -> str:
    folder = request.config.rootpath / "infra" / "terraform"
    return "\n".join(file.read_text() for file in sorted(folder.glob("*.tf")))


def test_roles_are_for_the_service_accounts_of_the_manifests(module: str, applied: dict[str, Path]) -> None:
    accounts = {d["metadata"]["name"] for d in documents(applied["cpu"], "ServiceAccount")}
    assert set(re.findall(r'namespace = local\.namespace, account = "([a-z-]+)"', module)) == accounts
    assert 'namespace = "rayseg"' in module


def test_namespaces_that_may_come_in_are_those_of_the_charts(module: str, applied: dict[str, Path]) -> None:
    charts = set(re.findall(r'^\s+namespace\s+= "([a-z-]+)"', module, re.M))
    for policy in documents(applied["cpu"], "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            for source in rule["from"]:
                name = source.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
                assert name is None or name in charts


def test_settings_that_terraform_fills_in_are_there(module: str, applied: dict[str, Path]) -> None:
    buckets = re.search(r"buckets = toset\(\[(.+)\]\)", module)
    assert buckets
    (settings,) = [d for d in documents(applied["cpu"], "ConfigMap") if d["metadata"]["name"] == "rayseg-settings"]
    uris = {name for name in settings["data"] if name.endswith("_URI")}
    assert {f"{name.upper()}_URI" for name in re.findall(r'"(\w+)"', buckets[1])} == uris


def test_charts_and_images_have_versions(module: str, cluster_folder: Path) -> None:
    charts = re.findall(r'chart\s+= "(\S+)"\n\s+version\s+= "(\d+\.\d+\.\d+)"', module)
    assert {name for name, _ in charts} == {
        "kuberay-operator",
        "cluster-autoscaler",
        "nvidia-device-plugin",
        "kube-prometheus-stack",
    }
    repositories = re.search(r"images = toset\(\[(.+)\]\)", module)
    assert repositories
    named = set(re.findall(r"image: (rayseg-\w+)", "".join(f.read_text() for f in cluster_folder.rglob("*.yaml"))))
    assert set(re.findall(r'"([\w-]+)"', repositories[1])) == named
