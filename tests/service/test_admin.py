"""What operators see and do over HTTP."""

from __future__ import annotations

from typing import Any

from service_world import Caller, Play, Site

from farcall.service.audit.rules import NOBODY
from farcall.service.clients.rules import Client
from farcall.service.clients.store import add_client
from farcall.service.db.migrations import HEAD
from farcall.service.groups.store import add_group, add_member
from farcall.service.ids import new_id
from farcall.service.users.store import one_person


async def operator(site: Site) -> Caller:
    return await site.person("root@localhost", is_admin=True)


async def pages(who: Caller, path: str, members: str) -> list[Any]:
    """Everything that a listing has, two at a time."""
    found: list[Any] = []
    join, cursor = "&" if "?" in path else "?", ""
    while True:
        page = await who.ask("GET", f"/v3/admin/{path}{join}limit=2{cursor}")
        assert len(page[members]) <= 2
        found += page[members]
        if page["next_cursor"] is None:
            assert page.get("total", len(found)) == len(found)
            return found
        cursor = f"&cursor={page['next_cursor']}"


def test_accounts_are_listed_and_found(play: Play, store_url: str) -> None:
    async def story(site: Site) -> None:
        root = await operator(site)
        for name in ("ada", "bob", "cid"):
            await site.person(f"{name}@localhost")
        made = await root.ask(
            "POST", "/v3/admin/users", {"username": "Dora", "display_name": "Dora M.", "email": "d@example.org"}
        )
        assert made["user"]["username"] == "dora@local"
        await root.ask("POST", f"/v3/admin/users/{made['user']['id']}/disable")

        names = [each["username"] for each in await pages(root, "users", "users")]
        assert names == ["ada@localhost", "bob@localhost", "cid@localhost", "dora@local", "root@localhost"]
        for query, wanted in {
            "search=D@EXAMPLE": ["dora@local"],
            "search=m.": ["dora@local"],
            f"search={made['user']['id'].upper()}": ["dora@local"],
            "search=%25": [],
            "disabled=true": ["dora@local"],
            "disabled=false&search=d": ["ada@localhost", "cid@localhost"],
            "admin=true": ["root@localhost"],
            "kind=client": [],
        }.items():
            found = await pages(root, f"users?{query}", "users")
            assert [each["username"] for each in found] == wanted, query
        (ada,) = await pages(root, "users?search=ada", "users")
        assert (ada["last_login_at"], ada["is_admin"], ada["disabled_at"]) == (site.clock.now, False, None)

    play(story, store=store_url, local_domain="local")


def test_who_is_disabled_is_out_at_once_and_in_again_later(play: Play) -> None:
    async def story(site: Site) -> None:
        root, ada = await operator(site), await site.person("ada@localhost")
        await ada.ask("GET", "/v3/whoami")
        path = f"/v3/admin/users/{ada.identity.id}"
        assert (await root.ask("POST", f"{path}/disable"))["disabled_at"] == site.clock.now
        await ada.ask("GET", "/v3/whoami", status=401)
        assert (await root.ask("POST", f"{path}/enable"))["disabled_at"] is None
        again = await site.person("ada@localhost")
        await again.ask("GET", "/v3/whoami")
        await root.ask("POST", f"{path}/log-out")
        await again.ask("GET", "/v3/whoami", status=401)

    play(story)


def test_an_account_gets_a_password_for_one_login(play: Play) -> None:
    async def story(site: Site) -> None:
        root = await operator(site)
        made = await root.ask("POST", "/v3/admin/users", {"username": "dora"})
        path = f"/v3/admin/users/{made['user']['id']}"
        given = await root.ask("POST", f"{path}/reset-password")
        assert given["password"] != made["password"]
        account = await site.service.db.read(_account, made["user"]["id"])
        assert account.must_change
        for password, is_right in ((given["password"], True), (made["password"], False)):
            assert (await site.service.passwords.check(account.password_hash, password)).is_right is is_right
        await root.ask("POST", f"{path}/remove-factor", status=409)
        await root.ask("POST", "/v3/admin/users", {"username": "dora"}, status=409)
        await root.ask("POST", "/v3/admin/users", {"username": "no name"}, status=422)
        await root.ask("POST", f"/v3/admin/users/{new_id()}/disable", status=404)

    play(story)


def _account(conn: Any, identity_id: str) -> Any:
    from farcall.service.users.store import local_account_of

    return local_account_of(conn, identity_id)


def test_nobody_locks_themselves_out(play: Play) -> None:
    async def story(site: Site) -> None:
        root, ada = await operator(site), await site.person("ada@localhost")
        for action in ("disable", "revoke-admin", "reset-password"):
            answer = await root.ask("POST", f"/v3/admin/users/{root.identity.id}/{action}", status=409)
            assert "root@localhost" in answer["detail"]
        await root.ask("POST", f"/v3/admin/users/{ada.identity.id}/grant-admin")
        await ada.ask("POST", f"/v3/admin/users/{root.identity.id}/revoke-admin")
        await root.ask("GET", "/v3/admin/health", status=403)

    play(story)


def test_programs_and_groups_are_listed_and_a_program_is_revoked(play: Play, store_url: str) -> None:
    async def story(site: Site) -> None:
        root, db, now = await operator(site), site.service.db, site.clock.now
        clients = [
            Client(id=new_id(), name=name, is_confidential=True) for name in ("nightly", "Alpha", "beta", "beta")
        ]
        for client in clients:
            await db.write(add_client, client, "local", NOBODY)
        found = await pages(root, "clients", "clients")
        assert [each["name"] for each in found] == ["Alpha", "beta", "beta", "nightly"]
        done = await root.ask("POST", f"/v3/admin/clients/{clients[0].id}/revoke")
        assert done["revoked_at"] == now
        found = await pages(root, "clients?revoked=true", "clients")
        assert [each["client_id"] for each in found] == [clients[0].id]
        assert [each["name"] for each in await pages(root, "clients?search=ALPHA", "clients")] == ["Alpha"]

        for name in ("lab", "Chemists", "bio"):
            group = await db.write(add_group, name, f"About {name}", NOBODY, now)
        person = await db.read(one_person, root.identity.id, "")
        await db.write(add_member, group, person, "manager", NOBODY, now)
        groups = await pages(root, "groups", "groups")
        assert [each["name"] for each in groups] == ["bio", "Chemists", "lab"]
        assert groups[0]["members"] == [
            {"identity_id": root.identity.id, "username": "root@localhost", "role": "manager"}
        ]
        assert [each["name"] for each in await pages(root, "groups?search=about c", "groups")] == ["Chemists"]

    play(story, store=store_url)


def test_what_was_done_is_found_in_the_audit_table(play: Play, store_url: str) -> None:
    async def story(site: Site) -> None:
        root, ada = await operator(site), await site.person("ada@localhost")
        for action in ("disable", "enable", "grant-admin"):
            site.clock.now += 10
            await root.ask("POST", f"/v3/admin/users/{ada.identity.id}/{action}")
        at = site.clock.now
        entries = await pages(root, f"audit?object={ada.identity.id}", "entries")
        assert [each["action"] for each in entries][:3] == ["admin.grant", "user.enable", "user.disable"]
        assert [each["seq"] for each in entries] == sorted((each["seq"] for each in entries), reverse=True)
        assert (entries[0]["actor_name"], entries[0]["outcome"]) == ("root@localhost", "done")
        for query, wanted in {
            "action=user.&actor=ROOT@localhost": ["user.enable", "user.disable"],
            f"action=user.&actor={root.identity.id}&since={at - 10}": ["user.enable"],
            f"action=user.&actor={root.identity.id}&until={at - 10}": ["user.disable"],
            f"actor={root.identity.id}&outcome=refused": [],
            "action=user.disabl": [],
        }.items():
            assert [each["action"] for each in await pages(root, f"audit?{query}", "entries")] == wanted, query

    play(story, store=store_url)


def test_health_says_what_an_operator_on_call_asks_first(play: Play, store_url: str) -> None:
    async def story(site: Site) -> None:
        root = await operator(site)
        await root.endpoint(metadata={"endpoint_version": "1.2.3"})
        await root.endpoint(direct=False)
        await root.one_task()
        site.clock.now += 60
        found = await root.ask("GET", "/v3/admin/health")
        assert (found["ready"], found["faults"]) == (True, [])
        assert found["store"]["kind"] == store_url.partition(":")[0]
        assert (found["store"]["schema"], found["store"]["is_up"]) == (HEAD, True)
        assert found["store"]["size_bytes"] > 0
        assert found["broker"]["kind"] == "embedded"
        assert found["endpoints"] == {"direct": 2, "manager": 1, "user": 0}
        assert found["endpoint_versions"] == {"1.2.3": 1, "unknown": 2}
        assert found["tasks"] == {"received": 1}
        assert found["process"]["tasks_accepted"] == 1
        assert found["disk"]["free_bytes"] > 0
        assert found["users"] == 1

    play(story, store=store_url)
