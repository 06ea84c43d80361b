"""The scene with something on every page: in plain words for pictures, or in hostile ones for the injection tests.

`populated` fills it; `stops` are the pages, with who looks and a text that must be seen there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from scene import ConsoleScene, Manager, RealEndpoint
from service_world import Rest

from farcall.service.audit.rules import operator
from farcall.service.clients.rules import Client
from farcall.service.clients.store import add_client
from farcall.service.groups.store import add_group, add_member
from farcall.service.ids import new_id
from farcall.service.users.store import one_person

__all__ = ["HOSTILE", "PLAIN", "Stage", "Stop", "Words", "populated", "stops"]


@dataclass(frozen=True, kw_only=True)
class Words:
    """What people write into the fields that are theirs.

    Attributes:
        config: of an endpoint, YAML with comments.
        error: what a function of theirs raises.
    """

    endpoint: str
    manager: str
    description: str
    config: str
    option: str
    flag: str
    function: str
    error: str
    policy: str
    account: str
    queue: str
    person: str


PLAIN = Words(
    endpoint="Lab workstation",
    manager="Cluster North",
    description="Two partitions, Slurm, 64 nodes. Ask hpc@example.org for an account.",
    config="# Threads in one process: for short functions.\nengine:\n  type: ThreadPoolEngine\n  max_workers: 2\n",
    option="Scheduler account that the job is charged to",
    flag="exclusive",
    function="triple",
    error="The input has 3 columns, 4 were expected",
    policy="Staff and guests",
    account="phys-042",
    queue="short",
    person="Carol Danvers",
)

_MARKUP = (
    "<img src=x onerror=\"window.__hit='img'\"><script>window.__hit='script'</script></script></textarea>"
    "{{ window.__hit = 'vue' }} ${window.__hit='template'} `\u202etxt\u202c' \" &lt;b&gt; "
    "javascript:window.__hit=1"
)
HOSTILE = Words(
    endpoint=f"ep {_MARKUP}"[:120],
    manager=f"mu {_MARKUP}"[:120],
    description=f"about {_MARKUP}",
    config=f"# {_MARKUP}\nengine:\n  type: ThreadPoolEngine\n  max_workers: 2\n",
    option=f"option {_MARKUP}",
    flag="flag<img src=x onerror=window.__hit='flag'>{{window.__hit='flag'}}",
    function="fn <img src=x onerror=window.__hit='fn'> {{ window.__hit = 'fn' }}",
    error=f"failed {_MARKUP}",
    policy=f"policy {_MARKUP}"[:120],
    account="acc<img src=x onerror=window.__hit='acc'>{{window.__hit='acc'}}",
    queue="q<svg onload=window.__hit='q'>${window.__hit='q'}",
    person=f"somebody {_MARKUP}"[:120],
)
"""Every way that a text has become a script somewhere: markup, Vue's and JavaScript's templates, the end of a script,
an address with a script, and characters that turn the line round."""


@dataclass
class Stage:
    """What there is.

    Attributes:
        ada: owns everything; bob: a user of the manager; ops: an operator.
    """

    scene: ConsoleScene
    words: Words
    people: dict[str, Rest]
    endpoint: RealEndpoint
    manager: Manager
    ids: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A page of the tour.

    Attributes:
        name: of its picture.
        who: whose login.
        says: what must be seen there, besides the heading.
    """

    name: str
    path: str
    who: str
    heading: str
    says: tuple[str, ...] = ()


def populated(scene: ConsoleScene, words: Words) -> Stage:
    """People, endpoints that are online, functions, tasks that ended either way, a policy."""
    people = {name: scene.person(name, is_operator=name == "ops") for name in ("ada", "bob", "ops")}
    ada, bob = people["ada"], people["bob"]
    endpoint = scene.real_endpoint(ada, "workstation", display_name=words.endpoint, config=words.config)
    policy = _policy(ada, words)
    schema = {
        "type": "object",
        "required": ["account"],
        "properties": {
            "account": {"type": "string", "description": words.option},
            "partition": {"enum": ["short", "long", words.queue]},
            "nodes": {"type": "integer", "minimum": 1, "maximum": 64, "default": 1},
            words.flag: {"type": "boolean", "description": "No other job on the same nodes"},
        },
    }
    manager = Manager(
        scene,
        ada,
        "north",
        display_name=words.manager,
        description=words.description,
        metadata={
            "hostname": "login1.example.org",
            "ip_address": "192.0.2.7",
            "local_user": "root",
            "endpoint_config": words.config,
            "user_config_template": f"# {words.description}\nengine:\n  account: {{{{ account }}}}\n",
            "user_config_schema": schema,
        },
    )
    stage = Stage(
        scene, words, people, endpoint, manager, {"policy": policy, "endpoint": endpoint.id, "manager": manager.id}
    )
    _work(stage)
    _user_endpoints(stage, bob)
    _accounts(stage)
    return stage


def stops(stage: Stage) -> Sequence[Stop]:
    """Every page that there is, in the order of the navigation."""
    words, ids = stage.words, stage.ids
    console = f"/console/compute/{ids['manager']}"
    return [
        Stop(name="compute", path="/compute", who="ada", heading="Compute", says=(words.endpoint, words.manager)),
        Stop(
            name="endpoint",
            path=f"/compute/endpoints/{ids['endpoint']}",
            who="ada",
            heading=words.endpoint,
            says=("Idle workers", "Use it from Python"),
        ),
        Stop(
            name="endpoint-multi-user",
            path=f"/compute/endpoints/{ids['manager']}",
            who="ada",
            heading=words.manager,
            says=(words.option,),
        ),
        Stop(name="tasks", path="/tasks", who="ada", heading="Tasks", says=(words.function,)),
        Stop(name="task", path=f"/tasks/{ids['failed']}", who="ada", heading="Task", says=(words.error,)),
        Stop(name="functions", path="/functions", who="ada", heading="Functions", says=(words.function,)),
        Stop(name="function", path=f"/functions/{ids['function']}", who="ada", heading=words.function),
        Stop(name="console-pick", path="/console/compute", who="ada", heading="Console", says=(words.manager,)),
        Stop(name="console", path=console, who="ada", heading="Console", says=(words.account, words.queue)),
        Stop(name="user-endpoint", path=f"{console}/{ids['user_endpoint']}", who="ada", heading="User endpoint"),
        Stop(name="policies", path="/policies", who="ada", heading="Policies", says=(words.policy,)),
        Stop(name="policy", path=f"/policies/{ids['policy']}", who="ada", heading="Edit Policy Details"),
        Stop(name="policy-new", path="/policies/new", who="ada", heading="Create Policy"),
        Stop(name="usage", path="/usage?by=function", who="ada", heading="Usage", says=(words.function,)),
        *_operator_stops(),
        Stop(
            name="operator-user",
            path=f"/operator/users/{ids['user']}",
            who="ops",
            heading="carol",
            says=(words.person,),
        ),
        Stop(name="operator-client", path=f"/operator/clients/{ids['client']}", who="ops", heading=words.person),
    ]


def _operator_stops() -> list[Stop]:
    from farcall.console.pages import all_pages

    pages = [each for each in all_pages() if each.operators_only and "{" not in each.path]
    return [
        Stop(name=each.path.strip("/").replace("/", "-"), path=each.path, who="ops", heading=each.title)
        for each in pages
    ]


def _accounts(stage: Stage) -> None:
    """Somebody, a group and a program, whose names are theirs to choose; and what the audit log says of that."""
    told = stage.words.person
    ops, now = stage.people["ops"], time.time()
    wanted = {"username": "carol", "display_name": told, "email": told, "organization": told}
    stage.ids["user"] = ops.ask("POST", "/v3/admin/users", wanted)["user"]["id"]
    client = Client(
        id=new_id(), name=told, is_confidential=True, redirect_uris=("https://app.example.org/back",), created_at=now
    )
    stage.ids["client"] = client.id

    def make(conn: Any) -> None:
        add_client(conn, client, "local", operator(told))
        group = add_group(conn, "lab", told, operator(told), now)
        add_member(conn, group, one_person(conn, "bob", "local"), "manager", operator(told), now)

    stage.scene.thread.call(lambda service: service.db.write(make))


def _policy(who: Rest, words: Words) -> str:
    document = {
        "display_name": words.policy,
        "description": words.description,
        "domain_constraints_include": ["example.org", "*.example.edu"],
        "authentication_assurance_timeout": 3600,
    }
    return str(who.ask("POST", "/v3/policies", document)["id"])


def _work(stage: Stage) -> None:
    """Tasks of a real endpoint: some succeed, one fails."""
    ada, words = stage.people["ada"], stage.words
    with stage.scene.executor(ada, stage.endpoint.id) as executor:
        good = [executor.submit(_named(lambda number: 3 * number, words.function), n) for n in range(5)]
        bad = executor.submit(_failing(words), 1)
        assert [each.result(60) for each in good] == [0, 3, 6, 9, 12]
        assert bad.exception(60) is not None
        stage.ids["failed"] = str(bad.task_id)
    found = ada.ask("GET", "/v3/functions?role=mine")["functions"]
    stage.ids["function"] = next(each["function_id"] for each in found if each["name"] == words.function)


def _named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    function.__name__ = name
    return function


def _failing(words: Words) -> Callable[[int], None]:
    text = words.error

    def check(_number: int) -> None:
        raise ValueError(text)

    return check


def _user_endpoints(stage: Stage, bob: Rest) -> None:
    """Two user endpoints of the manager, which report."""
    function_id = bob.function()
    now = time.time()
    for pid, busy, total in ((24303, 6, 8), (24310, 0, 4)):
        agent = stage.manager.user_endpoint(bob, function_id, {"account": stage.words.account, "nodes": total})
        agent.report(
            posix_pid=pid, posix_username="bob", account=stage.words.account, queue=stage.words.queue, active=True,
            total_workers=total, idle_workers=total - busy, managers=1, start_unix=now - 3600, total_tasks=busy + 40,
            running_tasks=busy, pending_tasks=2, outstanding_tasks=busy + 2, engine_type="GlobusComputeEngine",
            provider_type="SlurmProvider", config_raw=yaml.safe_dump({"note": stage.words.description}),
        )  # fmt: skip
        stage.ids.setdefault("user_endpoint", agent.id)
