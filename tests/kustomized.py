"""Reading the manifests of cluster/ as kubectl would send them."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml


def render(folder: Path) -> str:
    """The resources of a kustomization, as YAML."""
    command = ["kubectl", "kustomize", str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def documents(file: Path, *kinds: str) -> Iterator[dict[str, Any]]:
    """The resources in `file`, of these kinds if any are named."""
    for document in _parsed(file.read_text()):
        if not kinds or document["kind"] in kinds:
            yield document


def ray_cluster_specs(file: Path) -> Iterator[dict[str, Any]]:
    """The specs of the Ray clusters that `file` makes, alone or for a service."""
    for document in documents(file, "RayCluster", "RayService"):
        yield document["spec"].get("rayClusterConfig", document["spec"])


def groups(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The head's group and the workers', each with a pod template."""
    yield spec["headGroupSpec"]
    yield from spec["workerGroupSpecs"]


@functools.cache
def _parsed(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document]
