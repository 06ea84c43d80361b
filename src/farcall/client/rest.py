"""The REST interface of a service as methods: what the SDK, the endpoint agent and the commands call.

Knows paths and shapes (`wire.rest`); `http` sends, repeats and raises. Every method raises `ServiceUnreachable`
if nobody answers, `NotAService` if somebody else does, the `ApiError` that the service answered with otherwise, and
`ValueError` for an id that is no UUID. Documents that only pass through (tasks, endpoints) are returned as decoded
JSON. Source: wire protocol, REST.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar
from urllib.parse import urlencode
from uuid import UUID

import httpx

from farcall.client.credentials import Credential, FixedToken, StoredLogin, credential_for
from farcall.client.http import HttpSession
from farcall.client.oauth import OAuth
from farcall.client.retry import RetryPolicy
from farcall.client.settings import canonical_url, service_url, trust_for
from farcall.client.tokens import TokenStore
from farcall.wire.auth import AUTH_SERVER
from farcall.wire.errors import NotAService
from farcall.wire.rest import (
    IDEMPOTENCY_HEADER,
    EndpointRegistration,
    FunctionRegistration,
    PublishKwargs,
    QueueInfo,
    RegistrationResponse,
    ResultConnection,
    SubmitRequest,
    SubmitResponse,
)

__all__ = ["ApiClient", "uuid_text"]


class ApiClient:
    """One user's connection to one service. Safe to share between threads.

    Args:
        url: address of the service; see `settings.service_url` for what None means.
        token: bearer token, or what returns it for each request; None means what the environment or `farcall login`
            say (see `credentials.credential_for`).
        store: the token store; the user's own if None.
        timeout_s: how long to wait for an answer.
        retry: how patient to be; the defaults of `RetryPolicy` if None.
        transport: in place of sockets, for tests.
        credential: in place of `token`.
        ca_file: PEM file with the certificate authorities whose certificates are accepted, in place of the system's;
            see `settings.trust_for` for what None means.

    Raises:
        CaFileUnusable: the address begins with https, and that file cannot be used.
        ValueError: the address or the token makes no sense.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | Callable[[], str] | None = None,
        *,
        store: TokenStore | None = None,
        timeout_s: float = 60,
        retry: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
        credential: Credential | None = None,
        ca_file: str | os.PathLike[str] | None = None,
    ) -> None:
        store = store or TokenStore()
        self.url = service_url(url, store)
        self.trust = trust_for(self.url, ca_file, store)
        self._ca_file = ca_file
        self._token = token
        self._given = credential
        self._options: dict[str, Any] = {
            "timeout_s": timeout_s,
            "retry": retry or RetryPolicy(),
            "transport": transport,
        }
        self._store = store
        self._oauth: OAuth | None = None
        self._credential = credential or credential_for(self.url, token, store, self.oauth)
        self._http = HttpSession(self.url, self._credential, trust=self.trust, **self._options)

    @property
    def identity_key(self) -> tuple[object, ...]:
        """Equal for clients that speak to the same service with the same login; to be compared, never shown."""
        return (canonical_url(self.url), self._credential.origin)

    def twin(self, *, ca_file: str | os.PathLike[str] | None = None) -> ApiClient:
        """Another client for the same service and login, with connections and an end of its own.

        Args:
            ca_file: in place of this one's.
        """
        # With another authority the login must be renewed by way of it, too.
        credential = self._credential if ca_file is None else self._given
        return ApiClient(
            self.url,
            self._token,
            credential=credential,
            store=self._store,
            ca_file=ca_file or self._ca_file,
            **self._options,
        )

    def oauth(self) -> OAuth:
        """The login of this service, over connections of its own and without this client's credential."""
        if self._oauth is None:
            self._oauth = OAuth(HttpSession(self.url, None, trust=self.trust, **self._options))
        return self._oauth

    def close(self) -> None:
        """Close the connections; waits for retries end. Idempotent."""
        self._http.close()

    def __enter__(self) -> ApiClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- about the service and the caller

    def version(self) -> dict[str, Any]:
        """`api`, `min_sdk_version`, `min_ep_version` and what else the service tells."""
        return _object(self.url, self._get("/v2/version?service=all"))

    def whoami(self) -> dict[str, Any]:
        """The caller's identity: at least `identity_id` and `username`. Ours."""
        return _object(self.url, self._get("/v3/whoami"))

    def userinfo(self) -> dict[str, Any]:
        """The caller as OpenID Connect tells it; `identity_set` lists all identities of the person."""
        path = "/v2/oauth2/userinfo"
        return _object(self.url, self._http.request("GET", path, is_repeatable=True, server=AUTH_SERVER))

    def logout(self) -> None:
        """Have the service revoke the tokens of this client's login. Ours."""
        login = self._credential.kept() if isinstance(self._credential, StoredLogin) else None
        if login is not None and login.client_id is not None:
            self.oauth().revoke_login(login)
        else:
            self._http.request("POST", "/v3/logout", is_repeatable=True)

    def forget_login(self) -> None:
        """Forget the kept login that this client uses, if it uses one."""
        if isinstance(self._credential, StoredLogin):
            self._credential.forget()
        elif isinstance(self._credential, FixedToken):
            kept = self._store.get(self.url)
            if kept is not None and kept.access_token == self._credential.origin:
                self._store.remove(self.url, kept.username)

    def result_connection(self, *, retry: RetryPolicy | None = None) -> ResultConnection:
        """A fresh credential to read the caller's result queues with."""
        path = "/v2/get_amqp_result_connection_url"
        return _filled(self.url, ResultConnection, self._http.request("GET", path, is_repeatable=True, retry=retry))

    # --- functions

    def register_function(
        self,
        registration: FunctionRegistration,
        *,
        retry: RetryPolicy | None = None,
        interrupt: threading.Event | None = None,
    ) -> str:
        """Register a function; returns its id. Registering the same again makes another one.

        Args:
            retry, interrupt: as for `submit`.
        """
        answer = self._http.request(
            "POST",
            "/v3/functions",
            _members(registration),
            is_repeatable=True,  # at worst a function that nobody uses is registered as well
            retry=retry,
            interrupt=interrupt,
        )
        warning = answer.get("ha_warning") if isinstance(answer, dict) else None
        if isinstance(warning, str) and warning:
            warnings.warn(warning, stacklevel=2)
        return str(_member(self.url, answer, "function_uuid"))

    def get_function(self, function_id: str | UUID) -> dict[str, Any]:
        return _object(self.url, self._get(f"/v2/functions/{uuid_text(function_id, 'function_id')}"))

    def delete_function(self, function_id: str | UUID) -> None:
        self._delete(f"/v2/functions/{uuid_text(function_id, 'function_id')}")

    def functions(self, **filters: Any) -> dict[str, Any]:
        """A page of functions, the last registered first: `functions`, and `next_cursor` if there may be more. Ours.

        Args:
            filters: `role` (`mine`, `shared`), `search`, `limit`, `cursor`; those that are None are left out.
        """
        return _object(self.url, self._get(_with_query("/v3/functions", filters)))

    def function_details(self, function_id: str | UUID) -> dict[str, Any]:
        """A function with its `source` as far as it can be had, who may run it, and its last runs. Ours."""
        return _object(self.url, self._get(f"/v3/functions/{uuid_text(function_id, 'function_id')}"))

    # --- tasks

    def submit(
        self,
        endpoint_id: str | UUID,
        request: SubmitRequest,
        idempotency_key: str | None,
        *,
        retry: RetryPolicy | None = None,
        interrupt: threading.Event | None = None,
    ) -> SubmitResponse:
        """Hand tasks to the service; when this returns they are stored.

        Args:
            idempotency_key: repetitions with the same key count once (the service remembers it for a day), so
                only a submission with a key is repeated when its answer got lost.
            retry: in place of the client's policy.
            interrupt: when set, the submission is not repeated any more.
        """
        answer = self._http.request(
            "POST",
            f"/v3/endpoints/{uuid_text(endpoint_id, 'endpoint_id')}/submit",
            _members(request),
            is_repeatable=idempotency_key is not None,
            headers={IDEMPOTENCY_HEADER: idempotency_key} if idempotency_key is not None else None,
            retry=retry,
            interrupt=interrupt,
        )
        return _filled(self.url, SubmitResponse, answer)

    def task(self, task_id: str | UUID) -> dict[str, Any]:
        """A task's document: `task_id`, `status`, and when it ended `completion_t` and `result` or `exception`."""
        return _object(self.url, self._get(f"/v2/tasks/{uuid_text(task_id, 'task_id')}"))

    def batch_status(
        self, task_ids: Iterable[str | UUID], *, retry: RetryPolicy | None = None
    ) -> dict[str, dict[str, Any]]:
        """Documents of many tasks by id; ids that the service does not know are absent."""
        ids = [uuid_text(task_id, "task_id") for task_id in task_ids]
        answer = self._http.request("POST", "/v2/batch_status", {"task_ids": ids}, is_repeatable=True, retry=retry)
        return _object(self.url, _member(self.url, answer, "results"))

    def task_group(self, task_group_id: str | UUID) -> dict[str, Any]:
        """A group's document; `tasks` is a list of `{"id", "created_at"}`."""
        return _object(self.url, self._get(f"/v2/taskgroup/{uuid_text(task_group_id, 'task_group_id')}"))

    def cancel_task(self, task_id: str | UUID, *, retry: RetryPolicy | None = None) -> dict[str, Any]:
        """Cancel a task that has not ended; returns `task_id` and the `status` it has now. Ours."""
        path = f"/v3/tasks/{uuid_text(task_id, 'task_id')}/cancel"
        return _object(self.url, self._http.request("POST", path, is_repeatable=True, retry=retry))

    def tasks(self, **filters: Any) -> dict[str, Any]:
        """A page of the caller's tasks, newest first: `tasks`, and `next_cursor` if there may be more. Ours.

        Args:
            filters: `state` (several with commas), `endpoint_id`, `function_id`, `task_group_id`, `since`, `until`
                (Unix seconds), `limit`, `cursor`; those that are None are left out.
        """
        return _object(self.url, self._get(_with_query("/v3/tasks", filters)))

    def task_details(self, task_id: str | UUID) -> dict[str, Any]:
        """A task with its `timeline`, `waiting_because`, `error` and what is known of its `result`, unopened. Ours."""
        return _object(self.url, self._get(f"/v3/tasks/{uuid_text(task_id, 'task_id')}"))

    def usage(self, **filters: Any) -> dict[str, Any]:
        """What was used: `rows` of tasks that ended. Ours.

        Args:
            filters: `since`, `until` (Unix seconds), `by` (of `day`, `user`, `account`, `endpoint`, `function`, with
                commas), `scope` (`mine`, `endpoint`, `all`), `endpoint_id`; those that are None are left out.
        """
        return _object(self.url, self._get(_with_query("/v3/usage", filters)))

    # --- endpoints

    def register_endpoint(
        self, registration: EndpointRegistration, endpoint_id: str | UUID | None = None
    ) -> RegistrationResponse:
        """Register an endpoint, or with an id register it again; the service then forgets what was there."""
        if endpoint_id is None:
            answer = self._http.request("POST", "/v3/endpoints", _members(registration), is_repeatable=False)
        else:
            path = f"/v3/endpoints/{uuid_text(endpoint_id, 'endpoint_id')}"
            answer = self._http.request("PUT", path, _members(registration), is_repeatable=True)
        return _registration_from_document(self.url, answer)

    def endpoints(self, role: str = "owner") -> list[dict[str, Any]]:
        """Endpoints that the caller owns (`owner`) or may use (`any`).

        Raises:
            ValueError: another role.
        """
        if role not in ("owner", "any"):
            raise ValueError(f"role must be 'owner' or 'any', got {role!r}")
        answer = self._get(f"/v2/endpoints?role={role}")
        if not isinstance(answer, list):
            raise _unexpected(self.url, "a list of endpoints")
        return answer

    def endpoint(self, endpoint_id: str | UUID) -> dict[str, Any]:
        return _object(self.url, self._get(f"/v2/endpoints/{uuid_text(endpoint_id, 'endpoint_id')}"))

    def endpoint_status(self, endpoint_id: str | UUID) -> dict[str, Any]:
        """`status` ("online" or "offline") and `details`, the last report."""
        return _object(self.url, self._get(f"/v2/endpoints/{uuid_text(endpoint_id, 'endpoint_id')}/status"))

    def lock_endpoint(self, endpoint_id: str | UUID) -> dict[str, Any]:
        """Stop an endpoint from afar; returns `endpoint_id` and `lock_expiration_timestamp` (unix seconds)."""
        path = f"/v3/endpoints/{uuid_text(endpoint_id, 'endpoint_id')}/lock"
        return _object(self.url, self._http.request("POST", path, is_repeatable=True))

    def delete_endpoint(self, endpoint_id: str | UUID) -> None:
        self._delete(f"/v2/endpoints/{uuid_text(endpoint_id, 'endpoint_id')}")

    def allowed_functions(self, endpoint_id: str | UUID) -> dict[str, Any]:
        """`restricted`, and if so the ids in `functions`."""
        return _object(self.url, self._get(f"/v3/endpoints/{uuid_text(endpoint_id, 'endpoint_id')}/allowed_functions"))

    def endpoint_page(self, **filters: Any) -> dict[str, Any]:
        """A page of endpoints by name: `endpoints`, `total`, and `next_cursor` if there are more. Ours.

        Args:
            filters: `role` (`any`, `owner`), `search`, `online`, `multi_user`, `kind` (`direct`, `manager`, `user`),
                `manager_id`, `limit`, `cursor`; those that are None are left out.
        """
        return _object(self.url, self._get(_with_query("/v3/endpoints", filters)))

    def endpoint_details(self, endpoint_id: str | UUID) -> dict[str, Any]:
        """An endpoint with whose it is, what the caller may do there, and its last report's numbers. Ours."""
        return _object(self.url, self._get(f"/v3/endpoints/{uuid_text(endpoint_id, 'endpoint_id')}"))

    def endpoint_live(self, endpoint_id: str | UUID, after: str | None = None, *, wait_s: int = 25) -> dict[str, Any]:
        """What goes on at an endpoint; with `after` when that is another than `version` of the last answer. Ours.

        Args:
            wait_s: after so long it answers anyhow; at most 55.
        """
        path = f"/v3/endpoints/{uuid_text(endpoint_id, 'endpoint_id')}/live"
        return _object(self.url, self._get(_with_query(path, {"after": after, "wait_s": wait_s})))

    def endpoint_history(self, endpoint_id: str | UUID, **filters: Any) -> dict[str, Any]:
        """What went on at an endpoint: `points` of `step_s` seconds each. Ours.

        Args:
            filters: `since`, `until` (Unix seconds), `step_s`, `user_endpoint_id`; those that are None are left out.
        """
        path = f"/v3/endpoints/{uuid_text(endpoint_id, 'endpoint_id')}/history"
        return _object(self.url, self._get(_with_query(path, filters)))

    def stop_user_endpoint(self, user_endpoint_id: str | UUID, reason: str | None = None) -> dict[str, Any]:
        """Have a user endpoint stopped by its manager; its unfinished tasks fail (`tasks_failed`). Ours.

        Args:
            reason: shown to its user.
        """
        path = f"/v3/endpoints/{uuid_text(user_endpoint_id, 'user_endpoint_id')}/stop"
        answer = self._http.request("POST", _with_query(path, {"reason": reason or None}), is_repeatable=True)
        return _object(self.url, answer)

    def console(self, endpoint_id: str | UUID, *, with_config: bool = False) -> list[dict[str, Any]]:
        """What runs tasks for an endpoint, one object each, for those who manage it: its user endpoints, or itself.

        Args:
            with_config: also the configuration of each.
        """
        path = f"/v3/endpoints/{uuid_text(endpoint_id, 'endpoint_id')}/console"
        found = _object(self.url, self._get(path + ("?include_fields=config" if with_config else "")))
        return [each for each in found.get("user_endpoints") or () if isinstance(each, dict)]

    def shares(self, endpoint_id: str | UUID) -> dict[str, Any]:
        """With whom an endpoint is shared: `shares` (`kind`, `id`, `name`), and `notice` for people. Ours."""
        return _object(self.url, self._get(_shares_path(endpoint_id)))

    def share_endpoint(
        self, endpoint_id: str | UUID, *, identities: Iterable[str] = (), groups: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Let people and groups, by name or id, run functions as the endpoint's owner; returns `shares`. Ours."""
        wanted = {"identities": list(identities), "groups": list(groups)}
        return _object(self.url, self._http.request("PUT", _shares_path(endpoint_id), wanted, is_repeatable=True))

    def unshare_endpoint(
        self, endpoint_id: str | UUID, *, identities: Iterable[str] = (), groups: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Take that back, from everybody if nobody is named; returns `shares` that are left. Ours."""
        named = [("identity", each) for each in identities] + [("group", each) for each in groups]
        path = f"{_shares_path(endpoint_id)}?{urlencode(named)}" if named else _shares_path(endpoint_id)
        return _object(self.url, self._http.request("DELETE", path, is_repeatable=True))

    # --- authentication policies (ours)

    def add_policy(self, **fields: Any) -> dict[str, Any]:
        """Make an authentication policy; returns its document, with `id`.

        Args:
            fields: `project_id` (none: a project of the caller's own), `display_name`, `description`,
                `domain_constraints_include`, `domain_constraints_exclude`, `high_assurance`,
                `authentication_assurance_timeout` (seconds), `required_mfa`.
        """
        return _object(self.url, self._http.request("POST", "/v3/policies", fields, is_repeatable=False))

    def policy(self, policy_id: str | UUID) -> dict[str, Any]:
        return _object(self.url, self._get(f"/v3/policies/{uuid_text(policy_id, 'policy_id')}"))

    def _get(self, path: str) -> Any:  # any JSON value
        return self._http.request("GET", path, is_repeatable=True)

    def _delete(self, path: str) -> None:
        self._http.request("DELETE", path, is_repeatable=True)


def _with_query(path: str, filters: Mapping[str, Any]) -> str:
    given = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in filters.items()}
    given = {name: text for name, text in given.items() if filters[name] is not None}
    return f"{path}?{urlencode(given)}" if given else path


def _shares_path(endpoint_id: str | UUID) -> str:
    return f"/v3/endpoints/{uuid_text(endpoint_id, 'endpoint_id')}/shares"


def uuid_text(value: str | UUID, what: str) -> str:
    """The canonical text of an id.

    Raises:
        ValueError: it is no UUID; the message names `what` it should have been.
    """
    if isinstance(value, UUID):
        return str(value)
    try:
        return str(UUID(value))
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"{what} must be a UUID like 54460200-b652-4f43-a918-02882fa6114a, got {value!r}") from None


_T = TypeVar("_T", SubmitResponse, ResultConnection, QueueInfo, PublishKwargs)


def _members(value: Any) -> dict[str, Any]:  # one of wire.rest's request dataclasses
    """As `wire.rest.to_document`, without its deep copy of what may be megabytes of payload."""
    members = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: member for name, member in members.items() if member is not None}


def _filled(url: str, cls: type[_T], document: Any) -> _T:
    """A dataclass from a JSON object; members that this release does not know are dropped."""
    names = {field.name for field in fields(cls)}
    try:
        return cls(**{name: member for name, member in _object(url, document).items() if name in names})
    except TypeError as exc:
        raise _unexpected(url, f"a {cls.__name__}") from exc


def _registration_from_document(url: str, document: Any) -> RegistrationResponse:
    members = _object(url, document)
    heartbeat = _queue_info(url, members.get("heartbeat_queue_info"))
    if heartbeat is None:
        raise _unexpected(url, "an answer to a registration with the member 'heartbeat_queue_info'")
    return RegistrationResponse(
        endpoint_id=str(_member(url, document, "endpoint_id")),
        heartbeat_queue_info=heartbeat,
        task_queue_info=_queue_info(url, members.get("task_queue_info")),
        result_queue_info=_queue_info(url, members.get("result_queue_info")),
        command_queue_info=_queue_info(url, members.get("command_queue_info")),
        warnings=[str(warning) for warning in members.get("warnings") or ()],
    )


def _queue_info(url: str, document: Any) -> QueueInfo | None:
    if document is None:
        return None
    members: Mapping[str, Any] = _object(url, document)
    publish = members.get("queue_publish_kwargs")
    return _filled(
        url,
        QueueInfo,
        {**members, "queue_publish_kwargs": None if publish is None else _filled(url, PublishKwargs, publish)},
    )


def _object(url: str, document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise _unexpected(url, "an object")
    return document


def _member(url: str, document: Any, name: str) -> Any:
    members = _object(url, document)
    if name not in members:
        raise _unexpected(url, f"an object with the member '{name}'")
    return members[name]


def _unexpected(url: str, expected: str) -> NotAService:
    return NotAService.at(url, f"it gave JSON where {expected} was expected; or its release is another one")
