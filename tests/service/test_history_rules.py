"""What is kept of an endpoint's past, and what charts show of it."""

from __future__ import annotations

from farcall.service.history.rules import CARRY_S, Entry, Gauges, Minutes, Point, gauges_of, hour_entry, points, summed

IDLE: Gauges = (4.0, 4.0, 0.0, 0.0)
BUSY: Gauges = (4.0, 0.0, 9.0, 5.0)
NONE: Gauges = (None, None, None, None)
T0 = 1_699_999_200
"""An hour begins."""


def entry(at: int, gauges: Gauges = NONE, is_online: bool | None = None, **more: int) -> Entry:
    if gauges != NONE:
        is_online = True
    return Entry(endpoint_id="e", at=at, gauges=gauges, is_online=is_online, **more)


def test_an_endpoint_that_stays_as_it_is_is_noted_once_an_hour() -> None:
    minutes, taken = Minutes(), []
    for second in range(0, 3 * 3600, 30):
        minutes.reported("e", IDLE, now=T0 + second)
        if second % 60 == 30:
            taken += minutes.take()
    assert taken == [entry(T0 + hour * 3600, IDLE) for hour in range(3)]


def test_what_changes_is_noted_with_the_last_word_of_each_minute() -> None:
    minutes = Minutes()
    minutes.reported("e", IDLE, now=T0)
    minutes.reported("e", BUSY, now=T0 + 30)
    minutes.reported("e", IDLE, now=T0 + 59)
    assert minutes.take() == [entry(T0, IDLE)]
    minutes.reported("e", BUSY, now=T0 + 60)
    minutes.reported("e", IDLE, now=T0 + 90)  # as the minute before ended, but this one did not begin so
    assert minutes.take() == [entry(T0 + 60, IDLE)]
    minutes.reported("e", IDLE, now=T0 + 120)
    assert not minutes


def test_tasks_add_up_and_who_comes_back_is_noted_again() -> None:
    minutes = Minutes()
    minutes.counted("e", now=T0 + 1, submitted=5)
    minutes.counted("e", now=T0 + 2, succeeded=3, failed=1)
    minutes.counted("e", now=T0 + 61, succeeded=1)
    assert minutes.take() == [entry(T0, submitted=5, succeeded=3, failed=1), entry(T0 + 60, succeeded=1)]
    minutes.reported("e", IDLE, now=T0 + 62)
    minutes.take()
    minutes.away("e", now=T0 + 130)
    minutes.reported("e", IDLE, now=T0 + 200)
    assert minutes.take() == [entry(T0 + 120, is_online=False), entry(T0 + 180, IDLE)]


def test_what_could_not_be_written_is_given_again_with_what_came_meanwhile() -> None:
    minutes = Minutes()
    minutes.counted("e", now=T0, submitted=5)
    minutes.reported("e", BUSY, now=T0 + 1)
    taken = minutes.take()
    minutes.counted("e", now=T0 + 2, submitted=2)
    minutes.reported("e", IDLE, now=T0 + 3)
    minutes.give_back(taken)
    assert minutes.take() == [entry(T0, IDLE, submitted=7)]


def test_numbers_hold_until_the_next_entry_and_are_means_over_a_step() -> None:
    found = points(
        [entry(T0 - 600, IDLE), entry(T0 + 60, BUSY, submitted=9), entry(T0 + 90), entry(T0 + 180, is_online=False)],
        since=T0,
        until=T0 + 360,
        step_s=120,
    )
    assert found == [
        Point(at=T0, gauges=(4.0, 2.0, 4.5, 2.5), submitted=9),
        Point(at=T0 + 120, gauges=BUSY),
        Point(at=T0 + 240, gauges=NONE),
    ]


def test_numbers_do_not_hold_for_ever() -> None:
    found = points([entry(T0, IDLE)], since=T0, until=T0 + 2 * CARRY_S, step_s=CARRY_S)
    assert [point.gauges for point in found] == [IDLE, NONE]


def test_an_hour_says_what_its_minutes_said_and_holds_no_longer() -> None:
    minutes = [entry(T0, IDLE, submitted=1), entry(T0 + 1800, BUSY, succeeded=1), entry(T0 + 2700, IDLE, failed=2)]
    hour = hour_entry(minutes)
    assert hour == Entry(
        endpoint_id="e",
        at=T0,
        step_s=3600,
        is_online=True,
        gauges=(4.0, 3.0, 2.25, 1.25),
        submitted=1,
        succeeded=1,
        failed=2,
    )
    found = points([hour], since=T0, until=T0 + 7200, step_s=3600)
    assert found[0].gauges == hour.gauges
    assert (found[0].submitted, found[1].gauges) == (1, NONE)


def test_several_endpoints_are_one_chart() -> None:
    one, two = Point(at=T0, gauges=(1.0, None, 2.0, None), submitted=1), Point(at=T0, gauges=(3.0, 1.0, None, None))
    assert summed([[one], [two]]) == [Point(at=T0, gauges=(4.0, 1.0, 2.0, None), submitted=1)]


def test_reports_say_what_they_say() -> None:
    state = {"total_workers": 4, "idle_workers": True, "outstanding_tasks": "7", "pending_tasks": 10**400}
    assert gauges_of(state) == (4.0, None, None, None)
