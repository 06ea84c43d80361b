"""An endpoint that a person starts and that runs tasks itself: `config.yaml`, and queues by a registration over REST.

One of the two origins of `process.EndpointRun`; a user endpoint's is its manager's line.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

from farcall.client.rest import ApiClient
from farcall.endpoint.auditlog import AuditLog
from farcall.endpoint.config import LoadedConfig, load_config
from farcall.endpoint.directory import EndpointDirectory
from farcall.endpoint.registration import register, registration_from_config, why_credential_refused
from farcall.tls import Trust
from farcall.wire.rest import RegistrationResponse

__all__ = ["Registered"]

log = logging.getLogger(__name__)


class Registered:
    """The origin of an endpoint that a person starts: `config.yaml`, and a registration over REST.

    Args:
        directory: configured.
        client: the service.
        endpoint_id: in place of the one in `endpoint.json`.
    """

    def __init__(self, directory: EndpointDirectory, client: ApiClient, *, endpoint_id: str | None = None) -> None:
        self._directory = directory
        self._client = client
        self._endpoint_id = endpoint_id
        self._response: RegistrationResponse | None = None

    @property
    def broker_name(self) -> str:
        return f"the message broker of {self._client.url}"

    @property
    def trust(self) -> Trust:
        return self._client.trust

    def load(self) -> LoadedConfig:
        loaded = load_config(self._directory.path)
        if loaded.config.ca_file is not None:
            self._client = self._client.twin(ca_file=self._directory.ca_file)
        return loaded

    def queues(
        self, loaded: LoadedConfig, *, cancelled: threading.Event, on_waiting: Callable[[str], None]
    ) -> RegistrationResponse | None:
        self._response = register(
            self._client,
            self._directory,
            registration_from_config(self._directory.name, loaded),
            endpoint_id=self._endpoint_id,
            cancelled=cancelled,
            on_waiting=on_waiting,
        )
        if self._response is not None:
            log.info(
                "The endpoint is registered.",
                extra={
                    "event": "endpoint.registered",
                    "endpoint_id": self._response.endpoint_id,
                    "service": self._client.url,
                },
            )
        return self._response

    def newest(self) -> RegistrationResponse:
        assert self._response is not None
        return self._response

    def why_refused(self, used: RegistrationResponse, reason: str) -> str | None:
        tasks = used.task_queue_info or used.heartbeat_queue_info
        return why_credential_refused(self._client, used.endpoint_id, reason, tasks.connection_url)

    def is_audited(self, loaded: LoadedConfig) -> bool:
        return loaded.config.audit_log(self._directory.path) is not None

    def audit(self, loaded: LoadedConfig, endpoint_id: str) -> contextlib.AbstractContextManager[AuditLog | None]:
        path = loaded.config.audit_log(self._directory.path)
        return contextlib.nullcontext() if path is None else AuditLog(path, endpoint_id)
