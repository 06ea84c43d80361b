"""A whole system over TLS with an authority of the site's own: by itself, and behind HAProxy on one port."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pika
import pytest

from certificates import Authority, tls_listener
from farcall import Client, Executor
from farcall.service.tls import ServerCertificate
from farcall.testing.functions import by_value
from farcall.testing.processes import CommandFailed, ProcessSystem, process_system
from farcall.wire.errors import CertificateRefused
from haproxy_server import HAProxy, haproxy

PROCESSES = "engine:\n  type: ProcessPoolEngine\n  max_workers: 2\n"
TIMEOUT_S = 120


@by_value
def square(number: int) -> int:
    return number * number


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture(autouse=True)
def no_authorities_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FARCALL_CA_FILE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def tls_system(tmp_path: Path, authority: Authority, **settings: str) -> Iterator[ProcessSystem]:
    """A service that speaks TLS itself, with a certificate for localhost."""
    cert, key = authority.server()
    env = {"FARCALL_TLS_CERT": str(cert), "FARCALL_TLS_KEY": str(key), **settings}
    with process_system(tmp_path / "system", env) as system:
        yield system


def trusted(system: ProcessSystem, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on everybody trusts the site's authority."""
    monkeypatch.setenv("FARCALL_CA_FILE", str(authority.ca_file))
    system.commands.env["FARCALL_CA_FILE"] = str(authority.ca_file)


def run_200(endpoint_id: str, **options: Any) -> None:
    with Executor(endpoint_id, **options) as executor:
        futures = [executor.submit(square, number) for number in range(200)]
        assert not wait(futures, timeout=TIMEOUT_S).not_done
        assert [future.result() for future in futures] == [number * number for number in range(200)]


def test_the_whole_way_over_tls(tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    with tls_system(tmp_path, authority) as system:
        assert system.service.url.startswith("https://localhost:")
        assert "endpoints_online" in json.loads(system.service.command("status", "--json").stdout)
        with pytest.raises(CertificateRefused, match="Example Site CA.*not among the certificate authorities of this"):
            Client()
        trusted(system, authority, monkeypatch)
        connection = Client().get_result_amqp_url()
        assert connection["connection_url"].startswith("amqps://")
        run_200(system.endpoint("here", PROCESSES).id)


def test_each_place_that_can_name_the_authority(tmp_path: Path, authority: Authority) -> None:
    with tls_system(tmp_path, authority) as system:
        endpoint = system.endpoint("here", f"ca_file: {authority.ca_file}\n{PROCESSES}", start=False)
        endpoint.start()
        assert "reported to the service" in endpoint.command("status", "here").stdout
        url, ca_file = system.service.url, str(authority.ca_file)
        with pytest.raises(CommandFailed, match=r"(?s)69.*No secure connection"):
            system.commands.run("farcall", "whoami")
        assert "Already logged in" in system.commands.run("farcall", "login", url, "--ca-file", ca_file).stdout
        assert "@localhost" in system.commands.run("farcall", "whoami").stdout
        run_200(endpoint.id)  # it is remembered for the SDK, too
        system.commands.run("farcall", "login", url, "--ca-file", "system", status=69)
        run_200(endpoint.id, client=Client(ca_file=ca_file))


def test_an_endpoint_says_what_is_wrong_and_waits(tmp_path: Path, authority: Authority) -> None:
    with tls_system(tmp_path, authority) as system:
        endpoint = system.endpoint("here", PROCESSES, start=False)
        done = endpoint.command("start", "here", "--detach", "--wait", "1", status=75)
        assert "was issued by 'Example Site CA'" in done.stdout + done.stderr
        (endpoint.directory / "config.yaml").write_text(f"ca_file: gone.pem\n{PROCESSES}")
        done = endpoint.command("start", "here", status=78)
        assert f"{endpoint.directory}/gone.pem (named by ca_file) cannot be used: no such file" in done.stderr


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("other host", "is for elsewhere.example.org, not for localhost"),
        ("expired", "expired on"),
        ("other authority", "was issued by 'Somebody Else', an authority that is not among"),
        ("no TLS", "does not speak TLS"),
    ],
)
def test_a_broker_that_cannot_be_trusted_is_explained(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch, kind: str, says: str
) -> None:
    files = {
        "other host": authority.server("elsewhere.example.org"),
        "expired": authority.expired("localhost"),
        "other authority": Authority(tmp_path / "other", "Somebody Else").server("localhost"),
        "no TLS": None,
    }[kind]
    with tls_listener(files) as port:
        settings = {"FARCALL_AMQP_ADVERTISED_SCHEME": "amqps", "FARCALL_AMQP_ADVERTISED_PORT": str(port)}
        with process_system(tmp_path / "system", settings) as system:
            trusted(system, authority, monkeypatch)
            endpoint = system.endpoint("here", PROCESSES, start=False)
            done = endpoint.command("start", "here", "--detach", "--wait", "1", status=75)
            assert f"No connection to the message broker of {system.service.url} yet" in done.stderr
            assert says in done.stderr
            assert says in endpoint.log.read_text()


def shown_to(port: int, authority: Authority) -> str:
    """Serial number of the certificate that is shown now."""
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    with socket.create_connection(("localhost", port)) as sock:
        with context.wrap_socket(sock, server_hostname="localhost") as secure:
            return str((secure.getpeercert() or {})["serialNumber"])


def test_a_renewed_certificate_counts_without_restart(tmp_path: Path, authority: Authority) -> None:
    with tls_system(tmp_path, authority) as system:
        ports = [int(system.service.status[name]) for name in ("port", "amqp_port")]
        before = {shown_to(port, authority) for port in ports}
        assert len(before) == 1
        cert, key = authority.server()
        after = {shown_to(port, authority) for port in ports}
        assert len(after) == 1
        assert after != before
        key.write_text("half a key")  # a renewal that went wrong
        assert {shown_to(port, authority) for port in ports} == after
        assert "the one of before stays in force" in system.service.log.read_text()
        cert, key = authority.server()
        os.kill(system.service.pid, signal.SIGHUP)
        assert {shown_to(port, authority) for port in ports} not in (before, after)


def test_a_certificate_that_makes_no_sense_is_refused_at_the_start(tmp_path: Path, authority: Authority) -> None:
    system = ProcessSystem(tmp_path / "system")
    cert, _ = authority.server(file="one")
    _, other_key = authority.server(file="other")

    def said(*args: str) -> str:
        return system.service.command("start", "--detach", "--port", "0", "--amqp-port", "0", *args, status=78).stderr

    assert "the key belongs to another certificate" in said("--tls-cert", str(cert), "--tls-key", str(other_key))
    assert "no such file" in said("--tls-cert", str(tmp_path / "gone.pem"))
    assert "cross the network in clear text" in said("--host", "0.0.0.0")


@pytest.fixture
def one_port(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[ProcessSystem, HAProxy]]:
    """A service behind HAProxy; clients know only the proxy."""
    with haproxy(tmp_path / "haproxy", authority.both("localhost")) as proxy:
        settings = {
            "FARCALL_PUBLIC_HOST": "localhost",
            "FARCALL_AMQP_ADVERTISED_PORT": str(proxy.port),
            "FARCALL_AMQP_ADVERTISED_SCHEME": "amqps",
            "FARCALL_TRUSTED_PROXIES": "127.0.0.1",
        }
        with process_system(tmp_path / "system", settings) as system:
            proxy.start([system.service.status["port"]], [system.service.status["amqp_port"]])
            url = f"https://localhost:{proxy.port}"
            token = json.loads((system.root / "user" / "tokens.json").read_text())["services"][system.service.url]
            for name, value in {"FARCALL_SERVICE_URL": url, "FARCALL_TOKEN": token["access_token"]}.items():
                system.commands.env[name] = value
                monkeypatch.setenv(name, value)
            trusted(system, authority, monkeypatch)
            yield system, proxy


def test_https_and_amqps_on_one_port(one_port: tuple[ProcessSystem, HAProxy]) -> None:
    system, proxy = one_port
    endpoint = system.endpoint("here", PROCESSES)
    url = Client().get_result_amqp_url()["connection_url"]
    assert (urlsplit(url).scheme, urlsplit(url).port) == ("amqps", proxy.port)
    run_200(endpoint.id)
    for port in (system.service.status["port"], system.service.status["amqp_port"]):
        assert f":{port}" not in endpoint.log.read_text()


def test_the_proxy_may_go_and_come_back(one_port: tuple[ProcessSystem, HAProxy]) -> None:
    system, proxy = one_port
    endpoint = system.endpoint("here", PROCESSES)
    with Executor(endpoint.id) as executor:
        assert executor.submit(square, 3).result(TIMEOUT_S) == 9
        proxy.stop()
        futures = [executor.submit(square, number) for number in range(20)]
        proxy.start([system.service.status["port"]], [system.service.status["amqp_port"]])
        assert [future.result(TIMEOUT_S) for future in futures] == [number * number for number in range(20)]


def test_pika_itself_speaks_to_the_one_port(one_port: tuple[ProcessSystem, HAProxy], authority: Authority) -> None:
    _, proxy = one_port
    parameters = pika.URLParameters(Client().get_result_amqp_url()["connection_url"])
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    parameters.ssl_options = pika.SSLOptions(context, "localhost")
    connection = pika.BlockingConnection(parameters)
    assert connection.is_open
    assert parameters.port == proxy.port
    connection.close()


def test_the_port_of_the_broker_can_be_replaced_by_the_one_port(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`amqp_port: 443` in config.yaml and `Executor(amqp_port=443)`, where the service names another port."""
    with haproxy(tmp_path / "haproxy", authority.both("localhost")) as proxy:
        settings = {"FARCALL_PUBLIC_HOST": "localhost", "FARCALL_AMQP_ADVERTISED_SCHEME": "amqps"}
        with process_system(tmp_path / "system", settings) as system:
            proxy.start([system.service.status["port"]], [system.service.status["amqp_port"]])
            trusted(system, authority, monkeypatch)
            endpoint = system.endpoint("here", f"amqp_port: {proxy.port}\n{PROCESSES}")
            with Executor(endpoint.id, amqp_port=proxy.port) as executor:
                assert executor.submit(square, 12).result(TIMEOUT_S) == 144


def test_the_service_learns_the_clients_address_from_the_proxy_alone(one_port: tuple[ProcessSystem, HAProxy]) -> None:
    """What a client says of itself does not get past the proxy."""
    lie = {
        "X-Forwarded-For": "203.0.113.9",
        "Forwarded": "for=203.0.113.9",
        "Authorization": f"Bearer {os.environ['FARCALL_TOKEN']}",
    }
    context = ssl.create_default_context(cafile=os.environ["FARCALL_CA_FILE"])
    registration = {"endpoint_name": "there", "direct": True, "metadata": {}}
    transport = httpx.HTTPTransport(verify=context, local_address="127.0.0.5")
    with httpx.Client(base_url=os.environ["FARCALL_SERVICE_URL"], transport=transport, headers=lie) as client:
        assert client.get("/metrics", headers={"Authorization": ""}).status_code == 401  # not local, behind a proxy
        endpoint_id = client.post("/v3/endpoints", json=registration).json()["endpoint_id"]
        document = client.get(f"/v2/endpoints/{endpoint_id}").json()
    assert document["ip_address"] == "127.0.0.5"


def test_documented_commands_make_a_test_authority(tmp_path: Path) -> None:
    """docs/howto/use-tls.md, "Try it at home"."""
    page = (Path(__file__).parents[2] / "docs" / "howto" / "use-tls.md").read_text()
    script = page.partition("```sh\n")[2].partition("```")[0]
    assert "openssl" in script
    done = subprocess.run(["sh", "-eu", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    certificate = ServerCertificate(tmp_path / "server.pem", tmp_path / "server.key").certificate
    assert "localhost" in certificate.names
    assert certificate.issuer == "Test CA"
