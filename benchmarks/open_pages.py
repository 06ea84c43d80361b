"""200 pages of the console that somebody has left open: what they cost the service while an endpoint reports.

The browsers are played: each loads the page of an endpoint, opens its web socket with the handshake of a browser,
answers pings and reads what is pushed. All see one endpoint, which says nothing for a while (`quiet`) and then reports
every five seconds: six times as often as real ones. Beside that, what the service is without a console.
"""

from __future__ import annotations

import ast
import asyncio
import re
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from benchmarks.players import Agent, Load, loaded_system
from farcall.wire.messages import EndpointStatusReport, pack_message

PAGES = 200
WINDOW_S = 30.0
REPORT_S = 5.0


def measure(root: Path, pages: int = PAGES, setup: str = "embedded") -> dict[str, float]:
    """Figures; CPU in percent of one core."""
    with loaded_system(root / "without", setup, {"FARCALL_CONSOLE": "false"}) as load:
        without_mib = _before(load)
    with loaded_system(root / "with", setup) as load:
        return {"no_console_mib": without_mib, **open_pages(load, pages)}


def _before(load: Load) -> float:
    """The service with an endpoint that is online, and nobody who looks."""
    agent = Agent(load.api, "watched")
    agent.start()
    agent.wait_online()
    try:
        return load.meter.pss_mib()["service"]
    finally:
        agent.close()


def open_pages(load: Load, pages: int) -> dict[str, float]:
    """Open them, and look on for `WINDOW_S` without reports, and for as long with."""
    agent = Agent(load.api, "watched")
    agent.start()
    agent.wait_online()
    try:
        return asyncio.run(_watched(load, agent, pages))
    finally:
        agent.close()


async def _watched(load: Load, agent: Agent, pages: int) -> dict[str, float]:
    meter, found = load.meter, {}
    asking = {"authorization": f"Bearer {load.token}"}
    async with httpx.AsyncClient(base_url=load.system.service.url, follow_redirects=True, timeout=60) as http:
        link = (await http.post("/v3/login-links", headers=asking)).json()["path"]
        found["before_mib"] = meter.pss_mib()["service"]
        began_s = time.perf_counter()
        (await http.get(link)).raise_for_status()
        found["first_page_s"] = time.perf_counter() - began_s
        path = f"/compute/endpoints/{agent.endpoint_id}"
        browsers = [await _Browser.open(http, path)]
        found["first_page_mib"] = meter.pss_mib()["service"]
        began_s, began_cpu_s = time.perf_counter(), meter.cpu_s()["service"]
        browsers += [await _Browser.open(http, path) for _ in range(pages - 1)]
        found["page_cpu_ms"] = (meter.cpu_s()["service"] - began_cpu_s) / (pages - 1) * 1000
        found["page_ms"] = (time.perf_counter() - began_s) / (pages - 1) * 1000
        before_s, at_s = meter.cpu_s()["service"], time.perf_counter()
        await asyncio.sleep(WINDOW_S)
        found["quiet_cpu_percent"] = _percent(load, before_s, at_s)
        before_s, at_s = meter.cpu_s()["service"], time.perf_counter()
        heard = [browser.updates for browser in browsers]
        for number in range(round(WINDOW_S / REPORT_S)):
            agent.report(_report(agent.endpoint_id, number % 2))
            await asyncio.sleep(REPORT_S)
        found["open_cpu_percent"] = _percent(load, before_s, at_s)
        found["open_mib"] = meter.pss_mib()["service"]
        found["per_page_kib"] = (found["open_mib"] - found["first_page_mib"]) * 1024 / (pages - 1)
        pushed = [browser.updates - had for browser, had in zip(browsers, heard, strict=True)]
        if min(pushed) < WINDOW_S / REPORT_S / 2:
            raise RuntimeError(f"A page was told of {min(pushed)} changes only")
        found["pushed_updates"] = sum(pushed)
        for browser in browsers:
            await browser.close()
    return found


def _percent(load: Load, before_s: float, at_s: float) -> float:
    """Of one core, since the service had used `before_s` seconds at `at_s` (`time.perf_counter`)."""
    return (load.meter.cpu_s()["service"] - before_s) / (time.perf_counter() - at_s) * 100


class _Browser:
    """One page that is open."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self.updates = 0
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, http: httpx.AsyncClient, path: str) -> _Browser:
        from websockets.asyncio.client import connect

        answer = await http.get(path)
        answer.raise_for_status()
        found = re.search(r"query: (\{.*'client_id'.*\}),\n", answer.text)
        if found is None:
            raise RuntimeError(f"No page at {path}: {answer.text[:300]}")
        query = ast.literal_eval(found[1])
        query = {name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items()}
        query |= {"document_id": str(uuid.uuid4()), "tab_id": str(uuid.uuid4()), "EIO": "4", "transport": "websocket"}
        url = str(http.base_url).replace("http", "ws", 1).rstrip("/")
        cookies = "; ".join(f"{name}={value}" for name, value in http.cookies.items())
        socket = await connect(
            f"{url}/_nicegui_ws/socket.io/?{urlencode(query)}",
            origin=str(http.base_url).rstrip("/"),
            additional_headers={"Cookie": cookies},
            ping_interval=None,
        )
        await socket.recv()  # Engine.IO's open packet
        await socket.send("40")
        return cls(socket)

    async def close(self) -> None:
        self._reading.cancel()
        await self._socket.close()

    async def _read(self) -> None:
        async for message in self._socket:
            if message == "2":
                await self._socket.send("3")
            elif message.startswith('42["update"'):
                self.updates += 1


def _report(endpoint_id: str, idle: int) -> bytes:
    state = {"total_workers": 2, "idle_workers": idle, "pending_tasks": 0, "outstanding_tasks": 0, "managers": 1}
    return pack_message(EndpointStatusReport(endpoint_id=endpoint_id, global_state=state, task_statuses={}))
