"""A CONNECT, of whatever version: it says which codec its client speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from thingctl_broker.mqtt.protocol.connect5 import parse_connect5
from thingctl_broker.mqtt.protocol.fields import PacketBody
from thingctl_broker.mqtt.protocol.frames import MalformedPacket
from thingctl_broker.mqtt.protocol.packets import NEVER, Connect, ConnectRefused, Will
from thingctl_broker.mqtt.protocol.properties import PacketBody5
from thingctl_broker.mqtt.protocol.reason_codes import Reason

if TYPE_CHECKING:
    from thingctl_broker.mqtt.protocol.frames import Frame

_BRIDGE: Final = 0x80
"""What a bridge adds to the protocol level, as mosquitto has it."""

_VERSIONS: Final = {(b"MQIsdp", 3): 3, (b"MQTT", 4): 4, (b"MQTT", 5): 5}


def _protocol_of(body: PacketBody) -> tuple[int, bool]:
    """The version of a CONNECT, and whether a bridge sends it."""
    name = body.binary()
    level = body.byte()
    if name not in {b"MQTT", b"MQIsdp"}:
        raise MalformedPacket(
            "MQTT-3.1.2-1", f"protocol name {name[:16]!a}", Reason.UNSUPPORTED_PROTOCOL_VERSION
        )
    version = _VERSIONS.get((name, level & ~_BRIDGE))
    is_bridge = level >= _BRIDGE
    if version is None or (is_bridge and version == 5):  # a bridge on MQTT 5 is an ordinary client
        raise ConnectRefused(
            Reason.UNSUPPORTED_PROTOCOL_VERSION, f"MQTT protocol level {level} of {name.decode()}"
        )
    return version, is_bridge


def parse_connect(frame: Frame) -> Connect:
    """Take a CONNECT apart [section 3.1].

    Raises :class:`MalformedPacket` where the standard wants the connection closed without
    a word, and :class:`ConnectRefused` where it wants a return code first.
    """
    body = PacketBody(frame)
    version, is_bridge = _protocol_of(body)
    if version == 5:
        return parse_connect5(PacketBody5(frame._replace(start=frame.start + 7)))
    flags = body.byte()
    keep_alive = body.number()
    has_name, has_password, will_retain = bool(flags & 0x80), bool(flags & 0x40), bool(flags & 0x20)
    will_qos, has_will, clean = flags >> 3 & 3, bool(flags & 0x04), bool(flags & 0x02)
    if flags & 0x01:
        raise MalformedPacket("MQTT-3.1.2-3", "the reserved connect flag is set")
    if not has_will and (will_qos or will_retain):
        raise MalformedPacket("MQTT-3.1.2-11", "will flags without a will")
    if will_qos == 3:
        raise MalformedPacket("MQTT-3.1.2-14", "will QoS 3")
    if has_password and not has_name:
        raise MalformedPacket("MQTT-3.1.2-22", "a password without a user name")
    client_id = body.text()
    will = Will(body.text(), body.binary(), will_qos, will_retain) if has_will else None
    username = body.text() if has_name else None
    password = body.binary() if has_password else None
    if body.left:
        raise MalformedPacket("MQTT-3.1.3-1", f"{body.left} bytes behind the last field")
    if not client_id and not clean:
        raise ConnectRefused(
            Reason.CLIENT_IDENTIFIER_NOT_VALID, "no client identifier, and a session to be kept"
        )
    return Connect(
        client_id,
        clean,
        keep_alive,
        username,
        password,
        will,
        version=version,
        is_bridge=is_bridge,
        session_expiry=0 if clean else NEVER,
    )
