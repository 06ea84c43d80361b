"""The released clients and endpoints of the other ecosystem, unmodified, in all four pairings with ours."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from conversations import CONVERSATIONS, Recorder, told
from farcall.testing.processes import EndpointProcess, ProcessSystem, process_system
from farcall.wire.auth import COMPUTE_SCOPE, MANAGE_PROJECTS_SCOPE
from official import (
    GLOBUS_COMPUTE,
    THREADS,
    VERSION,
    Client,
    OfficialEndpoint,
    OfficialSide,
    OurSide,
    official_side,
    token_of,
    value_of,
)
from rabbitmq_server import rabbitmq_server

OUR_THREADS = "engine:\n  type: ThreadPoolEngine\n  max_workers: 4\n"
TIMEOUT_S = 120
SDKS = ("official SDK", "our SDK")
ENDPOINTS = ("official endpoint", "our endpoint")
MEMBERS = {  # of GET /v2/endpoints/{id}; source: wire protocol, endpoints
    *("uuid", "name", "display_name", "multi_user", "high_assurance", "public", "endpoint_config"),
    *("user_config_template", "user_config_schema", "description", "hostname", "local_user", "ip_address"),
    *("endpoint_version", "sdk_version", "python_version", "subscription_uuid", "subscription_admin_verified", "owner"),
}


@dataclass(frozen=True)
class World:
    """A service, and one client with both families of SDKs and endpoints."""

    system: ProcessSystem
    official: OfficialSide
    ours: OurSide
    endpoints: dict[str, OfficialEndpoint | EndpointProcess]
    foreign_id: str
    """Of an endpoint that is somebody else's."""

    def sdk(self, name: str) -> OfficialSide | OurSide:
        return self.official if name == "official SDK" else self.ours


def make_world(root: Path, system: ProcessSystem, official: OfficialSide) -> World:
    ours = OurSide(root, system, official.client)
    stranger = OurSide(root / "stranger", system, Client(system, "a stranger"))
    registration = {"endpoint_name": "theirs", "direct": True, "metadata": {}}
    headers = {"Authorization": f"Bearer {stranger.token}"}
    answer = httpx.post(f"{system.service.url}/v3/endpoints", json=registration, headers=headers)
    there = official.endpoint()
    operators = dict(system.commands.env)
    system.commands.env.update(ours.env)
    here = system.endpoint("here", OUR_THREADS)
    system.commands.env.update(operators)
    foreign_id = answer.raise_for_status().json()["endpoint_id"]
    return World(system, official, ours, {"official endpoint": there, "our endpoint": here}, foreign_id)


# Each of the two worlds is made once, also where tests run in several processes.
EMBEDDED, RABBITMQ = (
    pytest.param(broker, marks=pytest.mark.xdist_group(f"official-{broker}")) for broker in ("embedded", "rabbitmq")
)


@pytest.fixture(scope="module", params=[EMBEDDED, RABBITMQ])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("official")
    if request.param == "embedded":
        with process_system(root / "system") as system, official_side(root, system) as official:
            yield make_world(root, system, official)
        return
    with rabbitmq_server() as server:
        environment, lead = server.environment, lambda service: server.lead_to(service.port)
        with process_system(root / "system", environment, lead) as system, official_side(root, system) as official:
            yield make_world(root, system, official)


only_embedded = pytest.mark.parametrize("world", [EMBEDDED], indirect=True)
"""What does not depend on the broker."""

PROGRAMS: dict[str, Any] = {
    "submit": [[2 * n for n in range(12)], 4.5],
    "registered_function": 42,
    "client_calls": [8, [0, 2, 4], "success"],
    "exceptions": True,
    "shell": [[0, "hello ada\n"], "oops", 3, 124, "subprocess.TimeoutExpired", True],
    "reload_tasks": [[0, 2, 4, 6], [0, 2, 4, 6]],
    "sizes": [7 * 1024 * 1024, True, 413],
    "source_code": 42,
}


@pytest.fixture(scope="module")
def answers(world: World) -> dict[tuple[str, str], dict[str, Any]]:
    """Of every program, in every pairing."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for sdk in SDKS:
        calls = [
            (name, {"endpoint": endpoint.id, **more})
            for endpoint in world.endpoints.values()
            for name, more in [
                *((name, {}) for name in PROGRAMS),
                ("strategies", {}),
                ("look", {}),
                ("refusals", {"foreign": world.foreign_id}),
            ]
        ]
        got = world.sdk(sdk).programs(calls)
        share = len(calls) // len(ENDPOINTS)
        for at, endpoint_name in enumerate(world.endpoints):
            found[sdk, endpoint_name] = {each["name"]: each for each in got[at * share : (at + 1) * share]}
    return found


@pytest.fixture(params=[(sdk, endpoint) for sdk in SDKS for endpoint in ENDPOINTS], ids=" at ".join)
def pairing(request: pytest.FixtureRequest, answers: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    return answers[request.param]


@only_embedded
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_runs_alike_in_every_pairing(pairing: dict[str, Any], name: str) -> None:
    assert value_of(pairing[name]) == PROGRAMS[name]


@only_embedded
def test_every_strategy_carries_code_and_data_in_every_pairing(pairing: dict[str, Any]) -> None:
    values = value_of(pairing["strategies"])
    assert len(values) == 9
    assert all(value == [1, "a", 1, "a"] for value in values.values())


@only_embedded
def test_an_endpoint_is_shown_with_all_members(pairing: dict[str, Any]) -> None:
    status, is_it, is_listed, restricted, members = value_of(pairing["look"])
    assert (status, is_it, is_listed, restricted) == ("online", True, True, False)
    assert set(members) >= MEMBERS


@only_embedded
def test_refusals_have_their_status_and_say_what_to_do(pairing: dict[str, Any]) -> None:
    assert value_of(pairing["refusals"]) == {
        "no such endpoint": [404, True],
        "no such function": [404, True],
        "no such task": [404, True],
        "somebody else's endpoint": [403, True],
        "somebody else's to stop": [403, True],
        "a reserved option": [422, True],
    }


@pytest.mark.parametrize("world", [RABBITMQ], indirect=True)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("sdk", SDKS)
def test_tasks_go_over_rabbitmq(world: World, sdk: str, endpoint: str) -> None:
    calls = [(name, {"endpoint": world.endpoints[endpoint].id}) for name in ("submit", "reload_tasks")]
    for answer in world.sdk(sdk).programs(calls):
        assert value_of(answer) == PROGRAMS[answer["name"]]


@only_embedded
@pytest.mark.parametrize("sdk", SDKS)
def test_other_options_are_another_user_endpoint(world: World, sdk: str) -> None:
    calls = [
        ("options", {"endpoint": world.endpoints["official endpoint"].id, "options": options})
        for options in ({"workers": 1}, {"workers": 2}, {"workers": 1})
    ]
    first, second, third = (value_of(answer)[0] for answer in world.sdk(sdk).programs(calls))
    assert first == third != second


@only_embedded
@pytest.mark.parametrize("sdk", SDKS)
def test_a_user_endpoint_that_cannot_be_started_fails_its_tasks_with_the_reason(world: World, sdk: str) -> None:
    endpoint = world.endpoints["official endpoint"].id
    text = world.sdk(sdk).program("failure", endpoint=endpoint, options={"workers": "a lot"})
    assert "Failed to start" in text
    assert "'str' and 'int'" in text


@only_embedded
def test_their_engine_of_processes_runs_tasks_and_says_that_mpi_is_not_for_it(world: World) -> None:
    endpoint = world.official.endpoint("processes", GLOBUS_COMPUTE)
    calls = [(name, {"endpoint": endpoint.id}) for name in ("submit", "shell", "mpi")]
    submitted, shell, mpi = (value_of(answer) for answer in world.official.programs(calls))
    assert (submitted, shell) == (PROGRAMS["submit"], PROGRAMS["shell"])
    assert "InvalidResourceSpecification" in mpi
    assert "num_ranks" in mpi
    endpoint.stop()


def test_a_killed_user_endpoint_comes_back_to_its_tasks(world: World, tmp_path: Path) -> None:
    endpoint, log = world.endpoints["official endpoint"], tmp_path / "runs"
    assert isinstance(endpoint, OfficialEndpoint)
    call = {"endpoint": endpoint.id, "log": str(log), "count": 50, "seconds": 0.2}
    with world.ours.start([("many", call)]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "TEN\n"
        endpoint.kill_user_endpoints()
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert '"value": ' + str(list(range(50))) in out, out + err
    runs = Counter(log.read_text().split())
    assert len(runs) == 50
    assert max(runs.values()) <= 2


@only_embedded
@pytest.mark.parametrize("all_of_it", [False, True], ids=["the manager", "everything"])
def test_a_killed_manager_that_is_started_again_loses_no_task(world: World, tmp_path: Path, all_of_it: bool) -> None:
    endpoint, log = world.endpoints["official endpoint"], tmp_path / "runs"
    assert isinstance(endpoint, OfficialEndpoint)
    call = {"endpoint": endpoint.id, "log": str(log), "count": 50, "seconds": 0.2}
    with world.ours.start([("many", call)]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "TEN\n"
        endpoint.kill()
        if all_of_it:
            endpoint.kill_user_endpoints()
        endpoint.forget_stopped_process()
        endpoint.start()
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert '"value": ' + str(list(range(50))) in out, out + err
    runs = Counter(log.read_text().split())
    assert len(runs) == 50
    assert max(runs.values()) <= 2


def test_a_killed_service_has_nothing_run_twice(world: World, tmp_path: Path) -> None:
    endpoint, log = world.endpoints["official endpoint"], tmp_path / "runs"
    call = {"endpoint": endpoint.id, "log": str(log), "count": 60, "seconds": 0.3}
    with world.ours.start([("many", call)]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "TEN\n"
        world.system.service.kill()
        world.system.service.start()
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert '"value": ' + str(list(range(60))) in out, out + err
    if "FARCALL_BROKER" not in world.system.commands.env:  # else once or twice: who took what cannot be told
        assert Counter(log.read_text().split()) == {str(n): 1 for n in range(60)}


@only_embedded
def test_tasks_wait_for_a_manager_that_is_away(world: World) -> None:
    endpoint = world.endpoints["official endpoint"]
    assert isinstance(endpoint, OfficialEndpoint)
    endpoint.stop()
    with world.ours.start([("submit", {"endpoint": endpoint.id})]) as process:
        endpoint.start()
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert '"value"' in out, out + err


@only_embedded
def test_an_endpoint_that_is_stopped_remotely_ends_and_can_be_started_again(world: World) -> None:
    endpoint = world.endpoints["official endpoint"]
    assert isinstance(endpoint, OfficialEndpoint)
    world.official.program("stop", endpoint=endpoint.id)
    endpoint.wait_until_ended()
    assert world.official.program("look", endpoint=endpoint.id)[0] == "offline"
    endpoint.start()
    assert world.official.program("submit", endpoint=endpoint.id) == PROGRAMS["submit"]


@only_embedded
def test_the_commands_work(world: World) -> None:
    """configure, start, whoami, stop and delete of the released endpoint."""
    endpoint = world.official.endpoint("by-command", THREADS)
    assert world.official.client.id[:8] in endpoint.command("whoami").stdout
    assert world.official.program("look", endpoint=endpoint.id)[0] == "online"
    assert endpoint.command("stop", endpoint.name).returncode == 0
    endpoint.wait_until_ended()
    deleted = endpoint.command("delete", endpoint.name, "--yes")
    assert deleted.returncode == 0, deleted.stdout + deleted.stderr
    assert not os.path.exists(endpoint.directory)


@only_embedded
@pytest.mark.parametrize("sdk", SDKS)
def test_who_does_not_satisfy_an_endpoints_policy_is_told_so(world: World, guarded: OfficialEndpoint, sdk: str) -> None:
    status, text = world.sdk(sdk).program("denial", endpoint=guarded.id)
    assert status == 403
    assert "elsewhere.example" in text


@pytest.fixture(scope="module")
def guarded(world: World) -> OfficialEndpoint:
    """With a policy that the released command `configure` made; nobody here satisfies it."""
    token = token_of(world.official.client, world.system, MANAGE_PROJECTS_SCOPE)
    project = {"display_name": "a project", "contact_email": "ada@example.org"}
    answer = httpx.post(
        f"{world.system.service.url}/v2/api/projects",
        json={"project": project},
        headers={"Authorization": f"Bearer {token}"},
    )
    project_id = answer.raise_for_status().json()["project"]["id"]
    options = ("--auth-policy-project-id", project_id, "--allowed-domains", "elsewhere.example")
    return world.official.endpoint("guarded", options=options)


@only_embedded
def test_the_conversation_is_the_recorded_one(world: World, tmp_path: Path) -> None:
    """Of what goes over HTTP; with FARCALL_RECORD set it is recorded anew."""
    recorder = Recorder(world.system.service.port)
    side = OfficialSide(tmp_path, recorder.port, Client(world.system, "recorded"))
    try:
        endpoint = side.endpoint("recorded", THREADS, "display_name: Recorded\n")
        endpoint.stop()
        endpoint.start()
        endpoint.stop()
        side.program("conversation", endpoint=endpoint.id)
    finally:
        side.close()
        recorder.close()
    if os.environ.get("FARCALL_RECORD"):
        CONVERSATIONS.mkdir(exist_ok=True)
        made = {
            "producer": f"globus-compute-sdk and globus-compute-endpoint {VERSION}",
            "exchanges": recorder.recording(),
        }
        (CONVERSATIONS / f"official-{VERSION}.json").write_text(json.dumps(made, indent=1) + "\n")
    recorded = json.loads((CONVERSATIONS / f"official-{VERSION}.json").read_text())
    assert told(recorder.recording()) == told(recorded["exchanges"])


@only_embedded
def test_a_deleted_manager_takes_its_user_endpoints_and_their_tasks_along(world: World) -> None:
    endpoint = world.official.endpoint("doomed", THREADS)
    texts = world.ours.program("doomed", endpoint=endpoint.id)
    assert all("deleted" in text for text in texts), texts
    endpoint.wait_until_ended()
    assert not endpoint.user_endpoint_pids()


def test_the_official_sdk_waits_when_it_asks_too_often(tmp_path: Path) -> None:
    limits = {"FARCALL_REQUESTS_PER_S": "4", "FARCALL_REQUEST_BURST": "5"}
    with process_system(tmp_path / "system", limits) as system, official_side(tmp_path, system) as official:
        assert official.program("hurry") == [0] * 12
        token = token_of(official.client, system, COMPUTE_SCOPE)
        ask = {"url": f"{system.service.url}/v2/endpoints", "headers": {"Authorization": f"Bearer {token}"}}
        answers = [httpx.get(**ask) for _ in range(12)]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["retry-after"].isdigit()
    assert refused.json()["code"] == "RATE_LIMITED"
