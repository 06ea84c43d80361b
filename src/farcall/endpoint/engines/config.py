"""The `engine:` section of `config.yaml`: its keys, defaults, and what is refused with which words.

`validate_engine` gives one of four models; `build` (sister module) makes the engine. Validating a pool on this machine
does not import Parsl; validating the provider of a GlobusComputeEngine does. Keys and defaults are the other
ecosystem's, so that a site's file works when copied. `normalise` (sister module) understands flattened files first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, PositiveInt, field_validator, model_validator
from pydantic_core import PydanticCustomError

from farcall.endpoint.engines.sections import Number, Pair, Section, Text, choose, refusal

__all__ = [
    "CONTAINER_TYPES",
    "DEFAULT_ENGINE",
    "ENGINE_TYPES",
    "AnyEngine",
    "EngineField",
    "GlobusComputeConfig",
    "GlobusMPIConfig",
    "JobStatusConfig",
    "ProcessPoolConfig",
    "ThreadPoolConfig",
    "validate_engine",
]

DEFAULT_ENGINE = "GlobusComputeEngine"

CONTAINER_TYPES = ("apptainer", "docker", "singularity", "podman", "podman-hpc", "custom")

_NO_CONTAINERS = ("AWSProvider", "GoogleCloudProvider", "KubernetesProvider")
_STRATEGIES = ("simple", "none", "htex_auto_scale")
_AFFINITIES = ("none", "block", "block-reverse", "alternating")
_SELECTORS = ("RandomManagerSelector", "BlockIdManagerSelector")
_MPI_LAUNCHERS = ("mpiexec", "srun", "aprun")


def _texts(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _accelerators(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(str(name) for name in value)
    return value


def _serializers(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, str):
        value = [value]
    from farcall.serialize import parse_allowlist

    try:
        parse_allowlist(value)
    except (ValueError, TypeError) as exc:
        raise PydanticCustomError("bad_serializer", "{text}", {"text": str(exc)}) from exc
    return tuple(str(name) for name in value)


class _EngineSection(Section):
    """What all engines understand.

    Args:
        label: names the engine's log directory in the endpoint's.
        working_dir: of tasks; relative to the endpoint's directory.
        run_in_sandbox: each task gets a directory of its own below `working_dir`.
        allowed_serializers: import paths or wildcards; None: all. Tasks in other formats fail.
        max_retries_on_system_failure: how often a task is run again if its worker, node or endpoint was lost.
    """

    working_dir: Text = "tasks_working_dir"
    run_in_sandbox: bool = False
    allowed_serializers: Annotated[tuple[str, ...] | None, BeforeValidator(_serializers)] = None
    max_retries_on_system_failure: Annotated[int, Field(ge=0)] = 0


class ThreadPoolConfig(_EngineSection):
    """Tasks in threads of the agent. `max_workers` None: one per usable core."""

    type: Literal["ThreadPoolEngine"] = "ThreadPoolEngine"
    label: Text = "ThreadPoolEngine"
    max_workers: PositiveInt | None = None


class ProcessPoolConfig(_EngineSection):
    """Tasks in worker processes of the agent's machine; None for `max_workers`: one per usable core."""

    type: Literal["ProcessPoolEngine"] = "ProcessPoolEngine"
    label: Text = "ProcessPoolEngine"
    max_workers: PositiveInt | None = None
    max_tasks_per_child: PositiveInt | None = None


class JobStatusConfig(Section):
    """`job_status_kwargs`: after how long idle blocks are given back, and how often scaling is considered; seconds."""

    max_idletime: Number = 120.0
    strategy_period: Number = 5.0


def _strategy(value: Any) -> Any:
    if isinstance(value, Mapping):
        raise PydanticCustomError(
            "strategy_is_text",
            "strategy is a text, not a section (some documentation shows one). Allowed: {allowed}",
            {"allowed": ", ".join(_STRATEGIES)},
        )
    return choose("none" if value is None else value, _STRATEGIES, "strategy")


def _affinity(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("list:"):
        return value
    return choose("none" if value is None else value, _AFFINITIES, "cpu_affinity")


def _selector(value: Any) -> Any:
    if isinstance(value, Mapping) and set(value) == {"type"}:
        value = value["type"]
    return choose(value, _SELECTORS, "manager_selector")


def _provider(value: Any) -> Any:
    from farcall.endpoint.engines.parsl.sections import validate_provider

    return validate_provider(value)


def _address(value: Any) -> Any:
    if value is None:
        return None
    from farcall.endpoint.engines.parsl.sections import validate_address

    return validate_address(value)


class _HtexConfig(_EngineSection):
    """The keys of Parsl's HighThroughputExecutor that both engines on it share; see Parsl's documentation of it.

    Periods and thresholds of None: 30 and 120 s, the documented defaults; on this very machine (LocalProvider) 2
    and 20 s, since a lost worker is noticed once per period. `poll_period` (milliseconds) of None: 100; nothing waits
    for such a poll, so a short one only costs time.
    """

    provider: Annotated[Any, BeforeValidator(_provider)] = Field(default=None, validate_default=False)
    strategy: Annotated[str, PlainValidator(_strategy)] = "simple"
    job_status_kwargs: JobStatusConfig = JobStatusConfig()
    container_type: str | None = None
    container_uri: Text | None = None
    container_cmd_options: Text | None = None
    launch_cmd: Text | None = None
    interchange_launch_cmd: Annotated[tuple[str, ...] | str | None, BeforeValidator(_texts)] = None
    address: Annotated[Any, BeforeValidator(_address)] = None
    loopback_address: Text = "127.0.0.1"
    worker_port: PositiveInt | None = None
    worker_port_range: Pair = (54000, 55000)
    interchange_port_range: Pair = (55000, 56000)
    storage_access: None = None
    worker_debug: bool = False
    prefetch_capacity: Annotated[int, Field(ge=0)] = 0
    heartbeat_threshold: PositiveInt | None = None
    heartbeat_period: PositiveInt | None = None
    drain_period: PositiveInt | None = None
    poll_period: PositiveInt | None = None
    address_probe_timeout: PositiveInt | None = None
    worker_logdir_root: Text | None = None
    manager_selector: Annotated[str, PlainValidator(_selector)] = "RandomManagerSelector"
    block_error_handler: bool = True
    encrypted: bool = True

    @field_validator("storage_access", mode="before")
    @classmethod
    def _no_staging(cls, value: Any) -> None:
        if value:
            raise PydanticCustomError(
                "no_staging",
                "storage_access is Parsl's file staging, which tasks from a service do not use; remove the key",
            )

    @field_validator("container_type")
    @classmethod
    def _known_container(cls, value: str | None) -> str | None:
        return value if value is None else choose(value, CONTAINER_TYPES, "container_type")

    @model_validator(mode="after")
    def _consistent(self) -> _HtexConfig:
        _check_containers(self)
        if self.provider is not None:
            _check_blocks(self.provider)
        period, threshold = self.heartbeat_period, self.heartbeat_threshold
        if period is not None and threshold is not None and threshold < 2 * period:
            raise refusal(
                (("heartbeat_threshold",), f"{threshold} s is less than two heartbeat periods of {period} s each")
            )
        return self


class GlobusComputeConfig(_HtexConfig):
    """Tasks on nodes that a provider gives, by Parsl's HighThroughputExecutor."""

    type: Literal["GlobusComputeEngine"] = "GlobusComputeEngine"
    label: Text = "GlobusComputeEngine-HighThroughputExecutor"
    cores_per_worker: Annotated[float, Field(gt=0)] = 1.0
    mem_per_worker: Annotated[float, Field(gt=0)] | None = None
    max_workers_per_node: PositiveInt | None = None
    cpu_affinity: Annotated[str, PlainValidator(_affinity)] = "none"
    available_accelerators: Annotated[int | tuple[str, ...], BeforeValidator(_accelerators)] = ()


class GlobusMPIConfig(_HtexConfig):
    """MPI applications on whole nodes of a block, by Parsl's MPIExecutor; each task says how many nodes and ranks."""

    type: Literal["GlobusMPIEngine"] = "GlobusMPIEngine"
    label: Text = "GlobusMPIEngine-MPIExecutor"
    mpi_launcher: str = "mpiexec"
    max_workers_per_block: PositiveInt = 1

    @field_validator("mpi_launcher")
    @classmethod
    def _known_launcher(cls, value: str) -> str:
        return choose(value, _MPI_LAUNCHERS, "mpi_launcher")

    @model_validator(mode="after")
    def _simple_launcher(self) -> GlobusMPIConfig:
        launcher = getattr(self.provider, "launcher", None)
        kind = getattr(launcher, "type", type(launcher).__name__)  # Parsl's own default has no `type`
        if kind != "SimpleLauncher":
            raise refusal(
                (
                    ("provider", "launcher") if self.provider is not None else ("provider",),
                    "GlobusMPIEngine needs `launcher: {type: SimpleLauncher}` in its provider: one pool of workers "
                    "starts on the first node, and tasks spread over the others by mpi_launcher."
                    + (f" Here it is {kind}." if launcher is not None else ""),
                )
            )
        return self


AnyEngine = ThreadPoolConfig | ProcessPoolConfig | GlobusComputeConfig | GlobusMPIConfig

ENGINE_TYPES: Mapping[str, type[ThreadPoolConfig | ProcessPoolConfig | GlobusComputeConfig | GlobusMPIConfig]] = {
    "GlobusComputeEngine": GlobusComputeConfig,
    "GlobusMPIEngine": GlobusMPIConfig,
    "ProcessPoolEngine": ProcessPoolConfig,
    "ThreadPoolEngine": ThreadPoolConfig,
}


def validate_engine(raw: Any) -> AnyEngine:
    """An `engine:` section (already normalised) as a model.

    Raises:
        ValidationError: paths are relative to the section; each message names what is allowed.
    """
    if not isinstance(raw, Mapping):
        raise refusal(((), "the engine section needs a key 'type'. Allowed: " + ", ".join(ENGINE_TYPES)))
    raw = dict(raw)
    raw.setdefault("type", DEFAULT_ENGINE)
    if raw["type"] == "HighThroughputEngine":
        raise refusal((("type",), "HighThroughputEngine is gone; GlobusComputeEngine takes its place."))
    try:
        kind = choose(raw["type"], ENGINE_TYPES, "engine")
    except PydanticCustomError as exc:
        raise refusal((("type",), exc.message())) from exc
    return ENGINE_TYPES[kind].model_validate(_with_executor(raw))


EngineField = Annotated[Any, PlainValidator(validate_engine)]
"""For the model of the whole file: `engine: EngineField`; its value is an `AnyEngine`."""


def _with_executor(raw: dict[str, Any]) -> dict[str, Any]:
    """Keys under `executor: {type: HighThroughputExecutor, …}` count as the engine's own."""
    executor = raw.pop("executor", None)
    if executor is None:
        return raw
    expected = {"GlobusComputeEngine": "HighThroughputExecutor", "GlobusMPIEngine": "MPIExecutor"}.get(raw["type"])
    given = executor.get("type") if isinstance(executor, Mapping) else executor
    if expected is None or given != expected:
        raise refusal(
            (("executor",), f"{raw['type']} takes {f'only {expected}' if expected else 'no executor'}, not {given!r}")
        )
    inner = dict(executor) if isinstance(executor, Mapping) else {}
    inner.pop("type", None)
    twice = sorted(set(inner) & set(raw))
    if twice:
        raise refusal(*((("executor", key), f"'{key}' stands in the engine section too; remove one") for key in twice))
    return {**raw, **inner}


def _check_containers(config: _HtexConfig) -> None:
    if config.container_type is None:
        for key in ("container_uri", "container_cmd_options"):
            if getattr(config, key) is not None:
                allowed = ", ".join(CONTAINER_TYPES)
                raise refusal(((key,), f"{key} has no effect without container_type. Allowed: {allowed}"))
        return
    if config.container_type == "custom":
        if not config.container_cmd_options:
            raise refusal(
                (
                    ("container_cmd_options",),
                    "container_type custom needs the whole command here, with {EXECUTOR_LAUNCH_CMD} where the "
                    "worker's command belongs ({EXECUTOR_RUNDIR} stands for the endpoint's directory)",
                )
            )
        if "{EXECUTOR_LAUNCH_CMD}" not in config.container_cmd_options:
            raise refusal(
                (
                    ("container_cmd_options",),
                    "the custom command lacks {EXECUTOR_LAUNCH_CMD}: no worker would start",
                )
            )
    elif not config.container_uri:
        raise refusal((("container_uri",), f"container_type {config.container_type} needs the image in container_uri"))
    provider = getattr(config.provider, "type", None)
    if provider in _NO_CONTAINERS:
        raise refusal(
            (("container_type",), f"{provider} has an image of its own; container_type cannot be used together with it")
        )


def _check_blocks(provider: Section) -> None:
    for key in ("nodes_per_block", "init_blocks", "min_blocks", "max_blocks"):
        value = getattr(provider, key, None)
        if value is not None and value < 0:
            raise refusal((("provider", key), f"{key} cannot be negative"))
    least, most = (getattr(provider, key, None) for key in ("min_blocks", "max_blocks"))
    if least is not None and most is not None and least > most:
        raise refusal((("provider", "min_blocks"), f"min_blocks {least} is more than max_blocks {most}"))
