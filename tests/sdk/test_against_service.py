"""The SDK against real processes that are stopped, killed and moved while it waits."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from farcall import Client, Executor
from farcall.testing.processes import EndpointProcess, ProcessSystem, process_system

WAIT_S = 120
THREADS = "engine:\n  type: ThreadPoolEngine\n  max_workers: 2\n"

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessSystem]:
    with process_system(tmp_path_factory.mktemp("sdk")) as system:
        yield system


@pytest.fixture(scope="module")
def endpoint(system: ProcessSystem) -> EndpointProcess:
    return system.endpoint("here", THREADS)


def test_futures_outlive_a_kill_of_the_service(system: ProcessSystem, endpoint: EndpointProcess) -> None:
    with Executor(endpoint_id=endpoint.id) as executor:
        assert executor.submit(abs, -1).result(WAIT_S) == 1
        endpoint.stop()
        waiting = [executor.submit(pow, n, 2) for n in range(50)]
        accepted = executor.submit(abs, -2)
        assert executor._submitter is not None
        assert executor._submitter.flush(WAIT_S)
        assert accepted.task_id is not None
        system.service.kill()
        while_away = [executor.submit(pow, n, 3) for n in range(50)]
        system.service.start()
        endpoint.start()
        assert [future.result(WAIT_S) for future in waiting] == [n**2 for n in range(50)]
        assert [future.result(WAIT_S) for future in while_away] == [n**3 for n in range(50)]


def test_results_that_came_while_the_client_was_cut_off_are_found(
    system: ProcessSystem, endpoint: EndpointProcess, tmp_path: Path
) -> None:
    """The way to the broker is a relay of ours that is cut; REST goes on."""
    relay = _Relay(system.service.status["amqp_port"])
    with Executor(endpoint_id=endpoint.id, amqp_port=relay.port) as executor:
        assert executor.submit(abs, -1).result(WAIT_S) == 1
        relay.cut()
        futures = [executor.submit(pow, n, 2) for n in range(20)]
        relay.mend()
        assert [future.result(WAIT_S) for future in futures] == [n**2 for n in range(20)]
    relay.close()


def test_results_come_where_only_rest_gets_through(system: ProcessSystem, endpoint: EndpointProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with Executor(endpoint_id=endpoint.id, amqp_port=port) as executor:
        assert executor.submit(abs, -1).result(WAIT_S) == 1


def test_a_client_that_is_started_before_the_service_says_so_and_works_later(
    system: ProcessSystem, endpoint: EndpointProcess
) -> None:
    client = Client()
    system.service.stop()
    with pytest.raises(Exception, match="farcall-service status"):
        Client()
    system.service.start()
    with Executor(endpoint_id=endpoint.id, client=client) as executor:
        assert executor.submit(abs, -1).result(WAIT_S) == 1


class _Relay:
    """A loopback TCP relay that can be cut and mended."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._is_cut = False
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._is_cut = True
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            self._end(each)

    def mend(self) -> None:
        self._is_cut = False

    def close(self) -> None:
        self._end(self._server)
        self.cut()

    @staticmethod
    def _end(sock: socket.socket) -> None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        sock.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            if self._is_cut:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._target_port))
            self._sockets += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        self._end(source)
        self._end(sink)
