"""What the audit log records, and that nothing happens unrecorded."""

from __future__ import annotations

import os
import re
import stat
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from farcall.endpoint.agent.core import AgentCore
from farcall.endpoint.agent.events import (
    Actions,
    AgentPolicy,
    Delivered,
    EngineFailed,
    EngineFinished,
    EngineStarted,
    Event,
    Recovered,
)
from farcall.endpoint.agent.intake import CancelWish, Incoming
from farcall.endpoint.auditlog import AuditEntry, AuditLog, AuditLogUnwritable, AuditState
from farcall.endpoint.config import ConfigInvalid, parse_config
from farcall.endpoint.engines.base import EngineFailure, EngineTask

ENDPOINT = "eeeeeeee-0000-4000-8000-000000000001"
FUNCTION = "ffffffff-0000-4000-8000-000000000001"
POLICY = "aaaaaaaa-0000-4000-8000-000000000001"
SUBSCRIPTION = "bbbbbbbb-0000-4000-8000-000000000001"
Place = Any  # conftest.Place
LINE = re.compile(
    r"(?P<at>\S+) uid=(?P<uid>\d+) pid=(?P<pid>\d+) uep=(?P<uep>\S+) fid=(?P<fid>\S*) tid=(?P<tid>\S*) "
    r"bid= jid= (?P<state>\w+)"
)


def task_id(number: int) -> str:
    return str(UUID(int=number))


def incoming(number: int, function_id: str = FUNCTION) -> Incoming:
    task = EngineTask(task_id=task_id(number), function_id=function_id, task_buffer="")
    return Incoming(task=task, headers="{}", body=b"body", token=f"t{number}")


class Core:
    """A core without time."""

    def __init__(self, **policy: Any) -> None:
        policy = {"is_audited": True, **policy}
        self.core = AgentCore(AgentPolicy(endpoint_id=ENDPOINT, endpoint_name="lab", **policy))
        self.turn(Recovered(entries=()), EngineStarted())

    def turn(self, *events: Event, capacity: int = 100) -> Actions:
        return self.core.turn(events, now_s=1000.0, unix_s=1_700_001_000.0, capacity=capacity)

    def states(self, *events: Event, capacity: int = 100) -> list[tuple[str, str]]:
        return [(each.task_id, each.state.value) for each in self.turn(*events, capacity=capacity).audit]


def test_each_state_of_a_task_is_recorded_in_the_turn_that_brings_it_about() -> None:
    core = Core()
    assert core.states(Delivered(items=[incoming(1)]), capacity=0) == [(task_id(1), "RECEIVED")]
    assert core.states(capacity=1) == [(task_id(1), "EXEC_START")]
    assert core.states(EngineFinished(task_id=task_id(1), packed_result=b"x")) == [(task_id(1), "EXEC_END")]
    assert core.states(Delivered(items=[incoming(1)])) == []


def test_a_task_that_comes_back_and_runs_again_is_recorded_again() -> None:
    core = Core(max_retries=1)
    core.turn(Delivered(items=[incoming(1)]))
    lost = EngineFailure(code="WORKER_LOST", text="killed", is_system_failure=True)
    assert core.states(EngineFailed(task_id=task_id(1), failure=lost)) == [
        (task_id(1), "RECEIVED"),
        (task_id(1), "EXEC_START"),
    ]
    assert core.states(EngineFailed(task_id=task_id(1), failure=lost)) == [(task_id(1), "EXEC_END")]


def test_refused_and_cancelled_tasks_end_in_the_log_too() -> None:
    core = Core(allowed_functions=frozenset({FUNCTION}))
    other = "ffffffff-0000-4000-8000-000000000002"
    refused = core.turn(Delivered(items=[incoming(1, other)]))
    assert [(each.function_id, each.state.value) for each in refused.audit] == [
        (other, "RECEIVED"),
        (other, "EXEC_END"),
    ]
    core.turn(Delivered(items=[incoming(2)]), capacity=0)
    assert core.states(Delivered(items=[CancelWish(task_id=task_id(2))]), capacity=0) == [(task_id(2), "EXEC_END")]


def test_an_endpoint_without_audit_log_collects_nothing() -> None:
    assert Core(is_audited=False).states(Delivered(items=[incoming(1)])) == []


def test_lines_have_the_documented_members_and_the_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    os.umask(os.umask(0o022))
    with AuditLog(path, ENDPOINT) as log:
        log.write([AuditEntry(task_id=task_id(1), function_id=FUNCTION, state=AuditState.RECEIVED)])
    begin, line, end = path.read_text().splitlines()
    assert begin.endswith(f"eid={ENDPOINT} SESSION_BEGIN")
    assert end.endswith(f"eid={ENDPOINT} SESSION_END")
    found = LINE.fullmatch(line)
    assert found is not None
    assert datetime.fromisoformat(found["at"]).tzinfo is not None
    assert (found["uid"], found["pid"]) == (str(os.getuid()), str(os.getpid()))
    assert (found["uep"], found["fid"], found["tid"], found["state"]) == (ENDPOINT, FUNCTION, task_id(1), "RECEIVED")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_log_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    entry = AuditEntry(task_id=task_id(1), function_id=FUNCTION, state=AuditState.RECEIVED)
    with AuditLog(path, ENDPOINT) as log:
        log.write([entry])
        path.rename(tmp_path / "audit.log.1")
        log.write([entry])
    assert (tmp_path / "audit.log.1").read_text().count("RECEIVED") == 1
    assert path.read_text().count("RECEIVED") == 1


def test_a_full_disk_is_an_error_that_names_the_file() -> None:
    with pytest.raises(AuditLogUnwritable, match=r"/dev/full.*No space left"), AuditLog(Path("/dev/full"), ENDPOINT):
        pytest.fail("the session has begun")


HIGH_ASSURANCE = f"high_assurance: true\nauthentication_policy: {POLICY}\nsubscription_id: {SUBSCRIPTION}\n"
POOL = "engine:\n  type: ThreadPoolEngine\n  max_workers: 1\n"


def test_a_whole_endpoint_records_its_tasks(place: Place) -> None:
    place.configure(HIGH_ASSURANCE + POOL)
    running = place.start()
    place.service.send(task_id(1))
    place.engine.wait_submitted(1)
    place.engine.finish(task_id(1))
    place.service.take_result()
    assert running.stop() == 0
    lines = (place.directory.path / "audit.log").read_text().splitlines()
    assert [line.rsplit(" ", 1)[1] for line in lines] == [
        "SESSION_BEGIN",
        "RECEIVED",
        "EXEC_START",
        "EXEC_END",
        "SESSION_END",
    ]


def test_an_endpoint_whose_audit_log_cannot_be_written_does_not_start(place: Place) -> None:
    place.configure("audit_log_path: /dev/full\n" + POOL)
    running = place.start()
    assert running.wait_end() == 74
    assert "/dev/full" in running.watcher.wait("failed")


def test_an_endpoint_whose_audit_log_becomes_unwritable_stops_before_the_task_runs(place: Place) -> None:
    directory = place.directory.path / "logs"
    directory.mkdir()
    place.configure("audit_log_path: logs/audit.log\n" + POOL)
    running = place.start()
    running.watcher.wait("online")
    (directory / "audit.log").unlink()
    (directory / "audit.log").symlink_to("/dev/full")
    place.service.send(task_id(1))
    assert running.wait_end() == 74
    assert "nothing may run here unrecorded" in running.watcher.wait("failed")
    assert place.engine.submitted == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"high_assurance: true\nsubscription_id: {SUBSCRIPTION}\n", "needs an authentication policy"),
        (f"high_assurance: true\nauthentication_policy: {POLICY}\n", "needs a subscription"),
        (
            HIGH_ASSURANCE + "engine:\n  type: GlobusComputeEngine\n  encrypted: false\n",
            "engine.encrypted.*must be true",
        ),
    ],
)
def test_what_high_assurance_needs_is_said_before_anything_is_asked_of_a_service(text: str, says: str) -> None:
    with pytest.raises(ConfigInvalid, match=says):
        parse_config(text)


def test_high_assurance_keeps_its_audit_log_in_the_endpoints_directory_unless_told_otherwise() -> None:
    home = Path("/home/me/lab")
    assert parse_config("").config.audit_log(home) is None
    assert parse_config(HIGH_ASSURANCE).config.audit_log(home) == home / "audit.log"
    assert parse_config(HIGH_ASSURANCE + "audit_log_path: /var/log/c.log\n").config.audit_log(home) == Path(
        "/var/log/c.log"
    )


def test_what_a_users_process_says_of_its_tasks_names_nobody_else_and_begins_no_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    good = f"fid={FUNCTION} tid={task_id(1)} bid= jid= EXEC_END"
    forged = [
        good + "\n2026-01-01T00:00:00 uid=0 pid=1 uep=x " + good,
        "\x1b[2J" + good,
        "fid=uid=0 tid= bid= jid= RECEIVED",
        "",
        good + "\u2028",
    ]
    log = AuditLog(path, ENDPOINT)
    log.write_of("u", uid=1001, pid=4711, texts=[good, *forged])
    lines = path.read_text().split("\n")
    assert [each.split(" ", 1)[1] for each in lines[:-1]] == [
        f"uid=1001 pid=4711 uep=u {said}" for said in [good, *["fid= tid= bid= jid= UNREADABLE"] * len(forged)]
    ]
