"""Queues, exchanges and routing of the in-process double: what a broker does with messages, without connections.

Not thread-safe: `memory.MemoryBroker` holds its lock around every call.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Exchange", "Message", "Outlet", "Queue", "matches"]


class Message:
    """One message in one queue. `on_settled` is called with True when it was acknowledged, False when dropped."""

    __slots__ = (
        "body",
        "content_type",
        "headers",
        "number",
        "on_settled",
        "redelivered",
        "routing_key",
        "timestamp",
    )

    def __init__(
        self,
        body: bytes,
        routing_key: str,
        properties: Mapping[str, Any],
        on_settled: Callable[[bool], None] | None = None,
    ) -> None:
        self.body = body
        self.routing_key = routing_key
        self.headers: Mapping[str, Any] = properties.get("headers") or {}
        self.timestamp: int | None = properties.get("timestamp")
        self.content_type: str | None = properties.get("content_type")
        self.on_settled = on_settled
        self.redelivered = False
        self.number = 0

    def settle(self, ok: bool) -> None:
        callback, self.on_settled = self.on_settled, None
        if callback is not None:
            callback(ok)


class Outlet(Protocol):
    """A consumer, as its queue sees it."""

    exclusive: bool

    @property
    def has_room(self) -> bool: ...

    def deliver(self, message: Message) -> None: ...

    def cancelled(self) -> None:
        """The queue is gone."""


class Queue:
    """Messages in order of arrival; one that comes back takes its old place."""

    def __init__(self, name: str, confirm_on: str) -> None:
        self.name = name
        self.confirm_on = confirm_on
        self.ready: list[Message] = []
        self.outlets: list[Outlet] = []
        self._arrived = 0

    def put(self, message: Message) -> None:
        self._arrived += 1
        message.number = self._arrived
        self.ready.append(message)
        if self.confirm_on == "enqueue":
            message.settle(True)
        self.dispatch()

    def put_back(self, messages: list[Message]) -> None:
        for message in messages:
            message.redelivered = True
            bisect.insort(self.ready, message, key=lambda each: each.number)
        self.dispatch()

    def may_attach(self, exclusive: bool) -> bool:
        return not (self.outlets and (exclusive or any(each.exclusive for each in self.outlets)))

    def attach(self, outlet: Outlet) -> None:
        self.outlets.append(outlet)
        self.dispatch()

    def detach(self, outlet: Outlet) -> None:
        if outlet in self.outlets:
            self.outlets.remove(outlet)

    def dispatch(self) -> None:
        while self.ready:
            outlet = next((each for each in self.outlets if each.has_room), None)
            if outlet is None:
                return
            # Round robin: who was served goes to the end.
            self.outlets.remove(outlet)
            self.outlets.append(outlet)
            outlet.deliver(self.ready.pop(0))

    def purge(self) -> list[Message]:
        dropped, self.ready = self.ready, []
        for message in dropped:
            message.settle(False)
        return dropped


@dataclass(slots=True)
class Exchange:
    """`kind` is "direct", "topic" or "fanout"; `bindings` are (key or pattern, queue name)."""

    kind: str
    bindings: list[tuple[str, str]]

    def route(self, routing_key: str) -> list[str]:
        """Names of the queues that get a message, each once."""
        if self.kind == "topic":
            found = [queue for pattern, queue in self.bindings if matches(pattern, routing_key)]
        else:
            found = [queue for key, queue in self.bindings if self.kind == "fanout" or key == routing_key]
        return list(dict.fromkeys(found))


def matches(pattern: str, routing_key: str) -> bool:
    """Whether a topic pattern covers a key: `*` is one word, `#` any number of them."""
    return _matches(pattern.split("."), routing_key.split("."))


def _matches(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    head, rest = pattern[0], pattern[1:]
    if head == "#":
        return any(_matches(rest, words[skipped:]) for skipped in range(len(words) + 1))
    return bool(words) and head in ("*", words[0]) and _matches(rest, words[1:])
