"""Flattened files, as the other ecosystem's slides print them."""

from __future__ import annotations

from typing import Any

import pytest

from farcall.endpoint.engines.config import validate_engine
from farcall.endpoint.engines.normalise import normalise

SLIDES: list[dict[str, Any]] = [
    {"engine": {"type": "GlobusComputeEngine", "max_workers_per_node": 8}, "provider": {"type": "LocalProvider"}},
    {
        "display_name": "NCSA Delta 2 CPU",
        "engine": {"type": "GlobusComputeEngine", "max_workers_per_node": 2},
        "address": {"type": "address_by_interface", "ifname": "lo"},
        "provider": {"type": "SlurmProvider", "partition": "cpu", "account": "abc"},
        "launcher": {"type": "SrunLauncher"},
        "worker_init": "module load anaconda3",
    },
    {
        "engine": {
            "provider": {"type": "SlurmProvider", "partition": "compute", "account": 123},
            "launcher": {"type": "SrunLauncher"},
            "scheduler_options": "#SBATCH --constraint=x",
            "worker_init": "true",
            "walltime": "01:00:00",
            "nodes_per_block": 1,
            "type": "GlobusComputeEngine",
            "max_workers_per_node": 8,
        }
    },
    {
        "engine": {
            "type": "GlobusComputeEngine",
            "nodes_per_block": 8,
            "init_blocks": 1,
            "min_blocks": 0,
            "max_blocks": 4,
            "max_workers_per_node": 8,
        },
        "provider": {"type": "SlurmProvider", "partition": "compute"},
    },
    {
        "engine": {
            "type": "GlobusComputeEngine",
            "container_type": "docker",
            "container_uri": "python:3.12.10-bookworm",
            "container_cmd_options": "-v /tmp:/tmp",
        },
        "provider": {"type": "LocalProvider", "worker_init": "conda activate myScienceEnv"},
    },
]


@pytest.mark.parametrize("slide", SLIDES, ids=range(len(SLIDES)))
def test_a_flattened_file_becomes_valid_with_a_notice_for_each_key(slide: dict[str, Any]) -> None:
    config, notices, moved = normalise(slide)
    validate_engine(config["engine"])
    assert len(notices) == len(moved) > 0
    assert set(config) <= {"display_name", "engine"}


def test_keys_reach_the_provider_from_both_levels() -> None:
    config, notices, _ = normalise(
        {"engine": {"max_blocks": 4}, "provider": {"type": "LocalProvider"}, "worker_init": "x"}
    )
    assert config["engine"]["provider"] == {"type": "LocalProvider", "max_blocks": 4, "worker_init": "x"}
    assert any("`max_blocks:` stands in `engine:`" in notice for notice in notices)
    assert any("`worker_init:` stands at the top level" in notice for notice in notices)


def test_a_proper_file_is_left_alone() -> None:
    whole = {"engine": {"type": "GlobusComputeEngine", "provider": {"type": "LocalProvider"}}, "display_name": "x"}
    assert normalise(whole) == (whole, [], {})


def test_the_given_dictionary_is_untouched() -> None:
    inner = {"type": "LocalProvider"}
    raw = {"engine": {"type": "GlobusComputeEngine"}, "provider": inner, "worker_init": "x"}
    normalise(raw)
    assert raw == {"engine": {"type": "GlobusComputeEngine"}, "provider": {"type": "LocalProvider"}, "worker_init": "x"}
    assert inner == {"type": "LocalProvider"}


def test_a_key_in_two_places_stays_in_the_wrong_one_to_be_refused() -> None:
    config, _, _ = normalise({"provider": {"type": "LocalProvider", "worker_init": "a"}, "worker_init": "b"})
    assert config["worker_init"] == "b"
    assert config["engine"]["provider"]["worker_init"] == "a"


def test_pools_do_not_take_a_provider_s_keys() -> None:
    raw = {"engine": {"type": "ProcessPoolEngine"}, "provider": {"type": "LocalProvider"}}
    assert normalise(raw).config == raw


def test_an_error_about_a_moved_key_can_be_traced_to_its_line() -> None:
    normalised = normalise({"engine": {"max_blocks": 4}, "provider": {"type": "LocalProvider", "init_block": 1}})
    assert normalised.origin(("engine", "provider", "init_block")) == ("provider", "init_block")
    assert normalised.origin(("engine", "provider", "max_blocks")) == ("engine", "max_blocks")
    assert normalised.origin(("display_name",)) == ("display_name",)


def test_block_counts_without_a_provider_mean_this_machine() -> None:
    config, notices, _ = normalise({"engine": {"type": "GlobusComputeEngine", "max_blocks": 2}})
    assert config["engine"]["provider"] == {"type": "LocalProvider", "max_blocks": 2}
    assert any("LocalProvider is assumed" in notice for notice in notices)
