"""People from providers, linked identities and second factors, on a real SQLite file and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyotp
import pytest
from sqlalchemy import Connection, insert, select, update

from farcall.service.accounts import store as accounts
from farcall.service.accounts.passwords import hash_password
from farcall.service.accounts.totp import STEP_S, new_recovery_codes, new_totp_secret, recovery_code_hash
from farcall.service.audit import store as audit
from farcall.service.audit.rules import NOBODY
from farcall.service.db import tables
from farcall.service.db.engine import make_engine
from farcall.service.db.migrations import migrate
from farcall.service.factors import store as factors
from farcall.service.ids import new_id
from farcall.service.oidc import store as oidc
from farcall.service.oidc.rules import LoginRefused, OidcPerson

NOW = 1_700_000_000.0
RESERVED = frozenset({"local", "localhost"})
ADA = OidcPerson(
    provider="site", issuer="https://login.example", subject="u-1", username="ada@site.example", display_name="Ada",
    email="ada@site.example", organization="Site", at=NOW, mfa=False, acr=None, amr=(),
)  # fmt: skip


@pytest.fixture
def conn(store_url: str) -> Iterator[Connection]:
    engine = make_engine(store_url)
    migrate(engine)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def receive(conn: Connection, person: OidcPerson = ADA, **changes: Any) -> oidc.LoggedIn:
    return oidc.receive(conn, replace(person, **changes), RESERVED, "192.0.2.1", NOW)


def local_account(conn: Connection, username: str = "ada@local") -> str:
    identity = accounts.ensure_identity(conn, username, is_admin=False, now=NOW)
    hashed = hash_password("lamp orbit tuesday")
    values = {"identity_id": identity.id, "password_hash": hashed, "must_change": False, "changed_at": NOW}
    conn.execute(insert(tables.local_accounts).values(**values))
    return identity.id


def actions(conn: Connection) -> list[str]:
    return [entry.action for entry in audit.tail(conn, 100)]


def test_the_first_login_makes_an_identity_and_the_next_finds_it(conn: Connection) -> None:
    first = receive(conn)
    assert first.is_new
    assert first.person_id == first.identity_id
    again = receive(conn, display_name="Ada L.")
    assert again == replace(first, is_new=False)
    row = conn.execute(select(tables.identities).where(tables.identities.c.id == first.identity_id)).one()
    assert (row.username, row.display_name, row.provider) == ("ada@site.example", "Ada L.", "site")
    assert not row.is_admin
    assert actions(conn) == ["user.add"]


def test_a_name_of_somebody_else_is_refused_whoever_has_it(conn: Connection) -> None:
    receive(conn)
    for claim in ({"issuer": "https://other.example", "provider": "other"}, {"subject": "u-2"}):
        with pytest.raises(LoginRefused, match="belongs to somebody else"):
            receive(conn, **claim)
    accounts.ensure_identity(conn, "root@host.example", is_admin=True, now=NOW)
    with pytest.raises(LoginRefused, match="belongs to somebody else"):
        receive(conn, subject="u-3", username="root@host.example")
    assert actions(conn) == ["user.add"]


@pytest.mark.parametrize("name", ["bob@local", "bob@clients.local", "bob@localhost"])
def test_the_service_s_own_domains_are_no_provider_s(conn: Connection, name: str) -> None:
    with pytest.raises(LoginRefused, match="own domain"):
        receive(conn, username=name)


def test_a_new_name_is_followed_and_noticed_everywhere_unless_it_is_taken(conn: Connection) -> None:
    ada, _bob = receive(conn), receive(conn, subject="u-2", username="bob@site.example")
    before = accounts.accounts_version(conn)
    assert receive(conn, username="ada.l@site.example").identity_id == ada.identity_id
    assert accounts.accounts_version(conn) > before
    assert audit.tail(conn, 1)[0].detail["was"] == "ada@site.example"
    with pytest.raises(LoginRefused, match="belongs to somebody else"):
        receive(conn, username="bob@site.example")


def test_somebody_disabled_does_not_come_in(conn: Connection) -> None:
    ada = receive(conn)
    where = tables.identities.c.id == ada.identity_id
    conn.execute(update(tables.identities).where(where).values(disabled_at=NOW))
    with pytest.raises(LoginRefused, match="is disabled"):
        receive(conn)


def test_linked_identities_are_one_person_until_they_are_unlinked(conn: Connection) -> None:
    local = local_account(conn)
    ada = receive(conn)
    session = new_id()
    values = {"id": session, "cookie_hash": "x", "person_id": ada.person_id, "created_at": NOW, "expires_at": NOW + 9}
    conn.execute(insert(tables.auth_sessions).values(**values))
    assert oidc.link(conn, local, ada.person_id, NOBODY, NOW)
    assert not oidc.link(conn, local, local, NOBODY, NOW)
    mine = oidc.identities_of_person(conn, local)
    assert {each.username: (each.provider, each.has_password) for each in mine} == {
        "ada@local": (None, True),
        "ada@site.example": ("site", False),
    }
    assert receive(conn).person_id == local
    sessions = select(tables.auth_sessions.c.person_id, tables.auth_sessions.c.ended_at)
    assert tuple(conn.execute(sessions).one()) == (local, None)
    assert oidc.unlink(conn, local, ada.identity_id, NOBODY, NOW)
    assert [each.username for each in oidc.identities_of_person(conn, local)] == ["ada@local"]
    assert receive(conn).person_id == ada.identity_id
    assert conn.execute(sessions).one().ended_at == NOW
    assert actions(conn) == ["user.add", "user.link", "user.unlink"]


def test_the_identity_that_a_person_is_known_by_can_be_unlinked_too(conn: Connection) -> None:
    local, ada = local_account(conn), receive(conn)
    bob = receive(conn, subject="u-2", username="bob@site.example")
    oidc.link(conn, local, ada.person_id, NOBODY, NOW)
    oidc.link(conn, local, bob.person_id, NOBODY, NOW)
    assert oidc.unlink(conn, local, local, NOBODY, NOW)
    assert [each.username for each in oidc.identities_of_person(conn, local)] == ["ada@local"]
    rest = receive(conn).person_id
    assert {each.username for each in oidc.identities_of_person(conn, rest)} == {"ada@site.example", "bob@site.example"}


def test_nobody_unlinks_others_or_the_last(conn: Connection) -> None:
    local, ada = local_account(conn), receive(conn)
    assert not oidc.unlink(conn, local, ada.identity_id, NOBODY, NOW)
    assert not oidc.unlink(conn, local, local, NOBODY, NOW)


def test_an_app_is_asked_for_once_it_has_shown_that_it_has_the_secret(conn: Connection) -> None:
    account = local_account(conn)
    assert factors.factor_of(conn, account) == factors.Factor(is_confirmed=False, pending_secret=None, recovery_codes=0)
    secret = factors.begin_totp(conn, account, new_totp_secret())
    assert factors.begin_totp(conn, account, new_totp_secret()) == secret  # the page was shown again
    code = pyotp.TOTP(secret).at(NOW)
    assert factors.use_code(conn, account, code, NOW) is None  # not yet
    assert not factors.confirm_totp(conn, account, "000000", [], NOW)
    codes = new_recovery_codes()
    assert factors.confirm_totp(conn, account, code, [recovery_code_hash(each) for each in codes], NOW)
    assert factors.factor_of(conn, account) == factors.Factor(is_confirmed=True, pending_secret=None, recovery_codes=10)
    assert factors.use_code(conn, account, code, NOW) is None  # it has counted
    assert factors.use_code(conn, account, pyotp.TOTP(secret).at(NOW + STEP_S), NOW) == "app"
    assert factors.begin_totp(conn, account, other := new_totp_secret()) == other  # worth nothing:
    assert factors.use_code(conn, account, pyotp.TOTP(secret).at(NOW + 9 * STEP_S), NOW + 9 * STEP_S) == "app"


def test_a_recovery_code_counts_once_and_new_ones_replace_the_old(conn: Connection) -> None:
    account = local_account(conn)
    assert not factors.replace_recovery_codes(conn, account, ["x"])
    secret = factors.begin_totp(conn, account, new_totp_secret())
    codes = new_recovery_codes()
    assert factors.confirm_totp(
        conn, account, pyotp.TOTP(secret).at(NOW), [recovery_code_hash(each) for each in codes], NOW
    )
    assert factors.use_code(conn, account, codes[3].upper(), NOW) == "recovery"
    assert factors.use_code(conn, account, codes[3], NOW) is None
    assert factors.factor_of(conn, account) == factors.Factor(is_confirmed=True, pending_secret=None, recovery_codes=9)
    fresh = new_recovery_codes()
    assert factors.replace_recovery_codes(conn, account, [recovery_code_hash(each) for each in fresh])
    assert factors.use_code(conn, account, codes[4], NOW) is None
    assert factors.use_code(conn, account, fresh[4], NOW) == "recovery"
    assert factors.remove_totp(conn, account)
    assert factors.use_code(conn, account, fresh[5], NOW) is None
    assert not factors.remove_totp(conn, account)


def test_who_has_no_local_account_has_no_second_factor_here(conn: Connection) -> None:
    ada = receive(conn).identity_id
    assert factors.factor_of(conn, ada) is None
    assert factors.use_code(conn, ada, "000000", NOW) is None
    assert not factors.confirm_totp(conn, ada, "000000", [], NOW)
