"""What a message costs in `farcall.amqp`, through the embedded broker. Prints one JSON line per figure.

The broker runs in a process of its own, so the CPU figures are those of the client's process: the connection's thread
and the calling thread together. Bodies are 1 KB.

    python benchmarks/amqp.py [messages]
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from typing import Any

from farcall.amqp import AmqpConnection, Delivery

BODY = b"x" * 1024
LARGE = os.urandom(1024 * 1024)
KWARGS = {"exchange": "results", "routing_key": "e.results", "mandatory": True, "properties": {"delivery_mode": 2}}
WAIT_S = 120


class Anyone:
    name = "bench"

    async def authenticate(self, username: str, password: str) -> Anyone:
        return self

    def allows(self, principal: Any, action: str, resource: str, name: str) -> bool:
        return True

    def allows_routing_key(self, principal: Any, exchange: str, routing_key: str) -> bool:
        return True


def broker_process(pipe: Pipe) -> None:
    asyncio.run(_serve(pipe))


async def _serve(pipe: Pipe) -> None:
    from farcall.broker import Broker, serve

    loop = asyncio.get_running_loop()
    broker = Broker()
    broker.declare_exchange("results", "topic")
    broker.declare_queue("q")
    broker.bind("q", "results", "*.results")
    server = await serve(broker, Anyone(), "127.0.0.1", 0)
    stop = asyncio.Event()
    loop.add_reader(pipe.fileno(), stop.set)
    pipe.send(server.port)
    await stop.wait()
    loop.remove_reader(pipe.fileno())
    await server.close()


def emit(figure: str, value: float, unit: str) -> None:
    print(json.dumps({"figure": f"amqp.{figure}", "value": round(value, 2), "unit": unit}), flush=True)


def measured(figure: str, count: int, work: Callable[[], None]) -> None:
    """Rate, and CPU time of this process, over `count` messages."""
    start_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    emit(f"{figure}_per_s", count / (time.perf_counter() - start_s), "1/s")
    emit(f"{figure}_cpu_us", (time.process_time() - cpu_s) / count * 1e6, "us")


class Sink:
    """A consumer that acknowledges everything and counts."""

    def __init__(self) -> None:
        self.expected = 0
        self.done = threading.Event()
        self.consumer: Any = None

    def __call__(self, deliveries: list[Delivery]) -> None:
        self.consumer.ack(deliveries)
        self.expected -= len(deliveries)
        if self.expected <= 0:
            self.done.set()

    def expect(self, count: int) -> None:
        self.done.clear()
        self.expected = count

    def wait(self) -> None:
        if not self.done.wait(WAIT_S):
            raise TimeoutError(f"{self.expected} messages did not come")


def measure(url: str, count: int) -> None:
    sender, receiver = AmqpConnection(url, name="sender"), AmqpConnection(url, name="receiver")
    publisher = sender.publisher("results", "q")
    sender.start()
    publisher.publish(BODY, KWARGS)
    publisher.wait_confirmed(WAIT_S)

    def publish_all(bodies: int = count, body: bytes = BODY) -> None:
        for _ in range(bodies):
            publisher.publish(body, KWARGS)
        if not publisher.wait_confirmed(WAIT_S):
            raise TimeoutError("messages were not confirmed")

    def consume_all() -> None:
        receiver.start()
        sink.wait()

    def both(bodies: int, body: bytes) -> None:
        sink.expect(bodies)
        publish_all(bodies, body)
        sink.wait()

    sink = Sink()
    sink.expect(count + 1)
    sink.consumer = receiver.consume("q", sink, 1000)
    measured("publish_confirmed", count, publish_all)
    measured("consume", count, consume_all)
    measured("publish_and_consume", count, lambda: both(count, BODY))
    megabytes = max(20, count // 200)
    measured("publish_and_consume_1_mib", megabytes, lambda: both(megabytes, LARGE))

    trips_us: list[float] = []
    for _ in range(max(100, count // 20)):
        sink.expect(1)
        start_s = time.perf_counter()
        publisher.publish(BODY, KWARGS)
        sink.wait()
        trips_us.append((time.perf_counter() - start_s) * 1e6)
    emit("round_trip_median_us", statistics.median(trips_us), "us")
    emit("round_trip_p95_us", statistics.quantiles(trips_us, n=20)[-1], "us")
    for connection in (sender, receiver):
        connection.close()


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=broker_process, args=(theirs,), daemon=True)
    process.start()
    try:
        measure(f"amqp://user:secret@127.0.0.1:{ours.recv()}/%2F?heartbeat=30", count)
    finally:
        ours.send("stop")
        process.join(10)


if __name__ == "__main__":
    main()
