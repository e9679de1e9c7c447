"""``getInfo``: what device this is."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import msgspec

from thingctl_agent.runtime import boot_id as boot
from thingctl_protocol import __version__

if TYPE_CHECKING:
    from thingctl_agent.handlers.registry import Registry


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """There are none."""


class Info(TypedDict):
    """What is known of the device. Times in seconds, sizes in bytes; ``None``: not known."""

    agentVersion: str
    pythonVersion: str
    hostname: str
    system: str
    machine: str
    model: str | None
    bootId: str
    uptime: float
    clockSynchronised: bool
    load: float
    memoryAvailable: int | None
    diskFree: int
    temperature: float | None


def register(registry: Registry, options: Options) -> None:
    """Add the action."""
    del options
    registry.add(get_info, "getInfo", durable=False)


def get_info() -> Info:
    """Tell what device this is and how it does."""
    disk = os.statvfs("/")
    return {
        "agentVersion": __version__,
        "pythonVersion": platform.python_version(),
        "hostname": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "model": _first_line("/proc/device-tree/model"),
        "bootId": boot.boot_id(),
        "uptime": round(boot.since_boot(), 1),
        "clockSynchronised": boot.clock_is_synchronised(),
        "load": round(os.getloadavg()[0], 2),
        "memoryAvailable": _memory_available(),
        "diskFree": disk.f_bavail * disk.f_frsize,
        "temperature": _temperature(),
    }


def _first_line(path: str) -> str | None:
    try:
        return Path(path).read_text("utf-8", "replace").split("\n", 1)[0].strip("\0 ")
    except OSError:
        return None


def _memory_available() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _temperature() -> float | None:
    """Degrees Celsius of the processor."""
    text = _first_line("/sys/class/thermal/thermal_zone0/temp")
    try:
        return None if text is None else int(text) / 1000
    except ValueError:
        return None
