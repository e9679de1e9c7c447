"""Which clients a query admits."""

from __future__ import annotations

import pytest

from thingctl_broker.things.mqtt_clients import ClientQuery

LAMP = ("lamp/x1", "lamp", "lamp")
BACKEND = ("@dash/1", "@dash", None)


@pytest.mark.parametrize(
    ("query", "lamp", "backend"),
    [
        (ClientQuery(), True, True),
        (ClientQuery(thing="lamp"), True, False),
        (ClientQuery(thing="lock"), False, False),
        (ClientQuery(connected=True), True, True),
        (ClientQuery(connected=False), False, False),
        (ClientQuery(text="X1"), True, False),
        (ClientQuery(text="DASH"), False, True),
        (ClientQuery(visible="lamp".__eq__), True, False),
        (ClientQuery(visible="lock".__eq__), False, False),
    ],
)
def test_a_query_admits_what_it_asks_for(query, lamp, backend):
    assert query.admits(*LAMP, connected=True) is lamp
    assert query.admits(*BACKEND, connected=True) is backend


def test_a_client_without_a_user_name_is_found_by_its_id():
    assert ClientQuery(text="b").admits("abc", None, None, connected=True)
    assert not ClientQuery(text="x").admits("abc", None, None, connected=True)
