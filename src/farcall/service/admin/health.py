"""How the service goes, for an operator on call: everything that one process can find out in a moment."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
from typing import Final

from farcall import __version__
from farcall.service.admin.documents import (
    BrokerHealth,
    DiskHealth,
    ProcessHealth,
    QueueDepth,
    RelayHealth,
    ServiceHealth,
    StoreHealth,
)
from farcall.service.admin.store import StoreState, store_state
from farcall.service.context import Service
from farcall.wire.versions import API_VERSION

__all__ = ["service_health"]

_PAGE_BYTES: Final = resource.getpagesize()
_DROPS: Final = ("duplicate", "foreign", "unknown", "unreadable", "unstorable")


async def service_health(service: Service) -> ServiceHealth:
    """What is known now. What cannot be found out, because a part is down, is null or empty."""
    faults = await service.health.faults()
    is_store_up = not any("database" in fault for fault in faults)
    state: StoreState | None = None
    online = 0
    if is_store_up:
        await service.state_counts.refresh()
        state = await service.db.read(store_state)
        online = len(await service.online.online())
    certificate = service.certificate
    return ServiceHealth(
        ready=not faults,
        faults=faults,
        now=service.clock(),
        version=__version__,
        api_version=API_VERSION,
        store=_store(service, state, is_up=is_store_up),
        broker=await _broker(service, is_up=not any("broker" in fault for fault in faults)),
        process=_process(service),
        relays=_relays(state),
        disk=_disk(service),
        endpoints=dict(state.endpoints) if state else {},
        endpoints_online=online,
        endpoint_versions=dict(state.versions) if state else {},
        tasks=dict(service.state_counts.counts),
        users=state.people if state else 0,
        clients=state.clients if state else 0,
        certificate_expires_at=None if certificate is None else certificate.certificate.not_after.timestamp(),
    )


def _store(service: Service, state: StoreState | None, *, is_up: bool) -> StoreHealth:
    kind = "sqlite" if service.settings.store_url.startswith("sqlite:") else "postgresql"
    return StoreHealth(
        kind=kind,
        is_up=is_up,
        version=state.version if state else None,
        schema=state.schema if state else None,
        size_bytes=state.size_bytes if state else None,
    )


async def _broker(service: Service, *, is_up: bool) -> BrokerHealth:
    depths = await service.relay.depths()
    return BrokerHealth(
        kind="embedded" if service.rabbitmq is None else "rabbitmq",
        is_up=is_up,
        address=None if service.rabbitmq is None else service.rabbitmq.shown,
        queues=[
            QueueDepth(kind=kind, waiting=waiting, unacknowledged=out)
            for kind, (waiting, out) in sorted(depths.items())
        ],
    )


def _relays(state: StoreState | None) -> list[RelayHealth]:
    found = state.relays if state is not None else ()
    return [RelayHealth(id=each.id, host=each.host, silent_s=each.silent_s) for each in found]


def _process(service: Service) -> ProcessHealth:
    relay, measures = service.relay, service.relay.measures
    usage = resource.getrusage(resource.RUSAGE_SELF)
    try:
        with open("/proc/self/statm") as file:
            memory: int | None = int(file.read().split()[1]) * _PAGE_BYTES
        files: int | None = len(os.listdir("/proc/self/fd")) - 1
    except OSError:
        memory = files = None
    shares = service.cluster.shares if service.cluster is not None else None
    return ProcessHealth(
        hostname=socket.gethostname(),
        pid=os.getpid(),
        role=service.settings.role,
        version=__version__,
        python_version=platform.python_version(),
        started_at=service.started_at,
        memory_bytes=memory,
        cpu_s=usage.ru_utime + usage.ru_stime,
        open_files=files,
        slots=None if shares is None else len(shares.slots),
        oldest_unstored_result_s=relay.intake.lag_s,
        tasks_accepted=measures.accepted,
        tasks_succeeded=measures.ended[True],
        tasks_failed=measures.ended[False],
        requests_refused=measures.rate_limited + measures.queue_full,
        results_dropped=sum(getattr(relay.intake.counters, name) for name in _DROPS),
    )


def _disk(service: Service) -> DiskHealth | None:
    try:
        found = shutil.disk_usage(service.settings.data_dir)
    except OSError:
        return None
    return DiskHealth(path=str(service.settings.data_dir), total_bytes=found.total, free_bytes=found.free)
