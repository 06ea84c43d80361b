"""What a manager hands to a user endpoint: its configuration through a file, its queues and the rest on the line.

There is no login at the service here and nothing to register: whatever is to be asked, the manager is asked.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from farcall.endpoint.agent.line import ManagerLine
from farcall.endpoint.auditlog import AuditEntry, AuditLogUnwritable
from farcall.endpoint.config import LoadedConfig
from farcall.endpoint.manager.line import AuditLine, Begin, Credentials, LineFault
from farcall.endpoint.userconfig import parse_user_config
from farcall.tls import Trust, find_trust
from farcall.wire.rest import QueueInfo, RegistrationResponse, queue_info_from_document

__all__ = ["Handed"]

_LINE: Final = "the line to the endpoint's manager"


class Handed:
    """The origin of a user endpoint.

    Args:
        config_text: as the template has made it.
        begin: what the manager said first.
        line: started.
    """

    def __init__(self, config_text: str, begin: Begin, line: ManagerLine) -> None:
        self._text = config_text
        self._begin = begin
        self._line = line
        self._newest = _queues(begin.user_endpoint_id, begin.queues)
        self._trust, self._authorities = _trust(begin.authorities_pem)

    @property
    def broker_name(self) -> str:
        return "the service's message broker"

    @property
    def trust(self) -> Trust:
        return self._trust

    def load(self) -> LoadedConfig:
        return parse_user_config(self._text, self._begin)

    def queues(
        self, loaded: LoadedConfig, *, cancelled: threading.Event, on_waiting: Callable[[str], None]
    ) -> RegistrationResponse | None:
        return self._newest

    def newest(self) -> RegistrationResponse:
        return self._newest

    def renew(self, credentials: Credentials) -> None:
        """There is a newer login. From any thread. Raises LineFault: it makes no sense."""
        self._newest = _queues(self._begin.user_endpoint_id, credentials.queues)

    def why_refused(self, used: RegistrationResponse, reason: str) -> str | None:
        if self._newest != used:
            return None
        return self._line.ask_whether_credential_counts(reason)

    def is_audited(self, loaded: LoadedConfig) -> bool:
        return self._begin.is_audited

    def audit(self, loaded: LoadedConfig, endpoint_id: str) -> contextlib.AbstractContextManager[_AuditLines | None]:
        return contextlib.nullcontext(_AuditLines(self._line) if self._begin.is_audited else None)


class _AuditLines:
    """Records with the manager, which puts time, process and user endpoint before each line."""

    def __init__(self, line: ManagerLine) -> None:
        self._line = line

    def write(self, entries: Iterable[AuditEntry]) -> None:
        for each in entries:
            if not self._line.send(AuditLine(text=each.text)):
                raise AuditLogUnwritable(_LINE, "it has ended")


def _queues(endpoint_id: str, members: Mapping[str, Any]) -> RegistrationResponse:
    try:
        heartbeats = queue_info_from_document(members.get("heartbeat_queue_info"))
        return RegistrationResponse(
            endpoint_id=endpoint_id,
            heartbeat_queue_info=_need(heartbeats, "heartbeat_queue_info"),
            task_queue_info=_need(queue_info_from_document(members.get("task_queue_info")), "task_queue_info"),
            result_queue_info=_need(queue_info_from_document(members.get("result_queue_info")), "result_queue_info"),
        )
    except TypeError as exc:
        raise LineFault(f"queues that cannot be used ({exc})") from exc


def _need(info: QueueInfo | None, name: str) -> QueueInfo:
    if info is None:
        raise LineFault(f"no {name}")
    return info


def _trust(pem: str | None) -> tuple[Trust, int | None]:
    """The authorities as a file that only this process has, and what keeps it. None: the system's."""
    if pem is None:
        return find_trust(), None
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("farcall-authorities", os.MFD_CLOEXEC)
    else:  # a Python that was built for older systems
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    with open(fd, "wb", closefd=False) as file_:
        file_.write(pem.encode())
    return Trust(path=str(Path(f"/proc/self/fd/{fd}")), origin="the endpoint's manager"), fd
