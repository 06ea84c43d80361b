"""One connection's protocol, bytes in and bytes out, without a socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands, frame
from pamqp.header import ContentHeader, ProtocolHeader
from pamqp.heartbeat import Heartbeat

from farcall.broker import Broker, QueueDepth
from farcall.broker.handshake import Credentials, Limits
from farcall.broker.protocol import Connection


class User:
    name = "user"


class Anything:
    async def authenticate(self, username: str, password: str) -> User | None:
        raise NotImplementedError

    def allows(self, principal: Any, action: str, resource: str, name: str) -> bool:
        return True

    def allows_routing_key(self, principal: Any, exchange: str, routing_key: str) -> bool:
        return True


class Wire:
    """A `Transport` that remembers; the test plays the event loop."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], Any]] = []
        self.written = b""
        self.credentials: Credentials | None = None
        self.reading = True
        self.ended: str | None = None
        self.heartbeat_s: int | None = None
        self.broker = Broker(defer=self.jobs.append)
        self.broker.declare_queue("q")
        self.connection = Connection(
            self.broker,
            Anything(),
            self,
            limits=Limits(),
            peer="test",
            max_message_bytes=1_000_000,
            held_bytes_max=10_000,
        )

    def flush_soon(self) -> None:
        self.jobs.append(self.flush)

    def flush(self) -> None:
        if self.connection.may_write:
            self.written += self.connection.take_output()
            self.connection.wrote()

    def login(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self.jobs.append(lambda: self.connection.logged_in(User()))

    def start_heartbeats(self, heartbeat_s: int) -> None:
        self.heartbeat_s = heartbeat_s

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True
        self.jobs.append(lambda: self.connection.receive(b""))

    def close_soon(self) -> None:
        self.ended = self.ended or "soon"

    def close(self) -> None:
        self.written += self.connection.take_output()
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    # --- the test's side ---

    def turn(self) -> None:
        while self.jobs:
            jobs = self.jobs[:]
            self.jobs.clear()
            for job in jobs:
                job()

    def feed(self, data: bytes) -> None:
        self.connection.receive(data)
        self.turn()

    def replies(self) -> list[Any]:
        values, data, self.written = [], self.written, b""
        at = 0
        while at < len(data):
            end = at + 8 + int.from_bytes(data[at + 3 : at + 7], "big")
            values.append(frame.unmarshal(data[at:end])[2])
            at = end
        return values

    def names(self) -> list[str]:
        return [value.name for value in self.replies()]


def method(value: Any, channel: int = 1) -> bytes:
    data: bytes = frame.marshal(value, channel)
    return data


def message(body: bytes, channel: int = 1, frame_max: int = 131072, **properties: Any) -> bytes:
    header = ContentHeader(body_size=len(body), properties=commands.Basic.Properties(**properties))
    parts = [body[at : at + frame_max - 8] for at in range(0, len(body), frame_max - 8)]
    return (
        method(commands.Basic.Publish(exchange="", routing_key="q"), channel)
        + method(header, channel)
        + b"".join(b"\x03" + channel.to_bytes(2, "big") + len(p).to_bytes(4, "big") + p + b"\xce" for p in parts)
    )


def declare(name: str, *, channel: int = 1, passive: bool = False) -> bytes:
    """A queue.declare with a name that pamqp would not send."""
    payload = b"\x00\x32\x00\x0a\x00\x00" + bytes((len(name.encode()),)) + name.encode() + bytes((passive,)) + bytes(4)
    return b"\x01" + channel.to_bytes(2, "big") + len(payload).to_bytes(4, "big") + payload + b"\xce"


START_OK = commands.Connection.StartOk(
    {"capabilities": {"consumer_cancel_notify": True, "authentication_failure_close": True}},
    "PLAIN",
    "\0user\0secret",
    "en_US",
)
OPENING = (
    ProtocolHeader(0, 9, 1).marshal()
    + method(START_OK, 0)
    + method(commands.Connection.TuneOk(2047, 131072, 0), 0)
    + method(commands.Connection.Open("/"), 0)
    + method(commands.Channel.Open())
)


def opened() -> Wire:
    wire = Wire()
    wire.feed(OPENING)
    assert wire.names() == ["Connection.Start", "Connection.Tune", "Connection.OpenOk", "Channel.OpenOk"]
    return wire


CONVERSATION = (
    OPENING
    + method(commands.Confirm.Select())
    + message(b"one", delivery_mode=2)
    + message(b"")
    + message(b"x" * 300_000, headers={"a": "b"})
    + method(Heartbeat(), 0)
    + method(commands.Basic.Qos(prefetch_count=2))
    + method(commands.Basic.Consume(queue="q", consumer_tag="c"))
    + method(commands.Basic.Ack(1))
    + method(commands.Basic.Nack(2, False, True))
    + method(commands.Queue.Declare(queue="missing", passive=True))
    + message(b"to a closed channel")
    + method(commands.Channel.CloseOk())
    + method(commands.Channel.Open(), 2)
    + method(commands.Basic.Get(queue="q"), 2)
    + method(commands.Channel.Close(200, "", 0, 0), 2)
    + method(commands.Connection.Close(200, "", 0, 0), 0)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, len(CONVERSATION) - 1), max_size=30).map(sorted))
def test_it_does_not_matter_how_the_bytes_are_cut(cuts: list[int]) -> None:
    whole = Wire()
    whole.feed(CONVERSATION)
    pieces = Wire()
    for start, stop in zip([0, *cuts], [*cuts, len(CONVERSATION)], strict=True):
        pieces.feed(CONVERSATION[start:stop])
    essential = {"Basic.Ack", "Basic.Nack"}  # confirms are gathered by turns
    assert [n for n in pieces.names() if n not in essential] == [n for n in whole.names() if n not in essential]
    assert pieces.ended == whole.ended == "closed"
    assert (
        pieces.broker.queue_depth("q") == whole.broker.queue_depth("q") == QueueDepth(ready=2, unacked=0, consumers=0)
    )
    assert whole.broker.stats().connections == 0


def test_byte_by_byte_is_the_same_conversation() -> None:
    wire = Wire()
    small = OPENING + message(b"one") + method(commands.Basic.Get(queue="q", no_ack=True))
    for at in range(len(small)):
        wire.feed(small[at : at + 1])
    assert wire.names()[4:] == ["Basic.GetOk", "ContentHeader", "ContentBody"]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_end_one_connection_and_disturb_nothing(data: bytes) -> None:
    wire = Wire()
    wire.connection.receive(data)
    wire.turn()
    wire.connection.lost()
    assert wire.broker.stats().connections == 0


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(len(OPENING), len(CONVERSATION) - 1), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 3),
)
def test_a_damaged_conversation_never_raises_and_gives_everything_back(
    damage: list[tuple[int, int]], shorter: int
) -> None:
    data = bytearray(CONVERSATION)
    for at, value in damage:
        data[at] = value
    wire = Wire()
    wire.feed(bytes(data[: len(data) - shorter]))
    wire.connection.lost()
    wire.turn()
    depth = wire.broker.queue_depth("q")
    assert (depth.unacked, depth.consumers) == (0, 0)
    assert wire.broker.stats().connections == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([1, 2, 3, 8]), st.integers(0, 2), st.binary(max_size=60)), max_size=8))
def test_well_framed_nonsense_is_refused_by_the_book(frames: list[tuple[int, int, bytes]]) -> None:
    wire = opened()
    for kind, channel, payload in frames:
        wire.feed(bytes((kind, 0, channel)) + len(payload).to_bytes(4, "big") + payload + b"\xce")
    for value in wire.replies():
        if value.name in ("Connection.Close", "Channel.Close"):
            assert value.reply_code in {403, 404, 405, 406, 501, 502, 503, 504, 505, 530, 540}
            assert value.reply_code != 541
    wire.connection.lost()
    assert wire.broker.stats().connections == 0


@pytest.mark.filterwarnings("ignore:This command is deprecated")
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(set(commands.INDEX_MAPPING))), st.binary(max_size=40), st.booleans())
def test_no_arguments_of_any_method_are_an_internal_error(number: int, arguments: bytes, on_zero: bool) -> None:
    wire = opened()
    payload = number.to_bytes(4, "big") + arguments
    wire.feed(b"\x01\x00" + bytes([not on_zero]) + len(payload).to_bytes(4, "big") + payload + b"\xce")
    assert all(getattr(value, "reply_code", 0) != 541 for value in wire.replies())


# --- Opening --------------------------------------------------------------------------------------------------------


def test_nothing_is_read_while_the_login_is_checked() -> None:
    wire = Wire()
    wire.connection.receive(OPENING)
    assert wire.credentials == Credentials(username="user", password="secret")
    assert not wire.reading
    assert wire.broker.connections() == []
    wire.turn()
    assert wire.reading
    assert wire.names()[-1] == "Channel.OpenOk"
    assert [info.principal_name for info in wire.broker.connections()] == ["user"]


def test_passwords_are_in_no_representation() -> None:
    assert "secret" not in repr(Credentials(username="user", password="secret"))


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ([commands.Connection.StartOk({}, "AMQPLAIN", "x", "en_US")], 503),
        ([commands.Connection.StartOk({}, "PLAIN", "no separators", "en_US")], 502),
        ([commands.Connection.TuneOk(1, 4096, 0)], 503),
        ([START_OK, commands.Connection.TuneOk(0, 131072, 0)], 530),
        ([START_OK, commands.Connection.TuneOk(4000, 131072, 0)], 530),
        ([START_OK, commands.Connection.TuneOk(10, 4095, 0)], 530),
        ([START_OK, commands.Connection.TuneOk(10, 0, 0)], 530),
        ([START_OK, commands.Connection.TuneOk(10, 4096, 0), commands.Connection.Open("other")], 530),
        ([START_OK, START_OK], 503),
        ([START_OK, commands.Basic.Get(queue="q")], 503),
    ],
)
def test_an_opening_out_of_order_or_out_of_bounds_is_refused(values: list[Any], code: int) -> None:
    wire = Wire()
    wire.feed(ProtocolHeader(0, 9, 1).marshal())
    for value in values:
        wire.feed(method(value, 0))
    closes = [value for value in wire.replies() if value.name == "Connection.Close"]
    assert [close.reply_code for close in closes] == [code]
    wire.feed(method(commands.Connection.CloseOk(), 0))
    assert wire.ended == "closed"


def test_a_refused_login_is_explained_only_to_those_who_understand() -> None:
    for capable, expected in ((True, ["Connection.Start", "Connection.Close"]), (False, ["Connection.Start"])):
        wire = Wire()
        properties = {"capabilities": {"authentication_failure_close": capable}}
        start_ok = commands.Connection.StartOk(properties, "PLAIN", "\0a\0b", "en_US")
        wire.connection.receive(ProtocolHeader(0, 9, 1).marshal() + method(start_ok, 0))
        wire.jobs.clear()
        wire.connection.login_refused()
        wire.flush()
        assert wire.names() == expected
        assert wire.ended == ("soon" if capable else "closed")


def test_a_login_that_comes_too_late_opens_nothing() -> None:
    wire = Wire()
    wire.connection.receive(ProtocolHeader(0, 9, 1).marshal() + method(START_OK, 0))
    wire.connection.lost()
    wire.turn()
    assert wire.broker.connections() == []


# --- Waiting --------------------------------------------------------------------------------------------------------


def test_a_client_is_dropped_after_two_silent_heartbeats_and_hears_from_us() -> None:
    wire = opened()
    for _ in range(3):
        wire.connection.tick(0)
    wire.feed(method(Heartbeat(), 0))
    for _ in range(4):
        wire.connection.tick(0)
        assert wire.ended is None
        wire.turn()
    wire.connection.tick(0)
    assert wire.ended == "aborted"
    assert set(wire.names()) == {"Heartbeat"}


def test_no_heartbeat_is_sent_when_something_else_was() -> None:
    wire = opened()
    wire.connection.tick(0)  # the opening was this half's traffic
    wire.turn()
    assert wire.names() == []
    wire.connection.tick(0)
    wire.turn()
    assert wire.names() == ["Heartbeat"]


def test_a_client_that_still_takes_bytes_is_alive() -> None:
    wire = opened()
    for unwritten in range(20, 0, -1):
        wire.connection.tick(unwritten)
    assert wire.ended is None
    for _ in range(4):
        wire.connection.tick(1)
    assert wire.ended == "aborted"


def test_a_publisher_is_not_read_while_too_much_of_it_waits_for_acknowledgement() -> None:
    wire = opened()
    wire.broker.delete_queue("q")
    wire.broker.declare_queue("q", confirm_on="ack")
    for _ in range(3):
        wire.feed(message(b"x" * 4000))
    assert not wire.reading
    for _ in range(10):
        wire.connection.tick(0)  # its silence is our doing
    assert wire.ended is None
    consumer = wire.broker.consume("q", lambda batch: consumer.ack(*[delivery.tag for delivery in batch]), prefetch=1)
    wire.turn()
    assert wire.reading


def test_a_client_that_is_not_read_can_still_answer_a_close() -> None:
    wire = opened()
    wire.broker.delete_queue("q")
    wire.broker.declare_queue("q", confirm_on="ack")
    wire.feed(message(b"x" * 20_000))
    assert not wire.reading
    wire.connection.force_close("now")
    wire.turn()
    assert wire.reading
    wire.feed(method(commands.Connection.CloseOk(), 0))
    assert wire.ended == "closed"


def test_what_a_client_asks_for_and_does_not_read_stays_bounded() -> None:
    wire = opened()
    wire.feed(message(b"x" * 100_000))
    wire.connection.pause()
    wire.connection.receive(
        b"".join(
            method(commands.Basic.Get(queue="q")) + method(commands.Basic.Nack(n, False, True)) for n in range(1, 61)
        )
    )
    wire.turn()
    assert not wire.reading
    assert wire.written == b""
    assert sum(map(len, wire.connection._out)) < 1_300_000
    wire.connection.resume()
    wire.turn()
    assert wire.reading
    assert wire.names().count("Basic.GetOk") == 60


def test_deliveries_stop_while_a_client_does_not_read_and_go_on_later() -> None:
    wire = opened()
    wire.feed(method(commands.Basic.Consume(queue="q")))
    wire.replies()
    wire.connection.pause()
    for _ in range(100):
        wire.broker.publish("", "q", b"x" * 1000)
    wire.turn()
    assert wire.names() == []
    assert wire.broker.queue_depth("q").ready == 100
    wire.connection.resume()
    wire.turn()
    assert wire.names().count("Basic.Deliver") == 100


def test_one_turn_carries_a_bounded_batch_and_the_rest_follows() -> None:
    wire = opened()
    for _ in range(1000):
        wire.broker.publish("", "q", b"x" * 1000)
    wire.connection.receive(method(commands.Basic.Consume(queue="q")))
    first = len(wire.connection.take_output())
    assert 256 * 1024 <= first < 256 * 1024 + 2000
    wire.connection.wrote()
    wire.turn()
    assert wire.broker.queue_depth("q") == QueueDepth(ready=0, unacked=1000, consumers=1)


def test_every_channel_of_a_connection_gets_its_turn() -> None:
    wire = opened()
    wire.broker.declare_queue("other")
    for name in ("q", "other"):
        for _ in range(600):
            wire.broker.publish("", name, b"x" * 1000)
    wire.connection.receive(method(commands.Basic.Consume(queue="q")))
    wire.connection.receive(method(commands.Channel.Open(), 2) + method(commands.Basic.Consume(queue="other"), 2))
    wire.flush()
    wire.flush()
    assert wire.broker.queue_depth("other").unacked > 0
    assert wire.broker.queue_depth("q").ready > 0


# --- Closing --------------------------------------------------------------------------------------------------------


def test_what_was_confirmed_is_told_before_the_channel_closes() -> None:
    wire = opened()
    wire.connection.receive(
        method(commands.Confirm.Select())
        + message(b"1")
        + message(b"2")
        + method(commands.Queue.Declare(queue="missing", passive=True))
    )
    wire.turn()
    assert wire.names() == ["Confirm.SelectOk", "Basic.Ack", "Channel.Close"]


def test_a_forced_close_frees_everything_at_once() -> None:
    wire = opened()
    wire.feed(method(commands.Basic.Consume(queue="q", exclusive=True)))
    wire.broker.publish("", "q", b"x")
    wire.replies()
    assert wire.broker.close_connections(lambda principal: principal.name == "user", "replaced") == 1
    assert wire.broker.queue_depth("q") == QueueDepth(ready=1, unacked=0, consumers=0)
    wire.broker.consume("q", lambda _batch: None, exclusive=True)
    wire.feed(method(commands.Basic.Ack(1)))  # was on its way
    (_, _, _, close) = wire.replies()
    assert (close.reply_code, close.reply_text) == (320, "CONNECTION_FORCED - replaced")
    assert wire.broker.close_connections(lambda _principal: True, "again") == 0
    wire.feed(method(commands.Connection.CloseOk(), 0))
    assert wire.ended == "closed"


def test_what_a_lost_connection_gives_back_does_not_visit_its_other_channels() -> None:
    wire = opened()
    wire.feed(method(commands.Channel.Open(), 2))
    for channel in (1, 2):
        wire.feed(method(commands.Basic.Consume(queue="q"), channel))
    for _ in range(4):
        wire.broker.publish("", "q", b"x")
    wire.turn()
    wire.connection.lost()
    assert wire.broker.stats().delivered == 4
    assert wire.broker.queue_depth("q") == QueueDepth(ready=4, unacked=0, consumers=0)


def test_both_sides_may_close_at_once() -> None:
    wire = opened()
    wire.connection.force_close("now")
    wire.feed(method(commands.Connection.Close(200, "", 0, 0), 0))
    assert wire.names() == ["Connection.Close", "Connection.CloseOk"]
    assert wire.ended == "closed"


def test_both_sides_may_close_a_channel_at_once() -> None:
    wire = opened()
    wire.feed(
        method(commands.Queue.Declare(queue="missing", passive=True))
        + method(commands.Channel.Close(200, "", 0, 0))
        + method(commands.Channel.Open())
        + method(commands.Basic.Get(queue="q"))
    )
    assert wire.names() == ["Channel.Close", "Channel.CloseOk", "Channel.OpenOk", "Basic.GetEmpty"]


def test_a_long_reason_is_cut_to_what_a_frame_carries() -> None:
    wire = opened()
    wire.feed(declare("é" * 120, passive=True))
    (close,) = wire.replies()
    assert close.reply_code == 404
    assert len(close.reply_text.encode()) <= 255


def test_a_fault_of_ours_closes_that_connection_with_541(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = opened()
    monkeypatch.setattr(wire.broker.topology, "queue", lambda *_: 1 / 0)
    wire.feed(method(commands.Basic.Get(queue="q")))
    (close,) = wire.replies()
    assert (close.name, close.reply_code, close.class_id, close.method_id) == ("Connection.Close", 541, 60, 70)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (message(b"x" * 2_000_000)[:200], 406),  # too large: known from its header
        (method(commands.Basic.Publish(exchange="", routing_key="q")) + method(commands.Basic.Get(queue="q")), 505),
        (method(commands.Basic.Publish(exchange="", routing_key="q")) + b"\x03\x00\x01\x00\x00\x00\x01x\xce", 505),
        (message(b"abc").replace(b"abc\xce", b"abc\xce\x03\x00\x01\x00\x00\x00\x01x\xce"), 505),  # more than announced
        (message(b"abc").replace(b"\x00\x00\x00\x03abc", b"\x00\x00\x00\x04abcd"), 501),
        (b"\x01\x00\x01\x00\x00\x00\x02\x00\x3c\xce", 501),
        (b"\x08\x00\x01\x00\x00\x00\x00\xce", 501),
        (b"\x01\x00\x01\x00\x00\x00\x05\x00\x3c\x00\x28\x00\xce", 502),  # publish without arguments
        (method(commands.Tx.Select()), 540),
        (method(commands.Exchange.Bind()), 540),
        (b"\x01\x00\x01\x00\x00\x00\x04\x00\x4d\x00\x4d\xce", 540),  # no such method
        (method(commands.Basic.Deliver("c", 1, False, "", "q")), 503),
        (method(commands.Queue.Declare(queue="q"), 0), 503),
        (method(commands.Channel.Open(), 0), 503),
        (method(commands.Queue.Purge(queue="")), 530),
        (method(commands.Queue.Declare(queue="new", arguments={"x-message-ttl": 5})), 406),
        (method(commands.Exchange.Declare(exchange="new", arguments={"alternate-exchange": "x"})), 406),
        (method(commands.Channel.Open(), 2048), 530),
    ],
)
def test_each_fault_has_its_code(data: bytes, code: int) -> None:
    wire = opened()
    wire.feed(data)
    assert [value.reply_code for value in wire.replies() if value.name.endswith(".Close")] == [code]


def test_queue_arguments_that_are_kept_are_accepted() -> None:
    wire = opened()
    arguments = {"x-max-length": 1, "x-queue-type": "classic"}
    wire.feed(method(commands.Queue.Declare(queue="short", arguments=arguments)))
    assert wire.names() == ["Queue.DeclareOk"]
    for _ in range(3):
        wire.broker.publish("", "short", b"x")
    assert wire.broker.queue_depth("short").ready == 1


def test_names_may_be_any_text() -> None:
    wire = opened()
    wire.feed(method(commands.Channel.Open(), 3))
    name = "eine Schlange! 🐍 " + "x" * 200
    wire.feed(declare(name, channel=3))
    assert wire.broker.has_queue(name)
    assert wire.names()[-1] == "Queue.DeclareOk"
