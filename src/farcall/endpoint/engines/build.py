"""From a validated `engine:` section to an engine."""

from __future__ import annotations

import pickle

from farcall.endpoint.engines.base import Engine, EngineContext, EngineTask
from farcall.endpoint.engines.config import AnyEngine, ProcessPoolConfig, ThreadPoolConfig
from farcall.endpoint.engines.handover import TaskSettings
from farcall.endpoint.engines.machine import usable_cores

__all__ = ["build_engine"]


def build_engine(model: AnyEngine, context: EngineContext) -> Engine:
    """Make the engine that the configuration describes; it does nothing before `start`.

    Raises:
        EngineStartFailed: what Parsl does not accept, a package that is missing, an address that cannot be found.
    """
    settings = TaskSettings(
        endpoint_id=context.endpoint_id,
        working_dir=str(context.endpoint_dir / model.working_dir),
        sandbox=model.run_in_sandbox,
        allowed_serializers=model.allowed_serializers,
    )
    if isinstance(model, ThreadPoolConfig):
        return _build_threads(model, context, settings)
    if isinstance(model, ProcessPoolConfig):
        return _build_processes(model, context, settings)
    from farcall.endpoint.engines.parsl.build import build_parsl_engine

    return build_parsl_engine(model, context, settings)


def _build_threads(model: ThreadPoolConfig, context: EngineContext, settings: TaskSettings) -> Engine:
    from farcall.endpoint.engines.threads import ThreadPoolEngine
    from farcall.worker.run import run_task

    def run(task: EngineTask) -> bytes:
        return run_task(settings.apply(task))

    return ThreadPoolEngine(
        max_workers=model.max_workers or usable_cores(),
        run=run,
        working_dir=context.endpoint_dir / model.working_dir,
        max_retries_on_system_failure=model.max_retries_on_system_failure,
    )


def _build_processes(model: ProcessPoolConfig, context: EngineContext, settings: TaskSettings) -> Engine:
    from farcall.endpoint.engines.processes import ProcessPoolEngine

    def encode(task: EngineTask) -> bytes:
        return pickle.dumps(settings.apply(task), pickle.HIGHEST_PROTOCOL)

    return ProcessPoolEngine(
        max_workers=model.max_workers or usable_cores(),
        encode=encode,
        log_dir=context.endpoint_dir / model.label,
        working_dir=context.endpoint_dir / model.working_dir,
        max_tasks_per_child=model.max_tasks_per_child,
        max_retries_on_system_failure=model.max_retries_on_system_failure,
    )
