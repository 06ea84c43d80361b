"""One endpoint from start to end, in this process: configuration, lock, registration, journal, engine, agent.

Composes; decides only the order and the exit status. Signals, terminals and logs are the command's: it calls `run`
and, from wherever it likes, `stop`, and is told what happens through an `Announcer`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

from farcall.amqp import AmqpConnection, ConnectionFactory
from farcall.client.rest import ApiClient
from farcall.endpoint import registration
from farcall.endpoint.agent.events import AgentPolicy, StopReason
from farcall.endpoint.agent.links import Links
from farcall.endpoint.agent.report import ProcessIdentity
from farcall.endpoint.agent.runner import AgentRunner, AgentSettings
from farcall.endpoint.announcing import Announcer, ExitStatus, Quiet
from farcall.endpoint.auditlog import AuditLog, AuditLogUnwritable
from farcall.endpoint.commands import missing_commands_notice
from farcall.endpoint.config import ConfigInvalid, LoadedConfig, load_config
from farcall.endpoint.directory import EndpointDirectory, RegistrationUnreadable
from farcall.endpoint.engines.base import Engine, EngineCallbacks, EngineContext, EngineStartFailed
from farcall.endpoint.engines.build import build_engine
from farcall.endpoint.journal import Journal, JournalUnavailable
from farcall.endpoint.pidfile import AlreadyRunning, PidFile
from farcall.tls import CaFileUnusable
from farcall.wire.errors import FarcallError
from farcall.wire.rest import RegistrationResponse

__all__ = ["Announcer", "EndpointRun", "ExitStatus", "Quiet", "SetupFailed"]

log = logging.getLogger(__name__)


_BY_REASON = {
    StopReason.REQUESTED: ExitStatus.OK,
    StopReason.IDLE: ExitStatus.OK,
    StopReason.STUCK: ExitStatus.OK,
    StopReason.REPLACED: ExitStatus.UNAVAILABLE,
    StopReason.ENGINE: ExitStatus.SOFTWARE,
    StopReason.JOURNAL: ExitStatus.IO,
    StopReason.AUDIT: ExitStatus.IO,
}

_REASON_TEXTS = {
    StopReason.IDLE: "The endpoint was idle for as long as idle_heartbeats_soft or idle_heartbeats_hard allow.",
    StopReason.STUCK: "Nothing moved for as long as idle_heartbeats_hard allows, although tasks are outstanding.",
}


class SetupFailed(FarcallError):
    """The site's own `endpoint_setup` ended with an error."""

    code = "ENDPOINT_SETUP_FAILED"

    def __init__(self, status: int, output: str) -> None:
        super().__init__(status, output)
        self.status = status
        self.output = output

    def __str__(self) -> str:
        return f"endpoint_setup ended with status {self.status}; the endpoint does not start.\n{self.output}".rstrip()


class _Stopped(Exception):
    """Asked to stop before there was anything to stop."""


@dataclass(frozen=True, slots=True)
class _Done:
    value: Any
    error: BaseException | None


class EndpointRun:
    """One run of one endpoint. `run` blocks; `stop` may be called at any time, from any thread or signal handler.

    Args:
        directory: configured.
        client: the service.
        announcer: told what happens.
        endpoint_id: in place of the one in `endpoint.json`.
        connection_factory: makes broker connections; a double in tests. None: `AmqpConnection`.
        engine_builder: makes engines; a double in tests.
    """

    def __init__(
        self,
        directory: EndpointDirectory,
        client: ApiClient,
        *,
        announcer: Announcer,
        endpoint_id: str | None = None,
        connection_factory: ConnectionFactory | None = None,
        engine_builder: Callable[[Any, EngineContext], Engine] = build_engine,
    ) -> None:
        self._directory = directory
        self._client = client
        self._announcer = announcer
        self._endpoint_id = endpoint_id
        self._connection_factory = connection_factory
        self._engine_builder = engine_builder
        self._started_s = time.time()
        self._control: SimpleQueue[_Done | None] = SimpleQueue()  # None: asked to stop
        self._cancelled = threading.Event()
        self._stops = 0
        self._runner: AgentRunner | None = None
        self._pid_file = PidFile(directory.pid_path)
        self._was_online = False

    def stop(self, *, at_once: bool = False) -> None:
        """End in order; a second time, or `at_once`: without waiting for running tasks."""
        self._stops += 1
        self._control.put(None)
        runner = self._runner
        if runner is not None:
            runner.stop(at_once=at_once or self._stops > 1)

    def run(self) -> int:
        """Work until the end.

        Returns:
            The exit status; what went wrong was announced and logged.
        """
        try:
            return self._run()
        except _Stopped:
            return ExitStatus.OK
        except AlreadyRunning as exc:
            return self._fail(exc, ExitStatus.CANNOT_CREATE)
        except (ConfigInvalid, CaFileUnusable, RegistrationUnreadable, EngineStartFailed) as exc:
            return self._fail(exc, ExitStatus.CONFIG)
        except registration.RegistrationRefused as exc:
            return self._fail(exc, exc.status)
        except SetupFailed as exc:
            return self._fail(exc, ExitStatus.TEMPORARY)
        except (JournalUnavailable, AuditLogUnwritable) as exc:
            return self._fail(exc, ExitStatus.IO)
        except OSError as exc:
            return self._fail(exc, ExitStatus.IO)
        except Exception as exc:
            log.exception("The endpoint failed unexpectedly.", extra={"event": "endpoint.crashed"})
            what = f"{type(exc).__name__}: {exc}"
            self._announcer.failed(f"The endpoint failed unexpectedly ({what}). See {self._directory.log_path}")
            return ExitStatus.SOFTWARE

    def _fail(self, exc: Exception, status: int) -> int:
        log.error(
            "The endpoint does not run.", extra={"event": "endpoint.failed", "reason": str(exc), "status": status}
        )
        self._announcer.failed(str(exc))
        return status

    def _run(self) -> int:
        loaded = load_config(self._directory.path)
        if loaded.config.ca_file is not None:
            self._client = self._client.twin(ca_file=self._directory.ca_file)
        self._directory.make_private()
        with self._pid_file:
            self._tell_notices(loaded)
            response = self._register(loaded)
            self._announcer.registered(response.endpoint_id)
            journal, entries, _ = Journal.open(
                self._directory.journal_path,
                owner={"endpoint_id": response.endpoint_id},
            )
            try:
                self._shell(loaded.config.endpoint_setup, "endpoint_setup")
                with self._audit_log(loaded, response.endpoint_id) as audit_log:
                    reason = self._work(loaded, response, journal, entries, audit_log)
            finally:
                journal.close()
            self._teardown(loaded)
            return self._ended(reason)

    def _tell_notices(self, loaded: LoadedConfig) -> None:
        missing = missing_commands_notice(loaded.engine)
        for notice in (*loaded.notices, *([missing] if missing is not None else ())):
            log.warning("A note on the configuration.", extra={"event": "config.notice", "text": notice})
            self._announcer.notice(notice)

    def _register(self, loaded: LoadedConfig) -> RegistrationResponse:
        response = self._await(
            lambda: registration.register(
                self._client,
                self._directory,
                registration.registration_from_config(self._directory.name, loaded),
                endpoint_id=self._endpoint_id,
                cancelled=self._cancelled,
                on_waiting=self._waiting,
            )
        )
        if not isinstance(response, RegistrationResponse):
            raise _Stopped
        log.info(
            "The endpoint is registered.",
            extra={"event": "endpoint.registered", "endpoint_id": response.endpoint_id, "service": self._client.url},
        )
        for warning in response.warnings:
            self._announcer.notice(warning)
        return response

    def _waiting(self, text: str) -> None:
        log.warning("The service does not answer; waiting.", extra={"event": "service.waiting", "reason": text})
        self._announcer.waiting(text)

    def _no_broker(self, reason: str) -> None:
        if not self._was_online:
            self._announcer.notice(f"No connection to the message broker of {self._client.url} yet: {reason}.")

    def _audit_log(self, loaded: LoadedConfig, endpoint_id: str) -> contextlib.AbstractContextManager[AuditLog | None]:
        path = loaded.config.audit_log(self._directory.path)
        return contextlib.nullcontext() if path is None else AuditLog(path, endpoint_id)

    def _work(
        self,
        loaded: LoadedConfig,
        response: RegistrationResponse,
        journal: Journal,
        entries: Any,  # what `Journal.open` found
        audit_log: AuditLog | None,
    ) -> StopReason:
        task_queue = response.task_queue_info or response.heartbeat_queue_info
        port, notice = registration.usable_amqp_port(task_queue.connection_url, loaded.config.amqp_port)
        if notice is not None:
            self._announcer.notice(notice)
        try:
            connects = self._connection_factory or partial(AmqpConnection, trust=self._client.trust)
            links = Links(response, port=port, factory=connects, on_trouble=self._no_broker)
        except ValueError as exc:
            raise registration.RegistrationRefused(str(exc), ExitStatus.SOFTWARE) from exc
        runner = AgentRunner(
            self._policy(loaded, response.endpoint_id),
            AgentSettings(
                config_text=loaded.text,
                identity=ProcessIdentity.of_this_process(self._started_s),
                grace_s=float(loaded.config.shutdown_grace_period),
            ),
            journal=journal,
            entries=entries,
            links=links,
            engine_factory=lambda callbacks: self._start_engine(loaded, response.endpoint_id, callbacks),
            why_refused=lambda reason: registration.why_credential_refused(
                self._client, response.endpoint_id, reason, task_queue.connection_url
            ),
            on_connection=self._connection_changed,
            audit_log=audit_log,
        )
        try:
            self._await(runner.start_engine, must_end=True)
        except _Stopped:
            runner.abandon()
            raise
        self._runner = runner
        if self._stops:
            runner.stop(at_once=self._stops > 1)
        self._announcer.connecting()
        reason = runner.run()
        text = runner.end_text or _REASON_TEXTS.get(reason, "")
        if text and reason is not StopReason.REQUESTED:
            self._announcer.failed(text)
        return reason

    def _policy(self, loaded: LoadedConfig, endpoint_id: str) -> AgentPolicy:
        config = loaded.config
        return AgentPolicy(
            endpoint_id=endpoint_id,
            endpoint_name=self._directory.name,
            max_retries=loaded.engine.max_retries_on_system_failure,
            allowed_functions=frozenset(config.allowed_functions) if config.allowed_functions else None,
            heartbeat_period_s=float(config.heartbeat_period),
            idle_heartbeats_soft=config.idle_heartbeats_soft,
            idle_heartbeats_hard=config.idle_heartbeats_hard,
            is_audited=config.audit_log(self._directory.path) is not None,
        )

    def _start_engine(self, loaded: LoadedConfig, endpoint_id: str, callbacks: EngineCallbacks) -> Engine:
        context = EngineContext(
            endpoint_dir=self._directory.path,
            endpoint_id=endpoint_id,
            endpoint_name=self._directory.name,
            debug=loaded.config.debug,
        )
        engine = self._engine_builder(loaded.engine, context)
        try:
            engine.start(callbacks)
        except BaseException:
            engine.shutdown(0.0)
            raise
        log.info("The engine is started.", extra={"event": "engine.started", "engine": loaded.engine.type})
        return engine

    def _connection_changed(self, is_connected: bool) -> None:
        self._pid_file.write(is_connected=is_connected)
        if is_connected and not self._was_online:
            self._was_online = True
            self._announcer.online()

    def _ended(self, reason: StopReason) -> int:
        status = _BY_REASON[reason]
        log.info("The endpoint has ended.", extra={"event": "endpoint.ended", "reason": reason.value, "status": status})
        return status

    # The site's own commands -----------------------------------------------------------------------------------

    def _shell(self, command: str | None, name: str) -> None:
        if not command or not command.strip():
            return
        log.info("Running the site's command.", extra={"event": "endpoint.shell", "key": name})
        done = subprocess.run(
            ["/bin/bash", "-c", command],
            cwd=self._directory.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "FARCALL_ENDPOINT_DIR": str(self._directory.path), "FARCALL_PYTHON": sys.executable},
            check=False,
        )
        tail = done.stdout[-4000:]
        log.info(
            "The site's command has ended.",
            extra={"event": "endpoint.shell_ended", "key": name, "status": done.returncode, "output": tail},
        )
        if done.returncode:
            raise SetupFailed(done.returncode, tail)

    def _teardown(self, loaded: LoadedConfig) -> None:
        try:
            self._shell(loaded.config.endpoint_teardown, "endpoint_teardown")
        except SetupFailed:
            log.warning("endpoint_teardown failed.", extra={"event": "endpoint.teardown_failed"})

    # Waiting while staying stoppable ---------------------------------------------------------------------------

    def _await(self, work: Callable[[], Any], *, must_end: bool = False) -> Any:
        """Do something that blocks, in a thread, and wait for it.

        Raises:
            _Stopped: `stop` was called. With `must_end`, `work` has ended all the same, unless `stop` was called twice.
        """
        threading.Thread(target=self._finish, args=(work,), name="farcall-start", daemon=True).start()
        was_stopped = False
        while True:
            item = self._control.get()
            if item is None:
                self._cancelled.set()
                if not must_end or was_stopped or self._stops > 1:
                    raise _Stopped
                was_stopped = True
            elif was_stopped:
                raise _Stopped
            elif item.error is not None:
                raise item.error
            else:
                return item.value

    def _finish(self, work: Callable[[], Any]) -> None:
        try:
            self._control.put(_Done(work(), None))
        except BaseException as exc:
            self._control.put(_Done(None, exc))
