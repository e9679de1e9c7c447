"""amqtt alone in the test's own loop, and clients of it connected as the front connects one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from amqtt.broker import Broker

from support.waits import eventually
from thingctl_broker.mqtt.amqtt.bridge import LISTENER
from thingctl_broker.mqtt.amqtt.streams import Inlet, Outlet
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.packets import Connect, PacketType

PROBE = packets.encode_unsubscribe(0xFFFF, ["nothing"])
HELLO = Connect("lamp", True, 0, None, None, None)


class Plain(Inlet):
    """Tells everything at once, as amqtt's own reader does."""

    def __init__(self) -> None:
        super().__init__(lambda full: None, lambda: False, lambda: True)

    async def _let_amqtt_finish(self) -> None: ...


class Peer:
    """A client of amqtt alone, connected by the adapters as the front connects one."""

    def __init__(self, broker: Broker, connect: Connect = HELLO) -> None:
        self.written: list[bytes] = []
        self.closes = 0
        self.inlet = Plain()
        outlet = Outlet(("127.0.0.1", 1), self.written.append, self._drain, self._close)
        self.inlet.feed(packets.encode_connect(connect))
        self.task = asyncio.create_task(broker.external_connected(self.inlet, outlet, LISTENER))

    async def _drain(self) -> None: ...

    def _close(self) -> None:
        self.closes += 1

    async def expect(self, kind: PacketType) -> bytes:
        await eventually(lambda: self.written)
        packet = self.written.pop(0)
        assert packet[0] >> 4 == kind
        return packet

    async def ready(self) -> Peer:
        await self.expect(PacketType.CONNACK)
        self.inlet.feed(PROBE)
        await self.expect(PacketType.UNSUBACK)
        return self

    async def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        self.inlet.feed(packets.encode_subscribe(1, [(topic_filter, qos)]))
        await self.expect(PacketType.SUBACK)

    async def gone(self) -> None:
        self.inlet.feed_eof()
        await self.task


@asynccontextmanager
async def bare_amqtt(**config: Any) -> AsyncIterator[Broker]:
    """amqtt with a listener that connections are handed to, and no plugin of ours."""
    broker = Broker(
        {
            "listeners": {"default": {"type": "external"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            **config,
        }
    )
    await broker.start()
    try:
        yield broker
    finally:
        await broker.shutdown()
