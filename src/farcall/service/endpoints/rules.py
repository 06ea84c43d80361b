"""Who may register, see, use and manage an endpoint, and what a registration must look like. Decides only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from farcall.service.accounts.rules import Identity
from farcall.service.ids import canonical_uuid
from farcall.service.policies.rules import Policy, Subscription, check_use_of_policy, is_subscription_usable
from farcall.wire.errors import (
    Conflict,
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
    "check_protection",
    "check_reregistration",
    "check_share",
    "check_stop_user_endpoint",
    "check_use",
    "check_verify",
    "check_view",
    "is_manager",
    "is_shared_with",
    "is_user_endpoint_shown",
    "may_see_template",
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
        policy_id: of the authentication policy that whoever uses it must satisfy; None: none.
        shared_with, shared_groups: identities and groups that may run functions there as its owner. Filled in only
            where that is asked about.
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
    high_assurance: bool = False
    policy_id: str | None = None
    subscription_id: str | None = None
    shared_with: frozenset[str] = frozenset()
    shared_groups: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class NewEndpoint:
    """A registration that may be stored."""

    name: str
    display_name: str | None
    description: str | None
    public: bool
    direct: bool
    multi_user: bool = False
    subscription_id: str | None
    allowed_functions: Sequence[str] | None
    admins: Sequence[str] | None
    metadata: Mapping[str, Any]
    high_assurance: bool = False
    policy_id: str | None = None

    @property
    def is_engine_encrypted(self) -> bool:
        """Whether the agent says that nobody can read what goes to its workers."""
        return self.metadata.get("engine_encrypted") is True


def plan_registration(request: EndpointRegistration) -> NewEndpoint:
    """Decide whether this can be an endpoint here.

    Raises:
        InvalidRequest: the message names the member. Whatever the registration asks for and this release cannot
            give is refused rather than ignored: an endpoint must not believe itself protected.
    """
    fault = endpoint_name_fault(request.endpoint_name)
    if fault is not None:
        raise InvalidRequest(f"member 'endpoint_name': {fault}.")
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
        high_assurance=request.high_assurance,
        policy_id=request.authentication_policy
        and canonical_uuid(request.authentication_policy, "member 'authentication_policy'"),
    )


def check_protection(
    plan: NewEndpoint,
    caller: Identity,
    policy: Policy | None,
    subscription: Subscription | None,
    *,
    is_encrypted: bool,
) -> Sequence[str]:
    """Whether the endpoint can be protected as its registration asks.

    Args:
        policy, subscription: what the registration names; None if it names none, or one that does not exist.
        is_encrypted: whether both the request and the way to the broker use TLS.

    Returns:
        What its owner should know although it is accepted.

    Raises:
        NotFound: the caller may not use the policy, or there is none of that id.
        InvalidRequest: it cannot be one for high assurance; the message says what is missing.
    """
    if plan.policy_id is not None:
        policy = check_use_of_policy(policy, plan.policy_id, caller)
    if plan.high_assurance:
        _check_high_assurance(plan, caller, policy, subscription, is_encrypted=is_encrypted)
        return ()
    if plan.subscription_id is not None and subscription is None:
        return (f"Subscription {plan.subscription_id} is not known to this service; it has no effect here.",)
    return ()


def _check_high_assurance(
    plan: NewEndpoint,
    caller: Identity,
    policy: Policy | None,
    subscription: Subscription | None,
    *,
    is_encrypted: bool,
) -> None:
    if policy is None:
        fault = "an authentication policy for high assurance (`authentication_policy`), and none is named"
    elif not policy.fields.high_assurance:
        fault = f"an authentication policy for high assurance, and '{policy.fields.display_name}' ({policy.id}) is not"
    elif plan.subscription_id is None:
        fault = "a subscription for high assurance (`subscription_id`), and none is named"
    elif subscription is None or not is_subscription_usable(subscription, caller):
        fault = (
            f"a subscription for high assurance, and there is no subscription {plan.subscription_id} that "
            f"{caller.username} may use (operators: `farcall-service subscription create --high-assurance`)"
        )
    elif not subscription.high_assurance:
        fault = f"a subscription for high assurance, and '{subscription.name}' ({subscription.id}) is not"
    elif not plan.is_engine_encrypted:
        fault = "an encrypted engine (`encrypted: true`, its default), and the agent does not say that it has one"
    elif not is_encrypted:
        fault = (
            "TLS on the way to the service and to its broker, and one of them is plain "
            "(operators: `farcall-service start --tls-cert … --tls-key …`)"
        )
    else:
        return
    raise InvalidRequest(f"member 'high_assurance': a high-assurance endpoint needs {fault}.")


def check_reregistration(
    endpoint: Endpoint | None, endpoint_id: str, caller: Identity, plan: NewEndpoint, *, now: float
) -> None:
    """Whether the caller may register this endpoint again, as that.

    Raises:
        InvalidRequest: high assurance was switched on or off.
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
    if endpoint.owner_id not in caller.linked:
        raise EndpointAccessForbidden(f"Endpoint {endpoint_id} belongs to somebody else; you are {caller.username}.")
    if endpoint.high_assurance != plan.high_assurance:
        how = "with" if endpoint.high_assurance else "without"
        raise InvalidRequest(
            f"member 'high_assurance': endpoint {endpoint_id} was registered {how} high assurance, and that cannot "
            "change. Set it back in config.yaml, or configure another endpoint."
        )
    if endpoint.locked_until is not None and now < endpoint.locked_until:
        left_s = endpoint.locked_until - now
        raise ResourceLocked(
            f"Endpoint {endpoint_id} was stopped remotely and cannot be started for another {left_s:.1f} s.",
            {"lock_expiration_timestamp": endpoint.locked_until},
        )


def is_manager(endpoint: Endpoint, caller: Identity) -> bool:
    """Whether the caller has the owner's rights: the owner, or one of the admins that the owner named."""
    return endpoint.owner_id in caller.linked or not endpoint.admins.isdisjoint(caller.linked)


def is_shared_with(endpoint: Endpoint, caller: Identity) -> bool:
    """Whether the owner lets the caller run functions there."""
    return not (endpoint.shared_with.isdisjoint(caller.linked) and endpoint.shared_groups.isdisjoint(caller.groups))


def check_manage(endpoint: Endpoint | None, endpoint_id: str, caller: Identity) -> Endpoint:
    """For looking inside. Raises EndpointNotFound, EndpointAccessForbidden."""
    endpoint = _found(endpoint, endpoint_id)
    if not is_manager(endpoint, caller):
        raise EndpointAccessForbidden(
            f"Only the owner and the admins of endpoint {endpoint_id} may do this; you are {caller.username}."
        )
    return endpoint


def check_share(endpoint: Endpoint | None, endpoint_id: str, caller: Identity) -> Endpoint:
    """For letting others run functions as its owner. Raises EndpointNotFound, EndpointAccessForbidden."""
    endpoint = _found(endpoint, endpoint_id)
    if endpoint.owner_id not in caller.linked:
        raise EndpointAccessForbidden(
            f"Only the owner of endpoint {endpoint_id} may share it, since what others run there runs as the owner; "
            f"you are {caller.username}."
        )
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


def check_stop_user_endpoint(
    endpoint: Endpoint | None, endpoint_id: str, caller: Identity, manager: Endpoint | None
) -> Endpoint:
    """For ending the process of a user endpoint: its user, and those who manage its manager.

    Args:
        manager: of the user endpoint; None if it is none.

    Raises:
        EndpointNotFound, EndpointAccessForbidden.
        Conflict: it is no user endpoint.
    """
    endpoint = _found(endpoint, endpoint_id)
    if not (is_manager(endpoint, caller) or (manager is not None and is_manager(manager, caller))):
        raise EndpointAccessForbidden(
            f"Only its user, and the owner and the admins of its manager, may stop user endpoint {endpoint_id}; you "
            f"are {caller.username}."
        )
    if manager is None:
        raise Conflict(
            f"Endpoint {endpoint_id} is no user endpoint. `farcall-endpoint stop --remote` stops it, or POST "
            f"/v3/endpoints/{endpoint_id}/lock."
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
    if not (endpoint.public or is_on_site or is_manager(endpoint, caller) or is_shared_with(endpoint, caller)):
        raise EndpointAccessForbidden(
            f"Endpoint {endpoint_id} is somebody else's and not public; you are {caller.username}."
        )
    return endpoint


def check_use(endpoint: Endpoint | None, endpoint_id: str, caller: Identity) -> Endpoint:
    """For running tasks there. Being public makes an endpoint visible, not usable: a direct endpoint runs
    everything as its owner. The policy is another question. Raises EndpointNotFound, EndpointAccessForbidden.
    """
    endpoint = _found(endpoint, endpoint_id)
    if endpoint.manager_id is not None:
        raise EndpointAccessForbidden(
            f"Endpoint {endpoint_id} is a user endpoint: submit to its manager {endpoint.manager_id} instead, which "
            "starts it when it is needed."
        )
    if endpoint.multi_user:
        return endpoint  # runs each person's tasks as themselves, if it can map them
    if not (is_manager(endpoint, caller) or is_shared_with(endpoint, caller)):
        raise EndpointAccessForbidden(
            f"You are {caller.username} and may not run functions on endpoint {endpoint_id}: it runs tasks as its "
            "owner, so only the owner, the admins in its config.yaml and those with whom the owner shared it may use "
            "it. Ask the owner for `farcall-endpoint share`."
        )
    return endpoint


def may_see_template(endpoint: Endpoint, caller: Identity) -> bool:
    """Whether the caller may know which options the endpoint takes: whoever may run functions there."""
    return endpoint.multi_user or is_manager(endpoint, caller) or is_shared_with(endpoint, caller)


def is_user_endpoint_shown(*, is_online: bool, reported_at: float | None, has_open_tasks: bool) -> bool:
    """Whether a list of a manager's user endpoints has it: not, if it never worked and nothing waits for it.

    Each submission makes a user endpoint at the service, also one whose options the endpoint then refuses.

    Args:
        reported_at: when the last report came; None: none ever came.
    """
    return is_online or reported_at is not None or has_open_tasks


def check_verify(caller: Identity) -> None:
    """For the seal of an organisation. Raises Forbidden."""
    if not caller.is_admin:
        raise Forbidden(f"Only an administrator of this service may verify endpoints; you are {caller.username}.")


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
