"""The scene with something on every page: in plain words for pictures, or in hostile ones for the injection tests.

`populated` fills it; `stops` are the pages, with who looks and a text that must be seen there.
"""

from __future__ import annotations

import math
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
from farcall.service.db.tables import usage
from farcall.service.groups.store import add_group, add_member
from farcall.service.history.rules import Entry
from farcall.service.history.store import add_entries
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
    _past(stage)
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
    triple = _named(lambda number: 3 * number, words.function)
    with stage.scene.executor(ada, stage.endpoint.id) as executor:
        good = [executor.submit(triple, n) for n in range(5)]
        bad = executor.submit(_failing(words), 1)
        assert [each.result(60) for each in good] == [0, 3, 6, 9, 12]
        assert bad.exception(60) is not None
        stage.ids["failed"] = str(bad.task_id)
    found = ada.ask("GET", "/v3/functions?role=mine")["functions"]
    stage.ids["function"] = next(each["function_id"] for each in found if each["name"] == words.function)


def _rendered(words: Words, nodes: int) -> str:
    """A configuration as a manager's template makes it."""
    provider = {
        "type": "SlurmProvider",
        "account": words.account,
        "partition": words.queue,
        "nodes_per_block": nodes,
        "init_blocks": 0,
        "max_blocks": 4,
        "walltime": "02:00:00",
    }
    engine = {"type": "GlobusComputeEngine", "max_workers_per_node": 8, "provider": provider}
    document = {"display_name": words.description, "engine": engine, "idle_heartbeats_soft": 120}
    return f"# {words.manager}: {nodes} nodes\n" + yaml.safe_dump(document, sort_keys=False)


def _past(stage: Stage) -> None:
    """An hour at the endpoints, and some weeks of usage."""
    now = time.time()
    minute, today = int(now // 60), int(now // 86400)
    ids, owner = stage.ids, stage.people["ada"].identity.id
    entries = []
    for back in range(75, 1, -1):
        busy = round(4 + 3.5 * math.sin(back / 7) + math.sin(back))
        for endpoint_id, workers in ((ids["endpoint"], 8), (ids["user_endpoint"], 8)):
            busy = min(max(busy, 0), workers)
            gauges = (workers, workers - busy, busy + back % 3, back % 3)
            entries.append(
                Entry(
                    endpoint_id=endpoint_id,
                    at=60 * (minute - back),
                    is_online=True,
                    gauges=gauges,
                    submitted=busy,
                    succeeded=max(0, busy - (back % 11 == 0)),
                    failed=int(back % 11 == 0),
                )
            )
    functions = [each["function_id"] for each in stage.people["ada"].ask("GET", "/v3/functions?role=mine")["functions"]]
    rows = [
        {
            "day": today - back,
            "owner_id": owner,
            "endpoint_id": ids["endpoint"],
            "function_id": function_id,
            "succeeded": round(60 + 40 * math.sin(back / 3 + place)) * (1 if (today - back) % 7 not in (2, 3) else 0),
            "failed": back % 5,
            "cancelled": 0,
            "run_s": 12.5 * back,
            "last_at": 86400.0 * (today - back),
        }
        for back in range(1, 25)
        for place, function_id in enumerate(functions)
    ]

    def keep(conn: Any) -> None:
        add_entries(conn, entries)
        conn.execute(usage.insert(), rows)

    stage.scene.thread.call(lambda service: service.db.write(keep))


def _named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    function.__name__ = name
    return function


def _failing(words: Words) -> Callable[[int], None]:
    text = words.error

    def check(_number: int) -> None:
        raise ValueError(text)

    check.__code__ = check.__code__.replace(co_filename="/home/ada/columns.py")  # no path of this machine in pictures
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
            provider_type="SlurmProvider", config_raw=_rendered(stage.words, total),
        )  # fmt: skip
        stage.ids.setdefault("user_endpoint", agent.id)
