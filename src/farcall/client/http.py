"""Requests to one service over kept-alive HTTP/1.1 connections: authentication, retries, errors of ours.

Owns sockets and time; `retry` decides, `credentials` has the tokens, `rest` knows the paths and shapes. httpx's
transport is used without `httpx.Client`: what that adds (redirects, cookies) is not wanted here and took a third of
the time of a request on loopback (400 µs against 270 µs).
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from farcall import __version__
from farcall.client.credentials import Again, Credential
from farcall.client.retry import Failure, FailureKind, RetryIn, RetryPolicy, decide, retry_after_s_from_header
from farcall.client.settings import is_loopback_url
from farcall.tls import Trust, is_refusal, why_no_tls
from farcall.wire.auth import COMPUTE_SERVER, session_demand
from farcall.wire.errors import (
    ApiError,
    CertificateRefused,
    FarcallError,
    NotAService,
    ServiceUnreachable,
    Unauthenticated,
    error_from_document,
)

__all__ = ["Answer", "HttpSession"]

_KEEP_ALIVE_S = 30.0
_CONNECT_TIMEOUT_S = 10.0

_OF_GATEWAYS = frozenset({413, 429, 500, 502, 503, 504})
"""What a proxy before a service says in words of its own: that tells nothing about who stands behind it."""

# A failure of these kinds happens before the first byte of the request leaves.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came back for one request, whatever its status. Header names are in lower case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    content: bytes


class HttpSession:
    """Sends JSON requests to one service. Safe to use from several threads, and in a forked child.

    Args:
        url: address of the service, without trailing slash.
        credential: what requests are sent with; None sends them without.
        timeout_s: how long to wait for (a part of) an answer.
        transport: in place of sockets, for tests.
        trust: for https, whose certificates are accepted.

    Raises:
        CaFileUnusable: they cannot be read.
    """

    def __init__(
        self,
        url: str,
        credential: Credential | None,
        *,
        timeout_s: float,
        retry: RetryPolicy,
        transport: httpx.BaseTransport | None,
        trust: Trust,
    ) -> None:
        self.url = url
        self._trust = trust
        self.retry = retry
        self._credential = credential
        self._timeout_s = timeout_s
        self._given_transport = transport
        self._has_met = False
        self._closed = threading.Event()
        self._pid = os.getpid()
        self._transport = transport or _new_transport(url, trust)

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
        server: str = COMPUTE_SERVER,
    ) -> Any:  # any JSON value
        """Send one request, again if that is sensible, and return the decoded JSON of the answer.

        A refused token is renewed once. Where the service asks for another login and somebody is there to log in,
        he is asked to, and the request is sent once more.

        Args:
            document: the JSON body; None sends none.
            is_repeatable: it does no harm if the service carries the request out twice.
            retry: in place of the session's policy.
            interrupt: ends the wait for a retry, or for a person, when set; the last failure is raised then.
            server: the resource server whose token is sent.

        Raises:
            ServiceUnreachable: nobody answered in time.
            ApiError: the service answered with an error.
            NotAService: what answered is no Farcall service.
        """
        body = None if document is None else json.dumps(document, separators=(",", ":")).encode()
        stop = interrupt or self._closed
        began_s = time.monotonic()
        attempt, has_renewed = 0, False
        helped: set[Again] = set()
        while True:
            attempt += 1
            failure, error, answer, token = self._attempt(method, path, body, headers, server)
            if failure is None:
                return answer
            assert error is not None
            if failure.status == 401 and not has_renewed:
                try:
                    has_renewed = self._renewed(server, token)
                except ServiceUnreachable as exc:
                    failure, error = _failure_of(exc), exc
                if has_renewed:
                    continue
            if Again.LOGGED_IN not in helped:
                again, error = self._log_in_again(error, token, stop)
                if again is not Again.NO and again not in helped:
                    helped.add(again)
                    continue
            decision = decide(
                retry or self.retry,
                failure,
                attempt=attempt,
                elapsed_s=time.monotonic() - began_s,
                is_repeatable=is_repeatable,
                has_met=self._has_met,
                jitter=random.random(),
            )
            if not isinstance(decision, RetryIn) or stop.wait(decision.wait_s):
                raise error

    def exchange(
        self,
        method: str,
        address: str,
        *,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        is_repeatable: bool,
    ) -> Answer:
        """Send one request to any address of the service, without a credential, and return whatever is answered.

        Args:
            address: a path, or a whole URL.
            form: sent as a form.
            is_repeatable: as for `request`.

        Raises:
            ServiceUnreachable: nobody answered in time.
        """
        url = self.url + address if address.startswith("/") else address
        content = None if form is None else urlencode(form).encode()
        began_s, attempt = time.monotonic(), 0
        while True:
            attempt += 1
            error: ServiceUnreachable | None = None
            try:
                answer = self._send(method, url, self._headers(headers, is_form=form is not None), content)
                if answer.status not in _OF_GATEWAYS:
                    return answer
                failure = _refusal(answer)
            except ServiceUnreachable as exc:
                error, failure = exc, _failure_of(exc)
            decision = decide(
                self.retry,
                failure,
                attempt=attempt,
                elapsed_s=time.monotonic() - began_s,
                is_repeatable=is_repeatable,
                has_met=self._has_met,
                jitter=random.random(),
            )
            if not isinstance(decision, RetryIn) or self._closed.wait(decision.wait_s):
                if error is not None:
                    raise error
                return answer

    def _attempt(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None, server: str
    ) -> tuple[Failure | None, FarcallError | None, Any, str | None]:
        token: str | None = None
        try:
            token = self._credential.token(server) if self._credential is not None else None
            answer = self._send(
                method, self.url + path, self._headers(headers, token=token, is_json=body is not None), body
            )
        except ServiceUnreachable as exc:
            return _failure_of(exc), exc, None, token
        except ApiError as exc:  # of the token endpoint
            if not exc.retryable:
                raise
            return Failure(kind=FailureKind.STATUS, status=exc.http_status), exc, None, token
        return *self._judge(answer, token), token

    def _send(self, method: str, url: str, headers: dict[str, str], content: bytes | None) -> Answer:
        if self._closed.is_set():
            raise ServiceUnreachable(self.url, "this client has been closed")
        request = httpx.Request(method, url, headers=headers, content=content, extensions={"timeout": self._timeouts()})
        try:
            response = self._transport_of_process().handle_request(request)
            try:
                received = response.read()
            finally:
                response.close()
        except httpx.HTTPError as exc:
            why = self._why_no_tls(exc)
            if is_refusal(exc):
                raise CertificateRefused(self.url, why or str(exc)) from exc
            raise ServiceUnreachable(self.url, why or str(exc) or type(exc).__name__) from exc
        self._has_met = True
        return Answer(
            status=response.status_code, reason=response.reason_phrase, headers=response.headers, content=received
        )

    def _why_no_tls(self, error: httpx.HTTPError) -> str | None:
        parts = urlsplit(self.url)
        if parts.scheme != "https":
            return None
        return why_no_tls(error, host=parts.hostname or "", port=parts.port or 443, trust=self._trust)

    def _judge(self, answer: Answer, token: str | None) -> tuple[Failure | None, FarcallError | None, Any]:
        try:
            document = json.loads(answer.content)
        except ValueError:
            if answer.status not in _OF_GATEWAYS:
                raise self._stranger(answer) from None
            document = None
        if answer.status < 300:
            return None, None, document
        if answer.status not in _OF_GATEWAYS and not _is_error_of_ours(document):
            raise self._stranger(answer)
        error: ApiError = error_from_document(answer.status, document, answer.reason)
        if answer.status == 401 and self._credential is not None:
            text = self._credential.refusal(self.url, token, error.message.rstrip("."))
            error = Unauthenticated(text, error.detail)
        return _refusal(answer), error, None

    def _renewed(self, server: str, refused: str | None) -> bool:
        return self._credential is not None and self._credential.renewed(server, refused)

    def _log_in_again(
        self, error: FarcallError, refused: str | None, stop: threading.Event
    ) -> tuple[Again, FarcallError]:
        """Whether the refusal was one that a login could help against, and did; and the error if not."""
        if self._credential is None or not isinstance(error, ApiError) or not 400 <= error.http_status < 500:
            return Again.NO, error
        demand = session_demand({**error.detail, "code": error.wire_code, "reason": error.message})
        if demand is None:
            return Again.NO, error
        return self._credential.log_in_again(self.url, demand, refused, error, stop)

    def _stranger(self, answer: Answer) -> NotAService:
        kind = answer.headers.get("content-type", "no content type")
        return NotAService.at(self.url, f"HTTP {answer.status}, {kind}", answer.status)

    def _headers(
        self, extra: Mapping[str, str] | None, *, token: str | None = None, is_json: bool = False, is_form: bool = False
    ) -> dict[str, str]:
        headers = {
            "accept": "application/json",
            "user-agent": f"farcall/{__version__}",
        }
        if is_json:
            headers["content-type"] = "application/json"
        if is_form:
            headers["content-type"] = "application/x-www-form-urlencoded"
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


def _failure_of(error: ServiceUnreachable) -> Failure:
    cause = error.__cause__
    # Waiting a moment does not make a certificate better, and a client that was closed stays closed.
    if cause is None or isinstance(error, CertificateRefused):
        return Failure(kind=FailureKind.STATUS)
    return Failure(kind=FailureKind.NOT_SENT if isinstance(cause, _NOT_SENT) else FailureKind.NO_ANSWER)


def _refusal(answer: Answer) -> Failure:
    retry_after_s = retry_after_s_from_header(answer.headers.get("retry-after"))
    return Failure(kind=FailureKind.STATUS, status=answer.status, retry_after_s=retry_after_s)


def _is_error_of_ours(document: object) -> bool:
    # `error`: of OAuth2.
    return isinstance(document, dict) and isinstance(document.get("code", document.get("error")), str)


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
