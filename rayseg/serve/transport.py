"""How ingresses and replicas reach each other: Ray Serve's gRPC, with limits and addresses other than its own.

Ray Serve reads its limits from environment variables, which would have to be set on every node. Instead they are set in each
process that imports this module: a replica does so when its class is unpickled, before it makes its server.
"""

from __future__ import annotations

import ipaddress

import ray.util
from ray.serve._private import replica as serve_replica
from ray.serve._private.request_router import replica_wrapper
from ray.serve.handle import DeploymentHandle

MESSAGE_BYTES = (1 << 31) - 1
"""gRPC's most, in place of 4 MB: a photo or an overlay may be larger. What callers send is limited at the door."""
_EVERYWHERE = "[::]:"

for _module in (serve_replica, replica_wrapper):  # of what a replica takes, and of what it answers
    _module.RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH = MESSAGE_BYTES  # type: ignore[attr-defined]


def routed_here(handle: DeploymentHandle) -> DeploymentHandle:
    """The same replicas for the event loop that runs now: a call takes a quarter less time than through a thread of its own.

    By value, so that images go straight from process to process, and not through the object store first.
    """
    here = DeploymentHandle(handle.deployment_name, handle.app_name)
    here._init(_run_router_in_separate_loop=False)
    return here.options(_by_reference=False)


def keep_internal_servers_on_loopback() -> None:
    """On a cluster that is for this machine alone, Ray Serve's own servers listen on loopback too.

    Call in a replica's constructor: its server for other deployments, which Ray Serve binds to every address, comes after.
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
