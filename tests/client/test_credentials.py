"""Which credential counts, and when and by whom it is renewed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from oauth_server import OAuthServer

from farcall.client.credentials import (
    CallableToken,
    ClientCredentials,
    FixedToken,
    StoredLogin,
    credential_for,
    is_expiring,
)
from farcall.client.oauth import tokens_from_document
from farcall.client.rest import ApiClient
from farcall.client.retry import RetryPolicy
from farcall.client.tokens import ServerTokens, StoredToken, TokenStore
from farcall.wire.auth import CLIENT_ID
from farcall.wire.errors import ServiceUnreachable, Unauthenticated

QUICK = RetryPolicy(first_s=0.001, longest_s=0.002, budget_s=5, unmet_budget_s=5)
HASTY = RetryPolicy(first_s=0.001, longest_s=0.002, budget_s=0, unmet_budget_s=0)
WAIT_S = 60


def keep(store: TokenStore, auth: OAuthServer, username: str = "ada@here", *, ago_s: float = 0, **put: Any) -> None:
    """Log in, as of `ago_s` seconds ago, and keep it."""
    tokens = tokens_from_document(auth.log_in(username), now=time.time() - ago_s)
    main = tokens.pop("funcx_service")
    login = StoredToken(
        access_token=main.access_token,
        refresh_token=main.refresh_token,
        expires_at=main.expires_at,
        renew_at=main.renew_at,
        identity_id=f"id-of-{username}",
        username=username,
        client_id=CLIENT_ID,
        others=tokens,
    )
    store.put(auth.url, login, **put)


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    return TokenStore(tmp_path / "tokens.json")


@pytest.fixture
def client(auth: OAuthServer, store: TokenStore):
    with ApiClient(auth.url, store=store, retry=QUICK) as client:
        yield client


# --- which one counts


def test_the_order_is_argument_token_client_account_login(store: TokenStore) -> None:
    env = {"FARCALL_TOKEN": "t", "FARCALL_CLIENT_ID": "c", "FARCALL_CLIENT_SECRET": "s", "FARCALL_ACCOUNT": "a"}

    def kind(token: Any = None, *without: str) -> type:
        left = {name: value for name, value in env.items() if name not in without}
        return type(credential_for("http://h", token, store, lambda: pytest.fail("no request"), left))

    assert kind(lambda: "x") is CallableToken
    assert kind("x") is FixedToken
    assert credential_for("http://h", "x", store, lambda: pytest.fail("no request"), env).token("funcx_service") == "x"
    assert kind() is FixedToken
    assert kind(None, "FARCALL_TOKEN") is ClientCredentials
    assert kind(None, "FARCALL_TOKEN", "FARCALL_CLIENT_ID", "FARCALL_CLIENT_SECRET") is StoredLogin


@pytest.mark.parametrize(
    ("there", "missing"),
    [("FARCALL_CLIENT_ID", "FARCALL_CLIENT_SECRET"), ("FARCALL_CLIENT_SECRET", "FARCALL_CLIENT_ID")],
)
def test_half_a_client_is_an_error_that_names_the_other_half(store: TokenStore, there: str, missing: str) -> None:
    with pytest.raises(ValueError, match=rf"{there} is set and {missing} is not") as info:
        credential_for("http://h", None, store, lambda: pytest.fail("no request"), {there: "hush"})
    assert "hush" not in str(info.value)


def test_a_program_logs_in_with_id_and_secret_and_keeps_nothing_on_disk(auth, store, monkeypatch) -> None:
    auth.clients["robot"] = "s3 cret/+"
    monkeypatch.setenv("FARCALL_CLIENT_ID", "robot")
    monkeypatch.setenv("FARCALL_CLIENT_SECRET", "s3 cret/+")
    with ApiClient(auth.url, store=store, retry=QUICK) as client, client.twin() as twin:
        assert client.whoami()["username"] == "robot"
        assert twin.whoami()["username"] == "robot"
        assert client.userinfo()["sub"] == "id-of-robot", "another resource server has a token of its own"
        assert client.identity_key == twin.identity_key
        assert len(auth.families) == 2, "twins share their tokens"
        auth.expire()
        assert client.whoami()["username"] == "robot", "a refused token is fetched anew"
    assert not store.path.exists()
    monkeypatch.setenv("FARCALL_CLIENT_SECRET", "wrong")
    with ApiClient(auth.url, store=store, retry=QUICK) as client:
        with pytest.raises(Unauthenticated, match="does not accept the client robot") as info:
            client.whoami()
    assert "wrong " not in str(info.value).replace("is wrong", "")


def test_one_of_several_kept_logins_is_chosen_by_name(auth, store, monkeypatch) -> None:
    keep(store, auth, "ada@here")
    keep(store, auth, "bob@here", use=False)
    with ApiClient(auth.url, store=store, retry=QUICK) as client:
        assert client.whoami()["username"] == "ada@here"
    for name in ("bob@here", "id-of-bob@here"):
        monkeypatch.setenv("FARCALL_ACCOUNT", name)
        with ApiClient(auth.url, store=store, retry=QUICK) as client:
            assert client.whoami()["username"] == "bob@here"
    monkeypatch.setenv("FARCALL_ACCOUNT", "eve@here")
    with ApiClient(auth.url, store=store, retry=QUICK) as client:
        with pytest.raises(ValueError, match=r"eve@here.*there are: ada@here, bob@here"):
            client.whoami()


def test_a_program_keeps_its_identity_when_another_login_is_switched_to(auth, store, client) -> None:
    keep(store, auth, "ada@here")
    assert client.whoami()["username"] == "ada@here"
    key = client.identity_key
    keep(store, auth, "bob@here")
    auth.expire()
    keep(store, auth, "bob@here")
    assert client.whoami()["username"] == "ada@here", "renewed, and not bob's"
    assert client.identity_key == key
    with ApiClient(auth.url, store=store, retry=QUICK) as other:
        assert other.whoami()["username"] == "bob@here"
        assert other.identity_key != key


# --- renewal


def test_a_token_is_renewed_a_minute_before_its_end_or_at_half_its_life() -> None:
    long, short = (
        tokens_from_document({"access_token": "a", "resource_server": "s", "expires_in": n}, now=1000)["s"]
        for n in (3600, 30)
    )
    assert not is_expiring(long, 1000 + 3539)
    assert is_expiring(long, 1000 + 3540)
    assert not is_expiring(short, 1000 + 14)
    assert is_expiring(short, 1000 + 15)
    assert is_expiring(ServerTokens(access_token="a", expires_at=5.0), 5.0)
    assert not is_expiring(ServerTokens(access_token="a"), 1e12), "a token without an end"


def test_an_old_token_is_renewed_before_it_is_sent_and_what_came_is_kept(auth, store, client) -> None:
    keep(store, auth, ago_s=3550)
    before = store.get(auth.url)
    assert client.whoami()["username"] == "ada@here"
    assert client.userinfo()["sub"] == "id-of-ada@here"
    after = store.get(auth.url)
    assert auth.refreshes == 2, "each resource server by itself"
    assert before.access_token not in [token for _, _, token in auth.requests]
    assert after.refresh_token != before.refresh_token
    assert after.at("auth.globus.org").refresh_token != before.at("auth.globus.org").refresh_token
    assert auth.thefts == 0


def test_a_refused_token_is_renewed_once(auth, store, client) -> None:
    keep(store, auth)
    client.whoami()
    auth.expire()
    assert client.whoami()["username"] == "ada@here"
    assert auth.refreshes == 1


def test_a_login_that_has_ended_is_said_and_not_tried_again(auth, store, client) -> None:
    keep(store, auth)
    auth.families.clear()
    for _ in range(2):
        with pytest.raises(Unauthenticated, match=rf"ada@here in .*tokens\.json .*farcall login {auth.url}"):
            client.whoami()
    assert auth.refreshes == 1, "a dead refresh token is not shown again"
    keep(store, auth)
    assert client.whoami()["username"] == "ada@here", "the running program goes on after a login elsewhere"


def test_while_the_login_cannot_be_reached_a_token_that_still_counts_is_used(auth, store, monkeypatch) -> None:
    keep(store, auth, ago_s=3550)
    auth.on_token = lambda form: pytest.fail("not reached")
    with ApiClient(auth.url, store=store, retry=HASTY) as client:
        monkeypatch.setattr(client.oauth(), "refresh", unreachable)
        assert client.whoami()["username"] == "ada@here"
    keep(store, auth, ago_s=3650)
    with ApiClient(auth.url, store=store, retry=HASTY) as client:
        monkeypatch.setattr(client.oauth(), "refresh", unreachable)
        with pytest.raises(ServiceUnreachable, match="down"):
            client.whoami()


def unreachable(*args: object, **kwargs: object) -> None:
    raise ServiceUnreachable("http://h", "down")


def test_many_threads_renew_once(auth, store) -> None:
    keep(store, auth, ago_s=3550)
    with ApiClient(auth.url, store=store, retry=QUICK) as client, client.twin() as twin:
        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit((client, twin)[n % 2].whoami) for n in range(40)]
            assert {call.result(WAIT_S)["username"] for call in calls} == {"ada@here"}
    assert (auth.refreshes, auth.thefts) == (1, 0)


ASK = """
import sys
from pathlib import Path
from farcall.client.rest import ApiClient
from farcall.client.tokens import TokenStore
client = ApiClient(sys.argv[1], store=TokenStore(Path(sys.argv[2])))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[3])):
    print(client.whoami()["username"], flush=True)
"""


def ask_in_process(auth: OAuthServer, store: TokenStore, times: int = 1) -> subprocess.Popen[str]:
    """A process that asks the service who it is when it is sent a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", ASK, auth.url, str(store.path), str(times)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={key: value for key, value in os.environ.items() if not key.startswith("FARCALL_")},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_many_processes_renew_once_and_none_looks_like_a_thief(auth, store) -> None:
    keep(store, auth, ago_s=3550)
    processes = [ask_in_process(auth, store, 5) for _ in range(4)]
    for process in processes:
        go(process)
    assert [process.communicate(timeout=WAIT_S)[0] for process in processes] == ["ada@here\n" * 5] * 4
    assert (auth.refreshes, auth.thefts) == (1, 0)


def test_a_process_killed_while_it_renews_gives_the_right_to_the_next(auth, store) -> None:
    keep(store, auth, ago_s=3550)
    asked, gate = threading.Event(), threading.Event()
    auth.on_token = lambda form: (asked.set(), gate.wait(WAIT_S))
    first, second = ask_in_process(auth, store), ask_in_process(auth, store)
    go(first)
    assert asked.wait(WAIT_S)
    go(second)  # waits for the right to renew
    first.kill()
    first.wait(WAIT_S)
    auth.on_token = lambda form: None
    gate.set()
    # What the first was given is lost with it. This server takes the second for a thief, and says so; the real
    # one sees that nobody has used what it gave. Either way nobody hangs, and the store stays whole.
    second.communicate(timeout=WAIT_S)
    assert second.returncode == 1
    assert auth.thefts == 1
    assert store.get(auth.url).refresh_token is None
    keep(store, auth)
    with ApiClient(auth.url, store=store, retry=QUICK) as client:
        assert client.whoami()["username"] == "ada@here"


def test_ctrl_c_while_a_login_is_renewed_does_not_lose_it(auth, store) -> None:
    keep(store, auth, ago_s=3550)
    before = store.get(auth.url)
    asked, gate = threading.Event(), threading.Event()
    auth.on_token = lambda form: (asked.set(), gate.wait(WAIT_S))
    process = ask_in_process(auth, store)
    go(process)
    assert asked.wait(WAIT_S)
    process.send_signal(signal.SIGINT)
    gate.set()
    process.communicate(timeout=WAIT_S)
    assert process.returncode != 0
    after = store.get(auth.url)
    assert after.refresh_token == auth.families[0].refresh_token != before.refresh_token


def test_who_logs_out_while_a_login_is_renewed_stays_logged_out(auth, store, client) -> None:
    keep(store, auth, ago_s=3550)
    auth.on_token = lambda form: store.remove(auth.url)
    with pytest.raises(Unauthenticated, match="no token of ada@here"):
        client.whoami()
    assert store.get(auth.url) is None


def test_a_login_that_could_not_be_kept_is_not_renewed(auth, store, client, monkeypatch) -> None:
    keep(store, auth, ago_s=3650)

    def read_only(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(TokenStore, "renewing", read_only)
    with pytest.raises(Unauthenticated, match="cannot be kept: .*Permission denied"):
        client.whoami()
    assert auth.refreshes == 0


def test_a_forked_child_renews_by_itself(auth, store, client) -> None:
    keep(store, auth)
    client.whoami()
    auth.expire()
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if client.whoami()["username"] == "ada@here" else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert client.whoami()["username"] == "ada@here"
    assert (auth.refreshes, auth.thefts) == (1, 0), "the parent takes what the child has renewed"


def test_logout_revokes_every_token_of_the_login(auth, store, client) -> None:
    keep(store, auth)
    login = store.get(auth.url)
    client.logout()
    others = login.at("auth.globus.org")
    assert set(auth.revoked) == {
        login.access_token, login.refresh_token, others.access_token, others.refresh_token
    }  # fmt: skip


def test_nothing_secret_shows_in_what_is_printed(store, auth) -> None:
    keep(store, auth)
    login = store.get(auth.url)
    shown = repr(login) + repr(login.at("auth.globus.org")) + repr(store.accounts())
    for family in auth.families:
        assert family.refresh_token not in shown
        assert not any(token in shown for token in family.access_tokens)
    secret = ClientCredentials("id", "hush", oauth=lambda: pytest.fail("no request"))
    assert "hush" not in repr(secret)
