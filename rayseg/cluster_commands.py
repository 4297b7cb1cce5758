"""The commands for a cluster: `submit`, `jobs`, `doctor`. The command line's other half, see `cli`."""

from __future__ import annotations

import os
from typing import Annotated, Any, Optional

import typer

Address = Annotated[
    Optional[str],
    typer.Option(help="the cluster's dashboard, http://HEAD:8265; else $RAY_API_SERVER_ADDRESS, $RAY_ADDRESS"),
]
AsJson = Annotated[bool, typer.Option("--json", help="as JSON")]
Id = Annotated[str, typer.Argument(metavar="ID", help="what submit has said, or jobs list")]

jobs = typer.Typer(help="Jobs on a cluster: list, status, logs, cancel.", no_args_is_help=True, rich_markup_mode=None)


def add_to(app: typer.Typer) -> None:
    """Give `app` the commands of this file."""
    app.command(epilog=_SUBMIT_EXAMPLES)(submit)
    app.add_typer(jobs, name="jobs")
    app.command(epilog=_DOCTOR_EXAMPLES)(doctor)


_SUBMIT_EXAMPLES = """\b
Examples:
  rayseg submit jobs/label.yaml --address http://127.0.0.1:8265 --follow
  rayseg submit jobs/train.yaml out=s3://my-models/run-2 workers=8
  rayseg submit jobs/label.yaml --env AWS_ENDPOINT_URL --flag=--retry-failed"""


def submit(
    file: Annotated[str, typer.Argument(metavar="SPEC", help="YAML file with the spec, see jobs/")],
    words: Annotated[Optional[list[str]], typer.Argument(metavar="[KEY=VALUE]...", help="any field of it")] = None,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", help="show the job's progress to its end")] = False,
    command: Annotated[Optional[str], typer.Option(help="label, train, eval, ...; none: by the spec")] = None,
    package: Annotated[
        str, typer.Option(help="auto: send this rayseg where the image has none; ship: always; image: never")
    ] = "auto",
    env: Annotated[
        Optional[list[str]], typer.Option(help="NAME or NAME=VALUE for the job; everyone who sees the job sees it")
    ] = None,
    flag: Annotated[Optional[list[str]], typer.Option(help="of the command itself: --flag=--retry-failed")] = None,
    shared_paths: Annotated[
        bool, typer.Option("--shared-paths", help="local paths are the same folders on every node")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="the job's id as JSON on stdout, the rest on stderr")] = False,
) -> None:
    """Run a job on a cluster, through its dashboard: with the spec, and this rayseg where the image has none.

    Exit code 0: it runs, or with --follow has ended well; with --follow it is the job's own. Ctrl-C detaches.
    """
    from rayseg.submit.commands import read_job

    job = read_job(file, words or (), command)
    from rayseg.submit.run import Submission, watch
    from rayseg.submit.run import submit as submit_job

    how = Submission(_package(package), shared_paths, _environment(env or []), tuple(flag or ()))
    server, job_id = submit_job(job, address, how, _say)
    _say(f"job {job_id} at {server.url}")
    if json:
        _print({"id": job_id, "command": job.command, "address": server.url}, True)
    raise typer.Exit(watch(server, job_id, to_the_end=follow, say=_say))


@jobs.command("list", epilog="Example: rayseg jobs list --address http://127.0.0.1:8265")
def list_jobs(address: Address = None, json: AsJson = False) -> None:
    """The jobs that the cluster remembers, newest first."""
    from rayseg.submit.jobs import records, table
    from rayseg.submit.server import reach

    found = records(reach(address).client)
    _print(found if json else table(found), json)


@jobs.command()
def status(job_id: Id, address: Address = None, json: AsJson = False) -> None:
    """How a job is going, or how it ended."""
    from rayseg.submit.jobs import record, text
    from rayseg.submit.server import reach

    found = record(reach(address).client.get_job_info(job_id))
    _print(found if json else text(found), json)


@jobs.command()
def logs(
    job_id: Id,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", help="until it ends; the exit code is the job's")] = False,
) -> None:
    """What a job has said."""
    from rayseg.submit.run import watch
    from rayseg.submit.server import reach

    server = reach(address)
    if follow:
        raise typer.Exit(watch(server, job_id, to_the_end=True, say=_say))
    typer.echo(server.client.get_job_logs(job_id), nl=False)


@jobs.command()
def cancel(job_id: Id, address: Address = None) -> None:
    """Stop a job; it stores what is finished first. Submitting the same spec again goes on from there."""
    from rayseg.submit.jobs import cancel as cancel_job
    from rayseg.submit.server import reach

    found = cancel_job(reach(address).client, job_id)
    typer.echo(f"job {job_id}: {found.status.lower()}")


_DOCTOR_EXAMPLES = """\b
Examples:
  rayseg doctor --storage s3://my-labels
  rayseg doctor --address http://127.0.0.1:8265 --storage s3://my-labels
  rayseg doctor --address 10.0.0.5:6379 --json"""


def doctor(
    address: Annotated[
        Optional[str], typer.Option(help="a cluster: its dashboard, or what Ray joins; else $RAY_ADDRESS, this machine")
    ] = None,
    storage: Annotated[
        Optional[list[str]], typer.Option(help="a place for outputs to try, s3:// or local; may come again")
    ] = None,
    package: Annotated[str, typer.Option(help="with a dashboard: as for submit")] = "auto",
    env: Annotated[Optional[list[str]], typer.Option(help="with a dashboard: as for submit")] = None,
    json: AsJson = False,
) -> None:
    """Look at this machine or a cluster: what will work, what will not, and what to do about it. Exit code 1: a fail."""
    from rayseg.doctor.lines import Line, verdict

    address = address or os.environ.get("RAY_ADDRESS")
    if (address or "").startswith(("http://", "https://")):
        from rayseg.submit.examining import examine_there
        from rayseg.submit.run import Submission

        how = Submission(_package(package), env=_environment(env or []))
        lines = [Line(**line) for line in examine_there(address or "", storage or [], how, _say)]
    else:
        from rayseg.doctor.run import examine

        lines = examine(address, storage or [], _say)
    if json:
        _print({"event": "doctor", "lines": [line.as_json() for line in lines]}, True)
    else:
        typer.echo("\n".join([*(line.text() for line in lines), verdict(lines)]))
    if any(line.state == "fail" for line in lines):
        raise typer.Exit(1)


def _package(value: str) -> Any:
    from rayseg.errors import UsageError

    if value not in ("auto", "ship", "image"):
        raise UsageError(f"--package {value!r}: expected auto, ship or image")
    return value


def _environment(words: list[str]) -> tuple[tuple[str, str], ...]:
    from rayseg.errors import UsageError

    found = []
    for word in words:
        name, equals, value = word.partition("=")
        if not name or (not equals and name not in os.environ):
            raise UsageError(f"--env {word!r}: expected NAME=VALUE, or the name of a variable that is set here")
        found.append((name, value if equals else os.environ[name]))
    return tuple(found)


def _say(message: str) -> None:
    typer.echo(message, err=True)


def _print(value: Any, as_json: bool) -> None:
    if as_json:
        from json import dumps

        value = dumps(value)
    typer.echo(value)
