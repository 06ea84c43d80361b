"""What an operator sees and limits, on a real service: in this loop, in a thread, and as a process."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from service_world import CODE, PAYLOAD, Play, Rest, ServiceThread, Site

from farcall.client.rest import ApiClient
from farcall.client.retry import RetryPolicy
from farcall.service.relay.results import failure_result
from farcall.service.relay.store import record_results
from farcall.wire.errors import RateLimited


def samples(text: str) -> dict[str, float]:
    """Name and labels → value."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


# --- Limits ----------------------------------------------------------------------------------------------------


def test_who_asks_too_often_is_told_when_to_come_again(play: Play) -> None:
    async def story(site: Site) -> None:
        ada, bob = await site.person(), await site.person("bob@localhost")
        for _ in range(3):
            await ada.ask("GET", "/v3/whoami")
        answer = await site.get("/v3/whoami", headers={"authorization": f"Bearer {ada.token}"})
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "4")
        assert answer.json()["code"] == "RATE_LIMITED"
        await bob.ask("GET", "/v3/whoami")
        site.clock.now += 4
        await ada.ask("GET", "/v3/whoami")

    play(story, requests_per_s=0.25, request_burst=3)


def test_a_full_queue_is_named_with_its_count_and_takes_more_when_tasks_have_ended(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        function_id, full, other = await ada.function(), await ada.endpoint(), await ada.endpoint()
        keyed = {"headers": {"idempotency-key": "k"}}
        first = await ada.submit(full, function_id, 3, **keyed)
        refused = await ada.submit(full, function_id, 2, 429)
        assert refused["code"] == "ENDPOINT_QUEUE_FULL"
        assert full in refused["message"]
        assert "has 3 tasks" in refused["message"]
        assert "may have 4" in refused["message"]
        await ada.submit(full, function_id)
        await ada.submit(full, function_id, 1, 429)
        await ada.submit(other, function_id, 4)
        again = await ada.submit(full, function_id, 3, **keyed)  # a repetition adds nothing
        assert again["tasks"] == first["tasks"]
        await ada.ask("POST", f"/v3/tasks/{first['tasks'][function_id][0]}/cancel")
        await ada.submit(full, function_id)
        await ada.submit(full, function_id, 1, 429)
        # Another process ended one: seen at the next count.
        task_id = first["tasks"][function_id][1]
        await site.service.db.write(record_results, [failure_result(task_id, "X", "gone")], site.clock())
        await ada.submit(full, function_id, 1, 429)
        site.clock.now += 16
        await ada.submit(full, function_id)

    play(story, max_queued_tasks_per_endpoint=4)


def test_the_queue_is_counted_anew_after_a_restart(play: Play) -> None:
    ids: list[str] = []

    async def before(site: Site) -> None:
        ada = await site.person()
        ids.extend([await ada.function(), await ada.endpoint()])
        await ada.submit(ids[1], ids[0], 3)

    async def after(site: Site) -> None:
        ada = await site.person()
        await ada.submit(ids[1], ids[0], 1, 429)

    play(before, max_queued_tasks_per_endpoint=3)
    play(after, max_queued_tasks_per_endpoint=3)


def test_our_client_waits_and_goes_on(service_thread: Any) -> None:
    thread: ServiceThread = service_thread(requests_per_s=4, request_burst=2)
    rest = Rest(thread)
    token = rest.http.headers["authorization"].removeprefix("Bearer ")
    with ApiClient(thread.running.url, token) as client, ThreadPoolExecutor(3) as pool:
        names = [future.result()["username"] for future in [pool.submit(client.whoami) for _ in range(8)]]
    assert names == ["ada@localhost"] * 8
    assert thread.call(lambda service: service.relay.measures.rate_limited) > 0
    impatient = RetryPolicy(budget_s=0, unmet_budget_s=0)
    with ApiClient(thread.running.url, token, retry=impatient) as client, pytest.raises(RateLimited):
        [client.whoami() for _ in range(10)]


# --- Readiness and metrics -------------------------------------------------------------------------------------


def test_it_is_ready_until_something_is_not(play: Play) -> None:
    async def story(site: Site) -> None:
        assert (await site.get("/readyz")).json() == {"status": "ready"}
        await site.service.relay._sweeper.stop()
        await site.service.relay._transport.close()
        blocker = sqlite3.connect(site.service.settings.data_dir / "farcall.db")
        blocker.execute("ALTER TABLE settings RENAME TO elsewhere")
        blocker.commit()
        site.service.health._asked_at = float("-inf")
        answer = await site.get("/readyz")
        blocker.execute("ALTER TABLE elsewhere RENAME TO settings")
        blocker.commit()
        blocker.close()
        assert answer.status_code == 503
        assert answer.json()["faults"] == [
            "the relay is not running",
            "the message broker is closed",
            "the database cannot be written to",
        ]

    play(story)


@pytest.mark.parametrize(
    ("access", "nobody", "forwarded", "user", "admin"),
    [
        ("local", 200, 401, 403, 200),
        ("token", 401, 401, 403, 200),
        ("open", 200, 200, 200, 200),
        ("off", 404, 404, 404, 404),
    ],
)
def test_metrics_are_for_this_machine_and_administrators(
    play: Play, access: str, nobody: int, forwarded: int, user: int, admin: int
) -> None:
    async def story(site: Site) -> None:
        ada, root = await site.person(), await site.person("root@localhost", is_admin=True)
        via = {"x-forwarded-for": "127.0.0.1"}

        async def status(**headers: str) -> int:
            return (await site.get("/metrics", headers=headers)).status_code

        assert await status() == nobody
        assert await status(**via) == forwarded
        assert await status(**via, authorization=f"Bearer {ada.token}") == user
        assert await status(**via, authorization=f"Bearer {root.token}") == admin

    play(story, metrics_access=access)


def test_who_comes_from_elsewhere_needs_a_token(play: Play) -> None:
    from farcall.service.app import create_app

    async def story(site: Site) -> None:
        app = create_app(site.service.settings, site.service)
        transport = httpx.ASGITransport(app=app, client=("10.1.2.3", 5))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            assert (await client.get("/metrics")).status_code == 401

    play(story)


def test_metrics_follow_what_happens(play: Play) -> None:
    async def story(site: Site) -> None:
        ada = await site.person()
        function_id, endpoint_id = await ada.function(), await ada.endpoint()
        answer = await ada.submit(endpoint_id, function_id, 5)
        await ada.ask("POST", f"/v3/tasks/{answer['tasks'][function_id][0]}/cancel")
        await ada.submit("00000000-0000-4000-8000-000000000000", function_id, 1, 404)
        text = (await site.get("/metrics")).text
        found = samples(text)
        assert found["farcall_tasks{state=received}"] == 4
        assert found["farcall_tasks{state=cancelled}"] == 1
        assert found["farcall_tasks_accepted_total"] == 5
        assert found["farcall_tasks_ended_total{outcome=failed}"] == 1
        assert found["farcall_submit_seconds_count{status=2xx}"] == 1
        assert found["farcall_submit_seconds_count{status=4xx}"] == 1
        assert found["farcall_write_group_units_count"] > 0
        assert (found["farcall_ready"], found["farcall_database_up"], found["farcall_broker_up"]) == (1, 1, 1)
        assert ada.token not in text
        assert endpoint_id not in text

    play(story)


# --- As a process ----------------------------------------------------------------------------------------------


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Any]:
    """A service whose settings come from a file and the environment; `command` runs the command there."""
    file = tmp_path / "service.toml"
    file.write_text('port = 0\namqp_port = 0\ndata_dir = "data"\nlog_format = "json"\n')
    env = {name: value for name, value in os.environ.items() if not name.startswith("FARCALL_")}
    env |= {"FARCALL_USER_DIR": str(tmp_path / "user"), "FARCALL_SETTINGS": str(file), "FARCALL_LOG_LEVEL": "debug"}

    def command(*args: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "farcall.cli.service", *args], env=env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    command("start", "--detach")
    yield command
    command("stop")


def test_a_process_tells_its_settings_its_metrics_and_its_log(process: Any, tmp_path: Path) -> None:
    shown = json.loads(process("settings", "--json"))
    assert shown["log_format"] == {"value": "json", "origin": f"file {tmp_path / 'service.toml'}"}
    assert shown["log_level"]["origin"] == "environment FARCALL_LOG_LEVEL"
    state = json.loads(process("status", "--json"))
    url = f"http://127.0.0.1:{state['port']}"
    with urllib.request.urlopen(f"{url}/readyz", timeout=30) as answer:
        assert json.load(answer) == {"status": "ready"}
    tokens = json.loads((tmp_path / "user" / "tokens.json").read_text())
    token = next(iter(tokens["services"].values()))["access_token"]
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}) as http:
        function = {"function_name": "f", "function_code": CODE}
        function_id = http.post("/v3/functions", json=function).json()["function_uuid"]
        endpoint = {"endpoint_name": "here", "direct": True, "metadata": {}}
        endpoint_id = http.post("/v3/endpoints", json=endpoint).json()["endpoint_id"]
        answer = http.post(f"/v3/endpoints/{endpoint_id}/submit", json={"tasks": {function_id: [PAYLOAD]}}).json()
    task_id = answer["tasks"][function_id][0]
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as page:
        assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
        found = samples(page.read().decode())
    assert found["farcall_tasks_accepted_total"] == 1
    assert found["process_resident_memory_bytes"] > 1e6
    log = (tmp_path / "data" / "service.log").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    accepted = next(line for line in lines if line.get("event") == "task.accepted")
    assert (accepted["task_ids"], accepted["endpoint_id"]) == ([task_id], endpoint_id)
    assert token not in log
