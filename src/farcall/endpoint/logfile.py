"""Where an endpoint's log goes and how a line looks. Called by the command; libraries never configure logging."""

from __future__ import annotations

import json
import logging
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from farcall.wire.shown import shown

__all__ = ["LineFormatter", "configure_logging"]

LIMIT_BYTES: Final = 100 * 1024 * 1024

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    """`2026-03-01T12:00:00.123Z INFO farcall.endpoint: sentence key=value …`: one line a record, then any traceback."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        members = "".join(
            f" {key}={_value(value)}" for key, value in vars(record).items() if key not in _STANDARD and value != ""
        )
        said = shown(record.getMessage(), keep="\n\t")
        line = f"{when}.{int(record.msecs):03d}Z {record.levelname} {record.name}: {said}{members}"
        if record.exc_info:
            line += "\n" + shown(self.formatException(record.exc_info), keep="\n\t")
        return line


def configure_logging(path: Path, *, is_debug: bool = False, to_console: bool = False) -> None:
    """Log into `path`, which is moved to `path.1` when it has 100 MB; and to standard error if asked to.

    Raises:
        OSError: the file cannot be written.
    """
    handlers: list[logging.Handler] = [RotatingFileHandler(path, maxBytes=LIMIT_BYTES, backupCount=1, encoding="utf-8")]
    if to_console:
        handlers.append(logging.StreamHandler())
    root = logging.getLogger()
    for handler in handlers:
        handler.setFormatter(LineFormatter())
        root.addHandler(handler)
    root.setLevel(logging.INFO if is_debug else logging.WARNING)  # other people's libraries
    logging.getLogger("farcall").setLevel(logging.DEBUG if is_debug else logging.INFO)
    logging.captureWarnings(True)


def _value(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    return json.dumps(text) if not text or not text.isprintable() or any(c in text for c in ' "=') else text
