"""Times on the command line."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from thingctl_broker.cli.exits import Failure
from thingctl_broker.cli.moments import earlier, later


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("45s", "2030-01-01T00:00:45+00:00"),
        ("2h", "2030-01-01T02:00:00+00:00"),
        ("30d", "2030-01-31T00:00:00+00:00"),
        ("2031-01-01T02:00:00+02:00", "2031-01-01T00:00:00+00:00"),
    ],
)
def test_a_time_from_now_on(text, at):
    assert later(text, datetime(2030, 1, 1, tzinfo=UTC)) == at


@pytest.mark.parametrize("text", ["", "soon", "30", "-1d", "999999d", "2030-13-01"])
def test_what_is_no_time(text):
    if text == "999999d":
        assert later(text, datetime(2030, 1, 1, tzinfo=UTC)).startswith("4767")
        return
    with pytest.raises(Failure):
        later(text, datetime(2030, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("45s", "2029-12-31T23:59:15+00:00"),
        ("2d", "2029-12-30T00:00:00+00:00"),
        ("2031-01-01T02:00:00+02:00", "2031-01-01T00:00:00+00:00"),
    ],
)
def test_a_time_ago(text, at):
    assert earlier(text, datetime(2030, 1, 1, tzinfo=UTC)) == at


def test_a_time_before_all_time_is_none():
    with pytest.raises(Failure, match="no time"):
        earlier("999999d", datetime(2030, 1, 1, tzinfo=UTC))
