"""Identifiers of the front and of amqtt never meet on the wire, and each answer finds what it answers."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from thingctl_broker.mqtt.amqtt.packet_id_map import IDENTIFIERS_HALF, PacketIdMap

FEW = st.one_of(st.integers(1, 6), st.integers(0xFFFA, 0xFFFF))  # so that they meet


class Exchanging(RuleBasedStateMachine):
    """The front and amqtt send at random; the client answers in any order."""

    def __init__(self):
        super().__init__()
        self.taken = set()
        self.exchange = PacketIdMap(self.taken)
        self.on_wire = {}
        """What a client would know: by the identifier on the wire, that of amqtt."""

    @rule(packet_id=FEW)
    def the_front_sends(self, packet_id):
        if packet_id not in self.exchange:
            self.taken.add(packet_id)

    @rule(packet_id=FEW)
    def the_front_is_answered(self, packet_id):
        self.taken.discard(packet_id)

    @rule(packet_id=FEW)
    def amqtt_sends(self, packet_id):
        if packet_id in self.on_wire.values():
            return  # it has that one in flight
        wire_id = self.exchange.sent(packet_id)
        assert wire_id not in self.taken
        assert wire_id not in self.on_wire
        if packet_id not in self.taken and packet_id not in self.on_wire:
            assert wire_id == packet_id
        self.on_wire[wire_id] = packet_id

    @precondition(lambda self: self.on_wire)
    @rule(data=st.data(), ends=st.booleans())
    def the_client_answers(self, data, ends):
        wire_id = data.draw(st.sampled_from(sorted(self.on_wire)))
        assert self.exchange.answered(wire_id, ends=ends) == self.on_wire[wire_id]
        if ends:
            del self.on_wire[wire_id]

    @rule(wire_id=FEW, ends=st.booleans())
    def the_client_answers_what_amqtt_has_not_sent(self, wire_id, ends):
        if wire_id not in self.on_wire:
            assert self.exchange.answered(wire_id, ends=ends) is None

    @invariant()
    def both_ways_are_the_same(self):
        for wire_id, packet_id in self.on_wire.items():
            assert wire_id in self.exchange
            assert self.exchange.released(packet_id) == wire_id
        assert all(packet_id in self.on_wire or packet_id not in self.exchange for packet_id in range(1, 7))


TestExchanging = Exchanging.TestCase


def test_an_identifier_that_amqtt_has_given_up_goes_out_as_it_is():
    exchange = PacketIdMap(set())
    assert [exchange.sent(1), exchange.sent(1)] == [1, 1]
    assert exchange.answered(1, ends=True) == 1
    assert 1 not in exchange


def test_half_of_all_identifiers_are_amqtts_and_no_more():
    exchange = PacketIdMap(set())
    for packet_id in range(1, IDENTIFIERS_HALF + 1):
        assert exchange.sent(packet_id) == packet_id
    assert exchange.sent(IDENTIFIERS_HALF + 1) is None
    assert exchange.sent(1) == 1  # given up, and used again
    exchange.answered(1, ends=True)
    assert exchange.sent(IDENTIFIERS_HALF + 1) == IDENTIFIERS_HALF + 1
