"""Answers that wait until an execution has ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from starlette.types import Receive

    from thingctl_broker.commands.operations import Operations


async def until_ended(operations: Operations, execution_id: str, seconds: float, receive: Receive) -> None:
    """Return when the execution has ended, ``seconds`` are over, or the broker is ending.

    Raises ClientDisconnect when the client goes away meanwhile. ``receive`` has given the
    whole body already.
    """
    ended = asyncio.ensure_future(operations.wait(execution_id, seconds))
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((ended, gone), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            raise ClientDisconnect
        ended.result()
    finally:
        for task in (ended, gone):
            task.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
