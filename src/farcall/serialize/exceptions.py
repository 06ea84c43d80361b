"""How the exception of a task travels: as its own type where it can be loaded, with the remote traceback.

The worker calls `dump_exception` and puts the text into the result's `details["exception"]`; the caller's side
calls `load_exception`. Both are best effort and never raise: the traceback as text travels in any case.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from farcall.serialize import dillpickle, mime

__all__ = ["EXCEPTION_KEY", "EXCEPTION_LIMIT_CHARS", "RemoteTraceback", "dump_exception", "load_exception"]

EXCEPTION_KEY = "exception"
"""Member of a result's `details`."""

EXCEPTION_LIMIT_CHARS = 64 * 1024
_LIMIT_BYTES = EXCEPTION_LIMIT_CHARS * 57 // 77 - 57
"""A pickle of so many bytes has at most as many characters in lines of base64."""

_HEADER = "00\n"
_REBUILD = "farcall-exception"
"""First member of (this, class, args, attributes): an exception whose class cannot be called with its `args`."""

_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")


class RemoteTraceback(Exception):
    """The `__cause__` of an exception that was raised on a worker; its text is the traceback there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return "\n" + self.text


def dump_exception(exc: BaseException) -> str | None:
    """The exception as text for `load_exception`; None if it would not arrive whole.

    Only subclasses of Exception travel: a SystemExit that is raised again at the caller would end the caller.
    """
    if not isinstance(exc, Exception):
        return None
    for form in (lambda: exc, lambda: (_REBUILD, type(exc), exc.args, _plain_attributes(exc))):
        try:
            text = _HEADER + mime.encode(dillpickle.dumps(form(), limit_bytes=_LIMIT_BYTES))
            if _arrives_whole(exc, _load(text, None)):
                return text
        except BaseException:  # any: the exception's own code runs here, and must not end the worker
            continue
    return None


def load_exception(
    details: Mapping[str, Any] | None, text: str, *, task_id: str | None = None, allow_dill: bool = True
) -> Exception | None:
    """The exception that a worker's result carries, ready to be raised.

    Its type, `args` and `str()` are those of the original; `__cause__` is a `RemoteTraceback` of `text`, and on
    Python 3.11 and later a note says where it was raised.

    Args:
        details: the result's.
        text: the remote traceback (`data` of the result).
        task_id: for the note, if known.
        allow_dill: False if the caller accepts results only in formats that run no code: then None is returned.

    Returns:
        None if there is no exception in `details`, or it cannot be loaded here (its class is not installed, or
        it carries bytecode of another Python version). Never raises.
    """
    if not allow_dill or not isinstance(details, Mapping):
        return None
    dumped = details.get(EXCEPTION_KEY)
    if not isinstance(dumped, str) or not dumped.startswith(_HEADER):
        return None
    try:
        version = details.get("python_version")
        exc = _load(dumped, version if isinstance(version, str) else None)
        if not isinstance(exc, Exception):
            return None
        exc.__cause__ = RemoteTraceback(text)
        if sys.version_info >= (3, 11):
            exc.add_note(_note(details, task_id))
        return exc
    except Exception:  # any: constructors of foreign classes run here
        return None


def _load(text: str, python_version: str | None) -> Any:
    loaded = dillpickle.loads(mime.decode(text[len(_HEADER) :]), python_version=python_version)
    if isinstance(loaded, tuple) and len(loaded) == 4 and loaded[0] == _REBUILD:
        return _rebuilt(*loaded[1:])
    return loaded


def _rebuilt(cls: type[Exception], args: tuple[Any, ...], attributes: dict[str, Any]) -> Exception:
    if cls.__module__ == "__main__":  # sent by value; the caller's own class is the one that it can catch
        local = getattr(sys.modules["__main__"], cls.__name__, None)
        cls = local if isinstance(local, type) and issubclass(local, Exception) else cls
    exc = cls.__new__(cls, *args)
    exc.args = args
    exc.__dict__.update(attributes)
    return exc


def _plain_attributes(exc: Exception) -> dict[str, Any]:
    """The attributes that can be pickled, each for itself; the others are left behind."""
    kept = {}
    for name, value in vars(exc).items():
        try:
            dillpickle.loads(dillpickle.dumps(value))
        except Exception:  # any: foreign code
            continue
        kept[name] = value
    return kept


def _arrives_whole(sent: Exception, loaded: Any) -> bool:
    kind, other = type(sent), type(loaded)
    same_name = (kind.__module__, kind.__qualname__) == (other.__module__, other.__qualname__)
    return same_name and isinstance(loaded, Exception) and _view(sent) == _view(loaded)


def _view(exc: Exception) -> tuple[str, ...]:
    # repr rather than ==: arrays and data frames compare to arrays.
    return (_shown(lambda: repr(exc.args)), _shown(lambda: str(exc)))


def _shown(show: Callable[[], str]) -> str:
    try:
        return _ADDRESS.sub("", show())
    except Exception as exc:
        return type(exc).__name__


def _note(details: Mapping[str, Any], task_id: str | None) -> str:
    task = f"task {task_id}" if task_id else "a task"
    place = f" on {details['hostname']}" if isinstance(details.get("hostname"), str) else ""
    return f"Raised on the worker by {task}{place}; the remote traceback is above (and in `__cause__`)."
