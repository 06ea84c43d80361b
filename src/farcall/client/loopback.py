"""Where a browser comes back to after a login: a web server on this machine that answers one address, once.

Owns the socket and what the person reads at the end. `login` made the address that the browser was sent to, and says
what the code is worth.

Source: RFC 8252, 7.3 (loopback interface redirection); RFC 6749, 4.1.2 (authorization response).
"""

from __future__ import annotations

import hmac
import html
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qs, urlsplit

from farcall.wire.errors import LoginFailed

__all__ = ["CALLBACK_PATH", "Loopback"]

CALLBACK_PATH = "/callback"

_T = TypeVar("_T")

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Farcall</title><meta name="viewport" content="width=device-width">
<style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:20vh auto;padding:0 1rem;color:#1c2430}}
h1{{font-size:1.5rem}}</style></head>
<body><main><h1>{title}</h1><p>{text}</p></main></body></html>
"""


class Loopback(Generic[_T]):
    """Waits for the browser, in threads of its own. Use it in a `with` statement.

    Args:
        url: of the service, for messages.
        state: what the browser must bring back; whatever comes without it is sent away and changes nothing.
        redeem: makes of the code what `wait` returns, before the person reads that all is well.
    """

    def __init__(self, url: str, state: str, redeem: Callable[[str], _T]) -> None:
        self._url = url
        self._state = state
        self._redeem = redeem
        self._found: list[_T] = []
        self._failed: list[BaseException] = []
        self._is_taken = threading.Lock()
        self._is_over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="farcall-login", daemon=True)

    @property
    def redirect_uri(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}{CALLBACK_PATH}"

    def __enter__(self) -> Loopback[_T]:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait(self, cancelled: threading.Event, timeout_s: float) -> _T:
        """What `redeem` made of the code.

        Raises:
            LoginFailed: the service refused, nobody came in time, or `cancelled` was set.
            Exception: what `redeem` raised.
        """
        # One event ends the wait, so that nothing has to look at two in turn.
        threading.Thread(target=self._watch, args=(cancelled,), name="farcall-login-end", daemon=True).start()
        self._is_over.wait(timeout_s)
        if self._failed:
            raise self._failed[0]
        if not self._found:
            reason = "it was broken off" if cancelled.is_set() else f"nobody came in {timeout_s / 60:.0f} minutes"
            raise LoginFailed(self._url, "cancelled", reason)
        return self._found[0]

    def _watch(self, cancelled: threading.Event) -> None:
        cancelled.wait()
        self._is_over.set()

    def answer(self, target: str) -> tuple[int, str, str]:
        """For the web server: status, title and text of the page for a request."""
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path != CALLBACK_PATH:
            return 404, "Nothing here", "This address is only for the end of a login."
        if not hmac.compare_digest(query.get("state", "").encode(), self._state.encode()):
            return 400, "This is not the login that is waited for", "Start again with <code>farcall login</code>."
        if not self._is_taken.acquire(blocking=False):
            return 400, "This login is over", "You can close this window."
        try:
            if "code" not in query:
                raise LoginFailed(self._url, query.get("error", "no_code"), query.get("error_description", ""))
            self._found.append(self._redeem(query["code"]))
        except Exception as exc:
            self._failed.append(exc)
            return 200, "You are not logged in", html.escape(str(exc))
        return 200, "You are logged in", "You can close this window and go back to your program."

    def answered(self) -> None:
        """For the web server: the page has left."""
        if self._found or self._failed:
            self._is_over.set()


def _handler(loopback: Loopback[Any]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """The address holds the code."""

        def do_GET(self) -> None:
            status, title, text = loopback.answer(self.path)
            try:
                content = _PAGE.format(title=title, text=text).encode()
                self.send_response(status)
                self.send_header("content-type", "text/html; charset=utf-8")
                self.send_header("content-length", str(len(content)))
                self.send_header("cache-control", "no-store")
                self.send_header("referrer-policy", "no-referrer")
                self.send_header("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'")
                self.send_header("connection", "close")
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # the window was closed before the page came
            finally:
                self.close_connection = True
                loopback.answered()

    return Handler
