"""HTTP for those who watch the service: /metrics and /readyz.

/metrics names no task and no user, but tells how much a site computes; so by default (`metrics_access` "local") it is
for processes of this machine and for administrators. What comes through a proxy is not local, however near the proxy.
"""

from __future__ import annotations

import os
import resource
from typing import Final

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from farcall import __version__
from farcall.service.context import Service, caller_of, service_of
from farcall.service.ops.exposition import CONTENT_TYPE, Page
from farcall.service.web.bodies import json_response
from farcall.service.web.openapi import described
from farcall.service.web.peers import is_local
from farcall.wire.errors import Forbidden, NotFound, ServiceUnavailable
from farcall.wire.states import TaskState

__all__ = ["SHAPES", "router"]

router: Final = APIRouter()
_PAGE_BYTES: Final = resource.getpagesize()


class Readiness(msgspec.Struct, kw_only=True):
    """GET /readyz."""

    status: str


SHAPES: Final = (Readiness,)


@router.get(
    "/readyz",
    **described(
        "Whether the service can take tasks and hand them on",
        returns=Readiness,
        errors=[ServiceUnavailable],
        tag="service",
        open_to_all=True,
    ),
)
async def get_readiness(request: Request) -> Response:
    faults = await service_of(request).health.faults()
    if faults:
        raise ServiceUnavailable(f"The service is not ready: {'; '.join(faults)}.", {"faults": faults})
    return json_response(Readiness(status="ready"))


@router.get(
    "/metrics",
    **described(
        "Measurements in Prometheus' text format (from this machine, or administrators)",
        returns={"type": "string"},
        errors=[Forbidden],
        tag="service",
        open_to_all=True,
    ),
)
async def get_metrics(request: Request) -> Response:
    service = service_of(request)
    await _check_access(request, service)
    text = await _page(service)
    return Response(text, headers={"content-type": CONTENT_TYPE})


async def _check_access(request: Request, service: Service) -> None:
    access = service.settings.metrics_access
    if access == "open" or (access == "local" and is_local(request)):
        return
    if access == "off":
        raise NotFound("This service shows no metrics (setting metrics_access).")
    caller = await caller_of(request)
    if not caller.is_admin:
        raise Forbidden("Only an administrator of this service may see its metrics.")


async def _page(service: Service) -> str:
    faults = await service.health.faults()
    database = not any("database" in fault for fault in faults)
    if database:
        await service.state_counts.refresh()
    page = Page()
    page.gauge("farcall_info", "Always 1.", ({"version": __version__}, 1))
    page.gauge("farcall_ready", "Whether /readyz says so.", ({}, not faults))
    page.gauge("farcall_database_up", "Whether the database takes writes.", ({}, database))
    page.gauge("farcall_broker_up", "Whether the message broker is up.", ({}, not any("broker" in f for f in faults)))
    page.gauge(
        "farcall_tasks",
        "Tasks in the store; counted every 15 s at most.",
        *(({"state": state.value}, service.state_counts.counts.get(state.value, 0)) for state in TaskState),
    )
    await _relay_part(page, service)
    _process_part(page)
    return page.text()


async def _relay_part(page: Page, service: Service) -> None:
    relay, measures = service.relay, service.relay.measures
    depths = await relay.depths()
    page.gauge("farcall_endpoints_online", "Endpoints that take tasks now.", ({}, len(await service.online.online())))
    page.gauge(
        "farcall_queue_messages",
        "Messages in the broker.",
        *(({"kind": kind, "state": "waiting"}, waiting) for kind, (waiting, _) in depths.items()),
        *(({"kind": kind, "state": "unacknowledged"}, out) for kind, (_, out) in depths.items()),
    )
    if service.cluster is not None and service.cluster.shares is not None:
        shares = service.cluster.shares
        page.gauge("farcall_relays", "Relay processes that share the endpoints.", ({}, shares.members))
        page.gauge("farcall_relay_slots", "How many 64ths of the endpoints this one feeds.", ({}, len(shares.slots)))
    page.gauge("farcall_relay_lag_seconds", "Age of the oldest result that is not stored.", ({}, relay.intake.lag_s))
    page.counter("farcall_tasks_accepted", "Tasks stored.", ({}, measures.accepted))
    page.counter(
        "farcall_tasks_ended",
        "Tasks ended; cancelled and given up ones have failed.",
        ({"outcome": "success"}, measures.ended[True]),
        ({"outcome": "failed"}, measures.ended[False]),
    )
    counters = relay.intake.counters
    dropped = ("duplicate", "foreign", "unknown", "unreadable", "unstorable")
    page.counter(
        "farcall_results_dropped",
        "Result messages that ended no task.",
        *(({"reason": name}, getattr(counters, name)) for name in dropped),
    )
    page.counter(
        "farcall_requests_refused",
        "Requests answered with 429.",
        ({"reason": "rate"}, measures.rate_limited),
        ({"reason": "queue"}, measures.queue_full),
    )
    page.histogram(
        "farcall_submit_seconds",
        "Duration of submissions, by the answer's status.",
        *(({"status": status}, found) for status, found in sorted(measures.submit_s.items())),
    )
    page.histogram("farcall_task_feed_seconds", "Task accepted until given to the broker.", ({}, measures.fed_s))
    page.histogram(
        "farcall_task_take_seconds",
        "Task given to the broker until the endpoint acknowledged it.",
        ({}, measures.taken_s),
    )
    page.histogram("farcall_result_store_seconds", "Result received until stored.", ({}, measures.stored_s))
    page.histogram(
        "farcall_result_take_seconds",
        "Result given to the broker until acknowledged by the client.",
        ({}, measures.result_taken_s),
    )
    page.histogram("farcall_write_group_units", "Writes in one transaction.", ({}, measures.write_units))
    page.histogram("farcall_write_group_seconds", "Duration of transactions.", ({}, measures.write_s))


def _process_part(page: Page) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    page.counter("process_cpu_seconds", "CPU time.", ({}, usage.ru_utime + usage.ru_stime))
    try:
        with open("/proc/self/statm") as file:
            resident = int(file.read().split()[1]) * _PAGE_BYTES
        files = len(os.listdir("/proc/self/fd")) - 1
    except OSError:
        return
    page.gauge("process_resident_memory_bytes", "Resident memory.", ({}, resident))
    page.gauge("process_open_fds", "Open files and sockets.", ({}, files))
