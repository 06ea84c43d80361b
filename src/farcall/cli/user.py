"""The user's command, `farcall`: log in, look at endpoints and tasks, cancel, try an endpoint out.

Composes the REST client with the token store and the terminal. What is heavy (the SDK) is imported by the commands that
run something.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import click
from rich.text import Text

from farcall import __version__
from farcall.cli import login as logins
from farcall.cli.groups import Commands
from farcall.cli.tables import print_rows, print_table
from farcall.cli.tasks import STATES, parse_since, print_task, print_tasks, time_text
from farcall.client.rest import ApiClient
from farcall.client.settings import service_url
from farcall.tls import CaFileUnusable
from farcall.wire.errors import (
    ApiError,
    FarcallError,
    Forbidden,
    InvalidRequest,
    LoginFailed,
    LoginNotOffered,
    NotAService,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    ResourceLocked,
    ServiceUnavailable,
    ServiceUnreachable,
    TaskPending,
    Unauthenticated,
)

__all__ = ["main"]

EX_USAGE, EX_DATAERR, EX_UNAVAILABLE, EX_SOFTWARE, EX_TEMPFAIL, EX_NOPERM, EX_CONFIG = 64, 65, 69, 70, 75, 77, 78

EX_INTERRUPTED = 130

_UNKNOWN = "–"

_STATUS_BY_ERROR: tuple[tuple[type[BaseException], int], ...] = (
    (ServiceUnreachable, EX_UNAVAILABLE),
    (ServiceUnavailable, EX_UNAVAILABLE),
    (CaFileUnusable, EX_CONFIG),
    (NotAService, EX_UNAVAILABLE),
    (RateLimited, EX_TEMPFAIL),
    (ResourceLocked, EX_TEMPFAIL),
    (TaskPending, EX_TEMPFAIL),
    (Unauthenticated, EX_NOPERM),
    (Forbidden, EX_NOPERM),
    (LoginFailed, EX_NOPERM),
    (LoginNotOffered, EX_UNAVAILABLE),
    (NotFound, EX_DATAERR),
    (InvalidRequest, EX_DATAERR),
    (PayloadTooLarge, EX_DATAERR),
    (ValueError, EX_DATAERR),
)

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Use a Farcall service: log in, look at endpoints and tasks, try an endpoint out.

    \b
    On the machine whose user started the service, no login is needed:
      farcall endpoints
      farcall run my-first-endpoint hostname
    \b
    Elsewhere, once:
      farcall login https://farcall.example.org
    """


@main.command()
@click.argument("url", required=False)
@logins.login_options
def login(url: str | None, **options: Any) -> None:
    """Log in at the service at URL, and remember both as what is used from now on.

    A browser opens; where there is none (a login node, a notebook's server), you get a code that you confirm in a
    browser on any device. A token that the service's operator gave you can be pasted (--token), piped in, or stand
    in the environment variable FARCALL_TOKEN.

    What comes of it is kept in ~/.farcall/tokens.json, readable only by you, and renewed by itself. Logins of
    several services and people are kept side by side: see `farcall accounts`.

    \b
    Examples:
      farcall login https://farcall.example.org
      farcall login https://farcall.example.org --device
      farcall login http://localhost:5000 < token.txt
      farcall login https://farcall.example.org --ca-file /etc/ssl/example-ca.pem
    """
    with _errors_as_exit_codes():
        logins.login(url, logins.Wish(**options))


@main.command()
@click.argument("url", required=False)
@click.option("--account", metavar="NAME", help="Of this user; otherwise the login in use.")
def logout(url: str | None, account: str | None) -> None:
    """Have the service revoke the tokens of a login, and forget them.

    Endpoints of yours that use the login run on until they register again.

    \b
    Examples:
      farcall logout
      farcall logout https://farcall.example.org --account ada@example.org
    """
    with _errors_as_exit_codes():
        logins.logout(url, account)


@main.command()
@click.option("--linked-identities", is_flag=True, help="Show all identities that are linked with yours.")
@_json_option
def whoami(linked_identities: bool, as_json: bool) -> None:
    """Show who you are at which service.

    \b
    Examples:
      farcall whoami
      farcall whoami --linked-identities
    """
    with _errors_as_exit_codes():
        logins.whoami(linked=linked_identities, as_json=as_json)


@main.command()
@_json_option
def accounts(as_json: bool) -> None:
    """List the logins that are kept: at which services, as whom, and which are in use.

    \b
    Example:
      farcall accounts
    """
    with _errors_as_exit_codes():
        logins.show_accounts(as_json=as_json)


@main.command()
@click.argument("names", metavar="ACCOUNT|URL...", nargs=-1, required=True)
def switch(names: tuple[str, ...]) -> None:
    """Use another kept login, another service, or both, from now on. Programs that run keep theirs.

    For one terminal or program only, set FARCALL_ACCOUNT (a user name) and FARCALL_SERVICE_URL instead.

    \b
    Examples:
      farcall switch ada@example.org
      farcall switch https://farcall.example.org
    """
    with _errors_as_exit_codes():
        logins.switch(names)


@main.command()
@_json_option
def version(as_json: bool) -> None:
    """Show the version of this command and of the service.

    \b
    Example:
      farcall version
    """
    document: dict[str, Any] = {"farcall": __version__, "service": None, "service_version": None}
    problem = ""
    with _errors_as_exit_codes():
        address = service_url()
        try:
            with ApiClient(address) as client:
                answer = client.version()
            document.update(service=address, service_version=answer.get("farcall"), api=answer.get("api"))
        except FarcallError as exc:
            problem = str(exc)
    if as_json:
        _print_json(document)
        return
    click.echo(f"farcall {__version__}")
    click.echo(problem or f"service {document['service_version'] or 'of another family'} at {document['service']}")


@main.command()
@click.option("--role", type=click.Choice(["owner", "any"]), default="owner", help="Only yours, or all you may use.")
@_json_option
def endpoints(role: str, as_json: bool) -> None:
    """List endpoints and whether they are online.

    \b
    Examples:
      farcall endpoints
      farcall endpoints --role any --json
    """
    with _service() as client:
        rows = [{**entry, "status": _status(client, entry["uuid"])} for entry in client.endpoints(role)]
        if as_json:
            _print_json(rows)
            return
        if not rows:
            click.echo(_NO_ENDPOINTS if role == "any" else f"{_NONE_OF_YOURS} {_NO_ENDPOINTS}")
            return
        print_table(("ID", "Status", "Name"), [(row["uuid"], _coloured(row["status"]), _names(row)) for row in rows])


_NO_ENDPOINTS = "`farcall-endpoint configure NAME` makes an endpoint."
_NONE_OF_YOURS = "No endpoints of yours. `farcall endpoints --role any` lists those of others that you may know of;"


def _coloured(status: str) -> Text:
    return Text(status, style="green" if status == "online" else "")


def _names(entry: Mapping[str, Any]) -> str:
    name, display_name = str(entry["name"]), entry.get("display_name")
    return name if display_name in (None, "", name) else f"{name} ({display_name})"


def _status(client: ApiClient, endpoint_id: str) -> str:
    try:
        return str(client.endpoint_status(endpoint_id).get("status", "unknown"))
    except NotFound:  # deleted since the list was made
        return "deleted"


@main.command()
@click.argument("endpoint", metavar="ENDPOINT")
@_json_option
def endpoint(endpoint: str, as_json: bool) -> None:
    """Show an endpoint, named by its id or (one of yours) its name: state, workers, versions.

    \b
    Example:
      farcall endpoint my-first-endpoint
    """
    with _service() as client:
        endpoint_id = _endpoint_id(client, endpoint)
        document = {**client.endpoint(endpoint_id), **_prefixed(client.endpoint_status(endpoint_id))}
        if as_json:
            _print_json(document)
            return
        report, is_online = document["details"], document["status"] == "online"
        kind = _manager_kind(document)
        is_at_work = is_online and kind is None  # a manager runs no task itself
        rows = [
            ("ID", endpoint_id),
            ("Kind", kind),
            ("Status", document["status"]),
            ("Last seen", None if is_online else time_text(document["last_report"]) or "never"),
            ("Name", document.get("name")),
            ("Display name", document.get("display_name")),
            ("Host", document.get("hostname")),
            ("Local user", document.get("local_user")),
            ("Version", document.get("endpoint_version")),
            ("Python", document.get("python_version")),
            ("Engine", report.get("engine_type")),
            ("Workers", _workers(report, document["last_report"]) if is_at_work else None),
            ("Tasks", _tasks(report) if is_at_work else None),
        ]
        _print_rows(rows)


def _manager_kind(document: Mapping[str, Any]) -> str | None:
    """What kind of manager an endpoint is; None: it is none, or that is not for the caller to know."""
    if document.get("multi_user"):
        return "multi-user: starts a user endpoint for each person"
    if document.get("user_config_template"):
        return "manager: starts user endpoints, which run as its owner"
    return None


def _prefixed(status: Mapping[str, Any]) -> dict[str, Any]:
    details = status.get("details")
    return {
        "status": status.get("status", "unknown"),
        "details": details if isinstance(details, Mapping) else {},
        "last_report": status.get("last_report"),
    }


def _workers(report: Mapping[str, Any], reported_at: Any) -> str:
    total, idle = report.get("total_workers"), report.get("idle_workers")
    if total is None or (total == 0 and _is_first(report, reported_at)):
        return _UNKNOWN
    return f"{total}, {idle} idle" if total and idle is not None else f"{total}"


def _is_first(report: Mapping[str, Any], reported_at: Any) -> bool:
    """Whether a report was made while its endpoint started: workers may have come since."""
    try:
        return float(reported_at) - float(report["start_unix"]) < float(report["heartbeat_period"])
    except (KeyError, TypeError, ValueError):
        return False


def _tasks(report: Mapping[str, Any]) -> str:
    pending, outstanding = report.get("pending_tasks"), report.get("outstanding_tasks")
    return _UNKNOWN if pending is None else f"{outstanding or 0} in hand, {pending} of them waiting"


@main.command()
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Only these; may be repeated.")
@click.option("--endpoint", metavar="ENDPOINT", help="Only of this endpoint: its id or (one of yours) its name.")
@click.option("--function", metavar="ID", help="Only of this function.")
@click.option("--group", metavar="ID", help="Only of this task group.")
@click.option("--since", metavar="TIME", help="Submitted since: how long ago (30m, 1h, 2d), or a date and time.")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="At most so many.")
@_json_option
def tasks(
    states: tuple[str, ...],
    endpoint: str | None,
    function: str | None,
    group: str | None,
    since: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List your tasks, newest first.

    \b
    Examples:
      farcall tasks --state failed --since 1h
      farcall tasks --endpoint my-first-endpoint --limit 100 --json
    """
    with _service() as client:
        page = client.tasks(
            state=",".join(states) or None,
            endpoint_id=None if endpoint is None else _endpoint_id(client, endpoint),
            function_id=function,
            task_group_id=group,
            since=None if since is None else parse_since(since, now=time.time()),
            limit=limit,
        )
        if as_json:
            _print_json(page["tasks"])
            return
        print_tasks(page["tasks"], is_more=page.get("next_cursor") is not None)


@main.command()
@click.argument("task_id", metavar="TASK")
@_json_option
def task(task_id: str, as_json: bool) -> None:
    """Show a task: its state, when it went through which, why it waits, and why it failed.

    \b
    Example:
      farcall task 01a205c2-652c-7c76-8cb3-f3924a997f88
    """
    with _service() as client:
        details = _details(client, task_id)
        if details is not None and not as_json:
            print_task(details)
            return
        document = client.task(task_id)
        if as_json:
            _print_json({**{name: told for name, told in document.items() if name != "result"}, **(details or {})})
            return
        transitions = (document.get("details") or {}).get("task_transitions") or {}
        rows = [("Task", document.get("task_id")), ("State", document.get("status"))]
        rows += [(state, time_text(at_s)) for state, at_s in sorted(transitions.items(), key=lambda item: item[1])]
        rows += [("Ended", time_text(document.get("completion_t"))), ("Reason", document.get("reason"))]
        _print_rows(rows)
        told = str(document.get("exception") or "").strip()
        if told and told not in str(document.get("reason")):
            click.echo(f"\n{told}")


def _details(client: ApiClient, task_id: str) -> dict[str, Any] | None:
    """What only our services tell of a task; None from others."""
    try:
        return client.task_details(task_id)
    except ApiError as exc:
        if exc.http_status in (404, 405):  # or there is no such task, as will be said
            return None
        raise


@main.command()
@click.argument("task_id", metavar="TASK")
def result(task_id: str) -> None:
    """Print a task's result as Python shows it; the error of a task that failed goes to standard error.

    Of a shell command: what it printed, and its exit status, as `farcall run` does.

    Loading a result runs code that the worker sent: look only at results of endpoints that you trust.

    \b
    Example:
      farcall result 01a205c2-652c-7c76-8cb3-f3924a997f88
    """
    from farcall.client.rest import uuid_text
    from farcall.sdk import Client, ShellResult

    with _service() as client:
        wanted = uuid_text(task_id, "TASK")
        try:
            value = Client(api=client, do_version_check=False).get_result(wanted)
        except (ApiError, ServiceUnreachable, TaskPending):
            raise
        except Exception as exc:  # any: what the function raised
            _fail(f"{type(exc).__name__}: {exc}" + (f"\n{exc.__cause__}" if exc.__cause__ else ""), 1)
        if isinstance(value, ShellResult):
            _end_as(value)
        click.echo(value if isinstance(value, str) else repr(value))


@main.command()
@click.argument("task_ids", metavar="TASK...", nargs=-1, required=True)
def cancel(task_ids: tuple[str, ...]) -> None:
    """Cancel tasks: they do not start any more, or their outcome is discarded if they run.

    \b
    Example:
      farcall cancel 01a205c2-652c-7c76-8cb3-f3924a997f88
    """
    from farcall.client.rest import uuid_text

    with _service() as client:
        for task_id in [uuid_text(text, "TASK") for text in task_ids]:  # all or none, if one is mistyped
            status = client.cancel_task(task_id).get("status")
            click.echo(f"{task_id}: {status if status == 'cancelled' else f'has ended before ({status})'}")


def _options(_context: click.Context, _parameter: click.Parameter, value: str | None) -> dict[str, Any] | None:
    if value is None:
        return None
    try:
        options = json.loads(value)
    except ValueError as exc:
        raise click.BadParameter(f"this is not JSON: {exc}") from exc
    if not isinstance(options, dict):
        raise click.BadParameter('an object with names and values is expected: {"WORKERS": 5}')
    return options


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("endpoint", metavar="ENDPOINT")
@click.argument("command", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--walltime", type=float, metavar="SECONDS", help="End the command after this time.")
@click.option(
    "--user-endpoint-config",
    "options",
    metavar="JSON",
    callback=_options,
    help="Of a multi-user endpoint: the options that its template knows.",
)
def run(endpoint: str, command: tuple[str, ...], walltime: float | None, options: dict[str, Any] | None) -> None:
    """Run a shell command on an endpoint, and print what it prints. Good to try an endpoint out.

    The exit status is the command's. What a shell would interpret goes into quotes. The last 1000 lines
    of each stream come back.

    \b
    Examples:
      farcall run my-first-endpoint hostname
      farcall run my-first-endpoint 'nvidia-smi | head -15'
      farcall run 54460200-b652-4f43-a918-02882fa6114a --user-endpoint-config '{"WORKERS": 5}' hostname
    """
    from farcall.sdk import Client, Executor, ShellFunction

    with _service() as client:
        endpoint_id = _endpoint_id(client, endpoint)
        is_online = _status(client, endpoint_id) == "online"
        # As an argument of the template rather than the template: braces in it are the shell's.
        shell = ShellFunction("{command}", walltime=walltime)
        sdk = Client(api=client, do_version_check=False)
        with Executor(endpoint_id, sdk, user_endpoint_config=options) as executor:
            future = executor.submit(shell, command=" ".join(command))
            try:
                task_id = future.wait_accepted()
                if task_id is not None and not is_online:
                    click.echo(_OFFLINE.format(endpoint=endpoint, task=task_id), err=True)
                done: Any = future.result()  # a ShellResult, since return_dict is off
            except KeyboardInterrupt:
                if future.task_id is None:
                    raise
                _fail(_LEFT.format(task=future.task_id), EX_INTERRUPTED)
        _end_as(done)


_OFFLINE = (
    "Endpoint {endpoint} is offline; task {task} waits for it at the service.\n"
    "Ctrl-C leaves it there; `farcall result {task}` fetches its result later."
)
_LEFT = "Interrupted; task {task} stays at the service: `farcall result {task}` or `farcall cancel {task}`."


def _end_as(done: Any) -> NoReturn:
    """Print what a shell command printed, and exit with its status."""
    click.echo(done.stdout, nl=False)
    click.echo(done.stderr, nl=False, err=True)
    sys.exit(done.returncode if 0 <= done.returncode <= 255 else 1)


# --- helpers


@contextlib.contextmanager
def _service() -> Iterator[ApiClient]:
    with _errors_as_exit_codes(), ApiClient() as client:
        yield client


@contextlib.contextmanager
def _errors_as_exit_codes() -> Iterator[None]:
    try:
        yield
    except (FarcallError, ValueError) as exc:
        _fail(exc, _status_of(exc))
    except KeyboardInterrupt:
        _fail("Interrupted.", EX_INTERRUPTED)


def _status_of(error: BaseException) -> int:
    return next((status for kind, status in _STATUS_BY_ERROR if isinstance(error, kind)), EX_SOFTWARE)


def _fail(message: object, status: int) -> NoReturn:
    click.echo(str(message).strip(), err=True)
    sys.exit(status)


def _endpoint_id(client: ApiClient, text: str) -> str:
    """The id that is meant by an id or by the name of one of the caller's endpoints."""
    from uuid import UUID

    with contextlib.suppress(ValueError):
        return str(UUID(text))
    mine = client.endpoints("owner")
    found = [entry["uuid"] for entry in mine if entry["name"] == text]
    if len(found) == 1:
        return str(found[0])
    if found:
        raise ValueError(f"{len(found)} of your endpoints are called {text!r}; use an id: {', '.join(found)}")
    names = ", ".join(sorted({entry["name"] for entry in mine})) or "none yet"
    raise ValueError(f"{text!r} is neither an endpoint's id nor the name of one of yours ({names}).")


def _print_rows(rows: list[tuple[str, Any]]) -> None:
    print_rows([(name, str(value)) for name, value in rows if value not in (None, "")])


def _print_json(document: object) -> None:
    click.echo(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
