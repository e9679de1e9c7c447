"""Why no broker answered, found out at real ports."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import closing, contextmanager

import pytest

from broker.http.running import TOKEN, RunningApi, Tls
from thingctl_broker.cli.client import ApiClient
from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.security.certificate_authority import Authority, utc_now
from thingctl_broker.security.tls import ServerTls


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority.make(utc_now())
    cert, key = authority.server(["127.0.0.1"], utc_now())
    (folder / "server.crt").write_bytes(cert)
    (folder / "server.key").write_bytes(key)
    (folder / "ca.crt").write_bytes(authority.pair().cert)
    return folder


@pytest.fixture
def secure(files):
    trust = ssl.create_default_context(cafile=files / "ca.crt")
    running = RunningApi(
        tls=Tls(ServerTls(str(files / "server.crt"), str(files / "server.key")).context, trust)
    )
    yield running
    running.close()


@contextmanager
def closing_port():
    """A port that ends each connection without an answer, as an MQTT broker does that is sent HTTP."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve():
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock:
                    sock.recv(65536)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def reason(url, ca=""):
    with ApiClient(url, TOKEN, str(ca)) as client, pytest.raises(Failure) as raised:
        client.execution("e")
    assert raised.value.code is Exit.UNREACHABLE
    return raised.value.text


def test_http_at_a_port_that_speaks_tls(secure):
    url = secure.url.replace("https", "http")
    assert reason(url) == f"the port of {url} speaks TLS: use https:// instead of http://"


def test_https_at_a_port_that_speaks_none(api):
    url = api.url.replace("http", "https")
    found = reason(url)
    assert found == f"the port of {url} does not speak TLS: use http:// instead of https://"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_port_that_answers_nothing_may_be_the_mqtt_port(scheme):
    with closing_port() as port:
        found = reason(f"{scheme}://127.0.0.1:{port}")
    assert "MQTT port" in found
    assert "8080 by default" in found


def test_a_private_ca_that_is_not_trusted_names_the_variable(secure, files):
    assert "set THINGCTL_CA to the file" in reason(secure.url)
    with ApiClient(secure.url, TOKEN, str(files / "ca.crt")) as client:
        assert list(client.items("/things", "things"))


def test_a_certificate_for_another_name(secure, files):
    found = reason(secure.url.replace("127.0.0.1", "localhost"), files / "ca.crt")
    assert "is for another name" in found
    assert "thingctl tls server --name HOST" in found


def test_a_host_that_cannot_be_found_is_named():
    assert "cannot find the host 'nosuch.invalid'" in reason("http://nosuch.invalid:8080")


def test_a_proxy_variable_that_is_not_used_is_named(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    assert reason("http://127.0.0.1:1").endswith("(http_proxy is set, but thingctl uses no proxy)")
