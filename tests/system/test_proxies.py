"""Behind a real HAProxy: who a client is, over the PROXY protocol and by headers, plain and with TLS."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import subprocess
import time
import zlib
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import urljoin

import pytest

from agent.harness import free_port
from support.haproxy import haproxy
from support.operators import Operator
from support.processes import BIN, TOKEN, output, serving
from support.waits import soon
from support.wire import RawClient
from thingctl_broker.http.auth import FAILURES
from thingctl_broker.mqtt.protocol.packets import ConnackCode
from thingctl_broker.security.login_throttle import OF_NAME

pytestmark = pytest.mark.system

TCP = """
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen mqtt
  bind 127.0.0.1:{mqtt_port} accept-proxy
  server broker {mqtt} {send} check inter 50ms
listen http
  bind 127.0.0.1:{http_port} accept-proxy
  server broker {http} {send} check inter 50ms
"""
WRONG = b"wrong-password"


def header(client):
    """What a balancer before the proxy says of a client."""
    return f"PROXY TCP4 {client} 127.0.0.1 40000 1883\r\n".encode()


def opened(port, client, tls=None):
    """A connection to a port of the proxy, as if ``client`` had made it."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    sock.sendall(header(client))
    return sock if tls is None else tls.wrap_socket(sock, server_hostname="localhost")


def call(sock, method, path, body=None, **headers):
    """One request on a connection of its own; what came back, with where ``Location`` leads."""
    connection = HTTPConnection("localhost")
    connection.sock = sock
    encoded = None if body is None else json.dumps(body)
    asked = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    connection.request(method, path, encoded, asked | headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content, urljoin(path, response.getheader("Location") or "")


async def knock(port, client, password, tls=None):
    """Sign in over MQTT as the thing ``lamp``; return the CONNACK's code."""
    sock = await asyncio.to_thread(opened, port, client)
    streams = await asyncio.open_connection(
        sock=sock, ssl=tls, server_hostname=None if tls is None else "localhost"
    )
    answer = await RawClient(*streams).connect("lamp", username="lamp", password=password)
    return answer.packet[3]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An authority, and what it has signed for the broker."""
    files = tmp_path_factory.mktemp("tls")
    command = [BIN / "thingctl", "tls", "init", "--dir", files, "--name", "localhost"]
    subprocess.run(command, check=True, capture_output=True)
    return files


@pytest.mark.parametrize("send", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"])
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
async def test_the_proxy_protocol_tells_who_a_client_is(tmp_path, files, send, secured):
    options = ["--tls-dir", str(files)] if secured else []
    tls = ssl.create_default_context(cafile=files / "ca.crt") if secured else None
    settings = tmp_path / "broker.toml"
    named = 'proxy_protocol_from = ["127.0.0.0/8"]'
    settings.write_text(f"[mqtt]\n{named}\n[http]\n{named}\n")
    data = tmp_path / "data"
    with serving(data, "--config", str(settings), *options, enrolment="--closed") as serve:
        ports = {"mqtt_port": free_port(), "http_port": free_port()}
        mqtt, http = ("{}:{}".format(*address) for address in (serve.mqtt_address, serve.http_address))
        text = TCP.format(mqtt=mqtt, http=http, send=send, **ports)
        with haproxy(tmp_path, text, *ports.values()):

            def asked(client, method, path, body=None):
                return call(opened(ports["http_port"], client, tls), method, path, body)

            status, content, _ = asked("192.0.2.9", "POST", "/api/v1/things", {"name": "lamp"})
            assert status == 201, content
            password = json.loads(content)["credentials"]["password"].encode()
            codes = [
                await knock(ports["mqtt_port"], "192.0.2.7", WRONG, tls) for _ in range(OF_NAME.burst + 2)
            ]
            assert ConnackCode.ACCEPTED not in codes
            assert await knock(ports["mqtt_port"], "192.0.2.8", password, tls) == ConnackCode.ACCEPTED
            with socket.create_connection(serve.mqtt_address, timeout=10) as sock:
                sock.sendall(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00")
                assert ended(sock)
            metrics = asked("192.0.2.9", "GET", "/metrics")[1].decode()
        await RawClient.close_all()
        said = output(serve.process)
    assert counted(metrics, "front", "tooManyFailures") >= 1
    assert {
        reason: counted(metrics, "proxies", reason) for reason in ("late", "malformed", "missing", "tooMany")
    } == {
        "late": 0,
        "malformed": 0,
        "missing": 1,  # ours, and none of the proxy's checks
        "tooMany": 0,
    }
    (line,) = (line for line in said.splitlines() if "PROXY header" in line)
    assert '"proxy": "127.0.0.1"' in line
    assert '"reason": "missing"' in line
    assert "192.0.2.7" in said
    assert "Traceback" not in said
    assert '"192.0.2.9"' in (data / "audit.log").read_text()


def ended(sock):
    """Whether the other side has ended a connection without a word."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def counted(metrics, family, kind):
    return float(re.search(rf'^thingctl_{family}_total\{{kind="{kind}"\}} (\S+)$', metrics, re.MULTILINE)[1])


HTTP = """
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend operators
  bind 127.0.0.1:{port} accept-proxy
  http-request set-path %[path,regsub(^/thingctl/,/)] if {{ path_beg /thingctl/ }}
  http-request set-header x-forwarded-proto https
  http-request set-header x-forwarded-host fleet.example
  http-request set-header x-forwarded-prefix /thingctl
  option forwardfor
  default_backend broker
backend broker
  server broker {http}
"""


@pytest.mark.parametrize("trusted", [True, False])
def test_the_headers_of_a_named_proxy_tell_who_a_client_is_and_where_the_api_is(tmp_path, trusted):
    settings = tmp_path / "broker.toml"
    settings.write_text('[http]\ntrusted_proxies = ["127.0.0.1"]\n' if trusted else "")
    with serving(tmp_path / "data", "--config", str(settings)) as serve:
        port = free_port()
        http = "{}:{}".format(*serve.http_address)
        with haproxy(tmp_path, HTTP.format(http=http, port=port), port):

            def asked(method, path, body=None, client="192.0.2.7", **headers):
                return call(opened(port, client), method, path, body, **headers)

            for name in ("a", "b"):
                status, _, link = asked("POST", "/thingctl/api/v1/things", {"name": name})
                assert (status, link) == (201, f"/thingctl/api/v1/things/{name}")
                assert asked("GET", link)[0] == 200
            page = json.loads(asked("GET", "/thingctl/beta/me/devices/?$top=1")[1])
            behind = "/beta/me/devices?$top=1&$skiptoken=a"
            if trusted:
                assert page["@odata.nextLink"] == f"https://fleet.example/thingctl{behind}"
            assert json.loads(asked("GET", f"/thingctl{behind}")[1])["value"][0]["id"] == "b"
            forged = {"X-Forwarded-For": "198.51.100.1", "Authorization": "Bearer no"}
            with closing(HTTPConnection("localhost")) as guesser:
                guesser.sock = opened(port, "192.0.2.7")
                assert (429 in guesses(guesser, forged)) is trusted
            assert asked("GET", "/thingctl/api/v1/me", client="192.0.2.8", **forged)[0] == 401
            soon(lambda: f'"{"192.0.2.7" if trusted else "127.0.0.1"}"' in audit(tmp_path))
        assert "Traceback" not in output(serve.process)
    assert "198.51.100.1" not in audit(tmp_path)


def guesses(connection, headers):
    """What so many wrong tokens on one connection are answered with."""
    for _ in range(2 * FAILURES.burst):
        connection.request("GET", "/thingctl/api/v1/me", headers=headers)
        response = connection.getresponse()
        response.read()
        yield response.status


def audit(folder):
    return (folder / "data" / "audit.log").read_text()


EVENTS_THROUGH = """
defaults
  mode http
  timeout connect 5s
  timeout client 90s
  timeout server 90s
listen http
  bind 127.0.0.1:{port}
  {compression}
  server broker {http}
"""


@pytest.mark.parametrize("compression", ["", "compression algo gzip\n  compression type text/event-stream"])
def test_events_pass_as_they_happen(tmp_path, compression):
    with serving(tmp_path / "data", enrolment="--closed") as serve:
        port = free_port()
        http = "{}:{}".format(*serve.http_address)
        text = EVENTS_THROUGH.format(port=port, http=http, compression=compression)
        with haproxy(tmp_path, text, port), closing(Operator(serve.http_address)) as operator:
            assert operator.call("POST", "/api/v1/things", {"name": "lamp"}).status == 201
            with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
                headers = {"Authorization": f"Bearer {TOKEN}", "Accept-Encoding": "gzip"}
                connection.request("GET", "/api/v1/events", headers=headers)
                response = connection.getresponse()
                coded = response.getheader("Content-Encoding") == "gzip"
                assert coded == bool(compression)
                unpack = zlib.decompressobj(31).decompress if coded else bytes
                heard = b""
                while b"event: ready" not in heard:
                    heard += unpack(response.read1())
                for number in range(5):
                    began = time.monotonic()
                    execution_id = operator.send("lamp", "turnOn", {"number": number})
                    while execution_id.encode() not in heard:
                        heard += unpack(response.read1())
                    assert time.monotonic() - began < 3
