"""The table of properties, with paho as the peer that knows it too."""

import pytest
from paho.mqtt.properties import Properties as PahoProperties

from thingctl_broker.mqtt.protocol.properties import PROPERTIES, WILL, ValueType, encode_properties

WILL_OF_PAHO = 99
OURS = {ValueType.TEXT: "ä", ValueType.BINARY: b"\0x", ValueType.PAIR: ("k", "v"), ValueType.VARIABLE: 300}


def test_the_table_is_that_of_paho():
    peer = PahoProperties(1)
    for number, row in PROPERTIES.items():
        packets = peer.properties[number][1]
        assert {WILL if kind == WILL_OF_PAHO else kind for kind in packets} == row.packets, row.name
    assert peer.properties.keys() == PROPERTIES.keys()


@pytest.mark.parametrize("number", sorted(PROPERTIES))
@pytest.mark.conforms("MQTT5-7.0.0-2")
def test_what_is_written_is_what_paho_reads(number):
    row = PROPERTIES[number]
    value = OURS.get(row.type, 1)
    packet = max(row.packets)
    peer = PahoProperties(packet or WILL_OF_PAHO)
    encoded = encode_properties([(number, value)])
    peer.unpack(encoded)
    assert peer.pack() == encoded
    assert encode_properties([(number, None)]) == b"\0"
