"""Stopping one user endpoint, between a real store and a real broker: pika plays the manager."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from relay_scene import Scene
from service_world import Rest
from test_managers import Site

from farcall.service.managers.commands import STOP_COMMAND
from farcall.wire.messages import unpack_message

OURS = {"commands": ["cmd_start_endpoint", STOP_COMMAND]}


@pytest.fixture
def site(scene: Callable[..., Scene]) -> Site:
    return Site(scene(), multi_user=True, metadata=OURS)


def _user_endpoint(who: Rest, site: Site) -> str:
    (found,) = who.ask("GET", f"/v3/endpoints?kind=user&manager_id={site.id}")["endpoints"]
    return str(found["endpoint_id"])


def test_who_has_the_manager_stops_a_user_endpoint_and_its_tasks_end_with_who_and_why(site: Site) -> None:
    here, bob = site.here, Rest(site.here.thread, "bob@localhost")
    function_id = bob.function()
    answer = bob.submit(site.id, function_id, 3, create_queue=True)
    task_ids, sdk = answer["tasks"][function_id], here.sdk(answer["task_group_id"], bob)
    agent = site.start()
    agent.wait(3)
    agent.finish(task_ids[0])
    sdk.wait(1)
    user_endpoint_id = _user_endpoint(bob, site)
    assert agent.id == user_endpoint_id

    done = here.ada.ask("POST", f"/v3/endpoints/{user_endpoint_id}/stop?reason=maintenance")
    assert done == {"user_endpoint_id": user_endpoint_id, "manager_id": site.id, "tasks_failed": 2}
    assert site.commands is not None
    body, properties = site.commands.wait(2)[1][2], site.commands.got[1][1]
    command = json.loads(body)
    assert command["command"] == STOP_COMMAND
    assert command["kwargs"] == {
        "name": f"uep.{site.id}.{user_endpoint_id}",
        "user_endpoint_id": user_endpoint_id,
        "reason": "ada@localhost stopped it: maintenance",
    }
    assert (command["globus_username"], properties.content_type) == ("ada@localhost", "application/json")
    assert properties.timestamp

    results = [unpack_message(body) for _, _, body in sdk.wait(3)]
    ended = [each for each in results if each.error_details is not None]
    assert {each.task_id for each in ended} == set(task_ids[1:])
    for each in ended:
        assert each.error_details.code == "ENDPOINT_STOPPED"
        assert "ada@localhost stopped it: maintenance" in each.error_details.user_message
    # With nothing left to do it is not asked for again when it ends.
    agent.close()
    bob.submit(site.id, function_id, 1)
    assert json.loads(site.commands.wait(3)[2][2])["command"] == "cmd_start_endpoint"


def test_its_user_stops_it_and_that_is_recorded(site: Site) -> None:
    bob = Rest(site.here.thread, "bob@localhost")
    bob.submit(site.id, bob.function(), 1)
    user_endpoint_id = _user_endpoint(bob, site)
    site.next_order()
    assert bob.ask("POST", f"/v3/endpoints/{user_endpoint_id}/stop")["tasks_failed"] == 1
    entries = site.here.thread.call(lambda service: service.db.read(_audit))
    assert [(each.actor_name, each.object_id) for each in entries] == [("bob@localhost", user_endpoint_id)]


def _audit(conn: object) -> object:
    from farcall.service.audit.store import tail

    return tail(conn, 9, "endpoint.stop-user")  # type: ignore[arg-type]


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_a_manager_that_does_not_know_the_command_is_not_sent_it(scene: Callable[..., Scene]) -> None:
    site = Site(scene(), multi_user=True, metadata={"endpoint_version": "4.19.0"})
    ada = site.here.ada
    task_ids = site.submit(1)
    user_endpoint_id = _user_endpoint(ada, site)
    answer = ada.ask("POST", f"/v3/endpoints/{user_endpoint_id}/stop", status=409)
    assert "version 4.19.0" in answer["detail"]
    assert "process" in answer["detail"]
    assert site.here.task(task_ids[0])["status"] != "failed"
    for endpoint_id in (site.id, site.here.endpoint_id):
        answer = ada.ask("POST", f"/v3/endpoints/{endpoint_id}/stop", status=409)
        assert "/lock" in answer["detail"]


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
def test_the_console_says_whose_user_endpoints_there_are_and_shows_one(scene: Callable[..., Scene]) -> None:
    site = Site(scene(), multi_user=True, metadata=OURS)
    bob, cid = (Rest(site.here.thread, f"{name}@localhost") for name in ("bob", "cid"))
    for who in (bob, cid):
        who.submit(site.id, who.function(), 1)
    found = site.here.ada.ask("GET", f"/v3/endpoints/{site.id}/console")["user_endpoints"]
    assert [each["username"] for each in found] == ["bob@localhost", "cid@localhost"]
    mine = _user_endpoint(bob, site)
    for path in (f"{site.id}/console?user_endpoint_id={mine}", f"{mine}/console"):
        (one,) = site.here.ada.ask("GET", f"/v3/endpoints/{path}")["user_endpoints"]
        assert (one["user_endpoint_id"], one["identity_id"]) == (mine, bob.identity.id)
    bob.ask("GET", f"/v3/endpoints/{mine}/console")
    cid.ask("GET", f"/v3/endpoints/{mine}/console", status=403)
