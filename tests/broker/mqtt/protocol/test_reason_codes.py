"""Reason codes in words."""

from thingctl_broker.mqtt.protocol.reason_codes import Reason, RequestRefused, is_for_good, words


def test_reason_codes_have_words():
    assert words(0x97) == "quota exceeded (0x97)"
    assert words(0xFE) == "for a reason of its own (0xFE)"


def test_what_waiting_does_not_mend_is_for_good():
    assert all(is_for_good(code) for code in (0x84, 0x86, 0x87, 0x9E))
    assert not any(is_for_good(code) for code in (0x88, 0x89, 0x97, 0x9F))
    assert not RequestRefused("why").for_good


def test_every_refusal_of_the_standard_has_words():
    assert [code for code in Reason if code >= 0x80 and "of its own" in words(code)] == []
