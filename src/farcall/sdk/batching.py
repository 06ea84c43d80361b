"""Which calls travel in one request, and what becomes of a request that the service refused. Decides only.

A request holds calls of one route (endpoint, group, configuration …), as many as have gathered, within a number and
a size. When one is refused because of some of its calls, it is taken apart until the guilty ones are alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii
from typing import Any, Generic, TypeVar
from uuid import uuid4

from farcall.wire.errors import (
    FarcallError,
    FunctionNotFound,
    FunctionNotPermitted,
    InvalidRequest,
    PayloadTooLarge,
)
from farcall.wire.limits import REQUEST_LIMIT_BYTES, SUBMIT_BATCH_LIMIT_TASKS

__all__ = ["Batch", "Call", "Route", "cost_bytes", "parts_after_refusal", "plan_batches"]

_ROOM_BYTES = REQUEST_LIMIT_BYTES - 256 * 1024
"""For payloads in one request; the rest is for ids, configuration and runtime."""

F = TypeVar("F")
"""What a call refers to as its function, and carries along; opaque here."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """What all calls of one request have in common. The two configurations are JSON text, "" for none."""

    endpoint_id: str
    task_group_id: str
    user_endpoint_config: str = ""
    resource_specification: str = ""
    result_serializers: tuple[str, ...] = ()


@dataclass(kw_only=True, slots=True, eq=False)
class Call(Generic[F]):
    """One call on its way: its packed arguments, and a token by which its owner knows it."""

    route: Route
    function: F
    payload: str
    owner: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch(Generic[F]):
    """Calls for one request, in the order of their submission. The key makes a repetition harmless."""

    route: Route
    calls: Sequence[Call[F]]
    key: str = field(default_factory=lambda: str(uuid4()))


def cost_bytes(payload: str) -> int:
    """What a payload takes in a request's JSON, its comma included."""
    return len(encode_basestring_ascii(payload)) + 1


def plan_batches(calls: Iterable[Call[F]], *, batch_size: int, limit_bytes: int = _ROOM_BYTES) -> list[Batch[F]]:
    """Group calls into requests.

    Calls of one route keep their order. A payload larger than `limit_bytes` travels alone.

    Raises:
        ValueError: `batch_size` is less than 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    most = min(batch_size, SUBMIT_BATCH_LIMIT_TASKS)
    finished: list[list[Call[F]]] = []
    filling: dict[Route, tuple[list[Call[F]], int]] = {}
    for call in calls:
        cost = cost_bytes(call.payload)
        group, size = filling.get(call.route, ([], 0))
        if not group or len(group) >= most or size + cost > limit_bytes:
            group, size = [], 0
            finished.append(group)
        group.append(call)
        filling[call.route] = (group, size + cost)
    return [Batch(route=group[0].route, calls=group) for group in finished]


_OF_ONE_FUNCTION = (FunctionNotFound, FunctionNotPermitted, InvalidRequest, PayloadTooLarge)
_OF_ONE_CALL = (InvalidRequest, PayloadTooLarge)


def parts_after_refusal(batch: Batch[F], error: FarcallError) -> list[Batch[F]]:
    """The smaller requests to try in place of one that the service refused; empty if all its calls fail.

    One call's fault must not fail the others: refusals that can come from one function, or from one payload, take
    the request apart by function, or into halves. Everything else (endpoint, login, service) concerns all alike.
    """
    if len(batch.calls) < 2:
        return []
    if isinstance(error, _OF_ONE_FUNCTION):
        by_function: dict[int, list[Call[F]]] = {}
        for call in batch.calls:
            by_function.setdefault(id(call.function), []).append(call)
        if len(by_function) > 1:
            return [Batch(route=batch.route, calls=calls) for calls in by_function.values()]
    if isinstance(error, _OF_ONE_CALL):
        half = len(batch.calls) // 2
        return [Batch(route=batch.route, calls=part) for part in (batch.calls[:half], batch.calls[half:])]
    return []
