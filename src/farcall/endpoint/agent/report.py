"""What a status report says: the engine's numbers, the agent's backlog, and who and where this process is.

Source: wire protocol, `global_state`.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from farcall import __version__
from farcall.endpoint.agent.events import ReportDue
from farcall.wire.messages import HAS_JOURNAL, EndpointStatusReport, pack_message

__all__ = ["ProcessIdentity", "status_report"]


@dataclass(frozen=True, kw_only=True)
class ProcessIdentity:
    """This process as reports show it. `started_s`: unix seconds."""

    pid: int
    ppid: int
    sid: int
    uid: int
    gid: int
    groups: tuple[int, ...]
    username: str
    started_s: float

    @classmethod
    def of_this_process(cls, started_s: float) -> ProcessIdentity:
        return cls(
            pid=os.getpid(),
            ppid=os.getppid(),
            sid=os.getsid(0),
            uid=os.getuid(),
            gid=os.getgid(),
            groups=tuple(os.getgroups()),
            username=_username(),
            started_s=started_s,
        )

    def members(self) -> dict[str, Any]:
        started = datetime.fromtimestamp(self.started_s, timezone.utc)
        return {
            "posix_pid": self.pid,
            "posix_ppid": self.ppid,
            "posix_sid": self.sid,
            "posix_uid": self.uid,
            "posix_gid": self.gid,
            "posix_groups": list(self.groups),
            "posix_username": self.username,
            "start_iso": started.isoformat(),
            "start_unix": int(self.started_s),
        }


def status_report(
    due: ReportDue,
    *,
    endpoint_id: str,
    heartbeat_period_s: float,
    engine_status: Mapping[str, Any],
    identity: ProcessIdentity,
    config_text: str,
) -> bytes:
    """The packed report. Tasks that wait in the agent count as pending, as if they were in the engine."""
    period = int(heartbeat_period_s) if heartbeat_period_s == int(heartbeat_period_s) else heartbeat_period_s
    state = {
        **engine_status,
        "pending_tasks": due.queued + _count(engine_status.get("pending_tasks")),
        "outstanding_tasks": due.queued + due.started,
        "total_tasks": due.total,
        **identity.members(),
        "config_raw": config_text,
        # Ours, both: a user endpoint says them nowhere else, and has no nodes at first.
        "endpoint_version": __version__,
        "python_version": platform.python_version(),
        "heartbeat_period": period,
        "active": due.is_active,
        HAS_JOURNAL: True,
    }
    return pack_message(
        EndpointStatusReport(endpoint_id=endpoint_id, global_state=state, task_statuses=due.transitions)
    )


def _count(value: Any) -> int:  # the engine's number, if it gives one
    return value if isinstance(value, int) else 0


def _username() -> str:
    with contextlib.suppress(KeyError, ImportError):
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    return str(os.getuid())
