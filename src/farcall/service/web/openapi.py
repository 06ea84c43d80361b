"""The description of the interface at /docs.

Routes read and write their bodies themselves (faster, and with better messages), so FastAPI cannot see the shapes:
`described` tells it, and `install_openapi` adds the schemas, which msgspec derives from the very classes that the
routes decode into and encode from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from fastapi import FastAPI

from farcall.wire.errors import ApiError

__all__ = ["described", "install_openapi"]

_REF = "#/components/schemas/{name}"
_ERROR_SCHEMA = {
    "title": "Error",
    "type": "object",
    "description": "`reason` and `message` repeat `detail` for older clients.",
    "required": ["status", "code", "http_status_code", "detail", "reason", "message"],
    "properties": {
        "status": {"type": "string", "const": "Failed"},
        "code": {"type": "string", "examples": ["ENDPOINT_NOT_FOUND"]},
        "error_args": {"type": "array", "items": {}},
        "http_status_code": {"type": "integer"},
        "detail": {"type": "string"},
        "reason": {"type": "string"},
        "message": {"type": "string"},
    },
}


def described(
    summary: str,
    *,
    returns: type | Mapping[str, Any],
    body: type | None = None,
    errors: Sequence[type[ApiError]] = (),
    tag: str,
    open_to_all: bool = False,
    parameters: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Keyword arguments for FastAPI's route decorators.

    Args:
        returns: class of the answer's document, or a JSON schema.
        body: class that the request's document is decoded into.
        errors: what may be raised, apart from 401 and 422.
        open_to_all: needs no token.
        parameters: OpenAPI parameter objects that the function's signature does not show.
    """
    extra: dict[str, Any] = {} if open_to_all else {"security": [{"bearer": []}]}
    if body is not None:
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": _schema_of(body)}}}
    if parameters:
        extra["parameters"] = list(parameters)
    by_status: dict[int, list[str]] = {422: ["SEMANTICALLY_INVALID"]}
    if not open_to_all:
        by_status[401] = ["UNAUTHENTICATED"]
    for error in errors:
        by_status.setdefault(error.status, []).append(error.code)
    responses: dict[int | str, dict[str, Any]] = {
        200: {"description": "Done", "content": {"application/json": {"schema": _schema_of(returns)}}}
    }
    for status, codes in sorted(by_status.items()):
        responses[status] = {
            "description": " or ".join(codes),
            "content": {"application/json": {"schema": {"$ref": _REF.format(name="Error")}}},
        }
    return {
        "summary": summary,
        "tags": [tag],
        "responses": responses,
        "response_model": None,
        "openapi_extra": extra,
    }


def _schema_of(shape: type | Mapping[str, Any]) -> dict[str, Any]:
    return {"$ref": _REF.format(name=shape.__name__)} if isinstance(shape, type) else dict(shape)


def install_openapi(app: FastAPI, shapes: Sequence[type]) -> None:
    """Have `app` describe itself, with schemas of `shapes` (every class that was given to `described`)."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()
            _, schemas = msgspec.json.schema_components(shapes, ref_template=_REF)
            components = document.setdefault("components", {})
            components.setdefault("schemas", {}).update(schemas)
            components["schemas"]["Error"] = _ERROR_SCHEMA
            for name in ("HTTPValidationError", "ValidationError"):
                components["schemas"].pop(name, None)
            components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the documented way to extend it
