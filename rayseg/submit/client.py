"""Ray's Jobs API over HTTP, with a limit on every wait and a plain word for whatever goes wrong.

The token is Ray's own: `RAY_AUTH_TOKEN`, or the file `RAY_AUTH_TOKEN_PATH`; `RAY_JOB_HEADERS` (JSON) adds headers, for a
gateway in front of the cluster. `REQUESTS_CA_BUNDLE` names the certificates to trust with https.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from typing import Any

from rayseg.errors import JobError, UsageError

if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
    os.environ.setdefault(
        "RAY_AUTH_MODE", "token"
    )  # read when ray is imported: a token that is there is meant to be sent

import ray
import requests
from ray.dashboard.modules.dashboard_sdk import SubmissionClient
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient
from ray.runtime_env import RuntimeEnv

CONNECT_S, ANSWER_S, UPLOAD_S = 5.0, 60.0, 600.0
FALTERS_S = 90.0  # a head that has just come up takes no jobs yet, or fails over one
PAUSE_S = 1.0
_REFUSED = "failed with status code 4"  # the dashboard passes on what a job agent said
_HEADERS = "RAY_JOB_HEADERS"
for _name in (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
):
    logging.getLogger(_name).setLevel(logging.WARNING)  # they tell of every package


class Unanswered(JobError):
    """Nothing answers at the address, or not in time; trying again may help."""


class Faltering(Unanswered):
    """The dashboard answers with a failure of its own; `text` is what it says."""

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.text = text


class Client(JobSubmissionClient):
    """The jobs of the cluster whose dashboard is at `url`. Every method raises `JobError` for what it cannot do."""

    def __init__(self, url: str) -> None:
        # JobSubmissionClient would ask the environment first, whatever address it is given.
        SubmissionClient.__init__(self, address=url, headers=_headers())
        self._client_ray_version = ray.__version__
        self.url = url

    def get(self, endpoint: str, *, answer_s: float = ANSWER_S) -> Any:
        """The JSON at `endpoint`. None where there is nothing."""
        answer = self._do_request("GET", endpoint, timeout=(CONNECT_S, answer_s))
        if answer.status_code == 404:
            return None
        if answer.status_code != 200:
            self._raise_error(answer)
        try:
            return answer.json()
        except ValueError:
            raise JobError(
                f"{self.url}: expected a Ray dashboard, found something that answers {endpoint} with "
                f"{answer.headers.get('Content-Type', 'something')} instead of JSON"
            ) from None

    def start(self, job_id: str, entrypoint: str, runtime_env: RuntimeEnv, metadata: dict[str, str]) -> None:
        """Submit a job under an id of the caller's; local folders in `runtime_env` are uploaded.

        A cluster that falters is tried again for `FALTERS_S`; with the id, it takes the job once.
        """
        deadline, tried = time.monotonic() + FALTERS_S, False
        while True:
            try:
                self.submit_job(
                    entrypoint=entrypoint, submission_id=job_id, runtime_env=dict(runtime_env), metadata=metadata
                )
                return
            except (RuntimeError, ValueError) as error:
                raise JobError(f"{self.url}: the job was not taken: {_last_line(str(error))}") from None
            except Faltering as error:
                if tried and f"{job_id} already exists" in error.text:
                    return
                if _REFUSED in error.text or time.monotonic() > deadline:
                    raise
            tried = True
            time.sleep(PAUSE_S)

    def _do_request(self, method: str, endpoint: str, **options: Any) -> requests.Response:
        options.setdefault("timeout", (CONNECT_S, UPLOAD_S if method in ("PUT", "POST") else ANSWER_S))
        try:
            answer = super()._do_request(method, endpoint, **options)
        except AuthenticationError as error:
            raise JobError(f"{self.url}: {_unauthorised(str(error))}") from None
        except requests.exceptions.InvalidURL as error:
            raise UsageError(f"address: {self.url}: {error}") from None
        except requests.exceptions.SSLError as error:
            raise JobError(
                f"{self.url}: its certificate is not trusted ({_cause(error)}); see REQUESTS_CA_BUNDLE"
            ) from None
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
            raise Unanswered(
                f"{self.url}: no Ray cluster answers there ({_cause(error)}). Expected the address of a dashboard, as "
                "http://HEAD:8265; is the cluster up, and the port forwarded or open?"
            ) from None
        except requests.exceptions.RequestException as error:
            raise JobError(f"{self.url}: {_cause(error)}") from None
        if answer.status_code in (401, 403):  # a gateway's, or of a cluster that this process knows no token for
            raise JobError(f"{self.url}: {_unauthorised(answer.text)}")
        return answer

    def _raise_error(self, r: requests.Response) -> None:
        if r.status_code == 404:
            raise JobError(f"{self.url}: {_last_line(r.text) or 'no such thing there'}")
        message = f"{self.url}: answered {r.status_code}: {_last_line(r.text)}"
        raise Faltering(message, r.text) if r.status_code >= 500 else JobError(message)


def _headers() -> dict[str, str]:
    text = os.environ.get(_HEADERS)
    if not text:
        return {}
    try:
        found = json.loads(text)
        return {str(name): str(value) for name, value in found.items()}
    except (ValueError, AttributeError):
        raise UsageError(f"{_HEADERS}: expected a JSON object of headers, found something else") from None


def _unauthorised(answer: str) -> str:
    missing = "missing" in answer.lower()
    return (
        f"unauthorised: the cluster {'asks for a token and none was sent' if missing else 'refuses the token'}. "
        "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token"
    )


def _cause(error: BaseException) -> str:
    """The reason at the bottom of a chain of requests' and urllib3's errors, in a few words."""
    if isinstance(error, requests.exceptions.ReadTimeout):
        return "it accepts connections but does not answer in time"
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return f"no answer within {CONNECT_S:.0f} s"
    found = re.findall(r"\[Errno -?\d+\] ([^'\")]+)", str(error))
    return found[-1] if found else _last_line(str(error))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if re.search(r"\w", line)]
    return lines[-1][:500] if lines else ""
