"""The `engine:` section: what is accepted, what is refused, and whether the words help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from farcall.endpoint.engines.base import EngineContext, EngineStartFailed
from farcall.endpoint.engines.build import build_engine
from farcall.endpoint.engines.config import CONTAINER_TYPES, EngineField, validate_engine

LOCAL = {"type": "LocalProvider"}

REFUSED: list[tuple[dict[str, Any], tuple[Any, ...], list[str]]] = [
    ({"type": "ProcessPool"}, ("type",), ["ProcessPool", "did you mean 'ProcessPoolEngine'", "ThreadPoolEngine"]),
    ({"type": "HighThroughputEngine"}, ("type",), ["gone", "GlobusComputeEngine"]),
    ({"type": "ThreadPoolEngine", "max_worker": 1}, ("max_worker",), ["did you mean 'max_workers'", "working_dir"]),
    ({"type": "ThreadPoolEngine", "max_workers": "4"}, ("max_workers",), ["integer"]),
    ({"type": "ThreadPoolEngine", "max_workers": 0}, ("max_workers",), ["greater than 0"]),
    ({"type": "ThreadPoolEngine", "max_tasks_per_child": 1}, ("max_tasks_per_child",), ["unknown key"]),
    ({"type": "ProcessPoolEngine", "provider": LOCAL}, ("provider",), ["unknown key"]),
    (
        {"type": "ThreadPoolEngine", "allowed_serializers": ["no.Such"]},
        ("allowed_serializers",),
        ["no.Such"],
    ),
    ({"max_workers_per_nod": 2}, ("max_workers_per_nod",), ["did you mean 'max_workers_per_node'"]),
    ({"strategy": {"type": "SimpleStrategy"}}, ("strategy",), ["text", "simple, none, htex_auto_scale"]),
    ({"strategy": "simpel"}, ("strategy",), ["did you mean 'simple'"]),
    ({"job_status_kwargs": {"max_idle": 3}}, ("job_status_kwargs", "max_idle"), ["did you mean 'max_idletime'"]),
    ({"job_status_kwargs": {"max_idletime": "3"}}, ("job_status_kwargs", "max_idletime"), ["number"]),
    ({"cpu_affinity": "blok"}, ("cpu_affinity",), ["did you mean 'block'"]),
    ({"worker_port_range": [1, 2, 3]}, ("worker_port_range",), ["2 items"]),
    ({"storage_access": ["x"]}, ("storage_access",), ["staging"]),
    ({"heartbeat_period": 30, "heartbeat_threshold": 40}, ("heartbeat_threshold",), ["less than two"]),
    ({"container_type": "dokcer", "container_uri": "x"}, ("container_type",), ["did you mean 'docker'"]),
    ({"container_type": "docker"}, ("container_uri",), ["image"]),
    ({"container_uri": "python:3.12"}, ("container_uri",), ["container_type"]),
    ({"container_type": "custom"}, ("container_cmd_options",), ["{EXECUTOR_LAUNCH_CMD}"]),
    (
        {"container_type": "custom", "container_cmd_options": "run x"},
        ("container_cmd_options",),
        ["{EXECUTOR_LAUNCH_CMD}"],
    ),
    (
        {"container_type": "docker", "container_uri": "x", "provider": {"type": "KubernetesProvider", "image": "y"}},
        ("container_type",),
        ["KubernetesProvider"],
    ),
    ({"provider": None}, ("provider",), ["type", "LocalProvider"]),
    ({"provider": {"partition": "cpu"}}, ("provider",), ["needs a key 'type'"]),
    ({"provider": {"type": "SlurmProvide"}}, ("provider", "type"), ["did you mean 'SlurmProvider'"]),
    ({"provider": {"type": "CobaltProvider"}}, ("provider", "type"), ["no longer"]),
    ({"provider": {**LOCAL, "init_block": 1}}, ("provider", "init_block"), ["did you mean 'init_blocks'"]),
    ({"provider": {**LOCAL, "init_blocks": "1"}}, ("provider", "init_blocks"), ["integer"]),
    ({"provider": {**LOCAL, "min_blocks": 2}}, ("provider", "min_blocks"), ["more than max_blocks 1"]),
    ({"provider": {**LOCAL, "max_blocks": -1}}, ("provider", "max_blocks"), ["negative"]),
    ({"provider": {**LOCAL, "launcher": {"type": "Srun"}}}, ("provider", "launcher", "type"), ["'SrunLauncher'"]),
    (
        {"provider": {**LOCAL, "launcher": {"type": "WrappedLauncher"}}},
        ("provider", "launcher", "prepend"),
        ["required"],
    ),
    ({"address": {"type": "address_by_interface"}}, ("address", "ifname"), ["required"]),
    ({"address": {"type": "address_by_magic"}}, ("address", "type"), ["address_by_hostname"]),
    ({"executor": {"type": "ThreadPoolExecutor"}}, ("executor",), ["HighThroughputExecutor"]),
    (
        {"max_workers_per_node": 1, "executor": {"type": "HighThroughputExecutor", "max_workers_per_node": 2}},
        ("executor", "max_workers_per_node"),
        ["remove one"],
    ),
    ({"type": "GlobusMPIEngine", "provider": LOCAL}, ("provider", "launcher"), ["SimpleLauncher"]),
    ({"type": "GlobusMPIEngine", "max_workers_per_node": 1}, ("max_workers_per_node",), ["max_workers_per_block"]),
]


@pytest.mark.parametrize(("section", "where", "words"), REFUSED, ids=[str(section)[:60] for section, _, _ in REFUSED])
def test_a_wrong_section_is_refused_at_the_key_with_helpful_words(
    section: dict[str, Any], where: tuple[Any, ...], words: list[str]
) -> None:
    with pytest.raises(ValidationError) as refused:
        validate_engine(section)
    error = next(error for error in refused.value.errors() if error["loc"] == where)
    assert all(word in error["msg"] for word in words), error["msg"]


def test_refusals_keep_their_place_in_the_whole_file() -> None:
    class File(BaseModel):
        engine: EngineField

    with pytest.raises(ValidationError) as refused:
        File.model_validate({"engine": {"provider": {**LOCAL, "init_block": 1}}})
    assert refused.value.errors()[0]["loc"] == ("engine", "provider", "init_block")


def test_all_keys_of_the_executor_are_accepted() -> None:
    config = validate_engine(
        {
            "type": "GlobusComputeEngine",
            "label": "mine",
            "max_retries_on_system_failure": 2,
            "executor": {"type": "HighThroughputExecutor", "worker_debug": True},
            "encrypted": False,
            "strategy": "htex_auto_scale",
            "job_status_kwargs": {"max_idletime": 60, "strategy_period": 2.5},
            "run_in_sandbox": True,
            "working_dir": "elsewhere",
            "allowed_serializers": ["farcall.*Code", "farcall.*Data"],
            "provider": {**LOCAL, "launcher": {"type": "SrunLauncher", "overrides": "-c 4"}, "parallelism": 0.5},
            "launch_cmd": "process_worker_pool.py",
            "interchange_launch_cmd": ["interchange.py"],
            "address": {"type": "address_by_hostname"},
            "loopback_address": "127.0.0.1",
            "worker_port": 50000,
            "worker_port_range": [1, 2],
            "interchange_port_range": [3, 4],
            "storage_access": None,
            "cores_per_worker": 2,
            "mem_per_worker": 1.5,
            "max_workers_per_node": 3,
            "cpu_affinity": "block-reverse",
            "available_accelerators": [0, 1],
            "prefetch_capacity": 1,
            "heartbeat_threshold": 60,
            "heartbeat_period": 10,
            "drain_period": 100,
            "poll_period": 20,
            "address_probe_timeout": 5,
            "worker_logdir_root": "/tmp",
            "manager_selector": {"type": "BlockIdManagerSelector"},
            "block_error_handler": False,
        }
    )
    assert config.worker_debug
    assert config.available_accelerators == ("0", "1")
    assert config.provider.launcher.overrides == "-c 4"


@pytest.mark.parametrize(
    "provider",
    [
        {"type": "SlurmProvider", "partition": "cpu", "account": 314159265, "walltime": 36000, "exclusive": False},
        {"type": "PBSProProvider", "queue": "debug", "select_options": "ngpus=4", "cpus_per_node": 32},
        {"type": "TorqueProvider", "queue": "debug"},
        {"type": "LSFProvider", "project": "p", "cores_per_node": 4, "request_by_nodes": False},
        {"type": "CondorProvider", "requirements": "x", "environment": {"A": 1}, "transfer_input_files": ["a"]},
        {"type": "GridEngineProvider", "queue": "all.q", "scheduler_options": "#$ -pe smp 1"},
        {"type": "KubernetesProvider", "image": "x", "persistent_volumes": [["claim", "/mnt"]], "max_cpu": 2},
        {"type": "AWSProvider", "image_id": "ami", "key_name": "k", "spot_max_bid": 1},
        {"type": "GoogleCloudProvider", "project_id": "p", "key_file": "k", "region": "r", "os_project": "o",
         "os_family": "f"},
        {"type": "AzureProvider", "vm_reference": "x"},
    ],
    ids=lambda provider: provider["type"],
)  # fmt: skip
def test_each_provider_takes_its_own_keys(provider: dict[str, Any]) -> None:
    assert validate_engine({"provider": provider}).provider.type == provider["type"]


def test_yaml_s_readings_of_digits_are_understood() -> None:
    provider = validate_engine(
        {"provider": {"type": "SlurmProvider", "account": 314159265, "walltime": 36000}}  # 10:00:00 in YAML 1.1
    ).provider
    assert provider.account == "314159265"
    assert provider.walltime == "10:00:00"


def test_pools_on_this_machine_do_not_load_parsl() -> None:
    code = (
        "import sys; from farcall.endpoint.engines.config import validate_engine; "
        "from farcall.endpoint.engines.build import build_engine; "
        "from farcall.endpoint.engines.base import EngineContext; from pathlib import Path; "
        "build_engine(validate_engine({'type': 'ProcessPoolEngine'}), EngineContext(endpoint_dir=Path('/nowhere'))); "
        "sys.exit('parsl' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_parsl_is_loaded_without_the_packages_it_would_pull_in() -> None:
    code = "import sys, farcall.endpoint.engines.parsl.build; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_directories_and_names_are_the_ecosystem_s(tmp_path: Path) -> None:
    section = {"provider": LOCAL, "max_workers_per_node": 2}
    engine = build_engine(validate_engine(section), EngineContext(endpoint_dir=tmp_path))
    executor = engine._make_executor()
    assert executor.logdir == f"{tmp_path}/GlobusComputeEngine-HighThroughputExecutor"
    assert executor.provider.script_dir == f"{tmp_path}/submit_scripts"
    assert executor.encrypted
    assert executor.address == "127.0.0.1"  # nobody but this machine can connect


def test_an_address_that_cannot_be_found_is_told(tmp_path: Path) -> None:
    section = {"provider": LOCAL, "address": {"type": "address_by_interface", "ifname": "nosuch0"}}
    with pytest.raises(EngineStartFailed):
        build_engine(validate_engine(section), EngineContext(endpoint_dir=tmp_path))


def launch_command(tmp_path: Path, section: dict[str, Any]) -> str:
    engine = build_engine(validate_engine(section), EngineContext(endpoint_dir=tmp_path))
    executor = engine._make_executor()
    executor.cert_dir = executor.logconf_path = None
    executor.initialize_scaling()
    return str(executor._get_launch_command("7"))


def test_workers_are_found_without_an_activated_environment(tmp_path: Path) -> None:
    command = launch_command(tmp_path, {"provider": LOCAL})
    assert f'PATH="$PATH":{Path(sys.executable).parent} ' in command
    assert "--block_id=7" in command


@pytest.mark.parametrize("kind", [kind for kind in CONTAINER_TYPES if kind != "custom"])
def test_workers_start_in_the_container(tmp_path: Path, kind: str) -> None:
    section = {
        "provider": LOCAL,
        "container_type": kind,
        "container_uri": "image:1",
        "container_cmd_options": "-v ${HOME}:/home",
    }
    command = launch_command(tmp_path, section)
    assert command.startswith(f"{kind} ")
    assert f"{tmp_path}:{tmp_path}" in command
    assert "-v ${HOME}:/home image:1 process_worker_pool.py" in command
    assert "--block_id=7" in command


def test_a_custom_container_command_is_filled_in(tmp_path: Path) -> None:
    options = "wrap --dir {EXECUTOR_RUNDIR} ${IMAGE} -- {EXECUTOR_LAUNCH_CMD} 2>&1"
    section = {"provider": LOCAL, "container_type": "custom", "container_cmd_options": options}
    command = launch_command(tmp_path, section)
    assert command.startswith(f"wrap --dir {tmp_path} ${{IMAGE}} -- process_worker_pool.py")
    assert command.endswith("2>&1")


def test_an_mpi_engine_gets_its_own_keys(tmp_path: Path) -> None:
    section = {
        "type": "GlobusMPIEngine",
        "mpi_launcher": "srun",
        "max_workers_per_block": 2,
        "provider": {"type": "SlurmProvider", "launcher": {"type": "SimpleLauncher"}, "nodes_per_block": 4},
    }
    engine = build_engine(validate_engine(section), EngineContext(endpoint_dir=tmp_path))
    executor = engine._make_executor()
    assert executor.mpi_launcher == "srun"
    assert executor.max_workers_per_block == 2
