"""JSON in and out. Bodies are decoded into plain dataclasses by msgspec, strictly, and told which member is wrong."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from farcall.wire.errors import InvalidRequest

__all__ = ["decode_json", "encode_text", "json_response", "read_json", "without_nones"]

T = TypeVar("T")
_AT = re.compile(r" - at `\$\.?(.*)`$")
_encoder = msgspec.json.Encoder()


async def read_json(request: Request, decoder: msgspec.json.Decoder[T]) -> T:
    """The body of `request`. Raises InvalidRequest, or PayloadTooLarge while reading."""
    return decode_json(await request.body(), decoder)


def decode_json(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Read a JSON body.

    Raises:
        InvalidRequest: no JSON, or a member is missing or of another type; the message names it.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        text = str(exc)
        found = _AT.search(text)
        fault = _AT.sub("", text).replace("`", "'")
        where = f"member '{found[1]}'" if found and found[1] else "the document"
        raise InvalidRequest(f"The request body does not fit, {where}: {fault[:1].lower()}{fault[1:]}.") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidRequest(f"The request body is not JSON in UTF-8: {exc}.") from exc
    except RecursionError as exc:
        raise InvalidRequest("The request body is nested too deeply.") from exc


def json_response(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Anything that msgspec can encode, as a response."""
    return Response(_encoder.encode(document), status, headers, "application/json")


def encode_text(value: Any) -> str:
    """JSON text for a `…_json` column."""
    return _encoder.encode(value).decode()


def without_nones(value: Any) -> Any:
    """JSON members without those that are None, at every depth (the protocol tells absent from null)."""
    if isinstance(value, dict):
        return {key: without_nones(member) for key, member in value.items() if member is not None}
    return value
