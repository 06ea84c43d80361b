"""Our own manager, as its administrator sees it in a browser: the table, a user endpoint's page, and the stop."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from one_account import Manager, account_for

from chromium import chromium, fresh_page
from farcall import Executor
from farcall.testing.functions import by_value
from farcall.testing.processes import process_system

pytestmark = [pytest.mark.xdist_group("multi-user"), pytest.mark.timeout(180)]

TEMPLATE = """\
# Rendered for {{ WORKERS }} workers <b>
engine:
  type: ThreadPoolEngine
  max_workers: {{ WORKERS }}
shutdown_grace_period: 1
"""


@by_value
def where() -> int:
    import os

    return os.getpid()


def test_an_administrator_finds_a_real_user_endpoint_and_stops_it(tmp_path: Path) -> None:
    with (
        chromium() as browser,
        process_system(tmp_path / "service") as system,
        account_for(tmp_path) as account,
        fresh_page(browser) as page,
    ):
        manager = Manager(system, account)
        manager.write(config__yaml="display_name: One account\n", user_config_template__yaml__j2=TEMPLATE)
        manager.start()
        try:
            with Executor(endpoint_id=manager.id, user_endpoint_config={"WORKERS": 3}) as executor:
                pid = executor.submit(where).result(60)
            page.goto(system.service.command("login-link").stdout.strip())
            page.goto(f"{system.service.url}/console/compute/{manager.id}")
            row = page.get_by_role("table", name="User endpoints of One account").locator("tbody tr")
            row.filter(has_text=str(pid)).filter(has_text="online").get_by_role("link").click()
            page.get_by_role("heading", name=f"User endpoint {pid}").wait_for()
            page.get_by_text("# Rendered for 3 workers <b>").wait_for()
            assert re.search(r"Start time: .*20\d\d", page.inner_text("main"))
            assert "1970" not in page.inner_text("main")
            page.get_by_role("button", name="Stop this user endpoint").click()
            page.get_by_role("alertdialog").get_by_role("button", name="Stop it").click()
            page.locator("main dl .fc-status", has_text="offline").wait_for()
        finally:
            manager.stop()
