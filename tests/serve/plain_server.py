"""The endpoint in one process without Ray, to be killed by tests: real routes, real batches, a replica beside them.

    python tests/serve/plain_server.py '{"model": "rectangles", ...}' [MOST_CHUNKS]

Prints the port it got. After MOST_CHUNKS chunks its replica has no room for any more: its batches then stand still.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import uvicorn

sys.path.insert(0, str(Path(__file__).parents[1]))
from serve.plain_replicas import PlainReplicas, prefixes

from rayseg.serve.batch_runner import BatchRunner
from rayseg.serve.ingress import build_app
from rayseg.serve.problems import Problem, busy
from rayseg.serve.service import Service
from rayseg.serve.spec import ServeSpec


class _Runner:
    """Calls the runner as `dispatch` calls its deployment."""

    def __init__(self, runner: BatchRunner) -> None:
        self.runner = runner

    async def call(self, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        result = await getattr(self.runner, method)(*args)
        if isinstance(result, Problem):
            raise result
        return result


async def serve(spec: ServeSpec, most_chunks: int | None) -> None:
    replicas = PlainReplicas(spec)

    def refuse(chunk: object) -> None:
        if most_chunks is not None and len(replicas.chunks) > most_chunks:
            raise busy("no more room")

    async def ready() -> dict[str, int]:
        return {"default": 1}

    replicas.fail = refuse
    facts = {"default": replicas.facts()}
    runner = BatchRunner(spec, facts, {"default": replicas}, prefixes(spec))
    service = Service(spec, facts, {"default": replicas}, prefixes(spec), ready, batches=_Runner(runner))
    server = uvicorn.Server(uvicorn.Config(build_app(service), port=0, log_level="error", lifespan="off"))
    await runner.start()
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await serving


if __name__ == "__main__":
    words = sys.argv[1:]
    asyncio.run(serve(ServeSpec(**json.loads(words[0])), int(words[1]) if len(words) > 1 else None))
