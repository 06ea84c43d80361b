"""What each part loads in a fresh interpreter: import cost and trust are properties of the closure, not of intent."""

import json
import subprocess
import sys

import pytest

PROBE = """
import json, sys
before = set(sys.modules)
import {module}
loaded = set(sys.modules) - before
print(json.dumps(sorted(loaded)))
"""


def closure_of(module: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROBE.format(module=module)], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def third_party(modules: set[str]) -> set[str]:
    tops = {name.partition(".")[0] for name in modules}
    return {top for top in tops if top not in sys.stdlib_module_names and top != "farcall" and not top.startswith("_")}


def parts(modules: set[str]) -> set[str]:
    return {name.split(".")[1] for name in modules if name.startswith("farcall.")}


def test_importing_farcall_alone_loads_nothing_of_ours_or_others() -> None:
    loaded = closure_of("farcall")
    assert third_party(loaded) == set()
    assert parts(loaded) == set()


@pytest.mark.parametrize("module", ["farcall.worker.run", "farcall.worker.pool", "farcall.worker.shell"])
def test_a_compute_node_loads_the_standard_library_and_dill(module: str) -> None:
    loaded = closure_of(module)
    assert third_party(loaded) <= {"dill"}
    assert parts(loaded) <= {"wire", "serialize", "worker"}


@pytest.mark.parametrize("module", ["farcall.service.app", "farcall.broker"])
def test_the_service_loads_nothing_that_could_unpickle_a_payload(module: str) -> None:
    loaded = closure_of(module)
    assert "dill" not in third_party(loaded)
    assert parts(loaded) <= {"wire", "tls", "amqp", "broker", "service"}


def test_the_agent_loads_parsl_only_when_its_engine_is_parsl() -> None:
    loaded = closure_of("farcall.endpoint.agent.runner")
    assert "parsl" not in third_party(loaded)
    assert parts(loaded) <= {"wire", "tls", "serialize", "worker", "amqp", "client", "endpoint"}


def test_a_user_endpoint_loads_no_way_to_the_service_and_nothing_that_templates_are_made_with() -> None:
    loaded = closure_of("farcall.endpoint.userendpoint")
    assert third_party(loaded).isdisjoint({"httpx", "jinja2", "jsonschema", "parsl"})
    assert parts(loaded) <= {"wire", "tls", "serialize", "worker", "amqp", "client", "endpoint"}


def test_the_sdk_loads_nothing_of_the_service_or_the_endpoint() -> None:
    loaded = closure_of("farcall.sdk")
    assert parts(loaded) <= {"wire", "tls", "serialize", "worker", "amqp", "client", "sdk", "errors"}


def test_what_runs_as_root_before_the_drop_is_the_standard_library_and_a_few_modules_of_ours() -> None:
    loaded = closure_of("farcall.endpoint.manager.launch")
    assert third_party(loaded) == set()
    assert parts(loaded) == {"wire", "endpoint"}
    ours = {name for name in loaded if name.startswith("farcall.endpoint.manager.")}
    assert {name.rpartition(".")[2] for name in ours} == {
        *("accounts", "environment", "launch", "leftovers", "line", "marks", "pam", "privileges", "session")
    }
    assert loaded.isdisjoint({"subprocess", "pickle", "yaml"})


def test_a_manager_loads_neither_engines_nor_anything_that_could_unpickle() -> None:
    loaded = closure_of("farcall.endpoint.manager.process")
    assert third_party(loaded).isdisjoint({"parsl", "dill", "jinja2", "psutil"})
    assert parts(loaded) <= {"wire", "tls", "amqp", "client", "endpoint"}
    ours = {name for name in loaded if name.startswith("farcall.endpoint.")}
    assert ours.isdisjoint({"farcall.endpoint.engines.config", "farcall.endpoint.journal", "farcall.endpoint.agent"})


def test_the_console_loads_its_pages_when_somebody_looks() -> None:
    loaded = closure_of("farcall.console.app")
    assert not third_party(loaded) & {"nicegui", "socketio", "websockets", "jinja2", "fastapi", "sqlalchemy"}
    assert parts(loaded) <= {"wire", "client", "console"}
