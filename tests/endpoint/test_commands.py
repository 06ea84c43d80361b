"""Commands that a provider needs and that are not here are said at the start."""

from __future__ import annotations

from typing import Any

import parsl.providers
import pytest

from farcall.endpoint.commands import PROVIDER_COMMANDS, missing_commands_notice
from farcall.endpoint.config import parse_config

SLURM = "engine:\n  type: GlobusComputeEngine\n  provider: {type: SlurmProvider, partition: cpu}\n"


def notice(text: str, *here: str) -> str | None:
    return missing_commands_notice(parse_config(text).engine, lambda name: name if name in here else None)


def test_every_provider_with_commands_exists() -> None:
    assert set(PROVIDER_COMMANDS) <= set(parsl.providers.__all__)


def test_missing_commands_are_named() -> None:
    text = notice(SLURM)
    assert text is not None
    assert "SlurmProvider needs sbatch, squeue and scancel, which cannot be found here" in text
    text = notice(SLURM, "sbatch", "squeue")
    assert text is not None
    assert "needs scancel, which" in text


def test_nothing_is_said_where_nothing_is_missing() -> None:
    assert notice(SLURM, "sbatch", "squeue", "scancel") is None


@pytest.mark.parametrize("engine", ["ThreadPoolEngine", "ProcessPoolEngine", "GlobusComputeEngine"])
def test_engines_of_this_machine_need_no_commands(engine: str) -> None:
    provider = "\n  provider: {type: LocalProvider}" if engine == "GlobusComputeEngine" else ""
    assert notice(f"engine:\n  type: {engine}{provider}\n") is None


def test_the_start_says_it_and_goes_on(place: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    place.configure(SLURM)
    running = place.start()
    running.watcher.wait("online")
    assert "sbatch, squeue and scancel" in running.watcher.wait("notice")
    assert running.stop() == 0
