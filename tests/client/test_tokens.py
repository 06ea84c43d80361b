from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from farcall.client.tokens import ServerTokens, StoredToken, TokenStore

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


# --- several logins at one service

BOB = StoredToken(
    access_token="b",
    identity_id="b" * 8,
    username="bob@here",
    expires_at=2.5,
    renew_at=1.5,
    refresh_token="rb",
    client_id="c",
    scope="all openid",
    others={"auth": ServerTokens(access_token="ba", refresh_token="bra", expires_at=3.5, scope="openid")},
)
HERE = "http://localhost:5000"


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    return TokenStore(tmp_path / "tokens.json")


def names(store: TokenStore) -> list[tuple[str, bool]]:
    return [(each.login.username, each.is_used) for each in store.accounts()]


def test_a_login_comes_back_whole(store) -> None:
    store.put(HERE, BOB)
    assert store.get(HERE) == BOB
    assert store.get(HERE).at("auth") == BOB.others["auth"]
    assert ALICE.at("auth") == ALICE.at("funcx_service"), "a token that was handed out counts everywhere"
    assert BOB.at("elsewhere") is None


def test_another_persons_login_is_kept_beside_and_used(store) -> None:
    store.put(HERE, ALICE)
    store.put(HERE, BOB)
    assert names(store) == [("bob@here", True), ("alice@here", False)]
    assert store.get(HERE, "alice@here") == ALICE
    store.put(HERE, ALICE)
    store.put("https://h", ALICE, use=False)
    assert names(store) == [("alice@here", True), ("bob@here", False), ("alice@here", True)]
    store.put(HERE, BOB, use=False)
    assert store.get(HERE) == ALICE
    assert store.use(HERE, "bob@here") == BOB
    assert store.get(HERE) == BOB
    assert store.use(HERE, "eve@here") is None


def test_with_the_last_login_the_default_is_forgotten(store) -> None:
    store.put(HERE, ALICE)
    store.put(HERE, BOB)
    store.set_default(HERE)
    store.remove(HERE)
    assert (names(store), store.default_url) == ([("alice@here", False)], HERE)
    assert store.get(HERE) is None, "nobody takes the place"
    store.remove(HERE, "alice@here")
    assert (names(store), store.default_url) == ([], None)


def test_a_login_is_replaced_only_if_it_is_still_there(store) -> None:
    after = replace(BOB, access_token="b2")
    assert store.replace(HERE, BOB, after) is False
    store.put(HERE, BOB)
    store.put(HERE, ALICE)
    assert store.replace(HERE, BOB, after) is True
    assert store.replace(HERE, BOB, after) is False
    assert store.get(HERE, "bob@here") == after
    assert store.get(HERE) == ALICE


def test_a_file_of_an_earlier_release_is_read_and_stays_readable_for_it(store) -> None:
    old = {"access_token": "x", "identity_id": "i", "username": "alice@here", "expires_at": None}
    store.path.write_text(json.dumps({"format": 1, "default_url": HERE, "services": {HERE: old}}))
    assert names(store) == [("alice@here", True)]
    store.put(HERE, BOB)
    entry = json.loads(store.path.read_text())["services"][HERE]
    assert (entry["access_token"], entry["username"], entry["expires_at"]) == ("b", "bob@here", 2.5)


def test_asking_for_what_is_there_already_writes_nothing(store) -> None:
    store.put(HERE, ALICE)
    before = store.path.stat()
    store.put(HERE, ALICE)
    store.remove("http://elsewhere")
    assert store.path.stat().st_mtime_ns == before.st_mtime_ns
    assert store.path.stat().st_ino == before.st_ino


def test_authorities_are_remembered_for_an_address_and_outlive_the_login(tmp_path: Path) -> None:
    store = TokenStore(tmp_path / "tokens.json")
    store.put("https://a.example.org", StoredToken(access_token="t", identity_id="i", username="u"))
    store.set_ca_file("https://a.example.org:443/", "/etc/a.pem")
    store.remove("https://a.example.org")
    assert store.ca_file("https://A.example.org") == "/etc/a.pem"
    assert store.ca_file("https://b.example.org") is None
    store.set_ca_file("https://a.example.org", None)
    assert store.ca_file("https://a.example.org") is None
