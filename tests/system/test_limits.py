"""The service's limits, met by real programs: they wait and go on."""

from __future__ import annotations

import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from farcall import Client, Executor
from farcall.testing.functions import by_value
from farcall.testing.processes import process_system

THREADS = "engine:\n  type: ThreadPoolEngine\n  max_workers: 4\n"


@by_value
def double(x: int) -> int:
    return x * 2


def test_sdk_and_endpoint_wait_and_go_on_where_requests_and_queue_are_scarce(tmp_path: Path) -> None:
    scarce = {
        "FARCALL_REQUESTS_PER_S": "3",
        "FARCALL_REQUEST_BURST": "2",
        "FARCALL_MAX_QUEUED_TASKS_PER_ENDPOINT": "10",
    }
    with process_system(tmp_path / "system", scarce) as system:
        endpoint = system.endpoint("threads", THREADS)
        client = Client()
        with Executor(endpoint_id=endpoint.id, batch_size=5) as ex:
            futures = [ex.submit(double, n) for n in range(40)]
            for _ in range(6):
                client.get_endpoint_status(endpoint.id)
            assert [future.result(timeout=60) for future in futures] == [2 * n for n in range(40)]
        client.close()
        with urllib.request.urlopen(f"{system.service.url}/metrics", timeout=30) as page:
            text = page.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    values = {(sample.name, *sample.labels.values()): sample.value for sample in samples}
    assert values["farcall_requests_refused_total", "rate"] > 0
    assert values["farcall_tasks_accepted_total",] == values["farcall_tasks_ended_total", "success"] == 40
    for leg in ("farcall_task_feed", "farcall_result_store"):
        assert values[f"{leg}_seconds_count",] == 40, leg
    for leg in ("farcall_task_take", "farcall_result_take"):  # the last acknowledgements may be on their way
        assert values[f"{leg}_seconds_count",] > 0, leg
    assert values["farcall_endpoints_online",] == 1
