"""The operator's commands about people, on the store itself: alone, beside a service, and in each other's way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from service_world import Play, Site
from sqlalchemy import Connection, insert, select, text, update

from farcall.service.accounts.store import accounts_version, bump_accounts_version, cuts_after
from farcall.service.audit.rules import operator
from farcall.service.clients.rules import Client, is_redirect_allowed, is_secret, new_secret, secret_hash
from farcall.service.db.administer import SchemaMissing, administer
from farcall.service.db.engine import make_engine
from farcall.service.db.tables import counters, settings
from farcall.service.db.upkeep import upgrade_store
from farcall.service.groups.rules import group_name
from farcall.service.groups.store import add_group, add_member, list_groups, one_group, remove_member
from farcall.service.users.store import add_user, find_people, one_person, set_admin, set_disabled
from farcall.wire.auth import CLIENT_ID, OFFICIAL_CLIENT_ID
from farcall.wire.errors import Conflict, InvalidRequest, NotFound

ME = operator("test")
NOW = 1_700_000_000.0


class Commands:
    """`farcall-service` on a data directory of its own."""

    def __init__(self, root: Path) -> None:
        self.data_dir = root / "data"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("FARCALL_")} | {"COLUMNS": "200"}

    def run(self, *args: str, status: int = 0, given: str = "") -> str:
        command = [str(Path(sys.executable).parent / "farcall-service"), *args, "--data-dir", str(self.data_dir)]
        done = subprocess.run(command, env=self.env, input=given, capture_output=True, text=True, timeout=120)
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        return done.stdout + (done.stderr if status else "")

    def ask(self, *args: str, **more: Any) -> Any:
        return json.loads(self.run(*args, "--json", **more))


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Commands:
    return Commands(tmp_path_factory.mktemp("operator"))


# --- The commands


def test_accounts_are_made_before_the_first_start_and_their_password_is_shown_once(commands: Commands) -> None:
    made = commands.ask("user", "add", "ada", "--display-name", "Ada Lovelace")
    assert made["username"] == "ada@local"
    assert len(made["password"]) > 20
    assert made["must_change"] is True
    assert oct((commands.data_dir / "farcall.db").stat().st_mode)[-3:] == "600"
    listed = commands.run("user", "list", "--json")
    assert "Ada Lovelace" in listed
    assert made["password"] not in listed
    assert b"$argon2id$" in (commands.data_dir / "farcall.db").read_bytes()
    assert "already" in commands.run("user", "add", "Ada", status=1)


def test_a_password_can_come_from_standard_input_and_has_to_be_good(commands: Commands) -> None:
    made = commands.ask("user", "add", "grace", "--password-stdin", given="a compiler of my own\n")
    assert (made["password"], made["must_change"]) == (None, False)
    told = commands.run("user", "add", "alan", "--password-stdin", given="short\n", status=1)
    assert "12 characters" in told
    assert "short" not in told.replace("too short", "")


def test_a_client_is_told_its_secret_once(commands: Commands) -> None:
    made = commands.ask("client", "create", "nightly")
    assert set(made) >= {"client_id", "client_secret"}
    assert made["client_secret"] not in commands.run("client", "list", "--json")
    assert made["client_secret"].encode() not in (commands.data_dir / "farcall.db").read_bytes()
    assert commands.ask("client", "revoke", "nightly") == {"client_id": made["client_id"]}
    (found,) = commands.ask("client", "list")
    assert found["revoked_at"] is not None
    assert "clear text" in commands.run("client", "create", "web", "--redirect-uri", "http://x.example/", status=1)


def test_groups_and_administrators_are_changed_and_everything_is_recorded(commands: Commands) -> None:
    commands.run("user", "add", "mary")
    commands.run("user", "add", "joan")
    commands.run("group", "create", "The Lab")
    assert commands.ask("group", "add", "the lab", "mary", "joan")["added"] == ["mary@local", "joan@local"]
    assert commands.ask("group", "remove", "The Lab", "joan")["removed"] == ["joan@local"]
    (lab,) = commands.ask("group", "list")
    assert [each["username"] for each in lab["members"]] == ["mary@local"]
    commands.run("admin", "grant", "mary")
    assert [each["username"] for each in commands.ask("admin", "list")] == ["mary@local"]
    assert "only administrator" in commands.run("admin", "revoke", "mary", status=1)
    commands.run("user", "disable", "joan")
    assert "no user" in commands.run("user", "disable", "nobody", status=1)
    entries = [json.loads(line) for line in commands.run("audit", "tail", "-n", "3", "--json").splitlines()]
    assert [each["action"] for each in entries] == ["group.remove", "admin.grant", "user.disable"]
    assert all(each["actor_name"].startswith("operator:") for each in entries)
    exported = [json.loads(line) for line in commands.run("audit", "export").splitlines()]
    assert [each["seq"] for each in exported] == sorted(each["seq"] for each in exported)
    assert commands.run("audit", "tail", "--action", "group.").count("\n") == 4


# --- Beside others


def test_a_store_without_tables_is_told_and_no_file_is_made(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    with pytest.raises(SchemaMissing, match="farcall-service start"):
        administer(f"sqlite:///{path}", accounts_version)
    assert not path.exists()


def test_a_schema_of_an_older_release_is_left_to_the_operator(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    upgrade_store(url)
    with make_engine(url).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    with pytest.raises(SchemaMissing, match="0001.*migrate"):
        administer(url, accounts_version)


def test_what_is_refused_changes_nothing(store_url: str) -> None:
    upgrade_store(store_url)

    def change(conn: Connection) -> None:
        bump_accounts_version(conn)
        raise Conflict("no")

    with pytest.raises(Conflict):
        administer(store_url, change)
    assert administer(store_url, accounts_version) == 0


def test_a_command_waits_for_a_service_that_writes(store_url: str) -> None:
    """Both read first and write then, in the way of each other."""
    upgrade_store(store_url)
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        engine = make_engine(store_url)
        with engine.connect() as plain:
            connection = plain.execution_options(farcall_writes=True)
            with connection.begin():
                bump_accounts_version(connection)
                holding.set()
                done.wait(1.0)  # longer than a command waits for one lock
        engine.dispose()

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(30)
    seen: list[int] = []

    def change(conn: Connection) -> int:
        seen.append(accounts_version(conn))
        bump_accounts_version(conn)
        return accounts_version(conn)

    assert administer(store_url, change) == 2
    thread.join()
    assert seen


def test_a_service_that_read_before_a_command_wrote_can_still_write(play: Play) -> None:
    async def story(site: Site) -> None:
        url = site.service.settings.store_url
        started, go_on = threading.Event(), threading.Event()

        def unit(conn: Connection) -> int:
            conn.execute(select(settings.c.key)).all()
            started.set()
            go_on.wait(0.3)  # the command is waiting meanwhile, or it has been too early
            conn.execute(update(counters).where(counters.c.name == "accounts").values(value=counters.c.value + 1))
            return accounts_version(conn)

        def command() -> None:
            started.wait(30)
            administer(url, bump_accounts_version)
            go_on.set()

        thread = threading.Thread(target=command)
        thread.start()
        await site.service.db.write(unit)
        thread.join()
        assert await site.service.db.read(accounts_version) == 2

    play(story)


def test_a_change_by_a_command_is_seen_by_the_service(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        await ada.ask("GET", "/v3/whoami")
        cut: list[tuple[str, int]] = []
        site.service.relay.credential_revoked = lambda *given: cut.append(given)  # type: ignore[method-assign]
        endpoint_id = await ada.endpoint()
        stopped: list[str] = []
        site.service.relay.endpoint_locked = lambda *given: stopped.append(given[0])  # type: ignore[method-assign]

        def disable(conn: Connection) -> None:
            set_disabled(conn, ada.identity.id, True, actor=ME, now=site.clock.now)

        administer(site.service.settings.store_url, disable)
        await ada.ask("GET", "/v3/whoami")  # remembered
        await site.service.watch.look()
        assert "disabled" in (await ada.ask("GET", "/v3/whoami", status=401))["message"]
        assert cut == [(ada.identity.id, 2)]
        assert stopped == [endpoint_id]
        await site.service.watch.look()
        assert len(cut) == 1

    play(story)


# --- The store, on both databases


def in_store(store_url: str) -> Any:
    upgrade_store(store_url)
    return lambda run, *args, **more: administer(store_url, lambda conn: run(conn, *args, **more))


def make_user(conn: Connection, name: str) -> Any:
    return add_user(
        conn,
        f"{name}@local",
        "hash",
        must_change=False,
        display_name=None,
        email=None,
        organization=None,
        actor=ME,
        now=NOW,
    )


def test_people_and_groups_are_kept(store_url: str) -> None:
    do = in_store(store_url)
    ada, grace = do(make_user, "ada"), do(make_user, "grace")
    assert do(one_person, "ada", "local") == do(one_person, ada.id, "local") == do(one_person, "ADA@local", "x") == ada
    with pytest.raises(NotFound):
        do(one_person, "eve", "local")
    lab = do(add_group, "Lab", None, ME, NOW)
    with pytest.raises(Conflict):
        do(add_group, "lab", None, ME, NOW)
    assert do(add_member, lab, ada, "member", ME, NOW)
    assert not do(add_member, lab, ada, "member", ME, NOW)
    assert do(add_member, lab, ada, "manager", ME, NOW)
    assert do(add_member, lab, grace, "member", ME, NOW)
    assert [(each.username, each.role) for each in do(one_group, "LAB").members] == [
        ("ada@local", "manager"),
        ("grace@local", "member"),
    ]
    assert do(remove_member, lab, grace, ME, NOW)
    assert not do(remove_member, lab, grace, ME, NOW)
    assert [len(each.members) for each in do(list_groups)] == [1]


def test_the_last_administrator_cannot_be_lost(store_url: str) -> None:
    do = in_store(store_url)
    ada, grace = do(make_user, "ada"), do(make_user, "grace")
    do(set_admin, ada.id, True, actor=ME, now=NOW)
    with pytest.raises(Conflict, match="only administrator"):
        do(set_admin, ada.id, False, actor=ME, now=NOW)
    do(set_admin, grace.id, True, actor=ME, now=NOW)
    do(set_admin, ada.id, False, actor=ME, now=NOW)
    assert [each.is_admin for each in do(find_people, [ada.id, grace.id])] == [False, True]


def test_each_process_reads_every_cut_once(store_url: str) -> None:
    do = in_store(store_url)
    ada = do(make_user, "ada")
    seen, _ = do(cuts_after, -1)
    do(set_disabled, ada.id, True, actor=ME, now=NOW)
    version, cuts = do(cuts_after, seen)
    assert [(cut.id, cut.generation) for cut in cuts] == [(ada.id, 2)]
    assert do(cuts_after, version) == (version, ())


def test_a_key_of_the_settings_is_no_ones_to_overwrite(store_url: str) -> None:
    from farcall.service.oauth.store import ensure_signing_key

    do = in_store(store_url)
    assert do(ensure_signing_key, "one") == "one"
    assert do(ensure_signing_key, "two") == "one"
    do(lambda conn: conn.execute(insert(settings).values(key="other", value="x")))


# --- Rules


@pytest.mark.parametrize("name", ["", " ", "a" * 129, "-x", "a\nb\x00", "<b>"])
def test_what_no_group_can_be_called(name: str) -> None:
    with pytest.raises(InvalidRequest):
        group_name(name)


def test_a_secret_is_that_of_a_client_that_counts() -> None:
    secret = new_secret()
    client = Client(id="c", name="x", is_confidential=True, secret_hash=secret_hash(secret))
    assert is_secret(client, secret)
    assert not is_secret(client, secret + "x")
    assert not is_secret(None, secret)
    assert not is_secret(Client(id="c", name="x", is_confidential=False), "")
    revoked = Client(id="c", name="x", is_confidential=True, secret_hash=secret_hash(secret), revoked_at=1.0)
    assert not is_secret(revoked, secret)


NATIVE = Client(id=CLIENT_ID, name="Farcall", is_confidential=False)
OFFICIAL = Client(id=OFFICIAL_CLIENT_ID, name="official", is_confidential=False)
WEB = Client(id="w", name="web", is_confidential=True, redirect_uris=("https://web.example/back?x=1",))
PHONE = Client(id="p", name="phone", is_confidential=False, redirect_uris=("http://127.0.0.1/back",))


@pytest.mark.parametrize(
    ("client", "uri", "is_allowed"),
    [
        (NATIVE, "http://127.0.0.1:1234/anything", True),
        (NATIVE, "http://[::1]:1234/", True),
        (NATIVE, "http://localhost:1234/", True),
        (NATIVE, "https://127.0.0.1:1234/", False),
        (NATIVE, "http://10.0.0.1:1234/", False),
        (OFFICIAL, "http://here.example:5000/v2/web/auth-code", True),
        (OFFICIAL, "https://HERE.example:5000/v2/web/auth-code", True),
        (OFFICIAL, "http://here.example/v2/web/auth-code", False),
        (OFFICIAL, "http://here.example:5000/v2/web/auth-code/", False),
        (WEB, "https://web.example/back?x=1", True),
        (WEB, "https://web.example/back", False),
        (WEB, "https://web.example:444/back?x=1", False),
        (WEB, "http://here.example:5000/v2/web/auth-code", False),
        (PHONE, "http://127.0.0.1:9/back", True),
        (PHONE, "http://localhost:9/back", False),
        (PHONE, "http://127.0.0.1:9/other", False),
        (PHONE, "http://127.0.0.1:99999/back", False),
    ],
)
def test_where_people_may_be_sent(client: Client, uri: str, is_allowed: bool) -> None:
    assert is_redirect_allowed(client, uri, "here.example:5000") is is_allowed
