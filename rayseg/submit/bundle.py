"""What travels with a job: the spec, the package, and the program that checks where it has come to.

    start.py            the entry point
    job.json            what it is to do, and what the package needs
    job.yaml            the spec
    package/rayseg/     the package as it is here, its compiled kernels included

The same files make the same bundle, so Ray uploads what has not changed once only.
"""

from __future__ import annotations

import json
import re
import shutil
from importlib.metadata import metadata, requires
from pathlib import Path
from typing import Any

import yaml

import rayseg
from rayseg.submit.commands import Job

EXCLUDES = {"RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES": ".git"}
"""For whoever uploads: Ray would leave `__pycache__` out, where the compiled kernels are."""
_DROPPED = shutil.ignore_patterns("*.pyc", "*.tmp", ".*")
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*(?:>=\s*([0-9.]+))?")


def write_bundle(folder: Path, job: Job, needs: dict[str, float], words: list[str], package: str) -> None:
    """Put into `folder` all that `rayseg COMMAND -f job.yaml WORDS` needs there; `package` is auto, ship or image."""
    folder.mkdir(parents=True, exist_ok=True)
    here = Path(__file__).parent
    shutil.copyfile(here / "start.py", folder / "start.py")
    if job.spec is not None:
        words = ["-f", "job.yaml", *words]
    (folder / "job.yaml").write_text(yaml.safe_dump(job.given, sort_keys=True, allow_unicode=True), encoding="utf-8")
    (folder / "job.json").write_text(json.dumps(_record(job, needs, words, package), indent=1), encoding="utf-8")
    if package != "image":
        shutil.copytree(Path(rayseg.__file__).parent, folder / "package" / "rayseg", ignore=_DROPPED)


def _record(job: Job, needs: dict[str, float], words: list[str], package: str) -> dict[str, Any]:
    wanted = metadata("rayseg")["Requires-Python"]
    low, high = (re.search(pattern, wanted) for pattern in (r">=3\.(\d+)", r"<3\.(\d+)"))
    return {
        "command": job.command,
        "words": [job.command, *words],
        "needs": needs,
        "package": package,
        "version": rayseg.__version__,
        "python": [[3, int(low[1]) if low else 0], [3, int(high[1]) if high else 99]],
        "python_text": wanted,
        "requires": [list(one) for one in _requirements()],
    }


def _requirements() -> list[tuple[str, str | None]]:
    """Name and least version of all that rayseg needs at run time."""
    found = [_REQUIREMENT.match(one) for one in requires("rayseg") or () if "extra ==" not in one]
    return sorted((one[1], one[2]) for one in found if one)
