from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from farcall.client.tokens import StoredToken, TokenStore

ALICE = StoredToken(access_token="fc_alice", identity_id="11111111-2222-4333-8444-555555555555", username="alice@here")


def test_a_token_is_found_under_every_name_of_its_service(tmp_path: Path) -> None:
    store = TokenStore(tmp_path / "deep" / "tokens.json")
    store.put("http://localhost:5000", ALICE)
    assert store.get("http://127.0.0.1:5000/") == ALICE
    assert store.get("http://localhost:5001") is None


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    store = TokenStore(tmp_path / "new" / "tokens.json")
    store.put("http://localhost:5000", ALICE)
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert store.path.parent.stat().st_mode & 0o777 == 0o700


def test_a_removed_token_is_gone_and_no_longer_the_default(tmp_path: Path) -> None:
    store = TokenStore(tmp_path / "tokens.json")
    store.put("http://localhost:5000", ALICE)
    store.set_default("http://127.0.0.1:5000")
    assert store.default_url == "http://127.0.0.1:5000"
    store.remove("http://[::1]:5000")
    assert store.get("http://localhost:5000") is None
    assert store.default_url is None
    store.remove("http://localhost:5000")


def test_a_missing_file_is_an_empty_store(tmp_path: Path) -> None:
    store = TokenStore(tmp_path / "tokens.json")
    assert store.get("http://localhost:5000") is None
    assert store.default_url is None


@pytest.mark.parametrize("text", ["{", "[]", '{"services": {"http://localhost:5000": {"access_token": "x"}}}'])
def test_a_broken_file_is_named_rather_than_overwritten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"tokens\.json"):
        TokenStore(path).get("http://localhost:5000")
    assert path.read_text() == text


def test_a_failed_change_leaves_the_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = TokenStore(tmp_path / "tokens.json")
    store.put("http://localhost:5000", ALICE)
    before = store.path.read_text()

    def disk_full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("farcall.client.tokens.os.fsync", disk_full)
    with pytest.raises(OSError, match="No space"):
        store.put("http://localhost:5001", ALICE)
    assert store.path.read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokens.json", "tokens.json.lock"]


def test_a_token_does_not_show_in_its_repr() -> None:
    assert "fc_alice" not in repr(ALICE)


def _put_many(path: Path, worker: int) -> None:
    store = TokenStore(path)
    for n in range(10):
        store.put(f"http://host-{worker}:{1000 + n}", ALICE)


def test_processes_that_log_in_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_put_many, args=(path, n)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert len(json.loads(path.read_text())["services"]) == 40


def test_authorities_are_remembered_for_an_address_and_outlive_the_login(tmp_path: Path) -> None:
    store = TokenStore(tmp_path / "tokens.json")
    store.put("https://a.example.org", StoredToken(access_token="t", identity_id="i", username="u"))
    store.set_ca_file("https://a.example.org:443/", "/etc/a.pem")
    store.remove("https://a.example.org")
    assert store.ca_file("https://A.example.org") == "/etc/a.pem"
    assert store.ca_file("https://b.example.org") is None
    store.set_ca_file("https://a.example.org", None)
    assert store.ca_file("https://a.example.org") is None
