"""A login reaches what is its own and nothing else; secrets stay where they belong; bad input breaks nothing.

Attackers here are legitimate: a second user of the service, and an endpoint that this user has registered.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pika
import pika.exceptions
import pytest
from sqlalchemy import create_engine

from farcall import Executor
from farcall.client.tokens import TokenStore
from farcall.service.accounts.store import log_in
from farcall.testing.functions import by_value
from farcall.testing.processes import EndpointProcess, ProcessSystem
from farcall.wire.framing import pack_buffers
from farcall.wire.messages import Result, pack_message

TIMEOUT_S = 60
PAYLOAD = pack_buffers(["01\nx", "01\ny"])
REFUSED = (
    pika.exceptions.ChannelClosedByBroker,
    pika.exceptions.ConnectionClosedByBroker,
    pika.exceptions.ProbableAccessDeniedError,
    pika.exceptions.ProbableAuthenticationError,
)


@by_value
def double(x: int) -> int:
    return 2 * x


@by_value
def wait_for(path: str) -> str:
    with open(path) as pipe:  # a named pipe: opens when somebody writes
        return pipe.read()


@dataclass
class User:
    """Somebody with a token, speaking HTTP without our client."""

    url: str
    token: str
    id: str = ""
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=TIMEOUT_S
        )

    def ask(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        return self.http.request(method, path, **kwargs)

    def function(self, **members: Any) -> str:
        document = {"function_name": "f", "function_code": pack_buffers(["st\nf:def f(): pass"]), **members}
        return str(self.ask("POST", "/v3/functions", json=document).raise_for_status().json()["function_uuid"])

    def submit(self, endpoint_id: str, function_id: str, **members: Any) -> httpx.Response:
        key = members.pop("key", None)
        return self.ask(
            "POST",
            f"/v3/endpoints/{endpoint_id}/submit",
            json={"tasks": {function_id: [PAYLOAD]}, **members},
            headers={} if key is None else {"Idempotency-Key": key},
        )


@dataclass
class Agent:
    """An endpoint as the service sees it, driven by hand."""

    user: User
    registration: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return str(self.registration["endpoint_id"])

    @property
    def broker_url(self) -> str:
        return str(self.registration["task_queue_info"]["connection_url"])

    def register(self) -> Agent:
        document = {"endpoint_name": "by-hand", "direct": True, "metadata": {}}
        if self.registration:
            answer = self.user.ask("PUT", f"/v3/endpoints/{self.id}", json=document)
        else:
            answer = self.user.ask("POST", "/v3/endpoints", json=document)
        self.registration = answer.raise_for_status().json()
        return self

    @contextmanager
    def channel(self) -> Iterator[Any]:
        with broker_channel(self.broker_url) as channel:
            yield channel

    def send(self, *bodies: bytes, exchange: str = "results") -> None:
        with self.channel() as channel:
            for body in bodies:
                channel.basic_publish(exchange, f"{self.id}.{exchange}", body)


@contextmanager
def broker_channel(url: str) -> Iterator[Any]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        yield connection.channel()
    finally:
        if connection.is_open:
            connection.close()


@pytest.fixture(scope="module")
def alice(shared_system: ProcessSystem) -> User:
    """The user that started the service; owns `endpoint`."""
    stored = TokenStore(shared_system.root / "user" / "tokens.json").get(shared_system.service.url)
    assert stored is not None
    return User(shared_system.service.url, stored.access_token, stored.identity_id)


@pytest.fixture(scope="module")
def mallory(shared_system: ProcessSystem) -> User:
    """A second user, no administrator."""
    return add_user(shared_system, "mallory@localhost")


def add_user(system: ProcessSystem, name: str) -> User:
    engine = create_engine(f"sqlite:///{system.service.data_dir / 'farcall.db'}")
    with engine.begin() as conn:
        identity, token = log_in(conn, name, None, False, time.time())
    engine.dispose()
    return User(system.service.url, token, identity.id)


@pytest.fixture
def agent(mallory: User) -> Agent:
    return Agent(mallory).register()


def sdk_url(user: User) -> str:
    return str(user.ask("GET", "/v2/get_amqp_result_connection_url").raise_for_status().json()["connection_url"])


# --- Broker logins -------------------------------------------------------------------------------------------


ATTACKS: dict[str, Callable[[Any, str, str, str], Any]] = {
    "consume their tasks": lambda ch, mine, theirs, group: ch.basic_consume(f"{theirs}.tasks", lambda *_: None),
    "get their tasks": lambda ch, mine, theirs, group: ch.basic_get(f"{theirs}.tasks"),
    "purge their tasks": lambda ch, mine, theirs, group: ch.queue_purge(f"{theirs}.tasks"),
    "delete their queue": lambda ch, mine, theirs, group: ch.queue_delete(f"{theirs}.tasks"),
    "see their queue": lambda ch, mine, theirs, group: ch.queue_declare(f"{theirs}.tasks", passive=True),
    "read all results": lambda ch, mine, theirs, group: ch.basic_get("results"),
    "purge all results": lambda ch, mine, theirs, group: ch.queue_purge("results"),
    "read all reports": lambda ch, mine, theirs, group: ch.basic_get("heartbeats"),
    "read their results": lambda ch, mine, theirs, group: ch.basic_get(group),
    "purge their results": lambda ch, mine, theirs, group: ch.queue_purge(group),
    "see their group": lambda ch, mine, theirs, group: ch.queue_declare(group, passive=True),
    "delete their group": lambda ch, mine, theirs, group: ch.queue_delete(group),
    "declare a queue": lambda ch, mine, theirs, group: ch.queue_declare("mine"),
    "declare a nameless queue": lambda ch, mine, theirs, group: ch.queue_declare("", exclusive=True),
    "declare an exchange": lambda ch, mine, theirs, group: ch.exchange_declare("mine"),
    "delete an exchange": lambda ch, mine, theirs, group: ch.exchange_delete("results"),
    "bind results to own queue": lambda ch, mine, theirs, group: ch.queue_bind(f"{mine}.tasks", "results", "#"),
    "bind tasks to own queue": lambda ch, mine, theirs, group: ch.queue_bind(
        f"{mine}.tasks", "tasks", f"{theirs}.tasks"
    ),
    "delete own queue": lambda ch, mine, theirs, group: ch.queue_delete(f"{mine}.tasks"),
    "speak for them": lambda ch, mine, theirs, group: ch.basic_publish("results", f"{theirs}.results", b"x"),
    "report for them": lambda ch, mine, theirs, group: ch.basic_publish("heartbeats", f"{theirs}.heartbeats", b"x"),
    "speak for nobody": lambda ch, mine, theirs, group: ch.basic_publish("results", "results", b"x"),
    "speak by pattern": lambda ch, mine, theirs, group: ch.basic_publish("results", "#", b"x"),
    "give them a task": lambda ch, mine, theirs, group: ch.basic_publish("tasks", f"{theirs}.tasks", b"x"),
    "give them a task by queue name": lambda ch, mine, theirs, group: ch.basic_publish("", f"{theirs}.tasks", b"x"),
    "give a client a result": lambda ch, mine, theirs, group: ch.basic_publish("", group, b"x"),
    "own results by queue name": lambda ch, mine, theirs, group: ch.basic_publish("", "results", b"x"),
    "cross exchange": lambda ch, mine, theirs, group: ch.basic_publish("heartbeats", f"{mine}.results", b"x"),
    "pose as them": lambda ch, mine, theirs, group: ch.basic_publish(
        "results", f"{mine}.results", b"x", pika.BasicProperties(user_id=f"endpoint.{theirs}.1")
    ),
}
FOR_SDK_ONLY: dict[str, Callable[[Any, str, str, str], Any]] = {
    "consume own endpoint's tasks": lambda ch, mine, theirs, group: ch.basic_get(f"{mine}.tasks"),
    "speak for own endpoint": lambda ch, mine, theirs, group: ch.basic_publish("results", f"{mine}.results", b"x"),
    "report for own endpoint": lambda ch, mine, theirs, group: ch.basic_publish(
        "heartbeats", f"{mine}.heartbeats", b"x"
    ),
}


@pytest.fixture(scope="module")
def their_group(alice: User, endpoint: EndpointProcess) -> str:
    answer = alice.submit(endpoint.id, alice.function(), create_queue=True).raise_for_status().json()
    return f"tg.{alice.id}.{answer['task_group_id']}"


def assert_refused(url: str, attack: Callable[[Any], Any]) -> None:
    with pytest.raises(REFUSED) as caught, broker_channel(url) as channel:
        channel.confirm_delivery()
        attack(channel)
    assert "403" in repr(caught.value) or "406" in repr(caught.value) or "ACCESS" in repr(caught.value), caught.value


@pytest.mark.parametrize("what", ATTACKS)
def test_an_endpoint_login_may_not(what: str, agent: Agent, endpoint: EndpointProcess, their_group: str) -> None:
    assert_refused(agent.broker_url, lambda channel: ATTACKS[what](channel, agent.id, endpoint.id, their_group))


@pytest.mark.parametrize("what", [*ATTACKS, *FOR_SDK_ONLY])
def test_a_client_login_may_not(what: str, agent: Agent, endpoint: EndpointProcess, their_group: str) -> None:
    attack = {**ATTACKS, **FOR_SDK_ONLY}[what]
    assert_refused(sdk_url(agent.user), lambda channel: attack(channel, agent.id, endpoint.id, their_group))


@pytest.mark.parametrize(
    "change",
    [
        lambda user, password, theirs: (f"endpoint.{theirs}.1", password),
        lambda user, password, theirs: (user[:-1] + "2", password),
        lambda user, password, theirs: (user.replace("endpoint", "sdk"), password),
        lambda user, password, theirs: (user + "9" * 5000, password),
        lambda user, password, theirs: (user, password[:-1]),
        lambda user, password, theirs: (user, ""),
        lambda user, password, theirs: ("guest", "guest"),
        lambda user, password, theirs: ("endpoint..1", password),
        lambda user, password, theirs: ("\x00", "\x00"),
    ],
    ids=["other id", "next generation", "other kind", "huge generation", "cut", "empty", "guest", "no id", "nul"],
)
def test_a_login_is_worth_nothing_when_changed(
    change: Callable[[str, str, str], tuple[str, str]], agent: Agent, endpoint: EndpointProcess
) -> None:
    given = pika.URLParameters(agent.broker_url)
    given.credentials = pika.PlainCredentials(
        *change(given.credentials.username, given.credentials.password, endpoint.id)
    )
    with pytest.raises((*REFUSED, pika.exceptions.AMQPConnectionError)):
        pika.BlockingConnection(given).close()
    with agent.channel() as channel:  # the right one still works
        assert channel.is_open


def serve_until_cut(connection: pika.BlockingConnection) -> None:
    while True:
        connection.process_data_events(time_limit=TIMEOUT_S)


@pytest.mark.parametrize("how", ["register again", "lock", "delete"])
def test_an_old_login_is_cut_and_void(how: str, agent: Agent) -> None:
    old = agent.broker_url
    connection = pika.BlockingConnection(pika.URLParameters(old))
    connection.channel().basic_consume(f"{agent.id}.tasks", lambda *_: None)
    if how == "register again":
        agent.register()
    elif how == "lock":
        agent.user.ask("POST", f"/v3/endpoints/{agent.id}/lock").raise_for_status()
    else:
        agent.user.ask("DELETE", f"/v3/endpoints/{agent.id}").raise_for_status()
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        serve_until_cut(connection)
    with pytest.raises((*REFUSED, pika.exceptions.AMQPConnectionError)):
        pika.BlockingConnection(pika.URLParameters(old))


def test_an_endpoint_cannot_end_a_task_of_another(
    agent: Agent, alice: User, endpoint: EndpointProcess, tmp_path: Any
) -> None:
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    with Executor(endpoint_id=endpoint.id) as ex:
        future = ex.submit(wait_for, pipe)
        with open(pipe, "w") as other_end:  # returns when the function runs
            task_id = future.task_id
            assert task_id is not None
            agent.send(pack_message(Result(task_id=task_id, data="05\nforged", task_statuses=())))
            assert alice.ask("GET", f"/v2/tasks/{task_id}").json()["status"] != "success"
            other_end.write("honest")
        assert future.result(timeout=TIMEOUT_S) == "honest"


# --- A second user over REST ---------------------------------------------------------------------------------


def test_a_second_user_reads_and_changes_nothing(
    alice: User, mallory: User, endpoint: EndpointProcess, shared_system: ProcessSystem
) -> None:
    function = alice.function()
    answer = alice.submit(endpoint.id, function, key="alices-key").raise_for_status().json()
    (task,), group = answer["tasks"][function], answer["task_group_id"]
    registration = {"endpoint_name": "stolen", "direct": True}
    own_function = mallory.function()
    own_endpoint = Agent(mallory).register().id
    requests: list[tuple[str, str, Any, set[int]]] = [
        ("GET", f"/v2/tasks/{task}", None, {404}),
        ("POST", f"/v3/tasks/{task}/cancel", {}, {404}),
        ("GET", f"/v2/taskgroup/{group}", None, {404}),
        ("GET", f"/v2/functions/{function}", None, {403, 404}),
        ("DELETE", f"/v2/functions/{function}", None, {403, 404}),
        ("GET", f"/v2/endpoints/{endpoint.id}", None, {403, 404}),
        ("GET", f"/v2/endpoints/{endpoint.id}/status", None, {403, 404}),
        ("GET", f"/v3/endpoints/{endpoint.id}/console", None, {403, 404}),
        ("GET", f"/v3/endpoints/{endpoint.id}/allowed_functions", None, {403, 404}),
        ("POST", f"/v3/endpoints/{endpoint.id}/lock", {}, {403, 404}),
        ("POST", f"/v2/endpoints/{endpoint.id}/lock", {}, {403, 404}),
        ("DELETE", f"/v2/endpoints/{endpoint.id}", None, {403, 404}),
        ("DELETE", f"/v3/endpoints/{endpoint.id}", None, {403, 404}),
        ("PUT", f"/v3/endpoints/{endpoint.id}", registration, {403, 404}),
        ("PUT", f"/v2/endpoints/{endpoint.id}", registration, {403, 404, 405}),
        (
            "PUT",
            f"/v2/endpoints/{endpoint.id}/subscription-admin-verified",
            {"subscription_admin_verified": True},
            {403, 404, 405},
        ),
        (
            "PUT",
            f"/v3/endpoints/{endpoint.id}/subscription-admin-verified",
            {"subscription_admin_verified": True},
            {403, 404, 405},
        ),
        ("GET", "/v3/service", None, {403}),
        ("POST", f"/v3/endpoints/{endpoint.id}/submit", {"tasks": {own_function: [PAYLOAD]}}, {403, 404}),
        ("POST", f"/v3/endpoints/{own_endpoint}/submit", {"tasks": {function: [PAYLOAD]}}, {403, 404}),
        (
            "POST",
            f"/v3/endpoints/{own_endpoint}/submit",
            {"tasks": {own_function: [PAYLOAD]}, "task_group_id": group, "create_queue": True},
            {403, 404},
        ),
    ]
    for method, path, body, allowed in requests:
        answered = mallory.ask(method, path, json=body)
        assert answered.status_code in allowed, (method, path, answered.status_code, answered.text[:200])
    assert mallory.ask("POST", "/v2/batch_status", json={"task_ids": [task]}).json()["results"] == {}
    v2 = {"tasks": [[function, endpoint.id, PAYLOAD], [own_function, endpoint.id, PAYLOAD]]}
    for result in mallory.ask("POST", "/v2/submit", json=v2).raise_for_status().json()["results"]:
        assert (result["status"], result["http_status_code"]) == ("Failed", 403)
    for role in ("owner", "any"):
        listed = mallory.ask("GET", "/v2/endpoints", params={"role": role}).raise_for_status().text
        assert endpoint.id not in listed
    assert mallory.submit(own_endpoint, own_function, key="alices-key").json()["task_group_id"] != group
    assert alice.ask("GET", f"/v2/functions/{function}").status_code == 200
    assert alice.ask("GET", f"/v2/endpoints/{endpoint.id}/status").json()["status"] == "online"
    with Executor(endpoint_id=endpoint.id) as ex:
        assert ex.submit(double, 21).result(timeout=TIMEOUT_S) == 42


def test_every_route_but_the_open_ones_needs_a_token(alice: User) -> None:
    stranger = httpx.Client(base_url=alice.url, timeout=TIMEOUT_S)
    described = stranger.get("/openapi.json").raise_for_status().json()["paths"]
    answers = {}
    for path, methods in described.items():
        for method in methods:
            url = path
            while "{" in url:
                before, _, rest = url.partition("{")
                url = before + str(uuid.uuid4()) + rest.partition("}")[2]
            answers[method.upper(), path] = stranger.request(method, url, json={}).status_code
    is_open = {key for key, status in answers.items() if status != 401}
    # /metrics answers this machine, and nobody who comes by way of a proxy.
    looked_at = ("/v2/version", "/healthz", "/readyz", "/metrics", "/jwk.json", "/.well-known/openid-configuration")
    # Where a token comes from, what is asked for is the client's own proof.
    proves_itself = ("token", "token/revoke", "token/introspect", "device")
    assert is_open == {("GET", path) for path in looked_at} | {("POST", f"/v2/oauth2/{each}") for each in proves_itself}
    for each in proves_itself:
        assert stranger.post(f"/v2/oauth2/{each}", data={"token": "guessed"}).status_code in (400, 401)
    by_proxy = stranger.get("/metrics", headers={"X-Forwarded-For": "192.0.2.1"})
    assert by_proxy.status_code in (401, 403)


def test_a_revoked_token_is_worth_nothing(shared_system: ProcessSystem) -> None:
    user = add_user(shared_system, "leaver@localhost")
    assert user.ask("GET", "/v3/whoami").status_code == 200
    user.ask("POST", "/v3/logout").raise_for_status()
    assert user.ask("GET", "/v3/whoami").status_code == 401


def test_messages_that_cannot_be_read_stop_nobody(agent: Agent, endpoint: EndpointProcess) -> None:
    bad = [
        b'\x01{"message_type":[],"data":{"task_id":"%s","data":"x"}}' % str(uuid.uuid4()).encode(),
        b'\x01{"message_type":"result","data":{"task_id":"%s","data":"x","task_statuses":5}}' % agent.id.encode(),
    ]
    agent.send(*bad * 1500)
    with Executor(endpoint_id=endpoint.id) as ex:
        assert ex.submit(double, 21).result(timeout=TIMEOUT_S) == 42


def test_a_logout_ends_the_broker_logins_too(shared_system: ProcessSystem) -> None:
    user = add_user(shared_system, "leaver@localhost")
    url = sdk_url(user)
    with broker_channel(url):
        pass
    user.ask("POST", "/v3/logout").raise_for_status()
    with pytest.raises(REFUSED), broker_channel(url):
        pass
