"""How tasks are shown in a terminal: a list of one's own, and one of them with its way. The commands are in `user`."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click
from rich.text import Text

from farcall.cli.tables import print_rows, print_table

__all__ = ["STATES", "parse_since", "print_task", "print_tasks", "time_text"]

STATES = ("received", "waiting-for-nodes", "running", "success", "failed", "cancelled")
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_COLOURS = {"success": "green", "failed": "red", "cancelled": "yellow", "running": "cyan"}


def parse_since(text: str, *, now: float) -> float:
    """A time in Unix seconds, of a span before now (`90s`, `30m`, `1h`, `2d`, `1w`) or of a date and time in ISO 8601
    (of this machine's zone, if it names none). Raises ValueError.
    """
    span = _SPAN.fullmatch(text.strip().lower())
    if span is not None:
        return now - float(span[1]) * _UNITS_S[span[2]]
    try:
        return datetime.fromisoformat(text.strip()).astimezone().timestamp()
    except (ValueError, OverflowError, OSError) as exc:
        raise ValueError(
            f"{text!r} is no time. Write how long ago (30m, 1h, 2d), or a date (2026-11-23, 2026-11-23T08:30)."
        ) from exc


def print_tasks(tasks: Sequence[Mapping[str, Any]], *, is_more: bool, now: float | None = None) -> None:
    """A table, newest first."""
    if not tasks:
        click.echo("No such tasks in the last ones that were looked at." if is_more else "No such tasks.")
    else:
        at = time.time() if now is None else now
        rows = [
            (
                str(task["task_id"]),
                Text(str(task["state"]), style=_COLOURS.get(str(task["state"]), "")),
                str(task["function_name"] or task["function_id"]),
                str(task["endpoint_name"] or task["endpoint_id"]),
                time_text(task["submitted_at"]) or "",
                _took(task["submitted_at"], task["ended_at"], at),
                str(task["error_code"] or ""),
            )
            for task in tasks
        ]
        print_table(("ID", "State", "Function", "Endpoint", "Submitted", "Took", "Error"), rows)
    if is_more:
        click.echo("There are more: --limit, or look further back with --since.", err=True)


def print_task(task: Mapping[str, Any]) -> None:
    """All that is known of a task but its result."""
    result = task.get("result")
    rows = [
        ("Task", task["task_id"]),
        ("State", task["state"]),
        ("Function", _named(task["function_name"], task["function_id"])),
        ("Endpoint", _named(task["endpoint_name"], task["endpoint_id"])),
        ("User endpoint", task.get("user_endpoint_id")),
        ("Task group", task["task_group_id"]),
        ("Attempts", task.get("attempts")),
        ("Result", None if not result else f"{result['size_bytes']:,} bytes, {result['kind_meaning'] or 'unknown'}"),
        ("Waits", task.get("waiting_because")),
    ]
    print_rows([(name, str(value)) for name, value in rows if value not in (None, "")])
    click.echo()
    before = None
    for step in task["timeline"]:
        at = step["at"]
        after = "" if at is None or before is None else f"  +{_span(max(0.0, at - before))}"
        click.echo(f"{time_text(at) or '–':23}  {step['state']} ({step['by']}){after}")
        before = at if at is not None else before
    for told in (task.get("error"), task.get("withheld")):
        if told:
            click.echo(f"\n{told['code']}: {told['text']}")
            if told.get("traceback"):
                click.echo(f"\n{str(told['traceback']).strip()}")


def time_text(at_s: object) -> str | None:
    """A time of this machine's zone, to the millisecond; None for what is no time."""
    try:
        at = datetime.fromtimestamp(float(at_s))  # type: ignore[arg-type]  # what is no number is not shown
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _named(name: object, id_: object) -> str:
    return f"{name} ({id_})" if name else str(id_)


def _took(begun: object, ended: object, now: float) -> str:
    if not isinstance(begun, (int, float)):
        return ""
    return _span(max(0.0, ended - begun)) if isinstance(ended, (int, float)) else f"{_span(max(0.0, now - begun))} …"


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"
