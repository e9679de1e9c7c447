"""The one task that expires executions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from thingctl_broker.commands.service import CommandService

LONGEST_SLEEP: Final = 1.0
"""Seconds. A command sent during the sleep lives at least this long (``TTL_MIN``), so no
deadline is ever overslept, and nobody has to wake the sweeper."""


async def sweep(service: CommandService) -> None:
    """Expire executions when they are due, until cancelled.

    A failure is logged and the work goes on: nothing would ever time out otherwise.
    """
    log = structlog.get_logger("thingctl.sweeper")
    while True:
        wait = service.seconds_to_next_deadline()
        await asyncio.sleep(LONGEST_SLEEP if wait is None else min(LONGEST_SLEEP, wait))
        try:
            service.expire()
        except Exception:
            log.exception("expiring failed")
            await asyncio.sleep(LONGEST_SLEEP)
