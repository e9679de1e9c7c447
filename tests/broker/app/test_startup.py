"""What a broker opens before it begins."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from support.waits import eventually
from thingctl_broker.app import startup
from thingctl_broker.app.config import AuditSettings, HttpSettings, MqttSettings, Settings
from thingctl_broker.app.startup import (
    data_dir_of,
    open_audit,
    open_http_tls,
    open_records,
    open_socket,
    report_proxies,
    report_refusals,
)
from thingctl_broker.commands.events import Counters
from thingctl_broker.errors import ConfigurationError
from thingctl_broker.security.certificate_authority import Authority, utc_now
from thingctl_broker.security.tls import ServerTls
from thingctl_broker.system.listeners import DoorReason
from thingctl_broker.system.paths import default_data_dir


def test_the_files_are_where_the_settings_say_or_where_they_usually_are(tmp_path):
    assert data_dir_of(Settings(data_dir=str(tmp_path))) == tmp_path
    assert data_dir_of(Settings()) == Path(default_data_dir())


def test_a_port_is_listened_on_at_once():
    with open_socket("http", "127.0.0.1:0") as sock:
        host, port = sock.getsockname()
        socket.create_connection((host, port), timeout=5).close()
        with pytest.raises(ConfigurationError, match=rf"^http: cannot listen on 127\.0\.0\.1:{port}: "):
            open_socket("http", f"127.0.0.1:{port}")


def test_a_socket_that_cannot_listen_is_closed(monkeypatch):
    """Between the binding and the listening another process may have taken the port."""
    made = []

    class Taken(socket.socket):
        def listen(self, *_):
            raise OSError(98, "Address already in use")

    def bind(_):
        made.append(Taken())
        return made[0]

    monkeypatch.setattr(startup, "bind_tcp", bind)
    with pytest.raises(ConfigurationError, match="Address already in use"):
        open_socket("mqtt", "127.0.0.1:0")
    assert made[0].fileno() == -1


def test_a_listener_without_a_certificate_has_none_and_with_a_wrong_one_it_is_said(tmp_path):
    assert open_http_tls(HttpSettings()) is None
    missing = tmp_path / "missing.pem"
    with pytest.raises(ConfigurationError, match=r"missing\.pem"):
        open_http_tls(HttpSettings(tls_cert=str(missing)))


def test_the_audit_file_is_opened_unless_none_is_wanted(tmp_path):
    settings = Settings()
    assert open_audit(msgspec.structs.replace(settings, audit=AuditSettings(enabled=False)), tmp_path) is None
    audit = open_audit(settings, tmp_path)
    assert audit is not None
    audit.stop()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="file"):
        open_audit(settings, tmp_path / "file")


def distrust(host, port):
    """Connect as a client that lacks the broker's CA."""
    with (
        socket.create_connection((host, port), timeout=5) as sock,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        ssl.create_default_context().wrap_socket(sock, server_hostname="localhost")


class _Silent(asyncio.Protocol):
    """Takes whatever comes."""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_refused_handshake_is_counted_and_logged_with_its_reason(tmp_path, loop):
    if loop == "uvloop":
        runner = asyncio.Runner(loop_factory=pytest.importorskip("uvloop").new_event_loop)
    else:
        runner = asyncio.Runner()
    pair = Authority.make(utc_now()).server(["localhost"], utc_now())
    (tmp_path / "s.pem").write_bytes(pair.cert + pair.key)
    tls, counters = ServerTls(str(tmp_path / "s.pem"), ""), Counters()
    report_refusals(tls, "mqtt", counters)

    async def refuse():
        server = await asyncio.get_running_loop().create_server(_Silent, "127.0.0.1", 0, ssl=tls.context)
        async with server:
            host, port = server.sockets[0].getsockname()
            await asyncio.to_thread(distrust, host, port)
            for _ in range(2):
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                await reader.read()
                writer.close()
                await writer.wait_closed()
            await eventually(lambda: counters.total() == 3)

    with runner, capture_logs() as logs:
        runner.run(refuse())
    assert counters == {"tls.TLSV1_ALERT_UNKNOWN_CA": 1, "tls.HTTP_REQUEST": 2}
    told = [
        (entry["listener"], entry["reason"]) for entry in logs if entry["event"] == "TLS handshake refused"
    ]
    assert sorted(told) == [("mqtt", "HTTP_REQUEST"), ("mqtt", "TLSV1_ALERT_UNKNOWN_CA")]


def test_refused_connections_of_proxies_are_counted_and_each_reason_is_logged_once_a_minute():
    counters = Counters()
    with capture_logs() as logs:
        refused = report_proxies("mqtt", counters)
        for host, reason in (
            ("192.0.2.1", DoorReason.MISSING),
            ("192.0.2.1", DoorReason.MISSING),
            ("192.0.2.2", DoorReason.MISSING),
            ("192.0.2.1", DoorReason.LATE),
        ):
            refused(host, reason)
    assert counters == {"proxies.missing": 3, "proxies.late": 1}
    assert [(entry["listener"], entry["proxy"], entry["reason"]) for entry in logs] == [
        ("mqtt", "192.0.2.1", "missing"),
        ("mqtt", "192.0.2.2", "missing"),
        ("mqtt", "192.0.2.1", "late"),
    ]


def test_sessions_are_kept_as_the_settings_say(tmp_path):
    assert open_records(Settings(in_memory=True), tmp_path) is None
    assert open_records(Settings(mqtt=MqttSettings(persistence="off")), tmp_path) is None
    assert not list(tmp_path.iterdir())
    for mode in ("sync", "interval"):
        assert open_records(Settings(mqtt=MqttSettings(persistence=mode)), tmp_path) is not None


def test_a_damaged_file_of_sessions_is_named_with_the_way_out(tmp_path):
    (tmp_path / "mqtt.db").write_bytes(b"")
    with pytest.raises(
        ConfigurationError, match=r"mqtt\.db is damaged .* move mqtt\.db and mqtt\.db-wal away"
    ):
        open_records(Settings(), tmp_path)
