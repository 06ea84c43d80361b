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

__all__ = ["is_manager_here", "print_user_endpoints", "stop_user_endpoint", "user_endpoints", "whole_id"]

ASK_PATIENCE_S = 10.0
"""How long the manager may take to answer."""
STOP_PATIENCE_S = 660.0
"""How long a user endpoint may take to end: what its template grants to running tasks, which is ten minutes at most."""
SERVICE_PATIENCE_S = 5.0
_LEAST_OF_ID = 8
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
    busy = total - idle if isinstance(total, int) and isinstance(idle, int) else None
    return {
        "engine_type": told.get("engine_type"),
        "provider_type": told.get("provider_type"),
        "account": told.get("account"),
        "queue": told.get("queue"),
        "nodes": told.get("total_node_count"),
        "workers": total,
        "busy_workers": busy,
        "active_percent": round(100 * busy / total) if busy is not None and total else None,
        "node_info": told.get("node_info"),
        "python_version": told.get("python_version"),
        "endpoint_version": told.get("endpoint_version"),
        "client_sdk_versions": told.get("client_sdk_versions"),
    }


def print_user_endpoints(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table as wide as the terminal; columns in which nothing is known are left out."""
    from farcall.cli.tables import print_table, terminal_width

    if not rows:
        click.echo("No user endpoints run.")
        return
    print_table(*_fitting(rows, terminal_width()))


_USUAL = ("PID", "Local user", "State", "Workers", "Done/running/queued", "Since")
"""Columns that are always shown, after the id."""
_MORE = ("Identity", "Ends, if idle", "Account", "Queue", "Nodes", "Versions")
"""Columns that are shown where there is room, the most wanted first."""
_ORDER = ("ID", "PID", "Identity", "Local user", "State", "Workers", "Done/running/queued", "Since",
          "Ends, if idle", "Account", "Queue", "Nodes", "Versions")  # fmt: skip


def _fitting(rows: Sequence[Mapping[str, Any]], room: int | None) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Column names and cells. Everything if that fits, else short ids and as many columns as there is room for.

    Args:
        room: characters in a line; None: any number.
    """
    from farcall.cli.tables import table_width

    full = [_cells(each) for each in rows]
    everything = [[cells[name] for name in _ORDER] for cells in full]
    if room is None or table_width(_ORDER, everything) <= room:
        return _ORDER, everything
    short = _short_ids([cells["ID"] for cells in full])
    full = [{**cells, "ID": id_} for cells, id_ in zip(full, short, strict=True)]
    names: list[str] = ["ID", *_USUAL]
    for name in _MORE:
        wider = [each for each in _ORDER if each in names or each == name]
        if table_width(wider, [[cells[each] for each in wider] for cells in full]) <= room:
            names = wider
    return names, [[cells[name] for name in names] for cells in full]


def _short_ids(ids: Sequence[str]) -> list[str]:
    """Their first characters, as many as tell them apart."""
    for length in (8, 13, 18, 23):
        short = [each[:length] for each in ids]
        if len(set(short)) == len(set(ids)):
            return short
    return list(ids)


def whole_id(which: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The id of the user endpoint that is meant by an id, a name, or the beginning of an id as tables show it.

    Returns:
        `which` itself if it fits none of them, or more than one.
    """
    found = {str(row["id"]) for row in rows if which == row.get("name")}
    if not found and len(which) >= _LEAST_OF_ID:
        found = {str(row["id"]) for row in rows if str(row["id"]).startswith(which.lower())}
    return found.pop() if len(found) == 1 else which


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "ID": str(row["id"]),
        "PID": _text(row.get("pid")),
        "Identity": _text(row.get("identity")),
        "Local user": _text(row.get("local_user")),
        "State": _text(row.get("state")),
        "Workers": _workers(row),
        "Done/running/queued": "/".join(_text(row.get(name)) or "0" for name in ("executed", "running", "queued")),
        "Since": _since(row.get("since_unix")),
        "Ends, if idle": _left(row.get("idle_until_unix")),
        "Account": _text(row.get("account")),
        "Queue": _text(row.get("queue")),
        "Nodes": _text(row.get("nodes")),
        "Versions": " ".join(_versions(row)),
    }


def _workers(row: Mapping[str, Any]) -> str:
    """How many are busy, of how many."""
    total, busy = row.get("workers"), row.get("busy_workers")
    return _text(total) if busy is None else f"{busy}/{total} busy"


def _since(at: float | None) -> str:
    """The time of a moment of today, the day of others."""
    if at is None:
        return ""
    then = datetime.fromtimestamp(at).astimezone()
    is_today = then.date() == datetime.now().astimezone().date()
    return f"{then:%H:%M:%S}" if is_today else f"{then:%Y-%m-%d}"


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
    next submission starts it again. `farcall-endpoint status NAME` shows the ids; their first eight characters do.

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
        running = ask(directory.path, {"ask": "status"}, timeout_s=ASK_PATIENCE_S).get("user_endpoints", [])
        which = whole_id(which, running)
        return ask(directory.path, {"ask": "stop", "which": which, "reason": reason}, timeout_s=STOP_PATIENCE_S)
    except ManagerNotHere as exc:
        return {"error": str(exc)}
