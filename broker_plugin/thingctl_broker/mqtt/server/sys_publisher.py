"""Publishes the server's figures under ``$SYS`` at a fixed interval."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from thingctl_broker.mqtt.engine.sys_topics import SysTopics

if TYPE_CHECKING:
    from collections.abc import Mapping


class MeasuredServer(Protocol):
    """What has figures, and publishes."""

    def figures(self) -> Mapping[str, float]:
        """Return the figures by the names in ``sys_topics``."""
        ...

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, publisher: str = ""
    ) -> None:
        """Publish a message from the broker."""
        ...


async def publish_figures(server: MeasuredServer, version: str, interval: float) -> None:
    """Publish what has changed every ``interval`` seconds, retained, until cancelled; at 0 nothing."""
    topics = SysTopics(version)
    loop = asyncio.get_running_loop()
    while interval:
        for topic, payload in topics.update(server.figures(), loop.time()):
            server.publish(topic, payload, retain=True)
        await asyncio.sleep(interval)
