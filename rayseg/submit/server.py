"""What is at an address: the cluster's versions and nodes, looked at before anything is sent there."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import metadata

from rayseg.errors import JobError, UsageError
from rayseg.submit.client import Client, Unanswered

# psutil comes with ray, and client has imported that
import psutil  # isort: skip
import ray  # isort: skip
from packaging.specifiers import SpecifierSet  # isort: skip

PROBE_S = 15.0
_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


@dataclass(frozen=True, slots=True)
class Node:
    """A node that is alive: `resources` by Ray's names, memory in bytes."""

    id: str
    ip: str
    resources: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Server:
    """A cluster that answers, and takes our token."""

    client: Client
    ray_version: str
    python_version: str | None
    session: str
    nodes: tuple[Node, ...]

    @property
    def url(self) -> str:
        return self.client.url

    def is_here(self) -> bool:
        """Whether all of the cluster runs on this machine, so that every node sees this machine's files."""
        addresses = {address.address for found in psutil.net_if_addrs().values() for address in found}
        return bool(self.nodes) and all(node.ip in addresses for node in self.nodes) and _runs_here(self.session)

    def resources(self) -> dict[str, float]:
        """What all nodes have together."""
        return total(node.resources for node in self.nodes)


def total(resources: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The sum by name."""
    found: dict[str, float] = {}
    for one in resources:
        for name, amount in one.items():
            found[name] = found.get(name, 0.0) + amount
    return found


def reach(address: str | None, of_spec: str | None = None) -> Server:
    """The cluster at `address`, else that of the spec, else of the environment.

    Raises `UsageError` where there is no address, `JobError` where nothing answers or it refuses the token.
    """
    client = Client(_url(address, of_spec))
    version = client.get("/api/version", answer_s=PROBE_S)
    if not isinstance(version, dict) or "ray_version" not in version:
        raise JobError(f"{client.url}: expected a Ray dashboard, found a server that has no /api/version")
    known = (client.get("/api/v0/cluster_metadata", answer_s=PROBE_S) or {}).get("data") or {}
    return Server(
        client, version["ray_version"], known.get("pythonVersion"), version.get("session_name", ""), _nodes(client)
    )


def check_versions(server: Server, *, shipped: bool) -> None:
    """Raise `JobError` where the cluster's Ray is another, or its Python cannot run the package that would be sent."""
    if _minor(server.ray_version) != _minor(ray.__version__):
        raise JobError(
            f"{server.url}: the cluster runs Ray {server.ray_version}, this rayseg {ray.__version__}. Use an image with "
            f"Ray {ray.__version__} there (cluster/Dockerfile), or an environment with Ray {server.ray_version} here"
        )
    wanted = metadata("rayseg")["Requires-Python"]
    if shipped and server.python_version and not SpecifierSet(wanted).contains(server.python_version):
        raise JobError(
            f"{server.url}: the cluster runs Python {server.python_version}, rayseg needs Python {wanted} "
            f"(here it is {platform.python_version()}). Use an image with such a Python there (cluster/Dockerfile)"
        )


def _url(address: str | None, of_spec: str | None) -> str:
    named = [("--address", address), ("address", of_spec)] + [(name, os.environ.get(name)) for name in _VARIABLES]
    name, found = next(((name, value) for name, value in named if value), ("", None))
    if not found or found in ("local", "auto"):
        found_text = f", found {found!r} in {name}" if found else ""
        raise UsageError(
            "address: expected that of a cluster's dashboard, as --address http://HEAD:8265 or "
            f"RAY_API_SERVER_ADDRESS{found_text}"
        )
    scheme = found.partition("://")[0].lower() if "://" in found else ""
    if scheme == "ray":
        raise UsageError(
            f"{name}: {found} is an address for Ray Client; jobs are submitted to the dashboard: http://HEAD:8265"
        )
    if scheme not in ("", "http", "https"):
        raise UsageError(f"{name}: {found}: expected http:// or https://, found {scheme}://")
    return (found if scheme else f"http://{found}").rstrip("/")


def _nodes(client: Client) -> tuple[Node, ...]:
    answer = client.get(
        "/api/v0/nodes?detail=1&limit=10000&filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"
    )
    rows = (((answer or {}).get("data") or {}).get("result") or {}).get("result") or []
    return tuple(Node(row["node_id"], row["node_ip"], row.get("resources_total") or {}) for row in rows)


def _runs_here(session: str) -> bool:
    """Whether a process of this machine belongs to the session: a tunnel's end is here, its cluster is not."""
    if not session:
        return False
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or ()
        if any(session in word for word in words) and any("raylet" in word or "gcs_server" in word for word in words):
            return True
    return False


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


__all__ = ["Node", "Server", "Unanswered", "check_versions", "reach", "total"]
