"""S3 alone: the names of its errors and what the retries ride out, against a real server and a spoilt way to it."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from faulty_proxy import Fault, FaultyProxy
from seaweed import ADMIN, READER, Seaweed

from rayseg import storage
from rayseg.errors import (
    AccessDenied,
    BucketNotFound,
    Conflict,
    ObjectNotFound,
    StorageError,
    Unreachable,
    UnsupportedScheme,
    UsageError,
    WrongCredentials,
)
from rayseg.storage import s3_http
from rayseg.storage.retry import Retry, Transient

VERBS: list[Callable[[str], object]] = [
    storage.read,
    lambda uri: storage.read(uri, max_bytes=10),
    lambda uri: storage.read_range(uri, -5, 5),
    storage.open,
    storage.size,
    storage.exists,
    storage.read_versioned,
    lambda uri: list(storage.list_pages(uri)),
    lambda uri: list(storage.glob_pages(uri + "/*")),
    lambda uri: storage.write(uri, b"x"),
    lambda uri: storage.create(uri, b"x"),
    storage.delete,
    storage.check_output,
    lambda uri: storage.replace(uri, b"x", '"0123"'),
]
WRITING_VERBS = VERBS[-5:]


@pytest.fixture
def be(bucket: str, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[str, str]], None]:
    """Become the owner of the given (key id, secret)."""

    def become(credentials: tuple[str, str]) -> None:
        for name, value in seaweed.env_of(credentials).items():
            monkeypatch.setenv(name, value)
        storage.reset()

    return become


@pytest.fixture
def proxy(bucket: str, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Between storage and the server; with short waits, since every test here makes storage wait."""
    with FaultyProxy(seaweed.endpoint) as between:
        quick = Retry(base_s=0.001, max_s=0.01, total_s=5.0)
        monkeypatch.setattr(Retry, "from_environment", lambda: quick)
        monkeypatch.setattr(s3_http, "READ_TIMEOUT_S", 0.3)
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
        storage.reset()
        yield between


@pytest.mark.parametrize("verb", VERBS[:-1])  # to replace what is not there is a Conflict, bucket or no bucket
def test_a_missing_bucket_is_told_from_a_missing_key(bucket: str, verb: Callable[[str], object]):
    with pytest.raises(BucketNotFound) as caught:
        verb("s3://no-such-bucket/key")
    assert "s3://no-such-bucket/key" in str(caught.value)
    assert "no bucket 'no-such-bucket' at http://127.0.0.1" in str(caught.value)


@pytest.mark.parametrize("uri", ["s3://Not A Bucket/x", "s3:///x", "s3://a%2Fb/x"])
def test_an_impossible_bucket_is_a_missing_one(bucket: str, uri: str):
    with pytest.raises(BucketNotFound):
        storage.read(uri)


def test_a_bucket_is_no_object(bucket: str):
    with pytest.raises(StorageError, match="expected an object"):
        storage.read(bucket)


@pytest.mark.parametrize("key", ["a/../b", "./a", "a/.."])
def test_keys_that_http_would_rewrite_are_refused(bucket: str, key: str):
    storage.write(f"{bucket}/b", b"another object")
    with pytest.raises(StorageError, match="between its slashes"):
        storage.read(f"{bucket}/{key}")


@pytest.mark.parametrize("credentials", [("nobody", "secret"), (ADMIN[0], "wrong secret")])
@pytest.mark.parametrize("verb", VERBS)
def test_wrong_credentials_are_told(bucket: str, be: Callable, verb: Callable, credentials: tuple[str, str]):
    be(credentials)
    with pytest.raises(WrongCredentials) as caught:
        verb(f"{bucket}/key")
    assert f"{bucket}/key" in str(caught.value)


@pytest.mark.parametrize("verb", WRITING_VERBS)
def test_denied_access_is_told_from_wrong_credentials(bucket: str, be: Callable, verb: Callable):
    storage.write(f"{bucket}/key", b"1")
    be(READER)
    assert storage.read(f"{bucket}/key") == b"1"
    with pytest.raises(AccessDenied) as caught:
        verb(f"{bucket}/key")
    assert f"{bucket}/key" in str(caught.value)


def test_no_credentials_at_all(bucket: str, tmp_path, monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in os.environ if name.startswith("AWS_") and "ENDPOINT" not in name]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "absent"))
    storage.reset()
    with pytest.raises(WrongCredentials, match="AWS_ACCESS_KEY_ID"):
        storage.read(f"{bucket}/key")
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "1")
    storage.reset()
    with pytest.raises(AccessDenied):  # the server was asked, and does not serve strangers
        storage.read(f"{bucket}/key")


def test_a_profile_brings_endpoint_region_and_keys(bucket: str, seaweed: Seaweed, tmp_path, monkeypatch):
    storage.write(f"{bucket}/key", b"by profile")
    lines = [
        "[profile mine]",
        f"endpoint_url = {seaweed.endpoint}",
        "region = us-east-1",
        f"aws_access_key_id = {ADMIN[0]}",
        f"aws_secret_access_key = {ADMIN[1]}",
    ]
    (tmp_path / "config").write_text("\n".join(lines))
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    storage.reset()
    assert storage.read(f"{bucket}/key") == b"by profile"
    monkeypatch.setenv("AWS_PROFILE", "absent")
    storage.reset()
    with pytest.raises(WrongCredentials, match="absent"):
        storage.read(f"{bucket}/key")


def test_folder_markers_are_not_listed(bucket: str, seaweed: Seaweed):
    client = seaweed.client()
    for key in ("photos/", "photos/sub/", "photos/sub/a.jpg"):
        client.put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=b"1" if key.endswith("jpg") else b"")
    assert [e.uri for page in storage.list_pages(f"{bucket}/photos") for e in page] == [f"{bucket}/photos/sub/a.jpg"]
    assert list(storage.list_pages(f"{bucket}/photos/sub/a")) == []


@pytest.mark.parametrize("pattern", ["s3://*/x.jpg", "s3://buck?t/x.jpg"])
def test_a_pattern_for_buckets_is_refused(bucket: str, pattern: str):
    with pytest.raises(StorageError, match="bucket name"):
        list(storage.glob_pages(pattern))


@pytest.mark.parametrize("fault", ["slow_down", "throttled", "refused", "lost_answer", "short_body", "silence"])
def test_faults_are_ridden_out(bucket: str, proxy: FaultyProxy, fault: Fault):
    uri = f"{bucket}/folder/key"
    repeated: list[Fault] = [fault] if fault == "silence" else [fault, fault, fault]
    proxy.faults.extend(repeated)
    storage.write(uri, b"some bytes")
    proxy.faults.clear()
    verbs: list[tuple[Callable[[], object], object]] = [
        (lambda: storage.read(uri), b"some bytes"),
        (lambda: storage.read_range(uri, 5, 3), b"byt"),
        (lambda: storage.size(uri), 10),
        (lambda: [e for page in storage.list_pages(f"{bucket}/folder/") for e in page], [storage.Entry(uri, 10)]),
        (lambda: storage.delete(uri), None),
    ]
    for verb, expected in verbs:
        proxy.faults.extend(repeated)
        assert verb() == expected
        assert len(proxy.faults) < len(repeated)
        proxy.faults.clear()  # a short body only hurts where there is one
    assert not storage.exists(uri)


@pytest.mark.parametrize("faults", [["lost_answer"], ["lost_answer", "slow_down"], ["refused", "lost_answer"]])
def test_a_conditional_write_is_no_conflict_with_itself(bucket: str, proxy: FaultyProxy, faults: list[Fault]):
    uri = f"{bucket}/lock.json"
    proxy.faults.extend(faults)
    version = storage.create(uri, b"mine")
    assert storage.read_versioned(uri)[:2] == (b"mine", version)
    proxy.faults.extend(faults)
    version = storage.replace(uri, b"mine again", version)
    assert storage.read_versioned(uri)[:2] == (b"mine again", version)


def test_a_conflict_with_another_stays_one(bucket: str, proxy: FaultyProxy):
    uri = f"{bucket}/lock.json"
    version = storage.create(uri, b"theirs")
    proxy.faults.extend(["lost_answer", "refused"])
    with pytest.raises(Conflict):
        storage.create(uri, b"mine")
    storage.replace(uri, b"theirs again", version)
    proxy.faults.extend(["lost_answer", "slow_down"])
    with pytest.raises(Conflict):
        storage.replace(uri, b"mine", version)
    assert storage.read(uri) == b"theirs again"


def test_giving_up_names_endpoint_and_cause(bucket: str, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Retry, "from_environment", lambda: Retry(attempts=4, base_s=0.001))
    storage.reset()
    proxy.faults.extend(("slow_down",) * 10)
    with pytest.raises(Unreachable) as caught:
        storage.read(f"{bucket}/key")
    assert len(proxy.requests) == 4
    for part in (f"{bucket}/key", proxy.url, "SlowDown", "reduce your request rate"):
        assert part in str(caught.value)
    assert storage.is_transient(caught.value)


def test_nobody_listening_is_unreachable(bucket: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("RAYSEG_RETRY_S", "0")
    storage.reset()
    for verb in VERBS:
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
            verb(f"{bucket}/key")


def test_the_retry_budget_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    assert Retry.from_environment() == Retry()
    monkeypatch.setenv("RAYSEG_RETRY_S", "2.5")
    assert Retry.from_environment().total_s == 2.5
    monkeypatch.setenv("RAYSEG_RETRY_S", "soon")
    storage.reset()
    with pytest.raises(UsageError, match=r"RAYSEG_RETRY_S.*'soon'"):
        storage.read("s3://bucket/key")
    storage.reset()


def test_waits_grow_but_keep_to_the_policy(monkeypatch: pytest.MonkeyPatch):
    """On a clock of our own: an outage of 20 s is ridden out, an endless one ends within the total."""
    now_s, waits_s = [0.0], []

    def sleep(wait_s: float) -> None:
        waits_s.append(wait_s)
        now_s[0] += wait_s

    monkeypatch.setattr("rayseg.storage.retry.time.sleep", sleep)
    monkeypatch.setattr("rayseg.storage.retry.time.monotonic", lambda: now_s[0])

    def away_until(end_s: float) -> str:
        if now_s[0] < end_s:
            raise Transient("away")
        return "back"

    assert Retry().call(lambda: away_until(20)) == "back"
    assert len(waits_s) < 40
    assert all(wait_s <= min(4.0, 0.1 * 2**n) for n, wait_s in enumerate(waits_s))
    now_s[0] = 0
    with pytest.raises(Transient):
        Retry().call(lambda: away_until(1000))
    assert 50 < now_s[0] <= 60


def test_a_restart_of_the_server_goes_unnoticed(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Killed as by a power cut while eight threads read: nobody sees an error, and the data is there."""
    with Seaweed(tmp_path) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        storage.reset()
        uri = f"{server.make_bucket('photos')}/a.jpg"
        storage.write(uri, b"x" * 100_000)
        connected, killed = threading.Barrier(9), threading.Event()

        def read_on_both_sides(_: int) -> tuple[int, int]:
            before = len(storage.read(uri))
            connected.wait(30)
            killed.wait(30)
            return before, len(storage.read(uri))

        with ThreadPoolExecutor(8) as threads:
            readers = [threads.submit(read_on_both_sides, i) for i in range(8)]
            connected.wait(30)
            server.kill()
            killed.set()
            server.start()
            assert [reader.result(60) for reader in readers] == [(100_000, 100_000)] * 8
    storage.reset()


@contextmanager
def answering(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """The URL of a server that says to every request what `answer` says."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle_any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer(self)

        do_GET = do_PUT = do_HEAD = do_DELETE = handle_any

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def _say(handler: http.server.BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def _error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>it says</Message></Error>".encode()


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "ExpiredToken", WrongCredentials),
        (403, "RequestTimeTooSkewed", WrongCredentials),
        (403, "AccessDenied", AccessDenied),
        (501, "NotImplemented", UnsupportedScheme),
        (404, "NoSuchKey", ObjectNotFound),
        (507, "InsufficientStorage", StorageError),
    ],
)
def test_answers_no_test_server_gives(bucket: str, monkeypatch, status: int, code: str, expected: type[StorageError]):
    with answering(lambda handler: _say(handler, status, _error(code))) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        storage.reset()
        with pytest.raises(expected, match=f"{code}: it says") as caught:
            storage.write("s3://bucket/key", b"x")
        assert type(caught.value) is expected


def test_a_server_that_ignores_conditions_is_no_output(bucket: str, monkeypatch: pytest.MonkeyPatch):
    with answering(lambda handler: _say(handler, 200, ETag='"0"')) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        storage.reset()
        with pytest.raises(UnsupportedScheme, match="If-None-Match"):
            storage.check_output("s3://bucket/out")


def test_a_server_that_ignores_ranges_is_cut_to_size(bucket: str, monkeypatch: pytest.MonkeyPatch):
    with answering(lambda handler: _say(handler, 200, b"0123456789")) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        storage.reset()
        assert storage.read_range("s3://bucket/key", 2, 3) == b"234"
        assert storage.read_range("s3://bucket/key", -4, 3) == b"678"


def test_a_bucket_is_followed_to_its_region(bucket: str, monkeypatch: pytest.MonkeyPatch):
    scopes = []

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        scopes.append(handler.headers["Authorization"].split("/")[2])
        if scopes[-1] == "eu-north-1":
            _say(handler, 200, b"from the north")
        else:
            _say(handler, 301, _error("PermanentRedirect"), x_amz_bucket_region="eu-north-1")

    with answering(answer) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        storage.reset()
        assert storage.read("s3://bucket/key") == b"from the north"
        assert storage.read("s3://bucket/key") == b"from the north"
    assert scopes == ["us-east-1", "eu-north-1", "eu-north-1"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_leads_nowhere(bucket: str, monkeypatch: pytest.MonkeyPatch, status: int):
    """Or whoever answers for a bucket could have a server fetch from its own network, with its credentials."""
    asked = []

    def secret(handler: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        _say(handler, 200, b"secret")

    with answering(secret) as inside, answering(lambda handler: _say(handler, status, Location=inside)) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("RAYSEG_RETRY_S", "1")
        storage.reset()
        for verb in (storage.read, storage.exists, lambda uri: storage.write(uri, b"x")):
            with pytest.raises(StorageError, match="bucket/key"):
                verb("s3://bucket/key")
    assert asked == []
