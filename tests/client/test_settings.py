from __future__ import annotations

from pathlib import Path

import pytest

from farcall.client.settings import DEFAULT_SERVICE_URL, canonical_url, is_loopback_url, service_url, user_dir
from farcall.client.tokens import TokenStore


@pytest.fixture(autouse=True)
def empty_user_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FARCALL_USER_DIR", str(tmp_path / "user"))
    monkeypatch.delenv("FARCALL_SERVICE_URL", raising=False)


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("http://localhost:5000", "http://localhost:5000"),
        ("http://127.0.0.1:5000/", "http://localhost:5000"),
        ("http://[::1]:5000", "http://localhost:5000"),
        ("HTTP://LocalHost:5000", "http://localhost:5000"),
        ("https://Example.org:443/farcall/", "https://example.org/farcall"),
        ("http://example.org:80", "http://example.org"),
        ("http://[2001:db8::1]:5000", "http://[2001:db8::1]:5000"),
    ],
)
def test_one_service_has_one_canonical_address(url: str, canonical: str) -> None:
    assert canonical_url(url) == canonical
    assert canonical_url(canonical) == canonical


@pytest.mark.parametrize("url", ["", "localhost:5000", "ftp://x", "http://", "http://x:99999", "http://x:y"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not the address of a service"):
        canonical_url(url)


def test_the_service_is_chosen_by_argument_then_environment_then_login_then_localhost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert service_url() == DEFAULT_SERVICE_URL
    TokenStore().set_default("https://remembered.example.org")
    assert service_url() == "https://remembered.example.org"
    monkeypatch.setenv("FARCALL_SERVICE_URL", "http://environment:1/")
    assert service_url() == "http://environment:1"
    assert service_url("http://argument:2") == "http://argument:2"


def test_the_environment_moves_the_users_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert user_dir() == tmp_path / "user"
    monkeypatch.delenv("FARCALL_USER_DIR")
    assert user_dir() == Path.home() / ".farcall"


def test_loopback_is_told_from_the_rest() -> None:
    assert is_loopback_url("http://127.0.0.1:5000")
    assert not is_loopback_url("http://localhost.example.org")
