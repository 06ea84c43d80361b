"""Whatever is sent to whatever route is answered, and never with a fault of the service.

Requests are made of the description of the interface (/openapi.json), valid and not, with and without a login, to ids
that exist and to others. The same ones each time, and few: this is for what everybody sees at once. Set
FARCALL_TEST_FUZZ_EXAMPLES for a long run.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from service_world import Rest, ServiceThread

from farcall.service.settings import ServiceSettings

EXAMPLES = int(os.environ.get("FARCALL_TEST_FUZZ_EXAMPLES", "6"))
_ENDING = ("/v3/logout", "/logout")
"""What makes the login useless for all that comes after it."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceThread]:
    data_dir = tmp_path_factory.mktemp("fuzz")
    thread = ServiceThread(ServiceSettings(data_dir=data_dir, port=0, amqp_port=0, requests_per_s=0))
    thread.start()
    yield thread
    thread.stop()


class Ids:
    """Ids of things that exist, by the name of the parameter; made anew where a request may have destroyed them."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    def fill(self, parameters: dict[str, Any]) -> None:
        for name in parameters:
            make = getattr(self, f"_{name}", None)
            if make is not None:
                parameters[name] = make()

    def _endpoint_id(self) -> str:
        return str(self._rest.endpoint()["endpoint_id"])

    def _function_id(self) -> str:
        return self._rest.function()

    def _policy_id(self) -> str:
        return str(self._rest.ask("POST", "/v3/policies", {})["id"])

    def _identity_id(self) -> str:
        made = self._rest.ask("POST", "/v3/admin/users", {"username": f"u{uuid4().hex}"})
        return str(made["user"]["id"])

    def _task_id(self) -> str:
        return self._submitted()[0]

    def _task_group_id(self) -> str:
        return self._submitted()[1]

    def _submitted(self) -> tuple[str, str]:
        function_id = self._rest.function()
        answer = self._rest.submit(self._endpoint_id(), function_id)
        return str(answer["tasks"][function_id][0]), str(answer["task_group_id"])


def operations(site: ServiceThread) -> Iterator[Any]:
    url = site.running.url.replace("localhost", "127.0.0.1")
    for found in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations():
        operation = found.ok()
        if operation.path not in _ENDING:
            yield operation


@pytest.mark.parametrize("who", ["nobody", "somebody", "an administrator with ids that exist"])
def test_no_request_makes_the_service_fail(site: ServiceThread, who: str) -> None:
    rest = Rest(site, f"{who.split()[0]}@localhost", is_admin="administrator" in who)
    ids = Ids(rest) if "ids" in who else None
    headers = {} if who == "nobody" else {"Authorization": str(rest.http.headers["authorization"])}
    seen: Counter[int] = Counter()
    for operation in operations(site):

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def run(case: Any) -> None:
            if ids is not None and case.path_parameters:
                ids.fill(case.path_parameters)
            answer = case.call(headers={**(case.headers or {}), **headers}, allow_redirects=False)
            seen[answer.status_code] += 1
            assert answer.status_code < 500, (case.method, case.formatted_path, case.body, answer.text)
            if answer.status_code >= 400 and "json" in answer.headers.get("content-type", [""])[0]:
                assert isinstance(answer.json(), dict)

        run()
    assert seen.total() > 100
    if who != "nobody":
        assert seen[200] > 20, seen
    assert rest.ask("GET", "/v3/whoami")["identity_id"] == rest.identity.id
