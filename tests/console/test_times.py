"""Moments: in addresses in UTC, in forms in the viewer's zone."""

from __future__ import annotations

from datetime import timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from farcall.console.views.times import absolute, from_address, from_form, to_address, to_form

CET = timezone(timedelta(hours=1), "CET")
AT = 1_795_408_445.0  # 2026-11-23 04:34:05 in UTC


def test_an_address_means_the_same_everywhere_and_a_form_does_not() -> None:
    at = from_form("2026-11-23T06:34", CET)
    assert to_address(at) == "2026-11-23T05:34Z"
    assert to_form(from_address("2026-11-23T05:34Z"), CET) == "2026-11-23T06:34"


@given(st.integers(0, 4_000_000_000))
def test_an_address_keeps_a_moment_to_the_second(at: int) -> None:
    assert from_address(to_address(float(at))) == at


def test_what_is_no_moment_is_none() -> None:
    for text in ("", None, "yesterday", "2026-13-01", "9" * 50):
        assert from_address(text) is None
        assert from_form(text, CET) is None
    assert (to_address(None), to_address(float("inf")), to_form(None, CET), absolute("x", CET)) == (None, None, "", "–")


def test_the_absolute_time_names_its_zone() -> None:
    assert absolute(AT, CET) == "2026-11-23 05:34:05 CET"
    assert absolute(0, timezone.utc) == "1970-01-01 00:00:00 UTC"
