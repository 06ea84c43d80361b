"""What may be registered as a function, and who may see, run and delete it. Decides only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from farcall.service.ids import canonical_uuid
from farcall.wire.errors import Forbidden, FramingError, FunctionNotFound, InvalidRequest, PayloadTooLarge
from farcall.wire.framing import pack_buffers, unpack_buffers
from farcall.wire.rest import FunctionRegistration

__all__ = ["Function", "NewFunction", "check_delete", "check_read", "is_usable", "plan_registration", "size_in_bytes"]

_NAME_LIMIT_CHARS: Final = 1000
_SOURCE_STRATEGY: Final = "st"


@dataclass(frozen=True, kw_only=True, slots=True)
class Function:
    """What decisions need to know of a stored function."""

    id: str
    owner_id: str
    public: bool
    is_deleted: bool
    code_chars: int


@dataclass(frozen=True, kw_only=True, slots=True)
class NewFunction:
    """A function that may be stored. `code` is one framed buffer."""

    name: str
    code: str
    description: str | None
    metadata: Mapping[str, Any] | None
    public: bool
    group_id: str | None


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
    if request.ha_endpoint_id is not None:
        raise InvalidRequest(
            "member 'ha_endpoint_id': high-assurance functions are not offered by this release of Farcall."
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
    )


def check_read(function: Function | None, function_id: str, caller_id: str) -> None:
    """Raises FunctionNotFound, or Forbidden for a function that the caller may not see."""
    if function is None or function.is_deleted:
        raise FunctionNotFound(f"There is no function {function_id}. Was it deleted, or registered at another service?")
    if not is_usable(function, caller_id):
        raise Forbidden(f"Function {function_id} belongs to somebody else and is not public.")


def check_delete(function: Function | None, function_id: str, caller_id: str) -> None:
    """Raises FunctionNotFound, or Forbidden for everybody but the owner."""
    check_read(function, function_id, caller_id)
    if function is not None and function.owner_id != caller_id:
        raise Forbidden(f"Function {function_id} can be deleted only by its owner.")


def is_usable(function: Function, caller_id: str) -> bool:
    """Whether the caller may run the function."""
    return function.public or function.owner_id == caller_id


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
