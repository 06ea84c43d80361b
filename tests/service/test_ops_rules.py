"""Limits, measurements, log lines and settings, by values."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from farcall.service.ops.exposition import Page
from farcall.service.ops.logs import JsonFormatter, TextFormatter
from farcall.service.ops.measures import Histogram, Stopwatch
from farcall.service.ops.rate import RateLimit
from farcall.service.settings import ServiceSettings
from farcall.service.sources import Effective, SettingsError, effective_settings, shown

ROOT = Path(__file__).parents[2]


def found(
    *, line: dict[str, Any] | None = None, env: dict[str, str] | None = None, file: Path | None = None
) -> Effective:
    return effective_settings(
        command_line=line or {}, environment=env or {}, file=file, default_data_dir=Path("/var/farcall")
    )


# --- Rate ------------------------------------------------------------------------------------------------------


def test_a_burst_is_allowed_and_then_the_rate() -> None:
    limit = RateLimit(2.0, 3)
    assert [limit.take("ada", 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert limit.take("bob", 0.0) == 0.0
    assert limit.take("ada", 0.25) == pytest.approx(0.25)
    assert limit.take("ada", 0.5) == 0.0
    assert limit.take("ada", 0.5) == pytest.approx(0.5)


def test_without_a_rate_there_is_no_limit() -> None:
    limit = RateLimit(0.0, 1)
    assert {limit.take("ada", 0.0) for _ in range(1000)} == {0.0}


@given(st.lists(st.floats(0, 3), max_size=200), st.floats(0.1, 50), st.integers(1, 20))
def test_never_more_than_burst_and_rate_allow_and_who_waits_as_told_is_served(
    pauses: list[float], per_s: float, burst: int
) -> None:
    limit, now, served = RateLimit(per_s, burst), 0.0, 0
    for pause in pauses:
        now += pause
        wait = limit.take("ada", now)
        served += not wait
        assert served <= burst + per_s * now + 1e-6
    while wait := limit.take("ada", now):
        now += wait + 1e-9
        assert limit.take("ada", now) == 0.0
        break


def test_many_callers_do_not_fill_the_memory() -> None:
    limit = RateLimit(1.0, 1)
    for number in range(10_100):
        limit.take(str(number), 0.0)
    assert len(limit._buckets) == 10_000


# --- Measures --------------------------------------------------------------------------------------------------


def test_what_leaves_is_measured_from_when_it_came() -> None:
    histogram = Histogram((1.0, 2.0, 4.0))
    watch = Stopwatch(histogram)
    watch.came(3, 0.0)
    watch.came(2, 1.0)
    assert watch.oldest == 0.0
    watch.left(4, 3.0)
    assert (histogram.counts, histogram.sum) == ([0, 1, 3, 0], 11.0)
    assert watch.oldest == 1.0
    watch.left(5, 10.0)
    assert (sum(histogram.counts), watch.oldest) == (5, None)


def test_prometheus_reads_what_is_written() -> None:
    page, histogram = Page(), Histogram((0.5, 1.0))
    histogram.observe(0.5, 3)
    histogram.observe(7.0)
    page.counter("tasks", 'Of "all" kinds.', ({"kind": 'a"b\\c\nd'}, 2))
    page.histogram("wait_seconds", "How long.", ({}, histogram))
    families = {family.name: family for family in text_string_to_metric_families(page.text())}
    assert families["tasks"].samples[0].labels == {"kind": 'a"b\\c\nd'}
    samples = [(s.name, s.labels.get("le"), s.value) for s in families["wait_seconds"].samples]
    assert samples == [
        ("wait_seconds_bucket", "0.5", 3.0),
        ("wait_seconds_bucket", "1", 3.0),
        ("wait_seconds_bucket", "+Inf", 4.0),
        ("wait_seconds_sum", None, 8.5),
        ("wait_seconds_count", None, 4.0),
    ]


# --- Logs ------------------------------------------------------------------------------------------------------


def record(message: str, **extra: Any) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "farcall.x", "msg": message, "levelno": 20, "levelname": "INFO", **extra})
    made.created = 1_700_000_000.25
    return made


def test_a_json_line_has_the_documented_members_and_one_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        line = JsonFormatter().format(record("Done", event="task.x", task_ids=["a", "b"], exc_info=sys.exc_info()))
    document = json.loads(line)
    assert "\n" not in line
    assert "ValueError: two" in document.pop("traceback")
    assert document == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "logger": "farcall.x",
        "message": "Done",
        "event": "task.x",
        "task_ids": ["a", "b"],
    }


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter(with_tracebacks=True)], ids=["json", "text"])
def test_what_looks_like_a_secret_is_masked(formatter: logging.Formatter) -> None:
    token = "fc_" + "aB-_9" * 8 + "xyz"
    text = f"Authorization: Bearer abc.def, postgresql://me:s3cret@db/x, amqps://ep.1:pa%2Fss@h/%2F and {token}"
    line = formatter.format(record(text, url="amqp://u:hush@h"))
    for secret in ("abc.def", "s3cret", "pa%2Fss", token, "hush"):
        assert secret not in line
    assert "postgresql://me:" in line
    assert "@db/x" in line


# --- Settings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["s.toml", "s.yaml"])
def test_the_command_line_counts_before_the_environment_before_the_file(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    equals = " = " if name.endswith("toml") else ": "
    file.write_text(
        "".join(f"{key}{equals}{value}\n" for key, value in (("port", 1), ("amqp_port", 2), ("sweep_batch", 3)))
    )
    effective = found(line={"port": 11}, env={"FARCALL_PORT": "12", "FARCALL_AMQP_PORT": "13"}, file=file)
    settings = effective.settings
    assert (settings.port, settings.amqp_port, settings.sweep_batch, settings.page_tasks) == (11, 13, 3, 500)
    assert [effective.origins[each] for each in ("port", "amqp_port", "sweep_batch", "page_tasks")] == [
        "command line",
        "environment FARCALL_AMQP_PORT",
        f"file {file}",
        "default",
    ]


def test_every_setting_can_be_made_in_the_environment() -> None:
    given = found()
    env = {f"FARCALL_{each.name.upper()}": str(getattr(given.settings, each.name)) for each in fields(ServiceSettings)}
    env = {name: {"None": "7", "()": "[]"}.get(value, value) for name, value in env.items()}
    special = {"FARCALL_AMQP_ADVERTISED_SCHEME": "amqps", "FARCALL_TRUSTED_PROXIES": "10.0.0.1, 10.0.0.2"}
    env |= special
    again = found(env=env)
    assert all(origin.startswith("environment") for origin in again.origins.values())
    for each in fields(ServiceSettings):
        before, after = getattr(given.settings, each.name), getattr(again.settings, each.name)
        if f"FARCALL_{each.name.upper()}" in special:
            continue
        assert before is None or (before == after and type(after) in (type(before), float, int)), each.name
    assert again.settings.amqp_advertised_scheme == "amqps"
    assert again.settings.trusted_proxies == ("10.0.0.1", "10.0.0.2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot = 1", ["'prot'", "Did you mean 'port'?"]),
        ("xyzzy = 1", ["'xyzzy'", "docs/reference/settings.md"]),
        ('port = "high"', ["'port'", "a whole number", "'high'"]),
        ("port = 70000", ["'port'", "at most 65535"]),
        ("port = true", ["'port'", "a whole number"]),
        ("sweep_batch = 0", ["'sweep_batch'", "above 0"]),
        ('log_format = "xml"', ["'text', 'json'"]),
        ("port = = 1", ["is not TOML"]),
        ('store = ["postgresql://me:hush@h/d"]', ["'store'", "must be text"]),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_name(tmp_path: Path, text: str, words: list[str]) -> None:
    file = tmp_path / "s.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        found(file=file)
    assert "hush" not in str(caught.value)
    for word in [*words, str(file)]:
        assert word in str(caught.value)


def test_a_misspelt_variable_is_refused_and_one_of_others_is_not() -> None:
    with pytest.raises(SettingsError, match=r"FARCALL_PAGE_TASK is no setting. Did you mean FARCALL_PAGE_TASKS\?"):
        found(env={"FARCALL_PAGE_TASK": "1"})
    found(env={"FARCALL_TOKEN": "x", "FARCALL_USER_DIR": "/x", "FARCALL_SERVICE_URL": "http://x", "FARCALL_ZEBRA": "1"})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml cannot be read: No such file"):
        found(file=tmp_path / "nowhere.toml")


def test_a_data_directory_in_a_file_is_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "s.yml").write_text("data_dir: mine\n")
    assert found(file=tmp_path / "s.yml").settings.data_dir == tmp_path / "mine"
    assert found().settings.data_dir == Path("/var/farcall")


def test_secrets_are_not_shown() -> None:
    assert shown("store", "postgresql://me:hush@h/d") == "postgresql://me:********@h/d"
    assert shown("broker_password", "hush") == "********"
    assert shown("token_cache_s", 60.0) == "60.0"


def test_every_setting_is_documented_and_nothing_else() -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    documented = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert sorted(documented) == sorted(each.name for each in fields(ServiceSettings))
