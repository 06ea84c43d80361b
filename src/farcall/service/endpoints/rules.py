"""Who may register, see, use and manage an endpoint, and what a registration must look like. Decides only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from farcall.service.accounts.rules import Identity
from farcall.service.ids import canonical_uuid
from farcall.wire.errors import (
    EndpointAccessForbidden,
    EndpointNotFound,
    Forbidden,
    InvalidRequest,
    ResourceLocked,
)
from farcall.wire.names import endpoint_name_fault
from farcall.wire.rest import EndpointRegistration

__all__ = [
    "Endpoint",
    "NewEndpoint",
    "check_end",
    "check_manage",
    "check_reregistration",
    "check_use",
    "check_verify",
    "check_view",
    "is_manager",
    "plan_registration",
]

_TEXT_LIMIT_CHARS: Final = 4096
_LIST_LIMIT: Final = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """What decisions need to know of a stored endpoint.

    Attributes:
        allowed_functions: None means any.
        locked_until: Unix seconds; None or past means not locked.
        direct: works a task queue itself; else it is a manager, which starts user endpoints.
        multi_user: a manager with the privilege to run each person's tasks as themselves.
        manager_id: of a user endpoint: who starts it. Its owner is who submitted.
    """

    id: str
    owner_id: str
    name: str
    direct: bool
    public: bool
    admins: frozenset[str]
    allowed_functions: frozenset[str] | None
    credential_generation: int
    locked_until: float | None
    is_deleted: bool
    multi_user: bool = False
    manager_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NewEndpoint:
    """A registration that may be stored."""

    name: str
    display_name: str | None
    description: str | None
    public: bool
    direct: bool
    multi_user: bool
    subscription_id: str | None
    allowed_functions: Sequence[str] | None
    admins: Sequence[str] | None
    metadata: Mapping[str, Any]


def plan_registration(request: EndpointRegistration) -> NewEndpoint:
    """Decide whether this can be an endpoint here.

    Raises:
        InvalidRequest: the message names the member. Whatever the registration asks for and this release cannot
            give is refused rather than ignored: an endpoint must not believe itself protected.
    """
    fault = endpoint_name_fault(request.endpoint_name)
    if fault is not None:
        raise InvalidRequest(f"member 'endpoint_name': {fault}.")
    if request.high_assurance:
        raise _not_offered("high_assurance", "High-assurance endpoints are")
    if request.authentication_policy is not None:
        raise _not_offered("authentication_policy", "Authentication policies are")
    if request.direct and request.multi_user:
        raise InvalidRequest(
            "members 'direct' and 'multi_user' exclude each other: a process that runs tasks itself runs all of them "
            "as one user."
        )
    for member in ("display_name", "description"):
        text = getattr(request, member)
        if text is not None and ("\0" in text or len(text) > _TEXT_LIMIT_CHARS):
            raise InvalidRequest(f"member '{member}' must have at most {_TEXT_LIMIT_CHARS} characters, without NUL.")
    return NewEndpoint(
        name=request.endpoint_name,
        display_name=request.display_name,
        description=request.description,
        public=request.public,
        direct=request.direct,
        multi_user=request.multi_user,
        subscription_id=request.subscription_uuid
        and canonical_uuid(request.subscription_uuid, "member 'subscription_uuid'"),
        allowed_functions=_uuids(request.allowed_functions, "allowed_functions"),
        admins=_uuids(request.admins, "admins"),
        metadata=request.metadata,
    )


def check_reregistration(endpoint: Endpoint | None, endpoint_id: str, caller: Identity, *, now: float) -> None:
    """Whether the caller may register this endpoint again.

    Raises:
        EndpointNotFound: never registered here, or deleted.
        EndpointAccessForbidden: somebody else's.
        ResourceLocked: it was stopped remotely a moment ago.
    """
    if endpoint is None:
        raise EndpointNotFound(
            f"No endpoint {endpoint_id} was ever registered at this service. To register a new one, start it "
            "without an id (remove its endpoint.json)."
        )
    _refuse_deleted(endpoint)
    if endpoint.manager_id is not None:
        raise EndpointAccessForbidden(
            f"Endpoint {endpoint_id} is a user endpoint: only its manager {endpoint.manager_id} starts it."
        )
    if endpoint.owner_id != caller.id:
        raise EndpointAccessForbidden(f"Endpoint {endpoint_id} belongs to somebody else.")
    if endpoint.locked_until is not None and now < endpoint.locked_until:
        left_s = endpoint.locked_until - now
        raise ResourceLocked(
            f"Endpoint {endpoint_id} was stopped remotely and cannot be started for another {left_s:.1f} s.",
            {"lock_expiration_timestamp": endpoint.locked_until},
        )


def is_manager(endpoint: Endpoint, caller: Identity) -> bool:
    """Whether the caller has the owner's rights: the owner, or one of the admins that the owner named."""
    return caller.id == endpoint.owner_id or caller.id in endpoint.admins


def check_manage(endpoint: Endpoint | None, endpoint_id: str, caller: Identity) -> Endpoint:
    """For looking inside. Raises EndpointNotFound, EndpointAccessForbidden."""
    endpoint = _found(endpoint, endpoint_id)
    if not is_manager(endpoint, caller):
        raise EndpointAccessForbidden(f"Only the owner and the admins of endpoint {endpoint_id} may do this.")
    return endpoint


def check_end(endpoint: Endpoint | None, endpoint_id: str, caller: Identity) -> Endpoint:
    """For stopping and deleting. Raises EndpointNotFound, EndpointAccessForbidden."""
    endpoint = check_manage(endpoint, endpoint_id, caller)
    if endpoint.manager_id is not None:
        raise EndpointAccessForbidden(
            f"Endpoint {endpoint_id} is a user endpoint: it ends by itself when it has nothing to do, or with its "
            f"manager {endpoint.manager_id}."
        )
    return endpoint


def check_view(
    endpoint: Endpoint | None, endpoint_id: str, caller: Identity, manager: Endpoint | None = None
) -> Endpoint:
    """For name, status and the like. Raises EndpointNotFound, EndpointAccessForbidden.

    Args:
        manager: of a user endpoint: those who manage that see it, too.
    """
    endpoint = _found(endpoint, endpoint_id)
    is_on_site = manager is not None and is_manager(manager, caller)
    if not (endpoint.public or is_on_site or is_manager(endpoint, caller)):
        raise EndpointAccessForbidden(f"Endpoint {endpoint_id} is somebody else's and not public.")
    return endpoint


def check_use(endpoint: Endpoint | None, endpoint_id: str, caller: Identity) -> Endpoint:
    """For running tasks there. Being public makes an endpoint visible, not usable: a direct endpoint runs
    everything as its owner. Raises EndpointNotFound, EndpointAccessForbidden.
    """
    endpoint = _found(endpoint, endpoint_id)
    if endpoint.manager_id is not None:
        raise EndpointAccessForbidden(
            f"Endpoint {endpoint_id} is a user endpoint: submit to its manager {endpoint.manager_id} instead, which "
            "starts it when it is needed."
        )
    if endpoint.multi_user:
        return endpoint  # runs each person's tasks as themselves, if it can map them
    if not is_manager(endpoint, caller):
        raise EndpointAccessForbidden(
            f"You may not run functions on endpoint {endpoint_id}: it runs tasks as its owner, so only the owner "
            "and the admins in its config.yaml may use it."
        )
    return endpoint


def check_verify(caller: Identity) -> None:
    """For the seal of an organisation. Raises Forbidden."""
    if not caller.is_admin:
        raise Forbidden("Only an administrator of this service may verify endpoints.")


def _found(endpoint: Endpoint | None, endpoint_id: str) -> Endpoint:
    if endpoint is None:
        raise EndpointNotFound(f"There is no endpoint {endpoint_id} at this service. `farcall endpoints` lists yours.")
    _refuse_deleted(endpoint)
    return endpoint


def _refuse_deleted(endpoint: Endpoint) -> None:
    if endpoint.is_deleted:
        raise EndpointNotFound(f"Endpoint {endpoint.id} ({endpoint.name}) was deleted.")


def _uuids(texts: Sequence[str] | None, member: str) -> list[str] | None:
    if not texts:
        return None
    if len(texts) > _LIST_LIMIT:
        raise InvalidRequest(f"member '{member}' may have at most {_LIST_LIMIT} entries, this one has {len(texts)}.")
    return [canonical_uuid(text, f"member '{member}[{at}]'") for at, text in enumerate(texts)]


def _not_offered(member: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"member '{member}': {what} not offered by this release of Farcall.")
