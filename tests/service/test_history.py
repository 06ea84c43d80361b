"""An endpoint's past, from what happens to what a chart shows, on a real store."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import pytest
from service_world import Clock, Play, Site
from sqlalchemy import Connection, func, select

from farcall.service.db.engine import make_engine
from farcall.service.db.migrations import migrate
from farcall.service.db.tables import endpoint_history
from farcall.service.history.rules import HOUR_S, Entry
from farcall.service.history.store import add_entries, read_entries, roll_up
from farcall.wire.messages import EndpointStatusReport, Result, pack_message

T0 = 1_699_999_200
DAY = 24 * HOUR_S


@dataclass(frozen=True)
class Delivery:
    body: bytes
    routing_key: str
    redelivered: bool = False
    delivery_tag: int = 1


def report(site: Site, endpoint_id: str, **state: Any) -> None:
    body = pack_message(EndpointStatusReport(endpoint_id=endpoint_id, global_state=state, task_statuses={}))
    site.service.relay.on_reports([Delivery(body, f"{endpoint_id}.heartbeats")])  # type: ignore[list-item]


async def finish(site: Site, endpoint_id: str, task_ids: list[str]) -> None:
    """The results of these tasks, stored."""
    wanted, stored = set(task_ids), asyncio.Event()
    before = site.service.relay.on_ended

    def on_ended(tasks: Any) -> None:
        tasks = list(tasks)
        if before is not None:
            before(tasks)
        wanted.difference_update(task.id for task in tasks)
        if not wanted:
            stored.set()

    site.service.relay.on_ended = on_ended
    bodies = [pack_message(Result(task_id=task_id, data="value")) for task_id in task_ids]
    site.service.relay.intake._acknowledge = lambda deliveries: None
    site.service.relay.on_results([Delivery(body, f"{endpoint_id}.results") for body in bodies])  # type: ignore[misc]
    await asyncio.wait_for(stored.wait(), 30)


def test_a_chart_shows_workers_and_tasks_of_the_last_hour(play: Play, store_url: str) -> None:
    async def story(site: Site) -> None:
        ada, clock = await site.person(), site.clock
        clock.now = float(T0)
        function_id, endpoint_id = await ada.function(), await ada.endpoint()
        report(site, endpoint_id, total_workers=4, idle_workers=4, outstanding_tasks=0, pending_tasks=0)
        answer = await ada.submit(endpoint_id, function_id, 3)
        await finish(site, endpoint_id, answer["tasks"][function_id][:2])
        await ada.ask("POST", f"/v3/tasks/{answer['tasks'][function_id][2]}/cancel")
        await site.service.recorder.write()
        clock.now += 120
        report(site, endpoint_id, total_workers=4, idle_workers=1, outstanding_tasks=7, pending_tasks=4)
        await site.service.recorder.write()
        clock.now += 60
        found = await ada.ask("GET", f"/v3/endpoints/{endpoint_id}/history?since={T0 - 60}")
        assert (found["step_s"], found["since"], found["until"]) == (60, T0 - 60, T0 + 180)
        shown = [[each[name] for name in ("at", "workers", "idle_workers", "outstanding")] for each in found["points"]]
        assert shown == [
            [T0 - 60, None, None, None],
            [T0, 4.0, 4.0, 0.0],
            [T0 + 60, 4.0, 4.0, 0.0],
            [T0 + 120, 4.0, 1.0, 7.0],
        ]
        counts = [[each[name] for name in ("submitted", "succeeded", "failed")] for each in found["points"]]
        assert counts == [[0, 0, 0], [3, 2, 1], [0, 0, 0], [0, 0, 0]]

    play(story, store=store_url)


def test_a_manager_has_the_past_of_its_user_endpoints_and_each_user_their_own(play: Play) -> None:
    async def story(site: Site) -> None:
        ada, bob, cid = [await site.person(f"{name}@localhost") for name in ("ada", "bob", "cid")]
        manager_id = await ada.endpoint(direct=False, multi_user=True, public=True)
        for who, count in ((bob, 2), (cid, 3)):
            await who.submit(manager_id, await who.function(), count)
        await site.service.recorder.write()
        site.clock.now += 60
        submitted = {}
        for who in (ada, bob, cid):
            found = await who.ask("GET", f"/v3/endpoints/{manager_id}/history")
            submitted[who] = sum(each["submitted"] for each in found["points"])
        assert submitted == {ada: 5, bob: 2, cid: 3}
        (mine,) = (await bob.ask("GET", "/v3/endpoints?kind=user"))["endpoints"]
        for path in (f"{manager_id}/history?user_endpoint_id={mine['endpoint_id']}", f"{mine['endpoint_id']}/history"):
            found = await ada.ask("GET", f"/v3/endpoints/{path}")
            assert sum(each["submitted"] for each in found["points"]) == 2

    play(story)


def test_processes_add_up_and_the_last_word_stays(store_url: str) -> None:
    engine = make_engine(store_url)
    migrate(engine)
    with engine.begin() as conn:
        counted = Entry(endpoint_id="e" * 36, at=T0, submitted=2)
        said = replace(counted, is_online=True, gauges=(4.0, 3.0, None, 0.0), submitted=0, succeeded=5)
        add_entries(conn, [counted, said])
        add_entries(conn, [replace(counted, failed=1)])
        (found,) = read_entries(conn, ["e" * 36], T0, T0 + 60)["e" * 36]
        assert found == replace(said, submitted=4, failed=1)
        add_entries(conn, [replace(counted, is_online=False, submitted=0)])
        (found,) = read_entries(conn, ["e" * 36], T0, T0 + 60)["e" * 36]
        assert (found.is_online, found.gauges, found.submitted) == (False, (None,) * 4, 4)
    engine.dispose()


def _rows(conn: Connection) -> dict[int, int]:
    table = endpoint_history.c
    return dict(conn.execute(select(table.step_s, func.count()).group_by(table.step_s)).all())  # type: ignore[arg-type]


def test_old_minutes_become_hours_and_old_hours_are_forgotten(play: Play, store_url: str) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        endpoint_id = await ada.endpoint()
        minutes = [
            Entry(endpoint_id=endpoint_id, at=T0 + at, is_online=True, gauges=(2.0, 1.0, 1.0, 0.0), succeeded=1)
            for at in range(0, 2 * HOUR_S, 60)
        ]
        await site.service.db.write(add_entries, minutes)
        site.clock.now = T0 + HOUR_S + 2 * DAY + 5.0
        await site.service.relay._sweeper.sweep()
        assert await site.service.db.read(_rows) == {60: 60, 3600: 1}
        since = T0 - 60
        found = await ada.ask("GET", f"/v3/endpoints/{endpoint_id}/history?since={since}&until={T0 + 2 * HOUR_S}")
        assert found["step_s"] == HOUR_S
        shown = {each["at"]: (each["workers"], each["succeeded"]) for each in found["points"]}
        assert shown == {T0 - HOUR_S: (None, 0), T0: (2.0, 60), T0 + HOUR_S: (2.0, 60)}
        site.clock.now = T0 + 91 * DAY + 0.0
        await site.service.relay._sweeper.sweep()
        assert await site.service.db.read(_rows) == {}

    play(story, store=store_url)


def test_minutes_become_hours_step_by_step(store_url: str) -> None:
    engine = make_engine(store_url)
    migrate(engine)
    with engine.begin() as conn:
        for endpoint in "abc":
            add_entries(conn, [Entry(endpoint_id=endpoint * 36, at=T0 + at, submitted=1) for at in (0, 60, HOUR_S)])
        counts = []
        while count := roll_up(conn, T0 + HOUR_S, 2):
            counts.append(count)
        assert (counts, _rows(conn)) == ([2, 1], {60: 3, 3600: 3})
    engine.dispose()


def test_what_was_not_written_yet_is_written_when_the_service_stops(play: Play) -> None:
    clock = Clock(float(T0))
    ids = []

    async def before(site: Site) -> None:
        site.clock.now = clock.now
        ada = await site.person()
        ids.append(await ada.endpoint())
        await ada.submit(ids[0], await ada.function(), 4)

    async def after(site: Site) -> None:
        site.clock.now = clock.now + 60
        found = await (await site.person()).ask("GET", f"/v3/endpoints/{ids[0]}/history")
        assert sum(each["submitted"] for each in found["points"]) == 4

    play(before)
    play(after)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("since=tomorrow", "since"),
        ("since=nan", "since"),
        ("since=1800000000", "since"),
        ("since=1699990000&until=1699980000", "since"),
        ("step_s=90", "step_s"),
        ("step_s=0", "step_s"),
        ("since=1699000000&step_s=60", "step_s"),
        ("user_endpoint_id=x", "user_endpoint_id"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused_by_name(play: Play, query: str, named: str) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        endpoint_id = await ada.endpoint()
        answer = await ada.ask("GET", f"/v3/endpoints/{endpoint_id}/history?{query}", status=422)
        assert named in answer["detail"]

    # A minute's rows of all that time are there, so that the step stays.
    play(story, history_minutes_s=30.0 * DAY)


@pytest.mark.parametrize("query", ["until=0", "until=1000000000", "since=1000000000&until=1000003600"])
def test_a_range_of_which_nothing_is_kept_is_refused_with_what_is_kept(play: Play, query: str) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        endpoint_id = await ada.endpoint()
        site.clock.now = float(T0)
        answer = await ada.ask("GET", f"/v3/endpoints/{endpoint_id}/history?{query}", status=422)
        assert f"'until' must be after {T0 - 91 * DAY - HOUR_S}:" in answer["detail"]
        assert "kept for 91 days" in answer["detail"]
        assert "'since'" not in answer["detail"]
        # What is partly kept is answered with what is.
        found = await ada.ask("GET", f"/v3/endpoints/{endpoint_id}/history?since=1000000000&until={T0 - 90 * DAY}")
        assert (found["since"], found["until"]) == (T0 - 91 * DAY - HOUR_S, T0 - 90 * DAY)

    play(story, history_hours_s=91.0 * DAY)
