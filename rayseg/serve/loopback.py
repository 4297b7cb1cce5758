"""On a cluster that is for this machine alone, Ray Serve's own servers listen on loopback too."""

from __future__ import annotations

import ipaddress

import ray.util
from ray.serve._private import replica as serve_replica

_EVERYWHERE = "[::]:"


def keep_internal_servers_on_loopback() -> None:
    """Call in a replica's constructor: its server for other deployments, which Ray Serve binds to every address, comes after.

    On a cluster of several machines nothing is changed, as they must reach each other.
    """
    if not ipaddress.ip_address(ray.util.get_node_ip_address()).is_loopback:
        return
    bind = serve_replica.add_port_to_grpc_server  # pyright: ignore[reportPrivateImportUsage]
    if getattr(bind, "loopback", False):
        return

    def bind_loopback(server: object, address: str) -> int:
        return bind(server, address.replace(_EVERYWHERE, "127.0.0.1:"))

    bind_loopback.loopback = True  # type: ignore[attr-defined]
    serve_replica.add_port_to_grpc_server = bind_loopback  # pyright: ignore[reportPrivateImportUsage]
