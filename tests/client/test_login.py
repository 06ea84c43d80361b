"""A person is led through a login: in the browser, with a code, and again when the service asks for it."""

from __future__ import annotations

import threading
import webbrowser
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from oauth_server import OAuthServer

from farcall.client import login as logins
from farcall.client.login import Flow, WaitFor, after_poll, best_flow, log_in, person_at_hand
from farcall.client.loopback import Loopback
from farcall.client.rest import ApiClient
from farcall.client.retry import RetryPolicy
from farcall.client.tokens import StoredToken, TokenStore
from farcall.wire.auth import CLIENT_ID, LOGIN_SCOPES, SessionDemand
from farcall.wire.errors import Forbidden, LoginFailed, LoginNotOffered, RateLimited, ServiceUnreachable

QUICK = RetryPolicy(first_s=0.001, longest_s=0.002, budget_s=5, unmet_budget_s=5)
WAIT_S = 60
DEMAND = {
    "code": "FORBIDDEN",
    "message": "Policy 'fresh' of endpoint E wants a login of the last minute.",
    "authorization_parameters": {"session_required_policies": ["p-1"], "prompt": "login"},
}


class Visitor:
    """A person whose browser follows the links that are shown; keeps the pages that it came to."""

    break_off = "Nothing"

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.told: list[str] = []
        self.pages: list[httpx.Response] = []
        self.before_link = lambda url: None

    def tell(self, text: str) -> None:
        self.told.append(text)

    def show_link(self, url: str) -> None:
        self.told.append(url)
        self.before_link(url)
        if "/authorize" in url:
            self.browsing = threading.Thread(target=lambda: self.pages.append(httpx.get(url, follow_redirects=True)))
            self.browsing.start()

    def waiting(self, text: str) -> AbstractContextManager[object]:
        self.told.append(text)
        return nullcontext()


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    return TokenStore(tmp_path / "tokens.json")


@pytest.fixture
def anonymous(auth: OAuthServer, store: TokenStore):
    with ApiClient(auth.url, "none", store=store, retry=QUICK) as client:
        yield client


def test_a_login_in_the_browser_ends_on_a_page_that_says_so(auth, anonymous, monkeypatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: not opened.append(url))
    visitor = Visitor(Flow.BROWSER)
    login = log_in(anonymous.oauth(), person=visitor)
    assert (login.username, login.identity_id, login.client_id) == ("ada@here", "id-of-ada@here", CLIENT_ID)
    assert login.refresh_token
    assert login.at("auth.globus.org").refresh_token
    (asked,) = auth.authorizations
    assert asked["scope"] == " ".join(LOGIN_SCOPES)
    assert (asked["access_type"], asked["code_challenge_method"]) == ("offline", "S256")
    assert opened == [text for text in visitor.told if text.startswith("http")], "shown, too, if it does not open"
    visitor.browsing.join(WAIT_S)
    (page,) = visitor.pages
    assert page.status_code == 200
    assert "You are logged in" in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "code=" not in page.text


def test_without_a_browser_the_link_is_shown(auth, anonymous, monkeypatch) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda url: pytest.fail("opened"))
    visitor = Visitor(Flow.LINK)
    assert log_in(anonymous.oauth(), person=visitor).username == "ada@here"
    assert "on this machine" in visitor.told[0]


def test_what_the_service_demands_travels_with_the_login(auth, anonymous) -> None:
    demand = SessionDemand(policies=("p-1", "p-2"), mfa=True, scopes=("s",), message="why", prompt="login")
    log_in(anonymous.oauth(), person=Visitor(Flow.LINK), demand=demand)
    log_in(anonymous.oauth(), person=Visitor(Flow.DEVICE), demand=demand)
    for asked in (auth.authorizations[0], auth.device_requests[0]):
        assert asked["session_required_policies"] == "p-1,p-2"
        assert asked["session_required_mfa"] == "True"
        assert asked["session_message"] == "why"
        assert asked["prompt"] == "login"
        assert asked["scope"].split() == [*LOGIN_SCOPES, "s"]


def test_a_code_is_shown_and_waited_for(auth, anonymous) -> None:
    auth.device_answers = ["authorization_pending", "authorization_pending", "ok"]
    visitor = Visitor(Flow.DEVICE)
    assert log_in(anonymous.oauth(), person=visitor).username == "ada@here"
    assert f"{auth.url}/device?user_code=WDJB-MJHT" in visitor.told
    assert any("WDJB-MJHT" in text and "http" not in text for text in visitor.told)


@pytest.mark.parametrize(("answer", "told"), [("access_denied", "refused"), ("expired_token", "not used in time")])
def test_a_code_that_is_refused_or_too_old_ends_the_login(auth, anonymous, answer: str, told: str) -> None:
    auth.device_answers = ["authorization_pending", answer]
    with pytest.raises(LoginFailed, match=told):
        log_in(anonymous.oauth(), person=Visitor(Flow.DEVICE))


def test_a_login_can_be_broken_off(auth, anonymous) -> None:
    for flow in (Flow.DEVICE, Flow.LINK):
        cancelled = threading.Event()
        visitor = Visitor(flow)
        visitor.before_link = lambda url, end=cancelled: end.set()
        auth.device_answers = ["authorization_pending"] * 1000
        if flow is Flow.LINK:
            visitor.show_link = lambda url, end=cancelled: end.set()
        with pytest.raises(LoginFailed, match="broken off"):
            log_in(anonymous.oauth(), person=visitor, cancelled=cancelled)


def test_a_service_without_login_says_so(auth, anonymous) -> None:
    auth.has_oauth = False
    with pytest.raises(LoginNotOffered, match="farcall login --token"):
        log_in(anonymous.oauth(), person=Visitor(Flow.DEVICE))


def test_polls_follow_the_service() -> None:
    def told(error: str) -> LoginFailed:
        return LoginFailed("http://h", error)

    assert after_poll(told("authorization_pending"), 5) == WaitFor(interval_s=5)
    assert after_poll(told("slow_down"), 5) == WaitFor(interval_s=10)
    assert after_poll(told("access_denied"), 5) is None
    assert after_poll(ServiceUnreachable("http://h", "away"), 5) == WaitFor(interval_s=10)
    assert after_poll(RateLimited("slower"), 50) == WaitFor(interval_s=60)
    assert after_poll(KeyError("fault of ours"), 5) is None


@pytest.mark.parametrize(
    ("environment", "platform", "flow"),
    [
        ({"DISPLAY": ":0"}, "linux", Flow.BROWSER),
        ({"WAYLAND_DISPLAY": "w"}, "linux", Flow.BROWSER),
        ({"BROWSER": "firefox"}, "linux", Flow.BROWSER),
        ({}, "linux", Flow.DEVICE),
        ({"DISPLAY": "localhost:10.0", "SSH_CONNECTION": "1.2.3.4"}, "linux", Flow.DEVICE),
        ({}, "darwin", Flow.BROWSER),
        ({"SSH_TTY": "/dev/pts/1"}, "darwin", Flow.DEVICE),
    ],
)
def test_a_browser_is_opened_only_where_the_person_sits(environment, platform, flow) -> None:
    assert best_flow(environment, platform) is flow


# --- the browser's way back


def test_only_the_right_state_ends_the_wait_and_only_once() -> None:
    redeemed: list[str] = []
    with Loopback("http://h", "right", lambda code: redeemed.append(code) or "tokens") as loopback:
        at = loopback.redirect_uri
        assert urlsplit(at).hostname == "127.0.0.1"
        assert httpx.get(at.replace("/callback", "/favicon.ico")).status_code == 404
        assert httpx.get(at, params={"code": "evil", "state": "wrong"}).status_code == 400
        assert httpx.get(at, params={"code": "evil"}).status_code == 400
        assert redeemed == []
        assert "You are logged in" in httpx.get(at, params={"code": "good", "state": "right"}).text
        assert loopback.wait(threading.Event(), WAIT_S) == "tokens"
        assert httpx.get(at, params={"code": "again", "state": "right"}).status_code == 400
    assert redeemed == ["good"]


def test_a_refusal_is_shown_in_the_browser_and_raised() -> None:
    with Loopback("http://h", "s", lambda code: pytest.fail("no code came")) as loopback:
        params = {"error": "access_denied", "error_description": "<b>not you</b>", "state": "s"}
        page = httpx.get(loopback.redirect_uri, params=params).text
        assert "You are not logged in" in page
        assert "&lt;b&gt;not you" in page
        with pytest.raises(LoginFailed, match="not you"):
            loopback.wait(threading.Event(), WAIT_S)


def test_who_does_not_come_is_not_waited_for_for_ever() -> None:
    with Loopback("http://h", "s", lambda code: None) as loopback:
        with pytest.raises(LoginFailed, match="nobody came"):
            loopback.wait(threading.Event(), 0.01)


# --- the service asks for another login


def keep(
    store: TokenStore, auth: OAuthServer, username: str = "ada@here", *, client_id: str | None = CLIENT_ID
) -> None:
    document = auth.log_in(username)
    store.put(
        auth.url,
        StoredToken(
            access_token=document["access_token"],
            refresh_token=document["refresh_token"],
            identity_id=f"id-of-{username}",
            username=username,
            client_id=client_id,
        ),
    )


def demand_once_more(auth: OAuthServer, path: str = "/v3/whoami") -> None:
    """Refuse requests until somebody has logged in with what the refusal asks for."""

    def refuses(asked: str, username: str) -> dict[str, Any] | None:
        is_met = any(each.get("session_required_policies") for each in (*auth.authorizations, *auth.device_requests))
        return None if is_met or asked != path else DEMAND

    auth.refuses = refuses


@pytest.fixture
def visitor(monkeypatch: pytest.MonkeyPatch) -> Visitor:
    """Somebody who is there to be asked."""
    visitor = Visitor(Flow.DEVICE)
    monkeypatch.setattr(logins, "person_at_hand", lambda: visitor)
    return visitor


def test_a_demand_is_said_met_and_the_request_sent_once_more(auth, store, visitor) -> None:
    keep(store, auth)
    demand_once_more(auth, "/v2/batch_status")
    with ApiClient(auth.url, store=store, retry=QUICK) as client:
        assert client.batch_status(["54460200-b652-4f43-a918-02882fa6114a"]) == {}
    assert [path for _, path, _ in auth.requests].count("/v2/batch_status") == 2
    assert "wants a login of the last minute" in visitor.told[0]
    assert "log in afresh in the way that policy p-1 demands" in visitor.told[0]
    assert auth.device_requests[0]["prompt"] == "login"
    assert store.get(auth.url).access_token in auth.families[-2].access_tokens


def test_a_demand_that_stays_is_an_error_after_one_login(auth, store, visitor) -> None:
    keep(store, auth)
    auth.refuses = lambda path, username: DEMAND if path == "/v2/batch_status" else None
    with ApiClient(auth.url, store=store, retry=QUICK) as client:
        with pytest.raises(Forbidden, match="last minute"):
            client.batch_status([])
    assert len(auth.device_requests) == 1


def test_where_nobody_is_the_error_has_the_parameters_and_the_command(auth, store, monkeypatch) -> None:
    monkeypatch.setattr(logins, "person_at_hand", lambda: None)
    keep(store, auth)
    demand_once_more(auth)
    with ApiClient(auth.url, store=store, retry=QUICK) as client:
        with pytest.raises(Forbidden) as info:
            client.whoami()
    assert f"farcall login --session-policy p-1 --force {auth.url}" in str(info.value)
    assert "Nobody can be asked here" in str(info.value)
    assert info.value.detail["authorization_parameters"] == DEMAND["authorization_parameters"]
    assert auth.device_requests == []


def test_programs_and_handed_out_tokens_do_not_ask_anybody(auth, store, visitor, monkeypatch) -> None:
    demand_once_more(auth)
    keep(store, auth, client_id=None)
    token = store.get(auth.url).access_token
    for given, why in ((None, "handed out by the operator"), (token, "given"), (lambda: token, "given")):
        with ApiClient(auth.url, given, store=store, retry=QUICK) as client:
            with pytest.raises(Forbidden, match=why):
                client.whoami()
    auth.clients["robot"] = "s"
    monkeypatch.setenv("FARCALL_CLIENT_ID", "robot")
    monkeypatch.setenv("FARCALL_CLIENT_SECRET", "s")
    with ApiClient(auth.url, store=store, retry=QUICK) as client:
        with pytest.raises(Forbidden, match="Client robot .* is a program"):
            client.whoami()
    assert auth.device_requests == []


def test_another_persons_login_does_not_count(auth, store, visitor) -> None:
    keep(store, auth)
    demand_once_more(auth, "/v2/batch_status")
    auth.username = "bob@here"
    with ApiClient(auth.url, store=store, retry=QUICK) as client:
        with pytest.raises(Forbidden, match="you logged in as bob@here, and this is the work of ada@here"):
            client.batch_status([])
    assert store.get(auth.url).username == "ada@here"


def test_a_linked_identity_of_the_same_person_does(auth, store, visitor) -> None:
    keep(store, auth)
    demand_once_more(auth, "/v2/batch_status")
    auth.username, auth.linked = "ada@uni.example", ("ada@here",)
    with ApiClient(auth.url, store=store, retry=QUICK) as client:
        assert client.batch_status([]) == {}
        assert client.whoami()["username"] == "ada@uni.example"
    assert [each.login.username for each in store.accounts()] == ["ada@here", "ada@uni.example"]


def test_a_login_made_elsewhere_meanwhile_is_tried_before_anybody_is_asked(auth, store, visitor) -> None:
    keep(store, auth)

    def refuses(path: str, username: str) -> dict[str, Any] | None:
        if path != "/v2/batch_status" or len(auth.families) > 2:
            return None
        keep(store, auth)  # in another window
        return DEMAND

    auth.refuses = refuses
    with ApiClient(auth.url, store=store, retry=QUICK) as client:
        assert client.batch_status([]) == {}
    assert auth.device_requests == []


def test_nobody_is_at_hand_without_a_terminal(monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert person_at_hand() is None


def test_a_notebook_gets_a_code(monkeypatch) -> None:
    class Shell:
        kernel = object()

    class IPython:
        @staticmethod
        def get_ipython() -> Shell:
            return Shell()

    monkeypatch.setitem(__import__("sys").modules, "IPython", IPython)
    person = person_at_hand()
    assert person is not None
    assert person.flow is Flow.DEVICE


def test_the_address_of_the_login_has_what_was_asked_for_once(auth, anonymous) -> None:
    from farcall.client.oauth import Pkce

    url = anonymous.oauth().authorization_url(
        client_id="c",
        redirect_uri="http://127.0.0.1:1/callback",
        scopes=("a", "b"),
        state="s",
        pkce=Pkce.new(),
        demand=SessionDemand(scopes=("b", "c")),
    )
    assert parse_qs(urlsplit(url).query)["scope"] == ["a b c"]
