"""The entry point of a submitted job: look at where it has come to, then run the command.

Runs in the image of the cluster, whatever that is: until the checks are through it needs only the standard library, and it
does not use anything that Python 3.8 would not understand. `job.json` beside it says what to do.
"""

import importlib.metadata
import importlib.util
import json
import os
import re
import runpy
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
CHECKED = "rayseg: checked: "
USAGE = 2


def main():
    """Check, then become `rayseg COMMAND -f job.yaml`."""
    with open(os.path.join(HERE, "job.json"), encoding="utf-8") as file:
        job = json.load(file)
    found = version("rayseg") if job["package"] != "ship" and importlib.util.find_spec("rayseg") else None
    shipped = os.path.join(HERE, "package")
    if found is None:
        if not os.path.isdir(shipped):
            refuse("its image has no rayseg, and none was sent: submit with --package auto, or use another image")
        check_package(job)
        sys.path.insert(0, shipped)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [shipped, os.environ.get("PYTHONPATH")]))
    from rayseg.submit.on_cluster import begin

    begin(job, os.path.join(shipped, "rayseg") if found is None else None)
    python = ".".join(map(str, sys.version_info[:3]))
    which = f"{found} of the image" if found else f"{job['version']} sent along"
    print(f"{CHECKED}Ray {version('ray')}, Python {python}, rayseg {which}", flush=True)
    os.chdir(HERE)
    sys.argv = ["rayseg", *job["words"]]
    runpy.run_module("rayseg.cli", run_name="__main__", alter_sys=True)


def check_package(job):
    """Refuse where the image cannot run the package that was sent."""
    low, high = job["python"]
    if not tuple(low) <= sys.version_info[:2] < tuple(high):
        refuse(f"it runs Python {sys.version_info[0]}.{sys.version_info[1]}, rayseg needs {job['python_text']}")
    missing = []
    for name, least in job["requires"]:
        have = version(name)
        if have is None or (least and numbers(have) < numbers(least)):
            missing.append(f"{name}{'>=' + least if least else ''} ({have or 'none'})")
    if missing:
        refuse("its image lacks what rayseg needs: " + ", ".join(missing))


def version(name):
    """Of an installed distribution, None where there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def numbers(text):
    """`2.10.1+cu13` as (2, 10, 1)."""
    return tuple(int(one) for one in re.findall(r"\d+", text.partition("+")[0])[:3])


def refuse(why):
    """Say why nothing was started."""
    print(f"rayseg: the cluster cannot run this job: {why}. cluster/Dockerfile makes an image that can.", flush=True)
    sys.exit(USAGE)


if __name__ == "__main__":
    main()
