"""What systemd is told."""

from __future__ import annotations

import os
import socket

import pytest

from thingctl_agent.runtime.sd_notify import Notifier


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        yield listening


def test_state_is_sent(manager, tmp_path):
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    for say in (notifier.ready, notifier.alive, notifier.stopping):
        say()
    notifier.status("fine")
    assert [manager.recv(100) for _ in range(4)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1", b"STATUS=fine"]


def test_an_abstract_socket_is_understood():
    name = f"thingctl-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name)
        Notifier({"NOTIFY_SOCKET": "@" + name}).ready()
        assert listening.recv(100) == b"READY=1"


def test_nobody_listening_is_no_error():
    Notifier({}).ready()
    Notifier({"NOTIFY_SOCKET": "/no/such/socket"}).ready()


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "often"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_needed(environ, interval):
    assert Notifier(environ).watchdog_interval == interval
