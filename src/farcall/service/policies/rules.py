"""Who satisfies an authentication policy, what to ask of whoever does not, and who may make and use policies.
Decides only.

A policy looks at the caller as a person. An identity of theirs *qualifies* if its domain is allowed. A policy that
cares about logins (high assurance, a largest age, a second factor) wants one qualifying identity to have proved
itself within the caller's login, in that way and recently enough; any other policy is content that there is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from farcall.service.accounts.rules import Authentication, Identity
from farcall.wire.errors import Conflict, Forbidden, InvalidRequest, LoginRequired, NotFound

__all__ = [
    "DEFAULT_DISPLAY_NAME",
    "Policy",
    "PolicyFields",
    "Project",
    "Refusal",
    "Subscription",
    "check_change",
    "check_delete",
    "check_make",
    "check_policy",
    "check_use_of_policy",
    "is_domain_allowed",
    "is_policy_usable",
    "is_project_admin",
    "is_subscription_usable",
    "judge",
    "plan_policy",
    "plan_project",
]

DEFAULT_DISPLAY_NAME: Final = "Farcall Authentication Policy"
_LONGEST_AGE_S: Final = 10 * 365 * 86400
_DOMAINS_LIMIT: Final = 1000
_TEXT_LIMIT_CHARS: Final = 4096
_DOMAIN: Final = re.compile(r"[0-9a-z*_-]+(?:\.[0-9a-z*_-]+)*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """Who answers for policies.

    Attributes:
        admin_ids, admin_group_ids: identities, and groups all of whose members, may manage its policies.
    """

    id: str
    display_name: str
    contact_email: str | None
    admin_ids: frozenset[str]
    admin_group_ids: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Subscription:
    """An organisation that vouches for endpoints.

    Attributes:
        admin_ids, group_ids: identities, and members of groups, that may name it in their endpoints.
    """

    id: str
    name: str
    high_assurance: bool
    admin_ids: frozenset[str]
    group_ids: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyFields:
    """What a policy demands.

    Attributes:
        include: domains of user names that may pass, with `*` for any characters; none: all.
        exclude: domains that do not qualify, even if included.
        high_assurance: a qualifying identity must have proved itself in the login itself.
        timeout_s: and not longer ago than this; None: whenever.
        required_mfa: and with a second factor.
    """

    display_name: str = DEFAULT_DISPLAY_NAME
    description: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    high_assurance: bool = False
    timeout_s: int | None = None
    required_mfa: bool = False

    @property
    def is_about_logins(self) -> bool:
        """Whether it is not enough to have an identity of the right domain."""
        return self.high_assurance or self.required_mfa or self.timeout_s is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """A stored policy. `project` is None for those of the whole site, which its operators made."""

    id: str
    project: Project | None
    fields: PolicyFields


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a caller does not satisfy a policy.

    Attributes:
        reason: what is missing, and what to do; sentences for people.
        asked_for: what a new login must bring, as members of `authorization_parameters`; None if none would help.
    """

    reason: str
    asked_for: Mapping[str, Any] | None


# Judging ---------------------------------------------------------------------------------------------------------


def check_policy(policy: Policy, caller: Identity, names: Mapping[str, str], *, now: float, what: str) -> None:
    """Let a caller pass, or not.

    Args:
        names: id → user name, of the caller's linked identities.
        now: Unix seconds.
        what: is refused, for people: `running functions on endpoint …`.

    Raises:
        LoginRequired: another login would do; the error says which, in the form that clients understand.
        Forbidden: no login would.
    """
    refusal = judge(policy, caller, names, now=now)
    if refusal is None:
        return
    text = (
        f"{what[:1].upper()}{what[1:]} was refused to {caller.username} by the authentication policy "
        f"'{policy.fields.display_name}' ({policy.id}): {refusal.reason}"
    )
    if refusal.asked_for is None:
        raise Forbidden(text, {"policy_id": policy.id})
    message = f"{refusal.reason} (policy '{policy.fields.display_name}')"
    parameters = {"session_message": message, "session_required_policies": [policy.id], **refusal.asked_for}
    raise LoginRequired(text, {"policy_id": policy.id, "authorization_parameters": parameters})


def judge(policy: Policy, caller: Identity, names: Mapping[str, str], *, now: float) -> Refusal | None:
    """What keeps a caller from satisfying a policy; None if nothing does.

    Args:
        names: id → user name, of the caller's linked identities.
        now: Unix seconds.
    """
    fields = policy.fields
    qualifying = {each: name for each, name in names.items() if each in caller.linked and _qualifies(fields, name)}
    if not qualifying:
        return _wrong_domain(fields, caller, names)
    if not fields.is_about_logins:
        return None
    if caller.kind == "client":
        return Refusal("it asks for a person who logs in, and a client with a secret cannot. Use a user's login.", None)
    logins = [each for each in caller.authentications if each.identity_id in qualifying]
    if not logins:
        return _not_logged_in(caller, qualifying)
    if fields.required_mfa:
        logins = [each for each in logins if each.mfa]
        if not logins:
            return Refusal("log in with a second factor.", {"session_required_mfa": True, **_of(caller, qualifying)})
    if fields.timeout_s is not None:
        newest = max(logins, key=lambda each: each.at)
        if now - newest.at > fields.timeout_s:
            return _too_old(fields, newest, now)
    return None


def is_domain_allowed(domain: str, patterns: Iterable[str]) -> bool:
    """Whether a domain is one of these; `*` stands for any characters, dots among them. Case does not matter."""
    domain = domain.lower()
    return any(re.fullmatch(_expression(pattern), domain) is not None for pattern in patterns)


def _expression(pattern: str) -> str:
    return ".*".join(map(re.escape, pattern.lower().split("*")))


def _qualifies(fields: PolicyFields, username: str) -> bool:
    _, at, domain = username.rpartition("@")
    if not at:
        return not fields.include  # a name without a domain is of none that could be named
    if fields.include and not is_domain_allowed(domain, fields.include):
        return False
    return not is_domain_allowed(domain, fields.exclude)


def _wrong_domain(fields: PolicyFields, caller: Identity, names: Mapping[str, str]) -> Refusal:
    wanted = f"an identity of {' or '.join(fields.include)}" if fields.include else "an identity"
    if fields.exclude:
        wanted += f" (but not of {' or '.join(fields.exclude)})"
    yours = ", ".join(sorted(names.values())) or caller.username
    reason = f"it admits {wanted}, and yours are {yours}. Link such an identity to your account, or log in with one."
    if caller.kind == "client":
        return Refusal(reason, None)
    plain = [domain for domain in fields.include if "*" not in domain and not is_domain_allowed(domain, fields.exclude)]
    return Refusal(reason, {"session_required_single_domain": plain} if plain else {})


def _not_logged_in(caller: Identity, qualifying: Mapping[str, str]) -> Refusal:
    reason = f"log in as {' or '.join(sorted(qualifying.values()))}; your token does not rest on such a login."
    return Refusal(reason, _of(caller, qualifying))


def _too_old(fields: PolicyFields, newest: Authentication, now: float) -> Refusal:
    reason = (
        f"it admits logins of the last {_span(fields.timeout_s or 0)}, and yours as {newest.username} was "
        f"{_span(now - newest.at)} ago. Log in again."
    )
    return Refusal(reason, {"session_required_identities": [newest.identity_id], "prompt": "login"})


def _of(caller: Identity, qualifying: Mapping[str, str]) -> dict[str, Any]:
    """Which identity to log in as: the one that asks if it will do, since clients keep to one."""
    which = caller.id if caller.id in qualifying else min(qualifying)
    return {"session_required_identities": [which]}


def _span(seconds: float) -> str:
    whole = int(seconds)
    if whole < 120:
        return f"{whole} seconds"
    if whole < 2 * 3600:
        return f"{whole // 60} minutes"
    if whole < 2 * 86400:
        return f"{whole // 3600} hours"
    return f"{whole // 86400} days"


# Making and using ------------------------------------------------------------------------------------------------


def plan_policy(
    *,
    display_name: str | None = None,
    description: str | None = None,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    high_assurance: bool | None = None,
    timeout_s: int | None = None,
    required_mfa: bool | None = None,
) -> PolicyFields:
    """What was asked for as a policy; None means the default.

    A largest age or a second factor make a policy one for high assurance, as in the ecosystem, unless the opposite
    was said.

    Raises:
        InvalidRequest: the message names the member.
    """
    if timeout_s is not None and not 1 <= timeout_s <= _LONGEST_AGE_S:
        raise InvalidRequest(
            f"member 'authentication_assurance_timeout' must be 1 to {_LONGEST_AGE_S} seconds, not {timeout_s}."
        )
    for member, text in (("display_name", display_name), ("description", description)):
        if text is not None and ("\0" in text or len(text) > _TEXT_LIMIT_CHARS):
            raise InvalidRequest(f"member '{member}' must have at most {_TEXT_LIMIT_CHARS} characters, without NUL.")
    return PolicyFields(
        display_name=(display_name or "").strip() or DEFAULT_DISPLAY_NAME,
        description=description or "",
        include=_domains(include, "domain_constraints_include"),
        exclude=_domains(exclude, "domain_constraints_exclude"),
        high_assurance=(timeout_s is not None or bool(required_mfa)) if high_assurance is None else high_assurance,
        timeout_s=timeout_s,
        required_mfa=bool(required_mfa),
    )


def _domains(texts: Sequence[str] | None, member: str) -> tuple[str, ...]:
    if texts is None:
        return ()
    if len(texts) > _DOMAINS_LIMIT:
        raise InvalidRequest(f"member '{member}' may have at most {_DOMAINS_LIMIT} domains, this one has {len(texts)}.")
    found: list[str] = []
    for text in texts:
        domain = text.strip().lower()
        if len(domain) > 253 or _DOMAIN.fullmatch(domain) is None:
            raise InvalidRequest(
                f"member '{member}': {text[:80]!r} is no domain. Write what stands behind the @ of user names, "
                "`example.edu`, or with a wildcard, `*.example.edu`."
            )
        if domain not in found:
            found.append(domain)
    return tuple(found)


def plan_project(
    project_id: str, *, display_name: str, contact_email: str | None, admin_ids: Iterable[str], groups: Iterable[str]
) -> Project:
    """What was asked for as a project. Raises InvalidRequest."""
    name = display_name.strip()
    if not name or len(name) > _TEXT_LIMIT_CHARS or "\0" in name + (contact_email or ""):
        raise InvalidRequest(f"member 'display_name' must have 1 to {_TEXT_LIMIT_CHARS} characters, without NUL.")
    return Project(
        id=project_id,
        display_name=name,
        contact_email=contact_email,
        admin_ids=frozenset(admin_ids),
        admin_group_ids=frozenset(groups),
    )


def is_project_admin(project: Project | None, caller: Identity) -> bool:
    """Whether the caller may manage a project's policies. Those of the whole site are the operators'."""
    if caller.is_admin:
        return True
    if project is None:
        return False
    return not (project.admin_ids.isdisjoint(caller.linked) and project.admin_group_ids.isdisjoint(caller.groups))


def is_policy_usable(policy: Policy, caller: Identity) -> bool:
    """Whether the caller may see the policy and name it in endpoints: everybody may use those of the whole site."""
    return policy.project is None or is_project_admin(policy.project, caller)


def is_subscription_usable(subscription: Subscription, caller: Identity) -> bool:
    """Whether the caller may name the subscription in endpoints."""
    if caller.is_admin:
        return True
    return not (subscription.admin_ids.isdisjoint(caller.linked) and subscription.group_ids.isdisjoint(caller.groups))


def check_make(project: Project | None, project_id: str | None, caller: Identity) -> None:
    """For a new policy. `project` is None if there is none of the id. Raises NotFound, Forbidden."""
    if project_id is not None and (project is None or not is_project_admin(project, caller)):
        # The same answer to both: ids of others' projects are nobody's business.
        raise NotFound(
            f"There is no project {project_id} of yours at this service. `GET /v2/api/projects` lists yours; without "
            "a project id the policy belongs to a project of your own."
        )
    if project_id is None and project is None and not caller.is_admin:
        raise Forbidden("Only an administrator of this service may make policies for the whole site.")


def check_use_of_policy(policy: Policy | None, policy_id: str, caller: Identity) -> Policy:
    """For naming it in an endpoint, and for seeing it. Raises NotFound."""
    if policy is None or not is_policy_usable(policy, caller):
        raise NotFound(
            f"There is no authentication policy {policy_id} that {caller.username} may use at this service. "
            "`farcall-service policy list` lists all for operators; `farcall-endpoint configure --allowed-domains …` "
            "makes one."
        )
    return policy


def check_change(
    policy: Policy | None, policy_id: str, caller: Identity, fields: PolicyFields, *, ha_endpoints: Sequence[str]
) -> None:
    """For replacing what a policy demands.

    Args:
        ha_endpoints: ids of the high-assurance endpoints that use it.

    Raises:
        NotFound: none that the caller may know of.
        Forbidden: the caller may use it, not change it.
        Conflict: endpoints rely on what is to be taken away.
    """
    policy = _manageable(policy, policy_id, caller)
    if policy.fields.high_assurance and not fields.high_assurance and ha_endpoints:
        raise Conflict(
            f"Policy {policy_id} must stay one for high assurance: endpoint {ha_endpoints[0]} relies on it. "
            "Delete the endpoint first, or have it use another policy."
        )


def check_delete(policy: Policy | None, policy_id: str, caller: Identity, *, endpoints: Sequence[str]) -> None:
    """For deleting. `endpoints`: ids of those that use it. Raises NotFound, Forbidden, Conflict."""
    _manageable(policy, policy_id, caller)
    if endpoints:
        others = f" and {len(endpoints) - 1} more" if len(endpoints) > 1 else ""
        raise Conflict(
            f"Policy {policy_id} protects endpoint {endpoints[0]}{others}. Delete the endpoint, or have it use another "
            "policy (`authentication_policy` in its config.yaml), then delete this one."
        )


def _manageable(policy: Policy | None, policy_id: str, caller: Identity) -> Policy:
    policy = check_use_of_policy(policy, policy_id, caller)
    if not is_project_admin(policy.project, caller):
        raise Forbidden(
            f"Policy {policy_id} is one of the whole site: only an administrator of this service may change it, and "
            f"you are {caller.username}."
        )
    return policy
