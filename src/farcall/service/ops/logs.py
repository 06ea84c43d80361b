"""How the service's log lines look: text for people, or one JSON object per line. No secret gets into either.

Secrets are not logged in the first place; that what looks like one is masked here is the second line of defence
(an exception's text may quote a URL).
"""

from __future__ import annotations

import copy
import json
import logging
import re
from datetime import datetime, timezone
from typing import Any, Final

__all__ = ["JsonFormatter", "TextFormatter", "without_secrets"]

_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}
_SECRETS: Final = re.compile(
    r"(?P<keep>(?i:bearer) |://[^/@\s:]*:(?=[^/@\s]+@))(?P<secret>[^\s@\"',]+)|\bfc_[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])"
)


def without_secrets(text: str) -> str:
    """`text` with tokens and passwords in URLs masked."""
    return _SECRETS.sub(lambda found: (found["keep"] or "") + "********", text)


class TextFormatter(logging.Formatter):
    """Time, level, sentence, then the members of `extra`, so that a site can search by task or endpoint."""

    def __init__(self, *, with_tracebacks: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._with_tracebacks = with_tracebacks

    def format(self, record: logging.LogRecord) -> str:
        if not self._with_tracebacks and record.exc_info:
            record = copy.copy(record)
            record.exc_info = record.exc_text = None
        extra = "".join(f" {key}={value}" for key, value in _extra(record).items())
        return without_secrets(super().format(record) + extra)


class JsonFormatter(logging.Formatter):
    """Members: time (UTC, RFC 3339), level, logger, message, those of `extra` (`event` first among them), and
    `traceback` if there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, timezone.utc)
        document: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in _extra(record).items():
            document[key if key not in document else f"{key}_"] = value
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return without_secrets(json.dumps(document, default=str))


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _OWN}
