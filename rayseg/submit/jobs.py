"""`rayseg jobs`: what runs on a cluster, how it is going, what it says, and its end."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from ray.job_submission import JobDetails

from rayseg.errors import JobError
from rayseg.submit.client import Client
from rayseg.submit.follow import Ending, ending

CANCEL_S = 90.0
POLL_S = 0.5


def records(client: Client) -> list[dict[str, Any]]:
    """All submitted jobs that the cluster remembers, newest first."""
    found = [record(job) for job in client.list_jobs() if job.submission_id]
    return sorted(found, key=lambda one: one["started"] or "", reverse=True)


def record(job: JobDetails) -> dict[str, Any]:
    """A job as JSON values; times in UTC, the command rayseg's own where it is one."""
    told = job.metadata or {}
    seconds = None
    if job.start_time:
        seconds = round(((job.end_time or time.time() * 1000) - job.start_time) / 1000, 1)
    return {
        "id": job.submission_id,
        "command": told.get("rayseg_command"),
        "status": str(job.status).lower(),
        "started": _when(job.start_time),
        "ended": _when(job.end_time),
        "seconds": seconds,
        "exit_code": job.driver_exit_code,
        "out": told.get("rayseg_out"),
        "message": job.message,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """`records` as lines for a person."""
    if not rows:
        return "no jobs"
    header = ("ID", "COMMAND", "STATUS", "STARTED (UTC)", "TOOK", "OUT")
    lines = [header] + [
        (one["id"], one["command"] or "other", one["status"], (one["started"] or "")[:19].replace("T", " "),
         _took(one["seconds"]), one["out"] or "")
        for one in rows
    ]  # fmt: skip
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def text(one: dict[str, Any]) -> str:
    """One job as lines for a person."""
    lines = [f"{name:10}{one[name]}" for name in ("id", "command", "status", "started", "ended", "out") if one[name]]
    if one["seconds"] is not None:
        lines.append(f"{'took':10}{_took(one['seconds'])}")
    if one["exit_code"] is not None:
        lines.append(f"{'exit code':10}{one['exit_code']}")
    if one["message"] and one["status"] in ("failed", "pending"):
        lines.append(f"{'message':10}{one['message'].strip()}")
    return "\n".join(lines)


def cancel(client: Client, job_id: str) -> Ending:
    """Ask the job to stop, wait until it has, and say how it ended. Raises `JobError` when it does not stop in time."""
    client.stop_job(job_id)
    deadline = time.monotonic() + CANCEL_S
    while time.monotonic() < deadline:
        found = ending(client.get_job_info(job_id))
        if found is not None:
            return found
        time.sleep(POLL_S)
    raise JobError(f"job {job_id}: asked to stop {CANCEL_S:.0f} s ago and still running; look again in a while")


def _when(milliseconds: int | None) -> str | None:
    if not milliseconds:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _took(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
