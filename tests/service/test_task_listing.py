"""GET /v3/tasks and /v3/tasks/{id}, on SQLite and PostgreSQL."""

from __future__ import annotations

from typing import Any

from policy_world import guarded_endpoint, person, policy
from service_world import Caller, Play, Site
from sqlalchemy import Connection, update

from farcall.service.db.tables import submissions
from farcall.service.relay import store as relay
from farcall.service.relay.moves import Move
from farcall.service.relay.results import ParsedResult
from farcall.service.relay.sweeper import Sweeper
from farcall.service.tasks import listing_store
from farcall.wire.states import TaskState

TRACEBACK = "Traceback (most recent call last):\n  <b>boom</b>\nValueError: boom"


async def submit(caller: Caller, endpoint_id: str, function_id: str, count: int = 1, **more: Any) -> list[str]:
    answer = await caller.submit(endpoint_id, function_id, count, **more)
    return [str(each) for each in answer["tasks"][function_id]]


async def end(site: Site, task_id: str, endpoint_id: str, **members: Any) -> None:
    told = {"sender": f"{endpoint_id}.results", "body": b"", "task_id": task_id, "data": "11\n21", **members}
    recorded = await site.service.db.write(relay.record_results, [ParsedResult(**told)], site.clock.now)
    assert len(recorded.ended) == 1


async def fail(site: Site, task_id: str, endpoint_id: str) -> None:
    await end(
        site, task_id, endpoint_id, data=TRACEBACK, error_code="RemoteExecutionError", error_message="ValueError: boom"
    )


async def listed(caller: Caller, query: str = "") -> list[str]:
    """Ids of all pages, in their order."""
    found, cursor = [], ""
    while True:
        answer = await caller.ask("GET", f"/v3/tasks?{query}{cursor}")
        found += [each["task_id"] for each in answer["tasks"]]
        if answer["next_cursor"] is None:
            return found
        cursor = f"&cursor={answer['next_cursor']}"


def test_tasks_are_listed_newest_first_and_filtered(play: Play, store_url: str) -> None:
    async def story(site: Site) -> None:
        ada, bob = await site.person(), await site.person("bob@localhost")
        here, there, function_id, other = await ada.endpoint(), await ada.endpoint(), *[await ada.function()] * 2
        other = await ada.function(function_name="other")
        begun = site.clock.now
        first = await submit(ada, here, function_id, 3)
        await submit(bob, await bob.endpoint(), await bob.function(), 2)
        site.clock.now += 1000
        second = await submit(ada, there, other, 2, task_group_id=(group := "01890a5d-ac96-774b-bcce-b302099a8057"))
        third = await submit(ada, here, function_id, 1)
        await fail(site, first[1], here)
        await end(site, third[0], here)
        assert await listed(ada) == [*third, *reversed(second), *reversed(first)]
        assert await listed(ada, "limit=2") == await listed(ada)
        assert await listed(ada, "state=failed") == [first[1]]
        assert await listed(ada, "state=success,failed&limit=1") == [third[0], first[1]]
        assert await listed(ada, f"endpoint_id={there}") == list(reversed(second))
        assert await listed(ada, f"endpoint_id={here}&state=received") == [first[2], first[0]]
        assert await listed(ada, f"function_id={other}&limit=1") == list(reversed(second))
        assert await listed(ada, f"task_group_id={group}&limit=1") == list(reversed(second))
        assert await listed(ada, f"task_group_id={group}&state=failed") == []
        assert await listed(ada, f"since={begun + 500}") == [*third, *reversed(second)]
        assert await listed(ada, f"until={begun + 1000}") == list(reversed(first))
        assert await listed(ada, f"since={begun}&until={begun + 1}") == list(reversed(first))
        assert await listed(bob, f"task_group_id={group}") == await listed(bob, f"endpoint_id={here}") == []
        assert len(await listed(bob)) == 2
        (row,) = (await ada.ask("GET", "/v3/tasks?state=failed"))["tasks"]
        assert row == {
            "task_id": first[1],
            "state": "failed",
            "endpoint_id": here,
            "endpoint_name": "here",
            "user_endpoint_id": None,
            "function_id": function_id,
            "function_name": "triple",
            "task_group_id": row["task_group_id"],
            "submitted_at": begun,
            "ended_at": begun + 1000,
            "error_code": "RemoteExecutionError",
        }

    play(story, store=store_url)


def test_a_page_goes_on_where_the_one_before_ended_whatever_comes_meanwhile(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        here, function_id = await ada.endpoint(), await ada.function()
        tasks = await submit(ada, here, function_id, 5)
        page = await ada.ask("GET", "/v3/tasks?limit=2")
        await submit(ada, here, function_id, 3)
        rest = await listed(ada, f"cursor={page['next_cursor']}")
        assert [each["task_id"] for each in page["tasks"]] + rest == list(reversed(tasks))
        for wrong in ("cursor=nonsense", "cursor=W10", "state=done", "limit=0", "limit=501", "since=nan", "since=x"):
            await ada.ask("GET", f"/v3/tasks?{wrong}", status=422)
        await ada.ask("GET", "/v3/tasks?since=5&until=5", status=422)

    play(story)


def test_a_page_that_finds_little_is_short_and_says_where_to_go_on(play: Play, monkeypatch: Any) -> None:
    monkeypatch.setattr(listing_store, "FIRST_STEP", 2)
    monkeypatch.setattr(listing_store, "NEXT_STEP", 2)

    async def story(site: Site) -> None:
        ada = await site.person()
        here, function_id = await ada.endpoint(), await ada.function()
        wanted = (await submit(ada, here, function_id))[0]
        await fail(site, wanted, here)
        for _ in range(60):
            await submit(ada, here, function_id)
        assert await listed(ada, "state=failed") == [wanted]
        page = await ada.ask("GET", "/v3/tasks?state=failed")
        assert (page["tasks"], page["next_cursor"] is None) == ([], False)

    play(story)


def test_tasks_of_managers_are_listed_under_what_was_submitted_to(play: Play, store_url: str) -> None:
    async def story(site: Site) -> None:
        ada, bob = await site.person(), await site.person("bob@localhost")
        manager = await ada.endpoint(direct=False, multi_user=True, endpoint_name="cluster", public=True)
        function_id = await bob.function()
        config = {"user_endpoint_config": {"nodes": 2}, "resource_specification": {"num_nodes": 1}}
        (task_id,) = await submit(bob, manager, function_id, **config)
        page = await bob.ask("GET", f"/v3/tasks/{task_id}")
        user_endpoint = page["user_endpoint_id"]
        assert (page["endpoint_id"], page["endpoint_name"]) == (manager, "cluster")
        assert user_endpoint not in (None, manager)
        assert page["user_endpoint_config"] == {"nodes": 2}
        assert page["resource_specification"] == {"num_nodes": 1}
        assert "manager 'cluster' is offline" in page["waiting_because"]
        assert await listed(bob, f"endpoint_id={manager}") == [task_id]
        assert await listed(bob, f"endpoint_id={user_endpoint}") == [task_id]
        assert await listed(ada) == []

    play(story, store=store_url)


def test_a_task_is_told_with_its_whole_way(play: Play, store_url: str) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        here, function_id = await ada.endpoint(endpoint_name="laptop"), await ada.function()
        done, failed, open_ = await submit(ada, here, function_id, 3)
        begun = site.clock.now
        page = await ada.ask("GET", f"/v3/tasks/{open_}")
        assert page["timeline"] == [{"state": "received", "at": begun, "by": "service"}]
        assert page["can_cancel"]
        assert "Endpoint 'laptop' is offline (never seen). Start it" in page["waiting_because"]
        move = Move(TaskState.RUNNING, begun + 1, begun + 2)
        await site.service.db.write(relay.move_tasks, {here: {done: move, open_: move}})
        page = await ada.ask("GET", f"/v3/tasks/{open_}")
        assert [(each["state"], each["at"], each["by"]) for each in page["timeline"]] == [
            ("received", begun, "service"),
            ("waiting-for-nodes", begun + 1, "endpoint"),
            ("running", begun + 2, "endpoint"),
        ]
        assert "It was running when endpoint 'laptop' was last heard of" in page["waiting_because"]
        site.clock.now += 10
        told = f'{{"execution-start": {begun + 3}, "execution-end": {begun + 5}}}'
        await end(site, done, here, data="11\n[\u00e9]", transitions_json=told, details_json='{"attempts": 2}')
        page = await ada.ask("GET", f"/v3/tasks/{done}")
        assert [(each["state"], each["at"], each["by"]) for each in page["timeline"]] == [
            ("received", begun, "service"),
            ("waiting-for-nodes", begun + 1, "endpoint"),
            ("execution-start", begun + 3, "worker"),
            ("execution-end", begun + 5, "worker"),
            ("success", begun + 10, "service"),
        ]
        assert page["result"] == {"size_bytes": 7, "kind": "11", "kind_meaning": "JSON"}
        assert (page["error"], page["waiting_because"], page["can_cancel"], page["attempts"]) == (None, None, False, 2)
        await fail(site, failed, here)
        page = await ada.ask("GET", f"/v3/tasks/{failed}")
        error = {"code": "RemoteExecutionError", "text": "ValueError: boom", "traceback": TRACEBACK}
        assert (page["error"], page["result"], page["withheld"]) == (error, None, None)
        await ada.ask("POST", f"/v3/tasks/{open_}/cancel")
        page = await ada.ask("GET", f"/v3/tasks/{open_}")
        assert (page["state"], page["error"]["code"], page["error"]["traceback"]) == (
            "cancelled",
            "TASK_CANCELLED",
            None,
        )

    play(story, store=store_url)


def test_how_a_task_of_high_assurance_ended_is_shown_to_who_satisfies_the_policy(play: Play) -> None:
    async def story(site: Site) -> None:
        owner = await person(site, "owner@example.org")
        endpoint_id = await guarded_endpoint(owner, await policy(owner, high_assurance=True, timeout_s=60))
        (task_id,) = await submit(owner.caller, endpoint_id, await owner.caller.function())
        await fail(site, task_id, endpoint_id)
        page = await owner.caller.ask("GET", f"/v3/tasks/{task_id}")
        assert (page["error"]["text"], page["withheld"]) == ("ValueError: boom", None)
        site.clock.now += 61
        page = await owner.caller.ask("GET", f"/v3/tasks/{task_id}")
        assert (page["state"], page["error"], page["error_code"], len(page["timeline"])) == ("failed", None, None, 2)
        assert page["withheld"]["code"] == "LOGIN_REQUIRED"
        assert page["withheld"]["authorization_parameters"]["prompt"] == "login"
        assert "boom" not in str(page)
        (row,) = (await owner.caller.ask("GET", "/v3/tasks"))["tasks"]
        assert (row["state"], row["error_code"]) == ("failed", None)

    play(story, amqp_advertised_scheme="amqps")


def test_what_releases_before_wrote_is_listed_when_the_sweeper_has_looked(play: Play, store_url: str) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        task_id = await ada.one_task()
        await site.service.relay._sweeper.stop()  # its first round may be under way
        await site.service.db.write(_forget_owners)
        assert await listed(ada) == []
        db, settings = site.service.db, site.service.settings
        nothing = {"on_ended": lambda recorded: None, "on_idle": lambda: None, "is_on": lambda: True}
        await Sweeper(settings, db, site.clock, **nothing).sweep()
        assert await listed(ada) == [task_id]
        endpoint_id = (await ada.ask("GET", f"/v3/tasks/{task_id}"))["endpoint_id"]
        assert await listed(ada, f"endpoint_id={endpoint_id}") == [task_id]

    play(story, store=store_url)


def _forget_owners(conn: Connection) -> None:
    conn.execute(update(submissions).values(owner_id=None, endpoint_id=None))


def test_all_identities_of_a_person_see_the_tasks_of_each(play: Play) -> None:
    async def story(site: Site) -> None:
        one = await person(site, "one@example.org")
        two = await person(site, "two@example.org", person_id=one.id)
        task_id = await one.caller.one_task()
        other = await two.caller.one_task()
        site.service.authenticator.forget()
        assert await listed(two.caller) == [other, task_id]
        assert (await two.caller.ask("GET", f"/v2/tasks/{task_id}"))["status"] == "received"
        assert (await two.caller.ask("POST", f"/v3/tasks/{task_id}/cancel"))["status"] == "cancelled"

    play(story)
