"""The thread that brings an Executor's calls to the service: whatever has gathered since its last request.

Which calls travel together, and what becomes of a refused request, is decided by `batching`. A refusal ends the
futures that it concerns and nothing else; the thread goes on.
"""

from __future__ import annotations

import atexit
import copy
import json
import logging
import queue
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from farcall.client.rest import ApiClient
from farcall.client.retry import RetryPolicy
from farcall.sdk.batching import Batch, Call, Route, parts_after_refusal, plan_batches
from farcall.sdk.calls import FunctionRef
from farcall.sdk.future import ComputeFuture
from farcall.sdk.outcomes import ResultReader
from farcall.sdk.runtime import user_runtime
from farcall.sdk.stream import ResultStream, Waiter, close_streams
from farcall.wire.errors import ApiError, FarcallError, FunctionNotFound, ServiceUnreachable
from farcall.wire.rest import SubmitRequest, SubmitResponse

__all__ = ["Submitter", "Submitting"]

_log = logging.getLogger(__name__)

_PATIENT = RetryPolicy(longest_s=5.0, budget_s=600.0, unmet_budget_s=10.0)
"""A service that is being restarted or moved should cost nobody his calls."""

_GATHER_LIMIT = 20_000
"""Calls taken up in one turn, so that a caller who never pauses cannot hold up the first request."""

_EXIT_PATIENCE_S = 10.0

SubmitCall = Call[FunctionRef]
SubmitBatch = Batch[FunctionRef]


@dataclass(frozen=True, slots=True)
class Submitting:
    """Whose call it is: what waits for its outcome."""

    future: ComputeFuture[Any]
    reader: ResultReader


class Submitter:
    """Sends calls. All methods from any thread; the thread starts with the first call.

    Args:
        api: of the service.
        acquire_stream: returns the stream of results, acquired.
        on_group: told (asked for, got) if the service put calls into another task group.
        batch_size: calls in one request at most; may be set later.
    """

    def __init__(
        self,
        api: ApiClient,
        *,
        acquire_stream: Callable[[], ResultStream],
        on_group: Callable[[str, str], None],
        batch_size: int,
    ) -> None:
        self.batch_size = batch_size
        self._api = api
        self._acquire_stream = acquire_stream
        self._on_group = on_group
        self._inbox: queue.SimpleQueue[SubmitCall | threading.Event | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stream: ResultStream | None = None
        self._thread: threading.Thread | None = None
        self._interrupt = threading.Event()
        self._is_dropping = False
        self._is_closed = False

    def add(self, call: SubmitCall) -> None:
        """Take up one call; returns at once.

        Raises:
            RuntimeError: it was closed.
        """
        with self._lock:  # so that nothing is put behind the end that `close` puts
            if self._is_closed:
                raise RuntimeError("cannot submit after shutdown")
            if self._thread is None:
                self._start()
            self._inbox.put(call)

    def stream(self) -> ResultStream:
        """The stream of results in use."""
        with self._lock:
            stream = self._stream
            if stream is None or stream.is_closed:
                stream = self._stream = self._acquire_stream()
            return stream

    def flush(self, timeout_s: float) -> bool:
        """Wait until every call added so far has been sent, or has failed; False after `timeout_s`."""
        done = threading.Event()
        with self._lock:
            thread, is_closed = self._thread, self._is_closed
            if not is_closed:
                self._inbox.put(done)
        if thread is None or not thread.is_alive():  # nothing to send, or the thread of a forked child's parent
            return True
        if not is_closed:
            return done.wait(timeout_s)
        thread.join(timeout_s)
        return not thread.is_alive()

    def close(self, *, drop: bool = False) -> None:
        """Take no more calls; those that were taken are sent, or with `drop` cancelled. Returns at once."""
        with self._lock:
            was_closed, self._is_closed = self._is_closed, True
            is_running = self._thread is not None
            if drop:
                self._is_dropping = True
                self._interrupt.set()
            if not was_closed:
                self._inbox.put(None)
        if not was_closed and not is_running:
            self._release()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="farcall-submit", daemon=True)
        _flush_at_exit(self)
        self._thread.start()

    def _release(self) -> None:
        with self._lock:
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.release()

    # --- the thread

    def _run(self) -> None:
        is_last = False
        try:
            while not is_last:
                calls, done, is_last = self._gather()
                try:
                    self._send_all(calls)
                except Exception as exc:  # a fault of ours must not become silence
                    _log.exception("Submitting failed.", extra={"event": "submit.crashed"})
                    _fail(calls, exc)
                for event in done:
                    event.set()
                del calls  # not to hold on to payloads while waiting for the next call
        finally:
            self._release()

    def _gather(self) -> tuple[list[SubmitCall], list[threading.Event], bool]:
        calls: list[SubmitCall] = []
        done: list[threading.Event] = []
        item = self._inbox.get()
        while True:
            if item is None:
                return calls, done, True
            if isinstance(item, threading.Event):
                done.append(item)
            else:
                calls.append(item)
            if len(calls) >= _GATHER_LIMIT:
                return calls, done, False
            try:
                item = self._inbox.get_nowait()
            except queue.Empty:
                return calls, done, False

    def _send_all(self, calls: list[SubmitCall]) -> None:
        if calls:
            self.stream().open()  # connects while we register and submit
        waiting = deque(plan_batches(self._registered(calls), batch_size=self.batch_size))
        while waiting:
            batch = waiting.popleft()
            if self._is_dropping:
                for call in batch.calls:
                    call.owner.future.cancel()
                continue
            try:
                parts = self._send(batch)
            except ServiceUnreachable as exc:
                # What gathered behind it has waited as long, and would only wait again, one request after the other.
                _fail(batch.calls, _perhaps_taken(exc))
                _fail((call for each in waiting for call in each.calls), exc)
                return
            waiting.extendleft(reversed(parts))

    def _registered(self, calls: Iterable[SubmitCall]) -> list[SubmitCall]:
        """The calls whose functions are registered by now; the futures of the others have failed."""
        failed: dict[int, Exception] = {}
        good: list[SubmitCall] = []
        for call in calls:
            ref = call.function
            if ref.function_id is None and id(ref) not in failed and not self._is_dropping:
                assert ref.registration is not None
                try:
                    ref.function_id = self._api.register_function(
                        ref.registration, retry=_PATIENT, interrupt=self._interrupt
                    )
                except (FarcallError, ValueError) as exc:
                    failed[id(ref)] = exc
            if id(ref) in failed:
                _fail([call], failed[id(ref)])
            else:
                good.append(call)
        return good

    def _send(self, batch: SubmitBatch) -> list[SubmitBatch]:
        """Send one request; returns what to try in its place if it was refused.

        Raises:
            ServiceUnreachable: nobody answered for as long as we wait.
        """
        calls = [call for call in batch.calls if call.owner.future.begin_sending()]
        if not calls:
            return []
        by_function: dict[str, list[SubmitCall]] = {}
        for call in calls:
            assert call.function.function_id is not None
            by_function.setdefault(call.function.function_id, []).append(call)
        try:
            response = self._api.submit(
                batch.route.endpoint_id,
                _request(batch.route, by_function),
                batch.key,
                retry=_PATIENT,
                interrupt=self._interrupt,
            )
            self._accepted(batch.route, by_function, response)
        except ServiceUnreachable:
            raise
        except FarcallError as exc:
            parts = parts_after_refusal(Batch(route=batch.route, calls=calls), exc)
            if not parts:
                _forget_unknown(by_function, exc)
                _fail(calls, exc)
            return parts
        except Exception as exc:  # any: what was sent must end
            _log.exception("Submitting failed.", extra={"event": "submit.crashed"})
            _fail(calls, exc)
        return []

    def _accepted(self, route: Route, by_function: dict[str, list[SubmitCall]], response: SubmitResponse) -> None:
        if response.task_group_id != route.task_group_id:
            self._on_group(route.task_group_id, response.task_group_id)
        if response.ha_warning is not None:
            warnings.warn(response.ha_warning, stacklevel=1)
        followed: list[tuple[str, Waiter]] = []
        for function_id, calls in by_function.items():
            task_ids = response.tasks.get(function_id, [])
            if len(task_ids) != len(calls):
                error = f"The service answered {len(calls)} calls of function {function_id} with {len(task_ids)} tasks."
                _fail(calls, ApiError(error, None, 502, "UNEXPECTED_ANSWER"))
                continue
            for call, task_id in zip(calls, task_ids, strict=True):
                call.owner.future.accept(task_id)
                followed.append((task_id, Waiter(call.owner.future, call.owner.reader)))
        self.stream().follow(response.task_group_id, followed)


def _request(route: Route, by_function: dict[str, list[SubmitCall]]) -> SubmitRequest:
    return SubmitRequest(
        tasks={function_id: [call.payload for call in calls] for function_id, calls in by_function.items()},
        create_queue=True,
        task_group_id=route.task_group_id,
        resource_specification=json.loads(route.resource_specification) if route.resource_specification else None,
        user_endpoint_config=json.loads(route.user_endpoint_config) if route.user_endpoint_config else None,
        user_runtime=user_runtime(),
        result_serializers=list(route.result_serializers) or None,
    )


def _perhaps_taken(error: ServiceUnreachable) -> ServiceUnreachable:
    return ServiceUnreachable(
        error.url, f"{error.reason}; should it have taken the call all the same, Executor.reload_tasks finds it"
    )


def _forget_unknown(by_function: dict[str, list[SubmitCall]], error: FarcallError) -> None:
    """A function of ours that the service has lost is registered again when it is called again."""
    if isinstance(error, FunctionNotFound):
        for calls in by_function.values():
            for call in calls:
                if call.function.registration is not None:
                    call.function.function_id = None


def _fail(calls: Iterable[SubmitCall], error: BaseException) -> None:
    for call in calls:
        each = error
        if isinstance(error, FarcallError):  # one object per future: raising an exception changes it
            each = copy.copy(error)
            each.__cause__ = error.__cause__
        call.owner.future.finish(error=each)


_to_flush: weakref.WeakSet[Submitter] = weakref.WeakSet()
_exit_lock = threading.Lock()
_has_exit_hook = False


def _flush_at_exit(submitter: Submitter) -> None:
    global _has_exit_hook
    with _exit_lock:
        _to_flush.add(submitter)
        if not _has_exit_hook:
            _has_exit_hook = True
            atexit.register(_at_exit)


def _at_exit() -> None:
    """What was submitted is sent, within limits; nobody waits for results."""
    deadline_s = time.monotonic() + _EXIT_PATIENCE_S
    for submitter in list(_to_flush):
        if not submitter.flush(max(0.0, deadline_s - time.monotonic())):
            _log.warning(
                "The interpreter ends before all calls could be sent to the service; they are lost.",
                extra={"event": "submit.lost_at_exit"},
            )
    close_streams(timeout_s=1.0)
