"""`Client`: functions, tasks and endpoints of one service, request by request. `Executor` is built on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from farcall import __version__
from farcall.client.rest import ApiClient, uuid_text
from farcall.client.settings import canonical_url
from farcall.sdk.batch import Batch
from farcall.sdk.calls import function_registration, source_registration
from farcall.sdk.hardware import hardware_report
from farcall.sdk.outcomes import ResultReader, ended_from_document
from farcall.serialize import ComputeSerializer, PureSourceTextInspect, StrategyLike
from farcall.wire.errors import TaskNotFound, TaskPending, Unauthenticated, VersionMismatch
from farcall.wire.rest import EndpointRegistration
from farcall.wire.versions import is_at_least

__all__ = ["Client"]

_ASK_AT_ONCE = 100
_TASKS_AT_ONCE = 500


class Client:
    """A connection to a service with one user's login. Safe to share between threads.

    Every method raises `ServiceUnreachable` if nobody answers, `Unauthenticated` without a valid token, another
    `ApiError` if the service refuses, and `ValueError` for an id that is no UUID.

    Args:
        environment: "local", or the address of a service (as `url`); None for the usual one.
        local_compute_services: the service on this machine, `http://localhost:5000`.
        do_version_check: ask the service at once whether it still serves this release.
        code_serialization_strategy: writes functions.
        data_serialization_strategy: writes arguments.
        authorizer: an object whose `get_authorization_header()` returns "Bearer …" is asked for each request.
        url: address of the service; by default `FARCALL_SERVICE_URL`, what `farcall login` remembered, localhost.
        token: bearer token; by default the first that is there of `FARCALL_TOKEN`, `FARCALL_CLIENT_ID` with
            `FARCALL_CLIENT_SECRET`, and what `farcall login` has kept.
        ca_file: PEM file with your site's certificate authorities, which the service's certificate must come from; by
            default `FARCALL_CA_FILE`, what `farcall login --ca-file` remembered, `REQUESTS_CA_BUNDLE`,
            `SSL_CERT_FILE`, the system's. Counts for the message broker, too.
        api: an `ApiClient` to use in place of all that.

    Raises:
        ValueError: address or token make no sense, or arguments contradict each other.
        VersionMismatch: the service needs a newer release.
    """

    def __init__(
        self,
        environment: str | None = None,
        local_compute_services: bool = False,
        do_version_check: bool = True,
        *,
        code_serialization_strategy: StrategyLike | None = None,
        data_serialization_strategy: StrategyLike | None = None,
        app: object | None = None,
        authorizer: Any | None = None,
        url: str | None = None,
        token: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        api: ApiClient | None = None,
    ) -> None:
        if app is not None:
            raise ValueError("app: logins by an app object are not offered; give a token, or use `farcall login`.")
        self.serializer = ComputeSerializer(code_serialization_strategy, data_serialization_strategy)
        self.api = api or ApiClient(
            _address(environment, local_compute_services, url), _token_source(token, authorizer), ca_file=ca_file
        )
        self._reader = ResultReader(self.serializer)
        if do_version_check:
            self.version_check()

    def __repr__(self) -> str:
        return f"<Client of {self.api.url}>"

    def close(self) -> None:
        """Close the connections. Not needed at the end of a program."""
        self.api.close()

    def version_check(self) -> None:
        """Ask the service whether it serves this release.

        Raises:
            VersionMismatch: it needs a newer one.
        """
        need = self.api.version().get("min_sdk_version")
        if isinstance(need, str) and not is_at_least(__version__, need):
            raise VersionMismatch("SDK", __version__, need)

    def logout(self) -> None:
        """Have the service revoke this client's tokens, and forget them if they are kept ones.

        Raises:
            ServiceUnreachable: it could not be revoked; it is forgotten here all the same.
        """
        try:
            self.api.logout()
        except Unauthenticated:
            pass  # revoked already
        finally:
            self.api.forget_login()

    def get_result_amqp_url(self) -> dict[str, str]:
        """A credential to read one's own result queues with: `queue_prefix` and `connection_url`."""
        connection = self.api.result_connection()
        return {"queue_prefix": connection.queue_prefix, "connection_url": connection.connection_url}

    # --- functions

    def register_function(
        self,
        function: Callable[..., Any],
        function_name: str | None = None,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        public: bool = False,
        group: str | UUID | None = None,
        *,
        ha_endpoint_id: str | UUID | None = None,
        serializer: ComputeSerializer | None = None,
    ) -> str:
        """Register a function; returns its id. Functions never change: registering again makes another id.

        Args:
            description: its docstring if None.
            metadata: any JSON members to keep with it.
            public: everybody may run it (where he may run something).
            group: members of this group may run it.
            ha_endpoint_id: the high-assurance endpoint that it belongs to; excludes `public` and `group`.

        Raises:
            TypeError: it is no function, or one that workers do not run.
            SerializationError, PayloadTooLarge: it cannot be sent.
        """
        options = _registration_options(public, group, ha_endpoint_id)
        registration = function_registration(
            serializer or self.serializer,
            function,
            function_name,
            description=description,
            metadata=metadata,
            **options,
        )
        return self.api.register_function(registration)

    def register_source_code(
        self,
        source: str,
        function_name: str,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        public: bool = False,
        group: str | UUID | None = None,
        *,
        ha_endpoint_id: str | UUID | None = None,
    ) -> str:
        """Register a function that is given as source text, under the name that it has there; returns its id.

        Raises:
            ValueError: the source is no Python, or has no function of that name.
        """
        options = _registration_options(public, group, ha_endpoint_id)
        registration = source_registration(source, function_name, description=description, metadata=metadata, **options)
        return self.api.register_function(registration)

    def get_function(self, function_id: str | UUID) -> dict[str, Any]:
        """`function_uuid`, `function_name`, `function_code` (serialized), `description` and `metadata`."""
        return self.api.get_function(function_id)

    def delete_function(self, function_id: str | UUID) -> None:
        """Delete a function of one's own. Tasks that wait keep its code."""
        self.api.delete_function(function_id)

    # --- tasks

    def create_batch(
        self,
        task_group_id: str | UUID | None = None,
        resource_specification: Mapping[str, Any] | None = None,
        user_endpoint_config: Mapping[str, Any] | None = None,
        request_queue: bool = False,
        serializer: ComputeSerializer | None = None,
        user_runtime: Mapping[str, Any] | None = None,
        result_serializers: Iterable[StrategyLike] | None = None,
    ) -> Batch:
        """An empty batch; see `Batch` for the arguments."""
        return Batch(
            task_group_id,
            resource_specification,
            user_endpoint_config,
            request_queue,
            serializer or self.serializer,
            user_runtime,
            result_serializers,
        )

    def batch_run(self, endpoint_id: str | UUID, batch: Batch) -> dict[str, Any]:
        """Submit a batch; when this returns, its tasks are stored.

        Returns:
            `request_id`, `task_group_id`, `endpoint_id`, and `tasks`: function id → task ids, in the order in which
            the calls were added.

        Raises:
            ValueError: the batch is empty.
        """
        if not len(batch):
            raise ValueError("the batch is empty: add calls with batch.add(function_id, args, kwargs)")
        response = self.api.submit(_endpoint_id(endpoint_id), batch.request(), str(uuid4()))
        return {
            "request_id": response.request_id,
            "task_group_id": response.task_group_id,
            "endpoint_id": response.endpoint_id,
            "tasks": response.tasks,
        }

    def run(
        self, *args: Any, endpoint_id: str | UUID | None = None, function_id: str | UUID | None = None, **kwargs: Any
    ) -> str:
        """Submit one call of a registered function; returns its task's id.

        Raises:
            ValueError: endpoint or function are missing, or no UUIDs.
            SerializationError, PayloadTooLarge: the arguments cannot be sent.
        """
        if function_id is None:
            raise ValueError("function_id is missing: register_function returns it")
        batch = self.create_batch()
        batch.add(function_id, args, kwargs)
        (task_ids,) = self.batch_run(_endpoint_id(endpoint_id), batch)["tasks"].values()
        return str(task_ids[0])

    def get_task(self, task_id: str | UUID) -> dict[str, Any]:
        """How a task stands.

        Returns:
            `task_id`, `status`, `pending`, and once it has ended `completion_t` (unix seconds as text), `details`, and
            either `result`, the value, or `exception`, the exception object.
        """
        return self._task_from_document(self.api.task(task_id))

    def get_result(self, task_id: str | UUID) -> Any:
        """The value of a task that has ended.

        Raises:
            TaskPending: it has not ended.
            TaskCancelled: it was cancelled.
            Exception: what the function raised, as its own type where that can be loaded, else `TaskExecutionFailed`.
        """
        document = self.api.task(task_id)
        ended = ended_from_document(document)
        if ended is None:
            raise TaskPending(uuid_text(task_id, "task_id"), str(document.get("status", "unknown")))
        value, error = self._reader.read(ended)
        if error is not None:
            raise error
        return value

    def get_batch_result(self, task_id_list: Iterable[str | UUID]) -> dict[str, dict[str, Any]]:
        """How many tasks stand: task id → what `get_task` returns, those that failed included.

        Raises:
            TaskNotFound: the service does not know one of them.
        """
        ids = [uuid_text(task_id, "task_id") for task_id in task_id_list]
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(ids), _ASK_AT_ONCE):
            documents = self.api.batch_status(ids[start : start + _ASK_AT_ONCE])
            found.update((task_id, self._task_from_document(each)) for task_id, each in documents.items())
        missing = [task_id for task_id in ids if task_id not in found]
        if missing:
            raise TaskNotFound(f"The service does not know {len(missing)} of these tasks: {', '.join(missing[:3])} …")
        return found

    def get_tasks(
        self,
        *,
        state: str | Iterable[str] | None = None,
        endpoint_id: str | UUID | None = None,
        function_id: str | UUID | None = None,
        task_group_id: str | UUID | None = None,
        since: float | datetime | None = None,
        until: float | datetime | None = None,
        limit: int | None = 100,
    ) -> list[dict[str, Any]]:
        """Your tasks, newest first, without their results. Ours.

        Args:
            state: one or some of `received`, `waiting-for-nodes`, `running`, `success`, `failed`, `cancelled`.
            endpoint_id: that was submitted to, or a user endpoint.
            since, until: of the submission: Unix seconds, or times with a zone; `until` itself is not included.
            limit: at most so many; None: all, which takes a request for each 500.

        Returns:
            Of each `task_id`, `state`, `endpoint_id`, `endpoint_name`, `user_endpoint_id`, `function_id`,
            `function_name`, `task_group_id`, `submitted_at`, `ended_at` (Unix seconds) and `error_code`.
        """
        filters: dict[str, Any] = {
            "state": state if state is None or isinstance(state, str) else ",".join(state),
            "endpoint_id": endpoint_id,
            "function_id": function_id,
            "task_group_id": task_group_id,
            "since": _unix_seconds(since),
            "until": _unix_seconds(until),
        }
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while limit is None or len(found) < limit:
            size = _TASKS_AT_ONCE if limit is None else min(limit - len(found), _TASKS_AT_ONCE)
            page = self.api.tasks(**filters, limit=size, cursor=cursor)
            found += page["tasks"]
            cursor = page.get("next_cursor")
            if cursor is None:
                break
        return found

    def get_task_details(self, task_id: str | UUID) -> dict[str, Any]:
        """A task's way so far, without its result: what `get_tasks` returns of it, `timeline`, `waiting_because`,
        `error` with the traceback, size and kind of the result, `attempts`, `can_cancel`. Ours.
        """
        return self.api.task_details(task_id)

    def cancel_task(self, task_id: str | UUID) -> str:
        """Cancel a task that has not ended; returns the `status` that it has now. Ours.

        It does not start any more, or its outcome is discarded if it runs already.
        """
        return str(self.api.cancel_task(task_id).get("status", ""))

    def _task_from_document(self, document: Mapping[str, Any]) -> dict[str, Any]:
        task = {
            "task_id": document.get("task_id"),
            "status": str(document.get("status", "")).lower(),
            "pending": True,
            "details": document.get("details"),
        }
        ended = ended_from_document(document)
        if ended is None:
            return task
        value, error = self._reader.read(ended)
        outcome = {"result": value} if error is None else {"exception": error}
        return {**task, "pending": False, "completion_t": ended.completion_t, **outcome}

    # --- endpoints

    def get_endpoints(self, role: str = "owner") -> list[dict[str, Any]]:
        """One's own endpoints ("owner"), or all that one may use ("any"): `uuid`, `name`, `display_name`, `owner`."""
        return self.api.endpoints(role)

    def get_endpoint_status(self, endpoint_id: str | UUID) -> dict[str, Any]:
        """`status` ("online" or "offline") and `details`: the endpoint's last report."""
        return self.api.endpoint_status(_endpoint_id(endpoint_id))

    def get_endpoint_metadata(self, endpoint_id: str | UUID) -> dict[str, Any]:
        """Name, owner, hostname, versions, configuration, template and flags of an endpoint."""
        return self.api.endpoint(_endpoint_id(endpoint_id))

    def get_allowed_functions(self, endpoint_id: str | UUID) -> dict[str, Any]:
        """`restricted`: whether the endpoint takes only some functions; `functions`: the ids of those."""
        return self.api.allowed_functions(_endpoint_id(endpoint_id))

    def register_endpoint(
        self,
        name: str,
        endpoint_id: str | UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        multi_user: bool = False,
        *,
        display_name: str | None = None,
        allowed_functions: Iterable[str | UUID] | None = None,
        auth_policy: str | UUID | None = None,
        subscription_id: str | UUID | None = None,
        public: bool = False,
        high_assurance: bool = False,
        admins: Iterable[str | UUID] | None = None,
        direct: bool = False,
    ) -> dict[str, Any]:
        """Register an endpoint, as an agent does at its start; an earlier registration's credentials end.

        Returns:
            The service's answer: `endpoint_id`, and where its queues are, with credentials.
        """
        from dataclasses import asdict

        registration = EndpointRegistration(
            endpoint_name=name,
            display_name=display_name,
            public=public,
            multi_user=multi_user,
            high_assurance=high_assurance,
            allowed_functions=_uuid_list(allowed_functions, "allowed_functions"),
            admins=_uuid_list(admins, "admins"),
            authentication_policy=None if auth_policy is None else uuid_text(auth_policy, "auth_policy"),
            subscription_uuid=None if subscription_id is None else uuid_text(subscription_id, "subscription_id"),
            metadata=dict(metadata or {}),
            direct=direct,
        )
        return asdict(self.api.register_endpoint(registration, endpoint_id))

    def stop_endpoint(self, endpoint_id: str | UUID) -> dict[str, Any]:
        """Stop an endpoint from afar: its credentials end, and it may not register for a moment."""
        return self.api.lock_endpoint(_endpoint_id(endpoint_id))

    def delete_endpoint(self, endpoint_id: str | UUID) -> None:
        """Delete an endpoint. Its tasks that have not ended fail."""
        self.api.delete_endpoint(_endpoint_id(endpoint_id))

    def get_worker_hardware_details(self, endpoint_id: str | UUID) -> str:
        """Submit a built-in function that reports a worker's hardware; returns its task's id (see `get_result`)."""
        # As source: it runs on workers of any Python version.
        serializer = ComputeSerializer(strategy_code=PureSourceTextInspect())
        function_id = self.register_function(hardware_report, serializer=serializer)
        return self.run(endpoint_id=endpoint_id, function_id=function_id)


def _address(environment: str | None, is_local: bool, url: str | None) -> str | None:
    local = "http://localhost:5000"
    choices = [url, local if is_local else None]
    if environment is not None:
        if environment != "local" and "://" not in environment:
            raise ValueError(
                f"environment must be 'local' or the address of a service, got {environment!r}. "
                "Environments of a hosted service are not known here."
            )
        choices.append(local if environment == "local" else environment)
    given = [choice for choice in choices if choice is not None]
    if len({canonical_url(choice) for choice in given}) > 1:
        raise ValueError(f"url, environment and local_compute_services name different services: {', '.join(given)}")
    return given[0] if given else None


def _token_source(token: str | None, authorizer: Any | None) -> str | Callable[[], str] | None:
    if authorizer is None:
        return token
    if token is not None:
        raise ValueError("give a token or an authorizer, not both")
    if not callable(getattr(authorizer, "get_authorization_header", None)):
        raise ValueError("authorizer must have a method get_authorization_header()")

    def from_header() -> str:
        header = str(authorizer.get_authorization_header() or "")
        return header[len("Bearer ") :] if header.lower().startswith("bearer ") else header

    return from_header


def _registration_options(public: bool, group: str | UUID | None, ha_endpoint_id: str | UUID | None) -> dict[str, Any]:
    if ha_endpoint_id is not None and (public or group is not None):
        raise ValueError("ha_endpoint_id excludes public and group: the function belongs to that endpoint alone")
    return {
        "public": public,
        "group": None if group is None else uuid_text(group, "group"),
        "ha_endpoint_id": None if ha_endpoint_id is None else uuid_text(ha_endpoint_id, "ha_endpoint_id"),
    }


def _unix_seconds(at: float | datetime | None) -> float | None:
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise ValueError(f"a time with a zone is needed, and {at.isoformat()} has none; use .astimezone()")
        return at.timestamp()
    return at


def _endpoint_id(endpoint_id: str | UUID | None) -> str:
    if endpoint_id is None:
        raise ValueError("endpoint_id is missing: `farcall endpoints` lists yours")
    return uuid_text(endpoint_id, "endpoint_id")


def _uuid_list(values: Iterable[str | UUID] | None, what: str) -> list[str] | None:
    return None if values is None else [uuid_text(value, what) for value in values]
