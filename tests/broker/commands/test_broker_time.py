"""A thing is told the time rarely, and before it could judge wrongly."""

from __future__ import annotations

import pytest

from thingctl_broker.commands.broker_time import TELL_EVERY, ToldTime


def test_who_was_never_told_is_due():
    assert ToldTime().is_due(5.0, 1000.0)


def test_who_was_told_is_due_when_the_time_is_over_and_not_before():
    told = ToldTime()
    told.tell(5.0, 1000.0)
    assert not told.is_due(5.0 + TELL_EVERY - 0.1, 1000.0 + TELL_EVERY - 0.1)
    assert told.is_due(5.0 + TELL_EVERY, 1000.0 + TELL_EVERY)


@pytest.mark.parametrize("step", [-30 * 86400.0, -3600.0, -0.5, 0.5, 3600.0])
def test_who_was_told_before_the_clock_was_set_is_due(step):
    told = ToldTime()
    told.tell(5.0, 1000.0)
    assert told.is_due(5.1, 1000.1 + step)
    told.tell(5.1, 1000.1 + step)
    assert not told.is_due(5.2, 1000.2 + step)
