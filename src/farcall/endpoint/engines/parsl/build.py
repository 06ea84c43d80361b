"""From a validated GlobusComputeEngine or GlobusMPIEngine section to the engine."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
from parsl.executors.high_throughput.manager_selector import BlockIdManagerSelector, RandomManagerSelector
from parsl.providers import LocalProvider

from farcall.endpoint.engines.base import EngineContext, EngineStartFailed
from farcall.endpoint.engines.config import GlobusComputeConfig, GlobusMPIConfig
from farcall.endpoint.engines.handover import TaskSettings
from farcall.endpoint.engines.machine import usable_cores
from farcall.endpoint.engines.parsl.engine import ParslEngine
from farcall.endpoint.engines.parsl.executor import AttachedExecutor, AttachedMPIExecutor, interchange_command
from farcall.endpoint.engines.parsl.launch import contained, is_on_this_machine, own_addresses, with_own_path
from farcall.endpoint.engines.parsl.sections import address_of, build_provider

__all__ = ["build_parsl_engine"]

_LOOPBACK = "127.0.0.1"
_SELECTORS = {"RandomManagerSelector": RandomManagerSelector, "BlockIdManagerSelector": BlockIdManagerSelector}
_HEARTBEAT_S = (30, 120)  # period, threshold: Parsl's
_LOCAL_HEARTBEAT_S = (2, 20)  # a lost worker is noticed once per period, and here a heartbeat costs nothing

_POLL_MS = 100


def build_parsl_engine(
    config: GlobusComputeConfig | GlobusMPIConfig, context: EngineContext, settings: TaskSettings
) -> ParslEngine:
    """Make the engine.

    Raises:
        EngineStartFailed: what Parsl does not accept, a package that is missing, an address that cannot be found.
    """
    make_executor, marker = _executor_maker(config, context)
    try:
        make_executor()  # so that what is wrong with the configuration shows now
    except Exception as exc:
        raise EngineStartFailed(config.type, str(exc) or type(exc).__name__) from exc
    return ParslEngine(
        config=config, make_executor=make_executor, settings=settings, run_dir=context.endpoint_dir, marker=marker
    )


def _executor_maker(
    config: GlobusComputeConfig | GlobusMPIConfig, context: EngineContext
) -> tuple[Callable[[], Any], str | None]:
    try:
        is_local = is_on_this_machine(config, _provider(config, context.endpoint_dir))
        address = address_of(config.address)
    except Exception as exc:
        raise EngineStartFailed(config.type, str(exc) or type(exc).__name__) from exc
    marker = f"engine.{uuid.uuid4()}" if is_local else None

    def make() -> Any:
        provider = _provider(config, context.endpoint_dir)
        options = _options(config, context.endpoint_dir, provider, marker)
        # An address given keeps Parsl from looking for one, which may ask a server on the internet.
        options["address"] = address or _LOOPBACK
        executor = (
            AttachedMPIExecutor(**options) if isinstance(config, GlobusMPIConfig) else AttachedExecutor(**options)
        )
        if address is None and marker is None:
            executor.address, executor.all_addresses = None, own_addresses()
        executor.interchange_launch_cmd = _interchange(config, marker)
        executor.run_dir = str(context.endpoint_dir)
        executor.run_id = str(uuid.uuid4())
        executor._check_python_mismatch = False  # our messages can be read by any supported version
        if marker is not None:
            executor._workers_per_node = _local_workers(config, executor)
        return executor

    return make, marker


def _provider(config: GlobusComputeConfig | GlobusMPIConfig, endpoint_dir: Path) -> Any:
    provider = LocalProvider() if config.provider is None else build_provider(config.provider)
    scripts = endpoint_dir / "submit_scripts"
    scripts.mkdir(parents=True, exist_ok=True)
    provider.script_dir = str(scripts)
    return provider


def _options(
    config: GlobusComputeConfig | GlobusMPIConfig, run_dir: Path, provider: Any, marker: str | None
) -> dict[str, Any]:
    period, threshold = _LOCAL_HEARTBEAT_S if marker is not None else _HEARTBEAT_S
    period = config.heartbeat_period or period
    threshold = config.heartbeat_threshold or max(threshold, 2 * period)
    command = config.launch_cmd
    if command is None:
        command = DEFAULT_LAUNCH_CMD
        if config.container_type is None:
            command = with_own_path(command, provider, marker)
    options: dict[str, Any] = {
        "label": config.label,
        "provider": provider,
        "launch_cmd": contained(command, config, run_dir),
        "loopback_address": config.loopback_address,
        "worker_port": config.worker_port,
        "worker_port_range": config.worker_port_range,
        "interchange_port_range": config.interchange_port_range,
        "working_dir": str(run_dir / config.working_dir),
        "worker_debug": config.worker_debug,
        "prefetch_capacity": config.prefetch_capacity,
        "heartbeat_period": period,
        "heartbeat_threshold": threshold,
        "drain_period": config.drain_period,
        "poll_period": config.poll_period or _POLL_MS,
        "address_probe_timeout": config.address_probe_timeout,
        "worker_logdir_root": config.worker_logdir_root,
        "block_error_handler": config.block_error_handler,
        "encrypted": config.encrypted,
    }
    if isinstance(config, GlobusMPIConfig):
        return {
            **options,
            "mpi_launcher": config.mpi_launcher,
            "max_workers_per_block": config.max_workers_per_block,
        }
    return {
        **options,
        "cores_per_worker": config.cores_per_worker,
        "mem_per_worker": config.mem_per_worker,
        "max_workers_per_node": config.max_workers_per_node,
        "cpu_affinity": config.cpu_affinity,
        "available_accelerators": config.available_accelerators,
        "manager_selector": _SELECTORS[config.manager_selector](),
    }


def _interchange(config: GlobusComputeConfig | GlobusMPIConfig, marker: str | None) -> list[str]:
    command = config.interchange_launch_cmd
    if command is None:
        return interchange_command(marker)
    return command.split() if isinstance(command, str) else list(command)


def _local_workers(config: GlobusComputeConfig | GlobusMPIConfig, executor: Any) -> int:
    """Workers that a block on this machine starts, as its manager will count them (Parsl cannot know them before)."""
    if isinstance(config, GlobusMPIConfig):
        return config.max_workers_per_block
    limits = [math.floor(usable_cores() / config.cores_per_worker)]
    if config.max_workers_per_node is not None:
        limits.append(config.max_workers_per_node)
    if executor.available_accelerators:
        limits.append(len(executor.available_accelerators))
    return max(1, min(limits))
