"""A manager whose user endpoints say what they like: it goes on, and the others notice nothing."""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from farcall.cli import looking
from farcall.endpoint.auditlog import AuditLog
from farcall.endpoint.manager.allowance import AUDIT_LINES_PER_S, BURST_S
from farcall.endpoint.manager.commands import StartRequest
from farcall.endpoint.manager.config import Blueprint
from farcall.endpoint.manager.core import ManagerCore, ManagerPolicy
from farcall.endpoint.manager.events import Person, Received
from farcall.endpoint.manager.line import AuditLine, Begin, CredentialRefused, Failed, Order, pack
from farcall.endpoint.manager.runner import FAILURES_LOGGED, ManagerEnd, ManagerRunner, Site
from farcall.endpoint.manager.spawn import Child

PATIENCE_S = 30.0
UEPS = [f"eeeeeeee-0000-4000-8000-{number:012}" for number in range(3)]
AUDITED = AuditLine(text="fid=f tid=t bid= jid= RECEIVED")


class Links:
    """A broker that is always there."""

    def start(self, *, on_online: Any, **callbacks: Any) -> None:
        on_online()

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


class Manager:
    """A runner in a thread; its user endpoints are processes that do nothing, and speak as we do."""

    def __init__(self, directory: Path) -> None:
        self.lines: dict[str, socket.socket] = {}
        self.notices: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self.asked: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.may_answer = threading.Event()
        self.audit_path = directory / "audit.log"
        self.audit_log = AuditLog(self.audit_path, "m")
        self._processes: list[subprocess.Popen[bytes]] = []
        self._started: queue.SimpleQueue[str] = queue.SimpleQueue()

        def ask(user_endpoint_id: str, reason: str, url: str) -> str | None:
            self.asked.put(user_endpoint_id)
            self.may_answer.wait(PATIENCE_S)
            return None

        site = Site(
            resolve=lambda request: (
                Person(key="a", local_user=None, account="a", uid=1001),
                Blueprint(template="", schema=None, environment={}),
            ),
            order=lambda request, person, blueprint: Order(
                name=request.name, user_endpoint_id=request.user_endpoint_id, manager_name="m", local_user=None,
                template="",
            ),
            begin=lambda request: Begin(user_endpoint_id=request.user_endpoint_id, queues={}),
            ask=ask,
            spawn=self._spawn,
        )  # fmt: skip
        notices = SimpleNamespace(
            send=lambda which, queues, text, is_final: self.notices.put((which, text)),
            prune=lambda: None,
            close=lambda timeout_s: None,
        )
        self.runner = ManagerRunner(
            ManagerCore(ManagerPolicy(own_identities=None)),
            site,
            links=Links(),  # type: ignore[arg-type]
            notices=notices,  # type: ignore[arg-type]
            heartbeat_period_s=30.0,
            why_refused=lambda reason: None,
            on_connection=lambda is_connected: None,
            audit_log=self.audit_log,
        )
        self.end: list[ManagerEnd] = []
        self._thread = threading.Thread(target=lambda: self.end.append(self.runner.run()))
        self._thread.start()

    def _spawn(self, order: Order, begin: Begin) -> Child:
        process = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, start_new_session=True
        )
        self._processes.append(process)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.lines[order.user_endpoint_id] = theirs
        self._started.put(order.user_endpoint_id)
        return Child(
            name=order.name, pid=process.pid, pidfd=os.pidfd_open(process.pid), line=ours, mark="m", process=process
        )

    def start(self, which: str) -> socket.socket:
        request = StartRequest(
            name=f"uep.m.{which}", user_endpoint_id=which, queues={}, options={}, runtime={}, identity_id="i",
            username="a@b", identity_set=[{"sub": "i"}], sent_unix_s=time.time(),
        )  # fmt: skip
        self.runner._put(Received(command=request, at_unix_s=time.time()))
        assert self._started.get(timeout=PATIENCE_S) == which
        self.lines[which].settimeout(PATIENCE_S)
        return self.lines[which]

    def status(self) -> dict[str, Any]:
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.runner._soon(lambda: self.runner._on_question({"ask": "status"}, answer.put))
        return {each["id"]: each for each in answer.get(timeout=PATIENCE_S)["user_endpoints"]}

    def until_asked(self) -> None:
        """Until all that was said before the question is dealt with."""
        self.asked.get(timeout=PATIENCE_S)
        self.status()

    def until_ended(self) -> ManagerEnd:
        self._thread.join(PATIENCE_S)
        return self.end[0]

    def close(self) -> None:
        self.may_answer.set()
        self.runner.stop(at_once=True)
        for each in self._processes:
            assert each.stdin is not None
            each.stdin.close()
        self._thread.join(PATIENCE_S)
        for line in self.lines.values():
            line.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    try:
        yield made
    finally:
        made.close()


def until_over(line: socket.socket) -> None:
    """Until the manager has let go of the line."""
    try:
        while line.recv(65536):
            pass
    except ConnectionResetError:
        pass


def test_questions_without_end_become_one_and_another_user_s_is_asked_at_once(manager: Manager) -> None:
    lines = [manager.start(each) for each in UEPS[:2]]
    lines[0].sendall(pack(CredentialRefused(reason="x")) * 100)
    assert manager.asked.get(timeout=PATIENCE_S) == UEPS[0]
    lines[1].sendall(pack(CredentialRefused(reason="x")))
    assert manager.asked.get(timeout=PATIENCE_S) == UEPS[1]
    manager.status()
    assert manager.asked.empty()


def test_audit_lines_of_one_piece_are_put_on_disk_together(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[int] = []
    datasync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (syncs.append(fd), datasync(fd)))
    line = manager.start(UEPS[0])
    line.sendall(pack(AUDITED) * 400 + pack(CredentialRefused(reason="the end")))
    manager.until_asked()
    said = manager.audit_path.read_text().splitlines()
    assert len([each for each in said if f"uid=1001 pid={manager.status()[UEPS[0]]['pid']} " in each]) == 400
    assert 0 < len(syncs) <= 20, "not one for each line"


def test_who_floods_the_audit_log_loses_their_line_and_nobody_else_does(manager: Manager) -> None:
    quiet, loud = manager.start(UEPS[0]), manager.start(UEPS[1])
    too_many = int(AUDIT_LINES_PER_S * BURST_S) * 2
    try:
        for _ in range(too_many // 1000):
            loud.sendall(pack(AUDITED) * 1000)
    except (BrokenPipeError, ConnectionResetError):
        pass
    until_over(loud)
    quiet.sendall(pack(AUDITED) + pack(CredentialRefused(reason="the end")))
    manager.until_asked()
    said = manager.audit_path.read_text().splitlines()
    assert len([each for each in said if f"uep={UEPS[0]}" in each]) == 1
    assert len(said) < too_many * 0.9


def test_who_fails_again_and_again_does_not_wash_the_log_away(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    line = manager.start(UEPS[0])
    line.sendall(pack(Failed(step="run", text="x", status=1, detail="d" * 10_000)) * 100)
    line.sendall(pack(CredentialRefused(reason="the end")))
    manager.until_asked()
    logged = [each for each in caplog.records if getattr(each, "event", "") == "manager.failed"]
    assert len(logged) == FAILURES_LOGGED


def test_a_full_disk_under_the_audit_log_ends_the_manager_with_the_reason(tmp_path: Path) -> None:
    manager = Manager(tmp_path)
    os.dup2(os.open("/dev/full", os.O_WRONLY), manager.audit_log._fd or 0)
    manager.audit_log._is_moved = lambda: False  # type: ignore[method-assign]
    try:
        line = manager.start(UEPS[0])
        line.sendall(pack(AUDITED))
        message = json.loads(line.recv(65536)[4:])
        assert message == {"kind": "stop", "reason": "the endpoint's audit log cannot be written", "is_at_once": True}
        for each in manager._processes:
            assert each.stdin is not None
            each.stdin.close()
        assert manager.until_ended() is ManagerEnd.AUDIT
        assert "No space left on device" in manager.runner.end_text
        assert "Make room" in manager.runner.end_text
    finally:
        manager.close()


def test_what_a_process_says_of_its_configuration_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    looking._print_config("u", [{"id": "u", "name": "uep", "config": "a: 1\n\x1b]0;owned\x07b: ü\n"}])
    assert capsys.readouterr().out == "a: 1\n\\x1b]0;owned\\x07b: ü\n\n"
