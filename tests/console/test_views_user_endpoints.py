"""The administrator's table: numbers as reported, the right start, the order."""

from __future__ import annotations

from typing import Any

import pytest

from farcall.console.views.user_endpoints import (
    data_time,
    next_update,
    running_text,
    start_of,
    user_endpoint_row,
    user_endpoint_rows,
)

NOW = 1_795_412_000.0
STARTED = 1_795_408_400.0  # 2026-11-23


def reported(**more: Any) -> dict[str, Any]:
    return {
        "user_endpoint_id": "u1", "active": True, "posix_pid": 24303, "posix_username": "ada", "account": "phys",
        "queue": "short", "start_time_unix": STARTED, "last_heartbeat_unix": NOW - 10, "total_worker_count": 8,
        "idle_worker_count": 8, "total_node_count": 2, "executed_task_count": 5, **more,
    }  # fmt: skip


@pytest.mark.parametrize("told", [STARTED, STARTED * 1000])
def test_seconds_and_milliseconds_are_the_same_start(told: float) -> None:
    assert start_of({"start_time_unix": told}) == STARTED


def test_a_start_in_1970_is_not_believed_when_the_text_says_better() -> None:
    # The console of the ecosystem showed 20 January 1970: seconds that were read as milliseconds.
    assert start_of({"start_time_unix": STARTED / 1000, "start_time_iso": "2026-11-23T04:33:20+00:00"}) == STARTED
    assert start_of({"start_time_iso": "2026-11-23T04:33:20Z"}) == STARTED
    assert start_of({"start_time_unix": 0, "start_time_iso": "soon"}) is None


def test_active_is_busy_workers_of_all() -> None:
    shown = [user_endpoint_row(reported(idle_worker_count=idle)) for idle in (8, 0, 5, None, 9)]
    assert [(row["busy"], row["active"]) for row in shown] == [(0, 0.0), (8, 100.0), (3, 37.5), (None, None), (0, 0.0)]


def test_the_most_workers_come_first_and_then_the_oldest() -> None:
    told = [reported(user_endpoint_id=str(n), total_worker_count=n) for n in (2, 64, 8)]
    told.append(reported(user_endpoint_id="young", total_worker_count=64, start_time_unix=STARTED + 1))
    assert [row["id"] for row in user_endpoint_rows([{}, *told, "x"])] == ["64", "young", "8", "2", ""]
    assert user_endpoint_rows(None) == []


def test_one_that_is_gone_ran_until_it_was_last_heard() -> None:
    told = [reported(), reported(active=False), {}, reported(start_time_unix=NOW + 5)]
    assert [running_text(user_endpoint_row(each), now=NOW) for each in told] == ["1 h", "59 min 50 s", "–", "0 ms"]


def test_what_an_agent_reports_in_place_of_a_number_is_not_known() -> None:
    row = user_endpoint_row(reported(total_worker_count="many", posix_pid=True, total_node_count=1e300, queue=["x"]))
    assert [row[name] for name in ("workers", "pid", "nodes", "queue", "active")] == [None] * 5


def test_the_next_update_is_the_next_report_that_is_due() -> None:
    rows = user_endpoint_rows([reported(), reported(last_heartbeat_unix=NOW - 25), reported(active=False)])
    assert next_update(rows, None, 30, now=NOW) == NOW + 5
    assert next_update(rows, None, 20, now=NOW) == NOW  # late: now
    assert next_update([], NOW - 3, 30, now=NOW) == NOW + 27
    assert next_update([], None, 30, now=NOW) is next_update(rows, None, None, now=NOW) is None
    assert data_time(rows, NOW - 1) == NOW - 1
    assert data_time([], None) is None
