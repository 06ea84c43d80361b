"""The frame that every page has: navigation, title, theme, who is logged in; and for a narrow screen a drawer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nicegui import ui

from farcall import __version__
from farcall.console.components.text import Tag, link

if TYPE_CHECKING:
    from farcall.console.page import View

__all__ = ["SECTIONS", "Crumb", "Section", "frame"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """An entry of the navigation.

    Attributes:
        icon: name of a Material icon.
    """

    name: str
    label: str
    path: str
    icon: str
    operators_only: bool = False


@dataclass(frozen=True, slots=True)
class Crumb:
    """A step of the way to a page."""

    label: str
    path: str


SECTIONS: Final = (
    Section(name="compute", label="Compute", path="/compute", icon="dns"),
    Section(name="tasks", label="Tasks", path="/tasks", icon="checklist"),
    Section(name="functions", label="Functions", path="/functions", icon="functions"),
    Section(name="console", label="Console", path="/console/compute", icon="monitor_heart"),
    Section(name="policies", label="Policies", path="/policies", icon="policy"),
    Section(name="usage", label="Usage", path="/usage", icon="bar_chart"),
    Section(name="operator", label="Operator", path="/operator", icon="admin_panel_settings", operators_only=True),
)
_THEMES: Final = {"auto": (None, "brightness_auto"), "light": (False, "light_mode"), "dark": (True, "dark_mode")}
_REMEMBER: Final = "document.cookie = 'farcall_theme=' + {0!r} + '; path=/; max-age=31536000; samesite=lax'"


@contextlib.contextmanager
def frame(view: View) -> Iterator[Any]:
    """The page around its content. Yields the element that the content goes into."""
    for sheet in ("console.css", "pages.css"):
        ui.add_head_html(f'<link rel="stylesheet" href="/console/static/{sheet}?{__version__}">')
    ui.colors(primary="#2257bf", negative="#b3261e", positive="#16794f")
    client = view.client
    with ui.header().classes("fc-header"):
        link("Skip to the content", "#main").classes("fc-skip")
        drawer_button = ui.button(icon="menu").props(
            'flat dense round aria-label="Navigation" aria-controls=navigation'
        )
        drawer_button.classes("fc-only-narrow")
        with link("", "/compute").classes("fc-brand"):
            Tag("span", "Farcall")
        Tag("div").classes("fc-grow")
        _theme_button(view)
        with ui.button(icon="account_circle").props('flat dense round aria-label="Your login"'):
            with ui.menu().props("auto-close role=menu"):
                Tag("div", view.session.username).classes("fc-menu-text")
                ui.menu_item("Account", lambda: view.go("/account")).props("role=menuitem")
                ui.menu_item("Log out", view.log_out).props("role=menuitem")
    drawer = ui.left_drawer(bordered=True).props("width=210 breakpoint=800 show-if-above").classes("fc-drawer")
    client.connect_handlers.pop()  # it asks every browser whether the drawer is open: nobody here needs to know
    with drawer:
        _navigation(view)
    drawer_button.on_click(drawer.toggle)
    with Tag("div").classes("fc-main") as main:  # within the <main> of Quasar's page
        main.props["id"] = "main"
        main.props["tabindex"] = "-1"
        crumbs = Tag("nav").classes("fc-crumbs")
        crumbs.props["aria-label"] = "Breadcrumb"
        crumbs.set_visibility(False)
        heading = Tag("h1", view.page.title)
        client.title = f"{view.page.title} - Farcall"

        def set_title(title: str, way: tuple[Crumb, ...]) -> None:
            heading.text = title
            client.title = f"{title} - Farcall"
            crumbs.clear()
            crumbs.set_visibility(bool(way))
            with crumbs, Tag("ol"):
                for crumb in way:
                    with Tag("li"):
                        link(crumb.label, crumb.path)

        view.frame_title = set_title
        with Tag("div").classes("fc-body") as body:
            yield body


def _navigation(view: View) -> None:
    with Tag("nav").classes("fc-nav") as nav:
        nav.props["id"] = "navigation"
        nav.props["aria-label"] = "Main"
        for section in SECTIONS:
            if section.operators_only and not view.session.is_operator:
                continue
            with link("", section.path).classes("fc-nav-item") as item:
                ui.icon(section.icon).props("aria-hidden=true")
                Tag("span", section.label)
            if section.name == view.page.section:
                item.props["aria-current"] = "page"
        Tag("div").classes("fc-grow")
        with Tag("div").classes("fc-foot"):
            link("Interface", "/docs")
            Tag("span", f"Farcall {__version__}")


def _theme_button(view: View) -> None:
    chosen = view.client.request.cookies.get("farcall_theme", "auto")
    chosen = chosen if chosen in _THEMES else "auto"
    mode = ui.dark_mode(_THEMES[chosen][0])
    button = ui.button().props("flat dense round")

    def show(name: str) -> None:
        button.props["icon"] = _THEMES[name][1]
        button.props["aria-label"] = f"Theme: {'as your system has it' if name == 'auto' else name}. Change"
        button.update()

    def change() -> None:
        nonlocal chosen
        names = list(_THEMES)
        chosen = names[(names.index(chosen) + 1) % len(names)]
        mode.value = _THEMES[chosen][0]
        view.client.run_javascript(_REMEMBER.format(chosen))
        show(chosen)

    button.on_click(change)
    show(chosen)
