"""What comes on a manager's command queue."""

from __future__ import annotations

import json
from typing import Any

import pytest

from farcall.endpoint.manager.commands import (
    CommandUnreadable,
    StartRequest,
    StopUserEndpoint,
    Unusable,
    parse_command,
)
from farcall.service.managers.commands import StartOrder, Submitter, start_command

MANAGER = "11111111-0000-4000-8000-000000000001"
UEP = "22222222-0000-4000-8000-000000000002"
PERSON = "33333333-0000-4000-8000-000000000003"


def sent() -> dict[str, Any]:
    """As our service sends it."""
    order = StartOrder(
        manager_id=MANAGER,
        user_endpoint_id=UEP,
        submitter=Submitter(identity_id=PERSON, username="a@b.c", identity_set=[{"sub": PERSON, "id": PERSON}]),
        options={"WORKERS": 2},
        runtime={"python": {"version": "3.11.4"}},
    )
    message = start_command(order, "amqp://u:p@here/%2F", now=100.0)
    document: dict[str, Any] = json.loads(message.body)
    return document


def parse(document: Any, **properties: Any) -> StartRequest | StopUserEndpoint | Unusable:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_command(body, **{"content_type": "application/json", "sent_unix_s": 100, **properties})


def test_what_our_service_sends_is_a_start_request() -> None:
    request = parse(sent())
    assert isinstance(request, StartRequest)
    assert (request.user_endpoint_id, request.name) == (UEP, f"uep.{MANAGER}.{UEP}")
    assert (request.options, request.identity_id, request.sent_unix_s) == ({"WORKERS": 2}, PERSON, 100)
    assert request.queues["task_queue_info"]["queue"] == f"{UEP}.tasks"
    assert "amqp://" not in repr(request)


def test_members_that_are_not_known_or_empty_do_no_harm() -> None:
    document = sent()
    document |= {"args": ["--x"], "new": 1}
    document["kwargs"] |= {"user_opts": None, "user_runtime": None, "new": 1}
    request = parse(document)
    assert isinstance(request, StartRequest)
    assert (request.options, request.runtime) == ({}, {})


@pytest.mark.parametrize(
    ("document", "properties"),
    [
        (b"\xff", {}),
        (b"[]", {}),
        (b'{"command": "cmd_start_endpoint"}', {}),
        (sent(), {"content_type": "application/json; charset=utf-8"}),
        (sent(), {"content_type": None}),
        (sent(), {"sent_unix_s": None}),
        ({**sent(), "kwargs": {"amqp_creds": {"endpoint_id": UEP}}}, {}),
        ({"command": "cmd_stop_user_endpoint", "kwargs": {}}, {}),
    ],
)
def test_what_says_nobody_who_could_be_told_is_dropped(document: Any, properties: dict[str, Any]) -> None:
    with pytest.raises(CommandUnreadable):
        parse(document, **properties)


@pytest.mark.parametrize(
    ("changes", "kwargs", "part"),
    [
        ({"command": "cmd_start_everything"}, {}, "cmd_start_everything"),
        ({"command": None}, {}, "does not know"),
        ({"globus_effective_identity": None}, {}, "for whom"),
        ({"globus_identity_set": []}, {}, "for whom"),
        ({"globus_identity_set": ["x"]}, {}, "for whom"),
        ({"globus_username": 1}, {}, "for whom"),
        ({}, {"name": None}, "name"),
        ({}, {"name": "../../etc"}, "name"),
        ({}, {"user_opts": "WORKERS=1"}, "user_endpoint_config"),
    ],
)
def test_what_is_wrong_with_the_rest_is_told(changes: dict[str, Any], kwargs: dict[str, Any], part: str) -> None:
    document = sent() | changes
    document["kwargs"] |= kwargs
    found = parse(document)
    assert isinstance(found, Unusable)
    assert found.user_endpoint_id == UEP
    assert part in found.text


def test_a_user_endpoint_is_stopped_by_id_or_by_name() -> None:
    for kwargs in ({"user_endpoint_id": UEP, "reason": "maintenance"}, {"name": UEP, "reason": "maintenance"}):
        document = {"command": "cmd_stop_user_endpoint", "kwargs": kwargs, "globus_username": "admin@b.c"}
        assert parse(document) == StopUserEndpoint(
            which=UEP, reason="maintenance", username="admin@b.c", sent_unix_s=100
        )
