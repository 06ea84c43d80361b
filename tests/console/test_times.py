"""Moments in addresses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farcall.console.views.times import from_address, to_address


@given(st.integers(0, 4_000_000_000))
def test_an_address_keeps_a_moment_to_the_second(at: int) -> None:
    assert from_address(to_address(float(at))) == at


def test_what_is_no_moment_is_none() -> None:
    assert to_address(1_795_408_440.0) == "2026-11-23T04:34Z"
    for text in ("", None, "yesterday", "2026-13-01", "9" * 50):
        assert from_address(text) is None
    assert (to_address(None), to_address(float("inf"))) == (None, None)
