from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import FIRST_COMPLETED, CancelledError, as_completed, wait
from uuid import UUID, uuid4

import httpx
import pytest

from farcall.client.retry import RetryPolicy
from farcall.sdk import Client, Executor
from farcall.serialize import ComputeSerializer, DillDataBase64, JSONData, PureSourceTextInspect
from farcall.wire.errors import (
    EndpointNotFound,
    FarcallError,
    Forbidden,
    FunctionNotFound,
    InvalidRequest,
    PayloadTooLarge,
    SerializationError,
    ServiceUnavailable,
    ServiceUnreachable,
    TaskExecutionFailed,
    TaskGroupNotFound,
    VersionMismatch,
)

WAIT_S = 30


def double(x):
    """Twice."""
    return x * 2


def fail(text):
    raise ValueError(text)


def _generator():
    """Something that no pickler takes."""
    return (n for n in ())


# --- the contract of concurrent.futures


def test_a_call_comes_back_with_its_value(executor) -> None:
    future = executor.submit(double, 21)
    assert future.result(WAIT_S) == 42
    assert UUID(future.task_id)
    assert future.done()
    assert not future.cancel()


def test_keyword_arguments_arrive(executor) -> None:
    assert executor.submit(double, x=4).result(WAIT_S) == 8


def test_results_come_in_any_order_through_as_completed(executor) -> None:
    futures = {executor.submit(double, n): n for n in range(200)}
    for future in as_completed(futures, timeout=WAIT_S):
        assert future.result() == 2 * futures[future]


def test_map_yields_results_in_order(executor) -> None:
    assert list(executor.map(double, range(20), timeout=WAIT_S)) == [2 * n for n in range(20)]


def test_the_end_of_a_with_statement_waits_for_all_results(make_executor, service) -> None:
    service.runs_tasks = False
    with make_executor() as executor:
        futures = [executor.submit(double, n) for n in range(3)]

        def finish_later() -> None:
            for number, task_id in enumerate(service.wait_tasks(3)):
                service.finish(task_id, 2 * number)

        threading.Thread(target=finish_later).start()
    assert sorted(future.result(0) for future in futures) == [0, 2, 4]


def test_callbacks_are_called_even_if_nobody_holds_the_future(executor) -> None:
    called = threading.Event()
    executor.submit(double, 1).add_done_callback(lambda future: called.set())
    assert called.wait(WAIT_S)


def test_a_callback_may_wait_for_another_result(executor) -> None:
    """The connection goes on receiving, so only the thread of the callback waits."""
    seen = []
    done = threading.Event()

    def resubmit(future):
        seen.append(executor.submit(double, future.result()))
        done.set()

    executor.submit(double, 1).add_done_callback(resubmit)
    assert done.wait(WAIT_S)
    assert seen[0].result(WAIT_S) == 4


def test_after_shutdown_no_call_is_taken_and_a_second_one_does_nothing(executor) -> None:
    executor.submit(double, 1).result(WAIT_S)
    executor.shutdown()
    executor.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit(double, 1)
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.reload_tasks()


def test_shutdown_without_wait_still_delivers(executor, service) -> None:
    service.runs_tasks = False
    future = executor.submit(double, 1)
    executor.shutdown(wait=False)
    (task_id,) = service.wait_tasks(1)
    service.finish(task_id, 2)
    assert future.result(WAIT_S) == 2


def test_ctrl_c_leaves_a_with_statement_without_waiting(make_executor, service) -> None:
    service.runs_tasks = False
    futures = []

    def program() -> None:
        with make_executor() as executor:
            futures.append(executor.submit(double, 1))
            service.wait_tasks(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        program()
    assert not futures[0].done()


def test_shutdown_can_drop_what_was_not_sent(executor, service) -> None:
    service.runs_tasks = False
    sending, go_on = threading.Event(), threading.Event()

    def hold(request, document):
        if request.url.path.endswith("/submit"):
            sending.set()
            go_on.wait(WAIT_S)

    service.before = hold
    first = executor.submit(double, 1)
    assert sending.wait(WAIT_S)
    others = [executor.submit(double, n) for n in range(5)]
    executor.shutdown(wait=False, cancel_futures=True)
    go_on.set()
    _, not_done = wait(others, timeout=WAIT_S)
    assert not not_done
    assert all(future.cancelled() for future in others)
    (task_id,) = service.wait_tasks(1)
    service.finish(task_id, 2)
    assert first.result(WAIT_S) == 2


# --- cancelling


def test_a_call_that_was_not_sent_is_dropped(executor, service) -> None:
    sending, go_on = threading.Event(), threading.Event()

    def hold(request, document):
        if request.url.path.endswith("/submit"):
            sending.set()
            go_on.wait(WAIT_S)

    service.before = hold
    first = executor.submit(double, 1)
    assert sending.wait(WAIT_S)
    second = executor.submit(double, 2)
    assert second.cancel()
    assert second.cancel()
    assert second in wait([first, second], timeout=WAIT_S, return_when=FIRST_COMPLETED).done
    go_on.set()
    assert first.result(WAIT_S) == 2
    with pytest.raises(CancelledError):
        second.result(0)
    executor.shutdown()
    assert len(service.tasks) == 1


def test_a_call_that_was_sent_is_cancelled_at_the_service(executor, service) -> None:
    service.runs_tasks = False
    future = executor.submit(double, 1)
    (task_id,) = service.wait_tasks(1)
    assert future.cancel()
    assert future.cancelled()
    assert service.tasks[task_id]["status"] == "failed"
    service.stream(service.tasks[task_id]["group"], b"\x01{}")
    executor.shutdown()
    with pytest.raises(CancelledError):
        future.result(0)


def test_a_call_that_has_ended_meanwhile_is_not_cancelled(executor, service) -> None:
    service.runs_tasks = service.is_streaming = False
    future = executor.submit(double, 1)
    (task_id,) = service.wait_tasks(1)
    service.finish(task_id, 2)
    assert not future.cancel()
    assert not future.cancelled()


def test_cancelling_fails_quietly_when_the_service_cannot_be_asked(executor, service) -> None:
    service.runs_tasks = False
    future = executor.submit(double, 1)
    (task_id,) = service.wait_tasks(1)
    service.before = lambda request, document: (500, {"message": "broken"})
    assert not future.cancel()
    service.before = lambda request, document: None
    service.finish(task_id, 2)
    assert future.result(WAIT_S) == 2


# --- what a submission holds


def test_a_function_is_registered_once(executor, service) -> None:
    for n in range(5):
        executor.submit(double, n).result(WAIT_S)
    executor.submit(len, [1]).result(WAIT_S)
    executor.submit(len, [1, 2]).result(WAIT_S)
    assert [document["function_name"] for document in service.functions.values()] == ["double", "len"]
    (document, _) = service.functions.values()
    assert document["description"] == "Twice."
    assert document["meta"]["serde_identifier"] == "01"


def test_methods_and_objects_that_can_be_called_are_registered_once_each(executor, service) -> None:
    class Scale(list):  # a list has no hash
        def __call__(self, x):
            return x * len(self)

        def shift(self, x):
            return x + len(self)

    scale = Scale([1, 2, 3])
    text = "abc"
    for n in range(3):
        assert executor.submit(scale, n).result(WAIT_S) == 3 * n
        assert executor.submit(text.startswith, "ab").result(WAIT_S)
    assert len(service.functions) == 2


def test_calls_that_gather_travel_together_and_within_the_batch_size(make_executor, service) -> None:
    executor = make_executor(batch_size=10)
    sending, go_on = threading.Event(), threading.Event()

    def hold(request, document):
        if request.url.path.endswith("/submit"):
            sending.set()
            go_on.wait(WAIT_S)

    service.before = hold
    futures = [executor.submit(double, 0)]
    assert sending.wait(WAIT_S)
    futures += [executor.submit(double, n) for n in range(1, 26)]
    go_on.set()
    assert [future.result(WAIT_S) for future in futures] == [2 * n for n in range(26)]
    sizes = [sum(map(len, document["tasks"].values())) for document in service.submissions]
    assert sizes == [1, 10, 10, 5]


def test_every_request_has_a_key_of_its_own_and_a_repetition_the_same(executor, service) -> None:
    keys = []

    def refuse_once(request, document):
        if request.url.path.endswith("/submit"):
            keys.append(request.headers["idempotency-key"])
            if len(keys) == 1:
                return 503, {"message": "one moment"}
        return None

    service.before = refuse_once
    assert executor.submit(double, 1).result(WAIT_S) == 2
    assert executor.submit(double, 2).result(WAIT_S) == 4
    assert keys[0] == keys[1] != keys[2]
    assert UUID(keys[0])


def test_a_submission_describes_itself(make_executor, service) -> None:
    group = str(uuid4())
    executor = make_executor(
        task_group_id=group,
        resource_specification={"num_nodes": 2},
        user_endpoint_config={"WORKERS": 5},
        result_serializers=[JSONData, "farcall.serialize.DillDataBase64"],
    )
    executor.submit(double, 1).result(WAIT_S)
    document = dict(service.submissions[0])
    runtime = document.pop("user_runtime")
    assert runtime["python"]["version_tuple"] == list(sys.version_info[:3])
    assert runtime["platform"]["machine"]
    del document["tasks"]
    assert document == {
        "create_queue": True,
        "task_group_id": group,
        "resource_specification": {"num_nodes": 2},
        "user_endpoint_config": {"WORKERS": 5},
        "result_serializers": [
            "globus_compute_sdk.serialize.concretes.JSONData",
            "globus_compute_sdk.serialize.concretes.DillDataBase64",
        ],
    }


def test_a_configuration_that_is_changed_in_place_holds_for_later_calls(make_executor, service) -> None:
    executor = make_executor(user_endpoint_config={"WORKERS": 1})
    executor.submit(double, 1).result(WAIT_S)
    executor.user_endpoint_config["WORKERS"] = 2
    executor.submit(double, 1).result(WAIT_S)
    executor.user_endpoint_config = None
    executor.submit(double, 1).result(WAIT_S)
    configs = [document.get("user_endpoint_config") for document in service.submissions]
    assert configs == [{"WORKERS": 1}, {"WORKERS": 2}, None]


def test_executors_without_a_group_share_one(make_executor, service) -> None:
    one, two = make_executor(), make_executor()
    one.submit(double, 1).result(WAIT_S)
    two.submit(double, 1).result(WAIT_S)
    groups = {document["task_group_id"] for document in service.submissions}
    assert groups == {one.task_group_id} == {two.task_group_id}


def test_a_group_that_the_service_replaces_is_adopted(make_executor, service) -> None:
    asked, got = str(uuid4()), str(uuid4())

    def replace(request, document):
        if request.url.path.endswith("/submit"):
            document["task_group_id"] = got
            return 200, service.answer("POST", request.url.path, document)
        return None

    service.before = replace
    executor = make_executor(task_group_id=asked)
    assert executor.submit(double, 2).result(WAIT_S) == 4
    assert executor.task_group_id == got


def test_the_serializer_of_the_executor_is_used(make_executor, service) -> None:
    executor = make_executor(serializer=ComputeSerializer(PureSourceTextInspect(), JSONData()))
    assert executor.submit(double, 3).result(WAIT_S) == 6
    (task,) = service.tasks.values()
    assert task["payload"] == "6\n11\n[3]5\n11\n{}"
    (function,) = service.functions.values()
    assert function["function_code"].split("\n")[1] == "st"


def test_another_serializer_registers_the_function_again(executor, service) -> None:
    executor.submit(double, 3).result(WAIT_S)
    executor.serializer = ComputeSerializer(PureSourceTextInspect())
    executor.submit(double, 3).result(WAIT_S)
    assert [document["meta"]["serde_identifier"] for document in service.functions.values()] == ["01", "st"]


def test_registered_functions_and_source_code_are_called_by_id(executor, service) -> None:
    function_id = executor.register_function(double, public=True, description="by hand")
    assert service.functions[function_id]["public"] is True
    assert executor.submit_to_registered_function(function_id, (4,)).result(WAIT_S) == 8
    assert executor.submit_to_registered_function(UUID(function_id), kwargs={"x": 5}).result(WAIT_S) == 10
    assert executor.submit(double, 1).result(WAIT_S) == 2  # knows that it is registered
    assert len(service.functions) == 1
    source_id = executor.register_source_code("def triple(x):\n    return 3 * x\n", "triple")
    assert executor.submit_to_registered_function(source_id, [5]).result(WAIT_S) == 15


def test_calls_are_counted(executor) -> None:
    assert executor.task_count_submitted == 0
    executor.submit(double, 1)
    executor.submit(double, 1)
    assert executor.task_count_submitted == 2


def test_the_hardware_report_is_a_text(executor) -> None:
    assert "Cores:" in executor.get_worker_hardware_details()


# --- what goes wrong


def test_an_exception_of_the_function_arrives(executor) -> None:
    with pytest.raises(TaskExecutionFailed, match="ValueError: wrong"):
        executor.submit(fail, "wrong").result(WAIT_S)


def test_an_unknown_function_spares_its_neighbours(executor, service) -> None:
    sending, go_on = threading.Event(), threading.Event()

    def hold(request, document):
        if request.url.path.endswith("/submit"):
            sending.set()
            go_on.wait(WAIT_S)

    service.before = hold
    first = executor.submit(double, 0)
    assert sending.wait(WAIT_S)
    good = [executor.submit(double, n) for n in range(3)]
    stranger = str(uuid4())
    bad = executor.submit_to_registered_function(stranger)
    go_on.set()
    assert first.result(WAIT_S) == 0
    assert [future.result(WAIT_S) for future in good] == [0, 2, 4]
    with pytest.raises(FunctionNotFound, match=stranger):
        bad.result(WAIT_S)


def test_one_refused_payload_spares_its_neighbours(executor, service) -> None:
    sending, go_on = threading.Event(), threading.Event()

    def hold_then_refuse(request, document):
        if request.url.path.endswith("/submit"):
            sending.set()
            go_on.wait(WAIT_S)
            payloads = [payload for each in document["tasks"].values() for payload in each]
            if any('"bad"' in payload for payload in payloads):
                return 422, InvalidRequest("one of them is bad").to_document()
        return None

    executor.serializer = ComputeSerializer(strategy_data=JSONData())
    service.before = hold_then_refuse
    futures = [executor.submit(double, 0)]
    assert sending.wait(WAIT_S)
    futures += [executor.submit(double, "bad" if n == 5 else n) for n in range(1, 9)]
    go_on.set()
    for n, future in enumerate(futures):
        if n == 5:
            with pytest.raises(InvalidRequest, match="bad"):
                future.result(WAIT_S)
        else:
            assert future.result(WAIT_S) == 2 * n


def test_an_unknown_endpoint_fails_its_calls_and_the_executor_goes_on(executor, service) -> None:
    stranger = uuid4()
    executor.endpoint_id = stranger
    with pytest.raises(EndpointNotFound, match=str(stranger)):
        executor.submit(double, 1).result(WAIT_S)
    executor.endpoint_id = service.endpoint_id
    assert executor.submit(double, 1).result(WAIT_S) == 2


def test_each_future_gets_an_error_object_of_its_own(executor) -> None:
    executor.endpoint_id = uuid4()
    errors = [executor.submit(double, n).exception(WAIT_S) for n in range(5)]
    assert len({id(error) for error in errors}) == 5


def test_a_function_that_cannot_be_registered_fails_its_calls_and_is_tried_again(executor, service) -> None:
    service.before = lambda request, document: (
        (422, InvalidRequest("no functions today").to_document()) if request.url.path == "/v3/functions" else None
    )
    with pytest.raises(InvalidRequest, match="today"):
        executor.submit(double, 1).result(WAIT_S)
    service.before = lambda request, document: None
    assert executor.submit(double, 1).result(WAIT_S) == 2


def test_a_function_that_the_service_has_lost_is_registered_again(executor, service) -> None:
    executor.submit(double, 1).result(WAIT_S)
    service.functions.clear()
    with pytest.raises(FunctionNotFound):
        executor.submit(double, 1).result(WAIT_S)
    assert executor.submit(double, 1).result(WAIT_S) == 2


@pytest.mark.parametrize(
    "answer",
    [{}, {"request_id": "x", "task_group_id": str(uuid4()), "endpoint_id": "y", "tasks": {}}],
    ids=["shapeless", "without-ids"],
)
def test_an_answer_that_makes_no_sense_is_an_error_and_not_silence(executor, service, answer) -> None:
    service.before = lambda request, document: (200, answer) if request.url.path.endswith("/submit") else None
    with pytest.raises(FarcallError):
        executor.submit(double, 1).result(WAIT_S)


def test_a_service_that_stays_away_fails_the_calls_that_wait(executor, service) -> None:
    executor.submit(double, 1).result(WAIT_S)
    service.before = lambda request, document: (500, {"message": "out of order"})
    with pytest.raises(FarcallError, match="out of order"):
        executor.submit(double, 2).result(WAIT_S)


def test_calls_that_waited_through_an_outage_fail_together(make_executor, service, monkeypatch) -> None:
    monkeypatch.setattr("farcall.sdk.submitter._PATIENT", RetryPolicy(first_s=0.01, budget_s=0.05))
    executor = make_executor(batch_size=1)
    executor.submit(double, 1).result(WAIT_S)
    sending, go_on = threading.Event(), threading.Event()

    def vanish(request, document):
        sending.set()
        go_on.wait(WAIT_S)
        raise httpx.ReadError("cut off")

    service.before = vanish
    futures = [executor.submit(double, n) for n in range(2)]
    assert sending.wait(WAIT_S)
    futures += [executor.submit(double, n) for n in range(50)]
    go_on.set()
    for future in futures:
        with pytest.raises(ServiceUnreachable, match="cut off"):
            future.result(WAIT_S)
    assert "reload_tasks" in str(futures[0].exception())
    service.before = lambda request, document: None
    assert executor.submit(double, 2).result(WAIT_S) == 4


def test_an_argument_that_cannot_be_sent_is_named_at_once(executor, service) -> None:
    with pytest.raises(SerializationError, match=r"argument .x. of double.*generator"):
        executor.submit(double, _generator())
    with pytest.raises(SerializationError, match=r"argument .x. of double.*generator"):
        executor.submit(double, x=_generator())
    with pytest.raises(SerializationError, match=r"argument 2 of function .*generator"):
        executor.submit_to_registered_function(uuid4(), (1, _generator()))
    assert executor.submit(double, 1).result(WAIT_S) == 2
    assert len(service.tasks) == 1


def test_arguments_over_the_limit_are_refused_at_once_with_size_and_advice(executor) -> None:
    with pytest.raises(PayloadTooLarge, match=r"1[0-9]\.\d MiB.*up to 10 MiB.*path"):
        executor.submit(double, bytes(9 * 1024 * 1024))
    assert executor.submit(double, 1).result(WAIT_S) == 2


@pytest.mark.parametrize("what", [None, 3, "double"])
def test_only_functions_can_be_submitted(executor, what) -> None:
    with pytest.raises(TypeError, match="function is needed"):
        executor.submit(what, 1)


def test_functions_that_workers_do_not_run_are_refused_at_once(executor) -> None:
    async def later():
        pass

    def many():
        yield 1

    with pytest.raises(TypeError, match=r"later is a coroutine function.*asyncio\.run"):
        executor.submit(later)
    with pytest.raises(TypeError, match=r"many is a generator function.*list"):
        executor.submit(many)


def test_without_an_endpoint_the_error_says_what_to_set(make_executor) -> None:
    executor = make_executor(endpoint_id=None)
    with pytest.raises(ValueError, match=r"endpoint_id.*farcall endpoints"):
        executor.submit(double, 1)


@pytest.mark.parametrize(
    ("option", "value", "error", "words"),
    [
        ("endpoint_id", "94c7ce20-7a5a-4eb3-ac07-6fc0aabacd50c", ValueError, "endpoint_id must be a UUID.*94c7ce20"),
        ("endpoint_id", 7, ValueError, "endpoint_id"),
        ("task_group_id", "group", ValueError, "task_group_id"),
        ("client", "http://x", TypeError, "client must be"),
        ("resource_specification", [1], TypeError, "resource_specification must be a dict"),
        ("resource_specification", {"a": {1, 2}}, ValueError, "resource_specification.*JSON"),
        ("user_endpoint_config", "x", TypeError, "user_endpoint_config must be a dict"),
        ("user_endpoint_config", {"a": object()}, ValueError, "user_endpoint_config.*JSON"),
        ("user_endpoint_config", {"a": float("nan")}, ValueError, "user_endpoint_config.*JSON"),
        ("label", 3, TypeError, "label"),
        ("batch_size", 0, ValueError, "batch_size"),
        ("batch_size", True, TypeError, "batch_size"),
        ("batch_size", 2.5, TypeError, "batch_size"),
        ("amqp_port", 70000, ValueError, "amqp_port"),
        ("api_burst_limit", 0, ValueError, "api_burst_limit"),
        ("api_burst_window_s", "16", TypeError, "api_burst_window_s"),
        ("serializer", JSONData, TypeError, "serializer"),
        ("result_serializers", ["nonsense"], ValueError, "nonsense"),
        ("result_serializers", "farcall.serialize.JSONData", TypeError, "result_serializers"),
    ],
)
def test_an_attribute_that_makes_no_sense_is_refused_when_it_is_set(
    make_executor, executor, option, value, error, words
) -> None:
    before = getattr(executor, option)
    with pytest.raises(error, match=words):
        setattr(executor, option, value)
    assert getattr(executor, option) == before
    with pytest.raises(error, match=words):
        make_executor(**{option: value})


def test_an_old_sdk_is_told_so(service, api) -> None:
    service.before = lambda request, document: (200, {"min_sdk_version": "99.0", "min_ep_version": "0"})
    with pytest.raises(VersionMismatch, match=r"99\.0"):
        Client(api=api)


def test_bad_arguments_to_a_registered_function_are_explained(executor) -> None:
    with pytest.raises(TypeError, match=r"\('abc',\)"):
        executor.submit_to_registered_function(uuid4(), "abc")
    with pytest.raises(TypeError, match="kwargs must be a mapping"):
        executor.submit_to_registered_function(uuid4(), (), [1])
    with pytest.raises(ValueError, match="function_id must be a UUID"):
        executor.submit_to_registered_function("f")


# --- reloading


def test_a_group_can_be_reloaded_by_another_executor(make_executor, service) -> None:
    service.runs_tasks = False
    group = str(uuid4())
    first = make_executor(task_group_id=group)
    for n in range(4):
        first.submit(double, n)
    task_ids = service.wait_tasks(4)
    service.is_streaming = False
    service.finish(task_ids[0], 0)
    service.finish(task_ids[1], error="boom", code="WORKER_LOST")
    service.is_streaming = True
    second = make_executor()
    futures = second.reload_tasks(group)
    assert [future.task_id for future in futures] == task_ids
    assert futures[0].result(WAIT_S) == 0
    with pytest.raises(TaskExecutionFailed, match="boom"):
        futures[1].result(WAIT_S)
    assert not futures[2].done()
    service.finish(task_ids[2], 4)
    service.finish(task_ids[3], 6)
    assert [future.result(WAIT_S) for future in futures[2:]] == [4, 6]


def test_reloading_an_unknown_group_says_so(executor) -> None:
    with pytest.raises(TaskGroupNotFound):
        executor.reload_tasks(uuid4())
    with pytest.raises(ValueError, match="task_group_id"):
        executor.reload_tasks("mine")


# --- life and death


def test_a_forgotten_executor_is_collected_and_its_thread_ends(make_executor, service, broker, client) -> None:
    executor = Executor(endpoint_id=service.endpoint_id, client=client, connect=broker.connection)
    future = executor.submit(double, 2)
    assert future.result(WAIT_S) == 4
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "farcall-submit"]
    gone = weakref.ref(executor)
    del executor
    gc.collect()
    assert gone() is None
    thread.join(WAIT_S)
    assert not thread.is_alive()


PROGRAM = """
import sys, threading
sys.path.insert(0, {here!r})
import conftest, httpx
from farcall.amqp.memory import MemoryBroker
from farcall.client.rest import ApiClient
from farcall.sdk import Client, Executor
broker = MemoryBroker()
service = conftest.FakeService(broker)
service.runs_tasks = False
api = ApiClient("http://fake:5000", "t", transport=httpx.MockTransport(service.handle))
executor = Executor(service.endpoint_id, Client(api=api), connect=broker.connection)
import atexit
def tell():
    print(len(service.tasks))
atexit.register(tell)   # runs after the SDK's own, which is registered later
futures = [executor.submit(pow, 2, n) for n in range(300)]
{ending}
"""


@pytest.mark.parametrize("ending", ["", "executor.shutdown(wait=False)", "del executor"])
def test_a_program_that_ends_at_once_has_sent_its_calls_and_does_not_wait_for_results(tmp_path, ending) -> None:
    program = tmp_path / "fire_and_forget.py"
    program.write_text(PROGRAM.format(here=os.path.dirname(__file__), ending=ending))
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=60, env={**os.environ, "HOME": "/tmp"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "300\n"
    assert done.stderr == ""


def test_threads_can_share_an_executor(executor) -> None:
    results: list[int] = []

    def work(base: int) -> None:
        futures = [executor.submit(double, base + n) for n in range(50)]
        results.extend(future.result(WAIT_S) for future in futures)

    threads = [threading.Thread(target=work, args=(100 * n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert sorted(results) == sorted(2 * (100 * t + n) for t in range(6) for n in range(50))


def test_an_interruption_while_waiting_for_a_result_is_felt(executor, service) -> None:
    import signal

    service.runs_tasks = False
    future = executor.submit(double, 1)
    service.wait_tasks(1)
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            future.result(WAIT_S)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_only_the_types_asked_for_are_read_from_results(make_executor, service) -> None:
    executor = make_executor(result_serializers=[JSONData])
    with pytest.raises(FarcallError, match=r"DillDataBase64.*JSONData"):
        executor.submit(double, 1).result(WAIT_S)  # the fake endpoint does not care
    executor.result_serializers = [JSONData, DillDataBase64]
    assert executor.submit(double, 1).result(WAIT_S) == 2


def test_an_unavailable_service_is_waited_for(executor, service) -> None:
    executor.submit(double, 1).result(WAIT_S)
    answers = iter([(503, ServiceUnavailable("restarting").to_document())] * 3)
    service.before = lambda request, document: next(answers, None)
    assert executor.submit(double, 2).result(WAIT_S) == 4


# --- a service that wants another login


def test_a_call_that_needs_another_login_fails_with_what_is_asked_for_and_the_next_one_runs(executor, service) -> None:
    parameters = {"session_required_policies": ["p-1"], "session_required_mfa": True}
    refusal = {"code": "FORBIDDEN", "message": "Policy p-1 refuses.", "authorization_parameters": parameters}
    service.before = lambda request, document: (403, refusal) if request.url.path.endswith("/submit") else None
    futures = [executor.submit(double, n) for n in range(3)]
    for future in futures:
        error = future.exception(WAIT_S)
        assert isinstance(error, Forbidden)
        assert error.detail["authorization_parameters"] == parameters
        assert f"farcall login --session-policy p-1 --session-mfa {executor.client.api.url}" in str(error)
    service.before = lambda request, document: None
    assert executor.submit(double, 1).result(WAIT_S) == 2


def test_a_login_that_ends_while_results_are_waited_for_is_said_and_the_program_goes_on_after_another(
    executor, service
) -> None:
    said = threading.Event()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if getattr(record, "event", "") == "results.logged_out" and "farcall login" in record.getMessage():
                said.set()

    def ended(request, document):
        if request.url.path == "/v2/get_amqp_result_connection_url":
            return 401, {"code": "UNAUTHENTICATED", "message": "The token has expired."}
        return None

    service.before = ended
    logger, listener = logging.getLogger("farcall.sdk.stream"), Listener()
    logger.addHandler(listener)
    try:
        future = executor.submit(double, 21)
        assert said.wait(WAIT_S)
    finally:
        logger.removeHandler(listener)
    service.before = lambda request, document: None
    assert future.result(WAIT_S) == 42
