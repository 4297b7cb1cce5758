"""What one machine says of itself, as JSON values: gathered on every node of a cluster, judged in one place.

Changes next to nothing: a file is written into the cache's folder and removed, and kernels are compiled where they are not.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PACKAGES = ("rayseg", "ray", "torch", "torchvision", "numba", "numpy", "pyarrow", "boto3")


def describe() -> dict[str, Any]:
    """This machine; where numba's cache is empty it is filled, which takes half a minute."""
    return {
        "host": socket.gethostname(),
        "time": time.time(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: _version(name) for name in PACKAGES},
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory(),
        "shared_memory_bytes": _space("/dev/shm"),
        "gpus": _gpus(),
        "cache": _cache(),
        "kernels": _kernels(),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory() -> int:
    """Bytes that this machine, or its container, may use."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found = min(found, int(Path(path).read_text()))
        except (OSError, ValueError):
            continue
    return found


def _space(folder: str) -> int | None:
    try:
        return shutil.disk_usage(folder).total
    except OSError:
        return None


def _gpus() -> dict[str, Any]:
    """Those that torch can use; `seen` are what the driver shows, whether torch can or not."""
    seen = sorted(str(path) for path in Path("/dev").glob("nvidia[0-9]*"))
    try:
        import torch

        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return {"names": names, "seen": len(seen), "cuda": torch.version.cuda, "error": None}
    except Exception as error:  # a broken installation says so in many ways
        return {"names": [], "seen": len(seen), "cuda": None, "error": str(error).splitlines()[0]}


def _cache() -> dict[str, Any]:
    """The folder that checkpoints are kept in, whether it takes files, and the room there."""
    from rayseg.models.cache import models_folder

    folder = models_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".rayseg-doctor-") as file:
            file.write(b"x")
        return {"folder": str(folder), "free_bytes": shutil.disk_usage(folder).free, "error": None}
    except OSError as error:
        return {"folder": str(folder), "free_bytes": 0, "error": error.strerror or str(error)}


def _kernels() -> dict[str, Any]:
    """How many of labelling's kernels had to be compiled now, in how long, and where they are kept.

    What was compiled is in the cache afterwards, where that can be written.
    """
    begin = time.perf_counter()
    try:
        from numba.core.dispatcher import Dispatcher

        from rayseg import kernels

        kernels.warm_up(everything=False)
        modules = [module for name, module in sys.modules.items() if name.startswith("rayseg.kernels")]
        found = {id(one): one for module in modules for one in vars(module).values() if isinstance(one, Dispatcher)}
        stats = [one.stats for one in found.values()]
        compiled = sum(sum(one.cache_misses.values()) for one in stats)
        folder = next((one.cache_path for one in stats if one.cache_path), None)
        kept = folder is not None and any(Path(folder).glob("*.nbi"))
        return {
            "compiled": compiled,
            "seconds": time.perf_counter() - begin,
            "folder": folder,
            "kept": kept,
            "error": None,
        }
    except Exception as error:
        return {"compiled": 0, "seconds": 0.0, "folder": None, "kept": False, "error": repr(error)}
