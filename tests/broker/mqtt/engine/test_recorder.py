"""What a client may hear of a QoS 2 message, and when: after a crash the broker must know it, too."""

import pytest

from thingctl_broker.mqtt.engine.encoder import PlainEncoder
from thingctl_broker.mqtt.engine.engine import Engine
from thingctl_broker.mqtt.engine.message import Message
from thingctl_broker.mqtt.engine.outbox import WINDOW
from thingctl_broker.mqtt.engine.store import NullRecords
from thingctl_broker.mqtt.engine.subscription_tree import SubscriptionOptions
from thingctl_broker.mqtt.protocol.packets import NEVER
from thingctl_broker.mqtt.server.limits import MqttLimits


class SlowRecords(NullRecords):
    """A store whose disk takes its time: what waits is called by ``commit``."""

    def __init__(self):
        self._waiting = []

    def then(self, kept):
        self._waiting.append(kept)

    def commit(self):
        waiting, self._waiting = self._waiting, []
        for kept in waiting:
            kept()


class KeptReader:
    """A client with a kept session that subscribes to everything."""

    def __init__(self):
        self.store = SlowRecords()
        self.engine = Engine(MqttLimits(), self.store)
        self.come()
        self.engine.subscribe(self.session, "#", SubscriptionOptions(2))

    def come(self):
        self.session, _ = self.engine.connect(
            "reader", owner=None, thing=None, clean=False, expiry=NEVER, will=None,
            encoder=PlainEncoder(), window=WINDOW, now=0.0,
        )  # fmt: skip
        self.session.resume(0.0)

    def come_back(self):
        self.engine.disconnect(self.session, 0.0, publishes_will=False)
        self.come()

    def heard(self):
        """The types of the packets since the last call."""
        return [packet[0] >> 4 for packet in iter(lambda: self.session.take_outgoing(1), b"")]


@pytest.fixture
def reader():
    reader = KeptReader()
    reader.engine.publish(Message("a", b"x", 2, publisher="writer"), 0.0)
    return reader


def test_a_message_at_qos_2_is_sent_when_its_identifier_is_kept(reader):
    assert reader.heard() == []
    reader.store.commit()
    assert reader.heard() == [3]


def test_a_client_that_came_back_meanwhile_hears_of_it_no_earlier_and_once(reader):
    reader.come_back()
    assert reader.heard() == []
    reader.store.commit()
    assert reader.heard() == [3]


def test_a_release_is_sent_when_it_is_kept_to_a_client_that_came_back_too(reader):
    reader.store.commit()
    assert reader.heard() == [3]
    reader.session.on_pubrec(1, 0, 0.0)
    reader.come_back()
    assert reader.heard() == []
    reader.store.commit()
    assert reader.heard() == [6]
