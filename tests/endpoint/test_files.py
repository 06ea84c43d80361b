"""The endpoint's directory, its lock, and its log."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from farcall.endpoint import logfile
from farcall.endpoint.directory import EndpointDirectory, Registration, RegistrationUnreadable, find_endpoints
from farcall.endpoint.pidfile import AlreadyRunning, PidFile, running_process
from farcall.endpoint.profile import create_profile

ONE = "11111111-2222-4333-8444-555555555555"
TWO = "22222222-2222-4333-8444-555555555555"


# endpoint.json ----------------------------------------------------------------------------------------------------


def test_a_registration_is_remembered_per_service(tmp_path: Path) -> None:
    directory = EndpointDirectory(tmp_path)
    assert directory.registration() is None
    first = Registration(endpoint_id=ONE).registered(ONE, "http://localhost:5000")
    second = first.registered(TWO, "https://farcall.example.org")
    directory.remember(second)
    found = directory.registration()
    assert found == second
    assert found is not None
    assert found.id_with("http://127.0.0.1:5000/") == ONE
    assert found.id_with("https://farcall.example.org/") == TWO
    assert found.id_with("https://elsewhere.example") is None
    assert second.registered(ONE, "http://localhost:5000").others == {"https://farcall.example.org": TWO}


def test_a_file_from_another_system_is_taken_for_any_service(tmp_path: Path) -> None:
    directory = EndpointDirectory(tmp_path)
    directory.registration_path.write_text(json.dumps({"endpoint_id": ONE.upper()}))
    found = directory.registration()
    assert found is not None
    assert found.id_with("http://localhost:5000") == ONE


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"endpoint_id": 7}', '{"endpoint_id": "x"}'])
def test_a_senseless_file_is_said_to_be_so(tmp_path: Path, text: str) -> None:
    directory = EndpointDirectory(tmp_path)
    directory.registration_path.write_text(text)
    with pytest.raises(RegistrationUnreadable, match=r"endpoint\.json"):
        directory.registration()


def test_only_configured_directories_are_endpoints(tmp_path: Path) -> None:
    assert find_endpoints(tmp_path / "missing") == []
    for name in ("b", "a"):
        create_profile(EndpointDirectory(tmp_path / name))
    (tmp_path / "empty").mkdir()
    (tmp_path / "tokens.json").write_text("{}")
    assert [each.name for each in find_endpoints(tmp_path)] == ["a", "b"]


# daemon.pid -------------------------------------------------------------------------------------------------------


@pytest.fixture
def pid_path(tmp_path: Path) -> Path:
    return tmp_path / "daemon.pid"


def test_the_lock_is_seen_with_its_state_and_leaves_no_file(pid_path: Path) -> None:
    assert running_process(pid_path) is None
    with PidFile(pid_path) as lock:
        found = running_process(pid_path)
        assert found is not None
        assert (found.pid, found.host, found.is_connected) == (os.getpid(), socket.gethostname(), False)
        assert found.is_here
        lock.write(is_connected=True)
        found = running_process(pid_path)
        assert found is not None
        assert found.is_connected
        assert pid_path.read_text().split()[0] == str(os.getpid())
    assert not pid_path.exists()
    lock.write(is_connected=True)
    assert not pid_path.exists()


def test_a_second_lock_is_refused_naming_the_holder(pid_path: Path) -> None:
    with PidFile(pid_path), pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"):
        PidFile(pid_path).acquire()


def test_a_file_that_a_killed_process_left_does_not_block(pid_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from farcall.endpoint.pidfile import PidFile\n"
        "PidFile(Path(sys.argv[1])).acquire(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(pid_path)])
    assert done.returncode == -9
    assert pid_path.exists()
    assert running_process(pid_path) is None
    with PidFile(pid_path):
        found = running_process(pid_path)
        assert found is not None
        assert found.pid == os.getpid()


def test_a_file_with_a_longer_text_is_overwritten_whole(pid_path: Path) -> None:
    pid_path.write_text("9" * 200 + "\nsome.host\nconnected\nand more\n")
    with PidFile(pid_path):
        assert pid_path.read_text() == f"{os.getpid()}\n{socket.gethostname()}\ndisconnected\n"


# endpoint.log -----------------------------------------------------------------------------------------------------


@pytest.fixture
def log_path(tmp_path: Path) -> Iterator[Path]:
    root, ours = logging.getLogger(), logging.getLogger("farcall")
    before = (list(root.handlers), root.level, ours.level)
    yield tmp_path / "endpoint.log"
    for handler in set(root.handlers) - set(before[0]):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(before[1])
    ours.setLevel(before[2])
    logging.captureWarnings(False)


def test_a_line_has_the_sentence_and_its_members_and_a_traceback_follows(log_path: Path) -> None:
    logfile.configure_logging(log_path)
    logger = logging.getLogger("farcall.test")
    logger.info("A sentence.", extra={"event": "x.y", "task_id": "7", "reason": 'two "words"', "count": 0})
    logger.debug("Not this one.")
    logging.getLogger("parsl").info("Nor this one.")
    try:
        raise ValueError("bad")
    except ValueError:
        logger.exception("It failed.")
    lines = log_path.read_text().splitlines()
    assert lines[0].endswith(r'Z INFO farcall.test: A sentence. event=x.y task_id=7 reason="two \"words\"" count=0')
    assert lines[1].endswith("ERROR farcall.test: It failed.")
    assert lines[2].startswith("Traceback")
    assert lines[-1] == "ValueError: bad"


def test_what_strangers_say_cannot_begin_a_line_nor_command_a_terminal(log_path: Path) -> None:
    logfile.configure_logging(log_path)
    logging.getLogger("farcall.test").info(
        "Said.", extra={"text": "Grüße", "reason": "a\r\x1b[2J2026-01-01T00:00:00.000Z"}
    )
    (line,) = log_path.read_text().splitlines()
    assert line.endswith(r'text=Grüße reason="a\r\u001b[2J2026-01-01T00:00:00.000Z"')


def test_the_log_is_moved_aside_when_it_is_full_and_one_old_one_is_kept(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfile, "LIMIT_BYTES", 1000)
    logfile.configure_logging(log_path)
    for number in range(100):
        logging.getLogger("farcall.test").info("Number %d.", number)
    assert sorted(path.name for path in log_path.parent.iterdir()) == ["endpoint.log", "endpoint.log.1"]
    assert "Number 99." in log_path.read_text()


def test_a_directory_that_others_could_read_is_made_private(tmp_path: Path) -> None:
    directory = EndpointDirectory(tmp_path / "shown")
    directory.path.mkdir(mode=0o755)
    directory.make_private()
    assert directory.path.stat().st_mode & 0o777 == 0o700
