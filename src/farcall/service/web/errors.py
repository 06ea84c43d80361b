"""Every refusal as the error object of the protocol, whoever raised it. Internals stay in the log."""

from __future__ import annotations

import logging
from typing import Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from farcall.service.context import service_of
from farcall.service.web.bodies import json_response
from farcall.service.web.pages import page
from farcall.wire.errors import ApiError, FarcallError, InvalidRequest, NotFound

__all__ = ["install_error_handlers"]

_logger = logging.getLogger(__name__)
_PAGES: Final = ("/login", "/logout", "/account", "/device", "/v2/oauth2/authorize", "/v2/web/")
"""Paths that people open."""


def install_error_handlers(app: FastAPI) -> None:
    """Make `app` answer every exception with an error object."""
    app.add_exception_handler(FarcallError, _on_farcall_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(ClientDisconnect, _on_client_gone)
    app.add_exception_handler(Exception, _on_fault)


async def _on_farcall_error(_request: Request, exc: Exception) -> Response:
    if not isinstance(exc, ApiError):
        return await _on_fault(_request, exc)
    if _is_for_a_person(_request):
        return _error_page(_request, exc)
    headers = {}
    if exc.http_status == 401:
        headers["www-authenticate"] = "Bearer"
    elif exc.http_status in (429, 503):
        headers["retry-after"] = str(exc.detail.get("retry_after_s", 1))
    return json_response(exc.to_document(), exc.http_status, headers)


async def _on_http_exception(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    where = f"{request.method} {request.url.path}"
    headers = dict(exc.headers or {})
    if exc.status_code == 404:
        error: ApiError = NotFound(f"There is no {where}. The interface is described at /docs.")
    elif exc.status_code == 405:
        error = ApiError(f"There is no {where}: the path exists, the method does not.", None, 405, "METHOD_NOT_ALLOWED")
    else:
        error = ApiError(str(exc.detail), None, exc.status_code, "HTTP_ERROR")
    return json_response(error.to_document(), exc.status_code, headers)


async def _on_validation_error(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    faults = exc.errors()
    text = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)
    # A string where older clients look for one; the list is kept beside it.
    error = InvalidRequest(f"The request does not fit: {text}.", {"errors": [dict(fault) for fault in faults]})
    return json_response(error.to_document(), 422)


async def _on_client_gone(request: Request, _exc: Exception) -> Response:
    _logger.info("A client went away in the middle of its request", extra={"event": "http.client_gone"})
    return Response(status_code=499)  # nobody reads it


async def _on_fault(request: Request, exc: Exception) -> Response:
    _logger.error(
        "A request failed by a fault of the service",
        exc_info=exc,
        extra={"event": "http.fault", "method": request.method, "path": request.url.path},
    )
    error = ApiError("The service failed on this request; its log says why.", None, 500, "INTERNAL_ERROR")
    if _is_for_a_person(request):
        return _error_page(request, error)
    return json_response(error.to_document(), 500)


def _is_for_a_person(request: Request) -> bool:
    return request.url.path.startswith(_PAGES) and "text/html" in request.headers.get("accept", "")


def _error_page(request: Request, error: ApiError) -> Response:
    links = [{"url": "/account", "label": "To your account"}]
    return page(
        request,
        service_of(request).secret,
        "message.html",
        error.http_status,
        title="This cannot be done",
        text=str(error),
        bad=True,
        links=links,
    )
