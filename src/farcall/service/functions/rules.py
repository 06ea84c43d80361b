"""What may be registered as a function, and who may see, run and delete it. Decides only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from farcall.service.accounts.rules import Identity
from farcall.service.endpoints.rules import Endpoint, check_use
from farcall.service.ids import canonical_uuid
from farcall.wire.errors import Forbidden, FramingError, FunctionNotFound, InvalidRequest, PayloadTooLarge
from farcall.wire.framing import pack_buffers, unpack_buffers
from farcall.wire.rest import FunctionRegistration

__all__ = [
    "Function",
    "NewFunction",
    "check_delete",
    "check_home",
    "check_read",
    "check_sharing",
    "is_usable",
    "plan_registration",
    "size_in_bytes",
    "why_not_usable",
]

_NAME_LIMIT_CHARS: Final = 1000
_SOURCE_STRATEGY: Final = "st"


@dataclass(frozen=True, kw_only=True, slots=True)
class Function:
    """What decisions need to know of a stored function.

    Attributes:
        group_id: its members may run it; None: no group may.
        ha_endpoint_id: the only endpoint where it runs; None: any.
    """

    id: str
    owner_id: str
    public: bool
    is_deleted: bool
    code_chars: int
    group_id: str | None = None
    ha_endpoint_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NewFunction:
    """A function that may be stored. `code` is one framed buffer."""

    name: str
    code: str
    description: str | None
    metadata: Mapping[str, Any] | None
    public: bool
    group_id: str | None
    ha_endpoint_id: str | None = None


def plan_registration(request: FunctionRegistration, *, limit_bytes: int) -> NewFunction:
    """Decide whether this can be a function, and bring it into its stored form.

    Source text (`serialized` is false) becomes a buffer here, since no client does it: strategy `st`, then
    name, colon, source. Source: wire protocol, REST, functions.

    Raises:
        InvalidRequest: the message names the member.
        PayloadTooLarge: more than `limit_bytes` of UTF-8.
    """
    name, code = request.function_name, request.function_code
    if not name or len(name) > _NAME_LIMIT_CHARS:
        raise InvalidRequest(f"member 'function_name' must have 1 to {_NAME_LIMIT_CHARS} characters.")
    if "\0" in name or "\0" in code or "\0" in (request.description or ""):
        raise InvalidRequest("a function's name, code and description must not contain the character NUL.")
    if request.ha_endpoint_id is not None and (request.public or request.group is not None):
        raise InvalidRequest(
            "member 'ha_endpoint_id': a high-assurance function cannot be shared, so leave out 'public' and 'group'."
        )
    size_bytes = size_in_bytes(code)
    if size_bytes > limit_bytes:
        raise PayloadTooLarge(
            f"Function {name!r} has {size_bytes} bytes serialized, and the limit is {limit_bytes}. "
            "Keep data out of the function: pass it as an argument, or by reference."
        )
    if request.serialized:
        _require_one_frame(code)
    else:
        code = pack_buffers([f"{_SOURCE_STRATEGY}\n{name}:{code}"])
    return NewFunction(
        name=name,
        code=code,
        description=request.description,
        metadata=request.meta,
        public=request.public,
        group_id=None if request.group is None else canonical_uuid(request.group, "member 'group'"),
        ha_endpoint_id=request.ha_endpoint_id and canonical_uuid(request.ha_endpoint_id, "member 'ha_endpoint_id'"),
    )


def check_sharing(function: NewFunction, caller: Identity) -> None:
    """Whether the caller may share with the group that was named. Raises Forbidden."""
    if function.group_id is not None and function.group_id not in caller.groups:
        raise Forbidden(
            f"You are {caller.username}, and not in a group {function.group_id} of this service, so you cannot share "
            "a function with it. Leave out 'group', or have an operator add you (`farcall-service group add`)."
        )


def check_home(endpoint: Endpoint | None, endpoint_id: str, caller: Identity) -> None:
    """Whether a function for high assurance may belong to this endpoint.

    Raises:
        EndpointNotFound, EndpointAccessForbidden: the caller may not run functions there.
        InvalidRequest: it is not one for high assurance.
    """
    endpoint = check_use(endpoint, endpoint_id, caller)
    if not endpoint.high_assurance:
        raise InvalidRequest(
            f"member 'ha_endpoint_id': endpoint {endpoint_id} is not one for high assurance. Leave the member out to "
            "register an ordinary function."
        )


def check_read(function: Function | None, function_id: str, caller: Identity) -> None:
    """Raises FunctionNotFound, or Forbidden for a function that the caller may not see."""
    if function is None or function.is_deleted:
        raise FunctionNotFound(f"There is no function {function_id}. Was it deleted, or registered at another service?")
    if not is_usable(function, caller):
        raise Forbidden(why_not_usable(function, caller))


def check_delete(function: Function | None, function_id: str, caller: Identity) -> None:
    """Raises FunctionNotFound, or Forbidden for everybody but the owner."""
    check_read(function, function_id, caller)
    if function is not None and function.owner_id not in caller.linked:
        raise Forbidden(f"Function {function_id} can be deleted only by its owner; you are {caller.username}.")


def is_usable(function: Function, caller: Identity) -> bool:
    """Whether the caller may see and run the function: the owner, members of its group, everybody if it is public."""
    return function.public or function.owner_id in caller.linked or function.group_id in caller.groups


def why_not_usable(function: Function, caller: Identity) -> str:
    """For people."""
    shared = "not shared with a group of yours" if function.group_id is not None else "not public"
    return (
        f"You are {caller.username} and may not use function {function.id}: it belongs to somebody else and is "
        f"{shared}. Its owner can register it again with `public=True` or for a group."
    )


def size_in_bytes(text: str) -> int:
    """Length in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def _require_one_frame(code: str) -> None:
    try:
        count = len(unpack_buffers(code))
    except FramingError as exc:
        raise InvalidRequest(f"member 'function_code' is not a length-framed buffer: {exc}.") from exc
    if count != 1:
        raise InvalidRequest(f"member 'function_code' must hold exactly one framed buffer, not {count}.")
