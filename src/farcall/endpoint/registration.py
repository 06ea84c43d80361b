"""Registering an endpoint with the service: what is sent, what may be tried again, and which exit status an error has.

Source: wire protocol, endpoint registration.
"""

from __future__ import annotations

import getpass
import os
import platform
import random
import socket
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from farcall import __version__
from farcall.client.rest import ApiClient
from farcall.endpoint.directory import EndpointDirectory, Registration
from farcall.endpoint.origin import QueuesRefused
from farcall.wire.errors import (
    ApiError,
    EndpointNotFound,
    FarcallError,
    NotAService,
    ServiceUnreachable,
    VersionMismatch,
)
from farcall.wire.rest import EndpointRegistration, RegistrationResponse
from farcall.wire.topology import BrokerUser
from farcall.wire.versions import MIN_ENDPOINT_VERSION, is_at_least

if TYPE_CHECKING:
    from farcall.endpoint.config import LoadedConfig
    from farcall.endpoint.configfile import CommonKeys


__all__ = [
    "RegistrationRefused",
    "exit_status",
    "register",
    "registration_from_config",
    "registration_of",
    "why_credential_refused",
]

FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 15.0

EX_DATAERR: Final = 65
EX_UNAVAILABLE: Final = 69
EX_SOFTWARE: Final = 70
EX_TEMPFAIL: Final = 75
EX_NOPERM: Final = 77


class RegistrationRefused(QueuesRefused):
    """The service does not take this endpoint."""

    code = "REGISTRATION_REFUSED"


def registration_from_config(name: str, loaded: LoadedConfig) -> EndpointRegistration:
    """What an endpoint that runs tasks itself sends. Source: wire protocol, registration request."""
    metadata = {
        "endpoint_config": loaded.text,
        "user_config_template": "",
        "user_config_schema": None,
        "engine_encrypted": loaded.config.is_encrypted,
    }
    return registration_of(name, loaded.config, metadata, direct=True)


def registration_of(
    name: str, config: CommonKeys, metadata: Mapping[str, Any], *, multi_user: bool = False, direct: bool = False
) -> EndpointRegistration:
    """What every kind of endpoint sends.

    Args:
        metadata: besides what is said of this process.
        multi_user: it becomes other local users.
        direct: it runs tasks itself.
    """
    return EndpointRegistration(
        endpoint_name=name,
        display_name=config.display_name,
        description=config.description,
        public=config.public,
        multi_user=multi_user,
        high_assurance=config.high_assurance,
        allowed_functions=config.allowed_functions or None,
        admins=config.admins or None,
        authentication_policy=config.authentication_policy,
        subscription_uuid=config.subscription_id,
        metadata={**_process_metadata(), **metadata},
        direct=direct,
    )


def _process_metadata() -> dict[str, Any]:
    """What the metadata of a registration says of this process. Source: wire protocol, registration request."""
    return {
        "endpoint_version": __version__,
        "python_version": platform.python_version(),
        "hostname": socket.getfqdn(),
        "local_user": _local_user(),
        "pid": os.getpid(),
    }


def register(
    client: ApiClient,
    directory: EndpointDirectory,
    request: EndpointRegistration,
    *,
    endpoint_id: str | None = None,
    cancelled: threading.Event,
    on_waiting: Callable[[str], None],
) -> RegistrationResponse | None:
    """Register, and remember the id; as long as nobody answers, wait and try again.

    Args:
        request: what is sent.
        endpoint_id: in place of the one that `endpoint.json` remembers.
        cancelled: when set, waiting ends.
        on_waiting: told once why nothing happens yet.

    Returns:
        Where the queues are; None if it was cancelled.

    Raises:
        RegistrationRefused: the service said no.
        RegistrationUnreadable: `endpoint.json` makes no sense.
    """
    wait_s, has_told = FIRST_WAIT_S, False
    while not cancelled.is_set():
        try:
            return _register_once(client, directory, request, endpoint_id)
        except (ServiceUnreachable, ApiError) as exc:
            if not exc.retryable:
                raise RegistrationRefused(_blocked_text(exc, directory), exit_status(exc)) from exc
            if not has_told:
                on_waiting(f"{exc}\nWaiting for the service; Ctrl-C (or `farcall-endpoint stop`) ends it.")
                has_told = True
        cancelled.wait(wait_s * (0.5 + 0.5 * random.random()))
        wait_s = min(wait_s * 2, LONGEST_WAIT_S)
    return None


def _register_once(
    client: ApiClient, directory: EndpointDirectory, request: EndpointRegistration, endpoint_id: str | None
) -> RegistrationResponse:
    _check_version(client)
    remembered = directory.registration()
    wanted = endpoint_id or (remembered.id_with(client.url) if remembered is not None else None)
    try:
        response = client.register_endpoint(request, wanted)
    except EndpointNotFound:
        is_foreign = endpoint_id is None and remembered is not None and remembered.service_url is None
        if not is_foreign:
            raise
        wanted = None  # endpoint.json was copied from another system
        response = client.register_endpoint(request)
    if wanted is not None and response.endpoint_id != wanted:
        text = f"The service answered for endpoint {response.endpoint_id}, but {wanted} was registered."
        raise RegistrationRefused(text, EX_SOFTWARE)
    earlier = remembered or Registration(endpoint_id=response.endpoint_id)
    directory.remember(earlier.registered(response.endpoint_id, client.url))
    return response


def _check_version(client: ApiClient) -> None:
    need = client.version().get("min_ep_version") or MIN_ENDPOINT_VERSION
    if not is_at_least(__version__, str(need)):
        mismatch = VersionMismatch("endpoint", __version__, str(need))
        raise RegistrationRefused(str(mismatch), EX_UNAVAILABLE) from mismatch


def _blocked_text(exc: FarcallError, directory: EndpointDirectory) -> str:
    if isinstance(exc, NotAService):
        return str(exc)
    text = f"Endpoint registration blocked.  [{exc}]"
    if isinstance(exc, EndpointNotFound):
        text += (
            f"\nThe service does not know the id in {directory.registration_path}: the endpoint was deleted, or the "
            "service's data is new. To register as a new endpoint, remove that file and start again."
        )
    return text


def exit_status(exc: FarcallError) -> int:
    """The exit status for what the service said. Source: wire protocol, exit codes at registration."""
    if isinstance(exc, ServiceUnreachable) or exc.retryable:
        return EX_TEMPFAIL
    if isinstance(exc, NotAService):
        return EX_UNAVAILABLE
    if isinstance(exc, ApiError):
        by_status = {
            400: EX_DATAERR,
            401: EX_NOPERM,
            403: EX_NOPERM,
            404: EX_UNAVAILABLE,
            409: EX_UNAVAILABLE,
            413: EX_DATAERR,
            422: EX_DATAERR,
            423: EX_UNAVAILABLE,
        }
        return by_status.get(exc.http_status, EX_SOFTWARE)
    return EX_SOFTWARE


def why_credential_refused(client: ApiClient, endpoint_id: str, reason: str, broker_url: str) -> str | None:
    """What the service says about an endpoint whose broker credential is refused, as a sentence for people.

    Waits for the service as long as it does not answer.

    Args:
        broker_url: with the credential.

    Returns:
        None if the credential counts all the same: a broker beside the service refuses logins while the service does
        not answer it.
    """
    wait_s = FIRST_WAIT_S
    waiting = threading.Event()  # never set: only a clock
    while True:
        try:
            document = client.endpoint(endpoint_id)
            break
        except EndpointNotFound:
            return f"Endpoint {endpoint_id} was deleted at the service. It stops; nothing more will be sent to it."
        except (ServiceUnreachable, ApiError) as exc:
            if not exc.retryable:
                return f"The broker no longer takes this endpoint's credential ({reason}); the service says: {exc}"
        waiting.wait(wait_s)
        wait_s = min(wait_s * 2, LONGEST_WAIT_S)
    user = BrokerUser.from_name(unquote(urlsplit(broker_url).username or ""))
    if user is not None and user.generation == document.get("credential_generation"):
        return None
    host = document.get("hostname")
    where = f" (the service last saw it on {host})" if host and host != socket.getfqdn() else ""
    return (
        f"Endpoint {endpoint_id} was stopped remotely, or a newer instance of it has registered{where}. This one "
        "stops; its unfinished tasks stay in its journal. `farcall-endpoint start` takes over again."
    )


def _local_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
