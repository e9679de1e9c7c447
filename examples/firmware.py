"""A firmware update: progress, a long time-out, going on after a restart, and a reboot at its end.

    thingctl-agent run examples/firmware.py --thing gateway-3 --url mqtt://127.0.0.1:1883

Try it without a broker:  python -m pytest examples/test_firmware.py
"""

from __future__ import annotations

import hashlib
from typing import Annotated

from msgspec import Meta

from thingctl_agent import Agent, CommandFailed, Context, Reject

agent = Agent()

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="of the whole image")]
BLOCKS = 20


class Flash:
    """The device's flash memory, pretended."""

    def __init__(self) -> None:
        self.battery = 80
        self.blocks: dict[int, bytes] = {}

    def digest(self) -> str:
        return hashlib.sha256(b"".join(self.blocks[number] for number in sorted(self.blocks))).hexdigest()


flash = Flash()


def fetch(version: str, number: int) -> bytes:
    """One block of an image, pretended."""
    return f"{version}:{number}".encode()


@agent.action(timeout=1800, exclusive="flash", on_restart="resume", max_age=3600)
def updateFirmware(ctx: Context, version: str, sha256: Sha256) -> dict[str, object]:  # noqa: N802
    """Fetch an image block by block and check it. Goes on where it was when a crash interrupts it."""
    if flash.battery < 50:
        raise Reject("BATTERY_LOW", f"{flash.battery} % are too little for an update")
    first = ctx.saved or 0
    for number in range(first, BLOCKS):
        flash.blocks[number] = fetch(version, number)
        ctx.save(number + 1)
        ctx.progress(100 * number / BLOCKS, f"block {number + 1} of {BLOCKS}")
        ctx.sleep(0.05)  # ends at once when the command is canceled
    if (found := flash.digest()) != sha256:
        raise CommandFailed(
            "the image is not what was announced", code="CHECKSUM", expected=sha256, found=found
        )
    return {"version": version, "blocks": BLOCKS, "attempt": ctx.attempt}


@agent.action(durable=False)
def getFirmware() -> dict[str, object]:  # noqa: N802
    """Tell how much of an image is there."""
    return {"blocks": len(flash.blocks)}


@agent.action(timeout=20)
async def measure(ctx: Context, seconds: Annotated[float, Meta(gt=0, le=10)] = 0.2) -> dict[str, float]:
    """Handlers may be async, too; they share one event loop."""
    import asyncio  # an agent without async handlers never loads it  # noqa: PLC0415

    await asyncio.sleep(seconds)
    return {"seconds": seconds, "left": round(ctx.remaining or 0, 1)}


if __name__ == "__main__":
    agent.run()
