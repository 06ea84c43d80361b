"""What is decided about RabbitMQ without one: where it is, who reads the task queues, who may do what."""

from __future__ import annotations

from typing import Any

import pytest
from service_world import Play, Site

from farcall.service.accounts.rules import broker_password
from farcall.service.relay.rabbit.address import BrokerMisnamed, broker_address
from farcall.service.relay.rabbit.consumers import Ask, Consumers, Tell
from farcall.wire.topology import BrokerUser, UserKind, group_queue

QUEUE = "11111111-2222-4333-8444-555555555555.tasks"
GROUP = "99999999-2222-4333-8444-555555555555"


def asked(commands: list[Any]) -> int:
    (ask,) = commands
    assert isinstance(ask, Ask)
    return ask.serial


def test_a_queue_that_has_a_consumer_already_counts_as_attached() -> None:
    consumers = Consumers()
    serial = asked(consumers.watch(QUEUE))
    assert consumers.counted(QUEUE, serial, 1) == [Tell(QUEUE, 1)]
    assert consumers.watch(QUEUE) == []


def test_a_consumer_that_comes_is_new_even_if_there_seemed_to_be_one() -> None:
    consumers = Consumers()
    consumers.counted(QUEUE, asked(consumers.watch(QUEUE)), 0)
    assert consumers.came(QUEUE) == [Tell(QUEUE, 1)]
    assert consumers.came(QUEUE) == [Tell(QUEUE, 0), Tell(QUEUE, 1)]


def test_when_one_goes_the_others_are_counted() -> None:
    consumers = Consumers()
    consumers.counted(QUEUE, asked(consumers.watch(QUEUE)), 2)
    assert consumers.counted(QUEUE, asked(consumers.went(QUEUE)), 1) == []
    assert consumers.counted(QUEUE, asked(consumers.went(QUEUE)), 0) == [Tell(QUEUE, 0)]


def test_an_answer_older_than_an_announcement_does_not_count() -> None:
    consumers = Consumers()
    first = asked(consumers.watch(QUEUE))
    assert consumers.came(QUEUE) == [Tell(QUEUE, 1)]
    assert consumers.counted(QUEUE, first, 0) == []
    second = asked(consumers.went(QUEUE))
    assert consumers.came(QUEUE) == [Tell(QUEUE, 0), Tell(QUEUE, 1)]
    assert consumers.counted(QUEUE, second, 0) == []


def test_other_queues_are_none_of_its_business() -> None:
    consumers = Consumers()
    assert consumers.came(QUEUE) == consumers.went(QUEUE) == consumers.counted(QUEUE, 1, 1) == []
    consumers.counted(QUEUE, asked(consumers.watch(QUEUE)), 1)
    assert consumers.unwatch(QUEUE) == [Tell(QUEUE, 0)]
    assert consumers.came(QUEUE) == []


def test_with_the_connection_everybody_is_gone() -> None:
    consumers = Consumers()
    serial = asked(consumers.watch(QUEUE))
    consumers.counted(QUEUE, serial, 1)
    assert consumers.lost() == [Tell(QUEUE, 0)]
    assert consumers.counted(QUEUE, serial, 1) == []
    asked(consumers.watch(QUEUE))


def test_the_address_is_read_and_shown_without_the_password() -> None:
    found = broker_address("amqps://service:p%40ss@rabbit.example/farcall", None)
    assert found.url == "amqps://service:p%40ss@rabbit.example:5671/farcall?heartbeat=10"
    assert (found.scheme, found.host, found.port, found.vhost) == ("amqps", "rabbit.example", 5671, "farcall")
    assert found.shown == "amqps://service@rabbit.example:5671/farcall"
    assert (found.management_url, found.management_login) == ("http://rabbit.example:15672", ("service", "p@ss"))
    assert "p@ss" not in repr(found)
    assert "p%40ss" not in repr(found)
    own = broker_address("amqp://a:b@[::1]:5673", "https://admin:secret@rabbit.example/manage/")
    assert (own.url, own.vhost) == ("amqp://a:b@[::1]:5673/%2F?heartbeat=10", "/")
    assert (own.management_url, own.management_login) == ("https://rabbit.example/manage", ("admin", "secret"))


@pytest.mark.parametrize("url", ["redis://host", "amqp://", "rabbit.example", "amqp://a:b@host:99999/"])
def test_an_address_that_cannot_be_meant_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(BrokerMisnamed) as caught:
        broker_address(url, None)
    assert ":b@" not in str(caught.value)


NOBODY = "amqp://farcall:secret@127.0.0.1:1/farcall"


async def ask(site: Site, path: str, **form: str) -> str:
    answer = await site.client.post(f"/rabbitmq/{path}", data=form)
    assert answer.status_code == 200
    return answer.text


def test_rabbitmq_is_told_who_may_do_what(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        endpoint_id = await ada.endpoint()
        identity_id = (await ada.ask("GET", "/v3/whoami"))["identity_id"]
        prepared: list[str] = []

        async def prepare(queue: str) -> None:
            prepared.append(queue)

        monkeypatch.setattr(site.service.relay, "prepare_queue", prepare)
        agent = BrokerUser(kind=UserKind.ENDPOINT, id=endpoint_id, generation=1)
        sdk = BrokerUser(kind=UserKind.SDK, id=identity_id, generation=1)
        for user in (agent, sdk):
            password = broker_password(site.service.secret, user)
            assert await ask(site, "user", username=user.name, password=password) == "allow"
            assert await ask(site, "user", username=user.name, password=password[:-1] + "x") == "deny"
            assert await ask(site, "user", username=user.name.replace(".1", ".2"), password=password) == "deny"
            assert await ask(site, "vhost", username=user.name, vhost="farcall") == "allow"
            assert await ask(site, "vhost", username=user.name, vhost="/") == "deny"

        async def may(user: BrokerUser, permission: str, resource: str, name: str) -> bool:
            form = {"username": user.name, "vhost": "farcall", "permission": permission}
            return await ask(site, "resource", **form, resource=resource, name=name) == "allow"

        own, other = f"{endpoint_id}.tasks", QUEUE
        group = group_queue(identity_id, GROUP)
        assert await may(agent, "read", "queue", own)
        assert await may(agent, "write", "exchange", "results")
        assert await may(sdk, "read", "queue", group)
        assert await may(sdk, "read", "queue", f"{group}.reader")
        assert prepared == [own, group, f"{group}.reader"]
        for user, permission, resource, name in (
            (agent, "read", "queue", other),
            (agent, "read", "queue", "results"),
            (agent, "configure", "queue", own),
            (agent, "write", "exchange", "tasks"),
            (agent, "write", "exchange", "groups"),
            (agent, "write", "exchange", "amq.default"),
            (agent, "read", "exchange", "results"),
            (sdk, "read", "queue", own),
            (sdk, "read", "queue", group_queue(endpoint_id, GROUP)),
            (sdk, "configure", "queue", group),
            (sdk, "write", "exchange", "amq.default"),
            (sdk, "write", "exchange", "groups"),
        ):
            assert not await may(user, permission, resource, name), (user, permission, resource, name)

        async def may_publish(user: BrokerUser, exchange: str, key: str) -> bool:
            form = {"username": user.name, "vhost": "farcall", "resource": "topic", "permission": "write"}
            return await ask(site, "topic", **form, name=exchange, routing_key=key) == "allow"

        assert await may_publish(agent, "results", f"{endpoint_id}.results")
        assert await may_publish(agent, "heartbeats", f"{endpoint_id}.heartbeats")
        assert not await may_publish(agent, "results", QUEUE.replace(".tasks", ".results"))
        assert not await may_publish(sdk, "results", f"{endpoint_id}.results")
        assert (
            await ask(site, "topic", username=agent.name, vhost="farcall", name="results", permission="read") == "deny"
        )
        await ada.ask("POST", f"/v3/endpoints/{endpoint_id}/lock")
        assert not await may(agent, "read", "queue", own)
        for nonsense in ({}, {"username": "guest", "password": "guest"}, {"username": "endpoint..1"}):
            assert await ask(site, "user", **nonsense) == "deny"
        assert await ask(site, "anything", username=agent.name) == "deny"

    play(story, broker=NOBODY)


def test_only_rabbitmq_may_ask(play: Play) -> None:
    async def story(site: Site) -> None:
        user = BrokerUser(kind=UserKind.ENDPOINT, id=await (await site.person()).endpoint(), generation=1)
        form = {"username": user.name, "password": broker_password(site.service.secret, user)}
        assert await ask(site, "user", **form) == "deny"
        assert await ask(site, "wrong/user", **form) == "deny"
        assert await ask(site, "rabbits-secret/user", **form) == "allow"

    play(story, broker=NOBODY, broker_auth_secret="rabbits-secret")


def test_a_proxy_may_not_ask_without_the_secret(play: Play) -> None:
    async def story(site: Site) -> None:
        user = BrokerUser(kind=UserKind.ENDPOINT, id=await (await site.person()).endpoint(), generation=1)
        form = {"username": user.name, "password": broker_password(site.service.secret, user)}
        assert await ask(site, "user", **form) == "allow"
        site.client.headers["x-forwarded-for"] = "10.0.0.1"
        assert await ask(site, "user", **form) == "deny"

    play(story, broker=NOBODY)


def test_without_rabbitmq_nobody_is_told_anything(play: Play) -> None:
    async def story(site: Site) -> None:
        user = BrokerUser(kind=UserKind.ENDPOINT, id=await (await site.person()).endpoint(), generation=1)
        form = {"username": user.name, "password": broker_password(site.service.secret, user)}
        assert await ask(site, "user", **form) == "deny"

    play(story)


def test_while_rabbitmq_is_away_tasks_are_accepted_and_readiness_says_so(play: Play) -> None:
    async def story(site: Site) -> None:
        task_id = await (await site.person()).one_task()
        assert task_id
        answer = await site.get("/readyz")
        assert answer.status_code == 503
        assert "RabbitMQ at amqp://farcall@127.0.0.1:1/farcall" in answer.text
        assert "secret" not in answer.text
        assert "farcall_broker_up 0" in (await site.get("/metrics")).text

    play(story, broker=NOBODY)


def test_clients_are_led_to_rabbitmq(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        url = (await ada.ask("GET", "/v2/get_amqp_result_connection_url"))["connection_url"]
        assert url.startswith("amqps://sdk.")
        assert url.endswith("@rabbit.example:5671/lab%2Fone?heartbeat=30")

    play(story, broker="amqps://farcall:secret@rabbit.example/lab%2Fone")
