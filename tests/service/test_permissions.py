"""docs/reference/permissions.md, tried cell by cell against a real store and broker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from policy_world import HTTPS, Person, group, guarded_endpoint, person, policy
from service_world import CODE, PAYLOAD, Play, Site
from sqlalchemy import update

from farcall.service import app as app_module
from farcall.service.accounts.authority import BrokerAuthority
from farcall.service.accounts.rules import broker_password, token_hash
from farcall.service.accounts.store import revoke_token
from farcall.service.audit.rules import NOBODY
from farcall.service.clients.rules import Client
from farcall.service.clients.store import add_client
from farcall.service.db.tables import local_accounts
from farcall.service.ids import new_id
from farcall.service.policies import rules, store
from farcall.service.users.store import add_user, set_admin
from farcall.wire.auth import COMPUTE_SCOPE, MANAGE_PROJECTS_SCOPE
from farcall.wire.topology import (
    HEARTBEATS,
    RESULTS,
    TASKS,
    BrokerUser,
    UserKind,
    group_queue,
    heartbeat_key,
    result_key,
    task_queue,
)

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "permissions.md").read_text()
AUTH_SCOPES = (
    MANAGE_PROJECTS_SCOPE,
    "openid",
    "profile",
    "email",
    "urn:globus:auth:scope:auth.globus.org:view_identities",
    "urn:globus:auth:scope:auth.globus.org:view_identity_set",
    "urn:globus:auth:scope:auth.globus.org:view_consents",
)
ROLES = ("owner", "other", "member", "admin", "operator")


def table(title: str) -> list[list[str]]:
    """The rows of the table in a section of the page, without its head."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


COMPUTE = table("Tasks, functions, endpoints")
LOGIN = table("Login, projects, policies")
OPEN = table("Without a bearer token")
BROKER = table("The message broker")


# --- what is tried


@dataclass
class World:
    """One of everything, made anew for each cell that may destroy it."""

    site: Site
    people: dict[str, Person]
    lab: str

    @property
    def owner(self) -> Person:
        return self.people["owner"]

    async def endpoint(self, **more: Any) -> str:
        """The owner's, with its admin, shared with the group."""
        endpoint_id = await self.owner.caller.endpoint(admins=[self.people["admin"].id], **more)
        await self.owner.caller.ask("PUT", f"/v3/endpoints/{endpoint_id}/shares", {"groups": [self.lab]})
        return endpoint_id

    async def guarded(self) -> str:
        admins = [self.people["admin"].id]
        wanted = await policy(self.owner, high_assurance=True)
        endpoint_id = await guarded_endpoint(self.owner, wanted, admins=admins)
        await self.owner.caller.ask("PUT", f"/v3/endpoints/{endpoint_id}/shares", {"groups": [self.lab]})
        return endpoint_id

    async def task(self) -> tuple[str, str]:
        """Task and group."""
        function_id = await self.owner.caller.function()
        answer = await self.owner.caller.submit(await self.owner.caller.endpoint(), function_id)
        return answer["tasks"][function_id][0], answer["task_group_id"]

    async def policy(self, *, of_site: bool = False) -> str:
        fields, me = rules.plan_policy(), self.owner.caller.identity
        if of_site:
            me = self.people["operator"].caller.identity
        db, now = self.site.service.db, self.site.clock.now
        made = await db.write(store.add_policy, new_id(), None, fields, me, NOBODY, now, of_site)
        return made.id


@dataclass(frozen=True)
class Try:
    """A request, and how to tell from a 200 whether what it is about is in the answer."""

    method: str
    path: str
    body: Any = None
    is_in: Callable[[Any], bool] = lambda _answer: True
    status: Callable[[Any], int] | None = None
    """The status of what it is about, where the answer's own says nothing."""
    of_endpoint: str | None = None
    """Id in the route's path."""


Prepare = Callable[[World, Person], Awaitable[Try]]
PREPARE: dict[tuple[str, str], Prepare] = {}


def prepares(route: str, what: str) -> Callable[[Prepare], Prepare]:
    def register(function: Prepare) -> Prepare:
        PREPARE[(route, what)] = function
        return function

    return register


def endpoint_body(**more: Any) -> dict[str, Any]:
    return {"endpoint_name": "here", "direct": True, "metadata": {}, **more}


def function_body(**more: Any) -> dict[str, Any]:
    return {"function_name": "triple", "function_code": CODE, **more}


SUBMIT = "POST /v3/endpoints/{endpoint_id}/submit"


def submission(endpoint_id: str, function_id: str, **more: Any) -> Try:
    return Try("POST", f"/v3/endpoints/{endpoint_id}/submit", {"tasks": {function_id: [PAYLOAD]}, **more})


@prepares(SUBMIT, "a function of one's own, at the endpoint")
async def _(world: World, who: Person) -> Try:
    return submission(await world.endpoint(), await who.caller.function())


@prepares(SUBMIT, "the function, at an endpoint of one's own")
async def _(world: World, who: Person) -> Try:
    return submission(await who.caller.endpoint(), await world.owner.caller.function(group=world.lab))


@prepares(SUBMIT, "a public function, at an endpoint of one's own")
async def _(world: World, who: Person) -> Try:
    return submission(await who.caller.endpoint(), await world.owner.caller.function(public=True))


@prepares(SUBMIT, "into the task group")
async def _(world: World, who: Person) -> Try:
    _, group_id = await world.task()
    return submission(await who.caller.endpoint(), await who.caller.function(), task_group_id=group_id)


@prepares("POST /v2/submit", "a function of one's own, at the endpoint; per task")
async def _(world: World, who: Person) -> Try:
    body = {"tasks": [[await who.caller.function(), await world.endpoint(), PAYLOAD]]}
    return Try("POST", "/v2/submit", body, status=lambda answer: int(answer["results"][0]["http_status_code"]))


@prepares("GET /v2/tasks/{task_id}", "the task")
async def _(world: World, who: Person) -> Try:
    return Try("GET", f"/v2/tasks/{(await world.task())[0]}")


@prepares("POST /v2/batch_status", "the task")
async def _(world: World, who: Person) -> Try:
    task_id, _ = await world.task()
    return Try("POST", "/v2/batch_status", {"task_ids": [task_id]}, lambda answer: task_id in answer["results"])


@prepares("GET /v2/taskgroup/{task_group_id}", "the task group")
async def _(world: World, who: Person) -> Try:
    return Try("GET", f"/v2/taskgroup/{(await world.task())[1]}")


@prepares("GET /v3/tasks", "the task")
async def _(world: World, who: Person) -> Try:
    task_id, _ = await world.task()
    return Try("", "", None, lambda answer: task_id in [each["task_id"] for each in answer["tasks"]])


@prepares("GET /v3/tasks/{task_id}", "the task")
async def _(world: World, who: Person) -> Try:
    return Try("", f"/v3/tasks/{(await world.task())[0]}")


@prepares("POST /v3/tasks/{task_id}/cancel", "the task")
async def _(world: World, who: Person) -> Try:
    return Try("POST", f"/v3/tasks/{(await world.task())[0]}/cancel")


@prepares("POST /v3/functions", "one's own")
@prepares("POST /v2/functions", "one's own")
async def _(world: World, who: Person) -> Try:
    return Try("POST", "/v3/functions", function_body())


@prepares("POST /v3/functions", "for the group")
async def _(world: World, who: Person) -> Try:
    return Try("POST", "/v3/functions", function_body(group=world.lab))


@prepares("POST /v3/functions", "for the high-assurance endpoint")
async def _(world: World, who: Person) -> Try:
    return Try("POST", "/v3/functions", function_body(ha_endpoint_id=await world.guarded()))


@prepares("GET /v3/functions", "the function, among one's own")
async def _(world: World, who: Person) -> Try:
    function_id = await world.owner.caller.function(group=world.lab)
    return Try("", "", None, lambda answer: function_id in [each["function_id"] for each in answer["functions"]])


@prepares("GET /v3/functions", "the function, among what others share")
async def _(world: World, who: Person) -> Try:
    function_id = await world.owner.caller.function(group=world.lab)
    path = "/v3/functions?role=shared"
    return Try("", path, None, lambda answer: function_id in [each["function_id"] for each in answer["functions"]])


@prepares("GET /v3/functions/{function_id}", "the function")
async def _(world: World, who: Person) -> Try:
    return Try("", f"/v3/functions/{await world.owner.caller.function(group=world.lab)}")


@prepares("GET /v2/functions/{function_id}", "the function")
@prepares("DELETE /v2/functions/{function_id}", "the function")
async def _(world: World, who: Person) -> Try:
    return Try("", f"/v2/functions/{await world.owner.caller.function(group=world.lab)}")


@prepares("POST /v3/endpoints", "one's own")
@prepares("POST /v2/endpoints", "one's own")
async def _(world: World, who: Person) -> Try:
    return Try("", "", endpoint_body())


@prepares("POST /v3/endpoints", "with the policy")
async def _(world: World, who: Person) -> Try:
    return Try("", "", endpoint_body(authentication_policy=await world.policy()))


@prepares("GET /v2/endpoints", "the endpoint, among all")
async def _(world: World, who: Person) -> Try:
    endpoint_id = await world.endpoint()
    return Try("", "/v2/endpoints?role=any", None, lambda answer: endpoint_id in [each["uuid"] for each in answer])


@prepares("GET /v3/endpoints", "the endpoint, among all")
async def _(world: World, who: Person) -> Try:
    endpoint_id = await world.endpoint()
    return Try("", "", None, lambda answer: endpoint_id in [each["endpoint_id"] for each in answer["endpoints"]])


@prepares("GET /v2/endpoints/{endpoint_id}", "a public endpoint")
async def _(world: World, who: Person) -> Try:
    return Try("", f"/v2/endpoints/{await world.endpoint(public=True)}")


async def _user_endpoint(world: World, who: Person) -> str:
    """Of `who`, at a manager of the owner's."""
    metadata = {"commands": ["cmd_start_endpoint", "cmd_stop_user_endpoint"]}
    manager_id = await world.endpoint(direct=False, multi_user=True, public=True, metadata=metadata)
    await who.caller.submit(manager_id, await who.caller.function())
    answer = await who.caller.ask("GET", f"/v3/endpoints?manager_id={manager_id}")
    return str(answer["endpoints"][0]["endpoint_id"])


@prepares("GET /v3/endpoints/{endpoint_id}/console", "another's user endpoint, at the endpoint")
@prepares("POST /v3/endpoints/{endpoint_id}/stop", "another's user endpoint, at the endpoint")
async def _(world: World, who: Person) -> Try:
    guest = await person(world.site, f"{new_id()}@example.org", scopes=(COMPUTE_SCOPE,))
    return Try("", "", of_endpoint=await _user_endpoint(world, guest))


@prepares("POST /v3/endpoints/{endpoint_id}/stop", "one's own user endpoint")
async def _(world: World, who: Person) -> Try:
    return Try("", "", of_endpoint=await _user_endpoint(world, who))


_ENDPOINT_BODIES: dict[str, Callable[[World], Any]] = {
    "PUT /v3/endpoints/{endpoint_id}": lambda world: endpoint_body(admins=[world.people["admin"].id]),
    "PUT /v3/endpoints/{endpoint_id}/subscription-admin-verified": lambda world: {"subscription_admin_verified": True},
    "PUT /v3/endpoints/{endpoint_id}/shares": lambda world: {"identities": [world.people["other"].id]},
}


def _of_endpoint(route: str) -> Prepare:
    async def prepare(world: World, who: Person) -> Try:
        body = _ENDPOINT_BODIES.get(route, lambda world: None)(world)
        return Try("", route.split()[1].replace("{endpoint_id}", await world.endpoint()), body)

    return prepare


for _route in {row[0] for row in COMPUTE if row[1] == "the endpoint"}:
    PREPARE[(_route, "the endpoint")] = _of_endpoint(_route)


@prepares("GET /v3/policies", "the policy")
@prepares("GET /v2/api/policies", "the policy")
async def _(world: World, who: Person) -> Try:
    policy_id = await world.policy()
    return Try("", "", None, lambda answer: policy_id in [each["id"] for each in answer["policies"]])


@prepares("POST /v3/policies", "one's own")
async def _(world: World, who: Person) -> Try:
    return Try("", "", {"display_name": "Mine"})


@prepares("POST /v3/policies", "of the whole site")
async def _(world: World, who: Person) -> Try:
    return Try("", "", {"display_name": "All", "of_site": True})


def _of_policy(route: str, *, of_site: bool) -> Prepare:
    body: Any = None
    if route.startswith("PUT"):
        body = {"display_name": "Changed"}
        body = {"policy": body} if "/v2/" in route else body

    async def prepare(world: World, who: Person) -> Try:
        policy_id = await world.policy(of_site=of_site)
        return Try("", route.split()[1].replace("{policy_id}", policy_id), body)

    return prepare


for _route, _what in {(row[0], row[1]) for row in COMPUTE + LOGIN if "{policy_id}" in row[0]}:
    PREPARE[(_route, _what)] = _of_policy(_route, of_site=_what != "the policy")


@prepares("GET /v3/usage", "one's own task")
async def _(world: World, who: Person) -> Try:
    task_id, _ = await world.task()
    await world.owner.caller.ask("POST", f"/v3/tasks/{task_id}/cancel")
    return Try("", "", None, lambda answer: bool(answer["rows"]))


@prepares("GET /v3/usage", "of everybody at the endpoint")
async def _(world: World, who: Person) -> Try:
    return Try("", f"/v3/usage?scope=endpoint&endpoint_id={await world.endpoint()}")


@prepares("GET /v3/usage", "of the whole service")
async def _(world: World, who: Person) -> Try:
    return Try("", "/v3/usage?scope=all")


@prepares("GET /v2/authenticate", "oneself")
@prepares("GET /v2/whoami", "oneself")
@prepares("GET /v3/whoami", "oneself")
@prepares("POST /v3/logout", "oneself")
@prepares("GET /v2/get_amqp_result_connection_url", "oneself")
@prepares("GET /v2/oauth2/userinfo", "oneself")
@prepares("POST /v2/oauth2/userinfo", "oneself")
@prepares("GET /v3/service", "the service")
@prepares("GET /v3/admin/users", "the service")
@prepares("GET /v3/admin/clients", "the service")
@prepares("GET /v3/admin/groups", "the service")
@prepares("GET /v3/admin/audit", "the service")
@prepares("GET /v3/admin/health", "the service")
@prepares("POST /v3/login-links", "the service")
async def _(world: World, who: Person) -> Try:
    return Try("", "")


@prepares("POST /v3/admin/users", "an account")
async def _(world: World, who: Person) -> Try:
    return Try("", "", {"username": f"new{len(who.id)}-{new_id()[-12:]}"})


def _of_account(route: str) -> Prepare:
    async def prepare(world: World, who: Person) -> Try:
        """A local account that an operator has just made an administrator, with a second factor."""
        db, now = world.site.service.db, world.site.clock.now
        name = f"{new_id()}@local"
        details = {"display_name": None, "email": None, "organization": None}
        made = await db.write(
            lambda conn: add_user(conn, name, "hash", must_change=False, actor=NOBODY, now=now, **details)
        )
        await db.write(lambda conn: set_admin(conn, made.id, True, actor=NOBODY, now=now))
        await db.write(_give_factor, made.id)
        return Try("", route.split()[1].replace("{identity_id}", made.id))

    return prepare


def _give_factor(conn: Any, identity_id: str) -> None:
    values = {"totp_secret": "A" * 32, "totp_confirmed_at": 1.0}
    conn.execute(update(local_accounts).where(local_accounts.c.identity_id == identity_id).values(**values))


for _route in {row[0] for row in COMPUTE if row[1] == "another's account"}:
    PREPARE[(_route, "another's account")] = _of_account(_route)


@prepares("POST /v3/admin/clients/{client_id}/revoke", "a program")
async def _(world: World, who: Person) -> Try:
    client = Client(id=new_id(), name="nightly", is_confidential=True, secret_hash="0" * 64)
    await world.site.service.db.write(add_client, client, "local", NOBODY)
    return Try("", f"/v3/admin/clients/{client.id}/revoke")


@prepares("GET /v2/api/projects", "the project")
async def _(world: World, who: Person) -> Try:
    project_id = await _project(world)
    return Try("", "", None, lambda answer: project_id in [each["id"] for each in answer["projects"]])


@prepares("POST /v2/api/projects", "one's own")
async def _(world: World, who: Person) -> Try:
    return Try("", "", {"project": {"display_name": "Mine", "contact_email": "a@b.c", "admin_ids": [who.id]}})


@prepares("POST /v2/api/policies", "of the project")
async def _(world: World, who: Person) -> Try:
    return Try("", "", {"policy": {"project_id": await _project(world), "display_name": "Staff"}})


@prepares("GET /v2/api/identities", "anybody, by name")
async def _(world: World, who: Person) -> Try:
    return Try("", "/v2/api/identities?usernames=owner@example.org")


@prepares("GET /v2/api/identities/{identity_id}", "anybody")
async def _(world: World, who: Person) -> Try:
    return Try("", f"/v2/api/identities/{world.people['other'].id}")


@prepares("GET /v2/api/identities/{identity_id}/consents", "the owner's")
async def _(world: World, who: Person) -> Try:
    return Try("", f"/v2/api/identities/{world.owner.id}/consents")


async def _project(world: World) -> str:
    wanted = rules.plan_project(new_id(), display_name="P", contact_email=None, admin_ids=[world.owner.id], groups=[])
    await world.site.service.db.write(store.add_project, wanted, NOBODY, world.site.clock.now)
    return wanted.id


# --- trying


async def populated(site: Site, scopes: tuple[str, ...]) -> World:
    """People of all roles, whose tokens have these scopes."""
    lab = await group(site, "lab")
    people = {
        role: await person(
            site,
            f"{role}@example.org",
            scopes=scopes,
            member_of=[lab] if role in ("owner", "member") else [],
            is_admin=role == "operator",
        )
        for role in ROLES
    }
    return World(site, people, lab)


async def attempt(site: Site, route: str, wanted: Try, token: str | None) -> str:
    """What becomes of it, as a cell says it."""
    method, path = route.split(" ", 1)
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    path = path.replace("{endpoint_id}", wanted.of_endpoint or "{endpoint_id}")
    answer = await site.client.request(method, HTTPS + (wanted.path or path), headers=headers, json=wanted.body)
    if answer.status_code != 200:
        return str(answer.status_code)
    document = answer.json()
    if wanted.status is not None:
        return str(wanted.status(document))
    return "200" if wanted.is_in(document) else "none"


async def useless_tokens(site: Site, scopes: tuple[str, ...]) -> dict[str, str | None]:
    """Tokens that count for nobody."""
    expired = await person(site, "late@example.org", scopes=scopes, expires_in_s=10.0)
    revoked = await person(site, "gone@example.org", scopes=scopes)
    for each in (expired, revoked):  # both have been good, and are remembered as such
        path = "/v3/whoami" if COMPUTE_SCOPE in scopes else "/v2/oauth2/userinfo"
        await each.caller.ask("GET", path)
    site.clock.now += 11.0
    await site.service.db.write(revoke_token, token_hash(revoked.caller.token), site.clock.now)
    site.service.authenticator.forget(token_hash(revoked.caller.token))
    return {
        "anonymous": None,
        "unknown": "fc_" + "x" * 43,
        "expired": expired.caller.token,
        "revoked": revoked.caller.token,
    }


def rows() -> Iterator[Any]:
    for scopes, wrong, rows_ in (
        ((COMPUTE_SCOPE,), AUTH_SCOPES, COMPUTE),
        ((*AUTH_SCOPES, COMPUTE_SCOPE), (COMPUTE_SCOPE,), LOGIN),
    ):
        for row in rows_:
            yield pytest.param(scopes, wrong, row, id=f"{row[0]} {row[1]}".replace("/", "."))


@pytest.mark.parametrize(("scopes", "wrong", "row"), rows())
def test_a_route_answers_each_role_as_the_page_says(
    play: Play, scopes: tuple[str, ...], wrong: tuple[str, ...], row: list[str]
) -> None:
    route, what, *cells = row
    prepare = PREPARE[(route, what)]

    async def story(site: Site) -> None:
        world = await populated(site, scopes)
        found = []
        for role in ROLES:
            who = world.people[role]
            found.append(await attempt(site, route, await prepare(world, who), who.caller.token))
            site.service.authenticator.forget()
        if route != "POST /v3/logout":  # which the owner's token has not outlived
            stranger = await person(site, "wrong@example.org", scopes=wrong, person_id=world.owner.id)
            found.append(await attempt(site, route, await prepare(world, world.owner), stranger.caller.token))
        else:
            stranger = await person(site, "wrong@example.org", scopes=wrong)
            found.append(await attempt(site, route, Try("", ""), stranger.caller.token))
        owner = await person(site, "owner2@example.org", scopes=scopes, person_id=world.owner.id, member_of=[world.lab])
        again = World(site, {**world.people, "owner": owner}, world.lab)
        wanted = await prepare(again, owner)
        tokens = await useless_tokens(site, scopes)
        nobody = {name: await attempt(site, route, wanted, token) for name, token in tokens.items()}
        assert len(set(nobody.values())) == 1, nobody
        found.append(nobody["anonymous"])
        assert dict(zip((*ROLES, "wrong token", "nobody"), found, strict=True)) == dict(
            zip((*ROLES, "wrong token", "nobody"), cells, strict=True)
        )

    play(story, amqp_advertised_scheme="amqps")


@pytest.mark.parametrize("row", OPEN, ids=lambda row: row[0].replace("/", "."))
def test_a_route_without_tokens_answers_an_empty_request_as_the_page_says(play: Play, row: list[str]) -> None:
    route, status, _ = row

    async def story(site: Site) -> None:
        method, path = route.split(" ", 1)
        method, path = method.replace("ANY", "GET"), path.replace("{rest}", "/any")
        form = {"a": "b"} if method == "POST" else None
        assert str((await site.client.request(method, path, data=form)).status_code) == status
        ada = await person(site, "ada@example.org")
        headers = {"authorization": f"Bearer {ada.caller.token}"}
        assert str((await site.client.request(method, path, headers=headers, data=form)).status_code) == status

    play(story, metrics_access="open")


def test_the_page_has_every_route_and_no_other() -> None:
    routes = {"GET /"}
    for part in app_module._PARTS:
        for route in part.router.routes:
            methods, path = route.methods - {"HEAD"}, route.path.replace(":path", "")
            routes |= {f"ANY {path}"} if len(methods) > 2 else {f"{method} {path}" for method in methods}
    assert {row[0] for row in COMPUTE + LOGIN + OPEN} == routes


# --- the broker


def _actions(endpoint_id: str, owner_id: str) -> dict[str, Callable[[BrokerAuthority, Any], bool]]:
    group_id = new_id()
    shared = group_queue(owner_id, group_id)
    key = result_key(endpoint_id)
    return {
        "read the endpoint's tasks": lambda a, p: a.allows(p, "read", "queue", task_queue(endpoint_id)),
        "publish a result of the endpoint": lambda a, p: (
            a.allows(p, "write", "exchange", RESULTS) and a.allows_routing_key(p, RESULTS, key)
        ),
        "publish a report of the endpoint": lambda a, p: (
            a.allows(p, "write", "exchange", HEARTBEATS)
            and a.allows_routing_key(p, HEARTBEATS, heartbeat_key(endpoint_id))
        ),
        "read the results of the owner's task group": lambda a, p: a.allows(p, "read", "queue", shared),
        "read them through a queue of one's own": lambda a, p: a.allows(p, "read", "queue", f"{shared}.reader"),
        "read all results": lambda a, p: a.allows(p, "read", "queue", RESULTS),
        "publish a task to the endpoint": lambda a, p: any(
            a.allows(p, "write", "exchange", exchange) and a.allows_routing_key(p, exchange, task_queue(endpoint_id))
            for exchange in ("", TASKS, RESULTS)
        ),
        "publish a result to the task group": lambda a, p: any(
            a.allows(p, "write", "exchange", exchange) and a.allows_routing_key(p, exchange, shared)
            for exchange in ("", "groups", RESULTS)
        ),
        "declare a queue": lambda a, p: any(
            a.allows(p, "configure", "queue", name) for name in (shared, task_queue(endpoint_id), "mine", "")
        ),
    }


@pytest.mark.parametrize("row", BROKER, ids=lambda row: row[0])
def test_a_broker_login_reaches_what_the_page_says(play: Play, row: list[str]) -> None:
    what, *cells = row

    async def story(site: Site) -> None:
        ada, bob = await person(site, "ada@example.org"), await person(site, "bob@example.org")
        mine, others = await ada.caller.endpoint(), await bob.caller.endpoint()
        over = await ada.caller.endpoint()
        await ada.caller.ask("POST", f"/v3/endpoints/{over}/lock")
        secret, db = site.service.secret, site.service.db
        authority = BrokerAuthority(db, secret, lambda queue: None)
        logins = {
            "own": BrokerUser(kind=UserKind.ENDPOINT, id=mine, generation=1),
            "another": BrokerUser(kind=UserKind.ENDPOINT, id=others, generation=1),
            "owner": BrokerUser(kind=UserKind.SDK, id=ada.id, generation=1),
            "other": BrokerUser(kind=UserKind.SDK, id=bob.id, generation=1),
            "over": BrokerUser(kind=UserKind.ENDPOINT, id=over, generation=1),
        }
        action = _actions(mine, ada.id)[what]
        found = {}
        for name, login in logins.items():
            principal = await authority.authenticate(login.name, broker_password(secret, login))
            assert await authority.authenticate(login.name, "wrong") is None
            found[name] = "yes" if principal is not None and action(authority, principal) else "no"
        assert found == dict(zip(logins, cells, strict=True))

    play(story)
