"""How to test handlers: call them as a broker would, with no broker."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from firmware import BLOCKS, agent, fetch, flash

from thingctl_agent.testing import Device


def test_an_update_reports_progress_and_succeeds() -> None:
    image = b"".join(fetch("2.0", number) for number in range(BLOCKS))
    with Device(agent) as device:
        reply = device.send("updateFirmware", version="2.0", sha256=hashlib.sha256(image).hexdigest())
    assert reply.status == "SUCCEEDED"
    assert reply.result == {"version": "2.0", "blocks": BLOCKS, "attempt": 1}
    assert reply.progress[0] == {"percent": 0.0, "message": f"block 1 of {BLOCKS}"}


def test_a_wrong_checksum_fails_in_words() -> None:
    reply = agent.test("updateFirmware", version="2.0", sha256="0" * 64)
    assert (reply.status, reply.reason_code) == ("FAILED", "CHECKSUM")


def test_a_low_battery_refuses() -> None:
    flash.battery = 10
    assert agent.test("updateFirmware", version="2.0", sha256="0" * 64).reason_code == "BATTERY_LOW"
    flash.battery = 80


def test_an_update_can_be_canceled() -> None:
    with Device(agent) as device:
        execution_id = device.start("updateFirmware", {"version": "2.0", "sha256": "0" * 64})
        device.wait_for_progress(execution_id)
        device.cancel(execution_id)
        assert device.wait(execution_id).status == "CANCELED"
