"""What a browser keeps for us comes back unchanged, for its purpose and in its time, or not at all."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farcall.service.web.sealed import seal, unseal

SECRET, NOW = b"s" * 32, 1_700_000_000.0


def test_it_comes_back_in_its_time_only() -> None:
    text = seal(SECRET, "login", {"a": [1, None, "ü"]}, expires_at=NOW + 10)
    assert unseal(SECRET, "login", text, now=NOW) == {"a": [1, None, "ü"]}
    assert unseal(SECRET, "login", text, now=NOW + 10) is None


def test_another_purpose_or_secret_is_refused() -> None:
    text = seal(SECRET, "login", {"a": 1}, expires_at=NOW + 10)
    assert unseal(SECRET, "link", text, now=NOW) is None
    assert unseal(b"t" * 32, "login", text, now=NOW) is None


def test_it_fits_into_a_cookie_or_is_not_made() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        seal(SECRET, "login", {"a": "x" * 4000}, expires_at=NOW)
    assert set(seal(SECRET, "login", {"a": "ä;, \n"}, expires_at=NOW)) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
    )


@given(st.text(max_size=200))
def test_any_other_text_is_refused(text: str) -> None:
    assert unseal(SECRET, "login", text, now=NOW) is None


@given(st.integers(0, 200), st.integers(0, 255))
def test_one_changed_character_is_refused(at: int, by: int) -> None:
    text = seal(SECRET, "login", {"user": "ada", "until": 1}, expires_at=NOW + 10)
    changed = bytearray(text.encode())
    changed[at % len(changed)] = by
    if bytes(changed) != text.encode():
        try:
            body = bytes(changed).decode()
        except UnicodeDecodeError:
            return
        found = unseal(SECRET, "login", body, now=NOW)
        # The last characters carry bits that mean nothing; what is read is never something else.
        assert found in (None, {"user": "ada", "until": 1})


def test_a_document_of_ours_that_is_no_object_is_refused() -> None:
    assert unseal(SECRET, "x", base64.urlsafe_b64encode(b"[1,2]").decode() + ".", now=NOW) is None
