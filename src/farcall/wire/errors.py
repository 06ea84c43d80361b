"""Every error that Farcall raises on purpose, with the codes that travel on the wire.

The class says who can act. An error that crosses REST is rebuilt on the other side from its `code`
(`error_from_document`); one that crosses a process survives a pickle round trip, because each is constructed
from exactly the arguments that it passes to `Exception.__init__`.

    FarcallError
    ├── ApiError                       the service refused a request: has http_status and code
    │   ├── InvalidRequest             422  the caller's data
    │   ├── Unauthenticated            401  no token, or one that is unknown or expired
    │   ├── Forbidden                  403  the caller may not
    │   │   ├── FunctionNotPermitted
    │   │   ├── EndpointAccessForbidden
    │   │   └── LoginRequired          logging in (again, as somebody else, with a second factor) would help
    │   ├── NotFound                   404
    │   │   ├── EndpointNotFound, FunctionNotFound, TaskNotFound, TaskGroupNotFound
    │   ├── Conflict                   409
    │   ├── PayloadTooLarge            413
    │   ├── NotAService                421  what answers is no Farcall service
    │   ├── ResourceLocked             423
    │   ├── RateLimited                429  wait, then try again
    │   │   └── EndpointQueueFull
    │   └── ServiceUnavailable         503  try again later
    ├── ServiceUnreachable             nobody answers at the service's address
    │   └── CertificateRefused         … or with a certificate that is not accepted here
    ├── LoginFailed                    a login was refused, not done in time, or broken off
    ├── LoginNotOffered                the service has no login of this kind
    ├── CredentialRefused              the broker does not take this credential (any more)
    ├── VersionMismatch                a part is older than the service allows
    ├── TaskError                      what became of a task
    │   ├── TaskPending                not finished yet
    │   ├── TaskExecutionFailed        the function raised something that cannot be loaded here
    │   │   ├── MaxResultSizeExceeded
    │   │   ├── WorkerLost, EndpointLost
    │   └── TaskCancelled
    ├── SerializationError, DeserializationError
    └── WireError                      bytes that do not follow the protocol
        ├── FramingError, MessageError
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "CertificateRefused",
    "ApiError",
    "Conflict",
    "CredentialRefused",
    "DeserializationError",
    "EndpointAccessForbidden",
    "EndpointLost",
    "EndpointNotFound",
    "EndpointQueueFull",
    "FarcallError",
    "Forbidden",
    "FramingError",
    "FunctionNotFound",
    "FunctionNotPermitted",
    "InvalidRequest",
    "LoginFailed",
    "LoginNotOffered",
    "LoginRequired",
    "MaxResultSizeExceeded",
    "MessageError",
    "NotAService",
    "NotFound",
    "PayloadTooLarge",
    "RateLimited",
    "ResourceLocked",
    "SerializationError",
    "ServiceUnavailable",
    "ServiceUnreachable",
    "TaskCancelled",
    "TaskError",
    "TaskExecutionFailed",
    "TaskGroupNotFound",
    "TaskNotFound",
    "TaskPending",
    "Unauthenticated",
    "VersionMismatch",
    "WireError",
    "WorkerLost",
    "error_from_document",
]


class FarcallError(Exception):
    """Base of every error of ours. `str()` of it says what happened, to which id, and what to do next."""

    code: ClassVar[str] = "INTERNAL_ERROR"
    retryable: ClassVar[bool] = False


class ApiError(FarcallError):
    """The service answered a request with an error.

    Args:
        message: for people; what happened, to which id, what to do.
        detail: further members of the error document (for example `authorization_parameters`), or None.
        http_status: only where it differs from the class's own (a code this release does not know).
        code: likewise.
    """

    code: ClassVar[str] = "API_ERROR"
    status: ClassVar[int] = 500

    def __init__(
        self,
        message: str,
        detail: Mapping[str, Any] | None = None,
        http_status: int | None = None,
        wire_code: str | None = None,
    ) -> None:
        super().__init__(message, detail, http_status, wire_code)
        self.message = message
        self.detail = dict(detail or {})
        self.http_status = http_status if http_status is not None else self.status
        self.wire_code = wire_code if wire_code is not None else self.code

    def __str__(self) -> str:
        return self.message

    def to_document(self) -> dict[str, Any]:
        """The error object of the REST interface; `reason` and `message` repeat `detail` for older clients.

        Source: wire protocol, REST, error object; pitfall 19 (a string `message` must be there).
        """
        return {
            "status": "Failed",
            "code": self.wire_code,
            "error_args": [],
            "http_status_code": self.http_status,
            "detail": self.message,
            "reason": self.message,
            "message": self.message,
            **self.detail,
        }


class InvalidRequest(ApiError):
    """The request is well-formed HTTP but makes no sense; the same request will fail again."""

    code = "SEMANTICALLY_INVALID"
    status = 422


class Unauthenticated(ApiError):
    """No bearer token, or one that the service does not know (any more). Log in again."""

    code = "UNAUTHENTICATED"
    status = 401


class Forbidden(ApiError):
    """The caller is known, and may not do this."""

    code = "FORBIDDEN"
    status = 403


class FunctionNotPermitted(Forbidden):
    """The function is not on the endpoint's list, or the caller may not run it."""

    code = "FUNCTION_NOT_PERMITTED"


class EndpointAccessForbidden(Forbidden):
    """The caller may not use this endpoint."""

    code = "ENDPOINT_ACCESS_FORBIDDEN"


class LoginRequired(Forbidden):
    """An authentication policy refused the caller, and a login of another kind would satisfy it.

    The document's member `authorization_parameters` says which, in the form that clients pass on to the login:
    `session_required_policies`, `session_required_identities`, `session_required_single_domain`,
    `session_required_mfa`, `prompt`, and `session_message` for people. Source: wire protocol, errors and GARE.
    """

    code = "LOGIN_REQUIRED"

    @property
    def authorization_parameters(self) -> dict[str, Any]:
        """What a login must bring; empty if the service did not say."""
        parameters = self.detail.get("authorization_parameters")
        return dict(parameters) if isinstance(parameters, Mapping) else {}


class NotFound(ApiError):
    """No such thing, or none that the caller may know of."""

    code = "NOT_FOUND"
    status = 404


class EndpointNotFound(NotFound):
    code = "ENDPOINT_NOT_FOUND"


class FunctionNotFound(NotFound):
    code = "FUNCTION_NOT_FOUND"


class TaskNotFound(NotFound):
    code = "TASK_NOT_FOUND"


class TaskGroupNotFound(NotFound):
    code = "TASK_GROUP_NOT_FOUND"


class Conflict(ApiError):
    """The request contradicts the present state."""

    code = "CONFLICT"
    status = 409


class PayloadTooLarge(ApiError):
    """Arguments, a function or a request are larger than the service accepts inline."""

    code = "TASK_PAYLOAD_TOO_LARGE"
    status = 413


class NotAService(ApiError):
    """Something answers at the service's address, and it is no Farcall service. Never sent by one."""

    code = "NOT_A_SERVICE"
    status = 421  # Misdirected Request: the nearest that HTTP has

    @classmethod
    def at(cls, url: str, what: str, http_status: int | None = None) -> NotAService:
        """The error about an address.

        Args:
            what: came from there, for people (`HTTP 404, text/html`).
            http_status: of the answer.
        """
        return cls(
            f"What answers at {url} is not a Farcall service ({what}). "
            "FARCALL_SERVICE_URL or `farcall login URL` choose another.",
            None,
            http_status,
        )


class ResourceLocked(ApiError):
    """The endpoint was stopped remotely and may not register for a moment."""

    code = "RESOURCE_LOCKED"
    status = 423


class RateLimited(ApiError):
    """Too many requests; wait `Retry-After` seconds."""

    code = "RATE_LIMITED"
    status = 429
    retryable = True


class EndpointQueueFull(RateLimited):
    """So many tasks wait for the endpoint that the service takes no more for it just now."""

    code = "ENDPOINT_QUEUE_FULL"


class ServiceUnavailable(ApiError):
    """The service is there but cannot serve just now."""

    code = "SERVICE_UNAVAILABLE"
    status = 503
    retryable = True


class ServiceUnreachable(FarcallError):
    """Nobody answers at the service's address. A later try can succeed."""

    code = "SERVICE_UNREACHABLE"
    retryable = True

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"No answer from the Farcall service at {self.url} ({self.reason}). "
            "Is it running (`farcall-service status`)? FARCALL_SERVICE_URL or `farcall login URL` choose another."
        )


class CertificateRefused(ServiceUnreachable):
    """Whoever answers at the service's address showed a certificate that is not accepted here. Its operator may renew
    it, so a later try can succeed."""

    code = "CERTIFICATE_REFUSED"

    def __str__(self) -> str:
        return f"No secure connection to the Farcall service at {self.url}: {self.reason}."


class LoginNotOffered(FarcallError):
    """The service has no login by OAuth2, or not the kind that was wanted."""

    code = "LOGIN_NOT_OFFERED"

    def __init__(self, url: str, what: str) -> None:
        super().__init__(url, what)
        self.url = url
        self.what = what

    def __str__(self) -> str:
        return (
            f"The service at {self.url} offers no {self.what}. `farcall login --token` takes a token from its operator."
        )


class LoginFailed(FarcallError):
    """The service did not give tokens. `error` is OAuth2's word for why, such as `access_denied`."""

    code = "LOGIN_FAILED"

    def __init__(self, url: str, error: str, description: str = "") -> None:
        super().__init__(url, error, description)
        self.url = url
        self.error = error
        self.description = description

    def __str__(self) -> str:
        told = self.description or _LOGIN_FAILURES.get(self.error) or self.error.replace("_", " ")
        return f"The login at {self.url} failed: {told.rstrip('.')}."


_LOGIN_FAILURES = {
    "access_denied": "it was refused, by you or by the service",
    "expired_token": "the code was not used in time; log in again for another one",
    "invalid_grant": "the code or the login has expired or was revoked",
}


class CredentialRefused(FarcallError):
    """The broker refused a login: the credential was revoked, or replaced by a newer registration."""

    code = "CREDENTIAL_REFUSED"

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(what, reason)
        self.what = what
        self.reason = reason

    def __str__(self) -> str:
        return f"The message broker refused the credential of {self.what}: {self.reason}"


class VersionMismatch(FarcallError):
    """A part is older than the service allows."""

    code = "VERSION_MISMATCH"

    def __init__(self, part: str, have: str, need: str) -> None:
        super().__init__(part, have, need)
        self.part = part
        self.have = have
        self.need = need

    def __str__(self) -> str:
        return (
            f"This {self.part} is version {self.have}, and the service needs {self.need} or newer. "
            "Upgrade with `pip install -U farcall`."
        )


class TaskError(FarcallError):
    """What became of a task, where that is not a value."""


class TaskPending(TaskError):
    """The task has not finished yet."""

    code = "TASK_PENDING"

    def __init__(self, task_id: str, state: str) -> None:
        super().__init__(task_id, state)
        self.task_id = task_id
        self.state = state

    def __str__(self) -> str:
        return f"Task {self.task_id} has not finished; its state is {self.state}. Ask again later."


_TRACEBACK = "Traceback (most recent call last)"


class TaskExecutionFailed(TaskError):
    """The task failed, and its exception cannot be raised as its own type here.

    Args:
        remote_data: the remote traceback, or the reason as text.
        completion_t: unix seconds as text, "" if unknown.
    """

    code = "RemoteExecutionError"

    def __init__(self, remote_data: str, completion_t: str = "") -> None:
        super().__init__(remote_data, completion_t)
        self.remote_data = remote_data
        self.completion_t = completion_t

    def __str__(self) -> str:
        # A traceback begins on a line of its own; what an endpoint says in several lines does not.
        return "\n" + self.remote_data if _TRACEBACK in self.remote_data else self.remote_data


class MaxResultSizeExceeded(TaskExecutionFailed):
    """The function's serialized result is larger than the limit."""

    code = "MaxResultSizeExceeded"


class WorkerLost(TaskExecutionFailed):
    """The worker process died while it ran the task (killed, out of memory, node lost)."""

    code = "WORKER_LOST"


class EndpointLost(TaskExecutionFailed):
    """The agent died while the task ran, and the endpoint's policy does not allow to run it again."""

    code = "ENDPOINT_LOST"


class TaskCancelled(TaskError):
    """Somebody who may do so cancelled the task before it finished."""

    code = "TASK_CANCELLED"

    def __init__(self, task_id: str, reason: str = "") -> None:
        super().__init__(task_id, reason)
        self.task_id = task_id
        self.reason = reason

    def __str__(self) -> str:
        return f"Task {self.task_id} was cancelled" + (f": {self.reason}" if self.reason else ".")


class SerializationError(FarcallError):
    """A function, an argument or a result cannot be turned into bytes."""

    code = "SERIALIZATION_ERROR"


class DeserializationError(FarcallError):
    """Bytes cannot be turned back into a function or a value here."""

    code = "DESERIALIZATION_ERROR"


class WireError(FarcallError):
    """Bytes that do not follow the protocol."""

    code = "WIRE_ERROR"


class FramingError(WireError):
    """A length-framed buffer is cut off or malformed."""


class MessageError(WireError):
    """A message's envelope, type or members are wrong."""


def _subclasses(cls: type[FarcallError]) -> dict[str, type[FarcallError]]:
    found: dict[str, type[FarcallError]] = {}
    for sub in cls.__subclasses__():
        found[sub.code] = sub
        found.update(_subclasses(sub))
    return found


def error_from_document(http_status: int, document: object, fallback: str = "") -> ApiError:
    """Rebuild the error that the service answered with.

    Args:
        http_status: of the response.
        document: the decoded JSON body, or anything else (None, a list) if it was none.
        fallback: shown when the document has no text (the HTTP reason phrase).

    Returns:
        An instance of the class with the document's `code`; of a class with the same status if the code is
        unknown; else a plain `ApiError`. Never raises.
    """
    members: dict[str, Any] = dict(document) if isinstance(document, Mapping) else {}
    texts = (members.get(key) for key in ("message", "detail", "reason", "title"))
    message = next((text for text in texts if isinstance(text, str) and text), fallback or f"HTTP {http_status}")
    code = members.get("code")
    extra = {k: v for k, v in members.items() if k not in _ERROR_MEMBERS}
    if isinstance(code, str):
        cls = _subclasses(ApiError).get(code)
        if cls is not None and issubclass(cls, ApiError) and cls.status == http_status:
            return cls(message, extra)
    by_status: type[ApiError] | None = next(
        (sub for sub in ApiError.__subclasses__() if sub.status == http_status), None
    )
    wire_code = code if isinstance(code, str) else None
    return (by_status or ApiError)(message, extra, http_status, wire_code)


_ERROR_MEMBERS = frozenset({"status", "code", "error_args", "http_status_code", "detail", "reason", "message", "title"})
