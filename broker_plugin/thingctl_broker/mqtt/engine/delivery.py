"""A message on its way to one session at QoS 1 or 2. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thingctl_broker.mqtt.engine.message import Message


class MessageDelivery:
    """From the queue until the client has acknowledged it.

    ``packet_id``: 0 until it is sent. ``released``: the client has the message (PUBREC), and only the
    PUBREL is repeated from then on. ``key``: of its record in the store; empty: it has none.
    """

    __slots__ = (
        "is_sent",
        "key",
        "message",
        "packet_id",
        "qos",
        "released",
        "retain",
        "size",
        "subscription_ids",
    )

    def __init__(
        self,
        message: Message,
        qos: int,
        retain: bool = False,
        subscription_ids: tuple[int, ...] = (),
    ) -> None:
        self.message = message
        self.qos = qos
        self.retain = retain
        self.subscription_ids = subscription_ids
        self.packet_id = 0
        self.is_sent = False
        self.released = False
        self.size = message.size
        self.key = b""
