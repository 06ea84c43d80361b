"""What people do on the pages, with real tasks, reports and accounts: each test is a thing that somebody wants."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from relay_scene import Agent
from scene import PASSWORD, ConsoleScene, Manager, console_scene, log_in
from service_world import CODE, Rest

from chromium import chromium, fresh_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("console")]


def double(number: int) -> int:
    return 2 * number


def refuse(number: int) -> int:
    raise ValueError(f"<b>{number}</b> is not wanted here")


@dataclass
class Place:
    """A service, and what people have done there.

    Attributes:
        ada: has an endpoint that works, and a multi-user endpoint, at which one user endpoint of bob's reports.
        done, failed: tasks of hers.
        waiting: a task of bob's at the user endpoint.
    """

    scene: ConsoleScene
    browser: Browser
    ada: Rest
    bob: Rest
    manager: Manager
    agent: Agent
    endpoint_id: str
    done: str
    failed: str
    waiting: str
    cookies: dict[str, Any] = field(default_factory=dict)

    def open(self, page: Page, name: str, path: str) -> None:
        """A page as somebody sees it, who logs in the first time."""
        if name not in self.cookies:
            log_in(page, self.scene, name, path)
            self.cookies[name] = page.context.cookies()
            return
        page.context.add_cookies(self.cookies[name])
        page.goto(self.scene.url + path)

    def hurry(self) -> None:
        """Lists that are opened from now on are read again at once."""
        self.scene.hurry()

    def report(self, **more: Any) -> None:
        """What bob's user endpoint says of itself."""
        told = {
            "posix_pid": 24303, "posix_username": "bob", "account": "phys", "queue": "short", "heartbeat_period": 30,
            "start_unix": 1_795_000_000.0, "total_workers": 8, "idle_workers": 2, "managers": 2, "total_tasks": 20,
            "outstanding_tasks": 7, "pending_tasks": 1, "engine_type": "GlobusComputeEngine",
            "config_raw": "engine:\n  # as rendered\n  type: GlobusComputeEngine\n", **more,
        }  # fmt: skip
        self.agent.report(**told)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root: Path = tmp_path_factory.mktemp("console")
    with chromium() as browser, console_scene(root) as scene:
        ada, bob, ops = scene.person("ada"), scene.person("bob"), scene.person("ops", is_operator=True)
        assert ops.identity.id
        endpoint = scene.real_endpoint(ada, "desk")
        executor = scene.executor(ada, endpoint.id)
        good, bad = executor.submit(double, 4), executor.submit(refuse, 4)
        assert good.result(60) == 8
        assert isinstance(bad.exception(60), ValueError)
        assert good.task_id
        assert bad.task_id
        manager = Manager(scene, ada, "cluster", public=True)
        agent = manager.user_endpoint(bob, bob.function(), {"account": "phys"})
        waiting = agent.wait(1)[0][1].headers["task_uuid"]
        place = Place(
            scene=scene,
            browser=browser,
            ada=ada,
            bob=bob,
            manager=manager,
            agent=agent,
            endpoint_id=endpoint.id,
            done=str(good.task_id),
            failed=str(bad.task_id),
            waiting=str(waiting),
        )
        place.report()
        yield place


@pytest.fixture
def page(place: Place) -> Iterator[Page]:
    with fresh_page(place.browser) as page:
        yield page


def rows(page: Page, caption: str) -> Locator:
    return page.get_by_role("table", name=caption).locator("tbody tr")


def expect_row(page: Page, caption: str, *texts: str) -> Locator:
    """The line that has all of these."""
    line = rows(page, caption)
    for text in texts:
        line = line.filter(has_text=text)
    line.first.wait_for()
    return line.first


def fact(page: Page, name: str) -> Locator:
    return page.locator("dl > div").filter(has=page.locator("dt", has_text=name)).locator("dd").first


def downloaded(page: Page) -> list[dict[str, str]]:
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").click()
    text = Path(download.value.path()).read_text(encoding="utf-8-sig")
    return list(csv.DictReader(io.StringIO(text)))


def confirm(page: Page, name: str) -> None:
    page.get_by_role("alertdialog").get_by_role("button", name=name).click()


# Endpoints -----------------------------------------------------------------------------------------------------------


def test_the_list_tells_the_true_number_shows_more_and_follows_what_happens(place: Place, page: Page) -> None:
    dan = place.scene.person("dan")
    registered = {"direct": True, "metadata": {}}
    for number in range(61):
        told = dan.ask("POST", "/v3/endpoints", {"endpoint_name": f"node{number:03}", **registered})
        if number == 0:
            first = told
    place.open(page, "dan", "/compute?owned=1")
    place.hurry()
    page.goto(f"{place.scene.url}/compute?owned=1")
    page.wait_for_function("() => window.did_handshake === true")
    page.get_by_text("61 Compute Endpoints found").wait_for()
    cards = page.locator(".fc-card")
    assert cards.count() == 60
    page.get_by_role("button", name="Show more").click()
    cards.nth(60).wait_for()
    assert page.get_by_role("button", name="Show more").count() == 0
    # Nobody reloads from here on.
    agent = place.scene.keep(Agent(first))
    agent.report(total_workers=4, idle_workers=1)
    card = cards.filter(has_text="node000")
    card.get_by_text("online").wait_for()
    card.get_by_text("3 of 4 busy").wait_for()
    dan.ask("POST", "/v3/endpoints", {"endpoint_name": "another", **registered})
    page.get_by_text("62 Compute Endpoints found").wait_for()
    assert cards.first.locator("h2").inner_text() == "another"


# Tasks ---------------------------------------------------------------------------------------------------------------


def test_a_filter_narrows_the_tasks_and_stays_in_the_address(place: Place, page: Page) -> None:
    place.open(page, "ada", "/tasks")
    expect_row(page, "Tasks, newest first", "Succeeded", "double", "desk")
    page.get_by_label("State").select_option("Failed")
    page.get_by_label("Submitted in").select_option("Last hour")
    with page.expect_navigation():
        page.get_by_role("button", name="Filter").click()
    assert page.url.endswith("/tasks?state=failed&last=1h")
    expect_row(page, "Tasks, newest first", "Failed", "refuse")
    assert rows(page, "Tasks, newest first").count() == 1
    assert page.get_by_label("State").input_value() == "failed"
    page.get_by_label("Endpoint ID").fill("not an id")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert "endpoint_id" in page.get_by_role("alert").first.inner_text()


def test_times_are_the_viewers_on_the_page_and_utc_in_the_address(place: Place) -> None:
    context = place.browser.new_context(timezone_id="Asia/Tokyo")
    page = context.new_page()
    page.set_default_timeout(20_000)
    place.open(page, "ada", "/tasks?since=2026-11-01T05:34Z")
    field = page.get_by_label("Submitted from")
    assert field.input_value() == "2026-11-01T14:34"
    field.fill("2026-11-02T08:15")
    with page.expect_navigation():
        page.get_by_role("button", name="Filter").click()
    assert page.url.endswith("/tasks?since=2026-11-01T23%3A15Z")
    moment = rows(page, "Tasks, newest first").first.locator("time")
    shown = place.ada.ask("GET", f"/v3/tasks/{place.failed}")["submitted_at"]
    local = datetime.fromtimestamp(shown, timezone(timedelta(hours=9)))
    assert f"{local:%b} {local.day}, {local.year}, {local.hour % 12 or 12}:" in (moment.get_attribute("title") or "")
    context.close()


def test_a_failed_task_shows_its_way_its_error_and_traceback_as_text(place: Place, page: Page) -> None:
    place.open(page, "ada", f"/tasks/{place.failed}")
    page.get_by_text("ValueError: <b>4</b> is not wanted here").first.wait_for()
    assert "in refuse" in page.get_by_role("region", name="Traceback").inner_text()
    picture = page.get_by_role("img").get_attribute("aria-label") or ""
    assert picture.startswith("Received for ")
    assert "then Failed" in picture
    expect_row(page, "Transitions", "Executing", "worker")
    assert page.get_by_role("button", name="Cancel task").count() == 0


def test_what_a_task_returned_is_told_by_size_and_kind(place: Place, page: Page) -> None:
    place.open(page, "ada", f"/tasks/{place.done}")
    told = fact(page, "Result").inner_text()
    assert " B, " in told
    assert "8" not in told.split(" B, ")[1]


def test_a_task_that_ends_is_seen_to_end_and_one_can_be_cancelled(place: Place, page: Page) -> None:
    place.open(page, "bob", f"/tasks/{place.waiting}")
    page.get_by_text("Why it waits").wait_for()
    page.get_by_role("button", name="Cancel task").click()
    confirm(page, "Cancel the task")
    page.locator(".fc-status", has_text="Cancelled").first.wait_for()
    assert place.bob.ask("GET", f"/v3/tasks/{place.waiting}")["state"] == "cancelled"
    # Another one, which its endpoint finishes while somebody looks.
    task_id = place.manager.submit(place.bob, place.bob.function(), {"account": "phys"})
    place.agent.wait(2)
    page.goto(f"{place.scene.url}/tasks/{task_id}")
    page.get_by_role("button", name="Cancel task").wait_for()
    page.wait_for_function("() => window.did_handshake === true")
    place.agent.finish(task_id)
    place.report(total_tasks=21)
    page.locator(".fc-status", has_text="Succeeded").first.wait_for()


# Functions -----------------------------------------------------------------------------------------------------------


def test_functions_are_mine_or_shared_and_say_who_may_run_them(place: Place, page: Page) -> None:
    code = {"function_name": "for everybody <i>", "description": "adds <one>", "public": True}
    shared = place.bob.ask("POST", "/v3/functions", {**code, "function_code": CODE})["function_uuid"]
    place.open(page, "ada", "/functions")
    expect_row(page, "Functions, newest first", "double", "Only its owner")
    page.get_by_role("link", name="Shared with me").click()
    expect_row(page, "Functions, newest first", "for everybody <i>", "bob@local").get_by_role("link").first.click()
    page.wait_for_url(f"**/functions/{shared}")
    page.get_by_role("heading", name="for everybody <i>").wait_for()
    page.get_by_text("adds <one>").wait_for()
    assert "Everybody who knows its id" in fact(page, "Who may run it").inner_text()
    assert "return 3 * n" in page.get_by_role("region", name="Source of the function").inner_text()
    page.goto(f"{place.scene.url}/functions?search=doub")
    expect_row(page, "Functions, newest first", "double").get_by_role("link").first.click()
    expect_row(page, "Your recent runs", "Succeeded", "desk")


# The administrator's console -----------------------------------------------------------------------------------------


def test_an_administrator_sees_user_endpoints_live_and_takes_them_away_as_csv(place: Place, page: Page) -> None:
    place.report()
    place.open(page, "ada", "/console/compute")
    expect_row(page, "Multi-user endpoints that you manage", "cluster").get_by_role("link").click()
    page.wait_for_url(f"**/console/compute/{place.manager.id}")
    caption = "User endpoints of cluster"
    expect_row(page, caption, "24303", "phys", "bob", "short", "75")
    page.get_by_text("Next update due").wait_for()
    page.wait_for_function("() => window.did_handshake === true")
    place.report(idle_workers=0, total_workers=4)
    line = expect_row(page, caption, "24303", "100")
    assert [cell.strip() for cell in line.locator("td").all_inner_texts()][5:9] == ["2", "4", "100", "0"]
    (kept,) = downloaded(page)
    assert (kept["PID"], kept["Account"], kept["Workers"], kept["Active (%)"]) == ("24303", "phys", "4", "100")
    assert kept["Running (since)"].startswith("2026-11-18T")
    head = page.get_by_role("columnheader", name="Account")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"


def test_a_user_endpoint_is_told_with_its_right_start_and_can_be_stopped(place: Place, page: Page) -> None:
    place.report()
    place.open(page, "ada", f"/console/compute/{place.manager.id}/{place.agent.id}")
    page.get_by_text("Start time:").locator("xpath=..").get_by_text("2026").wait_for()
    fact(page, "Worker utilization").filter(has_text="75 %").wait_for()  # the report may still be on its way
    figures = {name: fact(page, name).inner_text() for name in ("Workers", "Worker utilization", "Executed tasks")}
    assert figures == {"Workers": "8", "Worker utilization": "75 %", "Executed tasks": "13"}
    assert fact(page, "Queued tasks").inner_text() == "1"
    assert "# as rendered" in page.get_by_role("region", name="Configuration").inner_text()
    page.get_by_role("img", name="Workers of the user endpoint over the last 1 h").wait_for()
    page.get_by_role("button", name="Stop this user endpoint").click()
    page.get_by_role("alertdialog").get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Stop this user endpoint").click()
    confirm(page, "Stop it")
    order = place.manager.next_command("stop")
    assert order["kwargs"]["user_endpoint_id"] == place.agent.id
    page.get_by_text("It has been told to stop.").wait_for()


def test_a_user_sees_and_stops_their_own_user_endpoint_on_the_page_of_its_manager(place: Place, page: Page) -> None:
    place.report(heartbeat_period=30)
    place.open(page, "bob", f"/compute/endpoints/{place.manager.id}")
    page.wait_for_function("() => window.did_handshake === true")
    caption = "Your user endpoints"
    expect_row(page, caption, "24303", "short", "online")
    assert page.get_by_role("link", name="In the console").count() == 0  # that is for its administrators
    place.report(total_workers=16, idle_workers=4)
    line = expect_row(page, caption, "24303", "16")
    line.get_by_role("link").first.click()
    page.wait_for_url(f"**/compute/endpoints/{place.agent.id}")
    page.wait_for_function("() => window.did_handshake === true")
    fact(page, "Total workers").filter(has_text="16").wait_for()
    assert "# as rendered" in page.get_by_role("region", name="Configuration as it runs").inner_text()
    assert '"account": "phys"' in page.get_by_role("region", name="Options it was started with").inner_text()
    page.get_by_role("button", name="Stop this user endpoint").click()
    confirm(page, "Stop it")
    assert place.manager.next_command("stop")["kwargs"]["user_endpoint_id"] == place.agent.id
    page.get_by_text("It has been told to stop.").wait_for()
    frank = place.scene.person("frank")  # somebody else sees none of it
    assert frank.ask("GET", f"/v3/endpoints/{place.manager.id}/live")["user_endpoints"] == []
    frank.ask("GET", f"/v3/endpoints/{place.agent.id}", status=403)


# Policies ------------------------------------------------------------------------------------------------------------


def test_a_policy_is_made_with_errors_told_beside_their_fields_and_changed(place: Place, page: Page) -> None:
    place.open(page, "ada", "/policies")
    page.get_by_text("No policies yet.").wait_for()
    page.get_by_role("link", name="Create a policy").click()
    page.get_by_label("Display Name").fill("Staff <b>")
    page.get_by_label("Authentication Timeout").fill("soon")
    page.get_by_label("Included Domains").fill("example.edu\nno domain")
    page.get_by_role("button", name="Create").click()
    page.get_by_text("Line 2: “no domain” is no domain.").wait_for()
    assert page.get_by_label("Description").evaluate("field => field === document.activeElement")
    for name in ("Description", "Authentication Timeout", "Included Domains"):
        field = page.get_by_label(name)
        assert field.get_attribute("aria-invalid") == "true"
        assert page.locator(f"[id='{(field.get_attribute('aria-describedby') or '').split()[-1]}']").is_visible()
    page.get_by_label("Description").fill("Who works here")
    page.get_by_label("Authentication Timeout").fill("1")
    page.get_by_label("Included Domains").fill("Example.edu\n*.example.org\n")
    page.get_by_label("High Assurance").check()
    page.get_by_role("button", name="Create").click()
    expect_row(page, "Authentication policies", "Staff <b>", "1 minute", "example.edu, *.example.org").get_by_role(
        "link"
    ).click()
    page.get_by_role("heading", name="Edit Policy Details").wait_for()
    assert (page.get_by_label("Authentication Timeout").input_value(), page.get_by_label("Unit").input_value()) == (
        "1",
        "minutes",
    )
    page.get_by_label("Unit").select_option("hours")
    page.get_by_label("Excluded Domains").fill("bad.example.org")
    page.get_by_role("button", name="Save").click()
    expect_row(page, "Authentication policies", "1 hour", "bad.example.org")
    (stored,) = place.ada.ask("GET", "/v3/policies")["policies"]
    assert stored["authentication_assurance_timeout"] == 3600
    assert stored["domain_constraints_include"] == ["example.edu", "*.example.org"]
    assert stored["high_assurance"] is True


# Usage ---------------------------------------------------------------------------------------------------------------


def test_usage_adds_up_what_was_run_and_can_be_taken_away(place: Place, page: Page) -> None:
    place.open(page, "ada", "/usage?by=function")
    expect_row(page, "Usage by function", "double", "1")
    assert fact(page, "Failed").inner_text() == "1"
    kept = {line["Function"]: (line["Tasks"], line["Failed"]) for line in downloaded(page)}
    assert kept == {"double": ("1", "0"), "refuse": ("1", "1")}
    page.get_by_label("Whose").select_option("Everybody's at an endpoint")
    page.get_by_label("Counted by").select_option("User")
    with page.expect_navigation():
        page.get_by_role("button", name="Show").click()
    page.get_by_text("Choose an endpoint that you manage.").wait_for()
    page.get_by_label("Endpoint").select_option("desk")
    with page.expect_navigation():
        page.get_by_role("button", name="Show").click()
    expect_row(page, "Usage by user", "ada@local", "2")
    assert page.get_by_label("Whose").get_by_text("The whole service").count() == 0


# Operators -----------------------------------------------------------------------------------------------------------


def test_an_operator_disables_somebody_and_finds_that_in_the_audit_log(place: Place, page: Page) -> None:
    eve = place.scene.person("eve")
    place.open(page, "ops", "/operator/users?search=eve")
    expect_row(page, "Users, by name", "eve@local", "enabled").get_by_role("link").click()
    page.get_by_role("button", name="Disable").click()
    confirm(page, "Disable")
    page.locator(".fc-status", has_text="disabled").first.wait_for()
    eve.ask("GET", "/v3/whoami", status=401)
    page.get_by_role("link", name="What they did").click()
    page.get_by_label("Who").wait_for()
    page.goto(f"{place.scene.url}/operator/audit?action=user.&outcome=done")
    expect_row(page, "Audit log, newest first", "user.disable", "ops@local", eve.identity.id[-8:])
    page.goto(f"{place.scene.url}/operator/users/{eve.identity.id}")
    page.get_by_role("button", name="Enable").click()
    confirm(page, "Enable")
    page.locator(".fc-status", has_text="enabled").first.wait_for()
    page.get_by_role("button", name="Reset password").click()
    confirm(page, "Reset password")
    page.get_by_text("Shown only now.").wait_for()
    assert PASSWORD not in page.inner_text("main")


def test_an_operator_sees_how_the_service_goes(place: Place, page: Page) -> None:
    place.open(page, "ops", "/operator")
    page.locator(".fc-status", has_text="ok").wait_for()
    assert fact(page, "Kind").inner_text() == "sqlite"
    assert "direct" in fact(page, "Endpoints").inner_text()
    page.get_by_role("link", name="Groups").click()
    page.get_by_text("No groups.").wait_for()


def test_pages_for_operators_tell_others_so_and_show_them_nothing(place: Place, page: Page) -> None:
    place.open(page, "ada", "/compute")
    assert page.get_by_role("navigation", name="Main").get_by_role("link", name="Operator").count() == 0
    for path in ("/operator", "/operator/users", "/operator/audit"):
        answer = page.goto(f"{place.scene.url}{path}")
        assert answer is not None
        assert answer.status == 403
        page.get_by_text("This page is for operators").wait_for()
        assert "eve" not in page.inner_text("main")


# Everybody -----------------------------------------------------------------------------------------------------------


def test_who_has_nothing_yet_is_told_what_to_do_next(place: Place, page: Page) -> None:
    place.scene.person("carol")
    place.open(page, "carol", "/tasks")
    for path, title, command in (
        ("/tasks", "No tasks yet.", "executor.submit("),
        ("/functions", "No functions yet.", "register_function("),
        ("/console/compute", "You manage no multi-user endpoint.", "farcall-endpoint configure"),
        ("/policies", "No policies yet.", "farcall-endpoint configure"),
    ):
        page.goto(f"{place.scene.url}{path}")
        page.get_by_text(title).wait_for()
        assert command in page.inner_text("main")
    page.goto(f"{place.scene.url}/usage")
    page.get_by_text("Nothing was used in this time.").wait_for()


@pytest.mark.parametrize("path", ["tasks", "functions", "policies/new", "usage", "operator/users", "operator/audit"])
def test_no_page_is_wider_than_a_phone(place: Place, page: Page, path: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    place.open(page, "ops", f"/{path}")
    page.get_by_role("heading", level=1).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
