"""Clients that read nothing, at every QoS: the broker's memory stays within its limits, and others are served."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.processes import serving
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.packets import Connect, encode_connect, encode_subscribe

pytestmark = pytest.mark.system

MIB = 1 << 20
TOTAL = 64 * MIB
READERS = int(os.environ.get("THINGCTL_NON_READERS", "12"))
MESSAGES = int(os.environ.get("THINGCTL_LARGE_MESSAGES", "60"))
SETTINGS = f"[limits]\ntotal_bytes = {TOTAL}\nclient_bytes = {8 * MIB}\npacket_bytes = {2 * MIB}\n"


class Client:
    """A socket; it reads when it is asked to."""

    def __init__(self, address, name, *filters, qos=0, buffer=0):
        self.socket = socket.socket()
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(8)
        self.socket.connect(address)
        self.socket.sendall(encode_connect(Connect(name, True, 0, None, None, None)))
        self.take(4)
        if filters:
            self.socket.sendall(encode_subscribe(1, [(topic_filter, qos) for topic_filter in filters]))
            self.take(4 + len(filters))

    def take(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            assert more, "the broker has closed the connection"
            data += more
        return data

    def publish(self, topic, payload, qos):
        self.socket.sendall(CODEC_3.encode_publish(topic, payload, qos=qos, packet_id=7))
        if qos:
            self.take(4)
        if qos == 2:
            self.socket.sendall(b"\x62\x02\x00\x07")
            self.take(4)


def peak(pid: int) -> int:
    """The largest resident memory so far, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_readers_that_do_not_read_cost_what_the_limits_say(tmp_path, qos):
    config = tmp_path / "broker.toml"
    config.write_text(SETTINGS)
    with ExitStack() as stack:
        serve = stack.enter_context(serving(tmp_path / "data", "--config", config))
        address = serve.mqtt_address

        def client(*args, **options):
            made = Client(address, *args, **options)
            stack.callback(made.socket.close)
            return made

        for i in range(READERS):
            client(f"deaf{i}", "large", qos=qos, buffer=4096)
        listener = client("listener", "small")
        source, other = client("source"), client("other")
        before = peak(serve.process.pid)
        expected = CODEC_3.encode_publish(b"small", b"x")
        for _ in range(MESSAGES):
            source.publish(b"large", b"x" * MIB, qos)
            other.publish(b"small", b"x", 1)
            assert listener.take(len(expected)) == expected
        assert peak(serve.process.pid) - before < TOTAL + 64 * MIB
