"""What makes a function a page of the console: its address, its viewer, and what is said if something goes wrong.

    @console_page("/tasks", title="Tasks", section="tasks")
    async def tasks(view: View) -> None:
        found = await view.api.get("/v3/tasks", state=view.query.get("state"))
        ...

The function runs inside the page's frame (`layout`). An `ApiError` that it does not catch becomes a page that says what
happened; one that a login would cure leads to that login.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from nicegui import ui
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from farcall.console.api import Api
from farcall.console.app import SESSION
from farcall.console.components.boxes import error_box
from farcall.console.components.text import link
from farcall.console.layout import SECTIONS, Crumb, frame
from farcall.console.login import log_out, login_path, refusal_page
from farcall.console.sessions import Session
from farcall.wire.auth import session_demand
from farcall.wire.errors import ApiError, LoginRequired, Unauthenticated

if TYPE_CHECKING:
    from farcall.console.live import Fail, Hear

__all__ = ["Page", "View", "console_page", "register", "url"]

_logger = logging.getLogger(__name__)
_TIMEOUT_S: Final = 40.0
_FRESH_S: Final = 5.0

Build = Callable[..., Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page that can be registered.

    Attributes:
        path: with parameters in braces, which `build` is given by name.
        section: what the navigation marks; see `layout.SECTIONS`.
        operators_only: not offered to others, who are told so. (What they may is decided by the interface.)
    """

    path: str
    title: str
    section: str
    build: Build
    operators_only: bool = False


def console_page(path: str, *, title: str, section: str, operators_only: bool = False) -> Callable[[Build], Page]:
    """Make a page of an async function of a `View` and the parameters in `path` (text)."""

    def decorate(build: Build) -> Page:
        return Page(path=path, title=title, section=section, build=build, operators_only=operators_only)

    return decorate


@dataclass(eq=False, kw_only=True)
class View:
    """One page that is open.

    Attributes:
        api: asks with the viewer's token; `projects` with the one for policies and people.
        path: without the query.
        query: parameters of the address; change them by `set_query`.
    """

    session: Session
    page: Page
    path: str
    query: dict[str, str]
    client: Any  # nicegui.Client
    on_ended: Callable[[], None] = field(default=lambda: None, repr=False)

    @property
    def api(self) -> Api:
        return self.session.api

    @property
    def projects(self) -> Api:
        return self.session.projects

    def set_title(self, title: str, *crumbs: Crumb) -> None:
        """Title of the page, heading and window, once it is known what it shows; before anything is shown.

        Args:
            crumbs: the way here, from the top.
        """
        self.frame_title(title, crumbs)

    frame_title: Callable[[str, tuple[Crumb, ...]], None] = field(default=lambda _title, _crumbs: None)

    def set_query(self, **values: str | None) -> None:
        """Change parameters in the address, so that it can be shared; None and "" remove one. Loads nothing."""
        for name, value in values.items():
            if value:
                self.query[name] = value
            else:
                self.query.pop(name, None)
        self.client.run_javascript(
            f"history.replaceState(history.state, '', {json.dumps(url(self.path, **self.query))})"
        )

    def go(self, target: str) -> None:
        """Lead the browser to a path of ours."""
        self.client.open(target)

    def reload(self) -> None:
        self.client.run_javascript("location.reload()")

    def watch(self, endpoint_id: str, hear: Hear, fail: Fail | None = None) -> None:
        """Be told of an endpoint until the page is closed; see `Live.watch`. `hear` may change the page."""
        self._listen(self.session.live.watch(endpoint_id, *self._here(hear, fail)))

    def watch_list(self, query: Mapping[str, Any], hear: Hear) -> Callable[[], None]:
        """Likewise of a list of endpoints; see `Live.watch_list`. Returns what ends it sooner."""
        return self._listen(self.session.live.watch_list(query, *self._here(hear, None)))

    def _listen(self, stop: Callable[[], None]) -> Callable[[], None]:
        if self.client.is_deleted:  # it was closed while something was asked for it
            stop()
        else:
            self.client.on_delete(stop)
        return stop

    def _here(self, hear: Hear, fail: Fail | None) -> tuple[Hear, Fail]:
        def hear_here(document: Mapping[str, Any]) -> None:
            if not self.client.is_deleted:
                with self.client:
                    hear(document)

        def fail_here(error: ApiError) -> None:
            if self.client.is_deleted:
                return
            if isinstance(error, Unauthenticated):
                self.end_login()
            elif fail is not None:
                with self.client:
                    fail(error)

        return hear_here, fail_here

    async def attempt(self, asking: Awaitable[Any], done: str = "") -> Any:
        """Await something that was asked for by a button, and say what came of it.

        Args:
            done: said if it went well.

        Returns:
            What it answered; None if it was refused, which the viewer has been told then.
        """
        try:
            answer = await asking
        except Unauthenticated:
            self.end_login()
            return None
        except LoginRequired as exc:
            self.go(login_path(self.here, **_demands(exc)))
            return None
        except ApiError as exc:
            ui.notify(str(exc), type="negative", timeout=0, close_button="Close", multi_line=True)
            return None
        if done:
            ui.notify(done, type="positive")
        return {} if answer is None else answer

    @property
    def here(self) -> str:
        """This page's address."""
        return url(self.path, **self.query)

    def end_login(self) -> None:
        """The interface does not take the token any more: log in again, and come back."""
        self.session.end()

    async def log_out(self) -> None:
        """Everywhere in this browser: other pages of this login are led to the login page."""
        self.session.on_end.discard(self.on_ended)
        self.session.end()
        await log_out(self.session)
        self.go("/console/logged-out")


def url(path: str, **query: str | None) -> str:
    """A path with parameters; those without a value are left out."""
    text = urlencode({name: value for name, value in query.items() if value})
    return quote(path, safe="/") + (f"?{text}" if text else "")


def register(page: Page) -> None:
    """Have NiceGUI answer with this page."""

    async def show(request: Request) -> Response | None:
        session: Session = request.scope[SESSION]
        view = View(
            session=session,
            page=page,
            path=request.url.path,
            query=dict(request.query_params),
            client=ui.context.client,
        )
        _end_with_login(view)
        try:
            await _show(view, request.path_params)
        except (Unauthenticated, LoginRequired) as exc:
            if isinstance(exc, LoginRequired) and _is_curable(exc):
                return RedirectResponse(login_path(view.here, **_demands(exc)), 303, {"cache-control": "no-store"})
            session.end()
            if time.time() - session.began_at < _FRESH_S:
                return refusal_page(exc, view.here)  # another login at once would not help either
            return RedirectResponse(login_path(view.here), 303, {"cache-control": "no-store"})
        return None

    show.__name__ = page.build.__name__
    ui.page(page.path, title=f"{page.title} - Farcall", response_timeout=_TIMEOUT_S)(show)


async def _show(view: View, parameters: Mapping[str, Any]) -> None:
    page = view.page
    with frame(view) as main:
        try:
            if page.operators_only and not view.session.is_operator:
                error_box(
                    "This page is for operators",
                    f"{view.session.username} is not an administrator of this service. Who is can make others so: "
                    "`farcall-service admin grant NAME`.",
                )
                view.client.status_code = 403
                return
            await page.build(view, **parameters)
        except (Unauthenticated, LoginRequired) as exc:
            if isinstance(exc, Unauthenticated) or _is_curable(exc):
                raise
            _say(view, main, exc)
        except ApiError as exc:
            _say(view, main, exc)
        except Exception:
            _logger.exception("A page failed", extra={"event": "console.page_fault", "page": page.path})
            main.clear()
            with main:
                error_box("The console failed on this page", "The service's log says why. Other pages work.")
            view.client.status_code = 500


def _say(view: View, main: Any, error: ApiError) -> None:  # main: a nicegui element
    titles = {404: "There is no such thing here", 403: "You may not see this", 429: "Too many requests"}
    main.clear()
    with main:
        error_box(titles.get(error.http_status, "The service refused"), str(error), retry=error.http_status >= 429)
        if error.http_status < 429:
            back = next(each for each in SECTIONS if each.name == view.page.section)
            link(f"Back to {back.label}", back.path)
    view.client.status_code = error.http_status


def _demands(error: ApiError) -> dict[str, str]:
    demand = session_demand(error.detail)
    return {} if demand is None else demand.to_query()


def _is_curable(error: ApiError) -> bool:
    return bool(_demands(error))


def _end_with_login(view: View) -> None:
    client, session = view.client, view.session

    def ended() -> None:
        if not client.is_deleted:
            client.open(login_path(view.here))

    view.on_ended = ended
    session.on_end.add(ended)
    client.on_delete(lambda: session.on_end.discard(ended))
