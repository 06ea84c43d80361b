"""`Executor`: a `concurrent.futures.Executor` whose calls run on an endpoint.

Serializes calls in the caller's thread, so that what is wrong with arguments is said where they are written;
`submitter` sends them, `stream` completes their futures. An Executor is bound to the process that made it only by those
threads: in a forked child it starts afresh, and the parent's futures stay the parent's.
"""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor as _Executor
from types import TracebackType
from typing import Any, TypeVar
from uuid import UUID

from farcall.amqp import ConnectionFactory
from farcall.client.rest import ApiClient, uuid_text
from farcall.client.retry import RetryPolicy
from farcall.sdk.batching import Call, Route
from farcall.sdk.calls import FunctionCache, FunctionRef, function_registration, json_object, pack_arguments
from farcall.sdk.client import Client
from farcall.sdk.future import ComputeFuture, OpenCount
from farcall.sdk.groups import default_group, replace_default_group
from farcall.sdk.hardware import hardware_report
from farcall.sdk.outcomes import ResultReader
from farcall.sdk.stream import ResultStream, Waiter, shared_stream
from farcall.sdk.submitter import Submitter, Submitting
from farcall.serialize import ComputeSerializer, PureSourceTextInspect, StrategyLike, import_path_of
from farcall.wire.errors import FarcallError
from farcall.wire.limits import SUBMIT_BATCH_LIMIT_TASKS

__all__ = ["Executor"]

_T = TypeVar("_T")

_CANCELLING = RetryPolicy(budget_s=2.0, unmet_budget_s=2.0)


class Executor(_Executor):
    """Runs calls on an endpoint. Use it in a `with` statement: its end waits for all results.

    All arguments are also attributes that can be set at any time; they hold for calls submitted from then on.

    Args:
        endpoint_id: where calls run.
        client: with which login at which service; the usual ones (`Client()`) if None.
        task_group_id: the group of the calls; by default all Executors of a process share a random one.
        resource_specification: nodes and ranks that each call needs, on endpoints whose engine uses them.
        user_endpoint_config: variables of the endpoint's template.
        label: a name for people.
        batch_size: calls in one request at most.
        amqp_port: replaces the port of the message broker's address (443, where only that is open); host name and TLS
            stay as the service says.
        api_burst_limit, api_burst_window_s: accepted for the other ecosystem's sake; Farcall needs no waiting
            between requests.
        serializer: writes functions and arguments, reads results.
        result_serializers: formats that results may have, tried in order by the worker; others are not read.

    Raises:
        ValueError, TypeError: an argument makes no sense; the message names it.
        ServiceUnreachable: nobody answers at the service's address.
        VersionMismatch: the service needs a newer release.
    """

    def __init__(
        self,
        endpoint_id: str | UUID | None = None,
        client: Client | None = None,
        task_group_id: str | UUID | None = None,
        resource_specification: Mapping[str, Any] | None = None,
        user_endpoint_config: Mapping[str, Any] | None = None,
        label: str = "",
        batch_size: int = 128,
        amqp_port: int | None = None,
        api_burst_limit: int = 4,
        api_burst_window_s: int = 16,
        serializer: ComputeSerializer | None = None,
        result_serializers: Sequence[StrategyLike] | None = None,
        *,
        connect: ConnectionFactory | None = None,
    ) -> None:
        self._functions = FunctionCache()
        self._open = OpenCount()
        self._submitter: Submitter | None = None
        self._canceller: Callable[[str], bool] | None = None
        self._connect = connect
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._is_shut = False
        self._count = 0
        self._route: Route | None = None
        self._serializer = ComputeSerializer()
        self._result_serializers: tuple[str, ...] = ()
        self._reader = ResultReader(self._serializer)
        self.endpoint_id = endpoint_id
        self.task_group_id = task_group_id
        self.resource_specification = resource_specification
        self.user_endpoint_config = user_endpoint_config
        self.label = label
        self.batch_size = batch_size
        self.amqp_port = amqp_port
        self.api_burst_limit = api_burst_limit
        self.api_burst_window_s = api_burst_window_s
        self.serializer = serializer
        self.result_serializers = result_serializers
        self.client = client

    def __repr__(self) -> str:
        name = f" {self.label!r}" if self.label else ""
        return f"<Executor{name} on endpoint {self.endpoint_id}, {self._open.count} open of {self._count} calls>"

    # --- attributes

    @property
    def endpoint_id(self) -> str | None:
        return self._endpoint_id

    @endpoint_id.setter
    def endpoint_id(self, value: str | UUID | None) -> None:
        self._endpoint_id = None if value is None else uuid_text(value, "endpoint_id")
        self._route = None

    @property
    def client(self) -> Client:
        return self._client

    @client.setter
    def client(self, value: Client | None) -> None:
        if value is not None and not isinstance(value, Client):
            raise TypeError(f"client must be a farcall.Client, got {type(value).__name__}")
        self._client = value or Client()
        self._functions.clear()
        self._renew()

    @property
    def task_group_id(self) -> str | None:
        """The group's id, also where it is the process's default; None only before there is a client."""
        if self._task_group_id is None and hasattr(self, "_client"):
            return default_group(self._client.api.identity_key)
        return self._task_group_id

    @task_group_id.setter
    def task_group_id(self, value: str | UUID | None) -> None:
        self._task_group_id = None if value is None else uuid_text(value, "task_group_id")
        self._route = None

    @property
    def resource_specification(self) -> dict[str, Any] | None:
        return self._resource_specification

    @resource_specification.setter
    def resource_specification(self, value: Mapping[str, Any] | None) -> None:
        self._resource_specification = json_object(value, "resource_specification")

    @property
    def user_endpoint_config(self) -> dict[str, Any] | None:
        return self._user_endpoint_config

    @user_endpoint_config.setter
    def user_endpoint_config(self, value: Mapping[str, Any] | None) -> None:
        self._user_endpoint_config = json_object(value, "user_endpoint_config")

    @property
    def label(self) -> str:
        return self._label

    @label.setter
    def label(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError(f"label must be a str, got {type(value).__name__}")
        self._label = value

    @property
    def batch_size(self) -> int:
        return self._batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        self._batch_size = _integer(value, "batch_size", 1, SUBMIT_BATCH_LIMIT_TASKS)
        if self._submitter is not None:
            self._submitter.batch_size = value

    @property
    def amqp_port(self) -> int | None:
        return self._amqp_port

    @amqp_port.setter
    def amqp_port(self, value: int | None) -> None:
        self._amqp_port = None if value is None else _integer(value, "amqp_port", 1, 65535)
        self._renew()

    @property
    def api_burst_limit(self) -> int:
        return self._api_burst_limit

    @api_burst_limit.setter
    def api_burst_limit(self, value: int) -> None:
        self._api_burst_limit = _integer(value, "api_burst_limit", 1, 1_000_000)

    @property
    def api_burst_window_s(self) -> int:
        return self._api_burst_window_s

    @api_burst_window_s.setter
    def api_burst_window_s(self, value: int) -> None:
        self._api_burst_window_s = _integer(value, "api_burst_window_s", 1, 1_000_000)

    @property
    def serializer(self) -> ComputeSerializer:
        return self._serializer

    @serializer.setter
    def serializer(self, value: ComputeSerializer | None) -> None:
        if value is not None and not isinstance(value, ComputeSerializer):
            raise TypeError(f"serializer must be a farcall.ComputeSerializer, got {type(value).__name__}")
        self._serializer = value or ComputeSerializer()
        self._functions.clear()
        self._reader = ResultReader(self._serializer, self._result_serializers)

    @property
    def result_serializers(self) -> list[str]:
        """Import paths, as workers get them; empty for the usual ones."""
        return list(self._result_serializers)

    @result_serializers.setter
    def result_serializers(self, value: Iterable[StrategyLike] | None) -> None:
        if isinstance(value, str):
            raise TypeError(f"result_serializers must be a list of serialization strategies, got the text {value!r}")
        paths = tuple(import_path_of(entry) for entry in value or ())
        self._reader = ResultReader(self._serializer, paths)
        self._result_serializers = paths
        self._route = None

    @property
    def task_count_submitted(self) -> int:
        """How many calls this Executor has taken."""
        return self._count

    # --- calls

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> ComputeFuture[_T]:
        """Run `fn(*args, **kwargs)` on the endpoint. Returns at once; the call travels in the background.

        The function is registered with its first call. What goes wrong on the way is raised by the future's
        `result()`, and concerns only that call.

        Raises:
            RuntimeError: after `shutdown`.
            ValueError: no `endpoint_id` is set.
            TypeError: `fn` is no function, or of a kind that workers do not run.
            SerializationError: `fn` or an argument cannot be serialized; the message says which.
            PayloadTooLarge: they are larger than the service takes.
        """
        self._check_ready()
        ref = self._functions.find(fn)
        if ref is None:
            registration = function_registration(self._serializer, fn)
            ref = self._functions.add(fn, FunctionRef(registration.function_name, registration=registration))
        return self._submit(ref, pack_arguments(self._serializer, args, kwargs, function=fn))

    def submit_to_registered_function(
        self,
        function_id: str | UUID,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> ComputeFuture[Any]:
        """Run a function that was registered before (by anybody who lets you) on the endpoint.

        Raises:
            ValueError: `function_id` is no UUID, or no `endpoint_id` is set.
            TypeError: `args` is a text or no sequence, or `kwargs` no mapping.
            RuntimeError, SerializationError, PayloadTooLarge: as for `submit`.
        """
        self._check_ready()
        if isinstance(args, (str, bytes)) or (args is not None and not isinstance(args, Iterable)):
            raise TypeError(f"args must be a list or tuple of arguments, got {args!r}; one argument is ({args!r},)")
        if kwargs is not None and not isinstance(kwargs, Mapping):
            raise TypeError(f"kwargs must be a mapping of names to arguments, got {type(kwargs).__name__}")
        key = uuid_text(function_id, "function_id")
        payload = pack_arguments(self._serializer, tuple(args or ()), kwargs or {}, function=f"function {key}")
        return self._submit(self._functions.registered(key), payload)

    def register_function(
        self,
        fn: Callable[..., Any],
        function_id: str | UUID | None = None,
        **options: Any,
    ) -> str:
        """Register a function now rather than with its first call; returns its id.

        Args:
            function_id: `fn` is registered under this id already: only remember that.
            options: as for `Client.register_function` (`public=True`, `description=…`).

        Raises:
            As `Client.register_function`.
        """
        if function_id is None:
            key = self._client.register_function(fn, serializer=self._serializer, **options)
        else:
            key = uuid_text(function_id, "function_id")
        self._functions.add(fn, self._functions.registered(key))
        return key

    def register_source_code(self, source: str, function_name: str, **options: Any) -> str:
        """Register a function that is given as source text; returns its id for `submit_to_registered_function`.

        Raises:
            As `Client.register_source_code`.
        """
        return self._client.register_source_code(source, function_name, **options)

    def get_worker_hardware_details(self) -> str:
        """Run a built-in function on a worker, wait, and return its report of the machine.

        Raises:
            As `submit` and `future.result()`.
        """
        self._check_ready()
        source = ComputeSerializer(strategy_code=PureSourceTextInspect())
        registration = function_registration(source, hardware_report)
        ref = FunctionRef(registration.function_name, registration=registration)
        return str(self._submit(ref, pack_arguments(self._serializer, (), {}, function=hardware_report)).result())

    def reload_tasks(self, task_group_id: str | UUID | None = None) -> list[ComputeFuture[Any]]:
        """Futures for every task of a group, submitted by whatever process; those that have ended complete soon.

        One process at a time should wait for a group: the results of a group are streamed to one reader.

        Args:
            task_group_id: this Executor's own if None.

        Returns:
            In the order of submission; empty for a group without tasks.

        Raises:
            TaskGroupNotFound: the service has no such group of yours.
        """
        if self._is_shut:
            raise RuntimeError("cannot reload tasks after shutdown")
        self._check_process()
        group_id = self.task_group_id if task_group_id is None else uuid_text(task_group_id, "task_group_id")
        assert group_id is not None
        tasks = self._client.api.task_group(group_id).get("tasks") or ()
        stream = self._current_submitter().stream()
        cancel = _Canceller(self._client.api, stream)
        followed: list[tuple[str, Waiter]] = []
        for task in tasks:
            future: ComputeFuture[Any] = ComputeFuture(str(task["id"]))
            future._cancel_remotely = cancel
            self._open.enter(future)
            followed.append((str(task["id"]), Waiter(future, self._reader)))
        if followed:
            stream.follow(group_id, followed, ask=True)
        return [waiter.future for _, waiter in followed]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. Calls that were taken are sent, and their futures complete, whatever the arguments.

        Args:
            wait: return only when all futures have ended.
            cancel_futures: cancel calls that have not been sent to the service yet. (`future.cancel()` also reaches
                those that have.)
        """
        with self._lock:
            self._is_shut = True
            submitter = self._submitter
        if submitter is not None:
            submitter.close(drop=cancel_futures)
        if wait and os.getpid() == self._pid:
            self._open.wait_none()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        # Somebody who presses Ctrl-C does not want to wait for results; they stay at the service.
        if kind is not None and issubclass(kind, (KeyboardInterrupt, SystemExit)):
            self.shutdown(wait=False, cancel_futures=True)
        else:
            self.shutdown(wait=True)
        return None

    # --- inside

    def _check_ready(self) -> None:
        if self._is_shut:
            raise RuntimeError("cannot submit after shutdown")
        if self._endpoint_id is None:
            raise ValueError(
                "No endpoint is set: Executor(endpoint_id=…), or set its attribute `endpoint_id`. "
                "`farcall endpoints` lists yours."
            )
        self._check_process()

    def _submit(self, function: FunctionRef, payload: str) -> ComputeFuture[Any]:
        future: ComputeFuture[Any] = ComputeFuture()
        submitter = self._submitter or self._current_submitter()
        future._cancel_remotely = self._canceller
        call = Call(
            route=self._current_route(), function=function, payload=payload, owner=Submitting(future, self._reader)
        )
        self._open.enter(future)
        try:
            submitter.add(call)
        except BaseException:
            future._ended()
            raise
        self._count += 1
        return future

    def _current_route(self) -> Route:
        # The two configurations may have been changed in place, so they are written anew each time.
        config, resources = _json_text(self._user_endpoint_config), _json_text(self._resource_specification)
        group, route = self.task_group_id, self._route
        if (
            route is None
            or route.task_group_id != group
            or route.user_endpoint_config != config
            or route.resource_specification != resources
        ):
            assert self._endpoint_id is not None
            assert group is not None
            route = self._route = Route(
                endpoint_id=self._endpoint_id,
                task_group_id=group,
                user_endpoint_config=config,
                resource_specification=resources,
                result_serializers=self._result_serializers,
            )
        return route

    def _current_submitter(self) -> Submitter:
        with self._lock:
            if self._submitter is None:
                api, port, connect = self._client.api, self._amqp_port, self._connect
                me = weakref.ref(self)
                self._submitter = Submitter(
                    api,
                    acquire_stream=lambda: shared_stream(api, port, connect),
                    on_group=lambda asked, got: _adopt_group(me, asked, got),
                    batch_size=self._batch_size,
                )
                self._canceller = _Canceller(api, self._submitter)
                # A forgotten Executor ends its thread once what it took is sent.
                weakref.finalize(self, self._submitter.close).atexit = False
            return self._submitter

    def _renew(self) -> None:
        """Have later calls go through another submitter; the present one sends what it has taken."""
        with self._lock:
            submitter, self._submitter = self._submitter, None
            self._route = None
        if submitter is not None:
            submitter.close()

    def _check_process(self) -> None:
        if os.getpid() == self._pid:
            return
        # Forked: the threads, and whatever locks they held, are the parent's.
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._open = OpenCount()
        self._submitter = None
        self._route = None


class _Canceller:
    """Cancels a task at the service. Does not know the Executor, which may be forgotten before its futures."""

    def __init__(self, api: ApiClient, source: Submitter | ResultStream) -> None:
        self._api = api
        self._source = source

    def __call__(self, task_id: str) -> bool:
        try:
            answer = self._api.cancel_task(task_id, retry=_CANCELLING)
        except FarcallError:
            return False
        return str(answer.get("status", "")).lower() == "cancelled"


def _adopt_group(executor: Callable[[], Executor | None], asked: str, got: str) -> None:
    target = executor()
    if target is None:
        return
    if target._task_group_id == asked:
        target.task_group_id = got
    replace_default_group(target._client.api.identity_key, asked, got)


def _integer(value: Any, what: str, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be an int, got {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"{what} must be from {least} to {most}, got {value}")
    return value


def _json_text(value: Mapping[str, Any] | None) -> str:
    return json.dumps(value, sort_keys=True) if value else ""
