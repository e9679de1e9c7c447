"""A CONNECT of MQTT 5, behind its protocol level [MQTT5 section 3.1]."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from thingctl_broker.mqtt.protocol.frames import MalformedPacket
from thingctl_broker.mqtt.protocol.packets import Connect, ConnectRefused, PacketType, Will
from thingctl_broker.mqtt.protocol.properties import WILL
from thingctl_broker.mqtt.protocol.reason_codes import Reason

if TYPE_CHECKING:
    from thingctl_broker.mqtt.protocol.properties import PacketBody5, Properties


def parse_connect5(body: PacketBody5) -> Connect:
    """Take apart what follows the protocol level.

    Raises :class:`MalformedPacket`, and :class:`ConnectRefused` for an authentication method.
    """
    flags = body.byte()
    _check_flags(flags)
    keep_alive = body.number()
    properties = body.properties(PacketType.CONNECT)
    connect = _with_properties(
        Connect("", bool(flags & 2), keep_alive, None, None, None, version=5), properties
    )
    client_id = body.text()
    will = _will(body, flags) if flags & 0x04 else None
    username = body.text() if flags & 0x80 else None
    password = body.binary() if flags & 0x40 else None
    if body.left:
        raise MalformedPacket("MQTT5-3.1.3-1", f"{body.left} bytes behind the last field")
    if connect.authentication_method is not None:
        raise ConnectRefused(Reason.BAD_AUTHENTICATION_METHOD, "enhanced authentication is not offered")
    return connect._replace(client_id=client_id, will=will, username=username, password=password)


def _check_flags(flags: int) -> None:
    if flags & 0x01:
        raise MalformedPacket("MQTT5-3.1.2-3", "the reserved connect flag is set")
    if not flags & 0x04 and flags & 0x18:
        raise MalformedPacket("MQTT5-3.1.2-11", "a will QoS without a will")
    if not flags & 0x04 and flags & 0x20:
        raise MalformedPacket("MQTT5-3.1.2-13", "will retain without a will")
    if flags & 0x18 == 0x18:
        raise MalformedPacket("MQTT5-3.1.2-12", "will QoS 3")


def _with_properties(connect: Connect, properties: Properties) -> Connect:
    values = properties.values
    if not values:
        return connect
    if 0x16 in values and 0x15 not in values:
        text = "authentication data without a method"
        raise MalformedPacket("MQTT5 section 3.1.2.11.10", text, Reason.PROTOCOL_ERROR)
    return connect._replace(
        session_expiry=cast("int", values.get(0x11, 0)),
        receive_maximum=cast("int", values.get(0x21, 65535)),
        maximum_packet_size=cast("int | None", values.get(0x27)),
        topic_alias_maximum=cast("int", values.get(0x22, 0)),
        wants_problem_information=bool(values.get(0x17, 1)),
        authentication_method=cast("str | None", values.get(0x15)),
    )


def _will(body: PacketBody5, flags: int) -> Will:
    properties = body.properties(WILL)
    return Will(
        body.text(),
        body.binary(),
        flags >> 3 & 3,
        bool(flags & 0x20),
        delay=cast("int", properties.values.get(0x18, 0)),
        message_expiry=cast("int | None", properties.values.get(0x02)),
        properties=properties.forwarded,
    )
