"""Objects on an S3-compatible server, by `s3://bucket/key`; a key is literal, whatever characters it has.

The version of an object is its ETag, as the server spells it. What each verb promises, `rayseg.storage` says.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import BinaryIO, cast
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from rayseg.errors import Conflict, ObjectNotFound, StorageError
from rayseg.storage.entry import PAGE_ENTRIES, Entry, Versioned
from rayseg.storage.ranged_file import RangedFile
from rayseg.storage.s3_http import Request, Response, send


def list_pages(uri: str) -> Iterator[list[Entry]]:
    bucket, key = _split(uri)
    if key and not key.endswith("/"):
        first, _ = _page(uri, bucket, key, 1)
        if first and first[0].uri == f"s3://{bucket}/{key}":  # a key sorts before every longer one it begins
            yield first
            return
        key += "/"
    yield from _pages(uri, bucket, key)


def glob_candidates(prefix: str, max_depth: int | None) -> Iterator[list[Entry]]:
    """Every object whose URI begins with `prefix`, a folder or not; S3 has no depth to bound."""
    if "/" not in prefix[len("s3://") :]:
        raise StorageError(prefix, "expected a whole bucket name before the pattern")
    yield from _pages(prefix, *_split(prefix))


def read(uri: str, max_bytes: int | None) -> bytes:
    return send(_request(uri, max_bytes=max_bytes)).body


def read_range(uri: str, start: int, length: int) -> bytes:
    return read_range_and_size(uri, start, length)[0]


def open(uri: str) -> BinaryIO:
    return cast(BinaryIO, RangedFile(uri, read_range_and_size))


def read_range_and_size(uri: str, start: int, length: int) -> tuple[bytes, int]:
    """The bytes of `read_range`, and the size of the whole object; (b"", 0) where the range lies past its end."""
    wanted = f"bytes={start}" if start < 0 else f"bytes={start}-{start + length - 1}"
    response = send(_request(uri, headers={"Range": wanted}, accept=(416,)))
    if response.status == 416:
        return b"", 0
    if response.status == 200:  # a server may ignore the range
        offset = start if start >= 0 else max(0, len(response.body) + start)
        return response.body[offset : offset + length], len(response.body)
    return response.body[:length], int(response.headers["Content-Range"].rpartition("/")[2])


def size(uri: str) -> int:
    return int(send(_request(uri, method="HEAD")).headers["Content-Length"])


def exists(uri: str) -> bool:
    try:
        send(_request(uri, method="HEAD"))
    except ObjectNotFound:
        return False
    return True


def write(uri: str, data: bytes) -> None:
    send(_request(uri, method="PUT", body=data))


def create(uri: str, data: bytes) -> str:
    return _conditional_put(uri, data, {"If-None-Match": "*"}, "expected no object there, found one")


def replace(uri: str, data: bytes, version: str) -> str:
    return _conditional_put(uri, data, {"If-Match": version}, f"expected version {version}, found another")


def read_versioned(uri: str) -> Versioned:
    response = send(_request(uri))
    modified_s = _seconds(response, "Last-Modified", default=0.0)
    age_s = _seconds(response, "Date", default=time.time()) - modified_s
    return Versioned(response.body, response.headers["ETag"], max(0.0, age_s))


def delete(uri: str) -> None:
    try:
        send(_request(uri, method="DELETE"))
    except ObjectNotFound:
        return


def _conditional_put(uri: str, data: bytes, condition: Mapping[str, str], conflict: str) -> str:
    """Put under a condition. An earlier attempt of ours that landed, its answer lost, is no conflict."""
    attempts: list[None] = []
    request = _request(uri, method="PUT", headers=condition, body=data)
    try:
        return send(request, on_attempt=lambda: attempts.append(None)).headers["ETag"]
    except (Conflict, ObjectNotFound) as error:  # for If-Match of a missing key servers answer with either
        landed = _versioned_or_none(uri) if len(attempts) > 1 else None
        if landed and landed.data == data:
            return landed.version
        raise Conflict(uri, conflict) from error


def _versioned_or_none(uri: str) -> Versioned | None:
    try:
        return read_versioned(uri)
    except ObjectNotFound:
        return None


def _seconds(response: Response, header: str, default: float) -> float:
    value = response.headers.get(header)
    return parsedate_to_datetime(value).timestamp() if value else default


def _pages(uri: str, bucket: str, key_prefix: str) -> Iterator[list[Entry]]:
    token: str | None = ""
    while token is not None:
        entries, token = _page(uri, bucket, key_prefix, PAGE_ENTRIES, token)
        if entries:
            yield entries


def _page(uri: str, bucket: str, key_prefix: str, max_keys: int, token: str = "") -> tuple[list[Entry], str | None]:
    """One ListObjectsV2 answer: its objects, and the token of the next page or None."""
    query = {"encoding-type": "url", "list-type": "2", "max-keys": str(max_keys), "prefix": key_prefix}
    if token:
        query["continuation-token"] = token
    root = _parse(uri, send(Request(uri, bucket, query=query)).body)
    namespace = root.tag[: root.tag.find("}") + 1]  # with its braces, "" at servers that leave it out
    decode = unquote_plus if root.findtext(f"{namespace}EncodingType") == "url" else str
    entries = []
    for item in root.iterfind(f"{namespace}Contents"):
        key = decode(item.findtext(f"{namespace}Key", ""))
        size_bytes = int(item.findtext(f"{namespace}Size", "0"))
        if size_bytes or not key.endswith("/"):  # an empty object named like a folder only marks the folder
            entries.append(Entry(f"s3://{bucket}/{key}", size_bytes))
    is_truncated = root.findtext(f"{namespace}IsTruncated") == "true"
    return entries, root.findtext(f"{namespace}NextContinuationToken") if is_truncated else None


def _parse(uri: str, document: bytes) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(document)
    except ElementTree.ParseError as error:
        raise StorageError(uri, f"expected a listing in XML, found {document[:80]!r}") from error


def _request(
    uri: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    max_bytes: int | None = None,
    accept: tuple[int, ...] = (),
) -> Request:
    bucket, key = _split(uri)
    if not key:
        raise StorageError(uri, "expected an object, s3://bucket/key, found a bucket alone")
    if not {".", ".."}.isdisjoint(key.split("/")):  # what is on the way would resolve them to another key
        raise StorageError(uri, "a key with . or .. between its slashes cannot be asked for over HTTP")
    return Request(uri, bucket, key, method, {}, headers or {}, body, max_bytes, accept)


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri[len("s3://") :].partition("/")
    return bucket, key
