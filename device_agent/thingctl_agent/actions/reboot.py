"""``reboot``: restart the device.

The answer comes after the reboot, by comparing boot ids. That the command is about to be
started is on the disk before it is. That there is no reboot loop
rests on the journal: the request is on the disk before the device goes down, and is never
run again. So it is refused where the journal does not survive a reboot; and for a while
after each boot, whatever a broker sends.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from thingctl_agent.errors import Reject
from thingctl_agent.handlers.context import Context
from thingctl_agent.runtime import boot_id as boot

if TYPE_CHECKING:
    from thingctl_agent.handlers.registry import Registry

_IN_MEMORY: Final = {"tmpfs", "ramfs"}


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """``command``: what restarts the device. ``min_uptime``: seconds after a boot in which it is refused."""

    command: tuple[str, ...] = ("systemctl", "reboot")
    min_uptime: float = 60.0
    state_dir: str = ""


def register(registry: Registry, options: Options) -> None:
    """Add the action."""

    def reboot(ctx: Context, delay: Annotated[float, msgspec.Meta(ge=0, le=60)] = 1.0) -> None:
        """Restart the device. Succeeds once it has come up again."""
        uptime = boot.since_boot()
        if uptime < options.min_uptime:
            raise Reject("TOO_SOON", f"the device booted only {uptime:.0f} s ago")
        if options.state_dir and file_system(options.state_dir) in _IN_MEMORY:
            raise Reject("NOT_DURABLE", "the journal would not survive a reboot: its directory is in memory")
        ctx.progress(message="rebooting")
        ctx.sleep(delay)  # the acknowledgement of the request has this time to leave
        ctx.rebooting()
        ctx.run(options.command)

    registry.add(reboot, reboots=True, timeout=90)


def file_system(directory: str, mounts: str = "/proc/self/mounts") -> str:
    """The type of the file system that ``directory`` is on; ``""`` when that cannot be told."""
    try:
        lines = Path(mounts).read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    real = os.path.realpath(directory) + "/"
    mounted = [line.split()[1:3] for line in lines]
    found = [(point, kind) for point, kind in mounted if real.startswith(point.rstrip("/") + "/")]
    return max(found, key=lambda item: len(item[0]), default=("", ""))[1]
