"""PAM as a login program uses it, for an account that somebody else has authenticated: is it usable now, and a session.

Nobody is asked for anything: a module that wants a password or an answer fails. Calls the system's library directly
(docs/decisions/0021). Sources: pam(3), pam_acct_mgmt(3), pam_setcred(3), pam_open_session(3), pam_conv(3).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any, Final

from farcall.wire.errors import FarcallError

__all__ = ["PamRefused", "PamSession"]

_SUCCESS: Final = 0
_CONVERSATION_FAILED: Final = 19
_ERROR_MESSAGE: Final = 3
_TEXT: Final = 4
_ESTABLISH, _DELETE = 0x2, 0x4
_LIMIT_CHARS: Final = 500

_WHY: Final = {
    6: "the account may not be used on this machine now",
    7: "the account may not be used on this machine",
    10: "the account is not known there",
    12: "its password has expired; log in on that machine and set a new one",
    13: "the account has expired",
    27: "its password has expired",
}
"""What a person can do something about. Source: pam_acct_mgmt(3), return values."""


class PamRefused(FarcallError):
    """The site's rules do not let this account be used now.

    Attributes:
        said: what modules told the user, as at a login (/etc/nologin, for one); "" if nothing.
        detail: for the manager's log.
    """

    code = "PAM_REFUSED"

    def __init__(self, user: str, call: str, number: int, reason: str, said: str) -> None:
        super().__init__(user, call, number, reason, said)
        self.user = user
        self.said = said
        self.number = number
        self.detail = f"{call}: {reason} ({number})"

    def __str__(self) -> str:
        why = _WHY.get(self.number, "PAM refused it, for a reason that the endpoint's log tells")
        said = f" It says: {self.said}" if self.said else ""
        return f"Local user {self.user!r} cannot be used on the endpoint's machine: {why}.{said}"


class PamSession:
    """One open session. Opened and closed by the same process, as root."""

    def __init__(self, library: Any, handle: ctypes.c_void_p, keep: object, environment: dict[str, str]) -> None:
        self._library = library
        self._handle: ctypes.c_void_p | None = handle
        self._keep = keep  # what C calls back must not be collected
        self.environment = environment

    @classmethod
    def open(cls, service: str, user: str) -> PamSession:
        """Ask about the account, then open a session; modules change this process (limits, groups, cgroup, …).

        Credentials (`pam_setcred`) are set if there are modules for it: what says whether an account may be used is
        `pam_acct_mgmt`.

        Raises:
            PamRefused: one of the calls did not succeed. Nothing is left open.
        """
        library = _load(user)
        said: list[str] = []
        conversation = _Conversation(_CALLBACK(_answering(said)), None)
        handle = ctypes.c_void_p()

        def call(name: str, number: int) -> None:
            if number != _SUCCESS:
                reason = library.pam_strerror(handle, number)
                text = " ".join(" ".join(said).split())[:_LIMIT_CHARS]
                raise PamRefused(user, name, number, reason.decode(errors="replace") if reason else "", text)

        number = library.pam_start(service.encode(), user.encode(), ctypes.byref(conversation), ctypes.byref(handle))
        call("pam_start", number)
        undo: list[Callable[[], object]] = []
        try:
            number = library.pam_acct_mgmt(handle, 0)
            call("pam_acct_mgmt", number)
            number = library.pam_setcred(handle, _ESTABLISH)
            if number == _SUCCESS:
                undo.append(lambda: library.pam_setcred(handle, _DELETE))
            else:  # it asks `auth` modules, which a service where nobody shows a password may well not have
                _note(service, user, library.pam_strerror(handle, number))
            number = library.pam_open_session(handle, 0)
            call("pam_open_session", number)
        except PamRefused:
            for step in undo:
                step()
            library.pam_end(handle, number)
            raise
        return cls(library, handle, conversation, _environment(library, handle))

    def close(self) -> None:
        """Close it, whatever modules say. Once."""
        handle, self._handle = self._handle, None
        if handle is not None:
            number = self._library.pam_close_session(handle, 0)
            self._library.pam_setcred(handle, _DELETE)
            self._library.pam_end(handle, number)


class _Message(ctypes.Structure):
    _fields_ = [("style", ctypes.c_int), ("text", ctypes.c_char_p)]


class _Response(ctypes.Structure):
    _fields_ = [("text", ctypes.c_char_p), ("code", ctypes.c_int)]


_CALLBACK: Final = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.POINTER(_Message)),
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_void_p,
)


class _Conversation(ctypes.Structure):
    _fields_ = [("callback", _CALLBACK), ("data", ctypes.c_void_p)]


def _note(service: str, user: str, reason: bytes | None) -> None:
    """Where the manager's own standard error goes: the session is opened all the same, it only has less."""
    text = (reason or b"").decode(errors="replace")
    print(f"PAM service {service} sets no credentials for {user}: {text}", file=sys.stderr, flush=True)  # noqa: T201


def _answering(said: list[str]) -> Callable[..., int]:
    libc = ctypes.CDLL(None)
    libc.calloc.restype = ctypes.c_void_p
    libc.calloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t]

    def answer(count: int, messages: Any, responses: Any, _: Any) -> int:
        """Listen to texts; fail on every question."""
        for index in range(count):
            message = messages[index].contents
            if message.style not in (_TEXT, _ERROR_MESSAGE):
                return _CONVERSATION_FAILED
            said.append((message.text or b"").decode(errors="replace"))
        responses[0] = libc.calloc(count, ctypes.sizeof(_Response))  # PAM frees it
        return _SUCCESS if responses[0] else _CONVERSATION_FAILED

    return answer


def _load(user: str) -> Any:
    try:
        library = ctypes.CDLL("libpam.so.0")
    except OSError as exc:
        raise PamRefused(user, "libpam.so.0", -1, str(exc), "") from exc
    handle = ctypes.c_void_p
    for name, arguments in {
        "pam_start": [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(_Conversation), ctypes.POINTER(handle)],
        "pam_acct_mgmt": [handle, ctypes.c_int],
        "pam_setcred": [handle, ctypes.c_int],
        "pam_open_session": [handle, ctypes.c_int],
        "pam_close_session": [handle, ctypes.c_int],
        "pam_end": [handle, ctypes.c_int],
        "pam_getenvlist": [handle],
        "pam_strerror": [handle, ctypes.c_int],
    }.items():
        getattr(library, name).argtypes = arguments
    library.pam_getenvlist.restype = ctypes.POINTER(ctypes.c_void_p)
    library.pam_strerror.restype = ctypes.c_char_p
    return library


def _environment(library: Any, handle: ctypes.c_void_p) -> dict[str, str]:
    libc = ctypes.CDLL(None)
    libc.free.argtypes = [ctypes.c_void_p]
    entries = library.pam_getenvlist(handle)
    found: dict[str, str] = {}
    if not entries:
        return found
    index = 0
    while entries[index]:
        name, sign, value = ctypes.string_at(entries[index]).decode(errors="surrogateescape").partition("=")
        if sign:
            found[name] = value
        libc.free(entries[index])
        index += 1
    libc.free(ctypes.cast(entries, ctypes.c_void_p))
    return found
