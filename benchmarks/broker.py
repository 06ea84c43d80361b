"""What a message costs in the embedded broker. Prints one JSON line per figure.

The broker runs in a process of its own, so its CPU time is its own; pika's SelectConnection is the client at both
ends, 1 KB bodies, a window of 200 confirms, a prefetch of 200. The in-process figures are those of the service's relay:
`Broker.publish` to a pika consumer, and pika's confirmed publishes into a queue that a `LocalConsumer` works.

    python benchmarks/broker.py [messages]
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import resource
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection as Pipe
from typing import Any

import pika

WINDOW = 200
BODY = b"x" * 1024


class Anyone:
    name = "bench"

    async def authenticate(self, username: str, password: str) -> Anyone:
        return self

    def allows(self, principal: Any, action: str, resource: str, name: str) -> bool:
        return True

    def allows_routing_key(self, principal: Any, exchange: str, routing_key: str) -> bool:
        return True


def broker_process(pipe: Pipe, use_uvloop: bool) -> None:
    """Serves until told to stop; answers commands on `pipe` with CPU seconds."""
    if use_uvloop:
        import uvloop

        uvloop.install()
    asyncio.run(_serve(pipe))


async def _serve(pipe: Pipe) -> None:
    from farcall.broker import Broker, Properties, serve

    loop = asyncio.get_running_loop()
    broker = Broker()
    broker.declare_exchange("results", "topic")
    broker.declare_queue("q")
    broker.bind("q", "results", "*.results")
    broker.declare_queue("sink", max_length=1000)
    broker.bind("sink", "results", "*.sink")
    broker.declare_queue("relay", confirm_on="ack")
    broker.bind("relay", "results", "*.relay")
    consumer = broker.consume("relay", lambda batch: consumer.ack(*[d.tag for d in batch]), prefetch=1000)
    server = await serve(broker, Anyone(), "127.0.0.1", 0)
    pipe.send(server.port)
    stop = asyncio.Event()

    def publish(count: int) -> None:
        headers = {"task_uuid": "5e1d6a3c-" * 4, "function_uuid": "5e1d6a3c-" * 4}
        while count and broker.queue_depth("q").ready < 1000:
            for _ in range(min(count, 100)):
                broker.publish("results", "a.results", BODY, Properties(delivery_mode=2, headers=headers))
                count -= 1
        if count:
            broker.on_acked = lambda queue, _n: publish(count) if queue == "q" else None
        else:
            broker.on_acked = None

    def command() -> None:
        what = pipe.recv()
        if what == "stop":
            stop.set()
        elif what == "cpu":
            usage = resource.getrusage(resource.RUSAGE_SELF)
            pipe.send(usage.ru_utime + usage.ru_stime)
        else:
            publish(int(what))

    loop.add_reader(pipe.fileno(), command)
    await stop.wait()
    loop.remove_reader(pipe.fileno())
    await server.close()


def publisher(port: int, key: str, count: int, ready: threading.Event, done: threading.Event) -> None:
    """Publishes `count` messages, never more than WINDOW unconfirmed."""
    state = {"sent": 0, "confirmed": 0}
    properties = pika.BasicProperties(delivery_mode=2)

    def fill(channel: Any) -> None:
        while state["sent"] < count and state["sent"] - state["confirmed"] < WINDOW:
            channel.basic_publish("results", key, BODY, properties)
            state["sent"] += 1

    def on_confirm(channel: Any, method: Any) -> None:
        tag = method.method.delivery_tag
        state["confirmed"] = tag if method.method.multiple else state["confirmed"] + 1
        if state["confirmed"] >= count:
            done.set()
            channel.connection.close()
        else:
            fill(channel)

    def on_channel(channel: Any) -> None:
        ready.set()
        channel.confirm_delivery(lambda method: on_confirm(channel, method), lambda _ok: fill(channel))

    run(port, on_channel)


def consumer(port: int, count: int, ready: threading.Event, done: threading.Event) -> None:
    """Consumes and acknowledges `count` messages, with a prefetch of WINDOW; acknowledges by halves of it."""
    state = {"got": 0}

    def on_message(channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
        state["got"] += 1
        if state["got"] % (WINDOW // 4) == 0 or state["got"] == count:
            channel.basic_ack(method.delivery_tag, multiple=True)
        if state["got"] == count:
            done.set()
            channel.connection.close()

    def on_channel(channel: Any) -> None:
        channel.basic_qos(
            prefetch_count=WINDOW,
            callback=lambda _ok: channel.basic_consume("q", on_message, callback=lambda _: ready.set()),
        )

    run(port, on_channel)


def run(port: int, on_channel: Callable[[Any], None]) -> None:
    parameters = pika.ConnectionParameters("127.0.0.1", port)
    connection = pika.SelectConnection(
        parameters,
        on_open_callback=lambda c: c.channel(on_open_callback=on_channel),
        on_close_callback=lambda c, _reason: c.ioloop.stop(),
    )
    connection.ioloop.start()


def measure(
    pipe: Pipe,
    name: str,
    count: int,
    clients: list[Callable[..., None]],
    start: Callable[[], None] | None = None,
    **more: Any,
) -> None:
    """Run `clients`, each in a process of its own, and print what a message cost the broker."""
    context = multiprocessing.get_context("fork")
    events = [(context.Event(), context.Event()) for _ in clients]
    processes = [context.Process(target=client, args=pair) for client, pair in zip(clients, events, strict=True)]
    cpu_before, began = cpu(pipe), time.perf_counter()
    for process in processes:
        process.start()
    if start is not None:
        for ready, _ in events:
            ready.wait(30)
        cpu_before, began = cpu(pipe), time.perf_counter()
        start()
    for _, done in events:
        if not done.wait(120):
            raise SystemExit(f"{name}: no end in 120 s")
    seconds = time.perf_counter() - began
    used = cpu(pipe) - cpu_before
    for process in processes:
        process.join(10)
    emit(f"broker.{name}_per_s", count / seconds, "1/s", **more)
    emit(f"broker.{name}_cpu_us", used / count * 1e6, "us", **more)


def emit(figure: str, value: float, unit: str, **more: Any) -> None:
    print(json.dumps({"figure": figure, "value": round(value, 2), "unit": unit, **more}), flush=True)


def cpu(pipe: Pipe) -> float:
    pipe.send("cpu")
    return float(pipe.recv())


def figures(pipe: Pipe, count: int, loop: str) -> None:
    """All figures of one broker process."""
    port = pipe.recv()
    plain = partial(publisher, port, "a.sink", count)
    on_ack = partial(publisher, port, "a.relay", count)
    through = [partial(consumer, port, count), partial(publisher, port, "a.results", count)]
    measure(pipe, "publish_confirm", count, [plain], loop=loop)
    measure(pipe, "publish_confirm_on_ack", count, [on_ack], loop=loop)
    measure(pipe, "publish_confirm_consume", count, through, loop=loop)
    measure(pipe, "in_process_publish_consume", count, through[:1], start=lambda: pipe.send(str(count)), loop=loop)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    for use_uvloop in (False, True):
        pipe, far_end = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=broker_process, args=(far_end, use_uvloop))
        process.start()
        figures(pipe, count, "uvloop" if use_uvloop else "asyncio")
        pipe.send("stop")
        process.join(10)


if __name__ == "__main__":
    main()
