"""MQTT 3.1.1 as a codec: reasons become return codes, and what has no room is left out."""

import pytest

from support import mqtt_samples as samples
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.packets import Acknowledgement, Disconnect, Subscribe, SubscriptionRequest
from thingctl_broker.mqtt.protocol.reason_codes import Reason


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.SUCCESS, 0),
        (Reason.UNSUPPORTED_PROTOCOL_VERSION, 1),
        (Reason.CLIENT_IDENTIFIER_NOT_VALID, 2),
        (Reason.SERVER_BUSY, 3),
        (Reason.SERVER_SHUTTING_DOWN, 3),
        (Reason.BAD_USER_NAME_OR_PASSWORD, 4),
        (Reason.NOT_AUTHORIZED, 5),
        (Reason.BANNED, 5),
    ],
)
def test_each_reason_has_its_return_code(reason, code):
    assert CODEC_3.encode_connack(reason) == bytes([0x20, 2, 0, code])


@pytest.mark.conforms("MQTT-3.2.2-4")
def test_a_refusal_never_has_a_session():
    assert CODEC_3.encode_connack(Reason.BANNED, session_present=True)[2] == 0
    assert CODEC_3.encode_connack(Reason.SUCCESS, session_present=True)[2] == 1


@pytest.mark.conforms("MQTT-3.9.3-1", "MQTT-3.9.3-2")
def test_every_refused_filter_is_0x80():
    codes: list[int] = [1, Reason.NOT_AUTHORIZED, 0]
    assert CODEC_3.encode_suback(7, codes) == bytes.fromhex("90 05 0007 01 80 00")


@pytest.mark.parametrize(
    ("packet", "wire"),
    [
        (CODEC_3.encode_puback(1, Reason.QUOTA_EXCEEDED, "x"), "40 02 0001"),
        (CODEC_3.encode_pubrec(1, Reason.QUOTA_EXCEEDED), "50 02 0001"),
        (CODEC_3.encode_pubrel(1), "62 02 0001"),
        (CODEC_3.encode_pubcomp(1), "70 02 0001"),
        (CODEC_3.encode_unsuback(1, [Reason.SUCCESS]), "b0 02 0001"),
        (CODEC_3.encode_disconnect(Reason.SERVER_SHUTTING_DOWN), ""),
        (
            CODEC_3.encode_publish(b"a", b"x", qos=1, packet_id=7, message_expiry=3, subscription_ids=(1,)),
            "32 06 0001 61 0007 78",
        ),
    ],
)
def test_what_has_no_room_is_left_out(packet, wire):
    assert packet == bytes.fromhex(wire)


def test_packets_come_apart_into_what_all_versions_share():
    subscribe = samples.frame(packets.encode_subscribe(7, [("a/#", 1), ("b", 2)]))
    wanted = [SubscriptionRequest("a/#", 1), SubscriptionRequest("b", 2)]
    assert CODEC_3.parse_subscribe(subscribe, 9) == Subscribe(7, wanted)
    assert CODEC_3.parse_unsubscribe(samples.frame(packets.encode_unsubscribe(7, ["a"])), 9) == (7, ["a"])
    assert CODEC_3.parse_acknowledgement(samples.frame(b"\x40\x02\x00\x07")) == Acknowledgement(7)
    assert CODEC_3.parse_disconnect(samples.frame(b"\xe0\x00")) == Disconnect()
