"""GET /v3/usage, on SQLite and PostgreSQL."""

from __future__ import annotations

import csv
import io
import uuid
from typing import Any

import pytest
from service_world import Caller, Play, Site
from sqlalchemy import Connection, func, select, update

from farcall.service.db.tables import endpoints, usage
from farcall.service.relay import store as relay
from farcall.service.relay.results import ParsedResult, TaskRef, parse_result
from farcall.service.relay.sweeper import Sweeper
from farcall.service.usage.rules import add_up, csv_text, days_between
from farcall.wire.errors import InvalidRequest
from farcall.wire.messages import Result, TaskTransition, pack_message
from farcall.wire.states import TaskState

DAY = 86400.0
ADA = "ada@localhost"


async def ran(site: Site, caller: Caller, endpoint_id: str, function_id: str, count: int = 1, **told: Any) -> None:
    """Tasks that end; `told` of their results."""
    answer = await caller.submit(endpoint_id, function_id, count)
    where = await site.service.db.read(_queue_of, answer["tasks"][function_id][0])
    members = {"sender": f"{where}.results", "body": b"", "data": "11\n21", "run_s": 2.5, **told}
    results = [ParsedResult(task_id=each, **members) for each in answer["tasks"][function_id]]
    recorded = await site.service.db.write(relay.record_results, results, site.clock.now)
    assert len(recorded.ended) == count


def _queue_of(conn: Connection, task_id: str) -> str:
    return relay._refs(conn, [task_id])[0].endpoint_id


def _reported(conn: Connection, endpoint_id: str, report: str) -> None:
    conn.execute(update(endpoints).where(endpoints.c.id == endpoint_id).values(last_report_json=report))


def _owned_by(conn: Connection, before: str, owner_id: str) -> None:
    conn.execute(update(usage).where(usage.c.owner_id == before).values(owner_id=owner_id))


def _rows(conn: Connection) -> int:
    return int(conn.execute(select(func.count()).select_from(usage)).scalar_one())


async def swept(site: Site) -> None:
    nothing: dict[str, Any] = {"on_ended": lambda recorded: None, "on_idle": lambda: None, "is_on": lambda: True}
    await Sweeper(site.service.settings, site.service.db, site.clock, **nothing).sweep()


def test_what_ended_is_counted_per_day_and_outlives_its_tasks(play: Play, store_url: str) -> None:
    async def story(site: Site) -> None:
        ada, bob = await site.person(), await site.person("bob@localhost")
        boss = await site.person("boss@localhost", is_admin=True)
        here, function_id = await ada.endpoint(), await ada.function(public=True)
        manager = await ada.endpoint(endpoint_name="=cluster", direct=False, multi_user=True)
        site.clock.now = 1000 * DAY + 10
        await ran(site, ada, here, function_id, 3)
        await ran(site, ada, here, function_id, error_code="RemoteExecutionError", error_message="no", run_s=None)
        await ran(site, bob, manager, function_id, 2)
        (task_id,) = (await ada.submit(here, function_id))["tasks"][function_id]
        await ada.ask("POST", f"/v3/tasks/{task_id}/cancel")
        site.clock.now += DAY
        await ran(site, ada, manager, function_id)
        site.clock.now += 16 * DAY
        await swept(site)
        assert (await ada.ask("GET", "/v3/tasks"))["tasks"] == []
        whole = {"tasks": 6, "succeeded": 4, "failed": 1, "cancelled": 1, "run_seconds": 10.0}
        assert await ada.ask("GET", "/v3/usage") == {
            "scope": "mine",
            "since": 988 * DAY,
            "until": 1018 * DAY,
            "rows": [whole],
        }
        everything = (await boss.ask("GET", "/v3/usage?scope=all&by=day,user,endpoint"))["rows"]
        there = {"endpoint_id": manager, "endpoint_name": "=cluster", "failed": 0, "cancelled": 0}
        first = {"day": "1972-09-27", "username": "ada@localhost", "endpoint_id": here, "endpoint_name": "here"}
        assert everything == [
            {**first, "tasks": 5, "succeeded": 3, "failed": 1, "cancelled": 1, "run_seconds": 7.5},
            {**there, "day": "1972-09-27", "username": "bob@localhost", "tasks": 2, "succeeded": 2, "run_seconds": 5.0},
            {**there, "day": "1972-09-28", "username": "ada@localhost", "tasks": 1, "succeeded": 1, "run_seconds": 2.5},
        ]
        (row,) = (await ada.ask("GET", f"/v3/usage?scope=endpoint&endpoint_id={manager}&by=endpoint"))["rows"]
        assert row["tasks"] == 3
        (row,) = (await ada.ask("GET", f"/v3/usage?by=function&since={1001 * DAY}"))["rows"]
        assert (row["function_id"], row["function_name"], row["tasks"]) == (function_id, "triple", 1)
        for wrong in ("by=week", "scope=endpoint", "since=5&until=5", "format=xml", "since=0", "scope=ours"):
            await ada.ask("GET", f"/v3/usage?{wrong}", status=422)
        site.clock.now += 714 * DAY
        await swept(site)
        assert await site.service.db.read(_rows) == 1
        site.clock.now += DAY
        await swept(site)
        assert await site.service.db.read(_rows) == 0

    play(story, store=store_url, task_lifetime_s=15 * DAY)


def test_people_whom_nobody_knows_any_more_stay_apart_by_their_ids(play: Play, store_url: str) -> None:
    async def story(site: Site) -> None:
        ada, boss = await site.person(), await site.person("boss@localhost", is_admin=True)
        endpoint_id, function_id = await ada.endpoint(), await ada.function(public=True)
        gone = [str(uuid.UUID(int=number)) for number in (1, 2)]
        for unknown in gone:
            await ran(site, ada, endpoint_id, function_id)
            await site.service.db.write(_owned_by, ada.identity.id, unknown)
        await ran(site, ada, endpoint_id, function_id)
        rows = (await boss.ask("GET", "/v3/usage?scope=all&by=user"))["rows"]
        assert sorted((row["username"], row["tasks"]) for row in rows) == [*((each, 1) for each in gone), (ADA, 1)]

    play(story, store=store_url)


def test_accounts_are_as_endpoints_report_and_a_spreadsheet_gets_no_formula(play: Play, store_url: str) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        function_id = await ada.function(function_name='=HYPERLINK("http://x","y")')
        charged, plain = await ada.endpoint(), await ada.endpoint(metadata={"local_user": "@ada"})
        unknown = await ada.endpoint(metadata={"local_user": 7})
        await site.service.db.write(_reported, charged, '{"account": "project42", "posix_username": "root"}')
        for endpoint_id, count in ((charged, 3), (plain, 2), (unknown, 1)):
            await ran(site, ada, endpoint_id, function_id, count)
        rows = (await ada.ask("GET", "/v3/usage?by=account"))["rows"]
        assert [(each["account"], each["tasks"]) for each in rows] == [("project42", 3), ("@ada", 2), (None, 1)]
        headers = {"authorization": f"Bearer {ada.token}"}
        answer = await site.get("/v3/usage?by=account,function,day&format=csv", headers=headers)
        assert answer.headers["content-type"].startswith("text/csv")
        assert 'filename="farcall-usage-2023-10-16--2023-11-14.csv"' in answer.headers["content-disposition"]
        head, *lines = list(csv.reader(io.StringIO(answer.text)))
        assert head == [
            *("day", "account", "function_id", "function_name"),
            *("tasks", "succeeded", "failed", "cancelled", "run_seconds"),
        ]
        formula = '\'=HYPERLINK("http://x","y")'
        assert lines == [
            ["2023-11-14", "project42", function_id, formula, "3", "3", "0", "0", "7.5"],
            ["2023-11-14", "'@ada", function_id, formula, "2", "2", "0", "0", "5.0"],
            ["2023-11-14", "", function_id, formula, "1", "1", "0", "0", "2.5"],
        ]

    play(story, store=store_url)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1", "＝1", "\n=1"])
def test_text_that_looks_like_a_formula_is_marked(text: str) -> None:
    (_, row) = csv.reader(io.StringIO(csv_text([{"username": text, "tasks": 1}], ["user"])))
    assert row[:2] == [f"'{text}", "1"]


def test_nothing_ran_for_longer_than_it_exists_whatever_an_endpoint_says() -> None:
    task = TaskRef(1, "t", "g", "ada", "e", TaskState.RUNNING, False, "f", 100.0)
    ((key, count),) = add_up([(task, TaskState.SUCCESS, 1e9)], now=DAY + 100).items()
    assert key == (1, "ada", "e", "f")
    assert count.run_s == DAY + 60
    transitions = [("execution-end", 5), ("execution-start", 2)]
    told = tuple(TaskTransition(timestamp=at * 10**9, state=state, actor="worker") for state, at in transitions)
    message = Result(task_id="01890a5d-ac96-774b-bcce-b302099a8057", data="11\n1", task_statuses=told)
    parsed = parse_result(pack_message(message), None)
    assert isinstance(parsed, ParsedResult)
    assert parsed.run_s == 3.0


def test_whole_days_are_counted() -> None:
    now = 100 * DAY + 5
    assert days_between(None, None, now=now) == (71, 100)
    assert days_between(99 * DAY + 5, None, now=now) == (99, 100)
    assert days_between(99 * DAY, 100 * DAY, now=now) == (99, 99)
    assert days_between(99 * DAY, 100 * DAY + 1, now=now) == (99, 100)
    with pytest.raises(InvalidRequest):
        days_between(1000 * DAY, None, now=now)
