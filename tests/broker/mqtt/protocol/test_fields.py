"""The fields of packets."""

import pytest

from support import mqtt_samples as samples
from thingctl_broker.mqtt.protocol.fields import PacketBody, encode_binary
from thingctl_broker.mqtt.protocol.frames import MalformedPacket


def test_fields_are_read_front_to_back_and_never_beyond_the_end():
    body = PacketBody(samples.frame(b"\x10\x06\x01" + encode_binary(b"ab") + b"\x07"))
    assert (body.byte(), body.text(), body.left) == (1, "ab", 1)
    with pytest.raises(MalformedPacket, match="ends inside a field"):
        body.number()
