"""User endpoints of a manager: what each costs, and how long the first task of a cold one takes.

A manager without privilege (root runs it as a local user made for it) starts 1, then 10, then 50 user endpoints with
threads, each for the first task of a configuration of its own; and one each with a process pool and with Parsl's HTEX
as the default template has it: with its local block after a task, and without one when the block has ended. Memory is
PSS, all processes of a user endpoint counted, those of its block on this machine as well; the requirement for one with
the default template is 150 MiB idle, for a manager 60 MiB.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "system"))

from farcall import Executor
from farcall.endpoint.manager.marks import MARK_VARIABLE
from farcall.testing.functions import by_value
from farcall.testing.processes import process_system

SIZES = (1, 10, 50)
TIMEOUT_S = 600.0
MIB = 1024 * 1024

TEMPLATE = "idle_heartbeats_soft: 0\nengine: {{ ENGINE }}\n"
ENGINES: dict[str, dict[str, object]] = {
    "processes": {"type": "ProcessPoolEngine", "max_workers": 1},
    "htex": {
        "type": "GlobusComputeEngine",
        "job_status_kwargs": {"max_idletime": 5, "strategy_period": 1},
        "provider": {"type": "LocalProvider", "init_blocks": 0, "min_blocks": 0, "max_blocks": 1},
    },
}


def measure(root: Path, sizes: tuple[int, ...] = SIZES, setup: str = "embedded") -> dict[str, float]:
    """Figures. `setup` is always embedded: the service's part is measured elsewhere."""
    del setup
    figures: dict[str, float] = {}
    with _manager(root) as (manager_id, pid):
        figures["pss_idle_manager_mib"] = _pss_mib(pid)
        for kind in ("processes", "htex"):
            figures |= _one(manager_id, pid, kind)
        running = 2
        for size in sizes:
            figures |= _many(manager_id, size, first_number=running)
            running += size
            pss = _pss_by_user_endpoint(pid)
            threads = sorted(pss.values())[: sum(sizes)]
            figures[f"pss_manager_with_{running}_mib"] = _pss_mib(pid)
            figures[f"pss_threads_median_of_{running}_mib"] = statistics.median(threads)
    return figures


@contextmanager
def _manager(root: Path) -> Iterator[tuple[str, int]]:
    from one_account import Manager, account_for

    (root / "home").mkdir(parents=True)
    with process_system(root / "system") as system, account_for(root / "home") as account:
        manager = Manager(system, account)
        manager.write(config__yaml="display_name: Measured\n", user_config_template__yaml__j2=TEMPLATE)
        manager.start()
        try:
            yield manager.id, manager.pid
        finally:
            manager.stop()


def _one(manager_id: str, pid: int, kind: str) -> dict[str, float]:
    """Of one user endpoint with an engine of processes of its own."""
    before = {each.pid for each in _agents(pid)}
    first_s = _first_results_s(manager_id, [ENGINES[kind]])[0]
    (agent,) = [each for each in _agents(pid) if each.pid not in before]
    figures = {f"first_result_{kind}_s": first_s, f"pss_{kind}_mib": _pss_of_all_mib(agent)}
    block = [each for each in _all(agent) if _is_of_block(each)]
    if block:
        figures[f"pss_{kind}_with_block_mib"] = figures.pop(f"pss_{kind}_mib")
        figures[f"processes_{kind}_with_block"] = len(_all(agent))
        _, left = psutil.wait_procs(block, TIMEOUT_S)  # it has been idle for long enough
        assert not left, "the block does not end"
        figures[f"pss_{kind}_mib"] = _pss_of_all_mib(agent)
        figures[f"processes_{kind}"] = len(_all(agent))
    return figures


def _many(manager_id: str, count: int, first_number: int) -> dict[str, float]:
    engines = [{"type": "ThreadPoolEngine", "max_workers": first_number + number} for number in range(count)]
    took = _first_results_s(manager_id, engines)
    return {f"first_result_of_{count}_median_s": statistics.median(took), f"first_result_of_{count}_last_s": max(took)}


def _first_results_s(manager_id: str, engines: Sequence[dict[str, object]]) -> list[float]:
    """How long a task of each took that was submitted at once, its user endpoint's start included."""
    ended: list[float] = []
    with Executor(endpoint_id=manager_id) as ex:
        began_s = time.perf_counter()
        futures = []
        for engine in engines:
            ex.user_endpoint_config = {"ENGINE": engine}
            futures.append(ex.submit(_nothing))
            futures[-1].add_done_callback(lambda _: ended.append(time.perf_counter() - began_s))
        for future in futures:
            future.result(TIMEOUT_S)
    return ended


@by_value
def _nothing() -> None:
    pass


def _pss_by_user_endpoint(manager_pid: int) -> dict[int, float]:
    """MiB by the agent's process id."""
    return {each.pid: _pss_of_all_mib(each) for each in _agents(manager_pid)}


def _agents(manager_pid: int) -> list[psutil.Process]:
    children = psutil.Process(manager_pid).children()
    return [each for each in children if "_start-user-endpoint" in " ".join(each.cmdline())]


def _all(agent: psutil.Process) -> list[psutil.Process]:
    """The agent and all that it has started: its descendants, and a local block, which is nobody's child any more but
    has the mark that the manager gave to the user endpoint in its environment.
    """
    mark = agent.environ()[MARK_VARIABLE]
    return [each for each in psutil.process_iter() if _mark_of(each) == mark]


def _mark_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK_VARIABLE)
    except psutil.Error:
        return None


def _is_of_block(process: psutil.Process) -> bool:
    try:
        return "PARSL_WORKER_BLOCK_ID" in process.environ() or "process_worker_pool" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _pss_of_all_mib(agent: psutil.Process) -> float:
    return sum(_pss_mib(each.pid) for each in _all(agent))


def _pss_mib(pid: int) -> float:
    try:
        return float(psutil.Process(pid).memory_full_info().pss) / MIB
    except psutil.NoSuchProcess:
        return 0.0
