"""User endpoints, as a manager on this machine and its service know them: for `farcall-endpoint status`, and
`farcall-endpoint stop-user-endpoint`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from farcall.cli.site import EX_UNAVAILABLE, Common, configured, fail, find
from farcall.endpoint.directory import EndpointDirectory, Registration, find_endpoints
from farcall.endpoint.manager.control import SOCKET_NAME, ManagerNotHere, ask
from farcall.wire.errors import FarcallError

__all__ = ["is_manager_here", "print_user_endpoints", "stop_user_endpoint", "user_endpoints"]

ASK_PATIENCE_S = 10.0
"""How long the manager may take to answer."""
STOP_PATIENCE_S = 660.0
"""How long a user endpoint may take to end: what its template grants to running tasks, which is ten minutes at most."""
SERVICE_PATIENCE_S = 5.0
_UNITS = ((86_400, "days"), (3_600, "h"), (60, "min"), (1, "s"))


def is_manager_here(directory: EndpointDirectory) -> bool:
    """Whether a manager has run in this directory and not ended in order, or runs."""
    return (directory.path / SOCKET_NAME).exists()


def user_endpoints(directory: EndpointDirectory, registration: Registration | None) -> list[dict[str, Any]] | None:
    """The user endpoints that run, one object each; what only the service knows is added if it answers.

    Returns:
        None if there is no manager here that answers.
    """
    try:
        found = ask(directory.path, {"ask": "status"}, timeout_s=ASK_PATIENCE_S).get("user_endpoints", [])
    except ManagerNotHere:
        return None
    told = {} if registration is None or not found else _told(registration, directory.ca_file)
    return [{**each, **_members(told.get(each["id"], {}))} for each in found]


def _told(registration: Registration, ca_file: Path | None) -> dict[str, dict[str, Any]]:
    from farcall.client.rest import ApiClient
    from farcall.client.retry import RetryPolicy

    try:
        once = RetryPolicy(budget_s=0, unmet_budget_s=0)
        url = registration.service_url
        with ApiClient(url, timeout_s=SERVICE_PATIENCE_S, retry=once, ca_file=ca_file) as client:
            rows = client.console(registration.endpoint_id)
    except (FarcallError, ValueError):
        return {}
    return {str(each.get("user_endpoint_id")): each for each in rows}


def _members(told: Mapping[str, Any]) -> dict[str, Any]:
    """Of the service's words what the manager does not know."""
    total, idle = told.get("total_worker_count"), told.get("idle_worker_count")
    active = round(100 * (total - idle) / total) if isinstance(total, int) and isinstance(idle, int) and total else None
    return {
        "engine_type": told.get("engine_type"),
        "provider_type": told.get("provider_type"),
        "account": told.get("account"),
        "queue": told.get("queue"),
        "nodes": told.get("total_node_count"),
        "workers": total,
        "active_percent": active,
        "node_info": told.get("node_info"),
        "python_version": told.get("python_version"),
        "endpoint_version": told.get("endpoint_version"),
        "client_sdk_versions": told.get("client_sdk_versions"),
    }


def print_user_endpoints(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table; columns in which nothing is known are left out."""
    from farcall.cli.tables import print_table

    if not rows:
        click.echo("No user endpoints run.")
        return
    print_table(
        ("ID", "PID", "Identity", "Local user", "State", "Since", "Account", "Queue", "Nodes", "Workers", "Active",
         "Ends, if idle", "Done", "Running", "Queued", "Versions"),
        [_cells(each) for each in rows],
    )  # fmt: skip


def _cells(row: Mapping[str, Any]) -> list[str]:
    since, percent = row.get("since_unix"), row.get("active_percent")
    return [
        str(row["id"]),
        _text(row.get("pid")),
        _text(row.get("identity")),
        _text(row.get("local_user")),
        _text(row.get("state")),
        f"{datetime.fromtimestamp(since).astimezone():%Y-%m-%d %H:%M:%S}" if since is not None else "",
        _text(row.get("account")),
        _text(row.get("queue")),
        _text(row.get("nodes")),
        _text(row.get("workers")),
        f"{percent}%" if percent is not None else "",
        _left(row.get("idle_until_unix")),
        _text(row.get("executed")),
        _text(row.get("running")),
        _text(row.get("queued")),
        " ".join(_versions(row)),
    ]


def _versions(row: Mapping[str, Any]) -> Iterator[str]:
    for label, key in (("", "endpoint_version"), ("Python ", "python_version")):
        if row.get(key):
            yield f"{label}{row[key]}"


def _left(until: float | None) -> str:
    """Roughly: a user endpoint counts in heartbeats."""
    if until is None:
        return ""
    left_s = max(0, int(until - time.time()))
    size, unit = next((each for each in _UNITS if left_s >= 2 * each[0]), _UNITS[-1])
    return f"in {left_s // size} {unit}"


def _text(value: Any) -> str:
    return "" if value is None else str(value)


@click.command("stop-user-endpoint")
@click.argument("which", metavar="ID")
@click.option("--reason", default="", metavar="TEXT", help="Told to those whose tasks fail.")
@click.option("--endpoint", "name_or_id", metavar="NAME", help="Of the manager. [default: all that run here]")
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.pass_obj
def stop_user_endpoint(common: Common, which: str, reason: str, name_or_id: str | None, as_json: bool) -> None:
    """Stop a user endpoint of a manager on this machine, and wait until it has ended.

    Running tasks get the `shutdown_grace_period` of its template; what is not done then fails, with the reason. The
    next submission starts it again. `farcall-endpoint status NAME` shows the ids.

    \b
    Examples:
      farcall-endpoint stop-user-endpoint 54460200-b652-4f43-a918-02882fa6114a
      farcall-endpoint stop-user-endpoint 54460200-b652-4f43-a918-02882fa6114a --reason "maintenance until noon"
    """
    managers = [each for each in _managers(common, name_or_id) if is_manager_here(each)]
    if not managers:
        where = f"endpoint '{name_or_id}'" if name_or_id else f"any endpoint in {common.base}"
        fail(f"No manager of {where} runs on this machine.", EX_UNAVAILABLE)
    answers = [_stop(each, which, reason) for each in managers]
    stopped = next((each for each in answers if "error" not in each), None)
    if stopped is None:
        fail(" ".join(sorted({str(each["error"]).rstrip(".") + "." for each in answers})), EX_UNAVAILABLE)
    if as_json:
        click.echo(json.dumps(stopped))
        return
    click.echo(f"User endpoint {stopped['stopped']} is stopped.")


def _managers(common: Common, name_or_id: str | None) -> list[EndpointDirectory]:
    if name_or_id is None:
        return find_endpoints(common.base)
    directory = find(common, name_or_id)
    return [directory if directory is not None else configured(common, name_or_id)]


def _stop(directory: EndpointDirectory, which: str, reason: str) -> dict[str, Any]:
    try:
        return ask(directory.path, {"ask": "stop", "which": which, "reason": reason}, timeout_s=STOP_PATIENCE_S)
    except ManagerNotHere as exc:
        return {"error": str(exc)}
