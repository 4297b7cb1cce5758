"""`serve deploy` of another model while requests come: each is answered, by the one or by the other, in the end by the new.

Real: a cluster with a dashboard and a token, `rayseg serve --print-config`, the `serve` command, Ray Serve's own proxies.
"""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx2
import pytest
from random_model import save_random
from ray_nodes import RayNodes, free_port
from serve.online import picture, png

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("ray")]

CALLERS, WAIT_S = 4, 240.0
SPEC = ["--host", "127.0.0.1", "min_replicas=1", "max_replicas=2", "cpus_per_replica=0.5", "request_timeout_s=120"]


def command(nodes: RayNodes, name: str, *words: str) -> str:
    """What a command of the environment says. It must end well."""
    told = subprocess.run(
        [str(Path(sys.executable).with_name(name)), *words],
        check=False,
        env=os.environ | nodes.env,
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


def deploy(nodes: RayNodes, folder: Path, model: str, port: int) -> None:
    config = folder / "config.yaml"
    config.write_text(command(nodes, "rayseg", "serve", "--model", model, "--port", str(port), *SPEC, "--print-config"))
    command(nodes, "serve", "deploy", str(config), "--address", nodes.url)


async def classes(client: httpx2.AsyncClient) -> list[str]:
    """Of the model that is served; none while there is nobody to ask."""
    try:
        answer = await client.get("/v1/models")
    except httpx2.HTTPError:
        return []
    return answer.json()["models"][0]["classes"] if answer.status_code == 200 else []


async def until_known(client: httpx2.AsyncClient, name: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while name not in await classes(client):
            await asyncio.sleep(0.2)


def test_a_model_is_replaced_under_load_and_no_request_fails(tmp_path):
    port, body = free_port(), png(picture(64, 64))
    answers: Counter[tuple[int, bool]] = Counter()  # (status, whether the new model answered)
    done = False

    async def caller(client: httpx2.AsyncClient) -> None:
        while not done:
            answer = await client.post("/v1/predict", content=body, headers={"content-type": "image/png"})
            rows = answer.json()["instances"] if answer.status_code == 200 else []
            answers[answer.status_code, any(row["category"].startswith("class_") for row in rows)] += 1

    async def go() -> None:
        nonlocal done
        base = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(base_url=base, timeout=WAIT_S) as client, asyncio.TaskGroup() as group:
            await until_known(client, "red")
            for _ in range(CALLERS):
                group.create_task(caller(client))
            await asyncio.to_thread(deploy, nodes, tmp_path, save_random(tmp_path / "model"), port)
            await until_known(client, "class_0")
            before = answers[200, True]
            async with asyncio.timeout(WAIT_S):
                while answers[200, True] < before + 20:
                    await asyncio.sleep(0.2)
            done = True

    with RayNodes(tmp_path / "nodes") as nodes:
        nodes.start_head(cpus=2)
        deploy(nodes, tmp_path, "rectangles", port)
        asyncio.run(go())
    assert {status for status, _ in answers} == {200}, answers
    assert answers[200, False] > 0 and answers[200, True] >= 20, answers
