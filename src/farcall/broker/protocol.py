"""One connection's protocol: bytes in; bytes and calls of the core out. No sockets, no clock.

Owns framing, the opening and closing conversations, which channels are open, what an error closes, and when the
other side has to wait. What the methods of a channel mean is `channel`'s; the socket and the timers are `server`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from enum import Enum, Flag, auto
from typing import Any, Final, Protocol

from pamqp import commands

from farcall.broker.authority import Authority, Principal
from farcall.broker.channel import Channel
from farcall.broker.core import Broker, ConnectionInfo
from farcall.broker.errors import AmqpError, Reply
from farcall.broker.frames import (
    BASIC_ACK,
    BASIC_PUBLISH,
    FRAME,
    FRAME_BODY,
    FRAME_END,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_OVERHEAD,
    HEARTBEAT,
    METHOD,
    PROTOCOL_HEADER,
    TAG_AND_BITS,
    decode_method,
    encode_method,
)
from farcall.broker.handshake import Credentials, Handshake, Limits

__all__ = ["Connection", "Transport"]

_logger = logging.getLogger(__name__)

_BATCH_BYTES: Final = 256 * 1024
"""Output of one turn after which no more deliveries are added to it."""
_STALL_BYTES: Final = 1024 * 1024
"""Output of one turn that the client has asked for (replies), after which nothing more is read from it."""
_FRAME_MAX_BEFORE_TUNE: Final = 16 * 1024
_CLOSE_OK: Final = encode_method(0, commands.Connection.CloseOk())
_SILENT_TICKS: Final = 4
"""Half heartbeats without a byte from the client: two heartbeats missed."""


class Transport(Protocol):
    """The socket and the timers, as the protocol sees them."""

    def flush_soon(self) -> None:
        """Write what `take_output` gives, at the end of the turn."""
        ...

    def login(self, credentials: Credentials) -> None:
        """Ask the authority, then call `logged_in` or `login_refused`."""
        ...

    def start_heartbeats(self, heartbeat_s: int) -> None:
        """Call `tick` twice in each interval."""
        ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None:
        """Also call `receive(b"")` soon, for what was read and not yet taken."""
        ...

    def close_soon(self) -> None:
        """The last bytes are on their way: wait a little for the client to close, then do it."""
        ...

    def close(self) -> None:
        """Write what is left, and close."""
        ...

    def abort(self) -> None:
        """Close now."""
        ...


class _Phase(Enum):
    GREETING = auto()  # the protocol header is due
    OPENING = auto()
    RUNNING = auto()
    CLOSING = auto()  # we have sent connection.close
    DEAF = auto()  # nothing that comes matters any more


class _Stall(Flag):
    NONE = 0
    LOGIN = auto()
    OUTPUT = auto()
    ACCOUNT = auto()


class _FramingLost(Exception):
    """Nobody knows where the next frame begins."""


class Connection:
    """One client.

    Args:
        peer: its address, for people.
        held_bytes_max: message bytes of this client that may wait for an acknowledgement in queues that confirm
            on it, before nothing more is read from it.

    Attributes:
        shut: no deliveries now: output waits to be written. (`Gate` of its channels.)
        body_max: bytes of a message that fit one frame.
    """

    def __init__(
        self,
        broker: Broker,
        authority: Authority,
        transport: Transport,
        *,
        limits: Limits,
        peer: str,
        max_message_bytes: int,
        held_bytes_max: int,
    ) -> None:
        self.broker = broker
        self.authority = authority
        self.max_message_bytes = max_message_bytes
        self.can_cancel = False
        self.shut = False
        self.body_max = _FRAME_MAX_BEFORE_TUNE - FRAME_OVERHEAD
        self._transport = transport
        self._handshake = Handshake(limits)
        self._phase = _Phase.GREETING
        self._principal: Principal | None = None
        self._username = ""
        self._peer = peer
        self._since = datetime.now(timezone.utc)
        self._channels: dict[int, Channel] = {}
        self._closing_channels: set[int] = set()
        # Input that is not a whole frame yet, in the pieces in which it came, and how much of it is needed.
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._needed_bytes = 0
        self._stall = _Stall.NONE
        self._out: list[bytes | memoryview] = []
        self._out_bytes = 0
        self._asked_bytes = 0
        self._due: list[Channel] = []
        self._flush_asked = False
        self._paused = False
        self._held_bytes = 0
        self._held_bytes_max = held_bytes_max
        self._heard = self._wrote = False
        self._silent_ticks = 0
        self._unwritten_bytes = 0
        self._first = 0
        broker.links.add(self)

    # --- What the runner calls -----------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take bytes from the client."""
        if self._phase is _Phase.DEAF:
            if data.endswith(_CLOSE_OK):
                self._transport.close()
            return
        if data:
            self._heard = True
        if self._rest:
            self._rest.append(data)
            self._rest_bytes += len(data)
            if self._rest_bytes < self._needed_bytes:
                return
            data = b"".join(self._rest)
            self._rest.clear()
        try:
            used = self._greeted(data) if self._phase is _Phase.GREETING else self._consume(data, 0)
        except _FramingLost as lost:
            self._fail(AmqpError(Reply.FRAME_ERROR, str(lost)), 0)
            self._phase = _Phase.DEAF
            return
        if used < len(data):
            self._rest.append(data[used:] if used else data)
            self._rest_bytes = len(data) - used

    def take_output(self) -> bytes:
        """All that is to be written now. Call `wrote` afterwards."""
        self._flush_asked = False
        self._flush_confirms()
        out, self._out = self._out, []
        self._out_bytes = self._asked_bytes = 0
        self._wrote = self._wrote or bool(out)
        return b"".join(out)

    def wrote(self) -> None:
        """The output has been handed to the socket, which may have called `pause`."""
        if self._stall & _Stall.OUTPUT and not self._paused:
            self._go_on(_Stall.OUTPUT)
        if self.shut and not self._paused:
            self.shut = False
            # One channel may fill the next batch alone, so each time another one begins.
            channels = list(self._channels.values())
            self._first = (self._first + 1) % max(1, len(channels))
            for channel in channels[self._first :] + channels[: self._first]:
                channel.outlet.wake()

    def pause(self) -> None:
        """The client reads more slowly than we write."""
        self._paused = self.shut = True

    def resume(self) -> None:
        """It has caught up."""
        self._paused = False
        self._ask_flush()

    @property
    def may_write(self) -> bool:
        return not self._paused

    @property
    def has_opened(self) -> bool:
        """The opening conversation is over."""
        return self._handshake.is_done or self._phase in (_Phase.CLOSING, _Phase.DEAF)

    def logged_in(self, principal: Principal) -> None:
        if self._phase is not _Phase.OPENING:
            return  # closed meanwhile
        self._principal = principal
        self.send(encode_method(0, self._handshake.accepted()))
        self._go_on(_Stall.LOGIN)

    def login_refused(self) -> None:
        """Wrong credentials: a reason for clients that understand one, else only the end of the connection."""
        _logger.info(
            "A login was refused", extra={"event": "broker.login_refused", "user": self._username, "peer": self._peer}
        )
        if self._phase is not _Phase.OPENING:
            return
        text = "Login was refused using authentication mechanism PLAIN"
        if self._handshake.client_can("authentication_failure_close"):
            self._fail(AmqpError(Reply.ACCESS_REFUSED, text, True), 0)
        else:
            self._end()

    def login_failed(self) -> None:
        """The authority could not tell."""
        self._fail(AmqpError(Reply.INTERNAL_ERROR, "the login could not be checked; try again later"), 0)

    def tick(self, unwritten_bytes: int) -> None:
        """Half a heartbeat interval has passed.

        Args:
            unwritten_bytes: what the socket has not taken yet; when that shrinks, the client lives.
        """
        if self._phase is _Phase.RUNNING and not self._wrote and not self._out and not self._paused:
            self.send(HEARTBEAT)
        self._wrote = False
        reads = unwritten_bytes < self._unwritten_bytes
        self._unwritten_bytes = unwritten_bytes
        waits_for_us = bool(self._stall & (_Stall.LOGIN | _Stall.ACCOUNT))
        self._silent_ticks = 0 if self._heard or reads or waits_for_us else self._silent_ticks + 1
        self._heard = False
        if self._silent_ticks >= _SILENT_TICKS:
            self._log("A client has missed two heartbeats and is dropped", "broker.client_silent")
            self._transport.abort()

    def lost(self) -> None:
        """The socket is closed: give everything back."""
        self._phase = _Phase.DEAF
        self._release()
        self._rest.clear()

    # --- What the core and the channels call -------------------------------------------------------------------------

    @property
    def principal(self) -> Principal:
        """The core looks before it uses it: None until the login was accepted."""
        return self._principal  # type: ignore[return-value]  # channels exist only after the login

    def info(self) -> ConnectionInfo:
        return ConnectionInfo(
            principal_name=self.principal.name,
            peer=self._peer,
            since=self._since,
            channels=len(self._channels),
            client_properties=self._handshake.client_properties,
        )

    def force_close(self, reply_text: str) -> None:
        if self._phase in (_Phase.OPENING, _Phase.RUNNING):
            self._fail(AmqpError(Reply.CONNECTION_FORCED, reply_text), 0)
        elif self._phase is _Phase.GREETING:
            self._end()

    def deliver(self, pieces: Sequence[bytes | memoryview]) -> None:
        self._out += pieces
        self._out_bytes += sum(map(len, pieces))
        if self._out_bytes >= _BATCH_BYTES:
            self.shut = True
        if not self._flush_asked:
            self._ask_flush()

    def send(self, *pieces: bytes | memoryview) -> None:
        self._out += pieces
        self._asked_bytes += sum(map(len, pieces))
        if self._asked_bytes >= _STALL_BYTES:
            self._hold_up(_Stall.OUTPUT)
        if not self._flush_asked:
            self._ask_flush()

    def confirms_due(self, channel: Channel) -> None:
        self._due.append(channel)
        self._ask_flush()

    def charge(self, size_bytes: int) -> None:
        self._held_bytes += size_bytes
        if self._held_bytes > self._held_bytes_max:
            self._hold_up(_Stall.ACCOUNT)

    def release(self, size_bytes: int) -> None:
        self._held_bytes -= size_bytes
        if self._stall & _Stall.ACCOUNT and self._held_bytes <= self._held_bytes_max // 2:
            self._go_on(_Stall.ACCOUNT)

    # --- Frames ------------------------------------------------------------------------------------------------------

    def _consume(self, data: bytes, at: int) -> int:
        """Take whole frames from `at` on; returns where the first frame begins that is not taken."""
        end = len(data)
        channels = self._channels
        while end - at >= FRAME.size and not self._stall:
            kind, number, size = FRAME.unpack_from(data, at)
            stop = at + 7 + size
            if size > self.body_max:
                raise _FramingLost(f"frame of {size} bytes, more than was agreed, or not a frame")
            if stop >= end:
                self._needed_bytes = stop + 1 - at
                return at
            if data[stop] != FRAME_END:
                raise _FramingLost("frame does not end where it says")
            next_at = stop + 1
            method = 0
            try:
                channel = channels.get(number)
                if kind != FRAME_METHOD:
                    self._other_frame(kind, number, channel, data[at + 7 : stop])
                elif size < 4:
                    raise AmqpError(Reply.FRAME_ERROR, "method frame without a method")
                else:
                    (method,) = METHOD.unpack_from(data, at + 7)
                    if channel is None or channel.assembling:
                        self._unusual_method(number, channel, method, data[at + 11 : stop])
                    elif method == BASIC_PUBLISH:
                        next_at = channel.publish(data, at + 11, stop, end)
                    elif method == BASIC_ACK and size == 13:
                        tag, bits = TAG_AND_BITS.unpack_from(data, at + 11)
                        channel.ack(tag, bool(bits & 1))
                    else:
                        self._channel_method(channel, method, data[at + 11 : stop])
            except AmqpError as error:
                self._refuse(number, method, error)
            except Exception:
                _logger.exception("A broker connection failed", extra={"event": "broker.internal_error"})
                self._fail(AmqpError(Reply.INTERNAL_ERROR, "see the log of the service"), method)
            if self._phase is _Phase.DEAF:
                return end
            at = next_at
        self._needed_bytes = FRAME.size
        return at

    def _greeted(self, data: bytes) -> int:
        """Read the protocol header, and what comes with it; returns as `_consume`."""
        size = len(PROTOCOL_HEADER)
        if data[:size] == PROTOCOL_HEADER:
            self._phase = _Phase.OPENING
            self.send(encode_method(0, self._handshake.start()))
            return self._consume(data, size)
        if len(data) < size and PROTOCOL_HEADER.startswith(data):
            self._needed_bytes = size
            return 0
        self.send(PROTOCOL_HEADER)
        self._end()
        return len(data)

    def _other_frame(self, kind: int, number: int, channel: Channel | None, payload: bytes) -> None:
        if kind in (FRAME_BODY, FRAME_HEADER):
            if channel is not None:
                channel.content_frame(kind, payload)
            elif self._phase is not _Phase.CLOSING and number not in self._closing_channels:
                raise AmqpError(Reply.UNEXPECTED_FRAME, f"content on channel {number}, which is not open")
        elif kind != FRAME_HEARTBEAT:
            raise AmqpError(Reply.FRAME_ERROR, f"unknown kind of frame: {kind}")
        elif number or payload:
            raise AmqpError(Reply.FRAME_ERROR, "heartbeat on a channel, or with a payload")

    def _unusual_method(self, number: int, channel: Channel | None, method: int, payload: bytes) -> None:
        """Methods that are not for an open channel at rest."""
        if self._phase is _Phase.CLOSING:
            self._method_while_closing(number, method)
        elif number == 0:
            self._connection_method(decode_method(method, payload))
        elif channel is not None:
            raise AmqpError(Reply.UNEXPECTED_FRAME, "method where message content was expected")
        elif self._phase is not _Phase.RUNNING:
            raise AmqpError(Reply.COMMAND_INVALID, "channel method before the connection is open")
        elif number in self._closing_channels:
            self._method_while_channel_closes(number, method)
        elif method == commands.Channel.Open.index:
            self._open_channel(number)
        elif method != commands.Channel.CloseOk.index:
            raise AmqpError(Reply.CHANNEL_ERROR, f"channel {number} is not open")

    def _channel_method(self, channel: Channel, method: int, payload: bytes) -> None:
        if method == commands.Channel.Close.index:
            self._drop_channel(channel)
            self.send(encode_method(channel.number, commands.Channel.CloseOk()))
        elif method == commands.Channel.Open.index:
            raise AmqpError(Reply.CHANNEL_ERROR, f"second 'channel.open' seen on channel {channel.number}")
        else:
            channel.handle(method, payload)

    # --- Opening -----------------------------------------------------------------------------------------------------

    def _connection_method(self, value: Any) -> None:
        steps: dict[type, Callable[[Any], None]] = {
            commands.Connection.StartOk: self._start_ok,
            commands.Connection.TuneOk: self._tune_ok,
            commands.Connection.Open: self._open,
            commands.Connection.Close: self._close_ok,
        }
        step = steps.get(type(value))
        if step is not None:
            step(value)
        elif value.name.startswith("Connection."):
            raise AmqpError(Reply.COMMAND_INVALID, f"{value.name} is not for a client to send here")
        else:
            raise AmqpError(Reply.COMMAND_INVALID, f"{value.name} on channel 0")

    def _start_ok(self, value: Any) -> None:
        credentials = self._handshake.start_ok(value)
        self._username = credentials.username
        self._hold_up(_Stall.LOGIN)
        self._transport.login(credentials)

    def _tune_ok(self, value: Any) -> None:
        self._handshake.tune_ok(value)
        agreed = self._handshake.agreed
        self.body_max = agreed.frame_max - FRAME_OVERHEAD
        self._transport.start_heartbeats(agreed.heartbeat_s)

    def _open(self, value: Any) -> None:
        self.send(encode_method(0, self._handshake.open(value)))
        self.can_cancel = self._handshake.client_can("consumer_cancel_notify")
        self._phase = _Phase.RUNNING
        self._log("A client has connected", "broker.connected")

    def _open_channel(self, number: int) -> None:
        if number > self._handshake.agreed.channel_max:
            raise AmqpError(
                Reply.NOT_ALLOWED,
                f"channel {number} is beyond the negotiated channel_max ({self._handshake.agreed.channel_max})",
            )
        self._channels[number] = Channel(number, self)
        self.send(encode_method(number, commands.Channel.OpenOk()))

    # --- Closing -----------------------------------------------------------------------------------------------------

    def _refuse(self, number: int, method: int, error: AmqpError) -> None:
        """Close what the error closes."""
        if self._phase is _Phase.CLOSING:
            return
        channel = self._channels.get(number)
        if error.closes_connection or channel is None:
            self._fail(error, method)
            return
        self._drop_channel(channel)
        self._closing_channels.add(number)
        close = commands.Channel.Close(error.reply.number, _reply_text(error), method >> 16, method & 0xFFFF)
        self.send(encode_method(number, close))
        self._log("A channel was closed with an error", "broker.channel_closed", reason=str(error))

    def _fail(self, error: AmqpError, method: int) -> None:
        """Give everything back, tell the client why, and wait for its answer."""
        if self._phase in (_Phase.CLOSING, _Phase.DEAF):
            return
        self._flush_confirms()
        self._release()
        self._phase = _Phase.CLOSING
        if self._stall:
            self._go_on(self._stall)  # its answer must be read
        close = commands.Connection.Close(error.reply.number, _reply_text(error), method >> 16, method & 0xFFFF)
        self.send(encode_method(0, close))
        self._log("A connection was closed with an error", "broker.connection_closed", reason=str(error))
        self._transport.close_soon()

    def _method_while_closing(self, number: int, method: int) -> None:
        if number == 0 and method == commands.Connection.Close.index:
            self.send(encode_method(0, commands.Connection.CloseOk()))
        elif number != 0 or method != commands.Connection.CloseOk.index:
            return
        self._end()

    def _method_while_channel_closes(self, number: int, method: int) -> None:
        if method == commands.Channel.Close.index:  # both at once: it will not answer ours
            self.send(encode_method(number, commands.Channel.CloseOk()))
        elif method != commands.Channel.CloseOk.index:
            return
        self._closing_channels.discard(number)

    def _close_ok(self, _value: Any) -> None:
        self._flush_confirms()
        self._release()
        self.send(encode_method(0, commands.Connection.CloseOk()))
        self._end()

    def _end(self) -> None:
        self._phase = _Phase.DEAF
        self._transport.close()

    def _drop_channel(self, channel: Channel) -> None:
        channel.flush_confirms()
        del self._channels[channel.number]
        self.broker.close_outlet(channel.outlet)

    def _release(self) -> None:
        """All channels end, and with them what belongs to this connection alone."""
        self.shut = True  # what one channel gives back must not go to the next
        channels = list(self._channels.values())
        self._channels.clear()
        self._due.clear()
        for channel in channels:
            self.broker.close_outlet(channel.outlet)
        self.broker.remove_queues_of(self)
        self.broker.links.discard(self)

    # --- Waiting -----------------------------------------------------------------------------------------------------

    def _ask_flush(self) -> None:
        self._flush_asked = True
        self._transport.flush_soon()

    def _flush_confirms(self) -> None:
        due, self._due = self._due, []
        for channel in due:
            if self._channels.get(channel.number) is channel:
                channel.flush_confirms()

    def _hold_up(self, reason: _Stall) -> None:
        if not self._stall:
            self._transport.pause_reading()
        self._stall |= reason

    def _go_on(self, reason: _Stall) -> None:
        self._stall &= ~reason
        if not self._stall:
            self._needed_bytes = 0
            self._transport.resume_reading()

    def _log(self, sentence: str, event: str, **more: str) -> None:
        user = self._username
        _logger.info(sentence, extra={"event": event, "user": user, "peer": self._peer, **more})


def _reply_text(error: AmqpError) -> str:
    """A short string has 255 bytes."""
    return str(error).encode()[:255].decode(errors="ignore")
