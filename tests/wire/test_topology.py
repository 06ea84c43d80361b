import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcall.wire import topology as t

ONE, TWO = "11111111-2222-4333-8444-555555555555", "99999999-8888-4777-8666-555555555555"
ENDPOINT = t.BrokerUser(kind=t.UserKind.ENDPOINT, id=ONE, generation=3)
SDK = t.BrokerUser(kind=t.UserKind.SDK, id=ONE, generation=0)


@given(st.sampled_from(t.UserKind), st.uuids().map(str), st.integers(0, 10**6))
def test_a_broker_user_is_read_back_from_its_name(kind: t.UserKind, user_id: str, generation: int) -> None:
    user = t.BrokerUser(kind=kind, id=user_id, generation=generation)
    assert t.BrokerUser.from_name(user.name) == user


@pytest.mark.parametrize("name", ["", "guest", "endpoint..1", "endpoint.x", "endpoint.x.-1", "root.x.1", "sdk.x.٣"])
def test_other_names_are_no_broker_users(name: str) -> None:
    assert t.BrokerUser.from_name(name) is None


@pytest.mark.parametrize(
    ("user", "action", "resource", "name", "allowed"),
    [
        (ENDPOINT, "read", "queue", f"{ONE}.tasks", True),
        (ENDPOINT, "read", "queue", f"{ONE}.commands", True),
        (ENDPOINT, "read", "queue", f"{TWO}.tasks", False),
        (ENDPOINT, "read", "queue", "results", False),
        (ENDPOINT, "read", "exchange", f"{ONE}.tasks", False),
        (ENDPOINT, "write", "exchange", "results", True),
        (ENDPOINT, "write", "exchange", "heartbeats", True),
        (ENDPOINT, "write", "exchange", "tasks", False),
        (ENDPOINT, "write", "exchange", "", False),
        (ENDPOINT, "configure", "queue", f"{ONE}.tasks", False),
        (SDK, "read", "queue", f"tg.{ONE}.{TWO}", True),
        (SDK, "read", "queue", f"tg.{TWO}.{ONE}", False),
        (SDK, "read", "queue", f"{ONE}.tasks", False),
        (SDK, "write", "queue", f"tg.{ONE}.{TWO}", False),
        (SDK, "write", "exchange", "results", False),
        (SDK, "configure", "queue", f"tg.{ONE}.{TWO}", False),
    ],
)
def test_each_login_reaches_only_its_own(
    user: t.BrokerUser, action: str, resource: str, name: str, allowed: bool
) -> None:
    assert t.may_access(user, action, resource, name) is allowed


def test_an_endpoint_speaks_only_for_itself() -> None:
    assert t.may_publish(ENDPOINT, "results", f"{ONE}.results")
    assert t.may_publish(ENDPOINT, "heartbeats", f"{ONE}.heartbeats")
    assert not t.may_publish(ENDPOINT, "results", f"{TWO}.results")
    assert not t.may_publish(ENDPOINT, "heartbeats", f"{ONE}.results")
    assert not t.may_publish(SDK, "results", f"{ONE}.results")


def test_resources_travel_as_json_text_and_serializers_as_a_list() -> None:
    headers = t.task_headers(
        task_id=ONE, function_id=TWO, resource_specification={"num_nodes": 2}, result_serializers=("a.B",)
    )
    assert json.loads(headers["resource_specification"]) == {"num_nodes": 2}
    assert headers["result_serializers"] == ["a.B"]
    assert t.task_headers(task_id=ONE, function_id=TWO) == {"task_uuid": ONE, "function_uuid": TWO}


def test_a_task_queue_knows_its_owner() -> None:
    assert t.task_queue_owner(t.task_queue(ONE)) == ONE
    assert t.task_queue_owner("results") is None
