"""The law of an execution, held against a second statement of it, pair by pair."""

from itertools import product

import pytest

from thingctl_protocol.errors import ProtocolError, TransitionError
from thingctl_protocol.statuses import DEVICE_STATUSES, TERMINAL, TRANSITIONS, Delivery, Status, advance

ENDS = {"SUCCEEDED", "FAILED", "REJECTED", "TIMED_OUT", "CANCELED"}
LAWFUL = {(live, to) for live in ("SENT", "IN_PROGRESS") for to in ENDS | {"IN_PROGRESS"}}


@pytest.mark.parametrize(("current", "to"), list(product(Status, Status)))
def test_a_status_moves_only_as_the_law_says(current, to):
    if (current.value, to.value) in LAWFUL:
        assert advance(current, to) is to
    else:
        with pytest.raises(TransitionError, match=rf"{current}.*cannot become {to}"):
            advance(current, to)


def test_every_status_has_its_row():
    assert set(TRANSITIONS) == set(Status)


def test_nothing_returns_to_sent():
    assert all(Status.SENT not in row for row in TRANSITIONS.values())


def test_the_terminal_statuses_are_those_that_lead_nowhere():
    assert {status.value for status in TERMINAL} == ENDS
    assert {status for status, row in TRANSITIONS.items() if not row} == TERMINAL


def test_a_device_says_all_but_the_brokers_own_two():
    assert set(Status) - DEVICE_STATUSES == {Status.SENT, Status.TIMED_OUT}


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        TRANSITIONS[Status.SENT] = frozenset()


def test_the_words_on_the_wire_are_the_names():
    assert all(member.value == member.name for enum in (Status, Delivery) for member in enum)
    assert [delivery.value for delivery in Delivery] == ["QUEUED", "PUBLISHED", "DELIVERED", "STARTED"]


def test_a_wrong_move_is_a_protocol_error():
    assert issubclass(TransitionError, ProtocolError)
