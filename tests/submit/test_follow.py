"""A job's words come once each, across lost connections; its end is told, and Ctrl-C leaves it alone."""

import pytest
from ray.job_submission import JobDetails, JobStatus

from rayseg.errors import JobError
from rayseg.submit import follow as following
from rayseg.submit import run
from rayseg.submit.client import Unanswered
from rayseg.submit.follow import Ending, ending, follow
from rayseg.submit.start import CHECKED

LOG = "Running entrypoint for job x: python start.py\n" + CHECKED + "Ray\n1/2 images\n2/2 images\nno end of line"


def details(status, exit_code=None, message=""):
    return JobDetails(
        type="SUBMISSION", submission_id="x", status=JobStatus(status), entrypoint="", message=message,
        driver_exit_code=exit_code, driver_agent_http_address="http://127.0.0.1:1",
    )  # fmt: skip


class Client:
    """A cluster whose connections bring `pieces` of the log each, cut off by an error where one is given."""

    url = "http://head:8265"

    def __init__(self, connections, end):
        self.connections, self.end = list(connections), end
        self.asked = 0

    def get_job_info(self, job_id):
        self.asked += 1
        return self.end if not self.connections else details("RUNNING")

    async def tail_job_logs(self, job_id):
        pieces = self.connections.pop(0) if self.connections else [LOG]
        for piece in pieces:
            if isinstance(piece, BaseException):
                raise piece
            yield piece


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(following, "RETRY_S", 0.0)
    monkeypatch.setattr(following, "POLL_S", 0.0)


def told(client, **options):
    said = []
    found = follow(client, "x", said.append, **options)
    return "".join(said), found


def test_every_word_once_across_lost_connections():
    pieces = [LOG[i : i + 7] for i in range(0, len(LOG), 7)]
    lost = ConnectionError("gone")
    client = Client(
        [[*pieces[:5], lost], [Unanswered("no")], [LOG[:30], LOG[30:60], RuntimeError("1006")], pieces], None
    )
    client.end = details("SUCCEEDED", 0)
    said, found = told(client)
    assert said == LOG.partition("\n")[2]  # without Ray's own first line
    assert found == Ending("SUCCEEDED", 0, "") and found.code == 0


@pytest.mark.parametrize(
    ("status", "exit_code", "code"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 2, 2),
        ("FAILED", 1, 1),
        ("FAILED", None, 1),
        ("FAILED", -9, 1),
        ("STOPPED", 130, 1),
    ],
)
def test_the_exit_code_is_the_jobs(status, exit_code, code):
    assert ending(details(status, exit_code)).code == code
    assert ending(details("RUNNING")) is None


def test_it_may_be_left_once_it_has_checked_itself():
    client = Client([[LOG[:60], LOG[60:]]], details("SUCCEEDED", 0))
    said, found = told(client, until=CHECKED)
    assert found is None and said.startswith(CHECKED) and client.asked == 1


def test_a_cluster_that_stays_away_is_given_up(monkeypatch):
    monkeypatch.setattr(following, "AWAY_S", -1.0)
    with pytest.raises(JobError, match="does not answer any more; job x may go on"):
        told(Client([[ConnectionError("gone")]], None))


def test_ctrl_c_detaches_and_says_how_to_come_back(monkeypatch):
    class Server:
        url, client = "http://head:8265", Client([[KeyboardInterrupt()]], None)

    said = []
    assert run.watch(Server(), "x", to_the_end=True, say=said.append) == run.DETACHED
    assert "job x goes on" in said[0]
    assert "rayseg jobs logs x --follow --address http://head:8265" in said[0]
    assert "rayseg jobs cancel x" in said[0]


def test_a_job_that_has_not_begun_in_time_is_left_waiting(monkeypatch):
    class Server:
        url, client = "http://head:8265", Client([], details("PENDING"))

    monkeypatch.setattr(run, "CHECKED_WITHIN_S", 0.05)
    Server.client.end.driver_agent_http_address = None
    said = []
    assert run.watch(Server(), "x", to_the_end=False, say=said.append) == 0
    assert said[0] == "job x is still waiting to start" and "rayseg jobs logs x" in said[1]


def test_a_job_that_never_ran_says_why(capsys):
    class Server:
        url, client = "http://head:8265", Client([], details("FAILED", None, "runtime env could not be set up"))

    said = []
    assert run.watch(Server(), "x", to_the_end=True, say=said.append) == 1
    assert "runtime env could not be set up" in said[-1]
