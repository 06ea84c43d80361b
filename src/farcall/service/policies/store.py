"""SQL of authentication policies, projects and subscriptions. What happens to them is recorded in the audit table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from farcall.service.accounts.rules import Identity
from farcall.service.audit.rules import Actor
from farcall.service.audit.store import record
from farcall.service.db.sql import Prepared, PreparedIn
from farcall.service.db.tables import auth_policies, endpoints, groups, identities, projects, subscriptions
from farcall.service.ids import new_id
from farcall.service.policies import rules
from farcall.service.policies.rules import Policy, PolicyFields, Project, Subscription
from farcall.service.web.bodies import encode_text
from farcall.wire.errors import Conflict, InvalidRequest, NotFound
from farcall.wire.messages import is_uuid_text

__all__ = [
    "add_policy",
    "add_project",
    "add_subscription",
    "change_policy",
    "check_policy_of",
    "delete_policy",
    "find_grantees",
    "find_policy",
    "find_subscription",
    "list_policies",
    "list_projects",
    "list_subscriptions",
    "names_of",
]


# Policies --------------------------------------------------------------------------------------------------------


def find_policy(conn: Connection, policy_id: str) -> Policy | None:
    row = _POLICY.first(conn, id=policy_id)
    if row is None:
        return None
    project = None if row.project_id is None else _find_project(conn, row.project_id)
    return _policy(row, project)


def list_policies(conn: Connection, caller: Identity | None = None) -> Sequence[Policy]:
    """Those that the caller may use; all for None. By name."""
    by_id = {project.id: project for project in list_projects(conn)}
    rows = conn.execute(select(auth_policies).order_by(auth_policies.c.display_name, auth_policies.c.id)).all()
    found = [_policy(row, by_id.get(row.project_id)) for row in rows]
    return [policy for policy in found if caller is None or rules.is_policy_usable(policy, caller)]


def add_policy(
    conn: Connection,
    policy_id: str,
    project_id: str | None,
    fields: PolicyFields,
    caller: Identity,
    actor: Actor,
    now: float,
    of_site: bool = False,
) -> Policy:
    """Make a policy.

    Args:
        project_id: None: the caller's own project, which is made if need be.
        of_site: no project's; for operators.

    Raises:
        NotFound, Forbidden: see `rules.check_make`.
    """
    if of_site:
        project = None
        rules.check_make(None, None, caller)
    elif project_id is None:
        project = _own_project(conn, caller, actor, now)
    else:
        project = _find_project(conn, project_id)
        rules.check_make(project, project_id, caller)
    conn.execute(
        insert(auth_policies).values(
            id=policy_id,
            project_id=None if project is None else project.id,
            created_at=now,
            updated_at=now,
            **_columns(fields),
        )
    )
    record(conn, actor, "policy.create", "policy", policy_id, at=now, detail=_told(fields))
    return Policy(id=policy_id, project=project, fields=fields)


def change_policy(
    conn: Connection, policy_id: str, changes: Mapping[str, Any], caller: Identity, actor: Actor, now: float
) -> Policy:
    """Replace some of what a policy demands. It counts from the next request on.

    Args:
        changes: arguments of `rules.plan_policy`; those that are left out stay as they are.

    Raises:
        NotFound, Forbidden, Conflict: see `rules.check_change`.
        InvalidRequest: see `rules.plan_policy`.
    """
    found = find_policy(conn, policy_id)
    old = found.fields if found is not None else PolicyFields()
    fields = rules.plan_policy(
        **{
            "display_name": old.display_name,
            "description": old.description,
            "include": old.include,
            "exclude": old.exclude,
            "high_assurance": old.high_assurance,
            "timeout_s": old.timeout_s,
            "required_mfa": old.required_mfa,
            **changes,
        }
    )
    ha_endpoints = [each.id for each in _users_of(conn, policy_id) if each.high_assurance]
    rules.check_change(found, policy_id, caller, fields, ha_endpoints=ha_endpoints)
    assert found is not None
    conn.execute(
        update(auth_policies).where(auth_policies.c.id == policy_id).values(updated_at=now, **_columns(fields))
    )
    record(conn, actor, "policy.update", "policy", policy_id, at=now, detail=_told(fields))
    return replace(found, fields=fields)


def delete_policy(conn: Connection, policy_id: str, caller: Identity, actor: Actor, now: float) -> Policy:
    """Raises NotFound, Forbidden, Conflict: see `rules.check_delete`."""
    found = find_policy(conn, policy_id)
    rules.check_delete(found, policy_id, caller, endpoints=[each.id for each in _users_of(conn, policy_id)])
    assert found is not None
    conn.execute(delete(auth_policies).where(auth_policies.c.id == policy_id))
    record(conn, actor, "policy.delete", "policy", policy_id, at=now, detail=_told(found.fields))
    return found


def check_policy_of(conn: Connection, policy_id: str, caller: Identity, *, now: float, what: str) -> None:
    """Whether the caller satisfies a policy.

    Raises:
        LoginRequired, Forbidden: see `rules.check_policy`.
        Conflict: the policy is gone, which protects what it protected from everybody.
    """
    policy = find_policy(conn, policy_id)
    if policy is None:
        raise Conflict(
            f"{what[:1].upper()}{what[1:]} is not possible: authentication policy {policy_id} is gone. "
            "The endpoint's owner must name another and start it again."
        )
    rules.check_policy(policy, caller, names_of(conn, caller), now=now, what=what)


def names_of(conn: Connection, caller: Identity) -> dict[str, str]:
    """id → user name of the caller's linked identities."""
    return {row.id: row.username for row in _NAMES.all(conn, sorted(caller.linked))}


def _users_of(conn: Connection, policy_id: str) -> Sequence[Any]:
    return conn.execute(
        select(endpoints.c.id, endpoints.c.high_assurance)
        .where(endpoints.c.authentication_policy_id == policy_id, endpoints.c.deleted_at.is_(None))
        .order_by(endpoints.c.created_at)
    ).all()


def _columns(fields: PolicyFields) -> dict[str, Any]:
    return {
        "display_name": fields.display_name,
        "description": fields.description,
        "include_json": encode_text(fields.include),
        "exclude_json": encode_text(fields.exclude),
        "high_assurance": fields.high_assurance,
        "timeout_s": fields.timeout_s,
        "required_mfa": fields.required_mfa,
    }


def _told(fields: PolicyFields) -> dict[str, Any]:
    return {
        "display_name": fields.display_name,
        "include": list(fields.include),
        "exclude": list(fields.exclude),
        "high_assurance": fields.high_assurance,
        "timeout_s": fields.timeout_s,
        "required_mfa": fields.required_mfa,
    }


def _policy(row: Any, project: Project | None) -> Policy:  # a row of `auth_policies`
    return Policy(
        id=row.id,
        project=project,
        fields=PolicyFields(
            display_name=row.display_name,
            description=row.description,
            include=tuple(msgspec.json.decode(row.include_json)),
            exclude=tuple(msgspec.json.decode(row.exclude_json)),
            high_assurance=bool(row.high_assurance),
            timeout_s=row.timeout_s,
            required_mfa=bool(row.required_mfa),
        ),
    )


# Projects --------------------------------------------------------------------------------------------------------


def list_projects(conn: Connection, caller: Identity | None = None) -> Sequence[Project]:
    """Those that the caller manages, also as an operator; all for None. By name."""
    rows = conn.execute(select(projects).order_by(projects.c.display_name, projects.c.id)).all()
    found = [_project(row) for row in rows]
    return [project for project in found if caller is None or rules.is_project_admin(project, caller)]


def add_project(
    conn: Connection, project: Project, actor: Actor, now: float, *, owner_id: str | None = None
) -> Project:
    """Store a project.

    Raises:
        InvalidRequest: an admin or a group does not exist.
    """
    _require(conn, identities, project.admin_ids, "identity")
    _require(conn, groups, project.admin_group_ids, "group")
    conn.execute(
        insert(projects).values(
            id=project.id,
            display_name=project.display_name,
            contact_email=project.contact_email,
            admin_ids_json=encode_text(sorted(project.admin_ids)),
            admin_group_ids_json=encode_text(sorted(project.admin_group_ids)),
            owner_id=owner_id,
            created_at=now,
        )
    )
    record(conn, actor, "project.create", "project", project.id, at=now, detail={"display_name": project.display_name})
    return project


def _own_project(conn: Connection, caller: Identity, actor: Actor, now: float) -> Project:
    found = conn.execute(
        select(projects).where(projects.c.owner_id.in_(sorted(caller.linked))).order_by(projects.c.created_at)
    ).first()
    if found is not None:
        return _project(found)
    project = rules.plan_project(
        new_id(),
        display_name=f"Policies of {caller.username}",
        contact_email=None,
        admin_ids=[caller.id],
        groups=[],
    )
    return add_project(conn, project, actor, now, owner_id=caller.id)


def _find_project(conn: Connection, project_id: str) -> Project | None:
    row = _PROJECT.first(conn, id=project_id)
    return None if row is None else _project(row)


def _project(row: Any) -> Project:  # a row of `projects`
    return Project(
        id=row.id,
        display_name=row.display_name,
        contact_email=row.contact_email,
        admin_ids=frozenset(msgspec.json.decode(row.admin_ids_json)),
        admin_group_ids=frozenset(msgspec.json.decode(row.admin_group_ids_json)),
    )


# Subscriptions ---------------------------------------------------------------------------------------------------


def find_subscription(conn: Connection, subscription_id: str) -> Subscription | None:
    row = conn.execute(select(subscriptions).where(subscriptions.c.id == subscription_id)).first()
    return None if row is None else _subscription(row)


def list_subscriptions(conn: Connection) -> Sequence[Subscription]:
    """All, by name."""
    rows = conn.execute(select(subscriptions).order_by(subscriptions.c.name, subscriptions.c.id)).all()
    return [_subscription(row) for row in rows]


def add_subscription(conn: Connection, subscription: Subscription, actor: Actor, now: float) -> Subscription:
    """Store a subscription.

    Raises:
        Conflict: there is one of this id.
        InvalidRequest: an admin or a group does not exist.
    """
    if find_subscription(conn, subscription.id) is not None:
        raise Conflict(f"There is a subscription {subscription.id} already.")
    _require(conn, identities, subscription.admin_ids, "identity")
    _require(conn, groups, subscription.group_ids, "group")
    conn.execute(
        insert(subscriptions).values(
            id=subscription.id,
            name=subscription.name,
            high_assurance=subscription.high_assurance,
            admin_ids_json=encode_text(sorted(subscription.admin_ids)),
            group_ids_json=encode_text(sorted(subscription.group_ids)),
            created_at=now,
        )
    )
    detail = {"name": subscription.name, "high_assurance": subscription.high_assurance}
    record(conn, actor, "subscription.create", "subscription", subscription.id, at=now, detail=detail)
    return subscription


def _subscription(row: Any) -> Subscription:  # a row of `subscriptions`
    return Subscription(
        id=row.id,
        name=row.name,
        high_assurance=bool(row.high_assurance),
        admin_ids=frozenset(msgspec.json.decode(row.admin_ids_json)),
        group_ids=frozenset(msgspec.json.decode(row.group_ids_json)),
    )


# People and groups, by whatever one calls them ---------------------------------------------------------------------


def find_grantees(conn: Connection, users: Sequence[str], of_groups: Sequence[str]) -> tuple[list[str], list[str]]:
    """Ids of identities and of groups, in the order given.

    Args:
        users: user names or ids.
        of_groups: names or ids.

    Raises:
        NotFound: the message names whom or what nobody here knows.
    """
    found_users = [_named(conn, identities, identities.c.username, text, "user") for text in users]
    found_groups = [_named(conn, groups, groups.c.name, text, "group") for text in of_groups]
    return found_users, found_groups


def _named(conn: Connection, table: Any, name: Any, text: str, what: str) -> str:  # a table and its column
    wanted = text.strip().replace("\0", "")
    column = table.c.id if is_uuid_text(wanted.lower()) else name
    found: str | None = conn.execute(select(table.c.id).where(column.in_([wanted, wanted.lower()]))).scalar()
    if found is None:
        how = "They log in once, or an operator adds them" if what == "user" else "`farcall-service group` makes groups"
        raise NotFound(f"There is no {what} {wanted[:120]!r} at this service. {how}.")
    return found


def _require(conn: Connection, table: Any, ids: Iterable[str], what: str) -> None:
    wanted = sorted(ids)
    known = set(conn.execute(select(table.c.id).where(table.c.id.in_(wanted))).scalars()) if wanted else set()
    missing = [each for each in wanted if each not in known]
    if missing:
        raise InvalidRequest(f"There is no {what} {missing[0]} at this service.")


_POLICY = Prepared(select(auth_policies).where(auth_policies.c.id == bindparam("id")))
_PROJECT = Prepared(select(projects).where(projects.c.id == bindparam("id")))
_NAMES = PreparedIn(lambda ids: select(identities.c.id, identities.c.username).where(identities.c.id.in_(ids)))
