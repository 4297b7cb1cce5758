"""The lock of an output: one owner, heartbeats, takeover after expiry, and what a paused owner learns."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from rayseg import storage
from rayseg.errors import JobError
from rayseg.outputs import lock as locks


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "out")


def rewrite(out, **owner):
    """Make the lock look as if somebody else had written it."""
    uri = storage.join(out, "lock.json")
    held = storage.read_versioned(uri)
    record = json.loads(held.data)
    record["owner"].update(owner)
    return storage.replace(uri, json.dumps(record).encode(), held.version)


def test_a_second_run_on_this_machine_is_refused_at_once_and_names_the_first(out):
    lock = locks.acquire(out)
    with pytest.raises(JobError, match=f"another run is writing this output .*process {os.getpid()}"):
        locks.acquire(out)
    lock.release()
    locks.acquire(out).release()
    assert not storage.exists(storage.join(out, "lock.json"))


def test_the_lock_of_a_killed_process_is_taken_at_once(out):
    code = f"from rayseg.outputs import lock; lock.acquire({out!r}, ttl_s=3600); import os; os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert storage.exists(storage.join(out, "lock.json"))
    locks.acquire(out).release()


def test_a_silent_owner_elsewhere_is_taken_over_when_it_expires(out):
    heard = []
    first = locks.acquire(out, ttl_s=1.0)
    first._stop.set()  # its machine went away: no more heartbeats
    rewrite(out, machine="elsewhere", host="node-7")
    begin = time.monotonic()
    second = locks.acquire(out, ttl_s=1.0, say=heard.append)
    assert 0.5 < time.monotonic() - begin < 30
    assert "node-7" in heard[0]
    second.check()
    second.release()


def test_a_living_owner_elsewhere_is_never_taken_over(out):
    first = locks.acquire(out, ttl_s=1.2)
    first._stop.set()
    version = rewrite(out, machine="elsewhere")
    stop = threading.Event()

    def beat():
        nonlocal version
        while not stop.wait(0.2):
            held = storage.read_versioned(storage.join(out, "lock.json"))
            version = storage.replace(storage.join(out, "lock.json"), held.data + b" ", held.version)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(JobError, match="another run is writing"):
            locks.acquire(out, ttl_s=1.2)
    finally:
        stop.set()
        thread.join()


def test_an_owner_that_was_taken_over_learns_it_from_its_next_heartbeat(out):
    lock = locks.acquire(out, ttl_s=0.3)
    rewrite(out, id="another")
    assert lock.lost.wait(30)
    with pytest.raises(JobError, match="took over"):
        lock.check()
    lock.release()
    assert storage.exists(storage.join(out, "lock.json"))  # it is the other's now


def test_of_many_that_find_an_expired_lock_one_gets_it(out):
    first = locks.acquire(out, ttl_s=0.2)
    first._stop.set()
    rewrite(out, machine="elsewhere")
    time.sleep(0.3)
    won, refused = [], []

    def contend():
        try:
            won.append(locks.acquire(out, ttl_s=30))
        except JobError as error:
            refused.append(error)

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 7)
    won[0].release()


def test_a_lock_file_that_is_no_lock_expires_like_one(out):
    storage.create(storage.join(out, "lock.json"), b"not json")
    os.utime(storage.join(out, "lock.json"), (0, 0))
    locks.acquire(out).release()
