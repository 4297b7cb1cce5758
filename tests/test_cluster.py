"""A cluster of our own is for this machine alone."""

import ast
import os
import subprocess
import sys

import pytest

import rayseg
from rayseg import cluster
from rayseg.errors import JobError

CODE = """
import os
import psutil
from rayseg import cluster
assert cluster.connect()
family = [psutil.Process(), *psutil.Process().children(recursive=True)]
heard = {c.laddr.ip for p in family for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}
import ray
print(sorted(heard), os.environ["RAY_AUTH_MODE"])
assert not cluster.connect()
cluster.disconnect()
"""


def test_a_cluster_of_our_own_listens_on_loopback_only_and_asks_for_a_token(tmp_path):
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    token = tmp_path / "token"
    token.write_text("0" * 64)
    env |= {"RAY_AUTH_TOKEN_PATH": str(token)}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=env, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "log level" not in done.stderr, "Ray's core does not greet"
    heard, _, mode = done.stdout.strip().rpartition(" ")
    assert set(ast.literal_eval(heard)) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert mode == "token"


def test_a_cluster_with_another_rayseg_is_refused_before_work_starts(ray_cluster, monkeypatch):
    here = rayseg.__version__
    cluster.check_package("there")
    monkeypatch.setattr(rayseg, "__version__", "9.9.9")
    with pytest.raises(JobError, match=f"there: its workers have rayseg {here}, expected 9.9.9; rayseg submit brings"):
        cluster.check_package("there")


def test_a_cluster_without_rayseg_is_refused_before_work_starts(ray_cluster, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['rayseg'] = None")
    with pytest.raises(JobError, match="there: its workers cannot import rayseg .*; rayseg submit brings"):
        cluster.check_package("there", {"env_vars": {"PYTHONPATH": str(tmp_path)}})
