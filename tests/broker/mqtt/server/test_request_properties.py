"""What a request to an MQTT 5 client carries beside its payload, read by paho."""

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from thingctl_broker.mqtt.protocol.codec5 import CODEC_5
from thingctl_broker.mqtt.protocol.frames import FrameScanner
from thingctl_broker.mqtt.server.request_properties import RequestProperties
from thingctl_protocol.topics import Topics


def test_a_request_says_where_the_answer_goes_and_what_it_is_for():
    properties = RequestProperties(Topics().of_thing("lamp")).of("0193")
    packet = CODEC_5.encode_publish(b"t", b"{}", qos=1, packet_id=7, properties=properties, message_expiry=30)
    (frame,) = FrameScanner(1000).feed(packet)
    read = Properties(PacketTypes.PUBLISH)
    read.unpack(packet[frame.start + 5 :])
    assert {name: value for name, value in vars(read).items() if name[0].isupper()} == {
        "PayloadFormatIndicator": 1,
        "ContentType": "application/json",
        "ResponseTopic": "$emqx/commands/things/lamp/executions/0193/response",
        "CorrelationData": b"0193",
        "MessageExpiryInterval": 30,
    }
