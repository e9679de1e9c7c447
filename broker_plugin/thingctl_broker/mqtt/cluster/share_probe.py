"""Whether the cluster shares what is published under a topic root that begins with ``$``.

mosquitto grants a subscription to ``$share/…/$…`` and never matches it: a worker would be deaf,
and never know. So it says something to itself, on a connection of its own whose session ends
with it: nothing of it comes near what things say.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from thingctl_broker.mqtt.protocol.reason_codes import FAILURE, RequestRefused

if TYPE_CHECKING:
    from thingctl_broker.mqtt.cluster.connection import LinkConnection
    from thingctl_broker.mqtt.cluster.dialer import LinkDialer
    from thingctl_protocol.topics import Topics

TRIES: Final = 10
EVERY: Final = 0.5
"""Seconds until it is said again: of a cluster not every node may know of a subscription at once."""


async def is_shared(dialer: LinkDialer, client_id: str, topics: Topics) -> bool | None:
    """Whether a shared subscription under the root hears anything; None: that cannot be found out.

    It takes some seconds if not. ``client_id``: the worker's.
    """
    made: list[LinkConnection] = []
    heard = asyncio.Event()
    refusals: list[int] = []

    def acknowledged(_packet_id: int, code: int) -> None:
        if code >= FAILURE:
            refusals.append(code)

    try:
        await dialer.dial(f"{client_id}-probe", lambda _: heard.set(), acknowledged, made.append)
        connection = made[-1]
        try:
            await connection.subscribe([topics.shared_probe(client_id)])
            for _ in range(TRIES):
                connection.publish(topics.probe(client_id), b"", qos=1, expires_in=TRIES)
                if await _within(heard, EVERY):
                    return True
                if refusals or connection.lost.done():
                    return None
            return False
        finally:
            await connection.end(session=True)
    except RequestRefused:  # its ACL, perhaps: that says nothing
        return None


async def _within(heard: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await heard.wait()
    except TimeoutError:
        return False
    return True
