"""The broker as a process: how it starts, why it does not, and how it ends."""

from __future__ import annotations

import signal
import socket
import struct
import time
from contextlib import ExitStack

import pytest

from support.processes import BIN, ROOT, TOKEN, output, process, serving, until_said
from support.waits import soon
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.packets import Connect, Will

pytestmark = pytest.mark.system

YAML = """
listeners:
  default: {type: external}
plugins:
  thingctl_broker.mqtt.plugin.CommandsPlugin:
    settings:
      open: %s
      data_dir: %s
      mqtt: {bind: "127.0.0.1:%d"}
      http: {bind: "127.0.0.1:%d"}
      %s
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def hello(client_id: str, **options) -> bytes:
    fields = {"clean_session": True, "keep_alive": 60, "username": None, "password": None, "will": None}
    return packets.encode_connect(Connect(client_id, **{**fields, **options}))


def connected(address: tuple[str, int], client_id: str, more: bytes = b"", **options) -> socket.socket:
    sock = socket.create_connection(address, timeout=10)
    sock.sendall(hello(client_id, **options) + more)
    assert sock.recv(4) == b"\x20\x02\x00\x00"
    return sock


def subscribe(*filters: str) -> bytes:
    return packets.encode_subscribe(1, [(f, 1) for f in filters])


def crowd(stack: ExitStack, address: tuple[str, int], count: int) -> None:
    """Clients of every kind and in every state."""
    for i in range(count):
        name = f"thing-{i}"
        own = f"$emqx/commands/things/{name}/executions/+/request"
        match i % 5:
            case 0:
                sock = connected(address, name, subscribe(own))
            case 1:
                sock = connected(address, name, subscribe(own, "news/#"), clean_session=False)
            case 2:
                sock = connected(address, name, will=Will("news/wills", b"x", 1, retain=True))
            case 3:
                sock = socket.create_connection(address, timeout=10)
                sock.sendall(hello(name)[:7])
            case _:
                sock = connected(
                    address, name, subscribe("news/#") + CODEC_3.encode_publish(b"news/a", b"x" * 9000)
                )
        stack.enter_context(sock)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_thingctl_serve_ends_at_a_signal_with_200_clients(tmp_path, number):
    with serving(tmp_path) as broker, ExitStack() as stack:
        crowd(stack, broker.mqtt_address, 200)
        began = time.monotonic()
        broker.process.send_signal(number)
        assert broker.process.wait(10) == 0
        took = time.monotonic() - began
        said = output(broker.process)
    assert took < 2, f"{took:.1f} s"
    assert "Traceback" not in said
    assert '"error"' not in said
    assert "Task was destroyed" not in said


def test_a_second_signal_while_it_ends_changes_nothing(tmp_path):
    with serving(tmp_path) as broker, ExitStack() as stack:
        crowd(stack, broker.mqtt_address, 50)
        for _ in range(3):
            broker.process.send_signal(signal.SIGINT)
        assert broker.process.wait(10) == 0
        assert "Traceback" not in output(broker.process)


def test_the_yaml_that_ships_runs_with_amqtts_own_command(tmp_path):
    """As it stands, but for the ports and the data directory."""
    mqtt, http = free_port(), free_port()
    text = (ROOT / "configs" / "amqtt.yaml").read_text()
    text = text.replace("127.0.0.1:1883", f"127.0.0.1:{mqtt}").replace("127.0.0.1:8080", f"127.0.0.1:{http}")
    path = tmp_path / "amqtt.yaml"
    path.write_text(text)
    with process(
        BIN / "amqtt", "-c", path, THINGCTL_ADMIN_TOKEN=TOKEN, THINGCTL_DATA_DIR=str(tmp_path)
    ) as amqtt:
        until_said(amqtt, "serving")
        with ExitStack() as stack:
            crowd(stack, ("127.0.0.1", mqtt), 20)
            stack.enter_context(socket.create_connection(("127.0.0.1", http)))
            amqtt.send_signal(signal.SIGINT)
            # amqtt's command takes the signal as KeyboardInterrupt; where it strikes inside one of
            # amqtt's tasks, the command ends with 130 instead.
            assert amqtt.wait(10) in {0, 130}
        assert "Traceback" not in output(amqtt)


def test_amqtts_own_command_with_a_password_file(tmp_path):
    from pwdlib import PasswordHash
    from pwdlib.hashers.argon2 import Argon2Hasher

    cheap = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),))
    (tmp_path / "passwords").write_text(f"lamp:{cheap.hash('right')}\n")
    port = free_port()
    path = tmp_path / "amqtt.yaml"
    path.write_text(
        YAML % ("false", tmp_path, port, 0, "")
        + f"  amqtt.plugins.authentication.FileAuthPlugin: {{password_file: {tmp_path / 'passwords'}}}\n"
    )
    with process(BIN / "amqtt", "-c", path, THINGCTL_ADMIN_TOKEN=TOKEN) as amqtt:
        until_said(amqtt, "serving")
        for password, code in ((b"wrong", 5), (b"right", 0), (b"", 5)):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
                sock.sendall(hello("lamp", username="lamp", password=password) + subscribe("things/lamp/#"))
                assert sock.recv(4) == bytes([0x20, 2, 0, code])
                assert (sock.recv(5) == b"\x90\x03\x00\x01\x01") is (code == 0)


@pytest.mark.parametrize(
    ("is_open", "taken", "more", "sentence"),
    [
        ("maybe", False, "", "Expected `bool`, got `str`"),
        ("true", False, "limits: {connections: 0}", "Expected `int` >= 1"),
        ("true", False, "speed: 5", "unknown field `speed`"),
        ("true", True, "", "cannot listen on 127.0.0.1:"),
    ],
)
def test_amqtts_own_command_ends_when_the_settings_are_wrong(tmp_path, is_open, taken, more, sentence):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1] if taken else 0
        path = tmp_path / "amqtt.yaml"
        path.write_text(YAML % (is_open, tmp_path, port, 0, more))
        with process(BIN / "amqtt", "-c", path, THINGCTL_ADMIN_TOKEN=TOKEN) as amqtt:
            assert amqtt.wait(20) == 1
            assert sentence in output(amqtt)
            assert "Traceback" not in output(amqtt)


def test_amqtts_own_command_ends_when_the_plugin_cannot_start(tmp_path):
    """amqtt swallows what a plugin raises there, and would go on with nobody to listen to devices."""
    path = tmp_path / "amqtt.yaml"
    path.write_text(YAML % ("true", tmp_path, 0, 0, ""))
    code = (
        "from thingctl_broker.app.broker import Application\n"
        "async def start(*_): raise OSError('the disk is on fire')\n"
        "Application.start = start\n"
        "import sys; from amqtt.scripts.broker_script import main\n"
        f"sys.argv = ['amqtt', '-c', {str(path)!r}]; main()"
    )
    with process(BIN / "python", "-c", code, THINGCTL_ADMIN_TOKEN=TOKEN) as amqtt:
        assert amqtt.wait(20) == 2
        assert "the disk is on fire" in output(amqtt)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--mqtt", "1883"], "'1883' is not HOST:PORT"),
        (["--mqtt", "0.0.0.0:0"], "it is for loopback only"),
        (["--config", "/no/such/file.toml"], "cannot read /no/such/file.toml"),
        (["--mqtt", "taken"], "mqtt: cannot listen on 127.0.0.1:"),
        (["--http", "taken"], "http: cannot listen on 127.0.0.1:"),
    ],
)
def test_thingctl_serve_ends_when_the_settings_are_wrong(tmp_path, options, sentence):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        options = [option.replace("taken", address) for option in options]
        ports = ("--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0")
        command = (BIN / "thingctl", "serve", "--open", *ports, "--data-dir", tmp_path, *options)
        with process(*command, THINGCTL_ADMIN_TOKEN=TOKEN) as broker:
            assert broker.wait(20) == 2
            said = output(broker)
    assert said.startswith("thingctl: ")
    assert sentence in said
    assert said.count("\n") == 1


def test_a_client_that_is_reset_in_the_middle_of_everything_leaves_no_word(tmp_path):
    with serving(tmp_path) as broker:
        for i in range(60):
            sock = socket.create_connection(broker.mqtt_address, timeout=10)
            sock.sendall((hello("lamp", clean_session=bool(i % 2)) + subscribe("news/#"))[: 5 + i])
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        with connected(broker.mqtt_address, "last") as last:
            last.sendall(b"\xc0\x00")
            assert last.recv(2) == b"\xd0\x00"
        broker.process.send_signal(signal.SIGTERM)
        soon(lambda: broker.process.poll() is not None)
        assert broker.process.returncode == 0
        assert '"error"' not in output(broker.process)
        assert "Traceback" not in output(broker.process)
