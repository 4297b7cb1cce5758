"""The Kubernetes manifests: what their schemas, KubeRay's own rules and the nodes of infra/terraform ask of them."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kustomized import documents, groups, ray_cluster_specs, render
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

CLUSTERS = ("cpu", "gpu", "spot", "jobs")


def test_ray_resources_have_kuberays_schema_and_a_misspelt_field_has_not(
    applied: dict[str, Path], cluster_folder: Path, tools: Path, tmp_path: Path
) -> None:
    misspelt = tmp_path / "misspelt.yaml"
    misspelt.write_text(
        (cluster_folder / "base" / "raycluster.yaml").read_text().replace("upscalingMode", "upscaleMode")
    )
    jobs = [file for file in sorted((cluster_folder / "jobs").glob("*.yaml")) if file.name != "kustomization.yaml"]
    command = [sys.executable, str(tools / "crdcheck.py"), str(tools.parent / "crds")]
    command += map(str, [*applied.values(), *jobs, misspelt])
    checked = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    *faults, summary = checked.stdout.splitlines()
    assert checked.returncode == 1
    assert [fault.split(": ")[0] for fault in faults] == [str(misspelt)], checked.stdout
    assert "upscaleMode" in faults[0] and "1 errors" in summary


@pytest.mark.parametrize("name", CLUSTERS)
def test_images_are_ours_and_have_a_fixed_tag(applied: dict[str, Path], name: str) -> None:
    images = {c["image"] for spec in ray_cluster_specs(applied[name]) for g in groups(spec) for c in _containers(g)}
    assert images <= {"rayseg-cpu:0.1.0", "rayseg-cuda:0.1.0"}
    assert ("rayseg-cuda:0.1.0" in images) == (name != "cpu")


@pytest.mark.parametrize("name", CLUSTERS)
def test_only_gpu_groups_have_the_gpu_image_and_a_gpu(applied: dict[str, Path], name: str) -> None:
    for spec in ray_cluster_specs(applied[name]):
        for group in groups(spec):
            (container,) = _containers(group)
            on_gpus = _selector(group)["rayseg/pool"] == "gpu"
            assert container["image"].startswith("rayseg-cuda") == on_gpus
            assert (container["resources"]["limits"].get("nvidia.com/gpu") == 1) == on_gpus


@pytest.mark.parametrize("name", CLUSTERS)
def test_pods_go_where_terraforms_nodes_are(
    applied: dict[str, Path], name: str, request: pytest.FixtureRequest
) -> None:
    nodes = (request.config.rootpath / "infra" / "terraform" / "nodes.tf").read_text()
    for spec in ray_cluster_specs(applied[name]):
        for group in groups(spec):
            selector = _selector(group)
            tolerated = {t["key"] for t in group["template"]["spec"].get("tolerations", [])}
            expected = {"system": set(), "cpu": {"rayseg/pool"}, "gpu": {"nvidia.com/gpu"}}[selector["rayseg/pool"]]
            assert tolerated == expected | ({"rayseg/capacity"} if selector.get("rayseg/capacity") == "spot" else set())
            assert all(f'"{key}"' in nodes for key in tolerated | set(selector))


@pytest.mark.parametrize("name", CLUSTERS)
def test_pods_are_confined(applied: dict[str, Path], name: str) -> None:
    for spec in ray_cluster_specs(applied[name]):
        for group in groups(spec):
            (container,) = _containers(group)
            context = container["securityContext"]
            assert context["runAsNonRoot"] and not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
        for group in spec["workerGroupSpecs"]:
            assert group["template"]["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", CLUSTERS)
def test_kuberays_rules_that_its_schema_does_not_hold(applied: dict[str, Path], name: str) -> None:
    """From KubeRay 1.7's validation: what it would refuse only once applied."""
    for spec in ray_cluster_specs(applied[name]):
        assert spec["authOptions"] == {"mode": "token", "secretName": "rayseg-secrets"}
        assert tuple(map(int, spec["rayVersion"].split("."))) >= (2, 52, 0), "token mode needs it"
        assert spec["enableInTreeAutoscaling"] and spec["autoscalerOptions"]["version"] == "v2"
        names = [group["groupName"] for group in spec["workerGroupSpecs"]]
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", group) for group in names)
        for group in groups(spec):
            assert group["template"]["spec"].get("restartPolicy", "Never") == "Never"
            assert all(isinstance(value, str) for value in group["rayStartParams"].values())
            assert not {"redis-password", "redis-username", "labels"} & set(group["rayStartParams"])
            assert not (group.get("resources") and {"num-cpus", "num-gpus", "resources"} & set(group["rayStartParams"]))
            environment = {one["name"] for one in _containers(group)[0].get("env", [])}
            assert not {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "RAY_enable_autoscaler_v2"} & environment
        for group in spec["workerGroupSpecs"]:
            assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_rays_autoscaler_knows_what_each_group_brings(applied: dict[str, Path]) -> None:
    (cluster,) = documents(applied["spot"], "RayCluster")
    kinds = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    brought = {name: {k: v for k, v in kind["resources"].items() if k != "memory"} for name, kind in kinds.items()}
    assert brought == {
        "headgroup": {"CPU": 0},
        "cpu": {"CPU": 7, "decode": 7},
        "cpu-spot": {"CPU": 7, "decode": 7},
        "gpu": {"CPU": 1, "GPU": 1},
        "gpu-spot": {"CPU": 1, "GPU": 1},
    }
    assert kinds["gpu-spot"]["max_workers"] == 16 and kinds["gpu-spot"]["min_workers"] == 0


def test_spot_groups_come_before_those_on_demand(applied: dict[str, Path]) -> None:
    (spec,) = ray_cluster_specs(applied["spot"])
    priorities = {group["groupName"]: group.get("priority", 0) for group in spec["workerGroupSpecs"]}
    assert priorities["gpu-spot"] > priorities["gpu"] and priorities["cpu-spot"] > priorities["cpu"]


def test_standing_clusters_cost_no_workers_while_idle(applied: dict[str, Path]) -> None:
    for name in ("cpu", "gpu", "spot"):
        (spec,) = ray_cluster_specs(applied[name])
        assert all(group["minReplicas"] == group["replicas"] == 0 for group in spec["workerGroupSpecs"])
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


@pytest.mark.parametrize("name", ("cpu", "gpu", "spot"))
def test_everything_named_is_there(applied: dict[str, Path], name: str) -> None:
    there = {(d["kind"], d["metadata"]["name"]): d for d in documents(applied[name])}
    text = applied[name].read_text()
    for account in set(re.findall(r"serviceAccountName: (\S+)", text)):
        assert ("ServiceAccount", account) in there
    (spec,) = ray_cluster_specs(applied[name])
    for group in groups(spec):
        for source in _containers(group)[0]["envFrom"]:
            assert ("ConfigMap", source["configMapRef"]["name"]) in there
    assert base64.b64decode(there["Secret", "rayseg-secrets"]["data"]["auth_token"]) == b"a-token"
    labels = [group["template"]["metadata"]["labels"] for group in groups(spec)]
    (budget,) = [d for (kind, n), d in there.items() if kind == "PodDisruptionBudget" and n == "batch-head"]
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels[0].items()
    assert all(d["metadata"].get("namespace", "rayseg") == "rayseg" for d in there.values())


def test_without_secrets_nothing_is_applied(cluster_folder: Path, applied: dict[str, Path], tmp_path: Path) -> None:
    bare = applied["cpu"].parent / "cluster"
    secrets = bare / "base" / "secrets.env"
    secrets.rename(tmp_path / "secrets.env")
    try:
        with pytest.raises(subprocess.CalledProcessError) as refused:
            render(bare / "overlays" / "cpu")
        assert "secrets.env" in refused.value.stderr
    finally:
        (tmp_path / "secrets.env").rename(secrets)
    example = (cluster_folder / "base" / "secrets.env.example").read_text()
    assert [line for line in example.splitlines() if not line.startswith("#")] == ["auth_token=", "redis_password="]


def test_a_site_sets_its_images_and_buckets(applied: dict[str, Path]) -> None:
    """As the output `kustomization` of infra/terraform does."""
    site = applied["cpu"].parent / "cluster" / "overlays" / "site"
    site.mkdir(exist_ok=True)
    account = "123456789012.dkr.ecr.us-east-1.amazonaws.com/rayseg"
    images = [{"name": n, "newName": f"{account}/{n}", "newTag": "1.2.3"} for n in ("rayseg-cpu", "rayseg-cuda")]
    settings = {
        "name": "rayseg-settings",
        "namespace": "rayseg",
        "behavior": "merge",
        "literals": ["IMAGES_URI=s3://a"],
    }
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["../spot"],
        "images": images,
        "configMapGenerator": [settings],
        "generatorOptions": {"disableNameSuffixHash": True},
    }
    (site / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    made = site / "made.yaml"
    made.write_text(render(site))
    (spec,) = ray_cluster_specs(made)
    assert {c["image"] for g in groups(spec) for c in _containers(g)} == {
        f"{account}/{i['name']}:1.2.3" for i in images
    }
    (found,) = [d["data"] for d in documents(made, "ConfigMap") if d["metadata"]["name"] == "rayseg-settings"]
    assert found["IMAGES_URI"] == "s3://a" and found["GPUS_PER_WORKER"] == "1" and found["LABELS_URI"]


def _containers(group: dict) -> list[dict]:
    return group["template"]["spec"]["containers"]


def _selector(group: dict) -> dict[str, str]:
    return group["template"]["spec"]["nodeSelector"]
