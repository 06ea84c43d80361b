"""The administrator's table: numbers as reported, the right start, the order, and CSV that executes nothing."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from farcall.console.views.csvs import to_csv
from farcall.console.views.user_endpoints import (
    COLUMNS,
    data_time,
    lines_of,
    next_update,
    start_of,
    to_table,
    user_endpoint_line,
    user_endpoints_csv,
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
    idle, busy = user_endpoint_line(reported()), user_endpoint_line(reported(idle_worker_count=0))
    assert (idle.busy, idle.active) == (0, "0 %")
    assert (busy.busy, busy.active) == (8, "100 %")
    assert user_endpoint_line(reported(idle_worker_count=None)).active == "–"
    assert user_endpoint_line(reported(idle_worker_count=9)).busy == 0


def test_the_most_workers_come_first() -> None:
    lines = lines_of([reported(user_endpoint_id=str(n), total_worker_count=n) for n in (2, 64, 8)] + [{}])
    assert [line.workers for line in lines] == [64, 8, 2, None]


def test_every_column_has_a_text_and_something_to_sort_by() -> None:
    rows = to_table(lines_of([reported(), reported(user_endpoint_id="u2", active=False), {}]), now=NOW)
    for row in rows:
        for name, _ in COLUMNS:
            assert isinstance(row[name], str)
            assert isinstance(row[f"{name}_sort"], (str, float))
    assert [row["running"] for row in rows] == ["1 h", "59 min 50 s", "–"]


def test_the_next_update_is_the_next_report_that_is_due() -> None:
    lines = lines_of([reported(), reported(last_heartbeat_unix=NOW - 25), reported(active=False)])
    assert next_update(lines, None, 30, now=NOW) == NOW + 5
    assert next_update(lines, None, 20, now=NOW) == NOW  # late: now
    assert next_update([], NOW - 3, 30, now=NOW) == NOW + 27
    assert next_update([], None, 30, now=NOW) is next_update(lines, None, None, now=NOW) is None
    assert data_time(lines, NOW - 1) == NOW - 1
    assert data_time([], None) is None


def test_csv_has_every_line_and_no_formula() -> None:
    raw = user_endpoints_csv(lines_of([reported(account='=HYPERLINK("http://evil")', queue='a,"b"\nc')]))
    titles, row = list(csv.reader(io.StringIO(raw.decode("utf-8-sig"))))
    found = dict(zip(titles, row, strict=True))
    assert found["Account"] == '\'=HYPERLINK("http://evil")'
    assert found["Queue"] == 'a,"b"\nc'
    assert (found["Started (UTC)"], found["Active %"], found["Workers"]) == ("2026-11-23 04:33:20", "0.0", "8")


@pytest.mark.parametrize("active", ["=1", "+1", "-1", "@a", "\ta", "\ra"])
def test_no_cell_of_text_begins_as_a_formula(active: str) -> None:
    row = next(csv.reader(io.StringIO(to_csv([active], []).decode("utf-8-sig"), newline="")))
    assert row == ["'" + active]


def test_numbers_stay_numbers_in_csv() -> None:
    assert to_csv(["n"], [[-3], [None], [1.5]]).decode("utf-8-sig") == 'n\r\n-3\r\n""\r\n1.5\r\n'
