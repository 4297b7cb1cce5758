"""Signed HTTP to an S3-compatible server: one request, tried until answered, and the names of its errors.

Credentials, endpoint, region, profile and signature come from botocore, as for every AWS tool, and urllib3 sends.
botocore's own client stays out of the way of the data: it takes more than twice the CPU for the same GET. What an
object or a listing is, `s3.py` knows.
"""

from __future__ import annotations

import functools
import http
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

import botocore.exceptions
import urllib3
from botocore import UNSIGNED
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.httpsession import get_cert_path
from botocore.session import Session
from botocore.utils import get_environ_proxies

from rayseg.errors import (
    AccessDenied,
    BucketNotFound,
    Conflict,
    ObjectNotFound,
    StorageError,
    Unreachable,
    UnsupportedScheme,
    WrongCredentials,
)
from rayseg.storage.retry import Retry, Transient

POOL_CONNECTIONS = 64
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 20.0  # silence on an open connection, not the length of a transfer

_BUCKET_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")
_TRANSIENT_STATUS = {408, 429, 500, 502, 503, 504}
_TRANSIENT_CODES = {
    "BandwidthLimitExceeded",
    "ConditionalRequestConflict",  # another conditional write of this key is under way
    "InternalError",
    "OperationAborted",
    "RequestLimitExceeded",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
}
_ERROR_OF_CODE: dict[str, type[StorageError]] = {
    "NoSuchBucket": BucketNotFound,
    "InvalidBucketName": BucketNotFound,
    "NoSuchKey": ObjectNotFound,
    "NotImplemented": UnsupportedScheme,  # such as the condition of a conditional put
    "PreconditionFailed": Conflict,
    "AuthFailure": WrongCredentials,
    "ExpiredToken": WrongCredentials,
    "InvalidAccessKeyId": WrongCredentials,
    "InvalidSecurity": WrongCredentials,
    "InvalidToken": WrongCredentials,
    "RequestTimeTooSkewed": WrongCredentials,
    "SignatureDoesNotMatch": WrongCredentials,
    "TokenRefreshRequired": WrongCredentials,
}
_ERROR_OF_STATUS: dict[int, type[StorageError]] = {
    401: WrongCredentials,
    403: AccessDenied,
    404: ObjectNotFound,
    412: Conflict,
}


class Request(NamedTuple):
    """What to ask: `uri` is what errors name, `accept` the statuses from 300 up that are answers too."""

    uri: str
    bucket: str
    key: str = ""
    method: str = "GET"
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    body: bytes = b""
    max_bytes: int | None = None
    accept: tuple[int, ...] = ()


class Response(NamedTuple):
    """A complete answer; header names are looked up in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def send(request: Request, on_attempt: Callable[[], object] = lambda: None) -> Response:
    """The answer to `request`, which is sent until there is one; `on_attempt` is called before each time.

    Raises the StorageError that fits the answer; `Unreachable` when there was none, or only server errors and
    throttling, until the retries ran out; StorageError, without reading it, for a body over `max_bytes`.
    """
    client = _client(request.uri)

    def attempt() -> Response:
        on_attempt()
        return client.attempt(request)

    try:
        return client.retry.call(attempt)
    except Transient as error:
        message = f"no usable answer from {client.endpoint} in {client.retry.total_s:g} s of trying: {error}"
        raise Unreachable(request.uri, message) from error


def reset() -> None:
    """Forget connections and credentials: the next request reads the environment again."""
    _clients.clear()


_clients: dict[int, _Client] = {}  # by process id: sockets and held locks do not survive a fork
_clients_lock = threading.Lock()
os.register_at_fork(after_in_child=_clients_lock._at_fork_reinit)  # type: ignore[attr-defined]


def _client(uri: str) -> _Client:
    client = _clients.get(os.getpid())
    if client is None:
        with _clients_lock:
            client = _clients.get(os.getpid()) or _clients.setdefault(os.getpid(), _Client(uri))
    return client


class _Client:
    """The connections, credentials and addresses of one process."""

    def __init__(self, uri: str) -> None:
        self.retry = Retry.from_environment()
        self._unsigned = os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "true", "yes")
        self._region_of_bucket: dict[str, str] = {}
        self._lock = threading.Lock()
        try:
            self._session = Session()
            # botocore itself reads AWS_DEFAULT_REGION alone
            self._region = os.environ.get("AWS_REGION") or self._session.get_config_variable("region") or "us-east-1"
            self.endpoint = self._resolve(self._region)
            self._endpoint_of_region = {self._region: self.endpoint}
            self._style = self._session.get_scoped_config().get("s3", {}).get("addressing_style", "auto")
            self._http = self._pool()
        except (botocore.exceptions.BotoCoreError, ValueError) as error:
            raise WrongCredentials(uri, f"the AWS configuration cannot be used: {error}") from error

    def attempt(self, request: Request) -> Response:
        """Ask once. Raises `Transient` where asking again may help, else the StorageError that fits."""
        region = self._region_of_bucket.get(request.bucket, self._region)
        url = self._url(request, region)
        response = self._exchange(request, url, self._signed_headers(request, url, region))
        if response.status < 300 or response.status in request.accept:
            return response
        self._learn_region(request.bucket, region, response)
        if request.method == "HEAD":  # its errors have no body that would name the cause; those of a GET do
            self.attempt(request._replace(method="GET", headers={"Range": "bytes=0-0"}))
            raise Transient(f"HTTP {response.status} to HEAD while GET succeeds")
        raise _error(request, self.endpoint, response)

    def _exchange(self, request: Request, url: str, headers: Mapping[str, str]) -> Response:
        try:
            answer = self._http.urlopen(
                request.method, url, body=request.body, headers=headers, preload_content=False, redirect=False
            )
            size_bytes = int(answer.headers.get("Content-Length", -1))
            if request.max_bytes is not None and answer.status < 300 and size_bytes > request.max_bytes:
                answer.close()  # and with it the connection: the rest of the body is not wanted
                raise StorageError(request.uri, f"{size_bytes} bytes, over the limit of {request.max_bytes} bytes")
            return Response(answer.status, answer.headers, answer.read())  # a body cut short is a ProtocolError
        except (urllib3.exceptions.HTTPError, OSError) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise Unreachable(request.uri, f"the certificate is not trusted: {error}") from error
            raise Transient(str(error)) from error

    def _pool(self) -> urllib3.PoolManager:
        proxy = get_environ_proxies(self.endpoint).get(urlsplit(self.endpoint).scheme)
        make = functools.partial(urllib3.ProxyManager, proxy) if proxy else urllib3.PoolManager
        return make(
            maxsize=POOL_CONNECTIONS,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
            retries=False,
            ca_certs=self._session.get_config_variable("ca_bundle") or get_cert_path(True),
        )

    def _signed_headers(self, request: Request, url: str, region: str) -> Mapping[str, str]:
        if self._unsigned:
            return request.headers
        try:
            with self._lock:  # the first call may fetch them, later ones may renew them
                credentials = self._credentials and self._credentials.get_frozen_credentials()
        except botocore.exceptions.BotoCoreError as error:
            raise WrongCredentials(request.uri, f"the AWS credentials cannot be loaded: {error}") from error
        if not credentials:
            ways = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            ways += "; AWS_NO_SIGN_REQUEST=1 reads public buckets"
            raise WrongCredentials(request.uri, f"no AWS credentials found: {ways}")
        signed = AWSRequest(request.method, url, dict(request.headers), request.body)
        S3SigV4Auth(credentials, "s3", region).add_auth(signed)
        return dict(signed.headers.items())

    @functools.cached_property
    def _credentials(self) -> Any:
        return self._session.get_credentials()

    def _resolve(self, region: str) -> str:
        """The server's URL, from AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the profile, or the region."""
        ignored = os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true"
        given = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if given and not ignored:  # these come first for botocore too, whose client takes a third of a second
            return given
        config = Config(signature_version=UNSIGNED, s3={"us_east_1_regional_endpoint": "regional"})
        return self._session.create_client("s3", region_name=region, config=config).meta.endpoint_url

    def _url(self, request: Request, region: str) -> str:
        path = "/" + quote(request.key, safe="/~")
        query = "?" + urlencode(request.query, quote_via=quote, safe="~") if request.query else ""
        return self._bucket_url(request, region) + path + query

    def _bucket_url(self, request: Request, region: str) -> str:
        """Path style at an endpoint of one's own, virtual-hosted style at AWS; the profile may say otherwise."""
        bucket = request.bucket
        if not bucket or set(bucket) - _BUCKET_CHARACTERS:
            raise BucketNotFound(request.uri, f"{bucket!r} is not a name that a bucket can have")
        parts = urlsplit(self._endpoint_of_region[region])
        at_aws = (parts.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
        if self._style == "virtual" or (self._style == "auto" and at_aws and "." not in bucket):
            return f"{parts.scheme}://{bucket}.{parts.netloc}{parts.path.rstrip('/')}"
        return f"{parts.geturl().rstrip('/')}/{bucket}"

    def _learn_region(self, bucket: str, region: str, response: Response) -> None:
        """AWS answers a request in the wrong region with the right one: note it, to ask there."""
        home = response.headers.get("x-amz-bucket-region")
        if home and home != region and response.status in (301, 307, 400):
            with self._lock:
                if home not in self._endpoint_of_region:
                    self._endpoint_of_region[home] = self._resolve(home)
            self._region_of_bucket[bucket] = home
            raise Transient(f"bucket {bucket} lives in {home}")


def _error(request: Request, endpoint: str, response: Response) -> Exception:
    code, message = _cause(response)
    text = f"HTTP {response.status} {code}: {message}"
    known = _ERROR_OF_CODE.get(code)
    if code in _TRANSIENT_CODES or (known is None and response.status in _TRANSIENT_STATUS):
        return Transient(text)
    kind = known or _ERROR_OF_STATUS.get(response.status, StorageError)
    meaning = {
        BucketNotFound: f"no bucket {request.bucket!r} at {endpoint}",
        ObjectNotFound: f"no such key in bucket {request.bucket!r} at {endpoint}",
        AccessDenied: f"{endpoint} does not allow this {request.method} to these credentials",
        WrongCredentials: f"{endpoint} does not accept these credentials",
    }.get(kind, f"{endpoint} refuses this {request.method}")
    return kind(request.uri, f"{meaning} ({text})")


def _cause(response: Response) -> tuple[str, str]:
    """`Code` and `Message` of an S3 error document, or the name of the status where there is none."""
    try:
        document = {child.tag.rpartition("}")[2]: child.text or "" for child in ElementTree.fromstring(response.body)}
    except ElementTree.ParseError:
        document = {}
    known = response.status in http.HTTPStatus._value2member_map_
    phrase = http.HTTPStatus(response.status).phrase if known else "unknown status"
    return document.get("Code", ""), document.get("Message") or phrase
