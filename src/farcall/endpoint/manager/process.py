"""One manager from start to end, in this process: configuration, lock, registration, audit log, loop.

Composes; decides only the order and the exit status, as `endpoint.process` does for endpoints that run tasks. Signals,
terminals and logs are the command's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from farcall import __version__
from farcall.amqp import AmqpConnection, ConnectionFactory
from farcall.client.rest import ApiClient
from farcall.endpoint import registration
from farcall.endpoint.announcing import Announcer, ExitStatus
from farcall.endpoint.auditlog import AuditLog, AuditLogUnwritable
from farcall.endpoint.configfile import ConfigInvalid
from farcall.endpoint.directory import EndpointDirectory, RegistrationUnreadable
from farcall.endpoint.manager.commands import COMMANDS, StartRequest
from farcall.endpoint.manager.config import (
    Blueprint,
    BlueprintUnreadable,
    LoadedManager,
    load_manager_config,
    read_blueprint,
)
from farcall.endpoint.manager.control import ControlServer
from farcall.endpoint.manager.core import ManagerCore, ManagerPolicy
from farcall.endpoint.manager.events import Person
from farcall.endpoint.manager.line import Begin, Order
from farcall.endpoint.manager.links import ManagerLinks, Notices
from farcall.endpoint.manager.mapping import IdentityMap, MappingInvalid
from farcall.endpoint.manager.privileges import take_in_orphans
from farcall.endpoint.manager.resolve import Resolver
from farcall.endpoint.manager.runner import ManagerEnd, ManagerRunner, Site
from farcall.endpoint.origin import usable_amqp_port
from farcall.endpoint.pidfile import AlreadyRunning, PidFile
from farcall.tls import CaFileUnusable, Trust
from farcall.wire.errors import FarcallError, Forbidden
from farcall.wire.rest import EndpointRegistration, RegistrationResponse

__all__ = ["ManagerRun", "registration_of_manager"]

_log = logging.getLogger(__name__)

_BY_END: Final = {
    ManagerEnd.REQUESTED: ExitStatus.OK,
    ManagerEnd.REPLACED: ExitStatus.UNAVAILABLE,
    ManagerEnd.AUDIT: ExitStatus.IO,
}


class _Stopped(Exception):
    """Asked to stop before there was anything to stop."""


@dataclass(frozen=True, slots=True)
class _Registered:
    response: RegistrationResponse
    own_identities: frozenset[str] | None


class ManagerRun:
    """One run of one manager. `run` blocks, in the main thread; `stop` at any time, from any thread or signal handler.

    Args:
        directory: configured as a manager's.
        client: the service.
        announcer: told what happens.
        endpoint_id: in place of the one in `endpoint.json`.
        is_debug: user endpoints write a verbose log.
        connection_factory: makes broker connections; a double in tests. None: `AmqpConnection`.
    """

    def __init__(
        self,
        directory: EndpointDirectory,
        client: ApiClient,
        *,
        announcer: Announcer,
        endpoint_id: str | None = None,
        is_debug: bool = False,
        connection_factory: ConnectionFactory | None = None,
    ) -> None:
        self._directory = directory
        self._client = client
        self._announcer = announcer
        self._endpoint_id = endpoint_id
        self._is_debug = is_debug
        self._connection_factory = connection_factory
        self._control: SimpleQueue[Any] = SimpleQueue()  # None: asked to stop; else what a helper brought
        self._cancelled = threading.Event()
        self._stops = 0
        self._runner: ManagerRunner | None = None
        self._pid_file = PidFile(directory.pid_path)
        self._was_online = False

    def stop(self, *, at_once: bool = False) -> None:
        """End in order, after all user endpoints; a second time, or `at_once`: without waiting for running tasks."""
        self._stops += 1
        self._control.put(None)
        if self._runner is not None:
            self._runner.stop(at_once=at_once or self._stops > 1)

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
        except (ConfigInvalid, MappingInvalid, BlueprintUnreadable, CaFileUnusable, RegistrationUnreadable) as exc:
            return self._fail(exc, ExitStatus.CONFIG)
        except registration.RegistrationRefused as exc:
            return self._fail(exc, exc.status)
        except (AuditLogUnwritable, OSError) as exc:
            return self._fail(exc, ExitStatus.IO)
        except Exception as exc:
            _log.exception("The manager failed unexpectedly.", extra={"event": "endpoint.crashed"})
            what = f"{type(exc).__name__}: {exc}"
            self._announcer.failed(f"The manager failed unexpectedly ({what}). See {self._directory.log_path}")
            return ExitStatus.SOFTWARE

    def _fail(self, exc: Exception, status: int) -> int:
        _log.error(
            "The manager does not run.", extra={"event": "endpoint.failed", "reason": str(exc), "status": status}
        )
        self._announcer.failed(str(exc))
        return status

    def _run(self) -> int:
        loaded = load_manager_config(self._directory.path)
        if loaded.config.ca_file is not None:
            self._client = self._client.twin(ca_file=self._directory.ca_file)
        self._directory.make_private()
        with self._pid_file:
            self._tell_notices(loaded)
            if loaded.mapping_path is not None:
                IdentityMap.load(loaded.mapping_path)  # what cannot be used is told before anything is registered
            registered = self._register(loaded)
            resolver = Resolver(loaded, gateway_id=registered.response.endpoint_id)
            self._announcer.registered(registered.response.endpoint_id)
            path = loaded.config.audit_log(self._directory.path)
            audit = contextlib.nullcontext() if path is None else AuditLog(path, registered.response.endpoint_id)
            with audit as audit_log:
                return self._work(loaded, resolver, registered, audit_log)

    def _tell_notices(self, loaded: LoadedManager) -> None:
        for notice in loaded.notices:
            _log.warning("A note on the configuration.", extra={"event": "config.notice", "text": notice})
            self._announcer.notice(notice)

    def _register(self, loaded: LoadedManager) -> _Registered:
        request = registration_of_manager(self._directory.name, loaded, read_blueprint(loaded))
        found = self._await(lambda: self._registered(request, loaded))
        if not isinstance(found, _Registered):
            raise _Stopped
        _log.info(
            "The endpoint is registered.",
            extra={
                "event": "endpoint.registered",
                "endpoint_id": found.response.endpoint_id,
                "service": self._client.url,
            },
        )
        for warning in found.response.warnings:
            self._announcer.notice(warning)
        return found

    def _registered(self, request: EndpointRegistration, loaded: LoadedManager) -> _Registered | None:
        response = registration.register(
            self._client,
            self._directory,
            request,
            endpoint_id=self._endpoint_id,
            cancelled=self._cancelled,
            on_waiting=self._waiting,
        )
        if response is None:
            return None
        if loaded.mapping_path is not None:
            return _Registered(response, None)
        try:
            return _Registered(response, self._own_identities(response.endpoint_id))
        except FarcallError as exc:
            status = registration.exit_status(exc)
            raise registration.RegistrationRefused(f"Whose endpoint this is cannot be asked: {exc}", status) from exc

    def _own_identities(self, endpoint_id: str) -> frozenset[str]:
        """Whose functions run as whoever started this: all identities of that person, as far as the login tells."""
        try:
            identities = self._client.userinfo().get("identity_set") or ()
        except Forbidden:  # a token for functions and endpoints alone, as programs have
            return frozenset([str(self._client.endpoint(endpoint_id).get("owner"))])
        return frozenset(str(each["sub"]) for each in identities if isinstance(each, dict) and each.get("sub"))

    def _waiting(self, text: str) -> None:
        _log.warning("The service does not answer; waiting.", extra={"event": "service.waiting", "reason": text})
        self._announcer.waiting(text)

    def _work(
        self, loaded: LoadedManager, resolver: Resolver, registered: _Registered, audit_log: AuditLog | None
    ) -> int:
        response = registered.response
        broker_url = response.heartbeat_queue_info.connection_url
        port, notice = usable_amqp_port(broker_url, loaded.config.amqp_port)
        if notice is not None:
            self._announcer.notice(notice)
        connects = self._connection_factory or partial(AmqpConnection, trust=self._client.trust)
        try:
            links = ManagerLinks(response, port=port, factory=connects, on_trouble=self._no_broker)
        except ValueError as exc:
            raise registration.RegistrationRefused(str(exc), ExitStatus.SOFTWARE) from exc
        config = loaded.config
        core = ManagerCore(
            ManagerPolicy(
                own_identities=registered.own_identities,
                grace_s=float(config.mu_child_ep_grace_period_s),
                max_user_endpoints=config.max_user_endpoints,
                max_user_endpoints_per_user=config.max_user_endpoints_per_user,
            )
        )
        take_in_orphans()
        runner = ManagerRunner(
            core,
            self._site(loaded, resolver, port),
            links=links,
            notices=Notices(port=port, factory=connects),
            heartbeat_period_s=float(config.heartbeat_period),
            why_refused=lambda reason: registration.why_credential_refused(
                self._client, response.endpoint_id, reason, broker_url
            ),
            on_connection=self._connection_changed,
            audit_log=audit_log,
            control=partial(ControlServer, self._directory.path),
            about=self._about(response.endpoint_id, loaded),
        )
        self._runner = runner
        if self._stops:
            runner.stop(at_once=self._stops > 1)
        self._announcer.connecting()
        reason = runner.run()
        if runner.end_text:
            self._announcer.failed(runner.end_text)
        status = _BY_END[reason]
        _log.info("The manager has ended.", extra={"event": "endpoint.ended", "reason": reason.value, "status": status})
        return status

    def _about(self, endpoint_id: str, loaded: LoadedManager) -> dict[str, Any]:
        return {
            "id": endpoint_id,
            "name": self._directory.name,
            "pid": os.getpid(),
            "version": __version__,
            "started_unix": time.time(),
            "is_privileged": loaded.is_privileged,
        }

    def _site(self, loaded: LoadedManager, resolver: Resolver, port: int | None) -> Site:
        pem = _authorities(self._client.trust)
        base = None if loaded.is_privileged else str(self._directory.path.parent)
        parent_config = loaded.config.for_templates

        def order(request: StartRequest, person: Person, blueprint: Blueprint) -> Order:
            return Order(
                name=request.name,
                user_endpoint_id=request.user_endpoint_id,
                manager_name=self._directory.name,
                local_user=person.local_user,
                pam_service=loaded.config.pam_service if person.local_user is not None else None,
                allows_system_accounts=loaded.config.allow_system_accounts,
                base=base,
                template=blueprint.template,
                template_dir=str(loaded.template_path.parent),
                schema=blueprint.schema,
                environment=blueprint.environment,
                user_options=request.options,
                user_runtime=request.runtime,
                parent_config=parent_config,
                mapped_identity=person.mapped_identity,
                is_debug=self._is_debug or loaded.config.debug,
            )

        def begin(request: StartRequest) -> Begin:
            return Begin(
                user_endpoint_id=request.user_endpoint_id,
                queues=request.queues,
                allowed_functions=tuple(loaded.config.allowed_functions),
                authorities_pem=pem,
                amqp_port=port,
                is_audited=loaded.config.audit_log(self._directory.path) is not None,
                is_encrypted=loaded.config.high_assurance,
            )

        return Site(
            resolve=resolver.resolve,
            order=order,
            begin=begin,
            ask=partial(registration.why_credential_refused, self._client),
        )

    def _no_broker(self, reason: str) -> None:
        if not self._was_online:
            self._announcer.notice(f"No connection to the message broker of {self._client.url} yet: {reason}.")

    def _connection_changed(self, is_connected: bool) -> None:
        self._pid_file.write(is_connected=is_connected)
        if is_connected and not self._was_online:
            self._was_online = True
            self._announcer.online()

    def _await(self, work: Callable[[], Any]) -> Any:
        """Do something that blocks, in a thread, and wait for it. Raises _Stopped: `stop` was called."""
        threading.Thread(target=self._bring, args=(work,), name="farcall-start", daemon=True).start()
        found = self._control.get()
        if found is None:
            self._cancelled.set()
            raise _Stopped
        value, error = found
        if error is not None:
            raise error
        return value

    def _bring(self, work: Callable[[], Any]) -> None:
        try:
            self._control.put((work(), None))
        except BaseException as exc:
            self._control.put((None, exc))


def registration_of_manager(name: str, loaded: LoadedManager, blueprint: Blueprint) -> EndpointRegistration:
    """What is sent. Source: wire protocol, registration request."""
    metadata = {
        "endpoint_config": loaded.text,
        "user_config_template": blueprint.template,
        "user_config_schema": blueprint.schema,
        "commands": list(COMMANDS),
        # Then its user endpoints refuse configurations that do not encrypt.
        "engine_encrypted": loaded.config.high_assurance,
    }
    return registration.registration_of(name, loaded.config, metadata, multi_user=loaded.is_privileged)


def _authorities(trust: Trust) -> str | None:
    """The certificates that user endpoints are to accept: their users may not be able to read the manager's file."""
    if trust.path is None:
        return None
    path = Path(trust.path)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return "\n".join(each.read_text(encoding="utf-8", errors="replace") for each in files if each.is_file())
