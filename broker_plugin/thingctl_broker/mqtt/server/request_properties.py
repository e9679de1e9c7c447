"""The properties of a request to an MQTT 5 client: any client that answers requests can be a device.

Pure. The response topic and the correlation data say where the answer goes and what it is for
[MQTT5 section 4.10]; the payload says the same to those that know Fleets' topics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from thingctl_broker.mqtt.protocol.fields import encode_binary

if TYPE_CHECKING:
    from thingctl_protocol.topics import ThingTopics

_IS_TEXT: Final = b"\x01\x01"
"""Payload format indicator [MQTT5 section 3.3.2.3.2]."""

_IS_JSON: Final = b"\x03" + encode_binary(b"application/json")
"""Content type [MQTT5 section 3.3.2.3.9]."""

_RESPONSE_TOPIC: Final = 0x08

_CORRELATION_DATA: Final = 0x09


class RequestProperties:
    """Those of one thing's requests."""

    __slots__ = ("_topics",)

    def __init__(self, topics: ThingTopics) -> None:
        self._topics = topics

    def of(self, execution_id: str) -> bytes:
        """Encoded: content type, response topic, and the execution's id as correlation data."""
        topics, key = self._topics, execution_id.encode()
        response = encode_binary(b"%b%b%b" % (topics.response_start, key, topics.response_end))
        return b"%b%b%c%b%c%b" % (
            _IS_TEXT,
            _IS_JSON,
            _RESPONSE_TOPIC,
            response,
            _CORRELATION_DATA,
            encode_binary(key),
        )
