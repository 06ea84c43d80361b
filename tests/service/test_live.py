"""News of endpoints: who waits is answered when something changed, and by whatever ends the waiting."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from service_world import Caller, Play, Rest, ServiceThread, Site

from farcall.service.accounts.rules import Identity
from farcall.service.accounts.store import ensure_identity
from farcall.service.cluster.signals import pack
from farcall.service.context import Service
from farcall.service.db.engine import Database
from farcall.service.db.upkeep import join_store
from farcall.service.endpoints import store
from farcall.service.endpoints.live import Live, Watch
from farcall.service.endpoints.online import OnlineSomewhere
from farcall.service.endpoints.rules import plan_registration
from farcall.service.ids import new_id
from farcall.service.managers.store import ensure_user_endpoint
from farcall.service.ops.queues import QueueLimit
from farcall.wire.messages import EndpointStatusReport, pack_message
from farcall.wire.rest import EndpointRegistration
from postgres_server import PostgresServer

PATIENCE_S = 30
"""Less than requests wait for."""


@dataclass(frozen=True)
class Delivery:
    body: bytes
    routing_key: str
    redelivered: bool = False


def report(site: Site, endpoint_id: str, **state: Any) -> None:
    body = pack_message(EndpointStatusReport(endpoint_id=endpoint_id, global_state=state, task_statuses={}))
    site.service.relay.on_reports([Delivery(body, f"{endpoint_id}.heartbeats")])  # type: ignore[list-item]


async def live(who: Caller, endpoint_id: str, after: str | None = None, wait_s: int = 55) -> Any:
    query = "" if after is None else f"?after={after}&wait_s={wait_s}"
    return await asyncio.wait_for(who.ask("GET", f"/v3/endpoints/{endpoint_id}/live{query}"), PATIENCE_S)


async def meanwhile(waiting: Any, event: Callable[[], Any]) -> Any:
    task = asyncio.ensure_future(waiting)
    await asyncio.sleep(0)
    answer = event()
    if asyncio.iscoroutine(answer):
        await answer
    return await task


def test_who_waits_is_told_of_reports_tasks_and_attachments(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        function_id, endpoint_id = await ada.function(), await ada.endpoint()
        first = await live(ada, endpoint_id)
        assert (first["status"], first["open_tasks"], first["details"]) == ("offline", 0, {})
        assert await live(ada, endpoint_id, first["version"], wait_s=0) == first
        numbers = {"total_workers": 4, "idle_workers": 3, "config_raw": "secret: yes"}

        second = await meanwhile(live(ada, endpoint_id, first["version"]), lambda: report(site, endpoint_id, **numbers))
        assert second["details"] == {"total_workers": 4, "idle_workers": 3}
        third = await meanwhile(
            live(ada, endpoint_id, second["version"]), lambda: ada.submit(endpoint_id, function_id, 3)
        )
        assert third["open_tasks"] == 3
        fourth = await meanwhile(
            live(ada, endpoint_id, third["version"]),
            lambda: site.service.relay.on_consumers(f"{endpoint_id}.tasks", 1),
        )
        assert fourth["status"] == "online"

    play(story)


def test_a_task_that_comes_and_goes_between_two_answers_is_news(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        function_id, endpoint_id = await ada.function(), await ada.endpoint()
        before = await live(ada, endpoint_id)

        async def come_and_go() -> None:
            (task_id,) = (await ada.submit(endpoint_id, function_id))["tasks"][function_id]
            await ada.ask("POST", f"/v3/tasks/{task_id}/cancel")

        known = await meanwhile(live(ada, endpoint_id, before["version"]), come_and_go)
        while known["last_task_ended"] is None:  # it was seen open first
            known = await live(ada, endpoint_id, known["version"])
        changed = {name for name in before if before[name] != known[name]}
        assert changed == {"version", "last_task_ended"}

    play(story)


def test_nothing_is_kept_of_endpoints_that_nobody_looks_at(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        endpoint_id = await ada.endpoint(direct=False)
        first = await live(ada, endpoint_id)
        await live(ada, endpoint_id, first["version"], wait_s=1)
        hub = site.service.live
        assert (hub._watches, dict(hub._waiters), hub._managers) == ({}, {}, {})

    play(story)


def test_a_deleted_endpoint_ends_the_waiting(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        endpoint_id = await ada.endpoint()
        version = (await live(ada, endpoint_id))["version"]
        waiting = ada.ask("GET", f"/v3/endpoints/{endpoint_id}/live?after={version}&wait_s=55", status=404)
        await meanwhile(
            asyncio.wait_for(waiting, PATIENCE_S), lambda: ada.ask("DELETE", f"/v3/endpoints/{endpoint_id}")
        )

    play(story)


def test_user_endpoints_are_shown_to_who_manages_the_manager_and_each_to_its_own_user(play: Play) -> None:
    async def story(site: Site) -> None:
        ada, bob, cid = [await site.person(f"{name}@localhost") for name in ("ada", "bob", "cid")]
        manager_id = await ada.endpoint(direct=False, multi_user=True, public=True)
        ids = {}
        versions = {who: (await live(who, manager_id))["version"] for who in (ada, bob, cid)}
        for who in (bob, cid):
            answer = await who.submit(manager_id, await who.function())
            assert answer["endpoint_id"] == manager_id
            ids[who] = next(
                each["endpoint_id"]
                for each in (await who.ask("GET", f"/v3/endpoints?manager_id={manager_id}"))["endpoints"]
            )
        seen = {}
        for who in (ada, bob, cid):
            found = await live(who, manager_id, versions[who])
            seen[who] = {each["user_endpoint_id"] for each in found["user_endpoints"]}
            versions[who] = found["version"]
        assert seen == {ada: set(ids.values()), bob: {ids[bob]}, cid: {ids[cid]}}
        # What is another user's changes nothing for this one.
        news = await meanwhile(live(ada, manager_id, versions[ada]), lambda: report(site, ids[bob], total_workers=2))
        assert {each.get("total_worker_count") for each in news["user_endpoints"]} == {2, None}
        assert (await live(cid, manager_id, versions[cid], wait_s=0))["version"] == versions[cid]

    play(story)


def test_one_identity_waits_only_so_often_at_once(play: Play) -> None:
    async def story(site: Site) -> None:
        ada, bob = await site.person("ada@localhost"), await site.person("bob@localhost")
        endpoint_id = await ada.endpoint(public=True)
        hub = site.service.live
        async with hub.watch(endpoint_id, ada.identity):
            answer = await ada.ask("GET", f"/v3/endpoints/{endpoint_id}/live", status=429)
            assert answer["code"] == "RATE_LIMITED"
            assert "those that do not wait count too" in answer["detail"]
            await ada.ask("GET", f"/v3/endpoints/{endpoint_id}/live?wait_s=0", status=429)
            await live(bob, endpoint_id)
        await live(ada, endpoint_id)

    play(story, live_waiters_per_identity=1)


def test_who_is_shut_out_while_waiting_is_told_nothing(play: Play) -> None:
    async def story(site: Site) -> None:
        root, ada = await site.person("root@localhost", is_admin=True), await site.person("ada@localhost")
        bob = await site.person("bob@localhost")
        endpoint_id = await ada.endpoint(public=True)
        version = (await live(bob, endpoint_id))["version"]
        hub, watch, has_come = site.service.live, site.service.live.watch, asyncio.Event()

        @contextlib.asynccontextmanager
        async def watched(watched_id: str, caller: Identity) -> AsyncIterator[Watch]:
            async with watch(watched_id, caller) as found:
                has_come.set()
                yield found

        hub.watch = watched  # type: ignore[method-assign]
        path = f"/v3/endpoints/{endpoint_id}/live?after={version}&wait_s=55"
        waiting = asyncio.ensure_future(bob.ask("GET", path, status=401))
        await asyncio.wait_for(has_come.wait(), PATIENCE_S)
        await root.ask("POST", f"/v3/admin/users/{bob.identity.id}/disable")
        report(site, endpoint_id, total_workers=3)
        assert (await asyncio.wait_for(waiting, PATIENCE_S))["code"] == "UNAUTHENTICATED"

    play(story)


class Doors:
    """Tells who begins and who ends to wait in a running service."""

    def __init__(self, thread: ServiceThread) -> None:
        self.seen: queue.Queue[str] = queue.Queue()
        thread.call(self._install)

    def _install(self, service: Service) -> None:
        watch, waiter, seen = service.live.watch, Watch.waiter, self.seen

        @contextlib.asynccontextmanager
        async def watched(endpoint_id: str, caller: Identity) -> AsyncIterator[Watch]:
            async with watch(endpoint_id, caller) as found:

                def waits() -> Any:
                    seen.put("waits")
                    return waiter(found)

                found.waiter = waits  # type: ignore[method-assign]
                yield found
            seen.put("left")

        service.live.watch = watched  # type: ignore[method-assign]


def test_a_client_that_goes_away_is_not_waited_for(service_thread: Callable[..., ServiceThread]) -> None:
    thread = service_thread()
    doors, ada = Doors(thread), Rest(thread)
    endpoint_id = ada.endpoint()["endpoint_id"]
    version = ada.ask("GET", f"/v3/endpoints/{endpoint_id}/live")["version"]
    assert doors.seen.get(timeout=PATIENCE_S) == "left"
    with socket.create_connection(("127.0.0.1", thread.running.port)) as client:
        path = f"/v3/endpoints/{endpoint_id}/live?after={version}&wait_s=55"
        token = ada.http.headers["authorization"]
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\nAuthorization: {token}\r\n\r\n".encode())
        assert doors.seen.get(timeout=PATIENCE_S) == "waits"
    assert doors.seen.get(timeout=PATIENCE_S) == "left"


def test_a_service_that_stops_answers_who_waits(service_thread: Callable[..., ServiceThread]) -> None:
    thread = service_thread()
    doors, ada = Doors(thread), Rest(thread)
    endpoint_id = ada.endpoint()["endpoint_id"]
    known = ada.ask("GET", f"/v3/endpoints/{endpoint_id}/live")
    doors.seen.get(timeout=PATIENCE_S)
    answers: list[Any] = []
    path = f"/v3/endpoints/{endpoint_id}/live?after={known['version']}&wait_s=55"
    asking = threading.Thread(target=lambda: answers.append(ada.ask("GET", path)))
    asking.start()
    assert doors.seen.get(timeout=PATIENCE_S) == "waits"
    thread.stop()
    asking.join(PATIENCE_S)
    assert answers == [known]


def test_what_other_processes_write_down_is_seen_as_well(postgres: PostgresServer) -> None:
    url = postgres.database()
    join_store(url)

    async def story() -> None:
        here, there = (Database(url, pack=lambda signals: pack(signals, "me")) for _ in range(2))
        limit = QueueLimit(here, 1000, lambda: 1000.0)
        online = OnlineSomewhere(here, lambda: 1000.0)
        hub = Live(here, online, limit, has_others=True, waiters_limit=9, look_s=0.05)
        ada = await here.write(lambda conn: ensure_identity(conn, "ada", is_admin=False, now=1.0))
        plan = plan_registration(EndpointRegistration(endpoint_name="here"))
        manager_id, user_id = new_id(), new_id()
        await here.write(store.add_endpoint, manager_id, ada, plan, None, 1.0)
        async with hub.watch(manager_id, ada) as watch:
            assert (await watch.now()).users == []

            async def news() -> Any:
                with watch.waiter() as changed:
                    await asyncio.wait_for(changed, PATIENCE_S)
                return (await watch.now()).users

            await there.write(
                lambda conn: ensure_user_endpoint(
                    conn,
                    user_id,
                    manager_id=manager_id,
                    owner_id=ada.id,
                    name="uep",
                    high_assurance=False,
                    options=None,
                    runtime_json=None,
                    now=2.0,
                )
            )
            reported = asyncio.ensure_future(news())
            await there.write(store.write_reports, [(user_id, '{"total_workers": 7}', 999.0)])
            await there.write(store.write_attached, {user_id: 998.0})
            while [(user.active, user.total_worker_count) for _, user in await reported] != [(True, 7)]:
                reported = asyncio.ensure_future(news())
        await hub.drain()
        await limit.stop()
        for db in (here, there):
            await db.close()

    asyncio.run(story())
