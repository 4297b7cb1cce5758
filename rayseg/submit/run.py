"""`rayseg submit`: look at spec and cluster, send the job, say or follow how it goes.

What can be known before is found before: the spec, the address, the token, the versions, paths that the cluster does not see,
resources that it does not have. The job itself begins with a look at its image; `submit` waits for that one, followed or not.
"""

from __future__ import annotations

import os
import shlex
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ray.job_submission import JobStatus
from ray.runtime_env import RuntimeEnv

from rayseg import __version__, cluster
from rayseg.errors import UsageError
from rayseg.specs import Spec
from rayseg.submit import paths
from rayseg.submit.bundle import EXCLUDES, write_bundle
from rayseg.submit.commands import FLAGS, Job
from rayseg.submit.follow import Ending, follow, to_stdout
from rayseg.submit.server import Server, check_versions, reach
from rayseg.submit.start import CHECKED

Package = Literal["auto", "ship", "image"]
Say = Callable[[str], None]
CHECKED_WITHIN_S = 120.0
DETACHED = 130
STOP_S = 60
_ENTRYPOINT = "python start.py"


@dataclass(frozen=True, slots=True)
class Submission:
    """What goes beside the job: how it is sent, and with what environment."""

    package: Package = "auto"
    shared_paths: bool = False
    env: tuple[tuple[str, str], ...] = ()
    words: tuple[str, ...] = ()  # flags of the command itself


def submit(job: Job, address: str | None, how: Submission, say: Say) -> tuple[Server, str]:
    """Start `job` on the cluster at `address` (see `server.reach`); the cluster, and the id of the job there.

    Raises `UsageError` for what can be put right in the spec or the call, `JobError` for what the cluster cannot do.
    """
    assert job.spec is not None
    _check_words(job, how.words)
    server = reach(address, getattr(job.spec, "address", None))
    check_versions(server, shipped=how.package == "ship")
    shared = how.shared_paths or (bool(paths.local_paths(job.spec)) and server.is_here())
    spec = paths.placed(job.spec, shared=shared, url=server.url)
    needs = needs_of(spec)
    lacking = cluster.first_lacking(needs, [node.resources for node in server.nodes])
    if lacking is not None:
        say(f"no node has {needs[lacking]:g} {lacking} now; asking whether one may be added")
    return server, send(server, Job(job.command, spec), needs, how, how.words)


def needs_of(spec: Spec) -> dict[str, float]:
    """What one worker of the job must find on a single node, as far as the spec says."""
    gpus = getattr(spec, "gpus_per_worker", None) or getattr(spec, "gpus_per_replica", None)
    if not gpus and getattr(spec, "gpu", None):
        gpus = 1.0
    return ({"GPU": float(gpus)} if gpus else {}) | dict(getattr(spec, "worker_resources", {}))


def watch(server: Server, job_id: str, *, to_the_end: bool, say: Say) -> int:
    """Wait for the job's own checks, or for its end; the exit code. Ctrl-C leaves the job running."""
    try:
        until = None if to_the_end else CHECKED
        found = follow(server.client, job_id, to_stdout, until, None if to_the_end else CHECKED_WITHIN_S)
    except KeyboardInterrupt:
        say(f"\ndetached; job {job_id} goes on.\n{ways_back(server.url, job_id)}")
        return DETACHED
    if found is None:
        if server.client.get_job_info(job_id).status == JobStatus.PENDING:
            say(f"job {job_id} is still waiting to start")
        say(ways_back(server.url, job_id))
        return 0
    say_ending(found, job_id, say)
    return found.code


def say_ending(found: Ending, job_id: str, say: Say) -> None:
    """In words, where the job's own did not say it all."""
    if found.status == "SUCCEEDED":
        return
    code = f" (exit code {found.exit_code})" if found.exit_code is not None else ""
    cause = "" if found.exit_code is not None or not found.message else f": {found.message.strip()}"
    say(f"job {job_id} {'was cancelled' if found.status == 'STOPPED' else 'failed'}{code}{cause}")


def ways_back(url: str, job_id: str) -> str:
    """The commands for a job that goes on without us."""
    at = f"--address {shlex.quote(url)}"
    return (
        f"  follow it:  rayseg jobs logs {job_id} --follow {at}\n"
        f"  look at it: rayseg jobs status {job_id} {at}\n"
        f"  stop it:    rayseg jobs cancel {job_id} {at}"
    )


def send(server: Server, job: Job, needs: dict[str, float], how: Submission, words: Sequence[str]) -> str:
    """Bundle and submit, without further questions; `words` follow the command. The job's id."""
    job_id = f"rayseg-{job.command}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:6]}"
    # Ctrl-C is what a driver of ours understands as "store what is finished"; it gets time to do so.
    env = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S)} | EXCLUDES | dict(how.env)
    os.environ.update(EXCLUDES)
    told = {"rayseg_command": job.command, "rayseg_version": __version__}
    told |= {f"rayseg_{name}": str(job.given[name]) for name in ("out", "model") if name in job.given}
    with tempfile.TemporaryDirectory(prefix="rayseg-submit-") as folder:
        write_bundle(Path(folder) / "job", job, needs, list(words), how.package)
        sent = RuntimeEnv(working_dir=str(Path(folder) / "job"), env_vars=env)
        server.client.start(job_id, _ENTRYPOINT, sent, told)
    return job_id


def _check_words(job: Job, words: Sequence[str]) -> None:
    allowed = FLAGS.get(job.command, ())
    wrong = [word for word in words if word not in allowed]
    if wrong:
        raise UsageError(
            f"{wrong[0]}: rayseg {job.command} has no such option"
            + (f"; it takes {', '.join(allowed)}" if allowed else "")
        )
