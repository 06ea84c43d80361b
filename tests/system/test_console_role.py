"""A process that shows the console and nothing else, beside others of the same service."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from farcall.testing.processes import several_processes
from set_ups import running_servers
from web_browser import WebBrowser


def test_a_process_of_its_own_shows_the_console_and_answers_nobody_else(tmp_path: Path) -> None:
    with (
        running_servers() as servers,
        several_processes(tmp_path, servers.environment(), ("all", "console"), "http://127.0.0.1:1") as system,
    ):
        console, other = system.services["console-1"], system.services["all-1"]
        for path in ("/healthz", "/readyz", "/v2/version"):
            assert httpx.get(f"http://127.0.0.1:{console.port}{path}").status_code == 200, path
        refused = httpx.get(f"http://127.0.0.1:{console.port}/v3/endpoints", headers=_operator(system.commands.env))
        assert (refused.status_code, refused.json()["code"]) == (404, "NOT_FOUND")
        assert "--role api" in refused.json()["detail"]
        added = json.loads(other.command("user", "add", "ada", "--json").stdout)
        browser = WebBrowser(f"http://127.0.0.1:{console.port}")
        assert "/login" in str(browser.get("/compute").url)
        browser.send("/login", username="ada", password=added["password"])
        page = browser.send("/login/new-password", password="lamp orbit tuesday", again="lamp orbit tuesday")
        assert (page.status_code, page.url.path) == (200, "/compute")
        assert "No endpoints yet." in page.text
        assert console.command("login-link", status=None).returncode != 0  # which process would know it?
        assert "console.page_fault" not in console.log.read_text()


def _operator(environment: dict[str, str]) -> dict[str, str]:
    return {"authorization": f"Bearer {environment['FARCALL_TOKEN']}"}
