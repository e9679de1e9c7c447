"""The connection: lost, refused, encrypted, taken over; and what survives it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
import pytest

from agent.harness import AgentProcess, Tracker, free_port, mosquitto, until
from support.needs import missing

pytestmark = pytest.mark.system

ACTIONS = """
import time
from thingctl_agent import Agent
agent = Agent()

@agent.action
def echo(text: str = "") -> str:
    return text

@agent.action(concurrency=50)
def slow(seconds: float) -> str:
    time.sleep(seconds)
    return "done"
"""


def test_responses_survive_a_broker_that_is_away(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as broker, contextlib.ExitStack() as stack:
        tracker = stack.enter_context(Tracker(broker.port))
        (tmp_path / "agent.toml").write_text("running = 30\n")
        options = ("--config", str(tmp_path / "agent.toml"))
        agent = stack.enter_context(AgentProcess(ACTIONS, broker.url, tmp_path / "s", *options))
        ids = [tracker.request("thing-1", "slow", {"seconds": 1.0}) for _ in range(20)]
        assert tracker.do("thing-1", "echo")["status"] == "SUCCEEDED", "all before it have arrived"
        broker.stop()
        until(lambda: agent.log.count('"status":"SUCCEEDED"') >= 21, what="the end of all handlers")
        os.kill(agent.pid, signal.SIGSTOP)  # so that somebody listens before it connects
        broker.start()
        later = stack.enter_context(Tracker(broker.port))
        os.kill(agent.pid, signal.SIGCONT)
        answers = [later.final(execution_id, 20) for execution_id in ids]
    assert [a["result"] for a in answers] == ["done"] * 20


def test_a_restart_of_the_agent_between_handler_and_broker_loses_nothing(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as broker, Tracker(broker.port) as tracker:
        agent = AgentProcess(ACTIONS, broker.url, tmp_path / "s").start()
        try:
            execution_id = tracker.request("thing-1", "slow", {"seconds": 0.5})
            assert tracker.do("thing-1", "echo")["status"] == "SUCCEEDED"
            broker.stop()
            until(lambda: agent.log.count('"status":"SUCCEEDED"') >= 2)
            agent.kill()
            broker.start()
            with Tracker(broker.port) as later:
                agent.start()
                assert later.final(execution_id)["result"] == "done"
        finally:
            agent.kill()


def test_a_wrong_password_is_told_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("")
    subprocess.run(
        ["mosquitto_passwd", "-b", str(tmp_path / "passwords"), "thing-1", "right"],
        check=True,
        capture_output=True,
    ) if _has_passwd() else missing("mosquitto_passwd is not installed (apt-get install mosquitto)")
    extra = f"allow_anonymous false\npassword_file {tmp_path / 'passwords'}\n"
    with mosquitto(tmp_path, extra) as broker:
        wrong = AgentProcess(ACTIONS, broker.url, tmp_path / "w", env={"THINGCTL_PASSWORD": "wrong"}).start(
            ready=False
        )
        try:
            until(lambda: "Not authorized; it did not take the password of thing 'thing-1'" in wrong.log)
            assert wrong.log.count("not connected") < 5, "it does not hammer the broker"
        finally:
            wrong.kill()
        (tmp_path / "secret").write_text("right\n")
        options = ("--password-file", str(tmp_path / "secret"))
        with (
            Tracker(broker.port, username="thing-1", password="right") as tracker,
            AgentProcess(ACTIONS, broker.url, tmp_path / "s", *options),
        ):
            assert tracker.do("thing-1", "echo")["status"] == "SUCCEEDED"


def _has_passwd() -> bool:
    return subprocess.run(["which", "mosquitto_passwd"], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    "name", ["mqtt://no-such-host.invalid", "mqtt://" + "a" * 70, "mqtt://ümläut..example"]
)
def test_a_bad_host_name_is_told_and_the_agent_lives(tmp_path: Path, name: str) -> None:
    agent = AgentProcess(ACTIONS, name, tmp_path / "s").start(ready=False)
    try:
        until(lambda: "not connected" in agent.log, 20)
        assert agent.process is not None
        assert agent.process.poll() is None
        code, seconds = agent.stop()
        assert code == 0
        assert seconds < 2.5
    finally:
        agent.kill()


def test_a_take_over_is_fought_with_patience(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as broker, AgentProcess(ACTIONS, broker.url, tmp_path / "s") as agent:
        for _ in range(4):
            other = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="thing-1")
            other.connect("127.0.0.1", broker.port)
            other.loop_start()
            until(other.is_connected)
            until(lambda other=other: not other.is_connected() or agent.log.count("ready") >= 2, 15)
            other.disconnect()
            other.loop_stop()
        until(lambda: "connection was lost" in agent.log)
        assert agent.log.count("ready for commands") < 12


# -- a broker made by hand: it knows MQTT as far as these tests need it


class HandMade:
    """Accepts one connection at a time and lets ``react(packet_type, body, send)`` decide."""

    def __init__(self, react: Any) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.seen: list[tuple[int, bytes]] = []
        self._react = react
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self._connections.append(connection)
                with connection, contextlib.suppress(OSError, EOFError):
                    self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        with stream:
            while True:
                kind = stream.read(1)
                if not kind:
                    return
                length, shift = 0, 0
                while True:
                    (byte,) = stream.read(1)
                    length |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        break
                body = stream.read(length)
                self.seen.append((kind[0] >> 4, body))
                if self._react(kind[0] >> 4, body, connection.sendall) is False:
                    return

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


CONNECT, PUBLISH, SUBSCRIBE = 1, 3, 8


def test_a_broker_that_hangs_up_over_the_extras_is_served_without_them(tmp_path: Path) -> None:
    def strict(kind: int, body: bytes, send: Any) -> bool | None:
        if kind == CONNECT:
            send(b"\x20\x02\x00\x00")
        elif kind == SUBSCRIBE:
            if b"/cancel" in body or b"/time" in body:
                return False
            send(b"\x90\x03" + body[:2] + b"\x01")
        elif kind == PUBLISH and b"/actions" in body:
            return False
        return None

    with (
        HandMade(strict) as broker,
        AgentProcess(ACTIONS, f"mqtt://127.0.0.1:{broker.port}", tmp_path / "s") as agent,
    ):
        until(lambda: agent.log.count("going on without") == 2, 30, "giving up the extras")
        connections = len([1 for kind, _ in broker.seen if kind == CONNECT])
        until(lambda: agent.log.count("ready for commands") >= 3, 30)
        assert connections <= 6
        assert agent.stop()[0] == 0


def test_malformed_packets_and_silence_do_not_end_it(tmp_path: Path) -> None:
    count = 0

    def broken(kind: int, _body: bytes, send: Any) -> bool | None:
        nonlocal count
        if kind != CONNECT:
            return None
        count += 1
        if count == 1:
            send(b"\x20\x02\x00\x00" + b"\xff\xff\xff\xff\xff\xff")  # a length of five bytes
        elif count == 2:
            send(b"\x20\x02\x00\x00" + b"\x32\x05\x00\x09ab\x00")  # a topic longer than its packet
        elif count == 3:
            send(b"\x20\x02\x00\x00" + b"\x90\x01\x00")  # a SUBACK of one byte
        elif count == 4:
            send(b"\x20\x02\x00\x00" + b"\x30" + b"\xff\xff\xff\x7f" + b"x" * 2_000_000)  # 256 MB announced
        else:
            send(b"\x20\x02\x00\x00")
        return None

    with HandMade(broken) as broker:
        agent = AgentProcess(ACTIONS, f"mqtt://127.0.0.1:{broker.port}", tmp_path / "s").start(ready=False)
        try:
            until(lambda: count >= 5, 40, "the fifth attempt")
            assert agent.process is not None
            assert agent.process.poll() is None
            assert agent.stop()[0] == 0
            assert "Traceback" not in agent.log
        finally:
            agent.kill()


def descriptors(agent: AgentProcess) -> int:
    return len(list(Path(f"/proc/{agent.pid}/fd").iterdir()))


def test_no_descriptor_is_lost_over_many_connections(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as broker, AgentProcess(ACTIONS, broker.url, tmp_path / "s") as agent:
        before = descriptors(agent)
        for connections in range(2, 12):
            os.kill(agent.pid, signal.SIGHUP)
            until(lambda n=connections: agent.log.count("ready for commands") >= n)
        until(lambda: descriptors(agent) <= before)


# -- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a certificate for localhost and one for the thing, made with openssl."""
    directory = tmp_path_factory.mktemp("certificates")
    try:
        make_authority(directory)
    except FileNotFoundError:
        missing("openssl is not installed (apt-get install openssl)")
    make_certificate(directory, "server", "localhost")
    make_certificate(directory, "thing", "thing-1")
    return directory


def openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


def make_authority(directory: Path) -> None:
    key, cert = str(directory / "ca.key"), str(directory / "ca.pem")
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=test authority"),
    )


def make_certificate(directory: Path, name: str, common_name: str, serial: int = 1) -> None:
    key, request, cert = (str(directory / f"{name}.{end}") for end in ("key", "csr", "pem"))
    (directory / "san").write_text(f"subjectAltName=DNS:{common_name}\n")
    openssl(
        *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key),
        *("-out", request, "-subj", f"/CN={common_name}"),
    )
    authority = (
        "-CA",
        str(directory / "ca.pem"),
        "-CAkey",
        str(directory / "ca.key"),
        "-set_serial",
        str(serial),
    )
    openssl(
        *(
            "x509",
            "-req",
            "-in",
            request,
            "-out",
            cert,
            "-days",
            "2",
            "-extfile",
            str(directory / "san"),
            *authority,
        )
    )


def tls_config(path: Path, certificates: Path, *, client: bool = True) -> str:
    text = f'[tls]\nca = "{certificates / "ca.pem"}"\n'
    if client:
        text += f'cert = "{certificates / "thing.pem"}"\nkey = "{certificates / "thing.key"}"\n'
    path.write_text(text)
    return str(path)


def tls_broker(certificates: Path, port: int) -> str:
    return (
        f"allow_anonymous true\nlistener {port} 127.0.0.1\ncafile {certificates / 'ca.pem'}\n"
        f"certfile {certificates / 'server.pem'}\nkeyfile {certificates / 'server.key'}\nrequire_certificate true\n"
    )


def test_tls_with_a_client_certificate_that_is_renewed(tmp_path: Path, certificates: Path) -> None:
    port = free_port()
    with mosquitto(tmp_path, tls_broker(certificates, port)) as broker, Tracker(broker.port) as tracker:
        config = tls_config(tmp_path / "agent.toml", certificates)
        with AgentProcess(ACTIONS, f"mqtts://localhost:{port}", tmp_path / "s", "--config", config) as agent:
            assert tracker.do("thing-1", "echo", {"text": "x" * 100_000})["result"] == "x" * 100_000
            make_certificate(certificates, "thing", "thing-1", serial=2)
            assert agent.process is not None
            agent.process.send_signal(signal.SIGHUP)
            until(
                lambda: agent.log.count("ready for commands") == 2,
                what="a connection with the new certificate",
            )
            assert tracker.do("thing-1", "echo")["status"] == "SUCCEEDED"
            assert agent.stop()[0] == 0


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("another name", "the broker's certificate is not for '127.0.0.1'"),
        ("no client certificate", "--cert"),
        ("another authority", "is not of the authority in tls.ca"),
    ],
)
def test_tls_that_is_not_as_it_should_be_is_refused_in_words(
    tmp_path: Path, certificates: Path, fault: str, text: str
) -> None:
    port = free_port()
    trusted = certificates
    if fault == "another authority":
        trusted = tmp_path / "others"
        trusted.mkdir()
        make_authority(trusted)
        make_certificate(trusted, "thing", "thing-1")
    host = "127.0.0.1" if fault == "another name" else "localhost"
    with mosquitto(tmp_path, tls_broker(certificates, port)):
        config = tls_config(tmp_path / "agent.toml", trusted, client=fault != "no client certificate")
        agent = AgentProcess(ACTIONS, f"mqtts://{host}:{port}", tmp_path / "s", "--config", config)
        agent.start(ready=False)
        try:
            until(lambda: "not connected" in agent.log, 20)
            assert "ready for commands" not in agent.log
            assert "Traceback" not in agent.log
            assert text in agent.log
            assert agent.stop()[0] == 0
        finally:
            agent.kill()


@pytest.mark.parametrize(
    ("scheme", "port_of", "text"),
    [
        ("mqtt", "tls", "use mqtts://"),
        ("mqtts", "plain", "use mqtt://"),
        ("mqtt", "closed", "Not authorized; no password was sent: set THINGCTL_PASSWORD or give --bundle"),
    ],
)
def test_a_port_of_the_other_kind_is_named_with_mosquitto(
    tmp_path: Path, certificates: Path, scheme: str, port_of: str, text: str
) -> None:
    port = free_port()
    extra = tls_broker(certificates, port) if port_of != "closed" else "allow_anonymous false\n"
    with mosquitto(tmp_path, extra) as broker:
        config = tls_config(tmp_path / "agent.toml", certificates) if scheme == "mqtts" else None
        options = ("--config", config) if config else ()
        url = f"{scheme}://localhost:{port if port_of == 'tls' else broker.port}"
        agent = AgentProcess(ACTIONS, url, tmp_path / "s", *options).start(ready=False)
        try:
            until(lambda: "not connected" in agent.log, 20)
            assert text in agent.log
        finally:
            agent.kill()


def test_tls_files_that_are_missing_are_named(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text('[tls]\nca = "/no/such/ca.pem"\n')
    options = ("--config", str(tmp_path / "agent.toml"))
    agent = AgentProcess(ACTIONS, "mqtts://localhost:1", tmp_path / "s", *options).start(ready=False)
    try:
        until(lambda: "/no/such/ca.pem" in agent.log)
    finally:
        agent.kill()


def test_two_agents_of_one_name_say_so_and_the_thing_is_served(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as broker, Tracker(broker.port) as tracker, contextlib.ExitStack() as stack:
        pair = [AgentProcess(ACTIONS, broker.url, tmp_path / name, thing="twin") for name in ("a", "b")]
        for agent in pair:
            stack.enter_context(agent)
        until(lambda: any("is another device using this thing's name?" in a.log for a in pair), 60)
        assert tracker.do("twin", "echo", {"text": "x"}, ttl=60)["status"] == "SUCCEEDED"
