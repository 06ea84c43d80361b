"""Pages for people: templates that escape everything, no scripts, no third parties, and headers that say so.

Every form carries a token that counts only in the browser that it was shown to; `checked_form` refuses others.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from farcall import __version__
from farcall.service.web.csrf import csrf_token, is_csrf_token, new_cookie
from farcall.wire.errors import Forbidden, InvalidRequest

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = [
    "CSP",
    "base_url",
    "browser_of",
    "checked_form",
    "client_address",
    "cookie_name",
    "page",
    "read_form",
    "redirect",
    "set_cookie",
    "stylesheet",
]

_HERE: Final = Path(__file__).parent
_FORM_LIMIT_BYTES: Final = 64 * 1024
_BROWSER: Final = "farcall_browser"

CSP: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; "
    "form-action 'self'"
)
"""`form-action` is left out where the answer to a form leads to another program: browsers apply it to redirects."""

_HEADERS: Final = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
}


def page(
    request: Request, secret: bytes, template: str, status: int = 200, *, leads_away: bool = False, **values: Any
) -> Response:
    """A page. Sets the cookie that tells browsers apart, if this one has none.

    Args:
        secret: the service's.
        template: file name.
        leads_away: the answer to its form may redirect to another program.
        values: for the template, which escapes them; `csrf` is added.
    """
    browser = browser_of(request)
    made = None if browser else new_cookie()
    values["csrf"] = csrf_token(secret, browser or made or "")
    text = _templates().get_template(template).render(version=__version__, **values)
    csp = CSP.replace("; form-action 'self'", "") if leads_away else CSP
    response = Response(text, status, {**_HEADERS, "content-security-policy": csp}, "text/html; charset=utf-8")
    if made is not None:
        set_cookie(request, response, _BROWSER, made)
    return response


def redirect(location: str) -> Response:
    """Send a browser elsewhere by GET, whatever it did before."""
    return RedirectResponse(location, 303, {"cache-control": "no-store", "referrer-policy": "no-referrer"})


async def read_form(request: Request) -> dict[str, str]:
    """The members of a form; of those that come twice, the last. Raises InvalidRequest."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise InvalidRequest("This takes a form (application/x-www-form-urlencoded).")
    body = await request.body()
    if len(body) > _FORM_LIMIT_BYTES:
        raise InvalidRequest("The form is too long.")
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=100))
    except ValueError as exc:
        raise InvalidRequest("The form is damaged.") from exc


async def checked_form(request: Request, secret: bytes) -> Mapping[str, str]:
    """The members of a form of ours, sent by the browser that it was shown to.

    Raises:
        InvalidRequest: no form.
        Forbidden: it comes from somewhere else, or from a page that is too old.
    """
    form = await read_form(request)
    origin = request.headers.get("origin")
    is_ours = origin in (None, "null") or urlsplit(origin or "").netloc.lower() == _own_host(request).lower()
    # Browsers say so on https and on this machine. Another port of this machine shares our cookies, and could plant
    # one whose token it knows; but it is another origin.
    is_ours = is_ours and request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
    if not is_ours or not is_csrf_token(secret, browser_of(request), form.get("csrf", "")):
        raise Forbidden("This form does not come from a page of this browser, or its cookie is gone. Go back, reload.")
    return form


def browser_of(request: Request) -> str | None:
    """The value of the cookie that tells browsers apart; None if it has none."""
    value = request.cookies.get(cookie_name(request, _BROWSER))
    return value if value and len(value) <= 100 else None


def cookie_name(request: Request, name: str) -> str:
    """With the prefix that has browsers refuse such a cookie from elsewhere, where they can (https)."""
    return f"__Host-{name}" if request.url.scheme == "https" else name


def set_cookie(request: Request, response: Response, name: str, value: str, lifetime_s: float | None = None) -> None:
    """A cookie for this service only, out of reach for scripts. Empty `value`: delete it."""
    response.set_cookie(
        cookie_name(request, name),
        value,
        max_age=None if lifetime_s is None else int(lifetime_s),
        path="/",
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )


def base_url(request: Request) -> str:
    """How the caller reached this service, without a slash at the end."""
    return f"{request.url.scheme}://{_own_host(request)}"


def client_address(request: Request) -> str | None:
    """Where a request comes from, as far as it is known."""
    return request.client.host if request.client else None


def _own_host(request: Request) -> str:
    return request.url.netloc


@functools.cache
def stylesheet() -> str:
    """What the pages look like."""
    return (_HERE / "static" / "farcall.css").read_text(encoding="utf-8")


@functools.cache
def _templates() -> Environment:
    # Imported at the first page: a service that nobody logs in to does without it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
