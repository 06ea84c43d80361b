"""Numbers, sizes, durations, percentages: what people read."""

from __future__ import annotations

import pytest

from farcall.console.views.formats import UNKNOWN, count, duration, number, percent, plural, short_id, size, text


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, UNKNOWN), ("soon", UNKNOWN), (float("nan"), UNKNOWN), (float("inf"), UNKNOWN), (True, UNKNOWN),
        (-3, "0 s"), (0, "0 s"), (0.0001, "1 ms"), (0.25, "250 ms"), (0.9996, "1.0 s"), (1.24, "1.2 s"),
        (9.96, "10 s"), (59.6, "1 min"), (185, "3 min 5 s"), (3600, "1 h"), (7800, "2 h 10 min"),
        (86399.7, "1 d"), (3 * 86400 + 4 * 3600 + 59, "3 d 4 h"), (400 * 86400, "400 d"),
    ],
)  # fmt: skip
def test_a_duration_is_told_in_the_two_units_that_matter(seconds: object, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (None, UNKNOWN), (-1, UNKNOWN), (0, "0 B"), (817, "817 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"), (12 * 1024**2, "12 MiB"), (5000 * 1024**4, "5,000 TiB"),
    ],
)  # fmt: skip
def test_a_size_is_told_in_powers_of_1024(size_bytes: object, shown: str) -> None:
    assert size(size_bytes) == shown


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (8, 8, "100 %"), (0, 8, "0 %"), (3, 8, "38 %"), (1, 1000, "< 1 %"), (999, 1000, "99 %"),
        (0, 0, UNKNOWN), (None, 8, UNKNOWN), (8, None, UNKNOWN),
    ],
)  # fmt: skip
def test_a_percentage_never_rounds_to_none_or_all(part: float | None, whole: float | None, shown: str) -> None:
    assert percent(part, whole) == shown


def test_what_an_agent_reports_in_place_of_a_number_is_not_known() -> None:
    assert [number(each) for each in (3, 2.5, "3", True, None, [], 1e300, float("nan"))] == [3, 2.5] + [None] * 6
    assert (count(12345.4), count("<b>")) == ("12,345", UNKNOWN)


def test_words_of_an_amount_and_of_an_id() -> None:
    assert (plural(1, "task"), plural(2000, "task"), plural(2, "entry", "entries")) == (
        "1 task", "2,000 tasks", "2 entries",
    )  # fmt: skip
    assert (short_id("0123456789"), short_id(None), text(""), text(0)) == ("01234567", UNKNOWN, UNKNOWN, "0")
