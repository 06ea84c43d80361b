"""A service that stops while pages are open: at once, and without a fault."""

from __future__ import annotations

import ast
import logging
import re
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest
from relay_scene import Agent
from scene import ConsoleScene

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("console")]
_PAGES = 50


def socket_url(page: str, base: str) -> str:
    """Where a page that was loaded listens."""
    found = re.search(r"query: (\{.*'client_id'.*\}),\n", page)
    assert found is not None
    query = {name: str(value) for name, value in ast.literal_eval(found[1]).items()}
    query |= {"document_id": "d", "tab_id": "t", "EIO": "4", "transport": "websocket"}
    return f"{base.replace('http', 'ws', 1)}/_nicegui_ws/socket.io/?{urlencode(query)}"


def test_a_service_with_fifty_open_pages_stops_without_a_fault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    with ExitStack() as closing, httpx.Client(follow_redirects=True, timeout=30) as http:
        scene = ConsoleScene(tmp_path, closing)
        ada = scene.person("ada", is_operator=True)
        endpoints = [ada.endpoint() for _ in range(5)]
        agents = [scene.keep(Agent(each)) for each in endpoints]
        link = ada.ask("POST", "/v3/login-links")["path"]
        http.get(scene.url + link).raise_for_status()
        cookies = "; ".join(f"{name}={value}" for name, value in http.cookies.items())
        sockets = []
        for number in range(_PAGES):
            path = "/compute" if number % 2 else f"/compute/endpoints/{endpoints[number // 2 % 5]['endpoint_id']}"
            page = http.get(scene.url + path)
            page.raise_for_status()
            socket = connect(
                socket_url(page.text, scene.url),
                origin=scene.url,  # type: ignore[arg-type]
                additional_headers={"Cookie": cookies},
                ping_interval=None,
            )
            closing.callback(socket.close)
            socket.recv()
            socket.send("40")
            sockets.append(socket)
        for agent in agents:
            agent.report(total_workers=2, idle_workers=1)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            scene.thread.stop()
        for socket in sockets:
            with pytest.raises(ConnectionClosed):
                while True:
                    socket.recv(20)
    # A server that runs out of patience with what is open says so as an error, too.
    ours = [record for record in caplog.records if record.name.partition(".")[0] not in ("pika", "websockets")]
    faults = [record.getMessage() for record in ours if record.levelno >= logging.WARNING]
    assert faults == []
