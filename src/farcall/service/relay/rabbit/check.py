"""Finds out what is wrong with a RabbitMQ before a service uses it. For operators; leaves nothing behind there."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Final

import httpx

from farcall.amqp import (
    AmqpConnection,
    BindQueue,
    ConnectFailed,
    CredentialRefused,
    DeclareQueue,
    Event,
    Failed,
    Operation,
    Operator,
    OperatorReady,
    Outcome,
)
from farcall.service.db.upkeep import Finding
from farcall.service.relay.rabbit.address import BrokerAddress, BrokerMisnamed, broker_address

__all__ = ["check_broker"]

_PATIENCE_S: Final = 15.0
_EVENTS: Final = "amq.rabbitmq.event"


def check_broker(broker: str, management: str | None) -> Sequence[Finding]:
    """Look at everything that a service needs of its RabbitMQ.

    Args:
        broker, management: the settings `broker` and `broker_management`.
    """
    try:
        address = broker_address(broker, management)
    except BrokerMisnamed as exc:
        return [Finding(what="broker", status="failed", text=str(exc), remedy="Correct FARCALL_BROKER.")]
    events: SimpleQueue[Event] = SimpleQueue()
    connection = AmqpConnection(address.url, name="service check", on_event=events.put, connect_timeout_s=_PATIENCE_S)
    try:
        operator = connection.operator()
        connection.start()
        fault = _why_not(events)
        if fault is not None:
            text = f"{address.shown} cannot be used: {fault}"
            return [Finding(what="broker", status="failed", text=text, remedy=_remedy_of(fault))]
        found = [Finding(what="broker", status="ok", text=f"{address.shown} answers.")]
        return [*found, *_check_announcements(operator, address), _check_cuts(address)]
    finally:
        connection.close(1.0)


def _why_not(events: SimpleQueue[Event]) -> str | None:
    while True:
        try:
            event = events.get(timeout=_PATIENCE_S)
        except Empty:
            return "it does not answer"
        if isinstance(event, OperatorReady):
            return None
        if isinstance(event, (ConnectFailed, CredentialRefused)):
            return event.reason


def _check_announcements(operator: Operator, address: BrokerAddress) -> Iterator[Finding]:
    queue = f"check.{secrets.token_hex(8)}"
    made = _perform(operator, DeclareQueue(name=queue, exclusive=True))
    if isinstance(made, Failed):
        rights = f"rabbitmqctl set_permissions -p {address.vhost} ACCOUNT '.*' '.*' '.*'"
        text = f"The account may not make queues: {made.reason}"
        yield Finding(what="broker-rights", status="failed", text=text, remedy=f"Give it all rights there: {rights}.")
        return
    yield Finding(what="broker-rights", status="ok", text="The account may make queues.")
    bound = _perform(operator, BindQueue(queue=queue, exchange=_EVENTS, routing_key="consumer.*"))
    if isinstance(bound, Failed):
        yield Finding(
            what="broker-events",
            status="failed",
            text=f"RabbitMQ does not announce consumers in vhost {address.vhost!r}: {bound.reason}",
            remedy="`rabbitmq-plugins enable rabbitmq_event_exchange`, and in rabbitmq.conf "
            f"`event_exchange.vhost = {address.vhost}`; then restart RabbitMQ.",
        )
    else:
        yield Finding(what="broker-events", status="ok", text="RabbitMQ announces consumers.")


def _check_cuts(address: BrokerAddress) -> Finding:
    url = f"{address.management_url}/api/whoami"
    try:
        answer = httpx.get(url, auth=address.management_login, timeout=_PATIENCE_S, trust_env=False)
        answer.raise_for_status()
        tags = answer.json()["tags"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as exc:
        text = (
            f"RabbitMQ's management interface at {address.management_url} cannot be used ({exc}): revoked logins keep "
            "the connections that they have."
        )
        remedy = "`rabbitmq-plugins enable rabbitmq_management`, and name it in FARCALL_BROKER_MANAGEMENT."
        return Finding(what="broker-management", status="warning", text=text, remedy=remedy)
    if "administrator" not in tags:
        text = "The account may not close others' connections: revoked logins keep those that they have."
        remedy = f"`rabbitmqctl set_user_tags {address.management_login[0]} administrator`."
        return Finding(what="broker-management", status="warning", text=text, remedy=remedy)
    return Finding(what="broker-management", status="ok", text="Connections of revoked logins can be closed.")


def _perform(operator: Operator, operation: Operation) -> Outcome:
    answers: SimpleQueue[Outcome] = SimpleQueue()
    operator.perform(operation, answers.put)
    try:
        return answers.get(timeout=_PATIENCE_S)
    except Empty:
        return Failed(code=0, reason="it does not answer")


def _remedy_of(fault: str) -> str:
    fault = fault.lower()
    return next((remedy for sign, remedy in _REMEDIES if sign in fault), "See RabbitMQ's log.")


_REMEDIES: Final = (
    (
        "access_refused",
        "Correct user and password in FARCALL_BROKER ('guest' may come from RabbitMQ's own host only).",
    ),
    ("vhost", "Make the vhost, and give the account all rights there: rabbitmqctl add_vhost …; set_permissions …."),
    ("refused", "Start RabbitMQ; check host, port and listeners."),
    ("resolve", "Correct the host name."),
    ("name or service", "Correct the host name."),
    ("timed out", "Check that the host is right, and that no firewall is in between."),
    ("no answer", "Check that the host is right, and that no firewall is in between."),
    ("certificate", "Its certificate must be of a known authority, for this host name."),
)
