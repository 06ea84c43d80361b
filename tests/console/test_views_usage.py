"""Usage: sums over what is asked for, and nothing lost between the table and the chart."""

from __future__ import annotations

from typing import Any

from farcall.console.views.usage import DIMENSIONS, UsageQuestion, days_between, lines_by, series_by_day, totals

DAY = 86400.0
SINCE = 1_795_392_000.0  # 2026-11-23 00:00 UTC


def row(day: str, endpoint: str, user: str, tasks: int, **more: Any) -> dict[str, Any]:
    return {
        "day": day, "endpoint_id": endpoint, "endpoint_name": "hpc", "username": user, "tasks": tasks,
        "succeeded": tasks, "failed": 0, "cancelled": 0, "run_seconds": tasks * 1.5, **more,
    }  # fmt: skip


ROWS = [
    row("2026-11-23", "e1", "ada", 3),
    row("2026-11-24", "e1", "bob", 5),
    row("2026-11-24", "e2", "ada", 4),
    row("2026-11-25", "e2", "ada", 1, account="phys"),
]


def test_endpoints_of_one_name_are_not_added_together() -> None:
    assert [(line.key, line.name, line.tasks) for line in lines_by(ROWS, "endpoint")] == [
        ("e1", "hpc", 8), ("e2", "hpc", 5),
    ]  # fmt: skip


def test_days_are_in_their_order_and_people_by_what_they_used() -> None:
    assert [line.name for line in lines_by(ROWS, "day")] == ["2026-11-23", "2026-11-24", "2026-11-25"]
    assert [(line.name, line.run_seconds) for line in lines_by(ROWS, "user")] == [("ada", 12.0), ("bob", 7.5)]
    assert [(line.name, line.tasks) for line in lines_by(ROWS, "account")] == [("(none)", 12), ("phys", 1)]


def test_the_total_is_that_of_all_rows() -> None:
    assert (totals(ROWS).tasks, totals(ROWS).run_seconds, totals([]).tasks) == (13, 19.5, 0)


def test_a_chart_has_every_day_also_those_without_tasks() -> None:
    days = days_between(SINCE - DAY, SINCE + 3 * DAY)
    assert days == ["2026-11-22", "2026-11-23", "2026-11-24", "2026-11-25", "2026-11-26"]
    assert series_by_day(ROWS, "user", days=days, measure="tasks") == [
        ("ada", [0, 3, 4, 1, 0]), ("bob", [0, 0, 5, 0, 0]),
    ]  # fmt: skip
    assert series_by_day(ROWS, "day", days=days, measure="tasks") == [("Tasks", [0, 3, 9, 1, 0])]


def test_things_of_one_name_are_told_apart_in_the_legend() -> None:
    days = ["2026-11-23", "2026-11-24", "2026-11-25"]
    assert series_by_day([*ROWS, row("2026-11-25", "e3", "ada", 2, endpoint_name="lab")], "endpoint", days=days,
                         measure="tasks") == [
        ("hpc (e1)", [3, 5, 0]), ("hpc (e2)", [0, 4, 1]), ("lab", [0, 0, 2]),
    ]  # fmt: skip


def test_what_is_too_much_for_a_chart_comes_together() -> None:
    many = [row("2026-11-23", "e", f"u{n}", n) for n in range(1, 10)]
    series = series_by_day(many, "user", days=["2026-11-23"], measure="tasks", most=2)
    assert [name for name, _ in series] == ["u9", "u8", "Others"]
    assert sum(figures[0] for _, figures in series) == totals(many).tasks


def test_the_address_says_what_is_counted_and_only_operators_count_everything() -> None:
    query = {"by": "user", "last": "7d", "scope": "all", "endpoint_id": "e"}
    operators, others = (UsageQuestion.from_address(query, is_operator=each) for each in (True, False))
    assert (operators.scope, others.scope) == ("all", "mine")
    now = SINCE + 6.5 * DAY
    asked = operators.to_request(now=now)
    assert asked == {
        "since": str(SINCE + DAY / 2),
        "until": str(now),
        "by": "day,user",
        "scope": "all",
        "endpoint_id": "e",
    }
    assert len(days_between(operators.since(now), now)) == 7


def test_an_address_that_somebody_edited_counts_as_if_it_said_nothing() -> None:
    asked = UsageQuestion.from_address({"by": "<b>", "last": "9y", "scope": "root"}, is_operator=True)
    assert (asked.by, asked.last, asked.scope, asked.endpoint_id) == ("endpoint", "30d", "mine", "")
    assert UsageQuestion.from_address({"by": "day"}, is_operator=True).to_request(now=SINCE)["by"] == "day"
    assert asked.by in DIMENSIONS
