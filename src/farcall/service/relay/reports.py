"""Takes status reports in: who is online, what they last said, where their tasks are. `presence` decides.

The latest report of each endpoint is kept in memory and written in batches; losing a few seconds of them costs
nothing, since the next ones say the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from farcall.service.relay import presence
from farcall.service.relay.moves import Move, after_report
from farcall.service.relay.presence import Presence
from farcall.service.relay.transport import Incoming
from farcall.wire.messages import ERROR_IS_FINAL, is_uuid_text
from farcall.wire.topology import heartbeat_key

__all__ = ["Reports", "Unwritten"]

_logger = logging.getLogger(__name__)


_REPORT_LIMIT_BYTES: Final = 256 * 1024
"""A report is kept in memory and shown whole; ours have a few kilobytes, and the configuration's text on top."""

_NOTHING: Final = msgspec.Raw(b"null")


class _Transition(msgspec.Struct):
    timestamp: int
    state: str
    actor: str


class _Data(msgspec.Struct):
    endpoint_id: str
    global_state: msgspec.Raw = _NOTHING
    ep_status_report: msgspec.Raw = _NOTHING  # the same under its older name
    task_statuses: dict[str, list[_Transition]] | None = None


class _Envelope(msgspec.Struct):
    message_type: str
    data: _Data


_decoder: Final = msgspec.json.Decoder(_Envelope)
_state_decoder: Final = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True, slots=True)
class Unwritten:
    """What has to be stored.

    Attributes:
        reports: (endpoint id, JSON object, Unix seconds).
        moves: endpoint → task → where it is.
    """

    reports: Sequence[tuple[str, str, float]]
    moves: dict[str, dict[str, Move]]


class Reports:
    """What endpoints say of themselves.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.unreadable = 0
        self.on_error: Callable[[str, str, bool | None], None] = lambda endpoint_id, text, is_final: None
        """Told of notices that something could not be started: in whose name, the text for the user, and whether there
        is no hope (None: it does not say)."""
        self.on_report: Callable[[str, Mapping[str, Any]], None] = lambda endpoint_id, state: None
        """Told of all others: whose, and their `global_state`."""
        self._clock = clock
        self._presences: dict[str, Presence] = {}
        self._latest: dict[str, tuple[str, float]] = {}
        self._dirty: set[str] = set()
        self._moves: dict[str, dict[str, Move]] = {}

    def attached(self, endpoint_id: str) -> None:
        """The endpoint's queue has a consumer."""
        known = self._presences.get(endpoint_id, Presence())
        self._presences[endpoint_id] = presence.attached(known, now=self._clock())

    def detached(self, endpoint_id: str) -> None:
        """The endpoint's queue has none any more."""
        known = self._presences.get(endpoint_id)
        if known is not None:
            self._presences[endpoint_id] = presence.detached(known)

    def forget(self, endpoint_id: str) -> None:
        """The endpoint was deleted."""
        self._presences.pop(endpoint_id, None)
        self._latest.pop(endpoint_id, None)
        self._dirty.discard(endpoint_id)
        self._moves.pop(endpoint_id, None)

    def take(self, deliveries: Sequence[Incoming]) -> bool:
        """Reports have come. Returns whether there is something to be written (`take_unwritten`)."""
        for delivery in deliveries:
            try:
                self._take_one(delivery)
            except Exception as exc:  # any: endpoints write these, and one must not stop the others
                self.unreadable += 1
                _logger.warning(
                    "A message on the heartbeat queue cannot be read and was dropped",
                    extra={"event": "relay.report_unreadable", "sender": delivery.routing_key, "fault": str(exc)[:300]},
                )
        return bool(self._dirty)

    def is_online(self, endpoint_id: str) -> bool:
        known = self._presences.get(endpoint_id)
        return known is not None and presence.is_online(known, now=self._clock())

    def online(self) -> list[str]:
        """The endpoints that are online."""
        now = self._clock()
        return [endpoint_id for endpoint_id, known in self._presences.items() if presence.is_online(known, now=now)]

    def latest(self, endpoint_id: str) -> tuple[dict[str, Any], float] | None:
        """The last report's `global_state` and when it came; None if there was none since the start."""
        found = self._latest.get(endpoint_id)
        return None if found is None else (_state_decoder.decode(found[0]), found[1])

    def take_unwritten(self) -> Unwritten:
        """What came since the last call."""
        reports = [(endpoint_id, *self._latest[endpoint_id]) for endpoint_id in self._dirty]
        moves, self._moves = self._moves, {}
        self._dirty.clear()
        return Unwritten(reports, moves)

    def _take_one(self, delivery: Incoming) -> None:
        if len(delivery.body) > _REPORT_LIMIT_BYTES:
            raise ValueError(f"it has {len(delivery.body)} bytes; the limit is {_REPORT_LIMIT_BYTES}")
        if delivery.body[:1] != b"\x01":
            raise ValueError("it does not start with version byte 0x01")
        envelope = _decoder.decode(memoryview(delivery.body)[1:])
        data = envelope.data
        raw = data.global_state if data.global_state != _NOTHING else data.ep_status_report
        endpoint_id = data.endpoint_id.lower()
        if envelope.message_type != "ep_status_report":
            raise ValueError(f"message type {envelope.message_type[:40]!r}")
        if not is_uuid_text(endpoint_id) or delivery.routing_key != heartbeat_key(endpoint_id):
            raise ValueError("it speaks of another endpoint than its sender")
        text = bytes(raw).decode()
        state = _state_decoder.decode(text)
        error = state.get("error")
        if error is not None:  # says nothing of what works, if something does
            is_final = state.get(ERROR_IS_FINAL)
            self.on_error(
                endpoint_id,
                error if isinstance(error, str) else "It could not be started.",
                is_final if isinstance(is_final, bool) else None,
            )
            return
        now = self._clock()
        known = self._presences.get(endpoint_id, Presence())
        self._presences[endpoint_id] = presence.after_report(known, state, now=now)
        self._latest[endpoint_id] = (text, now)
        self._dirty.add(endpoint_id)
        self.on_report(endpoint_id, state)
        for task_id, transitions in (data.task_statuses or {}).items():
            moves = self._moves.get(endpoint_id, {})
            move = after_report(moves.get(task_id), [(each.state, each.timestamp) for each in transitions])
            if move is not None and is_uuid_text(task_id):
                self._moves.setdefault(endpoint_id, {})[task_id] = move
