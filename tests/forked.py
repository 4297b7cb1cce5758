"""Processes for tests that need several, or that kill one: training is imported once, in a server that forks them all.

Importing takes seconds and a fork none; the server does nothing but import, so nothing is forked in the middle of its work.
Tests that use it belong into one group of pytest-xdist, so that there is one server.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

TIMEOUT_S = 180

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["rayseg.train.session", "rayseg.models.maskrcnn"])


def start(target: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """A running process of `target`, which lies in a module that can be imported by its name."""
    process = _context.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def exit_codes(*processes: BaseProcess) -> list[int | None]:
    """What they ended with; a negative number is the signal. One that does not end is killed, and has None."""
    for one in processes:
        one.join(TIMEOUT_S)
    codes = [one.exitcode for one in processes]
    for one in processes:
        one.kill()
    return codes
