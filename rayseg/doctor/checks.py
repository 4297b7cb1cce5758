"""What is looked at once, not per node: the token, and storage as jobs will use it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from rayseg import storage
from rayseg.doctor.judge import clock_line
from rayseg.doctor.lines import Line, fail, ok, warn
from rayseg.errors import RaysegError
from rayseg.storage.s3_http import Request, send

_AGAINST = "this machine"


def check_token(mode: str | None) -> Line:
    """Ray's token mode, as a cluster or this process has it; None where it cannot be told."""
    if mode is None:
        return warn("token", "cannot be told", "")
    if mode == "token":
        return ok("token", "the cluster asks for one")
    return warn(
        "token", f"{mode}: whoever reaches the cluster's ports can run code on it",
        "start Ray with RAY_AUTH_MODE=token and a token (ray get-auth-token --generate)"
    )  # fmt: skip


def check_storage(uri: str) -> Iterator[Line]:
    """Whether an output can be written below `uri`, under conditions, and how far its clock is from ours."""
    begin = time.perf_counter()
    try:
        storage.check_output(uri)
    except RaysegError as error:
        yield fail("storage", str(error), _advice(error))
        return
    took = time.perf_counter() - begin
    yield ok("storage", f"{uri}: written, replaced under conditions, removed in {1e3 * took:.0f} ms")
    if uri.startswith("s3://"):
        yield from _clock_of(uri)


def _clock_of(uri: str) -> Iterator[Line]:
    """The store's clock, whole seconds, against this machine's."""
    bucket = urlsplit(uri).netloc
    query = {"list-type": "2", "max-keys": "1"}
    try:
        date = send(Request(uri, bucket, query=query)).headers.get("Date")
    except RaysegError as error:
        yield warn("storage's clock", str(error), "the role lacks s3:ListBucket")
        return
    if date:
        yield clock_line(
            "storage's clock", parsedate_to_datetime(date).timestamp() + 0.5 - time.time(), bucket, _AGAINST
        )


def _advice(error: RaysegError) -> str:
    kinds = {
        "wrong_credentials": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the node or pod a role",
        "access_denied": "the role needs s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket",
        "bucket_not_found": "make the bucket, or look at AWS_REGION and AWS_ENDPOINT_URL",
        "unreachable": "look at AWS_ENDPOINT_URL, the network, and the S3 gateway endpoint of the VPC",
        "unsupported_scheme": "outputs need s3:// with conditional writes, or a path that all nodes share",
    }
    return kinds.get(error.kind, "an output needs a place that can be written")
