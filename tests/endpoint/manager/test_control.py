"""The manager's socket on this machine."""

from __future__ import annotations

import selectors
import socket
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from farcall.endpoint.manager.control import SOCKET_NAME, ControlServer, ManagerNotHere, Reply, ask


@contextmanager
def answering(directory: Path) -> Iterator[list[Mapping[str, Any]]]:
    """A manager that answers with the question itself; `later`: only when something else is asked."""
    asked: list[Mapping[str, Any]] = []
    waiting: list[Reply] = []
    selector = selectors.DefaultSelector()
    woken, waker = socket.socketpair()
    is_over = False

    def on_question(question: Mapping[str, Any], reply: Reply) -> None:
        asked.append(question)
        if question.get("ask") == "later":
            waiting.append(reply)
            return
        for each in (*waiting, reply):
            each({"you asked": question, "padding": "x" * 1_000_000})

    def end(mask: int) -> None:
        nonlocal is_over
        is_over = True

    server = ControlServer(directory, selector, on_question)
    selector.register(woken, selectors.EVENT_READ, end)

    def loop() -> None:
        while not is_over:
            for key, mask in selector.select():
                key.data(mask)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield asked
    finally:
        waker.send(b"\0")
        thread.join()
        server.close()
        selector.close()
        woken.close()
        waker.close()


def test_a_question_is_answered_however_long_path_and_answer_are(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    with answering(directory):
        found = ask(directory, {"ask": "status"}, timeout_s=10)
        assert found["you asked"] == {"ask": "status"}
        assert stat.S_IMODE((directory / SOCKET_NAME).stat().st_mode) == 0o600
    assert not (directory / SOCKET_NAME).exists()


def test_an_answer_may_come_later(tmp_path: Path) -> None:
    with answering(tmp_path):
        found: list[dict[str, Any]] = []
        one = threading.Thread(target=lambda: found.append(ask(tmp_path, {"ask": "later"}, timeout_s=10)))
        one.start()
        while not found:
            ask(tmp_path, {"ask": "now"}, timeout_s=10)
            one.join(0.01)
        one.join()
        assert found[0]["you asked"] == {"ask": "now"}


def test_nonsense_does_not_end_it(tmp_path: Path) -> None:
    with answering(tmp_path) as asked:
        for text in (b"nonsense\n", b"[]\n", b"x" * 100_000):
            with socket.socket(socket.AF_UNIX) as line:
                line.connect(str(tmp_path / SOCKET_NAME))
                line.sendall(text)
        ask(tmp_path, {"ask": "status"}, timeout_s=10)
    assert asked[-1] == {"ask": "status"}


def test_a_manager_that_is_not_there_is_said_not_to_be(tmp_path: Path) -> None:
    with pytest.raises(ManagerNotHere, match="cannot be asked"):
        ask(tmp_path, {"ask": "status"}, timeout_s=10)
    with answering(tmp_path):
        pass
    (tmp_path / SOCKET_NAME).touch()  # as a killed one leaves it
    with pytest.raises(ManagerNotHere):
        ask(tmp_path, {"ask": "status"}, timeout_s=10)
    with answering(tmp_path):
        ask(tmp_path, {"ask": "status"}, timeout_s=10)
