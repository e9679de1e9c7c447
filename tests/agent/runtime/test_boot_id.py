"""Boot id, time since boot, and whether the clock is right."""

from __future__ import annotations

import time
from pathlib import Path

from thingctl_agent.runtime import boot_id as boot


def test_the_boot_id_is_the_same_until_the_next_boot():
    assert boot.boot_id() == boot.boot_id() != ""


def test_a_system_without_one_has_an_empty_one(monkeypatch, tmp_path):
    monkeypatch.setattr(boot, "_BOOT_ID", tmp_path / "none")
    assert boot.boot_id() == ""


def test_time_since_boot_goes_on():
    first = boot.since_boot()
    assert 0 < first <= boot.since_boot()
    assert abs(first - float(Path("/proc/uptime").read_text().split()[0])) < 5


def test_the_clock_is_right_if_timesyncd_or_the_kernel_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(boot, "_kernel_says_so", lambda: False)
    monkeypatch.setattr(boot, "_TIMESYNC", tmp_path / "synchronized")
    assert not boot.clock_is_synchronised()
    (tmp_path / "synchronized").touch()
    assert boot.clock_is_synchronised()
    (tmp_path / "synchronized").unlink()
    monkeypatch.setattr(boot, "_kernel_says_so", lambda: True)
    assert boot.clock_is_synchronised()


def test_the_kernel_can_be_asked():
    begun = time.monotonic()
    assert boot._kernel_says_so() in {True, False}
    assert time.monotonic() - begun < 5
