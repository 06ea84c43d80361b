"""`farcall-endpoint list`, `status` and `delete`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from farcall.cli.manager import is_manager_here, print_user_endpoints, user_endpoints, whole_id
from farcall.cli.running import stop_here
from farcall.cli.site import (
    EX_DATAERR,
    EX_UNAVAILABLE,
    Common,
    configured,
    exit_status,
    fail,
    find,
    name_argument,
    note,
    open_client,
    registration_of,
    service_errors,
)
from farcall.endpoint.directory import EndpointDirectory, Registration, RegistrationUnreadable, find_endpoints
from farcall.endpoint.pidfile import running_process
from farcall.endpoint.status import EndpointStatus, endpoint_state, endpoint_status
from farcall.wire.errors import EndpointNotFound, FarcallError
from farcall.wire.shown import shown

if TYPE_CHECKING:
    from farcall.client.rest import ApiClient

__all__ = ["delete", "list_endpoints", "status"]

STATUS_PATIENCE_S = 5.0
"""How long `status` waits for the service, which only adds to what is known here."""


@click.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
def list_endpoints(common: Common, as_json: bool) -> None:
    """Show the endpoints of this directory.

    \b
    Status:
      Initialized   configured, never started
      Running       working
      Disconnected  its process runs but has no connection to the service,
                    or it ended without being stopped
      Stopped       not running
    """
    rows = [_row(each) for each in find_endpoints(common.base)]
    if as_json:
        click.echo(json.dumps([{"id": row[0], "status": row[1], "name": row[2]} for row in rows], indent=2))
        return
    if not rows:
        click.echo(f"No endpoints in {common.base}. `{common.command('configure NAME')}` makes one.")
        return
    from farcall.cli.tables import print_table

    print_table(("ID", "Status", "Name"), [(row[0] or "", row[1], row[2]) for row in rows])


def _row(directory: EndpointDirectory) -> tuple[str | None, str, str]:
    try:
        registration = directory.registration()
    except RegistrationUnreadable:
        return "(endpoint.json cannot be read)", endpoint_state(directory, is_registered=True), directory.name
    endpoint_id = registration.endpoint_id if registration is not None else None
    return endpoint_id, endpoint_state(directory, is_registered=registration is not None), directory.name


@click.command()
@name_argument
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.option("--config", "config_of", metavar="ID", help="Show the configuration of this user endpoint.")
@click.pass_obj
def status(common: Common, name: str, as_json: bool, config_of: str | None) -> None:
    """Show how an endpoint is: state, process, tasks, log; of a manager also its user endpoints.

    `list -h` says what the states mean. Tasks of a running endpoint are those of its last report to the service; nodes
    and workers of user endpoints are those of their last reports. Of user endpoints a terminal shows what there is room
    for, with as much of an id as tells it from the others; --json has everything.

    \b
    Examples:
      farcall-endpoint status my-first-endpoint
      farcall-endpoint status my-first-endpoint --json
      farcall-endpoint status my-manager --config 54460200-b652-4f43-a918-02882fa6114a
    """
    directory = configured(common, name)
    rows = None
    if is_manager_here(directory):
        rows = user_endpoints(directory, None if config_of is not None else registration_of(directory))
    if config_of is not None:
        _print_config(config_of, rows or ())
        return
    # A manager's own reports say nothing of tasks.
    last_report = partial(_last_report, ca_file=directory.ca_file) if rows is None else lambda registration: None
    found = endpoint_status(directory, last_report)
    if as_json:
        document = {"id": found.endpoint_id, "status": found.state, **asdict(found), "log": str(found.log_path)}
        for moved in ("endpoint_id", "state", "log_path"):
            del document[moved]
        if rows is not None:
            document["user_endpoints"] = rows
        click.echo(json.dumps(document, indent=2))
        return
    for label, text in _status_lines(found):
        click.echo(f"{label + ':':<10}{shown(text)}")
    if rows is not None:
        print_user_endpoints(rows)


def _print_config(user_endpoint_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
    wanted = whole_id(user_endpoint_id, rows)
    config = next((each.get("config") for each in rows if each["id"] == wanted), None)
    if config is None:
        fail(f"No user endpoint {user_endpoint_id} runs here, or it has no configuration yet.", EX_UNAVAILABLE)
    click.echo(shown(config, keep="\n\t"))  # as its process has said; which may be anything


def _status_lines(found: EndpointStatus) -> Iterator[tuple[str, str]]:
    yield "Endpoint", found.name
    yield "Status", found.state
    yield "ID", found.endpoint_id or "none: never registered"
    if found.service_url is not None:
        yield "Service", found.service_url
    if found.pid is not None:
        since = ""
        if found.started_s is not None:
            since = f" since {datetime.fromtimestamp(found.started_s).astimezone():%Y-%m-%d %H:%M:%S %Z}"
        yield "Process", f"{found.pid} on {found.host}{since}"
    tasks = found.tasks
    if tasks is not None and tasks.source == "service":
        yield "Tasks", f"{tasks.queued} queued, {tasks.running} running (as last reported to the service)"
    elif tasks is not None:
        yield "Tasks", f"{tasks.queued} queued, {tasks.running} were running, {tasks.unconfirmed} results to be sent"
    yield "Log", str(found.log_path)


def _last_report(registration: Registration, *, ca_file: Path | None) -> dict[str, Any] | None:
    from farcall.client.rest import ApiClient
    from farcall.client.retry import RetryPolicy

    try:
        once = RetryPolicy(budget_s=0, unmet_budget_s=0)
        with ApiClient(registration.service_url, timeout_s=STATUS_PATIENCE_S, retry=once, ca_file=ca_file) as client:
            details = client.endpoint_status(registration.endpoint_id).get("details")
    except (FarcallError, ValueError):
        return None
    return details if isinstance(details, dict) else None


@click.command()
@click.argument("name_or_id", metavar="NAME_OR_UUID")
@click.option("--force", is_flag=True, help="Stop it if it runs; remove it here even if the service says no.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(common: Common, name_or_id: str, force: bool, yes: bool) -> None:
    """Delete an endpoint at the service, and its directory here.

    Its unfinished tasks fail. The id cannot be used again. By its id an endpoint is deleted even if its
    directory is gone.

    \b
    Examples:
      farcall-endpoint delete my-first-endpoint
      farcall-endpoint delete 54460200-b652-4f43-a918-02882fa6114a --yes
    """
    directory = find(common, name_or_id)
    if directory is None:
        _delete_without_directory(common, name_or_id.lower(), force=force, yes=yes)
        return
    process = running_process(directory.pid_path)
    if process is not None and not force:
        stop_hint = common.command(f"stop {directory.name}")
        fail(f"Endpoint '{directory.name}' is running; stop it first (`{stop_hint}`), or use --force.", EX_UNAVAILABLE)
    if not yes:
        click.confirm(f"Delete endpoint <{directory.name}> with everything in {directory.path}?", abort=True)
    if process is not None:
        stop_here(directory)
    try:
        registration = directory.registration()
    except RegistrationUnreadable as exc:
        if not force:
            fail(exc, EX_DATAERR)
        registration = None
    if registration is not None:
        _delete_at_service(registration, force=force, ca_file=directory.ca_file)
    shutil.rmtree(directory.path)
    click.echo(f"Endpoint <{directory.name}> has been deleted.")


def _delete_without_directory(common: Common, endpoint_id: str, *, force: bool, yes: bool) -> None:
    with open_client() as client, service_errors():
        name = shown(str(client.endpoint(endpoint_id).get("name") or "?"))
        note(f"No endpoint in {common.base} has this id; it is deleted at the service only.")
        if not yes:
            click.confirm(f"Delete endpoint <{name}> ({endpoint_id}) at {client.url}?", abort=True)
        if not force:
            _refuse_if_online(client, endpoint_id, how="there")
        client.delete_endpoint(endpoint_id)
        click.echo(f"Endpoint <{name}> ({endpoint_id}) has been deleted at {client.url}.")


def _refuse_if_online(client: ApiClient, endpoint_id: str, *, how: str) -> None:
    if client.endpoint_status(endpoint_id).get("status") == "online":
        fail(
            f"Endpoint {endpoint_id} is online, on another machine it seems: stop it {how} first, or use --force.",
            EX_UNAVAILABLE,
        )


def _delete_at_service(registration: Registration, *, force: bool, ca_file: Path | None) -> None:
    try:
        with open_client(ca_file) as client:
            endpoint_id = registration.id_with(client.url) or registration.endpoint_id
            if not force:
                _refuse_if_online(client, endpoint_id, how="there, or with `stop --remote`")
            client.delete_endpoint(endpoint_id)
    except EndpointNotFound:
        note("The service does not know this endpoint (any more).")
    except FarcallError as exc:
        if not force:
            fail(f"{exc}\nNothing was deleted. --force removes the directory all the same.", exit_status(exc))
        note(f"The service did not delete it: {exc}")
