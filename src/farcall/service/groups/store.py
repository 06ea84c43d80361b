"""SQL of groups. Changes are recorded for audit in the same transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import Connection, delete, func, insert, select, update

from farcall.service.accounts.store import bump_accounts_version
from farcall.service.audit.rules import Actor
from farcall.service.audit.store import record
from farcall.service.db.tables import group_members, groups, identities
from farcall.service.groups.rules import Group, Member, Role
from farcall.service.ids import canonical_uuid, new_id
from farcall.service.users.rules import Person
from farcall.wire.errors import Conflict, InvalidRequest, NotFound

__all__ = ["add_group", "add_member", "delete_group", "list_groups", "one_group", "remove_member"]


def add_group(conn: Connection, name: str, description: str | None, actor: Actor, now: float) -> Group:
    """Make a group without members.

    Args:
        name: as `group_name` makes them.

    Raises:
        Conflict: the name is taken, in whatever case.
    """
    if conn.execute(select(groups.c.id).where(func.lower(groups.c.name) == name.lower())).first() is not None:
        raise Conflict(f"There is a group {name!r} already. Choose another name.")
    group = Group(id=new_id(), name=name, description=description, created_at=now)
    conn.execute(
        insert(groups).values(
            id=group.id, name=name, description=description, created_by=actor.id, created_at=group.created_at
        )
    )
    record(conn, actor, "group.create", "group", group.id, at=now, detail={"name": name})
    return group


def delete_group(conn: Connection, group: Group, actor: Actor, now: float) -> None:
    """Forget a group; nobody is in it any more."""
    conn.execute(delete(group_members).where(group_members.c.group_id == group.id))
    conn.execute(delete(groups).where(groups.c.id == group.id))
    bump_accounts_version(conn)
    record(conn, actor, "group.delete", "group", group.id, at=now, detail={"name": group.name})


def add_member(conn: Connection, group: Group, person: Person, role: Role, actor: Actor, now: float) -> bool:
    """Put somebody into a group, or change the role. False if nothing had to be done."""
    where = (group_members.c.group_id == group.id) & (group_members.c.identity_id == person.id)
    found = conn.execute(select(group_members.c.role).where(where)).scalar()
    if found == role:
        return False
    if found is None:
        conn.execute(insert(group_members).values(group_id=group.id, identity_id=person.id, role=role, added_at=now))
    else:
        conn.execute(update(group_members).where(where).values(role=role))
    bump_accounts_version(conn)
    detail = {"name": group.name, "username": person.username, "role": role}
    record(conn, actor, "group.add", "group", group.id, at=now, detail=detail)
    return True


def remove_member(conn: Connection, group: Group, person: Person, actor: Actor, now: float) -> bool:
    """Take somebody out of a group. False if they were not in it."""
    where = (group_members.c.group_id == group.id) & (group_members.c.identity_id == person.id)
    if conn.execute(delete(group_members).where(where)).rowcount == 0:
        return False
    bump_accounts_version(conn)
    detail = {"name": group.name, "username": person.username}
    record(conn, actor, "group.remove", "group", group.id, at=now, detail=detail)
    return True


def list_groups(conn: Connection, ids: Sequence[str] | None = None) -> Sequence[Group]:
    """Groups with their members, by name. `ids`: only these."""
    statement = select(groups).order_by(groups.c.name)
    if ids is not None:
        statement = statement.where(groups.c.id.in_(ids))
    rows = conn.execute(statement).all()
    members: dict[str, list[Member]] = defaultdict(list)
    found = conn.execute(
        select(group_members, identities.c.username)
        .join_from(group_members, identities, group_members.c.identity_id == identities.c.id)
        .where(group_members.c.group_id.in_([row.id for row in rows]))
        .order_by(identities.c.username)
    )
    for each in found:
        members[each.group_id].append(Member(identity_id=each.identity_id, username=each.username, role=each.role))
    return [
        Group(
            id=row.id,
            name=row.name,
            description=row.description,
            created_at=row.created_at,
            members=tuple(members[row.id]),
        )
        for row in rows
    ]


def one_group(conn: Connection, name_or_id: str) -> Group:
    """The group that somebody means. Raises NotFound."""
    try:
        condition = groups.c.id == canonical_uuid(name_or_id, "group id")
    except InvalidRequest:
        condition = func.lower(groups.c.name) == " ".join(name_or_id.split()).lower()
    found = conn.execute(select(groups.c.id).where(condition)).scalar()
    if found is None:
        raise NotFound(f"There is no group {name_or_id[:100]!r}. `farcall-service group list` shows all.")
    return list_groups(conn, [found])[0]
