"""How an endpoint is, for people and scripts: state, process, tasks. Looks only; changes nothing.

While it runs its journal is locked, and the service's last report is what can be had; otherwise the journal tells.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farcall.endpoint.directory import EndpointDirectory, Registration, RegistrationUnreadable
from farcall.endpoint.pidfile import RunningProcess, running_process

__all__ = ["EndpointStatus", "TaskCounts", "endpoint_state", "endpoint_status"]


@dataclass(frozen=True, kw_only=True)
class TaskCounts:
    """Tasks at an endpoint. None: not known.

    Args:
        queued: accepted, and with no worker yet.
        running: with a worker; of an endpoint that is not running: were, when it ended.
        unconfirmed: results that the service has not confirmed yet.
        source: "journal", or "service" (as of the endpoint's last report).
    """

    queued: int
    running: int
    unconfirmed: int | None
    source: str


@dataclass(frozen=True, kw_only=True)
class EndpointStatus:
    """What is known. `state` as in lists; `started_s`: unix seconds, None if it does not run or is elsewhere."""

    name: str
    state: str
    endpoint_id: str | None
    service_url: str | None
    pid: int | None
    host: str | None
    started_s: float | None
    tasks: TaskCounts | None
    log_path: Path


def endpoint_state(directory: EndpointDirectory, *, is_registered: bool) -> str:
    """Initialized, Running, Disconnected or Stopped; `list -h` says what they mean."""
    process = running_process(directory.pid_path)
    if process is not None:
        return "Running" if process.is_connected else "Disconnected"
    if directory.pid_path.exists():
        return "Disconnected"
    return "Stopped" if is_registered else "Initialized"


def endpoint_status(
    directory: EndpointDirectory, last_report: Callable[[Registration], Mapping[str, Any] | None]
) -> EndpointStatus:
    """Look at an endpoint.

    Args:
        last_report: asked if the endpoint runs: the `global_state` that the service has, or None.
    """
    registration = None
    with contextlib.suppress(RegistrationUnreadable):
        registration = directory.registration()
    process = running_process(directory.pid_path)
    tasks = None
    if process is None:
        tasks = _journaled(directory)
    elif registration is not None:
        tasks = _reported(last_report(registration))
    return EndpointStatus(
        name=directory.name,
        state=endpoint_state(directory, is_registered=registration is not None),
        endpoint_id=registration.endpoint_id if registration is not None else None,
        service_url=registration.service_url if registration is not None else None,
        pid=process.pid if process is not None else None,
        host=process.host if process is not None else None,
        started_s=_started_s(process),
        tasks=tasks,
        log_path=directory.log_path,
    )


def _journaled(directory: EndpointDirectory) -> TaskCounts | None:
    from farcall.endpoint.journal import Phase, count_phases

    counts = count_phases(directory.journal_path)
    if counts is None:
        return None
    return TaskCounts(
        queued=counts.get(Phase.QUEUED, 0),
        running=counts.get(Phase.STARTED, 0),
        unconfirmed=counts.get(Phase.FINISHED, 0),
        source="journal",
    )


def _reported(report: Mapping[str, Any] | None) -> TaskCounts | None:
    report = report or {}
    outstanding, pending = report.get("outstanding_tasks"), report.get("pending_tasks")
    if not isinstance(outstanding, int) or not isinstance(pending, int):
        return None
    queued = min(pending, outstanding)
    return TaskCounts(queued=queued, running=outstanding - queued, unconfirmed=None, source="service")


def _started_s(process: RunningProcess | None) -> float | None:
    """When a process of this machine began. Source: Linux, proc(5): /proc/PID/stat, field 22; /proc/stat, btime."""
    if process is None or process.pid is None or not process.is_here:
        return None
    try:
        after_name = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        lines = Path("/proc/stat").read_text(encoding="utf-8").splitlines()
        boot_s = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
        return boot_s + int(after_name[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, StopIteration):
        return None
