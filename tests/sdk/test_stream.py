from __future__ import annotations

import logging
import threading
from uuid import uuid4

import pytest

from farcall.sdk.stream import ResultStream, Waiter, shared_stream
from farcall.wire.errors import CredentialRefused, LoginRequired, TaskCancelled, TaskNotFound, WorkerLost
from farcall.wire.messages import EndpointStatusReport, Result, pack_message

WAIT_S = 30
GROUP = str(uuid4())


def double(x):
    return x * 2


def submit_and_wait(executor, service, count=1):
    """Calls that the service has, and that have not ended."""
    service.runs_tasks = False
    have = len(service.tasks)
    futures = [executor.submit(double, n) for n in range(count)]
    return futures, service.wait_tasks(have + count)[have:]


def asked(service) -> int:
    return sum(path == "/v2/batch_status" for _, path in service.requests)


@pytest.fixture
def group_queue(executor):
    return "tg.me." + executor.task_group_id


def test_a_result_that_overtakes_the_answer_to_its_submission_is_kept(executor, service) -> None:
    executor.submit(double, 1).result(WAIT_S)  # the queue is read from now on

    def finish_before_answering(request, document):
        if not request.url.path.endswith("/submit"):
            return None
        answer = service.answer("POST", request.url.path, document)
        task_id = list(service.tasks)[-1]
        service.finish(task_id, 99)
        overtaken.wait(WAIT_S)
        return 200, answer

    service.runs_tasks = False
    service.before = finish_before_answering
    overtaken = threading.Event()
    future = executor.submit(double, 2)
    # A later result of the same queue has been handled, hence the earlier one too.
    marker_id = None
    service.wait_for(lambda: len(service.tasks) == 2)
    marker_id = next(iter(service.tasks))
    stream = shared_stream(executor.client.api, None, executor._connect)
    marker = _waiting(stream, executor, marker_id)
    service.broker.publish("", "tg.me." + executor.task_group_id, _result_body(service, marker_id, 0))
    assert marker.result(WAIT_S) == 0
    overtaken.set()
    assert future.result(WAIT_S) == 99
    assert asked(service) == 0
    stream.release()


def _waiting(stream, executor, task_id):
    from farcall.sdk.future import ComputeFuture

    future = ComputeFuture(task_id)
    stream.follow(executor.task_group_id, [(task_id, Waiter(future, executor._reader))])
    return future


def _result_body(service, task_id, value) -> bytes:
    from farcall.wire.messages import Result

    return pack_message(Result(task_id=task_id, data=service._serializer.serialize(value)))


def announce(service, broker, group_queue, task_id, value) -> None:
    """A task for high assurance has ended: the service has the result, and the stream says only that."""
    service.is_streaming = False
    service.finish(task_id, value)
    body = pack_message(Result(task_id=task_id, data=""))
    broker.publish("", group_queue, body, headers={"high_assurance": True})


def test_a_result_that_is_only_announced_is_asked_for(executor, service, broker, group_queue) -> None:
    executor.submit(double, 1).result(WAIT_S)
    (future,), (task_id,) = submit_and_wait(executor, service)
    announce(service, broker, group_queue, task_id, 42)
    assert future.result(WAIT_S) == 42
    assert asked(service) == 1


def test_a_result_that_may_not_be_read_fails_its_own_future_with_what_is_asked_for(
    executor, service, broker, group_queue
) -> None:
    executor.submit(double, 1).result(WAIT_S)
    (guarded, other), (guarded_id, other_id) = submit_and_wait(executor, service, 2)

    def refuse(request, document):
        if request.url.path != "/v2/batch_status" or guarded_id not in document["task_ids"]:
            return None
        parameters = {"session_required_policies": ["p"], "prompt": "login"}
        error = LoginRequired("Log in again.", {"authorization_parameters": parameters, "task_ids": [guarded_id]})
        return 403, error.to_document()

    service.before = refuse
    announce(service, broker, group_queue, guarded_id, 1)
    announce(service, broker, group_queue, other_id, 2)
    with pytest.raises(LoginRequired) as caught:
        guarded.result(WAIT_S)
    assert caught.value.authorization_parameters == {"session_required_policies": ["p"], "prompt": "login"}
    assert other.result(WAIT_S) == 2


def test_a_second_result_changes_nothing(executor, service, group_queue) -> None:
    (future,), (task_id,) = submit_and_wait(executor, service)
    service.finish(task_id, 1)
    service.broker.publish("", group_queue, _result_body(service, task_id, 2))
    assert future.result(WAIT_S) == 1
    (other,), (other_id,) = submit_and_wait(executor, service)
    service.finish(other_id, 3)
    assert other.result(WAIT_S) == 3
    assert future.result(0) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x02{}",
        b"\x01not json",
        b'\x01{"message_type":"result","data":{}}',
        pack_message(EndpointStatusReport(endpoint_id=str(uuid4()), global_state={})),
    ],
    ids=["empty", "version", "no-json", "no-members", "other-type"],
)
def test_a_message_that_is_no_result_is_acknowledged_and_logged(
    executor, service, group_queue, broker, body, caplog
) -> None:
    (future,), (task_id,) = submit_and_wait(executor, service)
    with caplog.at_level(logging.WARNING, logger="farcall.sdk.stream"):
        broker.publish("", group_queue, body)
        service.finish(task_id, 1)
        assert future.result(WAIT_S) == 1
    assert any(record.event == "results.malformed" for record in caplog.records)
    # Not given back to the queue: after a reconnect it does not come again.
    caplog.clear()
    (future,), (task_id,) = submit_and_wait(executor, service)
    broker.drop_connections()
    service.finish(task_id, 2)
    assert future.result(WAIT_S) == 2
    assert not [record for record in caplog.records if getattr(record, "event", "") == "results.malformed"]


def test_what_was_published_while_the_connection_was_away_is_asked_for(executor, service, broker, group_queue) -> None:
    executor.submit(double, 1).result(WAIT_S)
    futures, task_ids = submit_and_wait(executor, service, 3)
    broker.stop()
    broker.purge_queue(group_queue)
    service.is_streaming = False  # a broker that has forgotten
    for number, task_id in enumerate(task_ids[:2]):
        service.finish(task_id, number)
    service.is_streaming = True
    broker.start()
    assert [future.result(WAIT_S) for future in futures[:2]] == [0, 1]
    service.finish(task_ids[2], 2)
    assert futures[2].result(WAIT_S) == 2


def test_a_reconnect_asks_for_a_fresh_credential(executor, service, broker) -> None:
    executor.submit(double, 1).result(WAIT_S)
    broker.drop_connections()
    assert executor.submit(double, 2).result(WAIT_S) == 4
    service.wait_for(lambda: len(broker.logins) >= 2)
    assert sum(path == "/v2/get_amqp_result_connection_url" for _, path in service.requests) >= 2


def test_nobody_asks_as_long_as_the_connection_stands(executor, service) -> None:
    for n in range(5):
        assert executor.submit(double, n).result(WAIT_S) == 2 * n
    assert asked(service) == 0


def test_results_come_even_if_the_broker_can_never_be_reached(executor, service, broker, caplog) -> None:
    broker.stop()
    with caplog.at_level(logging.WARNING, logger="farcall.sdk.stream"):
        (future,), (task_id,) = submit_and_wait(executor, service)
        service.is_streaming = False
        service.finish(task_id, 5)
        assert future.result(WAIT_S) == 5
    assert [record.event for record in caplog.records].count("results.not_streamed") == 1


def test_results_come_even_if_the_queue_cannot_be_read(executor, service, broker, group_queue) -> None:
    executor.submit(double, 1).result(WAIT_S)
    (future,), (task_id,) = submit_and_wait(executor, service)
    service.is_streaming = False
    broker.delete_queue(group_queue)
    service.finish(task_id, 6)
    assert future.result(WAIT_S) == 6


def test_a_service_that_cannot_be_asked_is_asked_again_at_the_next_event(executor, service, broker) -> None:
    executor.submit(double, 1).result(WAIT_S)
    (future,), (task_id,) = submit_and_wait(executor, service)
    refused = threading.Event()

    def refuse_once(request, document):
        if request.url.path == "/v2/batch_status" and not refused.is_set():
            refused.set()
            return 500, {"message": "not now"}
        return None

    service.before = refuse_once
    service.is_streaming = False
    service.finish(task_id, 7)
    broker.drop_connections()
    assert refused.wait(WAIT_S)
    broker.drop_connections()
    assert future.result(WAIT_S) == 7


def test_a_task_that_the_service_has_forgotten_ends_with_an_error(executor, service, broker) -> None:
    executor.submit(double, 1).result(WAIT_S)
    (future,), (task_id,) = submit_and_wait(executor, service)
    del service.tasks[task_id]
    broker.drop_connections()
    with pytest.raises(TaskNotFound, match=task_id):
        future.result(WAIT_S)


def test_a_refused_credential_ends_what_waits_and_the_next_call_logs_in_anew(executor, service, broker) -> None:
    executor.submit(double, 1).result(WAIT_S)
    (future,), _ = submit_and_wait(executor, service)
    broker.accepts = lambda user, password: False
    broker.drop_connections()
    with pytest.raises(CredentialRefused, match="reload_tasks"):
        future.result(WAIT_S)
    broker.accepts = lambda user, password: True
    service.runs_tasks = True
    assert executor.submit(double, 4).result(WAIT_S) == 8


def test_executors_of_one_login_share_one_connection(make_executor, broker) -> None:
    one, two = make_executor(), make_executor(task_group_id=uuid4())
    assert one.submit(double, 1).result(WAIT_S) == 2
    assert two.submit(double, 2).result(WAIT_S) == 4
    assert len(broker.logins) == 1
    assert one._submitter.stream() is two._submitter.stream()


def test_another_amqp_port_is_another_connection(make_executor, broker) -> None:
    one = make_executor()
    one.submit(double, 1).result(WAIT_S)
    one.amqp_port = 443
    assert [one.submit(double, n).result(WAIT_S) for n in range(6)] == [0, 2, 4, 6, 8, 10]
    assert len(broker.logins) == 2


def test_an_unused_stream_ends_and_the_next_executor_gets_another(make_executor, broker, monkeypatch) -> None:
    monkeypatch.setattr("farcall.sdk.stream._LINGER_S", 0.01)
    one = make_executor()
    assert one.submit(double, 1).result(WAIT_S) == 2
    stream = one._submitter.stream()
    one.shutdown()
    assert stream._closed.wait(WAIT_S)
    assert make_executor().submit(double, 2).result(WAIT_S) == 4


def test_a_stream_with_open_tasks_outlives_its_executors(make_executor, service, monkeypatch) -> None:
    monkeypatch.setattr("farcall.sdk.stream._LINGER_S", 0.01)
    executor = make_executor()
    (future,), (task_id,) = submit_and_wait(executor, service)
    stream = executor._submitter.stream()
    executor.shutdown(wait=False)
    service.finish(task_id, 3)
    assert future.result(WAIT_S) == 3
    assert stream._closed.wait(WAIT_S)


def test_errors_arrive_by_their_code(executor, service) -> None:
    futures, task_ids = submit_and_wait(executor, service, 2)
    service.finish(task_ids[0], error="signal 9", code="WORKER_LOST")
    service.finish(task_ids[1], error="by its owner", code="TASK_CANCELLED")
    with pytest.raises(WorkerLost, match="signal 9"):
        futures[0].result(WAIT_S)
    with pytest.raises(TaskCancelled, match="by its owner"):
        futures[1].result(WAIT_S)
    assert not futures[1].cancelled(), "somebody else cancelled it, so it is an error with a reason"


def test_a_result_that_cannot_be_loaded_fails_its_own_future_only(executor, service, group_queue) -> None:
    futures, task_ids = submit_and_wait(executor, service, 2)
    from farcall.wire.messages import Result

    service.broker.publish("", group_queue, pack_message(Result(task_id=task_ids[0], data="00\n!!!")))
    service.finish(task_ids[1], 1)
    assert futures[1].result(WAIT_S) == 1
    assert futures[0].exception(WAIT_S) is not None


def test_a_closed_stream_takes_nobody_on(api, broker) -> None:
    stream = ResultStream(api.twin(), connect=broker.connection)
    assert stream.acquire()
    stream.close()
    stream.close()
    assert not stream.acquire()
