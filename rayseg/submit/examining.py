"""`rayseg doctor` on a cluster that is reached through its dashboard: what can be seen from here, then a job that looks there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from rayseg.errors import JobError
from rayseg.submit.commands import Job
from rayseg.submit.follow import follow
from rayseg.submit.run import Submission, send
from rayseg.submit.server import check_versions, reach
from rayseg.submit.start import CHECKED

Line = dict[str, Any]


def examine_there(address: str, storages: list[str], how: Submission, say: Callable[[str], None]) -> list[Line]:
    """The doctor's lines, as JSON values, from a job on the cluster. Raises `JobError` with what the job said if it fails."""
    server = reach(address)
    check_versions(server, shipped=how.package == "ship")
    words = ["--json", *[word for uri in storages for word in ("--storage", uri)]]
    job_id = send(server, Job("doctor", None), {}, how, words)
    say(f"job {job_id} at {server.url} looks at {len(server.nodes)} nodes")
    said: list[str] = []
    found = follow(server.client, job_id, said.append)
    for line in reversed(said):
        if line.startswith('{"event": "doctor"'):
            return json.loads(line)["lines"]
    told = "".join(line for line in said if not line.startswith(CHECKED)).strip()
    raise JobError(f"{server.url}: the doctor's job {job_id} failed: {told or (found.message if found else '')}")
