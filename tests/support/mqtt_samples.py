"""MQTT packets for tests: valid ones drawn by hypothesis, and one of each kind."""

from __future__ import annotations

from hypothesis import strategies as st

from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.frames import Frame, FrameScanner
from thingctl_broker.mqtt.protocol.packets import NEVER, Connect, Publish, Will

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
topics = texts.filter(bool)
payloads = st.binary(max_size=300)
packet_ids = st.integers(1, 0xFFFF)
qualities = st.integers(0, 2)

wills = st.tuples(topics, payloads, qualities, st.booleans()).map(lambda fields: Will(*fields))


@st.composite
def connects(draw: st.DrawFn) -> Connect:
    clean = draw(st.booleans())
    username = draw(st.none() | texts)
    return Connect(
        client_id=draw(texts if clean else topics),
        clean_session=clean,
        keep_alive=draw(st.integers(0, 0xFFFF)),
        username=username,
        password=None if username is None else draw(st.none() | st.binary(max_size=20)),
        will=draw(st.none() | wills),
        session_expiry=0 if clean else NEVER,
    )


@st.composite
def publishes_with_meaning(draw: st.DrawFn) -> Publish:
    qos = draw(qualities)
    return Publish(
        topic=draw(topics),
        qos=qos,
        retain=draw(st.booleans()),
        dup=draw(st.booleans()) if qos else False,
        packet_id=draw(packet_ids) if qos else 0,
        payload=draw(payloads),
    )


def encode(publish: Publish) -> bytes:
    return CODEC_3.encode_publish(
        publish.topic.encode(),
        publish.payload,
        qos=publish.qos,
        packet_id=publish.packet_id,
        dup=publish.dup,
        retain=publish.retain,
    )


filters = st.lists(st.tuples(topics, qualities), min_size=1, max_size=5)

encoded = st.one_of(
    connects().map(packets.encode_connect),
    publishes_with_meaning().map(encode),
    st.builds(CODEC_3.encode_puback, packet_ids),
    st.builds(CODEC_3.encode_pubrec, packet_ids),
    st.builds(CODEC_3.encode_pubcomp, packet_ids),
    st.builds(CODEC_3.encode_pubrel, packet_ids),
    st.builds(packets.encode_subscribe, packet_ids, filters),
    st.builds(packets.encode_unsubscribe, packet_ids, st.lists(topics, min_size=1, max_size=5)),
    st.sampled_from([b"\xc0\x00", b"\xe0\x00"]),
)
"""Any packet that a client may send, well formed."""


def frame(packet: bytes) -> Frame:
    """The one frame that ``packet`` is."""
    (whole,) = FrameScanner(len(packet)).feed(packet)
    return whole
