"""A service with a broker, one person, endpoints and SDKs made of pika, for tests of the relay to import."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pika
import pika.exceptions
from service_world import Rest, ServiceThread

from farcall.wire.messages import EndpointStatusReport, Result, pack_message
from rabbitmq_server import RabbitServer

Start = Callable[..., ServiceThread]
PATIENCE_S = 20.0


class Link:
    """One blocking AMQP connection that consumes one queue."""

    def __init__(self, url: str, queue: str | None = None, *, exclusive: bool = False) -> None:
        parameters = pika.URLParameters(url.replace("@localhost:", "@127.0.0.1:"))
        self.connection = pika.BlockingConnection(parameters)
        self.channel = self.connection.channel()
        self.got: list[Any] = []
        if queue is not None:
            try:
                self.channel.basic_consume(queue, self._on_message, exclusive=exclusive)
            except pika.exceptions.AMQPError:
                self.connection.close()
                raise

    def _on_message(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self.got.append((method, properties, body))

    def wait(self, count: int) -> list[Any]:
        """Until `count` messages have come in all."""
        until = time.monotonic() + PATIENCE_S
        while len(self.got) < count:
            left_s = until - time.monotonic()
            assert left_s > 0, f"{len(self.got)} messages in place of {count}"
            self.connection.process_data_events(time_limit=min(left_s, 1.0))
        return self.got

    def is_cut(self) -> bool:
        """Whether the service closes this connection."""
        until = time.monotonic() + PATIENCE_S
        try:
            while time.monotonic() < until:
                self.connection.process_data_events(time_limit=1.0)
        except pika.exceptions.AMQPError:
            return True
        return False

    def close(self) -> None:
        with contextlib.suppress(pika.exceptions.AMQPError):  # the service may have closed it
            self.connection.close()


class Agent(Link):
    """An endpoint: consumes its tasks, publishes results with confirms."""

    def __init__(self, registration: Any) -> None:
        self.id: str = registration["endpoint_id"]
        info = registration["task_queue_info"]
        super().__init__(info["connection_url"], info["queue"], exclusive=True)
        self.out = self.connection.channel()
        self.out.exchange_declare("results", passive=True)
        self.out.queue_declare("results", passive=True)
        self.out.confirm_delivery()

    def send(self, body: bytes, key: str | None = None) -> None:
        """Returns when the service has confirmed."""
        self.out.basic_publish("results", key or f"{self.id}.results", body, mandatory=True)

    def finish(self, task_id: str, data: str = "value") -> None:
        self.send(pack_message(Result(task_id=task_id, data=data)))

    def report(self, **state: Any) -> None:
        statuses = state.pop("task_statuses", {})
        report = EndpointStatusReport(endpoint_id=self.id, global_state=state, task_statuses=statuses)
        self.out.basic_publish("heartbeats", f"{self.id}.heartbeats", pack_message(report))

    def ack_all(self) -> None:
        self.channel.basic_ack(self.got[-1][0].delivery_tag, multiple=True)


class Broker:
    """The one in the service, or a RabbitMQ.

    Attributes:
        confirms_what_is_stored: an endpoint gets its confirm when the result is in the store, not when it has arrived.
        tells_acks: the service hears of acknowledgements.
    """

    def __init__(self, server: RabbitServer | None = None) -> None:
        self.server = server
        self.confirms_what_is_stored = self.tells_acks = server is None
        self.settings: dict[str, Any] = {}
        if server is not None:
            self.settings = {"broker": server.url, "broker_management": server.management_url}

    def serves(self, thread: ServiceThread) -> None:
        """RabbitMQ asks this service who may log in."""
        if self.server is not None:
            self.server.lead_to(thread.running.port)


class Scene:
    """A service with one person who has a function and an endpoint."""

    def __init__(self, start: Start, broker: Broker, **settings: Any) -> None:
        self._start = start
        self.broker = broker
        self.thread = start(**broker.settings, **settings)
        broker.serves(self.thread)
        self._count_results()
        self.ada = Rest(self.thread)
        self.function_id = self.ada.function()
        self.registration = self.ada.endpoint()
        self.endpoint_id: str = self.registration["endpoint_id"]
        self.links: list[Link] = []

    def agent(self, registration: Any = None) -> Agent:
        agent = Agent(registration or self.registration)
        self.links.append(agent)
        return agent

    def sdk(self, group_id: str, who: Rest | None = None) -> Link:
        info = (who or self.ada).ask("GET", "/v2/get_amqp_result_connection_url")
        link = Link(info["connection_url"], info["queue_prefix"] + group_id)
        self.links.append(link)
        return link

    def submit(self, count: int = 1, **more: Any) -> tuple[list[str], str]:
        answer = self.ada.submit(self.endpoint_id, self.function_id, count, create_queue=True, **more)
        return answer["tasks"][self.function_id], answer["task_group_id"]

    def task(self, task_id: str) -> Any:
        return self.ada.ask("GET", f"/v2/tasks/{task_id}")

    def restart(self) -> None:
        """The same data, a new process's worth of everything else; on new ports, so with a new registration."""
        for link in self.links:
            link.close()
        self.thread.stop()
        self.start_again()

    def start_again(self) -> None:
        """The second half of `restart`."""
        self.thread = self._start(**self.broker.settings)
        self.broker.serves(self.thread)
        self._count_results()
        self.ada = Rest(self.thread)
        again = {"endpoint_name": "here", "direct": True, "metadata": {}}
        self.registration = self.ada.ask("PUT", f"/v3/endpoints/{self.endpoint_id}", again)

    def results_taken(self, count: int) -> None:
        """Wait until the service is done with `count` messages of the result queue, since it started."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._taken >= count, PATIENCE_S), f"{self._taken} of {count}"

    def _count_results(self) -> None:
        self._changed, self._taken = threading.Condition(), 0
        intake = self.thread.call(lambda service: service.relay.intake)
        acknowledge = intake._acknowledge

        def counting(deliveries: Sequence[Any]) -> None:
            acknowledge(deliveries)
            with self._changed:
                self._taken += len(deliveries)
                self._changed.notify_all()

        intake._acknowledge = counting

    def counters(self) -> Any:
        return self.thread.call(lambda service: service.relay.intake.counters)


def ids_of(messages: list[Any]) -> list[str]:
    return [properties.headers["task_uuid"] for _, properties, _ in messages]
