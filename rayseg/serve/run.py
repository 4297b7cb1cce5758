"""`rayseg serve`: start the replicas, answer HTTP in this process, drain and end on Ctrl-C or SIGTERM.

The web application runs here rather than behind Ray Serve's proxies: a request makes one hop less, and what a caller sends is
read no faster than it is wanted. The replicas are Ray Serve's, wherever the cluster has room for them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from ray import serve
from ray.serve.exceptions import RayServeException

from rayseg import cluster
from rayseg.errors import JobError, ModelError, UsageError
from rayseg.serve import application, metrics
from rayseg.serve.auth import check_host_setting, load_tokens
from rayseg.serve.claims import claim
from rayseg.serve.connections import connections
from rayseg.serve.ingress import build_app
from rayseg.serve.prefixes import Prefixes
from rayseg.serve.spec import ServeSpec

Say = Callable[[str], None]


def run(spec: ServeSpec, say: Say) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises `UsageError`, `ModelError` or `StorageError` for what cannot be served,
    `JobError` where there is no cluster or a model's replicas do not start."""
    spec = _absolute(spec)
    tokens = load_tokens(spec.tokens_file)
    check_host_setting(spec.host, tokens)
    Prefixes(spec.read_prefixes, spec.write_prefixes)
    facts = [application.facts_of(name, uri) for name, uri in spec.named_models.items()]
    with _listening(spec) as listener, _cluster(spec) as own, _replicas(spec, facts, say, alone=own) as handles:
        metrics.log_to_stderr()
        door = build_app(application.service_of(spec, facts, handles), tokens)
        say(f"serving {', '.join(handles.models)} at {_address(spec)} (documentation at /docs); Ctrl-C ends it")
        _answer(door, listener, spec)
        # That nobody listens to its controller any more is meant.
        logging.getLogger("ray.serve").setLevel(logging.CRITICAL)
        say("shutting down")


def _answer(door: Any, listener: socket.socket, spec: ServeSpec) -> None:
    """Answer requests until a signal comes; then take no new ones, and wait for those at hand."""
    config = uvicorn.Config(
        door,
        http=connections(spec.body_timeout_s),
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(spec.request_timeout_s) + 1,
    )
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn sends itself the signal again when it is done
    try:
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _listening(spec: ServeSpec) -> Iterator[socket.socket]:
    """The socket, bound before anything slow begins."""
    family = socket.AF_INET6 if ":" in spec.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((spec.host.strip("[]"), spec.port))
        except OSError as error:
            raise UsageError(
                f"{spec.host}:{spec.port}: cannot listen there: {error.strerror}; another port=..."
            ) from None
        yield listener


@contextlib.contextmanager
def _cluster(spec: ServeSpec) -> Iterator[bool]:
    """Whether the cluster is this server's own."""
    try:
        started = cluster.connect(spec.address)
    except ConnectionError as error:
        raise JobError(f"no Ray cluster at {spec.address or os.environ.get('RAY_ADDRESS')}: {error}") from None
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        yield started
    finally:
        if started:
            cluster.disconnect()


@contextlib.contextmanager
def _replicas(spec: ServeSpec, facts: list[Any], say: Say, *, alone: bool) -> Iterator[application.Handles]:
    """The models' replicas; they end with the block, each after the requests it has at hand."""
    claims = [] if alone else claim(application.names(spec))
    say(f"loading {', '.join(one.name for one in facts)}")
    serve.start(proxy_location="Disabled")
    try:
        yield application.deploy(spec, facts)
    except (RuntimeError, RayServeException) as error:
        raise ModelError(f"a model's replicas did not start: {error}") from None
    finally:
        application.undeploy(spec)
        claims.clear()


def _address(spec: ServeSpec) -> str:
    return f"http://{f'[{spec.host}]' if ':' in spec.host else spec.host}:{spec.port}/"


def _absolute(spec: ServeSpec) -> ServeSpec:
    """Local paths made absolute, since replicas stand elsewhere."""

    def absolute(uri: str) -> str:
        return os.path.abspath(uri) if "://" not in uri and not uri.startswith("file:") else uri

    named = {name: absolute(uri) if os.path.exists(uri) else uri for name, uri in spec.named_models.items()}
    models = {"models": named} if spec.models else {"model": named["default"]}
    places = {name: absolute(value) for name in ("batches", "capture") if (value := getattr(spec, name))}
    prefixes = {name: [absolute(uri) for uri in getattr(spec, name)] for name in ("read_prefixes", "write_prefixes")}
    return spec.model_copy(update=models | places | prefixes)
