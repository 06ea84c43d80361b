"""How `farcall-endpoint status` shows the user endpoints of a manager: terminals need not break its lines."""

from __future__ import annotations

import time
from typing import Any

import click
import pytest

from farcall.cli.manager import print_user_endpoints, whole_id

NOON = 1_700_000_000.0
IDS = ("5446f200-b652-4f43-a918-02882fa6114a", "9d1b2c3d-0000-4f43-a918-02882fa6114a")


def row(id_: str, **more: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "name": f"uep.x.{id_}",
        "identity": "augusta.ada.king@university.example",
        "local_user": "adaking",
        "pid": 4_194_303,
        "state": "stopping",
        "since_unix": NOON,
        "running": 12,
        "queued": 345,
        "executed": 6789,
        "idle_until_unix": time.time() + 3600,
        "account": "physics-2026",
        "queue": "long",
        "nodes": 4,
        "workers": 64,
        "busy_workers": 12,
        "endpoint_version": "0.1.0",
        "python_version": "3.11.7",
        **more,
    }


def shown(rows: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> list[str]:
    print_user_endpoints(rows)
    return [line for line in click.unstyle(capsys.readouterr().out).splitlines() if "│" in line or "┃" in line]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    return monkeypatch


@pytest.mark.parametrize("columns", [100, 120, 160])
def test_each_user_endpoint_is_one_line_of_the_terminal(
    terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    terminal.setenv("COLUMNS", str(columns))
    head, *lines = shown([row(each) for each in IDS], capsys)
    assert [len(line) <= columns for line in (head, *lines)] == [True] * 3
    for id_, line in zip(IDS, lines, strict=True):
        for part in (id_[:8], "4194303", "adaking", "stopping", "12/64 busy", "6789/12/345", "2023-11-1"):
            assert part in line
    assert ("augusta.ada.king@university.example" in lines[0]) == (columns > 140)


def test_with_room_for_it_and_in_pipes_everything_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, pipe = shown([row(IDS[0])], capsys)
    for name, value in (("FORCE_COLOR", "1"), ("NO_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "300")):
        monkeypatch.setenv(name, value)
    _, wide = shown([row(IDS[0])], capsys)
    for line in (pipe, wide):
        for part in (IDS[0], "augusta.ada.king@university.example", "physics-2026", "long", "Python 3.11.7"):
            assert part in line


def test_ids_that_begin_alike_are_shown_as_far_as_they_differ(
    terminal: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.setenv("COLUMNS", "110")
    alike = [IDS[0], IDS[0][:8] + "-ffff" + IDS[0][13:]]
    _, *lines = shown([row(each) for each in alike], capsys)
    assert [line.split("│")[1].strip() for line in lines] == [each[:13] for each in alike]


@pytest.mark.parametrize(
    ("which", "meant"),
    [(IDS[0], IDS[0]), ("5446F200", IDS[0]), (f"uep.x.{IDS[1]}", IDS[1]), ("5446", "5446"), ("ffffffff", "ffffffff")],
)
def test_a_user_endpoint_may_be_named_by_the_id_that_tables_show(which: str, meant: str) -> None:
    assert whole_id(which, [row(each) for each in IDS]) == meant


def test_an_id_that_fits_two_is_nobodys() -> None:
    alike = [row(IDS[0]), row(IDS[0][:8] + "-ffff" + IDS[0][13:])]
    assert whole_id(IDS[0][:8], alike) == IDS[0][:8]
