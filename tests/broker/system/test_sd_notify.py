"""What the service manager hears of the broker."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from thingctl_broker.system.sd_notify import ALIVE, READY, STOPPING, notify, served, watchdog_seconds


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """A service manager's socket; ``environ`` is what the broker is started with."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@thingctl-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0"))
        listening.settimeout(5)
        yield listening, {"NOTIFY_SOCKET": name}


async def test_it_hears_the_start_signs_of_life_and_the_end(manager):
    listening, environ = manager
    async with served(environ | {"WATCHDOG_USEC": "20000"}):
        heard = [await asyncio.to_thread(listening.recv, 100) for _ in range(4)]
    assert heard == [READY.encode(), *[ALIVE.encode()] * 3]
    while (last := listening.recv(100)) == ALIVE.encode():
        pass
    assert last == STOPPING.encode()


async def test_without_a_watchdog_there_are_no_signs_of_life(manager):
    listening, environ = manager
    async with served(environ):
        await asyncio.sleep(0)
    assert [listening.recv(100), listening.recv(100)] == [READY.encode(), STOPPING.encode()]


def test_without_a_manager_nothing_is_sent(tmp_path):
    notify(READY, {})
    notify(READY, {"NOTIFY_SOCKET": str(tmp_path / "gone")})


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "x"}, None),
        ({}, None),
    ],
)
def test_half_of_the_watchdogs_time_is_used(environ, seconds):
    assert watchdog_seconds(environ) == seconds
