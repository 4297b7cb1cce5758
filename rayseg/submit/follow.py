"""A job's own words as they come, from its first one, across lost connections, until it ends."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import aiohttp
from ray.job_submission import JobDetails

from rayseg.errors import JobError
from rayseg.submit.client import Client, Unanswered

AWAY_S = 120.0  # a cluster that does not answer for so long is given up; its head may be starting again
RETRY_S = 1.0
POLL_S = 0.5
_NOISE = re.compile(
    r"Running entrypoint for job |\S+ \S+\tINFO job_manager\.py:\d+ -- |\[.*logging\.cc:\d+: Set ray log level"
)
"""Lines of Ray's own at the beginning of a log."""

Write = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ended: Ray's status, and the code that its command exited with, None where it never did."""

    status: str
    exit_code: int | None
    message: str

    @property
    def code(self) -> int:
        """The exit code for whoever waited: the job's own, 1 where it has none that says anything."""
        if self.status == "SUCCEEDED":
            return 0
        return self.exit_code if self.exit_code is not None and 0 < self.exit_code < 126 else 1


def ending(details: JobDetails) -> Ending | None:
    """How the job ended, None while it has not."""
    if not details.status.is_terminal():
        return None
    return Ending(str(details.status), details.driver_exit_code, details.message or "")


def follow(
    client: Client, job_id: str, write: Write, until: str | None = None, within_s: float | None = None
) -> Ending | None:
    """Pass on what the job writes until it has ended, or has written `until`, or `within_s` are over.

    Returns how it ended, None where it goes on. Raises `JobError` when the cluster does not answer for `AWAY_S`;
    `KeyboardInterrupt` leaves the job alone.
    """
    return asyncio.run(_follow(_Log(client, job_id, write, until), within_s))


class _Log:
    """The log of a job, each character passed on once."""

    def __init__(self, client: Client, job_id: str, write: Write, until: str | None) -> None:
        self.client, self.job_id = client, job_id
        self._write, self._until = write, until
        self._seen = 0
        self._line = ""
        self.reached = False

    async def stream(self) -> None:
        """Pass on what comes until the connection or the job ends, or `until` was written."""
        skip = self._seen  # each connection begins with the first character
        async for text in self._tail():
            fresh, skip = text[skip:], max(0, skip - len(text))
            self._take(fresh)
            if self.reached:
                return

    async def _tail(self) -> AsyncIterator[str]:
        async for text in self.client.tail_job_logs(self.job_id):
            yield text

    def _take(self, text: str) -> None:
        self._seen += len(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._say(line + "\n")

    def flush(self) -> None:
        """Pass on a last line without an end."""
        if self._line:
            self._say(self._line)
            self._line = ""

    def _say(self, line: str) -> None:
        if _NOISE.match(line):
            return
        if self._until and line.startswith(self._until):
            self.reached = True
        self._write(line)


async def _follow(log: _Log, within_s: float | None) -> Ending | None:
    try:
        async with asyncio.timeout(within_s):
            return await _to_the_end(log)
    except TimeoutError:
        return None


async def _to_the_end(log: _Log) -> Ending | None:
    heard = time.monotonic()
    while True:
        try:
            details = await asyncio.to_thread(log.client.get_job_info, log.job_id)
            heard = time.monotonic()
            if details.driver_agent_http_address or details.status.is_terminal():
                await log.stream()
            if log.reached:
                return None
            found = ending(await asyncio.to_thread(log.client.get_job_info, log.job_id))
            if found is not None:
                log.flush()
                return found
            await asyncio.sleep(POLL_S)
        except (Unanswered, aiohttp.ClientError, RuntimeError, ConnectionError) as error:
            if time.monotonic() - heard > AWAY_S:
                raise JobError(
                    f"{log.client.url}: does not answer any more; job {log.job_id} may go on: {error}"
                ) from None
            await asyncio.sleep(RETRY_S)


def to_stdout(text: str) -> None:
    """Write and flush, so that a pipe hears at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
