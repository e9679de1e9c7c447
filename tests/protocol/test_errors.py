"""The one exception: a sentence and a place."""

from thingctl_protocol.errors import ProtocolError


def test_it_carries_its_sentence_and_its_pointer():
    error = ProtocolError("too long", "/params/0")
    assert (error.text, error.pointer, str(error)) == ("too long", "/params/0", "too long")


def test_without_a_pointer_it_is_about_the_whole_message():
    assert ProtocolError("too long").pointer == ""


def test_whoever_catches_value_errors_catches_it():
    assert issubclass(ProtocolError, ValueError)
