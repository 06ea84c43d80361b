"""A whole endpoint against a broker, a service and an engine in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import Any
from uuid import UUID

import pytest

from farcall.endpoint.engines.base import EngineStartFailed
from farcall.endpoint.journal import Journal, JournalBatch, JournalDamaged, JournalUnavailable, Phase
from farcall.endpoint.status import TaskCounts, endpoint_status
from farcall.wire.messages import TaskCancel

ENDPOINT = "eeeeeeee-0000-4000-8000-000000000001"
FUNCTION = "ffffffff-0000-4000-8000-000000000001"
WAIT_S = 20.0
Place = Any  # conftest.Place


def task_id(number: int) -> str:
    return str(UUID(int=number))


def phases(place: Place) -> dict[str, Phase]:
    """What the journal of an endpoint that has ended holds."""
    journal, entries, aside = Journal.open(place.directory.journal_path)
    journal.close()
    assert aside is None
    return {entry.task_id: entry.phase for entry in entries}


def test_a_task_goes_to_the_engine_and_its_result_to_the_service(place: Place) -> None:
    running = place.start()
    place.service.send(task_id(1), "the buffer")
    assert place.engine.wait_submitted(1) == [task_id(1)]
    assert place.engine.tasks[task_id(1)].task_buffer == "the buffer"
    place.engine.finish(task_id(1), "forty-two")
    result = place.service.take_result()
    assert (result.task_id, result.data, result.is_error) == (task_id(1), "forty-two", False)
    assert running.stop() == 0
    assert phases(place) == {task_id(1): Phase.CONFIRMED}


def test_a_registration_says_who_we_are_and_is_remembered(place: Place) -> None:
    running = place.start()
    assert running.watcher.wait("registered") == ENDPOINT
    running.watcher.wait("online")
    method, path, body = place.service.requests[-1]
    assert (method, path) == ("POST", "/v3/endpoints")
    assert body["endpoint_name"] == "lab"
    assert body["direct"] is True
    assert body["metadata"]["endpoint_config"].startswith("heartbeat_period: 30")
    assert {"endpoint_version", "python_version", "hostname", "local_user"} <= set(body["metadata"])
    assert running.stop() == 0
    document = json.loads(place.directory.registration_path.read_text())
    assert document == {"endpoint_id": ENDPOINT, "service_url": "http://service.test:5000"}
    again = place.restart()
    again.watcher.wait("online")
    assert place.service.requests[-1][:2] == ("PUT", f"/v3/endpoints/{ENDPOINT}")
    assert again.contexts[0].endpoint_id == ENDPOINT


def test_reports_have_every_key_of_the_protocol_and_the_last_one_says_goodbye(place: Place) -> None:
    running = place.start()
    report = place.service.take_report()
    assert report["endpoint_id"] == ENDPOINT
    state = report["global_state"]
    assert state["active"] is True
    assert state["heartbeat_period"] == 30
    assert state["engine_type"] == "FakeEngine"
    assert state["config_raw"].startswith("heartbeat_period: 30")
    assert state["posix_pid"] == os.getpid()
    assert isinstance(state["start_unix"], int)
    for key in ("ppid", "username", "uid", "gid", "groups", "sid"):
        assert f"posix_{key}" in state
    assert (state["pending_tasks"], state["outstanding_tasks"], state["total_tasks"]) == (0, 0, 0)
    running.stop()
    while state["active"]:
        state = place.service.take_report()["global_state"]


def test_a_report_tells_what_became_of_tasks(place: Place) -> None:
    place.engine.capacity_now = 1
    place.start()
    place.service.take_report()
    place.service.send(task_id(1))
    place.service.send(task_id(2))
    statuses: dict[str, Any] = {}
    while set(statuses) != {task_id(1), task_id(2)}:
        statuses.update(place.service.take_report()["task_statuses"])
    assert [each["state"] for each in statuses[task_id(1)]] == ["waiting-for-nodes", "running"]
    assert [each["state"] for each in statuses[task_id(2)]] == ["waiting-for-nodes"]
    assert place.engine.backlog == 1


def test_tasks_and_results_survive_a_lost_connection(place: Place) -> None:
    running = place.start()
    running.watcher.wait("online")
    place.service.send(task_id(1))
    place.engine.wait_submitted(1)
    place.service.broker.stop()
    place.engine.finish(task_id(1))
    place.service.broker.start()
    assert place.service.take_result().task_id == task_id(1)
    place.service.send(task_id(2))
    assert place.engine.wait_submitted(2) == [task_id(1), task_id(2)]


def test_a_copy_of_a_finished_task_is_answered_again_and_not_run_again(place: Place) -> None:
    place.start()
    place.service.send(task_id(1))
    place.engine.wait_submitted(1)
    place.engine.finish(task_id(1), "once")
    first = place.service.take_result()
    place.service.send(task_id(1))
    assert place.service.take_result() == first
    assert place.engine.submitted == [task_id(1)]


def test_what_was_not_done_when_the_endpoint_stopped_is_done_when_it_comes_back(place: Place) -> None:
    place.engine.capacity_now = 2
    place.engine.can_cancel = {task_id(2)}
    running = place.start()
    for number in (1, 2, 3):
        place.service.send(task_id(number))
    place.engine.wait_submitted(2)
    assert running.stop() == 0
    assert phases(place) == {task_id(1): Phase.STARTED, task_id(2): Phase.QUEUED, task_id(3): Phase.QUEUED}
    place.restart()
    assert place.engine.wait_submitted(2) == [task_id(2), task_id(3)], "with the bodies that the journal kept"
    assert place.engine.tasks[task_id(2)].task_buffer == "buffer"
    lost = place.service.take_result()
    assert lost.task_id == task_id(1)
    assert lost.error_details is not None
    assert lost.error_details.code == "ENDPOINT_LOST"


def test_the_status_of_a_stopped_endpoint_counts_what_its_journal_holds(place: Place) -> None:
    place.engine.capacity_now = 1
    running = place.start()
    for number in (1, 2, 3):
        place.service.send(task_id(number))
    place.engine.wait_submitted(1)
    place.engine.wait_backlog(2)
    place.engine.can_cancel = {task_id(1)}
    assert running.stop() == 0
    found = endpoint_status(place.directory, lambda _: None)
    assert (found.state, found.endpoint_id, found.pid) == ("Stopped", ENDPOINT, None)
    assert found.tasks == TaskCounts(queued=3, running=0, unconfirmed=0, source="journal")


def test_the_status_of_a_running_endpoint_counts_what_it_last_reported(place: Place) -> None:
    running = place.start()
    running.watcher.wait("online")
    found = endpoint_status(place.directory, lambda _: {"outstanding_tasks": 5, "pending_tasks": 3})
    assert (found.state, found.pid) == ("Running", os.getpid())
    assert found.tasks == TaskCounts(queued=3, running=2, unconfirmed=None, source="service")
    assert endpoint_status(place.directory, lambda _: None).tasks is None


def test_a_result_that_nobody_confirmed_is_published_after_a_restart(place: Place) -> None:
    running = place.start()
    running.watcher.wait("online")
    place.service.send(task_id(1))
    place.engine.wait_submitted(1)
    place.service.broker.stop()
    place.engine.on_shutdown = lambda: place.engine.finish(task_id(1), "kept")
    assert running.stop() == 0
    assert phases(place) == {task_id(1): Phase.FINISHED}
    place.service.broker.start()
    place.restart()
    assert place.service.take_result().data == "kept"


def test_a_stopping_endpoint_waits_for_its_running_tasks_and_takes_no_new_ones(place: Place) -> None:
    place.configure("shutdown_grace_period: 7\nengine: {type: ThreadPoolEngine}\n")
    running = place.start()
    place.service.send(task_id(1))
    place.engine.wait_submitted(1)
    at_shutdown = threading.Event()
    may_end = threading.Event()

    def shut_down() -> None:
        at_shutdown.set()
        assert may_end.wait(WAIT_S)
        place.engine.finish(task_id(1), "in time")

    place.engine.on_shutdown = shut_down
    running.run.stop()
    assert at_shutdown.wait(WAIT_S)
    place.service.send(task_id(2))
    may_end.set()
    assert place.service.take_result().data == "in time"
    assert running.wait_end() == 0
    assert place.engine.shutdowns == [7.0]
    assert phases(place) == {task_id(1): Phase.CONFIRMED}
    assert len(place.service.broker.bodies("to-do")) == 1, "it stays with the service"
    assert not place.directory.pid_path.exists()


def test_a_second_wish_to_stop_does_not_wait(place: Place) -> None:
    running = place.start()
    running.watcher.wait("online")
    blocked = threading.Event()
    place.engine.on_shutdown = lambda: blocked.wait(WAIT_S) and None
    running.run.stop()
    running.run.stop()
    assert running.wait_end() == 0
    blocked.set()


def test_a_lost_worker_is_tried_again_as_often_as_configured(place: Place) -> None:
    place.configure("engine: {type: ThreadPoolEngine, max_retries_on_system_failure: 1}\n")
    place.start()
    place.service.send(task_id(1), "kept body")
    for count in (1, 2):
        place.engine.wait_submitted(count)
        assert place.engine.tasks[task_id(1)].task_buffer == "kept body"
        place.engine.lose(task_id(1))
    result = place.service.take_result()
    assert "Attempt 2 of 2" in result.data
    assert "signal 9" in result.data


def test_only_allowed_functions_run(place: Place) -> None:
    place.configure(f"allowed_functions: [{FUNCTION}]\nengine: {{type: ThreadPoolEngine}}\n")
    place.start()
    place.service.send(task_id(1), function_id="aaaaaaaa-0000-4000-8000-000000000009")
    place.service.send(task_id(2))
    assert place.engine.wait_submitted(1) == [task_id(2)]
    result = place.service.take_result()
    assert result.error_details is not None
    assert result.error_details.code == "FUNCTION_NOT_ALLOWED"


def test_messages_that_are_no_tasks_are_answered_if_possible_and_do_not_come_back(place: Place) -> None:
    running = place.start()
    place.service.send_message(b"\x07noise")
    place.service.send_message(b"\x07noise", task_uuid=task_id(1))
    result = place.service.take_result()
    assert result.task_id == task_id(1)
    assert result.error_details is not None
    assert result.error_details.code == "CouldNotExecuteUserTaskError"
    assert running.stop() == 0
    assert place.service.broker.bodies("to-do") == []


def wait_outstanding(place: Place, count: int) -> None:
    while place.service.take_report()["global_state"]["outstanding_tasks"] != count:
        pass


def test_a_cancelled_task_that_waits_never_runs(place: Place) -> None:
    place.engine.capacity_now = 1
    running = place.start()
    for number in (1, 2, 3):
        place.service.send(task_id(number))
    wait_outstanding(place, 3)
    place.service.send_message(TaskCancel(task_id=task_id(2)))
    wait_outstanding(place, 2)
    place.engine.finish(task_id(1))
    assert place.engine.wait_submitted(2) == [task_id(1), task_id(3)]
    place.engine.finish(task_id(3))
    assert [place.service.take_result().task_id for _ in range(2)] == [task_id(1), task_id(3)]
    assert running.stop() == 0
    assert place.engine.submitted == [task_id(1), task_id(3)]
    assert phases(place)[task_id(2)] is Phase.CONFIRMED, "remembered, to recognise a late copy"


def test_a_refused_result_is_published_again(place: Place) -> None:
    place.start()
    place.service.send(task_id(1))
    place.engine.wait_submitted(1)
    wait_outstanding(place, 1)  # no report may be under way: the next message to be refused is the result
    place.service.broker.nack_next()
    place.engine.finish(task_id(1))
    assert place.service.take_result().task_id == task_id(1)


def test_an_engine_that_died_is_replaced_and_waiting_tasks_run_on_the_new_one(place: Place) -> None:
    place.engine.capacity_now = 0
    place.add_engine()
    running = place.start()
    running.watcher.wait("online")
    place.service.send(task_id(1))
    place.engine.callbacks.died("its interchange is gone")
    assert place.engines[1].wait_submitted(1) == [task_id(1)]
    assert place.engine.shutdowns == [0.0]
    assert running.stop() == 0
    assert place.engines[1].shutdowns == [10.0]


def test_a_journal_that_cannot_be_written_holds_everything_until_it_can(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Journal.write
    failures = iter([True, True])
    failed = threading.Event()

    def failing(self: Journal, batch: JournalBatch) -> None:
        if batch.inserts and next(failures, False):
            failed.set()
            assert place.engine.submitted == []
            raise JournalUnavailable(str(self.path), "disk full")
        write(self, batch)

    monkeypatch.setattr(Journal, "write", failing)
    place.start()
    place.service.send(task_id(1))
    assert failed.wait(WAIT_S)
    assert place.engine.wait_submitted(1) == [task_id(1)]


def test_a_journal_that_stays_unwritable_does_not_keep_the_endpoint_from_stopping(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Journal, batch: JournalBatch) -> None:
        raise JournalUnavailable(str(self.path), "disk full")

    monkeypatch.setattr(Journal, "write", failing)
    monkeypatch.setattr("farcall.endpoint.agent.runner.JOURNAL_PATIENCE_S", 0.0)
    running = place.start()
    running.watcher.wait("online")
    place.service.send(task_id(1))
    running.run.stop()
    assert running.wait_end() in (0, 74)
    assert place.engine.submitted == []


def test_a_journal_that_turns_out_damaged_ends_the_endpoint_and_the_next_start_has_a_sound_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(self: Journal, batch: JournalBatch) -> None:
        raise JournalDamaged(str(self.path), "database disk image is malformed")

    running = place.start()
    running.watcher.wait("online")
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", damaged)
        place.service.send(task_id(1))
        assert running.wait_end() == 74
    assert "malformed" in running.watcher.wait("failed")
    assert place.engine.submitted == []
    assert [path.name for path in place.directory.path.glob("journal.db.damaged-*") if not path.name.endswith("-wal")]
    place.restart()
    assert place.engine.wait_submitted(1) == [task_id(1)], "it was never acknowledged, so it comes again"


def test_a_fault_of_ours_ends_with_a_message_and_nothing_left_behind(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> int:
        raise RuntimeError("cannot count")

    running = place.start()
    running.watcher.wait("online")
    monkeypatch.setattr(place.engine, "capacity", broken)
    place.service.send(task_id(1))
    assert running.wait_end() == 70
    assert "cannot count" in running.watcher.wait("failed")
    assert place.engine.shutdowns == [0.0]
    assert not place.directory.pid_path.exists()


def test_the_agent_does_not_load_parsl_for_an_engine_without_it() -> None:
    program = (
        "import sys, farcall.cli.endpoint, farcall.endpoint.process\n"
        "from farcall.endpoint.config import parse_config\n"
        "from farcall.endpoint.engines.base import EngineContext\n"
        "from farcall.endpoint.engines.build import build_engine\n"
        "from pathlib import Path\n"
        "loaded = parse_config('engine: {type: ProcessPoolEngine, max_workers: 1}')\n"
        "build_engine(loaded.engine, EngineContext(endpoint_dir=Path('/tmp')))\n"
        "print([m for m in ('parsl', 'zmq', 'sqlalchemy', 'fastapi', 'farcall.sdk') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# The end of a credential ------------------------------------------------------------------------------------------


def refuse_logins(place: Place) -> None:
    place.service.broker.accepts = lambda user, password: False
    place.service.broker.drop_connections()


def test_an_endpoint_that_was_replaced_stops_saying_by_whom(place: Place) -> None:
    place.service.answers[f"GET /v2/endpoints/{ENDPOINT}"] = (200, {"hostname": "other.host"})
    running = place.start()
    running.watcher.wait("online")
    refuse_logins(place)
    text = running.watcher.wait("failed")
    assert "newer instance" in text
    assert "other.host" in text
    assert running.wait_end() == 69


def test_an_endpoint_that_was_deleted_stops_saying_so(place: Place) -> None:
    document = {"message": "gone", "code": "ENDPOINT_NOT_FOUND"}
    place.service.answers[f"GET /v2/endpoints/{ENDPOINT}"] = (404, document)
    running = place.start()
    running.watcher.wait("online")
    refuse_logins(place)
    assert "deleted" in running.watcher.wait("failed")
    assert running.wait_end() == 69


def test_an_endpoint_whose_credential_counts_outlasts_a_broker_that_refuses_it(place: Place) -> None:
    place.service.answers[f"GET /v2/endpoints/{ENDPOINT}"] = (200, {"credential_generation": 1})
    running = place.start()
    running.watcher.wait("online")
    place.service.send(task_id(1))
    place.engine.wait_submitted(1)
    verdicts = [False, False]  # as a broker does that cannot ask the service just now
    place.service.broker.accepts = lambda user, password: verdicts.pop() if verdicts else True
    place.service.broker.drop_connections()
    place.engine.finish(task_id(1), "meanwhile")
    assert place.service.take_result().data == "meanwhile"
    place.service.send(task_id(2))
    place.engine.wait_submitted(2)
    assert not verdicts
    assert running.stop() == 0


# What can go wrong at the start -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "exit_status"),
    [
        (400, "X", 65),
        (422, "SEMANTICALLY_INVALID", 65),
        (401, "UNAUTHENTICATED", 77),
        (403, "FORBIDDEN", 77),
        (409, "CONFLICT", 69),
        (423, "RESOURCE_LOCKED", 69),
        (500, "INTERNAL_ERROR", 70),
    ],
)
def test_a_refused_registration_has_the_exit_status_that_supervisors_rely_on(
    place: Place, status: int, code: str, exit_status: int
) -> None:
    place.service.answers["POST /v3/endpoints"] = (status, {"message": "because", "code": code})
    running = place.start()
    assert running.wait_end() == exit_status
    text = running.watcher.wait("failed")
    assert "Endpoint registration blocked." in text
    assert "because" in text


def test_an_id_that_the_service_does_not_know_is_not_replaced_silently(place: Place) -> None:
    place.directory.registration_path.write_text(
        json.dumps({"endpoint_id": ENDPOINT, "service_url": "http://service.test:5000"})
    )
    place.service.answers[f"PUT /v3/endpoints/{ENDPOINT}"] = (404, {"message": "x", "code": "ENDPOINT_NOT_FOUND"})
    running = place.start()
    assert running.wait_end() == 69
    assert str(place.directory.registration_path) in running.watcher.wait("failed")


def test_a_stranger_at_the_services_address_is_no_reason_to_give_up_the_id(place: Place) -> None:
    place.directory.registration_path.write_text(
        json.dumps({"endpoint_id": ENDPOINT, "service_url": "http://service.test:5000"})
    )
    for path in ("GET /v2/version", f"PUT /v3/endpoints/{ENDPOINT}"):
        place.service.answers[path] = (404, b"<html>File not found</html>")
        running = place.start()
        assert running.wait_end() == 69
        text = running.watcher.wait("failed")
        assert "not a Farcall service (HTTP 404" in text
        assert "endpoint.json" not in text
        del place.service.answers[path]


def test_an_id_copied_from_another_system_is_replaced(place: Place) -> None:
    foreign = "aaaaaaaa-0000-4000-8000-00000000000a"
    place.directory.registration_path.write_text(json.dumps({"endpoint_id": foreign}))
    place.service.answers[f"PUT /v3/endpoints/{foreign}"] = (404, {"message": "x", "code": "ENDPOINT_NOT_FOUND"})
    assert place.start().watcher.wait("registered") == ENDPOINT


def test_an_endpoint_has_one_id_per_service(place: Place) -> None:
    other = "aaaaaaaa-0000-4000-8000-00000000000a"
    document = {"endpoint_id": other, "service_url": "https://other.example"}
    place.directory.registration_path.write_text(json.dumps(document))
    running = place.start()
    running.watcher.wait("online")
    running.stop()
    document = json.loads(place.directory.registration_path.read_text())
    assert document["endpoint_id"] == ENDPOINT
    assert document["other_services"] == {"https://other.example": other}


def test_a_service_that_is_down_is_waited_for(place: Place) -> None:
    place.service.is_up = False
    running = place.start()
    assert "No answer from the Farcall service" in running.watcher.wait("waiting")
    place.service.is_up = True
    running.watcher.wait("online")
    assert running.stop() == 0


def test_waiting_for_a_service_can_be_stopped(place: Place) -> None:
    place.service.is_up = False
    running = place.start()
    running.watcher.wait("waiting")
    assert running.stop() == 0


def test_a_wrong_configuration_is_said_to_be_so(place: Place) -> None:
    place.configure("heartbeat: 3\n")
    running = place.start()
    assert running.wait_end() == 78
    assert "line 1" in running.watcher.wait("failed")
    assert place.service.requests == []


def test_a_second_process_is_refused_with_the_first_ones_id(place: Place) -> None:
    first = place.start()
    first.watcher.wait("online")
    second = place.start()
    assert second.wait_end() == 73
    assert f"process {os.getpid()}" in second.watcher.wait("failed")


def test_a_failing_setup_keeps_the_endpoint_from_starting_and_shows_its_output(place: Place) -> None:
    place.configure("endpoint_setup: echo no module named conda; exit 3\nengine: {type: ThreadPoolEngine}\n")
    running = place.start()
    assert running.wait_end() == 75
    text = running.watcher.wait("failed")
    assert "status 3" in text
    assert "no module named conda" in text
    assert place.engine.submitted == []


def test_setup_runs_before_and_teardown_after_everything_else(place: Place) -> None:
    place.configure(
        "endpoint_setup: echo setup >> order\nendpoint_teardown: echo teardown >> order\n"
        "engine: {type: ThreadPoolEngine}\n"
    )
    order = place.directory.path / "order"
    running = place.start()
    running.watcher.wait("online")
    assert order.read_text() == "setup\n"
    place.engine.on_shutdown = lambda: order.write_text(order.read_text() + "engine\n")
    assert running.stop() == 0
    assert order.read_text() == "setup\nengine\nteardown\n"


def test_an_engine_that_cannot_start_is_a_fault_of_the_configuration(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(callbacks: Any) -> None:
        raise EngineStartFailed("FakeEngine", "no such partition")

    monkeypatch.setattr(place.engine, "start", refuse)
    running = place.start()
    assert running.wait_end() == 78
    assert "no such partition" in running.watcher.wait("failed")
    assert place.engine.shutdowns == [0.0]


def test_a_port_where_nobody_listens_gives_way_to_the_services_own(place: Place) -> None:
    place.configure("amqp_port: 443\nengine: {type: ThreadPoolEngine}\n")
    place.start().watcher.wait("online")
