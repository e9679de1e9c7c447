"""The properties of a request to an MQTT 5 client: any client that answers requests can be a device.

Pure. The response topic and the correlation data say where the answer goes and what it is for
[MQTT5-4.10]; the payload says the same to those that know Fleets' topics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thingctl_broker.mqtt.protocol.packets import encode_binary
from thingctl_broker.mqtt.protocol.properties import Property

if TYPE_CHECKING:
    from thingctl_protocol.topics import ThingTopics

_IS_TEXT = bytes((Property.PAYLOAD_FORMAT_INDICATOR, 1))
_JSON = bytes((Property.CONTENT_TYPE,)) + encode_binary(b"application/json")


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
            _JSON,
            Property.RESPONSE_TOPIC,
            response,
            Property.CORRELATION_DATA,
            encode_binary(key),
        )
