"""Requests to one service over kept-alive HTTP/1.1 connections: authentication, retries, errors of ours.

Owns sockets, time and the token in use; `retry` decides, `rest` knows the paths and shapes. httpx's transport
is used without `httpx.Client`: what that adds (redirects, cookies) is not wanted here and took a third of the
time of a request on loopback (400 µs against 270 µs).
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from farcall import __version__
from farcall.client.retry import Failure, FailureKind, RetryIn, RetryPolicy, decide, retry_after_s_from_header
from farcall.client.settings import is_loopback_url
from farcall.client.tokens import TokenStore
from farcall.tls import Trust, is_refusal, why_no_tls
from farcall.wire.errors import (
    ApiError,
    CertificateRefused,
    FarcallError,
    NotAService,
    ServiceUnreachable,
    Unauthenticated,
    error_from_document,
)

__all__ = ["HttpSession"]

_KEEP_ALIVE_S = 30.0
_CONNECT_TIMEOUT_S = 10.0

_OF_GATEWAYS = frozenset({413, 429, 500, 502, 503, 504})
"""What a proxy before a service says in words of its own: that tells nothing about who stands behind it."""

# A failure of these kinds happens before the first byte of the request leaves.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


class HttpSession:
    """Sends JSON requests to one service. Safe to use from several threads, and in a forked child.

    Args:
        url: address of the service, without trailing slash.
        token: bearer token, or what returns it for each request; if None, `FARCALL_TOKEN`, then the store are asked,
            and the store again after a 401.
        timeout_s: how long to wait for (a part of) an answer.
        transport: in place of sockets, for tests.
        trust: for https, whose certificates are accepted.

    Raises:
        CaFileUnusable: they cannot be read.
    """

    def __init__(
        self,
        url: str,
        token: str | Callable[[], str] | None,
        *,
        store: TokenStore,
        timeout_s: float,
        retry: RetryPolicy,
        transport: httpx.BaseTransport | None,
        trust: Trust,
    ) -> None:
        self.url = url
        self._trust = trust
        self.retry = retry
        self._store = store
        self._timeout_s = timeout_s
        self._given_transport = transport
        self._token_source = token if callable(token) else None
        self._fixed_token = None if callable(token) else (token or os.environ.get("FARCALL_TOKEN") or None)
        self._token = _checked_token(self._fixed_token)
        self._is_token_known = self._token is not None
        self._has_met = False
        self._closed = threading.Event()
        self._pid = os.getpid()
        self._transport = transport or _new_transport(url, trust)

    @property
    def token_origin(self) -> object:
        """Equal for sessions that get their tokens from the same place; to be compared, never shown."""
        return self._token_source or self._fixed_token or self._store.path

    def close(self) -> None:
        """Close the connections and end waits for a retry. Idempotent; requests raise ServiceUnreachable now."""
        self._closed.set()
        if os.getpid() == self._pid:
            self._transport.close()

    def request(
        self,
        method: str,
        path: str,
        document: object = None,
        *,
        is_repeatable: bool,
        headers: Mapping[str, str] | None = None,
        retry: RetryPolicy | None = None,
        interrupt: threading.Event | None = None,
    ) -> Any:  # any JSON value
        """Send one request, again if that is sensible, and return the decoded JSON of the answer.

        Args:
            document: the JSON body; None sends none.
            is_repeatable: it does no harm if the service carries the request out twice.
            retry: in place of the session's policy.
            interrupt: ends the wait for a retry when set; the last failure is raised then.

        Raises:
            ServiceUnreachable: nobody answered in time.
            ApiError: the service answered with an error.
            NotAService: what answered is no Farcall service.
        """
        body = None if document is None else json.dumps(document, separators=(",", ":")).encode()
        policy = retry or self.retry
        began_s = time.monotonic()
        attempt, has_renewed = 0, False
        while True:
            attempt += 1
            failure, error, answer = self._attempt(method, path, body, headers)
            if failure is None:
                return answer
            if failure.status == 401 and not has_renewed and self._renew_token():
                has_renewed = True
                continue
            decision = decide(
                policy,
                failure,
                attempt=attempt,
                elapsed_s=time.monotonic() - began_s,
                is_repeatable=is_repeatable,
                has_met=self._has_met,
                jitter=random.random(),
            )
            if not isinstance(decision, RetryIn) or (interrupt or self._closed).wait(decision.wait_s):
                assert error is not None
                raise error

    def _attempt(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None
    ) -> tuple[Failure | None, FarcallError | None, Any]:
        if self._closed.is_set():
            raise ServiceUnreachable(self.url, "this client has been closed")
        request = httpx.Request(
            method,
            self.url + path,
            headers=self._headers(body is not None, headers),
            content=body,
            extensions={"timeout": self._timeouts()},
        )
        try:
            response = self._transport_of_process().handle_request(request)
            try:
                content = response.read()
            finally:
                response.close()
        except httpx.HTTPError as exc:
            why = self._why_no_tls(exc)
            if is_refusal(exc):  # waiting a moment does not make a certificate better
                raise CertificateRefused(self.url, why or str(exc)) from exc
            kind = FailureKind.NOT_SENT if isinstance(exc, _NOT_SENT) else FailureKind.NO_ANSWER
            error = ServiceUnreachable(self.url, why or str(exc) or type(exc).__name__)
            error.__cause__ = exc
            return Failure(kind=kind), error, None
        self._has_met = True
        return self._judge(response, content)

    def _why_no_tls(self, error: httpx.HTTPError) -> str | None:
        parts = urlsplit(self.url)
        if parts.scheme != "https":
            return None
        return why_no_tls(error, host=parts.hostname or "", port=parts.port or 443, trust=self._trust)

    def _judge(self, response: httpx.Response, content: bytes) -> tuple[Failure | None, FarcallError | None, Any]:
        status = response.status_code
        try:
            document = json.loads(content)
        except ValueError:
            if status not in _OF_GATEWAYS:
                raise self._stranger(response) from None
            document = None
        if status < 300:
            return None, None, document
        if status not in _OF_GATEWAYS and not _is_error_of_ours(document):
            raise self._stranger(response)
        retry_after_s = retry_after_s_from_header(response.headers.get("retry-after"))
        error: ApiError = error_from_document(status, document, response.reason_phrase)
        if status == 401:
            error = self._unauthenticated(error)
        return Failure(kind=FailureKind.STATUS, status=status, retry_after_s=retry_after_s), error, None

    def _stranger(self, response: httpx.Response) -> NotAService:
        kind = response.headers.get("content-type", "no content type")
        return NotAService.at(self.url, f"HTTP {response.status_code}, {kind}", response.status_code)

    def _headers(self, has_body: bool, extra: Mapping[str, str] | None) -> dict[str, str]:
        headers = {
            "accept": "application/json",
            "user-agent": f"farcall/{__version__}",
        }
        if has_body:
            headers["content-type"] = "application/json"
        token = self._current_token()
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        if extra:
            headers.update(extra)
        return headers

    def _timeouts(self) -> dict[str, float]:
        connect_s = min(_CONNECT_TIMEOUT_S, self._timeout_s)
        return {"connect": connect_s, "read": self._timeout_s, "write": self._timeout_s, "pool": self._timeout_s}

    def _transport_of_process(self) -> httpx.BaseTransport:
        if os.getpid() != self._pid:
            # The parent's connections are the parent's: dropped unclosed, since closing would speak TLS on them.
            self._pid = os.getpid()
            self._inherited = self._transport
            self._transport = self._given_transport or _new_transport(self.url, self._trust)
        return self._transport

    def _current_token(self) -> str | None:
        if self._token_source is not None:
            self._token = _checked_token(self._token_source())
        elif not self._is_token_known:
            self._renew_token()
        return self._token

    def _renew_token(self) -> bool:
        """Read the store (again); whether that brought another token than the one in use."""
        if self._fixed_token is not None or self._token_source is not None:
            return False
        stored = self._store.get(self.url)
        before, self._token = self._token, _checked_token(stored.access_token if stored else None)
        self._is_token_known = True
        return self._token is not None and self._token != before

    def _unauthenticated(self, answer: ApiError) -> Unauthenticated:
        how = f"Log in with `farcall login {self.url}`, or put a token into FARCALL_TOKEN."
        if self._token is None:
            return Unauthenticated(f"There is no token for the service at {self.url}. {how}", answer.detail)
        is_given = self._fixed_token is not None or self._token_source is not None
        origin = "that was given" if is_given else f"in {self._store.path}"
        return Unauthenticated(
            f"The service at {self.url} does not accept the token {origin} ({answer.message.rstrip('.')}). {how}",
            answer.detail,
        )


def _is_error_of_ours(document: object) -> bool:
    return isinstance(document, dict) and isinstance(document.get("code"), str)


def _checked_token(token: str | None) -> str | None:
    if token is None:
        return None
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("the token is no token: it must be one word of printable ASCII characters")
    return token


def _new_transport(url: str, trust: Trust) -> httpx.HTTPTransport:
    is_tls = url.startswith("https:")
    proxy = None
    if not is_loopback_url(url):
        parts = urlsplit(url)
        if not proxy_bypass(parts.hostname or ""):
            proxy = getproxies().get(parts.scheme)
    return httpx.HTTPTransport(
        verify=trust.context() if is_tls else False,  # loading the certificates takes a while; plain http needs none
        trust_env=False,
        proxy=proxy,
        limits=httpx.Limits(max_connections=32, max_keepalive_connections=8, keepalive_expiry=_KEEP_ALIVE_S),
    )
