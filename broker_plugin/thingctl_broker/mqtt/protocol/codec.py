"""What a version of MQTT must be able to do: its packets from bytes, and to bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thingctl_broker.mqtt.protocol.frames import Frame
    from thingctl_broker.mqtt.protocol.packets import (
        Acknowledgement,
        Disconnect,
        PacketType,
        Publish,
        Subscribe,
        Unsubscribe,
    )


class ConnackProperties(NamedTuple):
    """What a server says of itself in a CONNACK of MQTT 5. None and "": it is left out."""

    session_expiry: int | None = None
    receive_maximum: int | None = None
    maximum_qos: int | None = None
    retain_available: bool | None = None
    maximum_packet_size: int | None = None
    assigned_client_id: str = ""
    topic_alias_maximum: int | None = None
    wildcard_available: bool | None = None
    subscription_ids_available: bool | None = None
    shared_available: bool | None = None
    server_keep_alive: int | None = None
    response_information: str = ""
    server_reference: str = ""


class Codec(Protocol):
    """The packets of one version. What parses raises ``MalformedPacket`` and nothing else.

    What a version has no room for is left out of its packets.
    """

    @property
    def version(self) -> int:
        """The protocol level."""
        ...

    def check_shape(self, frame: Frame) -> PacketType:
        """Return the type of a packet other than PUBLISH, its flags and length being right for it."""
        ...

    def parse_publish(self, frame: Frame) -> Publish:
        """Take a PUBLISH apart. Whether its topic is a topic is the caller's to check."""
        ...

    def parse_acknowledgement(self, frame: Frame) -> Acknowledgement:
        """Take a PUBACK, PUBREC, PUBREL or PUBCOMP apart."""
        ...

    def parse_subscribe(self, frame: Frame, most: int) -> Subscribe:
        """Take a SUBSCRIBE of at most ``most`` filters apart."""
        ...

    def parse_unsubscribe(self, frame: Frame, most: int) -> Unsubscribe:
        """Take an UNSUBSCRIBE of at most ``most`` filters apart."""
        ...

    def parse_disconnect(self, frame: Frame) -> Disconnect:
        """Take a DISCONNECT apart."""
        ...

    def encode_connack(
        self,
        reason: int,
        *,
        session_present: bool = False,
        reason_string: str = "",
        properties: ConnackProperties | None = None,
    ) -> bytes:
        """Put a CONNACK together. A refusal never has a session."""
        ...

    def encode_publish(
        self,
        topic: bytes,
        payload: bytes,
        *,
        qos: int = 0,
        packet_id: int = 0,
        dup: bool = False,
        retain: bool = False,
        properties: bytes = b"",
        message_expiry: int | None = None,
        subscription_ids: Sequence[int] = (),
        topic_alias: int = 0,
    ) -> bytes:
        """Put a PUBLISH together. ``packet_id`` is written from QoS 1 on. ``message_expiry``: seconds."""
        ...

    def encode_puback(self, packet_id: int, reason: int = 0, reason_string: str = "") -> bytes:
        """Put a PUBACK together."""
        ...

    def encode_pubrec(self, packet_id: int, reason: int = 0, reason_string: str = "") -> bytes:
        """Put a PUBREC together."""
        ...

    def encode_pubrel(self, packet_id: int, reason: int = 0, reason_string: str = "") -> bytes:
        """Put a PUBREL together."""
        ...

    def encode_pubcomp(self, packet_id: int, reason: int = 0, reason_string: str = "") -> bytes:
        """Put a PUBCOMP together."""
        ...

    def encode_suback(self, packet_id: int, codes: list[int]) -> bytes:
        """Put a SUBACK together; ``codes`` are reason codes, in the order of the filters."""
        ...

    def encode_unsuback(self, packet_id: int, codes: list[int]) -> bytes:
        """Put an UNSUBACK together; ``codes`` are reason codes, in the order of the filters."""
        ...

    def encode_disconnect(self, reason: int, reason_string: str = "", server_reference: str = "") -> bytes:
        """Put a server's DISCONNECT together; empty where a version has none."""
        ...
