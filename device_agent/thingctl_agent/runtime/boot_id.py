"""Which boot of the device this is, how long ago it was, and whether its clock can be trusted."""

from __future__ import annotations

import os
import time
from typing import Final

_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_TIMESYNC: Final = "/run/systemd/timesync/synchronized"
_TIME_ERROR: Final = 5
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_id() -> str:
    """A text that is another after every boot; ``""`` where the system has none."""
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def since_boot() -> float:
    """Seconds since boot, time asleep included. Never steps."""
    return time.clock_gettime(_CLOCK)


def clock_is_synchronised() -> bool:
    """Whether the system says that its wall clock is right: systemd-timesyncd, or else the kernel."""
    return os.path.exists(_TIMESYNC) or _kernel_says_so()


def _kernel_says_so() -> bool:
    # What timedatectl shows as NTPSynchronized, for chrony and ntpd: adjtimex(2) without modes.
    try:
        import ctypes  # noqa: PLC0415 - only where the broker has not said its time

        words = (ctypes.c_long * 64)()
        state = ctypes.CDLL(None, use_errno=True).adjtimex(words)
    except (ImportError, OSError, AttributeError, MemoryError):  # the last: where W^X is enforced
        return False
    return state not in {-1, _TIME_ERROR}
