from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from farcall.client.tokens import StoredToken, TokenStore
from farcall.sdk import Batch, Client
from farcall.sdk.hardware import hardware_report
from farcall.serialize import ComputeSerializer, JSONData
from farcall.wire.errors import (
    PayloadTooLarge,
    SerializationError,
    TaskCancelled,
    TaskExecutionFailed,
    TaskNotFound,
    TaskPending,
)


def double(x):
    """Twice."""
    return x * 2


def test_run_submits_one_call(client, service) -> None:
    function_id = client.register_function(double)
    task_id = client.run(21, endpoint_id=service.endpoint_id, function_id=function_id)
    assert client.get_result(task_id) == 42
    assert client.get_result(UUID(task_id)) == 42
    assert service.submissions[0]["create_queue"] is False


def test_a_batch_gives_task_ids_in_the_order_of_its_calls(client, service) -> None:
    one, two = client.register_function(double), client.register_function(abs)
    batch = client.create_batch()
    for n in range(3):
        batch.add(one, args=(n,))
        batch.add(two, (-n,))
    batch.add(one, kwargs={"x": 10})
    assert len(batch) == 7
    answer = client.batch_run(service.endpoint_id, batch)
    assert UUID(answer["request_id"])
    assert UUID(answer["task_group_id"])
    assert answer["endpoint_id"] == service.endpoint_id
    assert [client.get_result(task_id) for task_id in answer["tasks"][one]] == [0, 2, 4, 20]
    assert [client.get_result(task_id) for task_id in answer["tasks"][two]] == [0, 1, 2]


def test_a_batch_describes_itself(client) -> None:
    group = uuid4()
    batch = client.create_batch(
        group,
        {"num_nodes": 1},
        {"A": 1},
        True,
        ComputeSerializer(strategy_data=JSONData()),
        {"python": "x"},
        [JSONData],
    )
    function_id = str(uuid4())
    batch.add(function_id, [1])
    assert batch.prepare() == {
        "tasks": {function_id: ["6\n11\n[1]5\n11\n{}"]},
        "create_queue": True,
        "task_group_id": str(group),
        "resource_specification": {"num_nodes": 1},
        "user_endpoint_config": {"A": 1},
        "user_runtime": {"python": "x"},
        "result_serializers": ["globus_compute_sdk.serialize.concretes.JSONData"],
    }


def test_a_batch_whose_options_json_cannot_carry_is_refused_when_it_is_made(client) -> None:
    with pytest.raises(ValueError, match=r"user_endpoint_config.*JSON"):
        client.create_batch(user_endpoint_config={"when": object()})


def test_an_empty_batch_is_refused(client, service) -> None:
    with pytest.raises(ValueError, match="empty"):
        client.batch_run(service.endpoint_id, client.create_batch())


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "words"),
    [
        ("abc", None, TypeError, r"\('abc',\)"),
        (3, None, TypeError, "args"),
        ((), [1], TypeError, "kwargs"),
        (((n for n in ()),), None, SerializationError, "generator"),
        ((bytes(9 * 1024 * 1024),), None, PayloadTooLarge, "MiB"),
    ],
)
def test_a_call_that_makes_no_sense_is_not_added(args, kwargs, error, words) -> None:
    batch = Batch()
    with pytest.raises(error, match=words):
        batch.add(uuid4(), args, kwargs)
    with pytest.raises(ValueError, match="function_id"):
        batch.add("f", (1,))
    assert len(batch) == 0


def test_a_task_that_has_not_ended_is_pending(client, service) -> None:
    service.runs_tasks = False
    function_id = client.register_function(double)
    task_id = client.run(1, endpoint_id=service.endpoint_id, function_id=function_id)
    with pytest.raises(TaskPending, match="received"):
        client.get_result(task_id)
    assert client.get_task(task_id) == {
        "task_id": task_id,
        "status": "received",
        "pending": True,
        "details": None,
    }


def test_results_of_many_come_at_once_failures_included(client, service) -> None:
    service.runs_tasks = False
    function_id = client.register_function(double)
    batch = client.create_batch()
    for n in range(250):
        batch.add(function_id, (n,))
    task_ids = client.batch_run(service.endpoint_id, batch)["tasks"][function_id]
    service.finish(task_ids[0], 0)
    service.finish(task_ids[249], error="boom")
    found = client.get_batch_result(task_ids)
    assert list(found) == task_ids
    assert found[task_ids[0]]["result"] == 0
    assert found[task_ids[1]]["pending"] is True
    assert isinstance(found[task_ids[249]]["exception"], TaskExecutionFailed)
    with pytest.raises(TaskExecutionFailed, match="boom"):
        client.get_result(task_ids[249])
    with pytest.raises(TaskNotFound, match="1 of these"):
        client.get_batch_result([task_ids[0], str(uuid4())])


def test_a_task_can_be_cancelled(client, service) -> None:
    service.runs_tasks = False
    function_id = client.register_function(double)
    task_id = client.run(1, endpoint_id=service.endpoint_id, function_id=function_id)
    assert client.cancel_task(task_id) == "cancelled"
    with pytest.raises(TaskCancelled, match="by its owner"):
        client.get_result(task_id)


def test_a_registration_holds_what_was_asked_for(client, service) -> None:
    group = uuid4()
    function_id = client.register_function(double, "twice", metadata={"project": 7}, group=group)
    document = service.functions[function_id]
    assert document["function_name"] == "twice"
    assert document["description"] == "Twice."
    assert document["meta"]["project"] == 7
    assert document["group"] == str(group)
    assert document["serialized"] is True
    with pytest.raises(ValueError, match="ha_endpoint_id excludes"):
        client.register_function(double, public=True, ha_endpoint_id=uuid4())


def test_source_code_is_registered_as_text(client, service) -> None:
    source = "def triple(x):\n    return 3 * x\n"
    function_id = client.register_source_code(source, "triple")
    assert client.get_result(client.run(5, endpoint_id=service.endpoint_id, function_id=function_id)) == 15


@pytest.mark.parametrize(
    ("source", "name", "error", "words"),
    [
        ("def f(:", "f", ValueError, "no Python"),
        ("def f(): pass", "g", ValueError, "defines no 'g'; it defines f"),
        (3, "f", TypeError, "str"),
    ],
)
def test_source_code_that_cannot_work_is_refused_at_once(client, source, name, error, words) -> None:
    with pytest.raises(error, match=words):
        client.register_source_code(source, name)


def test_what_is_missing_is_named(client, service) -> None:
    with pytest.raises(ValueError, match="function_id is missing"):
        client.run(1, endpoint_id=service.endpoint_id)
    with pytest.raises(ValueError, match="endpoint_id is missing"):
        client.run(1, function_id=uuid4())
    with pytest.raises(ValueError, match="endpoint_id must be a UUID"):
        client.get_endpoint_status("here")


def test_the_hardware_function_runs_anywhere(client, service) -> None:
    task_id = client.get_worker_hardware_details(service.endpoint_id)
    report = client.get_result(task_id)
    assert [line.split(":")[0] for line in report.splitlines()] == [
        "Host",
        "Operating system",
        "Python",
        "CPU",
        "Cores",
        "Memory",
        "Working directory",
        "GPU",
    ]
    (function,) = service.functions.values()
    assert function["meta"]["serde_identifier"] == "st"
    assert hardware_report().splitlines()[0] == report.splitlines()[0]


def test_the_services_address_may_be_given_in_several_ways(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("FARCALL_USER_DIR", str(tmp_path))
    monkeypatch.delenv("FARCALL_SERVICE_URL", raising=False)
    make = {"do_version_check": False}
    assert Client(**make).api.url == "http://localhost:5000"
    assert Client("local", **make).api.url == "http://localhost:5000"
    assert Client(local_compute_services=True, **make).api.url == "http://localhost:5000"
    assert Client("https://farcall.example.org/", **make).api.url == "https://farcall.example.org"
    assert Client(url="http://127.0.0.1:5000", environment="local", **make).api.url == "http://127.0.0.1:5000"
    with pytest.raises(ValueError, match="different services"):
        Client("local", url="http://elsewhere", **make)
    with pytest.raises(ValueError, match="environment must be"):
        Client("production", **make)
    with pytest.raises(ValueError, match="farcall login"):
        Client(app=object(), **make)


def test_logout_revokes_the_token_and_forgets_it(client, service, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("FARCALL_USER_DIR", str(tmp_path))
    store = TokenStore()
    for refused in (False, True):
        store.put(client.api.url, StoredToken(access_token="fc_token", identity_id="i", username="u"))
        answer = (401, {"code": "UNAUTHENTICATED", "message": "unknown token"}) if refused else (200, {})
        service.before = lambda request, document, answer=answer: answer
        client.logout()
        assert store.get(client.api.url) is None
        assert service.requests[-1] == ("POST", "/v3/logout")
